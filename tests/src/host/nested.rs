//! Nested hosts: x86 machines emulated in software whose processor has AMD SVM, so that a stock
//! Debian kernel in them offers a real KVM, with nested paging, on any machine.
//!
//! A host is booted once and saved: its RAM in a shared file, its device state by migration
//! without that RAM. Every test gets a fresh host restored from there in a tenth of a second, the
//! RAM mapped copy-on-write. Four virtio-serial ports lead inside: a shell that takes lines and
//! whose output ends with the exit status, two plain streams for the demo's terminal and QMP, and
//! one that keeps the host awake.
//!
//! Each host is used by the one thread that started it, and dies with that thread.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::net::SendFlags;
use serde_json::json;

use super::image::{self, QEMU};
use super::{Host, Verdict};
use crate::rig::console::{Console, Transcript, tail};
use crate::rig::process::{die_with_parent, wait_for_exit};
use crate::rig::qmp::{Qmp, connect};
use crate::rig::registry::Test;
use crate::rig::vm::Peer;
use crate::rig::{Result, THOROUGH, thorough};
use crate::scratch::Scratch;
use crate::supply::cache::{Item, file_key, item};
use crate::supply::debian::Debian;
use crate::supply::kernel::Files;

const READY: &str = "NESTED-HOST-READY";
const EXIT: &str = "NESTED-HOST-EXIT ";
/// RAM of a nested host; what it does not touch costs nothing.
const MEMORY: &str = "3G";
const BOOT: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

/// `no_timer_check`: an emulated timer that is late on a loaded machine must not stop the boot.
const CMDLINE: &str = "console=ttyS0 panic=-1 mitigations=off quiet no_timer_check \
                       cryptomgr.notests nokaslr";

/// Without XSAVE and what rests on it: QEMU 7.2 does not tell the nested host of a guest's XSETBV,
/// so KVM puts XCR0 back to 1 at the next exit and the guest's XSAVE loses its SSE registers.
/// With FXSAVE they are kept.
const PROCESSOR: &str = "EPYC-v3,-xsave,-xsavec,-xsaves,-xsaveopt,-xgetbv1,-avx,-avx2,-f16c,-fma,\
                         check=off";

/// The saved host and what it needs to be restored, any number of times at once.
pub struct Nested {
    base: Item,
    saved: Item,
    vmlinux: PathBuf,
    _guests: Item,
    _dir: Scratch,
    run_image: PathBuf,
    debian: Option<Debian>,
    peer: Peer,
}

impl Nested {
    /// Makes the images and the snapshot where they are missing or old, and the run image.
    pub fn prepare(cache: &Path, kernel: &Files, guests: Item, peer: Peer) -> Result<Self> {
        let base = image::base(cache, &guests)?;
        let initramfs = image::initramfs(kernel)?;
        let vmlinux = kernel.vmlinux();

        let key = format!(
            "{}{}{}{}{:?}{}\n",
            base.key(),
            file_key(&vmlinux)?,
            file_key(Path::new(QEMU))?,
            checksum(&initramfs),
            machine(Path::new(""), Path::new(""), Path::new(""), Path::new(""), "on").get_args(),
            CMDLINE,
        );
        let what = "booting and saving the nested host";
        let saved = item(cache, "nested", key, what, |dir| {
            fs::write(dir.join("initramfs"), initramfs)?;
            image::empty_run(&dir.join("run.erofs"))?;
            save(dir, &base.path().join("base.erofs"), &vmlinux)
        })?;

        let dir = Scratch::new()?;
        let run_image = image::run(&dir, &peer)?;
        Ok(Self { base, saved, vmlinux, _guests: guests, _dir: dir, run_image, debian: None, peer })
    }

    /// With the Debian system for the tests that use it.
    pub fn with_debian(self, debian: Option<Debian>) -> Self {
        Self { debian, ..self }
    }

