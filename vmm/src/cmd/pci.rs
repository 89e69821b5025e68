//! The PCI bus as query-pci and `info pci` show it.
//!
//! Main thread. What is shown is what the guest wrote into its functions' registers.

use devices::pci::inspect::{BridgeInfo, FunctionInfo, RegionInfo};
use devices::pci::{BarKind, Bus};
use qmp::{
    Handle, PciBridgeInfo, PciBridgeInfoBus, PciDeviceInfo, PciDeviceInfoClassInfo,
    PciDeviceInfoId, PciInfo, PciMemoryRange, PciMemoryRegion, QmpError, QueryPci,
};

use crate::vm::Vm;

/// What classes are called.
const CLASSES: &[(u16, &str)] = &[
    (0x0001, "VGA controller"),
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0102, "Floppy controller"),
    (0x0103, "IPI controller"),
    (0x0104, "RAID controller"),
    (0x0106, "SATA controller"),
    (0x0107, "SAS controller"),
    (0x0180, "Storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0201, "Token Ring controller"),
    (0x0202, "FDDI controller"),
    (0x0203, "ATM controller"),
    (0x0280, "Network controller"),
    (0x0300, "VGA controller"),
    (0x0301, "XGA controller"),
    (0x0302, "3D controller"),
    (0x0380, "Display controller"),
    (0x0400, "Video controller"),
    (0x0401, "Audio controller"),
    (0x0402, "Phone"),
    (0x0403, "Audio controller"),
    (0x0480, "Multimedia controller"),
    (0x0500, "RAM controller"),
    (0x0501, "Flash controller"),
    (0x0580, "Memory controller"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0602, "EISA bridge"),
    (0x0603, "MC bridge"),
    (0x0604, "PCI bridge"),
    (0x0605, "PCMCIA bridge"),
    (0x0606, "NUBUS bridge"),
    (0x0607, "CARDBUS bridge"),
    (0x0608, "RACEWAY bridge"),
    (0x0680, "Bridge"),
    (0x0700, "Serial port"),
    (0x0701, "Parallel port"),
    (0x0800, "Interrupt controller"),
    (0x0801, "DMA controller"),
    (0x0802, "Timer"),
    (0x0803, "RTC"),
    (0x0900, "Keyboard"),
    (0x0901, "Pen"),
    (0x0902, "Mouse"),
    (0x0c00, "Fireware contorller"), // That is how clients know it.
    (0x0c01, "Access bus controller"),
    (0x0c02, "SSA controller"),
    (0x0c03, "USB controller"),
    (0x0c04, "Fibre channel controller"),
    (0x0c05, "SMBus"),
];

impl Handle<QueryPci> for Vm {
    fn handle(&mut self, _: QueryPci) -> Result<Vec<PciInfo>, QmpError> {
        let root = self.board.pci.as_ref().map(|pci| pci.bus.clone());
        let info = root.map(|bus| PciInfo { bus: bus.number().into(), devices: devices(&bus) });
        Ok(info.into_iter().collect())
    }
}

fn devices(bus: &Bus) -> Vec<PciDeviceInfo> {
    bus.inspect().iter().map(|function| device(bus, function)).collect()
}

fn device(bus: &Bus, function: &FunctionInfo) -> PciDeviceInfo {
    let named = CLASSES.iter().find(|(class, _)| *class == function.class);
    PciDeviceInfo {
        bus: bus.number().into(),
        pci_bridge: function.bridge.as_ref().map(|info| bridge(bus, function, info)),
        qdev_id: function.id.clone().unwrap_or_default(),
        irq: function.line.map(i64::from),
        slot: function.address.slot().into(),
        class_info: PciDeviceInfoClassInfo {
            class: function.class.into(),
            desc: named.map(|(_, name)| (*name).to_owned()),
        },
        id: PciDeviceInfoId { device: function.device.into(), vendor: function.vendor.into() },
        function: function.address.function().into(),
        regions: function.regions.iter().map(region).collect(),
    }
}

fn region(info: &RegionInfo) -> PciMemoryRegion {
    let memory = info.kind != BarKind::Io;
    let wide = info.kind == BarKind::Memory64;
    PciMemoryRegion {
        prefetch: memory.then_some(wide),
        mem_type_64: memory.then_some(wide),
        bar: info.bar.into(),
        size: info.size as i64,
        address: info.address.map_or(-1, |address| address as i64),
        r#type: if memory { "memory" } else { "io" }.to_owned(),
    }
}

fn bridge(bus: &Bus, function: &FunctionInfo, info: &BridgeInfo) -> PciBridgeInfo {
    let range =
        |(base, limit): (u64, u64)| PciMemoryRange { limit: limit as i64, base: base as i64 };
    let behind = bus.child(function.address).filter(|_| info.secondary != 0);
    PciBridgeInfo {
        bus: PciBridgeInfoBus {
            prefetchable_range: range(info.prefetch),
            memory_range: range(info.memory),
            secondary: info.secondary.into(),
            io_range: range(info.io),
            number: info.primary.into(),
            subordinate: info.subordinate.into(),
        },
        devices: behind.map(|bus| devices(&bus)),
    }
}
