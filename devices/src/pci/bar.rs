//! Base address registers, and the decoder that maps what they say.
//!
//! After each change of a function's registers [`Decoder::decode`] compares where its regions
//! should be with where they are. A bridge's windows hide what lies outside of them, so a region
//! is mapped only if every bridge above lets it through whole; when windows move, the decoders
//! behind them look again, without their functions.
//!
//! Runs on whichever thread changes registers, under the decoder's own lock, which comes after a
//! function's and before an address space's. A hostile guest can put a region anywhere: below RAM
//! and everything of the board, so that it hides nothing but other regions.

use std::sync::Arc;

use parking_lot::Mutex;
use resources::device::DeviceRef;
use resources::guest_error;
use resources::space::{Bell, MapId, Mapping, Space, SpaceError, Target};

use super::bus::Bus;
use super::config::{ConfigSpace, reg};

/// Below RAM, as QEMU's `pc` has it.
const PRIORITY: i8 = -1;

/// What a base address register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere, prefetchable; takes two registers.
    Memory64,
}

impl BarKind {
    /// The read-only low bits of the register.
    fn flags(self) -> u8 {
        match self {
            BarKind::Io => 1,
            BarKind::Memory32 => 0,
            BarKind::Memory64 => 0xc,
        }
    }
}

/// A region of a function that the guest places by a base address register.
#[derive(Clone)]
pub struct Bar {
    /// Which register, 0 to 5; a 64-bit one takes the next too.
    pub index: u8,
    /// What it is.
    pub kind: BarKind,
    /// Size in bytes: a power of two; at least 4 for ports, 16 for memory.
    pub size: u64,
    /// Writes that signal an eventfd instead of reaching the device, wherever the region is.
    pub bells: Vec<Bell>,
}

impl Bar {
    /// A region without doorbells.
    pub fn new(index: u8, kind: BarKind, size: u64) -> Bar {
        Bar { index, kind, size, bells: Vec::new() }
    }

    /// Whether a function can have it.
    fn is_valid(&self) -> bool {
        let (least, most, last) = match self.kind {
            BarKind::Io => (4, 256, 5),
            BarKind::Memory32 => (16, 1 << 31, 5),
            BarKind::Memory64 => (16, 1 << 40, 4),
        };
        self.size.is_power_of_two()
            && (least..=most).contains(&self.size)
            && self.index <= last
            && self.bells.iter().all(|bell| bell.offset < self.size)
    }

    fn register(&self) -> usize {
        usize::from(self.index).saturating_mul(4).saturating_add(reg::BAR0)
    }

    /// Sets the register up: the bits of the address below the size cannot be written.
    pub(super) fn declare(&self, config: &mut ConfigSpace) -> bool {
        let mask = (!self.size.wrapping_sub(1)).to_le_bytes();
        let width = if self.kind == BarKind::Memory64 { 8 } else { 4 };
        config.set_power_on(self.register(), &[self.kind.flags()]);
        config.set_writable(self.register(), mask.get(..width).unwrap_or_default());
        self.is_valid()
    }

    /// The address in the register, whether or not it is decoded.
    fn address(&self, config: &ConfigSpace) -> u64 {
        let address = match self.kind {
            BarKind::Memory64 => u64::from_le_bytes(config.get(self.register())),
            _ => u64::from(config.u32(self.register())),
        };
        address & !self.size.wrapping_sub(1)
    }

    /// Where the region is, if it is decoded: switched on, not at 0 and not at the very end of
    /// what it can reach, where it is while a guest asks for its size.
    pub fn decoded(&self, config: &ConfigSpace) -> Option<u64> {
        let command = config.u16(reg::COMMAND);
        let (on, end) = match self.kind {
            BarKind::Io => (reg::COMMAND_IO, 0xffff),
            BarKind::Memory32 => (reg::COMMAND_MEMORY, u64::from(u32::MAX)),
            BarKind::Memory64 => (reg::COMMAND_MEMORY, u64::MAX),
        };
        let address = self.address(config);
        let last = address.checked_add(self.size.wrapping_sub(1))?;
        (command & on != 0 && address != 0 && last < end).then_some(address)
    }
}

