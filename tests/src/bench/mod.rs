//! The `cargo vmbench` command: how fast and how lean `vmm` is, with QEMU measured beside it in
//! the same run.
//!
//! `measure` has the measures, which run on this machine's KVM where it can and
//! in a nested host where they need Linux; `report` makes the table. One thread, no locks.

mod images;
mod measure;
mod moving;
mod process;
mod report;
mod sample;
mod session;
mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use crate::host::nested::{End, Machine, Nested};
use crate::host::probe;
use crate::rig::Result;
use crate::rig::vm::{BOOT, Peer};
use crate::suite::{Supplies, native_kvm};
use crate::supply::debian::Debian;
use crate::workspace::{cargo, peer, root};
use measure::{Measure, Place, begins, has_init, millis};
use process::cpu_time;
use report::{Report, Where};
use sample::{Figure, Samples, Who};

const USAGE: &str = "\
usage: cargo vmbench [--quick] [--rounds N] [--only MEASURE] [--write]
  --quick   one round of everything
  --rounds  that many boots of every machine, and four times as many starts; 5 without it
  --only    one measure: greeting, boot, query, session, disk, net, hotplug, devices,
            migrate; or images, the image tools; or xbzrle, the pages of a migration
  --write   put the table into docs/performance.md
environment:
  VMTEST_HOST, VMTEST_VMM as for cargo vmtest";

/// A nested host that takes longer for one round is stuck.
const ROUND: Duration = Duration::from_secs(600);

struct Options {
    rounds: usize,
    only: Option<Measure>,
    /// The image tools alone.
    images: bool,
    /// The pages of a migration alone.
    xbzrle: bool,
    write: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self> {
        let mut options =
            Self { rounds: 5, only: None, images: false, xbzrle: false, write: false };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "--quick" => options.rounds = 1,
                "--rounds" => {
                    let rounds = words.next().and_then(|word| word.parse().ok());
                    let rounds = rounds.filter(|&rounds| rounds > 0);
                    options.rounds = rounds.ok_or("--rounds takes a number from 1 on")?;
                }
                "--only" => {
                    let word = words.next().copied().unwrap_or_default();
                    if word == "images" {
                        options.images = true;
                        continue;
                    }
                    if word == "xbzrle" {
                        options.xbzrle = true;
                        continue;
                    }
                    let only = Measure::ALL.into_iter().find(|measure| measure.word() == word);
                    options.only = Some(only.ok_or_else(|| format!("--only {word}?\n{USAGE}"))?);
                }
                "--write" => options.write = true,
                _ => return Err(USAGE.into()),
            }
        }
        if options.write && (options.only.is_some() || options.images || options.xbzrle) {
            return Err("--write needs all measures".into());
        }
        Ok(options)
    }

    fn wants_debian(&self) -> bool {
        Measure::ALL.iter().any(|measure| self.wants(*measure) && measure.needs_debian())
    }

    fn wants(&self, measure: Measure) -> bool {
        self.only.is_none_or(|only| only == measure)
    }

    /// How many rounds `measure` gets, and how many trips a round has.
    fn plan(&self, measure: Measure) -> (usize, usize) {
        match measure {
            Measure::Boot
            | Measure::Disk
            | Measure::Net
            | Measure::Hotplug
            | Measure::Devices
            | Measure::Migrate => (self.rounds, 0),
            Measure::Greeting => (self.rounds * 4, 0),
            Measure::Query | Measure::Session => (self.rounds, 1000),
        }
    }
}

/// Runs the command.
pub fn run(words: &[&str]) -> Result {
    let options = Options::parse(words)?;
    if options.images {
        println!("{}", images::run(options.rounds)?);
        return Ok(());
    }
    if options.xbzrle {
        let done = cargo().args(["bench", "-p", "migration", "--bench", "pages"]).status()?;
        return if done.success() { Ok(()) } else { Err("the bench has failed".into()) };
    }
    let Peer::Vmm(vmm) = peer()? else {
        return Err("VMTEST_PEER is for cargo vmtest: the bench measures both".into());
    };
    let native = native_kvm()?;
    let supplies = Supplies::get()?;
    let mut report = Report::new(&vmm, &supplies)?;
    let debian = if options.wants_debian() { Some(supplies.debian()?) } else { None };
    if native != probe::Native::Nothing {
        println!("== on this machine");
        let guests = supplies.guests.path();
        // The first round warms the caches up.
        for measure in Measure::ALL {
            if !options.wants(measure) || (measure.needs_linux() && native != probe::Native::Linux)
            {
                continue;
            }
            let (rounds, trips) = options.plan(measure);
            for round in 0..=rounds {
                let place = Place::new(&vmm, guests, debian.as_ref().map(Debian::image))?;
                let samples = place.round(measure, round, trips)?;
                said(measure, round, rounds);
                if round > 0 {
                    report.add(Where::Here, &samples);
                }
            }
        }
    }
    if native != probe::Native::Linux {
        println!("== in a nested host");
        let nested = supplies.nested(Peer::Vmm(vmm))?.with_debian(debian);
        in_nested_host(&options, &nested, &mut report)?;
    }
    let mut text = report.markdown();
    if options.only.is_none() {
        text = format!("{text}\n{}", images::run(options.rounds)?);
    }
    println!("\n{text}");
    if options.write {
        report::write(&root().join("docs/performance.md"), &text)?;
    }
    Ok(())
}

