//! Ports and memory-mapped I/O: each width, strings, and addresses where nothing is.

use iced_x86::code_asm::*;

use super::asm::{COM1, DATA, Guest};
use super::{SOON, expect_equal, expect_shown, image};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};

/// An address in the PCI hole where nothing is.
const NOTHING: u32 = 0xd000_0000;
/// A port where nothing is.
const NO_PORT: u32 = 0x1230;
const ONES: u64 = u64::MAX;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("ports::widths", 60, widths),
        Test::tiny("ports::strings", 60, |ctx| strings(ctx, false)),
        Test::tiny("ports::strings_user_mode", 60, |ctx| strings(ctx, true)),
        Test::tiny("ports::strings_real_mode", 60, strings_real_mode),
        Test::tiny("mmio::nothing_reads_as_ones", 60, nothing_reads_as_ones),
        Test::tiny("mmio::user_mode", 60, mmio_user_mode),
        Test::tiny("mmio::firmware_ignores_writes", 60, firmware_ignores_writes),
    ]
}

/// An access of 2 or 4 bytes reaches one register of a device each; nothing reads as ones.
fn widths(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    g.outb(COM1 + 7, 0xa5)?;
    g.inb(COM1 + 7)?;
    g.show("scratch8", rax)?;
    // Modem control, line status, modem status, scratch.
    g.mov(edx, COM1 + 4)?;
    g.mov(eax, 0x5a00_0003)?;
    g.out(dx, eax)?;
    g.xor(eax, eax)?;
    g.in_(eax, dx)?;
    g.show("scratch32", rax)?;
    g.mov(edx, COM1 + 6)?;
    g.mov(eax, 0x7700)?;
    g.out(dx, ax)?;
    g.xor(eax, eax)?;
    g.in_(ax, dx)?;
    g.show("scratch16", rax)?;
    g.mov(edx, NO_PORT)?;
    g.xor(eax, eax)?;
    g.in_(al, dx)?;
    g.show("nothing8", rax)?;
    g.xor(eax, eax)?;
    g.in_(ax, dx)?;
    g.show("nothing16", rax)?;
    g.xor(eax, eax)?;
    g.in_(eax, dx)?;
    g.show("nothing32", rax)?;
    // Reaches over the end of the ports.
    g.mov(edx, 0xffff)?;
    g.xor(eax, eax)?;
    g.out(dx, eax)?;
    g.in_(eax, dx)?;
    g.show("end32", rax)?;

    let mut vm = g.vm(ctx)?.start()?;
    expect_shown(&mut vm, "scratch8", 0xa5)?;
    // The transmitter is idle and the line up.
    expect_shown(&mut vm, "scratch32", 0x5ab0_6003)?;
    expect_shown(&mut vm, "scratch16", 0x77b0)?;
    expect_shown(&mut vm, "nothing8", 0xff)?;
    expect_shown(&mut vm, "nothing16", 0xffff)?;
    expect_shown(&mut vm, "nothing32", 0xffff_ffff)?;
    expect_shown(&mut vm, "end32", 0xffff_ffff)
}

