//! What the kernel knows of a running process: the CPU time it used and the memory it holds.
#![expect(unsafe_code)] // The CPU clock of another process has no safe wrapper here.

use std::fs;
use std::mem::MaybeUninit;
use std::time::Duration;

use super::sample::MEMORY_MIB;
use crate::rig::Result;

/// The CPU time, user and system, that all threads of a process used so far, also those that are
/// gone: its CPU-time clock, which counts nanoseconds from its fork on.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let pid = i32::try_from(pid)?;
    let mut clock = MaybeUninit::uninit();
    // SAFETY: the kernel is asked for a clock's number, which goes where the pointer leads.
    let error = unsafe { libc::clock_getcpuclockid(pid, clock.as_mut_ptr()) };
    if error != 0 {
        return Err(std::io::Error::from_raw_os_error(error).into());
    }
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: a successful call above wrote the clock's number.
    let clock = unsafe { clock.assume_init() };
    // SAFETY: the kernel writes a time where the pointer leads.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the call succeeded and wrote it.
    let time = unsafe { time.assume_init() };
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

/// The CPU time, user and system, of all child processes that have ended and were waited for.
pub(super) fn children_time() -> Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes the figures where the pointer leads.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the call succeeded and wrote them.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| -> Result<Duration> {
        let (seconds, micros) = (u64::try_from(time.tv_sec)?, u64::try_from(time.tv_usec)?);
        Ok(Duration::from_secs(seconds) + Duration::from_micros(micros))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}

/// Memory of a process beyond the RAM of its guest, in KiB.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Memory {
    /// All resident pages: private ones, and pages of files that others may share.
    pub(super) resident: u64,
    /// Pages only this process has.
    pub(super) private: u64,
}

/// Reads `/proc/PID/smaps`.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    parse(&fs::read_to_string(format!("/proc/{pid}/smaps"))?)
}

/// The same of a guest whose RAM may be in several mappings.
pub(super) fn beyond_ram(pid: u32) -> Result<Memory> {
    Ok(add_up(&fs::read_to_string(format!("/proc/{pid}/smaps"))?).0)
}

/// The most memory, the guest's RAM included, that a process has ever held, in KiB.
pub(super) fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("a process without memory")?.parse()?)
}

/// Adds up all mappings but the guest's RAM: the one mapping that is at least as large as that.
fn parse(smaps: &str) -> Result<Memory> {
    match add_up(smaps) {
        (memory, 1) => Ok(memory),
        (_, count) => Err(format!("{count} mappings are as large as the guest's RAM").into()),
    }
}

/// Adds up all mappings that are smaller than RAM of guests, and counts those that are not.
fn add_up(smaps: &str) -> (Memory, usize) {
    let mut total = Memory::default();
    let mut found = 0;
    let mut is_ram = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Ok(kib) = value.parse::<u64>() else { continue };
        match name {
            "Size:" => {
                is_ram = kib >= MEMORY_MIB << 10;
                found += usize::from(is_ram);
            }
            "Rss:" if !is_ram => total.resident += kib,
            "Private_Clean:" | "Private_Dirty:" if !is_ram => total.private += kib,
            _ => {}
        }
    }
    (total, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ram_is_not_counted() {
        let text = "55ed30000000-55ed30008000 r-xp 00000000 fe:00 12345  /usr/bin/vmm\n\
                    Size:                 32 kB\nRss:                  24 kB\n\
                    Shared_Clean:         20 kB\nPrivate_Clean:         4 kB\n\
                    7f0000000000-7f0020000000 rw-p 00000000 00:00 0\n\
                    Size:             524288 kB\nRss:              100000 kB\n\
                    Private_Dirty:    100000 kB\n\
                    7ffd00000000-7ffd00002000 rw-p 00000000 00:00 0  [stack]\n\
                    Size:                  8 kB\nRss:                   8 kB\n\
                    Private_Dirty:         8 kB\nVmFlags: rd wr\n";
        assert_eq!(parse(text).unwrap(), Memory { resident: 32, private: 12 });
        assert!(parse(&text.replace("524288", "1024")).is_err());
        assert!(parse(&format!("{text}{text}")).is_err());
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let mut after = before;
        while after == before {
            after = cpu_time(pid).unwrap();
        }
        assert!(after > before);
    }
}
