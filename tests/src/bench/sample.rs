//! What is measured and of whom, and the values that come together. Plain data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::image::QEMU;
use crate::rig::Result;

/// RAM of every guest that is measured, in MiB.
pub(super) const MEMORY_MIB: u64 = 512;

/// The processor of every guest: the host's, without the one register that some hosts' KVM offers
/// and then does not take from QEMU 7.2.
const CPU: &str = "host,arch-capabilities=off";

/// A program with the machine and the form of kernel it is given.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Who {
    /// `vmm` with a bzImage.
    Vmm,
    /// `vmm` with an uncompressed kernel, started by its PVH note.
    VmmPvh,
    /// QEMU's `pc` with a bzImage, through its firmware.
    Pc,
    /// QEMU's `pc` with an uncompressed kernel, through its firmware.
    PcPvh,
    /// QEMU's `microvm` with a bzImage.
    Microvm,
    /// QEMU's `microvm` with an uncompressed kernel.
    MicrovmPvh,
}

impl Who {
    /// Everybody.
    pub(super) const ALL: [Self; 6] =
        [Self::Vmm, Self::VmmPvh, Self::Pc, Self::PcPvh, Self::Microvm, Self::MicrovmPvh];
    /// One of each program, as most people start them.
    pub(super) const PAIR: [Self; 2] = [Self::Vmm, Self::Pc];

    /// The same with uncompressed kernels, for what begins after the boot.
    pub(super) const PVH: [Self; 2] = [Self::VmmPvh, Self::PcPvh];

    /// The order in which `who` have their turns in a round: another one first each time.
    pub(super) fn order<const N: usize>(mut who: [Self; N], round: usize) -> [Self; N] {
        who.rotate_left(round % N);
        who
    }

    /// The name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vmm => "vmm, bzImage",
            Self::VmmPvh => "vmm, vmlinux",
            Self::Pc => "QEMU pc, bzImage",
            Self::PcPvh => "QEMU pc, vmlinux",
            Self::Microvm => "QEMU microvm, bzImage",
            Self::MicrovmPvh => "QEMU microvm, vmlinux",
        }
    }

    /// The file of a guest's directory that is booted.
    pub(super) fn image(self) -> &'static str {
        match self {
            Self::Vmm | Self::Pc | Self::Microvm => "bzImage",
            Self::VmmPvh | Self::PcPvh | Self::MicrovmPvh => "vmlinux",
        }
    }

    /// The program and the options all measures have in common: the same for everybody but the
    /// machine's name and what makes QEMU use KVM.
    pub(super) fn command(self, vmm: &Path) -> Command {
        let (program, machine) = match self {
            Self::Vmm | Self::VmmPvh => (vmm.to_owned(), "pc"),
            Self::Pc | Self::PcPvh => (PathBuf::from(QEMU), "pc,accel=kvm"),
            // Without its clock a Debian kernel waits for one, 14 s in a nested host.
            Self::Microvm | Self::MicrovmPvh => (PathBuf::from(QEMU), "microvm,accel=kvm,rtc=on"),
        };
        let mut command = Command::new(program);
        command.args(["-machine", machine, "-cpu", CPU, "-smp", "1"]);
        command.args(["-m", &MEMORY_MIB.to_string(), "-nodefaults", "-display", "none"]);
        command
    }
}

/// What a value says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Figure {
    /// From exec to QMP's greeting: CPU time in ms.
    GreetingCpu,
    /// From exec to QMP's greeting: time in ms.
    Greeting,
    /// From exec to the answer to a first command: CPU time in ms.
    AnswerCpu,
    /// From exec to the first words of the guest's init, in ms.
    Init,
    /// The same in CPU time of the program that emulates the nested host, in ms.
    InitEmulated,
    /// Resident memory beyond guest RAM, in KiB.
    Resident,
    /// The part of it that is the process's own, in KiB.
    Private,
    /// A round trip of query-status before the guest started, in us.
    QueryStopped,
    /// What it costs the process, in us of CPU time.
    QueryStoppedCpu,
    /// A round trip of query-status while the guest runs and is idle, in us.
    QueryRunning,
    /// What it costs the process, in us of CPU time.
    QueryRunningCpu,
    /// A query-status, client and machine on one processor, one after another, in us.
    QueryOneCore,
    /// The same with a hundred in flight.
    QueryPipelined,
    /// What a hundred idle monitors with clients cost, in KiB of the process's own memory.
    IdleMonitors,
    /// What is held at most while a request of 64 MiB is refused, in KiB.
    Refused,
    /// Random reads of 4 KiB, one at a time, in a second of guest time.
    DiskRead1,
    /// The same with 32 in flight.
    DiskRead32,
    /// Random writes of 4 KiB, one at a time.
    DiskWrite1,
    /// The same with 32 in flight.
    DiskWrite32,
    /// Reads of 1 MiB one after the other.
    DiskReadSequential,
    /// Writes of 1 MiB one after the other.
    DiskWriteSequential,
    /// Random reads of 4 KiB, 32 in flight: those on an allocated qcow2 image as a part of those on a
    /// raw one.
    FormatRead,
    /// The same with writes.
    FormatWrite,
    /// iperf3 from the guest over TAP, in Mbit/s of guest time.
    TapSend,
    /// iperf3 to the guest over TAP.
    TapReceive,
    /// iperf3 from the guest through the user-mode network.
    UserSend,
    /// iperf3 to the guest through the user-mode network.
    UserReceive,
    /// From device_add to a disk in the guest, in ms.
    Hotplug,
    /// From exec to the guest's shell, in ms.
    BootBare,
    /// The same with one of every device.
    BootDevices,
    /// How many times as long the second takes.
    BootPart,
    /// Pages a second of an idle guest whose memory is filled, over a unix socket.
    MovePages,
    /// The same with two parallel channels (multifd).
    MoveTwo,
    /// How many times the pages a second that QEMU moves over one channel.
    MoveTwoGain,
    /// Pages a second of an idle guest whose memory is zeros.
    MoveZeros,
    /// From the last sign of life at the source to the first at the destination, in ms.
    MoveGap,
    /// A guest that writes 70 % of the link, with XBZRLE: until it runs at the destination, in ms.
    DeltaTotal,
    /// The same: the downtime that is reported, in ms.
    DeltaDowntime,
    /// The same: what was sent, in MiB.
    DeltaBytes,
    /// How much more memory the source takes while a guest of 4 GiB moves, in KiB.
    MoveMemory,
}

