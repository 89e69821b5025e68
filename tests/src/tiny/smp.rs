//! Several processors: started by INIT and SIPI, counting under a lock, interrupting each other,
//! while the machine is stopped, saved, reset and asked.

use iced_x86::code_asm::*;
use serde_json::json;

use super::asm::{COM1, DATA, Guest, VARS};
use super::irq::{end_of_local_interrupt, handler};
use super::pause::How;
use super::{SOON, expect_equal, expect_shown, expect_status};
use crate::rig::Result;
use crate::rig::qmp::Qmp;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::TestVm;

/// Processors that have come up, and those that are done.
const UP: u32 = VARS;
const DONE: u32 = VARS + 8;
/// Flags that let them begin and end.
const GO: u32 = VARS + 16;
const STOP: u32 = VARS + 24;
/// What they count: by a locked instruction, and under a lock.
const LOCKED: u32 = VARS + 0x40;
const UNDER_LOCK: u32 = VARS + 0x80;
const LOCK: u32 = VARS + 0xc0;

const LAPIC: u32 = 0xfee0_0000;

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for cpus in [2, 4] {
        let name = format!("smp::counts_{cpus}cpu");
        tests.push(Test::tiny(&name, 60, move |ctx| counts(ctx, cpus, None)));
    }
    for how in [How::StopCont, How::Pulse] {
        let word = how.word();
        tests.extend([
            Test::tiny(&format!("{word}::counts_4cpu"), 60, move |ctx| counts(ctx, 4, Some(how))),
            Test::tiny(&format!("{word}::messages"), 60, move |ctx| messages(ctx, how)),
            Test::tiny(&format!("{word}::before_sipi"), 60, move |ctx| before_sipi(ctx, how)),
        ]);
    }
    tests.push(Test::tiny("smp::resets_in_a_row", 60, resets_in_a_row));
    tests.push(Test::tiny("smp::asked_by_two_clients", 60, asked_by_two_clients));
    tests
}

/// Waits, running, until the 8 bytes at `address` are at least `least`.
fn spin_until(g: &mut Guest, address: u32, least: i32) -> Result {
    let mut again = g.create_label();
    g.nop()?;
    g.set_label(&mut again)?;
    g.pause()?;
    g.cmp(qword_ptr(address), least)?;
    g.jl(again)?;
    Ok(())
}

/// Adds 1 to what all processors share, by a locked instruction and under a spin lock, until
/// [`STOP`] is set; RBP counts. After each batch does `between`, which keeps RBP.
fn count_until_stop(g: &mut Guest, between: impl FnOnce(&mut Guest) -> Result) -> Result {
    let (mut batch, mut again, mut acquire) =
        (g.create_label(), g.create_label(), g.create_label());
    g.xor(ebp, ebp)?;
    g.set_label(&mut batch)?;
    g.mov(ebx, 500)?;
    g.set_label(&mut again)?;
    g.lock().inc(qword_ptr(LOCKED))?;
    g.set_label(&mut acquire)?;
    g.mov(eax, 1)?;
    g.xchg(dword_ptr(LOCK), eax)?;
    g.test(eax, eax)?;
    g.jnz(acquire)?;
    // Not locked itself.
    g.mov(rax, qword_ptr(UNDER_LOCK))?;
    g.inc(rax)?;
    g.mov(qword_ptr(UNDER_LOCK), rax)?;
    g.mov(dword_ptr(LOCK), 0)?;
    g.inc(rbp)?;
    g.dec(ebx)?;
    g.jnz(again)?;
    between(g)?;
    g.cmp(qword_ptr(STOP), 0)?;
    g.je(batch)?;
    Ok(())
}

/// Sets [`STOP`] once something is typed.
fn stop_when_typed(g: &mut Guest) -> Result {
    g.inb(COM1 + 5)?;
    g.and(eax, 1)?;
    g.mov(qword_ptr(STOP), rax)?;
    Ok(())
}

