//! The saved state of a machine in an image of its disk: a stream that is written behind the
//! disk's contents and belongs to the snapshot that is taken then.
//!
//! Any thread but the loop of the drive's graph, for which both ways wait, one piece at a time.
//! What is read is whoever's made the image: how much of it there is has a bound that the reader
//! is given.

use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use resources::iol::{IoBuf, Remote};

use crate::drive::Drive;
use crate::node::Node;

/// Bytes that go to the image, or come from it, at once.
const PIECE: usize = 1 << 20;

fn no_image() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

/// Writes the state of a machine into the topmost image of a drive, on which nothing else is under
/// way ([`Drive::hold`]) until a snapshot has it.
pub struct Writer {
    drive: Arc<Drive>,
    piece: Vec<u8>,
    /// Bytes that are in the image.
    at: u64,
}

impl Writer {
    /// A state that begins.
    pub fn new(drive: &Arc<Drive>) -> Writer {
        Writer { drive: drive.clone(), piece: Vec::with_capacity(PIECE), at: 0 }
    }

    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.at.saturating_add(self.piece.len() as u64)
    }

    fn send(&mut self) -> io::Result<()> {
        let buf = IoBuf::copy_of(&self.piece);
        let at = self.at;
        let done = self.drive.on_loop(move |_, disk| async move {
            let node = disk.node();
            node.image().ok_or_else(no_image)?.write_vmstate(at, buf).await
        });
        done??;
        self.at = self.written();
        self.piece.clear();
        Ok(())
    }

    /// Writes what is left and makes all of it durable.
    ///
    /// # Errors
    /// What the host reports.
    pub fn finish(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.send()?;
        }
        let done = self.drive.on_loop(|_, disk| async move { disk.node().flush().await });
        done?
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        let len = bytes.len().min(PIECE.saturating_sub(self.piece.len()));
        self.piece.extend_from_slice(bytes.get(..len).unwrap_or_default());
        Ok(len)
    }

    /// Pieces are written when they are whole: see [`finish`](Writer::finish).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives up what a drive's image has of a machine's state outside of snapshots, such as one that
/// was not written to its end.
///
/// # Errors
/// What the host reports.
pub fn discard(drive: &Drive) -> io::Result<()> {
    let done = drive.on_loop(|_, disk| async move {
        let _held = disk.drain().await;
        let node = disk.node();
        node.image().ok_or_else(no_image)?.discard_vmstate().await
    });
    done?
}

/// A snapshot, open beside the disk.
struct View(Rc<dyn Node>);

/// Reads the state of a machine from a snapshot in the topmost image of a drive. The disk is not
/// changed by it, and can be in use meanwhile; the snapshot stays as long.
pub struct Reader {
    drive: Arc<Drive>,
    view: Arc<Remote<View>>,
    piece: Vec<u8>,
    /// How far the piece was read.
    read: usize,
    /// Bytes of the state that were fetched, and all.
    at: u64,
    end: u64,
    /// More than this is not read.
    most: u64,
}

impl Reader {
    /// The state in the snapshot of this identity, which has so many bytes as it says; to read
    /// more than `most` fails.
    ///
    /// # Errors
    /// There is no such snapshot, or it cannot be read.
    pub fn open(drive: &Arc<Drive>, id: &str, len: u64, most: u64) -> io::Result<Reader> {
        let id = id.to_owned();
        let view = drive.on_loop(move |local, disk| async move {
            let _held = disk.drain().await;
            let node = disk.node();
            let view = node.image().ok_or_else(no_image)?.view_snapshot(&id).await?;
            Ok::<_, io::Error>(Arc::new(local.keep(Rc::new(View(view)))))
        });
        let view = view??;
        let drive = drive.clone();
        Ok(Reader { drive, view, piece: Vec::new(), read: 0, at: 0, end: len, most })
    }

    fn fetch(&mut self) -> io::Result<()> {
        let len = PIECE.min(usize::try_from(self.end - self.at).unwrap_or(PIECE));
        if self.at >= self.most {
            return Err(io::Error::other(format!(
                "the state has {} bytes, more than this machine's can have",
                self.end
            )));
        }
        let (view, at) = (self.view.clone(), self.at);
        let piece = self.drive.on_loop(move |local, _| async move {
            let gone = || io::Error::other("the snapshot is not open");
            let view = view.get(&local).ok_or_else(gone)?;
            let buf = IoBuf::zeroed(len);
            view.0.image().ok_or_else(no_image)?.read_vmstate(at, buf.clone()).await?;
            Ok::<_, io::Error>(buf.to_vec())
        });
        self.piece = piece??;
        (self.read, self.at) = (0, self.at.saturating_add(len as u64));
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.piece.len() {
            if self.at >= self.end {
                return Ok(0);
            }
            self.fetch()?;
        }
        let have = self.piece.get(self.read..).unwrap_or_default();
        let len = have.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(have) {
            *to = *from;
        }
        self.read = self.read.saturating_add(len);
        Ok(len)
    }
}
