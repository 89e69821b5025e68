//! Guests that do what they like with ports and addresses: the machine goes on and stays small.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use iced_x86::code_asm::*;
use serde_json::json;

use super::asm::{COM1, Guest};
use super::{SOON, expect_equal, expect_status, memory_kib};
use crate::rig::Result;
use crate::rig::qmp::connect;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};

/// Ports whose writes may end the guest's run, which is not what these tests are about: keyboard
/// controller commands, port 92, the reset register, PM1 control.
const ENDING: [u32; 5] = [0x64, 0x92, 0xcf9, 0x604, 0x605];
/// By how many KiB the process may grow: the guest touches none of its RAM meanwhile.
const GROWTH: u64 = 4 << 10;

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for width in [1, 2, 4] {
        let name = format!("hostile::ports_{}bit", width * 8);
        tests.push(Test::tiny(&name, 60, move |ctx| ports(ctx, width)));
    }
    tests.extend([
        Test::tiny("hostile::addresses", 60, addresses),
        Test::tiny("hostile::serial_flood", 60, serial_flood),
        Test::tiny("hostile::reset_storm", 60, reset_storm),
    ]);
    tests
}

/// The next of a sequence of pseudo-random numbers, in R9 (xorshift).
fn random(g: &mut Guest) -> Result {
    g.mov(r10, r9)?;
    g.shl(r10, 13)?;
    g.xor(r9, r10)?;
    g.mov(r10, r9)?;
    g.shr(r10, 7)?;
    g.xor(r9, r10)?;
    g.mov(r10, r9)?;
    g.shl(r10, 17)?;
    g.xor(r9, r10)?;
    Ok(())
}

/// COM1 as it is used for printing, whatever was done to it.
fn tame_serial(g: &mut Guest) -> Result {
    for (register, value) in [(3, 3), (1, 0), (2, 7), (4, 3)] {
        g.outb(COM1 + register, value)?;
    }
    Ok(())
}

/// Ports are read and written, with random values, by accesses of `width` bytes: each of the lower
/// ones, where the devices are, and each fourth of the others, so that 4 bytes reach them all.
fn ports(ctx: &Ctx, width: u32) -> Result {
    const LOWER: u32 = 0x1000;
    let mut ranges = Vec::new();
    let mut start = 0;
    for port in 0..LOWER {
        if (port..port + width).any(|byte| ENDING.contains(&byte)) {
            if start < port {
                ranges.push((start, port, 1));
            }
            start = port + 1;
        }
    }
    ranges.extend([(start, LOWER, 1), (LOWER, 0x1_0000, 4)]);
    let mut g = Guest::new()?;
    g.print("begin\n")?;
    g.mov(r9, 0x1234_5678_9abc_def1_u64)?;
    for (start, end, step) in ranges {
        let mut next = g.create_label();
        g.mov(edx, start)?;
        g.set_label(&mut next)?;
        random(&mut g)?;
        g.mov(eax, r9d)?;
        match width {
            1 => g.out(dx, al)?,
            2 => g.out(dx, ax)?,
            _ => g.out(dx, eax)?,
        }
        match width {
            1 => g.in_(al, dx)?,
            2 => g.in_(ax, dx)?,
            _ => g.in_(eax, dx)?,
        }
        g.add(edx, step)?;
        g.cmp(edx, end as i32)?;
        g.jb(next)?;
    }
    survives(g, ctx)
}

/// Random addresses where no RAM is, and the borders of RAM, are read and written in each width.
fn addresses(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    let mut next = g.create_label();
    g.print("begin\n")?;
    g.mov(r9, 0x8765_4321_0fed_cba9_u64)?;
    g.mov(ebp, 6000)?;
    g.set_label(&mut next)?;
    random(&mut g)?;
    // From 3 GiB up to the I/O APIC, which could stop a processor.
    g.mov(ebx, r9d)?;
    g.or(ebx, 0xc000_0000u32 as i32)?;
    let mut below = g.create_label();
    g.cmp(ebx, 0xfebf_0000u32 as i32)?;
    g.jb(below)?;
    g.and(ebx, 0xcfff_ffffu32 as i32)?;
    g.set_label(&mut below)?;
    g.mov(rax, r9)?;
    g.mov(byte_ptr(rbx), al)?;
    g.mov(word_ptr(rbx + 1), ax)?;
    g.mov(dword_ptr(rbx + 3), eax)?;
    g.mov(qword_ptr(rbx + 5), rax)?;
    g.mov(al, byte_ptr(rbx + 0x1000))?;
    g.mov(rax, qword_ptr(rbx + 0xfff))?;
    // Around the end of RAM and the legacy window.
    g.movzx(ecx, r9w)?;
    g.add(dword_ptr(rcx + (0x100_0000 - 4)), 1)?;
    g.add(dword_ptr(rcx + 0xa_0000), 1)?;
    g.dec(ebp)?;
    g.jnz(next)?;
    survives(g, ctx)
}

