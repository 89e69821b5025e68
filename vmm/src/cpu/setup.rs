//! The state a virtual processor starts in.
//!
//! Runs on the vCPU's own thread (its [`kvm_ioctls::VcpuFd`] is the lock).

use vm_memory::GuestAddress;

/// How the boot processor enters the guest; chosen by the boot loader from the image it loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The Linux 64-bit boot protocol: long mode, paging on with an identity map, RIP = `rip`,
    /// RSI = `rsi` (the zero page).
    Long {
        /// Where execution starts (guest-physical, identity-mapped).
        rip: GuestAddress,
        /// The address of `struct boot_params`.
        rsi: GuestAddress,
    },
    /// The PVH protocol of Xen: 32-bit protected mode without paging, EBX = `start_info`.
    Pvh {
        /// Where execution starts; below 4 GiB.
        rip: GuestAddress,
        /// The address of `struct hvm_start_info`; below 4 GiB.
        start_info: GuestAddress,
    },
    /// Multiboot 1: 32-bit protected mode without paging, EAX = 0x2BADB002, EBX = `info`.
    Multiboot {
        /// Where execution starts; below 4 GiB.
        rip: GuestAddress,
        /// The address of the multiboot information structure; below 4 GiB.
        info: GuestAddress,
    },
    /// The architectural reset vector, F000:FFF0 with base 0xFFFF0000: firmware.
    Reset,
}
