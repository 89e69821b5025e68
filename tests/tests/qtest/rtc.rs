//! The real-time clock: time, alarm, periodic and update interrupts, CMOS RAM.

use super::*;

const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;

const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const BINARY: u8 = 0x04;
const H24: u8 = 0x02;

const SECOND: Duration = Duration::from_secs(1);

impl Machine {
    /// A machine whose clock begins at `base` and follows virtual time.
    fn at(base: &str) -> Machine {
        Machine::with_irqs(["-rtc", &format!("base={base},clock=vm")])
    }

    fn cmos(&mut self, index: u8) -> u8 {
        self.outb(0x70, index);
        self.inb(0x71)
    }

    fn set_cmos(&mut self, index: u8, value: u8) {
        self.outb(0x70, index);
        self.outb(0x71, value);
    }

    /// Century, year, month, day, hours, minutes, seconds and weekday as the registers show them.
    fn time(&mut self) -> [u8; 8] {
        [0x32, 9, 8, 7, 4, 2, 0, 6].map(|index| self.cmos(index))
    }
}

#[test]
fn time_runs_with_the_virtual_clock() {
    let mut m = Machine::at("2024-02-28T23:59:58");
    assert_eq!(m.time(), [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58, 4]);
    m.step(2 * SECOND - NS);
    assert_eq!(m.time(), [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59, 4]);
    m.step(NS);
    assert_eq!(m.time(), [0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00, 5]);
    m.step(86400 * SECOND);
    assert_eq!(m.time(), [0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00, 6]);
}

#[test]
fn a_date_to_come_is_exact_too() {
    let mut m = Machine::at("2099-12-31T23:59:59");
    assert_eq!(m.time(), [0x20, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59, 5]);
    m.step(SECOND);
    assert_eq!(m.time(), [0x21, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 6]);
}

#[test]
fn the_formats() {
    let mut m = Machine::at("2024-02-28T13:45:59");
    m.set_cmos(B, H24 | BINARY);
    assert_eq!(m.time(), [20, 24, 2, 28, 13, 45, 59, 4]);
    m.set_cmos(B, 0);
    assert_eq!(m.cmos(4), 0x81);
    m.set_cmos(B, BINARY);
    assert_eq!(m.cmos(4), 0x81);
    m.step(11 * 3600 * SECOND);
    assert_eq!(m.cmos(4), 12);
}

#[test]
fn the_update_in_progress_bit_announces_the_next_second() {
    let mut m = Machine::at("2024-02-28");
    assert_eq!(m.cmos(A), 0x26);
    m.step(SECOND - Duration::from_micros(244));
    assert_eq!(m.cmos(A), 0xa6);
    m.step(Duration::from_micros(244));
    assert_eq!(m.cmos(A), 0x26);
}

#[test]
fn the_alarm_interrupts_at_its_second() {
    let mut m = Machine::at("2024-02-28T10:00:00");
    for (index, value) in [(1, 0x05), (3, 0x01), (5, 0x10)] {
        m.set_cmos(index, value);
    }
    m.set_cmos(B, H24 | ALARM);
    m.cmos(C);
    assert_eq!(m.irqs(), []);
    m.step(65 * SECOND - NS);
    assert_eq!(m.irqs(), []);
    m.step(NS);
    assert_eq!(m.irqs(), [(8, true)]);
    // Flags are set whether they interrupt or not.
    assert_eq!(m.cmos(C), 0x80 | ALARM | UPDATE | PERIODIC);
    assert_eq!(m.irqs(), [(8, false)]);
    assert_eq!(m.cmos(C), 0);
    // The same time of the next day, in one step.
    m.step(86400 * SECOND - NS);
    assert_eq!(m.irqs(), []);
    m.step(NS);
    assert_eq!(m.irqs(), [(8, true)]);
}

#[test]
fn alarm_registers_may_match_anything() {
    let mut m = Machine::at("2024-02-28T10:20:30");
    for (index, value) in [(1, 0x15), (3, 0xff), (5, 0xc0)] {
        m.set_cmos(index, value);
    }
    m.set_cmos(B, H24 | ALARM);
    m.cmos(C);
    let start = m.step(Duration::ZERO);
    let mut at = start;
    while m.irqs().is_empty() {
        at = m.q.step_to_timer().unwrap();
    }
    assert_eq!(at - start, 45_000_000_000);
    m.cmos(C);
    m.step(60 * SECOND);
    assert_eq!(m.irqs(), [(8, false), (8, true)]);
}

#[test]
fn the_periodic_interrupt_has_its_rate() {
    let mut m = Machine::at("2024-02-28");
    m.set_cmos(A, 0x26);
    m.set_cmos(B, H24 | PERIODIC);
    m.cmos(C);
    m.irqs();
    // 1024 Hz: the guest acknowledges each.
    let mut count = 0;
    let end = m.step(Duration::ZERO) + 1_000_000_000;
    while m.q.step_to_timer().unwrap() <= end {
        assert_eq!(m.irqs(), [(8, true)]);
        assert_eq!(m.cmos(C) & (0x80 | PERIODIC), 0x80 | PERIODIC);
        assert_eq!(m.irqs(), [(8, false)]);
        count += 1;
    }
    assert_eq!(count, 1024);
    // Not acknowledged, it is raised once.
    m.step(SECOND);
    assert_eq!(m.irqs(), [(8, true)]);
}

#[test]
fn the_update_ended_interrupt_comes_each_second() {
    let mut m = Machine::at("2024-02-28");
    m.step(SECOND / 4);
    m.set_cmos(B, H24 | UPDATE);
    m.cmos(C);
    for _ in 0..3 {
        m.step(SECOND - NS);
        m.step(NS);
        assert_eq!(m.cmos(C), 0x80 | UPDATE | PERIODIC);
        assert_eq!(m.irqs(), [(8, true), (8, false)]);
    }
}

#[test]
fn setting_the_time_is_told() {
    let mut m = Machine::at("2024-02-28T00:00:00");
    m.set_cmos(B, H24 | 0x80);
    m.set_cmos(4, 0x01);
    m.set_cmos(7, 0x27);
    // Time stands still meanwhile.
    m.step(7 * SECOND);
    assert_eq!(m.cmos(0), 0x00);
    m.set_cmos(B, H24);
    assert_eq!(m.time()[..7], [0x20, 0x24, 0x02, 0x27, 0x01, 0x00, 0x00]);
    let event = m.event("RTC_CHANGE");
    assert_eq!(event["data"]["offset"], 3600 - 86400 - 7);
}

#[test]
fn cmos_ram_tells_the_memory_and_survives_a_reset() {
    let mut m = Machine::at("2024-02-28");
    let mut word = |index: u8| u32::from(m.cmos(index)) | u32::from(m.cmos(index + 1)) << 8;
    assert_eq!(word(0x15), 640);
    assert_eq!(word(0x17), 63 << 10);
    assert_eq!(word(0x30), 63 << 10);
    assert_eq!(word(0x34), 48 << 4);
    assert_eq!(m.cmos(0x0d), 0x80);
    m.set_cmos(0x40, 0x5a);
    m.qmp("system_reset");
    m.event("RESET");
    assert_eq!(m.cmos(0x40), 0x5a);
}
