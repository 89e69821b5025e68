//! While a machine is saved or loaded its clients are heard: those that ask are answered, the
//! others wait, and who ends the machine is obeyed. The disk is a server's, which is stopped to make
//! saving take as long as it is to take.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::migrate::checker;
use super::pause::{size, wait_for_more};
use super::snapshots::{MIB, expect_said, human, image};
use super::{SOON, expect_equal, expect_shown, expect_status, shown};
use crate::rig::Result;
use crate::rig::qmp::{Qmp, connect};
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("snapshots::others_are_heard", 90, others_are_heard),
        Test::tiny("snapshots::at_a_human_monitor", 90, at_a_human_monitor),
        Test::tiny("snapshots::ended_meanwhile", 90, ended_meanwhile),
        Test::tiny("snapshots::client_left_meanwhile", 90, client_left_meanwhile),
    ]
}

/// A guest that checks its memory, whose disk is at a server.
struct Served {
    server: TestVm,
    builder: VmBuilder,
    vm: TestVm,
    /// The second monitor, and one for people.
    monitors: [PathBuf; 2],
    rounds: PathBuf,
}

impl Served {
    fn new(ctx: &Ctx) -> Result<Served> {
        let (image, socket) = (image(ctx, "served")?, ctx.dir.join("nbd"));
        // What is served does not grow.
        OpenOptions::new().write(true).open(&image)?.set_len(64 * MIB)?;
        let file = format!("if=none,id=d,format=raw,file={}", image.display());
        let mut server = ctx.vm().without_guest().args(["-drive", &file]).start()?;
        let addr = json!({ "type": "unix", "data": { "path": socket } });
        server.qmp.execute("nbd-server-start", json!({ "addr": addr }))?;
        server.qmp.execute("nbd-server-add", json!({ "device": "d", "writable": true }))?;
        let monitors = [ctx.dir.join("second"), ctx.dir.join("human")];
        let [second, human] =
            monitors.each_ref().map(|path| format!("unix:{},server=on,wait=off", path.display()));
        let disk =
            format!("if=none,id=d0,format=qcow2,file=nbd:unix:{}:exportname=d", socket.display());
        let (builder, rounds) = checker(ctx)?;
        let builder = builder.args(["-drive", &disk, "-qmp", &second, "-monitor", &human]);
        let vm = builder.clone().start()?;
        Ok(Served { server, builder, vm, monitors, rounds })
    }

    /// From now on the disk takes and gives nothing.
    fn hold(&self) -> Result {
        self.server.process.signal(Signal::STOP)
    }

    fn go_on(&self) -> Result {
        self.server.process.signal(Signal::CONT)
    }

    /// The guest has found nothing wrong in its memory.
    fn expect_sound(mut self) -> Result {
        let now = size(&self.rounds)?;
        wait_for_more(now, || size(&self.rounds))?;
        self.vm.console.type_text("x")?;
        shown(&mut self.vm, "rounds")?;
        expect_shown(&mut self.vm, "bad", 0)
    }
}

fn asked(line: &str) -> String {
    let arguments = json!({ "command-line": line });
    json!({ "execute": "human-monitor-command", "arguments": arguments, "id": line }).to_string()
}

fn expect_state(client: &mut Qmp, state: &str) -> Result {
    let status = client.execute("query-status", json!({}))?["status"].clone();
    expect_equal("the state", status, json!(state))
}

/// Fails unless the answer to a line is that it prints nothing.
fn expect_answered(client: &mut Qmp, line: &str) -> Result {
    let reply = client.reply(Instant::now() + SOON)?;
    expect_equal("the answer", reply, json!({ "return": "", "id": line }))
}

fn others_are_heard(ctx: &Ctx) -> Result {
    let mut served = Served::new(ctx)?;
    wait_for_more(0, || size(&served.rounds))?;
    let mut second = Qmp::connect(&served.monitors[0], SOON)?;
    for (line, state) in [("savevm s", "save-vm"), ("loadvm s", "restore-vm")] {
        second.forget_events();
        served.hold()?;
        served.vm.qmp.send_text(&asked(line))?;
        second.event("STOP", SOON)?;
        expect_state(&mut second, state)?;
        for command in ["query-block", "query-blockstats", "query-cpus", "query-commands"] {
            second.execute(command, json!({}))?;
        }
        let said =
            second.execute("human-monitor-command", json!({ "command-line": "info status" }))?;
        expect_equal("said", said, json!(format!("VM status: paused ({state})\r\n")))?;
        // What changes something waits until it is done.
        second.send_text(&json!({ "execute": "stop", "id": 1 }).to_string())?;
        second.send_text(&json!({ "execute": "query-status", "id": 2 }).to_string())?;
        served.go_on()?;
        expect_answered(&mut served.vm.qmp, line)?;
        let deadline = Instant::now() + SOON;
        second.event("RESUME", SOON)?;
        second.event("STOP", SOON)?;
        expect_equal("stop", second.reply(deadline)?, json!({ "return": {}, "id": 1 }))?;
        let status = second.reply(deadline)?["return"]["status"].clone();
        expect_equal("the state", status, json!("paused"))?;
        served.vm.qmp.execute("cont", json!({}))?;
        let now = size(&served.rounds)?;
        wait_for_more(now, || size(&served.rounds))?;
    }
    served.expect_sound()
}

