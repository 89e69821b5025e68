//! Every way to ask for a reset.

use super::*;

/// Leaves marks in devices, resets by writing ports, and looks whether the marks went.
fn resets_by(writes: &[(u16, u8)]) {
    let mut m = Machine::with_irqs([]);
    let marks = [(0x3ff, 0x5a), (0x80, 0x77), (0xb3, 0x11)];
    for (port, value) in marks {
        m.outb(port, value);
        assert_eq!(m.inb(port), value);
    }
    m.outb(0x3f9, 0x02);
    assert!(m.q.irq(4));
    for (port, value) in writes {
        m.outb(*port, *value);
    }
    m.event("RESET");
    for (port, _) in marks {
        assert_eq!(m.inb(port), 0, "{port:#x}");
    }
    m.q.wait_irq(4, false).unwrap();
    assert_eq!(m.qmp("query-status")["status"], "running");
}

#[test]
fn port_92() {
    resets_by(&[(0x92, 0x03)]);
}

#[test]
fn port_cf9() {
    resets_by(&[(0xcf9, 0x02), (0xcf9, 0x06)]);
}

#[test]
fn keyboard_controller_pulse() {
    resets_by(&[(0x64, 0xfe)]);
}

#[test]
fn keyboard_controller_output_port() {
    resets_by(&[(0x64, 0xd1), (0x60, 0x02)]);
}

#[test]
fn what_does_not_ask_does_not_reset() {
    let mut m = Machine::new([]);
    m.outb(0x80, 0x77);
    for (port, value) in [(0x92, 0x02), (0xcf9, 0x02), (0x64, 0xff), (0x64, 0xd1), (0x60, 0x03)] {
        m.outb(port, value);
    }
    m.qmp("query-status");
    assert_eq!(m.inb(0x80), 0x77);
    assert_eq!(m.inb(0x92) & 0x03, 0x02);
}

#[test]
fn can_end_the_process_instead() {
    let mut m = Machine::new(["-no-reboot"]);
    m.outb(0xcf9, 0x06);
    m.event("SHUTDOWN");
    assert_eq!(m.exit_code(), 0);
}

#[test]
fn many_in_a_row() {
    let mut m = Machine::new([]);
    for round in 1..=50 {
        m.outb(0x80, round);
        m.outb(0x92, 0x01);
        m.event("RESET");
        assert_eq!(m.inb(0x80), 0);
    }
}
