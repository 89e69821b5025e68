//! How KVM tells what the guest has written.
//!
//! By a bitmap for each slot, which is copied. Where KVM offers it (manual protection), copying it
//! leaves the pages writable; only when one of them is about to be read it is protected again, with
//! those around it, so that what the guest writes until then costs neither a fault nor a second
//! copy. Or, if the user wants that, by a ring of each vCPU into which KVM puts the pages; when it
//! is full the vCPU has to empty it before it can go on.
//!
//! Whatever was taken from KVM is in the caller's bitmap, or in [`Rings::written`], before KVM
//! forgets it, and KVM notes the next write to a page before the page is read.
//!
//! Any thread; each kind has a leaf lock. KVM writes the rings, the guest does not reach them.
#![expect(unsafe_code, reason = "KVM is given bitmaps by address, and shares its rings")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{
    KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_DIRTY_LOG_PAGE_OFFSET, KVMIO, kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1,
    kvm_dirty_gfn, kvm_enable_cap,
};
use kvm_ioctls::{VcpuFd, VmFd};
use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iowr_nr};

use super::{KvmError, failed};
use crate::hv::HvError;
use crate::ram::PAGE;

ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVMIO, 0xc0, kvm_clear_dirty_log);
ioctl_io_nr!(KVM_RESET_DIRTY_RINGS, KVMIO, 0xc7);

/// An entry of a ring that KVM has filled, and one that was taken.
const DIRTY: u32 = 1;
const TAKEN: u32 = 2;

/// How it is told.
pub(super) enum Log {
    /// Taking a slot's bitmap empties it.
    Plain,
    /// Pages that were taken have to be protected again.
    Manual(Manual),
    /// Rings.
    Ring(Rings),
}

impl Log {
    /// The best kind of bitmap, or rings of so many entries.
    pub(super) fn new(vm: &VmFd, ring: Option<u32>) -> Result<Log, KvmError> {
        match ring {
            Some(entries) => Rings::enable(vm, entries).map(Log::Ring),
            None => Ok(Manual::enable(vm).map_or(Log::Plain, Log::Manual)),
        }
    }

    /// As [`Hypervisor::take_dirty`](crate::hv::Hypervisor::take_dirty), of a slot of so many bytes.
    pub(super) fn take(
        &self,
        vm: &VmFd,
        (slot, size): (u32, u64),
        into: &mut [u64],
    ) -> Result<(), HvError> {
        let what = || format!("take the dirty log of slot {slot}");
        let bitmap = || vm.get_dirty_log(slot, size as usize).map_err(failed(what()));
        match self {
            Log::Plain => into.iter_mut().zip(bitmap()?).for_each(|(word, taken)| *word |= taken),
            Log::Manual(manual) => manual.take(slot, bitmap, into)?,
            Log::Ring(rings) => {
                rings.empty(vm)?;
                let written = rings.written.lock().remove(&slot).unwrap_or_default();
                into.iter_mut().zip(written).for_each(|(word, taken)| *word |= taken);
            }
        }
        Ok(())
    }

    /// As [`Hypervisor::watch`](crate::hv::Hypervisor::watch), of a slot of so many bytes.
    pub(super) fn watch(
        &self,
        vm: &VmFd,
        (slot, size): (u32, u64),
        pages: Range<u64>,
    ) -> Result<(), HvError> {
        match self {
            Log::Manual(manual) => manual.protect(vm, (slot, size / PAGE), pages),
            _ => Ok(()),
        }
    }

    /// The slot goes, or begins or ends to be logged.
    pub(super) fn forget(&self, slot: u32) {
        match self {
            Log::Plain => {}
            Log::Manual(manual) => drop(manual.taken.lock().remove(&slot)),
            Log::Ring(rings) => drop(rings.written.lock().remove(&slot)),
        }
    }
}

/// The `errno` of a system call that has failed.
fn system(what: &str) -> HvError {
    HvError::new(what, io::Error::last_os_error())
}

/// Bitmaps with manual protection.
#[derive(Default)]
pub(super) struct Manual {
    /// For each slot the pages that KVM holds to be written and that were taken: they are not
    /// protected, so that there is no telling whether they are written again.
    taken: Mutex<BTreeMap<u32, Vec<u64>>>,
}

