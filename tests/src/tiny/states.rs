//! What ends or interrupts a guest's run: halts, faults, resets, errors, and the user.

use iced_x86::code_asm::*;
use serde_json::json;

use super::asm::{Guest, VARS};
use super::image::{self, Kernel};
use super::{SOON, expect_equal, expect_event, expect_shown, expect_status, start_watched};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::TestVm;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("states::halted", 60, halted),
        Test::tiny("states::starts_stopped", 60, starts_stopped),
        Test::tiny("reset::triple_fault", 60, |ctx| resets(ctx, Guest::triple_fault)),
        Test::tiny("reset::port_92", 60, |ctx| {
            resets(ctx, |g| {
                g.outb(0x92, 0)?;
                g.outb(0x92, 1)
            })
        }),
        Test::tiny("reset::port_cf9", 60, |ctx| {
            resets(ctx, |g| {
                g.outb(0xcf9, 2)?;
                g.outb(0xcf9, 6)
            })
        }),
        Test::tiny("reset::keyboard_controller", 60, |ctx| resets(ctx, |g| g.outb(0x64, 0xfe))),
        Test::tiny("reset::during_accesses", 60, reset_during_accesses),
        Test::tiny("reset::no_reboot", 60, no_reboot),
        Test::tiny("reset::no_reboot_no_shutdown", 60, no_reboot_no_shutdown),
        Test::tiny("states::internal_error", 60, internal_error),
        Test::tiny("states::power_off", 60, power_off),
        Test::tiny("states::power_off_no_shutdown", 60, power_off_no_shutdown),
        Test::tiny("states::suspend_to_ram", 60, suspend_to_ram),
        Test::tiny("states::wakes_in_real_mode", 60, |ctx| wakes_at(ctx, 12, &REAL_MODE)),
        Test::tiny("states::wakes_in_protected_mode", 60, |ctx| wakes_at(ctx, 24, &PROTECTED)),
        Test::tiny("states::wakes_in_64_bit_mode", 60, wakes_in_64_bit_mode),
        Test::tiny("states::debug_exit", 60, debug_exit),
        Test::tiny("states::sigterm", 60, sigterm),
    ]
}

/// A halted guest is still a running machine; query-cpus tells that it halts, time and again.
fn halted(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    g.print("halting\n")?;
    g.halt()?;
    let mut vm = g.vm(ctx)?.start()?;
    vm.console.expect_line("halting", SOON)?;
    // The last character is out a moment before the processor halts.
    let deadline = std::time::Instant::now() + SOON;
    while !is_halted(&mut vm)? {
        if std::time::Instant::now() > deadline {
            return Err("the vCPU does not halt".into());
        }
    }
    for _ in 0..20 {
        expect_status(&mut vm, "running")?;
        vm.qmp.execute("stop", json!({}))?;
        vm.qmp.execute("cont", json!({}))?;
        expect_equal("halted", is_halted(&mut vm)?, true)?;
    }
    Ok(())
}

fn is_halted(vm: &mut TestVm) -> Result<bool> {
    let cpus = vm.qmp.execute("query-cpus", json!({}))?;
    Ok(cpus[0]["halted"] == true)
}

/// With -S nothing runs before the first cont.
fn starts_stopped(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    g.print("running\n")?;
    let mut vm = g.vm(ctx)?.args(["-S"]).start()?;
    expect_status(&mut vm, "prelaunch")?;
    let pc = vm.qmp.execute("query-cpus", json!({}))?[0]["pc"].clone();
    expect_equal("first instruction", pc, json!(0xffff_fff0u32))?;
    expect_equal("what the guest said", vm.console.unread(), String::new())?;
    // A reset changes nothing about that.
    vm.qmp.execute("system_reset", json!({}))?;
    expect_event(&mut vm, "RESET", "host-qmp-system-reset")?;
    expect_status(&mut vm, "prelaunch")?;
    expect_equal("what the guest said", vm.console.unread(), String::new())?;
    vm.qmp.execute("cont", json!({}))?;
    vm.qmp.event("RESUME", SOON)?;
    expect_status(&mut vm, "running")?;
    vm.console.expect_line("running", SOON)?;
    Ok(())
}