    /// Gives a running host the Debian system, read-only; where it is found inside.
    pub fn plug_debian(&self, machine: &mut Machine) -> Result<&'static str> {
        const PLACE: &str = "/dev/vdc";
        let debian = self.debian.as_ref().ok_or("no Debian system was made")?;
        let node = json!({
            "driver": "file", "node-name": "debian", "read-only": true, "locking": "off",
            "filename": debian.image(),
        });
        machine.qmp.execute("blockdev-add", node)?;
        let device = json!({ "driver": "virtio-blk-pci", "id": "debian", "drive": "debian" });
        machine.qmp.execute("device_add", device)?;
        let line = format!("until test -b {PLACE}; do sleep 0.05; done");
        match machine.run(&line, SOON)? {
            End::Exit(0) => Ok(PLACE),
            _ => Err(machine.explain("a nested host does not see its new disk").into()),
        }
    }

    /// Starts a fresh host from the snapshot and mounts the run image in it.
    pub fn start(&self) -> Result<Machine> {
        let base = self.base.path().join("base.erofs");
        let mut command = machine(self.saved.path(), &base, &self.run_image, &self.vmlinux, "off");
        command.args(["-incoming", "defer"]);
        let mut machine = Machine::start(command)?;
        let state = self.saved.path().join("state");
        machine.qmp.execute("migrate-set-capabilities", ignore_shared())?;
        let uri = format!("exec:cat '{}'", state.display());
        machine.qmp.execute("migrate-incoming", json!({ "uri": uri }))?;
        machine.wait_for_status("paused")?;
        machine.qmp.execute("cont", json!({}))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let set_up = format!("date -s @{now} >/dev/null && mount -r -t erofs /dev/vdb /host/run");
        match machine.run(&set_up, SOON)? {
            End::Exit(0) => Ok(machine),
            _ => Err(machine.explain("cannot set up a nested host").into()),
        }
    }

    /// The shell line that runs `words` in the run image's root.
    pub fn inside(words: &str) -> String {
        let thorough = if thorough(0, 1) == 1 { format!("{THOROUGH}=1 ") } else { String::new() };
        format!("{thorough}LD_LIBRARY_PATH=/run/lib RUST_BACKTRACE=1 chroot /host {words}")
    }

    /// The program under test as it is found inside a host.
    pub fn peer_inside(&self) -> Peer {
        match self.peer {
            Peer::Vmm(_) => Peer::Vmm("/run/vmm".into()),
            Peer::Qemu(_) => Peer::Qemu(QEMU.into()),
        }
    }

    fn attempt(&self, test: &Test) -> Result<(End, String)> {
        let mut machine = self.start()?;
        let peer = self.peer_inside();
        let (word, path) = (peer.word(), peer.path().display());
        let image = if test.debian { self.plug_debian(&mut machine)? } else { "" };
        let line = format!("/run/vmtest run-one {} {word} {path} /guests {image}", test.name);
        let end = machine.run(&Self::inside(&line), test.limit + GRACE)?;
        let mut output = machine.output();
        match end {
            End::Exit(_) => {}
            End::Late => {
                output.push_str(&machine.explain("the nested host hangs"));
                output.push_str(&machine.where_it_is());
            }
            End::Died => output.push_str(&machine.explain("the nested host died")),
        }
        Ok((end, output))
    }
}

impl Host for Nested {
    fn run(&self, test: &Test) -> Result<Verdict> {
        let (mut end, mut output) = self.attempt(test)?;
        // The emulation below us is not what we test: its death is shown, and forgiven once. The
        // test's process keeps to its limit by itself, so if it does not end the host hangs.
        let restarted = matches!(end, End::Died | End::Late);
        if restarted {
            println!("the nested host of {} failed, again in a fresh one:\n{output}", test.name);
            (end, output) = self.attempt(test)?;
        }
        Ok(Verdict { passed: end == End::Exit(0), output, restarted })
    }
}

/// How much longer than its limit a test's process may take to end.
const GRACE: Duration = Duration::from_secs(30);

/// How a shell line ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// With this exit status.
    Exit(i32),
    /// Not in time.
    Late,
    /// The host itself ended first.
    Died,
}

