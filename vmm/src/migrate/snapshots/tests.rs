use resources::iol::Thread;
use resources::request::{Mailbox as _, Request as Asked};
use serde_json::json;
use vmm_sys_util::tempdir::TempDir;

use qmp::monitors::Host;

use super::*;
use crate::chardevs::Chardevs;
use crate::cmd::testing::{ask, events, fake};

/// A machine with a disk whose format has snapshots.
struct Rig {
    vm: Vm,
    _dir: TempDir,
    _io: Thread,
}

impl Rig {
    fn new() -> Rig {
        let (io, handle) = Thread::spawn("snapshots").unwrap();
        let mut vm = fake();
        vm.chardevs = Chardevs::new(handle, vm.mailbox(), None);
        let dir = TempDir::new().unwrap();
        let file = dir.as_path().join("base");
        std::fs::write(&file, [0; 65536]).unwrap();
        let mut rig = Rig { vm, _dir: dir, _io: io };
        let said =
            rig.begin(&format!("drive_add 0 if=none,id=d,snapshot=on,file={}", file.display()));
        assert_eq!(said, "OK\r\n");
        rig
    }

    fn begin(&mut self, line: &str) -> String {
        let said = ask(&mut self.vm, "human-monitor-command", json!({ "command-line": line }));
        said.unwrap().as_str().unwrap().to_owned()
    }

    /// Until no snapshot runs; what the client is answered.
    fn finish(&mut self) -> String {
        while self.vm.has_snapshot_running() {
            self.vm.service();
            std::thread::yield_now();
        }
        let ticket = self.vm.context.later.take().unwrap();
        let (answered, text) = self.vm.answers.pop().unwrap();
        assert_eq!(answered, ticket);
        text
    }

    fn whole(&mut self, line: &str) -> String {
        let said = self.begin(line);
        if self.vm.has_snapshot_running() { self.finish() } else { said }
    }
}

fn request(name: &str, line: Option<&str>) -> Request {
    let arguments = line.map(|line| json!({ "command-line": line }));
    let arguments = arguments.unwrap_or(json!({})).as_object().cloned().unwrap();
    Request { name: name.to_owned(), arguments, id: None }
}

#[test]
fn only_what_changes_nothing_or_ends_everything_does_not_wait() {
    let mut rig = Rig::new();
    let waits = |rig: &Rig, name: &str, line| rig.vm.must_wait(&request(name, line));
    assert!(qmp::COMMANDS.iter().all(|command| !waits(&rig, command.name, None)));
    assert_eq!(rig.begin("savevm s"), "");
    for command in qmp::COMMANDS {
        let asks = command.name.starts_with("query-")
            || command.name.starts_with("qom-list")
            || ["qom-get", "device-list-properties", "quit"].contains(&command.name);
        assert_eq!(waits(&rig, command.name, None), !asks, "{}", command.name);
    }
    // Mistakes are told at once.
    assert!(!waits(&rig, "frob", None));
    for (line, expected) in [
        ("", false),
        ("frob", false),
        ("info status", false),
        ("  info  snapshots", false),
        ("q", false),
        ("help savevm", false),
        ("stop", true),
        ("savevm", true),
        ("delvm s", true),
        ("qemu-io d \"write 0 1M\"", true),
    ] {
        assert_eq!(waits(&rig, "human-monitor-command", Some(line)), expected, "{line:?}");
        assert_eq!(rig.vm.line_must_wait(line), expected, "{line:?}");
    }
    assert_eq!(rig.finish(), "");
    assert!(!waits(&rig, "stop", None));
}

#[test]
fn what_others_ask_for_comes_after_it() {
    let mut rig = Rig::new();
    rig.vm.start();
    events(&mut rig.vm);
    rig.begin("savevm s");
    assert_eq!(rig.vm.state(), RunState::SaveVm);
    rig.vm.mailbox().request(Asked::Reset);
    assert_eq!(rig.finish(), "");
    rig.vm.service();
    assert_eq!(events(&mut rig.vm), ["STOP", "RESUME", "RESET"]);
    assert!(rig.vm.is_running());
}

