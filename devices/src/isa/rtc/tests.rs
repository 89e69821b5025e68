use super::*;
use crate::testing::{Requested, inb, line, outb};
use resources::hv::fake::Fake;

struct Rig {
    cell: Arc<DeviceCell<Rtc>>,
    clock: Arc<Clock>,
    irq: Arc<Fake>,
    requests: Arc<Requested>,
}

/// Saturday, 2023-12-30 23:59:58 UTC.
const START: i64 = 1_703_980_798;
const SECOND_NANOS: u64 = 1_000_000_000;

fn config() -> Config {
    Config {
        source: Source::Virtual,
        base: START,
        ram_low: 3 << 30,
        ram_high: 5 << 30,
        processors: 4,
    }
}

impl Rig {
    fn new() -> Rig {
        let (irq, fake) = line(8);
        let (clock, requests) = (Clock::new(), Arc::new(Requested::default()));
        let cell = Rtc::new("rtc", irq, &clock, requests.clone(), &config());
        cell.lock().start();
        Rig { cell, clock, irq: fake, requests }
    }

    fn read(&self, index: u8) -> u8 {
        outb(&mut *self.cell.lock(), 0, index);
        inb(&mut *self.cell.lock(), 1)
    }

    fn write(&self, index: u8, value: u8) {
        outb(&mut *self.cell.lock(), 0, index);
        outb(&mut *self.cell.lock(), 1, value);
    }

    /// Century, year, month, day, weekday, hours, minutes, seconds.
    fn time(&self) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|index| self.read(index))
    }

    fn pass(&self, nanos: u64) {
        self.clock.step_to(self.clock.now() + nanos);
    }

    fn high(&self) -> bool {
        self.irq.line(8)
    }
}

#[test]
fn time_passes_in_bcd() {
    let rig = Rig::new();
    assert_eq!(rig.time(), [0x20, 0x23, 0x12, 0x30, 7, 0x23, 0x59, 0x58]);
    rig.pass(2 * SECOND_NANOS);
    assert_eq!(rig.time(), [0x20, 0x23, 0x12, 0x31, 1, 0, 0, 0]);
    rig.pass(86400 * SECOND_NANOS);
    assert_eq!(rig.time(), [0x20, 0x24, 0x01, 0x01, 2, 0, 0, 0]);
}

#[test]
fn binary_and_twelve_hour_formats() {
    let rig = Rig::new();
    rig.write(B, B_BINARY | B_24_HOURS);
    assert_eq!(rig.time(), [20, 23, 12, 30, 7, 23, 59, 58]);
    rig.write(B, B_BINARY);
    assert_eq!(rig.read(HOURS), 11 | PM);
    rig.write(B, 0);
    assert_eq!(rig.read(HOURS), 0x11 | PM);
    rig.pass(2 * SECOND_NANOS);
    assert_eq!(rig.read(HOURS), 0x12);
    for (written, hours) in [(0x12, 0), (0x01, 1), (0x12 | PM, 12), (0x11 | PM, 23)] {
        rig.write(B, 0);
        rig.write(HOURS, written);
        rig.write(B, B_BINARY | B_24_HOURS);
        assert_eq!(rig.read(HOURS), hours);
    }
}

#[test]
fn the_guest_sets_the_time_as_linux_does() {
    let rig = Rig::new();
    let b = rig.read(B);
    rig.write(B, b | B_SET);
    rig.write(A, 0x76);
    let new = [
        (CENTURY, 0x20),
        (YEAR, 0x30),
        (MONTH, 0x02),
        (DAY, 0x28),
        (HOURS, 0x12),
        (MINUTES, 0x34),
        (SECONDS, 0x56),
    ];
    for (index, value) in new {
        rig.write(index, value);
    }
    rig.pass(3 * SECOND_NANOS);
    assert_eq!(rig.read(SECONDS), 0x56, "halted");
    assert_eq!(rig.requests.take(), []);
    rig.write(B, b);
    rig.write(A, 0x26);
    // 2030-02-28 12:34:56, while the reference stands at START + 3.
    let offset = 1_898_512_496 - (START + 3);
    // The half second of the divider's reset rounds up.
    assert_eq!(rig.requests.take(), [Request::RtcChange(offset + 1)]);
    assert_eq!(rig.time(), [0x20, 0x30, 0x02, 0x28, 5, 0x12, 0x34, 0x56]);
    rig.pass(SECOND_NANOS / 2 - 1000);
    assert_eq!(rig.read(SECONDS), 0x56);
    assert_eq!(rig.read(A), 0x26 | A_UPDATING);
    rig.pass(1000);
    assert_eq!(rig.read(SECONDS), 0x57);
    assert_eq!(rig.read(A), 0x26);
}

