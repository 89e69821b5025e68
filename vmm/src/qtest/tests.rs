use super::*;
use proptest::prelude::*;
use resources::device::{At, Device, DeviceCell, put_value};
use resources::hv::SpaceKind;
use resources::irq::{Irq, Wire};
use resources::ram::RamBlock;
use resources::space::Mapping;
use resources::state::{Blob, StateError};

/// A device that shows how it was accessed, and interrupts.
struct Probe {
    irq: Irq,
    /// Offset and length of each access.
    seen: Vec<(u64, usize)>,
}

impl Device for Probe {
    fn read(&mut self, at: At, data: &mut [u8]) {
        self.seen.push((at.offset, data.len()));
        put_value(data, 0x8877_6655_4433_2211);
    }

    fn write(&mut self, at: At, data: &[u8]) {
        self.seen.push((at.offset, data.len()));
        if at.offset == 0 {
            self.irq.set(data[0] & 1 != 0);
        }
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &())
    }

    fn load(&mut self, _: &Blob) -> Result<(), StateError> {
        Ok(())
    }
}

/// 64 KiB of RAM, and the probe in 16 ports and 16 bytes of memory.
struct Rig {
    qtest: Qtest,
    probe: Arc<DeviceCell<Probe>>,
    clock: Arc<Clock>,
    wire: Arc<Wire>,
}

const PROBE: u64 = 0x10_0000;

impl Rig {
    fn new() -> Rig {
        let fake = Fake::unrecorded();
        let wire = Wire::new(5, fake.clone());
        let probe = DeviceCell::new("probe", Probe { irq: wire.line(), seen: Vec::new() });
        let memory = Space::new(SpaceKind::Memory, fake.clone());
        let ports = Space::new(SpaceKind::Ports, fake.clone());
        memory.map(Mapping::ram(0, RamBlock::anonymous(64 << 10).unwrap())).unwrap();
        memory.map(Mapping::device(PROBE, 16, probe.clone(), 0)).unwrap();
        ports.map(Mapping::device(0x300, 16, probe.clone(), 0)).unwrap();
        let clock = Clock::stepped();
        let qtest = Qtest::new(memory, ports, clock.clone(), fake);
        Rig { qtest, probe, clock, wire }
    }

    /// The reply to one line.
    fn ask(&mut self, line: &str) -> String {
        let out = self.qtest.feed(format!("{line}\n").as_bytes());
        out.strip_suffix('\n').unwrap().to_owned()
    }

    fn seen(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.probe.lock().seen)
    }
}

#[test]
fn ports_by_width() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("inb 0x301"), "OK 0x0011");
    assert_eq!(rig.ask("inw 770"), "OK 0x2211");
    assert_eq!(rig.ask("inl 01404"), "OK 0x44332211");
    assert_eq!(rig.ask("outb 0x301 0xff"), "OK");
    assert_eq!(rig.ask("outw 0x302 65535"), "OK");
    assert_eq!(rig.ask("outl 0x304 0xffffffff"), "OK");
    let wanted = [(1, 1), (2, 2), (4, 4)];
    assert_eq!(rig.seen(), [wanted, wanted].concat());
    assert_eq!(rig.ask("inb 0x400"), "OK 0x00ff");
}

#[test]
fn memory_by_width() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("writeq 0x1000 0x1122334455667788"), "OK");
    assert_eq!(rig.ask("readb 0x1000"), "OK 0x0000000000000088");
    assert_eq!(rig.ask("readw 0x1001"), "OK 0x0000000000006677");
    assert_eq!(rig.ask("readl 0x1004"), "OK 0x0000000011223344");
    assert_eq!(rig.ask("readq 0x1000"), "OK 0x1122334455667788");
    assert_eq!(rig.ask("writeb 0x1007 0"), "OK");
    assert_eq!(rig.ask("writew 0x1000 0xabcd"), "OK");
    assert_eq!(rig.ask("writel 0x1002 1"), "OK");
    assert_eq!(rig.ask("readq 0x1000"), "OK 0x002200000001abcd");
}

