//! Interrupts of the machine's devices, through the PICs and through the I/O APIC.

use iced_x86::code_asm::*;
use serde_json::json;

use super::asm::{COM1, Guest, VARS};
use super::pause::How;
use super::{SOON, expect_equal, expect_shown, start_watched};
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};

/// The vector of ISA interrupt 0; the others follow.
const BASE: u8 = 0x30;
/// Counters of the interrupts, of 8 bytes, by ISA number.
const COUNTS: u32 = VARS + 0x100;

const PIT_HZ: u32 = 1_193_182;

pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for chip in [Chip::Pic, Chip::IoApic] {
        let word = chip.word();
        tests.extend([
            Test::tiny(&format!("irq::timer_{word}"), 60, move |ctx| timer(ctx, chip)),
            Test::tiny(&format!("irq::serial_{word}"), 60, move |ctx| serial(ctx, chip)),
            Test::tiny(&format!("irq::keyboard_and_mouse_{word}"), 60, move |ctx| {
                keyboard_and_mouse(ctx, chip)
            }),
            Test::tiny(&format!("irq::clock_{word}"), 60, move |ctx| clock(ctx, chip)),
            Test::tiny(&format!("irq::power_button_{word}"), 60, move |ctx| {
                power_button(ctx, chip)
            }),
        ]);
    }
    for how in [How::StopCont, How::Pulse] {
        let name = format!("{}::timers", how.word());
        tests.push(Test::tiny(&name, 60, move |ctx| timers(ctx, how)));
    }
    tests
}

/// Who brings the interrupts to the processor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chip {
    Pic,
    IoApic,
}

impl Chip {
    fn word(self) -> &'static str {
        match self {
            Self::Pic => "pic",
            Self::IoApic => "ioapic",
        }
    }

    /// Sets up this chip for the ISA interrupts `irqs` and masks all others.
    fn set_up(self, g: &mut Guest, irqs: &[u8]) -> Result {
        // The local APIC: on, with the PICs' interrupts at LINT0, or not.
        g.mov(eax, 0xfee0_0000u32)?;
        g.mov(dword_ptr(rax + 0xf0), 0x1ff)?;
        let lint0 = if self == Self::Pic { 0x700 } else { 0x1_0700 };
        g.mov(dword_ptr(rax + 0x350), lint0)?;
        let mut mask = 0xffffu32;
        if self == Self::Pic {
            irqs.iter().for_each(|irq| mask &= !(1 << irq));
            if mask >> 8 != 0xff {
                mask &= !(1 << 2);
            }
        }
        let base = u32::from(BASE);
        for (port, words) in
            [(0x20, [0x11, base, 4, 1, mask & 0xff]), (0xa0, [0x11, base + 8, 2, 1, mask >> 8])]
        {
            g.outb(port, words[0])?;
            for word in &words[1..] {
                g.outb(port + 1, *word)?;
            }
        }
        if self == Self::IoApic {
            for irq in irqs {
                // The timer's interrupt is at pin 2, and the one of ACPI is a level.
                let pin = if *irq == 0 { 2 } else { u32::from(*irq) };
                let level = if *irq == 9 { 0x8000 } else { 0 };
                g.mov(eax, 0xfec0_0000u32)?;
                g.mov(dword_ptr(rax), 0x11 + 2 * pin)?;
                g.mov(dword_ptr(rax + 0x10), 0)?;
                g.mov(dword_ptr(rax), 0x10 + 2 * pin)?;
                g.mov(dword_ptr(rax + 0x10), (base + u32::from(*irq)) | level)?;
            }
        }
        Ok(())
    }

    /// Says that the interrupt `irq` was dealt with.
    fn end_of_interrupt(self, g: &mut Guest, irq: u8) -> Result {
        if self == Self::IoApic {
            return end_of_local_interrupt(g);
        }
        if irq >= 8 {
            g.outb(0xa0, 0x20)?;
        }
        g.outb(0x20, 0x20)
    }

    /// A handler that counts the interrupt and does `body`, which may use RAX and RDX.
    fn handle(self, g: &mut Guest, irq: u8, body: impl FnOnce(&mut Guest) -> Result) -> Result {
        handler(g, BASE + irq, |g| {
            g.inc(qword_ptr(count(irq)))?;
            body(g)?;
            self.end_of_interrupt(g, irq)
        })
    }
}

