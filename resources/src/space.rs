//! Address spaces: mappings with priorities, painted into an immutable published view.
//!
//! A [`Mapping`] puts RAM, a device's region or a router at an address. Where mappings overlap,
//! the higher priority wins, then the later one: so ROM shadowing, a BAR moved over another or a
//! window over RAM need no special case, and moving one cannot fail. Whoever changes the set
//! (main thread, or a vCPU through a device's registers) takes the writer lock, paints the new
//! view, makes the hypervisor follow (memory slots and doorbells, by the difference from before)
//! and publishes it. Whoever accesses (vCPUs) takes no lock: it loads the published view and may,
//! for a moment, use one that is being replaced.
//!
//! A hostile guest reaches [`Space::read`] and [`Space::write`] with any address and length, and
//! moves mappings through configuration registers. Everything it can do is bounded by the number
//! of mappings, which only the machine adds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use crate::device::{At, DeviceRef, Router};
use crate::guest_error;
use crate::hv::{Doorbell, HvError, Hypervisor, Slot, SpaceKind, step};
use crate::ram::{PAGE, RamBlock};

mod dirty;
mod inspect;

pub use dirty::DirtyLog;
pub use inspect::MemoryRange;

/// What an address leads to.
#[derive(Clone)]
pub enum Target {
    /// Host memory from `offset` on; writes to read-only memory are dropped.
    Ram {
        /// The memory.
        block: Arc<RamBlock>,
        /// Where in it the mapping begins.
        offset: u64,
        /// ROM.
        readonly: bool,
    },
    /// A region of a device.
    Device {
        /// The device.
        device: DeviceRef,
        /// The device's number for the region.
        region: u16,
    },
    /// Something that finds the device by the offset.
    Router(Arc<dyn Router>),
}

/// A guest write inside a mapping that signals an eventfd.
#[derive(Clone)]
pub struct Bell {
    /// Offset inside the mapping.
    pub offset: u64,
    /// See [`Doorbell::width`].
    pub width: u8,
    /// See [`Doorbell::value`].
    pub value: Option<u64>,
    /// The eventfd.
    pub fd: Arc<EventFd>,
}

/// A range of an address space and what it leads to.
#[derive(Clone)]
pub struct Mapping {
    /// First address.
    pub base: u64,
    /// Size in bytes, at least 1.
    pub size: u64,
    /// The higher one wins where mappings overlap; RAM has 0.
    pub priority: i8,
    /// What is there.
    pub target: Target,
    /// Doorbells, active while the place of each is visible.
    pub bells: Vec<Bell>,
    /// A disabled mapping is not painted.
    pub enabled: bool,
}

impl Mapping {
    /// An enabled mapping of a device's region without doorbells, above RAM.
    pub fn device(base: u64, size: u64, device: DeviceRef, region: u16) -> Mapping {
        let target = Target::Device { device, region };
        Mapping { base, size, priority: 1, target, bells: Vec::new(), enabled: true }
    }

    /// An enabled mapping of a whole block.
    pub fn ram(base: u64, block: Arc<RamBlock>) -> Mapping {
        let size = block.size();
        let target = Target::Ram { block, offset: 0, readonly: false };
        Mapping { base, size, priority: 0, target, bells: Vec::new(), enabled: true }
    }

    fn last(&self) -> u64 {
        self.base + (self.size - 1)
    }
}

/// Names a mapping of one space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapId(u64);

/// A change that a space does not take.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Empty, or past the end of the address space.
    #[error("range {0:#x}+{1:#x} does not fit the address space")]
    Range(u64, u64),
    /// The hypervisor did not follow.
    #[error(transparent)]
    Hypervisor(#[from] HvError),
    /// A device's writes to RAM cannot be recorded.
    #[error("{0}")]
    Log(String),
}

/// An address space.
pub struct Space {
    kind: SpaceKind,
    hv: Arc<dyn Hypervisor>,
    writer: Mutex<Writer>,
    view: ArcSwap<View>,
    misses: AtomicU64,
    logs: dirty::Logs,
}

#[derive(Default)]
struct Writer {
    mappings: Vec<(MapId, Mapping)>,
    next: u64,
    slots: Vec<Slot>,
    bells: Vec<(Doorbell, Arc<EventFd>)>,
    log: bool,
    /// So many are making changes that are to be seen together.
    held: u32,
}