impl Manual {
    fn enable(vm: &VmFd) -> Option<Manual> {
        // Bit 0: manual protection; bit 1: a log begins with all pages written, so that not all of
        // them have to be protected at once.
        let offered = vm.check_extension_raw(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.into());
        let wanted = u64::try_from(offered).unwrap_or(0) & 3;
        if wanted & 1 == 0 {
            return None;
        }
        let cap = kvm_enable_cap {
            cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
            args: [wanted, 0, 0, 0],
            ..Default::default()
        };
        vm.enable_cap(&cap).ok().map(|()| Manual::default())
    }

    fn take(
        &self,
        slot: u32,
        bitmap: impl FnOnce() -> Result<Vec<u64>, HvError>,
        into: &mut [u64],
    ) -> Result<(), HvError> {
        let mut all = self.taken.lock();
        let bitmap = bitmap()?;
        let taken = all.entry(slot).or_default();
        taken.resize(bitmap.len(), 0);
        for ((word, new), taken) in into.iter_mut().zip(bitmap).zip(taken) {
            // What was taken before and not protected since has not been read since.
            *word |= new & !*taken;
            *taken |= new;
        }
        Ok(())
    }

    /// Protects the pages again that were taken, with those in the same words.
    fn protect(
        &self,
        vm: &VmFd,
        (slot, pages): (u32, u64),
        range: Range<u64>,
    ) -> Result<(), HvError> {
        let mut all = self.taken.lock();
        let Some(taken) = all.get_mut(&slot) else { return Ok(()) };
        let first = range.start / 64 * 64;
        let end = range.end.next_multiple_of(64).min(pages);
        let words = (first / 64) as usize..end.div_ceil(64) as usize;
        let Some(words) = taken.get_mut(words) else { return Ok(()) };
        if first >= end || words.iter().all(|word| *word == 0) {
            return Ok(());
        }
        let clear = kvm_clear_dirty_log {
            slot,
            first_page: first,
            num_pages: (end - first) as u32,
            __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
                dirty_bitmap: words.as_mut_ptr().cast::<c_void>(),
            },
        };
        // SAFETY: KVM reads a bit for each of these pages, of which there are so many in `words`.
        if unsafe { ioctl_with_ref(vm, KVM_CLEAR_DIRTY_LOG(), &clear) } != 0 {
            return Err(system(&format!("clear the dirty log of slot {slot}")));
        }
        words.fill(0);
        Ok(())
    }
}

/// A ring for each vCPU.
pub(super) struct Rings {
    entries: u32,
    rings: Mutex<Vec<Ring>>,
    /// Taken from them, for each slot, and not asked for yet.
    written: Mutex<BTreeMap<u32, Vec<u64>>>,
}

struct Ring {
    map: NonNull<kvm_dirty_gfn>,
    entries: u32,
    /// Where KVM puts the next page.
    next: u32,
}

// SAFETY: the mapping belongs to the ring alone, and is used under its lock.
unsafe impl Send for Ring {}

impl Rings {
    fn enable(vm: &VmFd, entries: u32) -> Result<Rings, KvmError> {
        let bytes = u64::from(entries) * size_of::<kvm_dirty_gfn>() as u64;
        let caps = [KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING];
        let offered = |cap: &u32| (*cap, vm.check_extension_raw((*cap).into()));
        let Some((cap, most)) = caps.iter().map(offered).find(|(_, most)| *most > 0) else {
            return Err(KvmError::Missing("KVM_CAP_DIRTY_LOG_RING"));
        };
        let most = u64::try_from(most).unwrap_or(0);
        if bytes > most {
            return Err(KvmError::Ring(entries, most / size_of::<kvm_dirty_gfn>() as u64));
        }
        let enable = kvm_enable_cap { cap, args: [bytes, 0, 0, 0], ..Default::default() };
        vm.enable_cap(&enable).map_err(failed(format!("make dirty rings of {entries} entries")))?;
        Ok(Rings { entries, rings: Mutex::default(), written: Mutex::default() })
    }

    /// A vCPU has come.
    pub(super) fn add(&self, vcpu: &VcpuFd) -> Result<(), HvError> {
        let what = "map the dirty ring of a vCPU";
        // SAFETY: the file lives at least as long as the borrow.
        let file = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let offset = u64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * PAGE;
        // SAFETY: a new mapping, placed by the kernel, takes nobody's memory.
        let map = unsafe { mmap(null_mut(), bytes(self.entries), prot, flags, file, offset) };
        let map = NonNull::new(map.map_err(|error| HvError::new(what, error))?.cast());
        let map = map.ok_or_else(|| HvError::new(what, io::ErrorKind::InvalidData))?;
        self.rings.lock().push(Ring { map, entries: self.entries, next: 0 });
        Ok(())
    }