/// KVM hands over a string instruction's elements several at a time: all are for the same port.
fn strings(ctx: &Ctx, user: bool) -> Result {
    const TEXT: &str = "The quick brown fox jumps over the lazy dog. ";
    let mut g = Guest::new()?;
    let (mut text, mut end) = (g.create_label(), g.create_label());
    g.jmp(end)?;
    g.set_label(&mut text)?;
    let long = TEXT.repeat(8);
    for part in long.as_bytes().chunks(16) {
        g.db(part)?;
    }
    g.set_label(&mut end)?;
    let body = |g: &mut Guest| -> Result {
        g.cld()?;
        g.mov(edx, COM1)?;
        g.lea(rsi, ptr(text))?;
        g.mov(ecx, u32::try_from(long.len())?)?;
        g.rep().outsb()?;
        // The last of 300 words stays in modem status (ignored) and scratch.
        g.mov(edi, DATA)?;
        g.mov(ecx, 300)?;
        g.mov(eax, 0x1100)?;
        g.rep().stosw()?;
        g.mov(word_ptr(DATA + 2 * 299), 0x4200)?;
        g.mov(esi, DATA)?;
        g.mov(edx, COM1 + 6)?;
        g.mov(ecx, 300)?;
        g.rep().outsw()?;
        // And back: 600 bytes of scratch, 300 words, 300 double words.
        g.mov(edi, DATA + 0x1000)?;
        g.mov(edx, COM1 + 7)?;
        g.mov(ecx, 600)?;
        g.rep().insb()?;
        g.mov(edi, DATA + 0x2000)?;
        g.mov(edx, COM1 + 6)?;
        g.mov(ecx, 300)?;
        g.rep().insw()?;
        g.mov(edi, DATA + 0x3000)?;
        g.mov(edx, COM1 + 4)?;
        g.mov(ecx, 300)?;
        g.rep().insd()?;
        Ok(())
    };
    if user {
        g.in_user_mode(body)?;
    } else {
        body(&mut g)?;
    }
    g.mov(r8, rdi)?;
    g.print("\n")?;
    g.show("end", r8)?;
    // Each is the same all over, which comparing it with itself one element on tells.
    let mut compare = |name: &str, at: u32, size: u32, len: u32| -> Result {
        g.mov(esi, at)?;
        g.mov(edi, at + size)?;
        g.mov(ecx, len - size)?;
        g.repe().cmpsb()?;
        g.mov(r8, rcx)?;
        g.show(&format!("{name}_left"), r8)?;
        g.mov(r8d, dword_ptr(at))?;
        g.show(name, r8)?;
        Ok(())
    };
    compare("bytes", DATA + 0x1000, 1, 600)?;
    compare("words", DATA + 0x2000, 2, 600)?;
    compare("doubles", DATA + 0x3000, 4, 1200)?;

    let mut vm = g.vm(ctx)?.start()?;
    let said = vm.console.expect("\n", SOON)?;
    expect_equal("what came by string", said, long)?;
    expect_shown(&mut vm, "end", u64::from(DATA) + 0x3000 + 1200)?;
    for (name, value) in [("bytes", 0x4242_4242), ("words", 0x42b0_42b0), ("doubles", 0x42b0_6008)]
    {
        expect_shown(&mut vm, &format!("{name}_left"), 0)?;
        expect_shown(&mut vm, name, value)?;
    }
    Ok(())
}

/// The reset state of a processor is real mode, and string output works there, also backwards.
fn strings_real_mode(ctx: &Ctx) -> Result {
    const TEXT: u32 = image::START as u32 + 2;
    let mut a = CodeAssembler::new(16)?;
    let mut end = a.create_label();
    a.db(&[0xeb, 6])?;
    a.db(b"abcde-")?;
    a.mov(bx, cs)?;
    a.mov(ds, bx)?;
    a.mov(dx, COM1)?;
    a.cld()?;
    a.mov(si, TEXT)?;
    a.mov(cx, 6)?;
    a.rep().outsb()?;
    a.std()?;
    a.mov(si, TEXT + 4)?;
    a.mov(cx, 5)?;
    a.rep().outsb()?;
    a.set_label(&mut end)?;
    a.hlt()?;
    a.jmp(end)?;

    let mut vm = image::boot(ctx, "-bios", &image::real_mode(a)?)?.start()?;
    vm.console.expect("abcde-edcba", SOON)?;
    Ok(())
}

