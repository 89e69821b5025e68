//! The devices scsi-hd and scsi-cd: a unit on a SCSI bus with a drive behind it.
//!
//! They have no registers; behind their mutex is that they are there, on the main thread only.
//! Commands reach [`ScsiDrive`] on the adapter's loop, without that mutex; the drive's owner calls
//! it on the main thread. Locks: those of the unit and the drive, leaves both.

use std::sync::Arc;

use block::{Attachment, Drive, Model, Tray};
use parking_lot::Mutex;
use resources::class::{Class, CreateError};
use resources::device::{At, Device, DeviceCell, DeviceRef};
use resources::props::{Kind as PropKind, Prop, Props, Value};
use resources::state::{Blob, StateError};

use super::bus::{Adapter, KIND, Place, ScsiBus};
use super::{Attention, Identity, Kind, Medium, State, Unit};
use crate::class::{Ctx, Seat};

const VERSION: u16 = 1;

/// The longest serial number, in characters.
const MAX_SERIAL: usize = 36;

macro_rules! prop {
    ($name:literal, $kind:expr, $default:expr, $help:literal) => {
        Prop { name: $name, kind: $kind, default: $default, help: $help }
    };
}

const COMMON: [Prop; 16] = [
    prop!("drive", PropKind::Drive, None, "the drive"),
    prop!("channel", PropKind::U32(0, u32::MAX), Some("0"), "the channel of its bus"),
    prop!("scsi-id", PropKind::U32(0, u32::MAX), None, "its target, by default a free one"),
    prop!("lun", PropKind::U32(0, u32::MAX), None, "its number, by default a free one"),
    prop!("serial", PropKind::Str, None, "its serial number"),
    prop!("device_id", PropKind::Str, None, "by which it is told from others"),
    prop!("ver", PropKind::Str, Some("1.7."), "its version"),
    prop!("vendor", PropKind::Str, Some("QEMU"), "its vendor"),
    prop!("product", PropKind::Str, None, "its product"),
    prop!("wwn", PropKind::U64(0, u64::MAX), Some("0"), "its worldwide name, 0 for none"),
    prop!("bootindex", PropKind::U32(0, 0x7fff_ffff), None, "its boot order, for firmware"),
    prop!("logical_block_size", PropKind::U32(0, 32768), Some("0"), "bytes of a block, or 0"),
    prop!("physical_block_size", PropKind::U32(0, 2 << 20), Some("0"), "bytes best written, or 0"),
    prop!("min_io_size", PropKind::U32(0, u32::MAX), Some("0"), "the least bytes moved well"),
    prop!("opt_io_size", PropKind::U32(0, u32::MAX), Some("0"), "the bytes moved best"),
    prop!("share-rw", PropKind::Bool, Some("off"), "others may write the disk, too"),
];

const DISK: [Prop; 4] = [
    prop!("removable", PropKind::Bool, Some("off"), "its medium can be taken out"),
    prop!("dpofua", PropKind::Bool, Some("on"), "writes can ask to be durable"),
    prop!("discard_granularity", PropKind::U32(0, 1 << 30), None, "bytes discarded at once"),
    prop!("rotation_rate", PropKind::U16(0, u16::MAX), Some("0"), "0 unknown, 1 none, turns"),
];

/// A unit with its drive, as its bus has it.
pub struct ScsiDrive {
    name: String,
    unit: Unit,
    drive: Option<Arc<Drive>>,
    attachment: Mutex<Option<Attachment>>,
}

impl ScsiDrive {
    /// A unit of this name.
    pub fn new(name: String, identity: Identity, drive: Option<Arc<Drive>>) -> Arc<ScsiDrive> {
        let unit = Unit::new(identity);
        Arc::new(ScsiDrive { name, unit, drive, attachment: Mutex::default() })
    }

    /// The name of its device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What commands do to it.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Its drive, if it has one.
    pub fn drive(&self) -> Option<&Arc<Drive>> {
        self.drive.as_ref()
    }

