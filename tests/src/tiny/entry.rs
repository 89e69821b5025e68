//! From a processor's start to a guest's 64-bit code: the first part of each guest's program.
//!
//! The program has fixed places for the entries, the descriptor tables and the code; see the
//! offsets. All entries end at `CODE` in 64-bit mode, with EBP telling whether it is the first
//! processor (0) or another.

use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::*;

use super::asm::{ENTRY, ORIGIN, PAGE_TABLES, STACKS, TSS, TSS_LIMIT};
use crate::rig::Result;

/// Offsets in the program.
pub(super) const ENTRY_64: u64 = 0x200;
const GDT: u64 = 0x300;
pub(super) const TRAMPOLINE_CODE: u64 = 0x400;
/// Room for a header that an image's format wants.
pub(super) const HEADER: u64 = 0xf00;
pub(super) const IDT: u64 = 0x1000;
pub(super) const CODE: u64 = 0x2000;

const CODE_32: u16 = 0x08;
const DATA_32: u16 = 0x10;
pub(super) const CODE_64: u16 = 0x18;
/// Flat segments, all marked as accessed so that loading them writes nothing.
pub(super) const DESCRIPTORS: [u64; 9] = [
    0,
    0x00cf_9b00_0000_ffff, // 0x08: code, 32 bits
    0x00cf_9300_0000_ffff, // 0x10: data
    0x00af_9b00_0000_ffff, // 0x18: code, 64 bits
    0x00cf_9300_0000_ffff, // 0x20: data, where SYSCALL would take it
    0x00cf_f300_0000_ffff, // 0x28: user data
    0x00af_fb00_0000_ffff, // 0x30: user code
    0,                     // 0x38: the task, filled in with its address
    0,
];

const IA32_EFER: u32 = 0xc000_0080;

/// The slots at [`ENTRY`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Entry {
    /// RAX, or EAX.
    Rax,
    /// RBX, or EBX.
    Rbx,
    /// RSI, or ESI.
    Rsi,
    /// CR0.
    Cr0,
    /// CR4.
    Cr4,
    /// The flags.
    Flags,
    /// The EFER register.
    Efer,
    /// Code segment.
    Cs,
    /// Data segment.
    Ds,
    /// Extra segment.
    Es,
    /// Stack segment.
    Ss,
}

impl Entry {
    /// Its address.
    pub const fn at(self) -> u32 {
        ENTRY + 8 * self as u32
    }
}

/// A program that has everything but its code and its interrupts' handlers.
pub(super) fn around() -> Result<Blob> {
    let mut program = Blob::default();
    let (entry, ap_entry) = entry_32()?;
    program.put(0, &entry)?;
    program.put(ENTRY_64, &entry_64()?)?;
    program.put(GDT, &words(&descriptors()))?;
    program.put(TRAMPOLINE_CODE, &real_to_protected(0, ORIGIN + GDT, ap_entry)?)?;
    Ok(program)
}

/// Bytes at places that do not overlap.
#[derive(Default)]
pub(super) struct Blob {
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    /// Puts `bytes` at `at`; what is there must be zero.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) -> Result {
        let at = usize::try_from(at)?;
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let place = &mut self.bytes[at..end];
        if place.iter().any(|byte| *byte != 0) {
            return Err(format!("the image's part at {at:#x} runs into another").into());
        }
        place.copy_from_slice(bytes);
        Ok(())
    }
}

pub(super) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn descriptors() -> [u64; 9] {
    let mut table = DESCRIPTORS;
    let (base, limit) = (u64::from(TSS), u64::from(TSS_LIMIT));
    table[7] = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    table
}

/// Begins a piece of code with a jump over LGDT's operand for the table at `base`, which then is
/// [`POINTER`] bytes into it: only 64-bit code can address a label.
fn begin_with_pointer(code: &mut CodeAssembler, base: u64) -> Result {
    let mut pointer = (DESCRIPTORS.len() as u16 * 8 - 1).to_le_bytes().to_vec();
    pointer.extend_from_slice(&base.to_le_bytes());
    code.db(&[0xeb, u8::try_from(pointer.len())?])?;
    code.db(&pointer)?;
    Ok(())
}

const POINTER: u32 = 2;

/// A jump to another code segment from 32-bit code, or from 16-bit code with its prefix.
pub(super) fn far_jump(code: &mut CodeAssembler, selector: u16, to: u64) -> Result {
    let mut bytes = if code.bitness() == 16 { vec![0x66, 0xea] } else { vec![0xea] };
    bytes.extend_from_slice(&u32::try_from(to)?.to_le_bytes());
    bytes.extend_from_slice(&selector.to_le_bytes());
    code.db(&bytes)?;
    Ok(())
}

fn load_data_segments(code: &mut CodeAssembler) -> Result {
    code.mov(eax, u32::from(DATA_32))?;
    for segment in [ds, es, ss, fs, gs] {
        code.mov(segment, ax)?;
    }
    Ok(())
}

