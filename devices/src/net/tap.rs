//! TAP interfaces of the host: a frame that the NIC sends comes in at the interface, and one that
//! the host sends out of the interface goes to the NIC.
//!
//! Opened, configured and closed on the main thread or a vCPU's; read and written on the NIC's
//! loop, straight from the guest's memory. Lock: a leaf mutex around which queues are in use, held
//! over an ioctl. What the guest sends is the host's network's to judge; an interface that goes
//! away is told to the user and the guest hears nothing more.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use resources::iol::Local;
use rustix::fs::{Mode, OFlags};

use super::backend::{Backend, Caps, Endpoint, Offloads, Setup};
use super::fdend::{FdEnd, Header};
use super::frame::HEADER_LEN;
use super::kernel::{Kernel, Kernels};
use super::launch;
use super::options::{Keys, OpenError, TakeFd};
use super::tun::{self, Flags};

/// The device that makes interfaces.
const TUN: &str = "/dev/net/tun";

/// What is run when an interface comes up, and when it goes down.
const SCRIPTS: [&str; 2] = ["/etc/qemu-ifup", "/etc/qemu-ifdown"];

/// The most queues of an interface.
const MOST_QUEUES: usize = 256;

/// Options of the tap back end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tap {
    /// Its name, in which `%d` stands for a free number.
    pub ifname: Option<String>,
    /// A descriptor of an interface that is there already.
    pub fd: Option<String>,
    /// Several of one interface, by colons.
    pub fds: Option<String>,
    /// What is run to bring it up; `no` for nothing.
    pub script: Option<String>,
    /// What is run to take it down; `no` for nothing.
    pub downscript: Option<String>,
    /// What is run to make it.
    pub helper: Option<String>,
    /// How many bytes may wait in the host's network; 0 for no limit.
    pub sndbuf: Option<u64>,
    /// Whether frames can have a header.
    pub vnet_hdr: Option<bool>,
    /// Whether the kernel is to move the frames.
    pub vhost: Option<bool>,
    /// The descriptor for that.
    pub vhostfd: Option<String>,
    /// Several, by colons.
    pub vhostfds: Option<String>,
    /// Nothing else will do.
    pub vhostforce: Option<bool>,
    /// How many queues to make.
    pub queues: Option<u32>,
}

impl Tap {
    pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Tap, OpenError> {
        Ok(Tap {
            ifname: keys.owned("ifname"),
            fd: keys.owned("fd"),
            fds: keys.owned("fds"),
            script: keys.owned("script"),
            downscript: keys.owned("downscript"),
            helper: keys.owned("helper"),
            sndbuf: keys.size("sndbuf")?,
            vnet_hdr: keys.switch("vnet_hdr")?,
            vhost: keys.switch("vhost")?,
            vhostfd: keys.owned("vhostfd"),
            vhostfds: keys.owned("vhostfds"),
            vhostforce: keys.switch("vhostforce")?,
            queues: keys
                .number("queues", u32::MAX.into(), "uint32_t")?
                .and_then(|count| u32::try_from(count).ok()),
        })
    }

    /// Refuses what does not go together.
    fn check(&self) -> Result<(), OpenError> {
        let refuse = |what: &str| Err(OpenError::failed(what));
        let names = self.ifname.is_some() || self.script.is_some() || self.downscript.is_some();
        let made = names || self.vnet_hdr.is_some() || self.queues.is_some();
        if self.fd.is_some()
            && (made || self.helper.is_some() || self.fds.is_some() || self.vhostfds.is_some())
        {
            return refuse(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= \
                 are invalid with fd=",
            );
        }
        if self.fds.is_some() && (made || self.helper.is_some() || self.vhostfd.is_some()) {
            return refuse(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are \
                 invalid with fds=",
            );
        }
        if self.helper.is_some() && (made || self.vhostfds.is_some()) {
            return refuse(
                "ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid \
                 with helper=",
            );
        }
        if self.vhostfds.is_some() && self.fds.is_none() {
            return refuse("vhostfds= is invalid if fds= wasn't specified");
        }
        if self.wants_vhost() {
            return Ok(());
        }
        match (&self.vhostfd, &self.vhostfds) {
            (None, None) => Ok(()),
            _ => refuse("vhostfd= is not valid without vhost"),
        }
    }

    /// Whether the kernel is to move the frames.
    pub(super) fn wants_vhost(&self) -> bool {
        let implied = self.vhostfd.is_some() || self.vhostforce == Some(true);
        self.vhost.unwrap_or(implied)
    }