/// Every processor comes up once, with an identity of its own, and no count is lost.
fn counts(ctx: &Ctx, cpus: u32, how: Option<How>) -> Result {
    let others = cpus - 1;
    // For each processor: what it counted, and its APIC id.
    let (mine, ids) = (DATA, DATA + 0x100);
    let mut g = Guest::new()?;
    let mut end = g.create_label();
    g.start_processors()?;
    spin_until(&mut g, UP, others as i32)?;
    g.print("up\n")?;
    g.mov(qword_ptr(GO), 1)?;
    count_until_stop(&mut g, |g| {
        g.outb(COM1, b'.'.into())?;
        stop_when_typed(g)
    })?;
    g.mov(qword_ptr(mine), rbp)?;
    spin_until(&mut g, DONE, others as i32)?;
    g.print("\n")?;
    g.show_memory("locked", LOCKED)?;
    g.show_memory("under_lock", UNDER_LOCK)?;
    for number in 0..cpus {
        g.show_memory("mine", mine + 8 * number)?;
        g.show_memory("apic_id", ids + 8 * number)?;
    }
    g.show_memory("up", UP)?;
    g.jmp(end)?;
    g.other_processors(|g| {
        g.mov(eax, LAPIC + 0x20)?;
        g.mov(eax, dword_ptr(rax))?;
        g.shr(eax, 24)?;
        g.mov(qword_ptr(rdi * 8 + ids), rax)?;
        g.lock().inc(qword_ptr(UP))?;
        spin_until(g, GO, 1)?;
        count_until_stop(g, |_| Ok(()))?;
        g.mov(qword_ptr(rdi * 8 + mine), rbp)?;
        g.lock().inc(qword_ptr(DONE))?;
        g.halt()
    })?;
    g.set_label(&mut end)?;
    g.nop()?;

    let mut vm = g.vm(ctx)?.cpus(cpus).start()?;
    vm.console.expect_line("up", SOON)?;
    vm.console.expect("....", SOON)?;
    if let Some(how) = how {
        for _ in 0..25 {
            how.interrupt(&mut vm)?;
        }
        vm.console.skip();
        vm.console.expect("..", SOON)?;
    }
    vm.console.type_text("x")?;
    let locked = super::shown(&mut vm, "locked")?;
    expect_shown(&mut vm, "under_lock", locked)?;
    let (mut total, mut apic_ids) = (0, Vec::new());
    for _ in 0..cpus {
        total += super::shown(&mut vm, "mine")?;
        apic_ids.push(super::shown(&mut vm, "apic_id")?);
    }
    expect_equal("what all counted", total, locked)?;
    apic_ids.sort_unstable();
    expect_equal("the APIC ids", apic_ids, (0..u64::from(cpus)).collect())?;
    expect_shown(&mut vm, "up", others.into())?;
    all_halted(&mut vm)
}

/// In the end all processors halt, and that is told of each.
fn all_halted(vm: &mut TestVm) -> Result {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let cpus = vm.qmp.execute("query-cpus", json!({}))?;
        let cpus = cpus.as_array().ok_or("query-cpus gives no list")?;
        if cpus.iter().all(|cpu| cpu["halted"] == true) {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            return Err(format!("not all halt: {cpus:?}").into());
        }
    }
}

/// Two processors send each other interrupts, one for one: none is lost and none comes twice.
fn messages(ctx: &Ctx, how: How) -> Result {
    const VECTOR: u8 = 0x60;
    /// Interrupts taken by each.
    const TAKEN: u32 = VARS + 0x100;
    let send = |g: &mut Guest, to: u32| -> Result {
        g.mov(eax, LAPIC)?;
        g.mov(dword_ptr(rax + 0x310), to << 24)?;
        g.mov(dword_ptr(rax + 0x300), 0x4000 | u32::from(VECTOR))?;
        Ok(())
    };
    let mut g = Guest::new()?;
    handler(&mut g, VECTOR, |g| {
        g.mov(eax, LAPIC + 0x20)?;
        g.mov(eax, dword_ptr(rax))?;
        g.shr(eax, 24)?;
        g.inc(qword_ptr(rax * 8 + TAKEN))?;
        end_of_local_interrupt(g)
    })?;
    let mut end = g.create_label();
    g.start_processors()?;
    spin_until(&mut g, UP, 1)?;
    g.print("up\n")?;
    // RBX counts the rounds: in each one sends, then halts until the answer is there.
    let halt_until_round = |g: &mut Guest, taken: u32| -> Result {
        let (mut again, mut done) = (g.create_label(), g.create_label());
        g.nop()?;
        g.set_label(&mut again)?;
        g.cli()?;
        g.cmp(qword_ptr(taken), rbx)?;
        g.jge(done)?;
        g.sti()?;
        g.hlt()?;
        g.jmp(again)?;
        g.set_label(&mut done)?;
        g.sti()?;
        Ok(())
    };
    let mut round = g.create_label();
    g.xor(ebx, ebx)?;
    g.set_label(&mut round)?;
    g.inc(rbx)?;
    send(&mut g, 1)?;
    halt_until_round(&mut g, TAKEN)?;
    stop_when_typed(&mut g)?;
    g.cmp(qword_ptr(STOP), 0)?;
    g.je(round)?;
    g.show("rounds", rbx)?;
    g.show_memory("first", TAKEN)?;
    g.show_memory("second", TAKEN + 8)?;
    g.jmp(end)?;
    g.other_processors(|g| {
        let mut round = g.create_label();
        g.mov(eax, LAPIC + 0xf0)?;
        g.mov(dword_ptr(rax), 0x1ff)?;
        g.lock().inc(qword_ptr(UP))?;
        g.xor(ebx, ebx)?;
        g.set_label(&mut round)?;
        g.inc(rbx)?;
        halt_until_round(g, TAKEN + 8)?;
        send(g, 0)?;
        g.jmp(round)?;
        Ok(())
    })?;
    g.set_label(&mut end)?;
    g.nop()?;

    let mut vm = g.vm(ctx)?.cpus(2).start()?;
    vm.console.expect_line("up", SOON)?;
    for _ in 0..50 {
        how.interrupt(&mut vm)?;
    }
    vm.console.type_text("x")?;
    let rounds = super::shown(&mut vm, "rounds")?;
    expect_shown(&mut vm, "first", rounds)?;
    expect_shown(&mut vm, "second", rounds)
}