#[test]
fn blocks() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("write 0x2001 5 0x0102030405"), "OK");
    assert_eq!(rig.ask("read 0x2000 7"), "OK 0x00010203040500");
    assert_eq!(rig.ask("write 0x2001 0x3 0xFF"), "OK");
    assert_eq!(rig.ask("read 0x2001 3"), "OK 0xff0000");
    assert_eq!(rig.ask("memset 0x3000 9 0x5a"), "OK");
    assert_eq!(rig.ask("read 0x2fff 11"), "OK 0x005a5a5a5a5a5a5a5a5a00");
    assert_eq!(rig.ask("b64write 0x4000 6 Zm9vYmFy"), "OK");
    assert_eq!(rig.ask("b64read 0x4000 4"), "OK Zm9vYg==");
    assert_eq!(rig.ask("read 0x4000 3"), "OK 0x666f6f");
}

#[test]
fn blocks_reach_devices_as_a_bus_accesses_them() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("read 0x100001 15"), "OK 0x111122112233441122334455667788");
    assert_eq!(rig.seen(), [(1, 1), (2, 2), (4, 4), (8, 8)]);
    rig.ask("memset 0x100004 9 0");
    assert_eq!(rig.seen(), [(4, 4), (8, 4), (12, 1)]);
}

#[test]
fn the_largest_block_and_no_larger() {
    let mut rig = Rig::new();
    let reply = rig.ask(&format!("write 0 {MAX_DATA} 0x{}", "ab".repeat(MAX_DATA)));
    assert_eq!(reply, "OK");
    assert_eq!(rig.ask("readl 0xfffc"), "OK 0x00000000abababab");
    assert_eq!(rig.ask(&format!("read 0 {MAX_DATA}")).len(), "OK 0x".len() + 2 * MAX_DATA);
    assert!(rig.ask(&format!("read 0 {}", MAX_DATA + 1)).starts_with("FAIL SIZE"));
    assert!(rig.ask(&"x".repeat(MAX_LINE)).starts_with("FAIL Unknown command"));
    let long = format!("FAIL line longer than {MAX_LINE} bytes");
    assert_eq!(rig.ask(&"x".repeat(MAX_LINE + 1)), long);
    assert_eq!(rig.ask(&"x".repeat(3 * MAX_LINE)), long);
    assert_eq!(rig.ask("endianness"), "OK little");
}

#[test]
fn what_is_wrong_is_said() {
    let mut rig = Rig::new();
    for (line, reply) in [
        ("", "FAIL empty line"),
        ("  ", "FAIL empty line"),
        ("peek 0", "FAIL Unknown command 'peek'"),
        ("inbb 0", "FAIL Unknown command 'inbb' (did you mean 'inb'?)"),
        ("\u{1b}[2J", "FAIL Unknown command '\\u{1b}[2J'"),
        ("inb", "FAIL usage: inb ADDR"),
        ("inb 1 2", "FAIL usage: inb ADDR"),
        ("clock_step 1 2", "FAIL usage: clock_step [NS]"),
        ("inb x", "FAIL ADDR is not a number: 'x'"),
        ("inb -1", "FAIL ADDR is not a number: '-1'"),
        ("inb 0x10000", "FAIL ADDR 0x10000 is not an I/O port"),
        ("outb 0x80 256", "FAIL VALUE 0x100 does not fit 1 bytes"),
        ("writel 0 0x100000000", "FAIL VALUE 0x100000000 does not fit 4 bytes"),
        ("read 0 0", "FAIL SIZE 0 is not from 1 to 1048576"),
        ("memset 0 0x4000001 0", "FAIL SIZE 67108865 is not from 1 to 67108864"),
        ("read 0xffffffffffffffff 2", "FAIL 0xffffffffffffffff+0x2 is past the end of memory"),
        ("write 0 1 00", "FAIL DATA does not begin with 0x"),
        ("write 0 1 0x0", "FAIL DATA has an odd number of digits"),
        ("write 0 1 0x0000", "FAIL DATA has 2 bytes, not 1"),
        ("write 0 1 0x0g", "FAIL DATA is not hexadecimal"),
        ("write 0 3 0xää", "FAIL DATA is not hexadecimal"),
        ("b64write 0 1 Zg=", "FAIL DATA is not base 64"),
        ("b64write 0 2 Zg==", "FAIL DATA has 1 bytes, not 2"),
        ("clock_step 18446744073709551615", "OK 18446744073709551615"),
        ("clock_step 1", "FAIL NS 1 is past the end of time"),
        ("irq_intercept_in pic", "FAIL Unknown device 'pic' (there is 'ioapic')"),
    ] {
        assert_eq!(rig.ask(line), reply, "{line:?}");
    }
    assert_eq!(rig.qtest.feed(b"inb \xff\n"), "FAIL line is not text\n");
    assert_eq!(rig.ask("inb 0x301\r"), "OK 0x0011");
    // The end of memory itself can be accessed.
    assert_eq!(rig.ask("read 0xffffffffffffffff 1"), "OK 0xff");
    assert_eq!(rig.ask("readq 0xffffffffffffffff"), "OK 0xffffffffffffffff");
}

