//! What firmware does otherwise: numbers the buses, places every function's regions, switches them
//! on and notes the interrupt lines.
//!
//! Main thread, before the guest runs, through the same registers as a guest would. Placed one
//! after the other, each aligned to its size; a bridge's windows are what was placed behind it
//! and some room for devices that come later.

use std::sync::Arc;

use resources::device::{At, DeviceRef, put_value, value_of};

use super::bus::{Address, Bus};
use super::config::reg::{self, bridge};
use super::function::CONFIG;

/// What is free for the regions of functions: first and last address of ports, of memory below
/// 4 GiB and of memory above, which 64-bit regions are placed in.
#[derive(Debug, Clone, Copy)]
pub struct Apertures {
    /// Ports.
    pub io: (u64, u64),
    /// Memory below 4 GiB.
    pub memory: (u64, u64),
    /// Memory above.
    pub high: (u64, u64),
}

/// Room behind a bridge for what is plugged later.
const SPARE_IO: u64 = 4 << 10;
const SPARE_MEMORY: u64 = 2 << 20;
/// What windows of a bridge are multiples of.
const IO_STEP: u64 = 4 << 10;
const MEMORY_STEP: u64 = 1 << 20;

/// Sets all functions on `root` and behind up. `lines`: the inputs that links A to D lead to.
pub fn assign(root: &Arc<Bus>, apertures: &Apertures, lines: [u8; 4]) {
    let mut setup = Setup {
        io: Free::new(apertures.io),
        memory: Free::new(apertures.memory),
        high: Free::new(apertures.high),
        last_bus: 0,
        lines,
    };
    setup.bus(root);
}

struct Setup {
    io: Free,
    memory: Free,
    high: Free,
    /// The highest bus number given.
    last_bus: u8,
    lines: [u8; 4],
}

/// A range of addresses that is given away from its beginning.
struct Free {
    next: u64,
    last: u64,
}

impl Free {
    fn new((first, last): (u64, u64)) -> Free {
        Free { next: first, last }
    }

    fn align(&mut self, step: u64) {
        self.next = self.next.checked_next_multiple_of(step).unwrap_or(u64::MAX);
    }

    fn take(&mut self, size: u64) -> Option<u64> {
        let first = self.next.checked_next_multiple_of(size)?;
        let next = first.checked_add(size)?;
        if next.saturating_sub(1) > self.last {
            return None;
        }
        self.next = next;
        Some(first)
    }
}

/// A function's registers.
struct Registers(DeviceRef);

impl Registers {
    fn get(&self, at: usize, width: usize) -> u64 {
        let mut data = [0xff; 4];
        let data = data.get_mut(..width).unwrap_or_default();
        self.0.lock().read(At { region: CONFIG, offset: at as u64 }, data);
        value_of(data)
    }

    fn set(&self, at: usize, width: usize, value: u64) {
        let mut data = [0; 4];
        put_value(&mut data, value);
        let data = data.get(..width).unwrap_or_default();
        self.0.lock().write(At { region: CONFIG, offset: at as u64 }, data);
    }

    /// Writes ones and returns what stays, but for the low bits that tell the kind.
    fn probe(&self, at: usize) -> u64 {
        let before = self.get(at, 4);
        self.set(at, 4, u64::from(u32::MAX));
        let mask = self.get(at, 4);
        self.set(at, 4, before);
        mask
    }
}

impl Setup {
    fn bus(&mut self, bus: &Arc<Bus>) {
        for (address, function) in bus.functions() {
            let registers = Registers(function);
            let bridge = registers.get(reg::HEADER_TYPE, 1) & 0x7f == 1;
            self.regions(&registers, if bridge { 2 } else { 6 });
            self.line(bus, address, &registers);
            if bridge && let Some(child) = bus.child(address) {
                self.bridge(&registers, bus, &child);
            }
        }
    }

