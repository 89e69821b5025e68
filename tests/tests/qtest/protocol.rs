//! The debug port itself, as a client sees it.

use super::*;
use tests::rig::console::Console;

#[test]
fn the_command_line_as_people_write_it() {
    let Peer::Vmm(vmm) = debug_peer().unwrap() else { return };
    let dir = Scratch::new().unwrap();
    let (qtest, qmp) = (dir.join("qtest"), dir.join("qmp"));
    let unix = |path: &Path| format!("unix:{}", path.display());
    let mut command = std::process::Command::new(vmm);
    command.args(["-machine", "pc,accel=qtest", "-qtest", &unix(&qtest)]);
    command.args(["--display", "none", "--nodefaults", "--qmp", &unix(&qmp)]);
    let mut process = tests::rig::vm::Process::start(&mut command).unwrap();
    let mut qmp = tests::rig::qmp::Qmp::connect(&qmp, SOON).unwrap();
    let mut q = Qtest::connect(&qtest, SOON).unwrap();
    assert_eq!(q.command("endianness").unwrap(), "little");
    // No serial port was asked for.
    assert_eq!(q.inb(0x3fd).unwrap(), 0xff);
    qmp.execute("quit", serde_json::json!({})).unwrap();
    assert_eq!(process.exit_code(SOON).unwrap(), 0);
}

#[test]
fn needs_a_machine_without_kvm() {
    let Peer::Vmm(vmm) = debug_peer().unwrap() else { return };
    let mut command = std::process::Command::new(vmm);
    command.args(["-machine", "pc,accel=kvm", "-qtest", "null", "-nodefaults", "-S"]);
    let mut process = tests::rig::vm::Process::start(&mut command).unwrap();
    assert_eq!(process.exit_code(SOON).unwrap(), 1);
    let mut stderr = Console::new("stderr", process.stderr().clone(), std::io::sink());
    stderr.expect_line("-qtest needs -machine accel=qtest", SOON).unwrap();
}

#[test]
fn mistakes_are_answered_and_change_nothing() {
    let mut m = Machine::new([]);
    for (line, reason) in [
        ("nonsense", "Unknown command 'nonsense'"),
        ("inb", "usage: inb ADDR"),
        ("inb 0x10000", "ADDR 0x10000 is not an I/O port"),
        ("read 0 0x7fffffff", "SIZE 2147483647 is not from 1 to 1048576"),
        ("irq_intercept_in /machine/pic", "Unknown device '/machine/pic' (there is 'ioapic')"),
    ] {
        assert_eq!(m.q.try_command(line).unwrap(), Err(reason.to_owned()));
    }
    m.q.send(&[0xfe; 1 << 20]).unwrap();
    m.q.send(b"\n").unwrap();
    assert_eq!(m.q.reply().unwrap(), Err("line is not text".to_owned()));
    assert_eq!(m.q.command("endianness").unwrap(), "little");
}

#[test]
fn many_lines_at_once_and_one_line_in_pieces() {
    let mut m = Machine::new([]);
    let lines: String = (0..1000).map(|n| format!("outb 0x80 {}\ninb 0x80\n", n % 256)).collect();
    m.q.send(lines.as_bytes()).unwrap();
    for n in 0..1000 {
        assert_eq!(m.q.reply().unwrap().unwrap(), "");
        assert_eq!(m.q.reply().unwrap().unwrap(), format!("{:#06x}", n % 256));
    }
    for piece in ["in", "b 0x", "80", "\n"] {
        m.q.send(piece.as_bytes()).unwrap();
    }
    assert_eq!(m.q.reply().unwrap().unwrap(), "0x00e7");
}

#[test]
fn a_second_client_takes_over_when_the_first_has_gone() {
    let mut m = Machine::with_irqs([]);
    m.outb(0x80, 0x12);
    let socket = m.dir.join("qtest");
    let second = Qtest::connect(&socket, SOON).unwrap();
    assert_eq!(m.inb(0x80), 0x12);
    m.q = second;
    assert_eq!(m.inb(0x80), 0x12);
    // It has not asked for interrupts.
    m.outb(0x64, 0xaa);
    assert_eq!(m.irqs(), []);
}