fn said(measure: Measure, round: usize, rounds: usize) {
    match round {
        0 => println!("{}: warmed up", measure.word()),
        _ => println!("{}: round {round} of {rounds}", measure.word()),
    }
}

/// A nested host in which a round fails is replaced, and the round done again.
fn in_nested_host(options: &Options, nested: &Nested, report: &mut Report) -> Result {
    let mut machine: Option<Machine> = None;
    let mut failures = 0;
    for measure in Measure::ALL {
        // Sessions cost what they cost, and gigabytes take their time there.
        if !options.wants(measure) || matches!(measure, Measure::Session | Measure::Migrate) {
            continue;
        }
        let (rounds, trips) = options.plan(measure);
        let mut round = 0;
        while round <= rounds {
            let host = match &mut machine {
                Some(host) => host,
                none => {
                    let host = none.insert(nested.start()?);
                    if options.wants_debian() {
                        nested.plug_debian(host)?;
                    }
                    host
                }
            };
            let word = measure.word();
            let line =
                format!("/run/vmtest bench-round {word} {round} {trips} /run/vmm /guests /dev/vdc");
            host.begin(&Nested::inside(&line))?;
            let mut samples = Samples::default();
            if measure == Measure::Boot {
                // What goes wrong here is explained by how the round ends.
                let _ = watch_boots(host, round, &mut samples);
            }
            let end = host.end(ROUND)?;
            let output = host.output();
            match end {
                End::Exit(0) => {
                    samples.parse(&output)?;
                    said(measure, round, rounds);
                    if round > 0 {
                        report.add(Where::Nested, &samples);
                    }
                    round += 1;
                }
                // An emulated host that loses a timer stands still, and so does what is in it.
                failed => {
                    let why = match failed {
                        End::Exit(status) => format!("{output}exit code {status}"),
                        End::Late => host.explain(&format!("{output}takes too long")),
                        End::Died => host.explain("the nested host died"),
                    };
                    println!("{why}\nagain in a fresh nested host");
                    failures += 1;
                    if failures > 3 {
                        return Err(format!("four rounds have failed, the last so: {why}").into());
                    }
                    machine = None;
                }
            }
        }
    }
    Ok(())
}

/// Measures the boots of a round from outside: how much work the emulated host has with each.
fn watch_boots(host: &mut Machine, round: usize, samples: &mut Samples) -> Result {
    for who in Who::order(Who::ALL, round) {
        host.expect(&begins(who), BOOT)?;
        let before = cpu_time(host.id())?;
        host.expect(&has_init(who), BOOT)?;
        let used = cpu_time(host.id())?.saturating_sub(before);
        samples.push(Figure::InitEmulated, who, millis(used));
    }
    Ok(())
}

/// One round inside of a nested host; the values go to standard output.
pub fn round(measure: &str, [round, trips]: [&str; 2], files: [&str; 3]) -> Result {
    let [vmm, guests, image] = files.map(PathBuf::from);
    let measure = Measure::ALL.into_iter().find(|known| known.word() == measure);
    let place = Place::new(&vmm, &guests, Some(image))?;
    let measure = measure.ok_or("no such measure")?;
    let samples = place.round(measure, round.parse()?, trips.parse()?)?;
    print!("{}", samples.lines());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_line() {
        let options = Options::parse(&["--rounds", "3", "--write"]).unwrap();
        assert_eq!((options.rounds, options.write), (3, true));
        let options = Options::parse(&["--quick", "--only", "boot"]).unwrap();
        assert!(options.wants(Measure::Boot) && !options.wants(Measure::Query));
        for wrong in
            [&["--rounds", "0"][..], &["--only", "x"], &["--fast"], &["--only", "boot", "--write"]]
        {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
