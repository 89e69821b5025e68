//! Local time as text. Any thread, no lock.
#![expect(unsafe_code, reason = "the C library knows the time zone")]

use std::mem::MaybeUninit;

/// `YYYY-MM-DD HH:MM:SS` where the tool runs, for seconds since 1970.
pub(crate) fn local_time(seconds: u32) -> String {
    let seconds = libc::time_t::from(seconds);
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both point to what they are said to; `tm` may be all zeros.
    let parts = unsafe {
        libc::localtime_r(&seconds, parts.as_mut_ptr());
        parts.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    )
}
