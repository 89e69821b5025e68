//! `virtio-rng-pci`: random bytes from the host (section 5.4).
//!
//! One queue; every request is room that is filled with random bytes. How many a guest may have in
//! which time is the user's to limit, so that it cannot use up what the host has.
//!
//! Threads: the device on vCPU threads and the main thread, behind its transport's mutex; the queue
//! on the I/O loop, one request after the other. A hostile guest can ask for as much as its RAM
//! holds: it gets at most 64 KiB at once, and no more than the limit. Of a source that has nothing
//! left it is asked again each second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use resources::class::{Class, CreateError};
use resources::iol::{Either, Handle, race};
use resources::props::{Kind, Prop, PropError, Props};
use resources::state::{Blob, StateError};

use super::{Activation, Chain, Port, Running, Spec, VirtioDevice, Worker, pci};
use crate::class::Ctx;
use crate::entropy::{Entropy, HostEntropy, MAX_READ};

/// The virtio device id.
const ID: u16 = 4;
/// The PCI class code of a device that no class fits.
const PCI_CLASS: u16 = 0x00ff;
/// Entries of the queue, as QEMU has it.
const QUEUE: u16 = 8;

/// How long a source is left alone that had nothing to give.
const AGAIN: Duration = Duration::from_secs(1);

const PROPS: &[Prop] = &[
    Prop {
        name: "rng",
        kind: Kind::Link("rng-backend"),
        default: None,
        help: "where random bytes come from; by default from the host's kernel",
    },
    Prop {
        name: "max-bytes",
        kind: Kind::U64(0, u64::MAX),
        default: Some("9223372036854775807"),
        help: "the most bytes the guest is given in one period",
    },
    Prop {
        name: "period",
        kind: Kind::U32(0, u32::MAX),
        default: Some("65536"),
        help: "length of a period in milliseconds",
    },
];

/// How many bytes a guest may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    /// In each period.
    bytes: u64,
    period: Duration,
}

/// The device.
pub struct Rng {
    source: Arc<dyn Entropy>,
    limit: Limit,
    on: Handle,
    running: Option<Running>,
}

impl Rng {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class {
        name: "virtio-rng-pci",
        aliases: &["virtio-rng"],
        bus: "PCI",
        description: "Random bytes from the host",
        props: PROPS,
        base: pci::PROPS,
        create: Some(|props, ctx| {
            let device = Rng::new(props, ctx)?;
            pci::plug(ctx, props, Box::new(device))
        }),
    };

    fn new(props: &Props, ctx: &Ctx) -> Result<Rng, CreateError> {
        let wrong = |what: &str| Err(CreateError::Other(what.to_owned()));
        let bytes: u64 = props.get("max-bytes")?;
        if i64::try_from(bytes).is_err() {
            return wrong("'max-bytes' parameter must be non-negative, and less than 2^63");
        }
        let period: u32 = props.get("period")?;
        if period == 0 {
            return wrong("'period' parameter expects a positive integer");
        }
        let source = match props.get::<Option<&str>>("rng")? {
            None => Arc::new(HostEntropy) as Arc<dyn Entropy>,
            Some(id) => ctx.host.rngs.get(id).cloned().ok_or_else(|| PropError::NoSuch {
                class: props.class(),
                name: "rng",
                value: id.to_owned(),
            })?,
        };
        let limit = Limit { bytes, period: Duration::from_millis(period.into()) };
        Ok(Rng { source, limit, on: ctx.host.io.clone(), running: None })
    }
}

impl VirtioDevice for Rng {
    fn spec(&self) -> Spec {
        Spec { id: ID, features: 0, queues: vec![QUEUE], config_len: 0, pci_class: PCI_CLASS }
    }

    fn start(&mut self, run: Activation) -> Result<(), String> {
        let (source, limit) = (self.source.clone(), self.limit);
        self.running = Some(Running::start(&self.on, run.ports, move |workers| async move {
            for worker in workers {
                serve(&worker, &*source, limit).await;
            }
        }));
        Ok(())
    }

    fn stop(&mut self) -> Vec<Port> {
        self.running.take().map(Running::stop).unwrap_or_default()
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &())
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        blob.parse(1, &[])
    }
}

/// What is left of the present period.
struct Quota {
    limit: Limit,
    left: u64,
    /// When the period ends; it begins with the first byte.
    ends: Option<Instant>,
}

impl Quota {
    /// How many bytes may be taken now; if none, until when to wait.
    fn now(&mut self, now: Instant) -> Result<u64, Option<Instant>> {
        if self.ends.is_some_and(|ends| ends <= now) {
            self.left = self.limit.bytes;
            self.ends = None;
        }
        if self.left > 0 { Ok(self.left) } else { Err(self.ends) }
    }

    fn take(&mut self, bytes: u64, now: Instant) {
        self.left = self.left.saturating_sub(bytes);
        self.ends = self.ends.or_else(|| now.checked_add(self.limit.period));
    }
}

async fn serve(worker: &Worker, source: &dyn Entropy, limit: Limit) {
    let mut quota = Quota { limit, left: limit.bytes, ends: None };
    while let Some(chain) = worker.next().await {
        match race(worker.stopped(), fill(worker, source, &mut quota, &chain)).await {
            Either::Right(written) => worker.done(chain, written),
            Either::Left(()) => worker.put_back(chain),
        }
    }
}

