//! Guests that are stopped and continued, or put through saving and restoring, at any instruction:
//! no access is lost or made twice, and no register or byte of memory changes.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use iced_x86::code_asm::*;
use serde_json::json;

use super::asm::{COM1, DATA, Guest, VARS};
use super::{SOON, expect_equal, expect_shown, expect_status, shown};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::TestVm;

/// How often each guest is interrupted.
const TIMES: usize = 50;
/// The port of `-debugcon`.
pub(super) const DEBUGCON: u32 = 0x402;

pub(super) fn tests() -> Vec<Test> {
    let mut tests = vec![Test::tiny("stop_cont::accesses_are_complete", 60, stopped_complete)];
    for how in [How::StopCont, How::Pulse] {
        let word = how.word();
        tests.extend([
            Test::tiny(&format!("{word}::port_output"), 60, move |ctx| output(ctx, how, false)),
            Test::tiny(&format!("{word}::port_output_user_mode"), 60, move |ctx| {
                output(ctx, how, true)
            }),
            Test::tiny(&format!("{word}::port_input"), 60, move |ctx| input(ctx, how)),
            Test::tiny(&format!("{word}::memory"), 60, move |ctx| memory(ctx, how)),
            Test::tiny(&format!("{word}::registers"), 60, move |ctx| registers(ctx, how)),
        ]);
    }
    tests
}

/// The way a guest is interrupted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum How {
    /// stop and cont.
    StopCont,
    /// x-pulse-save-restore.
    Pulse,
}

impl How {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::StopCont => "stop_cont",
            Self::Pulse => "pulse",
        }
    }

    /// Interrupts the guest once; it runs afterwards.
    pub(super) fn interrupt(self, vm: &mut TestVm) -> Result {
        match self {
            Self::StopCont => {
                vm.qmp.execute("stop", json!({}))?;
                expect_status(vm, "paused")?;
                vm.qmp.execute("cont", json!({}))?;
            }
            Self::Pulse => {
                vm.qmp.execute("x-pulse-save-restore", json!({}))?;
            }
        }
        expect_status(vm, "running")
    }
}

/// Waits until `size` is more than `than`; gives it.
pub(crate) fn wait_for_more(than: u64, mut size: impl FnMut() -> Result<u64>) -> Result<u64> {
    let deadline = Instant::now() + SOON;
    loop {
        let now = size()?;
        if now > than {
            return Ok(now);
        }
        if Instant::now() > deadline {
            return Err(format!("the guest does not go on: still {now}").into());
        }
        sleep(Duration::from_micros(200));
    }
}

/// The guest writes 0, 1, ... 255, 0, ... to a port, 256 of them byte by byte and 256 by a string
/// instruction in turn: the host gets exactly that.
fn output(ctx: &Ctx, how: How, user: bool) -> Result {
    let mut g = Guest::new()?;
    let body = |g: &mut Guest| -> Result {
        let (mut fill, mut again, mut single) =
            (g.create_label(), g.create_label(), g.create_label());
        g.cld()?;
        g.mov(edi, DATA)?;
        g.xor(eax, eax)?;
        g.set_label(&mut fill)?;
        g.stosb()?;
        g.inc(al)?;
        g.jnz(fill)?;
        g.mov(edx, DEBUGCON)?;
        g.set_label(&mut again)?;
        g.mov(esi, DATA)?;
        g.mov(ecx, 256)?;
        g.rep().outsb()?;
        g.set_label(&mut single)?;
        g.out(dx, al)?;
        g.inc(al)?;
        g.jnz(single)?;
        g.jmp(again)?;
        Ok(())
    };
    if user {
        g.in_user_mode(body)?;
    } else {
        body(&mut g)?;
    }

    let path = ctx.dir.join("output");
    let name = format!("file:{}", path.display());
    let mut vm = g.vm(ctx)?.args(["-debugcon", &name]).start()?;
    let mut written = 0;
    for _ in 0..TIMES {
        written = wait_for_more(written, || size(&path))?;
        how.interrupt(&mut vm)?;
    }
    wait_for_more(written, || size(&path))?;
    vm.qmp.execute("stop", json!({}))?;
    let bytes = fs::read(&path)?;
    let wrong = bytes.iter().zip(0usize..).find(|(byte, at)| usize::from(**byte) != at & 0xff);
    if let Some((byte, at)) = wrong {
        return Err(format!("byte {at} is {byte:#x}").into());
    }
    Ok(())
}

