//! The i8042 keyboard controller with a PS/2 keyboard and mouse behind it (IBM PS/2 Technical
//! Reference, "Keyboard/Auxiliary Device Controller").
//!
//! Region 0: 1 byte, port 0x60 (data). Region 1: 1 byte, port 0x64 (status and commands).
//! ISA interrupts 1 (keyboard) and 12 (mouse).
//!
//! Everything answers at once: the input buffer is never full. KVM has no A20 gate, so the
//! output port keeps that bit but address line 20 is always on.
//!
//! Runs on vCPU threads under the device's mutex. A hostile guest can fill two queues of
//! 16 bytes, toggle two interrupt lines and ask for resets.

use std::collections::VecDeque;
use std::sync::Arc;

use resources::class::Class;
use resources::device::{At, Device, DeviceCell};
use resources::guest_error;
use resources::irq::Irq;
use resources::request::{Request, Requests};
use resources::state::{Blob, StateError, invalid};

use crate::class::Ctx;

use self::state::{Output, Registers};

/// Port of region [`DATA`].
pub const DATA_PORT: u64 = 0x60;
/// Port of region [`COMMAND`].
pub const COMMAND_PORT: u64 = 0x64;
/// The data register's region.
pub const DATA: u16 = 0;
/// The command and status register's region.
pub const COMMAND: u16 = 1;

/// Status register.
const STATUS_OUTPUT: u8 = 0x01;
const STATUS_SYSTEM: u8 = 0x04;
const STATUS_COMMAND: u8 = 0x08;
const STATUS_UNLOCKED: u8 = 0x10;
const STATUS_MOUSE: u8 = 0x20;

/// Command byte.
const MODE_KEYBOARD_INT: u8 = 0x01;
const MODE_MOUSE_INT: u8 = 0x02;
const MODE_SYSTEM: u8 = 0x04;
const MODE_KEYBOARD_OFF: u8 = 0x10;
const MODE_MOUSE_OFF: u8 = 0x20;
const MODE_TRANSLATE: u8 = 0x40;

/// Output port.
const PORT_NO_RESET: u8 = 0x01;
const PORT_A20: u8 = 0x02;
const PORT_KEYBOARD_INT: u8 = 0x10;
const PORT_MOUSE_INT: u8 = 0x20;

/// Answers of the controller that wait for the output buffer.
const REPLIES: usize = 4;

/// The device.
pub struct I8042 {
    keyboard_irq: Irq,
    mouse_irq: Irq,
    requests: Requests,
    regs: Registers,
}

impl I8042 {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("i8042", "ISA", "Keyboard and mouse controller");

    /// A controller that raises `keyboard_irq` and `mouse_irq`.
    pub fn new(
        name: &str,
        keyboard_irq: Irq,
        mouse_irq: Irq,
        requests: Requests,
    ) -> Arc<DeviceCell<I8042>> {
        let regs = Registers::default();
        DeviceCell::new(name, I8042 { keyboard_irq, mouse_irq, requests, regs })
    }

    fn levels(&self) -> (bool, bool) {
        let on = |bit| self.regs.mode & bit != 0;
        match self.regs.output {
            Some(Output { mouse: false, .. }) => (on(MODE_KEYBOARD_INT), false),
            Some(Output { mouse: true, .. }) => (false, on(MODE_MOUSE_INT)),
            None => (false, false),
        }
    }

    fn update_irqs(&self) {
        let (keyboard, mouse) = self.levels();
        self.keyboard_irq.set(keyboard);
        self.mouse_irq.set(mouse);
    }

