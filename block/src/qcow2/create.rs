//! Making an image: options, their rules, and the metadata of an empty or preallocated disk.
//!
//! The header is written last, when everything it points to is durable: what was interrupted is
//! no image.
//!
//! On the loop of the graph, no lock. Sizes and names come from clients; nothing is allocated in
//! memory by them beyond a piece at a time.

use std::io;
use std::rc::Rc;

use super::access::{PIECE, store, store_zeros};
use super::bytes::errno;
use super::header::{
    CLUSTER_BITS, COMPRESSION_TYPE, Compression, Crypt, EXTENDED_L2, EXTERNAL_DATA, Header,
    HeaderError, LAZY_REFCOUNTS, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES, RAW_DATA,
};
use super::refcount;
use crate::image::BackingFile;
use crate::node::{Node, Zero};

/// Bit of an L1 or L2 entry: the refcount of what it points to is exactly 1.
const COPIED: u64 = 1 << 63;
/// Bit of an L2 entry without subclusters: it reads as zeros.
const ZERO: u64 = 1;
/// The smallest cluster that can have subclusters.
const MIN_EXTENDED: u64 = 16 << 10;

/// How much of a new image is there from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// Nothing but what an empty disk needs.
    #[default]
    Off,
    /// All metadata; the data have their places.
    Metadata,
    /// And their room is taken.
    Falloc,
    /// And they are written, as zeros.
    Full,
}

impl Preallocation {
    /// The mode of a name.
    ///
    /// # Errors
    /// The text for an unknown one.
    pub fn named(name: &str) -> Result<Preallocation, String> {
        match name {
            "off" => Ok(Preallocation::Off),
            "metadata" => Ok(Preallocation::Metadata),
            "falloc" => Ok(Preallocation::Falloc),
            "full" => Ok(Preallocation::Full),
            _ => Err(format!("Invalid preallocation mode: '{name}'")),
        }
    }
}

/// The version of the format that a compatibility level stands for.
///
/// # Errors
/// The text for an unknown one.
pub fn version_named(compat: &str) -> Result<u32, String> {
    match compat {
        "0.10" | "v2" => Ok(2),
        "1.1" | "v3" => Ok(3),
        _ => Err(format!("Invalid compatibility level: '{compat}'")),
    }
}

/// What is to be made.
#[derive(Clone)]
pub struct CreateOptions {
    /// Bytes of the guest's disk; rounded up to 512.
    pub size: u64,
    /// 2 or 3.
    pub version: u32,
    /// Bytes of a cluster: a power of two, 512 to 2 MiB.
    pub cluster_size: u64,
    /// Bits of a refcount: a power of two, 1 to 64.
    pub refcount_bits: u32,
    /// Refcounts may be written late.
    pub lazy_refcounts: bool,
    /// What shows where the image has nothing.
    pub backing: Option<BackingFile>,
    /// Its contents will be encrypted, by legacy AES.
    pub encrypted: bool,
    /// Clusters of 32 subclusters.
    pub extended_l2: bool,
    /// How compressed clusters are packed.
    pub compression: Compression,
    /// The name of a file for the guest's data, as it is written in the image, and the file, empty.
    pub data_file: Option<(String, Rc<dyn Node>)>,
    /// The data file alone is a raw image of the disk.
    pub data_file_raw: bool,
    /// How much is there from the beginning.
    pub preallocation: Preallocation,
}

impl Default for CreateOptions {
    fn default() -> CreateOptions {
        CreateOptions {
            size: 0,
            version: 3,
            cluster_size: 65_536,
            refcount_bits: 16,
            lazy_refcounts: false,
            backing: None,
            encrypted: false,
            extended_l2: false,
            compression: Compression::Zlib,
            data_file: None,
            data_file_raw: false,
            preallocation: Preallocation::Off,
        }
    }
}

/// Why an image is not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Options that do not go together.
    #[error("{0}")]
    Invalid(String),
    /// No image of such clusters can be so large.
    #[error("File too large")]
    TooLarge,
    /// The file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<HeaderError> for CreateError {
    fn from(error: HeaderError) -> CreateError {
        match error {
            HeaderError::TooBig(_) => CreateError::TooLarge,
            other => CreateError::Io(other.into()),
        }
    }
}