    fn regions(&mut self, registers: &Registers, count: usize) {
        let mut command = registers.get(reg::COMMAND, 2);
        // What is switched on while it moves would be somewhere else for a moment.
        let off = u64::from(reg::COMMAND_IO | reg::COMMAND_MEMORY);
        registers.set(reg::COMMAND, 2, command & !off);
        let mut index = 0usize;
        while index < count {
            let at = reg::BAR0.wrapping_add(index.wrapping_mul(4));
            let low = registers.probe(at);
            let kind = low & 0xf;
            let (io, wide) = (kind & 1 != 0, kind & 7 == 4);
            let above = at.wrapping_add(4);
            let high = if wide { registers.probe(above) } else { 0xffff_ffff };
            index = index.wrapping_add(if wide { 2 } else { 1 });
            let flags = if io { 3 } else { 0xf };
            // Of ports, the upper bits may be fixed.
            let ones = if io && low >> 16 == 0 { 0xffff_ffff_ffff_0000 } else { high << 32 };
            let size = (ones | low & !flags).wrapping_neg();
            if low & !flags == 0 && (!wide || high == 0) {
                continue;
            }
            let free = match (io, wide) {
                (true, _) => &mut self.io,
                (_, true) => &mut self.high,
                _ => &mut self.memory,
            };
            let Some(address) = free.take(size) else {
                tracing::warn!("no room for {size:#x} bytes of {}", registers.0.name());
                continue;
            };
            registers.set(at, 4, address);
            if wide {
                registers.set(above, 4, address >> 32);
            }
            command |= u64::from(if io { reg::COMMAND_IO } else { reg::COMMAND_MEMORY });
        }
        registers.set(reg::COMMAND, 2, command);
    }

    /// Notes where the interrupt pin leads.
    fn line(&self, bus: &Bus, address: Address, registers: &Registers) {
        let pin = u8::try_from(registers.get(reg::INTERRUPT_PIN, 1)).unwrap_or(0);
        // A line that the chipset has fixed stays.
        if let Some(pin) = pin.checked_sub(1)
            && registers.get(reg::INTERRUPT_LINE, 1) == 0
        {
            let link = bus.pin(address, pin).link();
            let line = self.lines.get(usize::from(link)).copied().unwrap_or(0);
            registers.set(reg::INTERRUPT_LINE, 1, line.into());
        }
    }

    fn bridge(&mut self, registers: &Registers, bus: &Bus, child: &Arc<Bus>) {
        let Some(number) = self.last_bus.checked_add(1) else { return };
        self.last_bus = number;
        registers.set(bridge::PRIMARY, 1, bus.number().into());
        registers.set(bridge::SECONDARY, 1, number.into());
        registers.set(bridge::SUBORDINATE, 1, 0xff);
        self.io.align(IO_STEP);
        self.memory.align(MEMORY_STEP);
        self.high.align(MEMORY_STEP);
        let (io, memory, high) = (self.io.next, self.memory.next, self.high.next);
        self.bus(child);
        registers.set(bridge::SUBORDINATE, 1, self.last_bus.into());
        let io = window(&mut self.io, io, SPARE_IO, IO_STEP);
        registers.set(bridge::IO_BASE, 1, io.0 >> 8);
        registers.set(bridge::IO_LIMIT, 1, io.1 >> 8);
        let memory = window(&mut self.memory, memory, SPARE_MEMORY, MEMORY_STEP);
        registers.set(bridge::MEMORY_BASE, 2, memory.0 >> 16);
        registers.set(bridge::MEMORY_LIMIT, 2, memory.1 >> 16);
        let high = window(&mut self.high, high, SPARE_MEMORY, MEMORY_STEP);
        registers.set(bridge::PREFETCH_BASE, 2, high.0 >> 16);
        registers.set(bridge::PREFETCH_LIMIT, 2, high.1 >> 16);
        registers.set(bridge::PREFETCH_BASE_UPPER, 4, high.0 >> 32);
        registers.set(bridge::PREFETCH_LIMIT_UPPER, 4, high.1 >> 32);
        let on = reg::COMMAND_IO | reg::COMMAND_MEMORY | reg::COMMAND_MASTER;
        let command = registers.get(reg::COMMAND, 2) | u64::from(on);
        registers.set(reg::COMMAND, 2, command);
    }
}

/// First and last address of a bridge's window that begins at `first`: what was placed behind it,
/// and if there is as much, something to spare, of which a bridge behind has its own. Without room,
/// one that lets nothing through.
fn window(free: &mut Free, first: u64, spare: u64, step: u64) -> (u64, u64) {
    let placed = free.next;
    free.next = placed.saturating_add(spare);
    free.align(step);
    if free.next.saturating_sub(1) > free.last {
        free.next = placed;
        free.align(step);
    }
    let last = free.next.saturating_sub(1);
    if first < last && last <= free.last { (first, last) } else { (step, 0) }
}
