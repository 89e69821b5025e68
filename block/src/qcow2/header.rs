//! The header of a qcow2 image: read with every check, and written back.
//!
//! Pure functions over bytes. Everything here comes from whoever made the image: each field is
//! bounded before anybody allocates by it, and offsets are aligned and cannot overflow afterwards.
//! What later versions have put into a header, and this one does not know, is kept byte for byte.

use std::io;

use super::bytes::{be32, be64, get, put};
use super::names::{FEATURE_RECORD, feature_name, feature_table};

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
            HeaderError::NoSpace => libc::ENOSPC,
        }
    }
}

impl From<HeaderError> for io::Error {
    fn from(error: HeaderError) -> io::Error {
        match error {
            HeaderError::NoSpace => io::Error::from_raw_os_error(libc::ENOSPC),
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

    /// Reads the header of an image from its first cluster, or from the whole file if that is
    /// shorter.
    ///
    /// A refcount table of no clusters passes, as does the corrupt bit: opening decides.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn parse(data: &[u8]) -> Result<Header, HeaderError> {
        if data.len() < V2_LENGTH || be32(data, 0) != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = be32(data, 4);
        if !(2..=3).contains(&version) {
            return Err(HeaderError::Feature(format!("QCOW version {version}")));
        }
        let mut header = Header {
            version,
            cluster_bits: be32(data, 20),
            size: be64(data, 24),
            l1_entries: be32(data, 36),
            l1_offset: be64(data, 40),
            refcount_table_offset: be64(data, 48),
            refcount_table_clusters: be32(data, 56),
            snapshots: be32(data, 60),
            snapshots_offset: be64(data, 64),
            ..Header::default()
        };
        let backing = (be64(data, 8), be32(data, 16) as usize);
        let length = header.parse_version_3(data)?;
        let unknown = header.incompatible & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            // The image's own table of names, if what stands before it is in order.
            let _ = header.parse_extensions(data, length, backing.0);
            let table = header.extensions.iter().find(|other| other.kind == EXT_FEATURES);
            let table = table.map(|table| &*table.data);
            return Err(HeaderError::Feature(unknown_features(table, unknown)));
        }
        if header.refcount_order > 6 {
            return Err(HeaderError::invalid(
                "Reference count entry width too large; may not exceed 64 bits",
            ));
        }
        if !CLUSTER_BITS.contains(&header.cluster_bits) {
            let text = format!("Unsupported cluster size: 2^{}", header.cluster_bits.cast_signed());
            return Err(HeaderError::Invalid(text));
        }
        if length as u64 > header.cluster_size() {
            return Err(HeaderError::invalid("qcow2 header exceeds cluster size"));
        }
        header.check_compression(data, length)?;
        if header.extended_l2() && header.subcluster_size() < 512 {
            let text = format!("Unsupported subcluster size: {}", header.subcluster_size());
            return Err(HeaderError::Invalid(text));
        }
        header.crypt = match be32(data, 32) {
            0 => Crypt::None,
            1 => Crypt::Aes,
            other => {
                let text = format!("Unsupported encryption method: {}", other.cast_signed());
                return Err(HeaderError::Invalid(text));
            }
        };
        header.check_tables()?;
        header.parse_extensions(data, length, backing.0)?;
        header.extensions.retain(|extension| extension.kind != EXT_FEATURES);
        header.parse_backing(data, backing)?;
        Ok(header)
    }

    /// The fields of version 3; the length of the header.
    fn parse_version_3(&mut self, data: &[u8]) -> Result<usize, HeaderError> {
        if self.version < 3 {
            return Ok(V2_LENGTH);
        }
        if data.len() < V3_MIN_LENGTH {
            return Err(HeaderError::invalid("qcow2 header too short"));
        }
        self.incompatible = be64(data, 72);
        self.compatible = be64(data, 80);
        self.autoclear = be64(data, 88);
        self.refcount_order = be32(data, 96);
        let length = be32(data, 100) as usize;
        if length < V3_MIN_LENGTH {
            return Err(HeaderError::invalid("qcow2 header too short"));
        }
        if length > 1 << CLUSTER_BITS.end() {
            return Err(HeaderError::invalid("qcow2 header exceeds cluster size"));
        }
        if length > V3_LENGTH {
            let unknown = get(data, V3_LENGTH, length - V3_LENGTH).ok_or_else(|| {
                HeaderError::invalid("Could not read unknown qcow2 header fields: Invalid argument")
            })?;
            self.unknown = unknown.to_vec();
        }
        Ok(length)
    }

