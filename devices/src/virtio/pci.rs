//! Virtio over PCI, as virtio 1.x has it (section 4.1): vendor capabilities that say where in BAR 4
//! which structure is, and a BAR for MSI-X.
//!
//! | BAR 4 | structure |
//! |---|---|
//! | 0x0000 | common configuration |
//! | 0x1000 | interrupt status |
//! | 0x2000 | the device's own configuration |
//! | 0x3000 | kicks, four bytes for each queue |
//!
//! BAR 1 has the MSI-X table. There is no legacy interface. Threads and what a hostile guest
//! reaches: see [`super::transport`]; a kick normally does not come here at all, but signals the
//! queue's eventfd by a doorbell of the BAR.

use std::ops::Range;
use std::sync::Arc;

use resources::class::CreateError;
use resources::device::{At, Device, DeviceRef, LiveProp};
use resources::guest_error;
use resources::props::{Kind, Prop, Props, Value};
use resources::space::Bell;
use resources::state::{Blob, StateError};
use vmm_sys_util::eventfd::EventFd;

use super::VirtioDevice;
use super::transport::{self, Offer, Transport, Wires};
use crate::class::Ctx;
use crate::pci::{self, Bar, BarKind, Capability, ConfigSpace, Identity, PciDevice};

/// Red Hat's vendor id, which virtio devices have.
const VENDOR: u16 = 0x1af4;
/// The PCI device id is this plus the virtio device id.
const FIRST_ID: u16 = 0x1040;
/// The subsystem of modern devices, as QEMU has it.
const SUBSYSTEM: u16 = 0x1100;

/// The BARs.
const MSIX_BAR: u8 = 1;
const BAR: u8 = 4;

/// Each structure has this much of the BAR.
const PART: u64 = 0x1000;
const COMMON: u64 = 0;
const ISR: u64 = PART;
const DEVICE: u64 = 2 * PART;
const NOTIFY: u64 = 3 * PART;
const SIZE: u64 = 4 * PART;

/// Bytes between the kick registers of neighbouring queues.
const NOTIFY_STEP: u64 = 4;

/// The most queues, which is what has room for kicks.
pub const MAX_QUEUES: usize = 1024;

/// The vendor-specific capability, and what it can say (section 4.1.4).
const VENDOR_CAPABILITY: u8 = 9;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Fields of the capability that opens a window to the BAR (section 4.1.4.9), from its start.
const WINDOW_BAR: usize = 4;
const WINDOW_OFFSET: usize = 8;
const WINDOW_LEN: usize = 12;
const WINDOW_DATA: usize = 16;

const OWN: [Prop; 8] = [
    Prop {
        name: "event_idx",
        kind: Kind::Bool,
        default: Some("on"),
        help: "offer event indices, which save interrupts and kicks",
    },
    Prop {
        name: "indirect_desc",
        kind: Kind::Bool,
        default: Some("on"),
        help: "offer tables of descriptors",
    },
    Prop { name: "packed", kind: Kind::Bool, default: Some("off"), help: "offer packed rings" },
    Prop {
        name: "iommu_platform",
        kind: Kind::Bool,
        default: Some("off"),
        help: "have drivers use the platform's DMA addresses",
    },
    Prop {
        name: "ioeventfd",
        kind: Kind::Bool,
        default: Some("on"),
        help: "let kicks signal an I/O thread without a detour",
    },
    Prop {
        name: "vectors",
        kind: Kind::U32(0, 2048),
        default: None,
        help: "MSI-X messages, 0 for none; 2 for serial, else one more than queues by default",
    },
    Prop {
        name: "disable-legacy",
        kind: Kind::Enum(&["on", "off", "auto"]),
        default: Some("auto"),
        help: "there is no legacy interface: 'off' is refused",
    },
    Prop {
        name: "disable-modern",
        kind: Kind::Bool,
        default: Some("off"),
        help: "the modern interface cannot be switched off: 'on' is refused",
    },
];

#[expect(clippy::indexing_slicing, reason = "the compiler runs it")]
const ALL: [Prop; OWN.len() + pci::PROPS.len()] = {
    let mut all = [OWN[0]; OWN.len() + pci::PROPS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < OWN.len() { OWN[i] } else { pci::PROPS[i - OWN.len()] };
        i += 1;
    }
    all
};

/// The properties that all virtio devices on PCI have, for the `base` of their classes.
pub const PROPS: &[Prop] = &ALL;

