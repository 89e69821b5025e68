//! `i6300esb`: the watchdog of Intel's 6300ESB I/O controller hub (datasheet, chapter 16).
//!
//! It counts down twice, first from the one, then from the other preload value; when both are out
//! it asks the machine for what is to be done then, and stops.
//!
//! Configuration registers: 0x60 (16 bits; bit 2: counts microseconds, not milliseconds; bit 5: running
//! out has no consequence), 0x68 (bit 0: locked until reset; bit 1: runs; bit 2: runs on and on). In
//! region 0, 16 bytes: 0 and 4, the preload values of 20 bits; 12, reload (bit 8) and "it ran out"
//! (bit 9, write one to clear). Each write but to 12 must follow 0x80 and 0x86 written there.
//!
//! Runs on vCPU threads (registers) and the I/O thread (timer) under the function's mutex. A hostile
//! guest can have it run out at once and as often as it starts it: the mailbox keeps one request;
//! and it can have it count on and on, ten thousand times a second at most.

use std::ops::Range;
use std::sync::{Arc, Weak};

use resources::class::Class;
use resources::clock::{Clock, Timer};
use resources::device::{At, Device, DeviceCell, put_value, value_of};
use resources::request::{Request, Requests};
use resources::state::{Blob, StateError, invalid};

use self::state::Registers;
use super::{Bar, BarKind, ConfigSpace, Function, INTEL, Identity, PROPS, PciDevice, Spec, plug};
use crate::class::Ctx;

const CONFIG: usize = 0x60;
const FAST: u16 = 1 << 2;
const NO_OUTPUT: u16 = 1 << 5;
const CONFIG_WRITABLE: u16 = 0x0027;
const LOCK: usize = 0x68;
const LOCKED: u8 = 1 << 0;
const RUNS: u8 = 1 << 1;
const REPEATS: u8 = 1 << 2;

/// Offsets in the region.
const PRELOAD_1: u64 = 0;
const PRELOAD_2: u64 = 4;
const RELOAD: u64 = 12;
const PRELOAD_MASK: u32 = 0xf_ffff;
/// In register [`RELOAD`].
const COUNT_ANEW: u32 = 1 << 8;
const RAN_OUT: u32 = 1 << 9;

/// A cycle of the PCI clock, of which a count takes 2^15 or 2^5.
const NANOS_PER_CYCLE: u64 = 30;
/// What a stage takes at least, in nanoseconds: one that runs on and on is not to take all of the
/// I/O thread's time.
const SHORTEST: u64 = 100_000;

/// The device.
pub struct I6300esb {
    clock: Arc<Clock>,
    /// Of the device in its place.
    timer: Option<Timer>,
    requests: Requests,
    regs: Registers,
}

impl I6300esb {
    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "i6300esb",
        aliases: &[],
        bus: "PCI",
        description: "Intel 6300ESB",
        props: &[],
        base: PROPS,
        create: Some(|props, ctx| {
            let identity =
                Identity { vendor: INTEL, device: 0x25ab, class: 0x0880, ..Identity::default() };
            let bars = vec![Bar::new(0, BarKind::Memory32, 16)];
            let (clock, requests) = (ctx.clock.clone(), ctx.host.requests.clone());
            let spec = Spec { identity, bars, ..Spec::default() };
            Ok(plug(ctx, props, spec, |parts| {
                parts.config.set_writable(CONFIG, &CONFIG_WRITABLE.to_le_bytes());
                parts.config.set_writable(LOCK, &[LOCKED | RUNS | REPEATS]);
                Ok(I6300esb { clock, timer: None, requests, regs: Registers::default() })
            })?)
        }),
    };

    fn arm(&mut self, deadline: Option<u64>) {
        self.regs.deadline = deadline;
        match (&mut self.timer, deadline) {
            (Some(timer), Some(deadline)) => timer.arm(deadline),
            (Some(timer), None) => timer.cancel(),
            (None, _) => {}
        }
    }

    /// Counts down from the preload value of this stage, 1 or 2.
    fn count(&mut self, stage: u8) {
        let preload = if stage == 1 { self.regs.preload_1 } else { self.regs.preload_2 };
        let shift = if self.regs.config & FAST != 0 { 5 } else { 15 };
        let time = (u64::from(preload) << shift).saturating_mul(NANOS_PER_CYCLE).max(SHORTEST);
        self.regs.stage = stage;
        self.arm(Some(self.clock.now().saturating_add(time)));
    }

    fn ring(&mut self) {
        if self.regs.deadline.is_none_or(|deadline| self.clock.now() < deadline) {
            return;
        }
        match self.regs.stage {
            1 => self.count(2),
            _ if self.regs.config & NO_OUTPUT == 0 => {
                self.stop_counting();
                self.regs.ran_out = true;
                self.requests.request(Request::Watchdog);
            }
            _ if self.regs.lock & REPEATS != 0 => self.count(1),
            _ => self.stop_counting(),
        }
    }

    fn stop_counting(&mut self) {
        self.regs.lock &= !RUNS;
        self.arm(None);
    }

    fn write_reload(&mut self, value: u32) {
        match (value, self.regs.unlocked) {
            (0x80, _) => self.regs.unlocked = 1,
            (0x86, 1) => self.regs.unlocked = 2,
            (_, 2) => {
                self.regs.unlocked = 0;
                self.regs.ran_out &= value & RAN_OUT == 0;
                if value & COUNT_ANEW != 0 && self.regs.lock & RUNS != 0 {
                    self.count(1);
                }
            }
            _ => self.regs.unlocked = 0,
        }
    }
}

