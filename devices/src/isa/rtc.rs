//! The real-time clock and CMOS RAM of a PC (Motorola MC146818A data sheet).
//!
//! Region 0: 2 bytes, port 0x70: index (bit 7 masks the non-maskable interrupt) and data.
//! ISA interrupt 8.
//!
//! The guest's time is not counted but computed: a source (the host's clock or the virtual one)
//! plus a difference, which changes when the guest sets the time. So the clock stays right while
//! the machine is stopped. Flags are brought up to date when the guest looks; the timer runs only
//! while an interrupt is enabled and not yet pending. An interrupt missed meanwhile is not
//! repeated.
//!
//! Runs on vCPU threads (registers) and on the I/O thread (timer) under the device's mutex. A
//! hostile guest can arm one timer, at most every 122 microseconds, and report time changes.

use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use resources::class::Class;
use resources::clock::{Clock, Timer};
use resources::device::{At, Device, DeviceCell, LiveProp, read_bytes, write_bytes};
use resources::irq::Irq;
use resources::props::Value;
use resources::request::{Request, Requests, WakeReason};
use resources::state::{Blob, StateError, invalid};
use time::OffsetDateTime;

use crate::class::Ctx;

use self::calendar::{broken_down, date_time};
use self::state::Registers;

/// Port of region 0.
pub const PORT: u64 = 0x70;
/// Size of region 0 in bytes.
pub const SIZE: u64 = 2;

/// Bytes of clock registers and RAM.
const CMOS: usize = 128;

/// Registers of the time, and those of the alarm just behind the first three.
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
/// The century, where the ACPI tables say it is.
pub const CENTURY: u8 = 0x32;
/// Control and status registers.
const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;
const D: u8 = 0x0d;

/// In CMOS RAM: how the machine went off, and how many processors there are besides the first.
const SHUTDOWN_STATUS: u8 = 0x0f;
const PROCESSORS: u8 = 0x5f;
/// Shutdown status that has firmware wake the guest.
const S3_RESUME: u8 = 0xfe;

/// Register A: update in progress, divider, periodic rate.
const A_UPDATING: u8 = 0x80;
const A_DIVIDER: u8 = 0x70;
const A_32KHZ: u8 = 0x20;
const A_RATE: u8 = 0x0f;

/// Register B: halt to set the time; the interrupts; binary and 24-hour format.
const B_SET: u8 = 0x80;
const B_PERIODIC: u8 = 0x40;
const B_ALARM: u8 = 0x20;
const B_UPDATE: u8 = 0x10;
const B_SQUARE_WAVE: u8 = 0x08;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;

/// Register C: any enabled interrupt; then the same bits as in register B.
const C_ANY: u8 = 0x80;
const INTERRUPTS: u8 = B_PERIODIC | B_ALARM | B_UPDATE;

/// Register D: the battery is good.
const D_VALID: u8 = 0x80;

/// In the hours register of the 12-hour format.
const PM: u8 = 0x80;

/// Microseconds in a second, and how long before its end an update is announced.
const SECOND: i64 = 1_000_000;
const UPDATE_AHEAD: i64 = 244;
/// When the divider is released from reset, the first update comes half a second later.
const PHASE_AFTER_RESET: i64 = SECOND / 2;

/// Longest time to arm the timer for, in microseconds: the host's clock may be set meanwhile.
const LOOK_AGAIN: i64 = 60 * SECOND;

/// What the guest's time follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The host's time of day (UTC): goes on while the machine is stopped.
    Host,
    /// The virtual clock.
    Virtual,
}

/// How the clock starts and what firmware finds in the CMOS RAM.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the time follows.
    pub source: Source,
    /// What to add to it, in seconds: for [`Source::Host`] 0 gives UTC; for [`Source::Virtual`],
    /// which starts at zero, the Unix time at the start. Changes of the guest's are reported
    /// relative to this.
    pub base: i64,
    /// RAM below 4 GiB in bytes.
    pub ram_low: u64,
    /// RAM above 4 GiB in bytes.
    pub ram_high: u64,
    /// Processors at power-on.
    pub processors: u32,
}

/// The device.
pub struct Rtc {
    irq: Irq,
    timer: Timer,
    requests: Requests,
    source: Source,
    /// In microseconds.
    base: i64,
    regs: Registers,
}

impl Rtc {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("mc146818rtc", "ISA", "Real-time clock and CMOS RAM");