    /// Takes what is in the rings, and has KVM note the next writes to these pages.
    pub(super) fn empty(&self, vm: &VmFd) -> Result<(), HvError> {
        let mut rings = self.rings.lock();
        let mut taken = false;
        for ring in rings.iter_mut() {
            let mut written = self.written.lock();
            while let Some((slot, page)) = ring.take() {
                taken = true;
                let words = written.entry(slot).or_default();
                let word = (page / 64) as usize;
                if words.len() <= word {
                    words.resize(word + 1, 0);
                }
                words[word] |= 1 << (page % 64);
            }
        }
        // Under the lock of the rings: whoever comes next finds these pages noted again.
        if taken {
            // SAFETY: this takes no argument.
            if unsafe { ioctl(vm, KVM_RESET_DIRTY_RINGS()) } < 0 {
                return Err(system("reset the dirty rings"));
            }
        }
        Ok(())
    }
}

fn bytes(entries: u32) -> usize {
    entries as usize * size_of::<kvm_dirty_gfn>()
}

impl Ring {
    /// The next page that was written: its slot, and which in it.
    fn take(&mut self) -> Option<(u32, u64)> {
        let index = (self.next % self.entries) as usize;
        // SAFETY: the entry is inside the mapping.
        let entry = unsafe { self.map.add(index) }.as_ptr();
        // SAFETY: the flags are a word that KVM also accesses, as atomics on both sides.
        let flags = unsafe { AtomicU32::from_ptr(&raw mut (*entry).flags) };
        if flags.load(Ordering::Acquire) & DIRTY == 0 {
            return None;
        }
        // SAFETY: KVM leaves the entry alone until it is marked as taken.
        let (slot, page) = unsafe { ((*entry).slot, (*entry).offset) };
        flags.store(TAKEN, Ordering::Release);
        self.next = self.next.wrapping_add(1);
        Some((slot, page))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is this ring's, and nobody has a pointer into it after it.
        let _ = unsafe { munmap(self.map.as_ptr().cast(), bytes(self.entries)) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kvm_ioctls::VcpuExit;

    use super::*;
    use crate::hv::kvm::KvmVm;
    use crate::hv::{Hypervisor, Slot};
    use crate::ram::RamBlock;

    const RAM: u64 = (8 << 20) + 3 * PAGE;

    struct Machine {
        vm: Arc<KvmVm>,
        vcpu: VcpuFd,
        slot: Slot,
        /// How often a ring was full.
        full: u32,
    }

    /// A vCPU that writes 16 pages, one in each run, and again.
    fn machine(ring: Option<u32>) -> Option<Machine> {
        let vm = match KvmVm::with_dirty_rings(ring) {
            Ok(vm) => vm,
            Err(error @ (KvmError::Open(_) | KvmError::Missing(_))) => {
                crate::testing::skipped(error);
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let ram = RamBlock::anonymous(RAM).unwrap();
        // mov [bx], al; out 0x10, al; add bx, 0x1000; jmp back
        ram.write(0x1000, &[0x88, 0x07, 0xe6, 0x10, 0x81, 0xc3, 0x00, 0x10, 0xeb, 0xf6]);
        let slot = Slot { id: 0, guest: 0, size: RAM, ram, offset: 0, readonly: false, log: false };
        vm.set_slot(&slot).unwrap();
        let vcpu = vm.vm().create_vcpu(0).unwrap();
        vm.add_vcpu(&vcpu).unwrap();
        let mut sregs = vcpu.get_sregs().unwrap();
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs).unwrap();
        let mut machine = Machine { vm, vcpu, slot, full: 0 };
        machine.point(100);
        Some(machine)
    }

    impl Machine {
        fn log(&mut self, on: bool) {
            self.slot.log = on;
            self.vm.set_slot(&self.slot).unwrap();
        }

        /// The guest writes so many pages.
        fn run(&mut self, pages: usize) {
            let mut left = pages;
            while left > 0 {
                match self.vcpu.run().unwrap() {
                    VcpuExit::IoOut(0x10, _) => left -= 1,
                    VcpuExit::Unsupported(kvm_bindings::KVM_EXIT_DIRTY_RING_FULL) => {
                        self.vm.log_full().unwrap();
                        self.full += 1;
                    }
                    exit => panic!("{exit:?}"),
                }
            }
        }

        /// The next write is to page 100.
        fn rewind(&mut self) {
            // The access that made the exit is complete.
            self.vcpu.set_kvm_immediate_exit(1);
            assert!(self.vcpu.run().is_err());
            self.vcpu.set_kvm_immediate_exit(0);
            self.point(100);
        }

        fn point(&mut self, page: u64) {
            let mut sregs = self.vcpu.get_sregs().unwrap();
            sregs.ds.base = page * PAGE;
            self.vcpu.set_sregs(&sregs).unwrap();
            let mut regs = self.vcpu.get_regs().unwrap();
            (regs.rip, regs.rbx, regs.rax, regs.rflags) = (0x1000, 0, 7, 2);
            self.vcpu.set_regs(&regs).unwrap();
        }

        fn taken(&self) -> Vec<u64> {
            let mut words = vec![0; (RAM / PAGE).div_ceil(64) as usize];
            self.vm.take_dirty(0, &mut words).unwrap();
            (0..RAM / PAGE)
                .filter(|page| words[*page as usize / 64] >> (page % 64) & 1 == 1)
                .collect()
        }
    }

    #[test]
    fn what_is_written_after_pages_were_watched_is_found_again() {
        for ring in [None, Some(4096)] {
            let Some(mut machine) = machine(ring) else { continue };
            machine.run(1);
            machine.log(true);
            // All or nothing: nobody knows what was written before.
            machine.taken();
            machine.vm.watch(0, 0..RAM / PAGE).unwrap();
            machine.run(2);
            assert_eq!(machine.taken(), [101, 102], "{ring:?}");
            assert_eq!(machine.taken(), [0; 0], "{ring:?}");
            machine.rewind();
            machine.run(3);
            // Page 101 was not read since it was taken, unless it is noted without that.
            let taken = machine.taken();
            assert!(taken == [100] || taken == [100, 101, 102], "{ring:?} {taken:?}");
            // The pages of a chunk, and no more than is in the log.
            machine.vm.watch(0, 101..102).unwrap();
            machine.vm.watch(0, RAM / PAGE - 1..RAM / PAGE).unwrap();
            machine.vm.watch(0, RAM / PAGE..RAM / PAGE + 64).unwrap();
            machine.rewind();
            machine.run(3);
            assert_eq!(machine.taken(), [100, 101, 102], "{ring:?}");
            // A log that begins anew knows nothing of the one before.
            machine.log(false);
            machine.run(1);
            machine.log(true);
            machine.taken();
            machine.vm.watch(0, 0..RAM / PAGE).unwrap();
            machine.rewind();
            machine.run(2);
            assert_eq!(machine.taken(), [100, 101], "{ring:?}");
        }
    }

    #[test]
    fn a_log_that_begins_may_say_that_all_was_written() {
        let Some(mut machine) = machine(None) else { return };
        machine.log(true);
        let Log::Manual(_) = machine.vm.log else { return };
        assert_eq!(machine.taken().len() as u64, RAM / PAGE);
        machine.run(1);
        assert_eq!(machine.taken(), [0; 0]);
    }

    #[test]
    fn no_page_is_lost_when_a_ring_is_full() {
        let Some(mut machine) = machine(Some(1024)) else { return };
        machine.log(true);
        let all = 16 * 120;
        for page in (100..100 + all).step_by(16) {
            machine.rewind();
            machine.point(page);
            machine.run(16);
        }
        assert!(machine.full > 0);
        assert_eq!(machine.taken(), (100..100 + all).collect::<Vec<_>>());
    }

    #[test]
    fn rings_that_cannot_be_had_are_refused_with_the_reason() {
        let refuse = |entries| match KvmVm::with_dirty_rings(Some(entries)) {
            Err(KvmError::Open(_) | KvmError::Missing(_)) => None,
            Err(error) => Some(error.to_string()),
            Ok(_) => panic!("there are rings of {entries} entries"),
        };
        let Some(text) = refuse(1 << 30) else { return };
        assert!(text.starts_with("KVM makes dirty rings of at most "), "{text}");
        let text = refuse(1).unwrap();
        assert!(text.starts_with("cannot make dirty rings of 1 entries: "), "{text}");
    }
}
