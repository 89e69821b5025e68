//! Monitor clients that come, go, do not read, and say nonsense; and processes in the background.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::asm::Guest;
use super::{SOON, expect_equal, expect_status, memory_kib};
use crate::rig::Result;
use crate::rig::process::wait_for_end;
use crate::rig::qmp::{Qmp, connect};
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Process, TestVm};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("clients::leave_at_any_moment", 60, leave_at_any_moment),
        Test::tiny("clients::one_at_a_time", 60, one_at_a_time),
        Test::tiny("clients::nonsense", 60, nonsense),
        Test::tiny("clients::never_read", 60, never_read),
        Test::tiny("clients::quit_answers_first", 60, quit_answers_first),
        Test::tiny("daemon::runs_and_ends", 60, daemon_runs_and_ends),
        Test::tiny("daemon::tells_why_not", 60, daemon_tells_why_not),
    ]
}

/// A guest that halts.
fn idle(ctx: &Ctx) -> Result<TestVm> {
    let mut g = Guest::new()?;
    g.halt()?;
    g.vm(ctx)?.start()
}

/// The place of a second monitor, and the option for it.
fn second_monitor(ctx: &Ctx) -> (PathBuf, String) {
    let path = ctx.dir.join("second");
    let option = format!("unix:{},server=on,wait=off", path.display());
    (path, option)
}

/// Whatever a client has said when it goes, the next one is served.
fn leave_at_any_moment(ctx: &Ctx) -> Result {
    let (path, option) = second_monitor(ctx);
    let mut g = Guest::new()?;
    g.halt()?;
    let mut vm = g.vm(ctx)?.args(["-qmp", &option]).start()?;
    let whole = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-cpus\"}\n\
                 {\"execute\":\"stop\"}\n{\"execute\":\"cont\"}\n{\"execute\":\"query-commands\"}\n";
    for length in (0..=whole.len()).step_by(3) {
        let mut stream = connect(&path, SOON)?;
        stream.write_all(&whole.as_bytes()[..length])?;
        if length % 2 == 0 {
            stream.shutdown(std::net::Shutdown::Write)?;
        }
    }
    let mut last = Qmp::connect(&path, SOON)?;
    // What a client said before it left was done, all of it.
    last.execute("cont", json!({}))?;
    last.execute("query-status", json!({}))?;
    expect_status(&mut vm, "running")
}

/// A second client of one monitor is served when the first has gone.
fn one_at_a_time(ctx: &Ctx) -> Result {
    let mut vm = idle(ctx)?;
    let mut waiting = UnixStream::connect(&vm.qmp_path)?;
    for _ in 0..10 {
        expect_status(&mut vm, "running")?;
    }
    waiting.set_nonblocking(true)?;
    let early = waiting.read(&mut [0; 1]);
    let early = early.map_err(|error| error.kind());
    expect_equal("a second client hears", early, Err(ErrorKind::WouldBlock))?;
    let TestVm { qmp, process: _process, .. } = vm;
    drop(qmp);
    waiting.set_nonblocking(false)?;
    waiting.set_read_timeout(Some(SOON))?;
    let mut greeting = [0; 8];
    waiting.read_exact(&mut greeting)?;
    expect_equal("the greeting", &greeting, b"{\"QMP\": ")
}

/// Input that is no command is answered with an error, or ends the connection, and that is all.
fn nonsense(ctx: &Ctx) -> Result {
    let (path, option) = second_monitor(ctx);
    let mut g = Guest::new()?;
    g.halt()?;
    let mut vm = g.vm(ctx)?.args(["-qmp", &option]).start()?;
    let before = memory_kib(&vm)?;
    let deep = ["[", "]"].map(|bracket| bracket.repeat(100_000)).concat();
    let long_string = format!("{{\"execute\":\"{}\"}}", "a".repeat(1 << 20));
    let many = "{\"a\":1},".repeat(500);
    let inputs: [&[u8]; 9] = [
        b"hello\n",
        b"}}}}\n",
        b"{\"execute\":1}\n",
        b"[1,2,3]\n",
        b"\xff\xfe\xfd\x00\x01\n",
        b"GET / HTTP/1.1\r\n\r\n",
        deep.as_bytes(),
        long_string.as_bytes(),
        many.as_bytes(),
    ];
    for input in inputs {
        let shown = String::from_utf8_lossy(&input[..input.len().min(20)]).into_owned();
        let mut qmp = Qmp::connect(&path, SOON)?;
        qmp.send_bytes(input)?;
        qmp.send_bytes(b"\n")?;
        match qmp.reply(Instant::now() + SOON) {
            Ok(reply) if reply.get("error").is_some() => {}
            Ok(reply) => return Err(format!("{shown:?} is answered {reply}").into()),
            // Hung up on.
            Err(_) => {}
        }
        drop(qmp);
        expect_status(&mut vm, "running")?;
    }
    let after = memory_kib(&vm)?;
    if after > before + (16 << 10) {
        return Err(format!("the process has grown from {before} to {after} KiB").into());
    }
    Ok(())
}

