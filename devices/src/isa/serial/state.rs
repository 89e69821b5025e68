//! What a port remembers: its saved state, which is checked when it is loaded.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A received character, or a break, which arrives as a NUL.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Received {
    pub(super) byte: u8,
    #[serde(default)]
    pub(super) is_break: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Registers {
    pub(super) divisor: u16,
    pub(super) ier: u8,
    pub(super) fcr: u8,
    pub(super) lcr: u8,
    pub(super) mcr: u8,
    pub(super) scratch: u8,
    pub(super) modem_deltas: u8,
    pub(super) rx: VecDeque<Received>,
    pub(super) overrun: bool,
    /// The break at the head of the FIFO has been reported in the line status register.
    pub(super) break_seen: bool,
    /// Received characters below the trigger level have waited long enough.
    pub(super) rx_timeout: bool,
    pub(super) tx: VecDeque<u8>,
    /// The transmitter became empty, and the guest has not yet been told.
    pub(super) tx_emptied: bool,
}

impl Default for Registers {
    /// Power-on: 9600 baud and OUT2 set, as firmware leaves them.
    fn default() -> Self {
        Registers {
            divisor: 12,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: super::MCR_OUT2,
            scratch: 0,
            modem_deltas: 0,
            rx: VecDeque::new(),
            overrun: false,
            break_seen: false,
            rx_timeout: false,
            tx: VecDeque::new(),
            tx_emptied: false,
        }
    }
}
