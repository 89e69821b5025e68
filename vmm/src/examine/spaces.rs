//! Address spaces and what is in them as text.

use std::fmt::Write as _;

use resources::space::{Mapping, Space, Target};

use crate::machine::Board;
use crate::vm::Vm;

/// The text of `info mtree`: each address space and the regions in it, by address. Regions that
/// others cover are there too, as their priorities say.
pub fn mtree(board: &Board) -> String {
    let mut text = String::new();
    space(&mut text, "memory", "system", (u64::MAX, &board.memory));
    space(&mut text, "I/O", "io", (0xffff, &board.ports));
    text
}

fn space(text: &mut String, name: &str, root: &str, (last, space): (u64, &Space)) {
    let _ = writeln!(text, "{name}\n  {:016x}-{last:016x} (prio 0, RW): {root}", 0);
    for mapping in space.mappings() {
        let Mapping { base, size, priority, target, .. } = mapping;
        let last = base.saturating_add(size.saturating_sub(1));
        let (write, name) = match &target {
            Target::Ram { readonly: false, .. } => ('W', "ram".to_owned()),
            Target::Ram { readonly: true, .. } => ('-', "rom".to_owned()),
            Target::Device { device, region } => {
                let name = device.name();
                ('W', if *region == 0 { name.to_owned() } else { format!("{name}[{region}]") })
            }
            Target::Router(_) => ('W', "router".to_owned()),
        };
        let _ = writeln!(text, "    {base:016x}-{last:016x} (prio {priority}, R{write}): {name}");
    }
    text.push('\n');
}

/// The text of `gpa2hva`: where this process has the guest's memory.
pub fn gpa2hva(board: &Board, address: u64) -> String {
    let view = board.memory.view();
    let found = view.memory().find(|range| range.first <= address && address <= range.last);
    match found {
        Some(range) => {
            let name = if range.readonly { "rom" } else { "ram" };
            let offset = range.offset.saturating_add(address - range.first);
            let host = (range.block.region().as_ptr() as u64).wrapping_add(offset);
            format!("Host virtual address for {address:#x} ({name}) is {host:#x}\n")
        }
        None if board.memory.gap(address) == 0 => {
            format!("Memory at address {address:#x} is not RAM\n")
        }
        None => format!("No memory is mapped at address {address:#x}\n"),
    }
}

/// The text of `info roms`: firmware, and tables that were put into RAM.
pub fn roms(board: &Board) -> String {
    let mut text = String::new();
    if let (Some(tables), Some(_)) = (board.tables(), &board.ram) {
        let (at, size) = (tables.rsdp, tables.bytes.len());
        let _ = writeln!(text, "addr={at:016x} size={size:#08x} mem=ram name=\"acpi/tables\"");
    }
    for range in board.memory.view().memory().filter(|range| range.readonly) {
        let size = (range.last - range.first).saturating_add(1);
        let _ = writeln!(text, "addr={:016x} size={size:#08x} mem=rom name=\"bios\"", range.first);
    }
    text
}

/// The text of `info numa`. Memory has one distance here.
pub fn numa(_: &Vm) -> String {
    "0 nodes\n".to_owned()
}
