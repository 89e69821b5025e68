//! COM1, and a second port by `-device`.

use super::*;

const COM1: u16 = 0x3f8;
const DATA: u16 = COM1;
const IER: u16 = COM1 + 1;
const IIR: u16 = COM1 + 2;
const FCR: u16 = COM1 + 2;
const LCR: u16 = COM1 + 3;
const MCR: u16 = COM1 + 4;
const LSR: u16 = COM1 + 5;
const MSR: u16 = COM1 + 6;
const SCRATCH: u16 = COM1 + 7;

const OUT2: u8 = 0x08;
const LOOP: u8 = 0x10;

#[test]
fn registers_at_power_on() {
    let mut m = Machine::new([]);
    let registers: Vec<u8> = (0..8).map(|offset| m.inb(COM1 + offset)).collect();
    assert_eq!(registers[1..6], [0x00, 0x01, 0x00, OUT2, 0x60]);
    assert_eq!(registers[7], 0);
    m.outb(SCRATCH, 0xa5);
    m.outb(FCR, 0x01);
    m.outb(LCR, 0x80);
    m.outb(DATA, 0x34);
    m.outb(IER, 0x12);
    assert_eq!((m.inb(DATA), m.inb(IER)), (0x34, 0x12));
    m.outb(LCR, 0x03);
    assert_eq!((m.inb(IER), m.inb(SCRATCH), m.inb(IIR)), (0, 0xa5, 0xc1));
}

#[test]
fn loopback() {
    let mut m = Machine::with_irqs([]);
    m.outb(LCR, 0x03);
    m.outb(MCR, LOOP);
    assert_eq!(m.inb(MSR) & 0xf0, 0x00);
    m.outb(MCR, LOOP | 0x0f);
    assert_eq!(m.inb(MSR) & 0xf0, 0xf0);
    m.outb(DATA, b'x');
    assert_eq!(m.inb(LSR) & 0x61, 0x61);
    assert_eq!(m.irqs(), []);
    m.outb(IER, 0x01);
    assert_eq!(m.irqs(), [(4, true)]);
    assert_eq!(m.inb(IIR) & 0x0f, 0x04);
    assert_eq!(m.inb(DATA), b'x');
    assert_eq!(m.irqs(), [(4, false)]);
    assert_eq!(m.inb(LSR) & 0x01, 0);
    // Nothing of it went out.
    assert_eq!(m.vm.console.unread(), "");
}

#[test]
fn output_goes_to_the_console() {
    let mut m = Machine::with_irqs([]);
    for byte in b"hello\n" {
        assert_eq!(m.inb(LSR) & 0x20, 0x20);
        m.outb(DATA, *byte);
    }
    m.vm.console.expect_line("hello", SOON).unwrap();
    // Empty again: an interrupt as soon as that is wanted, cleared by reading its reason.
    m.outb(IER, 0x02);
    assert_eq!(m.irqs(), [(4, true)]);
    assert_eq!(m.inb(IIR) & 0x0f, 0x02);
    assert_eq!(m.irqs(), [(4, false)]);
    m.outb(DATA, b'!');
    m.step(Duration::from_millis(1));
    assert_eq!(m.irqs(), [(4, true)]);
    m.vm.console.expect("!", SOON).unwrap();
}

#[test]
fn input_comes_from_the_console() {
    let mut m = Machine::with_irqs([]);
    m.outb(FCR, 0x01);
    m.outb(IER, 0x01);
    m.vm.console.type_text("abc").unwrap();
    m.q.wait_irq(4, true).unwrap();
    for byte in b"abc" {
        while m.inb(LSR) & 0x01 == 0 {
            std::thread::yield_now();
        }
        assert_eq!(m.inb(DATA), *byte);
    }
    assert!(!m.q.irq(4));
}

#[test]
fn more_input_than_the_fifo_holds_waits_outside() {
    let mut m = Machine::new([]);
    m.outb(FCR, 0x01);
    let text: String = ('a'..='z').cycle().take(1000).collect();
    m.vm.console.type_text(&text).unwrap();
    for byte in text.bytes() {
        let mut status = m.inb(LSR);
        while status & 0x01 == 0 {
            std::thread::yield_now();
            status = m.inb(LSR);
        }
        assert_eq!(status & 0x02, 0, "an overrun");
        assert_eq!(m.inb(DATA), byte);
    }
}

#[test]
fn a_port_by_device() {
    let mut m = Machine::with_irqs([
        "-chardev",
        "null,id=c",
        "-device",
        "isa-serial,chardev=c,iobase=0x100,irq=5",
    ]);
    assert_eq!(m.inb(0x105), 0x60);
    m.outb(0x101, 0x02);
    assert_eq!(m.irqs(), [(5, true)]);
}
