//! Synthetic kernels of every kind, whole, damaged and hostile; real ones where they are at hand.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use rustix::fs::MemfdFlags;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::layout::{
    CMDLINE, MULTIBOOT_INFO, RamLayout, START_INFO, ZERO_PAGE, {ACPI_RSDP, EBDA},
};
use super::*;

type Memory = GuestMemoryMmap<()>;

const MIB: u64 = 1 << 20;
const RAM: u64 = 64 * MIB;
const KERNEL_AT: u32 = 0x10_0000;

fn put(bytes: &mut Vec<u8>, at: usize, value: &[u8]) {
    if bytes.len() < at + value.len() {
        bytes.resize(at + value.len(), 0);
    }
    bytes[at..at + value.len()].copy_from_slice(value);
}

macro_rules! put {
    ($bytes:expr, $($at:expr => $value:expr),* $(,)?) => {
        $(put($bytes, $at, &$value.to_le_bytes());)*
    };
}

/// A bzImage with one setup sector behind the first and 4096 bytes of kernel at 16 MiB.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024];
    put!(&mut image,
        0x1f1 => 1u8, 0x1f4 => 256u32, 0x1fe => 0xaa55u16, 0x200 => 0x6aebu16,
        0x202 => 0x5372_6448u32, 0x206 => 0x20fu16, 0x211 => 1u8, 0x22c => 0x7fff_ffffu32,
        0x230 => 0x20_0000u32, 0x234 => 1u8, 0x236 => 1u16, 0x238 => 2047u32,
        0x258 => 0x100_0000u64, 0x260 => 0x20_0000u32);
    image.extend((0..4096u32).map(|i| i as u8));
    image
}

/// A 64-bit ELF file with one segment at 1 MiB (0x2000 bytes of which 0x1000 are in the file) and
/// one for notes.
fn elf64(notes: &[u8]) -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    put!(&mut image,
        16 => 2u16, 18 => 62u16, 20 => 1u32, 24 => u64::from(KERNEL_AT) + 0x10, 32 => 64u64,
        52 => 64u16, 54 => 56u16, 56 => 2u16,
        64 => 1u32, 72 => 0x1000u64, 80 => 0xffff_ffff_8010_0000u64, 88 => u64::from(KERNEL_AT),
        96 => 0x1000u64, 104 => 0x2000u64,
        120 => 4u32, 128 => 0x200u64, 152 => notes.len() as u64, 160 => notes.len() as u64,
        168 => 0u64);
    put(&mut image, 0x200, notes);
    image.resize(0x1000, 0);
    image.resize(0x2000, 0xcc);
    image
}

fn elf32() -> Vec<u8> {
    let mut image = b"\x7fELF\x01\x01\x01".to_vec();
    put!(&mut image,
        16 => 2u16, 18 => 3u16, 20 => 1u32, 24 => KERNEL_AT + 0x10, 28 => 52u32,
        40 => 52u16, 42 => 32u16, 44 => 1u16,
        52 => 1u32, 56 => 0x1000u32, 60 => KERNEL_AT, 64 => KERNEL_AT, 68 => 0x1000u32,
        72 => 0x2000u32);
    image.resize(0x1000, 0);
    image.resize(0x2000, 0xcc);
    image
}

/// Two notes, the second of which is the PVH entry.
fn pvh_notes(entry: u32) -> Vec<u8> {
    let mut notes = Vec::new();
    put!(&mut notes, 0 => 4u32, 4 => 5u32, 8 => 6u32);
    put(&mut notes, 12, b"Xen\0linux\0\0\0");
    put!(&mut notes, 24 => 4u32, 28 => 4u32, 32 => 18u32);
    put(&mut notes, 36, b"Xen\0");
    put!(&mut notes, 40 => entry);
    notes
}

fn multiboot_header(image: &mut Vec<u8>, at: usize, flags: u32) {
    let magic = 0x1bad_b002u32;
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    put!(image, at => magic, at + 4 => flags, at + 8 => checksum);
}

