//! From options to a running machine, and its main loop.
//!
//! Main thread. What is wrong with an option, a file or the host is found here, before the guest
//! runs, and told in one line.

use std::io::IsTerminal;
use std::pin::pin;
use std::sync::Arc;

use devices::chardev;
use devices::isa::rtc;
use resources::clock::Clock;
use resources::fdset::FdSets;
use resources::hv::fake::Fake;
use resources::hv::kvm::KvmVm;
use resources::iol::{self, Either, Handle, Local, Loop, Notify, race};
use resources::request::Requests;
use time::{OffsetDateTime, UtcOffset};

use crate::boot::BootSource;
use crate::boot::firmware::Firmware;
use crate::chardevs::Chardevs;
use crate::cli::add_fd;
use crate::cli::config::{Accel as AccelKind, Config, RtcBase, RtcClock, RtcConfig};
use crate::cli::consoles::{Consoles, consoles};
use crate::cli::daemonize::{Daemon, Forked};
use crate::cli::keyval::Pairs;
use crate::cli::pidfile::Pidfile;
use crate::cpu::model::{CpuModel, CpuSpec};
use crate::cpu::processors::{self, Processors};
use crate::cpu::run_page;
use crate::cpu::thread::VcpuHandle;
use crate::cpu::topology::Topology;
use crate::drives::{Drives, Home};
use crate::machine::{self, Accel, Board, Boot, pc};
use crate::mailbox::Mailbox;
use crate::monitor::Monitors;
use crate::nets::{Nets, numbered_fd};
use crate::objects::{self, Objects, memory};
use crate::plug::{self, Means};
use crate::privileges::Privileges;
use crate::qtest::{self, Qtest};
use crate::signals;
use crate::vm::{Policy, Vm};

/// Why the machine did not start: one line for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

fn plain(error: impl std::fmt::Display) -> StartError {
    StartError(error.to_string())
}

/// A drive's options as they were given, for messages.
fn shown(pairs: &Pairs) -> String {
    let all: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.join(",")
}

