//! The CPUID leaves of one processor of a machine.
//!
//! Pure. Sources: Intel SDM volume 2A (CPUID), AMD APM volume 3 appendix E,
//! `Documentation/virt/kvm/x86/cpuid.rst`, and Microsoft's Hypervisor Top Level Functional
//! Specification for the Hyper-V leaves.
//!
//! Any thread, no lock; its input is checked by [`super::spec`].

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::{
    CpuModel, Source,
    features::{Features, KVM, W7_1_EAX, W7_1_EDX, WD_1_EAX, WORDS, register},
    host::is_amd,
};
use crate::cpu::topology::Topology;

/// Leaves whose answer depends on ECX.
const INDEXED: [u32; 16] = [
    0x4,
    0x7,
    0xb,
    0xd,
    0xf,
    0x10,
    0x12,
    0x14,
    0x17,
    0x18,
    0x1d,
    0x1e,
    0x1f,
    0x24,
    0x8000_001d,
    0x8000_0020,
];

/// Leaves of the host that are never copied: this module writes them, they tell of the host's own
/// topology or power, or they belong to features that are withheld (resource control, SGX,
/// encryption).
const OURS: [u32; 16] = [
    0x5,
    0xb,
    0xd,
    0xf,
    0x10,
    0x12,
    0x1b,
    0x1f,
    0x8000_0002,
    0x8000_0003,
    0x8000_0004,
    0x8000_001e,
    0x8000_001f,
    0x8000_0020,
    0x8000_0023,
    0x8000_0026,
];

/// Where KVM's leaves start, and where they move to when the Hyper-V ones take that place.
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_MOVED: u32 = 0x4000_0100;

/// The area that XSAVE always writes: legacy region and header.
const XSAVE_MIN: u32 = 576;

/// The leaves under construction.
struct Leaves(Vec<kvm_cpuid_entry2>);

impl Leaves {
    /// The entry of a leaf, made with zeros if it is not there.
    fn at(&mut self, function: u32, index: u32) -> &mut kvm_cpuid_entry2 {
        let found = self.0.iter().position(|e| e.function == function && e.index == index);
        let i = found.unwrap_or_else(|| {
            let flags =
                if INDEXED.contains(&function) { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
            self.0.push(kvm_cpuid_entry2 { function, index, flags, ..Default::default() });
            self.0.len() - 1
        });
        &mut self.0[i]
    }

    fn set(&mut self, function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) {
        let entry = self.at(function, index);
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (eax, ebx, ecx, edx);
    }

    fn drop(&mut self, function: u32) {
        self.0.retain(|e| e.function != function);
    }
}

/// One cache of the named models, which do not show the host's.
struct Cache {
    level: u32,
    /// 1 data, 2 instructions, 3 both.
    kind: u32,
    ways: u32,
    sets: u32,
}

const CACHES: [Cache; 4] = [
    Cache { level: 1, kind: 1, ways: 8, sets: 64 },
    Cache { level: 1, kind: 2, ways: 8, sets: 64 },
    Cache { level: 2, kind: 3, ways: 8, sets: 1024 },
    Cache { level: 3, kind: 3, ways: 16, sets: 16384 },
];

const LINE: u32 = 64;

impl Cache {
    fn kib(&self) -> u32 {
        self.ways * self.sets * LINE / 1024
    }
}

impl CpuModel {
    /// The CPUID leaves of processor `index` of a machine; for KVM_SET_CPUID2 on the vCPU whose id
    /// is `topology.apic_id(index)`.
    #[must_use]
    pub fn cpuid(&self, topology: &Topology, index: u32) -> Vec<kvm_cpuid_entry2> {
        let amd = is_amd(&self.vendor);
        let apic_id = topology.apic_id(index);
        let mut leaves = Leaves(Vec::with_capacity(64));
        match self.source {
            Source::Host => self.copy_host(&mut leaves),
            Source::Named(_) => self.caches(&mut leaves, amd),
        }

        self.identity(&mut leaves);
        let mut features = self.features;
        let logical = topology.threads_per_socket();
        if logical > 1 {
            let multi = Features::list(if amd { "ht cmp-legacy" } else { "ht" });
            features = features.union(&multi);
        }
        for (word, bits) in WORDS.iter().zip(features.0).take(KVM) {
            if bits != 0 || leaves.0.iter().any(|e| word.is_in(e)) {
                *register(leaves.at(word.leaf, word.subleaf), word.reg) = bits;
            }
        }
        let lines = if self.has("clflush") { LINE / 8 } else { 0 };
        let leaf1 = leaves.at(1, 0);
        leaf1.eax = self.signature;
        leaf1.ebx = (apic_id << 24) | (logical.min(255) << 16) | (lines << 8);
        if self.features.0[W7_1_EAX] != 0 || self.features.0[W7_1_EDX] != 0 {
            let leaf7 = leaves.at(7, 0);
            leaf7.eax = leaf7.eax.max(1);
        }

        self.sizes(&mut leaves, topology, amd);
        self.xsave(&mut leaves);
        if self.has("svm") {
            let host = self.host.leaf(0x8000_000a, 0).copied().unwrap_or_default();
            let svm = leaves.at(0x8000_000a, 0);
            (svm.eax, svm.ebx) = (host.eax, host.ebx);
        } else {
            leaves.drop(0x8000_000a);
        }
        if !self.has("intel-pt") {
            leaves.drop(0x14);
        }
        if !self.has("amx-tile") {
            leaves.drop(0x1d);
            leaves.drop(0x1e);
        }
        self.topology(&mut leaves, topology, apic_id, amd);
        leaves.0.retain(|e| match e.function {
            0..HYPERVISOR => e.function <= self.level,
            0x8000_0001.. => e.function <= self.xlevel,
            _ => true,
        });
        self.hypervisor(&mut leaves, topology);
        leaves.0.sort_by_key(|e| (e.function, e.index));
        leaves.0
    }

