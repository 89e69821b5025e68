//! SCSI command sets: a disk (SBC-3) and a CD or DVD drive (MMC-6), both on SPC-4.
//!
//! Nothing here moves data or knows how commands come. A [`Unit`] takes the bytes of a command and says
//! what is to be done: answer with these bytes, move these blocks, or fail with this sense data.
//! Whoever carries the command does it.
//!
//! | file | holds |
//! |---|---|
//! | `cdb.rs` | from bytes to a [`Command`] |
//! | `unit.rs` | [`Unit`]: what a command does, attentions, medium, tray and lock |
//! | `inquiry.rs`, `mode.rs`, `disc.rs` | the pages that describe a unit, its settings, its disc |
//! | `sense.rs` | why a command failed |
//! | `bus.rs` | [`ScsiBus`]: the units of a host adapter |
//! | `drive.rs` | the devices scsi-hd and scsi-cd, a unit with its drive |
//!
//! Thread: any. Lock: a leaf mutex around the state of each unit. A hostile guest reaches
//! everything here with bytes of its choice: commands and parameter lists are read with bounds,
//! arithmetic is checked, and what is answered is at most 64 KiB.

mod bus;
mod bytes;
mod cdb;
mod disc;
mod drive;
mod inquiry;
mod mode;
mod sense;
mod unit;

pub use bus::{Adapter, KIND, Place, ScsiBus};
pub use cdb::{Blocks, Command, Kind, StartStop};
pub use drive::{ScsiDevice, ScsiDrive};
pub use inquiry::{Identity, MAX_TRANSFER, absent};
pub use sense::{Attention, SENSE_LEN, Sense};
pub use unit::{Medium, State, Unit, Work, report_luns};

#[cfg(test)]
mod tests;
