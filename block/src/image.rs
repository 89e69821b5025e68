//! What a format with metadata can do beyond what every node can.
//!
//! On its loop, no lock. Names, sizes and tables come from the image: whoever made it.

use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use crate::dirty::Bitmap;
use crate::node::{Node, Op};
use crate::options::Options;
use crate::qcow2::Preallocation;

/// The backing file as the image names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingFile {
    /// Its name, as it is written in the image.
    pub name: String,
    /// Its format, if the image tells.
    pub format: Option<String>,
}

/// What is told about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of one cluster.
    pub cluster_size: Option<u64>,
    /// Its contents are encrypted.
    pub encrypted: bool,
    /// It was not closed, and its metadata may be behind.
    pub dirty: bool,
    /// Its metadata are known to be damaged.
    pub corrupt: bool,
    /// Bytes in front of the saved states of machines: where `vmstate` begins in the image.
    pub vmstate_offset: Option<u64>,
    /// What only this format has, in the order it is told.
    pub specific: Vec<(&'static str, Fact)>,
}

/// One thing that a format tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A word.
    Text(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Several words.
    Words(Vec<&'static str>),
    /// Several, each with members.
    List(Vec<Vec<(&'static str, Fact)>>),
}

/// What a check is to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    No,
    /// Clusters that nobody uses.
    Leaks,
    /// Everything.
    All,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Damage that was there and is not mended.
    pub corruptions: u64,
    /// Clusters that nobody uses, not mended.
    pub leaks: u64,
    /// What could not be looked at.
    pub check_errors: u64,
    /// Damage mended.
    pub corruptions_fixed: u64,
    /// Leaks mended.
    pub leaks_fixed: u64,
    /// Where the last cluster in use ends, in bytes.
    pub image_end_offset: u64,
    /// Clusters of the guest's disk.
    pub total_clusters: u64,
    /// Those that are allocated.
    pub allocated_clusters: u64,
    /// Those that do not follow the one before them.
    pub fragmented_clusters: u64,
    /// Those that are compressed.
    pub compressed_clusters: u64,
    /// One line for each finding, up to a bound.
    pub lines: Vec<String>,
}

/// A snapshot inside an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// A number in text, unique.
    pub id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// Bytes of the machine's saved state.
    pub vm_state_size: u64,
    /// When it was taken: seconds and nanoseconds since 1970.
    pub date: (u32, u32),
    /// The guest's clock then, in nanoseconds.
    pub vm_clock: u64,
    /// The size of the disk then, in bytes.
    pub disk_size: u64,
}

/// A dirty bitmap that is kept in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistentBitmap {
    /// Its name, unique in the image.
    pub name: String,
    /// Bytes of the disk that a bit stands for: a power of two.
    pub granularity: u64,
    /// It was being changed when its program ended: nobody knows what it misses.
    pub inconsistent: bool,
    /// Whoever writes the disk keeps it up to date.
    pub enabled: bool,
}

/// What is done to a dirty bitmap of an image.
#[derive(Debug, Clone, Copy)]
pub enum BitmapChange<'a> {
    /// It is new, with nothing dirty.
    Add {
        /// Bytes that a bit stands for: a power of two from 512 to 2 GiB. The image chooses when
        /// nothing is said.
        granularity: Option<u64>,
        /// Whoever writes the disk keeps it up to date.
        enabled: bool,
    },
    /// It goes.
    Remove,
    /// Nothing is dirty in it any more.
    Clear,
    /// From now on it is kept up to date.
    Enable,
    /// It stays as it is.
    Disable,
    /// What is dirty here is dirty in it too.
    Merge(&'a Bitmap),
}

/// A format with metadata. What it does not have answers `Unsupported`.
pub trait Image {
    /// The name of the format.
    fn format(&self) -> &'static str;

    /// What is told about it.
    fn facts(&self) -> Facts;

    /// What shows where it has nothing.
    fn backing(&self) -> Option<Rc<dyn Node>> {
        None
    }

    /// Puts another node below it, whose contents look the same where they show. The image's own
    /// words about its backing file stay.
    fn set_backing(&self, _backing: Option<Rc<dyn Node>>) {}

