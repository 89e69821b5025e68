//! Persistent dirty bitmaps: what of a disk was changed, kept in the image.
//!
//! | piece | file |
//! |---|---|
//! | the directory and the tables | `directory.rs` |
//! | bitmaps that follow the writes | `live.rs` |
//! | changing them, and bringing them to the file | `mod.rs` |
//!
//! While an image is open to be written, its enabled bitmaps are in memory and follow every write;
//! the file says of them that they are in use, which is what a crash leaves behind. They are
//! written back when the image is closed or may not be written any more. What the file says of a
//! bitmap that was in use when the image was opened is left alone: nobody knows what it misses.
//!
//! What is new is written to places of its own and durable before the header is switched to it;
//! what was there before is given up after that. Where only flags change they are changed in place:
//! none crosses a sector. On the image's loop, with nothing else under way but what follows writes;
//! names are a client's, the directory is whoever made the image's.

mod directory;
mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

pub(super) use directory::{Entry, OFFSET_MASK, load_directory};
pub(super) use live::Bitmaps;

use super::Qcow2;
use super::access::{load, store};
use super::bytes::errno;
use super::header::{BITMAPS, BitmapDirectory, Header};
use super::options::Freed;
use crate::dirty::Bitmap;
use crate::image::{BitmapChange, PersistentBitmap};
use directory::{
    ALL_ONES, AUTO, GRANULARITY_BITS, IN_USE, MAX_BITMAP_BYTES, MAX_NAME, serialise_directory,
};

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn inconsistent(name: &str) -> io::Error {
    refused(format!("Bitmap '{name}' is inconsistent and cannot be used"))
}

/// Nothing dirty, for a disk of `size` bytes.
///
/// # Errors
/// `EFBIG` when the format has no place for so many bits.
fn clean(size: u64, granularity_bits: u8) -> io::Result<Bitmap> {
    let bitmap = Bitmap::new(size, 1 << granularity_bits);
    let fits = bitmap.bit_bytes() <= MAX_BITMAP_BYTES;
    fits.then_some(bitmap).ok_or(errno(libc::EFBIG))
}

impl Qcow2 {
    /// The persistent bitmaps. One that this image keeps up to date is not in use by others.
    pub fn bitmaps(&self) -> Vec<PersistentBitmap> {
        let live = self.bitmaps.live();
        let told = |entry: &Entry| PersistentBitmap {
            name: String::from_utf8_lossy(&entry.name).into_owned(),
            granularity: 1 << entry.granularity_bits,
            inconsistent: entry.flags & IN_USE != 0 && !live.contains_key(&entry.name),
            enabled: entry.flags & AUTO != 0,
        };
        self.bitmaps.entries().iter().map(told).collect()
    }

    /// What is dirty in a bitmap.
    ///
    /// # Errors
    /// Those of the file; when there is no such bitmap, or it is not valid.
    pub async fn bitmap(&self, name: &str) -> io::Result<Bitmap> {
        self.alive()?;
        if let Some(live) = self.bitmaps.live().get(name.as_bytes()) {
            return Ok(live.bits.clone());
        }
        let entry = self.entry(name)?;
        match entry.flags & IN_USE {
            0 => self.load_bits(&entry).await,
            _ => Err(inconsistent(name)),
        }
    }

    fn entry(&self, name: &str) -> io::Result<Entry> {
        let entries = self.bitmaps.entries();
        let found = entries.iter().find(|entry| entry.name == name.as_bytes()).cloned();
        found.ok_or_else(|| refused(format!("Dirty bitmap '{name}' not found")))
    }

    /// The bits that the file has, whatever its flags say.
    async fn load_bits(&self, entry: &Entry) -> io::Result<Bitmap> {
        let header = self.header.borrow().clone();
        let mut bits = clean(self.size.get(), entry.granularity_bits)?;
        let cluster = header.cluster_size();
        if u64::from(entry.table_entries) != bits.bit_bytes().div_ceil(cluster).max(1) {
            return Err(errno(libc::EINVAL));
        }
        let table = entry.load_table(&*self.file, &header).await?;
        for (at, word) in (0u64..).step_by(cluster as usize).zip(table) {
            let len = (bits.bit_bytes() - at).min(cluster);
            match word & OFFSET_MASK {
                0 if word & ALL_ONES != 0 => bits.set_bits(at, &vec![0xff; len as usize]),
                0 => {}
                // Of an image that was cut off, nobody knows what these bits were.
                offset if offset.saturating_add(len) > self.file.info().size => {
                    return Err(errno(libc::EINVAL));
                }
                offset => bits.set_bits(at, &load(&*self.file, offset, len).await?),
            }
        }
        Ok(bits)
    }