/// Processors that wait for their start go on waiting, and start when they are told.
fn before_sipi(ctx: &Ctx, how: How) -> Result {
    let mut g = Guest::new()?;
    let (mut poll, mut end) = (g.create_label(), g.create_label());
    g.print("waiting\n")?;
    g.set_label(&mut poll)?;
    g.inb(COM1 + 5)?;
    g.test(al, 1)?;
    g.jz(poll)?;
    g.show_memory("early", UP)?;
    g.start_processors()?;
    spin_until(&mut g, UP, 3)?;
    g.print("started\n")?;
    g.jmp(end)?;
    g.other_processors(|g| {
        g.lock().inc(qword_ptr(UP))?;
        g.halt()
    })?;
    g.set_label(&mut end)?;
    g.nop()?;

    let mut vm = g.vm(ctx)?.cpus(4).start()?;
    vm.console.expect_line("waiting", SOON)?;
    for _ in 0..20 {
        how.interrupt(&mut vm)?;
    }
    vm.console.type_text("x")?;
    expect_shown(&mut vm, "early", 0)?;
    vm.console.expect_line("started", SOON)?;
    all_halted(&mut vm)
}

/// A guest whose processors all run, and which says so once they do.
fn busy(cpus: u32) -> Result<Guest> {
    let mut g = Guest::new()?;
    // Left over from before a reset.
    g.mov(qword_ptr(UP), 0)?;
    g.start_processors()?;
    spin_until(&mut g, UP, cpus as i32 - 1)?;
    g.print("busy\n")?;
    g.spin()?;
    g.other_processors(|g| {
        g.lock().inc(qword_ptr(UP))?;
        g.spin()
    })?;
    Ok(g)
}

/// Resets at any moment of a machine's start, 200 of them, leave a machine that starts.
fn resets_in_a_row(ctx: &Ctx) -> Result {
    let mut vm = busy(4)?.vm(ctx)?.cpus(4).start()?;
    vm.console.expect_line("busy", SOON)?;
    for round in 0..200 {
        vm.qmp.execute("system_reset", json!({}))?;
        super::expect_event(&mut vm, "RESET", "host-qmp-system-reset")?;
        // Some right after the other, some once all processors run, some in between.
        match round % 8 {
            0 => {
                vm.console.skip();
                vm.console.expect_line("busy", SOON)?;
            }
            1 => expect_status(&mut vm, "running")?,
            _ => {}
        }
    }
    vm.console.skip();
    vm.qmp.execute("system_reset", json!({}))?;
    vm.console.expect_line("busy", SOON)?;
    expect_status(&mut vm, "running")
}

/// Two clients ask and stop the machine at the same time; each gets answers to its own questions.
fn asked_by_two_clients(ctx: &Ctx) -> Result {
    let second = ctx.dir.join("second");
    let option = format!("unix:{},server=on,wait=off", second.display());
    let mut vm = busy(4)?.vm(ctx)?.cpus(4).args(["-qmp", &option]).start()?;
    vm.console.expect_line("busy", SOON)?;
    let mut second = Qmp::connect(&second, SOON)?;
    let hammer = |qmp: &mut Qmp, command: &str| -> Result {
        for round in 0..100 {
            let cpus = qmp.execute("query-cpus", json!({}))?;
            expect_equal("processors", cpus.as_array().map(Vec::len), Some(4))?;
            let status = qmp.execute("query-status", json!({}))?;
            let status = status["status"].as_str().unwrap_or_default();
            expect_equal("a status", ["running", "paused"].contains(&status), true)?;
            if round % 10 == 0 {
                qmp.execute(command, json!({}))?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| hammer(&mut second, "stop"));
        let first = hammer(&mut vm.qmp, "cont");
        other.join().map_err(|_| "the second client panicked")?.and(first)
    })?;
    vm.qmp.execute("cont", json!({}))?;
    // Both saw every change, and in the same order.
    second.execute("query-status", json!({}))?;
    vm.qmp.execute("query-status", json!({}))?;
    expect_equal("events", second.take_events("STOP"), vm.qmp.take_events("STOP"))?;
    expect_equal("events", second.take_events("RESUME"), vm.qmp.take_events("RESUME"))?;
    expect_status(&mut vm, "running")
}
