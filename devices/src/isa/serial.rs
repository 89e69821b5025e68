//! The 16550A serial port (National Semiconductor PC16550D data sheet).
//!
//! Region 0: 8 byte-wide registers. COM1..COM4 are at 0x3f8, 0x2f8, 0x3e8 and 0x2e8 with ISA
//! interrupts 4, 3, 4 and 3.
//!
//! Sending takes no time of its own: a byte is handed to the back end at once. Only while the
//! guest sends by interrupt, bytes are collected until the FIFO is full, another register is
//! touched or [`TX_DELAY`] has passed, so that a burst costs one write on the host and one
//! interrupt. When the back end does not take everything, the transmitter stays busy until
//! [`Serial::writable`]: nothing is lost.
//!
//! Runs on vCPU threads (registers) and on the I/O thread (timer, back end), under the device's
//! mutex. A hostile guest can fill two FIFOs of 16 bytes and arm one timer; it can make the host
//! do one write for each byte it sends.

use std::sync::{Arc, Weak};

use resources::clock::{Clock, Timer};
use resources::device::{At, Device, DeviceCell, read_bytes, write_bytes};
use resources::irq::Irq;
use resources::request::{Request, Requests, WakeReason};
use resources::state::{Blob, StateError, invalid};

use self::front::Front;
use self::state::{Received, Registers};
use super::{Attached, CharBackend, NullBackend};
use crate::chardev::{CharError, Chardev};

/// Size of the register region in bytes.
pub const SIZE: u64 = 8;

