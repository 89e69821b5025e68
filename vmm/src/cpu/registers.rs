//! A look at a vCPU's registers, for commands that show them or translate by them.
//!
//! Taken on the vCPU's thread ([`Registers::capture`]), used on the main thread. It says how things
//! stood: unless the machine is stopped the guest has gone on since.

use std::fmt::Write as _;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, kvm_debugregs, kvm_dtable, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::VcpuFd;

use super::paging::{CR0_PE, EFER_LMA};

/// The flag that brings virtual 8086 mode.
const RFLAGS_VM: u64 = 1 << 17;

/// The letters of the arithmetic flags and of the direction flag, and their bits.
const FLAGS: [(char, u32); 7] =
    [('D', 10), ('O', 11), ('S', 7), ('Z', 6), ('A', 4), ('P', 2), ('C', 0)];

/// The registers of a vCPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Registers {
    /// General registers.
    pub regs: kvm_regs,
    /// Segments and control registers.
    pub sregs: kvm_sregs,
    /// x87 and SSE.
    pub fpu: kvm_fpu,
    /// Breakpoints.
    pub debug: kvm_debugregs,
    /// Waits for an interrupt.
    pub halted: bool,
    /// The next instruction runs before any interrupt (after `sti`, `mov ss`).
    pub interrupts_inhibited: bool,
    /// In system management mode.
    pub smm: bool,
}

impl Registers {
    /// Reads them; on the vCPU's thread.
    ///
    /// # Errors
    /// When KVM refuses a call.
    pub fn capture(vcpu: &VcpuFd) -> Result<Registers, kvm_ioctls::Error> {
        // First, because it lets a pending INIT or SIPI take effect.
        let halted = vcpu.get_mp_state()?.mp_state == KVM_MP_STATE_HALTED;
        let events = vcpu.get_vcpu_events()?;
        Ok(Registers {
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            fpu: vcpu.get_fpu()?,
            debug: vcpu.get_debug_regs()?,
            halted,
            interrupts_inhibited: events.interrupt.shadow != 0,
            smm: events.smi.smm != 0,
        })
    }

    /// Whether long mode is active, in its 64-bit form or as compatibility mode.
    pub fn long_mode(&self) -> bool {
        self.sregs.efer & EFER_LMA != 0
    }

    /// Whether the code segment is one of 64 bits.
    pub fn is_64_bit(&self) -> bool {
        self.long_mode() && self.sregs.cs.l != 0
    }

    /// How many bits instructions have by default: 16, 32 or 64.
    pub fn code_bits(&self) -> u32 {
        match self.sregs.cs.db {
            _ if self.is_64_bit() => 64,
            0 => 16,
            _ => 32,
        }
    }

    /// The linear address of the next instruction.
    pub fn pc(&self) -> u64 {
        self.sregs.cs.base.wrapping_add(self.regs.rip)
    }

    fn protected(&self) -> bool {
        self.sregs.cr0 & CR0_PE != 0
    }

    fn privilege(&self) -> u8 {
        match self.protected() {
            false => 0,
            true if self.regs.rflags & RFLAGS_VM != 0 => 3,
            true => self.sregs.ss.dpl,
        }
    }

