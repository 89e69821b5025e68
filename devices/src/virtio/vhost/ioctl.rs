#![expect(unsafe_code, reason = "rustix has no wrapper for these requests, which name memory")]
//! What vhost devices of the host's kernel do by ioctl (linux/vhost.h).
//!
//! Any thread; a leaf mutex around what the kernel was told. Each is one call, which
//! may wait until the kernel's worker has let go of a ring, briefly. The kernel trusts addresses:
//! only those of guest RAM and of the log are given to it, checked here, and both are kept while it
//! may use them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use resources::fdset;
use resources::ram::GuestMemory;
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Getter, NoArg, Opcode, Setter, Updater, ioctl};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::LOG_ALL;
use super::log::Log;
use crate::virtio::queue::Layout;

const GET_FEATURES: Opcode = 0x8008_af00;
const SET_FEATURES: Opcode = 0x4008_af00;
const SET_OWNER: Opcode = 0xaf01;
const SET_MEM_TABLE: Opcode = 0x4008_af03;
const SET_LOG_BASE: Opcode = 0x4008_af04;
const SET_VRING_NUM: Opcode = 0x4008_af10;
const SET_VRING_ADDR: Opcode = 0x4028_af11;
const SET_VRING_BASE: Opcode = 0x4008_af12;
const GET_VRING_BASE: Opcode = 0xc008_af12;
const SET_VRING_KICK: Opcode = 0x4008_af20;
const SET_VRING_CALL: Opcode = 0x4008_af21;
const SET_VRING_ERR: Opcode = 0x4008_af22;
const NET_SET_BACKEND: Opcode = 0x4008_af30;
const VSOCK_SET_GUEST_CID: Opcode = 0x4008_af60;
const VSOCK_SET_RUNNING: Opcode = 0x4004_af61;

/// VHOST_VRING_F_LOG, of a ring: what is written to the ring itself is noted, too.
const RING_LOGS: u32 = 1;

/// The most ranges of memory that the kernel takes, unless its administrator says otherwise.
const MOST_REGIONS: usize = 64;

/// `struct vhost_vring_state`: a ring and a number.
#[repr(C)]
#[derive(Clone, Copy)]
struct RingState {
    ring: u32,
    value: u32,
}

/// `struct vhost_vring_file`: a ring and a descriptor, or -1.
#[repr(C)]
#[derive(Clone, Copy)]
struct RingFile {
    ring: u32,
    fd: i32,
}

/// `struct vhost_vring_addr`: where a ring is in this process.
#[repr(C)]
#[derive(Clone, Copy)]
struct RingAddress {
    ring: u32,
    flags: u32,
    desc: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// `struct vhost_memory_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    guest: u64,
    size: u64,
    host: u64,
    padding: u64,
}

/// `struct vhost_memory` with room for the most regions.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    count: u32,
    padding: u32,
    regions: [Region; MOST_REGIONS],
}

/// A vhost device, which serves rings for this process.
pub struct Vhost {
    // Closed before the memory and the log go.
    fd: OwnedFd,
    told: Mutex<Told>,
}

/// What the kernel was told.
#[derive(Default)]
struct Told {
    memory: Option<Arc<GuestMemory>>,
    features: Option<u64>,
    rings: BTreeMap<u32, RingAddress>,
    /// Where it notes what it writes, from the first time it was asked to.
    log: Option<Log>,
    logs: bool,
}