impl End {
    /// Whether nothing more comes.
    pub fn ended(self) -> bool {
        self != Self::Late
    }
}

/// One running nested host.
pub struct Machine {
    child: std::process::Child,
    stderr: Transcript,
    dir: Scratch,
    qmp: Qmp,
    shell: Console,
    output: String,
    _pulse: Pulse,
}

/// Sends a byte every second that the host reads and forgets. Now and then the emulation loses an
/// interrupt of the host's timer (a guest is entered just when it comes), and no other comes before
/// the host has seen that one: its processor sleeps, or stays in that guest, for good. With any
/// other interrupt it is seen too. They come for as long as somebody in the host reads.
struct Pulse {
    _end: Sender<()>,
}

impl Pulse {
    fn start(port: UnixStream) -> Self {
        let (end, ended) = channel();
        std::thread::spawn(move || {
            let every = Duration::from_secs(1);
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // What does not fit is not needed either.
                let _ = rustix::net::send(&port, b".", SendFlags::DONTWAIT);
            }
        });
        Self { _end: end }
    }
}

impl Machine {
    fn start(mut command: Command) -> Result<Self> {
        let dir = Scratch::new()?;
        // Sockets are named relative to the directory: their names may not be long.
        command.current_dir(&*dir).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = die_with_parent(command.stderr(Stdio::piped())).spawn()?;
        let stderr = Transcript::collect(child.stderr.take().ok_or("no stderr")?);
        let connected = (|| {
            let qmp = Qmp::connect(&dir.join("qmp"), SOON)?;
            let stream = connect(&dir.join("shell"), SOON)?;
            let transcript = Transcript::collect(stream.try_clone()?);
            let pulse = Pulse::start(connect(&dir.join("pulse"), SOON)?);
            Ok((qmp, Console::new("nested host's shell", transcript, stream), pulse))
        })();
        match connected {
            Ok((qmp, shell, pulse)) => {
                let output = String::new();
                Ok(Self { child, stderr, dir, qmp, shell, output, _pulse: pulse })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let error: Box<dyn std::error::Error + Send + Sync> = error;
                Err(format!("cannot start a nested host: {error}\n{}", stderr.tail(20)).into())
            }
        }
    }

    /// Where the unix sockets `terminal` and `vm.sock` of the two plain streams are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id of the emulator.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts a shell line and does not wait.
    pub fn begin(&mut self, line: &str) -> Result {
        self.shell.skip();
        self.output.clear();
        self.shell.type_text(&format!("{line}; echo {EXIT}$?.\n"))
    }

    /// Waits for the end of the line that [`begin`](Self::begin) started.
    pub fn end(&mut self, limit: Duration) -> Result<End> {
        let deadline = Instant::now() + limit;
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        let found = self.shell.expect(EXIT, left(deadline)).and_then(|output| {
            let status = self.shell.expect(".", left(deadline))?;
            Ok((output, status))
        });
        match found {
            Ok((output, status)) => {
                self.output = output;
                let status = status.parse().map_err(|_| format!("{status:?} is no status"))?;
                Ok(End::Exit(status))
            }
            Err(_) => {
                self.output = self.shell.unread();
                let died = self.shell.transcript().closed();
                Ok(if died { End::Died } else { End::Late })
            }
        }
    }