/// Runs a machine until it ends; returns the exit status of the process.
///
/// # Errors
/// When it cannot start.
pub fn run(config: &Config) -> Result<u8, StartError> {
    crate::cli::log::set_timestamps(config.timestamps);
    crate::cli::write_files(&config.write_configs).map_err(StartError)?;
    let privileges = Privileges::find(config).map_err(StartError)?;
    let daemon = match config.daemonize.then(Daemon::fork).transpose().map_err(plain)? {
        Some(Forked::Parent(status)) => return Ok(status),
        Some(Forked::Daemon(daemon)) => Some(daemon),
        None => None,
    };
    add_fd::take(&config.add_fds, FdSets::global())
        .map_err(|error| StartError(format!("-add-fd: {error}")))?;
    let _pidfile = match &config.pidfile {
        Some(path) => Some(
            Pidfile::acquire(path)
                .map_err(|error| StartError(format!("-pidfile {}: {error}", path.display())))?,
        ),
        None => None,
    };
    crate::cli::log::init(&config.log).map_err(plain)?;
    if let Some(name) = &config.name.process {
        let _ = std::ffi::CString::new(name.as_str()).map(|name| rustix::thread::set_name(&name));
    }
    run_page::install_signal_handler().map_err(plain)?;
    // Asking for the time zone is only sound while there is one thread.
    let rtc = rtc_config(&config.rtc)?;

    if config.qtest.is_some() && config.accel != AccelKind::Qtest {
        return Err(StartError("-qtest needs -machine accel=qtest".to_owned()));
    }

    let mut main_loop = Loop::new("main").map_err(plain)?;
    let notify = Notify::new();
    let mailbox = Mailbox::new(notify.clone());
    let (io_thread, io) = iol::Thread::spawn("io0").map_err(plain)?;
    // Before a chardev changes the terminal's settings, or waits for its first client.
    signals::watch(&mailbox, &io).map_err(plain)?;

    let escape = match config.escape {
        None => Some(chardev::ESCAPE),
        Some(0) => None,
        Some(key) => Some(key),
    };
    let mut chardevs = Chardevs::new(io, &mailbox, escape);
    chardevs.no_stdio = config.daemonize;
    let consoles = consoles(config, std::io::stdin().is_terminal());
    let Built { board, vcpus, processors, means, objects, nets, drives } =
        build(config, &consoles, &mut chardevs, &mailbox, rtc)?;
    let on = main_loop.handle();
    let mut monitors = add_monitors(config, &consoles.monitors, &mut chardevs, &on, &notify)?;
    drive_clock(&board.clock, &chardevs.io().map_err(plain)?);
    let policy = Policy {
        no_reboot: config.no_reboot,
        no_shutdown: config.no_shutdown,
        panic: config.panic.unwrap_or(Policy::default().panic),
        watchdog: config.watchdog.unwrap_or(Policy::default().watchdog),
        name: config.name.guest.clone(),
        uuid: config.uuid.unwrap_or_default(),
    };
    let mut vm = Vm::new(board, vcpus, mailbox.clone(), policy);
    vm.chardevs = chardevs;
    (vm.means, vm.objects, vm.nets, vm.drives) = (means, objects, nets, drives);
    vm.processors = processors;
    let local = main_loop.local().clone();
    let runs_at_once = !config.stopped && config.incoming.is_none();
    let mut vm = main_loop.run(first_reset(&local, vm, runs_at_once, (&mut monitors, &notify)))?;
    if let Some(text) = &config.qtest {
        debug_port(text, &mut vm)?;
    }
    // Who started this process is told that it is ready when the source can connect.
    if let Some(uri) = &config.incoming {
        vm.await_guest(!config.stopped);
        if uri != "defer" {
            vm.receive_from(uri)
                .map_err(|error| StartError(format!("-incoming {uri}: {error}")))?;
        }
    }
    match daemon {
        Some(daemon) => daemon.ready(|| privileges.give_up()),
        None => privileges.give_up(),
    }
    .map_err(plain)?;
    signals::main_loop_runs();
    match &config.loadvm {
        Some(tag) => vm.load_at_start(tag, runs_at_once),
        None => vm.start_at_once(runs_at_once),
    }
    let status = main_loop.run(serve(&local, &mut vm, &mut monitors, &notify));
    // Devices leave what they have not sent yet to their chardevs.
    vm.board.devices.iter().rev().for_each(|device| device.lock().unplug());
    let chardevs = std::mem::take(&mut vm.chardevs);
    vm.nbd = None;
    vm.drives.close();
    vm.nets.close();
    drop(vm);
    chardevs.close();
    drop(chardevs);
    drop(io_thread);
    Ok(status)
}

/// Makes the monitors of `-qmp`, those on the devices `human`, and those of `-mon`, on the loop
/// `on`.
fn add_monitors(
    config: &Config,
    human: &[String],
    chardevs: &mut Chardevs,
    on: &Handle,
    notify: &Notify,
) -> Result<Monitors, StartError> {
    let mut monitors = Monitors::new(crate::version());
    for (index, text) in config.qmp.iter().enumerate() {
        let label = format!("compat_monitor{index}");
        if let Some(chardev) = chardevs.device(("-qmp", text), &label, true, on).map_err(plain)? {
            monitors.add(&chardev, false, notify).map_err(plain)?;
        }
    }
    for (index, text) in human.iter().enumerate() {
        let label = format!("compat_monitor{}", config.qmp.len() + index);
        let device = chardevs.device(("-monitor", text), &label, false, on);
        if let Some(chardev) = device.map_err(plain)? {
            monitors.add_human(&chardev, notify).map_err(plain)?;
        }
    }
    for chardev in chardevs.take_monitored().map_err(plain)? {
        monitors.add_human(&chardev, notify).map_err(plain)?;
    }
    for pairs in &config.mons {
        let id = pairs.get("chardev").unwrap_or_default();
        let device = format!("chardev:{id}");
        if let Some(chardev) = chardevs.device(("-mon", &device), id, true, on).map_err(plain)? {
            let pretty = pairs.switch("pretty") == Some(true);
            match pairs.get("mode") {
                Some("control") => monitors.add(&chardev, pretty, notify),
                _ => monitors.add_human(&chardev, notify),
            }
            .map_err(plain)?;
        }
    }
    Ok(monitors)
}

