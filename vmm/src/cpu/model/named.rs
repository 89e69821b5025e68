//! The named processor models: what CPUID of each says.
//!
//! Pure data. Signatures, levels and features are those of the processors (and, for the virtual
//! ones, of the names users know them by); features that KVM never offers to a guest (thermal and
//! power management, MONITOR, debug store) and those that follow from the topology are left out.
//!
//! Any thread, no lock.

use super::features::Features;

/// A named model.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: &'static str,
    /// The highest basic leaf; more is given when a feature asked for lies higher.
    pub(super) level: u32,
    /// The highest extended leaf.
    pub(super) xlevel: u32,
    pub(super) family: u32,
    pub(super) model: u32,
    pub(super) stepping: u32,
    /// The brand string.
    pub(super) id: &'static str,
    base: Base,
    /// The features beyond the base.
    more: &'static str,
}

/// The feature lists that models build on, each holding the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Base {
    I486,
    Pentium,
    PentiumPro,
    Pentium2,
    /// What every 64-bit operating system takes for granted, but for long mode itself.
    Modern,
    /// `Modern` in 64 bits.
    Long,
}

const BASES: [(Base, &str); 6] = [
    (Base::I486, "fpu pse"),
    (Base::Pentium, "de tsc msr mce cx8 mmx"),
    (Base::PentiumPro, "pae apic sep pge cmov pat fxsr"),
    (Base::Pentium2, "mtrr mca pse36"),
    (Base::Modern, "sse sse2 clflush pni"),
    (Base::Long, "syscall nx lm"),
];

impl Named {
    pub(super) fn features(&self) -> Features {
        BASES
            .iter()
            .filter(|(base, _)| *base <= self.base)
            .fold(Features::list(self.more), |all, (_, names)| all.union(&Features::list(names)))
    }

    #[cfg(test)]
    pub(super) fn feature_names(&self) -> impl Iterator<Item = &'static str> {
        BASES.iter().map(|b| b.1).chain([self.more]).flat_map(str::split_ascii_whitespace)
    }
}

/// Looks a model up by its exact name.
pub(super) fn find(name: &str) -> Option<&'static Named> {
    MODELS.iter().find(|m| m.name == name)
}

