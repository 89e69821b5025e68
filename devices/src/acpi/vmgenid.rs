//! The machine's generation id: a number in guest memory that is another one when the guest's state
//! was loaded somewhere else or anew, so that it may know that it is not alone (Microsoft's "Virtual
//! Machine Generation ID").
//!
//! The number is a UUID in RAM that the tables reserve, at [`PAGE`] + [`OFFSET`]; ACPI device
//! `\_SB.VGEN` says where. When the machine is to run, and the number is not in RAM, it is put
//! there; after saved state was loaded, event 5 tells the guest.
//!
//! No registers. Main thread, under the device's mutex, while the guest does not run. A guest that
//! overwrites the number has it wrong until the next start.

use std::sync::Arc;

use acpi_tables::Aml;
use acpi_tables::aml;
use resources::class::{Class, CreateError};
use resources::device::{At, Device, DeviceCell};
use resources::props::{Kind, Prop, PropError, Value};
use resources::ram::GuestMemory;
use resources::state::{Blob, Empty, StateError};
use uuid::Uuid;
use vm_memory::{Bytes, GuestAddress};

use super::gpe::{GENERATION_ID, Gpe};
use crate::class::Ctx;

/// Guest address of the page that has the number, and nothing else: the last of those that are
/// kept for tables.
pub const PAGE: u64 = 0xf_f000;
/// Where in the page the number is: where firmware that sees a table there first has it too.
pub const OFFSET: u64 = 40;

/// The device.
pub struct GenerationId {
    uuid: Uuid,
    /// Where the number goes, and who tells of it; none where firmware brings its own tables.
    guest: Option<(GuestMemory, Arc<Gpe>)>,
    /// Saved state was loaded since the machine ran.
    loaded: bool,
}

impl GenerationId {
    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "vmgenid",
        aliases: &[],
        bus: "System",
        description: "VM generation id",
        props: &[Prop {
            name: "guid",
            kind: Kind::Uuid,
            default: Some("auto"),
            help: "the id, or auto for a random one",
        }],
        base: &[],
        create: Some(|props, ctx| {
            let uuid = match props.get::<&str>("guid")? {
                "auto" => random()?,
                text => Uuid::try_parse(text).map_err(|_| PropError::Value {
                    class: "vmgenid",
                    name: "guid",
                    value: text.to_owned(),
                    nearest: None,
                })?,
            };
            if ctx.present.contains(&"vmgenid") {
                let text = "at most one vmgenid device is permitted";
                return Err(CreateError::Other(text.to_owned()));
            }
            props.forget("guid");
            props.fill("guid", Value::Text(uuid.hyphenated().to_string()));
            let guest = ctx.gpe.clone().map(|gpe| (ctx.ram.clone(), gpe));
            let path = ctx.path(props);
            let (devices, events) = describe();
            ctx.aml.devices.extend(devices);
            ctx.aml.events.extend(events);
            Ok(GenerationId::new(&path, uuid, guest))
        }),
    };

    /// The number `uuid`, put into this memory and told by these events.
    pub fn new(
        name: &str,
        uuid: Uuid,
        guest: Option<(GuestMemory, Arc<Gpe>)>,
    ) -> Arc<DeviceCell<GenerationId>> {
        DeviceCell::new(name, GenerationId { uuid, guest, loaded: false })
    }
}

fn random() -> Result<Uuid, CreateError> {
    let mut bytes = [0; 16];
    // Less than 256 bytes come at once, or not at all.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| CreateError::Other(format!("no random number for a UUID: {error}")))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// AML of the device, and of the method that its event runs.
fn describe() -> (Vec<u8>, Vec<u8>) {
    let address = PAGE.saturating_add(OFFSET);
    // Windows knows the first of these, Linux both.
    let ids = aml::Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"]);
    let parts = [
        aml::Name::new("_HID".into(), &"QEMUVGID"),
        aml::Name::new("_CID".into(), &ids),
        aml::Name::new("_DDN".into(), &"VM_Gen_Counter"),
        aml::Name::new("_STA".into(), &0xfu8),
        // Lower and upper half.
        aml::Name::new("ADDR".into(), &aml::Package::new(vec![&address, &0u8])),
    ];
    let parts = parts.iter().map(|part| part as &dyn Aml).collect();
    let mut devices = Vec::new();
    aml::Device::new("VGEN".into(), parts).to_aml_bytes(&mut devices);

    let path = aml::Path::new("\\_SB_.VGEN");
    let notify = aml::Notify::new(&path, &0x80u8);
    let mut events = Vec::new();
    aml::Method::new("_E05".into(), 0, false, vec![&notify]).to_aml_bytes(&mut events);
    (devices, events)
}

impl Device for GenerationId {
    fn read(&mut self, _: At, _: &mut [u8]) {}

    fn write(&mut self, _: At, _: &[u8]) {}

    fn reset(&mut self) {
        self.loaded = false;
    }

    fn start(&mut self) {
        let loaded = std::mem::take(&mut self.loaded);
        let Some((ram, gpe)) = &self.guest else { return };
        let (at, id) = (GuestAddress(PAGE.saturating_add(OFFSET)), self.uuid.to_bytes_le());
        let mut found = [0; 16];
        if ram.read_slice(&mut found, at).is_ok() && found != id {
            if let Err(error) = ram.write_slice(&id, at) {
                tracing::error!("the generation id is not in RAM: {error}");
            } else if loaded {
                gpe.raise(GENERATION_ID);
            }
        }
    }

    fn save(&self) -> Result<Blob, StateError> {
        // The number is that of the machine which loads, not of the one that was saved.
        Blob::new(1, &Empty {})
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.loaded = true;
        blob.parse::<Empty>(1, &[]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::irq::Irq;

    const UUID: Uuid = Uuid::from_u128(0x324e6eaf_d1d1_4bf6_bf41_b9bb6c91fb87);

    #[test]
    fn a_guest_is_told_when_it_was_loaded_elsewhere() {
        let ram = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        let gpe = Gpe::new(Irq::None);
        gpe.write(2, 1 << 5);
        let id = || ram.read_obj::<[u8; 16]>(GuestAddress(0xff028)).unwrap();
        let old = GenerationId::new("id", UUID, Some((ram.clone(), gpe.clone())));
        old.lock().reset();
        old.lock().start();
        assert_eq!(id()[..6], [0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1]);
        assert!(!gpe.is_pending(), "it is what the guest finds at its start");
        let saved = old.lock().save().unwrap();
        // Loaded into the same machine: nothing has happened.
        old.lock().load(&saved).unwrap();
        old.lock().start();
        assert!(!gpe.is_pending());
        let new = GenerationId::new("id", Uuid::nil(), Some((ram.clone(), gpe.clone())));
        new.lock().load(&saved).unwrap();
        new.lock().start();
        assert_eq!(id(), [0; 16]);
        assert!(gpe.is_pending());
    }

    #[test]
    fn without_tables_nothing_is_written() {
        let cell = GenerationId::new("id", UUID, None);
        cell.lock().start();
        cell.lock().reset();
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
        assert_eq!(random().unwrap().get_version_num(), 4);
    }
}