    /// A clock that shows the time of its base.
    pub fn new(
        name: &str,
        irq: Irq,
        clock: &Arc<Clock>,
        requests: Requests,
        config: &Config,
    ) -> Arc<DeviceCell<Rtc>> {
        let cell = DeviceCell::new_cyclic(name, |weak: &Weak<DeviceCell<Rtc>>| {
            let weak = weak.clone();
            let timer = clock.timer(move || {
                if let Some(cell) = weak.upgrade() {
                    cell.lock().update();
                }
            });
            let base = config.base.saturating_mul(SECOND);
            let regs = Registers { cmos: power_on(config), difference: base, ..Default::default() };
            Rtc { irq, timer, requests, source: config.source, base, regs }
        });
        cell.lock().forget_events();
        cell
    }

    /// The time as the guest sees it. In which time zone is the guest's business.
    pub fn time(&self) -> OffsetDateTime {
        let seconds = if self.running() { self.now().div_euclid(SECOND) } else { self.decode() };
        date_time(seconds)
    }

    /// Whether the guest has masked the non-maskable interrupt.
    pub fn nmi_masked(&self) -> bool {
        self.regs.nmi_masked
    }

    /// Puts a byte into the CMOS RAM (from 0x0e on), for firmware to find.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        if index > D && index != CENTURY {
            self.set(index, value);
        }
    }

    fn get(&self, index: u8) -> u8 {
        self.regs.cmos.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    /// Notes in CMOS RAM, for firmware, whether the guest sleeps in S3.
    pub fn set_sleeping(&mut self, sleeping: bool) {
        self.set(SHUTDOWN_STATUS, if sleeping { S3_RESUME } else { 0 });
    }

    /// Notes in CMOS RAM, for firmware, how many processors there are.
    pub fn set_processors(&mut self, count: usize) {
        let most = u8::try_from(count.saturating_sub(1)).unwrap_or(u8::MAX);
        self.set(PROCESSORS, most);
    }

    fn set(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.regs.cmos.get_mut(usize::from(index)) {
            *byte = value;
        }
    }

    fn on(&self, bit: u8) -> bool {
        self.get(B) & bit != 0
    }

    /// Time stands still while the guest sets it or holds the divider in reset.
    fn running(&self) -> bool {
        !self.on(B_SET) && self.get(A) & A_DIVIDER <= A_32KHZ
    }

    fn source_now(&self) -> i64 {
        let micros = match self.source {
            Source::Host => {
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
            }
            Source::Virtual => u128::from(self.timer.now()) / 1000,
        };
        i64::try_from(micros).unwrap_or(i64::MAX)
    }

    /// The running clock in microseconds since 1970 in the guest's own zone.
    fn now(&self) -> i64 {
        self.source_now().saturating_add(self.regs.difference)
    }

    // The time registers.

    /// Puts the present time into the registers, to be changed there.
    fn freeze(&mut self) {
        let now = self.now();
        let at = date_time(now.div_euclid(SECOND));
        for register in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            let value = self.encode(register, at);
            self.set(register, value);
        }
        self.regs.phase = now.rem_euclid(SECOND);
    }

    /// Lets the clock run on from the time in the registers.
    fn thaw(&mut self) {
        let time = self.decode().saturating_mul(SECOND).saturating_add(self.regs.phase);
        self.regs.difference = time.saturating_sub(self.source_now());
        self.forget_events();
        let change = self.regs.difference.saturating_sub(self.base);
        let change = change.saturating_add(SECOND / 2).div_euclid(SECOND);
        self.requests.request(Request::RtcChange(change));
    }

    /// Events count from now on.
    fn forget_events(&mut self) {
        self.regs.last_second = self.now().div_euclid(SECOND);
        self.regs.next_period = self.next_period();
    }

    // Interrupts.

    /// Cycles of the 32.768 kHz crystal since the virtual clock's zero.
    fn cycles(&self) -> u64 {
        let cycles = u128::from(self.timer.now()).saturating_mul(32_768) / 1_000_000_000;
        u64::try_from(cycles).unwrap_or(u64::MAX)
    }

    /// Cycles between periodic interrupts.
    fn period(&self) -> Option<u64> {
        let a = self.get(A);
        let rate = match a & A_RATE {
            _ if a & A_DIVIDER > A_32KHZ => return None,
            0 => return None,
            // The two lowest are the same as 8 and 9.
            rate @ 1..=2 => rate.saturating_add(7),
            rate => rate,
        };
        1u64.checked_shl(u32::from(rate).saturating_sub(1))
    }

    /// The next multiple of the period, in cycles.
    fn next_period(&self) -> u64 {
        let Some(period) = self.period() else { return u64::MAX };
        (self.cycles() | period.saturating_sub(1)).saturating_add(1)
    }

    /// The first second after `from` that the alarm registers name.
    fn next_alarm(&self, from: i64) -> Option<i64> {
        // Two set bits on top mean any.
        let matches = |register: u8, value: i64| {
            let alarm = self.get(register.saturating_add(1));
            let wanted = if register == HOURS {
                self.decode_hours(alarm)
            } else {
                self.decode_number(alarm)
            };
            alarm >= 0xc0 || i64::from(wanted) == value
        };
        let mut at = from.checked_add(1)?;
        // At most to the end of a minute, an hour and a day, and from there again.
        for _ in 0..300 {
            let (second, minute) = (at.rem_euclid(60), at.div_euclid(60).rem_euclid(60));
            let hour = at.div_euclid(3600).rem_euclid(24);
            let step = if !matches(HOURS, hour) {
                3600i64.saturating_sub(at.rem_euclid(3600))
            } else if !matches(MINUTES, minute) {
                60i64.saturating_sub(second)
            } else if !matches(SECONDS, second) {
                1
            } else {
                return Some(at);
            };
            at = at.checked_add(step)?;
        }
        None
    }

    /// Sets the flags of what has happened since the last look.
    fn look(&mut self) {
        let mut flags = 0;
        if self.running() {
            let second = self.now().div_euclid(SECOND);
            let last = std::mem::replace(&mut self.regs.last_second, second);
            if second != last {
                flags |= B_UPDATE;
            }
            if second > last && self.next_alarm(last).is_some_and(|alarm| alarm <= second) {
                flags |= B_ALARM;
                if self.on(B_ALARM) {
                    self.requests.request(Request::Wakeup(WakeReason::Rtc));
                }
            }
        }
        if self.cycles() >= self.regs.next_period {
            flags |= B_PERIODIC;
            self.regs.next_period = self.next_period();
        }
        let flags = self.get(C) | flags;
        self.set(C, flags);
    }

    fn irq_level(&self) -> bool {
        self.get(B) & self.get(C) & INTERRUPTS != 0
    }

    /// Brings flags, interrupt and timer up to date.
    fn update(&mut self) {
        self.look();
        self.irq.set(self.irq_level());
        let deadline = self.deadline();
        match deadline {
            Some(deadline) => self.timer.arm(deadline),
            None => self.timer.cancel(),
        }
    }

    /// The virtual time of the next event that interrupts. None is needed while the interrupt is
    /// pending: the guest has to look first.
    fn deadline(&self) -> Option<u64> {
        if self.irq_level() {
            return None;
        }
        let mut deadline = None;
        let mut earlier = |at: u64| deadline = Some(deadline.map_or(at, |old: u64| old.min(at)));
        if self.on(B_PERIODIC) && self.period().is_some() {
            let nanos = u128::from(self.regs.next_period).saturating_mul(1_000_000_000);
            earlier(u64::try_from(nanos.div_ceil(32_768)).unwrap_or(u64::MAX));
        }
        let mut at_second = |second: i64| {
            let ahead = second.saturating_mul(SECOND).saturating_sub(self.now());
            let nanos = u64::try_from(ahead.clamp(1, LOOK_AGAIN)).unwrap_or(1).saturating_mul(1000);
            earlier(self.timer.now().saturating_add(nanos));
        };
        if self.on(B_UPDATE) && self.running() {
            at_second(self.regs.last_second.saturating_add(1));
        }
        if self.on(B_ALARM)
            && self.running()
            && let Some(alarm) = self.next_alarm(self.regs.last_second)
        {
            at_second(alarm);
        }
        deadline
    }

    // Register accesses.

    fn read_cmos(&mut self, index: u8) -> u8 {
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY if self.running() => {
                self.encode(index, date_time(self.now().div_euclid(SECOND)))
            }
            A => {
                let updating = self.running()
                    && self.now().rem_euclid(SECOND) >= SECOND.saturating_sub(UPDATE_AHEAD);
                self.get(A) | if updating { A_UPDATING } else { 0 }
            }
            C => {
                self.look();
                let flags = self.get(C);
                let any = if self.irq_level() { C_ANY } else { 0 };
                self.set(C, 0);
                // The line falls, even if the next event is due already: it interrupts by its
                // edge.
                self.irq.set(false);
                self.update();
                flags | any
            }
            _ => self.get(index),
        }
    }

    fn write_cmos(&mut self, index: u8, value: u8) {
        let was_running = self.running();
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY => {
                if was_running {
                    self.freeze();
                }
                self.set(index, value);
                if was_running {
                    self.thaw();
                }
            }
            A | B => {
                self.look();
                if index == A {
                    self.set(A, value & !A_UPDATING);
                    self.regs.next_period = self.next_period();
                } else {
                    // Halting also turns the update interrupt off.
                    self.set(B, if value & B_SET != 0 { value & !B_UPDATE } else { value });
                }
                if was_running && !self.running() {
                    self.freeze();
                }
                if self.get(A) & A_DIVIDER > A_32KHZ {
                    self.regs.phase = PHASE_AFTER_RESET;
                }
                if !was_running && self.running() {
                    self.thaw();
                }
            }
            C | D => {}
            _ => self.set(index, value),
        }
        if index <= D {
            self.update();
        }
    }
}

