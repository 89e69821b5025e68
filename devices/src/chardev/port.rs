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

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use resources::fdset::Lease;
use resources::iol::{self, Either, Local, Notify, race};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{CharError, CharEvent, CharFrontend, Control, Extra, ModemLines, Size};

/// Output kept for a peer that is slow, at most, of front ends that cannot keep it themselves.
const KEPT: usize = 64 << 10;

/// How long opening a back end may block the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For as long as it takes, as where nothing runs yet.
    Endless,
    /// A tenth of a second. What takes longer goes on in the background.
    Brief,
}

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

    /// The descriptor that becomes writable when there is room again; `None` where there always is.
    fn fd(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    /// Does something to the line, where there is one.
    fn control(&mut self, control: Control) {
        let _ = control;
    }

    /// The modem lines, where there are some.
    fn modem_lines(&self) -> Option<ModemLines> {
        None
    }

    /// What a terminal shows.
    fn size(&self) -> Option<Size> {
        None
    }
}

pub(super) struct Port {
    pub(super) label: String,
    pub(super) filename: Mutex<String>,
    /// The word for the kind of back end; none for one of those who share one.
    pub(super) kind: OnceLock<&'static str>,
    pub(super) on: iol::Handle,
    front: Mutex<Front>,
    out: Mutex<Out>,
    /// The front end may have room for input, or is a new one.
    pub(super) input: Notify,
    /// A write took less than it was given.
    pub(super) blocked: Notify,
    end: Notify,
    /// What this kind of back end can do besides.
    pub(super) extra: OnceLock<Extra>,
    /// Descriptors of sets that are in use.
    pub(super) leases: Mutex<Vec<Lease>>,
}

#[derive(Default)]
struct Front {
    frontend: Option<Arc<dyn CharFrontend>>,
    /// A peer is connected.
    open: bool,
    /// The front end was told `Opened`, and not `Closed` since.
    told: bool,
    /// It was told `Opened` by the port before, which told it no `Closed`.
    stale: bool,
    /// What is typed goes to another front end.
    out_of_focus: bool,
}

#[derive(Default)]
struct Out {
    sink: Option<Box<dyn Sink>>,
    /// The front end waits for `writable`.
    short: bool,
    /// Output that goes to the sink before anything else.
    kept: VecDeque<u8>,
    /// Closed for good.
    ended: bool,
}

impl Port {
    pub(super) fn new(label: &str, on: &iol::Handle) -> Arc<Port> {
        Arc::new(Port {
            label: label.to_owned(),
            filename: Mutex::default(),
            kind: OnceLock::new(),
            on: on.clone(),
            front: Mutex::default(),
            out: Mutex::default(),
            input: Notify::new(),
            blocked: Notify::new(),
            end: Notify::new(),
            extra: OnceLock::new(),
            leases: Mutex::default(),
        })
    }

    // ---- for the front end, any thread ----

    pub(super) fn write(&self, data: &[u8]) -> usize {
        let mut out = self.out.lock();
        let taken = if out.write_kept(&self.label) { out.write(data, &self.label) } else { 0 };
        if taken < data.len() {
            out.short = true;
            self.blocked.notify();
        }
        taken
    }

    /// As `write`, and keeps what is not taken at once, as long as that is not too much.
    pub(super) fn push(&self, data: &[u8]) -> usize {
        let mut out = self.out.lock();
        let sent = if out.write_kept(&self.label) { out.write(data, &self.label) } else { 0 };
        let rest = data.get(sent..).unwrap_or_default();
        let fits = rest.len().min(KEPT.saturating_sub(out.kept.len()));
        out.kept.extend(rest.get(..fits).unwrap_or_default());
        if !out.kept.is_empty() {
            self.blocked.notify();
        }
        sent.saturating_add(fits)
    }

