//! A drive: what `-drive` and blockdev-add make, what a device is plugged on, what clients name.
//!
//! It may have a medium, whose graph lives on one loop: that of the device that has it, or a
//! common one. Clients see a drive by its figures and flags, which any thread can read.
//!
//! Any thread; a leaf mutex around who has it and what is in it, never held while a loop is waited
//! for or a device is told. Opening, moving and closing a medium wait for a loop: main thread only.

mod activity;
mod attach;
mod job;
pub(crate) mod patience;
mod policy;
mod shared;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use resources::clock::Clock;
use resources::iol::{Handle, Local, Remote};

pub use attach::{AttachError, Attachment, Busy, Model, Tray};
pub use job::Held;
pub use patience::Hurry;
pub(crate) use policy::is_no_space;
pub use policy::{Action, Failure, IoStatus, OnError, Policy};
pub(crate) use shared::Shared;

use crate::chain;
use crate::describe::Description;
use crate::disk::Disk;
use crate::host::HostFile;
use crate::name;
use crate::node::Node;
use crate::open::{OpenError, Spec, open, parts};
use crate::qcow2::options::OnCorruption;
use crate::stats::Stats;
use crate::throttle::Limits;

/// A drive.
pub struct Drive {
    id: String,
    shared: Arc<Shared>,
    report: Box<dyn Fn(Failure) + Send + Sync>,
    state: Mutex<Inner>,
}

struct Inner {
    medium: Option<Medium>,
    /// The devices that have it.
    models: Vec<Arc<dyn Model>>,
    /// They let others write.
    shares: bool,
    /// Where media are built.
    home: Handle,
    policy: Policy,
    /// Once a device has asked for it.
    io_status: Option<IoStatus>,
    serial: Option<String>,
    /// Who is told of damage in its images.
    on_corruption: Option<OnCorruption>,
    /// Another process may have its medium.
    inactive: bool,
    /// Somebody else than a job has it for himself.
    in_use: bool,
    job: Option<job::Running>,
    /// The key of what is encrypted in the medium, once somebody has given it.
    key: Option<String>,
    /// Told before the medium is taken out.
    emptied: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone)]
struct Medium {
    spec: Arc<Spec>,
    disk: Arc<Remote<Disk>>,
}

impl Drive {
    /// An empty drive, whose media are built on `home`. `report` is told of failed requests, on
    /// any thread, and must not wait.
    pub fn new(
        id: &str,
        home: Handle,
        policy: Policy,
        report: impl Fn(Failure) + Send + Sync + 'static,
    ) -> Arc<Drive> {
        let state = Inner {
            medium: None,
            models: Vec::new(),
            shares: false,
            home,
            policy,
            io_status: None,
            serial: None,
            on_corruption: None,
            inactive: false,
            in_use: false,
            job: None,
            key: None,
            emptied: None,
        };
        Arc::new(Drive {
            id: id.to_owned(),
            shared: Arc::default(),
            report: Box::new(report),
            state: Mutex::new(state),
        })
    }

    /// A drive with a medium.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn with(id: &str, home: Handle, spec: Spec) -> Result<Arc<Drive>, OpenError> {
        let drive = Drive::new(id, home, Policy::default(), |_| {});
        drive.insert(spec)?;
        Ok(drive)
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives the disk a serial number, for devices that are given none of their own.
    pub fn set_serial(&self, serial: &str) {
        self.state.lock().serial = Some(serial.to_owned());
    }

    /// The serial number.
    pub fn serial(&self) -> Option<String> {
        self.state.lock().serial.clone()
    }

    /// Puts a medium in, in place of the one there is, which is closed first; the device is not
    /// told.
    ///
    /// # Errors
    /// When it cannot be opened: there is none then.
    pub fn insert(&self, spec: Spec) -> Result<(), OpenError> {
        self.remove();
        let home = self.state.lock().home.clone();
        let medium = self.build(&home, Arc::new(spec), Vec::new())?;
        self.state.lock().medium = Some(medium);
        Ok(())
    }

    /// Takes the medium out, when what is under way has ended and is durable, its job too; the
    /// device is not told.
    pub fn remove(&self) {
        self.end_job();
        let emptied = self.state.lock().emptied.take();
        if let Some(tell) = emptied {
            tell();
        }
        let old = {
            let mut state = self.state.lock();
            state.key = None;
            state.medium.take()
        };
        if old.is_some() {
            self.shared.limits.lock().0 = Limits::default();
        }
        close(old);
        self.shared.set_size(0);
    }

