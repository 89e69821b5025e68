//! Dumps of guests, read by the debugger.

use std::path::{Path, PathBuf};
use std::time::Instant;

use iced_x86::code_asm::*;
use serde_json::json;

use super::asm::{DATA, Guest};
use super::{SOON, expect_status};
use crate::rig::Result;
use crate::rig::gdb::gdb;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::TestVm;

/// What the guest puts into memory, and into a register.
const MARK: u64 = 0x1122_3344_5566_7788;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::tiny("dump::gdb_reads_memory_and_registers", 60, memory_and_registers),
        Test::tiny("dump::gdb_sees_every_processor", 60, every_processor),
        Test::tiny("dump::by_physical_address", 60, by_physical_address),
    ]
}

/// A guest that has put its marks and halts.
fn marked(ctx: &Ctx) -> Result<TestVm> {
    let mut g = Guest::new()?;
    g.mov(r12, MARK)?;
    g.mov(qword_ptr(DATA + 0x123), r12)?;
    g.print("marked\n")?;
    g.halt()?;
    let mut vm = g.vm(ctx)?.start()?;
    vm.console.expect_line("marked", SOON)?;
    wait_until_halted(&mut vm)?;
    Ok(vm)
}

fn dump(ctx: &Ctx, vm: &mut TestVm, paging: bool) -> Result<PathBuf> {
    let path = ctx.dir.join("core");
    let protocol = format!("file:{}", path.display());
    let arguments = json!({ "paging": paging, "protocol": protocol });
    vm.qmp.execute("dump-guest-memory", arguments)?;
    vm.qmp.event("STOP", SOON)?;
    vm.qmp.event("RESUME", SOON)?;
    expect_status(vm, "running")?;
    Ok(path)
}

fn expect_in(text: &str, wanted: &str) -> Result {
    match text.contains(wanted) {
        true => Ok(()),
        false => Err(format!("the debugger does not say {wanted:?} but:\n{text}").into()),
    }
}

fn memory_and_registers(ctx: &Ctx) -> Result {
    let mut vm = marked(ctx)?;
    let core = dump(ctx, &mut vm, true)?;
    let memory = format!("x/8xb {:#x}", DATA + 0x123);
    let text = gdb(&core, &["info registers", &memory, "x/i $pc", "p/x $cs"])?;
    expect_in(&text, "r12            0x1122334455667788")?;
    expect_in(&text, "0x88\t0x77\t0x66\t0x55\t0x44\t0x33\t0x22\t0x11")?;
    // After the hlt that it waits in.
    expect_in(&text, "jmp ")
}

fn every_processor(ctx: &Ctx) -> Result {
    let mut g = Guest::new()?;
    g.start_processors()?;
    g.print("marked\n")?;
    g.halt()?;
    g.other_processors(|g| {
        g.mov(r13, MARK)?;
        g.halt()
    })?;
    let mut vm = g.vm(ctx)?.cpus(3).start()?;
    vm.console.expect_line("marked", SOON)?;
    wait_until_halted(&mut vm)?;
    let core = dump(ctx, &mut vm, true)?;
    let text = gdb(&core, &["thread apply all p/x $r13"])?;
    match text.matches("0x1122334455667788").count() {
        2 => Ok(()),
        count => Err(format!("{count} processors have the mark:\n{text}").into()),
    }
}

/// Waits until all processors have come to their end.
fn wait_until_halted(vm: &mut TestVm) -> Result {
    let deadline = Instant::now() + SOON;
    loop {
        let cpus = vm.qmp.execute("query-cpus", json!({}))?;
        if cpus.as_array().is_some_and(|all| all.iter().all(|cpu| cpu["halted"] == true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("not all processors halt: {cpus}").into());
        }
    }
}

fn by_physical_address(ctx: &Ctx) -> Result {
    let mut vm = marked(ctx)?;
    let core = dump(ctx, &mut vm, false)?;
    let found = word_at(&core, u64::from(DATA) + 0x123)?;
    super::expect_equal("the mark", found, MARK)
}

/// Eight bytes of memory in a 64-bit core, by physical address.
fn word_at(core: &Path, address: u64) -> Result<u64> {
    let data = std::fs::read(core)?;
    let word = |at: usize| -> Result<u64> {
        let bytes = data.get(at..at + 8).ok_or("the core is too short")?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    };
    let headers = (word(56)? & 0xffff) as usize;
    // The first program header is that of the notes.
    let first = word(32)? as usize;
    for header in (1..headers).map(|index| first + index * 56) {
        let (offset, phys, size) = (word(header + 8)?, word(header + 24)?, word(header + 32)?);
        if (phys..phys + size).contains(&address) {
            return word((offset + address - phys) as usize);
        }
    }
    Err(format!("{address:#x} is in no segment").into())
}