    fn parse_extensions(
        &mut self,
        data: &[u8],
        mut at: usize,
        backing: u64,
    ) -> Result<(), HeaderError> {
        // They end where the name of the backing file begins, or with the cluster.
        let cluster = 1usize << self.cluster_bits.clamp(*CLUSTER_BITS.start(), *CLUSTER_BITS.end());
        let mut end = data.len().min(cluster);
        if backing != 0 {
            end = end.min(usize::try_from(backing).unwrap_or(end));
        }
        while at + 8 <= end {
            let (kind, len) = (be32(data, at), be32(data, at + 4) as usize);
            if kind == EXT_END {
                break;
            }
            at += 8;
            let body = get(data, at, len)
                .filter(|_| at + len <= end)
                .ok_or_else(|| HeaderError::invalid("Header extension too large"))?;
            match kind {
                EXT_BACKING_FORMAT if len > MAX_BACKING_FORMAT => {
                    return Err(HeaderError::Invalid(format!(
                        "ERROR: ext_backing_format: len={len} too large (>={})",
                        MAX_BACKING_FORMAT + 1
                    )));
                }
                EXT_BACKING_FORMAT => self.backing_format = Some(text(body, "backing format")?),
                EXT_DATA_FILE if !self.external_data() => {}
                EXT_DATA_FILE => self.data_file = Some(text(body, "data file")?),
                EXT_BITMAPS => self.bitmaps = Some(self.parse_bitmaps(body)?),
                _ => self.extensions.push(Extension { kind, data: body.to_vec() }),
            }
            at = (at + len).next_multiple_of(8);
        }
        Ok(())
    }

    fn parse_bitmaps(&self, body: &[u8]) -> Result<BitmapDirectory, HeaderError> {
        let bad =
            |why: &str| Err(HeaderError::Invalid(format!("bitmaps_ext: Invalid extension: {why}")));
        if body.len() != 24 {
            return bad("wrong length");
        }
        let directory =
            BitmapDirectory { count: be32(body, 0), size: be64(body, 8), offset: be64(body, 16) };
        // Without the bit somebody wrote the image who did not know of bitmaps, and the extension
        // means nothing; only what will be used is checked.
        if self.autoclear & BITMAPS == 0 {
            return Ok(directory);
        }
        let mask = (1u64 << self.cluster_bits.min(63)) - 1;
        match directory {
            _ if be32(body, 4) != 0 => bad("reserved field is not zero"),
            BitmapDirectory { count: 0, .. } => bad("no bitmaps"),
            BitmapDirectory { count, .. } if count > MAX_BITMAPS => bad("too many bitmaps"),
            BitmapDirectory { offset, .. } if offset & mask != 0 || offset > i64::MAX as u64 => {
                bad("offset of the directory")
            }
            BitmapDirectory { size, .. } if size > MAX_BITMAP_DIRECTORY || size == 0 => {
                bad("size of the directory")
            }
            directory => Ok(directory),
        }
    }

    fn check_compression(&mut self, data: &[u8], length: usize) -> Result<(), HeaderError> {
        let kind = if length > V3_MIN_LENGTH && self.version >= 3 { data.get(104) } else { None };
        let marked = self.incompatible & COMPRESSION_TYPE != 0;
        self.compression = match kind.copied().unwrap_or(0) {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => {
                return Err(HeaderError::Unsupported(format!(
                    "qcow2: unknown compression type: {other}"
                )));
            }
        };
        match (self.compression, marked) {
            (Compression::Zlib, true) => Err(HeaderError::invalid(
                "qcow2: Compression type incompatible feature bit must not be set",
            )),
            (Compression::Zstd, false) => Err(HeaderError::invalid(
                "qcow2: Compression type incompatible feature bit must be set",
            )),
            _ => Ok(()),
        }
    }

    fn check_tables(&self) -> Result<(), HeaderError> {
        let table = |name: &str, offset: u64, bytes: u64, most: u64| {
            if bytes > most {
                return Err(HeaderError::TooBig(format!("{name} too large")));
            }
            let end = offset.checked_add(bytes);
            if !self.is_aligned(offset) || end.is_none_or(|end| end > i64::MAX as u64) {
                return Err(HeaderError::Invalid(format!("{name} offset invalid")));
            }
            Ok(())
        };
        let refcounts = u64::from(self.refcount_table_clusters) << self.cluster_bits;
        let most = MAX_REFCOUNT_TABLE_BYTES.max(self.cluster_size());
        table("Reference count table", self.refcount_table_offset, refcounts, most)?;
        // The length of the snapshot table is only known when it has been read.
        let snapshots = u64::from(self.snapshots);
        table("Snapshot table", self.snapshots_offset, snapshots, u64::from(MAX_SNAPSHOTS))?;
        let l1 = u64::from(self.l1_entries) * 8;
        table("Active L1 table", self.l1_offset, l1, MAX_L1_BYTES)?;
        let needed = self.l1_entries_for(self.size);
        if self.size > i64::MAX as u64 || needed > i32::MAX as u64 {
            return Err(HeaderError::TooBig("Image is too big".into()));
        }
        if needed > u64::from(self.l1_entries) {
            return Err(HeaderError::invalid("L1 table is too small"));
        }
        Ok(())
    }

