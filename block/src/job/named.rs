//! Jobs over files by their names, on a loop of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use resources::iol::{IoBuf, Thread};
use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::node::Zero;
use crate::snapshot::Overlay;
use crate::{Drive, Spec};

const SIZE: usize = 1 << 20;

struct Place {
    _thread: Thread,
    dir: TempDir,
    drive: Arc<Drive>,
    news: Receiver<()>,
    tell: std::sync::mpsc::Sender<()>,
}

impl Place {
    /// A drive over a raw file, every second cluster of it with data.
    fn new() -> (Place, Vec<u8>) {
        let (thread, handle) = Thread::spawn("jobs").unwrap();
        let dir = TempDir::new().unwrap();
        let bytes: Vec<u8> =
            (0..SIZE).map(|at| (at >> 16) as u8 * ((at >> 16) as u8 & 1)).collect();
        let base = dir.as_path().join("base");
        std::fs::write(&base, &bytes).unwrap();
        let drive =
            Drive::with("d", handle, Spec::file(base.to_str().unwrap(), Some("raw"))).unwrap();
        let (tell, news) = channel();
        (Place { _thread: thread, dir, drive, news, tell }, bytes)
    }

    fn name(&self, name: &str) -> String {
        self.dir.as_path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> NewFile {
        NewFile { filename: self.name(name), format: Some("qcow2".to_owned()), existing: false }
    }

    fn request(&self) -> Request {
        let tell = self.tell.clone();
        let start = Start {
            device: "d".to_owned(),
            speed: 0,
            tell: Box::new(move || {
                let _ = tell.send(());
            }),
        };
        Request { spec: (*self.drive.spec().unwrap()).clone(), checked: Ok(()), start }
    }

    fn next(&self) -> Event {
        let mut events = Vec::new();
        while events.is_empty() {
            self.news.recv_timeout(Duration::from_secs(30)).unwrap();
            events = self.drive.job_events();
        }
        assert_eq!(events.len(), 1);
        events.remove(0)
    }

    fn ready(&self) {
        assert!(matches!(self.next(), Event::Ready(_)));
    }

    fn ended(&self, by_request: bool) {
        let end = self.next();
        let Event::Ended { cancelled, error, .. } = end else { panic!("{end:?}") };
        assert_eq!((cancelled, error), (by_request, None));
        assert!(self.drive.job().is_none());
    }

    fn write(&self, at: u64, byte: u8, model: &mut [u8]) {
        model[at as usize..at as usize + 5000].fill(byte);
        let write = self.drive.on_disk(move |disk| async move {
            disk.write(at, IoBuf::copy_of(&[byte; 5000]), false).await
        });
        write.unwrap().unwrap();
    }

    fn zero(&self, at: u64, len: u64, model: &mut [u8]) {
        model[at as usize..(at + len) as usize].fill(0);
        let zero =
            self.drive.on_disk(move |disk| async move { disk.zero(at, len, Zero::MayUnmap).await });
        zero.unwrap().unwrap();
    }

    fn snapshot(&self, name: &str) {
        let (spec, file) = (self.drive.spec().unwrap(), self.file(name));
        let spec = self.drive.on_loop(move |local, disk| async move {
            Ok::<_, crate::OpenError>(
                Overlay::prepare(&local, &disk, &spec, &file, None).await?.commit(&disk).await,
            )
        });
        self.drive.set_spec(spec.unwrap().unwrap());
    }

    fn contents(&self) -> Vec<u8> {
        let read = self.drive.on_disk(|disk| async move {
            let buf = IoBuf::zeroed(SIZE);
            disk.read(0, buf.clone()).await.unwrap();
            buf.to_vec()
        });
        read.unwrap()
    }

    /// Closes the graph and opens it from what the drive says it is.
    fn reopen(&self) {
        let spec = (*self.drive.spec().unwrap()).clone();
        self.drive.insert(spec).unwrap();
    }

    fn mirror(&self, to: &str, sync: Sync) {
        let (request, target) = (self.request(), self.file(to));
        let mirror = MirrorRequest {
            target,
            sync,
            granularity: 0,
            buf_size: SIZE as u64,
            errors: Errors::default(),
        };
        let started = self.drive.start_job(move |local, disk| async move {
            start_mirror(&local, disk, request, mirror).await
        });
        started.unwrap();
    }
}

#[test]
fn a_drive_goes_from_image_to_image() {
    let (place, mut model) = Place::new();
    place.snapshot("one");
    place.write(70_000, 0xaa, &mut model);
    for (to, sync) in [("top", Sync::Top), ("none", Sync::None), ("full", Sync::Full)] {
        place.mirror(to, sync);
        place.ready();
        place.write(200_000, to.len() as u8, &mut model);
        place.drive.job().unwrap().complete().unwrap();
        place.ended(false);
        assert_eq!(crate::name::protocol(&place.name(to)), None);
        assert_eq!(place.drive.spec().unwrap().filename, Some(place.name(to)));
        assert!(place.contents() == model, "{to}");
        place.write(300_000, 1, &mut model);
        place.reopen();
        assert!(place.contents() == model, "{to}, opened anew");
    }
}

/// The target has no backing file before it takes the drive's place: zeros must hide it then.
#[test]
fn a_mirror_of_the_topmost_image_keeps_its_zeros() {
    let (place, mut model) = Place::new();
    place.snapshot("one");
    place.zero(65536, 65536, &mut model);
    place.zero(3 * 65536 + 5000, 20_000, &mut model);
    place.mirror("top", Sync::Top);
    place.ready();
    place.zero(5 * 65536, 65536, &mut model);
    place.zero(7 * 65536, 1000, &mut model);
    place.drive.job().unwrap().complete().unwrap();
    place.ended(false);
    assert!(place.contents() == model);
    place.reopen();
    assert!(place.contents() == model);
}

#[test]
fn two_images_are_put_on_top_at_once() {
    let (place, mut model) = Place::new();
    let (spec, one, two) = (place.drive.spec().unwrap(), place.file("one"), place.file("two"));
    let spec = place.drive.on_loop(move |local, disk| async move {
        let one = Overlay::prepare(&local, &disk, &spec, &one, None).await?;
        let two = Overlay::prepare(&local, &disk, &spec, &two, Some(&one)).await?;
        one.commit(&disk).await;
        Ok::<_, crate::OpenError>(two.commit(&disk).await)
    });
    place.drive.set_spec(spec.unwrap().unwrap());
    place.write(70_000, 0xaa, &mut model);
    assert!(place.contents() == model);
    let told = place.drive.describe().unwrap();
    assert_eq!((told.filename.as_str(), told.depth()), (place.name("two").as_str(), 2));
    assert_eq!(told.backing.unwrap().filename, place.name("one"));
    place.reopen();
    assert!(place.contents() == model);
    // As the images themselves have it.
    place.drive.insert(Spec::file(&place.name("two"), None)).unwrap();
    assert!(place.contents() == model);
}

#[test]
fn the_topmost_image_is_committed() {
    let (place, mut model) = Place::new();
    place.snapshot("one");
    place.write(70_000, 0xaa, &mut model);
    place.snapshot("two");
    place.write(500_000, 0xbb, &mut model);
    let (request, top) = (place.request(), place.name("two"));
    let started = place.drive.start_job(move |local, disk| async move {
        start_commit(&local, disk, request, &top, None).await
    });
    started.unwrap();
    place.ready();
    place.write(600_000, 0xcc, &mut model);
    place.drive.job().unwrap().complete().unwrap();
    place.ended(false);
    assert!(place.contents() == model);
    place.write(900_000, 0xdd, &mut model);
    place.drive.remove();
    assert!(std::fs::read(place.name("base")).unwrap() == model);
}

#[test]
fn a_backup_keeps_the_moment() {
    let (place, mut model) = Place::new();
    place.snapshot("one");
    let then = model.clone();
    let (request, target) = (place.request(), place.file("backup"));
    let started = place.drive.start_job(move |local, disk| async move {
        start_backup(&local, disk, request, target, Sync::None, Errors::default()).await
    });
    started.unwrap();
    place.write(0, 0xee, &mut model);
    place.write(800_000, 0xee, &mut model);
    place.drive.job().unwrap().cancel(false).unwrap();
    place.ended(true);
    assert!(place.contents() == model);
    let (request, target) = (place.request(), place.file("full"));
    let started = place.drive.start_job(move |local, disk| async move {
        start_backup(&local, disk, request, target, Sync::Full, Errors::default()).await
    });
    started.unwrap();
    place.ended(false);
    // The first one stands on the image that the guest has written to since.
    for (name, wanted) in [("backup", &then), ("full", &model)] {
        place.drive.insert(Spec::file(&place.name(name), None)).unwrap();
        assert!(place.contents() == *wanted, "{name}");
    }
}
