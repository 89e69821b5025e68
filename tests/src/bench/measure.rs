//! The measures themselves, on the machine we are on: one call is one round, in which everybody
//! has a turn, so that whatever else the machine does meets all alike.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::process::{cpu_time, memory};
use super::sample::{Figure, Samples, Who};
use crate::rig::Result;
use crate::rig::vm::{BOOT, Kernel, LEAN, Process, SOON};
use crate::scratch::Scratch;
use crate::supply::cpio::Archive;

/// How long a booted guest is left alone before its process is weighed.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const POLL: Duration = Duration::from_micros(200);
const MARK: &str = "VMBENCH-INIT";

/// The guest's process 1: says that it is there, then does nothing.
const INIT: &str = "#!/bin/busybox sh\necho VMBENCH-INIT\nexec /bin/busybox sleep 100000\n";

/// Firmware whose guest halts for good: `cli; hlt; jmp $-1`, in 64 KiB of nothing.
const FIRMWARE_SIZE: usize = 64 << 10;
const RESET: usize = FIRMWARE_SIZE - 16;
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// What can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Measure {
    /// From exec to the greeting.
    Greeting,
    /// From exec to the guest's init, and memory then.
    Boot,
    /// Round trips of query-status.
    Query,
    /// What sessions cost.
    Session,
    /// Operations of a disk.
    Disk,
    /// Throughput of network cards.
    Net,
    /// How fast a new disk is there.
    Hotplug,
    /// What devices cost at boot.
    Devices,
    /// How guests move.
    Migrate,
}

impl Measure {
    /// Every measure.
    pub(super) const ALL: [Self; 9] = [
        Self::Greeting,
        Self::Boot,
        Self::Query,
        Self::Session,
        Self::Disk,
        Self::Net,
        Self::Hotplug,
        Self::Devices,
        Self::Migrate,
    ];

    /// The word on command lines.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Boot => "boot",
            Self::Query => "query",
            Self::Session => "session",
            Self::Disk => "disk",
            Self::Net => "net",
            Self::Hotplug => "hotplug",
            Self::Devices => "devices",
            Self::Migrate => "migrate",
        }
    }

    /// Whether it boots Linux.
    pub(super) fn needs_linux(self) -> bool {
        matches!(self, Self::Boot) || self.needs_debian() || self == Self::Devices
    }

    /// Whether it runs programs of the Debian system.
    pub(super) fn needs_debian(self) -> bool {
        matches!(self, Self::Disk | Self::Net | Self::Hotplug)
    }
}

/// The files of a round.
pub(super) struct Place {
    vmm: PathBuf,
    guests: PathBuf,
    image: Option<PathBuf>,
    guest: PathBuf,
    dir: Scratch,
}

impl Place {
    /// With the program to measure, the directory of the guests' files and the Debian system.
    pub(super) fn new(vmm: &Path, guests: &Path, image: Option<PathBuf>) -> Result<Self> {
        let guest = guests.join(Kernel::V6_12.name());
        let (vmm, guests) = (vmm.to_owned(), guests.to_owned());
        let place = Self { vmm, guests, image, guest, dir: Scratch::new()? };
        let mut firmware = vec![0; FIRMWARE_SIZE];
        firmware[RESET..RESET + HALT.len()].copy_from_slice(&HALT);
        fs::write(place.firmware(), firmware)?;
        // The kernel unpacks one archive after the other: our init joins the rig's busybox.
        let mut initrd = fs::read(place.guest.join("initrd"))?;
        let mut archive = Archive::default();
        archive.file("bench-init", 0o755, INIT.as_bytes());
        initrd.extend(archive.finish());
        fs::write(place.initrd(), initrd)?;
        Ok(place)
    }

    fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    pub(super) fn firmware(&self) -> PathBuf {
        self.dir.join("firmware")
    }

    pub(super) fn guests(&self) -> &Path {
        &self.guests
    }

    pub(super) fn image(&self) -> Option<PathBuf> {
        self.image.clone()
    }

