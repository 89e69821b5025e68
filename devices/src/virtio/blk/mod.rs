//! `virtio-blk-pci`: a disk (section 5.2).
//!
//! Each queue takes requests for the one drive; every request is a task of its own, so that as
//! many are under way as the guest wants, straight between its RAM and the host's kernel.
//!
//! | piece | file |
//! |---|---|
//! | the device and its properties | this one |
//! | what the driver is told of the disk | `config.rs` |
//! | requests | `request.rs` |
//!
//! Threads: the device on vCPU threads and the main thread, behind its transport's mutex; the
//! queues on io0 or the I/O thread that `iothread=` names. A hostile guest can have as many
//! requests under way as its rings have entries, of any kind and range; what reaches the drive is
//! checked there once more. A request that the host cannot do goes by the drive's policy.

use std::sync::Arc;

use block::{Attachment, Drive, Model};
use parking_lot::Mutex;
use resources::class::{Class, CreateError};
use resources::iol::Handle;
use resources::props::{Prop, Props};
use resources::state::{Blob, StateError};

use super::{Activation, ConfigIrq, Port, Running, Spec, VirtioDevice, pci};
use crate::class::{Ctx, IoThread};
use config::{Settings, feature};

mod config;
mod request;
#[cfg(test)]
pub(super) mod tests;

/// The virtio device id.
const ID: u16 = 2;
/// The PCI class code: a mass storage controller of the SCSI kind, which QEMU says it is.
const PCI_CLASS: u16 = 0x0100;

/// The device.
pub struct Blk {
    settings: Settings,
    drive: Arc<Drive>,
    /// Until it is unplugged.
    attachment: Option<Attachment>,
    on: Handle,
    /// Keeps the I/O thread in use.
    _iothread: Option<IoThread>,
    told: Arc<Told>,
    running: Option<Running>,
    /// The write cache as the driver wants it.
    writeback: bool,
}

/// The drive's way to the device.
#[derive(Default)]
struct Told(Mutex<Option<ConfigIrq>>);

impl Model for Told {
    fn resized(&self) {
        let irq = self.0.lock().clone();
        if let Some(irq) = irq {
            irq.changed();
        }
    }
}

impl Blk {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class {
        name: "virtio-blk-pci",
        aliases: &["virtio-blk"],
        bus: "PCI",
        description: "Disk",
        props: PROPS,
        base: pci::PROPS,
        create: Some(|props, ctx| {
            let device = Blk::new(props, ctx)?;
            pci::plug(ctx, props, Box::new(device))
        }),
    };

    fn new(props: &mut Props, ctx: &Ctx) -> Result<Blk, CreateError> {
        let wrong = |what: &str| CreateError::Other(what.to_owned());
        if props.get::<Option<&str>>("drive")?.is_none() {
            return Err(wrong("drive property not set"));
        }
        let drive = ctx.drive(props, "drive")?;
        if !drive.has_medium() {
            return Err(wrong("Device needs media, but drive is empty"));
        }
        let iothread = ctx.iothread(props, "iothread")?;
        let on = iothread.as_ref().map_or(&ctx.host.io, |thread| &thread.handle).clone();
        let settings = Settings::new(props, &drive)?;
        Blk::on(settings, drive, &on, iothread)
    }

    /// A disk whose queues are served on this loop.
    fn on(
        settings: Settings,
        drive: Arc<Drive>,
        on: &Handle,
        iothread: Option<IoThread>,
    ) -> Result<Blk, CreateError> {
        let told = Arc::new(Told::default());
        let attachment = drive
            .attach_as(on, told.clone(), settings.share)
            .map_err(|error| CreateError::Other(error.to_string()))?;
        drive.enable_io_status();
        if let Some(policy) = settings.policy {
            drive.set_policy(policy);
        }
        let writeback = settings.writeback;
        drive.set_write_cache(writeback);
        Ok(Blk {
            settings,
            drive,
            attachment: Some(attachment),
            on: on.clone(),
            _iothread: iothread,
            told,
            running: None,
            writeback,
        })
    }

    fn offered(&self) -> u64 {
        self.settings.features(&self.drive)
    }
}

/// Its own properties.
pub const PROPS: &[Prop] = config::PROPS;

impl VirtioDevice for Blk {
    fn spec(&self) -> Spec {
        Spec {
            id: ID,
            features: self.offered(),
            queues: vec![self.settings.queue_size; usize::from(self.settings.queues)],
            config_len: config::LEN,
            pci_class: PCI_CLASS,
        }
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        super::copy_config(&self.settings.config(&self.drive, self.writeback), offset, data);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        if offset == config::WRITEBACK
            && let [value] = data
            && self.settings.config_wce
        {
            self.writeback = *value != 0;
            self.drive.set_write_cache(self.writeback);
        }
    }

    fn accepted(&mut self, features: u64) {
        // A driver that knows no flush relies on every write (section 5.2.5.2).
        if features & (feature::FLUSH | feature::CONFIG_WCE) == 0 {
            self.writeback = false;
        }
        self.drive.set_write_cache(self.writeback);
    }

    fn start(&mut self, run: Activation) -> Result<(), String> {
        *self.told.0.lock() = Some(run.config);
        let serve = request::Serve {
            drive: self.drive.clone(),
            block_size: self.settings.logical,
            serial: self.settings.serial.clone(),
            offered: self.offered(),
        };
        self.running = Some(Running::start(&self.on, run.ports, |workers| serve.all(workers)));
        Ok(())
    }

    fn stop(&mut self) -> Vec<Port> {
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {
        *self.told.0.lock() = None;
        self.writeback = self.settings.writeback;
        self.drive.set_write_cache(self.writeback);
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &state::Blk { writeback: self.writeback })
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let state: state::Blk = blob.parse(1, &[])?;
        self.writeback = state.writeback;
        self.drive.set_write_cache(self.writeback);
        Ok(())
    }

    fn unplug(&mut self) {
        *self.told.0.lock() = None;
        self.attachment = None;
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct Blk {
        /// The write cache is on.
        pub(super) writeback: bool,
    }
}