    /// Moves the next byte into the output buffer if that is empty.
    fn refill(&mut self) {
        let regs = &mut self.regs;
        if regs.output.is_none() {
            let on = |bit| regs.mode & bit == 0;
            regs.output = if let Some(reply) = regs.replies.pop_front() {
                Some(reply)
            } else if on(MODE_KEYBOARD_OFF)
                && let Some(byte) = regs.keyboard.queue.pop_front()
            {
                let translate = regs.mode & MODE_TRANSLATE != 0;
                let byte = if translate { translated(byte) } else { byte };
                Some(Output { byte, mouse: false })
            } else if on(MODE_MOUSE_OFF) {
                regs.mouse.queue.pop_front().map(|byte| Output { byte, mouse: true })
            } else {
                None
            };
        }
        self.update_irqs();
    }

    fn reply_as(&mut self, byte: u8, mouse: bool) {
        if self.regs.replies.len() < REPLIES {
            self.regs.replies.push_back(Output { byte, mouse });
        }
    }

    fn reply(&mut self, byte: u8) {
        self.reply_as(byte, false);
    }

    fn status(&self) -> u8 {
        let mut status = STATUS_UNLOCKED;
        if let Some(output) = self.regs.output {
            status |= STATUS_OUTPUT | if output.mouse { STATUS_MOUSE } else { 0 };
        }
        if self.regs.mode & MODE_SYSTEM != 0 {
            status |= STATUS_SYSTEM;
        }
        if self.regs.wrote_command {
            status |= STATUS_COMMAND;
        }
        status
    }

    fn read_data(&mut self) -> u8 {
        if let Some(output) = self.regs.output.take() {
            self.regs.last = output.byte;
            // The lines fall before the next byte raises them: they interrupt by their edge.
            self.update_irqs();
            self.refill();
        }
        self.regs.last
    }

    fn set_output_port(&mut self, value: u8) {
        self.regs.a20 = value & PORT_A20 != 0;
        if value & PORT_NO_RESET == 0 {
            self.requests.request(Request::Reset);
        }
    }

    fn output_port(&self) -> u8 {
        let (keyboard, mouse) = self.levels();
        let bit = |on, bit| if on { bit } else { 0 };
        PORT_NO_RESET
            | bit(self.regs.a20, PORT_A20)
            | bit(keyboard, PORT_KEYBOARD_INT)
            | bit(mouse, PORT_MOUSE_INT)
    }

    fn command(&mut self, command: u8) {
        self.regs.wrote_command = true;
        self.regs.awaiting = 0;
        match command {
            0x20 => self.reply(self.regs.mode),
            0x60 | 0xd1..=0xd4 => self.regs.awaiting = command,
            0xa7 => self.regs.mode |= MODE_MOUSE_OFF,
            0xa8 => self.regs.mode &= !MODE_MOUSE_OFF,
            // Interface tests: no error.
            0xa9 | 0xab => self.reply(0),
            // Self-test: passed.
            0xaa => {
                self.regs.mode |= MODE_SYSTEM;
                self.reply(0x55);
            }
            0xad => self.regs.mode |= MODE_KEYBOARD_OFF,
            0xae => self.regs.mode &= !MODE_KEYBOARD_OFF,
            // Input port: keyboard not locked.
            0xc0 => self.reply(0x80),
            0xd0 => self.reply(self.output_port()),
            0xdd => self.regs.a20 = false,
            0xdf => self.regs.a20 = true,
            // Pulses the low output lines that are zero here; the lowest is the reset line.
            0xf0..=0xff => {
                if command & PORT_NO_RESET == 0 {
                    self.requests.request(Request::Reset);
                }
            }
            _ => guest_error!("i8042", "unknown controller command {command:#04x}"),
        }
        self.refill();
    }

    fn write_data(&mut self, value: u8) {
        self.regs.wrote_command = false;
        match std::mem::take(&mut self.regs.awaiting) {
            0x60 => self.regs.mode = value,
            0xd1 => self.set_output_port(value),
            0xd2 => self.reply(value),
            0xd3 => self.reply_as(value, true),
            0xd4 => {
                self.regs.mode &= !MODE_MOUSE_OFF;
                self.regs.mouse.write(value);
            }
            _ => {
                self.regs.mode &= !MODE_KEYBOARD_OFF;
                self.regs.keyboard.write(value);
            }
        }
        self.refill();
    }
}