/// The address ranges that a bridge lets through to its secondary bus: first and last address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Windows {
    /// Ports.
    pub io: Option<(u64, u64)>,
    /// Memory.
    pub memory: Option<(u64, u64)>,
    /// Prefetchable memory.
    pub prefetch: Option<(u64, u64)>,
}

impl Windows {
    /// Whether a whole region is let through.
    pub(super) fn pass(&self, kind: BarKind, first: u64, last: u64) -> bool {
        let inside = |window: Option<(u64, u64)>| {
            window.is_some_and(|(low, high)| low <= first && last <= high)
        };
        match kind {
            BarKind::Io => inside(self.io),
            BarKind::Memory32 | BarKind::Memory64 => inside(self.memory) || inside(self.prefetch),
        }
    }
}

/// Keeps the regions of one function where its registers say.
pub(super) struct Decoder {
    memory: Arc<Space>,
    ports: Arc<Space>,
    bus: Arc<Bus>,
    regions: Mutex<Vec<Region>>,
}

struct Region {
    kind: BarKind,
    size: u64,
    map: MapId,
    /// Where its function's registers want it.
    wanted: Option<u64>,
}

impl Decoder {
    pub(super) fn new(memory: &Arc<Space>, ports: &Arc<Space>, bus: &Arc<Bus>) -> Arc<Decoder> {
        Arc::new(Decoder {
            memory: memory.clone(),
            ports: ports.clone(),
            bus: bus.clone(),
            regions: Mutex::default(),
        })
    }

    /// Adds the mappings of `device`, disabled. On an error none is left.
    pub(super) fn map(&self, device: &DeviceRef, bars: &[Bar]) -> Result<(), SpaceError> {
        let mut regions = self.regions.lock();
        for bar in bars {
            let mapping = Mapping {
                base: 0,
                size: bar.size,
                priority: PRIORITY,
                target: Target::Device { device: device.clone(), region: bar.index.into() },
                bells: bar.bells.clone(),
                enabled: false,
            };
            match self.space(bar.kind).map(mapping) {
                Ok(map) => {
                    regions.push(Region { kind: bar.kind, size: bar.size, map, wanted: None });
                }
                Err(error) => {
                    for region in regions.drain(..) {
                        let _ = self.space(region.kind).unmap(region.map);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes the mappings away: the function is gone. Without this they and the function would keep
    /// each other.
    pub(super) fn unmap(&self) {
        for region in self.regions.lock().drain(..) {
            if let Err(error) = self.space(region.kind).unmap(region.map) {
                tracing::error!("cannot unmap a region: {error}");
            }
        }
    }

    fn space(&self, kind: BarKind) -> &Space {
        if kind == BarKind::Io { &self.ports } else { &self.memory }
    }

    /// The registers have changed: `wanted` are the addresses of the regions, in their order.
    pub(super) fn decode(&self, wanted: impl Iterator<Item = Option<u64>>) {
        let mut regions = self.regions.lock();
        for (region, wanted) in regions.iter_mut().zip(wanted) {
            region.wanted = wanted;
            self.place(region);
        }
    }

    /// The windows of a bridge above have changed.
    pub(super) fn refresh(&self) {
        self.regions.lock().iter().for_each(|region| self.place(region));
    }

    fn place(&self, region: &Region) {
        let visible = region.wanted.filter(|first| {
            let last = first.saturating_add(region.size.wrapping_sub(1));
            self.bus.passes(region.kind, *first, last)
        });
        let (base, enabled) = (visible.unwrap_or(0), visible.is_some());
        if let Err(error) = self.space(region.kind).place(region.map, base, enabled) {
            guest_error!("pci", "cannot map {:#x} bytes at {base:#x}: {error}", region.size);
        }
    }
}
