//! Guests of a few instructions, assembled where the test is.
//!
//! A [`Guest`] is a 64-bit program that the test writes instruction by instruction: it
//! dereferences to iced-x86's assembler. Around it stands what every guest needs: the way from
//! each boot protocol's entry to 64-bit mode with everything mapped one to one, exception
//! handlers that tell on COM1 what happened, printing, user mode, application processors.
//! [`image`](super::image) wraps it as firmware or as a kernel.
//!
//! A KVM that emulates supervisor code runs only plain instructions there, a few million a second,
//! and not `int3`, `int n` or SSE: loops that compute belong into [`Guest::in_user_mode`].
//!
//! | guest-physical | what |
//! |---|---|
//! | `TRAMPOLINE` | where application processors start, once copied |
//! | `ORIGIN` | the program: entries, descriptor tables, code |
//! | `PAGE_TABLES` | 4 GiB mapped one to one, also for user mode |
//! | `ENTRY` | the registers at the entry, one slot of 8 bytes each |
//! | `VARS` | for the test |
//! | up to `STACKS` | one stack of 4 KiB for each processor |
//! | `DATA` | for the test, to the end of RAM |

use std::ops::{Deref, DerefMut};

use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::*;

use super::entry::{self, CODE, CODE_64, IDT, TRAMPOLINE_CODE, words};
use crate::rig::Result;

/// Where the program is.
pub const ORIGIN: u64 = 0x10_0000;
/// The page tables.
pub const PAGE_TABLES: u32 = 0x12_0000;
/// The task state segment, with a bit for each port.
pub(super) const TSS: u32 = 0x12_8000;
pub(super) const TSS_LIMIT: u32 = 104 + 8192;
/// The registers at the entry; see [`Entry`](super::entry::Entry).
pub const ENTRY: u32 = 0x13_0000;
/// Memory for the test's variables; zero when the machine starts, kept over a reset.
pub const VARS: u32 = 0x13_1000;
/// Above the first processor's stack.
pub const STACKS: u32 = 0x14_0000;
/// Memory for the test, up to the end of RAM.
pub const DATA: u32 = 0x20_0000;
/// COM1's data register.
pub const COM1: u32 = 0x3f8;

const TRAMPOLINE: u32 = 0x8000;
const AP_COUNT: u32 = ENTRY + 0xf00;
const KERNEL_RSP: u32 = ENTRY + 0xf08;
const KERNEL_RIP: u32 = ENTRY + 0xf10;

const USER_DATA: i32 = 0x2b;
const USER_CODE: i32 = 0x33;
const TASK: u32 = 0x38;

/// A program under construction.
pub struct Guest {
    code: CodeAssembler,
    put_char: CodeLabel,
    put_text: CodeLabel,
    put_hex: CodeLabel,
    texts: Vec<(CodeLabel, String)>,
    gates: Vec<(u8, CodeLabel)>,
    other_processors: CodeLabel,
    has_other_processors: bool,
}

impl Deref for Guest {
    type Target = CodeAssembler;

    fn deref(&self) -> &CodeAssembler {
        &self.code
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.code
    }
}

impl Guest {
    /// A program that got as far as 64-bit mode, with interrupts off.
    pub fn new() -> Result<Self> {
        let mut code = CodeAssembler::new(64)?;
        let mut label = || code.create_label();
        let (put_char, put_text, put_hex, other_processors) = (label(), label(), label(), label());
        let mut guest = Self {
            code,
            put_char,
            put_text,
            put_hex,
            texts: Vec::new(),
            gates: Vec::new(),
            other_processors,
            has_other_processors: false,
        };
        guest.begin()?;
        Ok(guest)
    }