    pub(super) fn vmm(&self) -> &Path {
        &self.vmm
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The round with this number of `measure`; a number of trips where it is about trips.
    pub(super) fn round(&self, measure: Measure, round: usize, trips: usize) -> Result<Samples> {
        let mut samples = Samples::default();
        match measure {
            Measure::Greeting => {
                for who in Who::order(Who::PAIR, round) {
                    self.greeting(who, &mut samples)?;
                }
            }
            Measure::Boot => {
                for who in Who::order(Who::ALL, round) {
                    self.boot(who, &mut samples)?;
                }
            }
            Measure::Query => self.query(trips, &mut samples)?,
            Measure::Session => self.sessions(round, trips, &mut samples)?,
            Measure::Disk => self.disk(round, &mut samples)?,
            Measure::Net => self.network(round, &mut samples)?,
            Measure::Hotplug => self.hotplug(round, &mut samples)?,
            Measure::Devices => self.devices(round, &mut samples)?,
            Measure::Migrate => self.moves(round, &mut samples)?,
        }
        Ok(samples)
    }

    fn with_kernel(&self, who: Who) -> Command {
        let mut command = who.command(&self.vmm);
        command.arg("-kernel").arg(self.guest.join(who.image()));
        command.arg("-initrd").arg(self.initrd());
        let append = LEAN.replace("vmtest.script", "rdinit=/bench-init");
        command.args(["-append", &append, "-serial", "stdio"]);
        command
    }

    /// From exec to the greeting and to a first answer.
    fn greeting(&self, who: Who, samples: &mut Samples) -> Result {
        let mut command = self.with_kernel(who);
        command.arg("-S");
        let start = Instant::now();
        let vm = Peer::start(&mut command, &self.dir)?;
        samples.push(Figure::Greeting, who, millis(vm.greeted - start));
        samples.push(Figure::GreetingCpu, who, millis(vm.at_greeting));
        samples.push(Figure::AnswerCpu, who, millis(vm.at_answer));
        Ok(())
    }

    /// From exec to the guest's init, and the memory of the process when all is quiet.
    fn boot(&self, who: Who, samples: &mut Samples) -> Result {
        let mut command = self.with_kernel(who);
        command.arg("-qmp").arg(qmp_option(&self.dir.join("qmp")));
        println!("{}", begins(who));
        let start = Instant::now();
        let mut process = Process::start(&mut command)?;
        let mut console = process.console()?;
        console.expect_line(MARK, BOOT).map_err(|error| process.explain(error))?;
        samples.push(Figure::Init, who, millis(start.elapsed()));
        println!("{}", has_init(who));
        sleep(SETTLE);
        let memory = memory(process.id()).map_err(|error| process.explain(error))?;
        samples.push(Figure::Resident, who, kib(memory.resident));
        samples.push(Figure::Private, who, kib(memory.private));
        Ok(())
    }

    /// Round trips, in turns of a hundred.
    fn query(&self, trips: usize, samples: &mut Samples) -> Result {
        const TURN: usize = 100;
        for (running, trip, cpu) in [
            (false, Figure::QueryStopped, Figure::QueryStoppedCpu),
            (true, Figure::QueryRunning, Figure::QueryRunningCpu),
        ] {
            let mut peers = Vec::new();
            for (number, who) in Who::PAIR.into_iter().enumerate() {
                let mut command = who.command(&self.vmm);
                command.arg("-bios").arg(self.firmware());
                if !running {
                    command.arg("-S");
                }
                let dir = self.dir.join(number.to_string());
                fs::create_dir_all(&dir)?;
                let mut peer = Peer::start(&mut command, &dir)?;
                peer.warm_up(TURN)?;
                peers.push((who, peer));
            }
            for _ in 0..trips.div_ceil(TURN) {
                for (who, peer) in &mut peers {
                    let before = cpu_time(peer.process.id())?;
                    let mut times = Vec::with_capacity(TURN);
                    for _ in 0..TURN {
                        times.push(micros(peer.trip()?));
                    }
                    let used = cpu_time(peer.process.id())?.saturating_sub(before);
                    samples.add(trip, *who, times);
                    samples.push(cpu, *who, micros(used / u32::try_from(TURN)?));
                }
            }
        }
        Ok(())
    }
}

/// A started process with a QMP connection that does as little as can be between two messages.
pub(super) struct Peer {
    process: Process,
    stream: UnixStream,
    buffer: Vec<u8>,
    greeted: Instant,
    at_greeting: Duration,
    at_answer: Duration,
}

impl Peer {
    pub(super) fn start(command: &mut Command, dir: &Path) -> Result<Self> {
        let socket = dir.join("qmp");
        // One left by a process that was killed takes no connection, but would be found.
        let _ = fs::remove_file(&socket);
        command.arg("-qmp").arg(qmp_option(&socket));
        command.stdin(Stdio::null());
        let process = Process::start(command)?;
        let connected = connect(&socket).map_err(|error| process.explain(error))?;
        connected.set_read_timeout(Some(SOON))?;
        let mut peer = Self {
            process,
            stream: connected,
            buffer: Vec::with_capacity(4096),
            greeted: Instant::now(),
            at_greeting: Duration::ZERO,
            at_answer: Duration::ZERO,
        };
        peer.receive("\"QMP\"")?;
        peer.greeted = Instant::now();
        peer.at_greeting = cpu_time(peer.process.id())?;
        peer.exchange(b"{\"execute\": \"qmp_capabilities\"}\n")?;
        peer.at_answer = cpu_time(peer.process.id())?;
        Ok(peer)
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    pub(super) fn warm_up(&mut self, trips: usize) -> Result {
        (0..trips).try_for_each(|_| self.trip().map(drop))
    }

    pub(super) fn trip(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.exchange(b"{\"execute\": \"query-status\"}\n")?;
        Ok(start.elapsed())
    }

    fn exchange(&mut self, message: &[u8]) -> Result {
        self.stream.write_all(message)?;
        self.receive("\"return\"")
    }

    /// Reads up to the end of a line that contains `word`.
    fn receive(&mut self, word: &str) -> Result {
        self.receive_many(word, 1)
    }

    /// Reads up to the end of a line, with `word` in it or before it `count` times.
    pub(super) fn receive_many(&mut self, word: &str, count: usize) -> Result {
        self.buffer.clear();
        let mut found = 0;
        let mut looked = 0;
        let mut part = [0; 4096];
        loop {
            let read = match self.stream.read(&mut part) {
                Ok(0) => return Err(self.process.explain("QMP was closed".into())),
                Ok(read) => read,
                Err(error) => return Err(self.process.explain(error.into())),
            };
            self.buffer.extend_from_slice(&part[..read]);
            if self.buffer.ends_with(b"\n") {
                let news = self.buffer[looked..].windows(word.len());
                found += news.filter(|part| *part == word.as_bytes()).count();
                looked = self.buffer.len();
                if found >= count {
                    return Ok(());
                }
            }
        }
    }
}

/// What a boot says when it begins, for those who watch from outside.
pub(super) fn begins(who: Who) -> String {
    format!("vmbench: {} begins", who.name())
}

/// What a boot says when the guest's init has been heard of.
pub(super) fn has_init(who: Who) -> String {
    format!("vmbench: {} has its init", who.name())
}

pub(super) fn qmp_option(socket: &Path) -> String {
    format!("unix:{},server=on,wait=off", socket.display())
}

pub(super) fn connect(socket: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + SOON;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("cannot connect to {}: {error}", socket.display()).into());
            }
            Err(_) => sleep(POLL),
        }
    }
}

/// Reads the greeting of a connection and leaves negotiation mode.
pub(super) fn greeting(stream: &mut UnixStream) -> Result {
    stream.set_read_timeout(Some(SOON))?;
    for request in ["", "{\"execute\": \"qmp_capabilities\"}\n"] {
        stream.write_all(request.as_bytes())?;
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte)?;
        }
    }
    Ok(())
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(super) fn kib(count: u64) -> f64 {
    // Far below what a float holds exactly.
    #[expect(clippy::cast_precision_loss)]
    let count = count as f64;
    count
}
