//! A chardev as its back end sees it.
//!
//! The back end's task, on the loop's thread, says when a peer is there and
//! how to write to it (`opened`), delivers input, and says when the peer is
//! gone (`closed`). It keeps the order that front ends rely on: `Opened`, then
//! input, then `Closed`.
//!
//! Lock: a leaf mutex each for the front end and the output, neither held while a front end runs;
//! `write` may come from any thread. A hostile peer reaches it through the back ends: it is read
//! only while the front end has room.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::iol::{self, Either, Local, Notify, race};

use super::{CharError, CharEvent, CharFrontend};

/// Where output goes while a peer is connected.
pub(super) trait Sink: Send {
    /// Writes some of `data` without blocking; `WouldBlock` when it takes
    /// nothing now, another error when it never will again.
    fn write(&mut self, data: &[u8]) -> io::Result<usize>;

    /// The chardev is being closed: nothing more comes.
    fn finish(&mut self) {}

    /// The front end wants nothing more of this peer. Where connections can be
    /// cut, the reading side then sees the end.
    fn hang_up(&mut self) {}
}

pub(super) struct Port {
    pub(super) label: String,
    pub(super) filename: Mutex<String>,
    pub(super) on: iol::Handle,
    front: Mutex<Front>,
    out: Mutex<Out>,
    /// The front end may have room for input, or is a new one.
    pub(super) input: Notify,
    /// A write took less than it was given.
    pub(super) blocked: Notify,
    end: Notify,
}

#[derive(Default)]
struct Front {
    frontend: Option<Arc<dyn CharFrontend>>,
    /// A peer is connected.
    open: bool,
    /// The front end was told `Opened`, and not `Closed` since.
    told: bool,
}

#[derive(Default)]
struct Out {
    sink: Option<Box<dyn Sink>>,
    /// The front end waits for `writable`.
    short: bool,
    /// Closed for good.
    ended: bool,
}

impl Port {
    pub(super) fn new(label: &str, on: &iol::Handle) -> Arc<Port> {
        Arc::new(Port {
            label: label.to_owned(),
            filename: Mutex::default(),
            on: on.clone(),
            front: Mutex::default(),
            out: Mutex::default(),
            input: Notify::new(),
            blocked: Notify::new(),
            end: Notify::new(),
        })
    }

    // ---- for the front end, any thread ----

    pub(super) fn write(&self, data: &[u8]) -> usize {
        let mut out = self.out.lock();
        let out = &mut *out;
        let Some(sink) = &mut out.sink else { return data.len() };
        let mut rest = data;
        while !rest.is_empty() {
            match sink.write(rest) {
                Ok(taken @ 1..) => rest = rest.get(taken..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    out.short = true;
                    self.blocked.notify();
                    return data.len().saturating_sub(rest.len());
                }
                result => {
                    // The reading side sees the end as well and says `closed`.
                    tracing::debug!(label = self.label, ?result, "chardev peer is gone");
                    out.sink = None;
                    return data.len();
                }
            }
        }
        data.len()
    }

    pub(super) fn attach(
        self: &Arc<Self>,
        frontend: Arc<dyn CharFrontend>,
    ) -> Result<(), CharError> {
        {
            let mut front = self.front.lock();
            if front.frontend.is_some() {
                return Err(CharError::InUse(self.label.clone()));
            }
            front.frontend = Some(frontend);
            front.told = false;
        }
        let port = self.clone();
        self.on.post(move |_| {
            port.frontend();
        });
        self.input.notify();
        Ok(())
    }

    pub(super) fn detach(&self) {
        let frontend = self.front.lock().frontend.take();
        drop(frontend);
    }

    pub(super) fn is_attached(&self) -> bool {
        self.front.lock().frontend.is_some()
    }

    pub(super) fn close(&self) {
        let sink = {
            let mut out = self.out.lock();
            out.ended = true;
            out.sink.take()
        };
        if let Some(mut sink) = sink {
            sink.finish();
        }
        self.detach();
        self.end.notify();
    }