    /// Changes one bitmap.
    ///
    /// # Errors
    /// Those of the file; what speaks against it, in words that clients know. Nothing has changed
    /// then.
    pub async fn change_bitmap(&self, name: &str, change: BitmapChange<'_>) -> io::Result<()> {
        self.begin_change().await?;
        if let BitmapChange::Add { granularity, enabled } = change {
            return self.add_bitmap(name, granularity, enabled).await;
        }
        let entry = self.entry(name)?;
        if matches!(change, BitmapChange::Remove) {
            let gone = entry.clone();
            self.switch_directory(&[], &[gone]).await?;
            self.bitmaps.unfollow(&entry.name);
            return Ok(());
        }
        let live = self.bitmaps.live().contains_key(&entry.name);
        if entry.flags & IN_USE != 0 && !live {
            return Err(inconsistent(name));
        }
        match change {
            BitmapChange::Add { .. } | BitmapChange::Remove => Ok(()),
            BitmapChange::Clear => {
                let none = clean(self.size.get(), entry.granularity_bits)?;
                self.replace_bits(&entry, none).await
            }
            BitmapChange::Merge(other) => {
                let mut bits = self.bitmap(name).await?;
                bits.merge(other);
                self.replace_bits(&entry, bits).await
            }
            BitmapChange::Enable if live => Ok(()),
            BitmapChange::Enable => {
                self.has_room(entry.granularity_bits)?;
                let bits = self.load_bits(&entry).await?;
                self.set_flags_of(&entry, AUTO | IN_USE).await?;
                self.bitmaps.follow(&entry.name, bits, false);
                Ok(())
            }
            BitmapChange::Disable if !live => self.set_flags_of(&entry, 0).await,
            BitmapChange::Disable => {
                let bits = self.bitmap(name).await?;
                self.put_bits(&entry, 0, &bits).await?;
                self.bitmaps.unfollow(&entry.name);
                Ok(())
            }
        }
    }

    /// Adds a bitmap in which nothing is dirty. `granularity`: bytes that a bit stands for; a
    /// cluster, of 4 KiB to 64 KiB, when nothing is said.
    async fn add_bitmap(
        &self,
        name: &str,
        granularity: Option<u64>,
        enabled: bool,
    ) -> io::Result<()> {
        if self.header.borrow().version < 3 {
            return Err(refused(format!(
                "Can't make bitmap '{name}' persistent: Cannot store dirty bitmaps in qcow2 v2 \
                 files"
            )));
        }
        let usual = self.geometry().cluster().clamp(4096, 65536);
        let granularity = granularity.unwrap_or(usual);
        let bits = granularity.trailing_zeros() as u8;
        if !granularity.is_power_of_two() || bits < *GRANULARITY_BITS.start() {
            return Err(refused("Granularity must be power of 2 and at least 512".into()));
        }
        if bits > *GRANULARITY_BITS.end() {
            return Err(refused("Granularity must be at most 2 GiB".into()));
        }
        if !(1..=MAX_NAME).contains(&name.len()) {
            return Err(refused("Bitmap name must be of 1 to 1023 bytes".into()));
        }
        if self.entry(name).is_ok() {
            return Err(refused(format!("Bitmap already exists: {name}")));
        }
        let none = clean(self.size.get(), bits)?;
        if enabled {
            self.has_room(bits)?;
        }
        let entry = Entry {
            table_offset: 0,
            table_entries: 0,
            flags: if enabled { AUTO | IN_USE } else { 0 },
            granularity_bits: bits,
            name: name.as_bytes().to_vec(),
            extra: Vec::new(),
        };
        let entry = self.write_bits(entry, &none).await?;
        self.switch_directory(&[entry], &[]).await?;
        if enabled {
            self.bitmaps.follow(name.as_bytes(), none, false);
        }
        Ok(())
    }

    /// One more bitmap may follow the writes.
    fn has_room(&self, granularity_bits: u8) -> io::Result<()> {
        let none = clean(self.size.get(), granularity_bits)?;
        let text = "Too many bitmaps are enabled";
        self.bitmaps.has_room(&none).then_some(()).ok_or_else(|| refused(text.into()))
    }

    /// Gives a valid bitmap other bits: in memory, if it is there, or else in the file.
    async fn replace_bits(&self, entry: &Entry, bits: Bitmap) -> io::Result<()> {
        if self.bitmaps.live().contains_key(&entry.name) {
            self.bitmaps.follow(&entry.name, bits, true);
            return Ok(());
        }
        self.put_bits(entry, entry.flags, &bits).await
    }

    /// Writes the bits of a bitmap, and flags, to the file.
    async fn put_bits(&self, old: &Entry, flags: u32, bits: &Bitmap) -> io::Result<()> {
        let flags = flags & (AUTO | IN_USE) | old.flags & !(AUTO | IN_USE);
        let new = self.write_bits(Entry { flags, ..old.clone() }, bits).await?;
        self.switch_directory(&[new], std::slice::from_ref(old)).await
    }

