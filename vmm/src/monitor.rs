//! Monitors: QMP sessions on character devices.
//!
//! A `Port` queues what comes in on a chardev and wakes the main loop. [`Monitors`] is the main
//! thread's side: it feeds the sessions, has the machine carry out requests and sends what they
//! answer. Human monitors have their own part of it, [`Fronts`].
//!
//! A hostile client can send anything and read nothing: input is taken a few KiB at a time and
//! only while the session wants it, and a session whose output grows past its limit is closed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use devices::chardev::{CharError, Chardev};
use qmp::VersionInfo;
use qmp::monitors::MonitorId;
use resources::fdset::FdSets;
use resources::iol::Notify;
use serde_json::Value;

use crate::chardevs::LAST_WORDS;
use crate::hmp::front::Fronts;
use crate::hmp::with_returns;
use crate::vm::Vm;

pub(crate) mod port;

use port::{Input, Port};

/// All monitors.
pub struct Monitors {
    sessions: qmp::monitors::Monitors,
    all: Vec<Monitor>,
    version: VersionInfo,
    human: Fronts,
    fdsets: FdSets,
}

struct Monitor {
    id: MonitorId,
    port: Arc<Port>,
    chardev: Arc<Chardev>,
    /// What came in and waits for the client to read what was said before.
    waiting: VecDeque<Input>,
    has_client: bool,
}

impl Monitors {
    /// No monitor yet.
    pub fn new(version: VersionInfo) -> Monitors {
        Monitors {
            sessions: qmp::monitors::Monitors::new(),
            all: Vec::new(),
            version,
            human: Fronts::default(),
            fdsets: FdSets::global().clone(),
        }
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
    ) -> Result<(), CharError> {
        let port = Port::new(notify);
        chardev.attach(port.clone())?;
        let id = self.sessions.add(pretty);
        let chardev = chardev.clone();
        let waiting = VecDeque::new();
        self.all.push(Monitor { id, port, chardev, waiting, has_client: false });
        Ok(())
    }

    /// Makes a human monitor on a chardev.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_human(&mut self, chardev: &Arc<Chardev>, notify: &Notify) -> Result<(), CharError> {
        // One without a client: its number is what matters.
        self.human.add(self.sessions.add(false), chardev, notify)
    }

    /// Greets clients that have come while the machine is still being made; what they ask waits.
    pub fn greet(&mut self) {
        for monitor in &mut self.all {
            if monitor.port.take_opened() {
                monitor.take_input(Input::Opened, &mut self.sessions, &self.version, &self.fdsets);
                monitor.send(&mut self.sessions);
            }
        }
    }

    /// Deals with all input, has requests carried out, and sends what there is to send.
    pub fn serve(&mut self, vm: &mut Vm) {
        let now = Instant::now();
        self.sessions.deliver(vm, now);
        self.answer(vm);
        self.human.serve(vm, |vm| {
            self.sessions.deliver(vm, now);
            vm.service();
            self.sessions.deliver(vm, now);
        });
        for monitor in &mut self.all {
            monitor.waiting.extend(monitor.port.take());
            loop {
                run_requests(&mut self.sessions, monitor.id, vm, now);
                monitor.send(&mut self.sessions);
                let Some(input) = monitor.next_input(&mut self.sessions) else { break };
                monitor.take_input(input, &mut self.sessions, &self.version, &self.fdsets);
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
            let held = self.sessions.session(monitor.id).is_some_and(|session| session.is_held());
            monitor.port.set_unsent(held || !self.sessions.output(monitor.id).is_empty());
            let waits = !monitor.waiting.is_empty();
            let session = self.sessions.session(monitor.id);
            // The client took the last of the output just now: no news of room will come.
            if session.is_some_and(|session| session.is_ready() || waits && session.wants_input()) {
                monitor.port.wake();
            }
            if waits {
                monitor.port.pause();
            } else if monitor.port.taken(self.sessions.wants_input(monitor.id)) {
                monitor.chardev.accept_input();
            }
        }
    }

    /// Gives the answers that clients have been waiting for.
    fn answer(&mut self, vm: &mut Vm) {
        for (ticket, text) in std::mem::take(&mut vm.answers) {
            if !self.human.answer(ticket, &text) {
                // Who has gone is not answered.
                self.sessions.answer(ticket, Ok(Value::String(with_returns(&text))));
            }
        }
    }

    /// When [`serve`](Self::serve) has something to do even if nobody wakes the main loop.
    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.deadline()
    }

    /// Sends what is left as far as clients take it in a second; the process is about to end.
    pub fn finish(&mut self, vm: &mut Vm) {
        let now = Instant::now();
        self.sessions.deliver(vm, now);
        self.answer(vm);
        for monitor in &self.all {
            monitor.send(&mut self.sessions);
            monitor.chardev.push(self.sessions.output(monitor.id));
            monitor.chardev.flush(now + LAST_WORDS);
            monitor.chardev.close();
        }
        self.human.finish();
    }
}

