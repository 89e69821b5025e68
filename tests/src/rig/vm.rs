//! One VM process under test: its command line, console, QMP connection and end.
//!
//! Used from the test's own thread. The process dies with the [`TestVm`], and with the rig.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::console::{Console, Transcript};
use super::process::{die_with_parent, wait_for_exit};
use super::qmp::Qmp;
use super::{Result, standstill};
use crate::supply::guests;

/// Time for things that take well under a second on an idle machine.
pub const SOON: Duration = Duration::from_secs(40);
/// Time for a guest to come up.
pub const BOOT: Duration = Duration::from_secs(120);

/// What the guest's init prints when its shell is about to read commands.
pub const READY: &str = "VMTEST-READY";

/// The kernel command line all Linux tests use: the shell on COM1 reads commands without echo,
/// and what only costs time under emulation is off.
pub const LEAN: &str = "console=ttyS0 panic=-1 mitigations=off quiet cryptomgr.notests nokaslr \
                        no_timer_check vmtest.script";

/// The kernel command line of the Debian system: as [`LEAN`], with its root.
pub const DEBIAN: &str = "console=ttyS0 panic=-1 mitigations=off quiet cryptomgr.notests nokaslr \
                          no_timer_check root=/dev/vda";
/// Time for a whole system to come up.
pub const SYSTEM: Duration = Duration::from_secs(240);

/// The program that is started: ours, or QEMU to check the tests themselves and to measure by.
#[derive(Clone, Debug)]
pub enum Peer {
    /// The `vmm` binary at this path.
    Vmm(PathBuf),
    /// QEMU with KVM: it takes the same command line.
    Qemu(PathBuf),
}

impl Peer {
    /// The word for this program on `vmtest`'s own command line.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Vmm(_) => "vmm",
            Self::Qemu(_) => "qemu",
        }
    }

    /// The program's file.
    pub fn path(&self) -> &Path {
        let (Self::Vmm(path) | Self::Qemu(path)) = self;
        path
    }
}

/// The Debian kernels the tests boot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kernel {
    /// The 6.12 cloud kernel.
    V6_12,
    /// The 6.1 cloud kernel.
    V6_1,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 2] = [Self::V6_12, Self::V6_1];

    /// The version's first two numbers: the directory of its files and part of test names.
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
        }
    }
}

/// The form in which a kernel is handed over, and with it the boot protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Image {
    /// Compressed, by the Linux 64-bit boot protocol.
    BzImage,
    /// The uncompressed ELF file, by its PVH note.
    Vmlinux,
}

/// Where COM1 is.
#[derive(Clone, Copy)]
enum Com1 {
    Stdio,
    Elsewhere,
    Terminal,
}

/// A command line that grows.
#[derive(Clone)]
pub struct VmBuilder {
    peer: Peer,
    guests: PathBuf,
    dir: PathBuf,
    memory: String,
    cpus: u32,
    append: String,
    kernel: Option<(PathBuf, PathBuf)>,
    com1: Com1,
    has_guest: bool,
    /// QEMU's; ours always has the machine's KVM.
    accel: &'static str,
    args: Vec<String>,
}

impl VmBuilder {
    /// A VM without a guest; `guests` has the kernels' files, `dir` takes the sockets.
    pub fn new(peer: &Peer, guests: &Path, dir: &Path) -> Self {
        Self {
            peer: peer.clone(),
            guests: guests.to_owned(),
            dir: dir.to_owned(),
            memory: "512".to_owned(),
            cpus: 1,
            append: LEAN.to_owned(),
            kernel: None,
            com1: Com1::Stdio,
            has_guest: true,
            accel: "kvm",
            args: Vec::new(),
        }
    }

    /// Boots a Debian kernel with the test initrd.
    pub fn kernel(mut self, kernel: Kernel, image: Image) -> Self {
        let dir = self.guests.join(kernel.name());
        let file = match image {
            Image::BzImage => "bzImage",
            Image::Vmlinux => "vmlinux",
        };
        self.kernel = Some((dir.join(file), dir.join("initrd")));
        self
    }

    /// Guest RAM as `-m` takes it.
    pub fn memory(mut self, size: &str) -> Self {
        size.clone_into(&mut self.memory);
        self
    }

    /// The number of vCPUs.
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// Adds words to the kernel command line.
    pub fn append(mut self, words: &str) -> Self {
        self.append = format!("{} {words}", self.append);
        self
    }

    /// Sets the whole kernel command line.
    pub fn only_append(mut self, words: &str) -> Self {
        words.clone_into(&mut self.append);
        self
    }

