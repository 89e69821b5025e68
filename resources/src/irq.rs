//! Interrupts as devices see them: an [`Irq`] handle, not a number.
//!
//! A [`Wire`] is one input pin of the interrupt controller. Any number of [`Line`]s drive it; its
//! level is the OR of theirs. [`Routes`] is the table of GSIs above the wired ones; an entry
//! belongs to the [`Msi`] that uses it and goes when that is dropped.
//!
//! Lines may be driven from any thread; a wire's lock is a leaf (only the hypervisor is called
//! under it). A hostile guest can make a device toggle its line as fast as it accesses registers;
//! that costs one KVM call each time and nothing accumulates.

use std::sync::Arc;

use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::hv::{HvError, Hypervisor, Route, step};

/// A way to interrupt the guest. Cloning shares the same line or message.
#[derive(Clone, Default)]
pub enum Irq {
    /// A wired line.
    Line(Arc<Line>),
    /// A message-signalled interrupt.
    Msi(Arc<Msi>),
    /// Not connected: signals go nowhere.
    #[default]
    None,
}

impl Irq {
    /// Signals once: a message, or a pulse on a line.
    pub fn signal(&self) {
        match self {
            Irq::Line(line) => line.pulse(),
            Irq::Msi(msi) => msi.signal(),
            Irq::None => {}
        }
    }

    /// Drives a line. A message-signalled interrupt is sent on a rising level only.
    pub fn set(&self, high: bool) {
        match self {
            Irq::Line(line) => line.set(high),
            Irq::Msi(msi) if high => msi.signal(),
            Irq::Msi(_) | Irq::None => {}
        }
    }

    /// On load: takes over a level without making an edge, because the interrupt controller's own
    /// state, which already saw that edge, is loaded separately.
    pub fn import(&self, high: bool) {
        if let Irq::Line(line) = self {
            line.import(high);
        }
    }
}

/// One input pin of the interrupt controller, shared by the lines that drive it.
pub struct Wire {
    gsi: u32,
    hv: Arc<dyn Hypervisor>,
    state: Mutex<WireState>,
}

#[derive(Default)]
struct WireState {
    /// How many lines are high.
    high: usize,
}

impl Wire {
    /// The pin with this GSI.
    pub fn new(gsi: u32, hv: Arc<dyn Hypervisor>) -> Arc<Wire> {
        Arc::new(Wire { gsi, hv, state: Mutex::default() })
    }

    /// Connects one more line.
    pub fn line(self: &Arc<Self>) -> Irq {
        Irq::Line(Arc::new(Line { wire: self.clone(), high: Mutex::new(false) }))
    }

    /// The pin's number.
    pub fn gsi(&self) -> u32 {
        self.gsi
    }

    /// Whether any line is high.
    pub fn level(&self) -> bool {
        self.state.lock().high > 0
    }

    fn drive(&self, high: bool, edge: bool) {
        let mut state = self.state.lock();
        let before = state.high > 0;
        // One call for each change of one line, so the count cannot wrap.
        state.high = if high { state.high + 1 } else { state.high.saturating_sub(1) };
        let after = state.high > 0;
        if edge
            && before != after
            && let Err(error) = self.hv.set_line(self.gsi, after)
        {
            tracing::error!("interrupt line {}: {error}", self.gsi);
        }
    }
}

/// One driver of a [`Wire`]. Dropping it lets go of the wire.
pub struct Line {
    wire: Arc<Wire>,
    high: Mutex<bool>,
}

impl Line {
    /// Drives the line high or low.
    pub fn set(&self, high: bool) {
        let mut now = self.high.lock();
        if *now != high {
            *now = high;
            self.wire.drive(high, true);
        }
    }

    /// High, then low.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }

    /// Takes over a level without an edge; see [`Irq::import`].
    pub fn import(&self, high: bool) {
        let mut now = self.high.lock();
        if *now != high {
            *now = high;
            self.wire.drive(high, false);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Address and data of a message-signalled interrupt, as the guest programmed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct MsiMessage {
    /// The address written to; on x86 in 0xFEE0_0000..0xFEF0_0000.
    pub address: u64,
    /// The data written.
    pub data: u32,
}

/// The GSI routing table.
pub struct Routes {
    hv: Arc<dyn Hypervisor>,
    table: Mutex<Table>,
}

struct Table {
    first: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq)]
enum Entry {
    Free,
    Masked,
    Routed {
        message: MsiMessage,
        /// The irqfd is on.
        bound: bool,
    },
}

/// The most message-signalled interrupts of one machine: KVM has 4096 GSIs.
pub const MAX_MSI: usize = 4000;

impl Routes {
    /// An empty table. `first` is the lowest GSI it may hand out: above the wired ones.
    pub fn new(hv: Arc<dyn Hypervisor>, first: u32) -> Arc<Routes> {
        Arc::new(Routes { hv, table: Mutex::new(Table { first, entries: Vec::new() }) })
    }

    /// A new message-signalled interrupt, masked until it is given a message.
    pub fn msi(self: &Arc<Self>) -> Result<Msi, HvError> {
        let fd = EventFd::new(EFD_NONBLOCK)
            .map_err(|e| HvError::new("create the eventfd of an interrupt", e))?;
        let mut table = self.table.lock();
        let free = table.entries.iter().position(|entry| *entry == Entry::Free);
        let index = match free {
            Some(index) => index,
            None if table.entries.len() < MAX_MSI => {
                table.entries.push(Entry::Free);
                table.entries.len() - 1
            }
            None => {
                return Err(HvError::new("allocate a GSI", std::io::ErrorKind::QuotaExceeded));
            }
        };
        table.entries[index] = Entry::Masked;
        Ok(Msi { routes: self.clone(), index, fd })
    }

    /// Gives several interrupts their messages (`None` masks) with one update of KVM's table.
    ///
    /// Masking takes the irqfd away before the route, and unmasking sets the route before the
    /// irqfd: an irqfd without a route would lose its signal.
    ///
    /// # Errors
    /// The first step that KVM refused. The others are done all the same, and what was refused is
    /// tried again with the interrupt's next change.
    pub fn update(&self, changes: &[(&Msi, Option<MsiMessage>)]) -> Result<(), HvError> {
        let mut table = self.table.lock();
        let mut done = Ok(());
        for (msi, message) in changes {
            let was = table.entries[msi.index];
            let bound = matches!(was, Entry::Routed { bound: true, .. });
            table.entries[msi.index] = match (message, was) {
                (Some(message), _) => Entry::Routed { message: *message, bound },
                (None, Entry::Routed { .. }) if bound => {
                    let off = self.hv.irqfd(table.gsi(msi.index), &msi.fd, None, false);
                    if step(&mut done, off) { Entry::Masked } else { was }
                }
                (None, _) => Entry::Masked,
            };
        }
        if step(&mut done, table.publish(&*self.hv)) {
            for (msi, _) in changes {
                let gsi = table.gsi(msi.index);
                if let Entry::Routed { bound: bound @ false, .. } = &mut table.entries[msi.index] {
                    *bound = step(&mut done, self.hv.irqfd(gsi, &msi.fd, None, true));
                }
            }
        }
        done
    }
}

impl Table {
    fn gsi(&self, index: usize) -> u32 {
        self.first + index as u32
    }

    fn publish(&self, hv: &dyn Hypervisor) -> Result<(), HvError> {
        let routes: Vec<Route> = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| match entry {
                Entry::Routed { message, .. } => {
                    Some(Route { gsi: self.gsi(index), message: *message })
                }
                Entry::Free | Entry::Masked => None,
            })
            .collect();
        hv.set_routes(&routes)
    }
}

/// A message-signalled interrupt: an eventfd bound to a route. Dropping it takes the irqfd off,
/// clears the route and frees the GSI.
pub struct Msi {
    routes: Arc<Routes>,
    index: usize,
    fd: EventFd,
}

impl Msi {
    /// Sends the message; while masked, it stays in the eventfd and is sent on unmasking.
    pub fn signal(&self) {
        // The only error is a full counter: then a signal is pending anyway.
        let _ = self.fd.write(1);
    }