    fn begin(&mut self) -> Result {
        let mut idt_pointer = self.create_label();
        let mut boot_processor = self.create_label();
        let other_processors = self.other_processors;
        self.lidt(fword_ptr(idt_pointer))?;
        self.test(ebp, ebp)?;
        self.jz(boot_processor)?;
        self.mov(eax, 1)?;
        self.lock().xadd(dword_ptr(AP_COUNT), eax)?;
        self.inc(eax)?;
        // The number of this processor stays in EDI.
        self.mov(edi, eax)?;
        self.shl(eax, 12)?;
        self.mov(esp, STACKS)?;
        self.sub(rsp, rax)?;
        self.jmp(other_processors)?;

        self.set_label(&mut idt_pointer)?;
        self.db(&0xfffu16.to_le_bytes())?;
        self.dq(&[ORIGIN + IDT])?;

        self.set_label(&mut boot_processor)?;
        self.mov(esp, STACKS)?;
        self.mov(dword_ptr(AP_COUNT), 0)?;
        // The stack for interrupts of user mode, and a map of ports that allows them all.
        self.mov(dword_ptr(TSS + 4), STACKS - 0x800)?;
        self.mov(word_ptr(TSS + 102), 104)?;
        self.mov(byte_ptr(TSS + TSS_LIMIT), 0xff)?;
        self.mov(eax, TASK)?;
        self.ltr(ax)?;
        Ok(())
    }

    /// Prints `text` on COM1.
    pub fn print(&mut self, text: &str) -> Result {
        let label = self.create_label();
        self.texts.push((label, text.to_owned()));
        let put_text = self.put_text;
        self.push(rsi)?;
        self.lea(rsi, ptr(label))?;
        self.call(put_text)?;
        self.pop(rsi)?;
        Ok(())
    }

    /// Prints the line `name=VALUE`, 16 hexadecimal digits, of a register.
    pub fn show(&mut self, name: &str, register: AsmRegister64) -> Result {
        let put_hex = self.put_hex;
        self.print(&format!("{name}="))?;
        self.push(rax)?;
        self.mov(rax, register)?;
        self.call(put_hex)?;
        self.pop(rax)?;
        self.print("\n")
    }

    /// Prints the 8 bytes at a guest address as [`show`](Self::show) does.
    pub fn show_memory(&mut self, name: &str, address: u32) -> Result {
        self.push(rbx)?;
        self.mov(rbx, qword_ptr(address))?;
        self.show(name, rbx)?;
        self.pop(rbx)?;
        Ok(())
    }

    /// Prints RCX words of 8 bytes at RSI, each as a line `name=VALUE`; RSI and RCX change.
    pub fn dump(&mut self, name: &str) -> Result {
        let (mut next, mut done) = (self.create_label(), self.create_label());
        self.push(rbx)?;
        self.set_label(&mut next)?;
        self.dec(rcx)?;
        self.js(done)?;
        self.mov(rbx, qword_ptr(rsi))?;
        self.show(name, rbx)?;
        self.add(rsi, 8)?;
        self.jmp(next)?;
        self.set_label(&mut done)?;
        self.pop(rbx)?;
        Ok(())
    }

    /// Prints the line `name=TEXT` of the text at RSI, which ends with a NUL.
    pub fn show_text(&mut self, name: &str) -> Result {
        let put_text = self.put_text;
        self.print(&format!("{name}="))?;
        self.call(put_text)?;
        self.print("\n")
    }

    /// Writes an immediate byte to a port.
    pub fn outb(&mut self, port: u32, value: u32) -> Result {
        self.mov(edx, port)?;
        self.mov(eax, value)?;
        self.out(dx, al)?;
        Ok(())
    }

    /// Reads a byte from a port into AL, the rest of RAX being zero.
    pub fn inb(&mut self, port: u32) -> Result {
        self.mov(edx, port)?;
        self.xor(eax, eax)?;
        self.in_(al, dx)?;
        Ok(())
    }

    /// Loops: emits `body`, which counts nothing itself, `count` times at run time. ECX counts.
    pub fn times(&mut self, count: u32, body: impl FnOnce(&mut Self) -> Result) -> Result {
        let mut again = self.create_label();
        self.mov(ecx, count)?;
        self.set_label(&mut again)?;
        body(self)?;
        self.dec(ecx)?;
        self.jnz(again)?;
        Ok(())
    }