/// Makes a PCI function of a virtio device, on the bus that was chosen, with the properties
/// [`PROPS`].
///
/// # Errors
/// Those of [`pci::plug`]; properties that cannot be had.
pub fn plug(
    ctx: &mut Ctx,
    props: &mut Props,
    device: Box<dyn VirtioDevice>,
) -> Result<DeviceRef, CreateError> {
    let class = props.class();
    let wrong = |what: &str| Err(CreateError::Other(format!("{class}: {what}")));
    if props.get::<&str>("disable-legacy")? == "off" {
        return wrong("there is no legacy interface, use disable-legacy=on");
    }
    if props.get::<bool>("disable-modern")? {
        return wrong("there is only the modern interface, use disable-modern=off");
    }
    let spec = device.spec();
    let count = spec.queues.len();
    if count > MAX_QUEUES {
        return wrong(&format!("{count} queues, where {MAX_QUEUES} are most"));
    }
    let vectors = match props.get::<Option<u32>>("vectors")? {
        Some(vectors) => u16::try_from(vectors).unwrap_or(2048),
        None => u16::try_from(count.saturating_add(1)).unwrap_or(2048),
    };
    props.fill("vectors", Value::Uint(vectors.into()));
    let offer = Offer {
        indirect_desc: props.get("indirect_desc")?,
        event_idx: props.get("event_idx")?,
        iommu_platform: props.get("iommu_platform")?,
        packed: props.get("packed")?,
    };
    let ioeventfd: bool = props.get("ioeventfd")?;
    let (id, pci_class, config_len) = (spec.id, spec.pci_class, spec.config_len);
    let failed = |error| CreateError::Other(format!("{class}: cannot make an eventfd: {error}"));
    let kicks = transport::kicks(count).map_err(failed)?;
    let mut bar = Bar::new(BAR, BarKind::Memory64, SIZE);
    if ioeventfd {
        let bell = |(queue, fd): (u64, &Arc<_>)| Bell {
            offset: NOTIFY.saturating_add(queue.saturating_mul(NOTIFY_STEP)),
            width: 0,
            value: None,
            fd: Arc::clone(fd),
        };
        bar.bells = (0..).zip(&kicks).map(bell).collect();
    }
    let spec = pci::Spec {
        identity: Identity {
            vendor: VENDOR,
            device: FIRST_ID.saturating_add(id),
            class: pci_class,
            revision: 1,
            subsystem: (VENDOR, SUBSYSTEM),
            ..Identity::default()
        },
        bars: vec![bar],
        interrupts: pci::Interrupts {
            pin: Some(0),
            msix: (vectors > 0).then_some((vectors, MSIX_BAR)),
            msi: None,
        },
        capabilities: capabilities(count, config_len),
    };
    let memory = Arc::new(ctx.ram.clone());
    let function = pci::plug(ctx, props, spec, |parts| {
        let wires = parts.interrupt;
        let transport = Transport::new(parts.path, device, offer, memory, wires, kicks);
        Ok(VirtioPci { transport, window: parts.capabilities.last().copied().unwrap_or(0) })
    })?;
    Ok(function)
}

/// The capabilities; the window comes last.
fn capabilities(queues: usize, config_len: u32) -> Vec<Capability> {
    let queues = u32::try_from(queues).unwrap_or(0);
    let part = |kind: u8, offset: u64, len: u32, rest: &[u8]| {
        let offset = u32::try_from(offset).unwrap_or(0);
        let len_of_all = u8::try_from(rest.len()).unwrap_or(0).saturating_add(16);
        let mut body = vec![len_of_all, kind, BAR, 0, 0, 0];
        body.extend(offset.to_le_bytes());
        body.extend(len.to_le_bytes());
        body.extend(rest);
        Capability { id: VENDOR_CAPABILITY, body, writable: Vec::new() }
    };
    let step = u32::try_from(NOTIFY_STEP).unwrap_or(4);
    let mut all = vec![
        part(CFG_COMMON, COMMON, 60, &[]),
        part(CFG_NOTIFY, NOTIFY, queues.max(1).saturating_mul(step), &step.to_le_bytes()),
        part(CFG_ISR, ISR, 1, &[]),
    ];
    if config_len > 0 {
        all.push(part(CFG_DEVICE, DEVICE, config_len, &[]));
    }
    let mut window = part(CFG_PCI, 0, 0, &[0; 4]);
    window.body.splice(2..3, [0]);
    // A guest writes BAR, offset, length and data.
    window.writable = vec![0, 0, 0xff, 0, 0, 0];
    window.writable.extend([0xff; 12]);
    all.push(window);
    all
}

