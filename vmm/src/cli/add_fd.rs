//! Descriptors that this process inherited: by `-add-fd` put into sets at the start, or taken over
//! by their numbers.
//!
//! Main thread, before anything else is opened. All that this program opens is closed on exec, so
//! a descriptor that is not was inherited: the numbers on the command line reach no other.
#![expect(unsafe_code, reason = "inherited descriptors are known by number only")]

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use resources::fdset::FdSets;
use resources::value::parse_signed;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

use super::keyval::Pairs;

/// Puts a duplicate of each descriptor into its set, then closes the inherited ones.
///
/// # Errors
/// QEMU's words for what is wrong with one; then some may be in their sets already.
pub fn take(options: &[Pairs], sets: &FdSets) -> Result<(), String> {
    let mut inherited = BTreeSet::new();
    for pairs in options {
        let fd = number(pairs, "fd")?.ok_or("fd option is required and must be non-negative")?;
        if fd <= 2 {
            return Err("fd cannot be a standard I/O stream".to_owned());
        }
        let fd = RawFd::try_from(fd).unwrap_or(RawFd::MAX);
        // SAFETY: nothing but this thread opens or closes descriptors yet; if there is none of
        // this number, the first use of it says so.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if !fcntl_getfd(borrowed).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            return Err("fd is not valid or already in use".to_owned());
        }
        let set = number(pairs, "set")?.ok_or("set option is required and must be non-negative")?;
        let own = fcntl_dupfd_cloexec(borrowed, 3)
            .map_err(|error| format!("Error duplicating fd: {error}"))?;
        sets.add(Some(set), own, pairs.get("opaque").map(str::to_owned));
        inherited.insert(fd);
    }
    for fd in inherited {
        // SAFETY: it is open, as checked above, and not closed on exec, so that no part of this
        // program owns it; each number comes once.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(())
}

/// Takes over an inherited descriptor by its number, above those of standard input and output.
pub fn inherit(number: &str) -> Option<OwnedFd> {
    let fd = parse_signed("fd", number).ok().and_then(|fd| RawFd::try_from(fd).ok());
    let fd = fd.filter(|fd| *fd > 2)?;
    // SAFETY: if there is none of this number, the first use of it says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(borrowed).ok().filter(|flags| !flags.contains(FdFlags::CLOEXEC))?;
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open and was not closed on exec, so that no part of this program owned it; now
    // that it is, it is not taken over again.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A number that is not negative; `None` also if it is.
fn number(pairs: &Pairs, key: &str) -> Result<Option<i64>, String> {
    let Some(text) = pairs.get(key) else { return Ok(None) };
    let number = parse_signed(key, text).map_err(|error| error.to_string())?;
    Ok(Some(number).filter(|number| *number >= 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::{AsRawFd, IntoRawFd};

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        let mut pairs = Pairs::default();
        list.iter().for_each(|(key, value)| pairs.push(*key, *value));
        pairs
    }

    #[test]
    fn an_inherited_descriptor_is_taken_over_once() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let ours = OwnedFd::from(reader);
        assert!(inherit(&ours.as_raw_fd().to_string()).is_none());
        let inherited = rustix::io::dup(&ours).unwrap().into_raw_fd();
        let taken = inherit(&inherited.to_string()).unwrap();
        assert_eq!(taken.as_raw_fd(), inherited);
        for number in [&inherited.to_string(), "0", "2", "-1", "99999", "3x", ""] {
            assert!(inherit(number).is_none(), "{number}");
        }
    }

    #[test]
    fn texts_are_exact() {
        let ours = std::fs::File::open("/dev/null").unwrap();
        let number = ours.as_raw_fd().to_string();
        let dup = rustix::io::dup(&ours).unwrap().into_raw_fd();
        let inherited = dup.to_string();
        for (list, text) in [
            (vec![("set", "1")], "fd option is required and must be non-negative"),
            (vec![("fd", "-1"), ("set", "1")], "fd option is required and must be non-negative"),
            (vec![("fd", "x")], "Parameter 'fd' expects a number"),
            (vec![("fd", "2"), ("set", "1")], "fd cannot be a standard I/O stream"),
            (vec![("fd", "99999"), ("set", "1")], "fd is not valid or already in use"),
            (vec![("fd", "99999999999")], "fd is not valid or already in use"),
            (vec![("fd", &number), ("set", "1")], "fd is not valid or already in use"),
            (vec![("fd", &inherited)], "set option is required and must be non-negative"),
            (
                vec![("fd", &inherited), ("set", "-1")],
                "set option is required and must be non-negative",
            ),
        ] {
            let sets = FdSets::new();
            assert_eq!(take(&[pairs(&list)], &sets).unwrap_err(), text, "{list:?}");
            assert_eq!(sets.list(), []);
        }
        // SAFETY: made above, and of nobody.
        drop(unsafe { OwnedFd::from_raw_fd(dup) });
    }

    #[test]
    fn descriptors_move_into_their_sets() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // Inherited ones are not closed on exec.
        let fd = rustix::io::dup(&writer).unwrap().into_raw_fd().to_string();
        drop(writer);
        let sets = FdSets::new();
        let first = pairs(&[("fd", &fd), ("set", "2"), ("opaque", "log")]);
        let second = pairs(&[("fd", &fd), ("set", "7")]);
        take(&[first, second], &sets).unwrap();
        let listed: Vec<_> = (sets.list().into_iter())
            .map(|set| (set.id, set.fds[0].1.clone(), set.fds.len()))
            .collect();
        assert_eq!(listed, [(7, None, 1), (2, Some("log".into()), 1)]);
        let file = sets.open("/dev/fdset/2", OFlags::WRONLY, Mode::empty()).unwrap();
        rustix::io::write(&file, b"x").unwrap();
        // The one that was inherited is closed, and with the sets the rest.
        drop((file, sets));
        let mut buf = [0; 2];
        assert_eq!(rustix::io::read(&reader, &mut buf).unwrap(), 1);
        assert_eq!(rustix::io::read(&reader, &mut buf).unwrap(), 0);
    }
}