fn multiboot_elf() -> Vec<u8> {
    let mut image = elf32();
    multiboot_header(&mut image, 0x1000, 3);
    image
}

/// A raw multiboot kernel: header at 0x100, loaded from file offset 0x80 on.
fn multiboot_raw() -> Vec<u8> {
    let mut image = vec![0x90; 0x880];
    multiboot_header(&mut image, 0x100, 1 << 16);
    put!(&mut image,
        0x10c => KERNEL_AT + 0x80, 0x110 => KERNEL_AT, 0x114 => KERNEL_AT + 0x800,
        0x118 => KERNEL_AT + 0x1800, 0x11c => KERNEL_AT + 0x200);
    image
}

fn memory_file(bytes: &[u8]) -> Image {
    let mut file = File::from(rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    Image::from_file("kernel", file)
}

fn source(kernel: &[u8], extras: Extras, cmdline: &str) -> BootSource {
    BootSource::new(memory_file(kernel), extras, cmdline).unwrap()
}

fn memory(size: u64) -> Memory {
    Memory::from_ranges(&[(GuestAddress(0), size as usize)]).unwrap()
}

fn target(mem: &Memory, size: u64) -> Target<'_, Memory> {
    let layout = RamLayout { low: size, high: 0 };
    Target { mem, layout, rsdp: Some(ACPI_RSDP), zeroed: false }
}

fn load_in(kernel: &[u8], ram: u64) -> Result<(Entry, Memory), String> {
    let mem = memory(ram);
    let entry = source(kernel, Extras::Initrd(None), "console=ttyS0")
        .load_all(&target(&mem, ram))
        .map_err(|e| e.to_string())?;
    Ok((entry, mem))
}

fn load(kernel: &[u8]) -> Result<(Entry, Memory), String> {
    load_in(kernel, RAM)
}

fn refused(kernel: &[u8], reason: &str) {
    let error = load(kernel).expect_err(reason);
    assert!(error.starts_with("cannot load kernel '(memory)': "), "{error}");
    assert!(error.contains(reason), "'{error}' does not say '{reason}'");
}

fn bytes(mem: &Memory, at: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    mem.read_slice(&mut buf, GuestAddress(at)).unwrap();
    buf
}

fn string(mem: &Memory, at: u64) -> String {
    let buf = bytes(mem, at, 256);
    String::from_utf8(buf.split(|b| *b == 0).next().unwrap().to_vec()).unwrap()
}

fn u32_in(mem: &Memory, at: u64) -> u32 {
    mem.read_obj(GuestAddress(at)).unwrap()
}

