//! Command lines against a machine on the fake hypervisor.

use qmp::{Handle, HumanMonitorCommand, RunState};
use resources::hv::fake::Fake;
use resources::iol::Notify;

use super::table::{Action, Rows};
use super::*;
use crate::cmd::testing::{fake, kvm};
use crate::machine::{Accel, Board};
use crate::mailbox::Mailbox;
use crate::plug::Means;
use crate::testing::Rig;
use crate::vm::Policy;

fn machine() -> Vm {
    let board = Board::new(Accel::Qtest(Fake::unrecorded()));
    let policy = Policy { name: Some("guest".to_owned()), ..Policy::default() };
    Vm::new(board, Vec::new(), Mailbox::new(Notify::new()), policy)
}

/// What a line prints in a monitor of its own.
fn say(vm: &mut Vm, line: &str) -> String {
    run(vm, &mut Monitor::default(), line)
}

#[track_caller]
fn check(vm: &mut Vm, cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        assert_eq!(say(vm, line), *expected, "{line}");
    }
}

#[test]
fn what_is_no_command() {
    check(
        &mut machine(),
        &[
            ("", ""),
            ("   ", ""),
            ("foo", "unknown command: 'foo'\n"),
            (" foo bar", "unknown command: ' foo'\n"),
            ("info foo", "unknown command: 'info foo'\n"),
            ("info  foo x", "unknown command: 'info  foo'\n"),
            ("/x", "unknown command: ''\n"),
            ("stop now", "stop: extraneous characters at the end of line\n"),
            ("info status x", "status: extraneous characters at the end of line\n"),
            ("cpu", "unexpected end of expression\n"),
            ("cpu 0x100000000", "'cpu' has failed: integer is for 32-bit values\n"),
        ],
    );
}

#[test]
fn names_are_unique_and_lines_of_help_short() {
    fn check(rows: Rows) {
        let names = table::names(rows);
        let mut unique = names.clone();
        unique.dedup();
        assert_eq!(names, unique);
        for row in rows.iter().copied().flatten() {
            assert!(row.help("").len() <= 100, "{}", row.help(""));
            assert!(!row.help.is_empty() && !row.help.ends_with('.'));
            if let Action::Sub(sub) = row.action {
                check(sub);
            }
        }
    }
    check(commands::COMMANDS);
}

#[test]
fn help() {
    let mut vm = machine();
    let all = say(&mut vm, "help");
    assert_eq!(all, say(&mut vm, "?"));
    let first_name = |line: &str| line.split(['|', ' ']).next().map(str::to_owned);
    assert!(all.lines().map(first_name).is_sorted(), "{all}");
    assert!(all.contains("\nq|quit  -- end the process\n"), "{all}");
    let info = say(&mut vm, "info");
    assert!(info.contains("\ninfo status  -- show whether the guest runs\n"), "{info}");
    assert_eq!(info, say(&mut vm, "help info"));
    assert!(say(&mut vm, "help log").contains("\nguest_errors "));
    check(
        &mut vm,
        &[
            ("help cpu", "cpu index -- choose the processor to look at\n"),
            ("help q", "q|quit  -- end the process\n"),
            ("help info kvm", "info kvm  -- show whether KVM is used\n"),
            ("help nothing", ""),
        ],
    );
}

#[test]
fn status() {
    let mut vm = machine();
    check(
        &mut vm,
        &[
            ("info status", "VM status: paused (prelaunch)\n"),
            ("cont", ""),
            ("info status", "VM status: running\n"),
            ("stop", ""),
            ("info status", "VM status: paused\n"),
            ("c", ""),
        ],
    );
    vm.stop(RunState::InternalError);
    check(
        &mut vm,
        &[
            ("info status", "VM status: paused (internal-error)\n"),
            ("cont", "Resetting the Virtual Machine is required\n"),
            ("system_reset", ""),
            ("system_wakeup", ""),
            ("system_powerdown", ""),
            ("quit", ""),
        ],
    );
    vm.service();
    assert_eq!(vm.exit_status(), Some(0));
}

#[test]
fn identity() {
    check(
        &mut machine(),
        &[
            ("info name", "guest\n"),
            ("info uuid", "00000000-0000-0000-0000-000000000000\n"),
            ("info version", concat!("1.7.50 (vmm ", env!("CARGO_PKG_VERSION"), ")\n")),
        ],
    );
    let mut vm = machine();
    vm.policy.name = None;
    assert_eq!(say(&mut vm, "info name"), "");
    assert!(say(&mut vm, "info kvm").starts_with("kvm support: "));
}