/// Runs a guest that ends its doings with this; it must come out alive and small, and so must
/// its state.
fn survives(mut g: Guest, ctx: &Ctx) -> Result {
    tame_serial(&mut g)?;
    g.print("\nsurvived\n")?;
    let mut vm = g.vm(ctx)?.args(["-d", "guest_errors,unimp"]).start()?;
    let before = memory_kib(&vm)?;
    vm.console.expect_line("survived", SOON).map_err(|error| vm.process.explain(error))?;
    check_small(&vm, before)?;
    // What the devices were put into can be saved and is accepted.
    for _ in 0..3 {
        vm.qmp.execute("x-pulse-save-restore", json!({}))?;
    }
    vm.qmp.execute("system_reset", json!({}))?;
    vm.qmp.event("RESET", SOON)?;
    expect_status(&mut vm, "running")?;
    vm.console.expect_line("begin", SOON)?;
    Ok(())
}

/// The process has hardly grown, and said little.
fn check_small(vm: &TestVm, before: u64) -> Result {
    let after = memory_kib(vm)?;
    if after > before + GROWTH {
        return Err(format!("the process has grown from {before} to {after} KiB").into());
    }
    let said = vm.process.stderr().text();
    if said.lines().count() > 200 || said.len() > 32 << 10 {
        return Err(
            format!("{} bytes on stderr: {}", said.len(), vm.process.stderr().tail(20)).into()
        );
    }
    Ok(())
}

/// Output that nobody reads waits in the guest, and comes complete once somebody does.
fn serial_flood(ctx: &Ctx) -> Result {
    let socket = ctx.dir.join("serial");
    let option = format!("unix:{},server=on,wait=off", socket.display());
    let mut g = Guest::new()?;
    let (mut next, mut wait) = (g.create_label(), g.create_label());
    g.xor(ebx, ebx)?;
    g.set_label(&mut next)?;
    g.mov(edx, COM1 + 5)?;
    g.set_label(&mut wait)?;
    g.in_(al, dx)?;
    g.test(al, 0x20)?;
    g.jz(wait)?;
    g.mov(edx, COM1)?;
    g.mov(al, bl)?;
    g.out(dx, al)?;
    g.inc(ebx)?;
    g.jmp(next)?;
    let vm = g.vm(ctx)?.without_serial().args(["-serial", &option, "-S"]);
    let mut vm = vm.start()?;
    let mut reader = connect(&socket, SOON)?;
    vm.qmp.execute("cont", json!({}))?;
    let before = memory_kib(&vm)?;
    // Until the socket is full: its other end has taken nothing for a while.
    let mut waiting = 0;
    let deadline = Instant::now() + SOON;
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = readable(&reader)?;
        if now == waiting && now > 0 {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("the socket does not fill up: {now} bytes").into());
        }
        waiting = now;
    }
    expect_status(&mut vm, "running")?;
    vm.qmp.execute("x-pulse-save-restore", json!({}))?;
    check_small(&vm, before)?;
    let mut bytes = vec![0; usize::try_from(waiting)? + 20_000];
    reader.set_read_timeout(Some(SOON))?;
    reader.read_exact(&mut bytes)?;
    let wrong = bytes.iter().zip(0usize..).find(|(byte, at)| usize::from(**byte) != at & 0xff);
    expect_equal("the first wrong byte", wrong, None)
}

/// Bytes that wait to be read.
fn readable(stream: &UnixStream) -> Result<u64> {
    Ok(rustix::io::ioctl_fionread(stream)?)
}

/// A guest that resets itself as fast as it can, before it does anything else.
fn reset_storm(ctx: &Ctx) -> Result {
    let mut code = CodeAssembler::new(16)?;
    code.mov(dx, 0xcf9)?;
    code.mov(al, 6)?;
    code.out(dx, al)?;
    code.hlt()?;
    let vm: VmBuilder = super::image::boot(ctx, "-bios", &super::image::real_mode(code)?)?;
    let mut vm = vm.start()?;
    for _ in 0..20 {
        super::expect_event(&mut vm, "RESET", "guest-reset")?;
    }
    let before = memory_kib(&vm)?;
    for _ in 0..200 {
        super::expect_event(&mut vm, "RESET", "guest-reset")?;
        expect_status(&mut vm, "running")?;
    }
    vm.qmp.execute("stop", json!({}))?;
    expect_status(&mut vm, "paused")?;
    vm.qmp.forget_events();
    vm.qmp.execute("cont", json!({}))?;
    super::expect_event(&mut vm, "RESET", "guest-reset")?;
    check_small(&vm, before)?;
    vm.qmp.execute("quit", json!({}))?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)
}
