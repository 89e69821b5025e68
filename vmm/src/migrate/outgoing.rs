//! The guest moves away.
//!
//! The thread of the migration, and what the main thread does for it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::virtio::balloon;
use migration::blocks;
use migration::channel::Connecting;
use migration::dest::Section;
use migration::inventory::Inventory;
use migration::link::Link;
use migration::ram::{Block, Free, Hinting, Watch};
use migration::road::Road;
use migration::source::{self, Machine, Outcome, Wants};
use migration::status::{Limits, Phase, Progress};
use migration::stream::Error;
use qmp::{QmpError, RunState};
use resources::ram::RamBlock;
use resources::request::WakeReason;
use resources::space::{Space, SpaceError};
use resources::state::Blob;

use super::disks::Copies;
use super::{Ask, GLOBAL, Global, Main, refused};
use crate::cli::log::tell;
use crate::drives::DriveError;
use crate::vm::Vm;

/// So long it is tried to get the disks back from a destination that is about to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine, as the thread sees it.
struct Here {
    memory: Arc<Space>,
    balloon: Arc<balloon::Slot>,
    /// Where the first blocks of what is moved are in the guest's memory.
    places: Vec<(Range<u64>, Arc<RamBlock>)>,
    main: Main,
    released: bool,
    copies: Option<Copies>,
    road: Road,
}

impl Machine for Here {
    fn start_log(&mut self) -> Result<(), String> {
        self.memory.log_dirty(true).map_err(|error| error.to_string())
    }

    fn harvest(&mut self) -> Result<(), String> {
        self.memory.harvest_dirty().map_err(|error| error.to_string())
    }

    fn watch(&self) -> Option<Watch> {
        let memory = self.memory.clone();
        Some(Box::new(move |ram, offset, size| {
            memory.watch(ram, offset, size).map_err(|error| error.to_string())
        }))
    }

    fn disks(&mut self) -> Result<Option<blocks::Sender>, String> {
        self.copies.as_ref().map(Copies::sender).transpose()
    }

    fn stop_log(&mut self) {
        if let Err(error) = self.memory.log_dirty(false) {
            tracing::warn!("the guest's writes are noted for ever: {error}");
        }
    }

    fn throttle(&mut self, percent: u8) {
        self.main.mailbox.set_throttle(percent);
    }

    fn hints(&mut self, ask: Hinting) -> Vec<Free> {
        let Some(balloon) = self.balloon.get() else { return Vec::new() };
        let named = match ask {
            Hinting::Begin => {
                if balloon.can_hint() {
                    self.note_all().map_or_else(
                        |error| tracing::warn!("the guest is not asked what is free: {error}"),
                        |()| balloon.begin_hints(),
                    );
                }
                return Vec::new();
            }
            Hinting::Take => balloon.take_hints(),
            Hinting::End => balloon.end_hints(false),
            Hinting::Done => balloon.end_hints(true),
        };
        let in_blocks = |(address, len): (u64, u64)| {
            let named = address..address.saturating_add(len);
            self.places.iter().enumerate().filter_map(move |(block, (place, _))| {
                let start = named.start.max(place.start);
                let len = named.end.min(place.end).checked_sub(start)?;
                Some(Free { block, offset: start - place.start, len })
            })
        };
        named.into_iter().flat_map(in_blocks).collect()
    }

    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.main.order(Ask::SwitchOver)
    }

    fn release(&mut self) -> Result<(), String> {
        self.released = true;
        self.main.order(Ask::Release)
    }

    fn connect(&mut self) -> Result<Box<dyn Link + Send>, String> {
        self.road.again().map_err(|error| error.0)
    }
}

impl Here {
    /// Has whatever is written to RAM from now on noted. What was found to be written, and was not
    /// read since, is not otherwise: a write there would be lost with a page that need not be sent.
    fn note_all(&self) -> Result<(), SpaceError> {
        self.places.iter().try_for_each(|(_, ram)| self.memory.watch(ram, 0, ram.size()))
    }

    /// Takes the disks back: who has had them may need a moment to end.
    fn take_back(&mut self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while self.released {
            match self.main.order(Ask::Take) {
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                Ok(()) => self.released = false,
            }
        }
        Ok(())
    }
}

/// What is to be moved.
struct Parcel {
    blocks: Vec<Block>,
    inventory: Inventory,
    limits: Arc<Limits>,
    progress: Arc<Progress>,
    wants: Wants,
}

impl Parcel {
    /// The thread.
    fn send(self, link: impl Link, mut here: Here) {
        let Parcel { blocks, inventory, limits, progress, wants } = self;
        let mut outcome =
            source::send(link, blocks, &inventory, &mut here, &limits, &progress, wants);
        if let Outcome::Stayed(error) = &outcome
            && let Err(disks) = here.take_back()
        {
            let text = format!("{error}; the disks cannot be taken back: {disks}");
            outcome = Outcome::Unsure(Error::Here(text));
        }
        here.main.tell(Ask::Sent(outcome));
    }
}

