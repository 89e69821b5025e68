//! The ELF form of a core: headers, program headers and notes.
//!
//! Pure functions. Sources: System V ABI (ELF, chapters 4 and 5), its supplements for i386 and
//! x86-64, and for the notes `elf_prstatus` of Linux and the CPU note that readers of such cores
//! know.

use kvm_bindings::{kvm_dtable, kvm_segment};

use crate::cpu::registers::{Registers, attributes};

const ET_CORE: u16 = 4;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Readable, writable, executable.
const PF_ALL: u32 = 7;
/// The count of program headers stands in the first section header.
const PN_XNUM: u16 = 0xffff;
const NT_PRSTATUS: u32 = 1;

/// From this many segments on their count, with that of the notes, stands in a section header.
pub(super) const MANY: usize = 65533;

/// The form of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// ELFCLASS64: addresses and offsets have 64 bits.
    pub(super) wide: bool,
    /// Of an x86-64 processor, otherwise of an i386.
    pub(super) x86_64: bool,
}

/// A range of memory in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Virtual address; 0 where none is known.
    pub(super) virt: u64,
    /// Guest-physical address.
    pub(super) phys: u64,
    /// Length in bytes.
    pub(super) len: u64,
    /// Where in the memory part of the file it stands.
    pub(super) at: u64,
}

/// Bytes in little-endian order.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, value: u16) -> &mut Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn pad(&mut self, count: usize) -> &mut Bytes {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// An address or offset of the form's width.
    fn word(&mut self, form: Form, value: u64) -> &mut Bytes {
        if form.wide { self.u64(value) } else { self.u32(value as u32) }
    }
}

impl Form {
    fn header_size(self) -> u16 {
        if self.wide { 64 } else { 52 }
    }

    fn segment_size(self) -> u16 {
        if self.wide { 56 } else { 32 }
    }

    fn section_size(self) -> u16 {
        if self.wide { 64 } else { 40 }
    }

    /// How much of the file comes before the memory.
    pub(super) fn head_size(self, loads: usize, notes: usize) -> u64 {
        let section = if loads >= MANY { self.section_size() } else { 0 };
        let fixed = u64::from(self.header_size()) + u64::from(section);
        fixed + (loads as u64 + 1) * u64::from(self.segment_size()) + notes as u64
    }

    /// Everything that comes before the memory: header, program headers, the section header if
    /// there are many segments, notes.
    pub(super) fn head(self, loads: &[Load], notes: &[u8]) -> Vec<u8> {
        let many = loads.len() >= MANY;
        let segments = loads.len() + 1;
        let memory = self.head_size(loads.len(), notes.len());
        let notes_at = memory - notes.len() as u64;
        let sections_at = notes_at - if many { u64::from(self.section_size()) } else { 0 };

        let mut to = Bytes(Vec::with_capacity(memory as usize));
        to.0.extend(b"\x7fELF");
        to.0.extend([if self.wide { 2 } else { 1 }, 1, 1]);
        to.pad(9);
        to.u16(ET_CORE).u16(if self.x86_64 { EM_X86_64 } else { EM_386 }).u32(1);
        to.word(self, 0).word(self, self.header_size().into());
        to.word(self, if many { sections_at } else { 0 });
        to.u32(0).u16(self.header_size()).u16(self.segment_size());
        to.u16(if many { PN_XNUM } else { segments as u16 });
        to.u16(if many { self.section_size() } else { 0 }).u16(many.into()).u16(0);

        let note = Load { virt: 0, phys: 0, len: notes.len() as u64, at: 0 };
        self.segment(&mut to, PT_NOTE, &note, notes_at);
        for load in loads {
            self.segment(&mut to, PT_LOAD, load, memory.saturating_add(load.at));
        }
        if many {
            // Name, type, flags, address, offset, size, link, info, alignment, entry size.
            to.u32(0).u32(0).word(self, 0).word(self, 0).word(self, 0).word(self, 0);
            to.u32(0).u32(u32::try_from(segments).unwrap_or(u32::MAX));
            to.word(self, 0).word(self, 0);
        }
        to.0.extend(notes);
        to.0
    }