impl Figure {
    /// Every figure, in the order of the table.
    pub(super) const ALL: [Self; 40] = [
        Self::GreetingCpu,
        Self::Greeting,
        Self::AnswerCpu,
        Self::Init,
        Self::InitEmulated,
        Self::Resident,
        Self::Private,
        Self::QueryStopped,
        Self::QueryStoppedCpu,
        Self::QueryRunning,
        Self::QueryRunningCpu,
        Self::QueryOneCore,
        Self::QueryPipelined,
        Self::IdleMonitors,
        Self::Refused,
        Self::DiskRead1,
        Self::DiskRead32,
        Self::DiskWrite1,
        Self::DiskWrite32,
        Self::DiskReadSequential,
        Self::DiskWriteSequential,
        Self::FormatRead,
        Self::FormatWrite,
        Self::TapSend,
        Self::TapReceive,
        Self::UserSend,
        Self::UserReceive,
        Self::Hotplug,
        Self::BootBare,
        Self::BootDevices,
        Self::BootPart,
        Self::MovePages,
        Self::MoveTwo,
        Self::MoveTwoGain,
        Self::MoveZeros,
        Self::MoveGap,
        Self::DeltaTotal,
        Self::DeltaDowntime,
        Self::DeltaBytes,
        Self::MoveMemory,
    ];

    /// The name and unit in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GreetingCpu => "exec to QMP greeting, CPU time, ms",
            Self::Greeting => "exec to QMP greeting, ms",
            Self::AnswerCpu => "exec to first QMP answer, CPU time, ms",
            Self::Init => "exec to the guest's init, ms",
            Self::InitEmulated => "exec to the guest's init, CPU time of the emulation, ms",
            Self::Resident => "memory beyond guest RAM, idle guest, resident, KiB",
            Self::Private => "memory beyond guest RAM, idle guest, private, KiB",
            Self::QueryStopped => "query-status, guest not started, us",
            Self::QueryStoppedCpu => "query-status, guest not started, CPU time, us",
            Self::QueryRunning => "query-status, guest idle, us",
            Self::QueryRunningCpu => "query-status, guest idle, CPU time, us",
            Self::QueryOneCore => "query-status on one core, one after another, us each",
            Self::QueryPipelined => "query-status on one core, a hundred in flight, us each",
            Self::IdleMonitors => "memory of 100 idle monitors, KiB",
            Self::Refused => "held at most for a refused request of 64 MiB, KiB",
            Self::DiskRead1 => "disk, random reads of 4 KiB, depth 1, per second",
            Self::DiskRead32 => "disk, random reads of 4 KiB, depth 32, per second",
            Self::DiskWrite1 => "disk, random writes of 4 KiB, depth 1, per second",
            Self::DiskWrite32 => "disk, random writes of 4 KiB, depth 32, per second",
            Self::DiskReadSequential => "disk, sequential reads, MiB per second",
            Self::DiskWriteSequential => "disk, sequential writes, MiB per second",
            Self::FormatRead => "fio on allocated qcow2 / raw, random reads, depth 32",
            Self::FormatWrite => "fio on allocated qcow2 / raw, random writes, depth 32",
            Self::TapSend => "iperf3 over tap, guest sends, Mbit/s",
            Self::TapReceive => "iperf3 over tap, guest receives, Mbit/s",
            Self::UserSend => "iperf3 through user, guest sends, Mbit/s",
            Self::UserReceive => "iperf3 through user, guest receives, Mbit/s",
            Self::Hotplug => "device_add to a disk in the guest, ms",
            Self::BootBare => "exec to the guest's shell, no devices, ms",
            Self::BootDevices => "exec to the guest's shell, every device, ms",
            Self::BootPart => "exec to the guest's shell, every device / none",
            Self::MovePages => "migration, idle guest of 2 GiB, pages per second",
            Self::MoveTwo => "migration, idle guest of 2 GiB, two channels, pages per second",
            Self::MoveTwoGain => "migration, idle guest of 2 GiB, two channels / QEMU's one",
            Self::MoveZeros => "migration, empty guest of 2 GiB, pages per second",
            Self::MoveGap => "migration, idle guest, silence, ms",
            Self::DeltaTotal => "migration with XBZRLE, writes of 70 % of the link, ms",
            Self::DeltaDowntime => "migration with XBZRLE, the same, downtime, ms",
            Self::DeltaBytes => "migration with XBZRLE, the same, MiB sent",
            Self::MoveMemory => "migration, guest of 4 GiB, memory of the source, KiB",
        }
    }
}

