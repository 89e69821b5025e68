//! Human monitors on character devices: a prompt, and what is typed at it.
//!
//! A `Port` queues what comes in on the chardev's loop; the rest is on the main thread. A hostile
//! client can send anything and read nothing: while it leaves `OUTPUT_PAUSE` bytes unread nothing
//! of it is looked at, so that what waits for it is bounded by that and one command's output. Nor is
//! it while a line of it waits to be carried out, or to be answered.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use devices::chardev::{CharError, Chardev};
use qmp::monitors::{MonitorId, Ticket};
use resources::iol::Notify;

use super::editor::{Editor, Typed};
use super::{Monitor, complete, run, with_returns};
use crate::cli::INTERFACE_VERSION;
use crate::monitor::port::{Input, Port};
use crate::vm::Vm;

/// How many bytes may be unread by the client before no key of it is taken.
const OUTPUT_PAUSE: usize = 64 << 10;

/// The human monitors.
#[derive(Default)]
pub struct Fronts(Vec<Front>);

struct Front {
    id: MonitorId,
    port: Arc<Port>,
    chardev: Arc<Chardev>,
    monitor: Monitor,
    editor: Editor,
    /// What has been taken from the port but not looked at.
    input: VecDeque<Input>,
    output: Vec<u8>,
    /// The descriptor that the client has sent last, for the command that wants one.
    fd: Option<OwnedFd>,
    focus: Focus,
    held: Held,
}

/// Why there is no prompt.
#[derive(Default)]
enum Held {
    /// There is.
    #[default]
    No,
    /// This line cannot be carried out yet.
    Parked(String),
    /// What was asked is answered later.
    Awaits(Ticket),
}

/// Where what is typed goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Focus {
    /// Always here: the chardev is not shared.
    Sole,
    /// Here.
    In,
    /// To another front end of the same chardev.
    Out,
}

impl Fronts {
    /// Makes a monitor on a chardev; `notify` wakes the main loop.
    ///
    /// # Errors
    /// When the chardev already has a front end.
    pub fn add(
        &mut self,
        id: MonitorId,
        chardev: &Arc<Chardev>,
        notify: &Notify,
    ) -> Result<(), CharError> {
        let port = Port::new(notify);
        chardev.attach(port.clone())?;
        self.0.push(Front {
            id,
            port,
            chardev: chardev.clone(),
            monitor: Monitor::default(),
            editor: Editor::default(),
            input: VecDeque::new(),
            output: Vec::new(),
            fd: None,
            focus: Focus::Sole,
            held: Held::No,
        });
        Ok(())
    }

    /// Deals with what was typed, until the machine ends. `after` is called after each command.
    pub fn serve(&mut self, vm: &mut Vm, mut after: impl FnMut(&mut Vm)) {
        for front in &mut self.0 {
            front.serve(vm, &mut after);
        }
    }

    /// Gives the answer that somebody waits for. `false`: nobody here does.
    pub fn answer(&mut self, ticket: Ticket, text: &str) -> bool {
        let awaits = |front: &&mut Front| matches!(front.held, Held::Awaits(it) if it == ticket);
        let Some(front) = self.0.iter_mut().find(awaits) else { return false };
        front.held = Held::No;
        front.output.extend_from_slice(with_returns(text).as_bytes());
        front.editor.show(&mut front.output);
        true
    }

    /// Sends what is left as far as clients take it at once; the process is about to end.
    pub fn finish(&mut self) {
        for front in &mut self.0 {
            front.send();
            front.chardev.close();
        }
    }
}

impl Front {
    fn serve(&mut self, vm: &mut Vm, after: &mut impl FnMut(&mut Vm)) {
        self.input.extend(self.port.take());
        match std::mem::take(&mut self.held) {
            Held::Parked(line) => self.line(line, vm, after),
            other => self.held = other,
        }
        loop {
            self.send();
            if self.output.len() >= OUTPUT_PAUSE || vm.exit_status().is_some() {
                break;
            }
            match self.next_input() {
                Some(input) => self.take(input, vm, after),
                None => break,
            }
        }
        let unsent = !self.output.is_empty() && self.is_in_focus();
        let held = !matches!(self.held, Held::No);
        self.port.set_unsent(unsent || held || !self.input.is_empty());
        if held || !self.input.is_empty() {
            self.port.pause();
        } else if self.port.taken(self.output.len() < OUTPUT_PAUSE) {
            self.chardev.accept_input();
        }
    }