    /// Sets the message, or masks the interrupt.
    pub fn set(&self, message: Option<MsiMessage>) -> Result<(), HvError> {
        self.routes.update(&[(self, message)])
    }

    /// The eventfd that signals it, for kernel and out-of-process back ends.
    pub fn fd(&self) -> &EventFd {
        &self.fd
    }
}

impl Drop for Msi {
    fn drop(&mut self) {
        if let Err(error) = self.set(None) {
            tracing::error!("cannot take down an interrupt route: {error}");
        }
        self.routes.table.lock().entries[self.index] = Entry::Free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hv::fake::{Call, Fake};

    #[test]
    fn a_wire_is_the_or_of_its_lines() {
        let hv = Fake::new();
        let wire = Wire::new(9, hv.clone());
        let (a, b) = (wire.line(), wire.line());
        a.set(true);
        b.set(true);
        b.set(true);
        a.set(false);
        assert!(wire.level());
        drop(b);
        assert!(!wire.level());
        assert_eq!(hv.take_calls(), [Call::Line(9, true), Call::Line(9, false)]);
    }

    #[test]
    fn import_makes_no_edge() {
        let hv = Fake::new();
        let wire = Wire::new(4, hv.clone());
        let line = wire.line();
        line.import(true);
        assert!(wire.level());
        assert_eq!(hv.take_calls(), []);
        line.set(false);
        assert_eq!(hv.take_calls(), [Call::Line(4, false)]);
    }

    #[test]
    fn routes_come_before_irqfds_and_go_after_them() {
        let hv = Fake::new();
        let routes = Routes::new(hv.clone(), 24);
        let msi = routes.msi().unwrap();
        let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
        msi.set(Some(message)).unwrap();
        let set = Call::Routes(vec![Route { gsi: 24, message }]);
        assert_eq!(hv.take_calls(), [set.clone(), Call::Irqfd(24, true)]);
        let other = routes.msi().unwrap();
        drop(other);
        assert_eq!(hv.take_calls(), [set]);
        drop(msi);
        assert_eq!(hv.take_calls(), [Call::Irqfd(24, false), Call::Routes(vec![])]);
        let again = routes.msi().unwrap();
        assert_eq!(again.index, 0);
    }

    #[test]
    fn what_is_refused_is_done_with_the_next_change() {
        let hv = Fake::new();
        let routes = Routes::new(hv.clone(), 24);
        let (a, b) = (routes.msi().unwrap(), routes.msi().unwrap());
        let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
        let set = |gsis: &[u32]| {
            Call::Routes(gsis.iter().map(|&gsi| Route { gsi, message }).collect::<Vec<_>>())
        };
        hv.refuse(|call| matches!(call, Call::Routes(_)));
        assert!(routes.update(&[(&a, Some(message)), (&b, Some(message))]).is_err());
        assert_eq!(hv.take_calls(), [set(&[24, 25])], "no irqfd without a route");
        hv.refuse(|call| *call == Call::Irqfd(24, true));
        assert!(routes.update(&[(&a, Some(message)), (&b, Some(message))]).is_err());
        let both = [set(&[24, 25]), Call::Irqfd(24, true), Call::Irqfd(25, true)];
        assert_eq!(hv.take_calls(), both);
        hv.refuse(|call| *call == Call::Irqfd(25, false));
        a.set(Some(message)).unwrap();
        assert_eq!(hv.take_calls(), [set(&[24, 25]), Call::Irqfd(24, true)]);
        assert!(routes.update(&[(&b, None), (&a, None)]).is_err());
        let off = [Call::Irqfd(25, false), Call::Irqfd(24, false), set(&[25])];
        assert_eq!(hv.take_calls(), off, "the route stays under the irqfd that stays");
        hv.refuse(|_| false);
        b.set(None).unwrap();
        assert_eq!(hv.take_calls(), [Call::Irqfd(25, false), set(&[])]);
    }
}
