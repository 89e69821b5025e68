//! `rng-*`: sources of random bytes for a guest.
//!
//! Made on the main thread and read on the I/O loop of the device that has it, by any number of
//! tasks. How much a guest may have in which time is the device's to say; a reader holds the bytes
//! it asked for and nothing more is stored. The daemon behind `rng-egd` is not trusted: it can
//! keep bytes back, and what it sends unasked is not read.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use devices::chardev::{CharEvent, CharFrontend, Chardev};
use devices::entropy::{Entropy, HostEntropy, MAX_READ, Reading};
use parking_lot::Mutex;
use resources::fdset;
use resources::iol::{Local, Notify};
use resources::props::{Kind, Prop};
use rustix::fs::{Mode, OFlags};

use super::{Object, ObjectError, ObjectType, reason};

/// A device or file, `/dev/random` unless told otherwise.
pub(super) const RANDOM: ObjectType = ObjectType {
    name: "rng-random",
    parent: "rng-backend",
    props: &[Prop {
        name: "filename",
        kind: Kind::Str,
        default: Some("/dev/random"),
        help: "what to read",
    }],
    needs: &[],
    create: |props, _| {
        let path: &str = props.get("filename")?;
        // Without blocking, so that a pipe nobody writes to cannot hold up the machine.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fdset::open(path, flags, Mode::empty()).map_err(|error| {
            ObjectError::Refused(format!("Could not open '{path}': {}", reason(&error)))
        })?;
        Ok(Object::Rng(Arc::new(Random(file))))
    },
};

/// The host kernel's generator, without a file.
pub(super) const BUILTIN: ObjectType = ObjectType {
    name: "rng-builtin",
    parent: "rng-backend",
    props: &[],
    needs: &[],
    create: |_, _| Ok(Object::Rng(Arc::new(HostEntropy))),
};

/// A daemon of the entropy gathering protocol behind a chardev.
pub(super) const EGD: ObjectType = ObjectType {
    name: "rng-egd",
    parent: "rng-backend",
    props: &[Prop {
        name: "chardev",
        kind: Kind::Chardev,
        default: None,
        help: "where the daemon is",
    }],
    needs: &["chardev"],
    create: |props, ctx| {
        let id: &str = props.get("chardev")?;
        let in_use = || ObjectError::Refused(format!("Device '{id}' is in use"));
        let chardev = match (ctx.chardevs)(id) {
            None => return Err(ObjectError::NoChardev(id.to_owned())),
            Some(found) => found.map_err(|_| in_use())?,
        };
        let front = Arc::new(Front { chardev: chardev.clone(), asked: Mutex::default() });
        chardev.attach(front.clone()).map_err(|_| in_use())?;
        Ok(Object::Rng(Arc::new(Egd(front))))
    },
};

struct Random(fdset::File);

impl Entropy for Random {
    fn read<'a>(&'a self, on: &'a Local, len: usize) -> Reading<'a> {
        Box::pin(async move {
            let mut bytes = vec![0; len.min(MAX_READ)];
            let mut read = |mut file: &std::fs::File| file.read(&mut bytes);
            let got = match read(&self.0) {
                // Of a descriptor of its own, because each is watched by one task.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let watch =
                        on.watch(std::fs::File::from(OwnedFd::from(self.0.try_clone()?)))?;
                    watch.io(resources::iol::Direction::Read, |file| read(file)).await
                }
                done => done,
            }?;
            if got == 0 && len > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.truncate(got);
            Ok(bytes)
        })
    }
}

/// The client of a daemon.
struct Egd(Arc<Front>);

/// The command for "so many bytes, as soon as you have them", and the most bytes it takes.
const READ: u8 = 2;
const MOST: usize = 255;

struct Front {
    chardev: Arc<Chardev>,
    /// Locked before the chardev's own locks, and never while a reader is woken.
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    connected: bool,
    /// Readers, the one asked for first in front; those given up stay until answered, or taken
    /// over by one with as much room. So each that stays is shorter than those given up before,
    /// and a guest that asks and gives up without end has no more of them than there are lengths.
    readers: VecDeque<Arc<Reader>>,
    /// How many of them the daemon was asked for.
    sent: usize,
    /// What of the requests the chardev has not taken yet.
    out: Vec<u8>,
}