/// Where the interrupts `irq` are counted.
fn count(irq: u8) -> u32 {
    COUNTS + 8 * u32::from(irq)
}

/// Tells the local APIC that its interrupt was dealt with.
pub(super) fn end_of_local_interrupt(g: &mut Guest) -> Result {
    g.mov(eax, 0xfee0_0000u32)?;
    g.mov(dword_ptr(rax + 0xb0), 0)?;
    Ok(())
}

/// A handler of `vector`: `body` may use RAX and RDX.
pub(super) fn handler(
    g: &mut Guest,
    vector: u8,
    body: impl FnOnce(&mut Guest) -> Result,
) -> Result {
    let (mut entry, mut end) = (g.create_label(), g.create_label());
    g.jmp(end)?;
    g.set_label(&mut entry)?;
    g.push(rax)?;
    g.push(rdx)?;
    body(g)?;
    g.pop(rdx)?;
    g.pop(rax)?;
    g.iretq()?;
    g.set_label(&mut end)?;
    g.nop()?;
    g.on_interrupt(vector, entry);
    Ok(())
}

/// Halts until the 8 bytes at `address` are at least `least`; interrupts are off afterwards.
fn halt_until(g: &mut Guest, address: u32, least: i32) -> Result {
    let (mut again, mut done) = (g.create_label(), g.create_label());
    g.nop()?;
    g.set_label(&mut again)?;
    g.cli()?;
    g.cmp(qword_ptr(address), least)?;
    g.jge(done)?;
    g.sti()?;
    g.hlt()?;
    g.jmp(again)?;
    g.set_label(&mut done)?;
    g.nop()?;
    Ok(())
}

/// Channel 0 of the interval timer, periodic.
fn start_pit(g: &mut Guest, hertz: u32) -> Result {
    let divisor = PIT_HZ / hertz;
    g.outb(0x43, 0x34)?;
    g.outb(0x40, divisor & 0xff)?;
    g.outb(0x40, divisor >> 8)
}

/// The interval timer ticks.
fn timer(ctx: &Ctx, chip: Chip) -> Result {
    let mut g = Guest::new()?;
    chip.handle(&mut g, 0, |_| Ok(()))?;
    chip.set_up(&mut g, &[0])?;
    start_pit(&mut g, 200)?;
    halt_until(&mut g, count(0), 10)?;
    g.print("ticked\n")?;
    let mut vm = g.vm(ctx)?.start()?;
    vm.console.expect_line("ticked", SOON)?;
    Ok(())
}

/// The serial port interrupts for an empty transmitter and for input.
fn serial(ctx: &Ctx, chip: Chip) -> Result {
    let mut g = Guest::new()?;
    chip.handle(&mut g, 4, |g| {
        // What it is about: the identification, and the input if there is any.
        g.inb(COM1 + 2)?;
        g.mov(qword_ptr(VARS), rax)?;
        g.inb(COM1)?;
        g.mov(qword_ptr(VARS + 8), rax).map_err(Into::into)
    })?;
    chip.set_up(&mut g, &[4])?;
    // OUT2 lets interrupts through.
    g.outb(COM1 + 4, 0x0b)?;
    g.outb(COM1 + 1, 2)?;
    halt_until(&mut g, count(4), 1)?;
    g.outb(COM1 + 1, 0)?;
    g.show_memory("empty", VARS)?;
    g.outb(COM1 + 1, 1)?;
    g.print("type\n")?;
    for round in 2..4 {
        halt_until(&mut g, count(4), round)?;
        g.show_memory("input", VARS)?;
        g.show_memory("byte", VARS + 8)?;
    }
    let mut vm = g.vm(ctx)?.start()?;
    expect_shown(&mut vm, "empty", 2)?;
    vm.console.expect_line("type", SOON)?;
    for byte in ["a", "b"] {
        vm.console.type_text(byte)?;
        expect_shown(&mut vm, "input", 4)?;
        expect_shown(&mut vm, "byte", byte.as_bytes()[0].into())?;
    }
    Ok(())
}

