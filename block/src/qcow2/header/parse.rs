//! Reading a header.

use super::super::bytes::{be32, be64, get};
use super::super::names::{FEATURE_RECORD, feature_name};
use super::*;

impl Header {
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
        self.named_at = self.backing.clone().map(|name| (offset, name));
        Ok(())
    }
}

/// Text up to its first zero byte.
fn text(bytes: &[u8], what: &str) -> Result<String, HeaderError> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    String::from_utf8(text.to_vec())
        .map_err(|_| HeaderError::Invalid(format!("The image's {what} is not UTF-8 text")))
}

/// The names of unknown incompatible features, from the image's own table as far as it has them.
pub(super) fn unknown_features(table: Option<&[u8]>, mut unknown: u64) -> String {
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
