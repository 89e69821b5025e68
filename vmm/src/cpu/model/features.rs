//! CPUID feature bits and their names.
//!
//! Pure data and set operations; any thread, no lock. Sources: Intel SDM volume 2A (CPUID), AMD APM
//! volume 3 appendix E, and the kernel's `Documentation/virt/kvm/x86/cpuid.rst` for KVM's own leaf.

use std::sync::LazyLock;

use kvm_bindings::kvm_cpuid_entry2;

/// A register of a CPUID leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reg {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// One 32-bit register of CPUID that holds feature bits.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) leaf: u32,
    pub(super) subleaf: u32,
    pub(super) reg: Reg,
    /// The bits' names, separated by spaces, in order from bit 0; `-` is a bit without a name, `N*`
    /// skips N bits, `a|b` gives the second name as an alias.
    names: &'static str,
}

impl Word {
    /// Whether `entry` is the leaf and subleaf this word is in.
    pub(super) fn is_in(&self, entry: &kvm_cpuid_entry2) -> bool {
        entry.function == self.leaf && entry.index == self.subleaf
    }

    /// The word's names as (bit, names of that bit).
    fn bits(&self) -> impl Iterator<Item = (u32, &'static str)> {
        let mut bit = 0;
        self.names.split_ascii_whitespace().filter_map(move |name| {
            if let Some(skip) = name.strip_suffix('*') {
                bit += skip.parse::<u32>().unwrap_or(0);
                return None;
            }
            bit += 1;
            (name != "-").then_some((bit - 1, name))
        })
    }
}

/// Reads one register of a CPUID entry.
pub(super) fn register(entry: &mut kvm_cpuid_entry2, reg: Reg) -> &mut u32 {
    match reg {
        Reg::Eax => &mut entry.eax,
        Reg::Ebx => &mut entry.ebx,
        Reg::Ecx => &mut entry.ecx,
        Reg::Edx => &mut entry.edx,
    }
}

/// Indices into [`WORDS`].
pub(super) const W1_EDX: usize = 0;
pub(super) const W7_1_EAX: usize = 5;
pub(super) const W7_1_EDX: usize = 6;
pub(super) const WD_1_EAX: usize = 7;
pub(super) const W81_EDX: usize = 9;
pub(super) const KVM: usize = 15;

/// All words of features, in the order they are listed for `-cpu help`.
pub(super) const WORDS: [Word; 16] = [
    Word {
        leaf: 1,
        subleaf: 0,
        reg: Reg::Edx,
        names: "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush \
                - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
    },
    Word {
        leaf: 1,
        subleaf: 0,
        reg: Reg::Ecx,
        names: "pni|sse3 pclmulqdq|pclmuldq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma \
                cx16 xtpr pdcm - pcid dca sse4.1|sse4-1 sse4.2|sse4-2 x2apic movbe popcnt \
                tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor",
    },
    Word {
        leaf: 7,
        subleaf: 0,
        reg: Reg::Ebx,
        names: "fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm \
                rdt-m zero-fcs-fds mpx rdt-a avx512f avx512dq rdseed adx smap avx512ifma pcommit \
                clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl",
    },
    Word {
        leaf: 7,
        subleaf: 0,
        reg: Reg::Ecx,
        names: "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512vbmi2 shstk gfni vaes vpclmulqdq \
                avx512vnni avx512bitalg tme avx512-vpopcntdq - la57 5* rdpid kl bus-lock-detect \
                cldemote - movdiri movdir64b enqcmd sgxlc pks",
    },
    Word {
        leaf: 7,
        subleaf: 0,
        reg: Reg::Edx,
        names: "- sgx-keys avx512-4vnniw avx512-4fmaps fsrm uintr 2* avx512-vp2intersect srbds-ctrl \
                md-clear rtm-always-abort 2* serialize hybrid tsx-ldtrk - pconfig arch-lbr ibt - \
                amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities \
                core-capability ssbd",
    },
    Word {
        leaf: 7,
        subleaf: 1,
        reg: Reg::Eax,
        names: "sha512 sm3 sm4 - avx-vnni avx512-bf16 lass cmpccxadd 2* fzrm fsrs fsrc 4* fred lkgs \
                wrmsrns - amx-fp16 hreset avx-ifma 2* lam",
    },
    Word {
        leaf: 7,
        subleaf: 1,
        reg: Reg::Edx,
        names: "4* avx-vnni-int8 avx-ne-convert 2* amx-complex - avx-vnni-int16 3* prefetchiti",
    },
    Word { leaf: 0xd, subleaf: 1, reg: Reg::Eax, names: "xsaveopt xsavec xgetbv1 xsaves xfd" },
    Word { leaf: 6, subleaf: 0, reg: Reg::Eax, names: "2* arat" },
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        reg: Reg::Edx,
        // The bits left out repeat those of leaf 1 on AMD processors: see `AMD_REPEATS`.
        names: "11* syscall 7* mp nx - mmxext 2* fxsr-opt|ffxsr pdpe1gb rdtscp - lm|i64 3dnowext 3dnow",
    },
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        reg: Reg::Ecx,
        names: "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw \
                ibs xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core \
                perfctr-nb 4* mwaitx",
    },
    Word { leaf: 0x8000_0007, subleaf: 0, reg: Reg::Edx, names: "8* invtsc" },
    Word {
        leaf: 0x8000_0008,
        subleaf: 0,
        reg: Reg::Ebx,
        names: "clzero - xsaveerptr - rdpru 4* wbnoinvd 2* ibpb - ibrs amd-stibp - stibp-always-on \
                5* amd-ppin amd-ssbd virt-ssbd amd-no-ssb - amd-psfd",
    },
    Word {
        leaf: 0x8000_0021,
        subleaf: 0,
        reg: Reg::Eax,
        names: "no-nested-data-bp - lfence-always-serializing 3* null-sel-clr-base - auto-ibrs",
    },
    Word {
        leaf: 0x8000_000a,
        subleaf: 0,
        reg: Reg::Edx,
        names: "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists 2* \
                pause-filter - pfthreshold avic - v-vmsave-vmload vgif 8* vnmi 2* svme-addr-chk",
    },
    Word {
        leaf: 0x4000_0001,
        subleaf: 0,
        reg: Reg::Eax,
        // Bits 0 and 3 are the old and the new clock; who says kvmclock means both.
        names: "kvmclock kvm-nopiodelay kvm-mmu kvmclock kvm-asyncpf kvm-steal-time kvm-pv-eoi \
                kvm-pv-unhalt - kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control \
                kvm-pv-sched-yield kvm-asyncpf-int kvm-msi-ext-dest-id 8* kvmclock-stable-bit",
    },
];

