//! What runs, stops, resets and ends the machine.

use qmp::{
    Cont, CpuAdd, Handle, InjectNmi, QmpError, QueryCpus, QueryStatus, Quit, RunState, Stop,
    SystemPowerdown, SystemReset, SystemWakeup, WatchdogAction, XSystemSleep,
};

use crate::cmd::action;
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg, flag, opt};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

pub(super) const ROWS: &[Row] = &[
    bare(&["q", "quit"], "end the process", |call, _| call.vm.handle(Quit {})).anytime(),
    bare(&["stop"], "stop the guest", |call, _| call.vm.handle(Stop {})),
    bare(&["c", "cont"], "let the guest go on", |call, _| call.vm.handle(Cont {})),
    bare(&["system_reset"], "reset the machine", |call, _| call.vm.handle(SystemReset {})),
    bare(&["system_powerdown"], "press the power button", |call, _| {
        call.vm.handle(SystemPowerdown {})
    }),
    bare(&["system_wakeup"], "wake the guest from suspend", |call, _| {
        call.vm.handle(SystemWakeup {})
    }),
    bare(&["system_sleep"], "press the sleep button", |call, _| call.vm.handle(XSystemSleep {})),
    bare(&["nmi"], "send an NMI to every processor", |call, _| call.vm.handle(InjectNmi {})),
    row(
        &["singlestep"],
        &[opt("option", Kind::Word)],
        "[on|off]",
        "run one instruction at a time (not under a hypervisor)",
        singlestep,
    ),
    row(
        &["boot_set"],
        &[arg("bootdevice", Kind::Word)],
        "bootdevice",
        "set the boot order",
        boot_set,
    ),
    row(
        &["watchdog_action"],
        &[arg("action", Kind::Word).words(watchdog_actions)],
        "action",
        "say what is done when a watchdog runs out",
        watchdog_action,
    ),
    row(&["cpu-add"], &[arg("id", Kind::Int)], "id", "add a processor", |call, args| {
        call.vm.handle(CpuAdd { id: args.number("id") })
    }),
    row(&["cpu"], &[arg("index", Kind::Int)], "index", "choose the processor to look at", cpu),
];

pub(super) const INFO: &[Row] = &[
    bare(&["lapic"], "show the processor's local APIC", |call, _| {
        let text = call.vm.lapic(call.monitor.cpu)?.text();
        call.print(&text);
        Ok(())
    }),
    bare(&["status"], "show whether the guest runs", status),
    bare(&["cpus"], "show the processors", cpus),
    row(
        &["registers"],
        &[flag("all", b'a')],
        "[-a]",
        "show the processor's registers, -a: of all",
        registers,
    ),
];

fn singlestep(_: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    match args.opt_text("option") {
        Some("off") => Ok(()),
        None | Some("on") => {
            Err(QmpError::generic("single-stepping is not supported under a hypervisor"))
        }
        Some(other) => Err(QmpError::generic(format!("unexpected option {other}"))),
    }
}

fn boot_set(_: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    Err(QmpError::generic("no function defined to set boot device list for this architecture"))
}

fn watchdog_actions(_: &Vm) -> Vec<String> {
    WatchdogAction::ALL.iter().map(|action| action.as_str().to_owned()).collect()
}

fn watchdog_action(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let name = args.text("action");
    let action = action::watchdog_action(name)
        .ok_or_else(|| QmpError::generic(format!("Unknown watchdog action '{name}'")))?;
    call.vm.policy.watchdog = action;
    Ok(())
}

fn cpu(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    match usize::try_from(args.number("index")) {
        Ok(index) if call.vm.vcpu(index).is_some() => {
            call.monitor.cpu = index;
            Ok(())
        }
        _ => Err(QmpError::generic("invalid CPU index")),
    }
}

fn status(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let info = call.vm.handle(QueryStatus {})?;
    let step = if info.singlestep { " (single step mode)" } else { "" };
    call.line(match (info.running, info.status) {
        (true, _) => format!("VM status: running{step}"),
        (false, RunState::Paused) => format!("VM status: paused{step}"),
        (false, state) => format!("VM status: paused{step} ({})", state.as_str()),
    });
    Ok(())
}

fn cpus(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    for cpu in call.vm.handle(QueryCpus {})? {
        let current = usize::try_from(cpu.cpu) == Ok(call.monitor.cpu);
        let star = if current { '*' } else { ' ' };
        let pc = cpu.pc.unwrap_or_default();
        let halted = if cpu.halted { " (halted)" } else { "" };
        let thread = cpu.thread_id;
        call.line(format_args!(
            "{star} CPU #{}: pc={pc:#018x}{halted} thread_id={thread}",
            cpu.cpu
        ));
    }
    Ok(())
}

fn registers(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    if args.is_on("all") {
        for (index, registers) in call.vm.all_registers()?.iter().enumerate() {
            call.print(&format!("\nCPU#{index}\n{}", registers.text()));
        }
    } else if !call.vm.vcpus.is_empty() {
        let registers = call.vm.registers(i64::try_from(call.monitor.cpu).unwrap_or(-1))?;
        call.print(&registers.text());
    }
    Ok(())
}