    pub(super) fn hang_up(&self) {
        if let Some(sink) = &mut self.out.lock().sink {
            sink.hang_up();
        }
    }

    // ---- for the back end, on the loop's thread ----

    /// Runs the back end's task on the loop until it ends or the chardev is
    /// closed.
    pub(super) fn spawn<F: Future<Output = ()> + 'static>(
        self: &Arc<Self>,
        make: impl FnOnce(Local, Arc<Port>) -> F + Send + 'static,
    ) {
        let port = self.clone();
        self.on.spawn(move |local| async move {
            let end = port.end.clone();
            race(end.notified(), make(local, port)).await;
        });
    }

    pub(super) fn set_filename(&self, filename: String) {
        *self.filename.lock() = filename;
    }

    /// A peer is there; output goes to `sink`. Also called where the chardev is
    /// opened, before there is a front end.
    pub(super) fn opened(&self, sink: Box<dyn Sink>) {
        self.set_sink(sink);
        self.input_begins();
    }

    /// Output goes to `sink` from now on.
    pub(super) fn set_sink(&self, sink: Box<dyn Sink>) {
        let mut out = self.out.lock();
        let unused = if out.ended { Some(sink) } else { out.sink.replace(sink) };
        drop(out);
        drop(unused);
    }

    /// There may be input from now on: a peer is there.
    pub(super) fn input_begins(&self) {
        self.front.lock().open = true;
        self.frontend();
    }

    /// The peer is gone: output is discarded again.
    pub(super) fn closed(&self) {
        let sink = self.out.lock().sink.take();
        drop(sink);
        self.input_ended();
        self.drained();
    }

    /// No more input will come. Output, if the peer still takes it, goes on.
    pub(super) fn input_ended(&self) {
        let frontend = {
            let mut front = self.front.lock();
            front.open = false;
            front.frontend.clone().filter(|_| std::mem::take(&mut front.told))
        };
        if let Some(frontend) = frontend {
            frontend.event(CharEvent::Closed);
        }
    }

    /// The front end, told first that a peer is there if it does not know.
    fn frontend(&self) -> Option<Arc<dyn CharFrontend>> {
        let (frontend, tell) = {
            let mut front = self.front.lock();
            let frontend = front.frontend.clone()?;
            let tell = front.open && !front.told;
            front.told |= tell;
            (frontend, tell)
        };
        if tell {
            frontend.event(CharEvent::Opened);
        }
        Some(frontend)
    }

    /// How many bytes of input the front end takes; 0 without one.
    pub(super) fn room(&self) -> usize {
        self.frontend().map_or(0, |frontend| frontend.can_receive())
    }

    /// Whether the front end has still to answer.
    pub(super) fn owes_output(&self) -> bool {
        self.frontend().is_some_and(|frontend| frontend.owes_output())
    }

    /// Delivers input, at most what `room` said just before.
    pub(super) fn deliver(&self, data: &[u8]) {
        if !data.is_empty()
            && let Some(frontend) = self.frontend()
        {
            frontend.receive(data);
        }
    }

    pub(super) fn deliver_fd(&self, fd: OwnedFd) {
        if let Some(frontend) = self.frontend() {
            frontend.receive_fd(fd);
        }
    }

    pub(super) fn deliver_break(&self) {
        if let Some(frontend) = self.frontend() {
            frontend.event(CharEvent::Break);
        }
    }

    /// There is room for output.
    pub(super) fn drained(&self) {
        if std::mem::take(&mut self.out.lock().short)
            && let Some(frontend) = self.frontend()
        {
            frontend.writable();
        }
    }

    /// Waits until the front end may have room for input. False when `give_up`
    /// completes first.
    pub(super) async fn wait_for_room(&self, give_up: impl Future<Output = ()>) -> bool {
        race(self.input.notified(), give_up).await == Either::Left(())
    }
}