/// Fills as much of a request as the source gives at once; returns how many bytes.
async fn fill(worker: &Worker, source: &dyn Entropy, quota: &mut Quota, chain: &Chain) -> u32 {
    let room = usize::try_from(chain.writable_len()).unwrap_or(MAX_READ).min(MAX_READ);
    if room == 0 {
        return 0;
    }
    let local = worker.local();
    loop {
        let allowed = match quota.now(Instant::now()) {
            Ok(left) => usize::try_from(left).unwrap_or(MAX_READ),
            Err(Some(until)) => {
                local.sleep_until(until).await;
                continue;
            }
            // Nothing ever.
            Err(None) => std::future::pending().await,
        };
        match source.read(local, room.min(allowed)).await {
            Ok(bytes) if !bytes.is_empty() => {
                let mut writer = chain.writer();
                let written = writer.write(&bytes);
                quota.take(u64::try_from(written).unwrap_or(u64::MAX), Instant::now());
                return writer.written();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!("no random bytes for the guest: {error}");
            }
        }
        local.sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Reading;
    use crate::virtio::feature;
    use crate::virtio::testing::Machine;
    use parking_lot::Mutex;
    use resources::iol::{Local, Thread};
    use std::collections::VecDeque;
    use std::io;

    /// Gives what it was told to, then nothing any more.
    #[derive(Default)]
    struct Script(Mutex<VecDeque<Vec<u8>>>);

    impl Entropy for Script {
        fn read<'a>(&'a self, _: &'a Local, len: usize) -> Reading<'a> {
            let next = self.0.lock().pop_front();
            Box::pin(async move {
                let mut bytes = match next {
                    Some(bytes) => bytes,
                    None => std::future::pending::<Vec<u8>>().await,
                };
                if bytes == b"fail" {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                bytes.truncate(len);
                Ok(bytes)
            })
        }
    }

    const FREE: Limit = Limit { bytes: 1 << 40, period: Duration::from_secs(60) };

    fn rng(on: &Handle, source: Arc<dyn Entropy>, limit: Limit) -> Box<Rng> {
        Box::new(Rng { source, limit, on: on.clone(), running: None })
    }

    #[test]
    fn room_is_filled_with_random_bytes() {
        let (_thread, on) = Thread::spawn("test").unwrap();
        let mut machine = Machine::new(rng(&on, Arc::new(HostEntropy), FREE));
        machine.ready(feature::EVENT_IDX);
        let one = machine.request(0, &[], &[24, 40]).data;
        let other = machine.request(0, &[], &[64]).data;
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
        // Without room, and with something to read, which nobody wants.
        assert_eq!(machine.request(0, &[b"useless"], &[]).written, 0);
        assert_eq!(machine.request(0, &[b"useless"], &[3]).written, 3);
        // Much at once.
        assert!(machine.request(0, &[], &[0x80000]).written > 0);
    }

    #[test]
    fn a_request_survives_stopping_and_moving() {
        let (_thread, on) = Thread::spawn("test").unwrap();
        let dry = Arc::new(Script::default());
        let mut machine = Machine::new(rng(&on, dry.clone(), FREE));
        machine.ready(0);
        let ids = [(); 2].map(|()| machine.drivers[0].send(&[], &[4]));
        let mut machine = machine.move_to(rng(&on, dry.clone(), FREE));
        machine.transport.stop();
        machine.transport.start();
        machine.transport.stop();
        dry.0.lock().extend([b"abcdef".to_vec(), b"xy".to_vec()]);
        machine.transport.start();
        let (first, second) = (machine.wait_used(0), machine.wait_used(0));
        assert_eq!((first.id, &*first.data), (ids[0], &b"abcd"[..]));
        assert_eq!((second.id, &*second.data), (ids[1], &b"xy"[..]));
        // A reset takes what waits for the source away.
        machine.drivers[0].send(&[], &[4]);
        machine.transport.reset();
        dry.0.lock().extend([b"anew".to_vec()]);
        machine.ready(0);
        assert_eq!(machine.request(0, &[], &[4]).data, b"anew");
    }

    #[test]
    fn a_source_that_fails_is_asked_again() {
        let (_thread, on) = Thread::spawn("test").unwrap();
        let source = Arc::new(Script::default());
        source.0.lock().extend([b"fail".to_vec(), b"ok".to_vec()]);
        let mut machine = Machine::new(rng(&on, source, FREE));
        machine.ready(0);
        assert_eq!(machine.request(0, &[], &[4]).data, b"ok");
    }

    #[test]
    fn the_limit_holds() {
        let limit = Limit { bytes: 10, period: Duration::from_millis(200) };
        let (_thread, on) = Thread::spawn("test").unwrap();
        let mut machine = Machine::new(rng(&on, Arc::new(HostEntropy), limit));
        machine.ready(0);
        let begin = Instant::now();
        let mut got = 0;
        while got < 25 {
            got += machine.request(0, &[], &[8]).written;
        }
        assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_quota_is_renewed_with_its_period() {
        let start = Instant::now();
        let limit = Limit { bytes: 10, period: Duration::from_secs(1) };
        let mut quota = Quota { limit, left: 10, ends: None };
        let later = start + Duration::from_secs(100);
        assert_eq!(quota.now(later), Ok(10));
        quota.take(4, later);
        quota.take(6, later + Duration::from_millis(500));
        let ends = later + Duration::from_secs(1);
        assert_eq!(quota.now(later + Duration::from_millis(999)), Err(Some(ends)));
        assert_eq!(quota.now(ends), Ok(10));
        let mut never = Quota { limit: Limit { bytes: 0, ..limit }, left: 0, ends: None };
        assert_eq!(never.now(later), Err(None));
    }
}
