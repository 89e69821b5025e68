//! The table: each target with what was measured, then every figure. Plain data.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::sample::{Figure, Samples, Series, Who};
use crate::host::image::QEMU;
use crate::rig::Result;
use crate::suite::Supplies;

/// Where something was measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Where {
    /// On this machine's own KVM.
    Here,
    /// In a nested host, on the KVM of a kernel that runs on an emulated processor.
    Nested,
}

impl Where {
    const ALL: [Self; 2] = [Self::Here, Self::Nested];

    fn name(self) -> &'static str {
        match self {
            Self::Here => "this machine",
            Self::Nested => "nested host",
        }
    }
}

/// What has to be reached.
enum Limit {
    /// At most this, whatever the other does.
    Value(f64),
    /// At least this, whatever the other does.
    From(f64),
    /// At most this part of the other's median.
    Part(f64),
    /// At least this many times the other's median.
    Least(f64),
}

struct Target {
    figure: Figure,
    who: Who,
    other: Who,
    limit: Limit,
    /// Where it is judged; elsewhere the figures are only told.
    places: &'static [Where],
}

const BOTH: &[Where] = &[Where::Here, Where::Nested];

const NATIVE: &[Where] = &[Where::Here];
const NESTED: &[Where] = &[Where::Nested];

/// Time to init is judged by the clock on this machine, and by the work it makes in a nested host,
/// where the clock tells more of what else the machine does.
const TARGETS: [Target; 42] = [
    target(Figure::GreetingCpu, Who::Vmm, Who::Pc, Limit::Value(8.0), NATIVE),
    target(Figure::GreetingCpu, Who::Vmm, Who::Pc, Limit::Part(0.2), BOTH),
    target(Figure::Init, Who::Vmm, Who::Pc, Limit::Part(0.5), NATIVE),
    target(Figure::Init, Who::VmmPvh, Who::Pc, Limit::Part(0.5), NATIVE),
    target(Figure::Init, Who::Vmm, Who::Microvm, Limit::Part(1.0), NATIVE),
    target(Figure::Init, Who::VmmPvh, Who::MicrovmPvh, Limit::Part(1.0), NATIVE),
    target(Figure::InitEmulated, Who::Vmm, Who::Pc, Limit::Part(0.5), NESTED),
    target(Figure::InitEmulated, Who::VmmPvh, Who::Pc, Limit::Part(0.5), NESTED),
    target(Figure::InitEmulated, Who::Vmm, Who::Microvm, Limit::Part(1.0), NESTED),
    target(Figure::InitEmulated, Who::VmmPvh, Who::MicrovmPvh, Limit::Part(1.0), NESTED),
    target(Figure::Resident, Who::Vmm, Who::Pc, Limit::Value(8192.0), BOTH),
    target(Figure::QueryStopped, Who::Vmm, Who::Pc, Limit::Part(0.5), BOTH),
    target(Figure::QueryRunning, Who::Vmm, Who::Pc, Limit::Part(0.5), BOTH),
    // 10,000 in a second.
    target(Figure::QueryOneCore, Who::Vmm, Who::Pc, Limit::Value(100.0), NATIVE),
    target(Figure::QueryOneCore, Who::Vmm, Who::Pc, Limit::Part(0.5), NATIVE),
    target(Figure::QueryPipelined, Who::Vmm, Who::Pc, Limit::Value(100.0), NATIVE),
    target(Figure::QueryPipelined, Who::Vmm, Who::Pc, Limit::Part(0.5), NATIVE),
    target(Figure::IdleMonitors, Who::Vmm, Who::Pc, Limit::Value(1024.0), NATIVE),
    target(Figure::Refused, Who::Vmm, Who::Pc, Limit::Value(65536.0), NATIVE),
    target(Figure::DiskRead1, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::DiskRead32, Who::VmmPvh, Who::PcPvh, Limit::Least(1.2), BOTH),
    target(Figure::DiskWrite1, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::DiskWrite32, Who::VmmPvh, Who::PcPvh, Limit::Least(1.2), BOTH),
    target(Figure::DiskReadSequential, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::DiskWriteSequential, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::FormatRead, Who::VmmPvh, Who::PcPvh, Limit::From(0.9), BOTH),
    target(Figure::FormatWrite, Who::VmmPvh, Who::PcPvh, Limit::From(0.9), BOTH),
    target(Figure::TapSend, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::TapReceive, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::UserSend, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::UserReceive, Who::VmmPvh, Who::PcPvh, Limit::Least(1.0), BOTH),
    target(Figure::Hotplug, Who::VmmPvh, Who::PcPvh, Limit::Part(1.0), BOTH),
    target(Figure::BootPart, Who::VmmPvh, Who::PcPvh, Limit::Value(1.1), BOTH),
    target(Figure::MovePages, Who::Vmm, Who::Pc, Limit::Least(1.0), NATIVE),
    target(Figure::MoveTwo, Who::Vmm, Who::Pc, Limit::Least(1.0), NATIVE),
    target(Figure::MoveTwoGain, Who::Vmm, Who::Pc, Limit::From(1.5), NATIVE),
    target(Figure::MoveZeros, Who::Vmm, Who::Pc, Limit::Least(1.0), NATIVE),
    target(Figure::MoveGap, Who::Vmm, Who::Pc, Limit::Value(30.0), NATIVE),
    target(Figure::DeltaTotal, Who::Vmm, Who::Pc, Limit::Part(1.0), NATIVE),
    target(Figure::DeltaDowntime, Who::Vmm, Who::Pc, Limit::Part(1.0), NATIVE),
    target(Figure::DeltaBytes, Who::Vmm, Who::Pc, Limit::Part(1.0), NATIVE),
    target(Figure::MoveMemory, Who::Vmm, Who::Pc, Limit::Value(98_304.0), NATIVE),
];

