//! Keyboard controller, keyboard and mouse.

use super::*;

const DATA: u16 = 0x60;
const COMMAND: u16 = 0x64;

impl Machine {
    /// Everything the controller has to say.
    fn answers(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        while self.inb(COMMAND) & 0x01 != 0 {
            answers.push(self.inb(DATA));
        }
        answers
    }
}

#[test]
fn self_test_and_interface_tests() {
    let mut m = Machine::with_irqs([]);
    assert_eq!(m.inb(COMMAND) & 0x01, 0);
    for (command, answer) in [(0xaa, 0x55), (0xab, 0x00), (0xa9, 0x00)] {
        m.outb(COMMAND, command);
        assert_eq!(m.answers(), [answer]);
        assert_eq!(m.irqs(), [(1, true), (1, false)]);
    }
    assert_eq!(m.inb(COMMAND) & 0x04, 0x04);
}

#[test]
fn the_command_byte() {
    let mut m = Machine::with_irqs([]);
    m.outb(COMMAND, 0x60);
    m.outb(DATA, 0x44);
    m.outb(COMMAND, 0x20);
    assert_eq!(m.answers(), [0x44]);
    assert_eq!(m.irqs(), []);
    m.outb(COMMAND, 0xa7);
    m.outb(COMMAND, 0x20);
    assert_eq!(m.answers(), [0x64]);
}

#[test]
fn the_keyboard_answers_a_reset() {
    let mut m = Machine::with_irqs([]);
    m.outb(DATA, 0xff);
    assert_eq!(m.answers(), [0xfa, 0xaa]);
    assert_eq!(m.irqs(), [(1, true), (1, false), (1, true), (1, false)]);
    // Its identity, translated to scan code set 1 and as it is.
    m.outb(DATA, 0xf2);
    assert_eq!(m.answers(), [0xfa, 0xab, 0x41]);
    m.outb(COMMAND, 0x60);
    m.outb(DATA, 0x01);
    m.outb(DATA, 0xf2);
    assert_eq!(m.answers(), [0xfa, 0xab, 0x83]);
}

#[test]
fn the_mouse_answers_a_reset() {
    let mut m = Machine::with_irqs([]);
    m.outb(COMMAND, 0xa8);
    m.outb(COMMAND, 0xd4);
    m.outb(DATA, 0xff);
    assert_eq!(m.inb(COMMAND) & 0x21, 0x21);
    assert_eq!(m.irqs(), [(12, true)]);
    assert_eq!(m.answers(), [0xfa, 0xaa, 0x00]);
    assert!(!m.q.irq(12));
}

#[test]
fn answers_nobody_reads_are_bounded() {
    let mut m = Machine::new([]);
    for _ in 0..200 {
        m.outb(DATA, 0xff);
        m.outb(COMMAND, 0xaa);
    }
    assert!(m.answers().len() < 64);
}