    /// The backing file that the image names.
    fn backing_file(&self) -> Option<BackingFile> {
        None
    }

    /// Has the image name another backing file, durably.
    fn change_backing_file(&self, _backing: Option<BackingFile>) -> Op<'_> {
        unsupported()
    }

    /// Looks at all metadata, and mends some.
    fn check(&self, _repair: Repair) -> Op<'_, Check> {
        unsupported()
    }

    /// Its snapshots, in the order of their making. `None` when the format has none at all.
    fn snapshots(&self) -> Option<Vec<Snapshot>> {
        None
    }

    /// Takes a snapshot of the disk. An empty identity in it is chosen by the image; returned is what
    /// it has become. Nothing else is under way.
    fn create_snapshot(&self, _snapshot: Snapshot) -> Op<'_, Snapshot> {
        unsupported()
    }

    /// Removes the snapshot with this identity. Nothing else is under way.
    fn delete_snapshot(&self, _id: &str) -> Op<'_> {
        unsupported()
    }

    /// Gives the snapshot with this identity another one, which no other has. Nothing else is under
    /// way.
    fn identify_snapshot<'a>(&'a self, _id: &'a str, _to: &'a str) -> Op<'a> {
        unsupported()
    }

    /// Makes the disk what it was at a snapshot. Nothing else is under way.
    fn apply_snapshot(&self, _id: &str) -> Op<'_> {
        unsupported()
    }

    /// Shows the disk of a snapshot, by its identity or its name as it was given, in place of its
    /// own. Only what was opened to be read.
    fn show_snapshot<'a>(&'a self, _id: Option<&'a str>, _name: Option<&'a str>) -> Op<'a> {
        unsupported()
    }

    /// The dirty bitmaps that are kept in it. `None` when the format has none at all.
    fn bitmaps(&self) -> Option<Vec<PersistentBitmap>> {
        None
    }

    /// What is dirty in the bitmap of this name, which is valid.
    fn bitmap<'a>(&'a self, _name: &'a str) -> Op<'a, Bitmap> {
        unsupported()
    }

    /// Changes the bitmap of this name, durably or, if it follows the writes, when the image is
    /// closed. Nothing else is under way. Errors are in words that clients know.
    fn change_bitmap<'a>(&'a self, _name: &'a str, _change: BitmapChange<'a>) -> Op<'a> {
        unsupported()
    }

    /// Changes what the image is, by options as a new image has them; those that are known are
    /// taken. Nothing else is under way. Errors are in words that clients know.
    fn amend<'a>(&'a self, _options: &'a mut Options) -> Op<'a> {
        unsupported()
    }

    /// Reads of the saved state of a machine; zeros where nothing was written.
    fn read_vmstate(&self, _offset: u64, _buf: IoBuf) -> Op<'_> {
        unsupported()
    }

    /// Writes of the saved state of a machine. Nothing else is under way.
    fn write_vmstate(&self, _offset: u64, _buf: IoBuf) -> Op<'_> {
        unsupported()
    }

    /// Gives up the saved state of a machine that no snapshot has. Nothing else is under way.
    fn discard_vmstate(&self) -> Op<'_> {
        unsupported()
    }

    /// The snapshot of this identity as an image of its own, to be read beside this one, which may
    /// be in use again then. Nothing else is under way.
    fn view_snapshot<'a>(&'a self, _id: &'a str) -> Op<'a, Rc<dyn Node>> {
        unsupported()
    }

    /// Gives a part of the disk, which was made larger by it, room in the file. Nothing else is
    /// under way.
    fn preallocate(&self, _from: u64, _to: u64, _how: Preallocation) -> Op<'_> {
        unsupported()
    }

    /// Forgets its own contents, so that the backing file shows everywhere.
    fn make_empty(&self) -> Op<'_> {
        unsupported()
    }

    /// Gives a key; the contents cannot be used before. Legacy AES takes every one.
    fn set_key(&self, _password: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// It is encrypted and has no key yet.
    fn needs_key(&self) -> bool {
        false
    }
}

fn unsupported<'a, T: 'a>() -> Op<'a, T> {
    Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
}