/// Serves the debug port on the device `text`.
fn debug_port(text: &str, vm: &mut Vm) -> Result<(), StartError> {
    let (board, chardevs) = (&vm.board, &mut vm.chardevs);
    let Accel::Qtest(fake) = &board.accel else { return Ok(()) };
    let io = chardevs.io().map_err(plain)?;
    if let Some(chardev) = chardevs.device(("-qtest", text), "qtest", true, &io).map_err(plain)? {
        let (memory, ports) = (board.memory.clone(), board.ports.clone());
        let engine = Qtest::new(memory, ports, board.clock.clone(), fake.clone());
        qtest::attach(chardev, &io, engine).map_err(plain)?;
    }
    Ok(())
}

/// Resets the machine for the first time, and loads the kernel if the guest is to run, on a pool
/// thread: clients are greeted meanwhile.
async fn first_reset(
    local: &Local,
    mut vm: Vm,
    run: bool,
    (monitors, notify): (&mut Monitors, &Notify),
) -> Result<Vm, StartError> {
    let mut reset = pin!(local.pool(move || {
        let done = vm.reset();
        let done = if run { done.and_then(|()| Ok(vm.board.fill()?)) } else { done };
        (vm, done)
    }));
    loop {
        match race(reset.as_mut(), notify.notified()).await {
            Either::Left(finished) => {
                let (vm, done) = finished.map_err(plain)?;
                done.map_err(plain)?;
                // What else came in is looked at when the main loop runs.
                notify.notify();
                return Ok(vm);
            }
            Either::Right(()) => monitors.greet(),
        }
    }
}

/// The main loop: the mailbox first, then the clients, until the machine ends.
async fn serve(local: &Local, vm: &mut Vm, monitors: &mut Monitors, notify: &Notify) -> u8 {
    loop {
        vm.service();
        monitors.serve(vm);
        if let Some(status) = vm.exit_status() {
            monitors.finish(vm);
            return status;
        }
        match monitors.deadline() {
            Some(deadline) => {
                race(notify.notified(), local.sleep_until(deadline)).await;
            }
            None => notify.notified().await,
        }
    }
}

/// Has the I/O thread call the timers of `clock` when they are due.
fn drive_clock(clock: &Arc<Clock>, io: &Handle) {
    let changed = Notify::new();
    let on_change = changed.clone();
    clock.on_change(move || on_change.notify());
    let clock = clock.clone();
    io.spawn(move |local| async move {
        loop {
            if clock.run_due() > 0 {
                local.yield_now().await;
                continue;
            }
            match clock.next_wake() {
                Some(wake) => {
                    if let Either::Left(()) =
                        race(changed.notified(), local.sleep_until(wake)).await
                    {
                        continue;
                    }
                }
                None => changed.notified().await,
            }
        }
    });
}

/// Everything the options name.
struct Built {
    board: Board,
    vcpus: Vec<VcpuHandle>,
    processors: Option<Processors>,
    means: Means,
    objects: Objects,
    nets: Nets,
    drives: Drives,
}

