use super::*;
use crate::chardev::{Control, Line, ModemLines, Parity};
use crate::testing::{TestBackend, inb, line, outb};
use resources::hv::fake::{Call, Fake};

struct Rig {
    cell: Arc<DeviceCell<Serial>>,
    backend: TestBackend,
    fake: Arc<Fake>,
    clock: Arc<Clock>,
}

const FIFO_TRIGGER_8: u8 = 0x81;

impl Rig {
    fn new() -> Rig {
        let (irq, fake) = line(4);
        let (clock, backend) = (Clock::new(), TestBackend::new());
        let cell = Serial::new("serial0", irq, &clock, Box::new(backend.clone()));
        cell.lock().start();
        Rig { cell, backend, fake, clock }
    }

    fn read(&self, offset: u64) -> u8 {
        inb(&mut *self.cell.lock(), offset)
    }

    fn write(&self, offset: u64, value: u8) {
        outb(&mut *self.cell.lock(), offset, value);
    }

    fn receive(&self, bytes: &[u8]) {
        self.cell.lock().receive(bytes);
    }

    fn step(&self, nanos: u64) {
        self.clock.step_to(self.clock.now() + nanos);
    }

    fn high(&self) -> bool {
        self.fake.line(4)
    }
}

#[test]
fn power_on_registers() {
    let rig = Rig::new();
    assert_eq!(rig.read(1), 0);
    assert_eq!(rig.read(2), 0x01);
    assert_eq!(rig.read(3), 0);
    assert_eq!(rig.read(5), 0x60);
    assert_eq!(rig.read(6), 0xb0);
    assert!(!rig.high());
}

#[test]
fn registers_keep_only_their_bits() {
    let rig = Rig::new();
    rig.write(1, 0xff);
    assert_eq!(rig.read(1), 0x0f);
    rig.write(4, 0xef);
    assert_eq!(rig.read(4), 0x0f);
    rig.write(7, 0xa5);
    assert_eq!(rig.read(7), 0xa5);
    rig.write(3, 0x80);
    rig.write(0, 1);
    rig.write(1, 2);
    assert_eq!((rig.read(0), rig.read(1)), (1, 2));
    rig.write(3, 0x03);
    assert_eq!(rig.read(1), 0x0f);
}

#[test]
fn a_16550a_is_recognised_by_its_fifo_bits() {
    let rig = Rig::new();
    rig.write(2, 0x01);
    assert_eq!(rig.read(2), 0xc1);
    rig.write(2, 0x00);
    assert_eq!(rig.read(2), 0x01);
}

#[test]
fn a_polled_byte_goes_out_at_once() {
    let rig = Rig::new();
    rig.write(0, b'a');
    assert_eq!(rig.backend.take(), b"a");
    assert_eq!(rig.read(5), 0x60);
}

#[test]
fn enabling_the_transmitter_interrupt_raises_it_and_reading_iir_clears_it() {
    let rig = Rig::new();
    for _ in 0..2 {
        rig.write(1, IER_THRI);
        assert!(rig.high());
        assert_eq!(rig.read(2), IIR_THRI);
        assert!(!rig.high());
        assert_eq!(rig.read(2), IIR_NONE);
        rig.write(1, 0);
    }
}

#[test]
fn a_burst_by_interrupt_is_one_write_and_one_interrupt() {
    let rig = Rig::new();
    rig.write(2, FIFO_TRIGGER_8);
    rig.write(1, IER_THRI);
    assert_eq!(rig.read(2), IIR_FIFO | IIR_THRI);
    rig.fake.take_calls();
    for byte in b"0123456789abcdef" {
        rig.write(0, *byte);
    }
    assert_eq!(rig.backend.take(), b"0123456789abcdef");
    assert_eq!(rig.backend.0.lock().writes, 1);
    assert_eq!(rig.fake.take_calls(), [Call::Line(4, true)]);
}

#[test]
fn a_short_burst_goes_out_after_the_delay_or_at_the_next_look() {
    let rig = Rig::new();
    rig.write(2, FIFO_TRIGGER_8);
    rig.write(1, IER_THRI);
    rig.read(2);
    rig.write(0, b'x');
    assert!(!rig.high());
    rig.step(TX_DELAY);
    assert_eq!(rig.backend.take(), b"x");
    assert!(rig.high());
    rig.write(0, b'y');
    assert_eq!(rig.read(5) & LSR_THRE, LSR_THRE);
    assert_eq!(rig.backend.take(), b"y");
    rig.write(0, b'z');
    rig.cell.lock().stop();
    assert_eq!(rig.backend.take(), b"z");
}

#[test]
fn a_full_back_end_keeps_the_transmitter_busy_and_loses_nothing() {
    let rig = Rig::new();
    rig.write(2, FIFO_TRIGGER_8);
    rig.write(1, IER_THRI);
    rig.read(2);
    rig.backend.0.lock().room = 3;
    for byte in b"hello" {
        rig.write(0, *byte);
    }
    assert_eq!(rig.read(5) & (LSR_THRE | LSR_TEMT), 0);
    assert!(!rig.high());
    rig.backend.0.lock().room = 100;
    rig.cell.lock().writable();
    assert_eq!(rig.backend.take(), b"hello");
    assert!(rig.high());
    assert_eq!(rig.read(5), 0x60);
}

