//! A file that guest memory is written to, of which most is often zero.
//!
//! Main thread, which waits for the file: a pipe that is read slowly holds up the machine, as the
//! client who named it asked, but one that nobody reads for [`PATIENCE`] is an error. A file takes
//! no room for pages of zeros where it can have holes.

use std::io::{self, Seek, SeekFrom, Write};

use resources::fdset::File;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// What is looked at for zeros, in bytes.
const PAGE: usize = 4096;

/// How long a reader may take nothing, in seconds.
pub const PATIENCE: i64 = 10;

/// What a pipe takes at once, without blocking, when it says that it has room (`PIPE_BUF`).
const PIPE_BUF: usize = 4096;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// How many zeros in a row are written where there can be no hole: an endless file should end.
const MAX_ZEROS: u64 = 1 << 40;

/// A file on its way to be written.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// It can have holes: what lies behind its end reads as zero.
    sparse: bool,
    /// Zeros that come next and are not written yet.
    hole: u64,
    /// There is a reader who must take what is written: a pipe, a socket, a terminal.
    read: bool,
    /// See [`PATIENCE`].
    patience: Timespec,
}

impl Output {
    /// Writes at the file's present place.
    ///
    /// # Errors
    /// When the system does not tell of what kind it is.
    pub fn new(file: File) -> io::Result<Output> {
        let metadata = file.metadata()?;
        let appends = rustix::fs::fcntl_getfl(&file)?.contains(OFlags::APPEND);
        let sparse =
            metadata.is_file() && !appends && (&*file).stream_position()? >= metadata.len();
        let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        Ok(Output { file, sparse, hole: 0, read: !metadata.is_file(), patience })
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        // From the end of the last page of zeros on.
        let mut pending = 0;
        for (index, page) in data.chunks(PAGE).enumerate() {
            if ZEROS.starts_with(page) {
                let at = index * PAGE;
                self.put(data.get(pending..at).unwrap_or_default())?;
                self.zeros(page.len() as u64)?;
                pending = at + page.len();
            }
        }
        self.put(data.get(pending..).unwrap_or_default())
    }

    /// Writes zeros.
    ///
    /// # Errors
    /// What the system says, or that there are too many of them.
    pub fn zeros(&mut self, count: u64) -> io::Result<()> {
        let hole = self.hole.checked_add(count).filter(|hole| self.sparse || *hole <= MAX_ZEROS);
        self.hole = hole.ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> io::Result<()> {
        let hole = self.skip()?;
        if hole > 0 {
            let end = (&*self.file).stream_position()?;
            self.file.set_len(end)?;
        }
        self.file.flush()
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.skip()?;
        self.put_all(data)
    }

    /// Leaves the place of pending zeros behind. How many are a hole now.
    fn skip(&mut self) -> io::Result<u64> {
        let mut hole = std::mem::take(&mut self.hole);
        if self.sparse && hole > 0 {
            let by = i64::try_from(hole).map_err(|_| io::ErrorKind::FileTooLarge)?;
            (&*self.file).seek(SeekFrom::Current(by))?;
            return Ok(hole);
        }
        while hole > 0 {
            let now = hole.min(ZEROS.len() as u64);
            self.put_all(ZEROS.get(..now as usize).unwrap_or(&ZEROS))?;
            hole -= now;
        }
        Ok(0)
    }

    fn put_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut now = data;
            if self.read {
                self.wait_for_room()?;
                now = data.get(..PIPE_BUF).unwrap_or(data);
            }
            match self.file.write(now) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => data = data.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait_for_room(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&self.patience)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    fn temporary(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("output-{name}-{}", std::process::id()))
    }

    fn pattern(file: impl Into<File>) {
        let mut output = Output::new(file.into()).unwrap();
        let mut page = [0; 10_000];
        page[9_000] = 7;
        output.write(&page).unwrap();
        output.zeros(3 << 20).unwrap();
        output.write(&[5; 3]).unwrap();
        output.write(&[0; 5]).unwrap();
        output.write(&[]).unwrap();
        output.finish().unwrap();
    }

    #[test]
    fn a_reader_that_takes_nothing_is_given_up() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let mut output =
            Output::new(std::fs::File::from(std::os::fd::OwnedFd::from(writer)).into());
        let output = output.as_mut().unwrap();
        output.patience = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let error = output.write(&[7; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    fn check(data: &[u8]) {
        assert_eq!(data.len(), 10_000 + (3 << 20) + 8);
        assert_eq!((data[9_000], &data[data.len() - 9..]), (7, &[0, 5, 5, 5, 0, 0, 0, 0, 0][..]));
        assert_eq!(data.iter().filter(|byte| **byte != 0).count(), 4);
    }

    #[test]
    fn zeros_become_holes_at_the_end_of_a_file() {
        let path = temporary("holes");
        pattern(std::fs::File::create(&path).unwrap());
        check(&std::fs::read(&path).unwrap());
        let blocks = std::fs::metadata(&path).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn zeros_are_written_over_what_is_there_and_to_pipes() {
        let path = temporary("over");
        std::fs::write(&path, vec![0xff; 4 << 20]).unwrap();
        pattern(std::fs::File::options().write(true).open(&path).unwrap());
        let data = std::fs::read(&path).unwrap();
        check(&data[..10_000 + (3 << 20) + 8]);
        std::fs::write(&path, [1]).unwrap();
        pattern(std::fs::File::options().append(true).open(&path).unwrap());
        check(&std::fs::read(&path).unwrap()[1..]);
        std::fs::remove_file(path).unwrap();

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let reader = std::thread::spawn(move || {
            let mut data = Vec::new();
            theirs.read_to_end(&mut data).map(|_| data)
        });
        pattern(std::fs::File::from(std::os::fd::OwnedFd::from(ours)));
        check(&reader.join().unwrap().unwrap());
    }

    #[test]
    fn endless_zeros_end() {
        let null = || std::fs::File::options().write(true).open("/dev/null").unwrap().into();
        let mut output = Output::new(null()).unwrap();
        output.zeros(1 << 20).unwrap();
        output.zeros(1 << 62).unwrap_err();
        let path = temporary("endless");
        let mut output = Output::new(std::fs::File::create(&path).unwrap().into()).unwrap();
        output.zeros(1 << 62).unwrap();
        // Where no file system has files so large.
        let _ = output.finish();
        let mut output = Output::new(std::fs::File::create(&path).unwrap().into()).unwrap();
        output.zeros(u64::MAX).unwrap();
        output.zeros(1).unwrap_err();
        output.write(&[1]).unwrap_err();
        std::fs::remove_file(path).unwrap();
        let mut full =
            Output::new(std::fs::File::options().write(true).open("/dev/full").unwrap().into())
                .unwrap();
        full.write(&[1]).unwrap_err();
    }
}
