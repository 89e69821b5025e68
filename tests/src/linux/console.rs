//! COM1 as the guest's console: nothing is lost in either direction.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::rig::Result;
use crate::rig::console::{Console, Transcript};
use crate::rig::qmp::connect;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, Kernel, READY, SOON};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("console::input_and_output", 180, input_and_output),
        Test::linux("console::unix_socket", 180, unix_socket),
    ]
}

/// Two thousand lines come out whole, and three thousand characters typed at once go in whole.
fn input_and_output(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).start()?;
    vm.booted()?;
    let (_, counted) = vm.sh_within("seq 1 2000", Duration::from_secs(120))?;
    let expected: Vec<String> = (1..=2000).map(|number: u32| number.to_string()).collect();
    if counted.lines().ne(expected.iter().map(String::as_str)) {
        return Err(format!("of 1 to 2000 these came: {counted}").into());
    }

    const LINES: usize = 50;
    let mut typed = String::new();
    for number in 0..LINES {
        writeln!(typed, "{number:02} the quick brown fox jumps over the lazy dog, again")?;
    }
    vm.console.type_text(&format!(
        "for i in $(seq {LINES}); do read -r line; echo \"got $line\"; done; echo VMTEST-DONE\n"
    ))?;
    vm.console.type_text(&typed)?;
    let echoed = vm.console.expect("VMTEST-DONE", SOON)?;
    let expected: String = typed.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "got {line}");
        text
    });
    if echoed != expected {
        return Err(format!("the guest read {echoed:?}").into());
    }
    Ok(())
}

/// The console on a unix socket: nobody there at first, then one client, then the next.
fn unix_socket(ctx: &Ctx) -> Result {
    let path = ctx.dir.join("com1");
    let serial = format!("unix:{},server=on,wait=off", path.display());
    let args = ["-S", "-serial", &serial];
    let mut vm = ctx.linux(Kernel::V6_12).without_serial().args(args).start()?;
    let status = vm.qmp.execute("query-status", json!({}))?;
    if status["status"] != "prelaunch" {
        return Err(format!("with -S the status is {status}").into());
    }
    let client = || -> Result<Console> {
        let stream = connect(&path, SOON)?;
        Ok(Console::new("console socket", Transcript::collect(stream.try_clone()?), stream))
    };
    let mut first = client()?;
    vm.qmp.execute("cont", json!({}))?;
    first.expect_line(READY, BOOT)?;
    first.type_text("echo first $((6 * 7))\n")?;
    first.expect_line("first 42", SOON)?;
    first.type_text("(sleep 1; echo nobody listens; echo >/tmp/said) & echo started\n")?;
    first.expect_line("started", SOON)?;
    first.hang_up();
    drop(first);

    let mut second = client()?;
    second.type_text("until [ -e /tmp/said ]; do sleep 0.1; done; echo second $((6 * 9))\n")?;
    second.expect_line("second 54", SOON)?;
    second.type_text("poweroff -f\n")?;
    match vm.exit_code(SOON)? {
        0 => Ok(()),
        code => Err(format!("exit code {code}").into()),
    }
}
