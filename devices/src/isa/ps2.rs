//! The command sets of a PS/2 keyboard and a PS/2 mouse (IBM PS/2 Technical Reference).
//!
//! Each answers the host's commands into its own bounded queue; [`super::i8042`] passes the bytes
//! on. Part of that device: same threads, same mutex. A hostile guest can fill the queues, no more.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes a device keeps for a guest that does not read: the room of a real keyboard.
pub(super) const QUEUE: usize = 16;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;

/// Appends as much as fits.
fn answer(queue: &mut VecDeque<u8>, bytes: &[u8]) {
    let room = QUEUE.saturating_sub(queue.len());
    queue.extend(bytes.iter().take(room));
}

/// A keyboard.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Keyboard {
    pub(super) queue: VecDeque<u8>,
    /// The command whose parameter comes next; 0 for none.
    awaiting: u8,
    /// Scans keys.
    enabled: bool,
    leds: u8,
    typematic: u8,
    /// 1 to 3.
    scancode_set: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        Keyboard {
            queue: VecDeque::new(),
            awaiting: 0,
            enabled: true,
            leds: 0,
            typematic: 0x2b,
            scancode_set: 2,
        }
    }
}

impl Keyboard {
    /// A byte from the host.
    pub(super) fn write(&mut self, byte: u8) {
        match std::mem::take(&mut self.awaiting) {
            0xed => self.leds = byte & 7,
            0xf0 if byte == 0 => return answer(&mut self.queue, &[ACK, self.scancode_set]),
            0xf0 if byte <= 3 => self.scancode_set = byte,
            0xf0 => return answer(&mut self.queue, &[RESEND]),
            0xf3 => self.typematic = byte & 0x7f,
            _ => return self.command(byte),
        }
        answer(&mut self.queue, &[ACK]);
    }

    fn command(&mut self, command: u8) {
        // A command ends what the keyboard was sending.
        self.queue.clear();
        match command {
            0xed | 0xf0 | 0xf3 => self.awaiting = command,
            0xee => return answer(&mut self.queue, &[0xee]),
            0xf2 => return answer(&mut self.queue, &[ACK, 0xab, 0x83]),
            0xf4 => self.enabled = true,
            0xf5 => *self = Keyboard { enabled: false, ..Keyboard::default() },
            0xf6 => *self = Keyboard::default(),
            // Key types of scan code set 3, for all keys.
            0xf7..=0xfa => {}
            0xff => {
                *self = Keyboard::default();
                return answer(&mut self.queue, &[ACK, SELF_TEST_PASSED]);
            }
            _ => return answer(&mut self.queue, &[RESEND]),
        }
        answer(&mut self.queue, &[ACK]);
    }

    /// Why a loaded state is impossible.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.queue.len() > QUEUE {
            return Err("keyboard queue too long");
        }
        if !matches!(self.awaiting, 0 | 0xed | 0xf0 | 0xf3) {
            return Err("keyboard awaits a parameter of an unknown command");
        }
        if self.leds > 7 || self.typematic > 0x7f || !(1..=3).contains(&self.scancode_set) {
            return Err("keyboard setting out of range");
        }
        Ok(())
    }
}

/// A mouse with three buttons and no wheel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Mouse {
    pub(super) queue: VecDeque<u8>,
    /// The command whose parameter comes next; 0 for none.
    awaiting: u8,
    /// Reports movement by itself.
    enabled: bool,
    /// Reports only when asked.
    remote: bool,
    /// Echoes everything but the commands that end this mode.
    wrap: bool,
    scaling: bool,
    /// 0 to 3: 1, 2, 4 or 8 counts for each millimetre.
    resolution: u8,
    /// Reports a second.
    rate: u8,
}

impl Default for Mouse {
    fn default() -> Self {
        Mouse {
            queue: VecDeque::new(),
            awaiting: 0,
            enabled: false,
            remote: false,
            wrap: false,
            scaling: false,
            resolution: 2,
            rate: 100,
        }
    }
}

