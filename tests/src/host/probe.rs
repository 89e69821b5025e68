//! What this machine's KVM can do: nothing, small guests, or Linux.
//!
//! A kernel's first instructions tell: a KVM that emulates supervisor code has no `int3` and no
//! `xsave` in ring 0 and ends `KVM_RUN` with an internal error there. Since such a KVM can also
//! hang, the guest runs in a child process with a time limit.
#![expect(unsafe_code)] // Maps the guest's memory and hands it to KVM.

use std::process::{Command, Stdio};
use std::time::Duration;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::rig::Result;
use crate::rig::process::{die_with_parent, wait_for_exit};
use crate::workspace::THIS_PROGRAM;

/// What every KVM answers since 2007.
const API_VERSION: i32 = 12;
const LIMIT: Duration = Duration::from_secs(20);

/// What the machine's KVM can run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Native {
    /// There is no usable /dev/kvm.
    Nothing,
    /// Guests of our own making.
    Tiny,
    /// Linux too.
    Linux,
}

/// Finds out, in a child process; the text says why.
pub fn probe() -> Result<(Native, String)> {
    match Kvm::new() {
        Ok(kvm) if kvm.get_api_version() == API_VERSION => {}
        Ok(_) => return Ok((Native::Nothing, "/dev/kvm is something else".to_owned())),
        Err(error) => return Ok((Native::Nothing, format!("no /dev/kvm: {error}"))),
    }
    let mut command = Command::new(THIS_PROGRAM);
    command.arg("probe-kvm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = die_with_parent(&mut command).spawn()?;
    let Some(status) = wait_for_exit(&mut child, LIMIT)? else {
        child.kill()?;
        child.wait()?;
        return Ok((Native::Tiny, "/dev/kvm hangs on supervisor instructions".to_owned()));
    };
    if status.success() {
        return Ok((Native::Linux, "/dev/kvm boots Linux".to_owned()));
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said)?;
    }
    Ok((Native::Tiny, format!("/dev/kvm does not boot Linux: {}", said.trim())))
}

const MEMORY: usize = 0x10000;
const CODE: u16 = 0x1000;
const HANDLER: u16 = 0x1100;
const STACK: u64 = 0x3000;
const PML4: u16 = 0x4000;
const PDPT: u16 = 0x5000;
const DIRECTORY: u16 = 0x6000;
const IDT: u16 = 0x7000;
const GDT: u16 = 0x8000;
const PORT: u16 = 0xf4;
const DONE: u8 = 0x2a;

/// 64-bit code: `int3; mov eax, 3; xor edx, edx; xsave [0x9000]; mov al, DONE; out PORT, al; hlt`.
const GUEST: [u8; 22] = [
    0xcc, 0xb8, 3, 0, 0, 0, 0x31, 0xd2, 0x0f, 0xae, 0x24, 0x25, 0x00, 0x90, 0, 0, 0xb0, DONE, 0xe6,
    0xf4, 0xf4, 0xf4,
];

/// The child's part: runs the guest; an error says what this KVM could not do.
pub fn run_probe_guest() -> Result {
    let mut image = vec![0; MEMORY];
    let mut put = |at: u16, bytes: &[u8]| {
        let at = usize::from(at);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(CODE, &GUEST);
    put(HANDLER, &[0x48, 0xcf]); // iretq
    // The first 2 MiB mapped to themselves: present, writable, and a large page at the end.
    put(PML4, &(u64::from(PDPT) | 3).to_le_bytes());
    put(PDPT, &(u64::from(DIRECTORY) | 3).to_le_bytes());
    put(DIRECTORY, &0x83_u64.to_le_bytes());
    put(GDT + 8, &0x00af_9b00_0000_ffff_u64.to_le_bytes()); // 64-bit code
    put(GDT + 16, &0x00cf_9300_0000_ffff_u64.to_le_bytes()); // data
    // Vector 3: a present interrupt gate to HANDLER by the code segment.
    let gate = u64::from(HANDLER) | 8 << 16 | 0x8e00 << 32;
    put(IDT + 3 * 16, &gate.to_le_bytes());

    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    // SAFETY: a new private mapping at a place the kernel chooses.
    let memory = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            MEMORY,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?
    };
    // SAFETY: the mapping is MEMORY bytes long, as the image is, and nothing else knows it yet.
    unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), memory.cast(), MEMORY) };
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: u64::try_from(MEMORY)?,
        userspace_addr: u64::try_from(memory.addr())?,
    };
    // SAFETY: the mapping stays until the process ends.
    unsafe { vm.set_user_memory_region(region)? };

    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let mut sregs = vcpu.get_sregs()?;
    let code = kvm_segment {
        limit: u32::MAX,
        selector: 8,
        type_: 11,
        present: 1,
        l: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: 16, type_: 3, l: 0, db: 1, ..code };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (GDT.into(), 23);
    (sregs.idt.base, sregs.idt.limit) = (IDT.into(), 4 * 16 - 1);
    sregs.cr3 = PML4.into();
    sregs.cr0 = 0x8000_0033; // PG, NE, ET, MP, PE
    sregs.cr4 = 0x4_0620; // OSXSAVE, OSXMMEXCPT, OSFXSR, PAE
    sregs.efer = 0x500; // LMA, LME
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rsp, regs.rflags) = (CODE.into(), STACK, 2);
    vcpu.set_regs(&regs)?;
    match vcpu.run()? {
        VcpuExit::IoOut(PORT, [DONE]) => Ok(()),
        exit => Err(format!("int3 and xsave in ring 0 end in {exit:?}").into()),
    }
}
