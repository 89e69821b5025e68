//! Models held against recorded hosts.

use kvm_bindings::kvm_cpuid_entry2;
use proptest::prelude::*;

use super::{
    features::{Features, WORDS},
    named::MODELS,
    *,
};
use crate::cpu::topology::Topology;

type Rows = &'static [(u32, u32, [u32; 4])];

/// A recorded AMD host (Zen 4) whose KVM emulates supervisor code and offers few features.
const AMD: Rows = &[
    (0x0, 0, [0x1c, 0x68747541, 0x444d4163, 0x69746e65]),
    (0x1, 0, [0xa10f11, 0x1020800, 0x81202000, 0x78bfbff]),
    (0x6, 0, [0x4, 0x0, 0x0, 0x0]),
    (0x7, 0, [0x1, 0x1800002, 0x104, 0x20000000]),
    (0xb, 0, [0x0, 0x0, 0x0, 0x1]),
    (0xd, 0, [0xe7, 0x980, 0x980, 0x0]),
    (0xd, 2, [0x100, 0x240, 0x0, 0x0]),
    (0xd, 5, [0x40, 0x340, 0x0, 0x0]),
    (0xd, 6, [0x200, 0x380, 0x0, 0x0]),
    (0xd, 7, [0x400, 0x580, 0x0, 0x0]),
    (0x40000000, 0, [0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d]),
    (0x40000001, 0, [0x1007efb, 0x0, 0x0, 0x0]),
    (0x80000000, 0, [0x80000021, 0x68747541, 0x444d4163, 0x69746e65]),
    (0x80000001, 0, [0xa10f11, 0x40000000, 0x400393, 0x23d3fbff]),
    (0x80000005, 0, [0xff48ff40, 0xff48ff40, 0x20080140, 0x20080140]),
    (0x80000006, 0, [0x5c002200, 0x6c004200, 0x4006140, 0xa009140]),
    (0x80000007, 0, [0x0, 0x0, 0x0, 0x100]),
    (0x80000008, 0, [0x3030, 0x50020005, 0x7001, 0x0]),
    (0x8000001a, 0, [0x6, 0x0, 0x0, 0x0]),
    (0x8000001d, 0, [0x121, 0x1c0003f, 0x3f, 0x0]),
    (0x8000001d, 1, [0x122, 0x1c0003f, 0x3f, 0x0]),
    (0x8000001d, 2, [0x143, 0x1c0003f, 0x7ff, 0x2]),
    (0x8000001d, 3, [0x4163, 0x3c0003f, 0x7fff, 0x1]),
    (0x80000021, 0, [0x204, 0x0, 0x6, 0x0]),
];

/// An Intel host with AVX-512, XSAVES and nested VMX, as its KVM would report it.
const INTEL: Rows = &[
    (0x0, 0, [0x1f, 0x756e6547, 0x6c65746e, 0x49656e69]),
    (0x1, 0, [0x606a6, 0x0, 0xf7fa3223, 0x1f8bfbff]),
    (0x4, 0, [0x7c004121, 0x2c0003f, 0x3f, 0x0]),
    (0x4, 1, [0x7c004122, 0x1c0003f, 0x3f, 0x0]),
    (0x4, 2, [0x7c004143, 0x4c0003f, 0x3ff, 0x0]),
    (0x4, 3, [0x7c0fc163, 0x2c0003f, 0xffff, 0x4]),
    (0x6, 0, [0x4, 0x0, 0x0, 0x0]),
    (0x7, 0, [0x1, 0xd19f27eb, 0x415f4e, 0xac000410]),
    (0x7, 1, [0x20, 0x0, 0x0, 0x0]),
    (0xa, 0, [0x8300802, 0x0, 0x0, 0x603]),
    (0xb, 0, [0x1, 0x2, 0x100, 0x7]),
    (0xd, 0, [0x2e7, 0xa88, 0xa88, 0x0]),
    (0xd, 1, [0xf, 0xa08, 0x0, 0x0]),
    (0xd, 2, [0x100, 0x240, 0x0, 0x0]),
    (0xd, 5, [0x40, 0x440, 0x0, 0x0]),
    (0xd, 6, [0x200, 0x480, 0x0, 0x0]),
    (0xd, 7, [0x400, 0x680, 0x0, 0x0]),
    (0xd, 9, [0x8, 0xa80, 0x0, 0x0]),
    (0x1f, 0, [0x1, 0x2, 0x100, 0x7]),
    (0x40000000, 0, [0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d]),
    (0x40000001, 0, [0x1007efb, 0x0, 0x0, 0x0]),
    (0x80000000, 0, [0x80000008, 0x756e6547, 0x6c65746e, 0x49656e69]),
    (0x80000001, 0, [0x0, 0x0, 0x121, 0x2c100800]),
    (0x80000002, 0, [0x65746e49, 0x2952286c, 0x6f655820, 0x2952286e]),
    (0x80000007, 0, [0x0, 0x0, 0x0, 0x100]),
    (0x80000008, 0, [0x302e, 0x100d200, 0x0, 0x0]),
];