    fn segment(self, to: &mut Bytes, kind: u32, load: &Load, offset: u64) {
        let flags = if kind == PT_LOAD { PF_ALL } else { 0 };
        to.u32(kind);
        if self.wide {
            to.u32(flags);
        }
        to.word(self, offset).word(self, load.virt).word(self, load.phys);
        to.word(self, load.len).word(self, load.len);
        if !self.wide {
            to.u32(flags);
        }
        to.word(self, 0);
    }

    /// The notes of all vCPUs: first what any reader of cores knows, then all that others want.
    pub(super) fn notes(self, vcpus: &[Registers]) -> Vec<u8> {
        let mut to = Bytes::default();
        for (pid, vcpu) in (1..).zip(vcpus) {
            let status = if self.x86_64 { prstatus_64(pid, vcpu) } else { prstatus_32(pid, vcpu) };
            note(&mut to, b"CORE\0", NT_PRSTATUS, &status.0);
        }
        for vcpu in vcpus {
            note(&mut to, b"QEMU\0", 0, &cpu_state(vcpu).0);
        }
        to.0
    }
}

fn note(to: &mut Bytes, name: &[u8; 5], kind: u32, content: &[u8]) {
    to.u32(name.len() as u32).u32(content.len() as u32).u32(kind);
    to.0.extend(name);
    to.pad(3);
    to.0.extend(content);
    to.pad(content.len().next_multiple_of(4) - content.len());
}

fn prstatus_64(pid: u32, vcpu: &Registers) -> Bytes {
    let (r, s) = (&vcpu.regs, &vcpu.sregs);
    let mut to = Bytes::default();
    to.pad(32).u32(pid).pad(76);
    to.u64(r.r15).u64(r.r14).u64(r.r13).u64(r.r12).u64(r.rbp).u64(r.rbx).u64(r.r11).u64(r.r10);
    to.u64(r.r9).u64(r.r8).u64(r.rax).u64(r.rcx).u64(r.rdx).u64(r.rsi).u64(r.rdi);
    // The number of a system call: none.
    to.u64(0);
    to.u64(r.rip).u64(s.cs.selector.into()).u64(r.rflags).u64(r.rsp).u64(s.ss.selector.into());
    to.u64(s.fs.base).u64(s.gs.base);
    for segment in [&s.ds, &s.es, &s.fs, &s.gs] {
        to.u64(segment.selector.into());
    }
    to.pad(8);
    to
}

fn prstatus_32(pid: u32, vcpu: &Registers) -> Bytes {
    let (r, s) = (&vcpu.regs, &vcpu.sregs);
    let mut to = Bytes::default();
    to.pad(24).u32(pid).pad(44);
    for value in [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rax] {
        to.u32(value as u32);
    }
    for segment in [&s.ds, &s.es, &s.fs, &s.gs] {
        to.u32(segment.selector.into());
    }
    to.u32(0).u32(r.rip as u32).u32(s.cs.selector.into());
    to.u32(r.rflags as u32).u32(r.rsp as u32).u32(s.ss.selector.into());
    to.pad(4);
    to
}

/// Version and size of the CPU note.
const CPU_STATE: (u32, u32) = (1, 432);

fn cpu_state(vcpu: &Registers) -> Bytes {
    let (r, s) = (&vcpu.regs, &vcpu.sregs);
    let mut to = Bytes::default();
    to.u32(CPU_STATE.0).u32(CPU_STATE.1);
    to.u64(r.rax).u64(r.rbx).u64(r.rcx).u64(r.rdx).u64(r.rsi).u64(r.rdi).u64(r.rsp).u64(r.rbp);
    to.u64(r.r8).u64(r.r9).u64(r.r10).u64(r.r11).u64(r.r12).u64(r.r13).u64(r.r14).u64(r.r15);
    to.u64(r.rip).u64(r.rflags);
    for segment in [&s.cs, &s.ds, &s.es, &s.fs, &s.gs, &s.ss, &s.ldt, &s.tr] {
        let kvm_segment { selector, limit, base, .. } = *segment;
        to.u32(selector.into()).u32(limit).u32(attributes(segment)).u32(0).u64(base);
    }
    for table in [&s.gdt, &s.idt] {
        let kvm_dtable { base, limit, .. } = *table;
        to.u32(0).u32(limit.into()).u32(0).u32(0).u64(base);
    }
    // There is no CR1.
    to.u64(s.cr0).u64(0).u64(s.cr2).u64(s.cr3).u64(s.cr4);
    to
}
