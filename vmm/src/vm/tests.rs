//! The machine's life against a model of it, written down from what clients are promised.

use std::collections::BTreeSet;
use std::path::PathBuf;

use parking_lot::Mutex;
use proptest::prelude::*;
use qmp::{Handle, RunState::*};
use resources::device::{At, Device, DeviceCell};
use resources::hv::fake::Fake;
use resources::iol::Notify;
use resources::ram::{Ram, RamConfig};
use resources::request::{Mailbox as _, Request, WakeReason};

use super::*;
use crate::boot::BootSource;
use crate::machine::{Accel, Boot};

/// What a [`Recorder`] was told, and what it is to refuse.
#[derive(Default)]
struct Record {
    started: bool,
    resets: usize,
    loads: usize,
    save_fails: bool,
    load_fails: bool,
}

/// A device that insists on the order it is promised.
struct Recorder(Arc<Mutex<Record>>);

impl Device for Recorder {
    fn read(&mut self, _: At, _: &mut [u8]) {}
    fn write(&mut self, _: At, _: &[u8]) {}
    fn reset(&mut self) {
        let mut record = self.0.lock();
        assert!(!record.started, "reset while started");
        record.resets += 1;
    }
    fn start(&mut self) {
        assert!(!std::mem::replace(&mut self.0.lock().started, true), "started twice");
    }
    fn stop(&mut self) {
        assert!(std::mem::take(&mut self.0.lock().started), "stopped twice");
    }
    fn save(&self) -> Result<Blob, StateError> {
        let record = self.0.lock();
        assert!(!record.started, "saved while started");
        if record.save_fails { Err(invalid("not today")) } else { Blob::new(1, &()) }
    }
    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let mut record = self.0.lock();
        assert!(!record.started, "loaded while started");
        record.loads += 1;
        if record.load_fails { Err(invalid("not today")) } else { blob.parse(1, &[]) }
    }
}

/// What someone asks for by the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    Guest(Request),
    InternalError,
    Signal,
    /// The quit key of a terminal.
    Quit,
    Powerdown,
    SleepButton,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Stop,
    Cont,
    Reset,
    Powerdown,
    Wakeup,
    Quit,
    Pulse,
    None,
}

#[derive(Debug, Clone, Copy)]
enum Setting {
    NoShutdown(bool),
    NoReboot(bool),
    SaveFails(bool),
    LoadFails(bool),
    /// The kernel cannot be loaded.
    KernelGone(bool),
    None,
}

/// Settings change, then requests arrive, then a command is run, then the mailbox is dealt with.
type Step = (Setting, Vec<Ask>, Command);

/// The machine's life as clients know it.
struct Model {
    state: RunState,
    exit: Option<u8>,
    events: Vec<&'static str>,
    resets: usize,
    loads: usize,
    no_shutdown: bool,
    no_reboot: bool,
    save_fails: bool,
    load_fails: bool,
    kernel_gone: bool,
    mail: BTreeSet<Ask>,
}

impl Model {
    fn set(&mut self, setting: Setting) {
        match setting {
            Setting::NoShutdown(on) => self.no_shutdown = on,
            Setting::NoReboot(on) => self.no_reboot = on,
            Setting::SaveFails(on) => self.save_fails = on,
            Setting::LoadFails(on) => self.load_fails = on,
            Setting::KernelGone(on) => self.kernel_gone = on,
            Setting::None => {}
        }
    }

