//! The `cargo vmtest` command: unit tests, tiny guests, Linux guests, clients of others, and a
//! count at the end.
//!
//! The main thread runs the stages; guest tests run on `--jobs` worker threads that share a queue
//! behind one mutex.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clients::{self, Booted, Client};
use crate::host::Host;
use crate::host::native::Native;
use crate::host::nested::Nested;
use crate::host::probe::{self, probe};
use crate::images::{self, ImageTest};
use crate::rig::Result;
use crate::rig::registry::{self, Needs, Test};
use crate::rig::vm::{Kernel, Peer};
use crate::supply::cache::Item;
use crate::supply::debian::Debian;
use crate::supply::kernel::Files;
use crate::supply::python::Python;
use crate::supply::{apt, guests};
use crate::workspace::{cache, cargo, peer};

const USAGE: &str = "\
usage: cargo vmtest [FILTER] [--list] [--only STAGE] [--jobs N] [--verbose]
  FILTER     run the tests whose name contains it
  --list     name the guest tests (and with --only unit the unit tests) and run nothing
  --only     run one stage: unit, images, tiny, linux or clients
  --jobs     guest tests at a time; the number of processors without it
  --verbose  show what passing tests print
environment:
  VMTEST_HOST=native|nested  where Linux guests run; found by probing without it
  VMTEST_VMM=PATH            a built vmm to test
  VMTEST_TOOLS=DIR           where built image tools are
  VMTEST_THOROUGH=1          repeat at length what proves by repetition
  VMTEST_COMPLETE=1          unit tests fail where the host lacks what they need
  VMTEST_PEER=qemu           run the guest tests against QEMU, to check the tests";

/// How long all workers may be silent before the runner says that it lives.
const SILENCE: Duration = Duration::from_secs(20);

/// A part of the run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Unit,
    Images,
    Tiny,
    Linux,
    Clients,
}

/// The command line.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Options {
    filter: String,
    list: bool,
    only: Option<Stage>,
    jobs: Option<usize>,
    verbose: bool,
    help: bool,
}

impl Options {
    /// Reads the command line's words.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "--list" => options.list = true,
                "--verbose" => options.verbose = true,
                "--only" => {
                    options.only = Some(match words.next() {
                        Some(&"unit") => Stage::Unit,
                        Some(&"images") => Stage::Images,
                        Some(&"tiny") => Stage::Tiny,
                        Some(&"linux") => Stage::Linux,
                        Some(&"clients") => Stage::Clients,
                        _ => {
                            let words = "unit, images, tiny, linux or clients";
                            return Err(format!("--only takes {words}\n{USAGE}").into());
                        }
                    });
                }
                "--jobs" => {
                    let count = words.next().and_then(|word| word.parse().ok());
                    let count = count.filter(|&count| count > 0);
                    options.jobs = Some(count.ok_or("--jobs takes a number from 1 on")?);
                }
                "-h" | "--help" => options.help = true,
                word if word.starts_with('-') => {
                    return Err(format!("unknown option {word}\n{USAGE}").into());
                }
                word if options.filter.is_empty() => word.clone_into(&mut options.filter),
                _ => return Err(format!("one filter is enough\n{USAGE}").into()),
            }
        }
        Ok(options)
    }

    /// The clients to run. The last one ends the machine: it is part of every run of them.
    fn clients(&self) -> Vec<&'static Client> {
        let wanted = |client: &&Client| client.name.contains(&self.filter);
        clients::ALL.iter().filter(wanted).filter(|_| self.wants(Stage::Clients)).collect()
    }

    /// The tests of images to run.
    fn images(&self) -> Vec<&'static ImageTest> {
        let wanted = |test: &&ImageTest| test.name.contains(&self.filter);
        images::ALL.iter().filter(wanted).filter(|_| self.wants(Stage::Images)).collect()
    }

    fn wants(&self, stage: Stage) -> bool {
        self.only.is_none_or(|only| only == stage)
    }

    /// The guest tests to run that need `needs`.
    fn tests(&self, needs: Needs) -> VecDeque<Test> {
        let stage = if needs == Needs::Tiny { Stage::Tiny } else { Stage::Linux };
        let mut tests = registry::all();
        tests.retain(|test| {
            test.needs == needs && self.wants(stage) && test.name.contains(&self.filter)
        });
        tests.into()
    }
}