/// Puts everything together that the options name.
fn build(
    config: &Config,
    consoles: &Consoles,
    chardevs: &mut Chardevs,
    mailbox: &Arc<Mailbox>,
    rtc: (rtc::Source, i64),
) -> Result<Built, StartError> {
    for pairs in config.chardevs.iter().chain(&consoles.chardevs) {
        chardevs.add(pairs).map_err(plain)?;
    }
    let overrides = config.globals.iter();
    let overrides = overrides
        .map(|global| (global.driver.as_str(), global.property.as_str(), global.value.as_str()))
        .collect();
    let means = Means { overrides, ..Means::default() };
    let objects = objects::of_options(&config.objects, &chardevs.finder()).map_err(plain)?;
    let io = chardevs.io().map_err(plain)?;
    let mut nets = Nets::new(chardevs.io().map_err(plain)?);
    nets.chardevs = Some(chardevs.finder());
    let mut devices = networks(config, &mut nets)?;
    let home = Home { io: io.clone(), mailbox };
    let mut drives = Drives::default();
    drives.awaits_guest = config.incoming.is_some();
    for pairs in &config.blockdevs {
        drives
            .add_node(pairs, &home)
            .map_err(|error| StartError(format!("-blockdev {}: {error}", shown(pairs))))?;
    }
    for pairs in &config.drives {
        let mut pairs = pairs.clone();
        if config.snapshot && pairs.get("snapshot").is_none() {
            pairs.push("snapshot", "on");
        }
        let pairs = &pairs;
        let wanted = drives
            .add_option(pairs, &home)
            .map_err(|error| StartError(format!("-drive {}: {error}", shown(pairs))))?;
        devices.extend(wanted);
    }
    let mut serials = Vec::new();
    for (index, text) in consoles.serials.iter().enumerate() {
        let label = format!("serial{index}");
        serials.extend(chardevs.device(("-serial", text), &label, false, &io).map_err(plain)?);
    }
    let debugcon = match &config.debugcon {
        Some(text) => {
            chardevs.device(("-debugcon", text), "debugcon", false, &io).map_err(plain)?
        }
        None => None,
    };
    let machine = machine::find(config.machine.as_deref())
        .map_err(|error| StartError(format!("-machine {error}")))?;
    refuse_unsupported(config)?;
    for warning in config.globals.iter().filter_map(plug::unused) {
        tracing::warn!("{warning}");
    }
    let topology = Topology::parse(config.smp.iter())
        .and_then(|topology| {
            topology.check_machine(machine.name, machine.max_cpus).map(|()| topology)
        })
        .map_err(|error| StartError(format!("-smp: {error}")))?;
    let cpu = config.cpu.as_deref().unwrap_or(DEFAULT_CPU);
    let spec = CpuSpec::parse(cpu).map_err(|error| StartError(format!("-cpu {cpu}: {error}")))?;
    let accel = match (config.accel, machine.kind) {
        (_, machine::Kind::None) | (AccelKind::Qtest, _) => Accel::Qtest(Fake::unrecorded()),
        (AccelKind::Kvm, _) => {
            Accel::Kvm(KvmVm::with_dirty_rings(config.dirty_ring).map_err(plain)?)
        }
    };
    if machine.kind == machine::Kind::None {
        let board = Board::new(accel);
        return Ok(Built {
            board,
            vcpus: Vec::new(),
            processors: None,
            means,
            objects,
            nets,
            drives,
        });
    }
    let model = match &accel {
        Accel::Kvm(vm) => Some(processors::resolve(&spec, vm).map_err(plain)?),
        Accel::Qtest(_) => None,
    };
    // The default model is what a guest can count on, not a wish: no warning for what it lacks.
    if let (Some(_), Some(warning)) = (&config.cpu, model.as_ref().and_then(CpuModel::warning)) {
        tracing::warn!("{warning}");
    }
    let requests: Requests = mailbox.clone();
    let ram = memory::main_ram(config, &objects).map_err(plain)?;
    let pc = pc::PcConfig {
        ram: ram.ram,
        topology: &topology,
        serials,
        debugcon,
        rtc,
        boot: boot(config)?,
        overrides: &means.overrides,
    };
    let mut board = pc::build(accel.clone(), pc, &requests).map_err(plain)?;
    (board.machine, board.fresh, board.ram_backend) = (machine.name, ram.fresh, ram.backend);
    board.cpu_model = cpu.split(',').next().unwrap_or_default().to_owned();
    let host = plug::host(requests, chardevs, &objects, &nets, &drives).map_err(plain)?;
    nets.set_clock(&board.clock);
    drives.set_clock(&board.clock);
    plug::plug_all(&mut board, &devices, &means, &host)
        .map_err(|error| StartError(format!("-device {error}")))?;
    let processors = match (&accel, model) {
        (Accel::Kvm(vm), Some(model)) => {
            Some(Processors::new(vm, &board, (model, topology), mailbox).map_err(plain)?)
        }
        _ => None,
    };
    let vcpus = processors.as_ref().map(Processors::make_first).transpose().map_err(plain)?;
    let vcpus = vcpus.unwrap_or_default();
    Ok(Built { board, vcpus, processors, means, objects, nets, drives })
}