pub(crate) fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.len())
}

/// A stopped processor stands behind the last access that the machine has seen, never on it: its
/// registers are what is saved, and the access would be made again or its result be lost.
fn stopped_complete(ctx: &Ctx) -> Result {
    const COUNT: u64 = 200;
    let mut g = Guest::new()?;
    let mut first = g.create_label();
    g.lea(rax, ptr(first))?;
    g.show("first", rax)?;
    g.mov(edx, DEBUGCON)?;
    g.set_label(&mut first)?;
    for _ in 0..COUNT {
        // One byte of code, one byte of output.
        g.out(dx, al)?;
    }
    g.jmp(first)?;

    let path = ctx.dir.join("output");
    let name = format!("file:{}", path.display());
    let mut vm = g.vm(ctx)?.args(["-debugcon", &name]).start()?;
    let first = shown(&mut vm, "first")?;
    let mut written = 0;
    for _ in 0..4 * TIMES {
        wait_for_more(written, || size(&path))?;
        vm.qmp.execute("stop", json!({}))?;
        written = size(&path)?;
        let pc = vm.qmp.execute("query-cpus", json!({}))?[0]["pc"].as_u64().unwrap_or_default();
        let done = pc.wrapping_sub(first);
        if done % COUNT != written % COUNT || done > COUNT {
            return Err(format!("stopped at {pc:#x}, {done} bytes on, after {written}").into());
        }
        vm.qmp.execute("cont", json!({}))?;
    }
    Ok(())
}

/// The guest echoes what arrives at COM1 and counts it: each read takes one byte, once.
fn input(ctx: &Ctx, how: How) -> Result {
    let mut g = Guest::new()?;
    let (mut poll, mut ready, mut done) = (g.create_label(), g.create_label(), g.create_label());
    // Sixteen bytes at a time may wait in the FIFO.
    g.outb(COM1 + 2, 1)?;
    g.print("ready\n")?;
    g.xor(r8d, r8d)?;
    g.set_label(&mut poll)?;
    g.mov(edx, COM1 + 5)?;
    g.in_(al, dx)?;
    g.test(al, 1)?;
    g.jz(poll)?;
    g.mov(edx, COM1)?;
    g.in_(al, dx)?;
    g.mov(bl, al)?;
    g.mov(edx, COM1 + 5)?;
    g.set_label(&mut ready)?;
    g.in_(al, dx)?;
    g.test(al, 0x20)?;
    g.jz(ready)?;
    g.mov(al, bl)?;
    g.mov(edx, COM1)?;
    g.out(dx, al)?;
    g.inc(r8)?;
    g.cmp(bl, u32::from(b'!'))?;
    g.je(done)?;
    g.jmp(poll)?;
    g.set_label(&mut done)?;
    g.print("\n")?;
    g.show("count", r8)?;

    let mut vm = g.vm(ctx)?.start()?;
    vm.console.expect_line("ready", SOON)?;
    let mut typed = String::new();
    for round in 0..TIMES {
        let text: String = (0..40u8).map(|i| char::from(b'a' + (i + round as u8) % 26)).collect();
        vm.console.type_text(&text)?;
        typed.push_str(&text);
        how.interrupt(&mut vm)?;
    }
    vm.console.type_text("!")?;
    let echo = vm.console.expect("!\n", SOON)?;
    expect_equal("the echo", echo, typed)?;
    expect_shown(&mut vm, "count", TIMES as u64 * 40 + 1)
}

/// The contents of memory are those that the guest has written.
fn memory(ctx: &Ctx, how: How) -> Result {
    let g = checked_memory()?;
    let path = ctx.dir.join("rounds");
    let name = format!("file:{}", path.display());
    let mut vm = g.vm(ctx)?.args(["-debugcon", &name]).start()?;
    let mut rounds = wait_for_more(0, || size(&path))?;
    for time in 0..TIMES {
        how.interrupt(&mut vm)?;
        // Often at once again, so that the interruptions do not keep step with the rounds.
        if time % 5 == 0 {
            rounds = wait_for_more(rounds, || size(&path))?;
        }
    }
    vm.console.type_text("x")?;
    let rounds = shown(&mut vm, "rounds")?;
    expect_equal("rounds", rounds, size(&path)?)?;
    expect_shown(&mut vm, "bad", 0)
}