/// The CMOS RAM as firmware expects it: sizes in their traditional units and places.
fn power_on(config: &Config) -> Vec<u8> {
    let mut cmos = vec![0; CMOS];
    let mut put = |index: usize, value: u64, most: u64, bytes: usize| {
        let value = value.min(most).to_le_bytes();
        for (byte, value) in cmos.iter_mut().skip(index).zip(value).take(bytes) {
            *byte = value;
        }
    };
    put(A.into(), (A_32KHZ | 6).into(), 0xff, 1);
    put(B.into(), B_24_HOURS.into(), 0xff, 1);
    put(D.into(), D_VALID.into(), 0xff, 1);
    // Equipment: a PS/2 mouse and a floating point unit.
    put(0x14, 0x06, 0xff, 1);
    put(0x15, 640, 640, 2);
    let above_1m = config.ram_low.saturating_sub(1 << 20) / 1024;
    put(0x17, above_1m, 0xffff, 2);
    put(0x30, above_1m, 0xffff, 2);
    put(0x34, config.ram_low.saturating_sub(16 << 20) / 65536, 0xffff, 2);
    put(0x5b, config.ram_high / 65536, 0xff_ffff, 3);
    put(PROCESSORS.into(), u64::from(config.processors.saturating_sub(1)), 0xff, 1);
    cmos
}

