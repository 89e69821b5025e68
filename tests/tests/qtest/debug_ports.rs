//! Debug ports, and ports with nothing behind them.

use super::*;

#[test]
fn debug_exit_ends_the_process_with_the_value() {
    for (args, port, value, code) in [
        ("isa-debug-exit", 0x501, 0x10, 0x21),
        ("isa-debug-exit,iobase=0xf4,iosize=4", 0xf4, 0, 1),
        ("isa-debug-exit", 0x501, 0xff, 0xff),
    ] {
        let mut m = Machine::new(["-device", args]);
        assert_eq!(m.inb(port), 0);
        m.outb(port, value);
        assert_eq!(m.exit_code(), code);
    }
}

#[test]
fn the_debug_console_writes_to_its_chardev() {
    let dir = Scratch::new().unwrap();
    let (first, second) = (dir.join("first"), dir.join("second"));
    let mut m = Machine::new([
        "-debugcon",
        &format!("file:{}", first.display()),
        "-chardev",
        &format!("file,id=c,path={}", second.display()),
        "-device",
        "isa-debugcon,chardev=c,readback=0x77",
    ]);
    assert_eq!((m.inb(0x402), m.inb(0xe9)), (0xe9, 0x77));
    for byte in b"text" {
        m.outb(0x402, *byte);
        m.outb(0xe9, byte.to_ascii_uppercase());
    }
    m.qmp("quit");
    assert_eq!(m.exit_code(), 0);
    assert_eq!(std::fs::read(first).unwrap(), b"text");
    assert_eq!(std::fs::read(second).unwrap(), b"TEXT");
}

#[test]
fn chips_that_kvm_brings_are_not_there() {
    let mut m = Machine::new([]);
    // PIC, PIT, and the edge/level registers.
    for port in [0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0xa0, 0xa1, 0x4d0, 0x4d1] {
        m.outb(port, 0x12);
        assert_eq!(m.inb(port), 0xff, "{port:#x}");
    }
    for address in [0xfec0_0000, 0xfee0_0000] {
        assert_eq!(m.q.readq(address).unwrap(), u64::MAX);
    }
}

#[test]
fn any_access_to_any_port_does_no_harm() {
    let mut m = Machine::new(["-no-shutdown"]);
    let ports = (0..0x700).chain(0xcf0..0xd00).chain(0xfff0..=0xffff);
    let lines: String = ports
        .flat_map(|port: u32| {
            let outs = (port != 0x604 && port != 0x605).then(|| {
                format!("outl {port:#x} 0xffffdfff\noutw {port:#x} 0\noutb {port:#x} 1\n")
            });
            [format!("inl {port:#x}\ninw {port:#x}\ninb {port:#x}\n"), outs.unwrap_or_default()]
        })
        .collect();
    let count = lines.lines().count();
    m.q.send(lines.as_bytes()).unwrap();
    for _ in 0..count {
        m.q.reply().unwrap().unwrap();
    }
    m.qmp("query-status");
}