    fn parse_backing(
        &mut self,
        data: &[u8],
        (offset, len): (u64, usize),
    ) -> Result<(), HeaderError> {
        if offset == 0 {
            return Ok(());
        }
        if offset > self.cluster_size() {
            return Err(HeaderError::invalid("Invalid backing file offset"));
        }
        let room = (self.cluster_size() - offset) as usize;
        if len > MAX_BACKING_NAME.min(room) {
            return Err(HeaderError::invalid("Backing file name too long"));
        }
        let name = get(data, offset as usize, len).ok_or_else(|| {
            HeaderError::invalid("Could not read backing file name: Invalid argument")
        })?;
        // A name of no bytes is none.
        self.backing = Some(text(name, "backing file name")?).filter(|name| !name.is_empty());
        Ok(())
    }

    /// The bytes to be written at the beginning of the file, no more than a cluster: header,
    /// extensions and the name of the backing file.
    ///
    /// # Errors
    /// [`HeaderError::NoSpace`] when they do not fit.
    pub fn serialise(&self) -> Result<Vec<u8>, HeaderError> {
        // The names of the features are a help to others, and left out if there is no room.
        match self.serialise_with(self.version >= 3) {
            Err(HeaderError::NoSpace) => self.serialise_with(false),
            done => done,
        }
    }

    fn serialise_with(&self, names: bool) -> Result<Vec<u8>, HeaderError> {
        let mut out = vec![0; if self.version >= 3 { V3_LENGTH } else { V2_LENGTH }];
        if self.version >= 3 {
            out.extend_from_slice(&self.unknown);
        }
        let length = out.len();
        if let Some(format) = &self.backing_format {
            extend(&mut out, EXT_BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = self.data_file.as_ref().filter(|_| self.external_data()) {
            extend(&mut out, EXT_DATA_FILE, name.as_bytes());
        }
        if names {
            extend(&mut out, EXT_FEATURES, &feature_table());
        }
        if let Some(bitmaps) = &self.bitmaps {
            let mut body = [0; 24];
            put(&mut body, 0, &bitmaps.count.to_be_bytes());
            put(&mut body, 8, &bitmaps.size.to_be_bytes());
            put(&mut body, 16, &bitmaps.offset.to_be_bytes());
            extend(&mut out, EXT_BITMAPS, &body);
        }
        for extension in &self.extensions {
            extend(&mut out, extension.kind, &extension.data);
        }
        extend(&mut out, EXT_END, &[]);
        let backing = self.backing.as_deref().unwrap_or_default().as_bytes();
        let at = if backing.is_empty() { 0 } else { out.len() as u64 };
        out.extend_from_slice(backing);
        if out.len() as u64 > self.cluster_size() || backing.len() > MAX_BACKING_NAME {
            return Err(HeaderError::NoSpace);
        }
        self.put_fields(&mut out, length, (at, backing.len()));
        Ok(out)
    }

    fn put_fields(&self, out: &mut [u8], length: usize, backing: (u64, usize)) {
        put(out, 0, &MAGIC.to_be_bytes());
        put(out, 4, &self.version.to_be_bytes());
        put(out, 8, &backing.0.to_be_bytes());
        put(out, 16, &(backing.1 as u32).to_be_bytes());
        put(out, 20, &self.cluster_bits.to_be_bytes());
        put(out, 24, &self.size.to_be_bytes());
        let crypt: u32 = match self.crypt {
            Crypt::None => 0,
            Crypt::Aes => 1,
        };
        put(out, 32, &crypt.to_be_bytes());
        put(out, 36, &self.l1_entries.to_be_bytes());
        put(out, 40, &self.l1_offset.to_be_bytes());
        put(out, 48, &self.refcount_table_offset.to_be_bytes());
        put(out, 56, &self.refcount_table_clusters.to_be_bytes());
        put(out, 60, &self.snapshots.to_be_bytes());
        put(out, 64, &self.snapshots_offset.to_be_bytes());
        if self.version < 3 {
            return;
        }
        put(out, 72, &self.incompatible.to_be_bytes());
        put(out, 80, &self.compatible.to_be_bytes());
        put(out, 88, &self.autoclear.to_be_bytes());
        put(out, 96, &self.refcount_order.to_be_bytes());
        put(out, 100, &(length as u32).to_be_bytes());
        put(out, 104, &[if self.compression == Compression::Zstd { 1 } else { 0 }]);
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

/// Text up to its first zero byte.
fn text(bytes: &[u8], what: &str) -> Result<String, HeaderError> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    String::from_utf8(text.to_vec())
        .map_err(|_| HeaderError::Invalid(format!("The image's {what} is not UTF-8 text")))
}

fn extend(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// The names of unknown incompatible features, from the image's own table as far as it has them.
fn unknown_features(table: Option<&[u8]>, mut unknown: u64) -> String {
    let mut names = Vec::new();
    for record in table.unwrap_or_default().chunks_exact(FEATURE_RECORD) {
        if let Some((0, bit, name)) = feature_name(record)
            && bit < 64
            && unknown & (1 << bit) != 0
        {
            unknown &= !(1 << bit);
            names.push(name);
        }
    }
    if unknown != 0 {
        names.push(format!("Unknown incompatible feature: {unknown:x}"));
    }
    names.join(", ")
}

#[cfg(test)]
#[path = "tests/header.rs"]
mod tests;
