//! The header of a qcow2 image: read with every check in `parse.rs`, and written back by `write.rs`.
//!
//! Pure functions over bytes. Everything here comes from whoever made the image: each field is
//! bounded before anybody allocates by it, and offsets are aligned and cannot overflow afterwards.
//! What later versions have put into a header, and this one does not know, is kept byte for byte.

mod parse;
mod write;

use std::io;

use super::bytes::be32;

/// `QFI\xfb`.
pub const MAGIC: u32 = 0x5146_49fb;
/// Bytes of a header of version 2, and of the shortest one of version 3.
pub const V2_LENGTH: usize = 72;
/// Bytes that a header of version 3 must have.
pub const V3_MIN_LENGTH: usize = 104;
/// Bytes that a header of version 3 is written with, before those that are only kept.
pub const V3_LENGTH: usize = 112;
/// The least and the largest binary logarithm of a cluster's size.
pub const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Bytes of an L1 table, at most.
pub const MAX_L1_BYTES: u64 = 32 << 20;
/// Bytes of a refcount table, at most.
pub const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// Snapshots of an image, at most.
pub const MAX_SNAPSHOTS: u32 = 65_536;
/// Bytes of a backing file's name, at most.
pub const MAX_BACKING_NAME: usize = 1023;
/// Bytes of a backing format's name, at most.
pub const MAX_BACKING_FORMAT: usize = 15;
/// Dirty bitmaps of an image, at most.
pub const MAX_BITMAPS: u32 = 65_535;
/// Bytes of the directory of bitmaps, at most.
pub const MAX_BITMAP_DIRECTORY: u64 = 1024 * 65_535;

/// Incompatible feature: refcounts may be behind.
pub const DIRTY: u64 = 1;
/// Incompatible feature: the metadata are known to be damaged.
pub const CORRUPT: u64 = 1 << 1;
/// Incompatible feature: the guest's data are in a file of their own.
pub const EXTERNAL_DATA: u64 = 1 << 2;
/// Incompatible feature: compressed clusters are not of the first kind.
pub const COMPRESSION_TYPE: u64 = 1 << 3;
/// Incompatible feature: L2 entries of 128 bits, with 32 subclusters each.
pub const EXTENDED_L2: u64 = 1 << 4;
/// Incompatible features that are understood.
pub const KNOWN_INCOMPATIBLE: u64 =
    DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
/// Compatible feature: refcounts may be written late, with [`DIRTY`] set meanwhile.
pub const LAZY_REFCOUNTS: u64 = 1;
/// Autoclear feature: the bitmaps in the image are what they say.
pub const BITMAPS: u64 = 1;
/// Autoclear feature: the data file alone is a raw image of the disk.
pub const RAW_DATA: u64 = 1 << 1;

const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_FEATURES: u32 = 0x6803_f857;
const EXT_DATA_FILE: u32 = 0x4441_5441;
const EXT_BITMAPS: u32 = 0x2385_2875;

/// How compressed clusters are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// A raw deflate stream with a window of 4 KiB.
    #[default]
    Zlib,
    /// A zstd frame.
    Zstd,
}

/// How contents are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crypt {
    /// Not at all.
    #[default]
    None,
    /// AES-128-CBC, sector by sector.
    Aes,
}

/// Where the directory of persistent bitmaps is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitmapDirectory {
    /// How many.
    pub count: u32,
    /// Bytes.
    pub size: u64,
    /// Where, in bytes: a multiple of the cluster's size.
    pub offset: u64,
}

/// A header extension that is kept and not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// What it is.
    pub kind: u32,
    /// What it says, without padding.
    pub data: Vec<u8>,
}

/// A header, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Binary logarithm of the bytes of a cluster, in [`CLUSTER_BITS`].
    pub cluster_bits: u32,
    /// Bytes of the guest's disk.
    pub size: u64,
    /// Encryption.
    pub crypt: Crypt,
    /// Entries of the active L1 table.
    pub l1_entries: u32,
    /// Where it is, aligned to a cluster.
    pub l1_offset: u64,
    /// Where the refcount table is, aligned to a cluster.
    pub refcount_table_offset: u64,
    /// Clusters of the refcount table; none only in a damaged image.
    pub refcount_table_clusters: u32,
    /// Snapshots in the snapshot table.
    pub snapshots: u32,
    /// Where the snapshot table is, aligned to a cluster.
    pub snapshots_offset: u64,
    /// Incompatible features; none in version 2.
    pub incompatible: u64,
    /// Compatible features; none in version 2.
    pub compatible: u64,
    /// Autoclear features; none in version 2.
    pub autoclear: u64,
    /// Binary logarithm of the bits of a refcount, 0 to 6; 4 in version 2.
    pub refcount_order: u32,
    /// How compressed clusters are packed.
    pub compression: Compression,
    /// The backing file's name.
    pub backing: Option<String>,
    /// The name of a backing file that the file has, and where: that of the header that was read.
    pub named_at: Option<(u64, String)>,
    /// Its format.
    pub backing_format: Option<String>,
    /// The external data file's name, if it has one.
    pub data_file: Option<String>,
    /// Persistent bitmaps.
    pub bitmaps: Option<BitmapDirectory>,
    /// Other extensions, in their order.
    pub extensions: Vec<Extension>,
    /// Bytes of the header behind [`V3_LENGTH`].
    pub unknown: Vec<u8>,
}