impl Vhost {
    /// Opens the one at `path`.
    ///
    /// # Errors
    /// When the host has none, or refuses it.
    pub fn open(path: &str) -> io::Result<Vhost> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file: File = fdset::open(path, flags, Mode::empty())?.into_parts().0.into();
        Vhost::adopt(file.into())
    }

    /// Uses one that somebody else has opened.
    ///
    /// # Errors
    /// When it is no vhost device, or one that is used already.
    pub fn adopt(fd: OwnedFd) -> io::Result<Vhost> {
        // SAFETY: VHOST_SET_OWNER takes no argument.
        unsafe { ioctl(&fd, NoArg::<SET_OWNER>::new()) }?;
        Ok(Vhost { fd, told: Mutex::default() })
    }

    /// The features it knows: of the transport, of rings, and some of its own.
    ///
    /// # Errors
    /// When it is no vhost device.
    pub fn features(&self) -> io::Result<u64> {
        // SAFETY: VHOST_GET_FEATURES writes a u64.
        Ok(unsafe { ioctl(&self.fd, Getter::<GET_FEATURES, u64>::new()) }?)
    }

    /// Says which features are in force. Not while a ring is served.
    ///
    /// # Errors
    /// When it does not know them.
    pub fn set_features(&self, features: u64) -> io::Result<()> {
        let mut told = self.told.lock();
        let logs = told.logs;
        self.tell_features(features, logs)?;
        told.features = Some(features);
        told.rings.clear();
        Ok(())
    }

    fn tell_features(&self, features: u64, logs: bool) -> io::Result<()> {
        let features = if logs { features | LOG_ALL } else { features & !LOG_ALL };
        // SAFETY: VHOST_SET_FEATURES reads a u64.
        Ok(unsafe { ioctl(&self.fd, Setter::<SET_FEATURES, u64>::new(features)) }?)
    }

    /// Has the kernel note what it writes to guest RAM, or no longer; also while rings are served.
    /// [`harvest`](Self::harvest) tells what it has noted.
    ///
    /// # Errors
    /// When it cannot.
    pub fn set_log(&self, memory: &GuestMemory, on: bool) -> io::Result<()> {
        let mut told = self.told.lock();
        if told.logs == on {
            return Ok(());
        }
        if let Some(log) = &told.log {
            log.clear();
        } else if on {
            let log = Log::new(memory)?;
            // SAFETY: VHOST_SET_LOG_BASE reads a u64, the address of a bitmap. It has a bit for
            // each page of guest RAM, no other memory is given to the kernel, and it is kept until
            // the device is closed.
            unsafe { ioctl(&self.fd, Setter::<SET_LOG_BASE, u64>::new(log.address())) }?;
            told.log = Some(log);
        }
        let tell = |on: bool| -> io::Result<()> {
            if let Some(features) = told.features {
                self.tell_features(features, on)?;
            }
            told.rings.values().try_for_each(|place| self.tell_ring(*place, on))
        };
        if let Err(error) = tell(on) {
            // As it was.
            let _ = tell(!on);
            return Err(error);
        }
        told.logs = on;
        Ok(())
    }

    /// Marks in guest RAM's bitmaps what the kernel has noted, which it then forgets.
    pub fn harvest(&self, memory: &GuestMemory) {
        if let Some(log) = &self.told.lock().log {
            log.harvest(memory);
        }
    }

    /// Says where guest RAM is, which is kept until this is told otherwise or closed.
    ///
    /// # Errors
    /// When it is in more pieces than the kernel takes.
    pub fn set_memory(&self, memory: &Arc<GuestMemory>) -> io::Result<()> {
        let mut table = Table { count: 0, padding: 0, regions: [Region::default(); MOST_REGIONS] };
        if memory.num_regions() > MOST_REGIONS {
            return Err(io::Error::other("guest RAM is in too many pieces"));
        }
        for (entry, region) in table.regions.iter_mut().zip(memory.iter()) {
            *entry = Region {
                guest: region.start_addr().raw_value(),
                size: region.len(),
                host: address(region.as_ptr()),
                padding: 0,
            };
            table.count = table.count.saturating_add(1);
        }
        let mut told = self.told.lock();
        // SAFETY: VHOST_SET_MEM_TABLE reads a `struct vhost_memory` of `count` regions, which
        // `Table` is laid out as. They are guest RAM, which stays mapped as it is kept here, and
        // which anybody may write at any time.
        unsafe { ioctl(&self.fd, Setter::<SET_MEM_TABLE, Table>::new(table)) }?;
        told.memory = Some(memory.clone());
        Ok(())
    }

    /// Says where a ring is and how far it has come: the next entry to be taken.
    ///
    /// # Errors
    /// When it is not in the RAM that was [told](Self::set_memory), or the ring is served.
    pub fn set_ring(&self, ring: u32, layout: &Layout, base: u16) -> io::Result<()> {
        let mut told = self.told.lock();
        let memory = told.memory.as_ref().ok_or_else(|| io::Error::other("no RAM"))?;
        let size = usize::from(layout.size);
        let host = |guest: u64, entry: usize| -> io::Result<u64> {
            // Each ring has three more 16-bit fields.
            let length = size.saturating_mul(entry).saturating_add(6);
            let slice = memory
                .get_slice(GuestAddress(guest), length)
                .map_err(|_| io::Error::other(format!("a ring at {guest:#x} is not in RAM")))?;
            Ok(address(slice.ptr_guard().as_ptr()))
        };
        let desc = {
            let slice = memory.get_slice(GuestAddress(layout.desc), size.saturating_mul(16));
            let slice = slice.map_err(|_| io::Error::other("descriptors are not in RAM"))?;
            address(slice.ptr_guard().as_ptr())
        };
        let place = RingAddress {
            ring,
            flags: 0,
            desc,
            used: host(layout.device, 8)?,
            available: host(layout.driver, 2)?,
            log: layout.device,
        };
        let state = |value: u16| RingState { ring, value: value.into() };
        // SAFETY: VHOST_SET_VRING_NUM reads a `struct vhost_vring_state`.
        unsafe { ioctl(&self.fd, Setter::<SET_VRING_NUM, _>::new(state(layout.size))) }?;
        // SAFETY: so does VHOST_SET_VRING_BASE.
        unsafe { ioctl(&self.fd, Setter::<SET_VRING_BASE, _>::new(state(base))) }?;
        self.tell_ring(place, told.logs)?;
        told.rings.insert(ring, place);
        Ok(())
    }

    /// The place must be in guest RAM that is kept.
    fn tell_ring(&self, place: RingAddress, logs: bool) -> io::Result<()> {
        let place = RingAddress { flags: if logs { RING_LOGS } else { 0 }, ..place };
        // SAFETY: VHOST_SET_VRING_ADDR reads a `struct vhost_vring_addr`. All three parts are, by
        // the length that the kernel will use, in guest RAM that is kept: `set_ring` has looked,
        // and makes all there are.
        Ok(unsafe { ioctl(&self.fd, Setter::<SET_VRING_ADDR, _>::new(place)) }?)
    }

    /// How far a ring has come that is no longer served: the next entry to be taken.
    ///
    /// # Errors
    /// When there is no such ring.
    pub fn ring_base(&self, ring: u32) -> io::Result<u16> {
        let mut state = RingState { ring, value: 0 };
        // SAFETY: VHOST_GET_VRING_BASE reads and writes a `struct vhost_vring_state`.
        unsafe { ioctl(&self.fd, Updater::<GET_VRING_BASE, _>::new(&mut state)) }?;
        u16::try_from(state.value).map_err(|_| io::Error::other("the ring is no split ring"))
    }

    /// By what the driver kicks a ring.
    ///
    /// # Errors
    /// When there is no such ring.
    pub fn set_kick(&self, ring: u32, fd: Option<&EventFd>) -> io::Result<()> {
        self.set_file::<SET_VRING_KICK>(ring, fd)
    }

    /// By what the driver is interrupted.
    ///
    /// # Errors
    /// When there is no such ring.
    pub fn set_call(&self, ring: u32, fd: Option<&EventFd>) -> io::Result<()> {
        self.set_file::<SET_VRING_CALL>(ring, fd)
    }

    /// What is signalled when the driver's ring makes no sense.
    ///
    /// # Errors
    /// When there is no such ring.
    pub fn set_error(&self, ring: u32, fd: Option<&EventFd>) -> io::Result<()> {
        self.set_file::<SET_VRING_ERR>(ring, fd)
    }

    fn set_file<const REQUEST: Opcode>(&self, ring: u32, fd: Option<&EventFd>) -> io::Result<()> {
        let file = RingFile { ring, fd: fd.map_or(-1, AsRawFd::as_raw_fd) };
        // SAFETY: the three requests of this kind read a `struct vhost_vring_file`; the kernel
        // takes a reference to the file.
        Ok(unsafe { ioctl(&self.fd, Setter::<REQUEST, _>::new(file)) }?)
    }

    /// A network's: serves the ring with frames of a tap's queue, or with `None` no longer.
    ///
    /// # Errors
    /// When that is no tap, or the ring makes no sense.
    pub fn set_tap(&self, ring: u32, tap: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let file = RingFile { ring, fd: tap.map_or(-1, |tap| tap.as_raw_fd()) };
        // SAFETY: VHOST_NET_SET_BACKEND reads a `struct vhost_vring_file`.
        Ok(unsafe { ioctl(&self.fd, Setter::<NET_SET_BACKEND, _>::new(file)) }?)
    }

    /// A socket device's: the guest's address.
    ///
    /// # Errors
    /// When it is reserved, or another guest has it.
    pub fn set_guest_cid(&self, cid: u64) -> io::Result<()> {
        // SAFETY: VHOST_VSOCK_SET_GUEST_CID reads a u64.
        Ok(unsafe { ioctl(&self.fd, Setter::<VSOCK_SET_GUEST_CID, u64>::new(cid)) }?)
    }

    /// A socket device's: serves its rings, or no longer.
    ///
    /// # Errors
    /// When a ring makes no sense.
    pub fn set_running(&self, running: bool) -> io::Result<()> {
        // SAFETY: VHOST_VSOCK_SET_RUNNING reads an int.
        Ok(unsafe { ioctl(&self.fd, Setter::<VSOCK_SET_RUNNING, i32>::new(running.into())) }?)
    }
}

impl AsFd for Vhost {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A pointer as the kernel wants it.
fn address(pointer: *const u8) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or(0)
}
