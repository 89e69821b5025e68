//! The io_uring of a loop.
//!
//! Unsafe because the kernel reads and writes memory by address after the call
//! that named it has returned. What makes it sound is that the ring itself owns
//! the descriptor and the buffer of every operation until the kernel reports it
//! done: futures can be dropped at any time, and `finish`, also run on drop,
//! waits for what is left. The ring is restricted to the operations used here
//! before it takes the first one.
//!
//! Operations are kept in slots that are used again: starting one allocates nothing once the loop
//! has been as busy before. What is started goes to the kernel together, with the next turn.
//!
//! On the loop's thread, no lock.
#![expect(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};

use super::buf::{IoBuf, offset_of};
use super::file::FallocateFlags;

/// Operations the kernel has at a time; more wait their turn here.
const ENTRIES: u32 = 256;

/// What the kernel is asked to do.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Read,
    /// `true`: durable when it is done.
    Write(bool),
    Fdatasync,
    Fallocate(FallocateFlags, u64),
}

/// The memory of an operation, which comes back with its result.
pub(super) enum Memory {
    None,
    Bytes(Vec<u8>),
    Buf(IoBuf),
}

impl Memory {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Memory::Bytes(bytes) => bytes,
            _ => Vec::new(),
        }
    }
}

pub(super) type Done = (io::Result<usize>, Memory);

struct Operation {
    kind: Kind,
    fd: Arc<OwnedFd>,
    memory: Memory,
    offset: i64,
}

#[derive(Default)]
struct Slot {
    /// Until the kernel is done with it.
    operation: Option<Operation>,
    /// What the kernel was given as the pieces of the buffer; kept for the next operation.
    iovecs: Vec<libc::iovec>,
    done: Option<Done>,
    waker: Option<Waker>,
    /// Nobody waits for the result any more.
    abandoned: bool,
}

pub(super) struct Ring {
    ring: IoUring,
    /// By user data.
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Slots whose operation waits for room.
    waiting: VecDeque<usize>,
    /// With the kernel or in the submission queue.
    running: u32,
}

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        let build = |cooperative: bool| {
            let mut builder = IoUring::builder();
            builder.dontfork().setup_r_disabled();
            if cooperative {
                // Completions need not interrupt this thread: it looks for them by itself.
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            builder.build(ENTRIES)
        };
        // Linux before 5.19 does not know the flags.
        let ring: IoUring = build(true).or_else(|_| build(false))?;
        let opcodes = [
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::Readv::CODE,
            opcode::Writev::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
        ];
        ring.submitter().register_restrictions(&mut opcodes.map(Restriction::sqe_op))?;
        ring.submitter().register_enable_rings()?;
        let (slots, free, waiting) = (Vec::new(), Vec::new(), VecDeque::new());
        Ok(Ring { ring, slots, free, waiting, running: 0 })
    }

    /// Starts an operation; it goes to the kernel with the next `submit`.
    pub(super) fn start(
        this: &Rc<RefCell<Ring>>,
        kind: Kind,
        fd: &Arc<OwnedFd>,
        memory: Memory,
        offset: u64,
    ) -> Pending {
        let mut ring = this.borrow_mut();
        let slot = ring.free.pop().unwrap_or_else(|| {
            ring.slots.push(Slot::default());
            ring.slots.len() - 1
        });
        let offset = match offset_of(offset) {
            Ok(offset) => offset,
            Err(error) => {
                ring.slots[slot].done = Some((Err(error), memory));
                drop(ring);
                return Pending { ring: this.clone(), slot: Some(slot) };
            }
        };
        ring.slots[slot].operation = Some(Operation { kind, fd: fd.clone(), memory, offset });
        if ring.waiting.is_empty() && ring.running < ENTRIES {
            ring.push(slot);
        } else {
            ring.waiting.push_back(slot);
        }
        Pending { ring: this.clone(), slot: Some(slot) }
    }

    /// Puts the operation of a slot into the submission queue, which has room.
    fn push(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(operation) = &mut slot.operation else { return };
        let entry = entry(operation, &mut slot.iovecs).user_data(index as u64);
        // SAFETY: the slot keeps the descriptor open and owns the buffer and the list of its
        // pieces, neither touched nor moved (they are on the heap) until the completion of this
        // very entry; `finish` sees to that before the ring goes.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // There is room for as many entries as may run.
        debug_assert!(pushed.is_ok());
        self.running += 1;
        if pushed.is_err() {
            self.deliver(index, Err(io::Error::from_raw_os_error(libc::EBUSY)));
        }
    }

    /// Gives the kernel what was started; false when it did not take it all.
    pub(super) fn submit(&mut self) -> bool {
        if self.ring.submission().is_empty() {
            return true;
        }
        if let Err(error) = self.ring.submit()
            && !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR))
        {
            tracing::error!("io_uring_enter: {error}");
        }
        self.ring.submission().is_empty()
    }

    /// Delivers what is done, and starts what has waited for room.
    pub(super) fn complete(&mut self) {
        loop {
            let Some(done) = self.ring.completion().next() else { break };
            let result = usize::try_from(done.result())
                .map_err(|_| io::Error::from_raw_os_error(-done.result()));
            self.deliver(done.user_data() as usize, result);
        }
        while self.running < ENTRIES
            && let Some(slot) = self.waiting.pop_front()
        {
            self.push(slot);
        }
    }

    fn deliver(&mut self, index: usize, result: io::Result<usize>) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(operation) = slot.operation.take() else { return };
        self.running -= 1;
        if let (Kind::Read, Memory::Buf(buf)) = (operation.kind, &operation.memory) {
            buf.was_read(&result);
        }
        if std::mem::take(&mut slot.abandoned) {
            self.free.push(index);
            return;
        }
        slot.done = Some((result, operation.memory));
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }

    /// Waits until the kernel has nothing of ours any more.
    pub(super) fn finish(&mut self) {
        self.complete();
        while self.running > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => {
                    // The kernel may still write to these buffers.
                    tracing::error!("io_uring_enter: {error}");
                    std::mem::forget(std::mem::take(&mut self.slots));
                    self.running = 0;
                    return;
                }
            }
            self.complete();
        }
    }
}