    /// Writes the flags of one bitmap.
    async fn set_flags_of(&self, entry: &Entry, flags: u32) -> io::Result<()> {
        let mut entries = self.bitmaps.entries().clone();
        for one in entries.iter_mut().filter(|one| one.name == entry.name) {
            one.flags = flags | one.flags & !(AUTO | IN_USE);
        }
        self.write_flags(entries).await
    }

    /// Writes entries of which only flags have changed over those in the file, durably.
    async fn write_flags(&self, entries: Vec<Entry>) -> io::Result<()> {
        let place = self.header.borrow().bitmaps.ok_or(errno(libc::EINVAL))?;
        let data = serialise_directory(&entries)?;
        if data.len() as u64 != place.size {
            return Err(errno(libc::EINVAL));
        }
        self.file.flush().await?;
        self.check_overlap(place.offset, place.size).await?;
        store(&*self.file, place.offset, &data).await?;
        self.file.flush().await?;
        self.bitmaps.set_entries(entries);
        Ok(())
    }

    /// Writes bits to new places; the entry that refers to them.
    async fn write_bits(&self, mut entry: Entry, bits: &Bitmap) -> io::Result<Entry> {
        self.begin_change().await?;
        let cluster = self.geometry().cluster();
        let mut places = Vec::new();
        let written = async {
            let mut table = Vec::new();
            for at in (0..bits.bit_bytes()).step_by(cluster as usize) {
                let word = match bits.bits(at, cluster) {
                    None => 0,
                    Some(part) if part.iter().all(|byte| *byte == 0xff) => ALL_ONES,
                    Some(part) => self.write_place(&mut places, &part).await?,
                };
                table.extend_from_slice(&word.to_be_bytes());
            }
            // That of an empty disk has one, too: a table of none belongs to nobody.
            table.resize(table.len().max(8), 0);
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

    /// Switches the header to a directory with `new` entries, in the place of those of their names
    /// or behind all, and without the others of `gone`; gives up what `gone` refers to. If it
    /// cannot, what `new` refers to, and nothing has changed.
    async fn switch_directory(&self, new: &[Entry], gone: &[Entry]) -> io::Result<()> {
        let mut entries = self.bitmaps.entries().clone();
        let mut by_name: BTreeMap<_, _> = new.iter().map(|entry| (&entry.name, entry)).collect();
        let gone_names: BTreeSet<_> = gone.iter().map(|entry| &entry.name).collect();
        entries.retain_mut(|old| match by_name.remove(&old.name) {
            None => !gone_names.contains(&old.name),
            Some(entry) => {
                old.clone_from(entry);
                true
            }
        });
        entries.extend(by_name.into_values().cloned());
        let place = match self.write_directory(&entries).await {
            Ok(place) => place,
            Err(error) => {
                for entry in new {
                    let _ = self.free_bits(entry).await;
                }
                return Err(error);
            }
        };
        let old = self.header.borrow().clone();
        let change = |header: &mut Header| {
            header.bitmaps = place;
            header.autoclear &= !BITMAPS;
            header.autoclear |= if place.is_some() { BITMAPS } else { 0 };
        };
        if let Err(error) = self.change_header(change).await {
            if self.alive().is_ok() {
                for entry in new {
                    let _ = self.free_bits(entry).await;
                }
                if let Some(place) = place {
                    let _ = self.lower(place.offset, place.size, Freed::Unused).await;
                }
            }
            return Err(error);
        }
        self.bitmaps.set_entries(entries);
        let free = async {
            if let Some(place) = old.bitmaps.filter(|_| old.autoclear & BITMAPS != 0) {
                self.lower(place.offset, place.size, Freed::Other).await?;
            }
            for entry in gone {
                self.free_bits(entry).await?;
            }
            self.counts_durable().await
        };
        // It is done all the same; at worst room is lost.
        free.await.unwrap_or_else(|error| tracing::warn!(%error, "old bitmaps still take room"));
        Ok(())
    }

    /// Writes a directory to a new place, durably with all it refers to.
    async fn write_directory(&self, entries: &[Entry]) -> io::Result<Option<BitmapDirectory>> {
        self.begin_change().await?;
        let mut places = Vec::new();
        let write = async {
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
        let written: io::Result<_> = write.await;
        if written.is_err() {
            for (offset, len) in places {
                let _ = self.lower(offset, len, Freed::Unused).await;
            }
        }
        written
    }

    /// Gives up what an entry refers to.
    async fn free_bits(&self, entry: &Entry) -> io::Result<()> {
        let header = self.header.borrow().clone();
        let table = entry.load_table(&*self.file, &header).await?;
        for offset in table.iter().map(|word| word & OFFSET_MASK).filter(|offset| *offset != 0) {
            self.lower(offset, header.cluster_size(), Freed::Other).await?;
        }
        let bytes = u64::from(entry.table_entries) * 8;
        self.lower(entry.table_offset, bytes, Freed::Other).await
    }
}

#[cfg(test)]
#[path = "../tests/bitmap.rs"]
mod tests;
