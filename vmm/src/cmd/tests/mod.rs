//! Commands on a machine without KVM.

mod device;
mod object;
mod pci;
mod qom;