    /// What lies in it.
    pub fn medium(&self) -> Option<Medium> {
        let drive = self.drive.as_ref().filter(|drive| drive.has_medium())?;
        let read_only = drive.read_only() || self.unit.identity().kind == Kind::Cd;
        Some(Medium { bytes: drive.size(), read_only })
    }

    /// Puts it on a bus; `share`: other devices and programs may write its drive, too.
    ///
    /// # Errors
    /// Another device has the drive, or it cannot be used on the bus's loop.
    pub fn plug(
        self: &Arc<Self>,
        bus: &ScsiBus,
        place: Place,
        share: bool,
    ) -> Result<(), CreateError> {
        if let Some(drive) = &self.drive {
            let (adapter, of) = (bus.adapter().clone(), self.clone());
            let model = Arc::new(Told { of: Arc::downgrade(&of), adapter, place });
            let attached = drive.attach_as(bus.on(), model, share);
            let attached = attached.map_err(|error| CreateError::Other(error.to_string()))?;
            drive.enable_io_status();
            *self.attachment.lock() = Some(attached);
        }
        bus.plug(place, self.clone());
        Ok(())
    }

    fn release(&self) {
        let attachment = self.attachment.lock().take();
        drop(attachment);
    }
}

/// The drive's way to the unit.
struct Told {
    of: std::sync::Weak<ScsiDrive>,
    adapter: Arc<dyn Adapter>,
    place: Place,
}

impl Told {
    fn attend(&self, attention: Attention) {
        let Some(of) = self.of.upgrade() else { return };
        of.unit.attend(attention);
        let sense = attention.sense();
        self.adapter.changed(self.place, sense.code, sense.qualifier);
    }
}

impl Model for Told {
    fn resized(&self) {
        self.attend(Attention::Capacity);
    }

    fn tray(&self) -> Option<Tray> {
        let of = self.of.upgrade()?;
        let unit = &of.unit;
        let removable = unit.identity().removable;
        removable.then(|| Tray { open: unit.is_open(), locked: unit.is_locked() })
    }

    fn medium_changed(&self, loaded: bool) {
        let Some(of) = self.of.upgrade() else { return };
        of.unit.move_tray(!loaded, loaded);
        let sense = Attention::Medium.sense();
        self.adapter.changed(self.place, sense.code, sense.qualifier);
    }

    fn eject_request(&self, force: bool) {
        let Some(of) = self.of.upgrade() else { return };
        if force {
            of.unit.unlock();
        }
        of.unit.request_eject();
        let sense = Attention::EjectRequest.sense();
        self.adapter.changed(self.place, sense.code, sense.qualifier);
    }
}

/// The device of a unit.
pub struct ScsiDevice {
    bus: Arc<ScsiBus>,
    place: Place,
    drive: Arc<ScsiDrive>,
}

impl ScsiDevice {
    /// `-device scsi-hd`.
    pub const HD: Class<Ctx> = Class {
        name: "scsi-hd",
        aliases: &[],
        bus: KIND,
        description: "SCSI disk",
        props: &DISK,
        base: &COMMON,
        create: Some(|props, ctx| ScsiDevice::create(props, ctx, Kind::Disk)),
    };

    /// `-device scsi-cd`.
    pub const CD: Class<Ctx> = Class {
        name: "scsi-cd",
        aliases: &[],
        bus: KIND,
        description: "SCSI CD-ROM drive",
        props: &[],
        base: &COMMON,
        create: Some(|props, ctx| ScsiDevice::create(props, ctx, Kind::Cd)),
    };

