//! The saved state of a transport. Plain data: any thread, no lock. What it says is not trusted.

use resources::state::Blob;
use serde::{Deserialize, Serialize};

use super::{Layout, NO_VECTOR, Position};

#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) status: u8,
    #[serde(default)]
    pub(super) device_select: u32,
    #[serde(default)]
    pub(super) driver_select: u32,
    #[serde(default)]
    pub(super) driver_features: u64,
    #[serde(default)]
    pub(super) queue_select: u16,
    #[serde(default = "no_vector")]
    pub(super) config_vector: u16,
    #[serde(default)]
    pub(super) isr: u8,
    #[serde(default)]
    pub(super) generation: u8,
    #[serde(default)]
    pub(super) needs_reset: bool,
    /// A changed configuration has not been told.
    #[serde(default)]
    pub(super) pending: bool,
    pub(super) queues: Vec<Queue>,
    /// The device's own part.
    pub(super) device: Option<Blob>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Queue {
    pub(super) layout: Layout,
    pub(super) enabled: bool,
    #[serde(default = "no_vector")]
    pub(super) vector: u16,
    #[serde(default)]
    pub(super) position: Position,
}

fn no_vector() -> u16 {
    NO_VECTOR
}