    /// The next piece of input to look at: while an answer is awaited only that its client goes, and
    /// while a line waits none.
    fn next_input(&mut self) -> Option<Input> {
        match self.held {
            Held::No => self.input.pop_front(),
            Held::Parked(_) => None,
            Held::Awaits(_) => {
                if !matches!(self.input.front(), Some(Input::Closed)) {
                    return None;
                }
                self.held = Held::No;
                self.input.pop_front()
            }
        }
    }

    fn take(&mut self, input: Input, vm: &mut Vm, after: &mut impl FnMut(&mut Vm)) {
        match input {
            Input::Opened => {
                vm.fdsets.client_came();
                self.editor = Editor::default();
                self.fd = None;
                self.output.clear();
                let banner =
                    format!("QEMU {INTERFACE_VERSION} monitor - type 'help' for more information");
                self.output.extend_from_slice(banner.as_bytes());
                self.output.extend_from_slice(b"\r\n");
                if self.is_in_focus() {
                    self.editor.show(&mut self.output);
                }
            }
            Input::Closed => vm.fdsets.client_left(),
            Input::Focus(true) => {
                self.focus = Focus::In;
                self.editor = Editor::default();
                self.editor.show(&mut self.output);
            }
            Input::Focus(false) => {
                if std::mem::replace(&mut self.focus, Focus::Out) == Focus::In {
                    self.chardev.write(b"\r\n");
                }
            }
            Input::Fd(fd) => self.fd = Some(fd),
            Input::Data(bytes) => {
                for (index, byte) in bytes.iter().enumerate() {
                    if self.key(*byte, vm, after) && !self.goes_on(vm) {
                        let rest = bytes.get(index.saturating_add(1)..).unwrap_or_default();
                        self.input.push_front(Input::Data(rest.to_vec()));
                        break;
                    }
                }
            }
        }
    }

    /// Whether what the client types is looked at.
    fn goes_on(&self, vm: &Vm) -> bool {
        let reads = self.output.len() < OUTPUT_PAUSE;
        reads && matches!(self.held, Held::No) && vm.exit_status().is_none()
    }

    /// Takes a byte. Whether it made a command run, or words be looked for.
    fn key(&mut self, byte: u8, vm: &mut Vm, after: &mut impl FnMut(&mut Vm)) -> bool {
        match self.editor.key(byte, &self.monitor.history, &mut self.output) {
            Typed::Nothing => false,
            Typed::Complete => {
                let (typed, words) = complete::words(vm, &self.editor.before_cursor());
                self.editor.complete(typed, &words, &mut self.output);
                true
            }
            Typed::Line(line) => {
                self.monitor.history.add(&line);
                self.line(line, vm, after);
                true
            }
        }
    }

    /// Carries out a line, or keeps it until that can be.
    fn line(&mut self, line: String, vm: &mut Vm, after: &mut impl FnMut(&mut Vm)) {
        if vm.line_must_wait(&line) {
            self.held = Held::Parked(line);
            return;
        }
        vm.context.monitor = Some(self.id);
        vm.context.fd = self.fd.take();
        let text = run(vm, &mut self.monitor, &line);
        vm.context.monitor = None;
        self.fd = vm.context.fd.take();
        self.held = vm.context.later.take().map_or(Held::No, Held::Awaits);
        self.output.extend_from_slice(with_returns(&text).as_bytes());
        after(vm);
        if vm.exit_status().is_none() && matches!(self.held, Held::No) {
            self.editor.show(&mut self.output);
        }
    }

    /// Whether what is typed comes here by the latest that is known.
    fn is_in_focus(&self) -> bool {
        let news = self.input.iter().rev().find_map(|input| match input {
            Input::Focus(here) => Some(*here),
            _ => None,
        });
        news.unwrap_or(self.focus != Focus::Out)
    }

    /// Sends as much as the client takes. Out of focus nothing is shown.
    fn send(&mut self) {
        if self.input.iter().any(|input| matches!(input, Input::Opened)) {
            // The client for whom this was has gone, and another has come.
            self.output.clear();
        }
        while self.is_in_focus() && !self.output.is_empty() {
            // What a client did not take before it went is for no other.
            let taken = self.port.write(&self.chardev, &self.output);
            let taken = taken.unwrap_or(self.output.len());
            if taken == 0 {
                break;
            }
            self.output.drain(..taken.min(self.output.len()));
        }
        if self.output.is_empty() && self.output.capacity() > OUTPUT_PAUSE {
            self.output = Vec::new();
        }
    }
}
