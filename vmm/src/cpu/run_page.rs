//! The page that KVM shares with this process for each vCPU: kicking a vCPU out of the guest, and
//! the few fields of an exit that `kvm-ioctls` does not hand out.
//!
//! A [`Kick`] may be used from any thread. It sets `immediate_exit` and then sends a signal: if
//! the vCPU is about to enter the guest it returns at once, if it is inside the signal brings it
//! out, so no kick is lost in between. Its lock keeps the page mapped while it is written; the
//! vCPU's thread takes it only to say good-bye. The guest writes nothing in this page.
#![expect(unsafe_code, reason = "the page is shared memory that the kernel also accesses")]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use parking_lot::Mutex;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The exit-related fields of one vCPU; lives on its thread.
pub struct RunPage {
    page: NonNull<kvm_run>,
    kick: Arc<Kick>,
}

/// Brings a vCPU out of the guest, or keeps it from entering.
pub struct Kick {
    inner: Mutex<Target>,
}

struct Target {
    /// `immediate_exit` of the vCPU; `None` once it is gone.
    flag: Option<NonNull<AtomicU8>>,
    /// The vCPU's thread, once it runs.
    thread: Option<libc::pthread_t>,
}

// SAFETY: the pointer is only used under the lock and only as an atomic, and it is taken away
// before the memory goes.
unsafe impl Send for Kick {}
// SAFETY: as above.
unsafe impl Sync for Kick {}
// SAFETY: the page belongs to the vCPU file that travels with it to the vCPU's thread.
unsafe impl Send for RunPage {}

impl RunPage {
    /// The page of a vCPU. The result must be dropped before the file is; [`super::thread::Vcpu`]
    /// holds both in that order.
    pub fn new(vcpu: &mut VcpuFd) -> RunPage {
        let page = NonNull::from(vcpu.get_kvm_run());
        // SAFETY: the pointer is to the live mapping of the page.
        let flag = unsafe { &raw mut (*page.as_ptr()).immediate_exit };
        let flag = NonNull::new(flag.cast::<AtomicU8>());
        let kick = Arc::new(Kick { inner: Mutex::new(Target { flag, thread: None }) });
        RunPage { page, kick }
    }

    /// What others use to kick this vCPU.
    pub fn kick(&self) -> &Arc<Kick> {
        &self.kick
    }

    /// Tells the kick that the calling thread is the vCPU's.
    pub fn entered_thread(&self) {
        // SAFETY: pthread_self has no preconditions.
        self.kick.inner.lock().thread = Some(unsafe { libc::pthread_self() });
    }

    /// Takes back a kick. Look for what it was about after this, never before.
    pub fn clear_kick(&self) {
        self.flag().store(0, Ordering::SeqCst);
    }

    fn flag(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped while `self` lives, and the byte is accessed by this process
        // only as an atomic.
        unsafe { &*(&raw const (*self.page.as_ptr()).immediate_exit).cast::<AtomicU8>() }
    }

    /// Bytes in each element of a KVM_EXIT_IO; the data may hold several (string instructions).
    pub fn io_size(&self) -> usize {
        // SAFETY: the page is mapped; the kernel filled this member before the exit returned, and
        // any bit pattern is a valid integer.
        usize::from(unsafe { (*self.page.as_ptr()).__bindgen_anon_1.io.size }.max(1))
    }

    /// The suberror and data of a KVM_EXIT_INTERNAL_ERROR.
    pub fn internal_error(&self) -> (u32, Vec<u64>) {
        // SAFETY: as above.
        let internal = unsafe { (*self.page.as_ptr()).__bindgen_anon_1.internal };
        let count = (internal.ndata as usize).min(internal.data.len());
        (internal.suberror, internal.data[..count].to_vec())
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        *self.kick.inner.lock() = Target { flag: None, thread: None };
    }
}

impl Kick {
    /// Makes the vCPU return from the guest as soon as it can, or not enter it.
    pub fn kick(&self) {
        let target = self.inner.lock();
        if let Some(flag) = target.flag {
            // SAFETY: the vCPU takes the pointer away, under this lock, before the memory goes.
            unsafe { flag.as_ref() }.store(1, Ordering::SeqCst);
        }
        if let Some(thread) = target.thread {
            // SAFETY: the thread takes its id away, under this lock, before it ends.
            unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
        }
    }
}

/// Installs the handler of the kick signal. It does nothing: being interrupted is the point.
pub fn install_signal_handler() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}
