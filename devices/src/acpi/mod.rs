//! ACPI: the fixed hardware of a PC and the tables that describe the machine to the guest.
//!
//! The registers ([`pm`]) face the guest on vCPU threads; the tables ([`tables`]) are made once by
//! the main thread.

pub mod pm;
pub mod tables;