#[test]
fn a_field_set_alone_keeps_the_others() {
    let rig = Rig::new();
    rig.write(MINUTES, 0x10);
    assert_eq!(rig.time(), [0x20, 0x23, 0x12, 0x30, 7, 0x23, 0x10, 0x58]);
    assert_eq!(rig.requests.take(), [Request::RtcChange(-49 * 60)]);
}

#[test]
fn the_update_interrupt_comes_every_second_once_seen() {
    let rig = Rig::new();
    rig.write(B, B_24_HOURS | B_UPDATE);
    rig.pass(SECOND_NANOS - 1);
    assert!(!rig.high());
    rig.pass(1);
    assert!(rig.high());
    rig.pass(5 * SECOND_NANOS);
    assert_eq!(rig.clock.next_deadline(), None, "no timer while pending");
    assert_eq!(rig.read(C) & (C_ANY | B_UPDATE), C_ANY | B_UPDATE);
    assert!(!rig.high());
    assert_eq!(rig.read(C), 0);
    rig.pass(SECOND_NANOS);
    assert!(rig.high());
    rig.write(B, B_24_HOURS | B_UPDATE | B_SET);
    assert!(!rig.high(), "halting turns it off");
}

#[test]
fn flags_show_without_interrupts() {
    let rig = Rig::new();
    rig.read(C);
    rig.pass(SECOND_NANOS);
    assert_eq!(rig.read(C), B_PERIODIC | B_UPDATE);
    assert!(!rig.high());
    assert_eq!(rig.clock.next_deadline(), None);
}

#[test]
fn the_alarm_matches_with_wildcards() {
    let rig = Rig::new();
    rig.write(1, 0x05);
    rig.write(3, 0x00);
    rig.write(5, 0x00);
    rig.write(B, B_24_HOURS | B_ALARM);
    rig.pass(6 * SECOND_NANOS);
    assert!(!rig.high());
    rig.pass(SECOND_NANOS);
    assert!(rig.high());
    rig.read(C);
    // Every minute at second 5.
    rig.write(3, 0xff);
    rig.write(5, 0xc0);
    rig.pass(59 * SECOND_NANOS);
    assert!(!rig.high());
    rig.pass(SECOND_NANOS);
    assert!(rig.high());
    // Never.
    rig.read(C);
    rig.write(1, 0x75);
    rig.pass(100_000 * SECOND_NANOS);
    assert!(!rig.high());
}

#[test]
fn an_alarm_a_day_away_is_found() {
    let rig = Rig::new();
    for (index, value) in [(1, 0x58), (3, 0x59), (5, 0x23)] {
        rig.write(index, value);
    }
    rig.write(B, B_24_HOURS | B_ALARM);
    rig.pass(86399 * SECOND_NANOS);
    assert!(!rig.high());
    rig.pass(SECOND_NANOS);
    assert!(rig.high());
}

