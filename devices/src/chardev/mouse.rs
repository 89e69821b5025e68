//! A serial mouse that speaks the Microsoft protocol, as a front end sees it: the host's mouse
//! moves it, a UART reads it.
//!
//! A movement is four bytes, seven bits each: a byte with bit 6 set that holds the left and right
//! buttons (bits 5 and 4) and the upper two bits of y and x, then the lower six bits of x and of y,
//! and, as three-button mice add, the middle button (bit 5). When the driver raises DTR and RTS,
//! which feed the mouse, it says who it is: `M3`.
//!
//! Moved from any thread, read on the chardev's loop. Lock: a leaf mutex around the bytes that
//! wait. A guest that does not read them makes movements add up: nothing grows.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::port::{Port, Sink};
use super::{CharError, Control, Extra};

/// Options of the msmouse back end: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Msmouse;

/// A movement of the mouse and what its buttons are then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MouseMove {
    /// To the right.
    pub dx: i32,
    /// Down.
    pub dy: i32,
    /// The left button is down.
    pub left: bool,
    /// The middle button is down.
    pub middle: bool,
    /// The right button is down.
    pub right: bool,
}

/// The way to move a serial mouse.
pub struct Mouse {
    port: std::sync::Weak<Port>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Being sent.
    bytes: VecDeque<u8>,
    /// Not sent yet.
    next: Option<MouseMove>,
    powered: bool,
}

impl Mouse {
    /// Moves the mouse. What was not sent yet is added up.
    pub fn move_by(&self, step: MouseMove) {
        {
            let mut state = self.state.lock();
            let before = state.next.unwrap_or_default();
            state.next = Some(MouseMove {
                dx: before.dx.saturating_add(step.dx),
                dy: before.dy.saturating_add(step.dy),
                ..step
            });
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(port) = self.port.upgrade() {
            port.input.notify();
        }
    }

    /// The next bytes for the front end, `room` at most.
    fn take(&self, room: usize) -> Vec<u8> {
        let mut state = self.state.lock();
        if state.bytes.is_empty()
            && let Some(step) = state.next.take()
        {
            let (packet, rest) = packet(step);
            state.bytes.extend(packet);
            state.next = rest;
        }
        let count = room.min(state.bytes.len());
        state.bytes.drain(..count).collect()
    }

    fn power(&self, on: bool) {
        {
            let mut state = self.state.lock();
            if on && !state.powered {
                state.bytes = VecDeque::from(*b"M3");
                state.next = None;
            }
            state.powered = on;
        }
        self.wake();
    }
}

/// The bytes for a movement, and what is left of one that is too long for them.
fn packet(step: MouseMove) -> ([u8; 4], Option<MouseMove>) {
    let part = |whole: i32| i8::try_from(whole.clamp(-128, 127)).unwrap_or(0);
    let (dx, dy) = (part(step.dx), part(step.dy));
    let (x, y) = (dx.cast_unsigned(), dy.cast_unsigned());
    let packet = [
        0x40 | u8::from(step.left) << 5 | u8::from(step.right) << 4 | (y >> 6) << 2 | x >> 6,
        x & 0x3f,
        y & 0x3f,
        u8::from(step.middle) << 5,
    ];
    let rest = MouseMove {
        dx: step.dx.saturating_sub(dx.into()),
        dy: step.dy.saturating_sub(dy.into()),
        ..step
    };
    (packet, Some(rest).filter(|rest| rest.dx != 0 || rest.dy != 0))
}

impl Msmouse {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let mouse = Arc::new(Mouse { port: Arc::downgrade(port), state: Mutex::default() });
        let _ = port.extra.set(Extra::Mouse(mouse.clone()));
        port.opened(Box::new(MouseSink(mouse.clone())));
        port.spawn(move |_, port| async move {
            loop {
                let taker = port.taker();
                let data = match taker.room {
                    0 => Vec::new(),
                    room => mouse.take(room),
                };
                if data.is_empty() {
                    port.input.notified().await;
                } else {
                    taker.deliver(&data);
                }
            }
        });
        Ok(())
    }
}

/// A mouse listens to nothing but its supply.
struct MouseSink(Arc<Mouse>);

impl Sink for MouseSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn control(&mut self, control: Control) {
        if let Control::Modem { dtr, rts } = control {
            self.0.power(dtr && rts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movements_have_seven_bits_each() {
        let step = MouseMove { dx: 1, dy: -1, left: true, middle: true, right: false };
        assert_eq!(packet(step), ([0x6c, 0x01, 0x3f, 0x20], None));
        let step = MouseMove { dx: -128, dy: 64, right: true, ..MouseMove::default() };
        assert_eq!(packet(step), ([0x56, 0x00, 0x00, 0x00], None));
    }

    #[test]
    fn long_movements_take_several() {
        let (first, rest) = packet(MouseMove { dx: 200, ..MouseMove::default() });
        assert_eq!(first, [0x41, 0x3f, 0, 0]);
        assert_eq!(packet(rest.unwrap()), ([0x41, 73 & 0x3f, 0, 0], None));
    }
}