    /// Halts for good: no interrupt wakes the processor.
    pub fn halt(&mut self) -> Result {
        let mut again = self.create_label();
        self.cli()?;
        self.set_label(&mut again)?;
        self.hlt()?;
        self.jmp(again)?;
        Ok(())
    }

    /// Stays here, running.
    pub fn spin(&mut self) -> Result {
        let mut again = self.create_label();
        self.nop()?;
        self.set_label(&mut again)?;
        self.jmp(again)?;
        Ok(())
    }

    /// Ends in a triple fault.
    pub fn triple_fault(&mut self) -> Result {
        let mut nothing = self.create_label();
        let mut end = self.create_label();
        self.jmp(end)?;
        self.set_label(&mut nothing)?;
        self.db(&[0; 10])?;
        self.set_label(&mut end)?;
        self.lidt(fword_ptr(nothing))?;
        self.ud2()?;
        Ok(())
    }

    /// Makes `handler` the handler of an interrupt or exception.
    pub fn on_interrupt(&mut self, vector: u8, handler: CodeLabel) {
        self.gates.push((vector, handler));
    }

    /// What the processors but the first run once they are started, each on a stack of its own
    /// and with its number from 1 on in EDI. To be called where the first processor does not come.
    pub fn other_processors(&mut self, body: impl FnOnce(&mut Self) -> Result) -> Result {
        let mut label = self.other_processors;
        self.set_label(&mut label)?;
        self.nop()?;
        self.has_other_processors = true;
        body(self)
    }

    /// Starts all other processors with INIT and SIPI.
    pub fn start_processors(&mut self) -> Result {
        const ICR: u32 = 0xfee0_0300;
        const ALL_BUT_SELF: u32 = 0b11 << 18;
        self.cld()?;
        self.mov(esi, (ORIGIN + TRAMPOLINE_CODE) as u32)?;
        self.mov(edi, TRAMPOLINE)?;
        self.mov(ecx, 0x100)?;
        self.rep().movsb()?;
        // The local APIC is enabled by its spurious vector register.
        self.mov(eax, 0xfee0_00f0u32)?;
        self.mov(dword_ptr(rax), 0x1ff)?;
        self.mov(eax, ICR)?;
        self.mov(dword_ptr(rax), ALL_BUT_SELF | 0x4500)?;
        self.mov(dword_ptr(rax), ALL_BUT_SELF | 0x4600 | TRAMPOLINE >> 12)?;
        Ok(())
    }

    /// Runs `body` in user mode, with all ports allowed, and comes back by INT3; interrupts are
    /// off. RCX is lost. For the first processor only.
    pub fn in_user_mode(&mut self, body: impl FnOnce(&mut Self) -> Result) -> Result {
        let (mut user, mut back) = (self.create_label(), self.create_label());
        self.lea(rcx, ptr(back))?;
        self.mov(qword_ptr(KERNEL_RIP), rcx)?;
        self.mov(qword_ptr(KERNEL_RSP), rsp)?;
        self.mov(rcx, rsp)?;
        self.push(USER_DATA)?;
        self.push(rcx)?;
        // I/O privilege for user mode, beside the task's map of ports: a KVM that runs user code
        // natively only knows the map, and a software-emulated SVM forgets it once TR is restored.
        self.push(0x3002)?;
        self.push(USER_CODE)?;
        self.lea(rcx, ptr(user))?;
        self.push(rcx)?;
        self.iretq()?;
        self.set_label(&mut user)?;
        self.nop()?;
        body(self)?;
        self.int3()?;
        self.set_label(&mut back)?;
        self.mov(rsp, qword_ptr(KERNEL_RSP))?;
        Ok(())
    }

    /// The program as it lies in memory at [`ORIGIN`].
    pub fn assemble(mut self) -> Result<Vec<u8>> {
        self.halt()?;
        if !self.has_other_processors {
            self.other_processors(Self::halt)?;
        }
        self.exception_handlers()?;
        self.printing()?;
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let result = self.code.assemble_options(ORIGIN + CODE, options)?;
        let mut program = entry::around()?;
        let mut idt = [0u64; 512];
        for (vector, label) in &self.gates {
            let handler = result.label_ip(label)?;
            let gate = (handler & 0xffff)
                | u64::from(CODE_64) << 16
                | 0xee00 << 32
                | (handler >> 16 & 0xffff) << 48;
            idt[usize::from(*vector) * 2] = gate;
            idt[usize::from(*vector) * 2 + 1] = handler >> 32;
        }
        program.put(IDT, &words(&idt))?;
        program.put(CODE, &result.inner.code_buffer)?;
        Ok(program.bytes)
    }