impl Device for Rtc {
    fn live_props(&self) -> &'static [LiveProp] {
        &[LiveProp { name: "date", type_name: "struct tm", settable: false }]
    }

    fn live_value(&self, name: &str) -> Option<Value> {
        (name == "date").then(|| broken_down(self.time()))
    }

    fn read(&mut self, at: At, data: &mut [u8]) {
        read_bytes(at, data, |offset| match offset {
            1 => self.read_cmos(self.regs.index),
            // The index cannot be read back.
            _ => 0xff,
        });
    }

    fn write(&mut self, at: At, data: &[u8]) {
        write_bytes(at, data, |offset, value| match offset {
            0 => {
                self.regs.index = value & 0x7f;
                self.regs.nmi_masked = value & 0x80 != 0;
            }
            1 => self.write_cmos(self.regs.index, value),
            _ => {}
        });
    }

    /// The reset pin turns interrupts off; time and RAM live on their battery.
    fn reset(&mut self) {
        let b = self.get(B) & !(INTERRUPTS | B_SQUARE_WAVE);
        self.set(B, b);
        self.look();
        self.set(C, 0);
        self.regs.index = 0;
        self.regs.nmi_masked = false;
        self.update();
    }

    fn start(&mut self) {
        self.update();
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: Registers = blob.parse(1, &[])?;
        if regs.cmos.len() != CMOS {
            return Err(invalid("CMOS RAM is not 128 bytes"));
        }
        if regs.index >= 0x80 || !(0..SECOND).contains(&regs.phase) {
            return Err(invalid("RTC index or phase out of range"));
        }
        let get = |index: u8| regs.cmos.get(usize::from(index)).copied().unwrap_or(0);
        if get(A) & A_UPDATING != 0
            || get(B) & (B_SET | B_UPDATE) == B_SET | B_UPDATE
            || get(C) & !INTERRUPTS != 0
            || get(D) != D_VALID
        {
            return Err(invalid("impossible value of an RTC control register"));
        }
        self.timer.cancel();
        self.regs = regs;
        self.irq.import(self.irq_level());
        Ok(())
    }
}

mod calendar;

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        pub(super) index: u8,
        pub(super) nmi_masked: bool,
        /// All registers and the RAM. The time's are valid only while the clock is halted.
        #[serde(with = "resources::state::bytes")]
        pub(super) cmos: Vec<u8>,
        /// What to add to the source to get the guest's time, in microseconds.
        pub(super) difference: i64,
        /// While halted: the microseconds into the second at which to run on.
        pub(super) phase: i64,
        /// The second up to which updates and alarms were noticed.
        pub(super) last_second: i64,
        /// Crystal cycles since the virtual clock's zero at which the next period ends.
        pub(super) next_period: u64,
    }
}

#[cfg(test)]
mod tests;
