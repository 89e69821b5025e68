//! The virtual machine monitor, as a library so that tests and fuzzers reach its parts.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`start`] | from options to a running machine, and the main loop |
//! | [`vm`] | the machine's life: run states, stop, start, reset, save, load |
//! | [`machine`] | the machines and their boards |
//! | `migrate` | guests that move to other processes |
//! | [`cpu`] | processors: models, threads, state |
//! | [`examine`] | memory, page tables and address spaces as text |
//! | [`dump`] | the guest as an ELF core file |
//! | [`objects`] | objects that users make: memory, random bytes, I/O threads, secrets |
//! | [`qom`] | everything as a tree of paths |
//! | [`boot`] | kernels and firmware |
//! | [`cmd`] | QMP commands |
//! | [`monitor`] | QMP clients |
//! | [`hmp`] | the human monitor |
//! | [`chardevs`] | character devices by id |
//! | [`drives`] | drives |
//! | [`nets`] | networks |
//! | [`plug`] | devices by name |
//! | [`privileges`] | `-chroot` and `-runas` |
//! | [`qtest`] | the debug port |
//! | [`mailbox`] | what devices, vCPUs and signals ask of the main thread |

pub mod boot;
pub mod chardevs;
pub mod cli;
pub mod cmd;
pub mod cpu;
pub mod drives;
pub mod dump;
pub mod examine;
pub mod hmp;
pub mod machine;
pub mod mailbox;
mod migrate;
pub mod monitor;
pub mod nets;
pub mod objects;
pub mod plug;
pub mod privileges;
pub mod qom;
pub mod qtest;
pub mod runstate;
pub mod signals;
pub mod start;
#[cfg(test)]
pub(crate) mod testing;
pub mod vm;

/// The version that QMP reports: the interface's numbers, and ours as the packager's suffix.
pub fn version() -> qmp::VersionInfo {
    let mut numbers = cli::INTERFACE_VERSION.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let (major, minor, micro) = (next(), next(), next());
    qmp::VersionInfo {
        qemu: qmp::VersionInfoQemu { micro, minor, major },
        package: concat!(" (vmm ", env!("CARGO_PKG_VERSION"), ")").to_owned(),
    }
}
