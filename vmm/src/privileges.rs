//! Giving up what the process no longer needs: `-chroot` and `-runas`.
//!
//! Main thread. The user is looked up before anything is made, so that a wrong name is told at
//! once; the rest comes last, when every file is open and the guest has not run. The C library
//! makes a change of user one of all threads, where the kernel knows threads only.
#![expect(unsafe_code, reason = "users and groups of all threads are the C library's matter")]

use std::ffi::{CString, c_char};
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Config;

/// What is to be given up.
#[derive(Debug, Default)]
pub struct Privileges {
    root: Option<PathBuf>,
    user: Option<User>,
}

/// Whom to become.
#[derive(Debug, PartialEq, Eq)]
struct User {
    /// By which its groups are found; without one it has none but its own.
    name: Option<CString>,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

impl Privileges {
    /// Looks up the user.
    ///
    /// # Errors
    /// `User "NAME" doesn't exist`.
    pub fn find(config: &Config) -> Result<Privileges, String> {
        let user = match &config.run_as {
            Some(text) => {
                Some(User::find(text).ok_or_else(|| format!("User \"{text}\" doesn't exist"))?)
            }
            None => None,
        };
        Ok(Privileges { root: config.chroot.clone(), user })
    }

    /// Gives it up, for all threads and for good.
    ///
    /// # Errors
    /// What the kernel refuses; the process must not go on then.
    pub fn give_up(self) -> io::Result<()> {
        if let Some(root) = &self.root {
            change_root(root).map_err(|error| named("chroot failed", &error))?;
        }
        match &self.user {
            Some(user) => user.become_it(),
            None => Ok(()),
        }
    }
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

fn change_root(root: &Path) -> io::Result<()> {
    rustix::process::chroot(root)?;
    Ok(rustix::process::chdir("/")?)
}

impl User {
    /// A name, or `UID:GID` in numbers.
    fn find(text: &str) -> Option<User> {
        if let Some((uid, gid)) = text.split_once(':') {
            return Some(User { name: None, uid: uid.parse().ok()?, gid: gid.parse().ok()? });
        }
        let name = CString::new(text).ok()?;
        let mut buffer = vec![0 as c_char; 64 << 10];
        // SAFETY: the struct is plain old data, for which zeros are a value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and the buffer has the length given.
        let status = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        if status != 0 || found.is_null() {
            return None;
        }
        Some(User { name: Some(name), uid: entry.pw_uid, gid: entry.pw_gid })
    }

    fn become_it(&self) -> io::Result<()> {
        let failed = |what: &str| named(what, &io::Error::last_os_error());
        // SAFETY: takes a number.
        if unsafe { libc::setgid(self.gid) } != 0 {
            return Err(failed(&format!("Failed to setgid({})", self.gid)));
        }
        let groups = match &self.name {
            // SAFETY: the name is a string that ends with a zero.
            Some(name) => unsafe { libc::initgroups(name.as_ptr(), self.gid) },
            // SAFETY: one group is read from where the pointer points.
            None => unsafe { libc::setgroups(1, &self.gid) },
        };
        if groups != 0 {
            return Err(failed("Failed to set the groups"));
        }
        // SAFETY: takes a number.
        if unsafe { libc::setuid(self.uid) } != 0 {
            return Err(failed(&format!("Failed to setuid({})", self.uid)));
        }
        // SAFETY: takes a number.
        if self.uid != 0 && unsafe { libc::setuid(0) } == 0 {
            return Err(io::Error::other("Dropping privileges failed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_or_numbers() {
        let root = User::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(User::find("12:34"), Some(User { name: None, uid: 12, gid: 34 }));
        for wrong in ["no such user", "12:", ":34", "x:y", "-1:0", "a\0b", "", "12:34:56"] {
            assert_eq!(User::find(wrong), None, "{wrong}");
        }
        let config = Config { run_as: Some("nobody in here".into()), ..Config::default() };
        assert_eq!(Privileges::find(&config).unwrap_err(), "User \"nobody in here\" doesn't exist");
    }
}