/// The bits of leaf 1 EDX that AMD processors repeat in leaf 0x80000001 EDX (APM volume 3).
pub(super) const AMD_REPEATS: u32 = 0x0183_f3ff;

/// A feature, and those that mean nothing without it: an operating system may use what it finds
/// here without looking at the first.
const NEEDS: [(&str, &str); 9] = [
    ("xsave", "avx xsaveopt xsavec xgetbv1 xsaves xfd pku mpx amx-tile"),
    (
        "avx",
        "avx2 fma f16c fma4 xop vaes vpclmulqdq avx-vnni avx-ifma avx-vnni-int8 avx-vnni-int16 \
             avx-ne-convert avx512f",
    ),
    (
        "avx512f",
        "avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi \
                 avx512vbmi2 avx512vnni avx512bitalg avx512-vpopcntdq avx512-4vnniw avx512-4fmaps \
                 avx512-vp2intersect avx512-fp16 avx512-bf16",
    ),
    ("amx-tile", "amx-bf16 amx-int8 amx-fp16 amx-complex"),
    ("fxsr", "sse fxsr-opt"),
    ("sse", "sse2"),
    ("sse2", "pni ssse3 sse4.1 sse4.2 sse4a"),
    (
        "svm",
        "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists \
             pause-filter pfthreshold avic v-vmsave-vmload vgif vnmi svme-addr-chk",
    ),
    ("lm", "la57 pdpe1gb"),
];

/// A set of features: one 32-bit register for each of [`WORDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Features(pub(super) [u32; WORDS.len()]);

impl Features {
    /// The features with that name (an alias, or one name for several bits, is fine), written with
    /// `-`; `None` when there is no such name.
    pub(super) fn named(name: &str) -> Option<Self> {
        /// Every name with its word and bit, in order: a start looks up hundreds of names.
        static INDEX: LazyLock<Vec<(&str, usize, u32)>> = LazyLock::new(|| {
            let mut index = Vec::new();
            for (at, word) in WORDS.iter().enumerate() {
                for (bit, names) in word.bits() {
                    index.extend(names.split('|').map(|name| (name, at, bit)));
                }
            }
            index.sort_unstable();
            index
        });
        let from = INDEX.partition_point(|(known, ..)| *known < name);
        let mut set = Self::default();
        for (_, at, bit) in INDEX.iter().skip(from).take_while(|(known, ..)| *known == name) {
            if let Some(bits) = set.0.get_mut(*at) {
                *bits |= 1 << bit;
            }
        }
        (!set.is_empty()).then_some(set)
    }

    /// The set with all names of a list separated by spaces. Unknown names are left out: lists are
    /// in the program, and a test checks them.
    pub(super) fn list(names: &str) -> Self {
        names
            .split_ascii_whitespace()
            .filter_map(Self::named)
            .fold(Self::default(), |all, one| all.union(&one))
    }

    /// Picks the feature bits out of CPUID entries.
    pub(super) fn of(entries: &[kvm_cpuid_entry2]) -> Self {
        let mut set = Self::default();
        for (word, bits) in WORDS.iter().zip(&mut set.0) {
            for entry in entries.iter().filter(|e| word.is_in(e)) {
                *bits |= *register(&mut entry.clone(), word.reg);
            }
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|bits| *bits == 0)
    }

