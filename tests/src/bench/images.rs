//! The image tools beside the distribution's: requests in a second, CPU time of each, copies, and
//! opening a large image. Needs no KVM. One thread, no locks.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::measure::{kib, micros, millis};
use super::process::{children_time, peak};
use crate::images::{Whose, built};
use crate::rig::Result;
use crate::scratch::Scratch;
use crate::supply::apt;

const BOTH: [Whose; 2] = [Whose::Ours, Whose::Others];
/// Requests of one run, and the size of the disks that they go to.
const REQUESTS: u32 = 200_000;
const SIZE: &str = "256M";
/// An offset for the next request that looks like chance: odd in requests, far from the last.
const STEP: u32 = 7919 * 4096;

/// What one run cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    time: Duration,
    cpu: Duration,
}

struct Place {
    ours: PathBuf,
    dir: Scratch,
}

/// Runs everything so many times and makes the table.
pub(super) fn run(rounds: usize) -> Result<String> {
    apt::install_tools()?;
    let place = Place { ours: built()?, dir: Scratch::new()? };
    place.make()?;
    let mut text =
        String::from("| images | vmm | QEMU | vmm / QEMU | target |\n|---|--:|--:|--:|---|\n");
    for (what, image) in [
        ("raw", "-f raw raw"),
        ("qcow2, allocated", "-f qcow2 full"),
        ("qcow2, unallocated", "-f qcow2 empty"),
        ("a chain of 5", "-f qcow2 chain4"),
    ] {
        let line = format!("bench -c {REQUESTS} -d 64 -S {STEP} {image}");
        let [ours, others] = place.rounds(rounds, |_| line.clone())?;
        let rate = |cost: Cost| f64::from(REQUESTS) / cost.time.as_secs_f64();
        let (a, b) = (rate(ours), rate(others));
        let ratio = a / b;
        writeln!(
            text,
            "| 4k random, depth 64, {what}: requests/s | {a:.0} | {b:.0} | {ratio:.2} | at least 1.3 |"
        )?;
        let each = |cost: Cost| micros(cost.cpu) / f64::from(REQUESTS);
        let (a, b) = (each(ours), each(others));
        let ratio = a / b;
        writeln!(
            text,
            "| the same: µs of CPU for each | {a:.2} | {b:.2} | {ratio:.2} | at most 1 |"
        )?;
    }
    for (what, options, target) in [
        ("raw to qcow2", "-f raw -O qcow2 raw", "at most 1"),
        ("qcow2 to raw", "-f qcow2 -O raw full", "at most 1"),
        ("qcow2 to qcow2", "-f qcow2 -O qcow2 full", "at most 1"),
        ("raw to compressed qcow2", "-c -f raw -O qcow2 raw", "at most 0.67 on two cores"),
        ("compressed qcow2 to raw", "-f qcow2 -O raw packed", "at most 1"),
        ("a chain of 5 to raw", "-f qcow2 -O raw chain4", "at most 1"),
    ] {
        let output = |whose: Whose| format!("convert {options} out-{whose:?}");
        let [ours, others] = place.rounds(rounds, output)?;
        let (a, b) = (millis(ours.time), millis(others.time));
        let ratio = a / b;
        writeln!(text, "| convert {what}: ms | {a:.0} | {b:.0} | {ratio:.2} | {target} |")?;
    }
    for (what, options) in [("raw", "-f raw raw"), ("qcow2", "-f qcow2 full")] {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (whose, times) in BOTH.into_iter().zip(&mut times) {
                let time = place.copied_from(whose, options)?;
                if round > 0 {
                    times.push(millis(time));
                }
            }
        }
        let [a, b] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let ratio = a / b;
        writeln!(text, "| nbdcopy from {what}: ms | {a:.0} | {b:.0} | {ratio:.2} | at most 1 |")?;
    }
    let mut opened = Vec::new();
    for whose in BOTH {
        let mut samples = Vec::new();
        for _ in 0..rounds.max(3) {
            let (small, large) = (place.open(whose, "small")?, place.open(whose, "large")?);
            let memory = large.1.saturating_sub(small.1);
            samples.push((millis(large.0) - millis(small.0), kib(memory)));
        }
        samples.sort_by(|a, b| a.0.total_cmp(&b.0));
        opened.push(samples[samples.len() / 2]);
    }
    let ((a, b), (memory, others)) = ((opened[0].0, opened[1].0), (opened[0].1, opened[1].1));
    writeln!(text, "| opening 1 TiB beyond opening 1 MiB: ms | {a:.1} | {b:.1} | | at most 5 |")?;
    writeln!(text, "| the same: KiB | {memory:.0} | {others:.0} | | at most 5120 |")?;
    Ok(text)
}

