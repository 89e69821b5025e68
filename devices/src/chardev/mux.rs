//! One chardev shared by up to four front ends, the keyboard going to one of
//! them: a serial console and a monitor on the same terminal.
//!
//! Each front end has a [`Chardev`] of its own, a slot. Output of all slots
//! goes to the shared chardev; its input goes to the slot in focus, but for the
//! commands that the escape key begins. A slot keeps some input its front end
//! has no room for yet, so that commands typed after it still work.
//!
//! Input and commands run on the chardev's loop; output comes from any thread. Lock: one leaf mutex
//! around slots and focus, not held while a front end runs; one around the time stamps of the
//! output, taken within a slot's output lock and outside the shared chardev's. Who types can send
//! anything: at most 4 KiB are kept for each slot, and the escape key's commands include quitting.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use resources::iol;

use super::port::{Port, Sink};
use super::{CharError, CharEvent, CharFrontend, Chardev, Control, ModemLines, Size};

/// The usual escape key, Ctrl-A.
pub const ESCAPE: u8 = 1;

const MAX_SLOTS: usize = 4;

/// Input kept per slot, as much as a terminal itself keeps.
const KEPT: usize = 4096;

/// The sharing of one chardev.
pub struct Mux {
    label: String,
    filename: String,
    base: Arc<Chardev>,
    on: iol::Handle,
    escape: Option<u8>,
    quit: Box<dyn Fn() + Send + Sync>,
    stamps: Arc<Mutex<Stamps>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: [Option<Slot>; MAX_SLOTS],
    focus: usize,
    /// The shared chardev has a peer.
    open: bool,
    /// The escape key was the last input.
    escaped: bool,
}

struct Slot {
    port: Arc<Port>,
    kept: VecDeque<u8>,
}

impl Mux {
    /// Shares `base`, which lives on the loop `on`; `label` and `filename` are
    /// what its slots are called. `escape` begins a command, no key if `None`;
    /// `quit` is called, on the loop's thread, when one asks for the end.
    ///
    /// # Errors
    /// [`CharError::InUse`] when `base` has a front end.
    pub fn new(
        (label, filename): (&str, &str),
        base: Arc<Chardev>,
        on: &iol::Handle,
        escape: Option<u8>,
        quit: impl Fn() + Send + Sync + 'static,
    ) -> Result<Arc<Mux>, CharError> {
        let mux = Arc::new(Mux {
            label: label.to_owned(),
            filename: filename.to_owned(),
            base,
            on: on.clone(),
            escape,
            quit: Box::new(quit),
            stamps: Arc::default(),
            state: Mutex::default(),
        });
        mux.base.attach(Arc::new(Input(Arc::downgrade(&mux))))?;
        Ok(mux)
    }

    /// A chardev for one more front end. The first one made is in focus. It
    /// goes on working for as long as the mux is there, and makes place for
    /// another when it is dropped.
    ///
    /// # Errors
    /// [`CharError::Open`] when there are four already.
    pub fn slot(self: &Arc<Self>) -> Result<Arc<Chardev>, CharError> {
        let label = &self.label;
        let port = Port::new(label, &self.on);
        port.set_filename(self.filename.clone());
        let (index, open) = {
            let mut state = self.state.lock();
            let Some(index) = state.slots.iter().position(Option::is_none) else {
                return Err(CharError::Open(format!(
                    "chardev '{label}' has {MAX_SLOTS} front ends already"
                )));
            };
            if let Some(slot) = state.slots.get_mut(index) {
                *slot = Some(Slot { port: port.clone(), kept: VecDeque::new() });
            }
            (index, state.open)
        };
        // At once: what is written before the loop has its turn is not lost.
        port.set_sink(Box::new(Output {
            base: self.base.clone(),
            stamps: self.stamps.clone(),
            slot: (Arc::downgrade(self), index),
        }));
        port.set_focus(index == self.focus());
        if open {
            port.input_begins();
        }
        let mux = Arc::downgrade(self);
        port.spawn(move |_, port| async move {
            loop {
                port.input.notified().await;
                let Some(mux) = mux.upgrade() else { return };
                mux.deliver_kept(index);
            }
        });
        Ok(Chardev::of(port))
    }

