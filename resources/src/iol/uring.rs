//! The io_uring of a loop.
//!
//! Unsafe because the kernel reads and writes memory by address after the call
//! that named it has returned. What makes it sound is that the ring itself owns
//! the descriptor and the buffer of every operation until the kernel reports it
//! done: futures can be dropped at any time, and `finish`, also run on drop,
//! waits for what is left. The ring is restricted to the three operations used
//! here before it takes the first one.
//!
//! On the loop's thread, no lock.
#![expect(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, types};

use super::sync::{Receiver, Sender, oneshot};

/// Operations the kernel has at a time; more wait their turn here.
const ENTRIES: u32 = 128;

pub(super) type Done = (io::Result<usize>, Vec<u8>);

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Read,
    Write,
    Fdatasync,
}

struct Operation {
    kind: Kind,
    fd: Arc<OwnedFd>,
    buf: Vec<u8>,
    offset: u64,
    result: Sender<Done>,
}

pub(super) struct Ring {
    ring: IoUring,
    /// With the kernel or in the submission queue, by user data.
    running: Vec<Option<Operation>>,
    free: Vec<usize>,
    waiting: VecDeque<Operation>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        let ring = IoUring::builder().dontfork().setup_r_disabled().build(ENTRIES)?;
        let opcodes = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        ring.submitter().register_restrictions(&mut opcodes.map(Restriction::sqe_op))?;
        ring.submitter().register_enable_rings()?;
        let running = (0..ENTRIES).map(|_| None).collect();
        let free = (0..ENTRIES as usize).rev().collect();
        Ok(Ring { ring, running, free, waiting: VecDeque::new() })
    }

    /// Starts an operation; it goes to the kernel with the next `submit`.
    pub(super) fn start(
        &mut self,
        kind: Kind,
        fd: &Arc<OwnedFd>,
        buf: Vec<u8>,
        offset: u64,
    ) -> impl Future<Output = Done> + use<> {
        let (result, receiver): (_, Receiver<Done>) = oneshot();
        let operation = Operation { kind, fd: fd.clone(), buf, offset, result };
        if self.waiting.is_empty() && !self.free.is_empty() {
            self.push(operation);
        } else {
            self.waiting.push_back(operation);
        }
        async move { receiver.await.unwrap_or_else(|error| (Err(error), Vec::new())) }
    }

    /// Puts an operation into a free slot and the submission queue.
    fn push(&mut self, operation: Operation) {
        let Some(slot) = self.free.pop() else {
            return self.waiting.push_back(operation);
        };
        let Operation { kind, fd, buf, offset, .. } = self.running[slot].insert(operation);
        let fd = types::Fd(fd.as_raw_fd());
        // One call moves at most 4 GiB - 1, and the kernel caps it below that.
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        let entry = match kind {
            Kind::Read => opcode::Read::new(fd, buf.as_mut_ptr(), len).offset(*offset).build(),
            Kind::Write => opcode::Write::new(fd, buf.as_ptr(), len).offset(*offset).build(),
            Kind::Fdatasync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        }
        .user_data(slot as u64);
        // SAFETY: `running[slot]` keeps the descriptor open and owns the buffer,
        // neither touched nor moved (the Vec's memory stays where it is) until
        // the completion of this very entry clears the slot; `finish` sees to
        // that before the ring goes. `len` is within the buffer.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // There are as many slots as entries, and submitted ones keep theirs.
        debug_assert!(pushed.is_ok());
        if pushed.is_err()
            && let Some(operation) = self.running[slot].take()
        {
            self.free.push(slot);
            operation.result.send((Err(io::Error::from_raw_os_error(libc::EBUSY)), operation.buf));
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

    /// Delivers what is done, and starts what has waited for a slot.
    pub(super) fn complete(&mut self) {
        loop {
            let Some(done) = self.ring.completion().next() else { break };
            let slot = done.user_data() as usize;
            let Some(operation) = self.running.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            self.free.push(slot);
            let result = usize::try_from(done.result())
                .map_err(|_| io::Error::from_raw_os_error(-done.result()));
            operation.result.send((result, operation.buf));
        }
        while !self.free.is_empty()
            && let Some(operation) = self.waiting.pop_front()
        {
            self.push(operation);
        }
    }

    /// Waits until the kernel has nothing of ours any more.
    pub(super) fn finish(&mut self) {
        while self.free.len() < self.running.len() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => {
                    // The kernel may still write to these buffers.
                    tracing::error!("io_uring_enter: {error}");
                    std::mem::forget(std::mem::take(&mut self.running));
                    return;
                }
            }
            self.complete();
        }
    }
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