struct Reader {
    want: u8,
    got: Mutex<Vec<u8>>,
    done: Notify,
}

impl Reader {
    /// Nobody waits for it: it was given up.
    fn is_left(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }
}

impl Front {
    /// A reader of at most so many bytes: one that was given up, or a new one.
    fn reader(&self, want: u8) -> Arc<Reader> {
        let mut asked = self.asked.lock();
        let left = asked.readers.iter().find(|reader| reader.is_left() && reader.want <= want);
        if let Some(reader) = left {
            return reader.clone();
        }
        let reader = Arc::new(Reader { want, got: Mutex::default(), done: Notify::new() });
        asked.readers.push_back(reader.clone());
        reader
    }

    /// Asks for what has not been asked for.
    fn ask(&self) {
        let mut asked = self.asked.lock();
        if !asked.connected {
            return;
        }
        let Asked { readers, sent, out, .. } = &mut *asked;
        for reader in readers.iter().skip(*sent) {
            out.extend([READ, reader.want]);
        }
        *sent = readers.len();
        let taken = self.chardev.write(out);
        out.drain(..taken.min(out.len()));
    }
}

impl CharFrontend for Front {
    fn can_receive(&self) -> usize {
        let asked = self.asked.lock();
        let open =
            |reader: &Arc<Reader>| usize::from(reader.want).saturating_sub(reader.got.lock().len());
        asked.readers.iter().take(asked.sent).map(open).sum()
    }

    fn receive(&self, mut data: &[u8]) {
        let mut answered = Vec::new();
        {
            let mut asked = self.asked.lock();
            while let (true, false, Some(reader)) =
                (asked.sent > 0, data.is_empty(), asked.readers.front().cloned())
            {
                let mut got = reader.got.lock();
                let room = usize::from(reader.want).saturating_sub(got.len()).min(data.len());
                let (these, rest) = data.split_at(room);
                got.extend_from_slice(these);
                data = rest;
                if got.len() == usize::from(reader.want) {
                    drop(got);
                    asked.readers.pop_front();
                    asked.sent -= 1;
                    answered.push(reader);
                }
            }
        }
        answered.iter().for_each(|reader| reader.done.notify());
    }

    fn event(&self, event: CharEvent) {
        {
            let mut asked = self.asked.lock();
            match event {
                CharEvent::Opened => asked.connected = true,
                // The next daemon is asked anew; nobody waits for what was given up.
                CharEvent::Closed => {
                    asked.connected = false;
                    asked.sent = 0;
                    asked.out.clear();
                    asked.readers.retain(|reader| !reader.is_left());
                    asked.readers.iter().for_each(|reader| reader.got.lock().clear());
                }
                _ => {}
            }
        }
        self.ask();
    }

    fn writable(&self) {
        self.ask();
    }
}

impl Entropy for Egd {
    fn read<'a>(&'a self, _: &'a Local, len: usize) -> Reading<'a> {
        Box::pin(async move {
            let Ok(want @ 1..) = u8::try_from(len.min(MOST)) else { return Ok(Vec::new()) };
            let reader = self.0.reader(want);
            self.0.ask();
            self.0.chardev.accept_input();
            reader.done.notified().await;
            Ok(std::mem::take(&mut *reader.got.lock()))
        })
    }
}

impl Drop for Egd {
    fn drop(&mut self) {
        self.0.chardev.detach();
    }
}

#[cfg(test)]
mod tests {
    use devices::chardev::{Backend, Null};
    use resources::iol::{Loop, race};

    use super::*;

    #[test]
    fn who_gives_up_without_end_leaves_no_more_readers_than_there_are_lengths() {
        let mut on = Loop::new("test").unwrap();
        let chardev = Chardev::open("c", Backend::Null(Null), &on.handle()).unwrap();
        let front = Arc::new(Front { chardev, asked: Mutex::default() });
        let (egd, local) = (Egd(front.clone()), on.local().clone());
        on.run(async {
            for round in 0..2000_usize {
                race(egd.read(&local, 300 - round % 300), std::future::ready(())).await;
            }
            let readers = front.asked.lock().readers.len();
            assert!((1..=MOST).contains(&readers), "{readers}");
        });
    }
}
