//! People at the human monitor, and programs that say they are people.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use super::asm::Guest;
use super::{SOON, expect_equal, expect_status, memory_kib};
use crate::rig::Result;
use crate::rig::console::{Console, Transcript, Writer};
use crate::rig::process::{die_with_parent, wait_for_exit};
use crate::rig::qmp::connect;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::TestVm;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("human::asks_and_is_answered", 60, asks_and_is_answered),
        Test::tiny("human::edits_the_line", 60, edits_the_line),
        Test::tiny("human::two_at_once", 60, two_at_once),
        Test::tiny("human::on_standard_streams", 60, on_standard_streams),
        Test::tiny("human::shares_the_terminal", 60, shares_the_terminal),
        Test::tiny("human::never_reads", 60, never_reads),
        Test::tiny("human::types_nonsense", 60, types_nonsense),
    ]
}

const PROMPT: &str = "(qemu) ";

/// A guest that halts, with human monitors on sockets of these names.
fn machine(ctx: &Ctx, names: &[&str]) -> Result<TestVm> {
    let mut g = Guest::new()?;
    g.halt()?;
    let mut vm = g.vm(ctx)?.cpus(2);
    for name in names {
        let path = ctx.dir.join(name);
        let chardev = format!("socket,id={name},path={},server=on,wait=off", path.display());
        vm = vm.args(["-chardev", &chardev, "-mon", name]);
    }
    vm.start()
}

/// Sits down at the monitor on the socket of that name.
fn sit_down(dir: &Path, name: &str) -> Result<Console> {
    let stream = connect(&dir.join(name), SOON)?;
    let transcript = Transcript::collect(stream.try_clone()?);
    let mut human = Console::new("human monitor", transcript, stream);
    human.expect("monitor - type 'help' for more information\n(qemu) ", SOON)?;
    Ok(human)
}

/// Types a line and gives what is answered, without the echo.
fn ask(human: &mut Console, line: &str) -> Result<String> {
    human.type_text(&format!("{line}\n"))?;
    human.expect(&format!("{line}\n"), SOON)?;
    human.expect(PROMPT, SOON)
}

fn asks_and_is_answered(ctx: &Ctx) -> Result {
    let mut vm = machine(ctx, &["h"])?;
    let mut human = sit_down(&ctx.dir, "h")?;
    expect_equal("running", ask(&mut human, "info status")?.as_str(), "VM status: running\n")?;
    expect_equal("stop", ask(&mut human, "stop")?.as_str(), "")?;
    vm.qmp.event("STOP", SOON)?;
    let status = ask(&mut human, "info status")?;
    expect_equal("stopped", status.as_str(), "VM status: paused\n")?;
    let unknown = ask(&mut human, "foo")?;
    expect_equal("unknown", unknown.as_str(), "unknown command: 'foo'\n")?;
    let history = ask(&mut human, "info history")?;
    expect_equal("history", history.contains("'stop'\n"), true)?;
    human.type_text("quit\n")?;
    vm.qmp.event("SHUTDOWN", SOON)?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)
}

fn edits_the_line(ctx: &Ctx) -> Result {
    let _vm = machine(ctx, &["h"])?;
    let mut human = sit_down(&ctx.dir, "h")?;
    // A slip of the finger put right, and the middle of the line.
    human.type_text("infx\x7fo statu\x01\x05s\r")?;
    human.expect("VM status: running\n(qemu) ", SOON)?;
    human.type_text("info kvm\n")?;
    human.expect("kvm support: enabled\n(qemu) ", SOON)?;
    // What was typed before.
    human.type_text("\x1b[A\x1b[A\n")?;
    human.expect("VM status: running\n(qemu) ", SOON)?;
    // Words that are begun.
    human.type_text("info vers\t\n")?;
    human.expect("info version \n1.7.50", SOON)?;
    human.expect(PROMPT, SOON)?;
    human.type_text("system_\t")?;
    human.expect("system_powerdown  system_reset", SOON)?;
    human.expect("\n(qemu) system_", SOON)?;
    human.type_text("\x15info name\n")?;
    human.expect("info name\n(qemu) ", SOON)?;
    Ok(())
}

/// Monitors remember each their own processor and lines.
fn two_at_once(ctx: &Ctx) -> Result {
    let mut vm = machine(ctx, &["a", "b"])?;
    let (mut a, mut b) = (sit_down(&ctx.dir, "a")?, sit_down(&ctx.dir, "b")?);
    expect_equal("cpu 1", ask(&mut a, "cpu 1")?.as_str(), "")?;
    let current = |text: &str| text.lines().position(|line| line.starts_with("* CPU #"));
    expect_equal("the first's", current(&ask(&mut a, "info cpus")?), Some(1))?;
    expect_equal("the second's", current(&ask(&mut b, "info cpus")?), Some(0))?;
    expect_equal("stop", ask(&mut b, "stop")?.as_str(), "")?;
    let status = ask(&mut a, "info status")?;
    expect_equal("seen by the first", status.as_str(), "VM status: paused\n")?;
    // One that leaves amid a line takes it along; its monitor remembers.
    a.type_text("quit")?;
    a.hang_up();
    let mut a = sit_down(&ctx.dir, "a")?;
    expect_equal("still the first's", current(&ask(&mut a, "info cpus")?), Some(1))?;
    expect_status(&mut vm, "paused")
}