fn host(rows: Rows) -> HostCpu {
    let entries: Vec<_> = rows
        .iter()
        .map(|&(function, index, [eax, ebx, ecx, edx])| kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        })
        .collect();
    HostCpu::from_entries(&entries)
}

fn model(rows: Rows, option: &str) -> CpuModel {
    CpuSpec::parse(option).unwrap().resolve(&host(rows)).unwrap()
}

fn smp(option: &'static str) -> Topology {
    Topology::parse(option.split(',').map(|p| p.split_once('=').unwrap())).unwrap()
}

/// The registers of one leaf; zeros where it is missing.
fn leaf(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
    entries
        .iter()
        .find(|e| e.function == function && e.index == index)
        .map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
}

fn cpuid(rows: Rows, option: &str) -> Vec<kvm_cpuid_entry2> {
    model(rows, option).cpuid(&Topology::default(), 0)
}

#[test]
fn nothing_is_handed_out_that_kvm_does_not_support() {
    // What the topology sets is the only exception.
    let derived = Features::list("ht cmp-legacy");
    for rows in [AMD, INTEL] {
        let supported = host(rows).features.union(&derived);
        for name in model_names().chain(["host", "max"]) {
            let text = format!("{name},+avx512f,+avx2,+svm,+vmx,+topoext,+invtsc,+xsaves,+sse4a");
            let entries = model(rows, &text).cpuid(&smp("cpus=4,cores=2,threads=2"), 3);
            let given = Features::of(&entries);
            assert_eq!(given.minus(&supported), Features::default(), "{name}");
            assert!(entries.len() < 80, "{name}: KVM before 5.10 takes 80 entries");
            let mut keys: Vec<_> = entries.iter().map(|e| (e.function, e.index)).collect();
            keys.dedup();
            assert_eq!(keys.len(), entries.len(), "{name}: a leaf twice");
        }
    }
}

#[test]
fn host_is_everything_kvm_offers_but_what_binds_the_guest_here() {
    let withheld = Features::list("invtsc tsc-deadline");
    for rows in [AMD, INTEL] {
        let all = host(rows).features;
        let given = Features::of(&cpuid(rows, "host"));
        assert_eq!(all.minus(&given).minus(&withheld), Features::default());
        assert!(!given.has("invtsc"));
        assert!(Features::of(&cpuid(rows, "host,migratable=off")).has("invtsc"));
        assert!(Features::of(&cpuid(rows, "max,+invtsc")).has("invtsc"));
    }
    let intel = model(INTEL, "host");
    assert!(intel.has("arch-capabilities") && !model(AMD, "host").has("arch-capabilities"));
    assert!(!intel.has("sgx"));
    assert_eq!((intel.phys_bits(), intel.warning()), (46, None));
}

#[test]
fn a_missing_feature_warns_or_with_enforce_fails() {
    let option = |text: &str| CpuSpec::parse(text).unwrap().resolve(&host(INTEL));
    let model = option("qemu64,+sse4a,+xop").unwrap();
    assert_eq!(model.warning(), Some("this host's KVM lacks features of CPU 'qemu64': sse4a, xop"));
    assert!(!model.has("sse4a"));
    assert_eq!(
        option("qemu64,+sse4a,enforce").unwrap_err().to_string(),
        "this host's KVM lacks features of CPU 'qemu64': sse4a"
    );
    assert_eq!(option("qemu64,+sse4a,check=off").unwrap().warning(), None);
    assert_eq!(option("qemu64,+ht").unwrap().warning(), None);
    assert_eq!(option("qemu64").unwrap().warning(), None);
    assert_eq!(option("Haswell,enforce").unwrap().warning(), None);
    assert_eq!(option("Opteron_G3,-sse4a,misalignsse=off,enforce").unwrap().warning(), None);
}

