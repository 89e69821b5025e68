//! Finding and reading what the guest sees.
//!
//! A request whose clusters are allocated, follow one another and have their table in memory goes
//! to the file as it is. On the image's loop; entries come from the image, and offsets behind the
//! end of the file read as zeros.

use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use super::Qcow2;
use super::geometry::{Entry, Run, What};
use super::sync::join;
use super::{bytes::errno, compress, crypt};
use crate::node::{Extent, Node, Op, State};

/// Operations of one request at the same time, at most.
const MOST_OPS: usize = 64;
/// Slices looked at for one answer of [`map`](Node::map), at most.
const MOST_SLICES: usize = 64;

/// Reads what there is; zeros behind the end of the node. A file of the host does so by itself,
/// and others refuse it.
async fn read_there(node: &dyn Node, at: u64, buf: IoBuf) -> io::Result<()> {
    let there = node.info().size.saturating_sub(at);
    if there >= buf.len() as u64 {
        return node.read(at, buf).await;
    }
    let len = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
    buf.skip(len).fill(0);
    if len == 0 { Ok(()) } else { node.read(at, buf.slice(0..len)).await }
}

/// What can be said without waiting.
pub(super) enum Now {
    /// What is there.
    Run(Run),
    /// This slice has to be read first.
    Load(u64),
}

impl Qcow2 {
    /// What lies at `guest`, up to `len` bytes; or what is to be read to know that.
    pub(super) fn run_now(&self, guest: u64, len: u64) -> io::Result<Now> {
        let geometry = self.geometry();
        let Some(table) = self.table_of(guest)? else {
            let len = len.min(geometry.left_in_table(guest)).max(1);
            return Ok(Now::Run(Run { what: What::Absent, len, copied: false }));
        };
        let (slice, _) = geometry.in_slice(guest);
        match self.l2.look(table + slice, |data| geometry.scan(data, guest, len)) {
            Some(Ok(run)) => Ok(Now::Run(run)),
            Some(Err(error)) => {
                let message = format!("L2 entry of guest offset {guest:#x} is damaged");
                self.corrupt(message, Some(table), None, false);
                Err(error)
            }
            None => Ok(Now::Load(table + slice)),
        }
    }

    /// What lies at `guest`, up to `len` bytes.
    pub(super) async fn run(&self, guest: u64, len: u64) -> io::Result<Run> {
        loop {
            match self.run_now(guest, len)? {
                Now::Run(run) => return Ok(run),
                Now::Load(at) => self.load_l2(at).await?,
            }
        }
    }

    pub(super) fn read_now(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        let len = buf.len() as u64;
        if !self.is_encrypted()
            && let Ok(Now::Run(Run { what: What::Data(host), len: there, .. })) =
                self.run_now(offset, len)
            && there >= len
        {
            let guard = self.epochs.enter();
            return Box::pin(async move {
                self.step("read_aio").await?;
                let done = read_there(&*self.data, host, buf).await;
                drop(guard);
                done
            });
        }
        Box::pin(self.read_range(offset, buf))
    }

    /// Reads what the guest sees, wherever it is; also behind the end of the disk.
    pub(super) async fn read_range(&self, offset: u64, buf: IoBuf) -> io::Result<()> {
        let mut ops: Vec<Op<'_>> = Vec::new();
        let mut done = 0;
        while done < buf.len() {
            let at = offset.checked_add(done as u64).ok_or(errno(libc::EINVAL))?;
            let run = self.run(at, (buf.len() - done) as u64).await?;
            let len = usize::try_from(run.len).unwrap_or(usize::MAX).min(buf.len() - done);
            let part = buf.slice(done..done + len);
            done += len;
            match run.what {
                What::Zero => part.fill(0),
                What::Absent => match self.below() {
                    None => part.fill(0),
                    Some(backing) => ops.push(Box::pin(self.read_below(backing, at, part))),
                },
                // The guards are taken now: what the entries say holds until they are dropped.
                What::Data(host) => {
                    let guard = self.epochs.enter();
                    ops.push(Box::pin(async move {
                        self.step("read_aio").await?;
                        let done = self.read_data(at, host, part).await;
                        drop(guard);
                        done
                    }));
                }
                What::Compressed(entry) => {
                    let guard = self.epochs.enter();
                    ops.push(Box::pin(async move {
                        let done = self.read_packed(at, entry, part).await;
                        drop(guard);
                        done
                    }));
                }
            }
            if ops.len() >= MOST_OPS {
                join(std::mem::take(&mut ops)).await?;
            }
        }
        join(ops).await
    }

    async fn read_data(&self, guest: u64, host: u64, buf: IoBuf) -> io::Result<()> {
        if !self.is_encrypted() {
            return read_there(&*self.data, host, buf).await;
        }
        let key = self.key()?;
        let head = (guest & 511) as usize;
        let whole = IoBuf::zeroed((head + buf.len()).next_multiple_of(512));
        read_there(&*self.data, host - head as u64, whole.clone()).await?;
        let mut bytes = whole.to_vec();
        crypt::decrypt(&key, guest - head as u64, &mut bytes);
        buf.copy_from(0, bytes.get(head..).unwrap_or_default());
        Ok(())
    }

    async fn read_packed(&self, guest: u64, entry: Entry, buf: IoBuf) -> io::Result<()> {
        let geometry = self.geometry();
        let within = geometry.within(guest) as usize;
        let known = self.unpacked.borrow().clone().filter(|(word, _)| *word == entry.word);
        let cluster = match known {
            Some((_, cluster)) => cluster,
            None => {
                self.step("read_compressed").await?;
                let (host, len) = geometry.compressed(entry);
                let packed = IoBuf::zeroed(len as usize);
                read_there(&*self.file, host, packed.clone()).await?;
                let kind = self.header.borrow().compression;
                let size = geometry.cluster() as usize;
                let unpack = move || compress::unpack(kind, &packed.to_vec(), size);
                let cluster = self.local.pool(unpack).await??;
                let cluster = IoBuf::copy_of(&cluster);
                *self.unpacked.borrow_mut() = Some((entry.word, cluster.clone()));
                cluster
            }
        };
        buf.copy_from_buf(&cluster.skip(within));
        Ok(())
    }

    /// What shows where the image has nothing.
    pub(super) fn below(&self) -> Option<Rc<dyn Node>> {
        self.backing.borrow().clone()
    }

    /// Reads from below; zeros behind its end.
    async fn read_below(&self, backing: Rc<dyn Node>, at: u64, buf: IoBuf) -> io::Result<()> {
        if backing.info().size > at {
            self.step("read_backing_aio").await?;
        }
        read_there(&*backing, at, buf).await
    }

    /// What [`Node::map`] tells.
    pub(super) async fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        let len = len.min(self.size.get().saturating_sub(offset));
        let tell = |run: Run| match run.what {
            What::Absent => (State::Absent, None),
            What::Zero => (State::Zero, None),
            What::Data(host) if !self.is_encrypted() => (State::Data, Some(host)),
            What::Data(_) | What::Compressed(_) => (State::Data, None),
        };
        if len == 0 {
            return Ok(Extent { len, state: State::Absent, offset: None });
        }
        let first = self.run(offset, len).await?;
        let (state, place) = tell(first);
        let mut total = first.len;
        for _ in 0..MOST_SLICES {
            if total >= len {
                break;
            }
            let Some(at) = offset.checked_add(total) else { break };
            let next = self.run(at, len - total).await?;
            if tell(next) != (state, place.map(|place| place + total)) {
                break;
            }
            total += next.len;
        }
        Ok(Extent { len: total.min(len), state, offset: place })
    }
}