impl Device for I6300esb {
    fn read(&mut self, At { offset, .. }: At, data: &mut [u8]) {
        let value = if offset == RELOAD && self.regs.ran_out { RAN_OUT } else { 0 };
        put_value(data, value.into());
    }

    fn write(&mut self, At { offset, .. }: At, data: &[u8]) {
        let value = u32::try_from(value_of(data) & u64::from(u32::MAX)).unwrap_or(0);
        if offset == RELOAD {
            return self.write_reload(value);
        }
        let preload = match offset {
            PRELOAD_1 => &mut self.regs.preload_1,
            PRELOAD_2 => &mut self.regs.preload_2,
            _ => return,
        };
        if std::mem::take(&mut self.regs.unlocked) == 2 {
            *preload = value & PRELOAD_MASK;
        }
    }

    fn reset(&mut self) {
        self.arm(None);
        // The next system is to find out why it was started.
        self.regs = Registers { ran_out: self.regs.ran_out, ..Registers::default() };
    }

    fn unplug(&mut self) {
        self.arm(None);
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: Registers = blob.parse(1, &[])?;
        let known = regs.config & !CONFIG_WRITABLE == 0
            && regs.lock & !(LOCKED | RUNS | REPEATS) == 0
            && regs.preload_1.max(regs.preload_2) <= PRELOAD_MASK
            && regs.unlocked <= 2
            && (1..=2).contains(&regs.stage);
        if !known {
            return Err(invalid("watchdog registers out of range"));
        }
        let longest = (u64::from(PRELOAD_MASK) << 15).saturating_mul(NANOS_PER_CYCLE);
        let latest = self.clock.now().saturating_add(longest);
        let deadline = regs.deadline.map(|deadline| deadline.min(latest));
        self.regs = regs;
        self.arm(deadline);
        Ok(())
    }
}

impl PciDevice for I6300esb {
    fn config_read(&mut self, config: &mut ConfigSpace, _: Range<usize>) {
        config.set(LOCK, &[self.regs.lock]);
    }

    fn config_written(&mut self, config: &mut ConfigSpace, at: Range<usize>) {
        self.regs.config = config.u16(CONFIG);
        if !at.contains(&LOCK) {
            return;
        }
        if self.regs.lock & LOCKED != 0 {
            return config.set(LOCK, &[self.regs.lock]);
        }
        let was = std::mem::replace(&mut self.regs.lock, config.u8(LOCK));
        match (was & RUNS != 0, self.regs.lock & RUNS != 0) {
            (false, true) => self.count(1),
            (true, false) => self.arm(None),
            _ => {}
        }
    }

    fn placed(&mut self, me: &Weak<DeviceCell<Function<Self>>>) {
        let me = me.clone();
        self.timer = Some(self.clock.timer(move || {
            if let Some(cell) = me.upgrade() {
                cell.lock().device_mut().ring();
            }
        }));
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        pub(super) config: u16,
        pub(super) lock: u8,
        pub(super) preload_1: u32,
        pub(super) preload_2: u32,
        /// How much of the unlocking sequence was written.
        pub(super) unlocked: u8,
        pub(super) stage: u8,
        pub(super) ran_out: bool,
        /// When the present stage is out, in nanoseconds of virtual time, if it counts.
        pub(super) deadline: Option<u64>,
    }

