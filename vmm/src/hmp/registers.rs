//! The registers that expressions can name.
//!
//! Main thread; asks the vCPU's thread once for each line that names one. The values are the
//! guest's.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use crate::vm::Vm;

/// Reads registers of one processor, as they are when the first is asked for.
pub(super) struct Reader<'a> {
    vm: &'a Vm,
    cpu: usize,
    known: Option<(kvm_regs, kvm_sregs)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(vm: &'a Vm, cpu: usize) -> Reader<'a> {
        Reader { vm, cpu, known: None }
    }

    /// The value of a register.
    pub(super) fn read(&mut self, name: &str) -> Result<u64, String> {
        if !is_register(name) {
            return Err("unknown register".to_owned());
        }
        let (regs, sregs) = match self.known {
            Some(known) => known,
            None => *self.known.insert(self.ask()?),
        };
        value(name, &regs, &sregs).ok_or_else(|| "unknown register".to_owned())
    }

    fn ask(&self) -> Result<(kvm_regs, kvm_sregs), String> {
        let vcpu = self.vm.vcpu(self.cpu).ok_or("no CPU defined")?;
        vcpu.call(|vcpu| Ok((vcpu.fd.get_regs()?, vcpu.fd.get_sregs()?)))
            .map_err(|gone| gone.to_string())?
            .map_err(|error: kvm_ioctls::Error| error.to_string())
    }
}

fn is_register(name: &str) -> bool {
    value(name, &kvm_regs::default(), &kvm_sregs::default()).is_some()
}

fn value(name: &str, regs: &kvm_regs, sregs: &kvm_sregs) -> Option<u64> {
    if let Some((segment, part)) = name.split_once('.') {
        let segment = segment_of(segment, sregs)?;
        return match part {
            "base" => Some(segment.base),
            "limit" => Some(segment.limit.into()),
            _ => None,
        };
    }
    if let Some(segment) = segment_of(name, sregs) {
        return Some(segment.selector.into());
    }
    Some(match name {
        "eax" => regs.rax,
        "ecx" => regs.rcx,
        "edx" => regs.rdx,
        "ebx" => regs.rbx,
        "esp" | "sp" => regs.rsp,
        "ebp" | "fp" => regs.rbp,
        "esi" => regs.rsi,
        "edi" => regs.rdi,
        "r8" => regs.r8,
        "r9" => regs.r9,
        "r10" => regs.r10,
        "r11" => regs.r11,
        "r12" => regs.r12,
        "r13" => regs.r13,
        "r14" => regs.r14,
        "r15" => regs.r15,
        "eflags" => regs.rflags,
        "eip" => regs.rip,
        "pc" => sregs.cs.base.wrapping_add(regs.rip),
        _ => return None,
    })
}

fn segment_of(name: &str, sregs: &kvm_sregs) -> Option<kvm_segment> {
    Some(match name {
        "cs" => sregs.cs,
        "ds" => sregs.ds,
        "es" => sregs.es,
        "ss" => sregs.ss,
        "fs" => sregs.fs,
        "gs" => sregs.gs,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_their_names() {
        let mut regs = kvm_regs { rax: 1, rsp: 2, r15: 3, rip: 0x10, ..kvm_regs::default() };
        regs.rbp = 4;
        let mut sregs = kvm_sregs::default();
        sregs.cs.base = 0x100;
        sregs.fs.selector = 0x23;
        sregs.gs.limit = 0xfff;
        for (name, expected) in [
            ("eax", Some(1)),
            ("esp", Some(2)),
            ("sp", Some(2)),
            ("fp", Some(4)),
            ("r15", Some(3)),
            ("eip", Some(0x10)),
            ("pc", Some(0x110)),
            ("cs.base", Some(0x100)),
            ("fs", Some(0x23)),
            ("gs.limit", Some(0xfff)),
            ("gs.selector", None),
            ("rax", None),
            ("", None),
        ] {
            assert_eq!(value(name, &regs, &sregs), expected, "{name}");
        }
    }
}