/// The painted form: sorted ranges that do not overlap.
#[derive(Default)]
pub struct View {
    ranges: Vec<Range>,
}

struct Range {
    first: u64,
    last: u64,
    target: Target,
    /// Offset of `first` inside the mapping.
    offset: u64,
    /// Which mapping it comes from, for doorbells, and the priority of that.
    id: MapId,
    priority: i8,
}

impl View {
    /// The range at `address`, or else where the next one begins.
    fn find(&self, address: u64) -> Result<&Range, Option<u64>> {
        let index = self.ranges.partition_point(|range| range.last < address);
        match self.ranges.get(index) {
            Some(range) if range.first <= address => Ok(range),
            Some(range) => Err(Some(range.first)),
            None => Err(None),
        }
    }

    /// What the view shows, lowest first: first address, last address, and a name for the target.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64, String)> {
        self.ranges.iter().map(|range| {
            let what = match &range.target {
                Target::Ram { readonly: false, .. } => "ram".to_owned(),
                Target::Ram { readonly: true, .. } => "rom".to_owned(),
                Target::Device { device, .. } => device.name().to_owned(),
                Target::Router(_) => "router".to_owned(),
            };
            (range.first, range.last, what)
        })
    }
}

impl Space {
    /// An empty space.
    pub fn new(kind: SpaceKind, hv: Arc<dyn Hypervisor>) -> Arc<Space> {
        Arc::new(Space {
            kind,
            hv,
            writer: Mutex::default(),
            view: ArcSwap::default(),
            misses: AtomicU64::new(0),
            logs: dirty::Logs::default(),
        })
    }

    /// The last address.
    fn limit(&self) -> u64 {
        match self.kind {
            SpaceKind::Memory => u64::MAX,
            SpaceKind::Ports => 0xffff,
        }
    }

    /// Adds a mapping; on an error there is none.
    pub fn map(&self, mapping: Mapping) -> Result<MapId, SpaceError> {
        self.check(mapping.base, mapping.size)?;
        let mut writer = self.writer.lock();
        writer.next += 1;
        let id = MapId(writer.next);
        writer.mappings.push((id, mapping));
        if let Err(error) = self.publish(&mut writer) {
            writer.mappings.pop();
            // Whatever is refused now, the first reason is the one to tell.
            let _ = self.publish(&mut writer);
            return Err(error);
        }
        Ok(id)
    }

    /// Makes the changes of `change` seen together, and the hypervisor hear of the last state only:
    /// each change costs as much as all mappings there are. What other threads change meanwhile is
    /// among them.
    ///
    /// # Errors
    /// The hypervisor refuses the state after them; the view shows it all the same.
    pub fn together<T>(&self, change: impl FnOnce() -> T) -> Result<T, SpaceError> {
        self.writer.lock().held += 1;
        let done = change();
        let mut writer = self.writer.lock();
        writer.held -= 1;
        self.publish(&mut writer)?;
        Ok(done)
    }

    /// Takes a mapping away.
    pub fn unmap(&self, id: MapId) -> Result<(), SpaceError> {
        let mut writer = self.writer.lock();
        writer.mappings.retain(|(other, _)| *other != id);
        self.publish(&mut writer)
    }

    /// Takes all mappings of a device away: it is gone.
    pub fn unmap_device(&self, gone: &DeviceRef) -> Result<(), SpaceError> {
        let mut writer = self.writer.lock();
        writer.mappings.retain(|(_, mapping)| {
            !matches!(&mapping.target, Target::Device { device, .. } if Arc::ptr_eq(device, gone))
        });
        self.publish(&mut writer)
    }

    /// Moves, enables or disables a mapping; doorbells follow.
    pub fn place(&self, id: MapId, base: u64, enabled: bool) -> Result<(), SpaceError> {
        let mut writer = self.writer.lock();
        let Some((_, mapping)) = writer.mappings.iter_mut().find(|(other, _)| *other == id) else {
            return Ok(());
        };
        self.check(base, mapping.size)?;
        if (mapping.base, mapping.enabled) != (base, enabled) {
            (mapping.base, mapping.enabled) = (base, enabled);
            self.publish(&mut writer)?;
        }
        Ok(())
    }

