//! QMP commands, in files by subject: one `impl Handle<X> for Vm` each.
//!
//! They run on the main thread, one at a time, with the machine to themselves; the guest may be
//! running. Arguments are typed and checked before they come here, but their values are a
//! client's.

mod absent;
pub mod action;
mod balloon;
pub mod block;
mod blockdev;
mod chardev;
mod command_line;
mod cpu;
mod device;
pub mod dump;
pub mod fd;
pub mod fuzz;
mod hmp;
mod job;
mod media;
mod memory;
mod migrate;
mod migrate_parameters;
pub mod nbd;
mod net;
mod nic;
mod object;
mod pci;
mod qom;
mod query;
mod run;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use qmp::monitors::{Context, Host};
use qmp::session::Request;

use crate::vm::Vm;

impl Host for Vm {
    fn context(&mut self) -> &mut Context {
        &mut self.context
    }

    fn must_wait(&self, request: &Request) -> bool {
        self.request_must_wait(request)
    }
}