impl Mouse {
    /// A byte from the host.
    pub(super) fn write(&mut self, byte: u8) {
        if self.wrap && !matches!(byte, 0xec | 0xff) {
            return answer(&mut self.queue, &[byte]);
        }
        match std::mem::take(&mut self.awaiting) {
            0xe8 if byte <= 3 => self.resolution = byte,
            0xe8 => return answer(&mut self.queue, &[RESEND]),
            0xf3 => self.rate = byte,
            _ => return self.command(byte),
        }
        answer(&mut self.queue, &[ACK]);
    }

    fn command(&mut self, command: u8) {
        self.queue.clear();
        match command {
            0xe6 => self.scaling = false,
            0xe7 => self.scaling = true,
            0xe8 | 0xf3 => self.awaiting = command,
            0xe9 => {
                let status = self.status();
                return answer(&mut self.queue, &[ACK, status, self.resolution, self.rate]);
            }
            0xea => self.remote = false,
            // A report: no button, no movement.
            0xeb => return answer(&mut self.queue, &[ACK, 0x08, 0, 0]),
            0xec => self.wrap = false,
            0xee => self.wrap = true,
            0xf0 => self.remote = true,
            0xf2 => return answer(&mut self.queue, &[ACK, 0]),
            0xf4 => self.enabled = true,
            0xf5 => self.enabled = false,
            0xf6 => *self = Mouse::default(),
            0xff => {
                *self = Mouse::default();
                return answer(&mut self.queue, &[ACK, SELF_TEST_PASSED, 0]);
            }
            _ => return answer(&mut self.queue, &[RESEND]),
        }
        answer(&mut self.queue, &[ACK]);
    }

    fn status(&self) -> u8 {
        u8::from(self.remote) << 6 | u8::from(self.enabled) << 5 | u8::from(self.scaling) << 4
    }

    /// Why a loaded state is impossible.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.queue.len() > QUEUE {
            return Err("mouse queue too long");
        }
        if !matches!(self.awaiting, 0 | 0xe8 | 0xf3) || self.resolution > 3 {
            return Err("mouse setting out of range");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyboard(bytes: &[u8]) -> Vec<u8> {
        let mut keyboard = Keyboard::default();
        let mut all = Vec::new();
        for byte in bytes {
            keyboard.write(*byte);
            all.extend(keyboard.queue.drain(..));
        }
        all
    }

    fn mouse(bytes: &[u8]) -> Vec<u8> {
        let mut mouse = Mouse::default();
        let mut all = Vec::new();
        for byte in bytes {
            mouse.write(*byte);
            all.extend(mouse.queue.drain(..));
        }
        all
    }

    #[test]
    fn the_keyboard_answers_the_probe() {
        assert_eq!(keyboard(&[0xff]), [0xfa, 0xaa]);
        assert_eq!(keyboard(&[0xf2]), [0xfa, 0xab, 0x83]);
        assert_eq!(keyboard(&[0xee]), [0xee]);
        assert_eq!(keyboard(&[0xed, 7, 0xf4]), [0xfa, 0xfa, 0xfa]);
        assert_eq!(keyboard(&[0xf0, 3, 0xf0, 0]), [0xfa, 0xfa, 0xfa, 0xfa, 3]);
        assert_eq!(keyboard(&[0xf0, 9]), [0xfa, 0xfe]);
        assert_eq!(keyboard(&[0x55]), [0xfe]);
    }

    #[test]
    fn the_mouse_answers_the_probe() {
        assert_eq!(mouse(&[0xff]), [0xfa, 0xaa, 0]);
        assert_eq!(mouse(&[0xf2]), [0xfa, 0]);
        assert_eq!(mouse(&[0xe8, 3, 0xf3, 60, 0xe9]), [0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0, 3, 60]);
        assert_eq!(mouse(&[0xee, 0x12, 0xf2, 0xec]), [0xfa, 0x12, 0xf2, 0xfa]);
    }

    #[test]
    fn queues_are_bounded() {
        let mut mouse = Mouse::default();
        mouse.write(0xee);
        (0..100).for_each(|_| mouse.write(1));
        assert_eq!(mouse.queue.len(), QUEUE);
        assert_eq!(mouse.check(), Ok(()));
    }
}