/// Base port and ISA interrupt of COM1 to COM4.
pub const COM: [(u64, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// How long a byte sent by interrupt may wait for company, in nanoseconds: about the time that
/// one character takes on the fastest line.
pub const TX_DELAY: u64 = 80_000;

/// Depth of each FIFO.
const DEPTH: usize = 16;

/// Input clock in Hz after the fixed division by 16.
const BASE_BAUD: u64 = 115_200;

/// Interrupt enable register: received data, transmitter empty, line status, modem status.
const IER_RDI: u8 = 0x01;
const IER_THRI: u8 = 0x02;
const IER_RLSI: u8 = 0x04;
const IER_MSI: u8 = 0x08;
const IER_KEPT: u8 = 0x0f;

/// Interrupt identification, in falling priority.
const IIR_RLSI: u8 = 0x06;
const IIR_RDI: u8 = 0x04;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_THRI: u8 = 0x02;
const IIR_MSI: u8 = 0x00;
const IIR_NONE: u8 = 0x01;
const IIR_FIFO: u8 = 0xc0;

/// FIFO control register.
const FCR_ENABLE: u8 = 0x01;
const FCR_CLEAR_RX: u8 = 0x02;
const FCR_CLEAR_TX: u8 = 0x04;
const FCR_KEPT: u8 = 0xc9;

/// Line control register: divisor latch access, break.
const LCR_DLAB: u8 = 0x80;
const LCR_BREAK: u8 = 0x40;

/// Modem control register.
const MCR_DTR: u8 = 0x01;
const MCR_RTS: u8 = 0x02;
const MCR_OUT1: u8 = 0x04;
const MCR_OUT2: u8 = 0x08;
const MCR_LOOP: u8 = 0x10;
const MCR_KEPT: u8 = 0x1f;

/// Line status register.
const LSR_DR: u8 = 0x01;
const LSR_OE: u8 = 0x02;
const LSR_BI: u8 = 0x10;
const LSR_THRE: u8 = 0x20;
const LSR_TEMT: u8 = 0x40;
const LSR_FIFO_ERROR: u8 = 0x80;

/// Modem status register.
const MSR_DELTAS: u8 = 0x0f;
const MSR_TERI: u8 = 0x04;
const MSR_CTS: u8 = 0x10;
const MSR_DSR: u8 = 0x20;
const MSR_RI: u8 = 0x40;
const MSR_DCD: u8 = 0x80;

/// The device.
pub struct Serial {
    irq: Irq,
    timer: Timer,
    backend: Box<dyn CharBackend>,
    running: bool,

    regs: Registers,
    /// Virtual times at which the transmitter sends and the receiver times out.
    tx_due: Option<u64>,
    rx_due: Option<u64>,
    /// When to look at the modem's lines.
    lines_due: Option<u64>,
    /// When the timer will fire.
    armed: Option<u64>,

    /// The modem's lines when last looked at, as in the modem status register.
    lines: u8,
    told: line::Told,
    /// Where a sleeping guest is woken up by input.
    wakes: Option<Requests>,
}

impl Serial {
    /// A port that interrupts through `irq` and talks to `backend`.
    pub fn new(
        name: &str,
        irq: Irq,
        clock: &Arc<Clock>,
        backend: Box<dyn CharBackend>,
    ) -> Arc<DeviceCell<Serial>> {
        DeviceCell::new_cyclic(name, |weak: &Weak<DeviceCell<Serial>>| {
            let weak = weak.clone();
            let timer = clock.timer(move || {
                if let Some(cell) = weak.upgrade() {
                    cell.lock().timer_fired();
                }
            });
            Serial {
                irq,
                timer,
                backend,
                running: false,
                regs: Registers::default(),
                tx_due: None,
                rx_due: None,
                lines_due: None,
                armed: None,
                lines: line::ALL_ON,
                told: line::Told::default(),
                wakes: None,
            }
        })
    }

    /// Replaces the back end. What the old one has not taken goes to the new one.
    pub fn set_backend(&mut self, backend: Box<dyn CharBackend>) {
        self.backend = backend;
        self.meet_line();
        self.flush();
        self.backend.accept_input();
    }

    /// How many bytes [`receive`](Self::receive) takes now without an overrun.
    pub fn can_receive(&self) -> usize {
        // In loopback the receiver is cut off from the line.
        if !self.running || self.regs.mcr & MCR_LOOP != 0 {
            return 0;
        }
        self.rx_depth().saturating_sub(self.regs.rx.len())
    }

    /// Characters from the line. Those that find the receiver full are lost, as the guest sees in
    /// the line status register.
    pub fn receive(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(Received { byte: *byte, is_break: false });
        }
        self.interrupt_if_running();
        if let Some(requests) = &self.wakes {
            requests.request(Request::Wakeup(WakeReason::Other));
        }
    }

    /// A break condition on the line.
    pub fn receive_break(&mut self) {
        self.push(Received { byte: 0, is_break: true });
        self.interrupt_if_running();
    }

    /// The back end has room again.
    pub fn writable(&mut self) {
        if self.running && !self.regs.tx.is_empty() {
            self.flush();
        }
    }

    fn fifo_on(&self) -> bool {
        self.regs.fcr & FCR_ENABLE != 0
    }

    fn rx_depth(&self) -> usize {
        if self.fifo_on() { DEPTH } else { 1 }
    }

    fn trigger(&self) -> usize {
        match (self.fifo_on(), self.regs.fcr >> 6) {
            (true, 1) => 4,
            (true, 2) => 8,
            (true, 3) => 14,
            _ => 1,
        }
    }

    fn push(&mut self, received: Received) {
        if self.regs.rx.len() < self.rx_depth() {
            self.regs.rx.push_back(received);
        } else {
            self.regs.overrun = true;
            if !self.fifo_on() {
                // Without a FIFO the new character replaces the old one.
                self.regs.rx.clear();
                self.regs.rx.push_back(received);
                self.regs.break_seen = false;
            }
        }
        self.restart_rx_timeout();
    }

    /// The time-out runs anew from each arrival and each read.
    fn restart_rx_timeout(&mut self) {
        self.regs.rx_timeout = false;
        let waiting =
            self.fifo_on() && !self.regs.rx.is_empty() && self.regs.rx.len() < self.trigger();
        self.rx_due = waiting.then(|| self.timer.now().saturating_add(self.four_characters()));
        self.schedule();
    }

    /// The time of four characters of ten bits in nanoseconds. Slow lines are not imitated.
    fn four_characters(&self) -> u64 {
        let bit = 1_000_000_000 / BASE_BAUD;
        bit.saturating_mul(40).saturating_mul(u64::from(self.regs.divisor.clamp(1, 12)))
    }

    /// Arms the timer for what is due first. A timer that is armed too early is left alone.
    fn schedule(&mut self) {
        if let Some(due) = [self.tx_due, self.rx_due, self.lines_due].into_iter().flatten().min()
            && self.armed.is_none_or(|armed| armed > due)
        {
            self.armed = Some(due);
            self.timer.arm(due);
        }
    }

    fn timer_fired(&mut self) {
        self.armed = None;
        if !self.running {
            return;
        }
        let now = self.timer.now();
        if self.rx_due.is_some_and(|due| due <= now) {
            self.rx_due = None;
            self.regs.rx_timeout = true;
            self.update_irq();
        }
        if self.tx_due.is_some_and(|due| due <= now) {
            self.flush();
        }
        if self.lines_due.is_some_and(|due| due <= now) {
            self.look_at_lines();
            self.update_irq();
        }
        self.schedule();
    }

    fn send(&mut self, byte: u8) {
        if self.regs.mcr & MCR_LOOP != 0 {
            self.push(Received { byte, is_break: false });
            self.regs.tx_emptied = true;
            return self.update_irq();
        }
        self.regs.tx_emptied = false;
        self.update_irq();
        // A guest that does not wait for the transmitter loses its newest characters.
        let depth = if self.fifo_on() { DEPTH } else { 1 };
        if self.regs.tx.len() < depth {
            self.regs.tx.push_back(byte);
        }
        if self.fifo_on() && self.regs.ier & IER_THRI != 0 && self.regs.tx.len() < DEPTH {
            if self.tx_due.is_none() {
                self.tx_due = Some(self.timer.now().saturating_add(TX_DELAY));
                self.schedule();
            }
        } else {
            self.flush();
        }
    }

    /// Hands what is in the transmitter to the back end.
    fn flush(&mut self) {
        self.tx_due = None;
        if self.regs.tx.is_empty() {
            return;
        }
        let taken = self.backend.write(self.regs.tx.make_contiguous()).min(self.regs.tx.len());
        self.regs.tx.drain(..taken);
        if self.regs.tx.is_empty() {
            self.regs.tx_emptied = true;
            self.update_irq();
        }
    }

    /// Sends what still waits for company, before the guest can notice.
    fn settle(&mut self) {
        if self.tx_due.is_some() {
            self.flush();
        }
    }

    fn head_break(&self) -> bool {
        !self.regs.break_seen && self.regs.rx.front().is_some_and(|head| head.is_break)
    }

    fn line_status(&self) -> u8 {
        let mut lsr = 0;
        if !self.regs.rx.is_empty() {
            lsr |= LSR_DR;
        }
        if self.regs.overrun {
            lsr |= LSR_OE;
        }
        if self.head_break() {
            lsr |= LSR_BI;
        }
        if self.regs.tx.is_empty() {
            lsr |= LSR_THRE | LSR_TEMT;
        }
        let waiting = self.regs.rx.iter().skip(usize::from(self.regs.break_seen));
        if self.fifo_on() && waiting.into_iter().any(|received| received.is_break) {
            lsr |= LSR_FIFO_ERROR;
        }
        lsr
    }

    /// The modem lines; in loopback our own outputs.
    fn modem_lines(&self) -> u8 {
        if self.regs.mcr & MCR_LOOP == 0 {
            return self.lines;
        }
        [(MCR_DTR, MSR_DSR), (MCR_RTS, MSR_CTS), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)]
            .into_iter()
            .filter(|(output, _)| self.regs.mcr & output != 0)
            .fold(0, |lines, (_, input)| lines | input)
    }

    fn set_modem_control(&mut self, value: u8) {
        let before = self.modem_lines();
        let was_loop = self.regs.mcr & MCR_LOOP != 0;
        self.regs.mcr = value & MCR_KEPT;
        let after = self.modem_lines();
        self.note_change(before, after);
        self.tell_line();
        if was_loop && self.regs.mcr & MCR_LOOP == 0 {
            self.accept_input();
        }
    }

    fn accept_input(&mut self) {
        if self.can_receive() > 0 {
            self.backend.accept_input();
        }
    }

    /// The most urgent interrupt that is enabled.
    fn pending(&self) -> u8 {
        let enabled = |bit| self.regs.ier & bit != 0;
        if enabled(IER_RLSI) && (self.regs.overrun || self.head_break()) {
            IIR_RLSI
        } else if enabled(IER_RDI) && self.regs.rx.len() >= self.trigger() {
            IIR_RDI
        } else if enabled(IER_RDI) && self.regs.rx_timeout {
            IIR_TIMEOUT
        } else if enabled(IER_THRI) && self.regs.tx_emptied {
            IIR_THRI
        } else if enabled(IER_MSI) && self.regs.modem_deltas != 0 {
            IIR_MSI
        } else {
            IIR_NONE
        }
    }

    /// On a PC the OUT2 pin gates the interrupt. In loopback the bit still counts, so that
    /// diagnostics that test the interrupt there find it.
    fn irq_level(&self) -> bool {
        self.regs.mcr & MCR_OUT2 != 0 && self.pending() != IIR_NONE
    }

    /// A stopped machine sees what came from outside once it runs again.
    fn interrupt_if_running(&self) {
        if self.running {
            self.update_irq();
        }
    }

    fn update_irq(&self) {
        self.irq.set(self.irq_level());
    }

    fn read_data(&mut self) -> u8 {
        let Some(head) = self.regs.rx.pop_front() else { return 0 };
        self.regs.break_seen = false;
        self.restart_rx_timeout();
        if self.regs.rx.is_empty() {
            self.accept_input();
        }
        head.byte
    }

    fn set_fifo_control(&mut self, value: u8) {
        let toggled = (value ^ self.regs.fcr) & FCR_ENABLE != 0;
        let clears = if toggled { FCR_CLEAR_RX | FCR_CLEAR_TX } else { value };
        // The other bits count only together with the enable bit.
        self.regs.fcr = if value & FCR_ENABLE != 0 { value & FCR_KEPT } else { 0 };
        if clears & FCR_CLEAR_RX != 0 {
            self.regs.rx.clear();
            self.regs.break_seen = false;
            self.accept_input();
        }
        if clears & FCR_CLEAR_TX != 0 && !self.regs.tx.is_empty() {
            self.regs.tx.clear();
            self.regs.tx_emptied = true;
        }
        self.restart_rx_timeout();
    }

    fn set_interrupt_enable(&mut self, value: u8) {
        let value = value & IER_KEPT;
        if value & !self.regs.ier & IER_THRI != 0 && self.regs.tx.is_empty() {
            self.regs.tx_emptied = true;
        }
        let newly = value & !self.regs.ier & IER_MSI != 0;
        self.regs.ier = value;
        if newly {
            self.look_later();
        }
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        self.settle();
        let latch = self.regs.lcr & LCR_DLAB != 0;
        let [low, high] = self.regs.divisor.to_le_bytes();
        let value = match offset {
            0 if latch => low,
            0 => self.read_data(),
            1 if latch => high,
            1 => self.regs.ier,
            2 => {
                let pending = self.pending();
                if pending == IIR_THRI {
                    self.regs.tx_emptied = false;
                }
                pending | if self.fifo_on() { IIR_FIFO } else { 0 }
            }
            3 => self.regs.lcr,
            4 => self.regs.mcr,
            5 => {
                let status = self.line_status();
                self.regs.overrun = false;
                self.regs.break_seen |= status & LSR_BI != 0;
                status
            }
            6 => {
                self.look_at_lines();
                self.modem_lines() | std::mem::take(&mut self.regs.modem_deltas)
            }
            7 => self.regs.scratch,
            _ => return 0xff,
        };
        self.update_irq();
        value
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        let latch = self.regs.lcr & LCR_DLAB != 0;
        if offset == 0 && !latch {
            return self.send(value);
        }
        self.settle();
        let [low, high] = self.regs.divisor.to_le_bytes();
        match offset {
            0 => self.regs.divisor = u16::from_le_bytes([value, high]),
            1 if latch => self.regs.divisor = u16::from_le_bytes([low, value]),
            1 => self.set_interrupt_enable(value),
            2 => self.set_fifo_control(value),
            3 => {
                self.regs.lcr = value;
                self.tell_line();
            }
            4 => self.set_modem_control(value),
            7 => self.regs.scratch = value,
            // The status registers are for factory tests only.
            _ => return,
        }
        self.update_irq();
    }
}

