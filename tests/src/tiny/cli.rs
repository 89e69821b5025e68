//! The command line as a user meets it: one clear line and exit code 1 for what is wrong.

use std::path::Path;
use std::process::Command;

use super::{SOON, expect_equal};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Peer, Process};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("cli::wrong_options", 60, wrong_options),
        Test::tiny("cli::wrong_images", 60, wrong_images),
        Test::tiny("cli::version_and_help", 60, version_and_help),
        Test::tiny("cli::no_kvm", 60, no_kvm),
    ]
}

fn program(ctx: &Ctx) -> &Path {
    let (Peer::Vmm(path) | Peer::Qemu(path)) = &ctx.peer;
    path
}

/// Runs `command`; its exit code is 1 and its stderr is one line that has all of `words`.
fn expect_refusal(command: &mut Command, words: &[&str]) -> Result {
    let mut process = Process::start(command)?;
    let code = process.exit_code(SOON)?;
    let said = process.wait_for_stderr(SOON)?;
    let right = code == 1
        && said.lines().count() == 1
        && said.starts_with("vmm: ")
        && words.iter().all(|word| said.contains(word));
    if right {
        return Ok(());
    }
    Err(process.explain(format!("exit code {code}, not one line with {words:?}").into()))
}

/// A wrong option or value is named, with the nearest right one where there is one.
fn wrong_options(ctx: &Ctx) -> Result {
    let cases: [(&[&str], &[&str]); 16] = [
        (&["-kernle", "x"], &["-kernle", "-kernel"]),
        (&["--apend", "x"], &["apend", "append"]),
        (&["-no-reboot=1"], &["-no-reboot=1"]),
        (&["-m"], &["-m", "argument"]),
        (&["-m", "12x"], &["-m", "12x"]),
        (&["-m", "1000000G", "-S"], &["-m", "1000000G"]),
        (&["-machine", "pd"], &["pd", "'pc'"]),
        (&["-accel", "kvmm"], &["kvmm", "'kvm'"]),
        (&["-cpu", "hots", "-S"], &["hots", "host"]),
        (&["-cpu", "host,+sse9", "-S"], &["sse9", "sse"]),
        (&["-smp", "0"], &["-smp"]),
        (&["-serial", "foo", "-S"], &["-serial", "foo"]),
        (&["-chardev", "sokcet,id=a", "-S"], &["sokcet", "socket"]),
        (&["-device", "isa-seria", "-S"], &["isa-seria", "isa-serial"]),
        (&["-qmp", "unix:/nonexistent/qmp", "-S"], &["-qmp", "/nonexistent/qmp"]),
        (&["kernel"], &["kernel"]),
    ];
    for (arguments, words) in cases {
        let mut command = Command::new(program(ctx));
        command.args(["-nodefaults", "-display", "none"]).args(arguments);
        expect_refusal(&mut command, words)?;
    }
    expect_refusal(&mut Command::new(program(ctx)), &["nothing to boot", "-kernel"])
}

/// An image that cannot be booted is named, with the reason.
fn wrong_images(ctx: &Ctx) -> Result {
    let kernel = super::image::Kernel::Pvh.image(super::asm::Guest::new()?)?;
    let path = |name: &str| ctx.dir.join(name).to_string_lossy().into_owned();
    std::fs::write(path("cut"), &kernel[..kernel.len() / 2])?;
    std::fs::write(path("text"), "#!/bin/sh\n")?;
    std::fs::write(path("empty"), "")?;
    std::fs::write(path("odd"), [0; 5000])?;
    std::fs::write(path("good"), &kernel)?;
    let cases = [
        (vec!["-kernel", "missing"], "No such file"),
        (vec!["-kernel", "cut"], "cut"),
        (vec!["-kernel", "text"], "a script"),
        (vec!["-kernel", "empty"], "empty"),
        (vec!["-bios", "odd"], "5000"),
        (vec!["-bios", "empty"], "its size 0"),
        (vec!["-kernel", "good", "-initrd", "missing"], "initrd"),
        (vec!["-kernel", "good", "-initrd", "empty"], "initrd"),
    ];
    for (arguments, reason) in cases {
        let name = path(arguments.last().copied().unwrap_or_default());
        let mut command = Command::new(program(ctx));
        command.args(["-nodefaults", "-display", "none", "-m", "16"]);
        for pair in arguments.chunks(2) {
            command.arg(pair[0]).arg(path(pair[1]));
        }
        expect_refusal(&mut command, &[&name, reason])?;
    }
    Ok(())
}

/// What one asks for comes on stdout, with exit code 0, in both spellings.
fn version_and_help(ctx: &Ctx) -> Result {
    for (arguments, word) in [
        (["--version"].as_slice(), "vmm "),
        (&["-version"], "QEMU"),
        (&["-help"], "-kernel"),
        (&["-h"], "-qmp"),
        (&["-machine", "help"], "pc"),
        (&["-cpu", "help"], "qemu64"),
        (&["-device", "help"], "isa-serial"),
    ] {
        let mut process = Process::start(Command::new(program(ctx)).args(arguments))?;
        let code = process.exit_code(SOON)?;
        let said = process.stdout().wait_for_end(SOON)?;
        expect_equal(&format!("{word} in {said}"), said.contains(word), true)?;
        expect_equal("exit code", code, 0)?;
        expect_equal("stderr", process.wait_for_stderr(SOON)?.as_str(), "")?;
    }
    Ok(())
}

/// Without KVM one line says so. /dev/kvm is hidden in a mount namespace of its own.
fn no_kvm(ctx: &Ctx) -> Result {
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!("{script} && exec \"$0\" \"$@\""));
        command
    };
    let able = in_namespace("mount --bind /dev/null /dev/kvm").arg("true").output();
    if !able.is_ok_and(|output| output.status.success()) {
        println!("skipped: hiding /dev/kvm takes unshare and the right to mount");
        return Ok(());
    }
    for (script, reason) in [
        ("mount --bind /dev/null /dev/kvm", "Inappropriate ioctl"),
        ("mount -t tmpfs none /dev", "No such file"),
    ] {
        let mut command = in_namespace(script);
        command.arg(program(ctx)).args(["-nodefaults", "-display", "none", "-S"]);
        expect_refusal(&mut command, &["/dev/kvm", reason])?;
    }
    Ok(())
}
