//! Files, caches, locks and drives.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use resources::iol::{FileIo, IoBuf, Local, Loop, Thread};
use vmm_sys_util::tempfile::TempFile;

use crate::file::File;
use crate::node::{Extent, Node, State, Zero};
use crate::raw::Raw;
use crate::{
    Action, AttachError, Cache, Drive, Failure, HostFile, IoStatus, Kind, Model, OnError,
    OpenOptions, Policy, Spec, open,
};

/// An image next to the sources: file systems in memory have no direct I/O on older kernels.
fn image(size: u64) -> TempFile {
    let file = TempFile::new_in(std::path::Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

fn name(file: &TempFile) -> &str {
    file.as_path().to_str().unwrap()
}

fn cached(name: &str) -> OpenOptions {
    OpenOptions { cache: Cache::named(name).unwrap(), discard: true, ..OpenOptions::default() }
}

fn run<F: Future>(file_io: FileIo, task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::with_file_io("test", file_io).unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

async fn bytes(node: &dyn Node, offset: u64, len: usize) -> Vec<u8> {
    let buf = IoBuf::zeroed(len);
    buf.fill(0xee);
    node.read(offset, buf.clone()).await.unwrap();
    buf.to_vec()
}

/// Operations of odd offsets and lengths against a flat model.
fn against_a_model(mode: &'static str, file_io: FileIo) {
    const SIZE: usize = 40_000;
    let image = image(SIZE as u64);
    let cache = Cache::named(mode).unwrap();
    let spec = Spec { cache, discard: true, ..Spec::file(name(&image), Some("raw")) };
    run(file_io, |local| async move {
        let node = open(&local, &spec).await.unwrap();
        assert_eq!(node.info().size, 40_448);
        let mut model = vec![0; 40_448];
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            (seed >> 33) % below
        };
        for round in 0..300u64 {
            let offset = random(40_448) as usize;
            let len = (random(9000) as usize).min(40_448 - offset);
            let part = offset..offset + len;
            match random(4) {
                0 => {
                    model[part].fill(round as u8);
                    // At an odd address now and then.
                    let buf = IoBuf::zeroed(len + 1).skip(round as usize % 2).slice(0..len);
                    buf.fill(round as u8);
                    node.write(offset as u64, buf, round % 7 == 0).await.unwrap();
                }
                1 => {
                    model[part].fill(0);
                    let how = if round % 2 == 0 { Zero::Keep } else { Zero::MayUnmap };
                    node.zero(offset as u64, len as u64, how).await.unwrap();
                }
                2 => node.flush().await.unwrap(),
                _ => assert!(bytes(&*node, offset as u64, len).await == model[part]),
            }
        }
        assert!(bytes(&*node, 0, 40_448).await == model);
        node.read(40_448, IoBuf::zeroed(1)).await.unwrap_err();
        node.write(u64::MAX, IoBuf::zeroed(2), false).await.unwrap_err();
        node.zero(40_447, 2, Zero::Keep).await.unwrap_err();
    });
}

#[test]
fn buffered_files_hold_what_is_written() {
    against_a_model("writeback", FileIo::Auto);
    against_a_model("unsafe", FileIo::Pool);
}

#[test]
fn direct_files_hold_what_is_written_however_it_lies() {
    against_a_model("none", FileIo::Auto);
    against_a_model("directsync", FileIo::Pool);
}

/// Many writes that share blocks, at the same time.
#[test]
fn partial_writes_of_a_block_do_not_undo_each_other() {
    let image = image(8192);
    let cache = Cache::named("none").unwrap();
    let spec = Spec { cache, ..Spec::file(name(&image), None) };
    run(FileIo::Auto, |local| async move {
        let node = open(&local, &spec).await.unwrap();
        let writes: Vec<_> = (0..64u64)
            .map(|i| {
                let node = node.clone();
                local.spawn(async move {
                    node.write(i * 100, IoBuf::copy_of(&[i as u8 + 1; 100]), false).await.unwrap();
                })
            })
            .collect();
        for write in writes {
            write.await;
        }
        let all = bytes(&*node, 0, 8192).await;
        assert!((0..6400).all(|i| all[i] == (i / 100) as u8 + 1));
        assert!(all[6400..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_map_tells_data_from_holes() {
    let image = image(1 << 20);
    let host = HostFile::open(name(&image), cached("writeback")).unwrap();
    run(FileIo::Auto, |local| async move {
        let node = File::new(&local, host.clone());
        let page = IoBuf::zeroed(65536);
        page.fill(1);
        node.write(65536, page, false).await.unwrap();
        let at = |state, len, offset| Extent { len, state, offset: Some(offset) };
        assert_eq!(node.map(0, 1 << 20).await.unwrap(), at(State::Zero, 65536, 0));
        assert_eq!(node.map(65536, 100).await.unwrap(), at(State::Data, 100, 65536));
        node.discard(65536, 65536).await.unwrap();
        assert_eq!(node.map(0, 1 << 20).await.unwrap(), at(State::Zero, 1 << 20, 0));
        assert!(host.allocated().unwrap() < 1 << 20);
    });
}

#[test]
fn parts_of_a_file() {
    let image = image(10_000);
    let host = HostFile::open(name(&image), OpenOptions::default()).unwrap();
    run(FileIo::Auto, |local| async move {
        let file = File::new(&local, host.clone());
        file.write(4096, IoBuf::copy_of(b"part"), false).await.unwrap();
        let part = |offset, size| Raw::new(file.clone(), offset, size);
        let node = part(4096, Some(512)).unwrap();
        assert_eq!((node.info().size, bytes(&node, 0, 4).await), (512, b"part".to_vec()));
        node.resize(1024).await.unwrap_err();
        assert!(part(10_001, None).is_err());
        assert!(part(0, Some(10_001)).is_err());
        let node = part(4096, None).unwrap();
        node.resize(100_000).await.unwrap();
        assert_eq!((host.size(), node.info().size), (104_096, 100_352));
        assert_eq!(node.children()[0].1.info().size, 104_096);
    });
}

#[test]
fn an_image_has_one_writer() {
    let image = image(512);
    let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
    let writer = HostFile::open(name(&image), OpenOptions::default()).unwrap();
    for options in [OpenOptions::default(), read_only] {
        let error = HostFile::open(name(&image), options).unwrap_err().to_string();
        assert!(error.contains("lock: is another process using the image?"), "{error}");
    }
    HostFile::open(name(&image), OpenOptions { locking: false, ..read_only }).unwrap();
    drop(writer);
    let _reader = HostFile::open(name(&image), read_only).unwrap();
    HostFile::open(name(&image), read_only).unwrap();
    HostFile::open(name(&image), OpenOptions::default()).unwrap_err();
}

#[test]
fn what_cannot_be_opened_is_named() {
    let open = |name: &str| HostFile::open(name, OpenOptions::default()).unwrap_err().to_string();
    assert_eq!(open("/no/such"), "Could not open '/no/such': No such file or directory");
    assert_eq!(open("/"), "Could not open '/': Is a directory");
    assert!(open("/dev/null").ends_with("neither a regular file nor a block device"));
    let image = image(1);
    let device = OpenOptions { device: true, ..OpenOptions::default() };
    HostFile::open(name(&image), device).unwrap_err();
}

struct Quiet;
impl Model for Quiet {}

#[test]
fn a_drive_moves_to_the_loop_of_its_device() {
    let (_one, first) = Thread::spawn("one").unwrap();
    let (_two, second) = Thread::spawn("two").unwrap();
    let image = image(4096);
    let drive = Drive::with("d", first.clone(), Spec::file(name(&image), None)).unwrap();
    assert_eq!((drive.size(), drive.read_only(), drive.tray().is_some()), (4096, false, true));
    drive
        .on_disk(|disk| async move { disk.write(10, IoBuf::copy_of(b"moved"), false).await })
        .unwrap()
        .unwrap();
    let attachment = drive.attach(&second, Arc::new(Quiet)).unwrap();
    assert!(matches!(drive.attach(&first, Arc::new(Quiet)), Err(AttachError::Busy(_))));
    assert!(drive.tray().is_none());
    let seen = drive.clone();
    assert!(first.call(move |local| seen.disk(local).is_none()).unwrap());
    let read = drive.on_disk(|disk| async move {
        assert_eq!(std::thread::current().name(), Some("two"));
        let buf = IoBuf::zeroed(5);
        disk.read(10, buf.clone()).await.unwrap();
        buf.to_vec()
    });
    assert_eq!(read.unwrap(), b"moved");
    drive.resize(8192).unwrap();
    assert_eq!(drive.size(), 8192);
    drive.flush().unwrap();
    assert_eq!(drive.stats().highest_offset(), 0);
    drop(attachment);
    // Whoever still has the disk has nothing any more.
    let seen = drive.clone();
    let disk = second.call(move |local| local.keep(seen.disk(local).unwrap())).unwrap();
    drive.remove();
    let read = second.call_async(move |local| async move {
        disk.get(&local).unwrap().read(0, IoBuf::zeroed(1)).await
    });
    assert!(read.unwrap().is_err());
    assert!(!drive.has_medium() && drive.describe().is_none());
    assert_eq!(drive.resize(1).unwrap_err().kind(), io::ErrorKind::NotFound);
    drive.flush().unwrap();
    drop(HostFile::open(name(&image), OpenOptions::default()).unwrap());
}

#[test]
fn a_disk_is_held_while_it_changes() {
    run(FileIo::Auto, |local| async move {
        let (_thread, other) = Thread::spawn("t").unwrap();
        let drive = Drive::with("d", other, Spec::null(1 << 20)).unwrap();
        drive
            .on_disk(|disk| async move {
                disk.read(1 << 20, IoBuf::zeroed(1)).await.unwrap_err();
                disk.read(u64::MAX, IoBuf::zeroed(2)).await.unwrap_err();
                disk.zero(0, (1 << 20) + 1, Zero::Keep).await.unwrap_err();
                let held = disk.drain().await;
                let mut read = Box::pin(disk.read(0, IoBuf::zeroed(512)));
                let mut poll = || {
                    let waker = std::task::Waker::noop();
                    read.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
                };
                assert!(!poll());
                disk.replace(Rc::new(crate::null::Null::new(512)));
                drop(held);
                assert!(poll());
            })
            .unwrap();
        assert_eq!(drive.size(), 512);
        drop(local);
    });
}

#[test]
fn failures_go_by_the_policy() {
    let (_thread, handle) = Thread::spawn("t").unwrap();
    let told: Arc<Mutex<Vec<Failure>>> = Arc::default();
    let report = told.clone();
    let drive = Drive::new("d", handle, Policy::default(), move |f| report.lock().push(f));
    let full = io::Error::from_raw_os_error(libc::ENOSPC);
    let other = io::Error::from_raw_os_error(libc::EIO);
    assert_eq!(drive.io_status(), None);
    drive.enable_io_status();
    assert_eq!(drive.io_status(), Some(IoStatus::Ok));
    assert_eq!(drive.failed(true, &full), Action::Stop);
    assert_eq!(drive.failed(true, &other), Action::Report);
    assert_eq!(drive.failed(false, &full), Action::Report);
    drive.set_io_status(IoStatus::NoSpace);
    drive.set_io_status(IoStatus::Failed);
    assert_eq!(drive.io_status(), Some(IoStatus::NoSpace));
    drive.reset_io_status();
    assert_eq!(drive.io_status(), Some(IoStatus::Ok));
    drive.set_policy(Policy { read: OnError::Ignore, write: OnError::Report });
    assert_eq!(drive.failed(false, &other), Action::Ignore);
    assert_eq!(drive.io_status(), None);
    let told = told.lock();
    assert_eq!(told.len(), 4);
    let first = Failure { drive: "d".into(), write: true, action: Action::Stop, no_space: true };
    assert_eq!(told[0], first);
}

#[test]
fn counters_count() {
    let stats = crate::Stats::default();
    let now = std::time::Instant::now();
    stats.account(Kind::Read, 512, now);
    stats.account(Kind::Read, 1024, now);
    stats.account(Kind::Flush, 0, now);
    let read = stats.figures(Kind::Read);
    assert_eq!((read.operations, read.bytes), (2, 1536));
    assert_eq!(stats.figures(Kind::Flush).operations, 1);
    assert_eq!(stats.figures(Kind::Write).operations, 0);
    stats.wrote_to(4096);
    stats.wrote_to(1024);
    assert_eq!(stats.highest_offset(), 3584);
}

/// A graph that is opened, as its description says.
fn describe(spec: Spec) -> Result<crate::Description, String> {
    run(FileIo::Auto, |local| async move {
        let node = open(&local, &spec).await.map_err(|error| error.to_string())?;
        Ok(crate::Description::of(&*node))
    })
}

fn options(pairs: &[(&str, &str)]) -> Spec {
    Spec::options(pairs.iter().copied().collect())
}

#[test]
fn graphs_are_opened_by_names_and_options() {
    let image = image(4096);
    let name = name(&image);
    let told = describe(Spec::file(name, None)).unwrap();
    assert_eq!((told.driver, told.size, told.filename.as_str()), ("raw", 4096, name));
    assert!(told.has_file && told.allocated == Some(0) && told.facts.is_none());
    let told = describe(Spec::file(&format!("file:{name}"), Some("file"))).unwrap();
    assert_eq!((told.driver, told.has_file, told.filename.as_str()), ("file", false, name));
    let json = format!(
        r#"json:{{"driver": "raw", "offset": 1024, "size": "1k",
           "file": {{"driver": "file", "filename": "{name}"}}}}"#
    );
    assert_eq!(describe(Spec::file(&json, None)).unwrap().size, 1024);
    let told = describe(options(&[("driver", "null-co"), ("size", "1M")])).unwrap();
    assert_eq!((told.driver, told.size), ("null-co", 1 << 20));
    let told = describe(options(&[("file.filename", name)])).unwrap();
    assert_eq!(told.driver, "raw");
}

#[test]
fn what_is_wrong_with_a_graph_is_named() {
    let image = image(4096);
    let file = name(&image);
    for (pairs, why) in [
        (&[("driver", "foo"), ("file", file)][..], "Invalid driver: 'foo'"),
        (&[("file", "foo:bar")], "Unknown protocol"),
        (&[("file.driver", "foo"), ("file", file)], "Unknown driver 'foo'"),
        (
            &[("file.driver", "raw"), ("file", file)],
            "Can't use 'raw' as a block driver for the protocol level",
        ),
        (
            &[("file", file), ("file.filename", file)],
            "Can't specify 'file' and 'filename' options at the same time",
        ),
        (&[("driver", "raw")], "Must specify either driver or file"),
        (&[("file.driver", "file")], "The 'file' block driver requires a file name"),
        (
            &[("file", file), ("x", "1")],
            "Block format 'raw' used by device '' doesn't support the option 'x'",
        ),
        (
            &[("file", file), ("file.x", "1")],
            "Block protocol 'file' doesn't support the option 'x'",
        ),
        (&[("file", file), ("size", "1M")], "Could not open"),
        (&[("file", file), ("offset", "x")], "Parameter 'offset' expects a size"),
        (&[("file.filename", "foo:bar")], "Could not open 'foo:bar': No such file or directory"),
        (&[("file", "json:{")], "Unknown protocol"),
    ] {
        let error = describe(options(pairs)).unwrap_err();
        assert!(error.starts_with(why), "{pairs:?}: {error}");
    }
    assert!(describe(Spec::file("json:[", None)).unwrap_err().contains("JSON"));
}

#[test]
fn raw_images_are_created() {
    let image = image(1);
    let new = crate::NewImage {
        filename: name(&image).to_owned(),
        format: "raw".to_owned(),
        size: Some(5000),
        ..Default::default()
    };
    let make = |new: crate::NewImage| {
        run(FileIo::Auto, |local| async move {
            crate::create(&local, &new).await.map_err(|error| error.to_string())
        })
    };
    make(new.clone()).unwrap();
    assert_eq!(image.as_file().metadata().unwrap().len(), 5000);
    let wrong = |change: fn(&mut crate::NewImage)| {
        let mut new = new.clone();
        change(&mut new);
        make(new).unwrap_err()
    };
    assert_eq!(wrong(|new| new.format = "foo".into()), "Unknown file format 'foo'");
    assert_eq!(wrong(|new| new.filename = "foo:x".into()), "Unknown protocol 'foo:x'");
    assert_eq!(wrong(|new| new.size = None), "Image creation needs a size parameter");
    assert_eq!(
        wrong(|new| new.backing = Some("x".into())),
        "Backing file not supported for file format 'raw'"
    );
    assert_eq!(
        wrong(|new| new.options.set("compat", "1.1")),
        "Invalid options for file format 'raw'."
    );
    assert_eq!(
        wrong(|new| new.format = "qed".into()),
        "Driver 'qed' does not support image creation"
    );
    let error = wrong(|new| new.filename = "/no/such/x".into());
    assert_eq!(error, "Could not create file: No such file or directory");
}

#[test]
fn a_file_is_reopened_with_its_locks() {
    let image = image(512);
    let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
    let spec = Spec { read_only: true, ..Spec::file(name(&image), Some("raw")) };
    let path = name(&image).to_owned();
    run(FileIo::Auto, |local| async move {
        let node = open(&local, &spec).await.unwrap();
        let other = HostFile::open(&path, read_only).unwrap();
        // Somebody else reads it.
        node.reopen(false).await.unwrap_err();
        HostFile::open(&path, OpenOptions::default()).unwrap_err();
        drop(other);
        node.write(0, IoBuf::copy_of(b"x"), false).await.unwrap_err();
        node.reopen(false).await.unwrap();
        node.write(0, IoBuf::copy_of(b"written"), false).await.unwrap();
        HostFile::open(&path, read_only).unwrap_err();
        node.reopen(true).await.unwrap();
        assert!(node.info().read_only);
        HostFile::open(&path, read_only).unwrap();
        node.write(0, IoBuf::copy_of(b"x"), false).await.unwrap_err();
        assert_eq!(bytes(&*node, 0, 7).await, b"written");
    });
}

/// An image that is made, over what shows through it.
fn make(filename: &str, size: Option<u64>, backing: Option<(&str, &str)>) {
    make_with(filename, size, backing.map(|(name, format)| (name, Some(format))));
}

fn make_with(filename: &str, size: Option<u64>, backing: Option<(&str, Option<&str>)>) {
    let new = crate::NewImage {
        filename: filename.to_owned(),
        format: "qcow2".to_owned(),
        size,
        backing: backing.map(|(name, _)| name.to_owned()),
        backing_format: backing.and_then(|(_, format)| format.map(str::to_owned)),
        ..Default::default()
    };
    run(FileIo::Auto, |local| async move { crate::create(&local, &new).await.unwrap() });
}

/// A file name without its directory.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap()
}

#[test]
fn chains_are_opened_by_what_images_name() {
    let (base, middle, top) = (image(1 << 20), image(0), image(0));
    let names = [name(&base), name(&middle), name(&top)];
    make(names[1], None, Some((names[0], "raw")));
    // By a relative name, of a format that is to be found out.
    make_with(names[2], None, Some((last(names[1]), None)));
    let told = describe(Spec::file(names[2], None)).unwrap();
    assert_eq!((told.driver, told.size, told.depth()), ("qcow2", 1 << 20, 2));
    let below = told.backing.unwrap();
    assert_eq!((told.backing_file.unwrap().name, below.driver), (names[1].to_owned(), "qcow2"));
    assert_eq!(below.backing.unwrap().driver, "raw");
    let alone = describe(Spec { no_backing: true, ..Spec::file(names[2], None) }).unwrap();
    assert_eq!((alone.depth(), alone.backing_file.unwrap().name.as_str()), (0, last(names[1])));
    let with = |pairs: &[(&str, &str)]| {
        let mut spec = Spec::file(names[2], None);
        pairs.iter().for_each(|(key, value)| spec.options.set(key, value));
        describe(spec)
    };
    let other = with(&[("backing.driver", "null-co"), ("backing.size", "512")]);
    assert_eq!(other.unwrap().backing.unwrap().driver, "null-co");
    let other = with(&[("backing.file.filename", names[0]), ("backing.driver", "raw")]).unwrap();
    assert_eq!((other.depth(), other.backing.unwrap().filename.as_str()), (1, names[0]));
    assert_eq!(with(&[("backing", "")]).unwrap().depth(), 0);
    let error = with(&[("backing.x", "1")]).unwrap_err();
    assert_eq!(
        error,
        "Could not open backing file: Block format 'qcow2' used by device '' doesn't support the \
         option 'x'"
    );
    with(&[("lazy-refcounts", "on"), ("overlap-check", "all"), ("cache-size", "1M")]).unwrap();
    with(&[("l2-cache-entry-size", "4k"), ("cache-clean-interval", "1")]).unwrap();
    let error = with(&[("l2-cache-entry-size", "3k")]).unwrap_err();
    let text =
        "L2 cache entry size must be a power of two between 512 and the cluster size (65536)";
    assert!(error.contains(text), "{error}");
    assert!(with(&[("overlap-check", "some")]).unwrap_err().contains("overlap-check"));
    // One that shows itself through itself.
    make_with(names[1], Some(512), Some((names[2], None)));
    let error = describe(Spec { read_only: true, ..Spec::file(names[2], None) }).unwrap_err();
    assert!(error.contains("more than"), "{error}");
}

#[test]
fn a_snapshot_drive_keeps_its_writes_to_itself() {
    let image = image(1 << 20);
    let (_one, first) = Thread::spawn("one").unwrap();
    let (_two, second) = Thread::spawn("two").unwrap();
    let spec = Spec { snapshot: true, discard: true, ..Spec::file(name(&image), None) };
    let drive = Drive::with("d", first, spec).unwrap();
    let write = |text: &'static [u8]| {
        let done =
            drive.on_disk(move |d| async move { d.write(100, IoBuf::copy_of(text), false).await });
        done.unwrap().unwrap();
    };
    let told = drive.describe().unwrap();
    assert!(told.filename.contains("/vl."), "{}", told.filename);
    assert!(!std::path::Path::new(&told.filename).exists());
    assert_eq!((told.driver, told.size, told.depth()), ("qcow2", 1 << 20, 1));
    assert_eq!(told.backing.unwrap().filename, name(&image));
    write(b"kept");
    // What was written moves along.
    let _attachment = drive.attach(&second, Arc::new(Quiet)).unwrap();
    assert_eq!(drive.describe().unwrap().filename, told.filename);
    let read = drive.on_disk(|disk| async move { bytes(&*disk.node(), 98, 8).await }).unwrap();
    assert_eq!(read, b"\0\0kept\0\0");
    write(b"more");
    drive.remove();
    assert!(std::fs::read(name(&image)).unwrap().iter().all(|byte| *byte == 0));
}

/// An image of 1 MiB in a new file.
fn qcow2(encrypted: bool) -> TempFile {
    let image = image(0);
    let spec =
        Spec::options([("driver", "file"), ("filename", name(&image))].into_iter().collect());
    run(FileIo::Auto, |local| async move {
        let file = open(&local, &spec).await.unwrap();
        let options =
            crate::qcow2::CreateOptions { size: 1 << 20, encrypted, ..Default::default() };
        crate::qcow2::create(&*file, &options).await.unwrap();
    });
    image
}

#[test]
fn a_key_stays_with_the_medium() {
    let (_one, first) = Thread::spawn("one").unwrap();
    let (_two, second) = Thread::spawn("two").unwrap();
    let image = qcow2(true);
    let drive = Drive::with("d", first, Spec::file(name(&image), Some("qcow2"))).unwrap();
    let keyless = || drive.describe().unwrap().keyless().is_some();
    assert!(keyless());
    drive.set_key("secret").unwrap();
    assert!(!keyless());
    drive
        .on_disk(|disk| async move { disk.write(0, IoBuf::copy_of(&[7; 512]), true).await })
        .unwrap()
        .unwrap();
    let _attachment = drive.attach(&second, Arc::new(Quiet)).unwrap();
    assert!(!keyless());
    let read = drive.on_disk(|disk| async move { bytes(&*disk.node(), 0, 512).await });
    assert_eq!(read.unwrap(), [7; 512]);
    // Another medium has another key, even if it is the same file.
    drive.insert(Spec::file(name(&image), Some("qcow2"))).unwrap();
    assert!(keyless());
}

#[test]
fn zeros_are_detected_if_they_are_looked_for() {
    let (_thread, handle) = Thread::spawn("t").unwrap();
    for detect_zeroes in [None, Some(Zero::Keep), Some(Zero::MayUnmap)] {
        let image = qcow2(false);
        let spec = Spec { detect_zeroes, ..Spec::file(name(&image), Some("qcow2")) };
        let drive = Drive::with("d", handle.clone(), spec).unwrap();
        let found = drive.on_disk(|disk| async move {
            disk.write(0, IoBuf::copy_of(&[1; 65536]), true).await.unwrap();
            disk.write(0, IoBuf::zeroed(65536), true).await.unwrap();
            assert_eq!(bytes(&*disk.node(), 0, 65536).await, [0; 65536]);
            disk.map(0, 65536).await.unwrap().state
        });
        let wanted = if detect_zeroes.is_some() { State::Zero } else { State::Data };
        assert_eq!(found.unwrap(), wanted, "{detect_zeroes:?}");
    }
}

/// Below the top, too: what a format is asked to write reaches its file as zeros.
#[test]
fn zeros_are_detected_below() {
    run(FileIo::Auto, |local| async move {
        for (how, state) in [("off", State::Data), ("unmap", State::Zero)] {
            let image = image(1 << 20);
            let options = [
                ("driver", "raw"),
                ("file.driver", "file"),
                ("file.filename", name(&image)),
                ("file.detect-zeroes", how),
            ];
            let spec = Spec { discard: true, ..Spec::options(options.into_iter().collect()) };
            let node = open(&local, &spec).await.unwrap();
            node.write(0, IoBuf::copy_of(&[1; 65536]), false).await.unwrap();
            node.write(0, IoBuf::zeroed(65536), false).await.unwrap();
            assert_eq!(node.map(0, 65536).await.unwrap().state, state, "{how}");
            assert_eq!(bytes(&*node, 0, 65536).await, [0; 65536]);
            node.write(4096, IoBuf::copy_of(&[2; 512]), true).await.unwrap();
            assert_eq!(bytes(&*node, 4096, 512).await, [2; 512]);
            let spec = Spec { discard: false, ..spec };
            let mut wrong = spec.options.clone();
            wrong.set("file.detect-zeroes", "maybe");
            let error = open(&local, &Spec { options: wrong, ..spec }).await.err().unwrap();
            assert_eq!(error.0, "invalid detect-zeroes option");
        }
    });
}
