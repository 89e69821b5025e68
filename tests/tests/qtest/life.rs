//! Stopping, going on, and saved state, seen from the registers.

use super::*;

#[test]
fn a_stopped_machine_interrupts_only_when_it_goes_on() {
    let mut m = Machine::with_irqs([]);
    m.outb(0x3f9, 0x01);
    m.qmp("stop");
    m.event("STOP");
    m.vm.console.type_text("x").unwrap();
    m.step(Duration::from_millis(10));
    assert_eq!((m.inb(0x3fd), m.irqs()), (0x60, vec![]));
    m.qmp("cont");
    m.event("RESUME");
    m.q.wait_irq(4, true).unwrap();
}

/// What can be read without changing anything, on every device.
fn registers(m: &mut Machine) -> Vec<u64> {
    let mut seen = Vec::new();
    let quiet = [0x64, 0x80, 0x92, 0xb2, 0xb3, 0xcf9, 0x3f9, 0x3fb, 0x3fc, 0x3fd, 0x3ff];
    seen.extend(quiet.map(|port| u64::from(m.inb(port))));
    for port in (0x600..0x610).step_by(4) {
        seen.push(m.q.inl(port).unwrap().into());
    }
    for index in (0..128).filter(|index| *index != 0x0c) {
        m.outb(0x70, index);
        seen.push(m.inb(0x71).into());
    }
    seen.push(m.q.readq(0x1000).unwrap());
    seen.push(m.step(Duration::ZERO));
    seen
}

#[test]
fn registers_survive_save_and_restore() {
    let mut m = Machine::with_irqs(["-rtc", "base=2024-02-28T12:34:56,clock=vm"]);
    m.step(Duration::from_millis(1234));
    for (port, value) in [
        (0x80, 0x77),
        (0xb2, 0xf1),
        (0xb3, 0x21),
        (0xcf9, 0x02),
        (0x3ff, 0x5a),
        (0x3fb, 0x1b),
        (0x3fc, 0x0b),
        (0x3f9, 0x02),
        // A keyboard's answer that waits.
        (0x60, 0xf2),
    ] {
        m.outb(port, value);
    }
    m.q.outw(0x602, 0x101).unwrap();
    for (index, value) in [(0x0a, 0x2d), (0x0b, 0x42), (0x03, 0x12), (0x40, 0x99)] {
        m.outb(0x70, 0x0c);
        m.inb(0x71);
        m.outb(0x70, index);
        m.outb(0x71, value);
    }
    m.q.writeq(0x1000, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(m.irqs(), [(4, true), (1, true)]);
    let before = registers(&mut m);
    for _ in 0..3 {
        m.qmp("x-pulse-save-restore");
    }
    assert_eq!(registers(&mut m), before);
    // The lines are as they were, and what was pending comes in its order.
    assert!(m.q.irq(4) && m.q.irq(1));
    assert_eq!([m.inb(0x60), m.inb(0x60), m.inb(0x60)], [0xfa, 0xab, 0x41]);
    assert!(!m.q.irq(1));
    // The clock's timer is armed again: 8 Hz.
    m.irqs();
    m.step(Duration::from_millis(126));
    assert_eq!(m.irqs(), [(8, true)]);
}

#[test]
fn time_goes_on_where_it_was() {
    let mut m = Machine::new([]);
    m.step(Duration::from_secs(3));
    m.qmp("stop");
    m.qmp("cont");
    assert_eq!(m.step(Duration::ZERO), 3_000_000_000);
    m.qmp("x-pulse-save-restore");
    assert_eq!(m.step(Duration::ZERO), 3_000_000_000);
    assert_eq!(m.q.inl(0x608).unwrap(), 3_579_545 * 3);
}