    /// How many front ends there are.
    pub fn users(&self) -> usize {
        self.ports().iter().filter(|port| port.is_attached()).count()
    }

    /// What it is connected to, as query-chardev tells.
    pub fn filename(&self) -> &str {
        &self.filename
    }

    /// What is shared.
    pub fn base(&self) -> &Arc<Chardev> {
        &self.base
    }

    fn port(&self, index: usize) -> Option<Arc<Port>> {
        self.state.lock().slots.get(index)?.as_ref().map(|slot| slot.port.clone())
    }

    fn ports(&self) -> Vec<Arc<Port>> {
        self.state.lock().slots.iter().flatten().map(|slot| slot.port.clone()).collect()
    }

    fn focus(&self) -> usize {
        self.state.lock().focus
    }

    /// Gives a slot's front end what was kept for it, as far as it has room.
    /// Loop thread only, like all that delivers.
    fn deliver_kept(&self, index: usize) {
        let Some(port) = self.port(index) else { return };
        loop {
            let taker = port.taker();
            let data: Vec<u8> = {
                let mut state = self.state.lock();
                let Some(Some(slot)) = state.slots.get_mut(index) else { return };
                let count = taker.room.min(slot.kept.len());
                slot.kept.drain(..count).collect()
            };
            if data.is_empty() {
                break;
            }
            taker.deliver(&data);
        }
        // There may be room where there was none.
        self.base.accept_input();
    }

    fn input(&self, byte: u8) {
        let Some(escape) = self.escape else { return self.keep(byte) };
        let escaped = {
            let mut state = self.state.lock();
            let escaped = state.escaped;
            state.escaped = !escaped && byte == escape;
            escaped
        };
        if escaped {
            self.command(byte, escape);
        } else if byte != escape {
            self.keep(byte);
        }
    }

    fn keep(&self, byte: u8) {
        let mut state = self.state.lock();
        let focus = state.focus;
        if let Some(Some(slot)) = state.slots.get_mut(focus) {
            slot.kept.push_back(byte);
        }
    }

    fn command(&self, byte: u8, escape: u8) {
        match byte {
            _ if byte == escape => self.keep(byte),
            b'h' | b'?' => self.print(&help(escape)),
            b'x' => {
                self.print("vmm: terminated\r\n");
                (self.quit)();
            }
            b'b' => {
                // In its place among the input, if that can be taken.
                let focus = self.focus();
                self.deliver_kept(focus);
                if let Some(port) = self.port(focus) {
                    port.deliver_break();
                }
            }
            b'c' => self.cycle(),
            b't' => self.stamps.lock().toggle(),
            _ => {}
        }
    }

    /// Puts the next slot into focus. Loop thread only.
    fn cycle(&self) {
        let (before, after) = {
            let mut state = self.state.lock();
            let before = state.focus;
            let others = (before..MAX_SLOTS).skip(1).chain(0..=before);
            let used = |slot: &usize| state.slots.get(*slot).is_some_and(Option::is_some);
            state.focus = others.into_iter().find(used).unwrap_or(0);
            (before, state.focus)
        };
        if before != after {
            [(before, false), (after, true)].into_iter().for_each(|(slot, focus)| {
                if let Some(port) = self.port(slot) {
                    port.set_focus(focus);
                }
            });
        }
    }

    /// A slot's chardev is gone.
    fn free(self: &Arc<Self>, index: usize) {
        let slot = {
            let mut state = self.state.lock();
            state.slots.get_mut(index).and_then(Option::take)
        };
        if slot.is_some() && self.focus() == index {
            let mux = self.clone();
            self.on.post(move |_| {
                if mux.port(index).is_none() {
                    mux.cycle();
                }
            });
        }
    }

    /// A message of the mux itself, of no consequence if it does not fit.
    fn print(&self, text: &str) {
        self.base.write(text.as_bytes());
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        for port in self.ports() {
            port.close();
        }
        self.base.detach();
    }
}