fn u64_in(mem: &Memory, at: u64) -> u64 {
    mem.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn bzimage_starts_at_its_64_bit_entry() {
    let initrd = vec![0x5a; 5000];
    let mem = memory(RAM);
    let extras = Extras::Initrd(Some(memory_file(&initrd)));
    let entry = source(&bzimage(), extras, "quiet").load_all(&target(&mem, RAM)).unwrap();
    let (rip, rsi) = (GuestAddress(0x100_0200), GuestAddress(ZERO_PAGE));
    assert_eq!(entry, Entry::Long { rip, rsi });
    assert_eq!(bytes(&mem, 0x100_0000, 4096), bzimage()[1024..]);
    // The image's own header, with the loader's fields.
    assert_eq!(bytes(&mem, ZERO_PAGE + 0x202, 4), b"HdrS");
    assert_eq!(bytes(&mem, ZERO_PAGE + 0x210, 1), [0xff]);
    assert_eq!(string(&mem, u32_in(&mem, ZERO_PAGE + 0x228).into()), "quiet");
    assert_eq!(u64_in(&mem, ZERO_PAGE + 0x70), ACPI_RSDP);
    let at = u64::from(u32_in(&mem, ZERO_PAGE + 0x218));
    assert_eq!(at, RAM - 8192);
    assert_eq!(u32_in(&mem, ZERO_PAGE + 0x21c), 5000);
    assert_eq!(bytes(&mem, at, 5000), initrd);
    // The memory map: the number of entries, then the first.
    assert_eq!(bytes(&mem, ZERO_PAGE + 0x1e8, 1), [5]);
    assert_eq!(u64_in(&mem, ZERO_PAGE + 0x2d0 + 8), EBDA);
    assert_eq!(u32_in(&mem, ZERO_PAGE + 0x2d0 + 16), 1);
}

#[test]
fn bzimage_header_stops_where_its_jump_says() {
    let mut image = bzimage();
    // An older header ends before kernel_info_offset: code is there, which must not be copied.
    put!(&mut image, 0x201 => 0x62u8, 0x264 => 0xdead_beefu32);
    let (_, mem) = load(&image).unwrap();
    assert_eq!(u32_in(&mem, ZERO_PAGE + 0x260), 0x20_0000);
    assert_eq!(u32_in(&mem, ZERO_PAGE + 0x264), 0);
}

#[test]
fn bzimage_initrd_limit_holds() {
    let mut image = bzimage();
    put!(&mut image, 0x22c => 0x01ff_ffffu32);
    let mem = memory(RAM);
    let extras = Extras::Initrd(Some(memory_file(&[1; 4096])));
    source(&image, extras, "").load_all(&target(&mem, RAM)).unwrap();
    assert_eq!(u32_in(&mem, ZERO_PAGE + 0x218), 0x01ff_f000);
}

#[test]
fn bad_bzimages_are_refused() {
    let image = bzimage();
    let with = |at: usize, value: &[u8]| {
        let mut image = image.clone();
        put(&mut image, at, value);
        image
    };
    refused(&with(0x206, &[6, 2]), "boot protocol 2.06 has no 64-bit entry");
    refused(&with(0x236, &[0, 0]), "32-bit kernel");
    refused(&with(0x211, &[0]), "zImage");
    refused(&with(0x230, &[3, 0, 0, 0]), "not a power of two");
    refused(&with(0x230, &[0, 0, 0, 0]), "not a power of two");
    refused(&with(0x258, &[0; 8]), "below 1 MiB");
    refused(&with(0x258, &[0xff; 8]), "beyond 2^64");
    refused(&with(0x260, &[0xff; 4]), "the kernel needs 0xffffffff bytes of RAM at 0x1000000");
    refused(&with(0x1f4, &[0xff; 4]), "truncated");
    refused(&with(0x1f4, &[0; 4]), "truncated");
    refused(&with(0x1f4, &[0x20, 0, 0, 0]), "before the 64-bit entry");
    refused(&with(0x1f1, &[0xff]), "truncated");
    refused(
        &with(0x238, &[4, 0, 0, 0]),
        "command line has 13 bytes and this kernel takes at most 4",
    );
    refused(&image[..0x210], "ends within the setup header");
    refused(&image[..3000], "truncated");
    let error = load_in(&image, 17 * MIB).unwrap_err();
    assert!(error.contains("can be loaded into"), "{error}");
}

#[test]
fn initrd_that_does_not_fit_is_refused_by_its_name() {
    let mem = memory(RAM);
    for (len, reason) in [(0, "it is empty"), (60 << 20, "does not fit into RAM")] {
        let file = File::from(rustix::fs::memfd_create("i", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(len).unwrap();
        let extras = Extras::Initrd(Some(Image::from_file("initrd", file)));
        let error = source(&bzimage(), extras, "").load_all(&target(&mem, RAM)).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("cannot load initrd '(memory)': ") && error.contains(reason));
    }
}

#[test]
fn elf_starts_at_its_entry_and_bss_is_zero() {
    let mem = memory(RAM);
    // What the guest left there before the reset.
    mem.write_slice(&[0xff; 0x2000], GuestAddress(KERNEL_AT.into())).unwrap();
    let source = source(&elf64(&[]), Extras::Initrd(None), "single");
    for _ in 0..2 {
        let entry = source.load_all(&target(&mem, RAM)).unwrap();
        let (rip, rsi) = (GuestAddress(u64::from(KERNEL_AT) + 0x10), GuestAddress(ZERO_PAGE));
        assert_eq!(entry, Entry::Long { rip, rsi });
        assert_eq!(bytes(&mem, KERNEL_AT.into(), 0x1000), [0xcc; 0x1000]);
        assert_eq!(bytes(&mem, u64::from(KERNEL_AT) + 0x1000, 0x1000), [0; 0x1000]);
        assert_eq!(string(&mem, CMDLINE), "single");
        assert_eq!(bytes(&mem, ZERO_PAGE + 0x202, 4), b"HdrS");
        mem.write_slice(&[0xff; 0x3000], GuestAddress(KERNEL_AT.into())).unwrap();
    }
}

#[test]
fn virtual_elf_entry_is_translated() {
    let mut image = elf64(&[]);
    put!(&mut image, 24 => 0xffff_ffff_8010_0123u64);
    let (entry, _) = load(&image).unwrap();
    let Entry::Long { rip, .. } = entry else { panic!("{entry:?}") };
    assert_eq!(rip.0, u64::from(KERNEL_AT) + 0x123);
}

#[test]
fn bad_elfs_are_refused() {
    let image = elf64(&[]);
    let with = |at: usize, value: &[u8]| {
        let mut image = image.clone();
        put(&mut image, at, value);
        image
    };
    refused(&with(4, &[9]), "ELF class is 9");
    refused(&with(5, &[2]), "little-endian");
    refused(&with(16, &[1]), "not an executable");
    refused(&with(18, &[183]), "not for x86 (ELF machine 183)");
    refused(&with(56, &[0xff, 0xff]), "65535 program headers");
    refused(&with(54, &[32]), "program headers of 32 bytes");
    refused(&with(32, &[0xff; 8]), "beyond its end");
    refused(&with(32, &0x1ff8u64.to_le_bytes()), "beyond its end");
    refused(&with(72, &[0xff; 8]), "segment 0");
    refused(&with(96, &0x2001u64.to_le_bytes()), "beyond its end");
    refused(&with(104, &[0; 8]), "larger in it than in memory");
    refused(&with(104, &[0xff; 8]), "beyond 2^64");
    refused(&with(104, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), "can be loaded into");
    refused(&with(88, &[0; 8]), "where the boot structures");
    refused(&with(88, &0xa_0000u64.to_le_bytes()), "can be loaded into");
    refused(&with(24, &[0; 8]), "its entry 0x0 is in none");
    refused(&with(24, &ZERO_PAGE.to_le_bytes()), "is in none");
    refused(&with(56, &[0, 0]), "nothing to load");
    refused(&image[..20], "ends within the ELF header");
    refused(&image[..100], "beyond its end");
    refused(&elf32(), "32-bit ELF");
    // Two segments in one place.
    let mut twice = image.clone();
    let segment = image[64..120].to_vec();
    put(&mut twice, 120, &segment);
    refused(&twice, "where loaded segment 0 is");
}

#[test]
fn pvh_note_wins_over_the_elf_entry() {
    let image = elf64(&pvh_notes(KERNEL_AT + 0x40));
    let mem = memory(RAM);
    let extras = Extras::Initrd(Some(memory_file(&[7; 10])));
    let entry = source(&image, extras, "root=/dev/vda").load_all(&target(&mem, RAM)).unwrap();
    let rip = GuestAddress(u64::from(KERNEL_AT) + 0x40);
    assert_eq!(entry, Entry::Pvh { rip, start_info: GuestAddress(START_INFO) });
    assert_eq!(u32_in(&mem, START_INFO), 0x336e_c578);
    assert_eq!(u32_in(&mem, START_INFO + 4), 1);
    assert_eq!(u32_in(&mem, START_INFO + 12), 1);
    let module = u64_in(&mem, START_INFO + 16);
    assert_eq!(bytes(&mem, u64_in(&mem, module), 10), [7; 10]);
    assert_eq!(u64_in(&mem, module + 8), 10);
    assert_eq!(string(&mem, u64_in(&mem, START_INFO + 24)), "root=/dev/vda");
    assert_eq!(u64_in(&mem, START_INFO + 32), ACPI_RSDP);
    let map = u64_in(&mem, START_INFO + 40);
    assert_eq!(u32_in(&mem, START_INFO + 48), 5);
    assert_eq!((u64_in(&mem, map), u64_in(&mem, map + 8), u32_in(&mem, map + 16)), (0, EBDA, 1));
}

#[test]
fn bad_pvh_notes() {
    refused(&elf64(&pvh_notes(0x7000)), "PVH entry 0x7000 is in none");
    // Notes cut short or with absurd sizes are no PVH notes: the 64-bit entry is taken.
    for cut in 0..44 {
        let (entry, _) = load(&elf64(&pvh_notes(KERNEL_AT)[..cut])).unwrap();
        assert!(matches!(entry, Entry::Long { .. }), "{cut}");
    }
    for at in [0, 4, 24, 28] {
        let mut notes = pvh_notes(KERNEL_AT);
        put!(&mut notes, at => u32::MAX);
        let (entry, _) = load(&elf64(&notes)).unwrap();
        assert!(matches!(entry, Entry::Long { .. }), "{at}");
    }
}

#[test]
fn multiboot_elf_gets_its_information() {
    let modules = [("mod1 a=b", [1u8; 3].as_slice()), ("mod2", [2u8; 5000].as_slice())]
        .map(|(string, data)| Module { image: memory_file(data), string: string.into() });
    let mem = memory(RAM);
    let entry = source(&multiboot_elf(), Extras::Modules(modules.into()), "arg1 arg2")
        .load_all(&target(&mem, RAM))
        .unwrap();
    let (rip, info) = (u64::from(KERNEL_AT) + 0x10, MULTIBOOT_INFO);
    assert_eq!(entry, Entry::Multiboot { rip: GuestAddress(rip), info: GuestAddress(info) });
    let field = |at| u32_in(&mem, info + at);
    assert_eq!(field(0), 0b10_0100_1101);
    assert_eq!((field(4), field(8)), (639, 63 * 1024));
    assert_eq!(string(&mem, field(16).into()), "(memory) arg1 arg2");
    assert_eq!(string(&mem, field(64).into()), "vmm");
    assert_eq!(field(20), 2);
    let list = u64::from(field(24));
    for (index, (len, name)) in [(3, "mod1 a=b"), (5000, "mod2")].into_iter().enumerate() {
        let at = list + 16 * index as u64;
        let (start, end) = (u32_in(&mem, at), u32_in(&mem, at + 4));
        assert_eq!((start % 4096, end - start), (0, len));
        assert_eq!(bytes(&mem, start.into(), 2), [index as u8 + 1; 2]);
        assert_eq!(string(&mem, u32_in(&mem, at + 8).into()), name);
        assert!(start >= KERNEL_AT + 0x2000);
    }
    let (map_len, map) = (field(44), u64::from(field(48)));
    assert_eq!(map_len, 5 * 24);
    assert_eq!((u32_in(&mem, map), u64_in(&mem, map + 12)), (20, EBDA));
}

#[test]
fn raw_multiboot_is_loaded_by_its_addresses() {
    let mut image = multiboot_raw();
    let (entry, mem) = load(&image).unwrap();
    let Entry::Multiboot { rip, .. } = entry else { panic!("{entry:?}") };
    assert_eq!(rip.0, u64::from(KERNEL_AT) + 0x200);
    assert_eq!(bytes(&mem, KERNEL_AT.into(), 0x800), image[0x80..]);
    // Without an end everything is loaded; the same bytes here.
    put!(&mut image, 0x114 => 0u32, 0x118 => 0u32);
    let (_, mem) = load(&image).unwrap();
    assert_eq!(bytes(&mem, KERNEL_AT.into(), 0x800), image[0x80..]);
}

#[test]
fn bad_multiboot_is_refused() {
    let raw = |at: usize, value: u32| {
        let mut image = multiboot_raw();
        put!(&mut image, at => value);
        image
    };
    refused(&raw(0x110, KERNEL_AT + 0x81), "before the file");
    refused(&raw(0x10c, KERNEL_AT + 0x101), "before the file");
    refused(&raw(0x114, KERNEL_AT + 0x801), "2049 bytes to load and 2048 are there");
    refused(&raw(0x114, KERNEL_AT), "0 bytes to load");
    refused(&raw(0x114, 5), "before the start");
    refused(&raw(0x118, KERNEL_AT + 0x7ff), "bss ends before");
    refused(&raw(0x118, u32::MAX), "can be loaded into");
    refused(&raw(0x11c, 0x7000), "entry 0x7000 is not in it");
    refused(&multiboot_raw()[..0x11f], "ends within its multiboot header");
    let mut flags = multiboot_elf();
    multiboot_header(&mut flags, 0x1000, 0x10);
    refused(&flags, "unknown flags 0x10");
    let mut bare = vec![0; 0x200];
    multiboot_header(&mut bare, 0x40, 0);
    refused(&bare, "no addresses");
    let many = Extras::Modules(
        (0..200).map(|_| Module { image: memory_file(b"m"), string: "x".repeat(400) }).collect(),
    );
    let mem = memory(RAM);
    let error = source(&multiboot_elf(), many, "").load_all(&target(&mem, RAM)).unwrap_err();
    assert!(error.to_string().contains("module list need"), "{error}");
}

#[test]
fn module_lists_are_split_at_single_commas() {
    assert_eq!(multiboot::module_strings("a x=1,b"), ["a x=1", "b"]);
    assert_eq!(multiboot::module_strings("a,,b c,,d,e"), ["a,b c,d", "e"]);
    assert_eq!(multiboot::module_strings(""), [""]);
}

#[test]
fn other_files_are_named() {
    refused(b"", "but empty");
    refused(b"\x1f\x8b\x08\0", "but gzip data");
    refused(b"#!/bin/sh\n", "but a script");
    refused(&[0xab; 10], "starts with ab ab ab ab ab ab ab ab");
    let open = |path: &str| BootSource::open(Path::new(path), None, "").unwrap_err().to_string();
    assert!(open("/nonexistent/k").starts_with("could not open kernel '/nonexistent/k': No such"));
    assert_eq!(open("/"), "cannot load kernel '/': it is not a regular file");
    assert_eq!(open("/dev/null"), "cannot load kernel '/dev/null': it is not a regular file");
}

#[test]
fn open_reads_files_by_name() {
    let dir = std::env::temp_dir().join(format!("vmm-boot-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let linux = write("linux", &bzimage());
    let multi = write("multi", &multiboot_elf());
    let plain = write("plain", b"one");
    let comma = write("with,comma", b"two");
    let mem = memory(RAM);
    // One file for Linux, a list for multiboot.
    let open = |kernel: &str, initrd: &str| BootSource::open(Path::new(kernel), Some(initrd), "");
    open(&linux, &comma).unwrap().load_all(&target(&mem, RAM)).unwrap();
    let list = format!("{plain} arg,{}", comma.replace(',', ",,"));
    open(&multi, &list).unwrap().load_all(&target(&mem, RAM)).unwrap();
    assert_eq!(u32_in(&mem, MULTIBOOT_INFO + 20), 2);
    let error = open(&multi, &comma).unwrap_err().to_string();
    assert!(error.starts_with("could not open initrd '"), "{error}");
    // The kernel is replaced in place: the reset boots what is there now, or says why not.
    let source = open(&linux, &plain).unwrap();
    std::fs::write(&linux, elf64(&[])).unwrap();
    assert!(matches!(source.load_all(&target(&mem, RAM)), Ok(Entry::Long { .. })));
    std::fs::write(&linux, b"MZ").unwrap();
    let error = source.load_all(&target(&mem, RAM)).unwrap_err().to_string();
    assert!(error.ends_with("but an EFI or Windows program"), "{error}");
    assert!(BootSource::open(Path::new(&multi), None, "a\0b").is_err());
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Every kind of image, to damage.
fn images() -> Vec<Vec<u8>> {
    vec![
        bzimage(),
        elf64(&[]),
        elf64(&pvh_notes(KERNEL_AT + 0x40)),
        multiboot_elf(),
        multiboot_raw(),
        elf32(),
    ]
}

/// Writes `fuzz/seeds/kernel_image`, after a change to the images here.
#[test]
#[ignore = "writes into the source tree"]
fn write_fuzz_seeds() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/kernel_image");
    let names = ["bzimage", "elf64", "pvh", "multiboot_elf", "multiboot_raw", "elf32"];
    for (choice, (name, image)) in names.into_iter().zip(images()).enumerate() {
        // Multiboot goes with modules, the others with an initrd.
        let extras = if name.starts_with("multiboot") { 2 } else { 1 };
        let mut seed = vec![extras | (choice as u8 % 2) << 2, 3];
        seed.extend(image);
        std::fs::write(dir.join(name), seed).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_images_do_no_harm(
        which in 0usize..6,
        edits in prop::collection::vec(
            (prop_oneof![0usize..0x270, 0usize..0x1100],
             prop_oneof![any::<u32>(), 0u32..64, Just(u32::MAX), Just(KERNEL_AT)]), 1..4),
        cut in prop::option::weighted(0.2, 0usize..0x2000),
        choice in any::<u8>(),
    ) {
        let mut image = images().swap_remove(which);
        for (at, value) in edits {
            put!(&mut image, at => value);
        }
        image.truncate(cut.unwrap_or(usize::MAX));
        let mut input = vec![choice, choice];
        input.extend(image);
        fuzz(&input);
    }
}

/// Stock kernels the guest tests have fetched, if they have.
fn real_kernels() -> Vec<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vmtest");
    let mut found = Vec::new();
    let mut dirs = vec![cache];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(path),
                Ok(kind) if kind.is_file() && name.starts_with("vmlinu") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn real_kernels_load() {
    const RAM: u64 = 512 * MIB;
    let kernels = real_kernels();
    if kernels.is_empty() {
        eprintln!("SKIPPED: no kernel under target/vmtest (cargo vmtest fetches them)");
    }
    for path in kernels {
        let source = BootSource::open(&path, None, "console=ttyS0").unwrap();
        let mem = memory(RAM);
        let target = Target { zeroed: true, ..target(&mem, RAM) };
        let start = std::time::Instant::now();
        let entry = source.load_all(&target).unwrap();
        eprintln!("{}: {entry:x?} in {:?}", path.display(), start.elapsed());
        let again = std::time::Instant::now();
        assert_eq!(source.load_all(&target).unwrap(), entry);
        eprintln!("  again in {:?}", again.elapsed());
    }
}

#[test]
fn contents_come_when_they_are_wanted_or_not_at_all() {
    let file = memory_file(&bzimage());
    let source = BootSource::new(file.clone(), Extras::Initrd(None), "").unwrap();
    let mem = memory(RAM);
    let (_, mut contents) = source.load(&target(&mem, RAM)).unwrap();
    let read = || mem.read_obj::<u32>(GuestAddress(0x100_0004)).unwrap();
    assert_eq!(read(), 0);
    // A file that has become shorter is an error each time, not a guest without a kernel.
    let kernel = 4096 + 1024;
    file.file().set_len(kernel - 1).unwrap();
    for _ in 0..2 {
        let error = contents.fill(&mem).unwrap_err().to_string();
        assert!(error.contains("it ends too early"), "{error}");
        assert!(!contents.is_empty());
    }
    file.file().set_len(kernel).unwrap();
    contents.fill(&mem).unwrap();
    assert!(contents.is_empty());
    assert_eq!(read(), 0x0706_0504);
}