    /// Whether any bit of the named feature is in the set.
    pub(super) fn has(&self, name: &str) -> bool {
        Self::named(name).is_some_and(|f| !self.intersection(&f).is_empty())
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    pub(super) fn minus(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    fn combine(&self, other: &Self, f: impl Fn(u32, u32) -> u32) -> Self {
        let mut set = *self;
        for (a, b) in set.0.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        set
    }

    /// The set without the features that need one that is not in it.
    pub(super) fn without_orphans(&self) -> Self {
        // The table goes from what is needed most to what is needed least: one pass is enough.
        NEEDS.iter().fold(
            *self,
            |set, (needed, by)| {
                if set.has(needed) { set } else { set.minus(&Self::list(by)) }
            },
        )
    }

    /// The names of the features in the set (the first name of each bit), each once.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut found = Vec::new();
        for (word, set) in WORDS.iter().zip(self.0) {
            for (bit, names) in word.bits() {
                let name = names.split('|').next().unwrap_or(names);
                if set & (1 << bit) != 0 && !found.contains(&name) {
                    found.push(name);
                }
            }
        }
        found
    }

    /// The highest basic, extended and SVM leaf that holds a bit of the set, as (basic, extended);
    /// zero where there is none.
    pub(super) fn highest_leaves(&self) -> (u32, u32) {
        let mut highest = (0, 0);
        for (word, _) in WORDS.iter().zip(self.0).filter(|(_, bits)| *bits != 0) {
            match word.leaf {
                0..0x4000_0000 => highest.0 = highest.0.max(word.leaf),
                0x8000_0000.. => highest.1 = highest.1.max(word.leaf),
                _ => {}
            }
        }
        highest
    }
}

/// Every feature name, aliases too.
pub(super) fn all_names() -> impl Iterator<Item = &'static str> {
    WORDS.iter().flat_map(|word| word.bits().flat_map(|(_, names)| names.split('|')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_at_their_bits() {
        // One near the end of each word: a name lost or doubled before it would move it.
        for (name, word, bit) in [
            ("sse2", W1_EDX, 26),
            ("pbe", W1_EDX, 31),
            ("hypervisor", 1, 31),
            ("sse4-2", 1, 20),
            ("avx512vl", 2, 31),
            ("smap", 2, 20),
            ("pks", 3, 31),
            ("rdpid", 3, 22),
            ("la57", 3, 16),
            ("ssbd", 4, 31),
            ("serialize", 4, 14),
            ("spec-ctrl", 4, 26),
            ("lam", W7_1_EAX, 26),
            ("fred", W7_1_EAX, 17),
            ("prefetchiti", W7_1_EDX, 14),
            ("xfd", WD_1_EAX, 4),
            ("arat", 8, 2),
            ("3dnow", W81_EDX, 31),
            ("syscall", W81_EDX, 11),
            ("nx", W81_EDX, 20),
            ("lm", W81_EDX, 29),
            ("mwaitx", 10, 29),
            ("topoext", 10, 22),
            ("invtsc", 11, 8),
            ("amd-psfd", 12, 28),
            ("ibpb", 12, 12),
            ("auto-ibrs", 13, 8),
            ("svme-addr-chk", 14, 28),
            ("vgif", 14, 16),
            ("kvmclock-stable-bit", KVM, 24),
            ("kvm-msi-ext-dest-id", KVM, 15),
        ] {
            let mut expected = Features::default();
            expected.0[word] = 1 << bit;
            assert_eq!(Features::named(name), Some(expected), "{name}");
        }
        assert_eq!(Features::named("kvmclock").unwrap().0[KVM], 0b1001);
        assert_eq!(Features::named("nonsense"), None);
        assert_eq!(Features::named("-"), None);
        assert_eq!(Features::named(""), None);
    }

    #[test]
    fn every_word_fits_32_bits_and_every_need_is_a_feature() {
        for word in &WORDS {
            assert!(word.bits().all(|(bit, _)| bit < 32), "{:x}", word.leaf);
        }
        for (needed, by) in NEEDS {
            for name in by.split_ascii_whitespace().chain([needed]) {
                assert!(Features::named(name).is_some(), "{name}");
            }
        }
        assert!(all_names().all(|n| !n.contains('_') && !n.is_empty()));
    }

    #[test]
    fn what_needs_a_missing_feature_goes_with_it() {
        let all = Features([u32::MAX; WORDS.len()]);
        let without = |name| all.minus(&Features::named(name).unwrap()).without_orphans();
        assert!(!without("xsave").has("avx512bw"));
        assert!(!without("xsave").has("amx-int8"));
        assert!(without("avx2").has("avx"));
        assert!(!without("svm").has("npt"));
        assert_eq!(all.without_orphans(), all);
    }
}