/// Why a header is refused. The texts are those that clients know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is something else.
    #[error("Image is not in qcow2 format")]
    Magic,
    /// It needs what is not there.
    #[error("'' uses a qcow2 feature which is not supported by this qemu version: {0}")]
    Feature(String),
    /// The version of the format cannot be what is asked for.
    #[error("{0}")]
    Unsupported(String),
    /// A field makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is larger than can be.
    #[error("{0}")]
    TooBig(String),
    /// It does not fit into its cluster.
    #[error("No space left in the file header")]
    NoSpace,
    /// A crash while the name of the backing file is written could leave neither of the two.
    #[error(
        "No space left in the file header for the new backing file name beside the old one; make \
         the name shorter, or remove the old one first"
    )]
    NoRoomBeside,
}

impl HeaderError {
    fn invalid(text: impl Into<String>) -> HeaderError {
        HeaderError::Invalid(text.into())
    }

    /// The text for an image that a device of this name has.
    pub fn text(&self, device: &str) -> String {
        match self {
            HeaderError::Feature(detail) => format!(
                "'{device}' uses a qcow2 feature which is not supported by this qemu version: \
                 {detail}"
            ),
            other => other.to_string(),
        }
    }

    /// The error number that goes with it.
    pub fn errno(&self) -> i32 {
        match self {
            HeaderError::Magic | HeaderError::Invalid(_) => libc::EINVAL,
            HeaderError::Feature(_) | HeaderError::Unsupported(_) => libc::ENOTSUP,
            HeaderError::TooBig(_) => libc::EFBIG,
            HeaderError::NoSpace | HeaderError::NoRoomBeside => libc::ENOSPC,
        }
    }
}

impl From<HeaderError> for io::Error {
    fn from(error: HeaderError) -> io::Error {
        match error {
            HeaderError::NoSpace => io::Error::from_raw_os_error(libc::ENOSPC),
            HeaderError::NoRoomBeside => io::Error::new(io::ErrorKind::StorageFull, error),
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

impl Default for Header {
    /// An empty disk of version 3 with clusters of 64 KiB and tables nowhere.
    fn default() -> Header {
        Header {
            version: 3,
            cluster_bits: 16,
            size: 0,
            crypt: Crypt::None,
            l1_entries: 0,
            l1_offset: 0,
            refcount_table_offset: 0,
            refcount_table_clusters: 0,
            snapshots: 0,
            snapshots_offset: 0,
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            refcount_order: 4,
            compression: Compression::Zlib,
            backing: None,
            named_at: None,
            backing_format: None,
            data_file: None,
            bitmaps: None,
            extensions: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

impl Header {
    /// How many bytes from the beginning of the file [`parse`](Self::parse) wants to see: the first
    /// cluster, as far as these first bytes (at least 24) tell.
    pub fn wanted(start: &[u8]) -> usize {
        let bits = if be32(start, 0) == MAGIC { be32(start, 20) } else { 0 };
        1 << bits.clamp(*CLUSTER_BITS.start(), *CLUSTER_BITS.end())
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Whether an offset is the beginning of a cluster.
    pub fn is_aligned(&self, offset: u64) -> bool {
        offset & (self.cluster_size() - 1) == 0
    }

    /// Entries of the L2 tables have 16 bytes, and clusters have subclusters.
    pub fn extended_l2(&self) -> bool {
        self.incompatible & EXTENDED_L2 != 0
    }

    /// The guest's data are in a file of their own.
    pub fn external_data(&self) -> bool {
        self.incompatible & EXTERNAL_DATA != 0
    }

    /// Binary logarithm of the bytes of an L2 entry.
    pub fn l2_entry_bits(&self) -> u32 {
        if self.extended_l2() { 4 } else { 3 }
    }

    /// Binary logarithm of the entries of an L2 table.
    pub fn l2_bits(&self) -> u32 {
        self.cluster_bits - self.l2_entry_bits()
    }

    /// Bytes of a subcluster; a cluster where there are none.
    pub fn subcluster_size(&self) -> u64 {
        if self.extended_l2() { self.cluster_size() / 32 } else { self.cluster_size() }
    }

    /// Entries that an L1 table needs for a disk of so many bytes.
    pub fn l1_entries_for(&self, size: u64) -> u64 {
        let bits = self.cluster_bits + self.l2_bits();
        (size >> bits) + u64::from(size & ((1 << bits) - 1) != 0)
    }

    /// Bits of a refcount, 1 to 64.
    pub fn refcount_bits(&self) -> u32 {
        1 << self.refcount_order
    }

    /// Binary logarithm of the refcounts in a refcount block.
    pub fn refcounts_per_block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }
}

#[cfg(test)]
#[path = "../tests/header.rs"]
mod tests;
