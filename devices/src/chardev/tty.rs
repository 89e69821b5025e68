//! A serial line of the host (`/dev/ttyS0`): bytes, and with them the speed, format, breaks and
//! modem lines that the front end asks for.
//!
//! Opened by the main thread, served on the chardev's loop; the front end sets the line from its
//! own thread. The device at the other end can send anything, or hold up output for as long as it
//! likes: then output waits. What the line was set to before is put back at the end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::termios::{
    ControlModes, InputModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::inband::{self, Inband, Meaning};
use super::port::{Port, Sink};
use super::stream;
use super::{CharError, Control, Line, ModemLines, Parity, Size, ioctls, open_path, winsize};

/// Options of the serial back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tty {
    /// The device. Something that is no terminal works as far as it can.
    pub device: PathBuf,
}

/// The line until the front end says otherwise.
const INITIAL: Line =
    Line { speed: 115_200, parity: Parity::None, data_bits: 8, two_stop_bits: false };

impl Tty {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let fd = open_path(port, &self.device, OFlags::RDWR)?;
        let theirs = tcgetattr(&fd).ok();
        let mut marks = theirs.is_some().then(Marks::default);
        let mut sink = TtySink { fd: fd.clone(), theirs };
        sink.control(Control::Line(INITIAL));
        port.opened(Box::new(sink));
        port.spawn(move |local, port| async move {
            let Ok(stream) = local.watch(fd) else { return port.closed() };
            let read = |fd: &OwnedFd, buf: &mut [u8]| {
                let on_break = || port.deliver_break();
                inband::read(marks.as_mut(), buf, on_break, |buf| stream::read(fd, buf))
            };
            let keep = async || std::future::pending().await;
            let end = stream::pump(&local, &port, &stream, &stream, read, keep).await;
            tracing::debug!(label = port.label, ?end, "the serial line is gone");
            port.closed();
        });
        Ok(())
    }
}

struct TtySink {
    fd: Arc<OwnedFd>,
    /// The settings to put back; `None` where it is no terminal.
    theirs: Option<Termios>,
}

impl Sink for TtySink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.fd, data)?)
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        Some(self.fd.clone())
    }

    fn control(&mut self, control: Control) {
        if self.theirs.is_none() {
            return;
        }
        let done = match control {
            Control::Line(line) => set_line(&self.fd, line),
            Control::Break(on) => ioctls::set_break(&self.fd, on),
            Control::Modem { dtr, rts } => ioctls::set_modem(&self.fd, dtr, rts),
        };
        if let Err(error) = done {
            tracing::debug!("{control:?}: {error}");
        }
    }

    fn modem_lines(&self) -> Option<ModemLines> {
        self.theirs.as_ref().and_then(|_| ioctls::modem_lines(&self.fd).ok())
    }

    fn size(&self) -> Option<Size> {
        winsize::of(&self.fd)
    }
}

impl Drop for TtySink {
    fn drop(&mut self) {
        if let Some(theirs) = &self.theirs {
            let _ = tcsetattr(&self.fd, OptionalActions::Now, theirs);
        }
    }
}

/// Sets a line for raw bytes, with breaks marked in the input.
fn set_line(fd: &OwnedFd, line: Line) -> io::Result<()> {
    let mut settings = tcgetattr(fd)?;
    settings.make_raw();
    settings.input_modes.remove(InputModes::IGNBRK | InputModes::BRKINT | InputModes::IXOFF);
    settings.input_modes |= InputModes::PARMRK;
    let format = ControlModes::CSIZE
        | ControlModes::CSTOPB
        | ControlModes::PARENB
        | ControlModes::PARODD
        | ControlModes::CRTSCTS;
    settings.control_modes.remove(format);
    settings.control_modes |= ControlModes::CREAD | ControlModes::CLOCAL;
    settings.control_modes |= match line.data_bits {
        5 => ControlModes::CS5,
        6 => ControlModes::CS6,
        7 => ControlModes::CS7,
        _ => ControlModes::CS8,
    };
    settings.control_modes |= match line.parity {
        Parity::None => ControlModes::empty(),
        Parity::Even => ControlModes::PARENB,
        Parity::Odd => ControlModes::PARENB | ControlModes::PARODD,
    };
    settings.control_modes.set(ControlModes::CSTOPB, line.two_stop_bits);
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    settings.set_speed(line.speed)?;
    tcsetattr(fd, OptionalActions::Now, &settings)?;
    Ok(())
}

/// Takes the marks of the kernel (`PARMRK`) out of the input: `ff 00 00` is a break, `ff ff` the
/// byte `ff`, and `ff 00 x` a byte x with an error.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Marks {
    #[default]
    Data,
    Mark,
    Error,
}

impl Inband for Marks {
    fn next(&mut self, byte: u8) -> Meaning {
        let (state, meaning) = match (*self, byte) {
            (Marks::Data, 0xff) => (Marks::Mark, Meaning::Command),
            (Marks::Mark, 0) => (Marks::Error, Meaning::Command),
            (Marks::Error, 0) => (Marks::Data, Meaning::Break),
            _ => (Marks::Data, Meaning::Data),
        };
        *self = state;
        meaning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_out_however_they_are_cut() {
        let input = b"a\xff\xffb\xff\0\0c\xff\0d\0";
        for chunk in 1..=input.len() {
            let (mut marks, mut breaks, mut out) = (Marks::default(), 0, Vec::new());
            for part in input.chunks(chunk) {
                let mut buf = part.to_vec();
                let kept = marks.strip(&mut buf, || breaks += 1);
                out.extend_from_slice(&buf[..kept]);
            }
            assert_eq!((out.as_slice(), breaks), (&b"a\xffbcd\0"[..], 1));
        }
    }
}
