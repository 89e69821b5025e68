//! `virtio-scsi-pci`: a SCSI host adapter (virtio 1.x, section 5.6).
//!
//! | piece | file |
//! |---|---|
//! | the device and its properties | this one |
//! | commands and their data | `request.rs` |
//! | managing tasks | `control.rs` |
//! | sizes, addresses, events | `adapter.rs` |
//!
//! What commands mean is in [`crate::scsi`], where its units are too.
//!
//! Threads: the device on vCPU threads and the main thread, behind its transport's mutex; the
//! queues on io0 or the I/O thread that `iothread=` names, where the drives of its units live.
//! Locks: leaves only. A hostile guest can have as many commands under way as its rings have
//! entries, of any kind and to any unit.

mod adapter;
mod control;
mod request;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::device::{DeviceRef, value_of};
use resources::guest_error;
use resources::iol::{Either, Handle, race};
use resources::props::{Kind, Prop};
use resources::request::Requests;
use resources::state::{Blob, StateError, invalid};
use serde::{Deserialize, Serialize};

use self::adapter::{CHANGE, EVENT_LEN, Events, HOTPLUG, Sizes, Waiting};
use self::request::{Serve, Tasks};
use super::{Activation, Broken, Port, Running, Spec, VirtioDevice, Worker, pci};
use crate::class::{AtOnce, Ctx, IoThread, NewBus, Seat};
use crate::scsi::{KIND, ScsiBus};

/// The virtio device id.
const ID: u16 = 8;
/// The PCI class code of a SCSI controller.
const PCI_CLASS: u16 = 0x100;
/// Bytes of the configuration, and where the driver writes.
const CONFIG_LEN: u32 = 36;
const CONFIG_SENSE: u32 = 20;
const CONFIG_CDB: u32 = 24;
/// Entries of a queue.
const QUEUE_SIZE: u16 = 128;
/// The highest target and unit.
const MAX_TARGET: u8 = 255;
const MAX_LUN: u16 = 16383;
/// VIRTIO_SCSI_F_INOUT is not offered: no command moves data both ways.
const FEATURES: u64 = HOTPLUG | CHANGE;
const VERSION: u16 = 1;

/// The device. Its transport owns it.
pub struct Scsi {
    path: String,
    bus: Arc<ScsiBus>,
    events: Arc<Events>,
    sizes: Arc<Sizes>,
    settings: Settings,
    on: Handle,
    /// Keeps the I/O thread in use.
    _iothread: Option<IoThread>,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    queues: u16,
    max_sectors: u32,
    cmd_per_lun: u32,
}

#[derive(Serialize, Deserialize)]
struct State {
    cdb: u32,
    sense: u32,
    #[serde(default)]
    waiting: Waiting,
}

impl Scsi {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class {
        name: "virtio-scsi-pci",
        aliases: &["virtio-scsi"],
        bus: "PCI",
        description: "SCSI host adapter",
        props: &[
            Prop {
                name: "num_queues",
                kind: Kind::U32(1, 1021),
                default: Some("1"),
                help: "how many request queues",
            },
            Prop {
                name: "max_sectors",
                kind: Kind::U32(1, u32::MAX),
                default: Some("65535"),
                help: "the most sectors of 512 bytes that a command moves",
            },
            Prop {
                name: "cmd_per_lun",
                kind: Kind::U32(1, u32::MAX),
                default: Some("128"),
                help: "the most commands under way for a unit",
            },
            Prop {
                name: "iothread",
                kind: Kind::Link("iothread"),
                default: None,
                help: "the I/O thread that serves it",
            },
        ],
        base: pci::PROPS,
        create: Some(Scsi::create),
    };

    fn create(
        props: &mut resources::props::Props,
        ctx: &mut Ctx,
    ) -> Result<DeviceRef, CreateError> {
        let settings = Settings {
            queues: u16::try_from(props.get::<u32>("num_queues")?).unwrap_or(1),
            max_sectors: props.get("max_sectors")?,
            cmd_per_lun: props.get("cmd_per_lun")?,
        };
        let iothread = ctx.iothread(props, "iothread")?;
        let on = iothread.as_ref().map_or(&ctx.host.io, |thread| &thread.handle).clone();
        let path = ctx.next_path(props);
        let mut device = Scsi::new(path, settings, on, ctx.host.requests.clone());
        device._iothread = iothread;
        let bus = device.bus.clone();
        let made = pci::plug(ctx, props, Box::new(device))?;
        ctx.new_buses.push(NewBus {
            name: props.id().map(|id| format!("{id}.0")).unwrap_or_default(),
            kind: KIND,
            seat: Seat::Scsi(bus),
            room: usize::MAX,
            hotplug: Some(Box::new(AtOnce)),
        });
        Ok(made)
    }

