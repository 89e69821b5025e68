//! How an image is used: what is decided when it is opened and not written in it.
//!
//! Pure data.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::HeaderError;
use crate::node::Node;

/// Bytes of L2 tables that are kept in memory, at most, where nothing else is said.
pub const DEFAULT_L2_CACHE: u64 = 32 << 20;
/// Bytes of refcount blocks that are kept in memory, at most, where nothing else is said.
pub const DEFAULT_REFCOUNT_CACHE: u64 = 1 << 20;

/// Seconds after which what was not used leaves the caches, where nothing else is said.
pub const DEFAULT_CLEAN_INTERVAL: u64 = 600;

/// Why places in the file are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// The guest, or whoever uses the disk, said that it has no use for them.
    Request,
    /// A snapshot was removed.
    Snapshot,
    /// Anything else: they were replaced.
    Other,
    /// They were taken a moment ago and never used: nothing is told to the file.
    Unused,
}

/// Which places that become free are given back to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassDiscard {
    /// Those that a request gave up.
    pub request: bool,
    /// Those of snapshots.
    pub snapshot: bool,
    /// Others.
    pub other: bool,
}

impl Default for PassDiscard {
    fn default() -> PassDiscard {
        PassDiscard { request: false, snapshot: true, other: false }
    }
}

impl PassDiscard {
    pub(super) fn has(&self, why: Freed) -> bool {
        match why {
            Freed::Request => self.request,
            Freed::Snapshot => self.snapshot,
            Freed::Other => self.other,
            Freed::Unused => false,
        }
    }
}

/// Metadata that a write is kept away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlapCheck {
    /// The header.
    pub main_header: bool,
    /// The active L1 table.
    pub active_l1: bool,
    /// The active L2 tables.
    pub active_l2: bool,
    /// The refcount table.
    pub refcount_table: bool,
    /// The refcount blocks.
    pub refcount_block: bool,
    /// The snapshot table.
    pub snapshot_table: bool,
    /// The L1 tables of snapshots.
    pub inactive_l1: bool,
    /// The L2 tables of snapshots, which have to be read each time.
    pub inactive_l2: bool,
}

impl OverlapCheck {
    /// No check.
    pub const NONE: OverlapCheck = OverlapCheck {
        main_header: false,
        active_l1: false,
        active_l2: false,
        refcount_table: false,
        refcount_block: false,
        snapshot_table: false,
        inactive_l1: false,
        inactive_l2: false,
    };

    /// What `overlap-check` names.
    ///
    /// # Errors
    /// The text for an unknown name.
    pub fn named(name: &str) -> Result<OverlapCheck, String> {
        let constant = OverlapCheck {
            main_header: true,
            active_l1: true,
            refcount_table: true,
            snapshot_table: true,
            ..OverlapCheck::NONE
        };
        let cached =
            OverlapCheck { active_l2: true, refcount_block: true, inactive_l1: true, ..constant };
        match name {
            "none" => Ok(OverlapCheck::NONE),
            "constant" => Ok(constant),
            "cached" => Ok(cached),
            "all" => Ok(OverlapCheck { inactive_l2: true, ..cached }),
            _ => Err(format!(
                "Unsupported value '{name}' for qcow2 option 'overlap-check'. Allowed are either \
                 of the following: none, constant, cached, all"
            )),
        }
    }
}

impl Default for OverlapCheck {
    /// `cached`.
    fn default() -> OverlapCheck {
        OverlapCheck {
            active_l2: true,
            refcount_block: true,
            inactive_l1: true,
            main_header: true,
            active_l1: true,
            refcount_table: true,
            snapshot_table: true,
            inactive_l2: false,
        }
    }
}

/// A write that would have damaged the image was not done, or the image contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The name of the image's file.
    pub image: String,
    /// What happened.
    pub message: String,
    /// Where in the file, in bytes.
    pub offset: Option<u64>,
    /// How many bytes.
    pub size: Option<u64>,
    /// The image cannot be used any more.
    pub fatal: bool,
}

/// Who is told of corruption.
pub type OnCorruption = Arc<dyn Fn(&Corruption) + Send + Sync>;

/// How an image is to be used.
#[derive(Clone, Default)]
pub struct Options {
    /// Nothing will be written.
    pub read_only: bool,
    /// A name for messages about the image: that of its device.
    pub device: String,
    /// What shows where the image has nothing.
    pub backing: Option<Rc<dyn Node>>,
    /// The guest's data, for an image that has them in a file of their own.
    pub data_file: Option<Rc<dyn Node>>,
    /// Refcounts are written late; the image says if this does not.
    pub lazy_refcounts: Option<bool>,
    /// Discards are done, and zeros may give room back; otherwise both change nothing.
    pub discard: bool,
    /// What is given back to the host.
    pub pass_discard: PassDiscard,
    /// What writes are kept away from.
    pub overlap_check: OverlapCheck,
    /// Bytes of L2 tables in memory, at most.
    pub l2_cache_size: Option<u64>,
    /// Bytes of refcount blocks in memory, at most.
    pub refcount_cache_size: Option<u64>,
    /// Bytes of a table that are read and written at once: a power of two from 512 to a cluster.
    pub cache_entry_size: Option<u64>,
    /// Seconds after which what was not used leaves the caches; 0 for never.
    pub cache_clean_interval: Option<u64>,
    /// It is opened to be checked: neither repaired nor refused for being damaged.
    pub check: bool,
    /// Who is told of corruption.
    pub on_corruption: Option<OnCorruption>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

/// An image that cannot be opened. The texts are those that clients know.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its header is refused.
    #[error("{}", .error.text(.device))]
    Header {
        /// Why.
        error: HeaderError,
        /// The name that the text speaks of.
        device: String,
    },
    /// Something else.
    #[error("{text}")]
    Other {
        /// What is told.
        text: String,
        /// The error number that goes with it.
        errno: i32,
    },
}

impl OpenError {
    pub(super) fn new(text: impl Into<String>, errno: i32) -> OpenError {
        OpenError::Other { text: text.into(), errno }
    }

    pub(super) fn io(what: &str, error: &std::io::Error) -> OpenError {
        OpenError::Other {
            text: format!("{what}: {}", crate::errno_text(error)),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// The error number that goes with it.
    pub fn errno(&self) -> i32 {
        match self {
            OpenError::Header { error, .. } => error.errno(),
            OpenError::Other { errno, .. } => *errno,
        }
    }
}