    /// The text of `info registers`, in lines that clients parse.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let (r, s, wide) = (&self.regs, &self.sregs, self.is_64_bit());
        if wide {
            let rows = [
                [("RAX", r.rax), ("RBX", r.rbx), ("RCX", r.rcx), ("RDX", r.rdx)],
                [("RSI", r.rsi), ("RDI", r.rdi), ("RBP", r.rbp), ("RSP", r.rsp)],
                [("R8 ", r.r8), ("R9 ", r.r9), ("R10", r.r10), ("R11", r.r11)],
                [("R12", r.r12), ("R13", r.r13), ("R14", r.r14), ("R15", r.r15)],
            ];
            rows.into_iter().try_for_each(|row| line(text, row, 16))?;
            write!(text, "RIP={:016x} RFL={:08x} ", r.rip, r.rflags as u32)?;
        } else {
            let rows = [
                [("EAX", r.rax), ("EBX", r.rbx), ("ECX", r.rcx), ("EDX", r.rdx)],
                [("ESI", r.rsi), ("EDI", r.rdi), ("EBP", r.rbp), ("ESP", r.rsp)],
            ];
            rows.into_iter().try_for_each(|row| line(text, row, 8))?;
            write!(text, "EIP={:08x} EFL={:08x} ", r.rip as u32, r.rflags as u32)?;
        }
        let flags = FLAGS.map(|(letter, bit)| if r.rflags >> bit & 1 != 0 { letter } else { '-' });
        writeln!(
            text,
            "[{}] CPL={} II={} A20=1 SMM={} HLT={}",
            String::from_iter(flags),
            self.privilege(),
            u8::from(self.interrupts_inhibited),
            u8::from(self.smm),
            u8::from(self.halted),
        )?;
        for (name, segment) in [
            ("ES ", &s.es),
            ("CS ", &s.cs),
            ("SS ", &s.ss),
            ("DS ", &s.ds),
            ("FS ", &s.fs),
            ("GS ", &s.gs),
            ("LDT", &s.ldt),
            ("TR ", &s.tr),
        ] {
            self.write_segment(text, name, segment)?;
        }
        let digits = if wide { 16 } else { 8 };
        let address = |value: u64| if wide { value } else { value & 0xffff_ffff };
        for (name, table) in [("GDT", &s.gdt), ("IDT", &s.idt)] {
            let kvm_dtable { base, limit, .. } = *table;
            writeln!(text, "{name}=     {:0digits$x} {limit:08x}", address(base))?;
        }
        writeln!(
            text,
            "CR0={:08x} CR2={:0digits$x} CR3={:0digits$x} CR4={:08x}",
            s.cr0 as u32,
            address(s.cr2),
            address(s.cr3),
            s.cr4 as u32
        )?;
        for (index, value) in self.debug.db.iter().enumerate() {
            write!(text, "DR{index}={:0digits$x} ", address(*value))?;
        }
        let (dr6, dr7) = (address(self.debug.dr6), address(self.debug.dr7));
        writeln!(text, "\nDR6={dr6:0digits$x} DR7={dr7:0digits$x}")?;
        writeln!(text, "EFER={:016x}", s.efer)?;
        self.write_fpu(text, if wide { 16 } else { 8 })
    }

    fn write_segment(&self, text: &mut String, name: &str, s: &kvm_segment) -> std::fmt::Result {
        write!(text, "{name}={:04x} ", s.selector)?;
        match self.is_64_bit() {
            true => write!(text, "{:016x}", s.base)?,
            false => write!(text, "{:08x}", s.base as u32)?,
        }
        write!(text, " {:08x} {:08x}", s.limit, attributes(s))?;
        if !self.protected() || attributes(s) & PRESENT == 0 {
            return writeln!(text);
        }
        write!(text, " DPL={} ", s.dpl)?;
        let bit = |bit: u8, letter: char| if s.type_ & bit != 0 { letter } else { '-' };
        if s.s == 0 {
            let kinds = if self.long_mode() { SYSTEM_64 } else { SYSTEM_32 };
            return writeln!(text, "{}", kinds.get(usize::from(s.type_)).unwrap_or(&RESERVED));
        }
        if s.type_ & CODE != 0 {
            let size = match (s.l, s.db) {
                (0, 0) => "CS16",
                (0, _) => "CS32",
                _ => "CS64",
            };
            write!(text, "{size} [{}{}", bit(4, 'C'), bit(2, 'R'))?;
        } else {
            let size = if s.db != 0 || self.long_mode() { "DS  " } else { "DS16" };
            write!(text, "{size} [{}{}", bit(4, 'E'), bit(2, 'W'))?;
        }
        writeln!(text, "{}]", bit(1, 'A'))
    }

    fn write_fpu(&self, text: &mut String, xmm: usize) -> std::fmt::Result {
        let f = &self.fpu;
        writeln!(
            text,
            "FCW={:04x} FSW={:04x} [ST={}] FTW={:02x} MXCSR={:08x}",
            f.fcw,
            f.fsw,
            f.fsw >> 11 & 7,
            f.ftwx,
            f.mxcsr
        )?;
        let end = |index: usize| if index % 2 == 1 { '\n' } else { ' ' };
        for (index, bytes) in f.fpr.iter().enumerate() {
            let value = u128::from_le_bytes(*bytes);
            write!(text, "FPR{index}={:016x} {:04x}", value as u64, (value >> 64) as u16)?;
            text.push(end(index));
        }
        for (index, bytes) in f.xmm.iter().enumerate().take(xmm) {
            write!(text, "XMM{index:02}={:032x}", u128::from_le_bytes(*bytes))?;
            text.push(end(index));
        }
        Ok(())
    }
}