    fn new(path: String, settings: Settings, on: Handle, requests: Requests) -> Scsi {
        let events = Arc::new(Events::default());
        let bus = ScsiBus::new(events.clone(), on.clone(), requests, MAX_TARGET, MAX_LUN);
        let sizes = Arc::new(Sizes::new());
        Scsi { path, bus, events, sizes, settings, on, _iothread: None, running: None }
    }

    fn config(&self) -> Vec<u8> {
        let (cdb, sense) = self.sizes.get();
        let event = u32::try_from(EVENT_LEN).unwrap_or(16);
        let words = [
            u32::from(self.settings.queues),
            u32::from(QUEUE_SIZE.saturating_sub(2)),
            self.settings.max_sectors,
            self.settings.cmd_per_lun,
            event,
            sense,
            cdb,
            // One channel, then the highest target.
            u32::from(MAX_TARGET) << 16,
            u32::from(MAX_LUN),
        ];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

impl VirtioDevice for Scsi {
    fn spec(&self) -> Spec {
        Spec {
            id: ID,
            features: FEATURES,
            queues: vec![QUEUE_SIZE; usize::from(self.settings.queues).saturating_add(2)],
            config_len: CONFIG_LEN,
            pci_class: PCI_CLASS,
        }
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        super::copy_config(&self.config(), offset, data);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let value = u32::try_from(value_of(data)).ok();
        let taken = match offset {
            CONFIG_SENSE => self.sizes.set(None, value),
            CONFIG_CDB => self.sizes.set(value, None),
            _ => false,
        };
        if !taken {
            guest_error!(&self.path, "a write to the configuration at {offset:#x} is ignored");
        }
    }

    fn start(&mut self, run: Activation) -> Result<(), String> {
        self.events.set_driver(run.features);
        let (bus, sizes) = (self.bus.clone(), self.sizes.clone());
        let events = self.events.clone();
        self.running = Some(Running::start(&self.on, run.ports, |workers| async move {
            let serve = Rc::new(Serve { bus, sizes, tasks: Tasks::default() });
            let mut tasks = Vec::new();
            for worker in workers {
                let (local, serve) = (worker.local().clone(), serve.clone());
                tasks.push(match worker.index() {
                    0 => local.spawn(control::serve(serve, worker)),
                    1 => local.spawn(tell(events.clone(), worker)),
                    _ => local.spawn(serve.queue(worker)),
                });
            }
            for task in tasks {
                task.await;
            }
        }));
        Ok(())
    }

    fn stop(&mut self) -> Vec<Port> {
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.events.clear();
        self.sizes.set(Some(adapter::CDB_SIZE), Some(adapter::SENSE_SIZE));
        self.bus.reset();
    }

    fn save(&self) -> Result<Blob, StateError> {
        let (cdb, sense) = self.sizes.get();
        Blob::new(VERSION, &State { cdb, sense, waiting: self.events.save() })
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let state: State = blob.parse(VERSION, &[])?;
        if !state.waiting.is_sane() {
            return Err(invalid("more SCSI events than wait"));
        }
        if !self.sizes.set(Some(state.cdb), Some(state.sense)) {
            return Err(invalid("sizes that a SCSI request cannot have"));
        }
        self.events.load(state.waiting);
        Ok(())
    }
}

/// Serves the event queue until the device stops.
async fn tell(events: Arc<Events>, worker: Rc<Worker>) {
    loop {
        while !events.any() {
            if let Either::Left(()) = race(worker.stopped(), events.outgoing.notified()).await {
                return;
            }
        }
        let Some(chain) = worker.next().await else { return };
        let mut writer = chain.writer();
        if usize::try_from(writer.remaining()).unwrap_or(0) < EVENT_LEN {
            worker.fail(chain, Broken::Request("a SCSI event buffer is too short"));
            continue;
        }
        // There is one, as nobody else takes them; a reset comes only while this has stopped.
        let event = events.next().unwrap_or_default();
        writer.write(&event);
        let written = writer.written();
        worker.done(chain, written);
    }
}
