//! The PCI bus.

use qmp::{Handle, PciDeviceInfo, PciMemoryRange, PciMemoryRegion, QmpError, QueryPci};

use crate::hmp::Call;
use crate::hmp::parse::Args;
use crate::hmp::table::{Row, bare};

pub(super) const INFO: &[Row] = &[bare(&["pci"], "show the functions on the PCI bus", pci)];

fn pci(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    for bus in call.vm.handle(QueryPci {})? {
        bus.devices.iter().for_each(|device| show(call, device));
    }
    Ok(())
}

fn show(call: &mut Call<'_>, device: &PciDeviceInfo) {
    let PciDeviceInfo { bus, slot, function, id, class_info, .. } = device;
    call.line(format_args!("  Bus {bus:2}, device {slot:3}, function {function}:"));
    let (vendor, number) = (id.vendor, id.device);
    let class = match &class_info.desc {
        Some(name) => name.clone(),
        None => format!("Class {:04}", class_info.class),
    };
    call.line(format_args!("    {class}: PCI device {vendor:04x}:{number:04x}"));
    if let Some(line) = device.irq {
        call.line(format_args!("      IRQ {line}."));
    }
    if let Some(bridge) = &device.pci_bridge {
        let bus = &bridge.bus;
        call.line(format_args!("      BUS {}.", bus.number));
        call.line(format_args!("      secondary bus {}.", bus.secondary));
        call.line(format_args!("      subordinate bus {}.", bus.subordinate));
        let PciMemoryRange { base, limit } = bus.io_range;
        call.line(format_args!("      IO range [0x{base:04x}, 0x{limit:04x}]"));
        let PciMemoryRange { base, limit } = bus.memory_range;
        call.line(format_args!("      memory range [0x{base:08x}, 0x{limit:08x}]"));
        let PciMemoryRange { base, limit } = bus.prefetchable_range;
        call.line(format_args!("      prefetchable memory range [0x{base:08x}, 0x{limit:08x}]"));
    }
    for PciMemoryRegion { bar, address, size, prefetch, mem_type_64, r#type } in &device.regions {
        let last = address.wrapping_add(*size).wrapping_sub(1);
        if r#type == "io" {
            call.line(format_args!("      BAR{bar}: I/O at 0x{address:04x} [0x{last:04x}]."));
        } else {
            let bits = if *mem_type_64 == Some(true) { 64 } else { 32 };
            let prefetchable = if *prefetch == Some(true) { " prefetchable" } else { "" };
            call.line(format_args!(
                "      BAR{bar}: {bits} bit{prefetchable} memory at 0x{address:08x} [0x{last:08x}]."
            ));
        }
    }
    call.line(format_args!("      id \"{}\"", device.qdev_id));
    let behind = device.pci_bridge.as_ref().and_then(|bridge| bridge.devices.as_ref());
    behind.into_iter().flatten().for_each(|device| show(call, device));
}