fn line(text: &mut String, row: [(&str, u64); 4], digits: usize) -> std::fmt::Result {
    for (index, (name, value)) in row.into_iter().enumerate() {
        let value = if digits == 8 { value & 0xffff_ffff } else { value };
        let gap = if index == 0 { "" } else { " " };
        write!(text, "{gap}{name}={value:0digits$x}")?;
    }
    writeln!(text)
}

/// The present bit in [`attributes`].
const PRESENT: u32 = 1 << 15;
/// In a segment's type: code, not data.
const CODE: u8 = 8;

/// A segment's attributes where the upper half of a descriptor has them (SDM volume 3, 3.4.5): type
/// from bit 8, then S, DPL, P, AVL, L, D/B and G. Those of an unusable segment are 0.
pub fn attributes(s: &kvm_segment) -> u32 {
    if s.unusable != 0 {
        return 0;
    }
    let bit = |value: u8, at: u32| u32::from(value & 1) << at;
    u32::from(s.type_ & 15) << 8
        | bit(s.s, 12)
        | u32::from(s.dpl & 3) << 13
        | bit(s.present, 15)
        | bit(s.avl, 20)
        | bit(s.l, 21)
        | bit(s.db, 22)
        | bit(s.g, 23)
}

const RESERVED: &str = "Reserved";

/// System segments by type, outside long mode (SDM volume 3, table 3-2).
const SYSTEM_32: [&str; 16] = [
    RESERVED,
    "TSS16-avl",
    "LDT",
    "TSS16-busy",
    "CallGate16",
    "TaskGate",
    "IntGate16",
    "TrapGate16",
    RESERVED,
    "TSS32-avl",
    RESERVED,
    "TSS32-busy",
    "CallGate32",
    RESERVED,
    "IntGate32",
    "TrapGate32",
];