/// Where everything of a new image is, in clusters.
pub(super) struct Layout {
    pub(super) header: Header,
    pub(super) table: u64,
    pub(super) blocks: u64,
    pub(super) l1: u64,
    /// L2 tables that the whole disk needs.
    pub(super) l2: u64,
    /// Clusters of the guest's disk.
    pub(super) data: u64,
}

impl CreateOptions {
    /// The modes with which the data of the disk have their places from the beginning.
    pub(super) fn preallocated(&self) -> bool {
        // Whoever reads only the data file must find everything there.
        self.preallocation != Preallocation::Off || self.data_file_raw
    }

    /// Checks the options against each other.
    fn check(&self) -> Result<(), String> {
        let sizes = 1 << CLUSTER_BITS.start()..=1u64 << CLUSTER_BITS.end();
        let modern = self.version >= 3;
        let rules = [
            (
                self.cluster_size.is_power_of_two() && sizes.contains(&self.cluster_size),
                format!(
                    "Cluster size must be a power of two between {} and {}k",
                    sizes.start(),
                    sizes.end() >> 10
                ),
            ),
            (
                self.backing.is_none() || !self.preallocated() || self.extended_l2,
                "Backing file and preallocation cannot be used at the same time".into(),
            ),
            (
                modern || !self.lazy_refcounts,
                "Lazy refcounts only supported with compatibility level 1.1 and above (use \
                 compat=1.1 or greater)"
                    .into(),
            ),
            (
                self.refcount_bits.is_power_of_two() && self.refcount_bits <= 64,
                "Refcount width must be a power of two and may not exceed 64 bits".into(),
            ),
            (
                modern || self.refcount_bits == 16,
                "Different refcount widths than 16 bits require compatibility level 1.1 or above \
                 (use compat=1.1 or greater)"
                    .into(),
            ),
            (
                !self.data_file_raw || self.data_file.is_some(),
                "data-file-raw requires data-file".into(),
            ),
            (
                !self.data_file_raw || self.backing.is_none(),
                "Backing file and data-file-raw cannot be used at the same time".into(),
            ),
            (
                modern || self.data_file.is_none(),
                "External data files are only supported with compatibility level 1.1 and above \
                 (use compat=1.1 or greater)"
                    .into(),
            ),
            (
                self.data_file.is_none() || !self.encrypted,
                "External data files cannot be encrypted".into(),
            ),
            (
                modern || !self.extended_l2,
                "Extended L2 entries are only supported with compatibility level 1.1 and above \
                 (use compat=1.1 or greater)"
                    .into(),
            ),
            (
                !self.extended_l2 || self.cluster_size >= MIN_EXTENDED,
                format!(
                    "Extended L2 entries are only supported with cluster sizes of at least \
                     {MIN_EXTENDED} bytes"
                ),
            ),
            (
                modern || self.compression == Compression::Zlib,
                "Non-zlib compression type is only supported with compatibility level 1.1 and \
                 above (use compat=1.1 or greater)"
                    .into(),
            ),
            (
                modern || !self.encrypted || !self.preallocated(),
                "Preallocation of encrypted images requires compatibility level 1.1 or above (use \
                 compat=1.1 or greater)"
                    .into(),
            ),
        ];
        rules.into_iter().find(|(kept, _)| !kept).map_or(Ok(()), |(_, text)| Err(text))
    }

    /// The header without tables, and how many clusters each part of the whole disk takes.
    pub(super) fn layout(&self) -> Result<Layout, CreateError> {
        self.check().map_err(CreateError::Invalid)?;
        let size = self.size.checked_next_multiple_of(512).ok_or(CreateError::TooLarge)?;
        if size > i64::MAX as u64 {
            return Err(CreateError::TooLarge);
        }
        let mut header = Header {
            version: self.version,
            cluster_bits: self.cluster_size.trailing_zeros(),
            size,
            crypt: if self.encrypted { Crypt::Aes } else { Crypt::None },
            refcount_order: self.refcount_bits.trailing_zeros(),
            compression: self.compression,
            backing: self.backing.as_ref().map(|backing| backing.name.clone()),
            backing_format: self.backing.as_ref().and_then(|backing| backing.format.clone()),
            data_file: self.data_file.as_ref().map(|(name, _)| name.clone()),
            ..Header::default()
        };
        let bits = [
            (self.compression != Compression::Zlib, COMPRESSION_TYPE),
            (self.extended_l2, EXTENDED_L2),
            (self.data_file.is_some(), EXTERNAL_DATA),
        ];
        header.incompatible = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        header.compatible = if self.lazy_refcounts { LAZY_REFCOUNTS } else { 0 };
        header.autoclear = if self.data_file_raw { RAW_DATA } else { 0 };
        let entries = header.l1_entries_for(size);
        if entries * 8 > MAX_L1_BYTES {
            return Err(CreateError::TooLarge);
        }
        header.l1_entries = u32::try_from(entries).map_err(|_| CreateError::TooLarge)?;
        let cluster = header.cluster_size();
        let l1 = (entries * 8).div_ceil(cluster);
        let data = size.div_ceil(cluster);
        Ok(Layout { header, table: 0, blocks: 0, l1, l2: entries, data })
    }
}