    fn check(&self, base: u64, size: u64) -> Result<(), SpaceError> {
        let last = size.checked_sub(1).and_then(|size| base.checked_add(size));
        match last {
            Some(last) if last <= self.limit() => Ok(()),
            _ => Err(SpaceError::Range(base, size)),
        }
    }

    /// The present view.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Accesses that found nothing, since the start.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Adds the record of somebody who writes RAM without marking pages, for as long as it lives.
    pub fn add_log(&self, log: &Arc<dyn DirtyLog>) -> Result<(), SpaceError> {
        self.logs.add(log).map_err(SpaceError::Log)
    }

    /// Turns the dirty logs on or off for all RAM: the hypervisor's and the devices'.
    pub fn log_dirty(&self, on: bool) -> Result<(), SpaceError> {
        self.logs.log(on).map_err(SpaceError::Log)?;
        let mut writer = self.writer.lock();
        writer.log = on;
        if writer.held > 0 {
            // Somebody makes changes together: what the guest writes until they are seen counts too.
            let view = self.view.load();
            return Ok(self.follow_slots(&mut writer, &view)?);
        }
        self.publish(&mut writer)
    }

    /// Moves what the dirty logs have into the blocks' own bitmaps.
    pub fn harvest_dirty(&self) -> Result<(), SpaceError> {
        self.logs.harvest();
        let writer = self.writer.lock();
        Ok(writer.slots.iter().try_for_each(|slot| self.harvest(slot))?)
    }

    /// Has writes to this part of a block noted again, where they were not since the logs were
    /// moved: before it is read.
    pub fn watch(&self, block: &RamBlock, offset: u64, size: u64) -> Result<(), SpaceError> {
        let writer = self.writer.lock();
        let logged = writer.slots.iter().filter(|slot| slot.log && std::ptr::eq(&*slot.ram, block));
        for slot in logged {
            let first = offset.max(slot.offset);
            let end = offset.saturating_add(size).min(slot.offset + slot.size);
            if first < end {
                let pages = (first - slot.offset) / PAGE..(end - slot.offset).div_ceil(PAGE);
                self.hv.watch(slot.id, pages)?;
            }
        }
        Ok(())
    }

    /// A vCPU cannot go on, because the hypervisor's log of what it writes is full: makes room.
    pub fn log_full(&self) -> Result<(), SpaceError> {
        Ok(self.hv.log_full()?)
    }

    fn harvest(&self, slot: &Slot) -> Result<(), HvError> {
        if slot.log {
            let pages = slot.size.div_ceil(PAGE);
            let mut bits = vec![0; pages.div_ceil(64) as usize];
            self.hv.take_dirty(slot.id, &mut bits)?;
            slot.ram.mark_dirty(slot.offset, &bits);
        }
        Ok(())
    }