/// -monitor stdio, fed by a pipe that ends.
fn on_standard_streams(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    g.halt()?;
    let mut vm = g.vm(ctx)?.without_serial().args(["-monitor", "stdio"]).start()?;
    vm.console.expect(PROMPT, SOON)?;
    expect_equal("running", ask(&mut vm.console, "info status")?.as_str(), "VM status: running\n")?;
    vm.console.type_text("stop\nquit\n")?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)
}

/// Who types on a terminal.
struct Keyboard(File);

impl Write for Keyboard {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Writer for Keyboard {}

/// A terminal: its user's side, and the program's.
fn terminal() -> Result<(Console, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    let master = File::from(master);
    let transcript = Transcript::collect(master.try_clone()?);
    Ok((Console::new("terminal", transcript, Keyboard(master)), slave))
}

/// Started by hand, COM1 and the monitor are both on the terminal; Ctrl-a c goes from one to the
/// other.
fn shares_the_terminal(ctx: &Ctx) -> Result {
    for option in [None, Some("-nographic")] {
        let (mut user, slave) = terminal()?;
        let mut g = Guest::new()?;
        g.print("from the guest\n")?;
        g.halt()?;
        let mut command: Command = g.vm(ctx)?.on_terminal().command();
        command.args(option);
        command.stdin(Stdio::from(slave.try_clone()?));
        command.stdout(Stdio::from(slave.try_clone()?));
        command.stderr(Stdio::from(slave));
        let mut child = die_with_parent(&mut command).spawn()?;
        drop(command);
        let before = user.expect("from the guest", SOON)?;
        expect_equal("no monitor yet", before.contains("monitor"), false)?;
        user.type_text("\x01c")?;
        user.expect("type 'help' for more information", SOON)?;
        user.expect(PROMPT, SOON)?;
        user.type_text("info status\r")?;
        user.expect("VM status: running", SOON)?;
        user.expect(PROMPT, SOON)?;
        // To the guest, where nothing is echoed, and back.
        user.type_text("\x01cinfo kvm\r\x01cstop\r")?;
        let before = user.expect("stop", SOON)?;
        expect_equal("typed to the guest", before.contains("kvm"), false)?;
        user.type_text("info status\rquit\r")?;
        user.expect("VM status: paused", SOON)?;
        let status = wait_for_exit(&mut child, SOON)?.ok_or("the process goes on")?;
        expect_equal("exit code", status.code(), Some(0))?;
    }
    Ok(())
}

/// One who asks and asks and reads nothing is not waited for, and costs little.
fn never_reads(ctx: &Ctx) -> Result {
    let mut vm = machine(ctx, &["h"])?;
    let before = memory_kib(&vm)?;
    let mut stream = connect(&ctx.dir.join("h"), SOON)?;
    stream.set_nonblocking(true)?;
    let lines = b"help\n".repeat(1000);
    let (mut sent, mut refused) = (0, 0);
    while sent < 4 << 20 && refused < 20 {
        match stream.write(&lines[sent % lines.len()..]) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                // A round trip on the other monitor gives this one a turn.
                expect_status(&mut vm, "running")?;
            }
            Err(_) => break,
        }
    }
    expect_equal("no more is taken", refused, 20)?;
    let after = memory_kib(&vm)?;
    if after > before + (8 << 10) {
        return Err(format!("the process has grown from {before} to {after} KiB").into());
    }
    // When it reads after all, it goes on where it was.
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut data = vec![0; 1 << 16];
    let mut read = 0;
    while read < 1 << 20 {
        read += stream.read(&mut data)?;
    }
    vm.qmp.execute("stop", json!({}))?;
    expect_status(&mut vm, "paused")
}

/// Keys that are none, and lines that are too long.
fn types_nonsense(ctx: &Ctx) -> Result {
    let mut vm = machine(ctx, &["h"])?;
    let before = memory_kib(&vm)?;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let long = "a".repeat(100_000);
    let deep = format!("p {}\n", "(".repeat(4000));
    let inputs: [&[u8]; 6] = [
        &all_bytes,
        b"\x1b[\x1b[999999999999A\x1b[;;;;;\x1bO\x1b\x1b\n",
        b"\xff\xfe\xfd\x00\x80\t\t\n",
        b"{\"execute\":\"qmp_capabilities\"}\n",
        long.as_bytes(),
        deep.as_bytes(),
    ];
    for input in inputs {
        let mut stream = connect(&ctx.dir.join("h"), SOON)?;
        stream.write_all(input)?;
        drop(stream);
        let mut human = sit_down(&ctx.dir, "h")?;
        let status = ask(&mut human, "info status")?;
        expect_equal("after nonsense", status.as_str(), "VM status: running\n")?;
        human.hang_up();
    }
    expect_status(&mut vm, "running")?;
    let after = memory_kib(&vm)?;
    if after > before + (8 << 10) {
        return Err(format!("the process has grown from {before} to {after} KiB").into());
    }
    Ok(())
}