/// Scan code set 2 to set 1, as far as the keyboard's answers are concerned.
fn translated(byte: u8) -> u8 {
    match byte {
        0x01 => 0x43,
        0x02 => 0x41,
        0x03 => 0x3f,
        0x83 => 0x41,
        _ => byte,
    }
}

impl Device for I8042 {
    fn read(&mut self, at: At, data: &mut [u8]) {
        let Some(byte) = data.first_mut() else { return };
        match at.region {
            DATA => *byte = self.read_data(),
            COMMAND => *byte = self.status(),
            _ => {}
        }
    }

    fn write(&mut self, at: At, data: &[u8]) {
        let Some(value) = data.first() else { return };
        match at.region {
            DATA => self.write_data(*value),
            COMMAND => self.command(*value),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.regs = Registers::default();
        self.update_irqs();
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: Registers = blob.parse(1, &[])?;
        if regs.replies.len() > REPLIES {
            return Err(invalid("i8042 reply queue too long"));
        }
        if !matches!(regs.awaiting, 0 | 0x60 | 0xd1..=0xd4) {
            return Err(invalid("i8042 awaits a parameter of an unknown command"));
        }
        regs.keyboard.check().map_err(invalid)?;
        regs.mouse.check().map_err(invalid)?;
        self.regs = regs;
        let (keyboard, mouse) = self.levels();
        self.keyboard_irq.import(keyboard);
        self.mouse_irq.import(mouse);
        Ok(())
    }
}

mod state {
    use super::*;
    use crate::isa::ps2::{Keyboard, Mouse};
    use serde::{Deserialize, Serialize};

    /// A byte for the guest and where it comes from.
    #[derive(Debug, Clone, Copy, Serialize, Deserialize)]
    pub(super) struct Output {
        pub(super) byte: u8,
        pub(super) mouse: bool,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        /// The command byte.
        pub(super) mode: u8,
        /// The command whose parameter comes next; 0 for none.
        pub(super) awaiting: u8,
        /// The guest's last write was a command.
        pub(super) wrote_command: bool,
        pub(super) a20: bool,
        /// The output buffer.
        pub(super) output: Option<Output>,
        /// What the data port reads as while the output buffer is empty.
        pub(super) last: u8,
        pub(super) replies: VecDeque<Output>,
        pub(super) keyboard: Keyboard,
        pub(super) mouse: Mouse,
    }