    /// Makes or takes the interface, and brings it up.
    pub(super) fn open(&self, take_fd: TakeFd<'_>) -> Result<Interface, OpenError> {
        self.check()?;
        if let Some(fd) = &self.fd {
            let fd = take_fd(fd)?;
            let info = format!("fd={}", fd.as_raw_fd());
            let kernels = Kernels::open(self, 1, take_fd)?;
            return self.adopt(vec![fd], vec![info], kernels);
        }
        if let Some(names) = &self.fds {
            let names: Vec<&str> = names.split(':').collect();
            if names.len() > MOST_QUEUES {
                return Err(OpenError::failed(format!("more than {MOST_QUEUES} queues in fds=")));
            }
            let kernels = Kernels::open(self, names.len(), take_fd)?;
            let fds = names.into_iter().map(take_fd).collect::<Result<Vec<_>, _>>()?;
            let infos = fds.iter().map(|fd| format!("fd={}", fd.as_raw_fd())).collect();
            return self.adopt(fds, infos, kernels);
        }
        if let Some(command) = &self.helper {
            let fd = launch::helper(command, Some(super::bridge::BRIDGE))?;
            let kernels = Kernels::open(self, 1, take_fd)?;
            return self.adopt(vec![fd], vec![format!("helper={command}")], kernels);
        }
        self.make(take_fd)
    }

    /// Uses descriptors of an interface that somebody else made.
    pub(super) fn adopt(
        &self,
        fds: Vec<OwnedFd>,
        infos: Vec<String>,
        kernels: Kernels,
    ) -> Result<Interface, OpenError> {
        let mut all: Option<(String, Flags)> = None;
        for fd in &fds {
            rustix::io::ioctl_fionbio(fd, true)
                .map_err(|error| OpenError::failed(format!("tap descriptor: {error}")))?;
            let (name, flags) = tun::identify(fd)
                .map_err(|error| OpenError::failed(format!("TUNGETIFF ioctl() failed: {error}")))?;
            let header = |flags: Flags| flags.contains(Flags::VNET_HDR);
            if all.as_ref().is_some_and(|(_, first)| header(*first) != header(flags)) {
                return Err(OpenError::failed("vnet_hdr not consistent across given tap fds"));
            }
            all = Some((name, flags));
        }
        let Some((name, flags)) = all else { return Err(OpenError::failed("no tap descriptor")) };
        if !flags.contains(Flags::TAP) {
            return Err(OpenError::failed(format!("{name} is not a tap interface")));
        }
        Interface::new((name, flags), fds, infos, kernels, self)
    }

    fn make(&self, take_fd: TakeFd<'_>) -> Result<Interface, OpenError> {
        let queues = usize::try_from(self.queues.unwrap_or(1)).unwrap_or(usize::MAX).max(1);
        if queues > MOST_QUEUES {
            return Err(OpenError::failed(format!("a tap has no more than {MOST_QUEUES} queues")));
        }
        let kernels = Kernels::open(self, queues, take_fd)?;
        let mut name = self.ifname.clone().unwrap_or_else(|| "tap%d".to_owned());
        let (mut fds, mut flags) = (Vec::new(), Flags::empty());
        for _ in 0..queues {
            let fd = rustix::fs::open(
                TUN,
                OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| {
                let error = io::Error::from(error);
                OpenError::failed(format!("could not open {TUN}: {error}"))
            })?;
            let known = tun::features(&fd).unwrap_or(Flags::empty());
            flags = Flags::TAP | Flags::NO_PACKET_INFO;
            if queues > 1 {
                if !known.contains(Flags::MULTI_QUEUE) {
                    return Err(OpenError::failed(
                        "multiqueue required, but no kernel support for IFF_MULTI_QUEUE available",
                    ));
                }
                flags |= Flags::MULTI_QUEUE;
            }
            match self.vnet_hdr {
                Some(true) if !known.contains(Flags::VNET_HDR) => {
                    return Err(OpenError::failed(
                        "vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available",
                    ));
                }
                Some(false) => {}
                _ => flags |= known & Flags::VNET_HDR,
            }
            name = tun::attach(&fd, &name, flags).map_err(|error| {
                OpenError::failed(format!("could not configure {TUN} ({name}): {error}"))
            })?;
            fds.push(fd);
        }
        let [up, down] = SCRIPTS;
        let up = self.script.as_deref().unwrap_or(up);
        let down = self.downscript.as_deref().unwrap_or(down);
        let info = format!("ifname={name},script={up},downscript={down}");
        let infos = vec![info; queues];
        let mut interface = Interface::new((name, flags), fds, infos, kernels, self)?;
        let runs = |path: &&str| !matches!(*path, "no" | "");
        if let Some(path) = Some(up).filter(runs) {
            launch::script(path, &interface.name)?;
        }
        interface.downscript = Some(down).filter(runs).map(str::to_owned);
        Ok(interface)
    }
}