impl Vm {
    /// Why the guest cannot be moved now, whatever the way.
    ///
    /// # Errors
    /// If it cannot.
    pub(crate) fn check_movable(&self) -> Result<(), QmpError> {
        self.check_storable()?;
        self.check_whole()?;
        self.drives.check_movable().map_err(|error| QmpError::generic(error.to_string()))
    }

    /// Refuses to keep the state of a machine that has none.
    ///
    /// # Errors
    /// A load has failed half-way, and the machine was not reset since.
    pub(crate) fn check_whole(&self) -> Result<(), QmpError> {
        match self.migration.half_loaded {
            true => Err(QmpError::generic(
                "Resetting the Virtual Machine is required: its state was loaded only in part",
            )),
            false => Ok(()),
        }
    }

    /// Why the state of the machine, without its disks, cannot be stored or replaced now.
    ///
    /// # Errors
    /// If it cannot.
    pub(crate) fn check_storable(&self) -> Result<(), QmpError> {
        let refuse = |text: &str| Err(QmpError::generic(text));
        match self.state() {
            _ if self.migration.is_leaving() => {
                return refuse("There's a migration process in progress");
            }
            _ if self.migration.filling() == Some(true) => {
                return refuse("Some of the guest's memory is still where it came from");
            }
            RunState::Inmigrate => return refuse("Guest is waiting for an incoming migration"),
            RunState::Postmigrate => {
                return refuse("Can't migrate the vm that was paused due to previous migration");
            }
            _ => {}
        }
        self.latest_dump.refuse_active()?;
        for device in &self.board.devices {
            if let Some(reason) = device.lock().pinned() {
                return Err(QmpError::generic(reason));
            }
        }
        Ok(())
    }

    /// Begins a migration: from now on it is known to clients.
    pub(crate) fn begin_migration(&mut self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.migration.progress = Some(progress.clone());
        self.migration.announced = self.inventory();
        self.migration.images = self.drives.images();
        if self.migration.copies.is_some() {
            self.migration.announced.disks = self.disk_sizes();
        }
        progress
    }

    /// Moves the guest by `road`, on which it is `connecting` already, on a thread.
    pub(crate) fn send_over(&self, progress: &Arc<Progress>, road: Road, connecting: Connecting) {
        let parcel = Parcel {
            blocks: self.blocks(),
            inventory: self.migration.announced.clone(),
            limits: self.migration.limits.clone(),
            progress: progress.clone(),
            wants: self.wants(),
        };
        let ranges = self.board.ram.iter().flat_map(|ram| ram.ranges());
        let here = Here {
            memory: self.board.memory.clone(),
            balloon: self.board.balloon.clone(),
            places: ranges
                .map(|it| (it.guest..it.guest + it.block.size(), it.block.clone()))
                .collect(),
            main: self.main(),
            released: false,
            copies: self.migration.copies.clone(),
            road,
        };
        let main = self.main();
        let thread = std::thread::Builder::new().name("migrate".to_owned());
        let spawned = thread.spawn(move || match here.road.arrive(connecting) {
            Ok(link) => parcel.send(link, here),
            Err(error) => here.main.tell(Ask::Sent(Outcome::Stayed(Error::Here(error.0)))),
        });
        if let Err(error) = spawned {
            main.tell(Ask::Sent(Outcome::Stayed(Error::Io(error))));
        }
    }

    /// Brings the guest to a standstill, and wakes it if it sleeps, also if it fell asleep in its
    /// last moment: a sleeping guest does not travel.
    pub(super) fn settle_awake(&mut self) {
        self.settle();
        if self.state() == RunState::Suspended && self.exit_status().is_none() {
            self.mailbox().ask(|mail| mail.wakeup = Some(WakeReason::Other));
            self.settle();
        }
    }

