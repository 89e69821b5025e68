//! Post-copy: the guest runs at the destination before all of its memory is there.
//!
//! | piece | file |
//! |---|---|
//! | which pages are not there yet | `missing.rs` |
//! | memory that can lack pages, and who touches those | `faults.rs` |
//! | the sending side | `source/postcopy.rs` |
//! | the receiving side | `dest/postcopy.rs` |
//!
//! It begins as any migration, with passes over memory. Before the first the source asks whether
//! the destination could go on in this way (ADVISE), which answers with the blocks of memory that
//! may come late and the size of their pages (LATE), or refuses. When a client says so the guest is
//! stopped, whatever is left; the source sends what must not come late, then the section
//! [`NAME`], which says of which pages what the destination has is old, then the state of the
//! devices. The destination forgets those pages and has the kernel tell it who touches one
//! (userfaultfd). Then the guest changes hands in the four steps of [`crate::dest`].
//!
//! From that section on the destination asks for the pages that somebody waits for (REQUEST), and
//! the source sends them at once, between the steps too: devices may touch memory while they are
//! loaded. After RUNNING the source sends all others beside them, and says that it was all; the
//! destination answers that it has all (FULL).
//!
//! From GO on each side has a part of the guest: if the connection breaks then, the guest is lost.
//! Nobody makes pages up: whoever waits for one at the destination does so until its process ends.
//!
//! Each side has one thread. A destination that asks for what is not there or asks too much is
//! refused, or served no quicker; a source that sends what was not missing is not listened to.

pub mod faults;
pub mod missing;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

/// The name of the section that says what is missing.
pub const NAME: &str = "postcopy";
/// Its version.
pub const VERSION: u32 = 1;

/// Memory of up to so many bytes that cannot come late comes before the guest changes hands;
/// other memory refuses post-copy.
pub const MOST_AT_ONCE: u64 = 64 << 20;

/// What a page that comes late is.
pub(crate) mod form {
    /// All zeros: nothing follows.
    pub(crate) const ZERO: u8 = 0;
    /// Its bytes follow.
    pub(crate) const BYTES: u8 = 1;
}