/// A guest that rewrites 2 MiB over and over, each word with its address and the round, checks the
/// round before as it goes, and writes a byte to [`DEBUGCON`] after each round. A key ends it; it
/// then shows `rounds`, and as `bad` where a word was wrong, or 0.
pub(crate) fn checked_memory() -> Result<Guest> {
    const WORDS: u32 = (2 << 20) / 8;
    let mut g = Guest::new()?;
    g.xor(r8d, r8d)?;
    g.in_user_mode(|g| {
        let (mut round, mut word, mut bad, mut end) =
            (g.create_label(), g.create_label(), g.create_label(), g.create_label());
        g.xor(r9d, r9d)?;
        // All is zero in round 0.
        g.mov(edi, DATA)?;
        g.mov(ecx, WORDS)?;
        g.xor(eax, eax)?;
        g.cld()?;
        g.rep().stosq()?;
        g.set_label(&mut round)?;
        g.mov(edi, DATA)?;
        g.mov(ecx, WORDS)?;
        g.set_label(&mut word)?;
        // In round R a word is R times (its address + 1).
        g.lea(rax, ptr(rdi + 1))?;
        g.imul_2(rax, r8)?;
        g.cmp(qword_ptr(rdi), rax)?;
        g.jne(bad)?;
        g.lea(rdx, ptr(rdi + 1))?;
        g.add(rax, rdx)?;
        g.mov(qword_ptr(rdi), rax)?;
        g.add(rdi, 8)?;
        g.dec(ecx)?;
        g.jnz(word)?;
        g.inc(r8)?;
        g.mov(edx, DEBUGCON)?;
        g.mov(al, b'.' as u32)?;
        g.out(dx, al)?;
        g.mov(edx, COM1 + 5)?;
        g.in_(al, dx)?;
        g.test(al, 1)?;
        g.jz(round)?;
        g.jmp(end)?;
        g.set_label(&mut bad)?;
        g.mov(r9, rdi)?;
        g.mov(r10, qword_ptr(rdi))?;
        g.set_label(&mut end)?;
        g.nop()?;
        Ok(())
    })?;
    g.show("rounds", r8)?;
    g.show("bad", r9)?;
    g.show("found", r10)?;
    Ok(g)
}