    /// Has somebody told, once, before the medium is taken out. There is one who is told: the last
    /// who asked.
    pub fn when_emptied(&self, tell: impl FnOnce() + Send + 'static) {
        self.state.lock().emptied = Some(Box::new(tell));
    }

    /// Opens a graph on a loop, with what is open already of its files.
    fn build(
        &self,
        home: &Handle,
        spec: Arc<Spec>,
        open_files: Vec<Arc<HostFile>>,
    ) -> Result<Medium, OpenError> {
        let shared = self.shared.clone();
        let read_only = spec.read_only;
        let inactive = self.is_inactive();
        let key = self.state.lock().key.clone();
        let with_files = Spec { open_files, ..self.as_opened(&spec) };
        let built = home.call_async(move |local| async move {
            let spec = with_files;
            let node = open(&local, &spec).await?;
            if let Some(key) = key {
                unlock(&node, &key, chain::DEPTH).map_err(|_| refused_key())?;
            }
            let info = node.info();
            shared.read_only.store(read_only || info.read_only && !inactive, Relaxed);
            shared.write_cache.store(spec.cache.writeback, Relaxed);
            shared.discards.store(spec.discard && info.discards, Relaxed);
            *shared.sectors.lock() = info.sectors;
            let (driver, filename) = (node.driver(), name::of(&*node));
            let disk = Disk::new(node, shared);
            disk.set_detect_zeroes(spec.detect_zeroes);
            if spec.copy_on_read {
                disk.set_copy_on_read(true).await;
            }
            Ok((driver, filename, Arc::new(local.keep(disk))))
        });
        let ended = || Err(OpenError("the I/O loop has ended".to_owned()));
        let (driver, name, disk) = built.unwrap_or_else(ended)?;
        Ok(Medium { spec: settled(spec, driver, &name), disk })
    }

    /// The graph, to be reached on its loop; `None` without a medium.
    pub fn place(&self) -> Option<Arc<Remote<Disk>>> {
        self.state.lock().medium.as_ref().map(|medium| medium.disk.clone())
    }

    /// The graph, on its loop; `None` on another one, and without a medium.
    pub fn disk(&self, local: &Local) -> Option<Rc<Disk>> {
        self.place()?.get(local)
    }

    /// What is told about the medium; waits for its loop.
    pub fn describe(&self) -> Option<Description> {
        self.on_disk(|disk| async move { Description::of(&*disk.node()) }).ok()
    }

    /// Gives the key of what is encrypted in the medium: the topmost image, and the one below it.
    /// It is kept for as long as the medium is.
    ///
    /// # Errors
    /// The key is not one, or there is no medium.
    pub fn set_key(&self, key: &str) -> io::Result<()> {
        let given = key.to_owned();
        self.on_disk(|disk| async move { unlock(&disk.node(), &given, 2) })??;
        self.state.lock().key = Some(key.to_owned());
        Ok(())
    }

    /// What the medium was opened from; damage in what is opened from it is told to the same.
    pub fn spec(&self) -> Option<Arc<Spec>> {
        let state = self.state.lock();
        let spec = &state.medium.as_ref()?.spec;
        let on_corruption = state.on_corruption.clone();
        Some(Arc::new(Spec { on_corruption, ..(**spec).clone() }))
    }

    /// The graph was changed so that this is what opens it.
    pub fn set_spec(&self, spec: Spec) {
        if let Some(medium) = &mut self.state.lock().medium {
            medium.spec = Arc::new(spec);
        }
    }

    /// Whether there is a medium.
    pub fn has_medium(&self) -> bool {
        self.state.lock().medium.is_some()
    }

    /// Bytes of the medium; 0 without.
    pub fn size(&self) -> u64 {
        self.shared.size.load(Relaxed)
    }

    /// Whether nothing can be written.
    pub fn read_only(&self) -> bool {
        self.shared.read_only()
    }

    /// Whether writes may stay in caches until a flush.
    pub fn write_cache(&self) -> bool {
        self.shared.write_cache()
    }

    /// Turns the write cache on or off; what is under way may still see the old setting. One of
    /// several devices cannot turn it on, because another one may rely on its being off.
    pub fn set_write_cache(&self, on: bool) {
        let others = self.state.lock().models.len() > 1;
        if !(on && others) {
            self.shared.write_cache.store(on, Relaxed);
        }
    }

