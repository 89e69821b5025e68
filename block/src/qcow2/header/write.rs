//! Writing a header.

use super::super::bytes::put;
use super::super::names::{FEATURE_RECORD, feature_table};
use super::*;

/// Writes in their order, and where the name of the backing file is then.
pub(super) type Writes = (Vec<(u64, Vec<u8>)>, Option<(u64, String)>);

/// The bytes, where the extensions end, and where the name is: 0 for none.
type LaidOut = (Vec<u8>, usize, usize);

/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

impl Header {
    /// The bytes to be written at the beginning of the file, no more than a cluster: header,
    /// extensions and the name of the backing file.
    ///
    /// # Errors
    /// [`HeaderError::NoSpace`] when they do not fit.
    pub fn serialise(&self) -> Result<Vec<u8>, HeaderError> {
        Ok(self.lay_out()?.0)
    }

    /// The writes that make it the header of a file, in their order: each is to be durable before
    /// the next, and the image is what it was until the last. Also where the name is then.
    ///
    /// A sector is written as a whole or not at all, so what has to change together lies in the
    /// first one, and a name that does not fit there goes beside the one that the file has.
    ///
    /// # Errors
    /// As [`serialise`](Self::serialise); [`HeaderError::NoRoomBeside`] when a name would have to
    /// be written over the one that the file has.
    pub fn writes(&self) -> Result<Writes, HeaderError> {
        // Without the names of features there may be room in the first sector.
        let first = self.lay_out().and_then(|laid| self.arrange(laid));
        match first {
            Err(HeaderError::NoRoomBeside) => {
                self.lay_out_with(false).and_then(|laid| self.arrange(laid))
            }
            done => done,
        }
    }

    fn arrange(&self, (mut out, head, at): LaidOut) -> Result<Writes, HeaderError> {
        let named_at = self.backing.clone().filter(|_| at > 0).map(|name| (at as u64, name));
        if head > SECTOR {
            return Ok((vec![(0, out)], named_at));
        }
        let mut writes = Vec::new();
        let behind = at.max(SECTOR);
        if at > 0 && named_at != self.named_at && out.len() > behind {
            if let Some((old, name)) = &self.named_at
                && *old < out.len() as u64
                && (behind as u64) < old.saturating_add(name.len() as u64)
            {
                return Err(HeaderError::NoRoomBeside);
            }
            writes.push((behind as u64, out.get(behind..).unwrap_or_default().to_vec()));
        }
        // What is behind the first sector stays.
        out.truncate(SECTOR);
        writes.push((0, out));
        Ok((writes, named_at))
    }

    /// The bytes, where the extensions end, and where the name is: 0 for none.
    fn lay_out(&self) -> Result<LaidOut, HeaderError> {
        // The names of the features are a help to others, and left out if there is no room.
        match self.lay_out_with(self.version >= 3) {
            Err(HeaderError::NoSpace) => self.lay_out_with(false),
            done => done,
        }
    }

    fn lay_out_with(&self, names: bool) -> Result<LaidOut, HeaderError> {
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
        let rest = self.rest();
        if names {
            // As many as the first sector has room for.
            let room = SECTOR.saturating_sub(out.len() + 8 + rest.len()) / FEATURE_RECORD;
            let mut table = feature_table();
            table.truncate(room * FEATURE_RECORD);
            if !table.is_empty() {
                extend(&mut out, EXT_FEATURES, &table);
            }
        }
        out.extend_from_slice(&rest);
        let head = out.len();
        let backing = self.backing.as_deref().unwrap_or_default().as_bytes();
        let at = if backing.is_empty() { 0 } else { self.place(head, backing) };
        out.resize(out.len().max(at), 0);
        out.extend_from_slice(backing);
        if out.len() as u64 > self.cluster_size() || backing.len() > MAX_BACKING_NAME {
            return Err(HeaderError::NoSpace);
        }
        self.put_fields(&mut out, length, (at as u64, backing.len()));
        Ok((out, head, at))
    }

    /// The extensions behind the names of features.
    fn rest(&self) -> Vec<u8> {
        let mut out = Vec::new();
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
        out
    }

    /// Where the name goes, behind extensions that end at `head`: where it is, or into the first
    /// sector, or where the file has no name; right behind the extensions if there is no such room.
    fn place(&self, head: usize, name: &[u8]) -> usize {
        let (from, len) = match &self.named_at {
            Some((at, old)) => (usize::try_from(*at).unwrap_or(usize::MAX), old.len()),
            None => (0, 0),
        };
        let is_there = self.named_at.as_ref().is_some_and(|(_, old)| old.as_bytes() == name);
        if is_there && from >= head {
            return from;
        }
        if head + name.len() <= SECTOR {
            return head;
        }
        let to = from.saturating_add(len);
        let fits = |at: &usize| {
            let end = at.saturating_add(name.len());
            (end <= from || *at >= to) && end as u64 <= self.cluster_size()
        };
        [head.max(SECTOR), to.max(SECTOR).max(head)].into_iter().find(fits).unwrap_or(head)
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
}

fn extend(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(8), 0);
}