/// An interface that is open.
pub(super) struct Interface {
    name: String,
    /// One for each queue; none once it is closed.
    queues: Mutex<Queues>,
    infos: Vec<String>,
    caps: Caps,
    /// The kernel puts a header in front of frames.
    has_header: bool,
    /// So does the NIC.
    header_used: AtomicBool,
    downscript: Option<String>,
    kernels: Kernels,
}

struct Queues {
    fds: Vec<Arc<OwnedFd>>,
    /// How many of them frames come to.
    attached: usize,
}

impl Interface {
    fn new(
        (name, flags): (String, Flags),
        fds: Vec<OwnedFd>,
        infos: Vec<String>,
        mut kernels: Kernels,
        options: &Tap,
    ) -> Result<Interface, OpenError> {
        let Some(first) = fds.first() else { return Err(OpenError::failed("no tap descriptor")) };
        let sndbuf = match options.sndbuf {
            None | Some(0) => c_int::MAX,
            Some(bytes) => c_int::try_from(bytes).unwrap_or(c_int::MAX),
        };
        for fd in &fds {
            match tun::set_sndbuf(fd, sndbuf) {
                Err(error) if options.sndbuf.is_some() => {
                    return Err(OpenError::failed(format!("TUNSETSNDBUF ioctl failed: {error}")));
                }
                _ => {}
            }
        }
        let has_header = flags.contains(Flags::VNET_HDR);
        kernels.need_header(has_header)?;
        if has_header {
            for fd in &fds {
                let len = c_int::try_from(HEADER_LEN).unwrap_or_default();
                if let Err(error) = tun::set_header_len(fd, len) {
                    return Err(OpenError::failed(format!(
                        "TUNSETVNETHDRSZ ioctl() failed: {error}"
                    )));
                }
            }
        }
        // What it knows of is found out by trying.
        let basic = Offloads::CSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::ECN;
        let knows = |more: Offloads| tun::set_offloads(first, basic | more).is_ok();
        let mut offloads = Offloads::empty();
        if has_header && knows(Offloads::empty()) {
            offloads = basic;
            for more in [Offloads::UFO, Offloads::USO4 | Offloads::USO6] {
                if knows(more) {
                    offloads |= more;
                }
            }
        }
        let _ = tun::set_offloads(first, Offloads::empty());
        let attached = fds.len();
        let fds = fds.into_iter().map(Arc::new).collect();
        Ok(Interface {
            name,
            queues: Mutex::new(Queues { fds, attached }),
            infos,
            caps: Caps { header: has_header, offloads },
            has_header,
            header_used: AtomicBool::new(false),
            downscript: None,
            kernels,
        })
    }
}

impl Backend for Interface {
    fn queues(&self) -> u16 {
        u16::try_from(self.infos.len()).unwrap_or(u16::MAX)
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn configure(&self, setup: Setup) -> io::Result<()> {
        let mut queues = self.queues.lock();
        let Queues { fds, attached } = &mut *queues;
        if let Some(first) = fds.first().filter(|_| self.has_header) {
            // Segments need checksums.
            let all = setup.offloads.contains(Offloads::CSUM);
            tun::set_offloads(first, if all { setup.offloads } else { Offloads::empty() })?;
        }
        self.header_used.store(setup.header, Ordering::Release);
        let wanted = usize::from(setup.queues);
        for (index, fd) in fds.iter().enumerate() {
            let (was, is) = (index < *attached, index < wanted);
            if was != is {
                tun::set_queue(fd, is)?;
            }
        }
        *attached = wanted.min(fds.len());
        Ok(())
    }

    fn open(&self, queue: u16, on: &Local) -> io::Result<Box<dyn Endpoint>> {
        let fd = self.queues.lock().fds.get(usize::from(queue)).cloned();
        let fd = fd.ok_or(io::ErrorKind::NotFound)?;
        let hidden = self.has_header && !self.header_used.load(Ordering::Acquire);
        let header = if hidden { Header::Hidden } else { Header::Same };
        Ok(Box::new(FdEnd::new(fd, header, on)?))
    }

    fn kernel(&self, queue: u16) -> Option<Kernel> {
        let vhost = self.kernels.devices.get(usize::from(queue))?.clone();
        let tap = self.queues.lock().fds.get(usize::from(queue))?.clone();
        Some(Kernel { vhost, tap, forced: self.kernels.forced })
    }

    fn info(&self, queue: u16) -> String {
        self.infos.get(usize::from(queue)).cloned().unwrap_or_default()
    }

    fn close(&self) {
        let fds = std::mem::take(&mut self.queues.lock().fds);
        if fds.is_empty() {
            return;
        }
        // While the interface is still there.
        if let Some(path) = &self.downscript
            && let Err(error) = launch::script(path, &self.name)
        {
            tracing::error!("{error}");
        }
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        self.close();
    }
}