    /// Whether a discard may give room back.
    pub fn discards(&self) -> bool {
        self.shared.discards()
    }

    /// Logical and physical sector size of the host's disk, where it is one.
    pub fn sectors(&self) -> Option<(u32, u32)> {
        *self.shared.sectors.lock()
    }

    /// Gives it the clock that limits go by.
    pub fn set_clock(&self, clock: Arc<Clock>) {
        self.shared.limits.lock().1 = Some(clock);
        self.set_limits(self.limits());
    }

    /// The limits of what is done.
    pub fn limits(&self) -> Limits {
        self.shared.limits.lock().0
    }

    /// Limits what is done, in place of all limits before. Without a clock there are none.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.limits.lock().0 = limits;
        // Without a medium there is nobody to be told.
        let _ = self.on_disk(|disk| async move { disk.set_limits() });
    }

    /// Who is told of damage that is found in its images, on any thread, and must not wait; those
    /// that are opened from now on.
    pub fn tell_corruption(&self, tell: OnCorruption) {
        self.state.lock().on_corruption = Some(tell);
    }

    /// Its counters, which a device keeps.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Whether a job or the like has it.
    pub fn in_use(&self) -> bool {
        let state = self.state.lock();
        state.in_use || state.job.is_some()
    }

    /// Gives it to somebody who is not a job, or takes it back.
    pub fn set_in_use(&self, in_use: bool) {
        self.state.lock().in_use = in_use;
    }

    /// Makes the medium of this many bytes and tells the device.
    ///
    /// # Errors
    /// As [`Disk::resize`]; `NotFound` without a medium.
    pub fn resize(&self, size: u64) -> io::Result<()> {
        self.on_disk(move |disk| async move { disk.resize(size).await })??;
        self.models().iter().for_each(|model| model.resized());
        Ok(())
    }

    /// Waits until everything that was written is durable. Nothing to do without a medium.
    ///
    /// # Errors
    /// What the host reports.
    pub fn flush(&self) -> io::Result<()> {
        if !self.has_medium() || self.read_only() {
            return Ok(());
        }
        self.on_disk(|disk| async move { disk.flush().await })?
    }

    /// Runs something on the graph's loop and waits for it; not from that loop.
    ///
    /// # Errors
    /// `NotFound` without a medium.
    pub fn on_disk<R: Send + 'static, F: Future<Output = R> + 'static>(
        &self,
        work: impl FnOnce(Rc<Disk>) -> F + Send + 'static,
    ) -> io::Result<R> {
        if !self.has_medium() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.on_loop(move |_, disk| work(disk))?)
    }
}

/// Gives a key to those of the first layers of a chain that are encrypted, the lowest first.
fn unlock(top: &Rc<dyn Node>, key: &str, layers: usize) -> io::Result<()> {
    for node in chain::layers(top).iter().take(layers).rev() {
        match node.image() {
            Some(image) if image.facts().encrypted => image.set_key(key)?,
            _ => {}
        }
    }
    Ok(())
}

fn refused_key() -> OpenError {
    OpenError("Password incorrect".to_owned())
}

/// Waits for the end of what is under way, makes it durable and lets go of the graph.
fn close(medium: Option<Medium>) {
    let Some(Medium { disk, .. }) = medium else { return };
    let handle = disk.handle().clone();
    handle.call_async(|local| async move {
        let Some(graph) = disk.get(&local) else { return };
        // Its files close with this, before anybody is told that they have.
        disk.release(&local);
        let disk = graph;
        let node = disk.node();
        let top = || Some(node.clone());
        patience::with_patience(&local, top, async {
            let _held = disk.drain().await;
            if let Err(error) = node.close().await {
                tracing::error!("a disk was not made durable when it was closed: {error}");
            }
            disk.retire();
        })
        .await;
    });
}

/// The spec of a graph whose format was found out: it stays that one, whatever the guest writes
/// to the first bytes of its disk.
fn settled(spec: Arc<Spec>, driver: &str, name: &str) -> Arc<Spec> {
    let Ok((filename, mut options)) = parts(&spec) else { return spec };
    if spec.snapshot {
        return Arc::new(Spec { overlay: Some(name.to_owned()), ..(*spec).clone() });
    }
    if spec.made.is_some() || driver.is_empty() || options.get("driver").is_some() {
        return spec;
    }
    options.set("driver", driver);
    Arc::new(Spec { filename, options, ..(*spec).clone() })
}