/// Reads of each width where nothing is give ones, and writes do nothing.
fn nothing_reads_as_ones(ctx: &Ctx) -> Result {
    // In the PCI hole, just behind RAM, and just below the firmware.
    let places = [NOTHING, 16 << 20, 0xffe0_0000];
    let mut g = Guest::new()?;
    for place in places {
        g.mov(ebx, place)?;
        g.xor(eax, eax)?;
        g.mov(byte_ptr(rbx + 1), al)?;
        g.mov(word_ptr(rbx + 2), ax)?;
        g.mov(dword_ptr(rbx + 4), eax)?;
        g.mov(qword_ptr(rbx + 8), rax)?;
        g.mov(al, byte_ptr(rbx + 1))?;
        g.show("bits8", rax)?;
        g.xor(eax, eax)?;
        g.mov(ax, word_ptr(rbx + 2))?;
        g.show("bits16", rax)?;
        g.mov(eax, dword_ptr(rbx + 4))?;
        g.show("bits32", rax)?;
        g.mov(rax, qword_ptr(rbx + 8))?;
        g.show("bits64", rax)?;
        // Over the border of two pages.
        g.mov(rax, qword_ptr(rbx + 0xffc))?;
        g.show("split", rax)?;
        // Read, change, write.
        g.add(dword_ptr(rbx), 1)?;
        g.mov(eax, dword_ptr(rbx))?;
        g.show("changed", rax)?;
        g.mov(eax, 7)?;
        g.xchg(dword_ptr(rbx), eax)?;
        g.show("exchanged", rax)?;
        g.mov(esi, ebx)?;
        g.mov(edi, DATA)?;
        g.mov(ecx, 64)?;
        g.cld()?;
        g.rep().movsb()?;
        g.mov(rax, qword_ptr(DATA + 56))?;
        g.show("string", rax)?;
    }

    let mut vm = g.vm(ctx)?.start()?;
    for _ in places {
        for (name, bits) in [("bits8", 8), ("bits16", 16), ("bits32", 32), ("bits64", 64)] {
            expect_shown(&mut vm, name, ONES >> (64 - bits))?;
        }
        expect_shown(&mut vm, "split", ONES)?;
        expect_shown(&mut vm, "changed", ONES >> 32)?;
        expect_shown(&mut vm, "exchanged", ONES >> 32)?;
        expect_shown(&mut vm, "string", ONES)?;
    }
    Ok(())
}

/// User code, which runs natively everywhere, also with wide registers.
fn mmio_user_mode(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    g.mov(rax, cr4)?;
    // OSFXSR: SSE may be used.
    g.or(eax, 0x200)?;
    g.mov(cr4, rax)?;
    g.in_user_mode(|g| {
        g.mov(ebx, NOTHING)?;
        g.movups(xmm0, xmmword_ptr(rbx))?;
        g.movups(xmmword_ptr(DATA), xmm0)?;
        g.movups(xmmword_ptr(rbx), xmm0)?;
        g.mov(r8, qword_ptr(rbx))?;
        g.or(qword_ptr(rbx), 1)?;
        g.movzx(r9d, word_ptr(rbx + 6))?;
        g.movsx(r10, byte_ptr(rbx))?;
        g.mov(r12, qword_ptr(DATA + 8))?;
        Ok(())
    })?;
    for (name, register) in [("bits64", r8), ("bits16", r9), ("signed", r10), ("wide", r12)] {
        g.show(name, register)?;
    }
    let mut vm = g.vm(ctx)?.start()?;
    expect_shown(&mut vm, "bits64", ONES)?;
    expect_shown(&mut vm, "bits16", 0xffff)?;
    expect_shown(&mut vm, "signed", ONES)?;
    expect_shown(&mut vm, "wide", ONES)
}

/// Firmware is read-only, at both its places.
fn firmware_ignores_writes(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    for place in [0xf_fff0u32, 0xffff_fff0] {
        g.mov(ebx, place)?;
        g.mov(r8, qword_ptr(rbx))?;
        g.show("before", r8)?;
        g.not(r8)?;
        g.mov(qword_ptr(rbx), r8)?;
        g.add(dword_ptr(rbx), 1)?;
        g.mov(byte_ptr(rbx + 4), 0)?;
        g.mov(r8, qword_ptr(rbx))?;
        g.show("after", r8)?;
    }
    let mut vm = g.vm(ctx)?.start()?;
    for _ in 0..2 {
        expect_shown(&mut vm, "before", 0xf0_00e0_00ea)?;
        expect_shown(&mut vm, "after", 0xf0_00e0_00ea)?;
    }
    Ok(())
}
