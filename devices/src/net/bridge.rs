//! A TAP interface on a bridge of the host, made by a helper that may do so.
//!
//! As [`tap`](super::tap) in everything but its making.

use super::kernel::Kernels;
use super::launch;
use super::options::{Keys, OpenError};
use super::tap::{Interface, Tap};

/// The bridge, unless it is said.
pub(super) const BRIDGE: &str = "br0";

/// Options of the bridge back end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge to join.
    pub br: Option<String>,
    /// What is run to join it.
    pub helper: Option<String>,
}

impl Bridge {
    pub(super) fn parse(keys: &mut Keys<'_>) -> Bridge {
        Bridge { br: keys.owned("br"), helper: keys.owned("helper") }
    }

    pub(super) fn open(&self) -> Result<Interface, OpenError> {
        let helper = self.helper.as_deref().unwrap_or(launch::HELPER);
        let bridge = self.br.as_deref().unwrap_or(BRIDGE);
        let fd = launch::helper(helper, Some(bridge))?;
        let info = format!("helper={helper},br={bridge}");
        Tap::default().adopt(vec![fd], vec![info], Kernels::default())
    }
}