/// A client that asks and asks and reads nothing is not waited for, and costs little.
fn never_read(ctx: &Ctx) -> Result {
    let (path, option) = second_monitor(ctx);
    let mut g = Guest::new()?;
    g.halt()?;
    let mut vm = g.vm(ctx)?.args(["-qmp", &option]).start()?;
    let before = memory_kib(&vm)?;
    let mut stream = connect(&path, SOON)?;
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
    stream.set_nonblocking(true)?;
    let line = b"{\"execute\":\"query-commands\"}\n".repeat(100);
    let mut sent = 0;
    // 16 MiB of questions, or until no more are taken.
    let mut refused = 0;
    while sent < 16 << 20 && refused < 20 {
        match stream.write(&line[sent % line.len()..]) {
            Ok(count) => {
                sent += count;
                refused = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                // A round trip on the other monitor gives this one a turn.
                expect_status(&mut vm, "running")?;
            }
            // Hung up on.
            Err(_) => break,
        }
    }
    for _ in 0..20 {
        vm.qmp.execute("stop", json!({}))?;
        vm.qmp.execute("cont", json!({}))?;
    }
    expect_status(&mut vm, "running")?;
    let after = memory_kib(&vm)?;
    if after > before + (24 << 10) {
        return Err(format!("the process has grown from {before} to {after} KiB").into());
    }
    Ok(())
}

/// The reply to quit and the last event reach all clients before the end.
fn quit_answers_first(ctx: &Ctx) -> Result {
    let (path, option) = second_monitor(ctx);
    let mut g = Guest::new()?;
    g.spin()?;
    let mut vm = g.vm(ctx)?.args(["-qmp", &option]).start()?;
    let mut second = Qmp::connect(&path, SOON)?;
    vm.qmp.execute("quit", json!({}))?;
    for qmp in [&mut vm.qmp, &mut second] {
        let event = qmp.event("SHUTDOWN", SOON)?;
        expect_equal("the reason", &event["data"]["reason"], &json!("host-qmp-quit"))?;
        qmp.closed(SOON)?;
    }
    expect_equal("exit code", vm.exit_code(SOON)?, 0)
}

/// A process in the background, which nobody's death ends: it is killed by hand.
struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// With -daemonize the command returns when the machine answers; the pid file names it and goes
/// with it.
fn daemon_runs_and_ends(ctx: &Ctx) -> Result {
    for end_by_signal in [false, true] {
        let pid_file = ctx.dir.join("pid");
        let pid_text = pid_file.to_string_lossy();
        let (socket, monitor) = second_monitor(ctx);
        let serial = format!("file:{}", ctx.dir.join("serial").display());
        let mut g = Guest::new()?;
        g.print("from the background\n")?;
        let options = ["-daemonize", "-pidfile", &pid_text, "-qmp", &monitor, "-serial", &serial];
        let vm = g.vm(ctx)?.without_serial().args(options);
        let mut parent = Process::start(&mut vm.command())?;
        expect_equal("exit code", parent.exit_code(SOON)?, 0)?;
        // Nothing of the terminal is held by what goes on in the background.
        expect_equal("stderr", parent.wait_for_stderr(SOON)?.as_str(), "")?;
        let pid: i32 = std::fs::read_to_string(&pid_file)?.trim().parse()?;
        let pid = Pid::from_raw(pid).ok_or("no process id in the pid file")?;
        let daemon = Daemon(pid);
        expect_equal("another process", parent.id() as i32 == pid.as_raw_nonzero().get(), false)?;
        // At once, without waiting for the socket.
        UnixStream::connect(&socket)?;
        let mut qmp = Qmp::connect(&socket, SOON)?;
        expect_equal(
            "status",
            &qmp.execute("query-status", json!({}))?["status"],
            &json!("running"),
        )?;
        // A second machine cannot have the same pid file, and says so; the first goes on.
        let mut second = vm.start_bare()?;
        expect_equal("exit code", second.exit_code(SOON)?, 1)?;
        let why = second.wait_for_stderr(SOON)?;
        expect_equal("told why", why.contains("pidfile"), true)
            .map_err(|error| second.explain(error))?;
        let said = || std::fs::read_to_string(ctx.dir.join("serial"));
        let deadline = Instant::now() + SOON;
        while said()? != "from the background\n" {
            if Instant::now() > deadline {
                return Err(format!("the guest said {:?}", said()?).into());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if end_by_signal {
            kill_process(pid, Signal::TERM)?;
        } else {
            qmp.execute("quit", json!({}))?;
        }
        qmp.closed(SOON)?;
        expect_equal("ended", wait_for_end(pid, SOON)?, true)?;
        expect_equal("the pid file is there", pid_file.exists(), false)?;
        drop(daemon);
    }
    Ok(())
}

/// What goes wrong before the machine runs is told by the command itself.
fn daemon_tells_why_not(ctx: &Ctx) -> Result {
    let (_, monitor) = second_monitor(ctx);
    let vm = ctx.vm().without_serial();
    let vm = vm.args(["-daemonize", "-bios", "/nonexistent/firmware", "-qmp", &monitor]);
    let mut parent = vm.start_bare()?;
    expect_equal("exit code", parent.exit_code(SOON)?, 1)?;
    let why = parent.wait_for_stderr(SOON)?;
    expect_equal("told why", why.contains("/nonexistent/firmware"), true)
        .map_err(|error| parent.explain(error))
}