#[test]
fn processors() {
    check(
        &mut machine(),
        &[
            ("info cpus", ""),
            ("cpu 0", "invalid CPU index\n"),
            ("print $pc", "no CPU defined\n"),
            ("print $nothing", "unknown register\n"),
            ("singlestep", "single-stepping is not supported under a hypervisor\n"),
            ("singlestep off", ""),
            ("singlestep maybe", "unexpected option maybe\n"),
        ],
    );
}

#[test]
fn numbers() {
    check(
        &mut machine(),
        &[
            ("p 0x10", "0x10\n"),
            ("print/d 1+1", "2\n"),
            ("p 3", "3\n"),
            ("p/u -1", "18446744073709551615\n"),
            ("p/o 8", "010\n"),
            ("p/x 0", "0\n"),
            ("p/x -1", "0xffffffffffffffff\n"),
            ("p/c 'a'", "'a'\n"),
            ("p/c 10", "'\\n'\n"),
            ("p/c 0", "'\\x00'\n"),
            ("p/c 39", "'\\''\n"),
            ("p/z 1", "invalid char in format: 'z'\n"),
            ("p 1/0", "division by zero\n"),
        ],
    );
}

#[test]
fn ports() {
    check(
        &mut machine(),
        &[
            ("i/b 0x70", "portb[0x0070] = 0xff\n"),
            ("i/h 0x70.3", "portw[0x0071] = 0xffff\n"),
            ("i/w 0x10070", "portl[0x0070] = 0xffffffff\n"),
            ("o/b 0x80 1", ""),
            ("sum 0 4", "00000\n"),
        ],
    );
}

#[test]
fn memory_is_shown() {
    let mut vm = fake();
    vm.board.memory.write(0x1000, b"hello, world\n\x01\x02\x03");
    check(
        &mut vm,
        &[
            ("xp/4xb 0x1000", "0000000000001000: 0x68 0x65 0x6c 0x6c\n"),
            ("xp 0x1000", "0000000000001000: 0x68\n"),
            ("xp/w 0x1000", "0000000000001000: 0x6c6c6568\n"),
            ("xp/2c 0x1004", "0000000000001004: 'o' ',' ' ' 'w' 'o' 'r' 'l' 'd'\n"),
            (
                "xp/1g 0x100c",
                "000000000000100c: '\\n' '\\x01' '\\x02' '\\x03' '\\x00' '\\x00' '\\x00' '\\x00'\n",
            ),
            ("xp", "unexpected end of expression\n"),
            ("xp/y 0", "invalid char in format: 'y'\n"),
            ("x 0", "Parameter 'cpu-index' expects a CPU number\n"),
            ("gva2gpa 0", "Parameter 'cpu-index' expects a CPU number\n"),
            ("gpa2hva 0xfffffffff000", "No memory is mapped at address 0xfffffffff000\n"),
            ("info numa", "0 nodes\n"),
        ],
    );
    assert!(say(&mut vm, "info roms").starts_with("addr=00000000000e0000 size=0x0"));
    let tree = say(&mut vm, "info mtree");
    assert!(
        tree.starts_with("memory\n  0000000000000000-ffffffffffffffff (prio 0, RW): "),
        "{tree}"
    );
    assert!(tree.contains("\nI/O\n  0000000000000000-000000000000ffff (prio 0, RW): "), "{tree}");
    let Some(mut vm) = kvm() else { return };
    check(
        &mut vm,
        &[
            ("info tlb", "PG disabled\n"),
            ("info mem", "PG disabled\n"),
            ("gva2gpa 0x1234", "gpa: 0x1234\n"),
            ("x/2xw 0", "0000000000000000: 0x00000000 0x00000000\n"),
        ],
    );
}

