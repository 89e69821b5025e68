//! The command line as a user meets it: one clear line and exit code 1 for what is wrong.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{SOON, expect_equal};
use crate::rig::Result;
use crate::rig::qmp::Qmp;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Peer, Process};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("cli::wrong_options", 60, wrong_options),
        Test::tiny("cli::wrong_images", 60, wrong_images),
        Test::tiny("cli::version_and_help", 60, version_and_help),
        Test::tiny("cli::no_kvm", 60, no_kvm),
        Test::tiny("cli::configuration_files", 60, configuration_files),
        Test::tiny("cli::one_road", 60, one_road),
        Test::tiny("cli::warnings", 60, warnings),
        Test::tiny("cli::privileges", 60, privileges),
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
    let cases: [(&[&str], &[&str]); 22] = [
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
        (&["-sandbox", "on"], &["seccomp is not compiled into this build"]),
        (&["-trace", "events=x"], &["no trace events"]),
        (&["-readconfig", "/nonexistent"], &["read config /nonexistent", "No such file"]),
        (&["-writeconfig", "/nonexistent/x", "-S"], &["-writeconfig", "No such file"]),
        (&["-set", "device.a.b=c"], &["there is no device \"a\" defined"]),
        (&["-runas", "no-such-user", "-S"], &["User \"no-such-user\" doesn't exist"]),
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

/// A machine without a guest, with a monitor at `ctx.dir/qmp`, and what is added.
fn no_guest(ctx: &Ctx, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(ctx));
    command.args(["-M", "none", "-nodefaults", "-display", "none", "-qmp"]);
    command.arg(format!("unix:{},server=on,wait=off", ctx.dir.join("qmp").display()));
    command.args(arguments);
    command
}

/// What `-writeconfig` writes, `-readconfig` takes: it writes the same once more. The wrong line of
/// a file is named.
fn configuration_files(ctx: &Ctx) -> Result {
    let path = |name: &str| ctx.dir.join(name).to_string_lossy().into_owned();
    let (first, second) = (path("first"), path("second"));
    let given =
        ["-chardev", "null,id=a", "-global", "isa-serial.index=1", "-rtc", "base=utc,clock=vm"];
    let mut process = Process::start(no_guest(ctx, &given).args(["-writeconfig", &first]))?;
    Qmp::connect(&ctx.dir.join("qmp"), SOON)?.execute("quit", json!({}))?;
    expect_equal("exit code", process.exit_code(SOON)?, 0)?;
    let text = std::fs::read_to_string(&first)?;
    expect_equal(&text, text.starts_with("# qemu config file\n\n[chardev \"a\"]\n"), true)?;

    let files = ["-readconfig", &first, "-writeconfig", &second, "-writeconfig", "-"];
    let mut process = Process::start(&mut no_guest(ctx, &files))?;
    let mut qmp = Qmp::connect(&ctx.dir.join("qmp"), SOON)?;
    qmp.execute("quit", json!({}))?;
    expect_equal("exit code", process.exit_code(SOON)?, 0)?;
    expect_equal("read back", std::fs::read_to_string(&second)?, text.clone())?;
    expect_equal("on stdout", process.stdout().wait_for_end(SOON)?, text)?;

    std::fs::write(&first, "[machine]\n  typ = \"none\"\n")?;
    let place = format!("{first}:2");
    expect_refusal(&mut no_guest(ctx, &["-readconfig", &first]), &[&place, "'typ'", "'type'"])
}

/// What `-help` says of a parameter, query-command-line-options says too.
fn one_road(ctx: &Ctx) -> Result {
    let mut help = Process::start(Command::new(program(ctx)).arg("-help"))?;
    expect_equal("exit code", help.exit_code(SOON)?, 0)?;
    let help = help.stdout().wait_for_end(SOON)?;
    let _process = Process::start(&mut no_guest(ctx, &[]))?;
    let mut qmp = Qmp::connect(&ctx.dir.join("qmp"), SOON)?;
    let options = qmp.execute("query-command-line-options", json!({}))?;
    let parameters = options.as_array().into_iter().flatten();
    let parameters = parameters.filter_map(|option| option["parameters"].as_array()).flatten();
    let mut seen = 0;
    for parameter in parameters {
        let name = parameter["name"].as_str().unwrap_or_default();
        let first = parameter["help"].as_str().unwrap_or_default().split(' ').next();
        // What is said of a long parameter begins on the next line.
        let shown = |(line, next): (&str, &str)| {
            line.trim_start().starts_with(&format!("{name}="))
                && first.is_some_and(|word| line.contains(word) || next.trim().starts_with(word))
        };
        // What -global takes has a form of its own there.
        if !["driver", "property", "value"].contains(&name) {
            expect_equal(
                &parameter.to_string(),
                help.lines().zip(help.lines().skip(1)).any(shown),
                true,
            )?;
        }
        seen += 1;
    }
    expect_equal("many parameters", seen > 40, true)
}

/// What is useless but harmless is warned of, with the time if that is wanted.
fn warnings(ctx: &Ctx) -> Result {
    for (options, stamped) in [(&["-S"][..], false), (&["-msg", "timestamp=on"], true)] {
        let mut command = no_guest(ctx, &["-global", "isa-seria.index=1"]);
        let mut process = Process::start(command.args(options))?;
        Qmp::connect(&ctx.dir.join("qmp"), SOON)?.execute("quit", json!({}))?;
        expect_equal("exit code", process.exit_code(SOON)?, 0)?;
        let said = process.wait_for_stderr(SOON)?;
        let (time, message) = said.split_once("vmm: warning: ").unwrap_or(("", &said));
        expect_equal(
            "the warning",
            message,
            "\"-global isa-seria.index=1\" not used: there is no such driver (did you mean \
             'isa-serial'?)\n",
        )?;
        let is_time = time.len() > 20 && time.contains('T') && time.ends_with("Z ");
        expect_equal(&format!("time in {said}"), (is_time, time.is_empty()), (stamped, !stamped))?;
        std::fs::remove_file(ctx.dir.join("qmp"))?;
    }
    Ok(())
}

/// All threads change their user, and the process its root, before the first command is taken. Who
/// may not do that is told.
fn privileges(ctx: &Ctx) -> Result {
    let root = ctx.dir.join("root");
    std::fs::create_dir_all(&root)?;
    let root = std::fs::canonicalize(root)?.to_string_lossy().into_owned();
    let options = ["-chroot", &root, "-runas", "65534:65533"];
    if !rustix::process::geteuid().is_root() {
        return expect_refusal(&mut no_guest(ctx, &options), &["chroot failed"]);
    }
    let process = Process::start(&mut no_guest(ctx, &options))?;
    let mut qmp = Qmp::connect(&ctx.dir.join("qmp"), SOON)?;
    qmp.execute("query-status", json!({}))?;
    let proc = format!("/proc/{}", process.id());
    expect_equal(
        "root",
        std::fs::read_link(format!("{proc}/root"))?.to_string_lossy(),
        root.into(),
    )?;
    let mut threads = 0;
    for task in std::fs::read_dir(format!("{proc}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        for line in ["Uid:\t65534\t65534\t65534\t65534", "Gid:\t65533\t65533\t65533\t65533"] {
            expect_equal(&status, status.lines().any(|other| other == line), true)?;
        }
        expect_equal(
            &status,
            status.lines().any(|line| line.trim_end() == "Groups:\t65533"),
            true,
        )?;
        threads += 1;
    }
    expect_equal("several threads", threads > 1, true)?;
    qmp.execute("quit", json!({}))?;
    Ok(())
}