#[test]
fn time_passes_when_told() {
    let mut rig = Rig::new();
    let (line, weak) = (rig.wire.line(), Arc::downgrade(&rig.clock));
    let fired = Arc::new(Mutex::new(Vec::new()));
    let mut timer = rig.clock.timer({
        let fired = fired.clone();
        move || {
            fired.lock().push(weak.upgrade().unwrap().now());
            line.signal();
        }
    });
    assert_eq!(rig.ask("clock_step"), "OK 0");
    assert_eq!(rig.ask("clock_step 100"), "OK 100");
    timer.arm(1_000);
    assert_eq!(rig.ask("clock_step"), "OK 1000");
    assert_eq!(rig.ask("irq_intercept_in ioapic"), "OK");
    timer.arm(1_500);
    assert_eq!(rig.ask("clock_set 2000"), "IRQ raise 5\nIRQ lower 5\nOK 2000");
    assert_eq!(rig.ask("clock_set 5"), "OK 2000");
    assert_eq!(*fired.lock(), [1_000, 1_500]);
    // What is due already does not wait for the next step.
    timer.arm(3);
    assert_eq!(rig.ask("inb 0x301"), "IRQ raise 5\nIRQ lower 5\nOK 0x0011");
}

#[test]
fn a_timer_that_never_ends_does_not_hang_the_port() {
    let mut rig = Rig::new();
    let cell: Arc<Mutex<Option<resources::clock::Timer>>> = Arc::default();
    let own = cell.clone();
    let timer = rig.clock.timer(move || {
        if let Some(timer) = own.lock().as_mut() {
            let now = timer.now();
            timer.arm(now + 10);
        }
    });
    *cell.lock() = Some(timer);
    cell.lock().as_mut().unwrap().arm(10);
    let reply = rig.ask("clock_step 0x7fffffffffffffff");
    assert!(reply.starts_with("FAIL 262144 timers ran; the clock is at 2621440"), "{reply}");
    cell.lock().take();
    assert_eq!(rig.ask("clock_step 1"), "OK 2621441");
}

#[test]
fn interrupts_are_told_before_the_reply() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("outb 0x300 1"), "OK");
    assert_eq!(rig.ask("outb 0x300 0"), "OK");
    assert_eq!(rig.ask("irq_intercept_out /machine/ioapic"), "OK");
    assert_eq!(rig.ask("outb 0x300 1"), "IRQ raise 5\nOK");
    assert_eq!(rig.ask("outb 0x300 1"), "OK");
    // From elsewhere: not with a reply.
    let notified = rig.qtest.changed().notified();
    rig.probe.lock().irq.set(false);
    assert_eq!(rig.qtest.changes(), "IRQ lower 5\n");
    drop(notified);
    // The next client has not asked.
    rig.qtest.disconnect();
    assert_eq!(rig.ask("outb 0x300 1"), "OK");
    assert_eq!(rig.qtest.changes(), "");
}

#[test]
fn interrupts_that_nobody_fetches_do_not_pile_up() {
    let mut rig = Rig::new();
    rig.ask("irq_intercept_in ioapic");
    let line = rig.wire.line();
    (0..3 * MAX_CHANGES).for_each(|_| line.signal());
    assert_eq!(rig.qtest.changes().lines().count(), MAX_CHANGES);
    assert_eq!(rig.qtest.changes(), "");
}

/// A session's input, replayed in the pieces that `cuts` makes of it.
fn session(input: &[u8], cuts: &[usize]) -> String {
    let mut rig = Rig::new();
    let (mut out, mut rest) = (String::new(), input);
    for cut in cuts {
        let (now, later) = rest.split_at((*cut).min(rest.len()));
        out.push_str(&rig.qtest.feed(now));
        rest = later;
    }
    out + &rig.qtest.feed(rest)
}