#[test]
fn busy_output_survives_save_and_load() {
    let rig = Rig::new();
    rig.backend.0.lock().room = 0;
    rig.write(0, b'q');
    rig.cell.lock().stop();
    let blob = rig.cell.lock().save().unwrap();
    let other = Rig::new();
    other.cell.lock().stop();
    other.cell.lock().load(&blob).unwrap();
    assert_eq!(other.backend.take(), b"");
    other.cell.lock().start();
    assert_eq!(other.backend.take(), b"q");
}

#[test]
fn received_data_interrupts_at_the_trigger_level_or_after_a_time_out() {
    let rig = Rig::new();
    rig.write(2, FIFO_TRIGGER_8);
    rig.write(1, IER_RDI);
    rig.receive(b"1234567");
    assert!(!rig.high());
    rig.receive(b"8");
    assert_eq!(rig.read(2), IIR_FIFO | IIR_RDI);
    assert_eq!(rig.read(0), b'1');
    assert!(!rig.high(), "below the trigger level");
    rig.step(5_000_000);
    assert!(rig.high());
    assert_eq!(rig.read(2), IIR_FIFO | IIR_TIMEOUT);
    for byte in b"2345678" {
        assert_eq!(rig.read(5) & LSR_DR, LSR_DR);
        assert_eq!(rig.read(0), *byte);
    }
    assert!(!rig.high());
    rig.step(5_000_000);
    assert!(!rig.high());
    assert_eq!(rig.read(0), 0);
}

#[test]
fn input_is_taken_up_to_the_fifo_and_asked_for_again_when_it_is_empty() {
    let rig = Rig::new();
    assert_eq!(rig.cell.lock().can_receive(), 1);
    rig.write(2, 0x01);
    assert_eq!(rig.cell.lock().can_receive(), 16);
    rig.receive(&[7; 16]);
    assert_eq!(rig.cell.lock().can_receive(), 0);
    let before = rig.backend.0.lock().accepts;
    for _ in 0..16 {
        assert_eq!(rig.backend.0.lock().accepts, before);
        rig.read(0);
    }
    assert_eq!(rig.backend.0.lock().accepts, before + 1);
    rig.cell.lock().stop();
    assert_eq!(rig.cell.lock().can_receive(), 0);
}

#[test]
fn an_overrun_is_reported_once() {
    let rig = Rig::new();
    rig.write(2, 0x01);
    rig.write(1, IER_RLSI);
    rig.receive(&[1; 17]);
    assert!(rig.high());
    assert_eq!(rig.read(2), IIR_FIFO | IIR_RLSI);
    assert_eq!(rig.read(5) & LSR_OE, LSR_OE);
    assert_eq!(rig.read(5) & LSR_OE, 0);
    assert!(!rig.high());
}

#[test]
fn a_break_is_reported_when_it_reaches_the_head() {
    let rig = Rig::new();
    rig.write(2, 0x01);
    rig.receive(b"a");
    rig.cell.lock().receive_break();
    assert_eq!(rig.read(5), 0x60 | LSR_DR | LSR_FIFO_ERROR);
    assert_eq!(rig.read(0), b'a');
    assert_eq!(rig.read(5), 0x60 | LSR_DR | LSR_BI | LSR_FIFO_ERROR);
    assert_eq!(rig.read(5), 0x60 | LSR_DR);
    assert_eq!(rig.read(0), 0);
    assert_eq!(rig.read(5), 0x60);
}

#[test]
fn loopback_joins_outputs_to_inputs() {
    let rig = Rig::new();
    rig.write(4, MCR_LOOP | 0x0a);
    assert_eq!(rig.read(6) & 0xf0, 0x90);
    rig.write(4, MCR_LOOP | MCR_OUT1);
    rig.read(6);
    rig.write(4, MCR_LOOP);
    assert_eq!(rig.read(6), MSR_TERI);
    rig.write(0, 0x5a);
    assert_eq!(rig.cell.lock().can_receive(), 0);
    assert_eq!(rig.read(0), 0x5a);
    assert_eq!(rig.backend.take(), b"");
}

#[test]
fn modem_changes_interrupt_and_out2_gates() {
    let rig = Rig::new();
    rig.write(1, IER_MSI);
    rig.write(4, MCR_LOOP | MCR_OUT2);
    assert!(rig.high());
    assert_eq!(rig.read(2), IIR_MSI);
    rig.write(4, MCR_LOOP);
    assert!(!rig.high());
    rig.write(4, MCR_LOOP | MCR_OUT2);
    assert!(rig.high());
    rig.read(6);
    assert!(!rig.high());
}