/// Has the machine carry out the requests of a session that are whole.
fn run_requests(sessions: &mut qmp::monitors::Monitors, id: MonitorId, vm: &mut Vm, now: Instant) {
    while vm.exit_status().is_none() && sessions.serve_one(id, vm, now) {
        sessions.deliver(vm, now);
        vm.service();
        sessions.deliver(vm, now);
    }
}

impl Monitor {
    /// The next piece of what came in that can be looked at. What came later, a descriptor or the
    /// end, is for later: a client first reads. One that waits for an answer may go.
    fn next_input(&mut self, sessions: &mut qmp::monitors::Monitors) -> Option<Input> {
        let goes = matches!(self.waiting.front(), Some(Input::Closed));
        let looks = sessions
            .session(self.id)
            .is_none_or(|session| session.wants_input() || goes && session.awaits().is_some());
        if looks { self.waiting.pop_front() } else { None }
    }

    fn take_input(
        &mut self,
        input: Input,
        sessions: &mut qmp::monitors::Monitors,
        version: &VersionInfo,
        fdsets: &FdSets,
    ) {
        match input {
            Input::Opened => {
                sessions.connect(self.id, version);
                if !std::mem::replace(&mut self.has_client, true) {
                    fdsets.client_came();
                }
            }
            Input::Closed => {
                sessions.disconnect(self.id);
                if std::mem::take(&mut self.has_client) {
                    fdsets.client_left();
                }
            }
            Input::Data(bytes) => sessions.feed(self.id, &bytes, None),
            Input::Fd(fd) => sessions.feed(self.id, &[], Some(fd)),
            Input::Focus(_) => {}
        }
    }

    fn send(&self, sessions: &mut qmp::monitors::Monitors) {
        loop {
            let output = sessions.output(self.id);
            if output.is_empty() {
                return;
            }
            let gone = self.waiting.iter().any(|input| matches!(input, Input::Closed));
            // What a client did not take before it went is for no other.
            let taken = if gone { None } else { self.port.write(&self.chardev, output) };
            let taken = taken.unwrap_or(output.len());
            if taken == 0 {
                return;
            }
            sessions.sent(self.id, taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Accel, Board};
    use crate::mailbox::Mailbox;
    use crate::vm::Policy;
    use devices::chardev::{Backend, CharEvent, CharFrontend as _, Null};
    use port::MAX_FDS;
    use resources::hv::fake::Fake;
    use resources::iol::{Either, Loop, race};
    use std::time::Duration;

    /// A machine and one monitor, whose client has come and takes all output at once.
    fn monitored() -> (Vm, Monitors, Arc<Port>, Loop, Notify) {
        let notify = Notify::new();
        let main_loop = Loop::new("test").unwrap();
        let board = Board::new(Accel::Qtest(Fake::unrecorded()));
        let mailbox = Mailbox::new(notify.clone());
        let vm = Vm::new(board, Vec::new(), mailbox, Policy::default());
        let chardev = Chardev::open("m", Backend::Null(Null {}), &main_loop.handle()).unwrap();
        let mut monitors = Monitors::new(crate::version());
        monitors.add(&chardev, false, &notify).unwrap();
        let port = monitors.all[0].port.clone();
        port.event(CharEvent::Opened);
        (vm, monitors, port, main_loop, notify)
    }

    #[test]
    fn a_client_that_asks_for_much_and_reads_it_is_heard_to_the_end() {
        let (mut vm, mut monitors, port, mut main_loop, notify) = monitored();
        let much = r#"{"execute":"query-qmp-schema"}"#.repeat(400);
        let text = format!(r#"{{"execute":"qmp_capabilities"}}{much}{{"execute":"quit"}}"#);
        port.receive(text.as_bytes());
        let local = main_loop.local().clone();
        while vm.exit_status().is_none() {
            let late = local.sleep(Duration::from_secs(60));
            assert_eq!(main_loop.run(race(notify.notified(), late)), Either::Left(()));
            monitors.serve(&mut vm);
        }
    }

    #[test]
    fn a_client_that_says_its_piece_and_leaves_is_heard() {
        let (mut vm, mut monitors, port, _loop, _notify) = monitored();
        port.receive(br#"{"execute":"qmp_capabilities"}{"execute":"quit"}"#);
        port.event(CharEvent::Closed);
        assert!(port.owes_output());
        for _ in 0..MAX_FDS {
            assert!(port.can_receive() > 0);
            port.receive_fd(std::fs::File::open("/dev/null").unwrap().into());
        }
        assert_eq!(port.can_receive(), 0);
        monitors.serve(&mut vm);
        assert_eq!(vm.exit_status(), Some(0));
        assert!(!port.owes_output());
    }
}
