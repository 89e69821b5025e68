//! `vhost-vsock-pci`: sockets between guest and host (section 5.10).
//!
//! The host's kernel is the device: it serves the queues of received and sent packets
//! ([`super::vhost`]) and has the connections. What is left here is the guest's address and the
//! queue of events, of which there is one: after its state was loaded, perhaps on another host, the
//! guest is told that its connections are gone. Stopping keeps them.
//!
//! The kernel does not note all that it writes to guest RAM here. So it does not serve the queues
//! while writes are to be recorded: packets wait, and if the machine has moved, the connections end
//! anyway.
//!
//! Threads: the device on vCPU threads and the main thread, behind its transport's mutex; the
//! event queue on the I/O loop, packets on a thread of the kernel. What a hostile guest reaches
//! besides its configuration is the kernel's.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use resources::class::{Class, CreateError};
use resources::iol::Handle;
use resources::props::{Kind, Prop, Props};
use resources::space::DirtyLog;
use resources::state::{Blob, StateError};
use vmm_sys_util::eventfd::EventFd;

use super::port::ConfigIrq;
use super::vhost::{self, Rings, Vhost};
use super::{Activation, Broken, Port, Running, Spec, VirtioDevice, Worker, pci};
use crate::class::Ctx;

/// The virtio device id.
const ID: u16 = 19;
/// The PCI class code of a communication controller of no particular kind.
const PCI_CLASS: u16 = 0x0780;
/// Entries of each queue, as QEMU has it.
const QUEUE: u16 = 128;
/// The queues that the kernel serves; the one after them has events.
const KERNELS: u16 = 2;
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET.
const TRANSPORT_RESET: u32 = 0;
/// Where the kernel has it.
const PATH: &str = "/dev/vhost-vsock";

const PROPS: &[Prop] = &[
    Prop {
        name: "guest-cid",
        kind: Kind::U64(0, u64::MAX),
        default: Some("0"),
        help: "the guest's address, from 3 to 4294967295",
    },
    Prop {
        name: "vhostfd",
        kind: Kind::Str,
        default: None,
        help: "a descriptor of the kernel's device, opened by someone else",
    },
];

/// The device.
pub struct Vsock {
    /// Until it is unplugged; without it nobody serves the packets.
    kernel: Option<Arc<Kernel>>,
    cid: u64,
    ring_features: u64,
    on: Handle,
    running: Option<Running>,
    /// The guest is to be told that its connections are gone.
    moved: Arc<AtomicBool>,
}

impl Vsock {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class {
        name: "vhost-vsock-pci",
        aliases: &[],
        bus: "PCI",
        description: "Sockets between guest and host",
        props: PROPS,
        base: pci::PROPS,
        create: Some(|props, ctx| {
            let device = Vsock::new(props, ctx)?;
            pci::plug(ctx, props, Box::new(device))
        }),
    };

    fn new(props: &Props, ctx: &Ctx) -> Result<Vsock, CreateError> {
        let wrong = |what: &str| Err(CreateError::Other(what.to_owned()));
        let cid: u64 = props.get("guest-cid")?;
        if cid <= 2 {
            return wrong("guest-cid property must be greater than 2");
        }
        if cid >= u64::from(u32::MAX) {
            return wrong("guest-cid property must be a 32-bit number");
        }
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            CreateError::Other(format!("vhost-vsock: {what}: {error}"))
        };
        let vhost = match props.get::<Option<&str>>("vhostfd")? {
            None => Vhost::open(PATH).map_err(|error| {
                failed("failed to open vhost device", &format_args!("{PATH}: {error}"))
            })?,
            Some(name) => {
                let fd = ctx.host.take_fd(name).map_err(|why| failed("vhostfd", &why))?;
                Vhost::adopt(fd).map_err(|error| failed("vhostfd", &error))?
            }
        };
        vhost.set_guest_cid(cid).map_err(|error| failed("unable to set guest cid", &error))?;
        let ring_features =
            vhost::ring_features(&vhost).map_err(|error| failed("vhost", &error))?;
        let kernel = Kernel { vhost: Arc::new(vhost), state: Mutex::default() };
        let kernel = Arc::new(kernel);
        ctx.memory.add_log(&(kernel.clone() as Arc<dyn DirtyLog>))?;
        Ok(Vsock { kernel: Some(kernel), cid, ring_features, ..Vsock::alone(ctx.host.io.clone()) })
    }

    /// One without the kernel's part, for fuzzing.
    pub(crate) fn alone(on: Handle) -> Vsock {
        let (running, moved) = (None, Arc::default());
        Vsock { kernel: None, cid: 3, ring_features: u64::MAX, on, running, moved }
    }
}

