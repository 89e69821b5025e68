//! The `cargo demo` command: an unmodified Debian kernel in `vmm`, with a shell on COM1 and a QMP
//! socket, on this machine or in a nested host.
//!
//! With a terminal the guest's console is on it; without one a short tour is taken.

mod relay;
mod terminal;

use std::fs;
use std::io::{IsTerminal, stdin, stdout};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

pub use relay::{WAITS, relay};

use crate::host::nested::{End, Machine, Nested};
use crate::host::probe;
use crate::rig::Result;
use crate::rig::console::{Console, Transcript};
use crate::rig::process::{die_with_parent, wait_for_exit};
use crate::rig::qmp::{Qmp, connect};
use crate::rig::vm::{BOOT, Image, Kernel, LEAN, Peer, READY, SOON, VmBuilder};
use crate::scratch::Scratch;
use crate::suite::{Supplies, native_kvm};
use crate::workspace::{peer, root, target};

/// The word of the kernel command line with which the shell takes lines without echo.
const SCRIPT: &str = "vmtest.script";

/// Boots a guest to a shell, for people or for the tour.
pub fn run() -> Result {
    let peer = peer()?;
    let native = native_kvm()? == probe::Native::Linux;
    let supplies = Supplies::get()?;
    let place = Place::new()?;
    let interactive = stdin().is_terminal() && stdout().is_terminal();
    if native {
        let guests = supplies.guests.path().to_owned();
        println!("== booting Debian's 6.12 kernel on this machine");
        let vm = command_line(&peer, &guests, &place.socket(), interactive);
        if interactive { on_terminal(&place, vm) } else { tour_here(&place, vm) }
    } else {
        let nested = supplies.nested(peer)?;
        println!("== booting Debian's 6.12 kernel in a nested host");
        in_nested_host(&place, &nested, interactive)
    }
}

/// The guest of the demo. Its kernel log is shown, unlike in the tests.
fn command_line(peer: &Peer, guests: &Path, qmp: &Path, interactive: bool) -> VmBuilder {
    let mut append = LEAN.replace(" quiet", "");
    if interactive {
        append = append.replace(SCRIPT, "");
    }
    let qmp = format!("unix:{},server=on,wait=off", qmp.display());
    VmBuilder::new(peer, guests, Path::new("/tmp"))
        .kernel(Kernel::V6_12, Image::BzImage)
        .only_append(append.trim())
        .args(["-qmp", &qmp])
}

/// Where the demo's sockets are: names of sockets may not be long, so they are in a temporary
/// directory and `target/demo/vm.sock` points there.
struct Place {
    dir: Scratch,
    link: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        let demo = target()?.join("demo");
        fs::create_dir_all(&demo)?;
        Ok(Self { dir: Scratch::new()?, link: demo.join("vm.sock") })
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("vm.sock")
    }

    /// Shows where QMP is, once `socket` is there or soon will be.
    fn announce(&self, socket: &Path) -> Result {
        let _ = fs::remove_file(&self.link);
        symlink(socket, &self.link)?;
        let root = root();
        let link = self.link.strip_prefix(&root).unwrap_or(&self.link);
        println!("== QMP is at {0}: socat - UNIX-CONNECT:{0}", link.display());
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.link);
    }
}

const HOW_TO_LEAVE: &str = "== Ctrl-a x ends the demo";

/// The VM has the terminal to itself.
fn on_terminal(place: &Place, vm: VmBuilder) -> Result {
    place.announce(&place.socket())?;
    println!("{HOW_TO_LEAVE}");
    let mut child = die_with_parent(&mut vm.on_terminal().command()).spawn()?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the VM ended with {status}").into()) }
}

fn tour_here(place: &Place, vm: VmBuilder) -> Result {
    place.announce(&place.socket())?;
    let mut command = vm.command();
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = die_with_parent(&mut command).spawn()?;
    let transcript = Transcript::tee(child.stdout.take().ok_or("no stdout")?, stdout());
    let input = child.stdin.take().ok_or("no stdin")?;
    let toured = tour(Console::new("console", transcript, input), &place.link);
    let status = match toured {
        Ok(()) => wait_for_exit(&mut child, SOON)?,
        Err(_) => None,
    };
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    toured?;
    match status {
        Some(status) if status.success() => Ok(()),
        other => Err(format!("the VM ended with {other:?}").into()),
    }
}

fn in_nested_host(place: &Place, nested: &Nested, interactive: bool) -> Result {
    let mut machine = nested.start()?;
    let peer = nested.peer_inside();
    let socket = Path::new("/tmp/vm.sock");
    let vm = command_line(&peer, Path::new("/guests"), socket, interactive);
    let relay = Nested::inside("/run/vmtest relay /dev/vport0p3 /tmp/vm.sock");
    let vm = Nested::inside(&shell_words(&vm.command()));
    let stream = connect(&machine.dir().join("terminal"), SOON)?;
    place.announce(&machine.dir().join("vm.sock"))?;
    machine.begin(&format!("{relay} & {vm} <>/dev/vport0p2 >&0"))?;
    if interactive {
        println!("{HOW_TO_LEAVE}");
        let left =
            terminal::bridge(stream, || Ok(machine.end(Duration::from_millis(200))?.ended()))?;
        return if left { Ok(()) } else { ended_well(&mut machine) };
    }
    let transcript = Transcript::tee(stream.try_clone()?, stdout());
    tour(Console::new("console", transcript, stream), &place.link)
        .map_err(|error| machine.explain(&error.to_string()))?;
    ended_well(&mut machine)
}

fn ended_well(machine: &mut Machine) -> Result {
    match machine.end(SOON)? {
        End::Exit(0) => Ok(()),
        end => {
            let said = machine.output();
            Err(machine.explain(&format!("the VM ended with {end:?}: {said}")).into())
        }
    }
}

/// A command as a line for the shell.
pub(crate) fn shell_words(command: &Command) -> String {
    let quoted =
        |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let mut line = quoted(command.get_program());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    line
}

/// What the demo shows when nobody is at the keyboard: the boot, a command in the guest, a
/// question over QMP, and the power button.
fn tour(mut console: Console, socket: &Path) -> Result {
    console.expect_line(READY, BOOT)?;
    println!("\n== the guest is up; uname -a in it says");
    console.type_text("uname -a\n")?;
    console.expect_line("GNU/Linux", SOON)?;
    let mut qmp = Qmp::connect(socket, SOON)?;
    let status = qmp.execute("query-status", json!({}))?;
    println!("== query-status says {status}");
    println!("== system_powerdown");
    qmp.execute("system_powerdown", json!({}))?;
    let event = qmp.event("SHUTDOWN", SOON)?;
    println!("\n== the guest went off: {}", event["data"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_survive_the_shell() {
        let mut command = std::process::Command::new("echo");
        command.args(["a b", "it's", "$HOME"]);
        assert_eq!(super::shell_words(&command), r"'echo' 'a b' 'it'\''s' '$HOME'");
    }
}
