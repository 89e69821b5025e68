//! A function: what the guest sees at one address of a bus.
//!
//! [`Function`] is the [`Device`]; it owns what all functions have in common and hands what is
//! left to the [`PciDevice`] behind it, which is under the same mutex. Threads and what a hostile
//! guest reaches: see [`super`]. A hostile saved state is checked against the masks of the
//! registers; the device behind checks its own part.

use std::ops::Range;
use std::sync::{Arc, Weak};

use resources::device::{At, Device, DeviceCell, LiveProp};
use resources::props::Value;
use resources::state::{Blob, StateError};

use super::bar::{Bar, Decoder};
use super::bus::{Address, Bus};
use super::config::{ConfigSpace, SIZE, reg};
use super::interrupt::Interrupt;
use super::msi::Msi;
use super::msix::Msix;

use self::state::State;

/// The region of the configuration space; 0 to 5 are the base address registers' regions.
pub const CONFIG: u16 = 0x10;

/// A device as PCI sees it, behind a [`Function`] and its mutex. Of its regions it is told the
/// number of the base address register. Its interrupt pin and configuration registers are seen to:
/// they are reset after it, saved with it, and loaded before it; whether the pin was asserted,
/// after it.
pub trait PciDevice: Device {
    /// The guest is about to read these configuration registers.
    fn config_read(&mut self, config: &mut ConfigSpace, at: Range<usize>) {
        let _ = (config, at);
    }

    /// The guest has written these configuration registers.
    fn config_written(&mut self, config: &mut ConfigSpace, at: Range<usize>) {
        let _ = (config, at);
    }

    /// The configuration registers are new as a whole: after a reset; or, `loaded`, after
    /// [`load`](Device::load), when no line may make an edge.
    fn config_replaced(&mut self, config: &ConfigSpace, loaded: bool) {
        let _ = (config, loaded);
    }

    /// The device is in its place: for those that need a way back to themselves, for timers and
    /// back ends.
    fn placed(&mut self, me: &Weak<DeviceCell<Function<Self>>>)
    where
        Self: Sized,
    {
        let _ = me;
    }

    /// The guest has switched messages on or off, so that its interrupts go other ways.
    fn rewired(&mut self) {}
}

/// What all functions have.
pub(super) struct Core {
    pub(super) config: ConfigSpace,
    pub(super) bars: Vec<Bar>,
    pub(super) decoder: Arc<Decoder>,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) msix: Option<Msix>,
    pub(super) msi: Option<Msi>,
    pub(super) bus: Arc<Bus>,
    pub(super) address: Address,
}

impl Core {
    /// Whether messages are on, how many the guest grants, and whether it lets the pin work.
    fn interrupts(&self) -> (bool, u32, bool) {
        let pin = self.config.u16(reg::COMMAND) & reg::COMMAND_INTX_OFF == 0;
        match (&self.msix, &self.msi) {
            (Some(msix), _) if msix.enabled(&self.config) => (true, u32::MAX, pin),
            (_, Some(msi)) if msi.enabled(&self.config) => (true, msi.granted(&self.config), pin),
            _ => (false, u32::MAX, pin),
        }
    }

    /// Lets everything follow the registers.
    fn update(&mut self) {
        // Messages come before the switch: what is sent meanwhile waits in its eventfd.
        self.update_messages();
        let (messages, granted, pin) = self.interrupts();
        self.interrupt.configure(messages, granted, pin);
        self.decode();
    }

    fn update_messages(&mut self) {
        if let Some(msix) = &mut self.msix {
            msix.update(&self.config);
        }
        if let Some(msi) = &mut self.msi {
            msi.update(&self.config);
        }
    }

    fn decode(&self) {
        self.decoder.decode(self.bars.iter().map(|bar| bar.decoded(&self.config)));
    }

    fn read(&self, at: usize, data: &mut [u8]) {
        self.config.read(at, data);
        let status = if self.interrupt.intx() { reg::STATUS_INTX } else { 0 };
        or_at(at, data, reg::STATUS, &status.to_le_bytes());
        if let Some((register, bits)) = self.msi.as_ref().map(Msi::pending) {
            or_at(at, data, register, &bits.to_le_bytes());
        }
    }
}

/// ORs the bits of a register into what was read from `at` on.
fn or_at(at: usize, data: &mut [u8], register: usize, bits: &[u8]) {
    for (offset, byte) in (at..).zip(data) {
        let index = offset.checked_sub(register);
        *byte |= index.and_then(|index| bits.get(index)).copied().unwrap_or(0);
    }
}

/// A function of a bus.
pub struct Function<D> {
    pub(super) core: Core,
    pub(super) device: D,
}