/// How a run went so far.
#[derive(Debug, Default)]
struct Count {
    passed: usize,
    failed: Vec<String>,
    restarted: Vec<String>,
}

/// Runs the command; the exit code tells whether all tests passed.
pub fn run(options: Options) -> Result<ExitCode> {
    if options.help {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let tiny = options.tests(Needs::Tiny);
    let linux = options.tests(Needs::Linux);
    if options.list {
        for test in options.images() {
            println!("{}", test.name);
        }
        for test in tiny.iter().chain(&linux) {
            println!("{}", test.name);
        }
        for client in options.clients() {
            println!("{}", client.name);
        }
        if options.only == Some(Stage::Unit) {
            unit(&options, &mut Count::default())?;
        }
        return Ok(ExitCode::SUCCESS);
    }

    let mut count = Count::default();
    if options.wants(Stage::Unit) {
        println!("== unit tests");
        if resources::testing::is_complete() {
            apt::install_tools()?;
        }
        unit(&options, &mut count)?;
    }
    if let Err(error) = images_stage(&options, &mut count) {
        println!("{error}");
        count.failed.push("what the tests of images stand on".to_owned());
    }
    if let Err(error) = guest_tests(&options, tiny, linux, &mut count) {
        println!("{error}");
        count.failed.push("what the guest tests stand on".to_owned());
    }
    Ok(summary(&count))
}

/// Runs the guest tests where the machine can.
fn guest_tests(
    options: &Options,
    mut tiny: VecDeque<Test>,
    mut linux: VecDeque<Test>,
    count: &mut Count,
) -> Result {
    let clients = options.clients();
    if tiny.is_empty() && linux.is_empty() && clients.is_empty() {
        return Ok(());
    }
    let peer = peer()?;
    let native = native_kvm()?;
    if native == probe::Native::Nothing {
        linux.extend(tiny.drain(..));
    }
    if !tiny.is_empty() {
        println!("== tiny guests, on this machine");
        let host = Native { peer: peer.clone(), guests: std::env::temp_dir(), debian: None };
        guests_stage(options, &host, tiny, count);
    }
    if linux.is_empty() && clients.is_empty() {
        return Ok(());
    }
    let wants_debian = linux.iter().any(|test| test.debian);
    if native == probe::Native::Linux {
        println!("== Linux guests and clients, on this machine");
        let supplies = Supplies::get()?;
        let guests = supplies.guests.path().to_owned();
        let debian = if wants_debian { Some(supplies.debian()?) } else { None };
        let debian = debian.as_ref().map(Debian::image);
        let host = Native { peer, guests, debian };
        guests_stage(options, &host, linux, count);
        clients_stage(&clients, || Booted::here(&host.peer, &host.guests), count)
    } else {
        println!("== Linux guests and clients, in nested hosts");
        let supplies = Supplies::get()?;
        let debian = if wants_debian { Some(supplies.debian()?) } else { None };
        let host = supplies.nested(peer)?.with_debian(debian);
        guests_stage(options, &host, linux, count);
        clients_stage(&clients, || Booted::nested(&host), count)
    }
}

/// Compares the image tools with the distribution's, a test on each processor.
fn images_stage(options: &Options, count: &mut Count) -> Result {
    let tests = options.images();
    if tests.is_empty() {
        return Ok(());
    }
    println!("== image tools, beside the distribution's");
    apt::install_tools()?;
    let ours = images::built()?;
    let parallel = thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(parallel).min(tests.len());
    let total = tests.len();
    let queue = Mutex::new(VecDeque::from(tests));
    let count = Mutex::new((0, count));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(test) = queue.lock().pop_front() else { break };
                    let start = Instant::now();
                    let verdict = images::Tools::new(&ours).and_then(|tools| (test.body)(&tools));
                    let time = start.elapsed().as_secs_f32();
                    let (done, count) = &mut *count.lock();
                    *done += 1;
                    let word = if verdict.is_ok() { "ok    " } else { "FAILED" };
                    println!("[{done}/{total}] {word} {} ({time:.1} s)", test.name);
                    match verdict {
                        Ok(()) => count.passed += 1,
                        Err(error) => {
                            error.to_string().lines().for_each(|line| println!("    {line}"));
                            count.failed.push(test.name.to_owned());
                        }
                    }
                }
            });
        }
    });
    Ok(())
}

