//! What the host's serial and parallel ports do by ioctl (tty_ioctl(4), linux/ppdev.h).
//!
//! Any thread, no lock. Each is one call that does not block.
#![expect(unsafe_code, reason = "rustix has no wrapper for these requests")]

use std::ffi::c_int;
use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Getter, NoArg, Opcode, Setter, ioctl};

use super::ModemLines;

const TIOCMGET: Opcode = 0x5415;
const TIOCMSET: Opcode = 0x5418;
const TIOCSBRK: Opcode = 0x5427;
const TIOCCBRK: Opcode = 0x5428;
const PPCLAIM: Opcode = 0x708b;
const PPRELEASE: Opcode = 0x708c;

const TIOCM_DTR: c_int = 0x002;
const TIOCM_RTS: c_int = 0x004;
const TIOCM_CTS: c_int = 0x020;
const TIOCM_CAR: c_int = 0x040;
const TIOCM_RI: c_int = 0x080;
const TIOCM_DSR: c_int = 0x100;

fn request<const OPCODE: Opcode>(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the requests used here take no argument.
    Ok(unsafe { ioctl(fd, NoArg::<OPCODE>::new()) }?)
}

fn modem(fd: &OwnedFd) -> io::Result<c_int> {
    // SAFETY: TIOCMGET stores one int.
    Ok(unsafe { ioctl(fd, Getter::<TIOCMGET, c_int>::new()) }?)
}

/// The lines from the modem.
pub(super) fn modem_lines(fd: &OwnedFd) -> io::Result<ModemLines> {
    let bits = modem(fd)?;
    Ok(ModemLines {
        cts: bits & TIOCM_CTS != 0,
        dsr: bits & TIOCM_DSR != 0,
        ri: bits & TIOCM_RI != 0,
        dcd: bits & TIOCM_CAR != 0,
    })
}

/// Sets the lines to the modem.
pub(super) fn set_modem(fd: &OwnedFd, dtr: bool, rts: bool) -> io::Result<()> {
    let mut bits = modem(fd)? & !(TIOCM_DTR | TIOCM_RTS);
    if dtr {
        bits |= TIOCM_DTR;
    }
    if rts {
        bits |= TIOCM_RTS;
    }
    // SAFETY: TIOCMSET reads one int.
    Ok(unsafe { ioctl(fd, Setter::<TIOCMSET, c_int>::new(bits)) }?)
}

/// Begins or ends a break.
pub(super) fn set_break(fd: &OwnedFd, on: bool) -> io::Result<()> {
    if on { request::<TIOCSBRK>(fd) } else { request::<TIOCCBRK>(fd) }
}

/// Takes a parallel port for our use.
pub(super) fn claim(fd: &OwnedFd) -> io::Result<()> {
    request::<PPCLAIM>(fd)
}

/// Gives it back.
pub(super) fn release(fd: &OwnedFd) -> io::Result<()> {
    request::<PPRELEASE>(fd)
}