    impl Default for Registers {
        /// As firmware leaves it: keyboard with interrupt and translation.
        fn default() -> Self {
            Registers {
                mode: MODE_KEYBOARD_INT | MODE_MOUSE_INT | MODE_SYSTEM | MODE_TRANSLATE,
                awaiting: 0,
                wrote_command: false,
                a20: true,
                output: None,
                last: 0,
                replies: VecDeque::new(),
                keyboard: Keyboard::default(),
                mouse: Mouse::default(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Requested, line};
    use resources::hv::fake::{Call, Fake};

    struct Rig {
        cell: Arc<DeviceCell<I8042>>,
        keyboard: Arc<Fake>,
        mouse: Arc<Fake>,
        requests: Arc<Requested>,
    }

    impl Rig {
        fn new() -> Rig {
            let ((irq1, keyboard), (irq12, mouse)) = (line(1), line(12));
            let requests = Arc::new(Requested::default());
            let cell = I8042::new("i8042", irq1, irq12, requests.clone());
            Rig { cell, keyboard, mouse, requests }
        }

        fn read(&self, region: u16) -> u8 {
            let mut data = [0xff];
            self.cell.lock().read(At { region, offset: 0 }, &mut data);
            data[0]
        }

        fn write(&self, region: u16, value: u8) {
            self.cell.lock().write(At { region, offset: 0 }, &[value]);
        }

        fn command(&self, command: u8) -> Vec<u8> {
            self.write(COMMAND, command);
            self.drain()
        }

        fn drain(&self) -> Vec<u8> {
            let mut all = Vec::new();
            while self.read(COMMAND) & STATUS_OUTPUT != 0 {
                all.push(self.read(DATA));
            }
            all
        }
    }

    #[test]
    fn self_test_and_interface_tests_pass() {
        let rig = Rig::new();
        assert_eq!(rig.command(0xaa), [0x55]);
        assert_eq!(rig.command(0xab), [0]);
        assert_eq!(rig.command(0xa9), [0]);
        assert_eq!(rig.read(COMMAND), STATUS_UNLOCKED | STATUS_SYSTEM | STATUS_COMMAND);
    }

    #[test]
    fn the_command_byte_reads_back() {
        let rig = Rig::new();
        assert_eq!(rig.command(0x20), [0x47]);
        rig.command(0x60);
        rig.write(DATA, 0x34);
        assert_eq!(rig.command(0x20), [0x34]);
        rig.command(0xa8);
        rig.command(0xae);
        assert_eq!(rig.command(0x20), [0x04]);
        rig.command(0xa7);
        rig.command(0xad);
        assert_eq!(rig.command(0x20), [0x34]);
    }

    #[test]
    fn the_keyboard_identifies_itself_with_and_without_translation() {
        let rig = Rig::new();
        rig.write(DATA, 0xf2);
        assert_eq!(rig.drain(), [0xfa, 0xab, 0x41]);
        rig.command(0x60);
        rig.write(DATA, 0x05);
        rig.write(DATA, 0xf2);
        assert_eq!(rig.drain(), [0xfa, 0xab, 0x83]);
    }

    #[test]
    fn each_byte_makes_an_edge() {
        let rig = Rig::new();
        rig.write(DATA, 0xff);
        assert_eq!((rig.read(DATA), rig.read(DATA)), (0xfa, 0xaa));
        let edges = [true, false, true, false].map(|high| Call::Line(1, high));
        assert_eq!(rig.keyboard.take_calls(), edges);
        assert_eq!(rig.read(DATA), 0xaa, "an empty buffer repeats the last byte");
    }

    #[test]
    fn the_mouse_answers_on_its_own_interrupt() {
        let rig = Rig::new();
        rig.command(0xd4);
        rig.write(DATA, 0xf2);
        assert!(rig.mouse.line(12) && !rig.keyboard.line(1));
        assert_eq!(rig.read(COMMAND) & STATUS_MOUSE, STATUS_MOUSE);
        assert_eq!(rig.drain(), [0xfa, 0]);
        rig.command(0xd3);
        rig.write(DATA, 0x5a);
        assert!(rig.mouse.line(12));
        assert_eq!(rig.drain(), [0x5a]);
    }

    #[test]
    fn a_disabled_keyboard_keeps_its_bytes() {
        let rig = Rig::new();
        rig.write(DATA, 0xf2);
        rig.write(COMMAND, 0xad);
        assert_eq!(rig.drain(), [0xfa]);
        assert_eq!(rig.command(0xae), [0xab, 0x41]);
    }

    #[test]
    fn the_reset_line_by_pulse_and_by_output_port() {
        let rig = Rig::new();
        rig.command(0xff);
        assert_eq!(rig.requests.take(), []);
        rig.command(0xfe);
        assert_eq!(rig.requests.take(), [Request::Reset]);
        rig.command(0xd1);
        rig.write(DATA, 0x01);
        assert_eq!(rig.requests.take(), []);
        assert_eq!(rig.command(0xd0), [0x01]);
        rig.command(0xd1);
        rig.write(DATA, 0x02);
        assert_eq!(rig.requests.take(), [Request::Reset]);
    }

    #[test]
    fn a_guest_that_never_reads_fills_nothing() {
        let rig = Rig::new();
        for _ in 0..100 {
            rig.write(COMMAND, 0xaa);
        }
        assert_eq!(rig.drain().len(), REPLIES + 1);
    }
}