#[test]
fn switches_apply_in_order_and_signs_last() {
    let has = |text: &str, f| model(INTEL, text).has(f);
    assert!(!has("host,avx2=on,avx2=off", "avx2"));
    assert!(has("host,avx2=off,avx2", "avx2"));
    assert!(!has("host,-avx2,avx2=on", "avx2"));
    assert!(!has("host,-avx2,+avx2", "avx2"));
    assert!(has("host,+avx2,avx2=off", "avx2"));
    assert!(!has("host,-sse4_2", "sse4.2"));
    assert!(!has("host,tsc_adjust=off", "tsc-adjust"));
    assert!(!has("host,-kvmclock", "kvmclock"));
    assert!(!has("host,-xsave", "avx512bw"));
    assert!(!has("host,-hypervisor", "hypervisor"));
}

#[test]
fn mistakes_are_named_with_what_was_meant() {
    let message = |text: &str| CpuSpec::parse(text).unwrap_err().to_string();
    assert_eq!(message("Haswel"), "Unable to find CPU definition: Haswel (nearest: 'Haswell')");
    assert_eq!(message(""), "Unable to find CPU definition: ");
    assert_eq!(message("banana"), "Unable to find CPU definition: banana");
    assert_eq!(message("host,+avx3"), "CPU feature avx3 not found (nearest: 'avx')");
    assert_eq!(message("host,stepings=1"), "CPU feature stepings not found (nearest: 'stepping')");
    assert_eq!(message("host,"), "CPU feature  not found");
    assert_eq!(message("host,level=x"), "bad numerical value x");
    assert_eq!(message("host,level"), "Parameter 'level' needs a value");
    assert_eq!(message("host,stepping=16"), "Parameter 'stepping' of -cpu is at most 15, not 16");
    assert_eq!(message("host,avx=maybe"), "Parameter 'avx' expects 'on' or 'off'");
    assert_eq!(message("host,vendor=x"), "Parameter 'vendor' of -cpu takes exactly 12 characters");
    assert_eq!(message("host,hv-synic"), "Hyper-V feature 'hv-synic' is not supported");
    assert_eq!(
        CpuSpec::parse("host,hv_relaxed").unwrap().resolve(&host(AMD)).unwrap_err().to_string(),
        "Hyper-V feature 'hv-relaxed' is not supported by this host's KVM"
    );
    assert_eq!(
        CpuSpec::parse("host,phys-bits=52").unwrap().resolve(&host(AMD)).unwrap_err().to_string(),
        "phys-bits is 52, but this host's guests can have 32 to 48"
    );
}

#[test]
fn keys_reach_the_leaves() {
    let text = "Nehalem,level=7,xlevel=4,family=21,model=0x4f,stepping=3,\
                vendor=AuthenticAMD,model-id=Mine";
    let entries = cpuid(INTEL, text);
    assert_eq!(leaf(&entries, 0, 0), [7, 0x68747541, 0x444d4163, 0x69746e65]);
    assert_eq!(leaf(&entries, 0x80000000, 0)[0], 0x80000004);
    assert_eq!(leaf(&entries, 1, 0)[0], 0x640ff3);
    assert_eq!(leaf(&entries, 0x80000001, 0)[0], 0x640ff3);
    assert_eq!(leaf(&entries, 0x80000002, 0), [0x656e694d, 0, 0, 0]);
    assert!(entries.iter().all(|e| e.function <= 7 || e.function >= 0x4000_0000));
    assert!(entries.iter().all(|e| e.function <= 0x8000_0004));
    let brand = leaf(&cpuid(INTEL, "host"), 0x80000002, 0);
    assert_eq!(brand[..3], [0x65746e49, 0x2952286c, 0x6f655820]);
    assert_eq!(model(INTEL, "host,tsc-freq=2.1G").tsc_khz(), Some(2_100_000));
}

#[test]
fn a_feature_beyond_the_level_raises_it() {
    assert_eq!(leaf(&cpuid(INTEL, "core2duo"), 0, 0)[0], 10);
    assert_eq!(leaf(&cpuid(INTEL, "core2duo,+xsave,+avx"), 0, 0)[0], 0xd);
    assert_eq!(leaf(&cpuid(INTEL, "phenom,+smep,check=off"), 0, 0)[0], 7);
    assert_eq!(leaf(&cpuid(INTEL, "pentium3,+lm,check=off"), 0x80000000, 0)[0], 0x80000001);
    assert_eq!(leaf(&cpuid(INTEL, "486"), 0x80000000, 0), [0; 4]);
}