    /// A guest read of any length. What nothing answers reads as ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        self.parts(address, data.len(), |range, address, part| match range {
            Some(range) => range.read(address, &mut data[part]),
            None => self.miss("read", address, part.len()),
        });
    }

    /// A guest write of any length. What nothing takes is dropped.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.parts(address, data.len(), |range, address, part| match range {
            Some(range) => range.write(address, &data[part]),
            None => self.miss("write", address, part.len()),
        });
    }

    /// Visits the parts of an access of `len` bytes, one for each range or gap that it touches, up
    /// to the end of the space: what is there, its address, and which of the bytes.
    fn parts(
        &self,
        mut address: u64,
        len: usize,
        mut visit: impl FnMut(Option<&Range>, u64, std::ops::Range<usize>),
    ) {
        let view = self.view.load();
        let mut done = 0;
        while done < len {
            let found = view.find(address);
            let last = match found {
                Ok(range) => range.last,
                Err(Some(next)) => next - 1,
                Err(None) => u64::MAX,
            };
            let room = last.saturating_sub(address).saturating_add(1);
            let chunk = usize::try_from(room).unwrap_or(usize::MAX).min(len - done);
            visit(found.ok(), address, done..done + chunk);
            done += chunk;
            match address.checked_add(chunk as u64) {
                Some(next) if next <= self.limit() => address = next,
                _ => return,
            }
        }
    }

    fn miss(&self, what: &str, address: u64, len: usize) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        match self.kind {
            SpaceKind::Memory => guest_error!("memory", "{what} of {len} at {address:#x}: nothing"),
            SpaceKind::Ports => guest_error!("ports", "{what} of {len} at {address:#x}: nothing"),
        }
    }

    /// Paints the mappings, has the hypervisor follow, and publishes the view.
    fn publish(&self, writer: &mut Writer) -> Result<(), SpaceError> {
        if writer.held > 0 {
            return Ok(());
        }
        let view = paint(&writer.mappings);
        let done =
            if self.kind == SpaceKind::Memory { self.follow_slots(writer, &view) } else { Ok(()) };
        let done = done.and(self.follow_bells(writer, &view));
        self.view.store(Arc::new(view));
        Ok(done?)
    }

    fn follow_slots(&self, writer: &mut Writer, view: &View) -> Result<(), HvError> {
        let wanted = slots(view, writer.log);
        let same = |a: &Slot, b: &Slot| {
            (a.guest, a.size, a.offset, a.readonly) == (b.guest, b.size, b.offset, b.readonly)
                && Arc::ptr_eq(&a.ram, &b.ram)
        };
        let overlap = |a: &Slot, b: &Slot| a.guest < b.guest + b.size && b.guest < a.guest + a.size;
        // `writer.slots` is what the hypervisor has, also when it refuses a step: the rest is
        // done all the same, and what was refused is tried again with the next change.
        let mut done = Ok(());
        // Slots go before others come: KVM takes no overlap.
        writer.slots.retain(|slot| {
            wanted.iter().any(|new| same(new, slot)) || {
                let gone = step(&mut done, self.hv.set_slot(&Slot { size: 0, ..slot.clone() }));
                if slot.log {
                    // Its log has gone with it, and vCPUs wrote until then: all may be written.
                    slot.ram.mark_range(slot.offset, slot.size);
                }
                !gone
            }
        });
        for mut new in wanted {
            match writer.slots.iter().position(|old| same(&new, old)) {
                Some(at) => {
                    let old = &mut writer.slots[at];
                    new.id = old.id;
                    if old.log != new.log {
                        step(&mut done, self.harvest(old));
                        if step(&mut done, self.hv.set_slot(&new)) {
                            *old = new;
                        }
                    }
                }
                // In the way of one that would not go.
                None if writer.slots.iter().any(|old| overlap(&new, old)) => {}
                None => {
                    new.id = free_id(&writer.slots);
                    if step(&mut done, self.hv.set_slot(&new)) {
                        writer.slots.push(new);
                    }
                }
            }
        }
        done
    }

    fn follow_bells(&self, writer: &mut Writer, view: &View) -> Result<(), HvError> {
        let wanted = bells(self.kind, &writer.mappings, view);
        let has = |list: &[(Doorbell, Arc<EventFd>)], (at, fd): &(Doorbell, Arc<EventFd>)| {
            list.iter().any(|(other, other_fd)| other == at && Arc::ptr_eq(other_fd, fd))
        };
        // As with slots: `writer.bells` is what the hypervisor has.
        let mut done = Ok(());
        let mut bind =
            |(at, fd): &(Doorbell, Arc<EventFd>), on| step(&mut done, self.hv.doorbell(at, fd, on));
        writer.bells.retain(|bell| has(&wanted, bell) || !bind(bell, false));
        for bell in wanted {
            if !has(&writer.bells, &bell) && bind(&bell, true) {
                writer.bells.push(bell);
            }
        }
        done
    }
}

impl Range {
    fn read(&self, address: u64, data: &mut [u8]) {
        let offset = self.offset + (address - self.first);
        match &self.target {
            Target::Ram { block, offset: base, .. } => block.read(base + offset, data),
            Target::Device { device, region } => {
                if !device.is_dead() {
                    device.lock().read(At { region: *region, offset }, data);
                }
            }
            Target::Router(router) => {
                if let Some((device, at)) = router.route(offset)
                    && !device.is_dead()
                {
                    device.lock().read(at, data);
                }
            }
        }
    }