/// The same in long mode.
const SYSTEM_64: [&str; 16] = [
    "<hiword>",
    RESERVED,
    "LDT",
    RESERVED,
    RESERVED,
    RESERVED,
    RESERVED,
    RESERVED,
    RESERVED,
    "TSS64-avl",
    RESERVED,
    "TSS64-busy",
    "CallGate64",
    RESERVED,
    "IntGate64",
    "TrapGate64",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(selector: u16, type_: u8, s: u8, l: u8, db: u8) -> kvm_segment {
        let limit = 0xffff_ffff;
        kvm_segment { selector, limit, type_, s, l, db, present: 1, g: 1, ..Default::default() }
    }

    /// A kernel in 64-bit mode.
    pub(crate) fn long() -> Registers {
        let data = segment(0, 3, 1, 0, 1);
        let mut fpu = kvm_fpu { fcw: 0x37f, fsw: 5 << 11, ftwx: 0x20, mxcsr: 0x1f80, ..default() };
        fpu.fpr[1][..10].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
        fpu.xmm[3] = 0x11223344_55667788_99aabbcc_ddeeff00u128.to_le_bytes();
        Registers {
            regs: kvm_regs {
                rax: 1,
                rsp: 0xffff_ffff_8200_3e90,
                r8: 8,
                r15: u64::MAX,
                rip: 0xffff_ffff_8100_0000,
                rflags: 0x246,
                ..default()
            },
            sregs: kvm_sregs {
                cs: segment(0x10, 0xb, 1, 1, 0),
                ss: segment(0x18, 3, 1, 0, 1),
                ds: data,
                es: kvm_segment { unusable: 1, ..data },
                tr: kvm_segment {
                    base: 0xfffffe0000003000,
                    limit: 0x4087,
                    g: 0,
                    ..segment(0x40, 0xb, 0, 0, 0)
                },
                ldt: kvm_segment { unusable: 1, ..default() },
                gdt: kvm_dtable { base: 0xfffffe0000001000, limit: 0x7f, ..default() },
                cr0: 0x8005_0033,
                cr2: 0x7f00_0000_1000,
                cr3: 0x2_0000_1000,
                cr4: 0x6f0,
                efer: 0xd01,
                ..default()
            },
            fpu,
            debug: kvm_debugregs { db: [0, 0, 0, 7], dr6: 0xffff_0ff0, dr7: 0x400, ..default() },
            halted: true,
            ..default()
        }
    }

    fn default<T: Default>() -> T {
        T::default()
    }

    #[test]
    fn registers_of_64_bits_are_laid_out_as_tools_parse_them() {
        let text = long().text();
        let lines: Vec<_> = text.lines().collect();
        let start = [
            "RAX=0000000000000001 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000",
            "RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=ffffffff82003e90",
            "R8 =0000000000000008 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000",
            "R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=ffffffffffffffff",
            "RIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1",
            "ES =0000 0000000000000000 ffffffff 00000000",
            "CS =0010 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]",
            "SS =0018 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]",
            "DS =0000 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]",
            "FS =0000 0000000000000000 00000000 00000000",
            "GS =0000 0000000000000000 00000000 00000000",
            "LDT=0000 0000000000000000 00000000 00000000",
            "TR =0040 fffffe0000003000 00004087 00008b00 DPL=0 TSS64-busy",
            "GDT=     fffffe0000001000 0000007f",
            "IDT=     0000000000000000 00000000",
            "CR0=80050033 CR2=00007f0000001000 CR3=0000000200001000 CR4=000006f0",
            "DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000007 ",
            "DR6=00000000ffff0ff0 DR7=0000000000000400",
            "EFER=0000000000000d01",
            "FCW=037f FSW=2800 [ST=5] FTW=20 MXCSR=00001f80",
            "FPR0=0000000000000000 0000 FPR1=8000000000000001 3fff",
        ];
        assert_eq!(lines[..start.len()], start);
        assert_eq!(lines.len(), start.len() + 3 + 8);
        let xmm = "XMM02=00000000000000000000000000000000 XMM03=112233445566778899aabbccddeeff00";
        assert_eq!(lines[start.len() + 4], xmm);
    }

    #[test]
    fn registers_of_32_and_16_bits_have_8_digits() {
        let mut registers = long();
        registers.sregs.efer = 0;
        registers.sregs.cs = segment(8, 0xb, 1, 0, 1);
        registers.sregs.ds.db = 0;
        registers.sregs.ss.dpl = 3;
        let text = registers.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "EAX=00000001 EBX=00000000 ECX=00000000 EDX=00000000");
        assert_eq!(lines[1], "ESI=00000000 EDI=00000000 EBP=00000000 ESP=82003e90");
        assert_eq!(lines[2], "EIP=81000000 EFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=1");
        assert_eq!(lines[4], "CS =0008 00000000 ffffffff 00c09b00 DPL=0 CS32 [-RA]");
        assert_eq!(lines[6], "DS =0000 00000000 ffffffff 00809300 DPL=0 DS16 [-WA]");
        assert_eq!(lines[10], "TR =0040 00003000 00004087 00008b00 DPL=0 TSS32-busy");
        assert_eq!(lines[13], "CR0=80050033 CR2=00001000 CR3=00001000 CR4=000006f0");
        assert_eq!(lines[14], "DR0=00000000 DR1=00000000 DR2=00000000 DR3=00000007 ");
        assert_eq!(lines.last().map(|line| &line[..6]), Some("XMM06="));
        assert_eq!((registers.code_bits(), long().code_bits()), (32, 64));

        registers.sregs.cr0 = 0;
        let text = registers.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[4], "CS =0008 00000000 ffffffff 00c09b00");
        assert!(lines[2].contains("CPL=0"));
    }
}