#[test]
fn periodic_rates() {
    for (rate, hertz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
        let rig = Rig::new();
        rig.write(A, 0x20 | rate);
        rig.write(B, B_24_HOURS | B_PERIODIC);
        rig.read(C);
        for tick in 1..=4u64 {
            let due = (tick * SECOND_NANOS).div_ceil(hertz);
            rig.clock.step_to(due - 1);
            assert!(!rig.high(), "rate {rate}");
            rig.clock.step_to(due);
            assert!(rig.high(), "rate {rate}");
            assert_eq!(rig.read(C) & (C_ANY | B_PERIODIC), C_ANY | B_PERIODIC);
        }
    }
    let rig = Rig::new();
    rig.write(A, 0x20);
    rig.write(B, B_24_HOURS | B_PERIODIC);
    rig.read(C);
    rig.pass(SECOND_NANOS);
    assert!(!rig.high());
}

#[test]
fn missed_periods_are_skipped() {
    let rig = Rig::new();
    rig.write(B, B_24_HOURS | B_PERIODIC);
    rig.pass(10 * SECOND_NANOS);
    rig.read(C);
    assert!(!rig.high());
    let next = rig.clock.next_deadline().unwrap();
    assert!(next > rig.clock.now() && next <= rig.clock.now() + SECOND_NANOS / 1024 + 1);
}

#[test]
fn cmos_holds_the_memory_sizes_and_what_is_written() {
    let rig = Rig::new();
    let word = |index| u16::from_le_bytes([rig.read(index), rig.read(index + 1)]);
    assert_eq!([0x15, 0x17, 0x30, 0x34].map(word), [640, 0xffff, 0xffff, 0xbf00]);
    assert_eq!([0x5b, 0x5c, 0x5d].map(|index| rig.read(index)), [0, 0x40, 1]);
    assert_eq!((rig.read(0x5f), rig.read(D)), (3, 0x80));
    rig.write(0x70, 0x5a);
    assert_eq!(rig.read(0x70), 0x5a);
    rig.write(D, 0);
    assert_eq!(rig.read(D), 0x80);
    rig.write(0x80 | 0x0f, 5);
    assert!(rig.cell.lock().nmi_masked());
    assert_eq!(rig.read(0x0f), 5);
    assert!(!rig.cell.lock().nmi_masked());
    assert_eq!(inb(&mut *rig.cell.lock(), 0), 0xff);
}

#[test]
fn reset_keeps_time_and_ram_and_ends_interrupts() {
    let rig = Rig::new();
    rig.write(0x40, 7);
    rig.write(YEAR, 0x50);
    rig.write(B, B_24_HOURS | B_UPDATE);
    rig.pass(SECOND_NANOS);
    assert!(rig.high());
    rig.cell.lock().reset();
    assert!(!rig.high());
    assert_eq!((rig.read(0x40), rig.read(YEAR), rig.read(B)), (7, 0x50, B_24_HOURS));
}

#[test]
fn the_host_clock_is_utc() {
    let (irq, _) = line(8);
    let config = Config { source: Source::Host, base: 0, ..config() };
    let cell = Rtc::new("rtc", irq, &Clock::new(), Arc::new(Requested::default()), &config);
    let ahead = cell.lock().time() - OffsetDateTime::now_utc();
    assert!(ahead.whole_seconds().abs() <= 1);
}

#[test]
fn impossible_states_are_refused() {
    let rig = Rig::new();
    let good = || Registers { cmos: power_on(&config()), ..Registers::default() };
    let load = |regs: &Registers| rig.cell.lock().load(&Blob::new(1, regs).unwrap());
    assert!(load(&good()).is_ok());
    assert!(load(&Registers { cmos: vec![0; 127], ..good() }).is_err());
    assert!(load(&Registers { phase: SECOND, ..good() }).is_err());
    assert!(load(&Registers { index: 0x80, ..good() }).is_err());
    // Strange but possible.
    for (difference, last_second) in [(i64::MAX, i64::MIN), (i64::MIN, i64::MAX)] {
        let mut regs = Registers { difference, last_second, ..good() };
        regs.cmos[B as usize] = B_ALARM | B_UPDATE | B_PERIODIC;
        load(&regs).unwrap();
        rig.cell.lock().start();
        rig.time();
        rig.write(YEAR, 0x99);
        rig.read(C);
    }
}
