//! A look at a vCPU's local APIC (Intel SDM volume 3, chapter 13), for people.
//!
//! Taken on the vCPU's thread ([`Lapic::capture`]), shown on the main thread. What is shown is the
//! guest's; every value of it is a number.

use std::fmt::Write as _;

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::VcpuFd;

use super::state::{MSR_TSC, MSR_TSC_DEADLINE, StateError, get_msrs};

/// Offsets of registers.
const ID: usize = 0x20;
const VERSION: usize = 0x30;
const TPR: usize = 0x80;
const PPR: usize = 0xa0;
const LDR: usize = 0xd0;
const DFR: usize = 0xe0;
const SPURIOUS: usize = 0xf0;
const ISR: usize = 0x100;
const TMR: usize = 0x180;
const IRR: usize = 0x200;
const ERROR: usize = 0x280;
const ICR_LOW: usize = 0x300;
const ICR_HIGH: usize = 0x310;
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

/// The entries of the local vector table.
const LVT: [(&str, usize); 6] = [
    ("timer", LVT_TIMER),
    ("thermal", 0x330),
    ("perfmon", 0x340),
    ("lint0", 0x350),
    ("lint1", 0x360),
    ("error", 0x370),
];

const MASKED: u32 = 1 << 16;

/// The registers of a local APIC, and what its timer is compared with.
#[derive(Debug, Clone)]
pub struct Lapic {
    registers: kvm_lapic_state,
    tsc: Option<u64>,
    deadline: Option<u64>,
}

impl Lapic {
    /// Reads them; on the vCPU's thread.
    ///
    /// # Errors
    /// When KVM refuses a call.
    pub fn capture(vcpu: &VcpuFd) -> Result<Lapic, StateError> {
        let registers = vcpu.get_lapic().map_err(StateError::kvm("KVM_GET_LAPIC"))?;
        let msrs = get_msrs(vcpu, &[MSR_TSC, MSR_TSC_DEADLINE])?;
        let find = |index| msrs.iter().find(|msr| msr.0 == index).map(|msr| msr.1);
        Ok(Lapic { registers, tsc: find(MSR_TSC), deadline: find(MSR_TSC_DEADLINE) })
    }

    fn register(&self, offset: usize) -> u32 {
        let bytes = self.registers.regs.iter().skip(offset).take(4);
        let bytes = bytes.map(|byte| u32::from(byte.cast_unsigned()));
        bytes.rev().fold(0, |value, byte| value << 8 | byte)
    }

    /// The vectors whose bits are set in the eight registers from `offset` on.
    fn vectors(&self, offset: usize) -> String {
        let is_set = |vector: &usize| {
            self.register(offset + vector / 32 * 16).checked_shr(*vector as u32 % 32).unwrap_or(0)
                & 1
                != 0
        };
        let all: Vec<_> = (0..256).filter(is_set).map(|vector| vector.to_string()).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(" ") }
    }

    /// The registers as a table.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let plain = [("ID", ID), ("version", VERSION), ("TPR", TPR), ("PPR", PPR), ("LDR", LDR)];
        let rest = [("DFR", DFR), ("SPIV", SPURIOUS), ("ESR", ERROR)];
        for (name, offset) in plain.into_iter().chain(rest) {
            let _ = write!(text, "{name}={:08x} ", self.register(offset));
        }
        let _ = writeln!(text, "ICR={:08x}{:08x}", self.register(ICR_HIGH), self.register(ICR_LOW));
        for (name, offset) in [("ISR", ISR), ("IRR", IRR), ("TMR", TMR)] {
            let _ = writeln!(text, "{name}  {}", self.vectors(offset));
        }
        for (name, offset) in LVT {
            let entry = self.register(offset);
            let masked = if entry & MASKED == 0 { "" } else { " masked" };
            let _ = writeln!(text, "LVT {name:<8}{entry:08x} vector {}{masked}", entry & 0xff);
        }
        let mode = match self.register(LVT_TIMER) >> 17 & 3 {
            0 => "one-shot",
            1 => "periodic",
            2 => "TSC deadline",
            _ => "unknown mode",
        };
        let _ = writeln!(
            text,
            "timer {mode}, divide {:x}, initial count {}, current count {}, TSC {}, deadline {}",
            self.register(DIVIDE),
            self.register(INITIAL_COUNT),
            self.register(CURRENT_COUNT),
            known(self.tsc),
            known(self.deadline),
        );
        text
    }
}

fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_modes_and_counts_are_shown() {
        let mut lapic =
            Lapic { registers: kvm_lapic_state::default(), tsc: Some(7), deadline: None };
        let mut set = |offset: usize, value: u32| {
            for (index, byte) in value.to_le_bytes().into_iter().enumerate() {
                lapic.registers.regs[offset + index] = byte.cast_signed();
            }
        };
        set(ID, 0x0300_0000);
        set(IRR + 7 * 16, 1 << 12);
        set(ISR + 16, 1 << 1 | 1 << 31);
        set(LVT_TIMER, 2 << 17 | 236);
        set(INITIAL_COUNT, 1000);
        let text = lapic.text();
        for part in [
            "ID=03000000 ",
            "\nISR  33 63\n",
            "\nIRR  236\n",
            "\nTMR  none\n",
            "\nLVT timer   000400ec vector 236\n",
            "\ntimer TSC deadline, divide 0, initial count 1000, current count 0, TSC 7, deadline \
             unknown\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