    /// Whether the command succeeds.
    fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Stop => {
                // What the guest asked for while it ran comes before the pause.
                if self.state == Running {
                    self.service();
                }
                if self.exit.is_none() {
                    self.stop(Paused);
                }
            }
            Command::Cont => match self.state {
                InternalError | Shutdown => return false,
                Running | Suspended => {}
                _ => {
                    self.state = Running;
                    self.events.push("RESUME");
                }
            },
            Command::Pulse if self.save_fails => return false,
            Command::Pulse => {
                self.resets += 1;
                self.loads += 1;
                if self.load_fails {
                    self.fail();
                    return false;
                }
            }
            // These are carried out after their reply.
            Command::Reset => _ = self.mail.insert(Ask::Guest(Request::Reset)),
            Command::Wakeup => _ = self.mail.insert(Ask::Guest(WAKEUP)),
            Command::Quit => _ = self.mail.insert(Ask::Quit),
            Command::Powerdown => _ = self.mail.insert(Ask::Powerdown),
            Command::None => {}
        }
        true
    }

    fn stop(&mut self, state: RunState) {
        if self.state == Running {
            self.state = state;
            self.events.push("STOP");
        }
    }

    fn fail(&mut self) {
        self.stop(InternalError);
        self.state = InternalError;
    }

    /// Succeeds or not.
    fn reset(&mut self) -> bool {
        self.resets += 1;
        if self.kernel_gone {
            self.fail();
        }
        !self.kernel_gone
    }

    fn wake(&mut self) {
        if self.state == Suspended && self.reset() {
            self.state = Running;
            self.events.push("WAKEUP");
        }
    }

    fn service(&mut self) {
        let mail = std::mem::take(&mut self.mail);
        let asked = |request| mail.contains(&Ask::Guest(request));
        if asked(EXIT) {
            self.exit = Some(33);
            return;
        }
        if asked(Request::RtcChange(7)) {
            self.events.push("RTC_CHANGE");
        }
        let barked = asked(Request::Watchdog);
        if barked {
            self.events.push("WATCHDOG");
        }
        if asked(Request::Suspend) && self.state == Running {
            self.state = Suspended;
            self.events.push("SUSPEND");
        }
        if asked(Request::SuspendDisk) {
            self.events.push("SUSPEND_DISK");
        }
        let killed = mail.contains(&Ask::Signal) || mail.contains(&Ask::Quit);
        self.no_shutdown &= !killed;
        let off = asked(Request::Shutdown) || asked(Request::SuspendDisk);
        let reset = asked(Request::Reset) || barked;
        if killed || off || (reset && self.no_reboot) {
            self.events.push("SHUTDOWN");
            if !self.no_shutdown {
                self.exit = Some(0);
                return;
            }
            self.stop(Shutdown);
        }
        if reset && !self.no_reboot && self.reset() {
            self.events.push("RESET");
            match self.state {
                InternalError | Shutdown => self.state = Paused,
                Suspended => {
                    self.state = Running;
                    self.events.push("WAKEUP");
                }
                _ => {}
            }
        }
        if asked(WAKEUP) {
            self.wake();
        }
        if mail.contains(&Ask::Powerdown) {
            self.events.push("POWERDOWN");
            self.wake();
        }
        if mail.contains(&Ask::SleepButton) {
            self.wake();
        }
        if asked(Request::Panicked) {
            self.events.push("GUEST_PANICKED");
            self.stop(GuestPanicked);
        }
        if mail.contains(&Ask::InternalError) {
            self.stop(InternalError);
        }
    }
}