impl Layout {
    /// Counts the refcounts' own clusters, for a file of what is there and so many clusters beside.
    pub(super) fn with_refcounts(mut self, others: u64) -> Result<Layout, CreateError> {
        let used = others.checked_add(1 + self.l1).ok_or(CreateError::TooLarge)?;
        let (table, blocks) = refcounts_for(&self.header, used);
        self.table = table;
        self.blocks = blocks;
        Ok(self)
    }

    /// Clusters of the header, the refcounts and the L1 table.
    pub(super) fn fixed(&self) -> u64 {
        1 + self.table + self.blocks + self.l1
    }
}

/// Clusters of the refcount table and of the refcount blocks that count `used` clusters and their
/// own.
pub(super) fn refcounts_for(header: &Header, used: u64) -> (u64, u64) {
    let per_table = header.cluster_size() / 8;
    let (mut table, mut blocks) = (1, 1);
    loop {
        let all = used.saturating_add(table + blocks);
        let next_blocks = all.div_ceil(1 << header.refcounts_per_block_bits());
        let next_table = next_blocks.div_ceil(per_table);
        if (next_table, next_blocks) == (table, blocks) {
            return (table, blocks);
        }
        (table, blocks) = (next_table, next_blocks);
    }
}

/// Makes an image in `file`, which is empty or of which nothing is needed any more.
///
/// # Errors
/// See [`CreateError`]. The file is left as far as it was made.
pub async fn create(file: &dyn Node, options: &CreateOptions) -> Result<(), CreateError> {
    let layout = options.layout()?;
    let preallocated = options.preallocated();
    // What the file holds of the disk.
    let l2 = if preallocated { layout.l2 } else { 0 };
    let inside = preallocated && options.data_file.is_none();
    let data = if inside { layout.data } else { 0 };
    let layout = layout.with_refcounts(l2 + data)?;
    let mut header = layout.header.clone();
    let cluster = header.cluster_size();
    let most = MAX_REFCOUNT_TABLE_BYTES.max(cluster);
    let table_bytes = layout.table.checked_mul(cluster).filter(|bytes| *bytes <= most);
    let table_bytes = table_bytes.ok_or(CreateError::TooLarge)?;
    let end = (layout.fixed() + l2).checked_add(data).and_then(|end| end.checked_mul(cluster));
    let end = end.filter(|end| *end <= i64::MAX as u64).ok_or(CreateError::TooLarge)?;
    header.refcount_table_offset = cluster;
    header.refcount_table_clusters =
        u32::try_from(layout.table).map_err(|_| CreateError::TooLarge)?;
    // A table without entries has no place.
    header.l1_offset = if layout.l1 > 0 { (1 + layout.table + layout.blocks) * cluster } else { 0 };
    // Before anything is written, so that what cannot be is refused with the file as it was.
    let mut first = header.serialise()?;
    first.resize(cluster as usize, 0);

    let l2_offset = layout.fixed() * cluster;
    let data_offset = l2_offset + l2 * cluster;
    write_refcounts(file, &header, &layout, end / cluster, table_bytes).await?;
    let l1_bytes = layout.l1 * cluster;
    if preallocated {
        let entries = u64::from(header.l1_entries);
        let l1 = |index| {
            if index < entries { (l2_offset + index * cluster) | COPIED } else { 0 }
        };
        write_numbers(file, header.l1_offset, l1_bytes / 8, l1).await?;
        let start = if inside { data_offset } else { 0 };
        write_l2(file, options, &header, l2_offset, l2, start, layout.data).await?;
        let (place, offset) = match &options.data_file {
            Some((_, place)) => (&**place, 0),
            None => (file, data_offset),
        };
        write_data(place, options.preallocation, offset, header.size, layout.data * cluster)
            .await?;
    } else {
        store_zeros(file, header.l1_offset, l1_bytes).await?;
    }
    if let Some((_, data)) = &options.data_file {
        if data.info().size != header.size {
            data.resize(header.size).await?;
        }
        data.flush().await?;
    }
    file.flush().await?;
    store(file, 0, &first).await?;
    file.flush().await?;
    Ok(())
}