impl Place {
    fn command(&self, whose: Whose, tool: &str) -> Command {
        let mut command = match whose {
            Whose::Ours => Command::new(self.ours.join(format!("vmm-{tool}"))),
            Whose::Others => Command::new(format!("qemu-{tool}")),
        };
        command.current_dir(&*self.dir);
        command
    }

    fn img(&self, whose: Whose, line: &str) -> Result<Cost> {
        let (start, before) = (Instant::now(), children_time()?);
        let mut command = self.command(whose, "img");
        let output = command.args(line.split_whitespace()).stdin(Stdio::null()).output()?;
        let cost = Cost { time: start.elapsed(), cpu: children_time()?.saturating_sub(before) };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{whose:?} img {line}: {}: {said}", output.status).into());
        }
        Ok(cost)
    }

    /// The medians of both, which take turns.
    fn rounds(&self, rounds: usize, line: impl Fn(Whose) -> String) -> Result<[Cost; 2]> {
        let mut costs = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (whose, costs) in BOTH.into_iter().zip(&mut costs) {
                let cost = self.img(whose, &line(whose))?;
                // The first one warms the caches up.
                if round > 0 {
                    costs.push(cost);
                }
            }
        }
        Ok(costs.map(|mut costs| {
            costs.sort_by_key(|cost| cost.time);
            let time = costs[costs.len() / 2].time;
            costs.sort_by_key(|cost| cost.cpu);
            Cost { time, cpu: costs[costs.len() / 2].cpu }
        }))
    }

    /// Text that can be packed, and holes.
    fn make(&self) -> Result {
        let mut file = std::fs::File::create(self.dir.join("raw"))?;
        let mut seed = 1u64;
        let mut chunk = Vec::with_capacity(1 << 20);
        for _ in 0..256 {
            chunk.clear();
            while chunk.len() < 1 << 20 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                let number = seed >> 40;
                writeln!(chunk, "{number} bottles, {} of them empty", number % 1000)?;
            }
            file.write_all(&chunk[..1 << 20])?;
        }
        file.sync_all()?;
        let others = Whose::Others;
        for line in [
            "convert -f raw -O qcow2 raw full".to_owned(),
            "convert -c -f raw -O qcow2 raw packed".to_owned(),
            format!("create -q -f qcow2 empty {SIZE}"),
            "create -q -f qcow2 small 1M".to_owned(),
            "create -q -f qcow2 large 1T".to_owned(),
        ] {
            self.img(others, &line)?;
        }
        let mut below = "full".to_owned();
        for number in 1..5 {
            let image = format!("chain{number}");
            self.img(others, &format!("create -q -f qcow2 -b {below} -F qcow2 {image}"))?;
            let mut io = self.command(others, "io");
            for at in 0..16 {
                let offset = at * 16 + number;
                io.arg("-c").arg(format!("write -q -P {number} {offset}M 1M"));
            }
            if !io.arg(&image).status()?.success() {
                return Err("the chain cannot be written".into());
            }
            below = image;
        }
        Ok(())
    }

    /// How long libnbd's copier takes for all of what a server has, over a unix socket.
    fn copied_from(&self, whose: Whose, options: &str) -> Result<Duration> {
        let socket = self.dir.join(format!("nbd-{whose:?}"));
        let _ = std::fs::remove_file(&socket);
        let mut server = self.command(whose, "nbd");
        server.args(["-t", "-r", "-e", "8", "--fork", "--pid-file", "pid", "-k"]).arg(&socket);
        let said = server.args(options.split_whitespace()).output()?;
        if !said.status.success() {
            let said = String::from_utf8_lossy(&said.stderr);
            return Err(format!("{whose:?} nbd {options}: {said}").into());
        }
        let start = Instant::now();
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let copied = Command::new("nbdcopy").args(["--", &uri, "null:"]).output()?;
        let time = start.elapsed();
        let pid = std::fs::read_to_string(self.dir.join("pid"))?.trim().parse::<i32>()?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or("no process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        if !copied.status.success() {
            let said = String::from_utf8_lossy(&copied.stderr);
            return Err(format!("nbdcopy from {whose:?} {options}: {said}").into());
        }
        Ok(time)
    }

    /// How long it takes until an image is open, and the memory of it in KiB.
    fn open(&self, whose: Whose, image: &str) -> Result<(Duration, u64)> {
        let start = Instant::now();
        let mut command = self.command(whose, "io");
        let command = command.args(["-r", "-f", "qcow2", image]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take().ok_or("no stdout")?;
        let mut byte = [0];
        while stdout.read(&mut byte)? > 0 && byte != *b">" {}
        let (time, memory) = (start.elapsed(), peak(child.id())?);
        // The end of its input ends it.
        drop(child.stdin.take());
        if !child.wait()?.success() || byte != *b">" {
            return Err(format!("{whose:?} cannot open {image}").into());
        }
        Ok((time, memory))
    }
}