/// All values so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    series: BTreeMap<(Figure, Who), Vec<f64>>,
}

const WORD: &str = "vmbench-values";

impl Samples {
    /// Adds values of one figure.
    pub(super) fn add(&mut self, figure: Figure, who: Who, values: impl IntoIterator<Item = f64>) {
        self.series.entry((figure, who)).or_default().extend(values);
    }

    /// Adds one value.
    pub(super) fn push(&mut self, figure: Figure, who: Who, value: f64) {
        self.add(figure, who, [value]);
    }

    /// The value that was added last.
    pub(super) fn last(&self, figure: Figure, who: Who) -> Option<f64> {
        self.series.get(&(figure, who))?.last().copied()
    }

    /// Adds all of another's values.
    pub(super) fn extend(&mut self, other: &Self) {
        for (&(figure, who), values) in &other.series {
            self.add(figure, who, values.iter().copied());
        }
    }

    /// The values of one figure.
    pub(super) fn series(&self, figure: Figure, who: Who) -> Option<Series> {
        self.series.get(&(figure, who)).filter(|values| !values.is_empty()).map(|values| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            Series { sorted }
        })
    }

    /// As lines that [`parse`](Self::parse) takes out of any other text.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for ((figure, who), values) in &self.series {
            text.push_str(&format!("{WORD} {figure:?} {who:?}"));
            values.iter().for_each(|value| text.push_str(&format!(" {value:.3}")));
            text.push('\n');
        }
        text
    }

    /// Adds what [`lines`](Self::lines) wrote.
    pub(super) fn parse(&mut self, text: &str) -> Result {
        for line in text.lines() {
            let Some(line) = line.strip_prefix(WORD) else { continue };
            let mut words = line.split_whitespace();
            let (figure, who) = (words.next().unwrap_or_default(), words.next());
            let known = Figure::ALL.into_iter().find(|known| format!("{known:?}") == figure);
            let by = Who::ALL.into_iter().find(|known| Some(format!("{known:?}").as_str()) == who);
            let (Some(known), Some(by)) = (known, by) else {
                return Err(format!("not a measured value: {line:?}").into());
            };
            let values: std::result::Result<Vec<f64>, _> = words.map(str::parse).collect();
            self.add(known, by, values?);
        }
        Ok(())
    }
}

/// Values in order.
#[derive(Clone, Debug)]
pub(super) struct Series {
    sorted: Vec<f64>,
}

impl Series {
    /// How many values there are: at least one.
    pub(super) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The value that the share `part` (0 to 1) of all does not exceed.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        // The sizes here are far below what a float holds exactly.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        #[expect(clippy::cast_precision_loss)]
        let at = (part * last as f64).round() as usize;
        self.sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
    }

    /// The middle value.
    pub(super) fn median(&self) -> f64 {
        f64::midpoint(
            self.sorted.get((self.sorted.len() - 1) / 2).copied().unwrap_or(f64::NAN),
            self.sorted.get(self.sorted.len() / 2).copied().unwrap_or(f64::NAN),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_out_of_a_nested_host() {
        let mut inside = Samples::default();
        inside.add(Figure::Init, Who::Vmm, [3.0, 1.5, 2.0]);
        inside.push(Figure::QueryStopped, Who::Pc, 80.25);
        let mut outside = Samples::default();
        outside.parse(&format!("noise\n{}more noise\n", inside.lines())).unwrap();
        outside.parse(&inside.lines()).unwrap();
        let series = outside.series(Figure::Init, Who::Vmm).unwrap();
        assert_eq!(series.count(), 6);
        assert_eq!(series.median(), 2.0);
        assert_eq!((series.quantile(0.0), series.quantile(1.0)), (1.5, 3.0));
        assert!(outside.series(Figure::Init, Who::Pc).is_none());
        assert!(outside.parse("vmbench-values Init Nobody 1").is_err());
        assert!(outside.parse("vmbench-values Init Vmm fast").is_err());
    }
}