/// The refcount table and the blocks it points to, behind it; all of the file's clusters are used
/// once.
async fn write_refcounts(
    file: &dyn Node,
    header: &Header,
    layout: &Layout,
    clusters: u64,
    table_bytes: u64,
) -> io::Result<()> {
    let cluster = header.cluster_size();
    let blocks = header.refcount_table_offset + table_bytes;
    let entry = |index| if index < layout.blocks { blocks + index * cluster } else { 0 };
    write_numbers(file, header.refcount_table_offset, table_bytes / 8, entry).await?;
    let each = 1u64 << header.refcounts_per_block_bits();
    let mut full = vec![0; cluster as usize];
    for index in 0..each {
        refcount::set(&mut full, header.refcount_order, index, 1);
    }
    for index in 0..layout.blocks {
        let used = clusters.saturating_sub(index * each);
        let at = blocks + index * cluster;
        if used >= each {
            store(file, at, &full).await?;
            continue;
        }
        let mut block = vec![0; cluster as usize];
        for index in 0..used {
            refcount::set(&mut block, header.refcount_order, index, 1);
        }
        store(file, at, &block).await?;
    }
    Ok(())
}

/// The L2 tables of a preallocated disk, whose clusters begin at `start` of their file.
async fn write_l2(
    file: &dyn Node,
    options: &CreateOptions,
    header: &Header,
    offset: u64,
    tables: u64,
    start: u64,
    data: u64,
) -> io::Result<()> {
    // Encrypted, the zeros of the file are something else, so the entry has to say it. With
    // subclusters none of them is allocated, so that what lies below shows.
    let zero = if options.encrypted && !header.extended_l2() { ZERO } else { 0 };
    // In the data file of a raw image every cluster is data.
    let subclusters = if options.data_file_raw { u64::from(u32::MAX) } else { 0 };
    let wide = header.extended_l2();
    let numbers = tables * header.cluster_size() / 8;
    let entry = |number: u64| {
        let index = if wide { number / 2 } else { number };
        match wide && number % 2 == 1 {
            _ if index >= data => 0,
            true => subclusters,
            false => (start + (index << header.cluster_bits)) | COPIED | zero,
        }
    };
    write_numbers(file, offset, numbers, entry).await
}

/// Gives the data their room.
async fn write_data(
    file: &dyn Node,
    how: Preallocation,
    offset: u64,
    size: u64,
    room: u64,
) -> io::Result<()> {
    let end = offset.checked_add(room).ok_or(errno(libc::EFBIG))?;
    match how {
        Preallocation::Off => Ok(()),
        Preallocation::Metadata => {
            // What was there before must not show.
            if file.info().size > offset {
                return file.zero(offset, file.info().size.min(end) - offset, Zero::MayUnmap).await;
            }
            Ok(())
        }
        Preallocation::Falloc => file.zero(offset, size, Zero::Keep).await,
        Preallocation::Full => store_zeros(file, offset, size).await,
    }?;
    // A host's disk is as large as it is.
    if how != Preallocation::Off && file.info().size < end {
        file.resize(end).await?;
    }
    Ok(())
}

/// Writes big-endian numbers one behind the other, a piece at a time.
async fn write_numbers(
    file: &dyn Node,
    offset: u64,
    count: u64,
    number: impl Fn(u64) -> u64,
) -> io::Result<()> {
    let mut at = 0;
    while at < count {
        let end = count.min(at + PIECE / 8);
        let data: Vec<u8> = (at..end).flat_map(|index| number(index).to_be_bytes()).collect();
        store(file, offset.checked_add(at * 8).ok_or(errno(libc::EFBIG))?, &data).await?;
        at = end;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests/create.rs"]
mod tests;