/// The entry in 32-bit protected mode; also gives the address where application processors join.
fn entry_32() -> Result<(Vec<u8>, u64)> {
    let mut a = CodeAssembler::new(32)?;
    let (mut again, mut enable) = (a.create_label(), a.create_label());
    begin_with_pointer(&mut a, ORIGIN + GDT)?;
    for (slot, register) in [(Entry::Rax, eax), (Entry::Rbx, ebx), (Entry::Rsi, esi)] {
        a.mov(dword_ptr(slot.at()), register)?;
    }
    a.mov(esp, STACKS)?;
    a.pushfd()?;
    a.pop(dword_ptr(Entry::Flags.at()))?;
    a.mov(eax, cr0)?;
    a.mov(dword_ptr(Entry::Cr0.at()), eax)?;
    a.mov(eax, cr4)?;
    a.mov(dword_ptr(Entry::Cr4.at()), eax)?;
    for (slot, segment) in [(Entry::Cs, cs), (Entry::Ds, ds), (Entry::Es, es), (Entry::Ss, ss)] {
        a.mov(eax, segment)?;
        a.mov(dword_ptr(slot.at()), eax)?;
    }
    a.cli()?;
    a.lgdt(fword_ptr(ORIGIN as u32 + POINTER))?;
    load_data_segments(&mut a)?;

    // A table of 512 GiB, one of 4 GiB and four of 1 GiB in pages of 2 MiB.
    const PRESENT: u32 = 0b111;
    a.mov(dword_ptr(PAGE_TABLES), (PAGE_TABLES + 0x1000) | PRESENT)?;
    for gib in 0..4 {
        let entry = PAGE_TABLES + 0x1000 + 8 * gib;
        a.mov(dword_ptr(entry), (PAGE_TABLES + 0x2000 + 0x1000 * gib) | PRESENT)?;
    }
    a.mov(edi, PAGE_TABLES + 0x2000)?;
    a.mov(eax, PRESENT | 0x80)?;
    a.mov(ecx, 4 * 512)?;
    a.set_label(&mut again)?;
    a.mov(dword_ptr(edi), eax)?;
    a.add(eax, 0x20_0000)?;
    a.add(edi, 8)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.xor(ebp, ebp)?;
    a.jmp(enable)?;

    let mut ap = a.create_label();
    a.set_label(&mut ap)?;
    load_data_segments(&mut a)?;
    a.mov(ebp, 1)?;

    a.set_label(&mut enable)?;
    a.mov(eax, cr4)?;
    a.or(eax, 0x20)?;
    a.mov(cr4, eax)?;
    a.mov(eax, PAGE_TABLES)?;
    a.mov(cr3, eax)?;
    a.mov(ecx, IA32_EFER)?;
    a.rdmsr()?;
    a.or(eax, 0x100)?;
    a.wrmsr()?;
    a.mov(eax, cr0)?;
    a.or(eax, 0x8000_0000u32 as i32)?;
    a.mov(cr0, eax)?;
    far_jump(&mut a, CODE_64, ORIGIN + CODE)?;
    let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let result = a.assemble_options(ORIGIN, options)?;
    let ap = result.label_ip(&ap)?;
    Ok((result.inner.code_buffer, ap))
}

/// The entry in 64-bit mode; the page tables are the loader's.
fn entry_64() -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    begin_with_pointer(&mut a, ORIGIN + GDT)?;
    for (slot, register) in [(Entry::Rax, rax), (Entry::Rbx, rbx), (Entry::Rsi, rsi)] {
        a.mov(qword_ptr(slot.at()), register)?;
    }
    a.mov(esp, STACKS)?;
    a.pushfq()?;
    a.pop(qword_ptr(Entry::Flags.at()))?;
    a.mov(rax, cr0)?;
    a.mov(qword_ptr(Entry::Cr0.at()), rax)?;
    a.mov(rax, cr4)?;
    a.mov(qword_ptr(Entry::Cr4.at()), rax)?;
    a.mov(ecx, IA32_EFER)?;
    a.rdmsr()?;
    a.mov(dword_ptr(Entry::Efer.at()), eax)?;
    for (slot, segment) in [(Entry::Cs, cs), (Entry::Ds, ds), (Entry::Es, es), (Entry::Ss, ss)] {
        a.mov(eax, segment)?;
        a.mov(dword_ptr(slot.at()), eax)?;
    }
    a.cli()?;
    a.lgdt(fword_ptr(ORIGIN + ENTRY_64 + u64::from(POINTER)))?;
    load_data_segments(&mut a)?;
    a.xor(ebp, ebp)?;
    a.push(i32::from(CODE_64))?;
    a.push((ORIGIN + CODE) as i32)?;
    // RETFQ.
    a.db(&[0x48, 0xcb])?;
    Ok(a.assemble(ORIGIN + ENTRY_64)?)
}

/// 16-bit code at `offset` of its segment that continues at `to` in the 32-bit code segment of the
/// table at `gdt`.
pub(super) fn real_to_protected(offset: u64, gdt: u64, to: u64) -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(16)?;
    begin_with_pointer(&mut a, gdt)?;
    a.cli()?;
    a.cld()?;
    a.mov(ax, cs)?;
    a.mov(ds, ax)?;
    a.mov(si, u32::try_from(offset)? + POINTER)?;
    // With the prefix that makes it load all of the base.
    a.db(&[0x66])?;
    a.lgdt(fword_ptr(si))?;
    a.mov(eax, cr0)?;
    a.or(eax, 1)?;
    a.mov(cr0, eax)?;
    far_jump(&mut a, CODE_32, to)?;
    Ok(a.assemble(offset)?)
}