    /// Waits until the line that [`begin`](Self::begin) started has printed `text`.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result {
        self.shell.expect(text, limit).map(drop)
    }

    /// Runs a shell line to its end.
    pub fn run(&mut self, line: &str, limit: Duration) -> Result<End> {
        self.begin(line)?;
        self.end(limit)
    }

    /// What the last line printed.
    pub fn output(&self) -> String {
        self.output.clone()
    }

    /// `what` with the end of the host's console.
    pub fn explain(&self, what: &str) -> String {
        let console = fs::read(self.dir.join("console")).unwrap_or_default();
        let console = tail(&String::from_utf8_lossy(&console).replace('\r', ""), 40);
        format!("{what}; its console ends with\n{console}{}", self.stderr.tail(10))
    }

    /// What its processor does, looked at twice.
    fn where_it_is(&mut self) -> String {
        let lines = ["info registers", "info lapic", "info pic", "info registers"];
        let said = lines.map(|line| {
            let words = json!({ "command-line": line });
            match self.qmp.execute("human-monitor-command", words) {
                Ok(said) => said.as_str().unwrap_or_default().replace('\r', ""),
                Err(error) => error.to_string(),
            }
        });
        said.join("\n")
    }

    fn wait_for_status(&mut self, wanted: &str) -> Result {
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.qmp.execute("query-status", json!({}))?;
            if status["status"] == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.explain(&format!("a nested host stays {status}")).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command line of a host whose saved files are in `saved`.
fn machine(saved: &Path, base: &Path, run: &Path, vmlinux: &Path, share: &str) -> Command {
    let mut command = Command::new(QEMU);
    let ram = saved.join("ram");
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]);
    command.args(["-nic", "none", "-no-reboot", "-accel", "tcg,thread=multi"]);
    command.args(["-machine", "pc,memory-backend=mem", "-cpu", PROCESSOR, "-smp", "1"]);
    command.args(["-m", MEMORY, "-object"]).arg(format!(
        "memory-backend-file,id=mem,size={MEMORY},mem-path={},share={share}",
        ram.display()
    ));
    command.args(["-serial", "file:console", "-qmp", "unix:qmp,server=on,wait=off"]);
    command.args(["-device", "virtio-serial-pci,id=ports"]);
    for (number, name) in (1..).zip(["shell", "terminal", "vm.sock", "pulse"]) {
        command.args(["-chardev", &format!("socket,id=p{number},path={name},server=on,wait=off")]);
        let port = format!("virtserialport,bus=ports.0,nr={number},chardev=p{number},name={name}");
        command.args(["-device", &port]);
    }
    for (name, file) in [("base", base), ("run", run)] {
        command.arg("-blockdev").arg(format!(
            "driver=file,node-name={name},read-only=on,locking=off,filename={}",
            file.display()
        ));
        command.args(["-device", &format!("virtio-blk-pci,drive={name}")]);
    }
    command.arg("-kernel").arg(vmlinux).arg("-initrd").arg(saved.join("initramfs"));
    command.args(["-append", CMDLINE]);
    command
}

fn ignore_shared() -> serde_json::Value {
    json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": true }] })
}

/// Boots a host and leaves `ram` and `state` in `dir`.
fn save(dir: &Path, base: &Path, vmlinux: &Path) -> Result {
    let mut machine = Machine::start(machine(dir, base, &dir.join("run.erofs"), vmlinux, "on"))?;
    if let Err(error) = machine.shell.expect_line(READY, BOOT) {
        return Err(machine.explain(&error.to_string()).into());
    }
    if machine.run("ls /dev/kvm /host/guests", SOON)? != End::Exit(0) {
        return Err(machine.explain("the nested host has no KVM or no disk").into());
    }
    let qmp = &mut machine.qmp;
    qmp.execute("stop", json!({}))?;
    qmp.execute("migrate-set-capabilities", ignore_shared())?;
    qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": 1_000_000_000_000_u64 }))?;
    let uri = format!("exec:cat > '{}'", dir.join("state").display());
    qmp.execute("migrate", json!({ "uri": uri }))?;
    let deadline = Instant::now() + SOON;
    loop {
        let status = qmp.execute("query-migrate", json!({}))?;
        match status["status"].as_str() {
            Some("completed") => break,
            Some("failed") => return Err(format!("cannot save a nested host: {status}").into()),
            _ if Instant::now() > deadline => return Err("saving takes too long".into()),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    qmp.execute("quit", json!({}))?;
    wait_for_exit(&mut machine.child, SOON)?;
    Ok(())
}

/// FNV-1a, to tell one initramfs from the next.
pub(super) fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
