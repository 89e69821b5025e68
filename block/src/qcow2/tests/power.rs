//! A disk that takes its time and forgets what was not flushed.
//!
//! A disk that loses power keeps, of what was written since the last flush, any subset of sectors.
//! Whoever tests with it gets what could be left, at each flush and at moments between.

use std::cell::{Cell, RefCell};

use super::*;
use crate::node::{Extent, Info, Op, State, Zero};

const SECTOR: usize = 512;

/// A disk. `T` is what the test remembers of each moment.
pub(super) struct Power<T> {
    local: Local,
    state: RefCell<Disk>,
    random: Cell<u64>,
    /// What is remembered of the moments from now on.
    pub(super) now: RefCell<T>,
    moments: RefCell<Vec<Moment<T>>>,
    /// The next write is the guest's data.
    bulk: Cell<bool>,
}

struct Disk {
    now: Vec<u8>,
    durable: Rc<Vec<u8>>,
    pending: Vec<Rc<Write>>,
}

/// A write that is not known to be durable.
struct Write {
    at: usize,
    data: Vec<u8>,
    ended: Cell<bool>,
    bulk: bool,
}

/// What the disk has, and what it may have besides.
struct Moment<T> {
    durable: Rc<Vec<u8>>,
    pending: Vec<Rc<Write>>,
    with: T,
}

/// What becomes of the writes that are not durable.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Nothing,
    Everything,
    /// This write alone.
    One(usize),
    /// Everything but this write.
    AllBut(usize),
    /// Some sectors.
    Some(u64),
}