    impl Default for Registers {
        fn default() -> Self {
            Registers {
                config: 0,
                lock: 0,
                preload_1: 0xf_ffff,
                preload_2: 0xf_ffff,
                unlocked: 0,
                stage: 1,
                ran_out: false,
                deadline: None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Requested;

    struct Rig {
        watchdog: I6300esb,
        config: ConfigSpace,
        clock: Arc<Clock>,
        requests: Arc<Requested>,
    }

    fn at(offset: u64) -> At {
        At { region: 0, offset }
    }

    const MILLI: u64 = (1 << 15) * NANOS_PER_CYCLE;

    impl Rig {
        fn new() -> Rig {
            let (clock, requests) = (Clock::new(), Arc::new(Requested::default()));
            let mut config = ConfigSpace::default();
            config.set_writable(CONFIG, &CONFIG_WRITABLE.to_le_bytes());
            config.set_writable(LOCK, &[0x07]);
            let regs = Registers::default();
            let watchdog =
                I6300esb { clock: clock.clone(), timer: None, requests: requests.clone(), regs };
            Rig { watchdog, config, clock, requests }
        }

        fn lock(&mut self, value: u8) {
            self.config.write(LOCK, &[value]);
            self.watchdog.config_written(&mut self.config, LOCK..LOCK + 1);
        }

        fn write(&mut self, offset: u64, value: u32) {
            for word in [0x80u16, 0x86] {
                self.watchdog.write(at(RELOAD), &word.to_le_bytes());
            }
            self.watchdog.write(at(offset), &value.to_le_bytes());
        }

        /// Whether it ran out by now.
        fn out(&mut self, now: u64) -> bool {
            self.clock.step_to(now);
            self.watchdog.ring();
            self.requests.take() == [Request::Watchdog]
        }

        fn ran_out(&mut self) -> bool {
            let mut data = [0; 2];
            self.watchdog.read(at(RELOAD), &mut data);
            data == [0, 2]
        }
    }

    #[test]
    fn it_runs_out_after_both_stages_and_says_so_after_a_reset() {
        let mut rig = Rig::new();
        rig.write(PRELOAD_1, 100);
        rig.write(PRELOAD_2, 50);
        rig.lock(RUNS);
        assert!(!rig.out(99 * MILLI) && !rig.out(100 * MILLI) && !rig.out(149 * MILLI));
        rig.write(RELOAD, COUNT_ANEW);
        assert!(!rig.out(249 * MILLI) && !rig.out(298 * MILLI) && rig.out(299 * MILLI));
        assert!(rig.ran_out() && !rig.out(1000 * MILLI));
        rig.watchdog.reset();
        assert!(rig.ran_out());
        rig.write(RELOAD, RAN_OUT);
        assert!(!rig.ran_out());
    }

    #[test]
    fn it_runs_on_and_on_without_taking_all_time() {
        let mut rig = Rig::new();
        rig.write(PRELOAD_1, 0);
        rig.write(PRELOAD_2, 0);
        rig.config.write(CONFIG, &(NO_OUTPUT | FAST).to_le_bytes());
        rig.lock(RUNS | REPEATS);
        for round in 1..5 {
            assert_eq!(rig.watchdog.regs.deadline, Some(round * SHORTEST));
            assert!(!rig.out(round * SHORTEST));
        }
    }

    #[test]
    fn it_is_locked_and_unlocked() {
        let mut rig = Rig::new();
        // Without the sequence nothing is written.
        rig.watchdog.write(at(PRELOAD_1), &[1, 0, 0, 0]);
        assert_eq!(rig.watchdog.regs.preload_1, 0xf_ffff);
        rig.lock(RUNS | LOCKED);
        rig.lock(0);
        assert!(rig.watchdog.regs.deadline.is_some());
        assert_eq!(rig.config.u8(LOCK), RUNS | LOCKED);
        rig.watchdog.reset();
        rig.lock(RUNS);
        rig.lock(0);
        assert_eq!(rig.watchdog.regs.deadline, None);
    }

    #[test]
    fn a_state_out_of_range_is_refused_and_a_good_one_goes_on() {
        let (mut old, mut new) = (Rig::new(), Rig::new());
        old.write(PRELOAD_1, 10);
        old.lock(RUNS);
        new.watchdog.load(&old.watchdog.save().unwrap()).unwrap();
        assert_eq!(new.watchdog.regs.deadline, Some(10 * MILLI));
        let wrong = [
            Registers { stage: 0, ..Registers::default() },
            Registers { preload_2: 1 << 20, ..Registers::default() },
            Registers { lock: 0x80, ..Registers::default() },
        ];
        for regs in wrong {
            assert!(new.watchdog.load(&Blob::new(1, &regs).unwrap()).is_err());
        }
    }
}
