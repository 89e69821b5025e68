//! What every virtio transport has in common: the status machine, feature negotiation, the queues'
//! registers, and the interrupts (sections 2.1 to 2.6, 3.1 and 4.1.4.3).
//!
//! [`Transport`] is called on vCPU threads and the main thread behind the mutex of the function it
//! is part of. The tasks that serve queues reach [`Lines`] only, by atomics and one leaf lock
//! around the interrupt pin. A hostile guest reaches every register with every value at any time:
//! what cannot be is ignored and logged, and what a running queue cannot survive makes the device
//! need a reset. A hostile saved state is checked in full before the device runs again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use resources::device::{put_value, value_of};
use resources::guest_error;
use resources::ram::GuestMemory;
use resources::state::{Blob, StateError, invalid};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::port::{ConfigIrq, Interrupts, Port, QueueIrq};
use super::queue::{Layout, Position, Queue, is_size};
use super::{Activation, Spec, VirtioDevice, feature};

mod lines;
mod state;
#[cfg(test)]
mod tests;

use lines::{ISR_CONFIG, ISR_QUEUE};
pub use lines::{Lines, NO_VECTOR, Wires};

/// Bits of the device status (section 2.1).
pub mod status {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 0x40;
    pub const FAILED: u8 = 0x80;
}

/// What a transport offers its drivers besides the features of the device, as users set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Tables of descriptors.
    pub indirect_desc: bool,
    /// Event indices.
    pub event_idx: bool,
    /// DMA by the platform's rules.
    pub iommu_platform: bool,
    /// Packed rings.
    pub packed: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Offer { indirect_desc: true, event_idx: true, iommu_platform: false, packed: false }
    }
}

impl Offer {
    fn features(self) -> u64 {
        let bit = |on: bool, bit| if on { bit } else { 0 };
        feature::VERSION_1
            | bit(self.indirect_desc, feature::INDIRECT_DESC)
            | bit(self.event_idx, feature::EVENT_IDX)
            | bit(self.iommu_platform, feature::ACCESS_PLATFORM)
            | bit(self.packed, feature::RING_PACKED)
    }
}

/// The eventfds by which a driver kicks its queues, one for each.
///
/// # Errors
/// When the host has none left.
pub fn kicks(queues: usize) -> std::io::Result<Vec<Arc<EventFd>>> {
    (0..queues).map(|_| EventFd::new(EFD_NONBLOCK).map(Arc::new)).collect()
}

/// The registers of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct QueueRegs {
    layout: Layout,
    enabled: bool,
    /// How far it has come, while the device is stopped.
    position: Position,
}

/// A device with the registers that a driver operates it by.
pub struct Transport {
    device: Box<dyn VirtioDevice>,
    spec: Spec,
    offered: u64,
    memory: Arc<GuestMemory>,
    lines: Arc<Lines>,
    kicks: Vec<Arc<EventFd>>,
    queues: Vec<QueueRegs>,
    status: u8,
    /// Which half of the features is seen, of the device's and of the driver's.
    device_select: u32,
    driver_select: u32,
    driver_features: u64,
    queue_select: u16,
    /// The machine runs.
    running: bool,
    /// The device was started and not stopped.
    active: bool,
}

impl Transport {
    /// A device as after power-on. `name` is its path; `kicks` are of [`kicks`].
    pub fn new(
        name: &str,
        device: Box<dyn VirtioDevice>,
        offer: Offer,
        memory: Arc<GuestMemory>,
        wires: Arc<dyn Wires>,
        kicks: Vec<Arc<EventFd>>,
    ) -> Transport {
        let spec = device.spec();
        Transport {
            offered: spec.features | offer.features() & device.ring_features(),
            lines: Arc::new(Lines::new(name, wires, spec.queues.len())),
            queues: power_on(&spec),
            device,
            spec,
            memory,
            kicks,
            status: 0,
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            queue_select: 0,
            running: false,
            active: false,
        }
    }