/// Makes the networks; returns the devices to make, the NICs of `-net` and `-nic` first. Without
/// these or `-netdev` there is no network: a machine gets none by default.
fn networks(config: &Config, nets: &mut Nets) -> Result<Vec<Pairs>, StartError> {
    for pairs in &config.netdevs {
        let id = pairs.id().unwrap_or_default();
        nets.add_option(pairs).map_err(|error| StartError(format!("-netdev {id}: {error}")))?;
    }
    let mut devices = Vec::new();
    for pairs in &config.nets {
        let kind = pairs.get("type").unwrap_or_default();
        let given: Vec<_> = pairs.iter().collect();
        let nic = nets
            .add_legacy(&given, &mut numbered_fd)
            .map_err(|error| StartError(format!("-net {kind}: {error}")))?;
        devices.extend(nic);
    }
    for pairs in &config.nics {
        let kind = pairs.get("type").unwrap_or_default();
        let nic = nets.add_nic(pairs);
        devices.push(nic.map_err(|error| StartError(format!("-nic {kind}: {error}")))?);
    }
    devices.extend(config.devices.iter().cloned());
    Ok(devices)
}

/// Options that are understood but ask for what is not there: better an error than a machine that
/// is not the one asked for.
fn refuse_unsupported(config: &Config) -> Result<(), StartError> {
    let options = &config.machine_options;
    let refuse = |what: &str| Err(StartError(format!("-machine {what}: not supported here")));
    if options.switch("kernel_irqchip") == Some(false) {
        return refuse("kernel_irqchip=off");
    }
    if options.switch("usb") == Some(true) {
        return refuse("usb=on");
    }
    for key in ["dtb", "dumpdtb", "phandle_start", "dt_compatible", "kvm_shadow_mem"] {
        if options.get(key).is_some() {
            return refuse(key);
        }
    }
    Ok(())
}

/// The guest is not booted.
fn comes_from_elsewhere(config: &Config) -> bool {
    config.incoming.is_some() || config.loadvm.is_some()
}

/// The model of processors when no `-cpu` is given.
const DEFAULT_CPU: &str = "qemu64";

/// What the real-time clock follows, and what to add to that in seconds.
fn rtc_config(config: &RtcConfig) -> Result<(rtc::Source, i64), StartError> {
    let now = OffsetDateTime::now_utc();
    let shown = match config.base {
        RtcBase::Utc => 0,
        RtcBase::Localtime => {
            let offset = UtcOffset::current_local_offset().map_err(|error| {
                StartError(format!("-rtc base=localtime: the time zone is not known: {error}"))
            })?;
            i64::from(offset.whole_seconds())
        }
        RtcBase::Date(date) => date.assume_utc().unix_timestamp() - now.unix_timestamp(),
    };
    Ok(match config.clock {
        RtcClock::Host | RtcClock::Rt => (rtc::Source::Host, shown),
        RtcClock::Vm => (rtc::Source::Virtual, now.unix_timestamp().saturating_add(shown)),
    })
}

fn boot(config: &Config) -> Result<Boot, StartError> {
    if let Some(kernel) = &config.kernel {
        let initrd = config.initrd.as_ref().map(|path| path.to_string_lossy());
        let append = config.append.as_deref().unwrap_or_default();
        let source = BootSource::open(kernel, initrd.as_deref(), append).map_err(plain)?;
        return Ok(Boot::Kernel(source));
    }
    match &config.bios {
        Some(path) => Ok(Boot::Firmware(Firmware::open(path).map_err(plain)?)),
        None if config.accel == AccelKind::Qtest
            || config.stopped
            || comes_from_elsewhere(config) =>
        {
            Ok(Boot::Nothing)
        }
        None => Err(StartError(
            "nothing to boot: give -kernel FILE or -bios FILE, or -S to start stopped".to_owned(),
        )),
    }
}