/// A guest that ends its first four lives by `end` and halts in the fifth.
fn lives(end: impl FnOnce(&mut Guest) -> Result) -> Result<Guest> {
    let mut g = Guest::new()?;
    let mut enough = g.create_label();
    // RAM keeps its content over a reset.
    g.inc(qword_ptr(VARS))?;
    g.show_memory("life", VARS)?;
    g.cmp(dword_ptr(VARS), 5)?;
    g.je(enough)?;
    end(&mut g)?;
    g.print("still alive\n")?;
    g.halt()?;
    g.set_label(&mut enough)?;
    g.print("enough\n")?;
    Ok(g)
}

/// A guest that resets itself starts anew each time, with one event for each.
fn resets(ctx: &Ctx, end: impl FnOnce(&mut Guest) -> Result) -> Result {
    let mut vm = start_watched(lives(end)?.vm(ctx)?)?;
    for life in 1..=5 {
        expect_shown(&mut vm, "life", life)?;
        expect_equal("before the reset", vm.console.unread().contains("alive"), false)?;
    }
    vm.console.expect_line("enough", SOON)?;
    for _ in 1..5 {
        expect_event(&mut vm, "RESET", "guest-reset")?;
    }
    expect_status(&mut vm, "running")?;
    expect_equal("a fifth reset", vm.qmp.event("RESET", std::time::Duration::ZERO).is_ok(), false)
}

/// A reset in the middle of an access does away with the access: the processor starts at its
/// beginning, not behind the instruction that it was at.
fn reset_during_accesses(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    let mut again = g.create_label();
    g.print("alive\n")?;
    g.mov(ebx, 0xd000_0000u32)?;
    g.mov(edx, 0x71)?;
    g.set_label(&mut again)?;
    for _ in 0..8 {
        g.in_(al, dx)?;
        g.mov(rcx, qword_ptr(rbx))?;
    }
    g.jmp(again)?;
    let mut vm = g.vm(ctx)?.start()?;
    for _ in 0..100 {
        vm.console.expect_line("alive", SOON).map_err(|error| vm.process.explain(error))?;
        vm.qmp.execute("system_reset", json!({}))?;
    }
    vm.console.expect_line("alive", SOON)?;
    Ok(())
}

/// With -no-reboot a reset is the end.
fn no_reboot(ctx: &Ctx) -> Result {
    let vm = lives(Guest::triple_fault)?.vm(ctx)?;
    let mut vm = start_watched(vm.args(["-no-reboot"]))?;
    expect_event(&mut vm, "SHUTDOWN", "guest-reset")?;
    vm.qmp.closed(SOON)?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)?;
    expect_shown(&mut vm, "life", 1)
}

/// With both, the machine stays in the state shutdown, which only a reset leaves.
fn no_reboot_no_shutdown(ctx: &Ctx) -> Result {
    let vm = lives(|g| g.outb(0xcf9, 6))?.vm(ctx)?;
    let mut vm = start_watched(vm.args(["-no-reboot", "-no-shutdown"]))?;
    expect_event(&mut vm, "SHUTDOWN", "guest-reset")?;
    vm.qmp.event("STOP", SOON)?;
    expect_status(&mut vm, "shutdown")?;
    expect_refused_cont(&mut vm)?;
    vm.qmp.execute("quit", json!({}))?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)
}

fn expect_refused_cont(vm: &mut TestVm) -> Result {
    match vm.qmp.try_execute("cont", json!({}))? {
        Ok(_) => Err("cont was not refused".into()),
        Err(refusal) => {
            let expected = "Resetting the Virtual Machine is required";
            expect_equal("the refusal", refusal.desc.as_str(), expected)
        }
    }
}