    fn write(&self, address: u64, data: &[u8]) {
        let offset = self.offset + (address - self.first);
        match &self.target {
            Target::Ram { block, offset: base, readonly: false } => {
                block.write(base + offset, data);
            }
            Target::Ram { .. } => guest_error!("memory", "write to ROM at {address:#x}"),
            Target::Device { device, region } => {
                if !device.is_dead() {
                    device.lock().write(At { region: *region, offset }, data);
                }
            }
            Target::Router(router) => {
                if let Some((device, at)) = router.route(offset)
                    && !device.is_dead()
                {
                    device.lock().write(at, data);
                }
            }
        }
    }
}

/// Paints enabled mappings: the higher priority, then the later one, covers the others.
fn paint(mappings: &[(MapId, Mapping)]) -> View {
    let mut active: Vec<&(MapId, Mapping)> =
        mappings.iter().filter(|(_, mapping)| mapping.enabled).collect();
    // Topmost first.
    active.sort_by_key(|(id, mapping)| std::cmp::Reverse((mapping.priority, *id)));
    // Where the topmost mapping can change: each first address, and each one after a last.
    let mut cuts: Vec<u64> = active
        .iter()
        .flat_map(|(_, m)| [Some(m.base), m.last().checked_add(1)])
        .flatten()
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut ranges: Vec<Range> = Vec::new();
    for (index, &first) in cuts.iter().enumerate() {
        let last = cuts.get(index + 1).map_or(u64::MAX, |next| next - 1);
        let top = active.iter().find(|(_, m)| m.base <= first && first <= m.last());
        let Some((id, mapping)) = top else { continue };
        match ranges.last_mut() {
            Some(previous) if previous.id == *id && previous.last.checked_add(1) == Some(first) => {
                previous.last = last;
            }
            _ => ranges.push(Range {
                first,
                last,
                target: mapping.target.clone(),
                offset: first - mapping.base,
                id: *id,
                priority: mapping.priority,
            }),
        }
    }
    View { ranges }
}

/// The memory slots a view asks for: whole pages of RAM. Their ids are still to be given. Neighbours
/// that show one piece of memory are one slot; but not those of different priorities, of which one
/// comes and goes while the other stays.
fn slots(view: &View, log: bool) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut priority = None;
    for range in &view.ranges {
        let Target::Ram { block, offset, readonly } = &range.target else { continue };
        let (Some(guest), Some(end)) = (
            range.first.checked_next_multiple_of(PAGE),
            range.last.checked_add(1).map(|end| end - end % PAGE),
        ) else {
            continue;
        };
        if guest >= end {
            continue;
        }
        let offset = offset + range.offset + (guest - range.first);
        if offset % PAGE != 0 {
            // Not congruent to pages: every access is emulated.
            continue;
        }
        if let Some(before) = slots.last_mut()
            && priority.replace(range.priority) == Some(range.priority)
            && Arc::ptr_eq(&before.ram, block)
            && before.guest.checked_add(before.size) == Some(guest)
            && before.offset.checked_add(before.size) == Some(offset)
            && before.readonly == *readonly
        {
            before.size += end - guest;
            continue;
        }
        priority = Some(range.priority);
        slots.push(Slot {
            id: u32::MAX,
            guest,
            size: end - guest,
            ram: block.clone(),
            offset,
            readonly: *readonly,
            log: log && !readonly,
        });
    }
    slots
}

fn free_id(slots: &[Slot]) -> u32 {
    (0..).find(|id| slots.iter().all(|slot| slot.id != *id)).unwrap_or(u32::MAX)
}

/// The doorbells whose place is visible.
fn bells(
    space: SpaceKind,
    mappings: &[(MapId, Mapping)],
    view: &View,
) -> Vec<(Doorbell, Arc<EventFd>)> {
    let mut found = Vec::new();
    for (id, mapping) in mappings.iter().filter(|(_, mapping)| mapping.enabled) {
        for bell in &mapping.bells {
            let address = mapping.base.wrapping_add(bell.offset);
            if bell.offset < mapping.size && view.find(address).is_ok_and(|range| range.id == *id) {
                let (width, value) = (bell.width, bell.value);
                found.push((Doorbell { space, address, width, value }, bell.fd.clone()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
