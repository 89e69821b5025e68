#![expect(unsafe_code, reason = "rustix has no wrapper for these requests")]
//! What TAP interfaces do by ioctl (linux/if_tun.h).
//!
//! Any thread, no lock. Each is one call that does not block.

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::OwnedFd;

use bitflags::bitflags;
use rustix::ioctl::{Getter, IntegerSetter, Opcode, Setter, Updater, ioctl};

use super::backend::Offloads;

const TUNSETIFF: Opcode = 0x4004_54ca;
const TUNGETFEATURES: Opcode = 0x8004_54cf;
const TUNSETOFFLOAD: Opcode = 0x4004_54d0;
const TUNGETIFF: Opcode = 0x8004_54d2;
const TUNSETSNDBUF: Opcode = 0x4004_54d4;
const TUNSETVNETHDRSZ: Opcode = 0x4004_54d8;
const TUNSETQUEUE: Opcode = 0x4004_54d9;

/// The longest name of an interface, with its final 0.
const NAME_LEN: usize = 16;

bitflags! {
    /// What an interface is, and what the kernel knows of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Flags: u16 {
        const TAP = 0x0002;
        const MULTI_QUEUE = 0x0100;
        const ATTACH_QUEUE = 0x0200;
        const DETACH_QUEUE = 0x0400;
        const NO_PACKET_INFO = 0x1000;
        const VNET_HDR = 0x4000;
        const _ = !0;
    }
}

/// `struct ifreq`, of which only the name and the flags are used.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    name: [u8; NAME_LEN],
    flags: u16,
    rest: [u8; 22],
}

impl Request {
    fn new(name: &str, flags: Flags) -> Option<Request> {
        let mut request = Request { name: [0; NAME_LEN], flags: flags.bits(), rest: [0; 22] };
        // The last byte stays 0.
        let (_, room) = request.name.split_last_mut()?;
        room.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(request)
    }

    fn name(&self) -> String {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }
}

/// Makes `fd`, an open `/dev/net/tun`, a queue of the interface `name`, in which `%d` stands for a
/// free number; returns the name.
pub(super) fn attach(fd: &OwnedFd, name: &str, flags: Flags) -> io::Result<String> {
    let mut request = Request::new(name, flags).ok_or(io::ErrorKind::InvalidFilename)?;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `Request` is laid out as.
    unsafe { ioctl(fd, Updater::<TUNSETIFF, Request>::new(&mut request)) }?;
    Ok(request.name())
}

/// The name and the flags of the interface that `fd` is a queue of.
pub(super) fn identify(fd: &OwnedFd) -> io::Result<(String, Flags)> {
    // SAFETY: TUNGETIFF writes a `struct ifreq`, which `Request` is laid out as.
    let request = unsafe { ioctl(fd, Getter::<TUNGETIFF, Request>::new()) }?;
    Ok((request.name(), Flags::from_bits_retain(request.flags)))
}

/// What the kernel knows of.
pub(super) fn features(fd: &OwnedFd) -> io::Result<Flags> {
    // SAFETY: TUNGETFEATURES writes an unsigned int.
    let all: c_uint = unsafe { ioctl(fd, Getter::<TUNGETFEATURES, c_uint>::new()) }?;
    Ok(Flags::from_bits_retain(u16::try_from(all & 0xffff).unwrap_or_default()))
}

/// What may be left out of frames that are read.
pub(super) fn set_offloads(fd: &OwnedFd, offloads: Offloads) -> io::Result<()> {
    let bits = usize::try_from(offloads.bits()).unwrap_or_default();
    // SAFETY: TUNSETOFFLOAD takes a number. The bits of `Offloads` are the kernel's.
    Ok(unsafe { ioctl(fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits)) }?)
}

/// How many bytes may wait to be delivered before a write blocks.
pub(super) fn set_sndbuf(fd: &OwnedFd, bytes: c_int) -> io::Result<()> {
    // SAFETY: TUNSETSNDBUF reads an int.
    Ok(unsafe { ioctl(fd, Setter::<TUNSETSNDBUF, c_int>::new(bytes)) }?)
}

/// The length of the header in front of frames.
pub(super) fn set_header_len(fd: &OwnedFd, len: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    Ok(unsafe { ioctl(fd, Setter::<TUNSETVNETHDRSZ, c_int>::new(len)) }?)
}

/// Whether frames come to this queue.
pub(super) fn set_queue(fd: &OwnedFd, on: bool) -> io::Result<()> {
    let flags = if on { Flags::ATTACH_QUEUE } else { Flags::DETACH_QUEUE };
    let request = Request::new("", flags).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: TUNSETQUEUE reads a `struct ifreq`, which `Request` is laid out as.
    Ok(unsafe { ioctl(fd, Setter::<TUNSETQUEUE, Request>::new(request)) }?)
}