const WAKEUP: Request = Request::Wakeup(WakeReason::Other);
const EXIT: Request = Request::Exit(33);

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        3 => Just(Ask::Guest(Request::Reset)),
        2 => Just(Ask::Guest(Request::Shutdown)),
        3 => Just(Ask::Guest(Request::Suspend)),
        1 => Just(Ask::Guest(Request::SuspendDisk)),
        2 => Just(Ask::Guest(WAKEUP)),
        1 => Just(Ask::Guest(EXIT)),
        2 => Just(Ask::Guest(Request::Panicked)),
        1 => Just(Ask::Guest(Request::RtcChange(7))),
        2 => Just(Ask::InternalError),
        1 => Just(Ask::Signal),
        1 => Just(Ask::Quit),
        1 => Just(Ask::Powerdown),
        1 => Just(Ask::SleepButton),
        2 => Just(Ask::Guest(Request::Watchdog)),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    use Command::*;
    prop_oneof![
        4 => Just(Stop), 8 => Just(Cont), 4 => Just(Reset), 1 => Just(Powerdown),
        2 => Just(Wakeup), 1 => Just(Quit), 3 => Just(Pulse), 4 => Just(None),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    prop_oneof![
        3 => any::<bool>().prop_map(Setting::NoShutdown),
        1 => any::<bool>().prop_map(Setting::NoReboot),
        1 => any::<bool>().prop_map(Setting::SaveFails),
        1 => any::<bool>().prop_map(Setting::LoadFails),
        1 => any::<bool>().prop_map(Setting::KernelGone),
        12 => Just(Setting::None),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let asks = prop_oneof![3 => Just(0..=0usize), 3 => Just(1..=1), 1 => Just(2..=4)];
    (setting(), asks.prop_flat_map(|count| prop::collection::vec(ask(), count)), command())
}

/// A kernel that was there when the machine was made and is empty now.
fn lost_kernel() -> Boot {
    let path: PathBuf = std::env::temp_dir().join(format!("lost-kernel-{}", std::process::id()));
    // A multiboot header that says where the image goes.
    let mut kernel = vec![0; 8192];
    let header: [u32; 8] = [
        0x1bad_b002,
        0x1_0000,
        !(0x1bad_b002 + 0x1_0000) + 1,
        0x10_0000,
        0x10_0000,
        0,
        0,
        0x10_0020,
    ];
    let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    kernel[..header.len()].copy_from_slice(&header);
    std::fs::write(&path, kernel).unwrap();
    let source = BootSource::open(&path, None, "").unwrap();
    std::fs::write(&path, []).unwrap();
    std::fs::remove_file(&path).unwrap();
    Boot::Kernel(source)
}

fn machine() -> (Vm, Arc<Mutex<Record>>) {
    let record = Arc::new(Mutex::new(Record::default()));
    let mut board = Board::new(Accel::Qtest(Fake::unrecorded()));
    board.ram = Some(Ram::new(&RamConfig { size: 2 << 20, ..RamConfig::default() }).unwrap());
    board.devices.push(DeviceCell::new("recorder", Recorder(record.clone())).into());
    let mailbox = Mailbox::new(Notify::new());
    let vm = Vm::new(board, Vec::new(), mailbox, Policy { no_shutdown: true, ..Policy::default() });
    (vm, record)
}

fn events(vm: &mut Vm) -> Vec<String> {
    let events = std::mem::take(&mut vm.context.events);
    events.iter().map(|raised| raised.message()["event"].as_str().unwrap().to_owned()).collect()
}

fn run(vm: &mut Vm, command: Command) -> bool {
    match command {
        Command::Stop => vm.handle(qmp::Stop {}).is_ok(),
        Command::Cont => vm.handle(qmp::Cont {}).is_ok(),
        Command::Reset => vm.handle(qmp::SystemReset {}).is_ok(),
        Command::Powerdown => vm.handle(qmp::SystemPowerdown {}).is_ok(),
        Command::Wakeup => vm.handle(qmp::SystemWakeup {}).is_ok(),
        Command::Quit => vm.handle(qmp::Quit {}).is_ok(),
        Command::Pulse => vm.handle(qmp::XPulseSaveRestore {}).is_ok(),
        Command::None => true,
    }
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut vm, record) = machine();
    vm.reset().unwrap();
    let mut model = Model {
        state: Prelaunch,
        exit: None,
        events: Vec::new(),
        resets: 1,
        loads: 0,
        no_shutdown: true,
        no_reboot: false,
        save_fails: false,
        load_fails: false,
        kernel_gone: false,
        mail: BTreeSet::new(),
    };
    for (setting, asks, command) in steps {
        model.set(*setting);
        match *setting {
            Setting::NoShutdown(on) => vm.policy.no_shutdown = on,
            Setting::NoReboot(on) => vm.policy.no_reboot = on,
            Setting::SaveFails(on) => record.lock().save_fails = on,
            Setting::LoadFails(on) => record.lock().load_fails = on,
            Setting::KernelGone(on) => {
                vm.board.boot = if on { lost_kernel() } else { Boot::Nothing };
            }
            Setting::None => {}
        }
        for ask in asks {
            model.mail.insert(*ask);
            match *ask {
                Ask::Guest(request) => vm.mailbox().request(request),
                Ask::InternalError => vm.mailbox().internal_error(),
                Ask::Signal => vm.mailbox().ask(|mail| mail.signal = Some(15)),
                Ask::Powerdown => vm.mailbox().ask(|mail| mail.powerdown = true),
                Ask::SleepButton => vm.mailbox().ask(|mail| mail.sleep_button = true),
                Ask::Quit => vm.mailbox().ask(|mail| mail.quit = Some(ShutdownCause::HostUi)),
            }
        }
        prop_assert_eq!(run(&mut vm, *command), model.command(*command), "success");
        if model.exit.is_none() {
            model.service();
        }
        vm.service();
        prop_assert_eq!(events(&mut vm), std::mem::take(&mut model.events));
        prop_assert_eq!((vm.state(), vm.exit_status()), (model.state, model.exit));
        let runs = model.state == Running && model.exit.is_none();
        let sleeps = model.state == Suspended && model.exit.is_none();
        let record = record.lock();
        prop_assert_eq!(record.started, runs || sleeps, "devices run");
        prop_assert_eq!(vm.mailbox().gate().is_open(), runs, "vCPUs run");
        prop_assert_eq!((record.resets, record.loads), (model.resets, model.loads));
        if model.exit.is_some() {
            break;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_machine_lives_as_promised(steps in prop::collection::vec(step(), 1..24)) {
        check(&steps)?;
    }
}

#[test]
fn a_guest_that_switched_itself_off_is_off_and_not_paused() {
    let (mut vm, _) = machine();
    vm.start();
    vm.mailbox().request(Request::Shutdown);
    vm.pause();
    assert_eq!(vm.state(), Shutdown);
    assert_eq!(events(&mut vm), ["RESUME", "SHUTDOWN", "STOP"]);
    vm.handle(qmp::Cont {}).unwrap_err();
}

#[test]
fn a_second_request_for_the_same_reset_is_dropped() {
    let (mut vm, record) = machine();
    vm.start();
    vm.mailbox().request(Request::Reset);
    vm.service();
    assert_eq!(record.lock().resets, 1);
    vm.mailbox().request(Request::Reset);
    // As by a vCPU that was on its way out when the first request was dealt with.
    vm.reset().unwrap();
    vm.service();
    assert_eq!(events(&mut vm), ["RESUME", "RESET"]);
    assert!(vm.mailbox().gate().is_open());
}
