use super::*;
use rustix::fs::MemfdFlags;
use std::os::unix::fs::FileExt;

const RDWR: OFlags = OFlags::RDWR;
const RDONLY: OFlags = OFlags::RDONLY;

fn memfd(text: &str) -> OwnedFd {
    let file = fs::File::from(rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(text.as_bytes(), 0).unwrap();
    file.into()
}

fn dev_null() -> OwnedFd {
    rustix::fs::open("/dev/null", RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn open_in(sets: &FdSets, path: &str, flags: OFlags) -> Result<File, Option<i32>> {
    sets.open(path, flags, Mode::empty()).map_err(|error| error.raw_os_error())
}

fn content(file: &File) -> String {
    let mut text = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut text, 0).unwrap();
    String::from_utf8(text).unwrap()
}

/// The sets' numbers, and whether each descriptor is still open in the process.
fn ids(sets: &FdSets) -> Vec<(i64, usize)> {
    sets.list().iter().map(|set| (set.id, set.fds.len())).collect()
}

#[test]
fn a_plain_name_opens_a_plain_file() {
    let file = open("/dev/null", RDONLY, Mode::empty()).unwrap();
    assert!(!file.is_of_set());
    let flags = rustix::io::fcntl_getfd(&file).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(open("/nonexistent", RDONLY, Mode::empty()).unwrap_err().raw_os_error(), Some(2));
}

#[test]
fn the_latest_descriptor_of_the_access_mode_is_opened() {
    let sets = FdSets::new();
    assert_eq!(sets.add(None, memfd("old"), None).0, 0);
    sets.add(Some(0), memfd("new"), Some("note".into()));
    assert_eq!(open_in(&sets, "/dev/fdset/0", RDONLY).unwrap_err(), Some(libc::EACCES));
    sets.add(Some(0), dev_null(), None);
    assert_eq!(content(&open_in(&sets, "/dev/fdset/0", RDWR).unwrap()), "new");
    assert!(open_in(&sets, "/dev/fdset/0", RDONLY).is_ok());
    assert_eq!(open_in(&sets, "/dev/fdset/1", RDWR).unwrap_err(), Some(libc::ENOENT));
    for name in ["/dev/fdset/", "/dev/fdset/x", "/dev/fdset/-1", "/dev/fdset/0/", "/dev/fdset/1x"] {
        assert_eq!(open_in(&sets, name, RDWR).unwrap_err(), Some(libc::EINVAL), "{name}");
    }
    let notes: Vec<_> = sets.list()[0].fds.iter().map(|(_, note)| note.clone()).collect();
    assert_eq!(notes, [None, Some("note".into()), None]);
}

#[test]
fn status_flags_become_those_asked_for() {
    let sets = FdSets::new();
    sets.add(Some(3), memfd("12345"), None);
    let flags = |file: &File| fcntl_getfl(file).unwrap() & CHANGEABLE;
    let file = open_in(&sets, "/dev/fdset/3", RDWR | OFlags::APPEND).unwrap();
    assert_eq!(flags(&file), OFlags::APPEND);
    let second = open_in(&sets, "/dev/fdset/3", RDWR | OFlags::NONBLOCK).unwrap();
    assert_eq!(flags(&second), OFlags::NONBLOCK);
    assert_eq!(content(&second), "12345");
    let sync = RDWR | OFlags::SYNC;
    assert_eq!(open_in(&sets, "/dev/fdset/3", sync).unwrap_err(), Some(libc::EINVAL));
    assert_eq!(content(&open_in(&sets, "/dev/fdset/3", RDWR | OFlags::TRUNC).unwrap()), "");
    drop((file, second));
    // The one that failed is not counted as open.
    sets.set_running(true);
    sets.remove(3, None);
    assert_eq!(ids(&sets), []);
}

#[test]
fn free_numbers_are_found() {
    let sets = FdSets::new();
    for id in [0, 1, 4] {
        sets.add(Some(id), dev_null(), None);
    }
    let added: Vec<_> = (0..4).map(|_| sets.add(None, dev_null(), None).0).collect();
    assert_eq!(added, [2, 3, 5, 6]);
    let listed: Vec<_> = sets.list().iter().map(|set| set.id).collect();
    assert_eq!(listed, [6, 5, 4, 3, 2, 1, 0]);
    sets.add(Some(i64::MAX), dev_null(), None);
    assert_eq!(sets.add(None, dev_null(), None).0, 7);
}

#[test]
fn what_is_removed_is_closed_while_the_guest_runs() {
    let sets = FdSets::new();
    sets.client_came();
    let (id, first) = sets.add(None, dev_null(), None);
    let (_, second) = sets.add(Some(id), dev_null(), None);
    assert!(!sets.remove(1, None));
    assert!(!sets.remove(id, Some(-1)));
    assert!(sets.remove(id, Some(first.into())));
    assert_eq!(ids(&sets), [(0, 2)]);
    sets.set_running(true);
    assert_eq!(ids(&sets), [(0, 2)]);
    assert!(sets.remove(id, Some(second.into())));
    assert_eq!(ids(&sets), []);
}

#[test]
fn a_set_lives_as_long_as_a_file_of_it() {
    let sets = FdSets::new();
    sets.set_running(true);
    sets.client_came();
    sets.add(Some(1), memfd("a"), None);
    let file = open_in(&sets, "/dev/fdset/1", RDWR).unwrap();
    assert!(sets.remove(1, None));
    assert_eq!(ids(&sets), [(1, 0)]);
    assert_eq!(open_in(&sets, "/dev/fdset/1", RDWR).unwrap_err(), Some(libc::EACCES));
    assert_eq!(content(&file), "a");
    let (fd, lease) = file.into_parts();
    drop(fd);
    assert_eq!(ids(&sets), [(1, 0)]);
    drop(lease);
    assert_eq!(ids(&sets), []);
}

#[test]
fn the_last_client_leaves_nothing_that_is_not_in_use() {
    let sets = FdSets::new();
    sets.set_running(true);
    sets.client_came();
    sets.client_came();
    sets.add(Some(1), memfd("a"), None);
    sets.add(Some(2), memfd("b"), None);
    let file = open_in(&sets, "/dev/fdset/2", RDWR).unwrap();
    sets.client_left();
    assert_eq!(ids(&sets), [(2, 1), (1, 1)]);
    sets.client_left();
    assert_eq!(ids(&sets), [(2, 1)]);
    drop(file);
    assert_eq!(ids(&sets), []);
}