impl VirtioDevice for Vsock {
    fn spec(&self) -> Spec {
        Spec { id: ID, features: 0, queues: vec![QUEUE; 3], config_len: 8, pci_class: PCI_CLASS }
    }

    fn ring_features(&self) -> u64 {
        self.ring_features
    }

    fn read_config(&mut self, offset: u32, data: &mut [u8]) {
        super::copy_config(&self.cid.to_le_bytes(), offset, data);
    }

    fn start(&mut self, run: Activation) -> Result<(), String> {
        let serve =
            Serve { kernel: self.kernel.clone(), config: run.config, moved: self.moved.clone() };
        self.running = Some(Running::start(&self.on, run.ports, |workers| serve.run(workers)));
        Ok(())
    }

    fn stop(&mut self) -> Vec<Port> {
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.moved.store(false, Ordering::Release);
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &())
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        blob.parse::<()>(1, &[])?;
        self.moved.store(true, Ordering::Release);
        Ok(())
    }

    fn unplug(&mut self) {
        // Which ends the connections.
        self.kernel = None;
    }
}

/// The kernel's device, and whether it serves the queues: while the driver has lent them, and what
/// is written to guest RAM is not recorded.
struct Kernel {
    vhost: Arc<Vhost>,
    state: Mutex<Service>,
}

#[derive(Default)]
struct Service {
    /// By what the driver kicks the queues that are lent; none: they are not.
    kicks: Vec<Arc<EventFd>>,
    recorded: bool,
}

impl Service {
    fn serves(&self) -> bool {
        !self.kicks.is_empty() && !self.recorded
    }
}

impl Kernel {
    /// When this has returned, the kernel does what the state says.
    fn change(&self, change: impl FnOnce(&mut Service)) -> io::Result<()> {
        let mut state = self.state.lock();
        let before = state.serves();
        change(&mut state);
        if before == state.serves() {
            return Ok(());
        }
        self.vhost.set_running(!before)?;
        // What came while it did not serve.
        state.kicks.iter().try_for_each(|kick| kick.write(1))
    }
}

impl DirtyLog for Kernel {
    fn log(&self, on: bool) -> Result<(), String> {
        let done = self.change(|state| state.recorded = on);
        done.map_err(|error| format!("vhost-vsock: {error}"))
    }

    fn harvest(&self) {
        // Nothing is written meanwhile.
    }
}

/// What serving takes.
struct Serve {
    kernel: Option<Arc<Kernel>>,
    config: ConfigIrq,
    moved: Arc<AtomicBool>,
}

impl Serve {
    /// Until the device stops.
    async fn run(self, workers: Vec<Rc<Worker>>) {
        let Some(first) = workers.first().cloned() else { return };
        let lent = match self.lend(&workers) {
            Ok(lent) => lent,
            Err(error) => {
                self.config.needs_reset(&format_args!("vhost-vsock: {error}"));
                None
            }
        };
        if let Some(events) = workers.iter().find(|worker| worker.index() == KERNELS) {
            self.tell(events).await;
        }
        first.stopped().await;
        if let (Some(_), Some(kernel)) = (&lent, &self.kernel)
            && let Err(error) = kernel.change(|state| state.kicks.clear())
        {
            tracing::error!("vhost-vsock: cannot stop: {error}");
        }
        drop(lent);
    }

    /// Has the kernel serve its queues, if the driver has enabled both.
    fn lend(&self, workers: &[Rc<Worker>]) -> io::Result<Option<Rings>> {
        let Some(kernel) = &self.kernel else { return Ok(None) };
        let kernels = workers.iter().filter(|worker| worker.index() < KERNELS);
        let lent: Vec<_> =
            kernels.map(|worker| (u32::from(worker.index()), worker.clone())).collect();
        if lent.len() < usize::from(KERNELS) {
            return Ok(None);
        }
        let rings = Rings::lend(&kernel.vhost, &lent, &self.config)?;
        let kick = |(_, worker): &(u32, Rc<Worker>)| worker.port(|port| port.kick.clone());
        let kicks = lent.iter().filter_map(kick).collect();
        kernel.change(|state| state.kicks = kicks)?;
        Ok(Some(rings))
    }

    /// Tells the guest that its connections are gone, once it has a buffer for that.
    async fn tell(&self, events: &Worker) {
        if !self.moved.load(Ordering::Acquire) {
            return;
        }
        let Some(chain) = events.next().await else { return };
        let mut writer = chain.writer();
        writer.write(&TRANSPORT_RESET.to_le_bytes());
        let written = writer.written();
        if written < 4 {
            events.fail(chain, Broken::Request("an event has no room"));
            return;
        }
        self.moved.store(false, Ordering::Release);
        events.done(chain, written);
    }
}