    /// What the device is.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The device.
    pub fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    /// The device.
    pub fn device_mut(&mut self) -> &mut dyn VirtioDevice {
        &mut *self.device
    }

    #[cfg(test)]
    pub(crate) fn set_memory(&mut self, memory: Arc<GuestMemory>) {
        self.memory = memory;
    }

    /// The eventfds by which a driver kicks, one for each queue.
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// The interrupts.
    pub fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }

    /// A driver's kick that came as a register access.
    pub fn kick(&self, queue: u64) {
        if let Some(kick) = usize::try_from(queue).ok().and_then(|queue| self.kicks.get(queue)) {
            // The only error is a full counter: then a kick is pending anyway.
            let _ = kick.write(1);
        }
    }

    /// The status as the driver reads it.
    pub fn status(&self) -> u8 {
        let broken = self.lines.needs_reset.load(Ordering::Acquire);
        self.status | if broken { status::NEEDS_RESET } else { 0 }
    }

    fn queue(&self) -> Option<&QueueRegs> {
        self.queues.get(usize::from(self.queue_select))
    }

    fn queue_mut(&mut self) -> Option<&mut QueueRegs> {
        self.queues.get_mut(usize::from(self.queue_select))
    }

    fn name(&self) -> &str {
        &self.lines.name
    }

    /// Reads the common configuration (section 4.1.4.3).
    pub fn read_common(&self, offset: u64, data: &mut [u8]) {
        let half = |features: u64, select: u32| match select {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        let load = |vector: Option<&AtomicU16>| {
            vector.map_or(NO_VECTOR, |vector| vector.load(Ordering::Relaxed))
        };
        let lines = &self.lines;
        let regs = self.queue();
        let layout = regs.map(|queue| queue.layout).unwrap_or_default();
        let vector = load(lines.queue_vectors.get(usize::from(self.queue_select)));
        let fields: [(usize, usize, u64); 18] = [
            (0, 4, self.device_select.into()),
            (4, 4, half(self.offered, self.device_select)),
            (8, 4, self.driver_select.into()),
            (12, 4, half(self.driver_features, self.driver_select)),
            (16, 2, load(Some(&lines.config_vector)).into()),
            (18, 2, u64::try_from(self.queues.len()).unwrap_or(0)),
            (20, 1, self.status().into()),
            (21, 1, lines.generation.load(Ordering::Acquire).into()),
            (22, 2, self.queue_select.into()),
            (24, 2, layout.size.into()),
            (26, 2, vector.into()),
            (28, 2, regs.is_some_and(|queue| queue.enabled).into()),
            // Where to kick, and what with.
            (30, 2, self.queue_select.into()),
            (32, 8, layout.desc),
            (40, 8, layout.driver),
            (48, 8, layout.device),
            (56, 2, self.queue_select.into()),
            // Single queues cannot be reset.
            (58, 2, 0),
        ];
        let mut all = [0_u8; 64];
        for (at, len, value) in fields {
            if let Some(field) = at.checked_add(len).and_then(|end| all.get_mut(at..end)) {
                put_value(field, value);
            }
        }
        let from = usize::try_from(offset).ok().and_then(|from| all.get(from..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    /// Writes the common configuration. Registers are written as a whole; those of 64 bits also
    /// by halves.
    pub fn write_common(&mut self, offset: u64, data: &[u8]) {
        let value = value_of(data);
        let [b0, b1, b2, b3, ..] = value.to_le_bytes();
        let (low16, low32) = (u16::from_le_bytes([b0, b1]), u32::from_le_bytes([b0, b1, b2, b3]));
        match (offset, data.len()) {
            (0, 4) => self.device_select = low32,
            (8, 4) => self.driver_select = low32,
            (12, 4) => self.write_features(low32),
            (16, 2) => {
                let vector = self.vector(low16);
                self.lines.config_vector.store(vector, Ordering::Relaxed);
            }
            (20, 1) => self.write_status(b0),
            (22, 2) => self.queue_select = low16,
            (26, 2) => {
                let (select, vector) = (usize::from(self.queue_select), self.vector(low16));
                if let Some(place) = self.lines.queue_vectors.get(select)
                    && place.swap(vector, Ordering::SeqCst) != vector
                {
                    self.rewired();
                }
            }
            (24, 2) => self.write_size(low16),
            (28, 2) => self.write_enable(low16),
            (32..56, 4 | 8) => self.write_ring(offset, data.len(), value),
            (4 | 18 | 21 | 30 | 56 | 58, _) => {}
            _ => guest_error!(
                self.name(),
                "write of {} bytes to register {offset:#x} of the common configuration",
                data.len()
            ),
        }
    }

    /// A vector as it is kept: none, if there is no message of that number.
    fn vector(&self, vector: u16) -> u16 {
        if vector < self.lines.wires.messages() { vector } else { NO_VECTOR }
    }

    fn write_features(&mut self, half: u32) {
        if self.status & status::FEATURES_OK != 0 {
            guest_error!(self.name(), "features written after they were agreed on");
            return;
        }
        let (old, half) = (self.driver_features, u64::from(half));
        self.driver_features = match self.driver_select {
            0 => old & !0xffff_ffff | half,
            1 => old & 0xffff_ffff | half << 32,
            _ => old,
        };
    }

    fn write_size(&mut self, size: u16) {
        let index = usize::from(self.queue_select);
        let most = self.spec.queues.get(index).copied().unwrap_or(0);
        if self.guard("size") && is_size(size, self.driver_features) && size <= most {
            if let Some(queue) = self.queue_mut() {
                queue.layout.size = size;
            }
        } else {
            guest_error!(self.name(), "queue {index} cannot have {size} entries");
        }
    }

    fn write_enable(&mut self, value: u16) {
        let index = self.queue_select;
        if value != 1 || self.status & status::DRIVER_OK != 0 {
            guest_error!(self.name(), "{value} written to the enable register of queue {index}");
        } else if let Some(queue) = self.queue_mut() {
            queue.enabled = true;
        }
    }

    /// Whether the selected queue can still be changed. A driver that moves a ring which the
    /// device uses has gone wrong.
    fn guard(&self, what: &str) -> bool {
        let enabled = self.queue().is_some_and(|queue| queue.enabled);
        if enabled && self.active {
            self.lines.needs_reset(&format_args!("the {what} of a running queue was written"));
        }
        !enabled
    }

    fn write_ring(&mut self, offset: u64, len: usize, value: u64) {
        if !self.guard("address") {
            return;
        }
        let Some(queue) = self.queue_mut() else { return };
        let field = match offset {
            32..40 => &mut queue.layout.desc,
            40..48 => &mut queue.layout.driver,
            _ => &mut queue.layout.device,
        };
        match (offset & 7, len) {
            (0, 8) => *field = value,
            (0, 4) => *field = *field & !0xffff_ffff | value,
            (4, 4) => *field = *field & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    fn write_status(&mut self, new: u8) {
        if new == 0 {
            self.reset();
            return;
        }
        let old = self.status;
        if old & !new != 0 {
            guest_error!(self.name(), "status {old:#x} cannot become {new:#x}");
        }
        let mut added = new & !old & !status::NEEDS_RESET;
        if added & status::FEATURES_OK != 0 && !self.agree() {
            added &= !(status::FEATURES_OK | status::DRIVER_OK);
        }
        if added & status::DRIVER_OK != 0 && (old | added) & status::FEATURES_OK == 0 {
            guest_error!(self.name(), "the driver is ready without having agreed on features");
            added &= !status::DRIVER_OK;
        }
        self.status |= added;
        if added & status::DRIVER_OK != 0 {
            self.lines.ready.store(true, Ordering::Release);
            if self.running {
                self.activate();
            }
        }
    }

    /// Whether the device can work with the features that the driver wants.
    fn agree(&mut self) -> bool {
        let features = self.driver_features;
        if features & !self.offered != 0 || features & feature::VERSION_1 == 0 {
            guest_error!(self.name(), "features {features:#x} of {:#x}", self.offered);
            return false;
        }
        self.device.accepted(features);
        true
    }

    fn activate(&mut self) {
        let (features, mut ports) = (self.driver_features, Vec::new());
        let numbered = (0_u16..).zip(&mut self.queues).zip(&self.kicks);
        for ((index, regs), kick) in numbered.filter(|((_, regs), _)| regs.enabled) {
            let position = std::mem::take(&mut regs.position);
            let alarm = Some(ConfigIrq::new(self.lines.clone()));
            let queue = Queue::new(self.memory.clone(), regs.layout, features, position, alarm);
            let irq = QueueIrq::new(self.lines.clone(), index);
            ports.push(Port { index, queue, kick: kick.clone(), irq });
        }
        let memory = self.memory.clone();
        let config = ConfigIrq::new(self.lines.clone());
        self.active = true;
        self.lines.lent.store(false, Ordering::SeqCst);
        if let Err(why) = self.device.start(Activation { features, memory, ports, config }) {
            self.lines.needs_reset(&why);
        }
    }

    /// Interrupts go other ways than before: whoever has the descriptors of the old ones is given
    /// new ones.
    pub fn rewired(&mut self) {
        if self.active && self.lines.lent.load(Ordering::SeqCst) {
            self.deactivate();
            self.activate();
        }
    }

    fn deactivate(&mut self) {
        if !std::mem::take(&mut self.active) {
            return;
        }
        for port in self.device.stop() {
            if let Some(regs) = self.queues.get_mut(usize::from(port.index)) {
                regs.position = port.queue.position();
            }
        }
    }

    /// Back to power-on state, at the driver's wish or the machine's.
    pub fn reset(&mut self) {
        self.deactivate();
        self.device.reset();
        self.lines.reset();
        self.queues = power_on(&self.spec);
        self.status = 0;
        self.device_select = 0;
        self.driver_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
    }

    /// The machine goes on.
    pub fn start(&mut self) {
        self.running = true;
        self.lines.running.store(true, Ordering::SeqCst);
        if self.status & status::DRIVER_OK != 0 {
            self.activate();
        }
        self.lines.tell_pending();
    }

    /// The machine stops.
    pub fn stop(&mut self) {
        self.deactivate();
        self.running = false;
        self.lines.running.store(false, Ordering::SeqCst);
    }

    /// The device is gone for the guest.
    pub fn unplug(&mut self) {
        self.deactivate();
        self.device.unplug();
    }

    /// Reads the device's own configuration; ones past its end.
    pub fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        let Some(offset) = u32::try_from(offset).ok().filter(|at| *at < self.spec.config_len)
        else {
            return;
        };
        let room = usize::try_from(self.spec.config_len.saturating_sub(offset)).unwrap_or(0);
        let len = data.len().min(room);
        if let Some(data) = data.get_mut(..len) {
            data.fill(0);
            self.device.read_config(offset, data);
        }
    }

    /// Writes the device's own configuration; what is past its end is dropped.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        let end = usize::try_from(offset).ok().and_then(|at| at.checked_add(data.len()));
        let fits = end
            .and_then(|end| u32::try_from(end).ok())
            .is_some_and(|end| end <= self.spec.config_len);
        match u32::try_from(offset) {
            Ok(offset) if fits => self.device.write_config(offset, data),
            _ => guest_error!(self.name(), "write past the configuration, at {offset:#x}"),
        }
    }

    /// The state of transport and device.
    ///
    /// # Errors
    /// Those of the device.
    pub fn save(&self) -> Result<Blob, StateError> {
        let vector = |vector: &AtomicU16| vector.load(Ordering::Relaxed);
        let lines = &self.lines;
        let queues = self.queues.iter().zip(&lines.queue_vectors);
        let state = state::State {
            status: self.status,
            device_select: self.device_select,
            driver_select: self.driver_select,
            driver_features: self.driver_features,
            queue_select: self.queue_select,
            config_vector: vector(&lines.config_vector),
            isr: *lines.isr.lock(),
            generation: lines.generation.load(Ordering::Relaxed),
            needs_reset: lines.needs_reset.load(Ordering::Relaxed),
            pending: lines.pending.load(Ordering::Relaxed),
            queues: queues
                .map(|(queue, at)| state::Queue {
                    layout: queue.layout,
                    enabled: queue.enabled,
                    vector: vector(at),
                    position: queue.position.clone(),
                })
                .collect(),
            device: Some(self.device.save()?),
        };
        Blob::new(1, &state)
    }

    /// Takes over a saved state, which is not trusted.
    ///
    /// # Errors
    /// When the device can never be in that state.
    pub fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let state: state::State = blob.parse(1, &[])?;
        let agreed = state.status & status::FEATURES_OK != 0;
        let known = status::ACKNOWLEDGE
            | status::DRIVER
            | status::DRIVER_OK
            | status::FEATURES_OK
            | status::FAILED
            | 0x30;
        if state.status & !known != 0 || state.status & status::DRIVER_OK != 0 && !agreed {
            return Err(invalid(format!("device status {:#x}", state.status)));
        }
        let features = state.driver_features;
        if agreed && (features & !self.offered != 0 || features & feature::VERSION_1 == 0) {
            let offered = self.offered;
            return Err(invalid(format!("features {features:#x}, where {offered:#x} are offered")));
        }
        if state.queues.len() != self.queues.len() {
            let (has, is) = (state.queues.len(), self.queues.len());
            return Err(invalid(format!("{has} queues, where there are {is}")));
        }
        for (queue, most) in state.queues.iter().zip(&self.spec.queues) {
            let size = queue.layout.size;
            if !is_size(size, features) || size > *most {
                return Err(invalid(format!("a queue of {size} entries, where {most} are most")));
            }
            queue.position.check(size, features & feature::RING_PACKED != 0)?;
        }
        if agreed {
            self.device.accepted(features);
        }
        match &state.device {
            Some(device) => self.device.load(device)?,
            None => return Err(invalid("the device's own part is missing")),
        }
        let lines = &self.lines;
        for (queue, vector) in state.queues.iter().zip(&lines.queue_vectors) {
            vector.store(self.vector(queue.vector), Ordering::Relaxed);
        }
        lines.config_vector.store(self.vector(state.config_vector), Ordering::Relaxed);
        // The pin's level is the bus's to load.
        *lines.isr.lock() = state.isr & (ISR_QUEUE | ISR_CONFIG);
        lines.generation.store(state.generation, Ordering::Relaxed);
        lines.needs_reset.store(state.needs_reset, Ordering::Relaxed);
        lines.pending.store(state.pending, Ordering::Relaxed);
        lines.ready.store(state.status & status::DRIVER_OK != 0, Ordering::Release);
        self.queues = state
            .queues
            .into_iter()
            .map(|queue| QueueRegs {
                layout: queue.layout,
                enabled: queue.enabled,
                position: queue.position,
            })
            .collect();
        self.status = state.status;
        self.device_select = state.device_select;
        self.driver_select = state.driver_select;
        self.driver_features = features;
        self.queue_select = state.queue_select;
        Ok(())
    }
}

fn power_on(spec: &Spec) -> Vec<QueueRegs> {
    let one = |size: &u16| QueueRegs {
        layout: Layout { size: *size, ..Layout::default() },
        enabled: false,
        position: Position::default(),
    };
    spec.queues.iter().map(one).collect()
}