/// A guest that KVM cannot run stops the machine; a reset makes it usable again.
fn internal_error(ctx: &Ctx) -> Result {
    let guest = lives(|g| {
        // Nothing is there to be fetched.
        g.mov(eax, 0xd000_0000u32)?;
        g.jmp(rax)?;
        Ok(())
    });
    let mut vm = start_watched(guest?.vm(ctx)?)?;
    for life in 1..5 {
        expect_shown(&mut vm, "life", life)?;
        vm.qmp.event("STOP", SOON)?;
        expect_status(&mut vm, "internal-error")?;
        expect_refused_cont(&mut vm)?;
        let told = vm.process.stderr().says("KVM internal error", SOON);
        expect_equal("told on stderr", told, true)?;
        vm.qmp.execute("stop", json!({}))?;
        expect_status(&mut vm, "internal-error")?;
        vm.qmp.execute("system_reset", json!({}))?;
        expect_event(&mut vm, "RESET", "host-qmp-system-reset")?;
        expect_status(&mut vm, "paused")?;
        vm.qmp.execute("cont", json!({}))?;
        vm.qmp.event("RESUME", SOON)?;
    }
    expect_shown(&mut vm, "life", 5)?;
    vm.console.expect_line("enough", SOON)?;
    expect_status(&mut vm, "running")
}

/// Writes ACPI's PM1 control: sleep type and the bit that makes it happen.
fn sleep(g: &mut Guest, kind: u32) -> Result {
    g.mov(edx, 0x604)?;
    g.mov(eax, 0x2001 | kind << 10)?;
    g.out(dx, ax)?;
    Ok(())
}

/// A guest that powers off ends the process.
fn power_off(ctx: &Ctx) -> Result {
    let mut vm = start_watched(lives(|g| sleep(g, 0))?.vm(ctx)?)?;
    expect_event(&mut vm, "SHUTDOWN", "guest-shutdown")?;
    vm.qmp.closed(SOON)?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)?;
    expect_shown(&mut vm, "life", 1)
}

/// With -no-shutdown it stops the machine, which a reset makes usable again.
fn power_off_no_shutdown(ctx: &Ctx) -> Result {
    let vm = lives(|g| sleep(g, 0))?.vm(ctx)?;
    let mut vm = start_watched(vm.args(["-no-shutdown"]))?;
    for life in 1..5 {
        expect_shown(&mut vm, "life", life)?;
        expect_event(&mut vm, "SHUTDOWN", "guest-shutdown")?;
        vm.qmp.event("STOP", SOON)?;
        expect_status(&mut vm, "shutdown")?;
        expect_refused_cont(&mut vm)?;
        expect_equal("the guest said", vm.console.unread().contains("alive"), false)?;
        vm.qmp.execute("system_reset", json!({}))?;
        expect_event(&mut vm, "RESET", "host-qmp-system-reset")?;
        expect_status(&mut vm, "paused")?;
        vm.qmp.execute("cont", json!({}))?;
        vm.qmp.event("RESUME", SOON)?;
    }
    expect_shown(&mut vm, "life", 5)?;
    vm.console.expect_line("enough", SOON)?;
    vm.qmp.execute("quit", json!({}))?;
    expect_event(&mut vm, "SHUTDOWN", "host-qmp-quit")?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)
}

/// Says `w` and a new line, in 16-bit code and in 32-bit code, then halts.
const REAL_MODE: [u32; 3] = [0xb003_f8ba, 0x0ab0_ee77, 0xfdeb_f4ee];
const PROTECTED: [u32; 4] = [0x0003_f8ba, 0xee77_b000, 0xf4ee_0ab0, 0x9090_fdeb];
/// The same in 64-bit code, which says something else in other modes.
const LONG: [u32; 4] = [0x0003_f8ba, 0x4877_b000, 0x0ab0_ee90, 0xfdeb_f4ee];
/// Where the FACS is: behind the root pointer of the tables, which are where they always are.
const FACS: u32 = 0xe_0040;
/// Where the code is; not at a multiple of 16.
const WAKING: u32 = 0x7004;