    /// Stops the guest and saves everything but memory.
    pub(super) fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        let cancelled = |vm: &Vm| {
            let progress = vm.migration.progress.as_ref();
            progress.is_some_and(|progress| progress.phase() == Phase::Cancelling)
        };
        if cancelled(self) {
            return Err("it was cancelled".to_owned());
        }
        self.settle_awake();
        if self.exit_status().is_some() {
            return Err("the machine ends".to_owned());
        }
        self.latest_dump.refuse_active().map_err(|error| error.desc)?;
        let before = self.state();
        self.stop_in(RunState::FinishMigrate);
        self.migration.before = Some(before);
        self.drives.flush_all().map_err(|error| error.to_string())?;
        if self.migration.copies.is_none() {
            self.drives.check_movable().map_err(|error| error.to_string())?;
        }
        let disks = self.migration.announced.disks.clone();
        if (Inventory { disks, ..self.inventory() }) != self.migration.announced {
            return Err("devices have come or gone while the guest was moved".to_owned());
        }
        if self.drives.images() != self.migration.images {
            return Err("a disk has got another image while the guest was moved".to_owned());
        }
        self.save_moving(before)
    }

    /// Saves everything but memory, of a guest that stands still and was in this state before.
    pub(super) fn save_moving(&mut self, before: RunState) -> Result<Vec<Section>, String> {
        let global = Global::of(self.board.clock.now(), before);
        let blob = Blob::new(1, &global).map_err(|error| error.to_string())?;
        let mut all = vec![Section { name: GLOBAL.to_owned(), blob }];
        let saved = self.save().map_err(refused)?.into_iter();
        all.extend(saved.map(|section| Section { name: section.path, blob: section.blob }));
        Ok(all)
    }

    /// Lets go of the disks: nothing may have begun to use one since the guest was stopped.
    pub(super) fn let_go(&self) -> Result<(), DriveError> {
        // Disks that are taken along are in use by that.
        if self.migration.copies.is_none() {
            self.drives.check_movable()?;
        }
        self.drives.deactivate()
    }

    /// It has ended.
    pub(super) fn sent(&mut self, outcome: Outcome) {
        let Some(progress) = self.migration.progress.clone() else { return };
        let before = self.migration.before.take();
        self.keep_disks();
        match outcome {
            Outcome::Moved => {
                self.set_state(RunState::Postmigrate);
                progress.ended(Phase::Completed, None);
            }
            Outcome::Stayed(error) => {
                match before {
                    Some(RunState::Running) => self.start(),
                    Some(before) => self.set_state(before),
                    None => {}
                }
                let cancelled = progress.phase() == Phase::Cancelling;
                match error {
                    _ if cancelled => progress.ended(Phase::Cancelled, None),
                    Error::Cancelled => progress.ended(Phase::Cancelled, None),
                    error => {
                        tell(format_args!("migration failed: {error}"));
                        progress.ended(Phase::Failed, Some(error.to_string()));
                    }
                }
            }
            Outcome::Lost(error) => {
                let text = format!(
                    "{error}; the destination ran the guest already and lacks some of its memory: \
                     the guest is lost"
                );
                self.migration.memory_left = true;
                tell(format_args!("migration failed: {text}"));
                self.set_state(RunState::Postmigrate);
                progress.ended(Phase::Failed, Some(text));
            }
            Outcome::PerhapsLost(error) => {
                let text = format!(
                    "{error}; the destination may have run the guest before its memory was there, \
                     and changed its disks: it cannot go on here, only begin anew"
                );
                self.migration.memory_left = true;
                tell(format_args!("migration failed: {text}"));
                self.set_state(RunState::Postmigrate);
                progress.ended(Phase::Failed, Some(text));
            }
            Outcome::Unsure(error) => {
                let text = format!(
                    "{error}; the destination may run the guest: look there before you let it \
                     go on here"
                );
                tell(format_args!("migration failed: {text}"));
                self.set_state(RunState::Postmigrate);
                progress.ended(Phase::Failed, Some(text));
            }
        }
    }

    /// The user has stopped the guest while it is being moved: it does not run if it stays.
    pub(crate) fn stop_moving(&mut self) {
        if let Some(before @ RunState::Running) = &mut self.migration.before {
            *before = RunState::Paused;
        }
        if let Some(incoming) = &mut self.migration.incoming {
            incoming.run = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cmd::testing::{ask, fake};
    use crate::migrate::incoming::unpack;

    #[test]
    fn a_guest_that_falls_asleep_in_its_last_moment_goes_awake() {
        for asleep in [false, true] {
            let mut vm = fake();
            vm.start();
            vm.begin_migration();
            vm.mailbox().ask(|mail| mail.suspend = true);
            if asleep {
                vm.service();
                assert_eq!(vm.state(), RunState::Suspended);
            }
            let (global, _) = unpack(vm.switch_over().unwrap()).unwrap();
            assert!(global.running, "{asleep}");
            assert_eq!(vm.state(), RunState::FinishMigrate);
        }
    }

    #[test]
    fn a_guest_that_left_without_its_memory_does_not_go_on_here() {
        for outcome in [Outcome::Lost, Outcome::PerhapsLost] {
            let mut vm = fake();
            vm.start();
            vm.begin_migration();
            vm.switch_over().unwrap();
            vm.sent(outcome(Error::Here("the way is gone".to_owned())));
            assert_eq!(vm.state(), RunState::Postmigrate);
            let error = ask(&mut vm, "cont", json!({})).unwrap_err().desc;
            assert!(error.starts_with("Resetting the Virtual Machine is required"), "{error}");
            assert!(!vm.is_running());
            // With the memory of one that was just switched on it can.
            ask(&mut vm, "system_reset", json!({})).unwrap();
            vm.service();
            ask(&mut vm, "cont", json!({})).unwrap();
            assert!(vm.is_running());
        }
    }

    #[test]
    fn one_that_may_have_left_whole_goes_on_where_its_user_says() {
        let mut vm = fake();
        vm.start();
        vm.begin_migration();
        vm.switch_over().unwrap();
        vm.sent(Outcome::Unsure(Error::Here("the way is gone".to_owned())));
        assert_eq!(vm.state(), RunState::Postmigrate);
        ask(&mut vm, "cont", json!({})).unwrap();
        assert!(vm.is_running());
    }
}
