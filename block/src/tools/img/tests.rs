//! Subcommands on raw files.

use std::fs;
use std::path::PathBuf;

use vmm_sys_util::tempdir::TempDir;

use crate::tools::testing::Heard;

/// A directory, and the tool in it.
struct Place {
    dir: TempDir,
    heard: Heard,
}

impl Place {
    fn new() -> Place {
        Place { dir: TempDir::new().unwrap(), heard: Heard::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.as_path().join(name)
    }

    /// Runs the tool; `@` stands for the directory. Its exit code, and what it said.
    fn run(&self, line: &str) -> (u8, String, String) {
        let here = format!("{}/", self.dir.as_path().display());
        let words: Vec<String> =
            line.split_whitespace().map(|word| word.replace('@', &here)).collect();
        let code = super::tell(&self.heard.console(), &words);
        (code, self.heard.out().replace(&here, "@"), self.heard.err().replace(&here, "@"))
    }

    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
        out
    }

    fn fails(&self, line: &str, code: u8, said: &str) {
        let (got, out, err) = self.run(line);
        assert_eq!((got, err.as_str()), (code, said), "{line}: {out}");
    }

    /// A file with data at some places: offset, length, byte.
    fn file(&self, name: &str, size: usize, parts: &[(usize, usize, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; size];
        for (offset, len, byte) in parts {
            bytes[*offset..offset + len].fill(*byte);
        }
        fs::write(self.path(name), &bytes).unwrap();
        bytes
    }
}

const MIB: usize = 1 << 20;

#[test]
fn a_copy_reads_the_same() {
    let place = Place::new();
    let bytes = place.file(
        "a",
        5 * MIB + 1000,
        &[(0, 1, 1), (MIB - 5, 10, 2), (2 * MIB, 3 * MIB / 2, 3), (5 * MIB + 999, 1, 4)],
    );
    // Files are rounded up to sectors.
    let mut rounded = bytes.clone();
    rounded.resize(5 * MIB + 1024, 0);
    for options in [
        "",
        "-S 0",
        "-S 64k",
        "-m 1",
        "-m 16 -W",
        "-t none -T none",
        "-r 1G",
        "-p -q",
        "-C",
        "-C -W",
    ] {
        place.ok(&format!("convert {options} @a @b"));
        assert!(fs::read(place.path("b")).unwrap() == rounded, "{options}");
        assert_eq!(place.ok("compare @a @b"), "Images are identical.\n");
    }
    // Over what was there before.
    place.file("c", 6 * MIB, &[(0, 6 * MIB, 9)]);
    place.ok("convert -n @a @c");
    let copied = fs::read(place.path("c")).unwrap();
    assert!(copied[..rounded.len()] == rounded && copied[rounded.len()..] == [9; MIB - 1024]);
    place.fails("convert -n @c @a", 1, "tool: output file is smaller than input file\n");
    let said = "--bitmaps cannot be used with -l: bitmaps tell of the active disk";
    assert!(place.run("convert --bitmaps -l 1 @a @d").2.contains(said));
    // Two, one behind the other.
    place.ok("convert @a @b @two");
    let two = fs::read(place.path("two")).unwrap();
    assert!(two == [rounded.clone(), rounded].concat());
}

#[test]
fn differences_are_found_where_they_begin() {
    let place = Place::new();
    place.file("a", 4 * MIB, &[(0, 5, 1), (3 * MIB, 5, 1)]);
    place.file("b", 4 * MIB, &[(0, 5, 1), (3 * MIB, 5, 1), (2 * MIB + 700, 1, 1)]);
    place.file("c", 5 * MIB, &[(0, 5, 1), (3 * MIB, 5, 1)]);
    let at = 2 * MIB + 512;
    let said = format!("Content mismatch at offset {at}!\n");
    assert_eq!(place.run("compare @a @b"), (1, said.clone(), String::new()));
    assert_eq!(place.run("compare @b @a"), (1, said, String::new()));
    assert_eq!(place.run("compare -q @b @a").1, "");
    let same = "Warning: Image size mismatch!\nImages are identical.\n";
    assert_eq!(place.ok("compare @a @c"), same);
    let said = "Strict mode: Image size mismatch!\n".to_owned();
    assert_eq!(place.run("compare -s @a @c"), (1, said, String::new()));
    let (code, _, err) = place.run("compare @a @nothing");
    assert_eq!(code, 2);
    assert!(err.ends_with("tool: Can't open file @nothing\n"), "{err}");
}

#[test]
fn a_part_is_copied_by_dd() {
    let place = Place::new();
    let bytes = place.file("a", 3 * MIB, &[(MIB, MIB, 7)]);
    place.ok("dd if=@a of=@b bs=1k count=1500 skip=1000");
    assert!(fs::read(place.path("b")).unwrap() == bytes[1000 << 10..1500 << 10]);
    place.ok("dd if=@a of=@b");
    assert!(fs::read(place.path("b")).unwrap() == bytes);
    let (code, _, err) = place.run("dd if=@a of=@b bs=1M skip=4");
    assert_eq!((code, err.as_str()), (0, "tool: @a: cannot skip to specified offset\n"));
    assert_eq!(fs::metadata(place.path("b")).unwrap().len(), 0);
    place.fails("dd if=@a", 1, "tool: Must specify both input and output files\n");
}

#[test]
fn images_are_made_shown_and_resized() {
    let place = Place::new();
    assert_eq!(place.ok("create @a 1M"), "Formatting '@a', fmt=raw size=1048576\n");
    let info = "image: @a\nfile format: raw\nvirtual size: 1.0M (1048576 bytes)\ndisk size: 0\n";
    assert_eq!(place.ok("info @a"), info);
    let json = "{\n    \"virtual-size\": 1048576,\n    \"filename\": \"@a\",\n    \
                \"format\": \"raw\",\n    \"actual-size\": 0,\n    \"dirty-flag\": false\n}\n";
    assert_eq!(place.ok("info --output=json @a"), json);
    assert_eq!(place.ok("resize @a +1k"), "Image resized.\n");
    assert_eq!(place.run("resize @a 1M").0, 1);
    assert_eq!(place.ok("resize -q --shrink @a -1k"), "");
    assert_eq!(fs::metadata(place.path("a")).unwrap().len(), 1 << 20);
    place.fails("resize @a 0", 1, "tool: New image size must be positive\n");
    place.fails("check @a", 63, "tool: This image format does not support checks\n");
    assert_eq!(place.ok("snapshot -l @a"), "");
    place.fails("create -f nonsense @a 1M", 1, "tool: @a: Unknown file format 'nonsense'\n");
    place.fails("create @b", 1, "tool: @b: Image creation needs a size parameter\n");
    place.fails("create @b 8E", 1, "tool: Image size must be less than 8 EiB!\n");
}

#[test]
fn a_map_tells_data_from_holes() {
    let place = Place::new();
    place.ok("create -q @a 4M");
    let map = place.ok("map --output=json @a");
    let whole = "{ \"start\": 0, \"length\": 4194304, \"depth\": 0, \"zero\": true, \
                 \"data\": false, \"offset\": 0}";
    assert_eq!(map, format!("[{whole}]\n"));
    place.file("b", MIB, &[(0, MIB, 1)]);
    let human = "Offset          Length          Mapped to       File\n\
                 0               0x100000        0               @b\n";
    assert_eq!(place.ok("map @b"), human);
    let part = "Offset          Length          Mapped to       File\n\
                0x1000          0x2000          0x1000          @b\n";
    assert_eq!(place.ok("map -s 4k -l 8k @b"), part);
}

#[test]
fn benches() {
    let place = Place::new();
    place.ok("create -q @a 1M");
    let said = place.ok("bench -c 1000 -d 7 -s 1k -S 3k -o 512 @a");
    let first = "Sending 1000 read requests, 1024 bytes each, 7 in parallel (starting at offset \
                 512, step size 3072)\nRun completed in ";
    assert!(said.starts_with(first), "{said}");
    let said = place.ok("bench -c 100 -w --pattern=5 --flush-interval=64 @a");
    assert!(said.contains("Sending drain and flush every 64 requests\n"), "{said}");
    assert!(fs::read(place.path("a")).unwrap()[..100 * 4096].iter().all(|byte| *byte == 5));
    place.fails("bench -c x @a", 1, "tool: Invalid request count specified\n");
    place.fails("bench -d 0 @a", 1, "tool: Invalid queue depth specified\n");
}

#[test]
fn mistakes_have_hints() {
    let place = Place::new();
    for (line, said) in [
        ("", "Not enough arguments"),
        ("nonsense", "Command not found: nonsense"),
        ("info", "Expecting one image file name"),
        ("info -x", "unrecognized option '-x'"),
        ("resize @a", "Not enough arguments"),
    ] {
        let hint = "Try 'tool --help' for more information";
        place.fails(line, 1, &format!("tool: {said}\n{hint}\n"));
    }
    assert!(place.ok("--help").contains("\n  convert [-c]"));
    place.ok("--version");
    place.fails(
        "info --image-opts -f raw @a",
        1,
        "tool: --image-opts and --format are mutually exclusive\n",
    );
}

/// What shows through an image is the same on another backing file, also where it was zeros because
/// there was none, or none that long.
#[test]
fn a_rebase_keeps_zeros() {
    let place = Place::new();
    place.file("base", 2 * MIB, &[(0, 2 * MIB, 0xaa)]);
    let mut short = place.file("short", MIB / 2 + 512, &[(0, MIB / 2 + 512, 0x55)]);
    short.resize(2 * MIB, 0);
    for compat in ["0.10", "1.1"] {
        place.ok(&format!("create -q -f qcow2 -o compat={compat} @none 2M"));
        place.ok(&format!("create -q -f qcow2 -o compat={compat} -b @short -F raw @over 2M"));
        for (image, seen) in [("none", &vec![0; 2 * MIB]), ("over", &short)] {
            place.ok(&format!("rebase -f qcow2 -b @base -F raw @{image}"));
            place.ok(&format!("convert -f qcow2 -O raw @{image} @out"));
            assert!(fs::read(place.path("out")).unwrap() == *seen, "{image} {compat}");
        }
    }
}

#[test]
fn an_image_in_use_is_not_emptied() {
    let place = Place::new();
    let bytes = place.file("a", MIB, &[(0, MIB, 7)]);
    let user = crate::host::HostFile::open(
        place.path("a").to_str().unwrap(),
        crate::host::OpenOptions::default(),
    );
    for line in ["create -f qcow2 @a 1M", "create -f raw @a 1M"] {
        let (code, _, said) = place.run(line);
        assert!(code == 1 && said.contains("Failed to get"), "{said}");
        assert!(fs::read(place.path("a")).unwrap() == bytes, "{line}");
    }
    drop(user);
    for line in ["convert -f raw -O raw @a @a", "dd -f raw -O raw if=@a of=@a"] {
        let (code, _, said) = place.run(line);
        assert!(code == 1 && said.contains("Failed to get"), "{said}");
        assert!(fs::read(place.path("a")).unwrap() == bytes, "{line}");
    }
}