/// The submission of an operation whose pieces are listed in `iovecs`.
fn entry(operation: &mut Operation, iovecs: &mut Vec<libc::iovec>) -> squeue::Entry {
    let Operation { kind, fd, memory, offset } = operation;
    let fd = types::Fd(fd.as_raw_fd());
    iovecs.clear();
    match memory {
        Memory::None => {}
        Memory::Buf(buf) => buf.iovecs(iovecs),
        Memory::Bytes(bytes) => {
            iovecs.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        }
    }
    let pieces = iovecs.len() as u32; // at most IOV_MAX
    match (kind, iovecs.as_slice()) {
        (Kind::Read, [one]) => {
            opcode::Read::new(fd, one.iov_base.cast(), length(one)).offset(*offset as u64).build()
        }
        (Kind::Read, many) => {
            opcode::Readv::new(fd, many.as_ptr(), pieces).offset(*offset as u64).build()
        }
        (Kind::Write(durable), [one]) => opcode::Write::new(fd, one.iov_base.cast(), length(one))
            .offset(*offset as u64)
            .rw_flags(dsync(*durable))
            .build(),
        (Kind::Write(durable), many) => opcode::Writev::new(fd, many.as_ptr(), pieces)
            .offset(*offset as u64)
            .rw_flags(dsync(*durable))
            .build(),
        (Kind::Fdatasync, _) => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        (Kind::Fallocate(how, len), _) => {
            opcode::Fallocate::new(fd, *len).offset(*offset as u64).mode(how.bits() as i32).build()
        }
    }
}

/// One call moves at most 4 GiB - 1, and the kernel caps it below that.
fn length(piece: &libc::iovec) -> u32 {
    u32::try_from(piece.iov_len).unwrap_or(u32::MAX)
}

fn dsync(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.finish();
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// The future of an operation. Dropping it leaves the operation to complete by itself.
pub(super) struct Pending {
    ring: Rc<RefCell<Ring>>,
    /// `None` once the result was taken.
    slot: Option<usize>,
}

impl Future for Pending {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let mut ring = self.ring.borrow_mut();
        let abandoned = || (Err(io::Error::other("the operation was abandoned")), Memory::None);
        let Some(index) = self.slot else { return Poll::Ready(abandoned()) };
        // Slots are lost only when the kernel refuses to wait for them.
        let Some(slot) = ring.slots.get_mut(index) else { return Poll::Ready(abandoned()) };
        let Some(done) = slot.done.take() else {
            if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                slot.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        ring.free.push(index);
        drop(ring);
        self.slot = None;
        Poll::Ready(done)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(index) = self.slot else { return };
        let mut ring = self.ring.borrow_mut();
        let Some(slot) = ring.slots.get_mut(index) else { return };
        slot.waker = None;
        if slot.done.take().is_some() {
            ring.free.push(index);
        } else {
            slot.abandoned = true;
        }
    }
}