fn help(escape: u8) -> String {
    // A control key prints as the letter it is typed with.
    let key = match escape {
        1..=26 => format!("C-{}", char::from(escape | 0x60)),
        _ => char::from(escape).escape_default().to_string(),
    };
    let lines = [
        ("h", "print this help"),
        ("x", "end the virtual machine"),
        ("b", "send a break"),
        ("c", "switch between console and monitor"),
        ("t", "begin or end stamping lines with the time"),
        (key.as_str(), "send the escape key itself"),
    ];
    let mut text = String::from("\r\n");
    for (then, does) in lines {
        text.push_str(&format!("{key} {then:<4} {does}\r\n"));
    }
    text
}

/// The front end of the shared chardev.
struct Input(Weak<Mux>);

impl CharFrontend for Input {
    fn can_receive(&self) -> usize {
        let Some(mux) = self.0.upgrade() else { return 0 };
        let state = mux.state.lock();
        match state.slots.get(state.focus) {
            Some(Some(slot)) => KEPT.saturating_sub(slot.kept.len()),
            _ => 0,
        }
    }

    fn receive(&self, data: &[u8]) {
        let Some(mux) = self.0.upgrade() else { return };
        for byte in data {
            let before = mux.focus();
            mux.input(*byte);
            if mux.focus() != before {
                mux.deliver_kept(before);
            }
        }
        mux.deliver_kept(mux.focus());
    }

    fn event(&self, event: CharEvent) {
        let Some(mux) = self.0.upgrade() else { return };
        if event == CharEvent::Break {
            if let Some(port) = mux.port(mux.focus()) {
                port.deliver_break();
            }
            return;
        }
        if event == CharEvent::Resized {
            mux.ports().iter().for_each(|port| port.deliver_event(event));
            return;
        }
        mux.state.lock().open = event == CharEvent::Opened;
        for port in mux.ports() {
            match event {
                CharEvent::Opened => port.input_begins(),
                _ => port.input_ended(),
            }
        }
    }

    fn owes_output(&self) -> bool {
        self.0.upgrade().is_some_and(|mux| mux.ports().iter().any(|port| port.owes_output()))
    }

    fn writable(&self) {
        let Some(mux) = self.0.upgrade() else { return };
        for port in mux.ports() {
            port.drained();
        }
    }
}

/// Time stamps before the lines of output.
#[derive(Default)]
struct Stamps {
    on: bool,
    /// When the first one was made.
    since: Option<Instant>,
    line_begins: bool,
}

impl Stamps {
    fn toggle(&mut self) {
        *self = Stamps { on: !self.on, ..Stamps::default() };
    }

    /// The stamp for the line that begins.
    fn text(&mut self) -> String {
        let ms = self.since.get_or_insert_with(Instant::now).elapsed().as_millis();
        let (s, ms) = (ms / 1000, ms % 1000);
        format!("[{:02}:{:02}:{:02}.{ms:03}] ", s / 3600, s / 60 % 60, s % 60)
    }
}

/// The way out of a slot.
struct Output {
    base: Arc<Chardev>,
    stamps: Arc<Mutex<Stamps>>,
    slot: (Weak<Mux>, usize),
}

impl Output {
    fn write_stamped(&self, data: &[u8], stamps: &mut Stamps) -> usize {
        let end = data.iter().position(|byte| *byte == b'\n');
        let line = end.and_then(|end| data.get(..=end)).unwrap_or(data);
        let taken = if stamps.line_begins {
            let (stamped, taken) = self.base.port().write_after(stamps.text().as_bytes(), line);
            stamps.line_begins = !stamped;
            taken
        } else {
            self.base.write(line)
        };
        stamps.line_begins |= end.is_some() && taken == line.len();
        taken
    }
}

impl Sink for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut stamps = self.stamps.lock();
        let taken = match stamps.on {
            true => self.write_stamped(data, &mut stamps),
            false => self.base.write(data),
        };
        match taken {
            0 if !data.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.base.port().fd()
    }

    fn control(&mut self, control: Control) {
        self.base.control(control);
    }

    fn modem_lines(&self) -> Option<ModemLines> {
        self.base.modem_lines()
    }

    fn size(&self) -> Option<Size> {
        self.base.size()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let (mux, index) = &self.slot;
        if let Some(mux) = mux.upgrade() {
            mux.free(*index);
        }
    }
}