#[test]
fn objects() {
    let mut vm = fake();
    check(
        &mut vm,
        &[
            ("qom-list", "/\n"),
            ("qom-list /nothing", "Device '/nothing' not found\n"),
            ("object_add rng-random,id=r", ""),
            (
                "object_add rng-random,id=r",
                "attempt to add duplicate property 'r' to object (type 'container')\n",
            ),
            ("object_add rng-random", "Parameter 'id' is missing\n"),
            ("object_add id=r", "Parameter 'qom-type' is missing\n"),
            ("object_add x,id=a", "Parameter 'qom-type' does not accept value 'x'\n"),
            ("object_add", "object_add: string expected\n"),
            ("qom-list /objects", "r (child<rng-random>)\ntype (string)\n"),
            ("qom-get /objects/r filename", "\"/dev/random\"\n"),
            ("qom-get /objects/r opened", "true\n"),
            ("qom-get /objects/r nothing", "Property '.nothing' not found\n"),
            (
                "qom-set /objects/r opened off",
                "Insufficient permission to perform this operation\n",
            ),
            ("qom-set /objects/r opened", "qom-set: string expected\n"),
            ("info qom-tree /objects", "/objects (container)\n  /r (rng-random)\n"),
            ("object_del r", ""),
            ("object_del r", "object 'r' not found\n"),
        ],
    );
    let tree = say(&mut vm, "info qom-tree");
    assert!(tree.starts_with("/machine (") && tree.contains("\n  /i8042 (i8042)\n"), "{tree}");
    assert_eq!(complete::words(&vm, "qom-list /machine/i8").1, ["/machine/i8042"]);
}

#[test]
fn devices() {
    let mut rig = Rig::new();
    rig.vm.means = Means::default();
    let vm = &mut rig.vm;
    let tree = say(vm, "info qtree");
    assert!(tree.starts_with("bus: main-system-bus\n  type System\n  dev: "), "{tree}");
    let all = say(vm, "device_add help");
    assert_eq!(say(vm, "device_add ?"), all);
    assert!(all.contains("name \"isa-serial\", bus ISA"), "{all}");
    let one = say(vm, "device_add isa-serial,help");
    assert!(one.contains("isa-serial.chardev=chr"), "{one}");
    check(
        vm,
        &[
            ("device_add", "device_add: string expected\n"),
            ("device_add foo", "'foo' is not a valid device model name\n"),
            ("device_add foo,help", "'foo' is not a valid device model name\n"),
            ("device_add id=x", "Parameter 'driver' is missing\n"),
            ("device_add isa-serial", "Bus 'isa.0' does not support hotplugging\n"),
            ("device_del x", "Device 'x' not found\n"),
        ],
    );
    assert_eq!(complete::words(vm, "device_add isa-debug-").1, ["isa-debug-exit"]);
}

/// A directory that goes with the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("vmm-hmp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn memory_is_written_to_files() {
    let mut vm = fake();
    let scratch = Scratch::new("memory");
    let file = scratch.path("a file");
    vm.board.memory.write(0x1000, b"hello");
    assert_eq!(say(&mut vm, &format!("pmemsave 0x1000 5 \"{file}\"")), "");
    assert_eq!(std::fs::read(&file).unwrap(), b"hello");
    check(
        &mut vm,
        &[
            ("memsave 0 1 x", "Parameter 'cpu-index' expects a CPU number\n"),
            ("memsave 0 1", "memsave: filename expected\n"),
            ("pmemsave 0 1 x y", "pmemsave: extraneous characters at the end of line\n"),
            ("dump-guest-memory", "dump-guest-memory: filename expected\n"),
            ("dump-guest-memory x 1", "Parameter 'length' is missing\n"),
            ("dump-guest-memory -q x", "dump-guest-memory: unsupported option -q\n"),
        ],
    );
    assert_eq!(say(&mut vm, "sum 0x1000 5"), "08403\n");
    let Some(mut vm) = kvm() else { return };
    let core = scratch.path("core");
    assert_eq!(say(&mut vm, &format!("dump-guest-memory {core}")), "");
    assert!(std::fs::read(&core).unwrap().starts_with(b"\x7fELF"));
}

#[test]
fn processors_of_a_machine() {
    let Some(mut vm) = kvm() else { return };
    let one = say(&mut vm, "info registers");
    assert!(one.starts_with("EAX="), "{one}");
    let all = say(&mut vm, "info registers -a");
    assert!(all.starts_with("\nCPU#0\nEAX=") && all.contains("\n\nCPU#1\nEAX="), "{all}");
    check(
        &mut vm,
        &[
            ("p/x $eip", "0xfff0\n"),
            ("p $pc", "0xfffffff0\n"),
            ("p $cs.base + $eip - $pc", "0\n"),
            ("p $cs", "0xf000\n"),
            ("p $cs.limit", "0xffff\n"),
            ("nmi", ""),
        ],
    );
    let mut monitor = Monitor::default();
    assert_eq!(run(&mut vm, &mut monitor, "cpu 1"), "");
    let cpus = run(&mut vm, &mut monitor, "info cpus");
    let [first, second] = cpus.lines().collect::<Vec<_>>()[..] else { panic!("{cpus}") };
    assert!(first.starts_with("  CPU #0: pc=0x00000000fffffff0 thread_id="), "{cpus}");
    assert!(second.starts_with("* CPU #1: pc=0x00000000fffffff0"), "{cpus}");
}