impl Wires for pci::Interrupt {
    fn messages_on(&self) -> bool {
        self.messages_enabled()
    }

    fn messages(&self) -> u16 {
        self.messages()
    }

    fn send(&self, vector: u16) {
        self.message(vector);
    }

    fn fd(&self, vector: u16) -> Option<EventFd> {
        self.message_fd(vector)?.try_clone().ok()
    }

    fn set_pin(&self, high: bool) {
        self.set_intx(high);
    }
}

/// A virtio device as a PCI function has it.
pub struct VirtioPci {
    transport: Transport,
    /// Where the capability is that opens a window to the BAR.
    window: usize,
}

impl VirtioPci {
    /// The transport.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The transport.
    pub fn transport_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// Where the window leads, if to something: an offset in the BAR, and how many bytes.
    fn window(&self, config: &ConfigSpace) -> Option<(u64, usize)> {
        let at = |field: usize| self.window.saturating_add(field);
        let len = usize::try_from(config.u32(at(WINDOW_LEN))).ok()?;
        let ok = config.u8(at(WINDOW_BAR)) == BAR && matches!(len, 1 | 2 | 4);
        ok.then_some((u64::from(config.u32(at(WINDOW_OFFSET))), len))
    }

    /// Whether an access touches the data of the window.
    fn touches_window(&self, at: &Range<usize>) -> bool {
        let data = self.window.saturating_add(WINDOW_DATA);
        at.start < data.saturating_add(4) && at.end > data
    }
}

impl Device for VirtioPci {
    fn read(&mut self, At { region: bar, offset }: At, data: &mut [u8]) {
        if bar != u16::from(BAR) {
            return;
        }
        match offset {
            COMMON..ISR => self.transport.read_common(offset, data),
            ISR => {
                if let Some(first) = data.first_mut() {
                    *first = self.transport.lines().take_isr();
                }
            }
            DEVICE..NOTIFY => self.transport.read_config(offset.saturating_sub(DEVICE), data),
            _ => {}
        }
    }

    fn write(&mut self, At { region: bar, offset }: At, data: &[u8]) {
        match offset {
            _ if bar != u16::from(BAR) => {}
            COMMON..ISR => self.transport.write_common(offset, data),
            DEVICE..NOTIFY => self.transport.write_config(offset.saturating_sub(DEVICE), data),
            NOTIFY..SIZE => self.transport.kick(offset.saturating_sub(NOTIFY) / NOTIFY_STEP),
            _ => {
                guest_error!("virtio-pci", "write to {offset:#x}, where nothing is written");
            }
        }
    }

    fn reset(&mut self) {
        self.transport.reset();
    }

    fn start(&mut self) {
        self.transport.start();
    }

    fn stop(&mut self) {
        self.transport.stop();
    }

    fn save(&self) -> Result<Blob, StateError> {
        self.transport.save()
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.transport.load(blob)
    }

    fn unplug(&mut self) {
        self.transport.unplug();
    }

    fn pinned(&self) -> Option<String> {
        self.transport.device().pinned()
    }

    fn live_props(&self) -> &'static [LiveProp] {
        self.transport.device().live_props()
    }

    fn live_value(&self, name: &str) -> Option<Value> {
        self.transport.device().live_value(name)
    }

    fn set_live(&mut self, name: &str, value: &Value) -> Result<(), String> {
        self.transport.device_mut().set_live(name, value)
    }
}

impl PciDevice for VirtioPci {
    fn config_read(&mut self, config: &mut ConfigSpace, at: Range<usize>) {
        if self.touches_window(&at)
            && let Some((offset, len)) = self.window(config)
        {
            let mut data = [0xff; 4];
            if let Some(data) = data.get_mut(..len) {
                self.read(At { region: BAR.into(), offset }, data);
                config.set(self.window.saturating_add(WINDOW_DATA), data);
            }
        }
    }

    fn config_written(&mut self, config: &mut ConfigSpace, at: Range<usize>) {
        if self.touches_window(&at)
            && let Some((offset, len)) = self.window(config)
        {
            let data: [u8; 4] = config.get(self.window.saturating_add(WINDOW_DATA));
            if let Some(data) = data.get(..len) {
                self.write(At { region: BAR.into(), offset }, data);
            }
        }
    }

    fn rewired(&mut self) {
        self.transport.rewired();
    }
}