const fn target(
    figure: Figure,
    who: Who,
    other: Who,
    limit: Limit,
    places: &'static [Where],
) -> Target {
    Target { figure, who, other, limit, places }
}

/// What was measured, and of what.
pub(super) struct Report {
    here: Samples,
    nested: Samples,
    about: String,
}

impl Report {
    /// An empty table for the program `vmm`.
    pub(super) fn new(vmm: &Path, supplies: &Supplies) -> Result<Self> {
        let mut about = String::new();
        writeln!(about, "- machine: {}", machine()?)?;
        writeln!(about, "- `vmm`: {}", version(vmm)?)?;
        writeln!(about, "- QEMU: {}", version(Path::new(QEMU))?)?;
        writeln!(about, "- guest and nested host: {}", supplies.newest_kernel())?;
        Ok(Self { here: Samples::default(), nested: Samples::default(), about })
    }

    /// Adds what was measured somewhere.
    pub(super) fn add(&mut self, place: Where, samples: &Samples) {
        let all = match place {
            Where::Here => &mut self.here,
            Where::Nested => &mut self.nested,
        };
        all.extend(samples);
    }

    fn samples(&self, place: Where) -> &Samples {
        match place {
            Where::Here => &self.here,
            Where::Nested => &self.nested,
        }
    }

    /// The whole report as markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.about);
        text.push_str("| target | where | vmm | QEMU | vmm / QEMU | reached |\n");
        text.push_str("|---|---|--:|--:|--:|---|\n");
        for target in &TARGETS {
            for &place in target.places {
                if let Some(row) = self.verdict(target, place) {
                    text.push_str(&row);
                }
            }
        }
        text.push_str("\n| figure | where | who | values | least | median | 99 % | most |\n");
        text.push_str("|---|---|---|--:|--:|--:|--:|--:|\n");
        for figure in Figure::ALL {
            for place in Where::ALL {
                for who in Who::ALL {
                    if let Some(series) = self.samples(place).series(figure, who) {
                        text.push_str(&row(figure, place, who, &series));
                    }
                }
            }
        }
        text
    }

    fn verdict(&self, target: &Target, place: Where) -> Option<String> {
        let samples = self.samples(place);
        let ours = samples.series(target.figure, target.who)?.median();
        let theirs = samples.series(target.figure, target.other).map(|series| series.median());
        let (limit, reached) = match target.limit {
            Limit::Value(most) => (format!("at most {most}"), ours <= most),
            Limit::From(least) => (format!("at least {least}"), ours >= least),
            Limit::Least(part) => {
                (format!("at least {part} of {}", target.other.name()), { ours >= theirs? * part })
            }
            Limit::Part(part) => {
                (format!("at most {part} of {}", target.other.name()), { ours <= theirs? * part })
            }
        };
        let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        Some(format!(
            "| {}: {} {limit} | {} | {} | {} | {} | {} |\n",
            target.figure.name(),
            target.who.name(),
            place.name(),
            number(ours),
            shown(theirs.map(number)),
            shown(theirs.map(|theirs| format!("{:.2}", ours / theirs))),
            if reached { "yes" } else { "no" }
        ))
    }
}

fn row(figure: Figure, place: Where, who: Who, series: &Series) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
        figure.name(),
        place.name(),
        who.name(),
        series.count(),
        number(series.quantile(0.0)),
        number(series.median()),
        number(series.quantile(0.99)),
        number(series.quantile(1.0)),
    )
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The first line a program says of itself.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("-version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("unknown").trim().to_owned())
}

/// Processor, processors, memory, kernel and what else the machine was doing.
fn machine() -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let release: Vec<&str> = release.split(['.', '-']).take(2).map(str::trim).collect();
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    Ok(format!(
        "{model}, {count} processors, Linux {}, load {load} when the run began",
        release.join(".")
    ))
}

const BEGIN: &str = "<!-- cargo vmbench --write: begin -->\n";
const END: &str = "<!-- cargo vmbench --write: end -->\n";

/// Puts `table` between the two marks in the file.
pub(super) fn write(file: &Path, table: &str) -> Result {
    let text = std::fs::read_to_string(file)?;
    let whole = replace(&text, table)
        .ok_or_else(|| format!("{} has no lines {BEGIN:?} and {END:?}", file.display()))?;
    Ok(std::fs::write(file, whole)?)
}

fn replace(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report { here: Samples::default(), nested: Samples::default(), about: String::new() }
    }

    #[test]
    fn a_target_is_judged_by_medians() {
        let mut report = report();
        let mut samples = Samples::default();
        samples.add(Figure::GreetingCpu, Who::Vmm, [5.0, 6.0, 90.0]);
        samples.add(Figure::GreetingCpu, Who::Pc, [60.0, 29.0, 10.0]);
        report.add(Where::Here, &samples);
        let text = report.markdown();
        assert!(text.contains("at most 8 | this machine | 6.00 | 29.0 | 0.21 | yes |"), "{text}");
        assert!(text.contains("at most 0.2 of QEMU pc, bzImage | this machine"), "{text}");
        assert_eq!(text.matches("| no |").count(), 1, "{text}");
        assert!(text.contains("| vmm, bzImage | 3 | 5.00 | 6.00 | 90.0 | 90.0 |"), "{text}");
    }

    #[test]
    fn the_table_goes_between_the_marks() {
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        let new = replace(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}new\n{END}b\n"));
        assert!(replace("a\n", "new\n").is_none());
    }
}