    /// Adds arguments to the command line.
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(str::to_owned));
        self
    }

    /// Machine `none`: neither processors nor memory.
    pub fn without_guest(mut self) -> Self {
        self.has_guest = false;
        self.args(["-machine", "none"])
    }

    /// Lets QEMU emulate the processors: its use of KVM needs more than any KVM has.
    pub fn emulated(mut self) -> Self {
        self.accel = "tcg";
        self
    }

    /// Leaves COM1 to the test's own arguments; the console then is the process's stdin and stdout.
    pub fn without_serial(mut self) -> Self {
        self.com1 = Com1::Elsewhere;
        self
    }

    /// Leaves the terminal to the VM, as when people start it by hand.
    pub fn on_terminal(mut self) -> Self {
        self.com1 = Com1::Terminal;
        self
    }

    /// The command without its pipes, for callers that start it by themselves.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.peer.path());
        if let Peer::Qemu(_) = self.peer {
            command.args(["-no-user-config", "-accel", self.accel]);
            // Its package does not come with these.
            command.args(["-global", "virtio-net-pci.romfile="]);
        }
        if let (Peer::Qemu(_), true) = (&self.peer, self.has_guest) {
            command.args(["-machine", "graphics=off", "-vga", "none", "-net", "none"]);
            if self.accel == "kvm" {
                command.args(["-cpu", "host"]);
            }
        }
        if self.has_guest {
            command.args(["-m", &self.memory, "-smp", &self.cpus.to_string()]);
        }
        if let Some((kernel, initrd)) = &self.kernel {
            command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
            command.arg("-append").arg(&self.append);
        }
        match (self.com1, &self.peer) {
            (Com1::Stdio, _) => {
                command.args(["-nodefaults", "-display", "none", "-serial", "stdio"])
            }
            (Com1::Elsewhere, _) => command.args(["-nodefaults", "-display", "none"]),
            (Com1::Terminal, Peer::Qemu(_)) => command.arg("-nographic"),
            (Com1::Terminal, Peer::Vmm(_)) => &mut command,
        };
        command.args(&self.args);
        command
    }

    /// Starts the process with a QMP socket and connects to it.
    pub fn start(self) -> Result<TestVm> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = self.dir.join(format!("qmp{number}"));
        let mut command = self.command();
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        let mut process = Process::start(&mut command)?;
        let qmp = process.connect(&socket).map_err(|error| process.explain(error))?;
        let console = process.console()?;
        Ok(TestVm { process, console, qmp, commands: 0, qmp_path: socket })
    }

    /// Starts the process for a command line that makes it end by itself.
    pub fn start_bare(self) -> Result<Process> {
        Process::start(&mut self.command())
    }
}

/// A started process and what it says on stdout and stderr.
pub struct Process {
    child: Child,
    stdout: Transcript,
    stderr: Transcript,
    line: String,
}

