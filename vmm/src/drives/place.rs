//! Where a drive of `-drive` goes: its interface, and its place there.
//!
//! Pure data. The machine has no controller for IDE: such drives keep their names and places, and
//! are disks and CD-ROMs of a SCSI controller.

use block::Options;
use resources::value::check_identifier;

use super::{DriveError, wrong};
use crate::cli::keyval::Pairs;

/// What a drive is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// Nothing: a device names it.
    None,
    /// IDE, by a SCSI controller.
    Ide,
    /// SCSI.
    Scsi,
    /// A virtio-blk device of its own.
    Virtio,
}

impl Interface {
    fn named(name: &str) -> Result<Interface, DriveError> {
        Ok(match name {
            "none" => Interface::None,
            "ide" => Interface::Ide,
            "scsi" => Interface::Scsi,
            "virtio" => Interface::Virtio,
            "floppy" | "pflash" | "mtd" | "sd" | "xen" => {
                return wrong(format!(
                    "if={name}: the machine has no such disks, use if=ide, if=scsi or if=virtio, \
                     or if=none with a -device"
                ));
            }
            other => return wrong(format!("unsupported bus type '{other}'")),
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Interface::None => "none",
            Interface::Ide => "ide",
            Interface::Scsi => "scsi",
            Interface::Virtio => "virtio",
        }
    }

    /// Units of a bus, where there are buses.
    fn units(self) -> Option<u64> {
        match self {
            Interface::Ide => Some(2),
            Interface::Scsi => Some(7),
            Interface::None | Interface::Virtio => None,
        }
    }
}

/// What a drive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// A disk.
    Disk,
    /// A CD-ROM, which is not written.
    Cdrom,
}

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Of which kind.
    pub(super) interface: Interface,
    bus: u64,
    unit: u64,
    /// What is there.
    pub(super) media: Media,
    /// The drive.
    pub(super) id: String,
    /// The place on the PCI bus, with [`Interface::Virtio`].
    addr: Option<String>,
}

impl Place {
    /// Takes from the options what is about the place, which must not be `taken`.
    pub(super) fn take(options: &mut Options, taken: &[Place]) -> Result<Place, DriveError> {
        let interface = Interface::named(options.take("if").as_deref().unwrap_or("ide"))?;
        let media = match options.take("media").as_deref() {
            None | Some("disk") => Media::Disk,
            Some("cdrom") => Media::Cdrom,
            Some(other) => return wrong(format!("'{other}' invalid media")),
        };
        geometry(options, media)?;
        let index = options.take_number("index")?;
        let (bus, unit) = (options.take_number("bus")?, options.take_number("unit")?);
        if index.is_some() && (bus.is_some() || unit.is_some()) {
            return wrong("index cannot be used with bus and unit");
        }
        let (bus, unit) = match (index, interface.units()) {
            (Some(index), Some(units)) => (index / units, Some(index % units)),
            (Some(index), None) => (0, Some(index)),
            (None, _) => (bus.unwrap_or(0), unit),
        };
        let is_taken = |bus, unit| {
            taken.iter().any(|it| (it.interface, it.bus, it.unit) == (interface, bus, unit))
        };
        let (bus, unit) = match unit {
            Some(unit) => (bus, unit),
            None => {
                let mut place = (bus, 0);
                while is_taken(place.0, place.1) {
                    place.1 += 1;
                    if interface.units() == Some(place.1) {
                        place = (place.0 + 1, 0);
                    }
                }
                place
            }
        };
        if let Some(units) = interface.units()
            && unit >= units
        {
            return wrong(format!("unit {unit} too big (max is {})", units - 1));
        }
        let last = match interface {
            Interface::Ide => 1,
            Interface::Scsi => 35,
            Interface::None | Interface::Virtio => 0,
        };
        if bus > last {
            return wrong(format!("bus {bus} too big (max is {last})"));
        }
        if is_taken(bus, unit) {
            let index = interface.units().map_or(0, |units| bus * units) + unit;
            return wrong(format!("drive with bus={bus}, unit={unit} (index={index}) exists"));
        }
        let id = match options.take("id") {
            Some(id) => {
                check_identifier("id", &id).map_err(|error| DriveError(error.to_string()))?;
                id
            }
            None => {
                let name = interface.as_str();
                match (interface.units(), media) {
                    (None, _) => format!("{name}{unit}"),
                    (Some(_), Media::Disk) => format!("{name}{bus}-hd{unit}"),
                    (Some(_), Media::Cdrom) => format!("{name}{bus}-cd{unit}"),
                }
            }
        };
        let addr = options.take("addr");
        if addr.is_some() && interface != Interface::Virtio {
            return wrong("addr is not supported by this bus type");
        }
        Ok(Place { interface, bus, unit, media, id, addr })
    }

    /// The devices that belong to it: its own, and a controller, if it is the first on that.
    pub(super) fn devices(&self, taken: &[Place]) -> Vec<Pairs> {
        let id = self.id.as_str();
        let controller = match self.interface {
            Interface::None => return Vec::new(),
            Interface::Virtio => {
                let mut device: Pairs =
                    [("driver", "virtio-blk-pci"), ("drive", id)].into_iter().collect();
                if let Some(addr) = &self.addr {
                    device.push("addr", addr);
                }
                return vec![device];
            }
            Interface::Ide => "drives-ide",
            Interface::Scsi => "drives-scsi",
        };
        let mut devices = Vec::new();
        if taken.iter().all(|other| other.interface != self.interface) {
            let pairs = [("driver", "virtio-scsi-pci"), ("id", controller)];
            devices.push(pairs.into_iter().collect());
        }
        let driver = match self.media {
            Media::Disk => "scsi-hd",
            Media::Cdrom => "scsi-cd",
        };
        let target = self.bus * self.interface.units().unwrap_or(1) + self.unit;
        let (bus, target) = (format!("{controller}.0"), target.to_string());
        let pairs = [("driver", driver), ("drive", id), ("bus", &bus), ("scsi-id", &target)];
        devices.push(pairs.into_iter().collect());
        devices
    }
}

/// The geometry of a disk, which no disk here has: it is only looked at.
fn geometry(options: &mut Options, media: Media) -> Result<(), DriveError> {
    let mut given = false;
    let mut all = true;
    for (key, most) in [("cyls", 65_535), ("heads", 255), ("secs", 255)] {
        match options.take_number(key)? {
            None => all = false,
            Some(number) => {
                given = true;
                if !(1..=most).contains(&number) {
                    return wrong(format!("invalid physical {key} number"));
                }
            }
        }
    }
    if given && !all {
        return wrong("cyls, heads and secs must be given together");
    }
    if let Some(word) = options.take("trans") {
        if !given {
            return wrong(format!("'{word}' trans must be used with cyls, heads and secs"));
        }
        if !matches!(word.as_str(), "none" | "lba" | "large" | "rechs" | "auto") {
            return wrong(format!("'{word}' invalid translation type"));
        }
    }
    if given && media == Media::Cdrom {
        return wrong("CHS can't be set with media=cdrom");
    }
    Ok(())
}