/// A guest that says where it wants to wake up does so, by each way to say it.
fn wakes_at(ctx: &Ctx, offset: u32, code: &[u32]) -> Result {
    wakes(ctx, Guest::new()?, offset, code)
}

/// The same in the mode that the guest asks for besides.
fn wakes_in_64_bit_mode(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    g.mov(dword_ptr(FACS + 36), 1)?;
    wakes(ctx, g, 24, &LONG)
}

fn wakes(ctx: &Ctx, mut g: Guest, offset: u32, code: &[u32]) -> Result {
    for (at, word) in (WAKING..).step_by(4).zip(code) {
        g.mov(dword_ptr(at), *word)?;
    }
    g.mov(dword_ptr(FACS + offset), WAKING)?;
    sleep(&mut g, 1)?;
    g.print("still alive\n")?;
    // As a kernel: firmware would bring tables of its own.
    let kernel = Kernel::Pvh.image(g)?;
    let mut vm = start_watched(image::boot(ctx, "-kernel", &kernel)?)?;
    vm.qmp.event("SUSPEND", SOON)?;
    vm.qmp.execute("system_wakeup", json!({}))?;
    vm.qmp.event("WAKEUP", SOON)?;
    vm.console.expect_line("w", SOON)?;
    expect_equal("the guest said", vm.console.unread().contains("alive"), false)
}

/// A guest that sleeps keeps its RAM and is woken by its user; then it starts as after a reset.
fn suspend_to_ram(ctx: &Ctx) -> Result {
    let mut vm = start_watched(lives(|g| sleep(g, 1))?.vm(ctx)?)?;
    for life in 1..5 {
        expect_shown(&mut vm, "life", life)?;
        vm.qmp.event("SUSPEND", SOON)?;
        expect_status(&mut vm, "suspended")?;
        expect_equal("the guest said", vm.console.unread().contains("alive"), false)?;
        vm.qmp.execute("system_wakeup", json!({}))?;
        vm.qmp.event("WAKEUP", SOON)?;
        expect_status(&mut vm, "running")?;
    }
    expect_shown(&mut vm, "life", 5)?;
    vm.console.expect_line("enough", SOON)?;
    Ok(())
}

/// The debug device ends the process with twice the value written, plus 1.
fn debug_exit(ctx: &Ctx) -> Result {
    for value in [0, 1, 42] {
        let mut g = Guest::new()?;
        g.mov(edx, 0x501)?;
        g.mov(eax, value)?;
        g.out(dx, al)?;
        g.print("still alive\n")?;
        let vm = g.vm(ctx)?.args(["-device", "isa-debug-exit,iobase=0x501"]);
        let mut vm = vm.start_bare()?;
        expect_equal("exit code", vm.exit_code(SOON)?, 2 * value + 1)?;
        expect_equal("stdout", vm.stdout().wait_for_end(SOON)?.as_str(), "")?;
    }
    Ok(())
}

/// SIGTERM is a request to shut down, also for a stopped machine and one that spins.
fn sigterm(ctx: &Ctx) -> Result {
    for arguments in [&[][..], &["-S"], &["-no-shutdown"]] {
        let mut g = Guest::new()?;
        g.print("spinning\n")?;
        g.spin()?;
        let mut vm = g.vm(ctx)?;
        for argument in arguments {
            vm = vm.args([argument]);
        }
        let mut vm = vm.start()?;
        if !arguments.contains(&"-S") {
            vm.console.expect_line("spinning", SOON)?;
        }
        vm.process.signal(rustix::process::Signal::TERM)?;
        expect_event(&mut vm, "SHUTDOWN", "host-signal")?;
        expect_equal("exit code", vm.exit_code(SOON)?, 0)?;
    }
    Ok(())
}
