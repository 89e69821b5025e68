//! Streams that were written once must load for ever: `tests/golden/*.stream`.
//!
//! `cargo test -p tests --test qtest golden -- --ignored` writes those that are missing. The
//! machines have no processors, whose state is of their host.

use std::path::PathBuf;

use resources::state::Blob;

use super::*;

/// A machine whose stream is kept.
struct Kept {
    /// The name of the file.
    name: &'static str,
    args: &'static [&'static str],
}

/// A kept stream is never written anew: a new class of devices is a new row.
const KEPT: &[Kept] = &[
    Kept { name: "board", args: &[] },
    Kept {
        name: "devices",
        args: &[
            "-chardev",
            "null,id=c0",
            "-chardev",
            "null,id=c1",
            "-chardev",
            "null,id=c2",
            "-device",
            "isa-debugcon,id=con,chardev=c2,iobase=0x402",
            "-device",
            "isa-debug-exit,id=exit",
            "-device",
            "ib700,id=dog0",
            "-device",
            "i6300esb,id=dog1",
            "-device",
            "pvpanic,id=panic0",
            "-device",
            "vmgenid,id=gen0",
            "-device",
            "pci-bridge,id=bridge0,chassis_nr=1",
            "-device",
            "virtio-rng-pci,id=rng0",
            "-device",
            "virtio-balloon-pci,id=balloon0",
            "-device",
            "virtio-serial-pci,id=serial0",
            "-device",
            "virtconsole,id=console0,bus=serial0.0,chardev=c0",
            "-device",
            "virtserialport,id=port0,bus=serial0.0,chardev=c1,name=test.port",
            "-netdev",
            "user,id=n0",
            "-device",
            "virtio-net-pci,id=card0,netdev=n0,mac=52:54:00:00:00:01",
            "-drive",
            "if=none,id=b0,driver=null-co,size=1M",
            "-device",
            "virtio-blk-pci,id=disk0,drive=b0",
            "-device",
            "virtio-scsi-pci,id=scsi0",
            "-drive",
            "if=none,id=b1,driver=null-co,size=1M",
            "-device",
            "scsi-hd,id=sd0,bus=scsi0.0,drive=b1",
            "-drive",
            "if=none,id=b2,driver=null-co,size=1M,media=cdrom",
            "-device",
            "scsi-cd,id=cd0,bus=scsi0.0,drive=b2",
        ],
    },
];

/// Of a version that is to come: the clock has something that must not be lost.
const FUTURE: &str = "future";
const CLOCK: &str = "/machine/rtc";

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).join(format!("{name}.stream"))
}

fn uri(name: &str) -> String {
    format!("file:{}", file(name).display())
}

fn machine(kept: &Kept, more: &[&str]) -> Machine {
    let args = ["-S", "-rtc", "base=2024-02-28T12:34:56,clock=vm"];
    Machine::with("4", &args.iter().chain(kept.args).chain(more).copied().collect::<Vec<_>>())
}

/// What a machine holds that was saved.
fn mark(m: &mut Machine) {
    for (port, value) in [(0x80, 0x77), (0x3ff, 0x5a), (0x70, 0x40), (0x71, 0x99)] {
        m.outb(port, value);
    }
    m.q.writeq(0x1000, 0x1122_3344_5566_7788).unwrap();
    m.q.writeq(0x3f_fff8, 0x99).unwrap();
}

fn check(m: &mut Machine) {
    m.outb(0x70, 0x40);
    assert_eq!([0x80, 0x3ff, 0x71].map(|port| m.inb(port)), [0x77, 0x5a, 0x99]);
    let read = [0x1000, 0x3f_fff8, 0x2000].map(|address| m.q.readq(address).unwrap());
    assert_eq!(read, [0x1122_3344_5566_7788, 0x99, 0]);
}

/// Waits until the guest is there.
fn arrived(m: &mut Machine) {
    let deadline = std::time::Instant::now() + SOON;
    while m.qmp("query-status")["status"] == "inmigrate" {
        assert!(std::time::Instant::now() < deadline, "the guest does not arrive");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn write(m: &mut Machine, name: &str) {
    m.vm.qmp.execute("migrate", serde_json::json!({ "uri": uri(name) })).unwrap();
    let deadline = std::time::Instant::now() + SOON;
    while m.qmp("query-migrate")["status"] != "completed" {
        assert!(std::time::Instant::now() < deadline, "{}", m.qmp("query-migrate"));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn golden_streams_load() {
    for kept in KEPT {
        let len = std::fs::metadata(file(kept.name)).unwrap().len();
        assert!(len < 100 << 10, "{}: {len} bytes", kept.name);
        let mut m = machine(kept, &["-incoming", &uri(kept.name)]);
        arrived(&mut m);
        assert_eq!(m.qmp("query-status")["status"], "paused", "{}", kept.name);
        check(&mut m);
        m.qmp("x-pulse-save-restore");
        m.qmp("cont");
        check(&mut m);
    }
}

#[test]
fn a_stream_of_a_later_version_is_refused_with_what_it_needs() {
    let dir = Scratch::new().unwrap();
    let vm = builder(&dir, "4").args(["-S", "-incoming", &uri(FUTURE)]);
    let mut process = vm.start_bare().unwrap();
    assert_eq!(process.exit_code(SOON).unwrap(), 1);
    let said = process.wait_for_stderr(SOON).unwrap();
    assert!(said.contains(CLOCK) && said.contains("needs 'leap-seconds'"), "{said}");
}

#[test]
#[ignore = "writes into the source tree"]
fn golden_streams_are_written() {
    std::fs::create_dir_all(file("x").parent().unwrap()).unwrap();
    for kept in KEPT.iter().filter(|kept| !file(kept.name).exists()) {
        let mut m = machine(kept, &[]);
        mark(&mut m);
        write(&mut m, kept.name);
    }
    if !file(FUTURE).exists() {
        let stream = std::fs::read(file(KEPT[0].name)).unwrap();
        std::fs::write(file(FUTURE), of_later_version(&stream)).unwrap();
    }
}

/// The stream with a need that nobody knows in the clock's state.
fn of_later_version(stream: &[u8]) -> Vec<u8> {
    // As a name of the stream, with its length before it.
    let name: Vec<u8> = [CLOCK.len() as u8].into_iter().chain(CLOCK.bytes()).collect();
    let at = stream.windows(name.len()).position(|found| found == name).unwrap();
    // Its instance, its version, then its length.
    let at = at + name.len() + 8;
    let len = u32::from_be_bytes(stream[at..at + 4].try_into().unwrap()) as usize;
    let blob = Blob::from_bytes(&stream[at + 4..at + 4 + len]).unwrap();
    let blob = blob.with_need("leap-seconds", &27_u32).unwrap().to_bytes().unwrap();
    let mut all = stream[..at].to_vec();
    all.extend(u32::try_from(blob.len()).unwrap().to_be_bytes());
    all.extend(blob);
    all.extend(&stream[at + 4 + len..]);
    all
}