/// Reads until the client was told this.
fn read_until(stream: &mut UnixStream, end: &str) -> Result<String> {
    stream.set_read_timeout(Some(SOON))?;
    let (mut said, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut part)?;
        said.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&said);
        if text.ends_with(end) {
            return Ok(text.into_owned());
        }
        if count == 0 {
            return Err(format!("the monitor ends with {text:?}").into());
        }
    }
}

/// Whoever types gets no prompt before it is done; what was typed ahead is done then.
fn at_a_human_monitor(ctx: &Ctx) -> Result {
    let mut served = Served::new(ctx)?;
    wait_for_more(0, || size(&served.rounds))?;
    let mut typed = connect(&served.monitors[1], SOON)?;
    read_until(&mut typed, "(qemu) ")?;
    served.hold()?;
    served.vm.qmp.forget_events();
    typed.write_all(b"savevm s\ninfo status\nstop\n")?;
    served.vm.qmp.event("STOP", SOON)?;
    expect_status(&mut served.vm, "save-vm")?;
    served.go_on()?;
    served.vm.qmp.event("RESUME", SOON)?;
    served.vm.qmp.event("STOP", SOON)?;
    let said = read_until(&mut typed, "stop\r\n(qemu) ")?;
    if !said.contains("VM status: running\r\n(qemu) ") {
        return Err(format!("the monitor says {said:?}").into());
    }
    let listed = human(&mut served.vm, "info snapshots")?;
    expect_equal("snapshots", listed.lines().count(), 2)
}

/// Ending the machine gives up what is being saved, and leaves the disk as it was.
fn ended_meanwhile(ctx: &Ctx) -> Result {
    let mut served = Served::new(ctx)?;
    let now = wait_for_more(0, || size(&served.rounds))?;
    expect_said(&mut served.vm, "savevm before", "")?;
    wait_for_more(now, || size(&served.rounds))?;
    let mut second = Qmp::connect(&served.monitors[0], SOON)?;
    for line in ["savevm s", "loadvm before"] {
        second.forget_events();
        served.hold()?;
        served.vm.qmp.send_text(&asked(line))?;
        second.event("STOP", SOON)?;
        second.execute("quit", json!({}))?;
        served.go_on()?;
        second.event("SHUTDOWN", SOON)?;
        let reply = served.vm.qmp.reply(Instant::now() + SOON)?;
        let told = reply["return"].as_str().unwrap_or_default().to_owned();
        let ends = told.contains("the machine ends");
        expect_equal(&format!("told to end: {reply}"), ends, true)?;
        expect_equal("the exit code", served.vm.exit_code(SOON)?, 0)?;

        served.vm = served.builder.clone().start()?;
        second = Qmp::connect(&served.monitors[0], SOON)?;
        let listed = human(&mut served.vm, "info snapshots")?;
        let names: Vec<_> = listed.lines().skip(1).map(|line| line[10..30].trim()).collect();
        expect_equal("snapshots", names, vec!["before"])?;
    }
    expect_said(&mut served.vm, "loadvm before", "")?;
    served.expect_sound()
}

/// Who wanted it may go: it is done all the same, and the next client is served meanwhile. What a
/// client wants that goes while that waits is done too.
fn client_left_meanwhile(ctx: &Ctx) -> Result {
    let mut served = Served::new(ctx)?;
    wait_for_more(0, || size(&served.rounds))?;
    let mut second = Qmp::connect(&served.monitors[0], SOON)?;
    second.forget_events();
    served.vm.qmp.forget_events();
    served.hold()?;
    second.send_text(&asked("savevm s"))?;
    served.vm.qmp.event("STOP", SOON)?;
    drop(second);
    let mut third = Qmp::connect(&served.monitors[0], SOON)?;
    expect_state(&mut third, "save-vm")?;
    third.send_text(&json!({ "execute": "stop" }).to_string())?;
    drop(third);
    expect_state(&mut served.vm.qmp, "save-vm")?;
    served.go_on()?;
    served.vm.qmp.event("RESUME", SOON)?;
    served.vm.qmp.event("STOP", SOON)?;
    expect_status(&mut served.vm, "paused")?;
    let mut last = Qmp::connect(&served.monitors[0], SOON)?;
    let said = last.execute("human-monitor-command", json!({ "command-line": "loadvm s" }))?;
    expect_equal("said", said, Value::from(""))?;
    last.execute("cont", json!({}))?;
    drop(last);
    served.expect_sound()
}