#[test]
fn amd_repeats_leaf_1_and_intel_does_not() {
    let repeats = |rows, text| leaf(&cpuid(rows, text), 0x80000001, 0)[3] & features::AMD_REPEATS;
    assert_eq!(
        repeats(AMD, "qemu64"),
        leaf(&cpuid(AMD, "qemu64"), 1, 0)[3] & features::AMD_REPEATS
    );
    assert_eq!(repeats(INTEL, "qemu64"), 0);
    assert_eq!(repeats(AMD, "qemu64,vendor=GenuineIntel"), 0);
    assert_eq!(repeats(AMD, "host,-pse") & 0b1000, 0);
}

#[test]
fn xsave_leaf_follows_the_features() {
    let leaf_d = |text: &str, index| leaf(&cpuid(INTEL, text), 0xd, index);
    assert_eq!(leaf_d("host", 0), [0x2e7, 0xa88, 0xa88, 0]);
    // Without the gap that MPX leaves in the standard layout.
    assert_eq!(leaf_d("host", 1), [0xf, 576 + 0x100 + 0x40 + 0x200 + 0x400 + 8, 0, 0]);
    assert_eq!(leaf_d("host,-pku", 0), [0xe7, 0xa80, 0xa80, 0]);
    assert_eq!(leaf_d("host,-pku", 9), [0; 4]);
    assert_eq!(leaf_d("host,-avx512f", 0), [0x207, 0xa88, 0xa88, 0]);
    assert_eq!(leaf_d("host,-avx,-pku", 0), [0x3, 576, 576, 0]);
    assert_eq!(leaf_d("SandyBridge", 0), [7, 0x340, 0x340, 0]);
    assert_eq!(leaf_d("SandyBridge", 1), [1, 0, 0, 0]);
    assert_eq!(leaf_d("host,-xsave", 0), [0; 4]);
    assert_eq!(leaf_d("host,-xsave", 2), [0; 4]);
    // A host without XSAVE has no such leaf to give, whatever it reports there.
    assert_eq!(leaf(&cpuid(AMD, "host"), 0xd, 0), [0; 4]);
}

#[test]
fn topology_leaves_agree_with_the_apic_id() {
    let topology = smp("sockets=2,cores=3,threads=2");
    let entries = model(INTEL, "host").cpuid(&topology, 9);
    // Socket 1, core 1, thread 1: 1 01 1.
    let id = 0b1011;
    assert_eq!(leaf(&entries, 1, 0)[1] >> 24, id);
    assert_eq!(leaf(&entries, 1, 0)[1] >> 16 & 0xff, 6);
    assert!(Features::of(&entries).has("ht"));
    for function in [0xb, 0x1f] {
        assert_eq!(leaf(&entries, function, 0), [1, 2, 0x100, id]);
        assert_eq!(leaf(&entries, function, 1), [3, 6, 0x201, id]);
        assert_eq!(leaf(&entries, function, 2), [0, 0, 2, id]);
    }
    // Three cores take ids up to 3; level 1 is shared by 2 ids, level 3 by 8.
    assert_eq!(leaf(&entries, 4, 0)[0], (3 << 26) | (1 << 14) | 0x121);
    assert_eq!(leaf(&entries, 4, 3)[0], (3 << 26) | (7 << 14) | 0x163);
    assert_eq!(leaf(&entries, 4, 3)[1..], [0x2c0003f, 0xffff, 4]);

    let entries = model(AMD, "EPYC").cpuid(&topology, 9);
    assert_eq!(leaf(&entries, 4, 0), [0; 4]);
    assert_eq!(leaf(&entries, 0x8000001d, 3)[0], (7 << 14) | 0x163);
    assert_eq!(leaf(&entries, 0x8000001e, 0), [id, (1 << 8) | 1, 1, 0]);
    assert_eq!(leaf(&entries, 0x80000008, 0), [0x3028, 0, (3 << 12) | 5, 0]);
    assert!(Features::of(&entries).has("cmp-legacy"));
    assert_eq!(leaf(&entries, 0x1f, 0), [0; 4]);

    let alone = cpuid(AMD, "EPYC");
    assert!(!Features::of(&alone).has("ht") && !Features::of(&alone).has("cmp-legacy"));
    assert_eq!(leaf(&alone, 0xb, 1), [0, 1, 0x201, 0]);
}