/// Lets the clients drive one guest, one after the other.
fn clients_stage(
    clients: &[&Client],
    boot: impl FnOnce() -> Result<Booted>,
    count: &mut Count,
) -> Result {
    if clients.is_empty() {
        return Ok(());
    }
    println!("== clients, with one Linux guest");
    let python = Python::get(&cache()?)?;
    let mut guest = boot()?;
    for (number, client) in (1..).zip(clients) {
        let start = Instant::now();
        let verdict = guest.place().and_then(|place| (client.body)(&python, &place));
        let word = if verdict.is_ok() { "ok    " } else { "FAILED" };
        let (name, total, time) = (client.name, clients.len(), start.elapsed().as_secs_f32());
        println!("[{number}/{total}] {word} {name} ({time:.1} s)");
        match verdict {
            Ok(()) => count.passed += 1,
            Err(error) => {
                error.to_string().lines().for_each(|line| println!("    {line}"));
                count.failed.push(name.to_owned());
            }
        }
    }
    Ok(())
}

/// Shows what failed and, as the last line, the count; the exit code for it.
fn summary(count: &Count) -> ExitCode {
    println!();
    for name in &count.failed {
        println!("failed: {name}");
    }
    if !count.restarted.is_empty() {
        println!(
            "{} nested hosts died or hung and their tests ran again: {}",
            count.restarted.len(),
            count.restarted.join(", ")
        );
    }
    if count.passed + count.failed.len() == 0 {
        println!("no test has such a name");
    }
    println!(
        "commands of the schema implemented: {} / {}",
        qmp::implemented(),
        qmp::EXPECTED.len()
    );
    println!("{} passed, {} failed", count.passed, count.failed.len());
    if count.passed > 0 && count.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the machine's KVM is used for, after `VMTEST_HOST` had its say.
pub fn native_kvm() -> Result<probe::Native> {
    let (found, why) = probe()?;
    let (native, why) = match std::env::var("VMTEST_HOST").as_deref() {
        Ok("native") => (probe::Native::Linux, "VMTEST_HOST=native".to_owned()),
        Ok("nested") if found == probe::Native::Linux => {
            (probe::Native::Tiny, "VMTEST_HOST=nested".to_owned())
        }
        Ok("nested") | Err(_) => (found, why),
        Ok(other) => {
            return Err(format!("VMTEST_HOST is native or nested, not {other:?}").into());
        }
    };
    println!("== probe: {why}");
    Ok(native)
}

/// What Linux guests need.
pub struct Supplies {
    kernels: Vec<(Kernel, Files)>,
    /// The guests' files.
    pub guests: Item,
}

impl Supplies {
    /// Installs, downloads and makes what is missing.
    pub fn get() -> Result<Self> {
        let cache = cache()?;
        apt::install_tools()?;
        let mut kernels = Vec::new();
        for kernel in Kernel::ALL {
            kernels.push((kernel, Files::get(&cache, kernel)?));
        }
        let guests = guests::get(&cache, &kernels)?;
        Ok(Self { kernels, guests })
    }

    /// The package of the kernel that nested hosts and benchmarks boot.
    pub fn newest_kernel(&self) -> &str {
        newest(&self.kernels).map_or("", |files| files.key().trim())
    }

    /// A Debian system with the newest kernel's modules.
    pub fn debian(&self) -> Result<Debian> {
        Debian::get(&cache()?, newest(&self.kernels)?)
    }

    /// A nested host for these guests and this program.
    pub fn nested(self, peer: Peer) -> Result<Nested> {
        let files = newest(&self.kernels)?;
        Nested::prepare(&cache()?, files, self.guests, peer)
    }
}

fn newest(kernels: &[(Kernel, Files)]) -> Result<&Files> {
    let found = kernels.iter().find(|(kernel, _)| *kernel == Kernel::V6_12);
    Ok(found.map(|(_, files)| files).ok_or("the newest kernel is not there")?)
}

/// Runs `cargo test` and adds up what its test programs report.
fn unit(options: &Options, count: &mut Count) -> Result {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--"]).arg(&options.filter);
    if options.list {
        command.arg("--list");
    }
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    for line in lines {
        let line = line?;
        let failed = count.failed.len();
        if let Some(name) = line.strip_suffix(" ... FAILED").and_then(|l| l.strip_prefix("test ")) {
            count.failed.push(format!("unit {name}"));
        }
        if let Some(passed) = passed_tests(&line) {
            count.passed += passed;
        }
        // Passing tests are many: only what differs from them is shown.
        let dull = line.is_empty() || line.ends_with(" ... ok") || line.starts_with("running ");
        if options.verbose || options.list || !dull || count.failed.len() > failed {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() && count.failed.is_empty() {
        count.failed.push("unit tests (cargo test)".to_owned());
    }
    Ok(())
}

/// The number in `test result: ok. 5 passed; ...`.
fn passed_tests(line: &str) -> Option<usize> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    rest.split_once(" passed")?.0.parse().ok()
}

/// Runs `tests` on `host`, several at a time.
fn guests_stage(options: &Options, host: &dyn Host, tests: VecDeque<Test>, count: &mut Count) {
    let total = tests.len();
    let parallel = thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(parallel).min(total);
    let queue = Mutex::new(tests);
    let (report, reports) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let report = report.clone();
            let queue = &queue;
            scope.spawn(move || {
                loop {
                    let Some(test) = queue.lock().pop_front() else { break };
                    let start = Instant::now();
                    let _ = report.send((test.name.clone(), None));
                    let verdict = host.run(&test);
                    let _ = report.send((test.name, Some((verdict, start.elapsed()))));
                }
            });
        }
        drop(report);
        let mut running: Vec<String> = Vec::new();
        let mut done = 0;
        loop {
            let (name, end) = match reports.recv_timeout(SILENCE) {
                Ok(message) => message,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    println!("... still running {}", running.join(", "));
                    continue;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            };
            let Some((verdict, time)) = end else {
                running.push(name);
                continue;
            };
            running.retain(|other| *other != name);
            done += 1;
            let (passed, output) = match verdict {
                Ok(verdict) => {
                    if verdict.restarted {
                        count.restarted.push(name.clone());
                    }
                    (verdict.passed, verdict.output)
                }
                Err(error) => (false, error.to_string()),
            };
            let word = if passed { "ok    " } else { "FAILED" };
            println!("[{done}/{total}] {word} {name} ({:.1} s)", time.as_secs_f32());
            if !passed || options.verbose {
                output.lines().for_each(|line| println!("    {line}"));
            }
            if passed {
                count.passed += 1;
            } else {
                count.failed.push(name);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_line() {
        let options = Options::parse(&["boot", "--only", "linux", "--jobs", "3"]).unwrap();
        assert_eq!(options.filter, "boot");
        assert_eq!(options.only, Some(Stage::Linux));
        assert_eq!(options.jobs, Some(3));
        for wrong in [&["--only"][..], &["--jobs", "0"], &["--fast"], &["a", "b"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn reads_the_count_of_a_test_program() {
        let line = "test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured";
        assert_eq!(passed_tests(line), Some(12));
        assert_eq!(passed_tests("test a ... ok"), None);
    }
}
