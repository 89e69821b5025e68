//! Frames of a tap that the host's kernel moves: vhost-net.
//!
//! Opened with the tap, on the main thread; used by a NIC on its loop. No lock. What the user asks
//! for decides what happens where the kernel cannot do it: without `vhostforce` the frames are
//! moved here as ever, with it the device fails.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::frame::HEADER_LEN;
use super::options::{OpenError, TakeFd};
use super::tap::Tap;
use crate::virtio::vhost::{self, Vhost};

/// Where the kernel has it.
const PATH: &str = "/dev/vhost-net";

/// What moves the frames of one queue.
#[derive(Clone)]
pub struct Kernel {
    /// The kernel's device; its ring 0 receives, ring 1 transmits.
    pub vhost: Arc<Vhost>,
    /// The tap's queue.
    pub tap: Arc<OwnedFd>,
    /// Nothing else will do.
    pub forced: bool,
}

impl Kernel {
    /// Sends a frame, given without a header, beside those that the kernel moves; whether the tap
    /// takes it.
    pub fn send(&self, frame: &[u8]) -> bool {
        let whole = [IoSlice::new(&[0; HEADER_LEN]), IoSlice::new(frame)];
        rustix::io::writev(&self.tap, &whole).is_ok()
    }
}

/// The kernel's devices, one for each queue of a tap; none if it is not to use them.
#[derive(Default)]
pub(super) struct Kernels {
    pub(super) devices: Vec<Arc<Vhost>>,
    pub(super) forced: bool,
}

impl Kernels {
    /// Opens or takes them, as the options say.
    pub(super) fn open(
        tap: &Tap,
        queues: usize,
        take_fd: TakeFd<'_>,
    ) -> Result<Kernels, OpenError> {
        if !tap.wants_vhost() {
            return Ok(Kernels::default());
        }
        let failed = |why: &dyn std::fmt::Display| {
            OpenError::Failed(format!("vhost-net requested but could not be initialized: {why}"))
        };
        let given = match tap.vhostfds.as_ref().or(tap.vhostfd.as_ref()) {
            None => None,
            Some(names) => {
                let names: Vec<&str> = names.split(':').collect();
                if names.len() != queues {
                    return Err(OpenError::failed(
                        "The number of fds passed does not match the number of vhostfds passed",
                    ));
                }
                Some(names.into_iter().map(take_fd).collect::<Result<Vec<_>, _>>()?)
            }
        };
        let devices = match given {
            Some(fds) => fds
                .into_iter()
                .map(|fd| Vhost::adopt(fd).map_err(|error| failed(&error)))
                .collect::<Result<Vec<_>, _>>()?,
            None => (0..queues)
                .map(|_| {
                    Vhost::open(PATH).map_err(|error| failed(&format_args!("{PATH}: {error}")))
                })
                .collect::<Result<Vec<_>, _>>()?,
        };
        for device in &devices {
            vhost::ring_features(device).map_err(|error| failed(&error))?;
        }
        let devices = devices.into_iter().map(Arc::new).collect();
        Ok(Kernels { devices, forced: tap.vhostforce == Some(true) })
    }

    /// The kernel puts a header in front of frames as the guest does, or it is of no use here.
    pub(super) fn need_header(&mut self, has_header: bool) -> Result<(), OpenError> {
        if has_header || self.devices.is_empty() {
            return Ok(());
        }
        if self.forced {
            return Err(OpenError::failed("vhost needs a tap with vnet_hdr"));
        }
        tracing::warn!("vhost is not used for a tap without vnet_hdr");
        self.devices.clear();
        Ok(())
    }
}
