//! Persistent dirty bitmaps: what of a disk was changed, kept in the image.
//!
//! | piece | file |
//! |---|---|
//! | the directory and the tables | `directory.rs` |
//! | the bits | `bits.rs` |
//!
//! An image that is opened to be written without anybody keeping its bitmaps loses them: the bit in
//! the header that vouches for them is cleared. Who keeps them opens it with
//! [`keeps_bitmaps`](super::Options::keeps_bitmaps).
//!
//! What is new is written to places of its own and durable before the header is switched to it;
//! what was there before is given up after that. On the image's loop, with nothing else under way;
//! names are a client's, the directory is whoever made the image's.

mod bits;
mod directory;

use std::io;

pub use bits::Bits;
pub(super) use directory::{Entry, OFFSET_MASK, load_directory};

use super::Qcow2;
use super::access::{load, store};
use super::bytes::errno;
use super::header::{BITMAPS, BitmapDirectory};
use super::options::Freed;
use directory::{ALL_ONES, AUTO, GRANULARITY_BITS, IN_USE, MAX_NAME, serialise_directory};

/// A persistent bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistentBitmap {
    /// Its name, unique in the image.
    pub name: String,
    /// Bytes of the disk that a bit stands for: a power of two.
    pub granularity: u64,
    /// It was being changed when its program ended, and may be wrong.
    pub in_use: bool,
    /// Whoever writes the disk keeps it up to date.
    pub enabled: bool,
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Qcow2 {
    /// The directory; nothing where nobody vouches for it.
    async fn entries(&self) -> io::Result<Vec<Entry>> {
        self.alive()?;
        let header = self.header.borrow().clone();
        match header.bitmaps.filter(|_| header.autoclear & BITMAPS != 0) {
            Some(place) => load_directory(&*self.file, &header, &place).await,
            None => Ok(Vec::new()),
        }
    }

    /// The persistent bitmaps.
    ///
    /// # Errors
    /// Those of the file, and when the directory makes no sense.
    pub async fn bitmaps(&self) -> io::Result<Vec<PersistentBitmap>> {
        let told = |entry: &Entry| PersistentBitmap {
            name: String::from_utf8_lossy(&entry.name).into_owned(),
            granularity: 1 << entry.granularity_bits,
            in_use: entry.flags & IN_USE != 0,
            enabled: entry.flags & AUTO != 0,
        };
        Ok(self.entries().await?.iter().map(told).collect())
    }

    /// The bits of a bitmap.
    ///
    /// # Errors
    /// Those of the file; when there is no such bitmap, or it is not valid.
    pub async fn bitmap(&self, name: &str) -> io::Result<Bits> {
        let entries = self.entries().await?;
        self.bits_of(named(&entries, name)?).await
    }

    async fn bits_of(&self, entry: &Entry) -> io::Result<Bits> {
        if entry.flags & IN_USE != 0 {
            let name = String::from_utf8_lossy(&entry.name);
            return Err(refused(format!("Bitmap '{name}' is inconsistent and cannot be used")));
        }
        let header = self.header.borrow().clone();
        let table = entry.load_table(&*self.file, &header).await?;
        let bits = Bits::new(self.size.get(), entry.granularity_bits.into());
        let mut bits = bits.ok_or(errno(libc::EFBIG))?;
        let cluster = header.cluster_size() as usize;
        if table.len() != bits.bytes().len().div_ceil(cluster) {
            return Err(errno(libc::EINVAL));
        }
        for (part, word) in bits.bytes_mut().chunks_mut(cluster).zip(table) {
            match word & OFFSET_MASK {
                0 => part.fill(if word & ALL_ONES != 0 { 0xff } else { 0 }),
                offset => {
                    let data = load(&*self.file, offset, part.len() as u64).await?;
                    part.copy_from_slice(&data);
                }
            }
        }
        Ok(bits)
    }

    /// Adds a bitmap without dirty parts. `granularity`: bytes that a bit stands for, a power of
    /// two from 512 to 2 GiB; a cluster, at least 4 KiB, when nothing is said.
    ///
    /// # Errors
    /// Those of the file; when there is one of that name, or the image cannot have it.
    pub async fn add_bitmap(
        &self,
        name: &str,
        granularity: Option<u64>,
        enabled: bool,
    ) -> io::Result<()> {
        let mut entries = self.entries().await?;
        if self.header.borrow().version < 3 {
            return Err(refused("Cannot store dirty bitmaps in qcow2 v2 files".into()));
        }
        let granularity = granularity.unwrap_or(self.geometry().cluster().max(4096));
        let bits = granularity.trailing_zeros() as u8;
        let fits = granularity.is_power_of_two() && GRANULARITY_BITS.contains(&bits);
        fits.then_some(())
            .ok_or_else(|| refused("Granularity must be a power of 2 between 512 and 2G".into()))?;
        if !(1..=MAX_NAME).contains(&name.len()) {
            return Err(refused("Bitmap name must be of 1 to 1023 bytes".into()));
        }
        if entries.iter().any(|entry| entry.name == name.as_bytes()) {
            return Err(refused(format!("Bitmap already exists: {name}")));
        }
        let none = Bits::new(self.size.get(), bits.into()).ok_or(errno(libc::EFBIG))?;
        let entry = Entry {
            table_offset: 0,
            table_entries: 0,
            flags: if enabled { AUTO } else { 0 },
            granularity_bits: bits,
            name: name.as_bytes().to_vec(),
            extra: Vec::new(),
        };
        let entry = self.write_bits(entry, &none).await?;
        entries.push(entry.clone());
        self.switch_directory(entries, None, Some(&entry)).await
    }

    /// Removes a bitmap.
    ///
    /// # Errors
    /// Those of the file; when there is no such bitmap.
    pub async fn remove_bitmap(&self, name: &str) -> io::Result<()> {
        let mut entries = self.entries().await?;
        let entry = named(&entries, name)?.clone();
        entries.retain(|other| *other != entry);
        self.switch_directory(entries, Some(&entry), None).await
    }

    /// Replaces the bits of a bitmap by `bits`, of the granularity that it has. It is valid then.
    ///
    /// # Errors
    /// Those of the file; when there is no such bitmap.
    pub async fn store_bitmap(&self, name: &str, bits: &Bits) -> io::Result<()> {
        let mut entries = self.entries().await?;
        let old = named(&entries, name)?.clone();
        if bits.granularity_bits() != u32::from(old.granularity_bits) {
            return Err(errno(libc::EINVAL));
        }
        let new = Entry { flags: old.flags & !IN_USE, ..old.clone() };
        let new = self.write_bits(new, bits).await?;
        for entry in entries.iter_mut().filter(|entry| **entry == old) {
            entry.clone_from(&new);
        }
        self.switch_directory(entries, Some(&old), Some(&new)).await
    }

    /// Makes a bitmap have no dirty parts.
    ///
    /// # Errors
    /// Those of the file; when there is no such bitmap, or it is not valid.
    pub async fn clear_bitmap(&self, name: &str) -> io::Result<()> {
        let bits = self.bitmap(name).await?;
        let none = Bits::new(self.size.get(), bits.granularity_bits()).ok_or(errno(libc::EFBIG))?;
        self.store_bitmap(name, &none).await
    }

    /// Makes everything dirty in a bitmap that is so in `other`.
    ///
    /// # Errors
    /// Those of the file; when there is no such bitmap, or it is not valid.
    pub async fn merge_bitmap(&self, name: &str, other: &Bits) -> io::Result<()> {
        let mut bits = self.bitmap(name).await?;
        bits.merge(other);
        self.store_bitmap(name, &bits).await
    }

    /// Has a bitmap be kept up to date by whoever writes the disk, or not any more.
    ///
    /// # Errors
    /// Those of the file; when there is no such bitmap, or it is not valid.
    pub async fn enable_bitmap(&self, name: &str, enabled: bool) -> io::Result<()> {
        let mut entries = self.entries().await?;
        if named(&entries, name)?.flags & IN_USE != 0 {
            return Err(refused(format!("Bitmap '{name}' is inconsistent and cannot be used")));
        }
        for entry in entries.iter_mut().filter(|entry| entry.name == name.as_bytes()) {
            entry.flags = if enabled { entry.flags | AUTO } else { entry.flags & !AUTO };
        }
        self.switch_directory(entries, None, None).await
    }

    /// Writes bits to new places; the entry that refers to them.
    async fn write_bits(&self, mut entry: Entry, bits: &Bits) -> io::Result<Entry> {
        self.begin_change().await?;
        let cluster = self.geometry().cluster();
        let mut places = Vec::new();
        let written = async {
            let mut table = Vec::new();
            for part in bits.bytes().chunks(cluster as usize) {
                let word = if part.iter().all(|byte| *byte == 0) {
                    0
                } else if part.iter().all(|byte| *byte == 0xff) {
                    ALL_ONES
                } else {
                    self.write_place(&mut places, part).await?
                };
                table.extend_from_slice(&word.to_be_bytes());
            }
            entry.table_entries = u32::try_from(table.len() / 8).map_err(|_| errno(libc::EFBIG))?;
            entry.table_offset = self.write_place(&mut places, &table).await?;
            Ok(())
        };
        let result: io::Result<()> = written.await;
        if let Err(error) = result {
            for (offset, len) in places {
                let _ = self.lower(offset, len, Freed::Unused).await;
            }
            return Err(error);
        }
        Ok(entry)
    }

    /// Writes `data`, padded to clusters, to a new place.
    async fn write_place(&self, places: &mut Vec<(u64, u64)>, data: &[u8]) -> io::Result<u64> {
        let len = self.geometry().ceil(data.len().max(1) as u64);
        let offset = self.allocate_whole(len).await?;
        places.push((offset, len));
        let mut padded = data.to_vec();
        padded.resize(len as usize, 0);
        self.check_overlap(offset, len).await?;
        store(&*self.file, offset, &padded).await?;
        Ok(offset)
    }

    /// Switches the header to a new directory, and gives up the old one and what `gone` refers to;
    /// if it cannot, what `new` refers to.
    async fn switch_directory(
        &self,
        entries: Vec<Entry>,
        gone: Option<&Entry>,
        new: Option<&Entry>,
    ) -> io::Result<()> {
        let result = self.write_directory(&entries, gone).await;
        if let (Err(_), Some(new)) = (&result, new)
            && !self.refers_to(new).await
        {
            let _ = self.free_bits(new).await;
        }
        result
    }

    /// The directory in the file may have this entry.
    async fn refers_to(&self, entry: &Entry) -> bool {
        self.entries().await.map_or(true, |entries| entries.contains(entry))
    }

    async fn write_directory(&self, entries: &[Entry], gone: Option<&Entry>) -> io::Result<()> {
        self.begin_change().await?;
        let mut places = Vec::new();
        let prepared = async {
            let data = serialise_directory(entries)?;
            let place = match entries.is_empty() {
                true => None,
                false => Some(BitmapDirectory {
                    count: u32::try_from(entries.len()).map_err(|_| errno(libc::EFBIG))?,
                    size: data.len() as u64,
                    offset: self.write_place(&mut places, &data).await?,
                }),
            };
            self.counts_durable().await?;
            Ok(place)
        };
        let prepared: io::Result<_> = prepared.await;
        let place = match prepared {
            Ok(place) => place,
            Err(error) => {
                for (offset, len) in places {
                    let _ = self.lower(offset, len, Freed::Unused).await;
                }
                return Err(error);
            }
        };
        let old = self.header.borrow().clone();
        {
            let header = &mut *self.header.borrow_mut();
            header.bitmaps = place;
            header.autoclear &= !BITMAPS;
            header.autoclear |= if place.is_some() { BITMAPS } else { 0 };
        }
        if let Err(error) = self.write_header().await {
            // Which of the two the file has is not known, so nothing is given up.
            *self.header.borrow_mut() = old;
            return Err(error);
        }
        if let Some(place) = old.bitmaps.filter(|_| old.autoclear & BITMAPS != 0) {
            self.lower(place.offset, place.size, Freed::Other).await?;
        }
        if let Some(gone) = gone {
            self.free_bits(gone).await?;
        }
        self.counts_durable().await
    }

    /// Gives up what an entry refers to.
    async fn free_bits(&self, entry: &Entry) -> io::Result<()> {
        let header = self.header.borrow().clone();
        let table = entry.load_table(&*self.file, &header).await?;
        for offset in table.iter().map(|word| word & OFFSET_MASK).filter(|offset| *offset != 0) {
            self.lower(offset, header.cluster_size(), Freed::Other).await?;
        }
        let bytes = (u64::from(entry.table_entries) * 8).max(1);
        self.lower(entry.table_offset, bytes, Freed::Other).await
    }
}

fn named<'a>(entries: &'a [Entry], name: &str) -> io::Result<&'a Entry> {
    let found = entries.iter().find(|entry| entry.name == name.as_bytes());
    found.ok_or_else(|| refused(format!("Dirty bitmap '{name}' not found")))
}

#[cfg(test)]
#[path = "../tests/bitmap.rs"]
mod tests;