    fn create(props: &mut Props, ctx: &mut Ctx, kind: Kind) -> Result<DeviceRef, CreateError> {
        let wrong = |why: &str| Err(CreateError::Other(why.to_owned()));
        let Seat::Scsi(bus) = ctx.seat.clone() else { return wrong("it needs a SCSI bus") };
        let given = props.get::<Option<&str>>("drive")?.is_some();
        if !given && kind == Kind::Disk {
            return wrong("drive property not set");
        }
        let drive = if given { Some(ctx.drive(props, "drive")?) } else { None };
        let identity = identity(props, kind, drive.as_deref())?;
        let loaded = drive.as_ref().is_some_and(|drive| drive.has_medium());
        if !loaded && !identity.removable {
            return wrong("Device needs media, but drive is empty");
        }
        let (target, lun) = (props.get("scsi-id")?, props.get("lun")?);
        let place = bus.choose(props.get("channel")?, target, lun)?;
        let drive = ScsiDrive::new(ctx.next_path(props), identity, drive);
        drive.plug(&bus, place, props.get("share-rw")?)?;
        props.fill("scsi-id", Value::Uint(place.target.into()));
        props.fill("lun", Value::Uint(place.lun.into()));
        Ok(DeviceCell::new(&ctx.path(props), ScsiDevice { bus, place, drive }))
    }
}

/// What the properties say.
fn identity(props: &Props, kind: Kind, drive: Option<&Drive>) -> Result<Identity, CreateError> {
    let wrong = |why: String| CreateError::Other(why);
    let text = |name| props.get::<Option<&str>>(name).map(|text| text.map(str::to_owned));
    let cd = kind == Kind::Cd;
    let (host, physical) = drive.and_then(Drive::sectors).unwrap_or((512, 512));
    let size = |name: &'static str, usual: u32| {
        let bytes: u32 = props.get(name)?;
        let bytes = if bytes == 0 { usual } else { bytes };
        if bytes >= 512 && bytes.is_power_of_two() {
            return Ok(bytes);
        }
        Err(wrong(format!("{name} must be a power of two of at least 512")))
    };
    let block = size("logical_block_size", if cd { 2048 } else { host })?;
    let physical = size("physical_block_size", physical.max(block))?;
    if block > physical {
        return Err(wrong("logical_block_size > physical_block_size not supported".to_owned()));
    }
    let serial = text("serial")?;
    if serial.as_ref().is_some_and(|serial| serial.len() > MAX_SERIAL) {
        return Err(wrong(format!(
            "The serial number can't be longer than {MAX_SERIAL} characters"
        )));
    }
    let by_name = || drive.map(|drive| drive.id().to_owned());
    let device_id = text("device_id")?.or_else(|| serial.clone()).or_else(by_name);
    let usual = if cd { "QEMU CD-ROM" } else { "QEMU HARDDISK" };
    let discard = if cd {
        0
    } else {
        let usual = if drive.is_some_and(Drive::discards) { 4096 } else { 0 };
        props.get::<Option<u32>>("discard_granularity")?.unwrap_or(usual)
    };
    Ok(Identity {
        kind,
        vendor: text("vendor")?.unwrap_or_default(),
        product: text("product")?.unwrap_or_else(|| usual.to_owned()),
        version: text("ver")?.unwrap_or_default(),
        serial,
        device_id: device_id.unwrap_or_default(),
        wwn: props.get("wwn")?,
        removable: cd || props.get("removable")?,
        block,
        physical,
        min_io: props.get("min_io_size")?,
        opt_io: props.get("opt_io_size")?,
        discard,
        rotation: if cd { 0 } else { props.get("rotation_rate")? },
    })
}

impl Device for ScsiDevice {
    fn read(&mut self, _: At, _: &mut [u8]) {}

    fn write(&mut self, _: At, _: &[u8]) {}

    fn reset(&mut self) {
        self.drive.unit.reset();
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(VERSION, &self.drive.unit.save())
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.drive.unit.load(blob.parse::<State>(VERSION, &[])?);
        Ok(())
    }

    fn unplug(&mut self) {
        self.bus.unplug(self.place);
        self.drive.release();
    }
}