fn lay(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn next(random: &Cell<u64>, below: u64) -> u64 {
    let mut x = random.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    random.set(x);
    (x >> 11) % below
}

impl<T> Moment<T> {
    /// The ways to lose power that tell most: what was forgotten to be durable before something
    /// else is seen when just one of them is lost, or just one is there.
    fn losses(&self, random: &Cell<u64>) -> Vec<Loss> {
        let mut losses = vec![Loss::Everything];
        if self.pending.is_empty() {
            return losses;
        }
        losses.push(Loss::Nothing);
        if self.pending.len() == 1 && self.pending[0].data.len() <= SECTOR {
            return losses;
        }
        let mut add = |index| losses.extend([Loss::One(index), Loss::AllBut(index)]);
        let (bulk, tables): (Vec<_>, Vec<_>) =
            (0..self.pending.len()).partition(|index| self.pending[*index].bulk);
        tables.into_iter().for_each(&mut add);
        if !bulk.is_empty() {
            add(bulk[next(random, bulk.len() as u64) as usize]);
        }
        losses.extend((0..3).map(|_| Loss::Some(next(random, u64::MAX) | 1)));
        losses
    }

    fn image(&self, loss: Loss) -> Vec<u8> {
        let mut image = self.durable.to_vec();
        for (index, write) in self.pending.iter().enumerate() {
            let kept = match loss {
                Loss::Nothing => true,
                Loss::Everything => false,
                Loss::One(one) => index != one,
                Loss::AllBut(one) => index == one,
                Loss::Some(seed) => {
                    let random = Cell::new(seed ^ (index as u64 + 1) << 20);
                    for (sector, data) in write.data.chunks(SECTOR).enumerate() {
                        if next(&random, 2) == 0 {
                            lay(&mut image, write.at + sector * SECTOR, data);
                        }
                    }
                    continue;
                }
            };
            if kept {
                lay(&mut image, write.at, &write.data);
            }
        }
        image
    }
}

impl<T: Clone> Power<T> {
    pub(super) fn new(local: &Local, image: Vec<u8>, seed: u64, now: T) -> Rc<Power<T>> {
        let durable = Rc::new(image.clone());
        Rc::new(Power {
            local: local.clone(),
            state: RefCell::new(Disk { now: image, durable, pending: Vec::new() }),
            random: Cell::new(seed | 1),
            now: RefCell::new(now),
            moments: RefCell::default(),
            bulk: Cell::new(false),
        })
    }

    /// What could be left at the moments so far, which are forgotten: at most so many images. The
    /// last one is what is there now if the power goes, with nothing kept that is not durable.
    pub(super) fn cuts(&self, most: usize) -> Vec<(Vec<u8>, T, String)> {
        self.remember();
        let moments = std::mem::take(&mut *self.moments.borrow_mut());
        let mut all: Vec<(usize, Loss)> = Vec::new();
        for (index, moment) in moments.iter().enumerate() {
            all.extend(moment.losses(&self.random).into_iter().map(|loss| (index, loss)));
        }
        let mut chosen = Vec::new();
        while chosen.len() < most && !all.is_empty() {
            chosen.push(all.swap_remove(next(&self.random, all.len() as u64) as usize));
        }
        chosen.sort_by_key(|(index, _)| *index);
        chosen.push((moments.len() - 1, Loss::Everything));
        let cut = |(index, loss): (usize, Loss)| {
            let moment = &moments[index];
            let writes: Vec<_> = moment.pending.iter().map(|write| write.at).collect();
            (moment.image(loss), moment.with.clone(), format!("{loss:?} of {writes:x?}"))
        };
        chosen.into_iter().map(cut).collect()
    }

    async fn wait(&self) {
        for _ in 0..next(&self.random, 4) {
            self.local.yield_now().await;
        }
        if next(&self.random, 8) == 0 {
            self.remember();
        }
    }

    fn remember(&self) {
        let state = self.state.borrow();
        self.moments.borrow_mut().push(Moment {
            durable: state.durable.clone(),
            pending: state.pending.clone(),
            with: self.now.borrow().clone(),
        });
    }

    async fn put(&self, offset: u64, data: Vec<u8>) {
        let bulk = self.bulk.replace(false);
        let write = Rc::new(Write { at: offset as usize, data, ended: Cell::new(false), bulk });
        {
            let state = &mut *self.state.borrow_mut();
            lay(&mut state.now, write.at, &write.data);
            state.pending.push(write.clone());
        }
        self.wait().await;
        write.ended.set(true);
    }
}

impl<T: Clone> Node for Power<T> {
    fn info(&self) -> Info {
        let size = self.state.borrow().now.len() as u64;
        Info { size, align: 1, sectors: None, discards: true, read_only: false }
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.wait().await;
            let state = self.state.borrow();
            let data = state.now.get(offset as usize..).unwrap_or_default();
            let count = buf.copy_from(0, data);
            buf.skip(count).fill(0);
            Ok(())
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        assert!(!durable || offset > 0);
        Box::pin(async move {
            self.put(offset, buf.to_vec()).await;
            if durable { self.flush().await } else { Ok(()) }
        })
    }

    fn zero(&self, offset: u64, len: u64, _: Zero) -> Op<'_> {
        self.write(offset, IoBuf::zeroed(len as usize), false)
    }

    /// What is given up is overwritten, so that it is seen if somebody still needs it.
    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        Box::pin(async move {
            if len > 0 {
                self.put(offset, vec![0xdd; len as usize]).await;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Op<'_> {
        Box::pin(async move {
            let ended = |write: &&Rc<Write>| write.ended.get();
            let done: Vec<_> = self.state.borrow().pending.iter().filter(ended).cloned().collect();
            self.remember();
            self.wait().await;
            let state = &mut *self.state.borrow_mut();
            let is_done = |write: &Rc<Write>| done.iter().any(|other| Rc::ptr_eq(write, other));
            if !done.is_empty() {
                let durable = Rc::make_mut(&mut state.durable);
                let writes = state.pending.iter().filter(|write| is_done(write));
                writes.for_each(|write| lay(durable, write.at, &write.data));
            }
            state.pending.retain(|write| !is_done(write));
            Ok(())
        })
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        Box::pin(async move { Ok(Extent { len, state: State::Data, offset: Some(offset) }) })
    }

    fn step(&self, name: &'static str) -> Option<Op<'_>> {
        self.bulk.set(matches!(name, "write_aio" | "write_compressed"));
        None
    }
}