impl<D> Function<D> {
    /// The device behind it.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device behind it.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Its configuration registers.
    pub fn config(&self) -> &ConfigSpace {
        &self.core.config
    }

    /// Its interrupts.
    pub fn interrupt(&self) -> &Arc<Interrupt> {
        &self.core.interrupt
    }

    /// Whether a region is that of the MSI-X table, which the device does not see.
    fn msix_of(&mut self, region: u16) -> Option<(&mut Msix, &ConfigSpace)> {
        let Core { msix, config, .. } = &mut self.core;
        msix.as_mut().filter(|msix| u16::from(msix.bar) == region).map(|msix| (msix, &*config))
    }
}

impl<D: PciDevice> Device for Function<D> {
    fn read(&mut self, at: At, data: &mut [u8]) {
        if at.region == CONFIG {
            let first = usize::try_from(at.offset).unwrap_or(SIZE);
            let range = first..first.saturating_add(data.len());
            self.device.config_read(&mut self.core.config, range);
            self.core.read(first, data);
        } else if let Some((msix, _)) = self.msix_of(at.region) {
            msix.read(at.offset, data);
        } else {
            self.device.read(at, data);
        }
    }

    fn write(&mut self, at: At, data: &[u8]) {
        if at.region == CONFIG {
            let first = usize::try_from(at.offset).unwrap_or(SIZE);
            let range = first..first.saturating_add(data.len());
            self.core.config.write(first, data);
            self.device.config_written(&mut self.core.config, range);
            let before = self.core.interrupt.messages_enabled();
            self.core.update();
            if self.core.interrupt.messages_enabled() != before {
                self.device.rewired();
            }
        } else if let Some((msix, config)) = self.msix_of(at.region) {
            msix.write(config, at.offset, data);
        } else {
            self.device.write(at, data);
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        let core = &mut self.core;
        core.interrupt.set_intx(false);
        core.config.reset();
        if let Some(msix) = &mut core.msix {
            msix.reset(&core.config);
        }
        if let Some(msi) = &mut core.msi {
            msi.reset(&core.config);
        }
        core.update();
        self.device.config_replaced(&core.config, false);
    }

    fn start(&mut self) {
        self.device.start();
    }

    fn stop(&mut self) {
        self.device.stop();
    }

    fn save(&self) -> Result<Blob, StateError> {
        let core = &self.core;
        let (table, pending) = core.msix.as_ref().map(Msix::save).unwrap_or_default();
        let msi_pending = core.msi.as_ref().map_or(0, |msi| msi.pending().1);
        let state = State {
            config: core.config.bytes().to_vec(),
            table,
            pending,
            msi_pending,
            intx: core.interrupt.intx(),
            device: Some(self.device.save()?),
        };
        Blob::new(1, &state)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let state: State = blob.parse(1, &[])?;
        let core = &mut self.core;
        core.config.load(&state.config)?;
        if let Some(device) = &state.device {
            self.device.load(device)?;
        }
        if let Some(msix) = &mut core.msix {
            msix.load(&core.config, &state.table, &state.pending)?;
        }
        if let Some(msi) = &mut core.msi {
            msi.load(&core.config, state.msi_pending);
        }
        let (messages, granted, pin) = core.interrupts();
        // In this order, no step makes an edge.
        core.interrupt.import(state.intx, pin && !messages);
        core.interrupt.configure(messages, granted, pin);
        core.decode();
        self.device.config_replaced(&core.config, true);
        Ok(())
    }

    fn unplug(&mut self) {
        self.device.unplug();
        self.core.decoder.unmap();
        self.core.interrupt.detach();
        self.core.bus.remove(self.core.address);
    }

    fn pinned(&self) -> Option<String> {
        self.device.pinned()
    }

    fn live_props(&self) -> &'static [LiveProp] {
        self.device.live_props()
    }

    fn live_value(&self, name: &str) -> Option<Value> {
        self.device.live_value(name)
    }

    fn set_live(&mut self, name: &str, value: &Value) -> Result<(), String> {
        self.device.set_live(name, value)
    }
}

mod state {
    use resources::state::Blob;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct State {
        #[serde(with = "resources::state::bytes")]
        pub(super) config: Vec<u8>,
        #[serde(default, with = "resources::state::bytes")]
        pub(super) table: Vec<u8>,
        #[serde(default)]
        pub(super) pending: Vec<u64>,
        #[serde(default)]
        pub(super) msi_pending: u32,
        #[serde(default)]
        pub(super) intx: bool,
        /// What the device behind has saved.
        pub(super) device: Option<Blob>,
    }
}
