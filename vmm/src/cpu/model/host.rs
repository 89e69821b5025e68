//! What this host's KVM can give a guest processor.
//!
//! Any thread; immutable once made.

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::features::Features;

/// Features KVM may report that must not be passed on: bits that follow guest registers (KVM sets
/// them itself), SGX (it needs a device and memory of its own) and MSI destinations of more than 8
/// bits (the interrupt routes have none).
const WITHHELD: &str = "osxsave ospke sgx sgx-keys sgxlc kvm-msi-ext-dest-id";

/// The processor features and leaves that KVM supports on this host (KVM_GET_SUPPORTED_CPUID and
/// the capabilities that complete it). Nothing outside it is ever given to a guest.
#[derive(Debug, Clone)]
pub struct HostCpu {
    pub(super) entries: Vec<kvm_cpuid_entry2>,
    pub(super) features: Features,
    pub(super) hyperv: HypervCaps,
}

/// The Hyper-V interfaces that KVM emulates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HypervCaps {
    pub(super) base: bool,
    pub(super) vapic: bool,
    pub(super) spinlocks: bool,
    pub(super) time: bool,
}

impl HostCpu {
    /// Asks KVM.
    ///
    /// # Errors
    /// When KVM does not answer KVM_GET_SUPPORTED_CPUID.
    pub fn probe(kvm: &Kvm) -> Result<Self, kvm_ioctls::Error> {
        let entries = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let mut host = Self::from_entries(entries.as_slice());
        if kvm.check_extension(Cap::TscDeadlineTimer) {
            host.features = host.features.union(&Features::list("tsc-deadline"));
        }
        host.hyperv = HypervCaps {
            base: kvm.check_extension(Cap::Hyperv),
            vapic: kvm.check_extension(Cap::HypervVapic),
            spinlocks: kvm.check_extension(Cap::HypervSpin),
            time: kvm.check_extension(Cap::HypervTime),
        };
        Ok(host)
    }

    /// Makes a host of recorded entries: no TSC deadline timer unless they have it, no Hyper-V.
    #[must_use]
    pub fn from_entries(entries: &[kvm_cpuid_entry2]) -> Self {
        let mut host = Self {
            entries: entries.to_vec(),
            features: Features::of(entries),
            hyperv: HypervCaps::default(),
        };
        // Not every KVM says so of itself.
        host.features = host.features.union(&Features::list("hypervisor"));
        host.features = host.features.minus(&Features::list(WITHHELD));
        if is_amd(&host.vendor()) {
            // KVM emulates the MSR everywhere, but no AMD processor has it and some guests stop
            // when they find it there.
            host.features = host.features.minus(&Features::list("arch-capabilities"));
        }
        host
    }

    /// The 12 characters of the vendor string.
    pub(super) fn vendor(&self) -> [u8; 12] {
        self.leaf(0, 0).map_or([0; 12], |e| vendor_of([e.ebx, e.edx, e.ecx]))
    }

    /// The brand string, or `None` if KVM reports a blank one.
    pub(super) fn brand(&self) -> Option<String> {
        let bytes: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .filter_map(|leaf| self.leaf(leaf, 0))
            .flat_map(|e| [e.eax, e.ebx, e.ecx, e.edx])
            .flat_map(u32::to_le_bytes)
            .take_while(|b| *b != 0)
            .collect();
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The width of a physical address in bits.
    pub(super) fn phys_bits(&self) -> u32 {
        self.leaf(0x8000_0008, 0).map_or(36, |e| e.eax & 0xff)
    }

    pub(super) fn leaf(&self, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        self.entries.iter().find(|e| e.function == function && e.index == index)
    }
}

/// Puts a vendor string together from leaf 0's EBX, EDX and ECX.
fn vendor_of(registers: [u32; 3]) -> [u8; 12] {
    let mut vendor = [0; 12];
    for (to, from) in vendor.chunks_exact_mut(4).zip(registers) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    vendor
}

/// Whether the vendor's processors follow the AMD manuals where those differ from Intel's.
pub(super) fn is_amd(vendor: &[u8; 12]) -> bool {
    matches!(vendor, b"AuthenticAMD" | b"HygonGenuine")
}