impl Process {
    /// Starts `command` with its three standard streams as pipes.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = die_with_parent(command)
            .spawn()
            .map_err(|error| format!("cannot start {line}: {error}"))?;
        let stdout = child.stdout.take().ok_or("no pipe to stdout")?;
        let stderr = child.stderr.take().ok_or("no pipe to stderr")?;
        let (stdout, stderr) = (Transcript::collect(stdout), Transcript::collect(stderr));
        Ok(Self { child, stdout, stderr, line })
    }

    /// What came on stdout.
    pub fn stdout(&self) -> &Transcript {
        &self.stdout
    }

    /// What came on stderr.
    pub fn stderr(&self) -> &Transcript {
        &self.stderr
    }

    /// Everything that came on stderr, once the process has closed it.
    pub fn wait_for_stderr(&self, limit: Duration) -> Result<String> {
        self.stderr.wait_for_end(limit).map_err(|error| self.explain(error))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Connects to its monitor at `socket` once that is there; fails when the process ends first.
    fn connect(&mut self, socket: &Path) -> Result<Qmp> {
        let deadline = Instant::now() + SOON;
        while !socket.exists() && self.running()? && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let limit = if self.running()? { SOON } else { Duration::ZERO };
        Qmp::connect(socket, limit)
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.id())?);
        Ok(rustix::process::kill_process(pid.ok_or("a child without a process id")?, signal)?)
    }

    /// Whether the process still runs.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the end; the exit code, a signal being a failure.
    pub fn exit_code(&mut self, limit: Duration) -> Result<i32> {
        let status = wait_for_exit(&mut self.child, limit)?
            .ok_or_else(|| self.explain("the process did not end in time".into()))?;
        status.code().ok_or_else(|| self.explain(format!("the process died: {status}").into()))
    }

    /// stdin and stdout as a console; once.
    pub fn console(&mut self) -> Result<Console> {
        let stdin = self.child.stdin.take().ok_or("stdin was taken before")?;
        Ok(Console::new("console", self.stdout.clone(), stdin))
    }

    /// `error` with what the process said before it.
    pub fn explain(
        &self,
        error: Box<dyn std::error::Error + Send + Sync>,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        format!(
            "{error}\n  command: {}\n  stderr:\n{}  stdout:\n{}",
            self.line,
            self.stderr.tail(20),
            self.stdout.tail(20)
        )
        .into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running VM with its console on COM1 and a QMP connection.
pub struct TestVm {
    /// The process.
    pub process: Process,
    /// COM1, or what else is on stdin and stdout.
    pub console: Console,
    /// The QMP connection.
    pub qmp: Qmp,
    /// The QMP socket, for further connections.
    pub qmp_path: PathBuf,
    commands: u32,
}

impl TestVm {
    /// Waits until the guest's shell reads commands.
    pub fn booted(&mut self) -> Result {
        self.console.expect_line(READY, BOOT).map_err(|error| self.process.explain(error))?;
        Ok(())
    }

    /// Waits until the Debian system asks for a login, and logs in: [`sh`](Self::sh) works then.
    pub fn log_in(&mut self) -> Result {
        let steps = [("login:", "root\n"), ("Password:", "vmtest\n"), ("debian:~#", "")];
        for (prompt, answer) in steps {
            self.console.expect(prompt, SYSTEM).map_err(|error| self.process.explain(error))?;
            self.console.type_text(answer)?;
        }
        // A shell that neither echoes nor prompts, as in the test initrd.
        self.console.type_text("stty -echo -onlcr; echo VM''TEST-READY; exec sh /dev/ttyS0\n")?;
        self.booted()
    }

    /// Runs a shell command in the guest and returns what it printed; another exit status than 0
    /// is a failure.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        let (status, output) = self.sh_within(command, SOON)?;
        if status != 0 {
            return Err(format!("{command:?} in the guest gave {status}: {output}").into());
        }
        Ok(output)
    }

    /// Runs a shell command in the guest; its exit status and output.
    pub fn sh_within(&mut self, command: &str, limit: Duration) -> Result<(i32, String)> {
        self.commands += 1;
        let mark = format!("@{}@", self.commands);
        self.console.type_text(&format!("{{ {command}\n}}; echo {mark}$?@\n"))?;
        let said = self.console.expect(&mark, limit);
        let output = said.map_err(|error| format!("{error}{}", standstill::report(self)))?;
        let status = self.console.expect("@\n", SOON)?;
        let status = status.parse().map_err(|_| format!("{status:?} is no exit status"))?;
        Ok((status, output.trim_end_matches('\n').to_owned()))
    }

    /// Loads kernel modules of the test initrd, and what they need. A module that the guest's kernel
    /// has built in, or does not have, is passed over.
    pub fn load(&mut self, modules: &[&str]) -> Result {
        if let Some(unknown) = modules.iter().find(|name| !guests::MODULES.contains(name)) {
            return Err(format!("the test initrd is made without the module {unknown}").into());
        }
        self.sh(&format!("load virtio_pci {}", modules.join(" "))).map(drop)
    }

    /// Waits until a shell command in the guest succeeds, and returns what it printed. For what
    /// the guest does by itself: a device that appears, an address that arrives.
    pub fn wait_for(&mut self, command: &str) -> Result<String> {
        let seconds = SOON.as_secs();
        let line = format!(
            "n=0; until ( {command} ) >/tmp/waited 2>&1; do n=$((n+1)); \
             [ $n -lt {} ] || break; sleep 0.1; done; cat /tmp/waited; [ $n -lt {} ]",
            seconds * 10,
            seconds * 10
        );
        let (status, output) = self.sh_within(&line, SOON * 3)?;
        if status == 0 {
            return Ok(output);
        }
        Err(format!("{command:?} in the guest still fails after {seconds} s: {output}").into())
    }

    /// The SHA-256 sum of a file or block device of the guest.
    pub fn sha256(&mut self, path: &str) -> Result<String> {
        let (status, text) = self.sh_within(&format!("sha256sum {path}"), BOOT)?;
        match text.split_whitespace().next() {
            Some(sum) if status == 0 => Ok(sum.to_owned()),
            _ => Err(format!("the guest cannot sum {path}: {text}").into()),
        }
    }

    /// Fails when the kernel log has a warning, a bug report or an oops.
    pub fn check_kernel_log(&mut self) -> Result {
        let bad = self.sh("dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace|rcu.*stall' || true")?;
        if bad.is_empty() {
            return Ok(());
        }
        let log = self.sh("dmesg | tail -n 300")?;
        Err(format!("the kernel log has {bad:?}:\n{log}").into())
    }

    /// Waits for the process to end; its exit code.
    pub fn exit_code(&mut self, limit: Duration) -> Result<i32> {
        self.process.exit_code(limit)
    }
}
