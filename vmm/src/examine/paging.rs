//! A vCPU's page tables as text.

use std::fmt::Write as _;

use qmp::QmpError;
use resources::space::Space;

use crate::cpu::paging::{
    ACCESSED, CACHE_DISABLE, DIRTY, GLOBAL, LARGE, MAX_TABLES, NO_EXECUTE, Paging, USER, WRITABLE,
    WRITE_THROUGH,
};
use crate::hmp::MAX_OUTPUT;
use crate::vm::Vm;

const OFF: &str = "PG disabled\n";

fn paging(vm: &mut Vm, cpu: usize) -> Result<Paging, QmpError> {
    vm.fill()?;
    Ok(Paging::of(&vm.registers(cpu as i64)?.sregs))
}

/// The text of `info tlb`: each page with its attributes.
///
/// # Errors
/// When there is no such vCPU, or a boot image cannot be read.
pub fn tlb(vm: &mut Vm, cpu: usize) -> Result<String, QmpError> {
    Ok(tlb_text(&vm.board.memory.clone(), paging(vm, cpu)?))
}

pub(super) fn tlb_text(memory: &Space, paging: Paging) -> String {
    if !paging.is_on() {
        return OFF.to_owned();
    }
    let mut text = String::new();
    for page in paging.pages(memory, MAX_TABLES) {
        let large = if page.size > 4096 { LARGE } else { 0 };
        let flags = [
            ('X', NO_EXECUTE),
            ('G', GLOBAL),
            ('P', large),
            ('D', DIRTY),
            ('A', ACCESSED),
            ('C', CACHE_DISABLE),
            ('T', WRITE_THROUGH),
            ('U', USER),
            ('W', WRITABLE),
        ];
        let flags = flags.map(|(letter, bit)| if page.entry & bit != 0 { letter } else { '-' });
        let _ =
            writeln!(text, "{:016x}: {:016x} {}", page.virt, page.phys, String::from_iter(flags));
        if text.len() >= MAX_OUTPUT {
            break;
        }
    }
    text
}

/// The text of `info mem`: ranges of linear addresses with what may be done there.
///
/// # Errors
/// When there is no such vCPU, or a boot image cannot be read.
pub fn mappings(vm: &mut Vm, cpu: usize) -> Result<String, QmpError> {
    Ok(mappings_text(&vm.board.memory.clone(), paging(vm, cpu)?))
}

pub(super) fn mappings_text(memory: &Space, paging: Paging) -> String {
    if !paging.is_on() {
        return OFF.to_owned();
    }
    let mut text = String::new();
    // First address, size, whether user code gets in, whether it may be written.
    let mut range: Option<(u64, u64, bool, bool)> = None;
    let line = |text: &mut String, range: Option<(u64, u64, bool, bool)>| {
        let Some((start, size, user, writable)) = range else { return };
        let end = start.wrapping_add(size);
        let (user, write) = (if user { 'u' } else { '-' }, if writable { 'w' } else { '-' });
        let _ = writeln!(text, "{start:016x}-{end:016x} {size:016x} {user}r{write}");
    };
    for page in paging.pages(memory, MAX_TABLES) {
        match &mut range {
            Some((start, size, user, writable))
                if start.checked_add(*size) == Some(page.virt)
                    && (*user, *writable) == (page.user, page.writable) =>
            {
                *size += page.size;
            }
            _ => {
                line(&mut text, range.replace((page.virt, page.size, page.user, page.writable)));
                if text.len() >= MAX_OUTPUT {
                    return text;
                }
            }
        }
    }
    line(&mut text, range);
    text
}

/// The text of `gva2gpa`: where a linear address leads.
///
/// # Errors
/// When there is no such vCPU, or a boot image cannot be read.
pub fn gva2gpa(vm: &mut Vm, cpu: usize, address: u64) -> Result<String, QmpError> {
    let paging = paging(vm, cpu)?;
    Ok(match paging.translate(&vm.board.memory, address) {
        Some(physical) => format!("gpa: {physical:#x}\n"),
        None => "Unmapped\n".to_owned(),
    })
}
