//! Programs that speak QMP and know nothing of us, with a Linux guest that has booted.
//!
//! The guest boots on this machine or in a nested host; the programs run on this machine: the
//! `qemu.qmp` Python package and its shell, and the [`qapi`](mod@qapi) crate. Used from one thread.

pub mod qapi;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::demo::{WAITS, shell_words};
use crate::host::nested::{Machine, Nested};
use crate::rig::Result;
use crate::rig::console::{Console, Transcript};
use crate::rig::process::{die_with_parent, wait_for_exit};
use crate::rig::qmp::connect;
use crate::rig::vm::{BOOT, Image, Kernel, Peer, READY, TestVm, VmBuilder};
use crate::scratch::Scratch;
use crate::supply::python::Python;

const SESSION: &str = include_str!("session.py");
const DISKS: &str = include_str!("disks.py");
const SOON: Duration = Duration::from_secs(120);

/// A client and what it does with a booted guest.
pub struct Client {
    /// `clients::what`.
    pub name: &'static str,
    /// Drives the machine.
    pub body: fn(&Python, &Place<'_>) -> Result,
}

/// What a client has of a machine.
pub struct Place<'a> {
    /// Where the monitor is.
    pub socket: &'a Path,
    /// Where the machine can make files.
    pub files: &'a Path,
}

/// Every client, in the order in which they come; the last one ends the machine.
pub const ALL: [Client; 6] = [
    Client { name: "clients::qemu_qmp", body: |python, at| script(python, SESSION, at) },
    Client { name: "clients::qemu_qmp_disks", body: |python, at| script(python, DISKS, at) },
    Client { name: "clients::qmp_shell", body: |python, at| shell(python, at.socket) },
    Client {
        name: "clients::qmp_shell_as_human",
        body: |python, at| human_shell(python, at.socket),
    },
    Client { name: "clients::qapi", body: |_, at| qapi::session(at.socket) },
    Client { name: "clients::qapi_ends_it", body: |_, at| qapi::end(at.socket) },
];

/// A guest that has booted, and where its monitor is.
pub struct Booted {
    socket: PathBuf,
    files: PathBuf,
    nested: Option<Machine>,
    _here: Option<TestVm>,
    _dir: Scratch,
}

impl Booted {
    /// Boots Debian's kernel on this machine.
    pub fn here(peer: &Peer, guests: &Path) -> Result<Self> {
        let dir = Scratch::new()?;
        let socket = dir.join("clients");
        let option = format!("unix:{},server=on,wait=off", socket.display());
        let vm = VmBuilder::new(peer, guests, &dir).kernel(Kernel::V6_12, Image::BzImage);
        let mut vm = vm.args(["-qmp", &option]).start()?;
        vm.booted()?;
        let files = dir.to_path_buf();
        Ok(Self { socket, files, _here: Some(vm), nested: None, _dir: dir })
    }

    /// Boots it in a nested host.
    pub fn nested(nested: &Nested) -> Result<Self> {
        let mut machine = nested.start()?;
        let vm = VmBuilder::new(&nested.peer_inside(), Path::new("/guests"), Path::new("/tmp"))
            .kernel(Kernel::V6_12, Image::BzImage)
            .args(["-qmp", "unix:/tmp/vm.sock,server=on,wait=off"]);
        let relay = Nested::inside("/run/vmtest relay /dev/vport0p3 /tmp/vm.sock");
        let vm = Nested::inside(&shell_words(&vm.command()));
        let stream = connect(&machine.dir().join("terminal"), SOON)?;
        machine.begin(&format!("{relay} & {vm} <>/dev/vport0p2 >&0"))?;
        let transcript = Transcript::collect(stream.try_clone()?);
        let booted = Console::new("console", transcript, stream).expect_line(READY, BOOT);
        booted.map_err(|error| machine.explain(&error.to_string()))?;
        let socket = machine.dir().join("vm.sock");
        let files = PathBuf::from("/tmp");
        Ok(Self { socket, files, _here: None, nested: Some(machine), _dir: Scratch::new()? })
    }

    /// What another client has of it, once one may come.
    pub fn place(&mut self) -> Result<Place<'_>> {
        if let Some(machine) = &mut self.nested {
            machine.expect(WAITS, SOON)?;
        }
        Ok(Place { socket: &self.socket, files: &self.files })
    }
}

/// The package's own client, in a script.
fn script(python: &Python, script: &str, at: &Place<'_>) -> Result {
    let mut command = python.command();
    run(command.arg("-c").arg(script).arg(at.socket).arg(at.files), "").map(drop)
}

/// The package's shell, as somebody at the keyboard uses it.
fn shell(python: &Python, socket: &Path) -> Result {
    let typed = "query-status\nstop\nquery-status\ncont\nquery-status x=1\nquery-uuid\nnonsense\n";
    let mut command = python.command();
    let said = run(command.args(["-m", "qemu.qmp.qmp_shell"]).arg(socket), typed)?;
    let wanted = [
        "Connected to QEMU 1.7.50",
        "{\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}}",
        "{\"return\": {}}",
        "{\"return\": {\"status\": \"paused\", \"singlestep\": false, \"running\": false}}",
        "{\"return\": {}}",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Invalid parameter 'x'\"}}",
        "{\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}",
        "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command nonsense has not been found\"}}",
    ];
    let mut rest = said.as_str();
    for line in wanted {
        let (_, after) = rest
            .split_once(line)
            .ok_or_else(|| format!("the shell does not say {line} in its turn:\n{said}"))?;
        rest = after;
    }
    Ok(())
}

/// The shell as a human monitor, which asks for help by itself to complete what is typed.
fn human_shell(python: &Python, socket: &Path) -> Result {
    let mut command = python.command();
    let words = ["-m", "qemu.qmp.qmp_shell", "-H"];
    let said = run(command.args(words).arg(socket), "info status\nnonsense\n")?;
    for line in ["VM status: running", "unknown command: 'nonsense'"] {
        if !said.contains(line) {
            return Err(format!("the shell does not say {line}:\n{said}").into());
        }
    }
    Ok(())
}

/// Runs `command` with `typed` as its input; what it says.
fn run(command: &mut Command, typed: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = die_with_parent(command).spawn()?;
    let stdout = Transcript::collect(child.stdout.take().ok_or("no stdout")?);
    let stderr = Transcript::collect(child.stderr.take().ok_or("no stderr")?);
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    stdin.write_all(typed.as_bytes())?;
    drop(stdin);
    let status = wait_for_exit(&mut child, SOON)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let said = stdout.wait_for_end(SOON)?;
    match status {
        Some(status) if status.success() => Ok(said),
        status => {
            let error = stderr.wait_for_end(SOON).unwrap_or_default();
            Err(format!("it ended with {status:?}:\n{said}\n{error}").into())
        }
    }
}
