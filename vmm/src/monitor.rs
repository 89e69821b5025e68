//! Monitors: QMP sessions on character devices.
//!
//! A port is the front end that a chardev calls on its loop; it only queues what came in and
//! wakes the main loop. [`Monitors`] is the main thread's side: it feeds the sessions, has the
//! machine carry out requests and sends what they answer.
//!
//! A hostile client can send anything and read nothing: input is taken a few KiB at a time and
//! only while the session wants it, and a session whose output grows past its limit is closed.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use devices::chardev::{CharEvent, CharFrontend, Chardev};
use parking_lot::Mutex;
use qmp::VersionInfo;
use qmp::monitors::MonitorId;
use resources::iol::Notify;

use crate::vm::Vm;

/// Bytes of input that wait for the main loop at most.
const INBOX: usize = 16 << 10;

/// The front end of a monitor's chardev.
struct Port {
    inbox: Mutex<VecDeque<Input>>,
    waiting: std::sync::atomic::AtomicUsize,
    wants_input: AtomicBool,
    notify: Notify,
}

enum Input {
    Opened,
    Closed,
    Data(Vec<u8>),
    Fd(OwnedFd),
}

impl Port {
    fn put(&self, input: Input) {
        self.inbox.lock().push_back(input);
        self.notify.notify();
    }
}

impl CharFrontend for Port {
    fn can_receive(&self) -> usize {
        if !self.wants_input.load(Ordering::Acquire) {
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
            CharEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.notify.notify();
    }

    fn receive_fd(&self, fd: OwnedFd) {
        self.put(Input::Fd(fd));
    }
}

/// All monitors.
pub struct Monitors {
    sessions: qmp::monitors::Monitors,
    all: Vec<Monitor>,
    version: VersionInfo,
}

struct Monitor {
    id: MonitorId,
    port: Arc<Port>,
    chardev: Arc<Chardev>,
}

impl Monitors {
    /// No monitor yet.
    pub fn new(version: VersionInfo) -> Monitors {
        Monitors { sessions: qmp::monitors::Monitors::new(), all: Vec::new(), version }
    }

    /// Makes a monitor on a chardev; `notify` wakes the main loop.
    ///
    /// # Errors
    /// When the chardev already has a front end.
    pub fn add(
        &mut self,
        chardev: &Arc<Chardev>,
        pretty: bool,
        notify: &Notify,
    ) -> Result<(), devices::chardev::CharError> {
        let port = Arc::new(Port {
            inbox: Mutex::default(),
            waiting: 0.into(),
            wants_input: AtomicBool::new(true),
            notify: notify.clone(),
        });
        chardev.attach(port.clone())?;
        let id = self.sessions.add(pretty);
        self.all.push(Monitor { id, port, chardev: chardev.clone() });
        Ok(())
    }

    /// Deals with all input, has requests carried out, and sends what there is to send.
    pub fn serve(&mut self, vm: &mut Vm) {
        let now = Instant::now();
        self.sessions.deliver(vm, now);
        for monitor in &self.all {
            monitor.take_input(&mut self.sessions, &self.version);
            while vm.exit_status().is_none() && self.sessions.serve_one(monitor.id, vm, now) {
                self.sessions.deliver(vm, now);
                vm.service();
                self.sessions.deliver(vm, now);
            }
        }
        for monitor in &self.all {
            monitor.send(&mut self.sessions);
            if self.sessions.session(monitor.id).is_some_and(|session| session.is_overrun()) {
                tracing::warn!("{}: a client left too many events unread", monitor.chardev.label());
                self.sessions.disconnect(monitor.id);
                monitor.chardev.hang_up();
            }
        }
        for monitor in &self.all {
            let wants = self.sessions.wants_input(monitor.id);
            let wanted = monitor.port.wants_input.swap(wants, Ordering::AcqRel);
            let emptied = monitor.port.waiting.swap(0, Ordering::AcqRel) > 0;
            if wants && (!wanted || emptied) {
                monitor.chardev.accept_input();
            }
        }
    }

    /// When [`serve`](Self::serve) has something to do even if nobody wakes the main loop.
    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.deadline()
    }

    /// Sends what is left as far as clients take it at once; the process is about to end.
    pub fn finish(&mut self, vm: &mut Vm) {
        self.sessions.deliver(vm, Instant::now());
        for monitor in &self.all {
            monitor.send(&mut self.sessions);
            monitor.chardev.close();
        }
    }
}

impl Monitor {
    fn take_input(&self, sessions: &mut qmp::monitors::Monitors, version: &VersionInfo) {
        let inputs = std::mem::take(&mut *self.port.inbox.lock());
        for input in inputs {
            match input {
                Input::Opened => sessions.connect(self.id, version),
                Input::Closed => sessions.disconnect(self.id),
                Input::Data(bytes) => sessions.feed(self.id, &bytes, None),
                Input::Fd(fd) => sessions.feed(self.id, &[], Some(fd)),
            }
        }
    }

    fn send(&self, sessions: &mut qmp::monitors::Monitors) {
        loop {
            let output = sessions.output(self.id);
            if output.is_empty() {
                return;
            }
            let taken = self.chardev.write(output);
            if taken == 0 {
                return;
            }
            sessions.sent(self.id, taken);
        }
    }
}
