//! Drives that devices and programs share.

use std::sync::atomic::{AtomicUsize, Ordering};

use resources::iol::{IoBuf, Thread};
use vmm_sys_util::tempfile::TempFile;

use super::*;
use crate::Spec;
use crate::create::{NewImage, create};

#[derive(Default)]
struct Counting(AtomicUsize);

impl Model for Counting {
    fn resized(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn quiet() -> Arc<Counting> {
    Arc::default()
}

fn image() -> TempFile {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(1 << 16).unwrap();
    file
}

fn open(id: &str, file: &TempFile, on: &Handle) -> Result<Arc<Drive>, OpenError> {
    Drive::with(id, on.clone(), Spec::file(file.as_path().to_str().unwrap(), Some("raw")))
}

/// What an attachment is refused with.
fn refused(attached: Result<Attachment, AttachError>) -> String {
    attached.err().map(|error| error.to_string()).unwrap_or_default()
}

fn write(drive: &Drive, text: &'static [u8]) {
    let done =
        drive.on_disk(move |disk| async move { disk.write(0, IoBuf::copy_of(text), false).await });
    done.unwrap().unwrap();
}

fn read(drive: &Drive) -> Vec<u8> {
    let done = drive.on_disk(|disk| async move {
        let buf = IoBuf::zeroed(4);
        disk.read(0, buf.clone()).await.map(|()| buf.to_vec())
    });
    done.unwrap().unwrap()
}

/// Each drive has a file of its own, as if it were in a process of its own.
#[test]
fn programs_write_one_image_if_all_share_it() {
    let (_thread, on) = Thread::spawn("test").unwrap();
    let (_other, elsewhere) = Thread::spawn("other").unwrap();
    let file = image();
    let (one, two) = (open("one", &file, &on).unwrap(), open("two", &file, &on).unwrap());
    let lock = "lock: is another process using the image?";
    // For itself: the other one writes, so that it cannot; nothing is left behind.
    let error = refused(one.attach(&on, quiet()));
    assert!(error.contains("Failed to get shared \"write\"") && error.contains(lock), "{error}");
    assert!(!one.is_attached());
    let first = one.attach_as(&on, quiet(), true).unwrap();
    // It shares on its new loop, too.
    let second = two.attach_as(&elsewhere, quiet(), true).unwrap();
    write(&one, b"here");
    assert_eq!(read(&two), b"here");
    write(&two, b"gone");
    assert_eq!(read(&one), b"gone");
    // A medium that is put in anew is shared as well.
    one.insert((*one.spec().unwrap()).clone()).unwrap();
    assert_eq!(read(&one), b"gone");
    drop((first, second));
    drop(two.attach_as(&on, quiet(), true).unwrap());
    one.remove();
    let _alone = two.attach(&on, quiet()).unwrap();
    let error = open("one", &file, &on).err().unwrap().to_string();
    assert!(error.contains("Failed to get \"write\"") && error.contains(lock), "{error}");
}

#[test]
fn an_image_with_tables_has_one_writer() {
    let (_thread, on) = Thread::spawn("test").unwrap();
    let file = TempFile::new().unwrap();
    let name = file.as_path().to_str().unwrap().to_owned();
    let new = NewImage {
        filename: name.clone(),
        format: "qcow2".to_owned(),
        size: Some(1 << 20),
        ..NewImage::default()
    };
    on.call_async(|local| async move { create(&local, &new).await }).unwrap().unwrap();
    let spec = Spec::file(&name, Some("qcow2"));
    let drive = Drive::with("one", on.clone(), spec.clone()).unwrap();
    let again = |on: &Handle| Drive::with("two", on.clone(), spec.clone()).err().unwrap().0;
    assert!(again(&on).contains("lock: is another process"), "without a device");
    let _one = drive.attach_as(&on, quiet(), true).unwrap();
    assert!(again(&on).contains("lock: is another process"), "with one that would share it");
    // In one process devices can share it.
    let _two = drive.attach_as(&on, quiet(), true).unwrap();
}

#[test]
fn a_drive_that_cannot_move_is_empty() {
    let (_thread, on) = Thread::spawn("test").unwrap();
    let (_other, elsewhere) = Thread::spawn("other").unwrap();
    let file = TempFile::new().unwrap();
    let name = file.as_path().to_str().unwrap().to_owned();
    let new = NewImage {
        filename: name.clone(),
        format: "qcow2".to_owned(),
        size: Some(1 << 20),
        ..NewImage::default()
    };
    on.call_async(|local| async move { create(&local, &new).await }).unwrap().unwrap();
    let drive = Drive::with("d", on, Spec::file(&name, Some("qcow2"))).unwrap();
    let emptied = Arc::new(AtomicUsize::new(0));
    let told = emptied.clone();
    drive.when_emptied(move || told.store(1, Ordering::SeqCst));
    // It is no image any more.
    std::fs::write(&name, [0; 512]).unwrap();
    let error = refused(drive.attach(&elsewhere, quiet()));
    assert!(error.contains("cannot move the disk"), "{error}");
    assert!(!drive.has_medium() && !drive.is_attached());
    assert_eq!((drive.size(), emptied.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn devices_share_a_drive_on_one_loop() {
    let (_thread, on) = Thread::spawn("test").unwrap();
    let (_other, elsewhere) = Thread::spawn("other").unwrap();
    let file = image();
    let drive = open("d", &file, &on).unwrap();
    let busy = "Drive 'd' is in use by another device";
    let alone = drive.attach(&on, quiet()).unwrap();
    assert_eq!(refused(drive.attach_as(&on, quiet(), true)), busy);
    assert!(!drive.is_shared());
    drop(alone);
    let models = [quiet(), quiet()];
    let one = drive.attach_as(&on, models[0].clone(), true).unwrap();
    assert!(drive.is_shared());
    assert_eq!(refused(drive.attach(&on, quiet())), busy);
    let error = refused(drive.attach_as(&elsewhere, quiet(), true));
    assert_eq!(error, "Drive 'd' is shared by devices of another I/O thread");
    let two = drive.attach_as(&on, models[1].clone(), true).unwrap();
    drive.resize(1 << 17).unwrap();
    assert_eq!(models.each_ref().map(|model| model.0.load(Ordering::SeqCst)), [1, 1]);
    // What one of them relies on, the other one does not undo.
    drive.set_write_cache(false);
    drive.set_write_cache(true);
    assert!(!drive.write_cache());
    drop(one);
    drive.set_write_cache(true);
    assert!(drive.write_cache() && drive.is_attached());
    drop(two);
    assert!(!drive.is_attached() && !drive.is_shared());
}