#[test]
fn indexed_leaves_say_so() {
    for entry in cpuid(INTEL, "Haswell") {
        let indexed = [4, 7, 0xb, 0xd].contains(&entry.function);
        assert_eq!(entry.flags, u32::from(indexed), "{:x}", entry.function);
    }
}

#[test]
fn the_guest_is_told_of_the_hypervisor_even_if_kvm_does_not_say_so() {
    let mut entries = host(INTEL).entries;
    for entry in entries.iter_mut().filter(|e| e.function == 1) {
        entry.ecx &= !(1 << 31);
    }
    let host = HostCpu::from_entries(&entries);
    for name in ["host", "qemu64"] {
        assert!(CpuSpec::parse(name).unwrap().resolve(&host).unwrap().has("hypervisor"));
    }
}

#[test]
fn hypervisor_leaves() {
    let entries = cpuid(AMD, "qemu64");
    assert_eq!(leaf(&entries, 0x40000000, 0), [0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d]);
    assert_eq!(leaf(&entries, 0x40000001, 0)[0], 0x1007efb);
    assert!(model(AMD, "qemu64").has("x2apic") && model(AMD, "qemu64").has("hypervisor"));
    let hidden = cpuid(AMD, "qemu64,kvm=off");
    assert_eq!(leaf(&hidden, 0x40000000, 0), [0; 4]);
    assert_eq!(leaf(&hidden, 0x40000001, 0), [0; 4]);

    let mut windows = host(INTEL);
    windows.hyperv.base = true;
    windows.hyperv.spinlocks = true;
    let spec = CpuSpec::parse("host,hv-relaxed,hv_spinlocks=1").unwrap();
    let entries = spec.resolve(&windows).unwrap().cpuid(&Topology::default(), 0);
    assert_eq!(leaf(&entries, 0x40000001, 0)[0].to_le_bytes(), *b"Hv#1");
    assert_eq!(leaf(&entries, 0x40000004, 0), [0x20, 0xfff, 0, 0]);
    assert_eq!(leaf(&entries, 0x40000100, 0)[0], 0x40000101);
}

#[test]
fn address_widths_are_what_kvm_takes() {
    let widths = |rows, text: &str| leaf(&cpuid(rows, text), 0x80000008, 0)[0];
    assert_eq!(widths(AMD, "host"), 0x3030);
    assert_eq!(widths(AMD, "qemu64"), 0x3028);
    assert_eq!(widths(AMD, "qemu64,host-phys-bits=on"), 0x3030);
    assert_eq!(widths(INTEL, "kvm32"), 36);
    assert_eq!(widths(INTEL, "host,-lm"), 46);
}

#[test]
fn the_named_table_holds_together() {
    for model in &MODELS {
        for name in model.feature_names() {
            assert!(Features::named(name).is_some(), "{}: {name}", model.name);
        }
        assert!(model.id.len() <= 48, "{}", model.name);
        let (basic, extended) = model.features().highest_leaves();
        assert!(basic <= model.level && extended <= model.xlevel, "{}", model.name);
        assert!(CpuSpec::parse(model.name).is_ok());
    }
    assert_eq!(CpuSpec::default().resolve(&host(INTEL)).unwrap().signature, 0x60fb1);
    assert!(MODELS.iter().find(|m| m.name == "qemu64").unwrap().features().has("lm"));
    assert_eq!(WORDS.len(), Features::default().0.len());
}

#[test]
fn help_lists_models_and_features() {
    let text = help_text();
    assert!(text.starts_with("x86           qemu64  QEMU Virtual CPU"), "{text}");
    assert!(text.contains("x86             host  "));
    assert!(text.contains(" kvmclock-stable-bit"));
    assert!(text.lines().all(|l| l.len() <= 80));
}

proptest! {
    #[test]
    fn no_option_panics(text in "(host|EPYC|486)(,[+-]?[a-z0-9._-]{0,9}(=[a-z0-9.]{0,6})?){0,5}") {
        if let Ok(model) = CpuSpec::parse(&text).and_then(|spec| spec.resolve(&host(AMD))) {
            let _ = model.cpuid(&Topology::default(), 0);
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = CpuSpec::parse(&text);
    }
}
