//! The units of a host adapter by their addresses, as the adapter and the units' devices share
//! them.
//!
//! Any thread. Lock: a leaf mutex around the table. A hostile guest reaches it by addresses, of
//! which those that are not there give nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::class::CreateError;
use resources::iol::Handle;
use resources::request::{Request, Requests};

use super::drive::ScsiDrive;

/// The name of its type.
pub const KIND: &str = "SCSI";

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The target.
    pub target: u8,
    /// The unit's number.
    pub lun: u16,
}

/// What happens to the units of a bus, for the adapter to tell its driver. Any thread; called
/// without a lock held; must not wait.
pub trait Adapter: Send + Sync {
    /// A unit has come.
    fn came(&self, place: Place);
    /// A unit has gone.
    fn went(&self, place: Place);
    /// A unit has something to tell: additional sense code and qualifier.
    fn changed(&self, place: Place, code: u8, qualifier: u8);
}

/// See the module's description.
pub struct ScsiBus {
    units: Mutex<BTreeMap<Place, Arc<ScsiDrive>>>,
    adapter: Arc<dyn Adapter>,
    /// The loop on which the adapter moves data.
    on: Handle,
    requests: Requests,
    /// Trays that the guest has moved since clients were last told: drives, and whether open.
    trays: Mutex<BTreeMap<String, bool>>,
    max_target: u8,
    max_lun: u16,
}

impl ScsiBus {
    /// A bus without units.
    pub fn new(
        adapter: Arc<dyn Adapter>,
        on: Handle,
        requests: Requests,
        max_target: u8,
        max_lun: u16,
    ) -> Arc<ScsiBus> {
        let (units, trays) = (Mutex::default(), Mutex::default());
        Arc::new(ScsiBus { units, adapter, on, requests, trays, max_target, max_lun })
    }

    /// The loop that units are used on.
    pub fn on(&self) -> &Handle {
        &self.on
    }

    /// Who tells the driver.
    pub(super) fn adapter(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }

    /// The place for a unit: as asked for, or the first that is free.
    ///
    /// # Errors
    /// It is taken, or there is no such place.
    pub fn choose(
        &self,
        channel: u32,
        target: Option<u32>,
        lun: Option<u32>,
    ) -> Result<Place, CreateError> {
        let wrong = |why: String| Err(CreateError::Other(why));
        if channel != 0 {
            return wrong(format!("bad scsi channel id: {channel}"));
        }
        let wanted = target.map(|id| u8::try_from(id).ok().filter(|id| *id <= self.max_target));
        let wanted_lun = lun.map(|lun| u16::try_from(lun).ok().filter(|lun| *lun <= self.max_lun));
        if let (Some(None), Some(id)) = (wanted, target) {
            return wrong(format!("bad scsi device id: {id}"));
        }
        if let (Some(None), Some(lun)) = (wanted_lun, lun) {
            return wrong(format!("bad scsi device lun: {lun}"));
        }
        let (target, lun) = (wanted.flatten(), wanted_lun.flatten());
        let units = self.units.lock();
        let free = |place: &Place| !units.contains_key(place);
        match (target, lun) {
            (Some(target), Some(lun)) => {
                let place = Place { target, lun };
                match units.get(&place) {
                    None => Ok(place),
                    Some(unit) => wrong(format!("lun already used by '{}'", unit.name())),
                }
            }
            (Some(target), None) => {
                let mut places = (0..=self.max_lun).map(|lun| Place { target, lun });
                places.find(free).map_or_else(|| wrong("no free lun".to_owned()), Ok)
            }
            (None, lun) => {
                let lun = lun.unwrap_or(0);
                let mut places = (0..=self.max_target).map(|target| Place { target, lun });
                places.find(free).map_or_else(|| wrong("no free target".to_owned()), Ok)
            }
        }
    }

    /// Puts a unit into a place that is free, and tells the driver.
    pub(super) fn plug(&self, place: Place, unit: Arc<ScsiDrive>) {
        self.units.lock().insert(place, unit);
        self.adapter.came(place);
    }

    /// Takes a unit out, and tells the driver.
    pub(super) fn unplug(&self, place: Place) {
        let unit = self.units.lock().remove(&place);
        if unit.is_some() {
            self.adapter.went(place);
        }
    }

    /// The unit at a place.
    pub fn unit(&self, place: Place) -> Option<Arc<ScsiDrive>> {
        self.units.lock().get(&place).cloned()
    }

    /// The units of a target, by number.
    pub fn units_of(&self, target: u8) -> Vec<(u16, Arc<ScsiDrive>)> {
        let all = Place { target, lun: 0 }..=Place { target, lun: u16::MAX };
        self.units.lock().range(all).map(|(place, unit)| (place.lun, unit.clone())).collect()
    }

    /// Resets all units: power was off, or the bus was reset.
    pub fn reset(&self) {
        let units: Vec<_> = self.units.lock().values().cloned().collect();
        units.iter().for_each(|unit| unit.unit().reset());
    }

    /// The guest has moved the tray of a drive: clients are told.
    pub fn tray_moved(&self, drive: &str, open: bool) {
        self.trays.lock().insert(drive.to_owned(), open);
        self.requests.request(Request::TrayMoved);
    }

    /// The drives whose tray the guest has moved since the last call, and whether it is open.
    pub fn take_trays(&self) -> BTreeMap<String, bool> {
        std::mem::take(&mut *self.trays.lock())
    }
}
