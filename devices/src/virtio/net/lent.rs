//! A pair of queues whose frames the kernel moves between the guest's rings and a tap.
//!
//! The loop of the device; no lock. There is no filter in the kernel: a guest gets every frame that
//! the tap has, as with QEMU. What is wrong with its rings the kernel finds and
//! [`Rings`] tells.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use crate::net::Kernel;
use crate::virtio::vhost::Rings;
use crate::virtio::{ConfigIrq, Worker};

/// The kernel's numbers of the rings.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// While this exists the kernel serves the pair.
pub(super) struct Lent {
    kernel: Kernel,
    _rings: Rings,
}

impl Lent {
    /// Lends a pair that has nothing under way.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is lent then.
    pub(super) fn new(
        kernel: Kernel,
        receive: &Rc<Worker>,
        transmit: &Rc<Worker>,
        config: &ConfigIrq,
    ) -> io::Result<Lent> {
        let pair = [(RECEIVE, receive.clone()), (TRANSMIT, transmit.clone())];
        let rings = Rings::lend(&kernel.vhost, &pair, config)?;
        // Dropping it undoes what was done.
        let lent = Lent { kernel, _rings: rings };
        for ring in [RECEIVE, TRANSMIT] {
            lent.kernel.vhost.set_tap(ring, Some(lent.kernel.tap.as_fd()))?;
        }
        Ok(lent)
    }

    /// What serves the pair.
    pub(super) fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Before the rings go, as fields do after this.
        for ring in [RECEIVE, TRANSMIT] {
            if let Err(error) = self.kernel.vhost.set_tap(ring, None) {
                tracing::error!("vhost-net: ring {ring}: {error}");
            }
        }
    }
}