#[test]
fn clearing_the_fifos_empties_them() {
    let rig = Rig::new();
    rig.write(2, 0x01);
    rig.receive(b"abc");
    rig.backend.0.lock().room = 0;
    rig.write(0, b'x');
    rig.write(2, 0x07);
    assert_eq!(rig.read(5), 0x60);
}

#[test]
fn a_loaded_state_must_be_possible() {
    let rig = Rig::new();
    let load = |regs: &Registers| rig.cell.lock().load(&Blob::new(1, regs).unwrap());
    assert!(load(&Registers::default()).is_ok());
    assert!(load(&Registers { tx: [0; 17].into(), ..Default::default() }).is_err());
    assert!(load(&Registers { ier: 0x10, ..Default::default() }).is_err());
}

#[test]
fn load_takes_over_the_interrupt_without_an_edge() {
    let rig = Rig::new();
    rig.write(1, IER_THRI);
    let blob = rig.cell.lock().save().unwrap();
    let other = Rig::new();
    other.cell.lock().load(&blob).unwrap();
    assert_eq!(other.fake.take_calls(), []);
    assert_eq!(other.read(2), IIR_THRI);
    assert_eq!(other.fake.take_calls(), [Call::Line(4, false)]);
}

fn take_controls(rig: &Rig) -> Vec<Control> {
    std::mem::take(&mut rig.backend.0.lock().controls)
}

#[test]
fn the_line_follows_the_registers() {
    let rig = Rig::new();
    let line = Line { speed: 9600, parity: Parity::None, data_bits: 5, two_stop_bits: false };
    let quiet = Control::Modem { dtr: false, rts: false };
    assert_eq!(take_controls(&rig), [Control::Line(line), quiet]);
    rig.write(3, 0x80);
    rig.write(0, 3);
    rig.write(1, 0);
    assert_eq!(take_controls(&rig), []);
    rig.write(3, 0x1f);
    let line = Line { speed: 38400, parity: Parity::Even, data_bits: 8, two_stop_bits: true };
    assert_eq!(take_controls(&rig), [Control::Line(line)]);
    rig.write(3, 0x1f);
    assert_eq!(take_controls(&rig), []);
    rig.write(3, 0x4a);
    let line = Line { parity: Parity::Odd, data_bits: 7, two_stop_bits: false, ..line };
    assert_eq!(take_controls(&rig), [Control::Line(line), Control::Break(true)]);
    rig.write(3, 0x0a);
    rig.write(4, 0x0b);
    let modem = Control::Modem { dtr: true, rts: true };
    assert_eq!(take_controls(&rig), [Control::Break(false), modem]);
    // In loopback nothing goes out; a divisor of zero is no speed.
    rig.write(4, 0x1b);
    assert_eq!(take_controls(&rig), [quiet]);
    rig.write(3, 0x80);
    rig.write(0, 0);
    rig.write(3, 0x03);
    assert_eq!(take_controls(&rig), []);
}

#[test]
fn the_modems_lines_are_followed() {
    let rig = Rig::new();
    let lines = |cts, ri| {
        rig.backend.0.lock().lines = Some(ModemLines { cts, ri, ..ModemLines::default() });
    };
    // All were on before the modem was there.
    lines(true, false);
    assert_eq!(rig.read(6), 0x1a);
    assert_eq!(rig.read(6), 0x10);
    rig.write(1, 0x08);
    assert!(!rig.high());
    lines(false, true);
    rig.step(10_000_000);
    assert!(rig.high());
    assert_eq!(rig.read(2), 0x00);
    assert_eq!(rig.read(6), 0x41);
    assert!(!rig.high());
    // The ring indicator interrupts when it ends.
    lines(false, false);
    rig.step(10_000_000);
    assert!(rig.high());
    assert_eq!(rig.read(6), 0x04);
    // Unwatched, they are looked at when the guest reads.
    rig.write(1, 0);
    rig.step(10_000_000);
    lines(true, false);
    rig.step(1_000_000_000);
    assert_eq!(rig.read(6), 0x11);
}

#[test]
fn what_is_not_sent_when_the_port_goes_is_the_back_ends() {
    let rig = Rig::new();
    rig.write(2, 0x01);
    rig.backend.0.lock().room = 2;
    b"abcde".iter().for_each(|byte| rig.write(0, *byte));
    rig.cell.lock().unplug();
    rig.cell.lock().unplug();
    assert_eq!((&*rig.backend.take(), &*rig.backend.0.lock().pushed), (&b"ab"[..], &b"cde"[..]));
}

#[test]
fn input_wakes_the_guest_where_it_may() {
    let rig = Rig::new();
    let requests = Arc::new(crate::testing::Requested::default());
    rig.cell.lock().receive(b"x");
    rig.cell.lock().wakes = Some(requests.clone());
    assert_eq!(requests.take(), []);
    rig.cell.lock().receive(b"y");
    assert_eq!(requests.take(), [Request::Wakeup(WakeReason::Other)]);
}