    /// Exceptions nobody handles are told on COM1 and end the run there.
    fn exception_handlers(&mut self) -> Result {
        // The way out of user mode.
        let mut leave = self.create_label();
        self.set_label(&mut leave)?;
        self.jmp(qword_ptr(KERNEL_RIP))?;
        self.gates.push((3, leave));
        let mut common = self.create_label();
        for vector in 0..32u8 {
            if self.gates.iter().any(|(taken, _)| *taken == vector) {
                continue;
            }
            let mut stub = self.create_label();
            self.set_label(&mut stub)?;
            self.push(i32::from(vector))?;
            self.jmp(common)?;
            self.gates.push((vector, stub));
        }
        self.set_label(&mut common)?;
        self.print("\nEXCEPTION\n")?;
        self.pop(rax)?;
        self.show("vector", rax)?;
        for name in ["stack0", "stack1", "stack2", "stack3"] {
            self.pop(rax)?;
            self.show(name, rax)?;
        }
        self.mov(rax, cr2)?;
        self.show("cr2", rax)?;
        self.halt()
    }

    /// Subroutines that keep all registers: the character AL, the text at RSI, the number RAX.
    fn printing(&mut self) -> Result {
        let (mut put_char, mut put_text, mut put_hex) =
            (self.put_char, self.put_text, self.put_hex);
        let mut wait = self.create_label();
        self.set_label(&mut put_char)?;
        self.push(rax)?;
        self.push(rdx)?;
        self.mov(edx, COM1 + 5)?;
        self.set_label(&mut wait)?;
        self.in_(al, dx)?;
        self.test(al, 0x20)?;
        self.jz(wait)?;
        self.mov(edx, COM1)?;
        self.mov(rax, qword_ptr(rsp + 8))?;
        self.out(dx, al)?;
        self.pop(rdx)?;
        self.pop(rax)?;
        self.ret()?;

        let (mut next, mut done) = (self.create_label(), self.create_label());
        self.set_label(&mut put_text)?;
        self.push(rax)?;
        self.push(rsi)?;
        self.set_label(&mut next)?;
        self.mov(al, byte_ptr(rsi))?;
        self.test(al, al)?;
        self.jz(done)?;
        self.call(put_char)?;
        self.inc(rsi)?;
        self.jmp(next)?;
        self.set_label(&mut done)?;
        self.pop(rsi)?;
        self.pop(rax)?;
        self.ret()?;

        let (mut digit, mut decimal) = (self.create_label(), self.create_label());
        self.set_label(&mut put_hex)?;
        self.push(rax)?;
        self.push(rbx)?;
        self.push(rcx)?;
        self.mov(rbx, rax)?;
        self.mov(ecx, 16)?;
        self.set_label(&mut digit)?;
        self.rol(rbx, 4)?;
        self.mov(eax, ebx)?;
        self.and(eax, 15)?;
        self.cmp(eax, 10)?;
        self.jb(decimal)?;
        self.add(eax, i32::from(b'a' - b'0' - 10))?;
        self.set_label(&mut decimal)?;
        self.add(eax, i32::from(b'0'))?;
        self.call(put_char)?;
        self.dec(ecx)?;
        self.jnz(digit)?;
        self.pop(rcx)?;
        self.pop(rbx)?;
        self.pop(rax)?;
        self.ret()?;

        for (mut label, text) in std::mem::take(&mut self.texts) {
            self.set_label(&mut label)?;
            let mut bytes = text.into_bytes();
            bytes.push(0);
            for part in bytes.chunks(16) {
                self.db(part)?;
            }
        }
        Ok(())
    }
}