fn lines() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<u8>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| format!("{n:#x}")),
        (0u32..32).prop_map(|n| format!("{:#x}", PROBE + u64::from(n))),
        (0u32..32).prop_map(|n| format!("{:#x}", 0x2f8 + n)),
    ];
    let name = prop::sample::select(vec![
        "inb",
        "inl",
        "outb",
        "outl",
        "readb",
        "readq",
        "writeb",
        "writeq",
        "read",
        "write",
        "memset",
        "b64read",
        "b64write",
        "clock_step",
        "clock_set",
        "irq_intercept_in",
    ]);
    let line = (name, prop::collection::vec(number, 0..4))
        .prop_map(|(name, args)| format!("{name} {}\n", args.join(" ")));
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        input in lines(),
        cuts in prop::collection::vec(0usize..40, 0..12),
    ) {
        let input = format!("irq_intercept_in ioapic\n{input}").into_bytes();
        prop_assert_eq!(session(&input, &[]), session(&input, &cuts));
    }

    #[test]
    fn any_bytes(input: Vec<u8>) {
        fuzz(&input);
    }

    #[test]
    fn any_lines(input in lines()) {
        fuzz(input.as_bytes());
    }
}

/// A client of a machine's port, on a real socket.
mod on_a_socket {
    use super::*;
    use devices::chardev::{self, Chardev};
    use resources::iol;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    struct Served {
        probe: Arc<DeviceCell<Probe>>,
        path: PathBuf,
        chardev: Arc<Chardev>,
        _thread: iol::Thread,
    }

    impl Served {
        fn new(name: &str) -> Served {
            let path = std::env::temp_dir().join(format!("qtest-{name}-{}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            let (thread, io) = iol::Thread::spawn("io").unwrap();
            let text = format!("unix:{},server=on,wait=off", path.display());
            let Ok(chardev::Device::New { backend, .. }) =
                chardev::parse_device("-qtest", &text, true)
            else {
                panic!("not a device: {text}");
            };
            let chardev = Chardev::open("qtest", backend, &io).unwrap();
            let rig = Rig::new();
            attach(chardev.clone(), &io, rig.qtest).unwrap();
            Served { probe: rig.probe, path, chardev, _thread: thread }
        }

        fn connect(&self) -> (UnixStream, BufReader<UnixStream>) {
            let stream = UnixStream::connect(&self.path).unwrap();
            (stream.try_clone().unwrap(), BufReader::new(stream))
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.chardev.close();
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn line(from: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn lines_are_answered_and_interrupts_told() {
        let served = Served::new("lines");
        let (mut to, mut from) = served.connect();
        to.write_all(b"inb 0x301\nirq_inter").unwrap();
        assert_eq!(line(&mut from), "OK 0x0011\n");
        to.write_all(b"cept_in ioapic\noutb 0x300 1\n").unwrap();
        assert_eq!(line(&mut from), "OK\n");
        assert_eq!(line(&mut from), "IRQ raise 5\n");
        assert_eq!(line(&mut from), "OK\n");
        // Not because of a command, and from another thread.
        served.probe.lock().irq.set(false);
        assert_eq!(line(&mut from), "IRQ lower 5\n");
    }

    #[test]
    fn a_client_that_reads_late_gets_everything() {
        let served = Served::new("late");
        let (mut to, mut from) = served.connect();
        let writer = std::thread::spawn(move || {
            (0..64).for_each(|n| {
                to.write_all(format!("memset 0 1 {n}\nread 0 0x8000\n").as_bytes()).unwrap();
            });
            to
        });
        for n in 0..64 {
            assert_eq!(line(&mut from), "OK\n");
            let reply = line(&mut from);
            assert_eq!(reply.len(), "OK 0x\n".len() + 0x10000);
            assert_eq!(&reply[..7], format!("OK 0x{n:02x}"));
        }
        drop(writer.join().unwrap());
    }

    #[test]
    fn the_next_client_starts_afresh() {
        let served = Served::new("next");
        let (mut to, mut from) = served.connect();
        to.write_all(b"irq_intercept_in ioapic\ninb").unwrap();
        assert_eq!(line(&mut from), "OK\n");
        drop((to, from));
        let (mut to, mut from) = served.connect();
        to.write_all(b"outb 0x300 1\ninb 0x301\n").unwrap();
        assert_eq!(line(&mut from), "OK\n");
        assert_eq!(line(&mut from), "OK 0x0011\n");
    }
}
