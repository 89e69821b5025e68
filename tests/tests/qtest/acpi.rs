//! The ACPI fixed hardware.

use super::*;

const STATUS: u16 = 0x600;
const ENABLE: u16 = 0x602;
const CONTROL: u16 = 0x604;
const TIMER: u16 = 0x608;
const SMI: u16 = 0xb2;

const TIMER_BIT: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;
const SCI: u32 = 9;

#[test]
fn the_timer_counts_at_its_rate() {
    let mut m = Machine::new([]);
    assert_eq!(m.q.inl(TIMER).unwrap(), 0);
    for second in 1..=4 {
        m.step(Duration::from_secs(1));
        assert_eq!(m.q.inl(TIMER).unwrap(), 3_579_545 * second);
    }
    // 24 bits.
    m.step(Duration::from_secs(1));
    assert_eq!(m.q.inl(TIMER).unwrap(), 3_579_545 * 5 - (1 << 24));
    m.q.command(&format!("outl {TIMER:#x} 0")).unwrap();
    assert_eq!(m.q.inl(TIMER).unwrap(), 3_579_545 * 5 - (1 << 24));
}

#[test]
fn the_timer_interrupts_when_its_top_bit_turns() {
    let mut m = Machine::with_irqs([]);
    m.outb(SMI, 0xf1);
    m.q.outw(ENABLE, TIMER_BIT).unwrap();
    let turn = |n: u64| (n << 23) * 1_000_000_000 / 3_579_545 + 1;
    assert_eq!(m.q.step_to_timer().unwrap(), turn(1));
    assert_eq!(m.irqs(), [(SCI, true)]);
    assert_eq!(m.q.inw(STATUS).unwrap() & TIMER_BIT, TIMER_BIT);
    m.q.outw(STATUS, TIMER_BIT).unwrap();
    assert_eq!(m.irqs(), [(SCI, false)]);
    assert_eq!(m.q.step_to_timer().unwrap(), turn(2));
    assert_eq!(m.irqs(), [(SCI, true)]);
}

#[test]
fn the_power_button() {
    let mut m = Machine::with_irqs([]);
    m.outb(SMI, 0xf1);
    m.q.outw(ENABLE, POWER_BUTTON).unwrap();
    m.qmp("system_powerdown");
    m.event("POWERDOWN");
    m.q.wait_irq(SCI, true).unwrap();
    assert_eq!(m.q.inw(STATUS).unwrap() & POWER_BUTTON, POWER_BUTTON);
    m.q.outw(STATUS, POWER_BUTTON).unwrap();
    assert!(!m.q.irq(SCI));
    assert_eq!(m.q.inw(STATUS).unwrap() & POWER_BUTTON, 0);
}

#[test]
fn acpi_mode_is_switched_by_the_command_port() {
    let mut m = Machine::new([]);
    m.outb(SMI, 0xf0);
    assert_eq!(m.q.inw(CONTROL).unwrap() & 1, 0);
    m.outb(SMI, 0xf1);
    assert_eq!(m.q.inw(CONTROL).unwrap() & 1, 1);
}

#[test]
fn soft_off_ends_the_process() {
    let mut m = Machine::new([]);
    m.q.outw(CONTROL, 1 << 13).unwrap();
    m.event("SHUTDOWN");
    assert_eq!(m.exit_code(), 0);
}

#[test]
fn soft_off_can_stop_instead() {
    let mut m = Machine::new(["-no-shutdown"]);
    m.q.outw(CONTROL, 1 << 13).unwrap();
    m.event("SHUTDOWN");
    m.event("STOP");
    assert_eq!(m.qmp("query-status")["status"], "shutdown");
}