#[rustfmt::skip]
pub(super) const MODELS: [Named; 25] = [
    Named { name: "qemu64", level: 0xd, xlevel: 0x8000_000a, family: 15, model: 107, stepping: 1,
        id: "QEMU Virtual CPU version 2.5+", base: Base::Long, more: "cx16 lahf-lm" },
    Named { name: "phenom", level: 5, xlevel: 0x8000_001a, family: 16, model: 2, stepping: 3,
        id: "AMD Phenom(tm) 9550 Quad-Core Processor", base: Base::Long,
        more: "vme cx16 popcnt lahf-lm abm sse4a mmxext fxsr-opt pdpe1gb rdtscp 3dnowext 3dnow" },
    Named { name: "core2duo", level: 10, xlevel: 0x8000_0008, family: 6, model: 15, stepping: 11,
        id: "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz", base: Base::Long,
        more: "vme ss ssse3 cx16 lahf-lm" },
    Named { name: "kvm64", level: 0xd, xlevel: 0x8000_0008, family: 15, model: 6, stepping: 1,
        id: "Common KVM processor", base: Base::Long, more: "vme cx16" },
    Named { name: "qemu32", level: 4, xlevel: 0x8000_0004, family: 6, model: 6, stepping: 3,
        id: "QEMU Virtual CPU version 2.5+", base: Base::Modern, more: "" },
    Named { name: "kvm32", level: 5, xlevel: 0x8000_0008, family: 15, model: 6, stepping: 1,
        id: "Common 32-bit KVM processor", base: Base::Modern, more: "vme" },
    Named { name: "coreduo", level: 10, xlevel: 0x8000_0008, family: 6, model: 14, stepping: 8,
        id: "Genuine Intel(R) CPU           T2600  @ 2.16GHz", base: Base::Modern, more: "vme ss nx" },
    Named { name: "486", level: 1, xlevel: 0, family: 4, model: 8, stepping: 0,
        id: "", base: Base::I486, more: "vme" },
    Named { name: "pentium", level: 1, xlevel: 0, family: 5, model: 4, stepping: 3,
        id: "", base: Base::Pentium, more: "vme" },
    Named { name: "pentium2", level: 2, xlevel: 0, family: 6, model: 5, stepping: 2,
        id: "", base: Base::Pentium2, more: "vme" },
    Named { name: "pentium3", level: 3, xlevel: 0, family: 6, model: 7, stepping: 3,
        id: "", base: Base::Pentium2, more: "vme sse" },
    Named { name: "athlon", level: 2, xlevel: 0x8000_0008, family: 6, model: 2, stepping: 3,
        id: "AMD Athlon(tm) Processor", base: Base::Pentium2, more: "vme sse sse2 mmxext 3dnowext 3dnow" },
    Named { name: "n270", level: 10, xlevel: 0x8000_0008, family: 6, model: 28, stepping: 2,
        id: "Intel(R) Atom(TM) CPU N270   @ 1.60GHz", base: Base::Modern,
        more: "vme ss ssse3 movbe nx lahf-lm" },
    Named { name: "Conroe", level: 10, xlevel: 0x8000_0008, family: 6, model: 15, stepping: 3,
        id: "Intel Celeron_4x0 (Conroe/Merom Class Core 2)", base: Base::Long, more: "vme ssse3 lahf-lm" },
    Named { name: "Penryn", level: 10, xlevel: 0x8000_0008, family: 6, model: 23, stepping: 3,
        id: "Intel Core 2 Duo P9xxx (Penryn Class Core 2)", base: Base::Long,
        more: "vme ssse3 cx16 sse4.1 lahf-lm" },
    Named { name: "Nehalem", level: 11, xlevel: 0x8000_0008, family: 6, model: 26, stepping: 3,
        id: "Intel Core i7 9xx (Nehalem Class Core i7)", base: Base::Long,
        more: "vme ssse3 cx16 sse4.1 sse4.2 popcnt lahf-lm" },
    Named { name: "Westmere", level: 11, xlevel: 0x8000_0008, family: 6, model: 44, stepping: 1,
        id: "Westmere E56xx/L56xx/X56xx (Nehalem-C)", base: Base::Long,
        more: "vme ssse3 cx16 sse4.1 sse4.2 popcnt aes pclmulqdq arat lahf-lm" },
    Named { name: "SandyBridge", level: 0xd, xlevel: 0x8000_0008, family: 6, model: 42, stepping: 1,
        id: "Intel Xeon E312xx (Sandy Bridge)", base: Base::Long,
        more: "vme ssse3 cx16 sse4.1 sse4.2 popcnt aes pclmulqdq x2apic tsc-deadline xsave avx \
               xsaveopt arat rdtscp lahf-lm" },
    // Without TSX, which microcode updates have taken from nearly all of them.
    Named { name: "Haswell", level: 0xd, xlevel: 0x8000_0008, family: 6, model: 60, stepping: 1,
        id: "Intel Core Processor (Haswell)", base: Base::Long,
        more: "vme ssse3 cx16 sse4.1 sse4.2 popcnt aes pclmulqdq x2apic tsc-deadline xsave avx \
               xsaveopt arat rdtscp lahf-lm fma pcid movbe f16c rdrand fsgsbase bmi1 avx2 smep \
               bmi2 erms invpcid" },
    Named { name: "Opteron_G1", level: 5, xlevel: 0x8000_0008, family: 15, model: 6, stepping: 1,
        id: "AMD Opteron 240 (Gen 1 Class Opteron)", base: Base::Long, more: "vme" },
    Named { name: "Opteron_G2", level: 5, xlevel: 0x8000_0008, family: 15, model: 6, stepping: 1,
        id: "AMD Opteron 22xx (Gen 2 Class Opteron)", base: Base::Long, more: "vme cx16 lahf-lm" },
    Named { name: "Opteron_G3", level: 5, xlevel: 0x8000_0008, family: 16, model: 2, stepping: 3,
        id: "AMD Opteron 23xx (Gen 3 Class Opteron)", base: Base::Long,
        more: "vme cx16 popcnt lahf-lm abm sse4a misalignsse rdtscp" },
    Named { name: "Opteron_G4", level: 0xd, xlevel: 0x8000_001a, family: 21, model: 1, stepping: 2,
        id: "AMD Opteron 62xx class CPU", base: Base::Long,
        more: "vme cx16 popcnt lahf-lm abm sse4a misalignsse rdtscp ssse3 sse4.1 sse4.2 aes pclmulqdq \
               xsave avx pdpe1gb fma4 xop 3dnowprefetch" },
    Named { name: "Opteron_G5", level: 0xd, xlevel: 0x8000_001a, family: 21, model: 2, stepping: 0,
        id: "AMD Opteron 63xx class CPU", base: Base::Long,
        more: "vme cx16 popcnt lahf-lm abm sse4a misalignsse rdtscp ssse3 sse4.1 sse4.2 aes pclmulqdq \
               xsave avx pdpe1gb fma4 xop 3dnowprefetch fma f16c tbm" },
    Named { name: "EPYC", level: 0xd, xlevel: 0x8000_001e, family: 23, model: 1, stepping: 2,
        id: "AMD EPYC Processor", base: Base::Long,
        more: "vme cx16 popcnt lahf-lm abm sse4a misalignsse rdtscp ssse3 sse4.1 sse4.2 aes pclmulqdq \
               xsave avx pdpe1gb 3dnowprefetch fma f16c movbe rdrand mmxext fxsr-opt cr8legacy \
               osvw topoext fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni \
               xsaveopt xsavec xgetbv1 arat" },
];