    /// Starts from what KVM reports, without what must not be copied and what says nothing.
    fn copy_host(&self, leaves: &mut Leaves) {
        leaves.0.extend(self.host.entries.iter().filter(|e| {
            !OURS.contains(&e.function)
                && !(HYPERVISOR..0x8000_0000).contains(&e.function)
                && (e.eax, e.ebx, e.ecx, e.edx) != (0, 0, 0, 0)
        }));
        if !self.has("perfctr-core") {
            leaves.drop(0x8000_0022);
        }
        if !self.pmu {
            leaves.drop(0xa);
        }
    }

    /// Vendor, levels and brand string.
    fn identity(&self, leaves: &mut Leaves) {
        let [b, d, c] = [0, 4, 8].map(|at| {
            let bytes = self.vendor.get(at..at + 4).and_then(|s| s.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        });
        leaves.set(0, 0, [self.level, b, c, d]);
        leaves.set(0x8000_0000, 0, [self.xlevel, b, c, d]);
        if self.xlevel < 0x8000_0001 {
            leaves.set(0x8000_0000, 0, [0; 4]);
        }
        // AMD repeats the signature here.
        leaves.at(0x8000_0001, 0).eax = if is_amd(&self.vendor) { self.signature } else { 0 };
        let mut brand = [0u8; 48];
        for (to, from) in brand.iter_mut().zip(self.brand.bytes()) {
            *to = from;
        }
        let mut words =
            brand.chunks_exact(4).map(|c| c.try_into().map(u32::from_le_bytes).unwrap_or_default());
        for leaf in 0x8000_0002..=0x8000_0004 {
            let registers = [(); 4].map(|()| words.next().unwrap_or(0));
            leaves.set(leaf, 0, registers);
        }
    }

    /// Widths of addresses, and AMD's count of threads.
    fn sizes(&self, leaves: &mut Leaves, topology: &Topology, amd: bool) {
        // KVM takes 48, 57 or (not said) 0 bits of virtual address.
        let linear = match (self.has("lm"), self.has("la57")) {
            (false, _) => 0,
            (true, false) => 48,
            (true, true) => 57,
        };
        let leaf = leaves.at(0x8000_0008, 0);
        // The host's widest guest-physical address (bits 23:16) counts if the width is the host's.
        let guest = if self.phys_bits == self.host.phys_bits() { leaf.eax & 0xff_0000 } else { 0 };
        leaf.eax = guest | (linear << 8) | self.phys_bits;
        leaf.ecx = if amd {
            (topology.package_shift() << 12) | (topology.threads_per_socket() - 1).min(255)
        } else {
            0
        };
        leaf.edx = 0;
    }

    /// Leaf 0xD: the components the processor's features use, at the host's offsets.
    fn xsave(&self, leaves: &mut Leaves) {
        leaves.drop(0xd);
        let host = |index| self.host.leaf(0xd, index).copied().unwrap_or_default();
        if !self.has("xsave") {
            return;
        }
        let components = |table: &[(&str, u64)]| {
            table.iter().filter(|(f, _)| self.has(f)).fold(0, |all, (_, bits)| all | bits)
        };
        let user = 0b11
            | components(&[
                ("avx", 1 << 2),
                ("mpx", 0b11 << 3),
                ("avx512f", 0b111 << 5),
                ("pku", 1 << 9),
                ("amx-tile", 0b11 << 17),
            ]);
        let supervisor = components(&[
            ("intel-pt", 1 << 8),
            ("shstk", 0b11 << 11),
            ("ibt", 0b11 << 11),
            ("arch-lbr", 1 << 15),
        ]);
        let offered = host(0);
        let xcr0 = user & (u64::from(offered.eax) | (u64::from(offered.edx) << 32));
        let offered = host(1);
        let xss = if self.has("xsaves") {
            supervisor & (u64::from(offered.ecx) | (u64::from(offered.edx) << 32))
        } else {
            0
        };
        // The size of the area as XSAVE and as XSAVEC lay it out.
        let (mut size, mut compact) = (XSAVE_MIN, XSAVE_MIN);
        for index in 2..63 {
            let entry = host(index);
            if (xcr0 | xss) >> index & 1 == 1 {
                leaves.set(0xd, index, [entry.eax, entry.ebx, entry.ecx, entry.edx]);
                let align = if entry.ecx & 2 != 0 { 64 } else { 1 };
                compact = compact.next_multiple_of(align).saturating_add(entry.eax);
            }
            if xcr0 >> index & 1 == 1 {
                size = size.max(entry.eax.saturating_add(entry.ebx));
            }
        }
        let low = |mask: u64| u32::try_from(mask & 0xffff_ffff).unwrap_or_default();
        // EBX follows XCR0 and IA32_XSS: KVM keeps it. Where it does not, room for all is safe.
        leaves.set(0xd, 0, [low(xcr0), size, size, low(xcr0 >> 32)]);
        let compact = if self.has("xsavec") || self.has("xsaves") { compact } else { 0 };
        leaves.set(0xd, 1, [self.features.0[WD_1_EAX], compact, low(xss), low(xss >> 32)]);
    }

    /// The caches of a named model; who shares them is filled in by [`Self::topology`].
    fn caches(&self, leaves: &mut Leaves, amd: bool) {
        let geometry = |c: &Cache| {
            [0x100 | (c.level << 5) | c.kind, ((c.ways - 1) << 22) | (LINE - 1), c.sets - 1, 0]
        };
        let describe = |leaves: &mut Leaves, leaf: u32| {
            for (i, cache) in (0..).zip(&CACHES) {
                leaves.set(leaf, i, geometry(cache));
            }
        };
        if !amd {
            // 0xFF: see leaf 4. Below level 4: 32 KiB level 1 and 2 MiB level 2 descriptors.
            let old = [1, 0, 0, 0x002c_307d];
            leaves.set(2, 0, if self.level < 4 { old } else { [0x00ff_0001, 0, 0, 0] });
            describe(leaves, 4);
            return;
        }
        let [data, code, second, third] = &CACHES;
        let first = |c: &Cache| (c.kib() << 24) | (c.ways << 16) | (1 << 8) | LINE;
        // The first two registers are TLBs: 255 entries, fully associative; 512, 4-way.
        leaves.set(0x8000_0005, 0, [0xff01_ff01, 0xff01_ff01, first(data), first(code)]);
        // Associativity is a code: 6 is 8-way, 8 is 16-way. The third level counts in 512 KiB.
        let l2 = (second.kib() << 16) | (6 << 12) | (1 << 8) | LINE;
        let l3 = (third.kib() / 512) << 18 | (8 << 12) | (1 << 8) | LINE;
        leaves.set(0x8000_0006, 0, [0, 0x4200_4200, l2, l3]);
        if self.has("topoext") {
            describe(leaves, 0x8000_001d);
        }
    }

    /// Who shares caches, and where in the machine this processor is.
    fn topology(&self, leaves: &mut Leaves, topology: &Topology, apic_id: u32, amd: bool) {
        let core_ids = (1 << (topology.package_shift() - topology.core_shift())) - 1;
        if !self.has("topoext") {
            leaves.drop(0x8000_001d);
        }
        for entry in leaves.0.iter_mut().filter(|e| matches!(e.function, 0x4 | 0x8000_001d)) {
            if entry.eax & 0x1f == 0 {
                continue;
            }
            // The first two levels belong to a core, the others to the socket.
            let shift = if (entry.eax >> 5) & 7 >= 3 {
                topology.package_shift()
            } else {
                topology.core_shift()
            };
            entry.eax = (entry.eax & 0x3fff) | (((1 << shift) - 1) << 14);
            if entry.function == 4 {
                entry.eax |= core_ids.min(63) << 26;
            }
        }
        for leaf in [0xb, 0x1f] {
            if leaf == 0x1f && (amd || matches!(self.source, Source::Named(_))) {
                continue;
            }
            let threads = topology.threads();
            leaves.set(leaf, 0, [topology.core_shift(), threads, 1 << 8, apic_id]);
            let logical = topology.threads_per_socket();
            leaves.set(leaf, 1, [topology.package_shift(), logical, (2 << 8) | 1, apic_id]);
            leaves.set(leaf, 2, [0, 0, 2, apic_id]);
        }
        if self.has("topoext") {
            let core = apic_id >> topology.core_shift() & core_ids;
            let node = apic_id >> topology.package_shift();
            let ebx = ((topology.threads() - 1) << 8) | core;
            leaves.set(0x8000_001e, 0, [apic_id, ebx, node, 0]);
        }
    }

    /// The hypervisor's own leaves.
    fn hypervisor(&self, leaves: &mut Leaves, topology: &Topology) {
        let hv = &self.hyperv;
        let windows = hv.relaxed || hv.vapic || hv.time || hv.spinlocks.is_some();
        if windows {
            let flag = |on: bool, bit: u32| u32::from(on) << bit;
            // "Microsoft Hv" and "Hv#1".
            leaves.set(HYPERVISOR, 0, [HYPERVISOR + 5, 0x7263_694d, 0x666f_736f, 0x7648_2074]);
            leaves.set(HYPERVISOR + 1, 0, [0x3123_7648, 0, 0, 0]);
            leaves.set(HYPERVISOR + 2, 0, [0; 4]);
            // Hypercall MSRs and the processor's index always; then counters and APIC MSRs.
            let partition = flag(true, 5) | flag(true, 6) | flag(hv.vapic, 4);
            let partition = partition | flag(hv.time, 1) | flag(hv.time, 9);
            leaves.set(HYPERVISOR + 3, 0, [partition, 0, 0, 0]);
            let advice = flag(hv.vapic, 3) | flag(hv.relaxed, 5);
            leaves.set(HYPERVISOR + 4, 0, [advice, hv.spinlocks.unwrap_or(u32::MAX), 0, 0]);
            leaves.set(HYPERVISOR + 5, 0, [topology.max_cpus(), 64, 0, 0]);
        }
        if self.kvm {
            let base = if windows { HYPERVISOR_MOVED } else { HYPERVISOR };
            // "KVMKVMKVM\0\0\0".
            leaves.set(base, 0, [base + 1, 0x4b4d_564b, 0x564b_4d56, 0x4d]);
            leaves.set(base + 1, 0, [self.features.0[KVM], 0, 0, 0]);
        } else if !windows {
            // Said to be empty: an Intel processor would answer with its highest basic leaf.
            leaves.set(HYPERVISOR, 0, [0; 4]);
        }
    }
}
