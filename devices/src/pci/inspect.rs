//! Buses and functions as commands show them.
//!
//! Main thread; each function is locked for a moment. What registers say is the guest's word.

use super::bus::{Address, Bus};
use super::config::reg::{self, bridge};
use super::function::Core;
use super::{BarKind, ConfigSpace};

/// A function as its registers have it.
#[derive(Debug, Clone)]
pub struct FunctionInfo {
    /// Where it is on its bus.
    pub address: Address,
    /// The id that its user gave it.
    pub id: Option<String>,
    /// Vendor and device.
    pub vendor: u16,
    /// See [`vendor`](Self::vendor).
    pub device: u16,
    /// Class and sub-class.
    pub class: u16,
    /// The interrupt line, of a function with a pin.
    pub line: Option<u8>,
    /// Its regions.
    pub regions: Vec<RegionInfo>,
    /// What makes it a bridge.
    pub bridge: Option<BridgeInfo>,
}

/// A region.
#[derive(Debug, Clone, Copy)]
pub struct RegionInfo {
    /// Its base address register.
    pub bar: u8,
    /// What it is.
    pub kind: BarKind,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is, if it is decoded.
    pub address: Option<u64>,
}

/// A bridge's bus numbers and windows: first and last address.
#[derive(Debug, Clone, Copy)]
pub struct BridgeInfo {
    /// The bus it is on.
    pub primary: u8,
    /// The bus behind it.
    pub secondary: u8,
    /// The highest bus behind it.
    pub subordinate: u8,
    /// Ports.
    pub io: (u64, u64),
    /// Memory.
    pub memory: (u64, u64),
    /// Prefetchable memory.
    pub prefetch: (u64, u64),
}

impl BridgeInfo {
    /// What a bridge's registers say.
    pub fn of(config: &ConfigSpace) -> BridgeInfo {
        let io = |at| u64::from(config.u8(at) & 0xf0) << 8;
        let memory = |at| u64::from(config.u16(at) & 0xfff0) << 16;
        let upper = |at| u64::from(config.u32(at)) << 32;
        BridgeInfo {
            primary: config.u8(bridge::PRIMARY),
            secondary: config.u8(bridge::SECONDARY),
            subordinate: config.u8(bridge::SUBORDINATE),
            io: (io(bridge::IO_BASE), io(bridge::IO_LIMIT) | 0xfff),
            memory: (memory(bridge::MEMORY_BASE), memory(bridge::MEMORY_LIMIT) | 0xf_ffff),
            prefetch: (
                upper(bridge::PREFETCH_BASE_UPPER) | memory(bridge::PREFETCH_BASE),
                upper(bridge::PREFETCH_LIMIT_UPPER) | memory(bridge::PREFETCH_LIMIT) | 0xf_ffff,
            ),
        }
    }
}

impl Core {
    pub(super) fn inspect(&self) -> FunctionInfo {
        let config = &self.config;
        let mut regions: Vec<_> = (self.bars.iter())
            .map(|bar| RegionInfo {
                bar: bar.index,
                kind: bar.kind,
                size: bar.size,
                address: bar.decoded(config),
            })
            .collect();
        regions.sort_unstable_by_key(|region| region.bar);
        let bridge = config.u8(reg::HEADER_TYPE) & !reg::MULTIFUNCTION == 1;
        FunctionInfo {
            address: self.address,
            id: None,
            vendor: config.u16(reg::VENDOR),
            device: config.u16(reg::DEVICE),
            class: config.u16(reg::CLASS),
            line: (config.u8(reg::INTERRUPT_PIN) != 0).then(|| config.u8(reg::INTERRUPT_LINE)),
            regions,
            bridge: bridge.then(|| BridgeInfo::of(config)),
        }
    }
}

impl Bus {
    /// The functions on it, by address.
    pub fn inspect(&self) -> Vec<FunctionInfo> {
        let places = self.places();
        let found = places
            .values()
            .filter_map(|place| Some(FunctionInfo { id: place.id.clone(), ..(place.inspect)()? }));
        found.collect()
    }
}
