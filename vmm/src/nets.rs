//! The networks of a machine.
//!
//! Main thread. The options are the user's or a client's; what comes over a network is its back
//! end's matter.

use std::sync::Arc;

use devices::net::Network;

/// Network back ends and NICs by name; by default none.
#[derive(Default)]
pub struct Nets {
    network: Arc<Network>,
}

impl Nets {
    /// Where NICs are plugged in.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }
}