/// The keyboard and the mouse answer by interrupt.
fn keyboard_and_mouse(ctx: &Ctx, chip: Chip) -> Result {
    let mut g = Guest::new()?;
    for irq in [1, 12] {
        chip.handle(&mut g, irq, |g| {
            g.inb(0x64)?;
            g.mov(qword_ptr(VARS), rax)?;
            g.inb(0x60)?;
            g.mov(qword_ptr(VARS + 8), rax).map_err(Into::into)
        })?;
    }
    chip.set_up(&mut g, &[1, 12])?;
    // Both interrupts on, both ports on, no translation.
    g.outb(0x64, 0x60)?;
    g.outb(0x60, 3)?;
    // Echo, which the keyboard answers with the same.
    g.outb(0x60, 0xee)?;
    halt_until(&mut g, count(1), 1)?;
    g.show_memory("keyboard", VARS + 8)?;
    g.show_memory("mouse_irqs", count(12))?;
    // The mouse acknowledges that it is to report.
    g.outb(0x64, 0xd4)?;
    g.outb(0x60, 0xf4)?;
    halt_until(&mut g, count(12), 1)?;
    g.show_memory("mouse", VARS + 8)?;
    g.show_memory("status", VARS)?;
    g.show_memory("keyboard_irqs", count(1))?;
    let mut vm = g.vm(ctx)?.start()?;
    expect_shown(&mut vm, "keyboard", 0xee)?;
    expect_shown(&mut vm, "mouse_irqs", 0)?;
    expect_shown(&mut vm, "mouse", 0xfa)?;
    let status = super::shown(&mut vm, "status")?;
    expect_equal("output full, from the mouse", status & 0x21, 0x21)?;
    expect_shown(&mut vm, "keyboard_irqs", 1)
}

fn write_cmos(g: &mut Guest, register: u32, value: u32) -> Result {
    g.outb(0x70, register)?;
    g.outb(0x71, value)
}

/// The real-time clock interrupts periodically, and when the second changes.
fn clock(ctx: &Ctx, chip: Chip) -> Result {
    let mut g = Guest::new()?;
    chip.handle(&mut g, 8, |g| {
        // Reading the flags makes it ready for the next.
        g.outb(0x70, 0xc)?;
        g.inb(0x71)?;
        g.or(qword_ptr(VARS), rax).map_err(Into::into)
    })?;
    chip.set_up(&mut g, &[8])?;
    write_cmos(&mut g, 0xa, 0x26)?;
    write_cmos(&mut g, 0xb, 0x42)?;
    halt_until(&mut g, count(8), 10)?;
    write_cmos(&mut g, 0xb, 0x02)?;
    g.show_memory("periodic", VARS)?;
    g.mov(qword_ptr(VARS), 0)?;
    write_cmos(&mut g, 0xb, 0x12)?;
    // A periodic interrupt may still be on its way; what it finds does not say "interrupt".
    halt_until(&mut g, VARS, 0x80)?;
    g.show_memory("update", VARS)?;
    let mut vm = g.vm(ctx)?.start()?;
    let periodic = super::shown(&mut vm, "periodic")?;
    expect_equal("the periodic flags", periodic & 0xc0, 0xc0)?;
    let update = super::shown(&mut vm, "update")?;
    expect_equal("the update flags", update & 0x90, 0x90)
}

const PM1_STATUS: u32 = 0x600;
const PM1_ENABLE: u32 = 0x602;
const PM1_CONTROL: u32 = 0x604;
const POWER_BUTTON: u32 = 1 << 8;

