//! The front end of a monitor's chardev: a queue from the chardev's loop to the main loop.
//!
//! Called on the chardev's loop, emptied by the main thread; one mutex around the queue, under
//! which nothing but the chardev's output is locked. A hostile client can fill it, and then is not
//! read: [`INBOX`] bytes and [`MAX_FDS`] descriptors.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use devices::chardev::{CharEvent, CharFrontend, Chardev};
use parking_lot::Mutex;
use resources::iol::Notify;

/// Bytes of input that wait for the main loop at most.
const INBOX: usize = 16 << 10;

/// Descriptors that wait for the main loop at most, but for those that came with the bytes read
/// last. A request takes one.
pub(super) const MAX_FDS: usize = 64;

/// The front end of a monitor's chardev.
pub(crate) struct Port {
    pub(super) inbox: Mutex<VecDeque<Input>>,
    waiting: AtomicUsize,
    /// Descriptors that have come since the main loop last looked.
    fds: AtomicUsize,
    wants_input: AtomicBool,
    /// Something came in that has not been dealt with.
    answering: AtomicBool,
    /// The peer has not taken all output.
    unsent: AtomicBool,
    notify: Notify,
}

/// What came in on a chardev.
pub(crate) enum Input {
    /// A peer is there.
    Opened,
    /// The peer is gone; what it sent before is still to be dealt with.
    Closed,
    /// On a shared chardev: whether what is typed comes here from now on.
    Focus(bool),
    /// Bytes.
    Data(Vec<u8>),
    /// A descriptor, before the bytes it came with.
    Fd(OwnedFd),
}

impl Port {
    /// A front end whose news wake the main loop through `notify`.
    pub(crate) fn new(notify: &Notify) -> Arc<Port> {
        Arc::new(Port {
            inbox: Mutex::default(),
            waiting: 0.into(),
            fds: 0.into(),
            wants_input: AtomicBool::new(true),
            answering: AtomicBool::new(false),
            unsent: AtomicBool::new(false),
            notify: notify.clone(),
        })
    }

    /// What has come in since the last time, oldest first.
    pub(crate) fn take(&self) -> VecDeque<Input> {
        self.fds.store(0, Ordering::Release);
        std::mem::take(&mut *self.inbox.lock())
    }

    /// Takes the news that a client has come, if that is what is next.
    pub(super) fn take_opened(&self) -> bool {
        let mut inbox = self.inbox.lock();
        matches!(inbox.front(), Some(Input::Opened)) && inbox.pop_front().is_some()
    }

    /// All input that was taken has been dealt with; more is wanted now if `wants`. Returns whether
    /// the chardev must be told so ([`Chardev::accept_input`]).
    pub(crate) fn taken(&self, wants: bool) -> bool {
        let wanted = self.wants_input.swap(wants, Ordering::AcqRel);
        let emptied = self.waiting.swap(0, Ordering::AcqRel) > 0;
        let inbox = self.inbox.lock();
        let answered = inbox.is_empty() && self.answering.swap(false, Ordering::AcqRel);
        drop(inbox);
        wants && (!wanted || emptied) || answered && !self.owes_output()
    }

    /// Some input that was taken waits for the client to read: no more of it for now.
    pub(crate) fn pause(&self) {
        self.wants_input.store(false, Ordering::Release);
    }

    /// Whether output is left that the peer does not take. To be told before
    /// [`taken`](Self::taken) is called.
    pub(crate) fn set_unsent(&self, unsent: bool) {
        if self.unsent.swap(unsent, Ordering::AcqRel) && !unsent {
            // `taken` is to tell the chardev.
            self.answering.store(true, Ordering::Release);
        }
    }

    /// Has the main loop look here once more.
    pub(crate) fn wake(&self) {
        self.notify.notify();
    }

    /// Writes to the peer whose coming was taken last; gives how many bytes it took, or `None` if
    /// it is gone. The next one cannot come meanwhile, for its coming is told under the lock.
    pub(crate) fn write(&self, chardev: &Chardev, data: &[u8]) -> Option<usize> {
        let inbox = self.inbox.lock();
        let gone = inbox.iter().any(|input| matches!(input, Input::Closed));
        if gone { None } else { Some(chardev.write(data)) }
    }

    fn put(&self, input: Input) {
        let mut inbox = self.inbox.lock();
        self.answering.store(true, Ordering::Release);
        inbox.push_back(input);
        drop(inbox);
        self.notify.notify();
    }
}

impl CharFrontend for Port {
    fn can_receive(&self) -> usize {
        let fds = self.fds.load(Ordering::Acquire);
        if fds >= MAX_FDS || !self.wants_input.load(Ordering::Acquire) {
            return 0;
        }
        INBOX.saturating_sub(self.waiting.load(Ordering::Acquire))
    }

    fn receive(&self, data: &[u8]) {
        self.waiting.fetch_add(data.len(), Ordering::AcqRel);
        self.put(Input::Data(data.to_vec()));
    }

    fn event(&self, event: CharEvent) {
        match event {
            CharEvent::Opened => self.put(Input::Opened),
            CharEvent::Closed => self.put(Input::Closed),
            CharEvent::MuxIn => self.put(Input::Focus(true)),
            CharEvent::MuxOut => self.put(Input::Focus(false)),
            CharEvent::Break | CharEvent::Resized => {}
        }
    }

    fn owes_output(&self) -> bool {
        self.answering.load(Ordering::Acquire) || self.unsent.load(Ordering::Acquire)
    }

    fn writable(&self) {
        self.notify.notify();
    }

    fn receive_fd(&self, fd: OwnedFd) {
        self.fds.fetch_add(1, Ordering::AcqRel);
        self.put(Input::Fd(fd));
    }
}
