//! `virtio-balloon-pci`: memory that the guest gives back (section 5.5).
//!
//! | piece | file |
//! |---|---|
//! | the device | this one |
//! | what the rest of the machine knows of it: target, size, statistics | `shared.rs` |
//! | memory that need not be moved | `hints.rs` |
//! | the tasks that serve its queues | `serve.rs` |
//!
//! The pages a driver gives up go back to the host at once and come back as zeros when they are
//! touched, so that taking them out of the balloon takes nothing. Memory whose host pages are
//! larger than the guest's stays where it is.
//!
//! Threads: the device on vCPU threads and the main thread behind its transport's mutex; its queues
//! on the I/O loop; clients reach [`Balloon`] from the main thread. A hostile guest can only give
//! back its own RAM, as often as it likes, a bounded piece at a time; what it names that is no RAM
//! is ignored.

mod hints;
mod serve;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::device::{LiveProp, put_value};
use resources::iol::Handle;
use resources::props::{Kind, Prop, Value};
use resources::state::{Blob, StateError};

use super::{Activation, Port, Running, Spec, VirtioDevice, pci};
use crate::class::Ctx;

pub use shared::{Balloon, Slot};

/// The virtio device id.
const ID: u16 = 5;
/// The PCI class code of a device that no class fits.
const PCI_CLASS: u16 = 0x00ff;
/// Entries of each queue, as QEMU has it.
const QUEUE: u16 = 128;
/// Bytes of configuration: pages wanted, pages in it, hint command, poison.
const CONFIG: u32 = 16;

/// Feature bits (section 5.5.3).
mod bit {
    pub(super) const STATS: u64 = 1 << 1;
    pub(super) const DEFLATE_ON_OOM: u64 = 1 << 2;
    pub(super) const HINT: u64 = 1 << 3;
    pub(super) const POISON: u64 = 1 << 4;
    pub(super) const REPORTING: u64 = 1 << 5;
}

const PROPS: &[Prop] = &[
    Prop {
        name: "deflate-on-oom",
        kind: Kind::Bool,
        default: Some("off"),
        help: "let the guest take memory out of the balloon when it has none left",
    },
    Prop {
        name: "free-page-hint",
        kind: Kind::Bool,
        default: Some("off"),
        help: "let the guest name pages that need not be moved",
    },
    Prop {
        name: "page-poison",
        kind: Kind::Bool,
        default: Some("on"),
        help: "let the guest say what its free pages hold",
    },
    Prop {
        name: "free-page-reporting",
        kind: Kind::Bool,
        default: Some("off"),
        help: "have the guest give free pages back by itself",
    },
];

const LIVE: &[LiveProp] = &[
    LiveProp { name: "guest-stats", type_name: "guest statistics", settable: false },
    LiveProp { name: "guest-stats-polling-interval", type_name: "int", settable: true },
];

/// What the guest's queue is for, in the order in which queues are numbered. Those whose feature
/// was not accepted have no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Stats,
    Hint,
    Reporting,
}

fn roles(features: u64) -> Vec<Role> {
    let optional =
        [(bit::STATS, Role::Stats), (bit::HINT, Role::Hint), (bit::REPORTING, Role::Reporting)];
    let accepted = optional.into_iter().filter(|(bit, _)| features & bit != 0);
    [Role::Inflate, Role::Deflate].into_iter().chain(accepted.map(|(_, role)| role)).collect()
}

/// The device.
pub struct VirtioBalloon {
    balloon: Arc<Balloon>,
    offered: u64,
    on: Handle,
    slot: Arc<Slot>,
    running: Option<Running>,
}

impl VirtioBalloon {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class {
        name: "virtio-balloon-pci",
        aliases: &["virtio-balloon"],
        bus: "PCI",
        description: "Memory that the guest gives back",
        props: PROPS,
        base: pci::PROPS,
        create: Some(|props, ctx| {
            let offer = |name, bit| Ok::<_, CreateError>(if props.get(name)? { bit } else { 0 });
            let offered = bit::STATS
                | offer("deflate-on-oom", bit::DEFLATE_ON_OOM)?
                | offer("free-page-hint", bit::HINT)?
                | offer("page-poison", bit::POISON)?
                | offer("free-page-reporting", bit::REPORTING)?;
            let slot = ctx.balloon.clone();
            let balloon = Balloon::new(&ctx.ram, ctx.host.requests.clone());
            if !slot.claim(&balloon) {
                return Err(CreateError::Other("Adding balloon handler failed".to_owned()));
            }
            let on = ctx.host.io.clone();
            let device = VirtioBalloon { balloon, offered, on, slot: slot.clone(), running: None };
            // Dropped with the device, and the slot is free again.
            pci::plug(ctx, props, Box::new(device))
        }),
    };
}

impl Drop for VirtioBalloon {
    fn drop(&mut self) {
        self.slot.release(&self.balloon);
    }
}

impl VirtioDevice for VirtioBalloon {
    fn spec(&self) -> Spec {
        Spec {
            id: ID,
            features: self.offered,
            queues: roles(self.offered).iter().map(|_| QUEUE).collect(),
            config_len: CONFIG,
            pci_class: PCI_CLASS,
        }
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        let (target, actual, poison) = self.balloon.registers();
        let mut all = [0; CONFIG as usize];
        let hints = self.balloon.hint_id();
        for (field, value) in all.chunks_exact_mut(4).zip([target, actual, hints, poison]) {
            put_value(field, value.into());
        }
        super::copy_config(&all, offset, data);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return };
        match offset {
            4 => self.balloon.set_actual(value),
            12 if self.offered & bit::POISON != 0 => self.balloon.set_poison(value),
            _ => {}
        }
    }

    fn start(&mut self, run: Activation) -> Result<(), String> {
        self.balloon.set_driver(run.config, run.features & bit::HINT != 0);
        let (balloon, features, memory) = (self.balloon.clone(), run.features, run.memory);
        self.running = Some(Running::start(&self.on, run.ports, move |workers| {
            serve::serve(workers, balloon, memory, features)
        }));
        Ok(())
    }

    fn stop(&mut self) -> Vec<Port> {
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.balloon.reset();
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.balloon.state())
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.balloon.load(blob.parse(1, &[])?);
        Ok(())
    }

    fn unplug(&mut self) {
        self.slot.release(&self.balloon);
    }

    fn live_props(&self) -> &'static [LiveProp] {
        LIVE
    }

    fn live_value(&self, name: &str) -> Option<Value> {
        match name {
            "guest-stats" => Some(self.balloon.stats()),
            "guest-stats-polling-interval" => {
                Some(Value::Int(self.balloon.interval().try_into().unwrap_or(i64::MAX)))
            }
            _ => None,
        }
    }

    fn set_live(&mut self, name: &str, value: &Value) -> Result<(), String> {
        if name != "guest-stats-polling-interval" {
            return Err(format!("'{name}' cannot be changed"));
        }
        let seconds = match value {
            Value::Uint(seconds) => *seconds,
            Value::Int(seconds) => u64::try_from(*seconds)
                .map_err(|_| "timer value must be greater than zero".to_owned())?,
            _ => {
                let what = "Invalid parameter type for 'guest-stats-polling-interval'";
                return Err(format!("{what}, expected: integer"));
            }
        };
        if seconds > u64::from(u32::MAX) {
            return Err("timer value is too big".to_owned());
        }
        self.balloon.set_interval(seconds);
        Ok(())
    }
}