/// system_powerdown is the power button: ACPI's interrupt, once for each press. The guest then
/// powers off.
fn power_button(ctx: &Ctx, chip: Chip) -> Result {
    let outw = |g: &mut Guest, port: u32, value: u32| -> Result {
        g.mov(edx, port)?;
        g.mov(eax, value)?;
        g.out(dx, ax)?;
        Ok(())
    };
    let mut g = Guest::new()?;
    // A level may interrupt once more than it was raised (some KVMs look at it too early): what
    // counts is that there was something to do, and that it does not go on for ever.
    chip.handle(&mut g, 9, |g| {
        let mut nothing = g.create_label();
        g.mov(edx, PM1_STATUS)?;
        g.xor(eax, eax)?;
        g.in_(ax, dx)?;
        g.test(eax, POWER_BUTTON)?;
        g.jz(nothing)?;
        g.inc(qword_ptr(VARS))?;
        outw(g, PM1_STATUS, POWER_BUTTON)?;
        g.set_label(&mut nothing)?;
        g.nop().map_err(Into::into)
    })?;
    chip.set_up(&mut g, &[9])?;
    outw(&mut g, PM1_CONTROL, 1)?;
    outw(&mut g, PM1_ENABLE, POWER_BUTTON)?;
    g.print("ready\n")?;
    for press in 1..=3 {
        halt_until(&mut g, VARS, press)?;
        g.show_memory("presses", VARS)?;
    }
    g.show_memory("interrupts", count(9))?;
    // S5.
    outw(&mut g, PM1_CONTROL, 0x2001)?;
    let mut vm = start_watched(g.vm(ctx)?)?;
    vm.console.expect_line("ready", SOON)?;
    for press in 1..=3 {
        vm.qmp.execute("system_powerdown", json!({}))?;
        vm.qmp.event("POWERDOWN", SOON)?;
        expect_shown(&mut vm, "presses", press)?;
    }
    let interrupts = super::shown(&mut vm, "interrupts")?;
    if interrupts > 6 {
        return Err(format!("{interrupts} interrupts for 3 presses").into());
    }
    super::expect_event(&mut vm, "SHUTDOWN", "guest-shutdown")?;
    expect_equal("exit code", vm.exit_code(SOON)?, 0)
}

/// All timers of the machine go on ticking however often the guest is interrupted.
fn timers(ctx: &Ctx, how: How) -> Result {
    const LAPIC_TIMER: u8 = 0x50;
    const LAPIC_COUNT: u32 = COUNTS + 8 * 20;
    let chip = Chip::IoApic;
    let mut g = Guest::new()?;
    chip.handle(&mut g, 0, |_| Ok(()))?;
    chip.handle(&mut g, 8, |g| {
        g.outb(0x70, 0xc)?;
        g.inb(0x71)
    })?;
    handler(&mut g, LAPIC_TIMER, |g| {
        g.inc(qword_ptr(LAPIC_COUNT))?;
        end_of_local_interrupt(g)
    })?;
    chip.set_up(&mut g, &[0, 8])?;
    start_pit(&mut g, 500)?;
    write_cmos(&mut g, 0xa, 0x27)?;
    write_cmos(&mut g, 0xb, 0x42)?;
    // Periodic, at the bus clock divided by 16.
    g.mov(eax, 0xfee0_0000u32)?;
    g.mov(dword_ptr(rax + 0x3e0), 3)?;
    g.mov(dword_ptr(rax + 0x320), 0x2_0000 | u32::from(LAPIC_TIMER))?;
    g.mov(dword_ptr(rax + 0x380), 125_000)?;
    let mut again = g.create_label();
    g.nop()?;
    g.set_label(&mut again)?;
    for counter in [count(0), count(8), LAPIC_COUNT] {
        g.mov(qword_ptr(counter), 0)?;
    }
    // Each by name, so that a failure shows which is missing.
    for (name, counter) in [("interval", count(0)), ("clock", count(8)), ("local", LAPIC_COUNT)] {
        halt_until(&mut g, counter, 2)?;
        g.print(&format!("{name} "))?;
    }
    g.print("ticked\n")?;
    g.jmp(again)?;
    let mut vm = g.vm(ctx)?.start()?;
    for _ in 0..30 {
        vm.console.skip();
        vm.console.expect_line("ticked", SOON)?;
        how.interrupt(&mut vm)?;
    }
    // What was on its way may have been from before; two of them are not.
    vm.console.skip();
    vm.console.expect_line("ticked", SOON)?;
    vm.console.expect_line("ticked", SOON)?;
    Ok(())
}