#[test]
fn what_is_there_and_what_is_not() {
    check(
        &mut machine(),
        &[
            ("info mice", "No mouse devices connected\n"),
            ("info irq", "irq statistic code not compiled.\n"),
            ("info pic", ""),
            ("info profile", "Internal profiler not compiled\n"),
            ("info pcmcia", "No PCMCIA sockets\n"),
            ("info usb", "USB support not enabled\n"),
            ("info capture", ""),
            ("info tpm", ""),
        ],
    );
    check(&mut fake(), &[("info mice", "* Mouse #0: QEMU PS/2 Mouse\n")]);
    assert!(say(&mut machine(), "info trace-events").starts_with("error: "));
}

#[test]
fn descriptors() {
    check(
        &mut machine(),
        &[
            ("getfd", "getfd: string expected\n"),
            ("getfd a", "No file descriptor supplied via SCM_RIGHTS\n"),
            ("closefd a", "File descriptor named 'a' not found\n"),
        ],
    );
}

#[test]
fn what_is_logged() {
    let mut vm = machine();
    let all = say(&mut vm, "help log");
    assert_eq!(say(&mut vm, "log nonsense"), all);
    check(
        &mut vm,
        &[
            ("log", "log: string expected\n"),
            ("logfile", "logfile: filename expected\n"),
            (
                "logfile /nonexistent/x",
                "Could not open '/nonexistent/x': No such file or directory (os error 2)\n",
            ),
        ],
    );
}

#[test]
fn each_line_over_qmp_has_a_monitor_of_its_own() {
    let mut vm = machine();
    let mut ask = |line: &str, cpu_index| {
        vm.handle(HumanMonitorCommand { command_line: line.to_owned(), cpu_index })
    };
    assert_eq!(ask("info name", None).unwrap(), "guest\r\n");
    assert_eq!(ask("stop", None).unwrap(), "");
    assert_eq!(ask("nothing", None).unwrap(), "unknown command: 'nothing'\r\n");
    assert_eq!(ask("info history", None).unwrap(), "");
    for index in [-1, 0, 99] {
        let error = ask("info name", Some(index)).unwrap_err();
        assert_eq!(error.desc, "Parameter 'cpu-index' expects a CPU number");
    }
}

#[test]
fn what_the_machine_tells_lands_in_the_answer() {
    let (number, told) = log::listen(|| {
        log::tell("outer");
        assert_eq!(log::listen(|| log::tell("inner")).1, "inner\n");
        log::tell(1);
        7
    });
    assert_eq!((number, told.as_str()), (7, "outer\n1\n"));
}

#[test]
fn output_is_bounded() {
    let mut vm = machine();
    let mut monitor = Monitor::default();
    let mut call = Call { vm: &mut vm, monitor: &mut monitor, out: String::new() };
    for _ in 0..3 {
        call.print(&"\u{e9}x".repeat(MAX_OUTPUT / 4));
    }
    assert!(call.out.len() <= MAX_OUTPUT && call.out.len() > MAX_OUTPUT - 2);
}

#[test]
fn tab_finds_words() {
    let vm = machine();
    let words = |typed: &str| complete::words(&vm, typed);
    assert_eq!(words("system_r"), (8, vec!["system_reset".to_owned()]));
    assert_eq!(words("info sta"), (3, vec!["status".to_owned()]));
    assert_eq!(words("help system_w"), (8, vec!["system_wakeup".to_owned()]));
    assert_eq!(words("nothing x"), (1, vec![]));
    assert_eq!(words("stop x"), (1, vec![]));
    assert_eq!(words("").1.len(), table::names(commands::COMMANDS).len());
}

proptest::proptest! {
    #[test]
    fn no_bytes_do_harm(bytes: Vec<u8>) {
        fuzz(&bytes);
    }

    #[test]
    fn no_line_does_harm(
        command in proptest::sample::select(table::names(commands::COMMANDS)),
        rest in "[ /][-/a-z0-9$+ .\"]{0,20}",
    ) {
        let line = format!("{command}{rest}");
        if !fuzz::reaches_out(&line) {
            say(&mut machine(), &line);
        }
    }
}