/// Joins a port and a chardev, in place of the port's back end so far.
///
/// # Errors
/// When the chardev has a front end already.
pub fn connect(port: &Arc<DeviceCell<Serial>>, chardev: Arc<Chardev>) -> Result<(), CharError> {
    chardev.attach(Arc::new(Front(Arc::downgrade(port))))?;
    port.lock().set_backend(Box::new(Attached(chardev)));
    Ok(())
}

impl Device for Serial {
    fn read(&mut self, at: At, data: &mut [u8]) {
        read_bytes(at, data, |offset| self.read_register(offset));
    }

    fn write(&mut self, at: At, data: &[u8]) {
        write_bytes(at, data, |offset, value| self.write_register(offset, value));
    }

    fn reset(&mut self) {
        self.replace(Registers::default());
        self.update_irq();
    }

    fn start(&mut self) {
        self.running = true;
        self.tell_line();
        self.look_later();
        self.flush();
        if !self.regs.rx_timeout {
            self.restart_rx_timeout();
        }
        self.update_irq();
        self.accept_input();
    }

    fn stop(&mut self) {
        self.settle();
        self.running = false;
    }

    fn unplug(&mut self) {
        // Nobody will ask again: it is the back end's to send.
        self.backend.push(self.regs.tx.make_contiguous());
        self.regs.tx.clear();
        self.backend = Box::new(NullBackend);
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: Registers = blob.parse(1, &[])?;
        if regs.rx.len() > DEPTH || regs.tx.len() > DEPTH {
            return Err(invalid("serial FIFO longer than 16 characters"));
        }
        if regs.ier & !IER_KEPT != 0 || regs.fcr & !FCR_KEPT != 0 || regs.mcr & !MCR_KEPT != 0 {
            return Err(invalid("serial control register with unknown bits"));
        }
        if regs.modem_deltas & !MSR_DELTAS != 0 {
            return Err(invalid("serial modem status with unknown bits"));
        }
        self.replace(regs);
        self.irq.import(self.irq_level());
        Ok(())
    }
}

impl Serial {
    fn replace(&mut self, regs: Registers) {
        self.regs = regs;
        // `start` begins to wait anew.
        self.tx_due = None;
        self.rx_due = None;
        self.lines_due = None;
        self.armed = None;
        self.timer.cancel();
    }
}

mod class;
mod front;
mod line;
mod state;

#[cfg(test)]
mod tests;