/// Every register a program has keeps its value, and those only the system uses as well.
fn registers(ctx: &Ctx, how: How) -> Result {
    const MSRS: [(&str, u32, u64); 9] = [
        ("sysenter_cs", 0x174, 0x18),
        ("sysenter_esp", 0x175, 0x1234_5670),
        // AMD processors have 32 bits of these.
        ("sysenter_eip", 0x176, 0x8765_4320),
        ("star", 0xc000_0081, 0x0023_0018_0000_0000),
        ("lstar", 0xc000_0082, 0xffff_ffff_8123_4560),
        ("fmask", 0xc000_0084, 0x4_0700),
        ("fs_base", 0xc000_0100, 0x7fff_1234_5678),
        ("gs_base", 0xc000_0101, 0xffff_8888_0000_1000),
        ("kernel_gs_base", 0xc000_0102, 0x6666_0000_2000),
    ];
    let general = [rax, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    let wide = [
        xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13,
        xmm14, xmm15,
    ];
    let value = |index: usize| 0x0123_4567_89ab_cdef_u64.rotate_left(index as u32 * 4) ^ 0x55;
    // Where what the registers should hold is, and what they held in the end.
    let (expected, held) = (DATA, DATA + 0x400);
    let place = |base: u32, index: usize| base + 16 * index as u32;

    let mut g = Guest::new()?;
    g.mov(rax, cr4)?;
    g.or(eax, 0x200)?;
    g.mov(cr4, rax)?;
    for (_, number, value) in MSRS {
        g.mov(ecx, number)?;
        g.mov(eax, value as u32)?;
        g.mov(edx, (value >> 32) as u32)?;
        g.wrmsr()?;
    }
    g.mov(rax, 0x1111_2222_3333_u64)?;
    g.mov(dr0, rax)?;
    g.add(rax, 1)?;
    g.mov(dr3, rax)?;
    g.add(rax, 1)?;
    g.mov(cr2, rax)?;
    g.mov(eax, 5)?;
    g.mov(cr8, rax)?;
    for index in 0..general.len() + wide.len() + 2 {
        g.mov(rax, value(index))?;
        g.mov(qword_ptr(place(expected, index)), rax)?;
        g.mov(qword_ptr(place(expected, index) + 8), rax)?;
    }
    g.print("ready\n")?;
    g.in_user_mode(|g| {
        let (mut outer, mut inner, mut end) =
            (g.create_label(), g.create_label(), g.create_label());
        let wide_at = |index: usize| place(expected, general.len() + index);
        for (index, register) in wide.into_iter().enumerate() {
            g.movups(register, xmmword_ptr(wide_at(index)))?;
        }
        g.fninit()?;
        g.fldpi()?;
        g.mov(dword_ptr(VARS), 0x1f80 | 0x2000)?;
        g.ldmxcsr(dword_ptr(VARS))?;
        for (index, register) in general.into_iter().enumerate() {
            g.mov(register, qword_ptr(place(expected, index)))?;
        }
        g.set_label(&mut outer)?;
        g.mov(ecx, 100_000)?;
        g.set_label(&mut inner)?;
        for (index, register) in general.into_iter().enumerate() {
            g.cmp(register, qword_ptr(place(expected, index)))?;
            g.jne(end)?;
        }
        g.dec(ecx)?;
        g.jnz(inner)?;
        g.mov(edx, COM1 + 5)?;
        g.push(rax)?;
        g.in_(al, dx)?;
        g.test(al, 1)?;
        g.pop(rax)?;
        g.jz(outer)?;
        g.set_label(&mut end)?;
        for (index, register) in general.into_iter().enumerate() {
            g.mov(qword_ptr(place(held, index)), register)?;
        }
        for (index, register) in wide.into_iter().enumerate() {
            g.movups(xmmword_ptr(place(held, general.len() + index)), register)?;
        }
        g.fstp(qword_ptr(VARS))?;
        g.stmxcsr(dword_ptr(VARS + 8))?;
        Ok(())
    })?;
    for index in 0..general.len() + wide.len() {
        g.show_memory(&format!("r{index}"), place(held, index))?;
    }
    g.show_memory("pi", VARS)?;
    g.show_memory("mxcsr", VARS + 8)?;
    for (name, number, _) in MSRS {
        g.mov(ecx, number)?;
        g.rdmsr()?;
        g.shl(rdx, 32)?;
        g.or(rax, rdx)?;
        g.show(name, rax)?;
    }
    for (name, register) in [("dr0", dr0), ("dr3", dr3)] {
        g.mov(rax, register)?;
        g.show(name, rax)?;
    }
    for (name, register) in [("cr2", cr2), ("cr8", cr8)] {
        g.mov(rax, register)?;
        g.show(name, rax)?;
    }

    let mut vm = g.vm(ctx)?.start()?;
    vm.console.expect_line("ready", SOON)?;
    for _ in 0..TIMES {
        how.interrupt(&mut vm)?;
    }
    vm.console.type_text("x")?;
    for index in 0..general.len() + wide.len() {
        expect_shown(&mut vm, &format!("r{index}"), value(index))?;
    }
    expect_shown(&mut vm, "pi", std::f64::consts::PI.to_bits())?;
    expect_shown(&mut vm, "mxcsr", 0x3f80)?;
    for (name, _, value) in MSRS {
        expect_shown(&mut vm, name, value)?;
    }
    expect_shown(&mut vm, "dr0", 0x1111_2222_3333)?;
    expect_shown(&mut vm, "dr3", 0x1111_2222_3334)?;
    expect_shown(&mut vm, "cr2", 0x1111_2222_3335)?;
    expect_shown(&mut vm, "cr8", 5)
}