/// The machine was saved once; it is in no state to be kept before it is loaded whole, or reset.
#[test]
fn half_a_machine_is_not_kept() {
    let mut rig = Rig::new();
    rig.vm.start();
    assert_eq!(rig.whole("savevm s"), "");
    rig.vm.pause();
    rig.vm.migration.half_loaded = true;
    rig.vm.fail();
    assert!(rig.whole("savevm t").starts_with("Resetting the Virtual Machine is required"));
    assert_eq!(rig.whole("loadvm s"), "");
    assert_eq!(rig.whole("savevm t"), "");
    rig.vm.migration.half_loaded = true;
    rig.vm.fail();
    ask(&mut rig.vm, "system_reset", json!({})).unwrap();
    rig.vm.service();
    assert_eq!(rig.whole("savevm t"), "");
}

#[test]
fn why_a_guest_does_not_run_is_saved_with_it() {
    let mut rig = Rig::new();
    rig.vm.start();
    rig.vm.mailbox().request(Asked::Panicked);
    rig.vm.service();
    assert_eq!(rig.vm.state(), RunState::GuestPanicked);
    assert_eq!(rig.whole("savevm s"), "");
    assert_eq!(rig.vm.state(), RunState::GuestPanicked);
    ask(&mut rig.vm, "system_reset", json!({})).unwrap();
    rig.vm.service();
    rig.vm.start();
    assert_eq!(rig.whole("loadvm s"), "");
    assert_eq!(rig.vm.state(), RunState::GuestPanicked);
    rig.vm.pause();
    assert_eq!(rig.vm.state(), RunState::GuestPanicked);
}

#[test]
fn a_sleeping_machine_sleeps_on_while_it_is_loaded() {
    let mut rig = Rig::new();
    rig.vm.start();
    assert_eq!(rig.whole("savevm s"), "");
    rig.vm.mailbox().request(Asked::Suspend);
    rig.vm.service();
    assert!(rig.vm.is_active());
    rig.begin("loadvm s");
    while rig.vm.has_snapshot_running() {
        assert!(!rig.vm.is_active());
        rig.vm.service();
    }
    assert_eq!(rig.finish(), "");
    assert_eq!(rig.vm.state(), RunState::Paused);
}

#[test]
fn the_end_comes_when_it_was_given_up() {
    let mut rig = Rig::new();
    rig.vm.start();
    rig.begin("savevm s");
    rig.vm.quit();
    while rig.vm.exit_status().is_none() {
        rig.vm.service();
        std::thread::yield_now();
    }
    assert!(!rig.vm.has_snapshot_running());
    let (_, text) = rig.vm.answers.pop().unwrap();
    assert!(text.is_empty() || text.contains("the machine ends"), "{text}");
}

fn snapshot(id: &str, name: &str) -> block::image::Snapshot {
    block::image::Snapshot {
        id: id.to_owned(),
        name: name.to_owned(),
        vm_state_size: 0,
        date: (0, 0),
        vm_clock: 0,
        disk_size: 0,
    }
}

#[test]
fn a_name_is_meant_before_an_identity_and_tells_which_belong_together() {
    let all = [snapshot("1", "2"), snapshot("2", "x"), snapshot("3", "x"), snapshot("4", "")];
    let id = |found: Option<&block::image::Snapshot>| found.map(|found| found.id.clone());
    assert_eq!(id(disks::meant(&all, "2")).as_deref(), Some("1"));
    assert_eq!(id(disks::meant(&all, "3")).as_deref(), Some("3"));
    assert_eq!(id(disks::meant(&all, "5")), None);
    assert_eq!(id(disks::twin(&all, &snapshot("3", "x"))).as_deref(), Some("3"));
    assert_eq!(id(disks::twin(&all, &snapshot("9", "x"))).as_deref(), Some("2"));
    assert_eq!(id(disks::twin(&all, &snapshot("2", "y"))), None);
    assert_eq!(id(disks::twin(&all, &snapshot("4", ""))).as_deref(), Some("4"));
    assert_eq!(id(disks::twin(&all, &snapshot("5", ""))), None);
}