    /// Waits, until `deadline` at most, for what is kept to be on its way. Needs no loop.
    pub(super) fn flush(&self, deadline: Instant) {
        loop {
            let fd = {
                let mut out = self.out.lock();
                if out.write_kept(&self.label) {
                    return;
                }
                out.sink.as_ref().and_then(|sink| sink.fd())
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let (Some(fd), Ok(timeout)) = (fd, Timespec::try_from(left)) else { return };
            if left.is_zero() {
                return;
            }
            let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&timeout));
        }
    }

    /// As `write`, with a prefix before the data that is written once and whole. Returns whether it
    /// was, and how much of the data was taken.
    pub(super) fn write_after(&self, prefix: &[u8], data: &[u8]) -> (bool, usize) {
        let mut out = self.out.lock();
        let clear = out.write_kept(&self.label);
        let mut taken = 0;
        if clear {
            let sent = out.write(prefix, &self.label);
            out.kept.extend(prefix.get(sent..).unwrap_or_default());
            if out.kept.is_empty() {
                taken = out.write(data, &self.label);
            }
        }
        if taken < data.len() {
            out.short = true;
            self.blocked.notify();
        }
        (clear, taken)
    }

    pub(super) fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.out.lock().sink.as_ref().and_then(|sink| sink.fd())
    }

    pub(super) fn control(&self, control: Control) {
        if let Some(sink) = &mut self.out.lock().sink {
            sink.control(control);
        }
    }

    pub(super) fn modem_lines(&self) -> Option<ModemLines> {
        self.out.lock().sink.as_ref().and_then(|sink| sink.modem_lines())
    }

    pub(super) fn size(&self) -> Option<Size> {
        self.out.lock().sink.as_ref().and_then(|sink| sink.size())
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
            front.stale = false;
        }
        let port = self.clone();
        self.on.post(move |_| {
            port.frontend();
        });
        self.input.notify();
        Ok(())
    }

    /// Takes over the front end of another port.
    pub(super) fn adopt(self: &Arc<Self>, other: &Port) {
        let (frontend, told) = {
            let mut front = other.front.lock();
            (front.frontend.take(), std::mem::take(&mut front.told))
        };
        {
            let mut front = self.front.lock();
            front.frontend = frontend;
            front.stale = told;
        }
        // It may wait for room that the other one does not have.
        self.out.lock().short = true;
        let port = self.clone();
        self.on.post(move |_| {
            port.frontend();
            port.drained();
        });
        self.input.notify();
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
            out.kept.clear();
            out.sink.take()
        };
        if let Some(mut sink) = sink {
            sink.finish();
        }
        self.detach();
        self.end.notify();
        let leases = std::mem::take(&mut *self.leases.lock());
        drop(leases);
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
            // In a box, or this would have room for it several times over.
            race(end.notified(), Box::pin(make(local, port))).await;
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
        let sink = {
            let mut out = self.out.lock();
            out.kept.clear();
            out.sink.take()
        };
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
        let (frontend, stale, tell, mux_out) = {
            let mut front = self.front.lock();
            let frontend = front.frontend.clone()?;
            let stale = std::mem::take(&mut front.stale);
            let tell = front.open && !front.told;
            front.told |= tell;
            (frontend, stale, tell, front.out_of_focus)
        };
        if stale {
            frontend.event(CharEvent::Closed);
        }
        if tell {
            frontend.event(CharEvent::Opened);
            if mux_out {
                frontend.event(CharEvent::MuxOut);
            }
        }
        Some(frontend)
    }

    /// Says whether what is typed comes here, and tells the front end if it must know.
    pub(super) fn set_focus(&self, focus: bool) {
        let told = {
            let mut front = self.front.lock();
            front.out_of_focus = !focus;
            front.told
        };
        if told {
            self.deliver_event(if focus { CharEvent::MuxIn } else { CharEvent::MuxOut });
        }
    }

    /// Who takes input, and how much.
    pub(super) fn taker(&self) -> Taker {
        let frontend = self.frontend();
        let room = frontend.as_ref().map_or(0, |frontend| frontend.can_receive());
        Taker { frontend, room }
    }

    /// Whether there is still to answer.
    pub(super) fn owes_output(&self) -> bool {
        let kept = !self.out.lock().kept.is_empty();
        kept || self.frontend().is_some_and(|frontend| frontend.owes_output())
    }

    pub(super) fn deliver_fd(&self, fd: OwnedFd) {
        if let Some(frontend) = self.frontend() {
            frontend.receive_fd(fd);
        }
    }

    pub(super) fn deliver_break(&self) {
        self.deliver_event(CharEvent::Break);
    }

    /// There is room for output.
    pub(super) fn drained(&self) {
        {
            let mut out = self.out.lock();
            if !out.write_kept(&self.label) {
                return self.blocked.notify();
            }
            if !std::mem::take(&mut out.short) {
                return;
            }
        }
        if let Some(frontend) = self.frontend() {
            frontend.writable();
        }
    }

    pub(super) fn deliver_event(&self, event: CharEvent) {
        if let Some(frontend) = self.frontend() {
            frontend.event(event);
        }
    }

    /// Waits until the front end may have room for input. False when `give_up`
    /// completes first.
    pub(super) async fn wait_for_room(&self, give_up: impl Future<Output = ()>) -> bool {
        race(self.input.notified(), give_up).await == Either::Left(())
    }
}

/// A front end that was asked how much input it takes: what is delivered goes to it even if
/// another one takes its place meanwhile, which may have less room.
pub(super) struct Taker {
    frontend: Option<Arc<dyn CharFrontend>>,
    /// How many bytes it takes.
    pub(super) room: usize,
}

impl Taker {
    /// Delivers input, at most `room`.
    pub(super) fn deliver(&self, data: &[u8]) {
        if !data.is_empty()
            && let Some(frontend) = &self.frontend
        {
            frontend.receive(data);
        }
    }
}

impl Out {
    /// Writes as much as the sink takes at once; all of it when there is none.
    fn write(&mut self, data: &[u8], label: &str) -> usize {
        let Some(sink) = &mut self.sink else { return data.len() };
        let mut rest = data;
        while !rest.is_empty() {
            match sink.write(rest) {
                Ok(taken @ 1..) => rest = rest.get(taken..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return data.len().saturating_sub(rest.len());
                }
                result => {
                    // The reading side sees the end as well and says `closed`.
                    tracing::debug!(label, ?result, "chardev peer is gone");
                    self.sink = None;
                    self.kept.clear();
                    return data.len();
                }
            }
        }
        data.len()
    }

    /// Writes what is kept; whether nothing of it is left.
    fn write_kept(&mut self, label: &str) -> bool {
        while !self.kept.is_empty() {
            let kept = std::mem::take(&mut self.kept);
            let (first, _) = kept.as_slices();
            let (count, taken) = (first.len(), self.write(first, label));
            // Nothing is left when the peer turned out to be gone.
            if self.sink.is_none() {
                return true;
            }
            self.kept = kept;
            self.kept.drain(..taken.min(count));
            if taken < count {
                return false;
            }
        }
        true
    }
}
