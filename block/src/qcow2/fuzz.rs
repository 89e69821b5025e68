//! Images of anybody, looked at, mended and used: for fuzzing.
//!
//! The bytes are the image's file, which lies in memory and cannot grow for ever. Nothing may
//! panic, hang or take memory without bound; what is called clean has to stay so, also when it is
//! written, and so has what an image without damage shows in its snapshots.

use std::rc::Rc;

use resources::iol::{IoBuf, Local};

use super::{CreateOptions, Header, Options, Preallocation, Qcow2, check_file, create, open};
use crate::dirty::Bitmap;
use crate::image::{BitmapChange, Check, Image, Repair, Snapshot};
use crate::memory::Memory;
use crate::node::{Node, Zero};

/// Bytes that the file may grow to.
const LIMIT: u64 = 8 << 20;
/// Bytes of a seed, at most.
const SEED: u64 = 64 << 10;
/// Requests and commands that an image gets.
const TURNS: usize = 24;
/// Bytes of a request, at most.
const MOST: u64 = 40 << 10;

/// Checks, mends and uses an image. What is done to it follows from its bytes.
///
/// # Panics
/// On a mistake of ours.
pub fn fuzz(data: &[u8]) {
    let Ok(mut the_loop) = resources::iol::Loop::new("fuzz") else { return };
    let local = the_loop.local().clone();
    the_loop.run(async {
        let file = Memory::new(data.to_vec(), LIMIT);
        let found = check_file(&*file, Repair::No).await;
        if file.bytes() != data {
            wrong("a check has written");
        }
        use_it(&local, data, found.is_ok_and(|check| is_clean(&check))).await;
        mend(&file).await;
    });
}

#[expect(clippy::panic, reason = "this is how a fuzzer learns of mistakes")]
fn wrong(what: &str) {
    panic!("{what}");
}

fn is_clean(check: &Check) -> bool {
    check.corruptions + check.leaks + check.check_errors == 0
}

async fn mend(file: &Rc<Memory>) {
    if check_file(&**file, Repair::Leaks).await.is_err() {
        return;
    }
    let Ok(mended) = check_file(&**file, Repair::All).await else { return };
    if is_clean(&mended) {
        match check_file(&**file, Repair::No).await {
            Ok(again) if is_clean(&again) => {}
            again => wrong(&format!("mended is not clean: {mended:?} {again:?}")),
        }
    }
}

/// What is done, as far as nobody else says it.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }

    /// A range of a disk: anywhere, at its beginning or at its end.
    fn range(&mut self, size: u64) -> (u64, u64) {
        let len = (1 << self.below(16)) + self.below(700);
        let at = match self.below(4) {
            0 => self.below(size),
            1 => size.saturating_sub(self.below(1 << 16) + 1),
            _ => self.below(size.min(1 << 18)),
        };
        (at, len.min(MOST).min(size - at.min(size)))
    }
}

async fn use_it(local: &Local, data: &[u8], clean: bool) {
    let seed = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut dice = Dice(seed | 1);
    let file = Memory::new(data.to_vec(), LIMIT);
    let Ok(header) = Header::parse(data) else { return };
    let data_file = header.external_data().then(|| Memory::new(Vec::new(), LIMIT) as Rc<dyn Node>);
    let options = Options {
        data_file,
        discard: dice.below(4) > 0,
        read_only: dice.below(8) == 0,
        l2_cache_size: Some(0),
        refcount_cache_size: Some(0),
        ..Options::default()
    };
    let Ok(image) = open(local, file.clone(), options).await else { return };
    for _ in 0..TURNS {
        turn(&image, &mut dice).await;
    }
    // What a full disk has stopped half way may lack room, never more.
    let _ = image.close().await;
    if !clean {
        return;
    }
    match check_file(&*file, Repair::No).await {
        Ok(check) if check.corruptions + check.check_errors == 0 => {}
        // With lazy refcounts nothing is right before the image is closed well.
        _ if Header::parse(&file.bytes())
            .is_ok_and(|it| it.incompatible & super::header::DIRTY != 0) => {}
        other => wrong(&format!("used is not clean: {other:?}")),
    }
}

/// One thing that a guest or a client could do. It may well be refused.
async fn turn(image: &Rc<Qcow2>, dice: &mut Dice) {
    let (at, len) = dice.range(image.info().size);
    let buf = IoBuf::zeroed(len as usize);
    let ids: Vec<String> =
        Image::snapshots(&**image).into_iter().flatten().map(|one| one.id).collect();
    let id = ids.get(dice.below(ids.len() as u64) as usize).cloned().unwrap_or_default();
    let name = format!("map{}", dice.below(3));
    let _ = match dice.below(20) {
        0..3 => image.read(at, buf).await,
        3..7 => {
            buf.fill(dice.below(256) as u8);
            image.write(at, buf, dice.below(4) == 0).await
        }
        7 => {
            let cluster = image.geometry().cluster();
            let at = image.geometry().floor(at);
            let room = image.info().size.saturating_sub(at).min(cluster);
            image.write_compressed(at, IoBuf::zeroed(room as usize)).await
        }
        8 => image.discard(at, len << dice.below(8)).await,
        9 => {
            image.zero(at, len, if dice.below(2) == 0 { Zero::Keep } else { Zero::MayUnmap }).await
        }
        10 => image.flush().await,
        11 => image.map(at, u64::MAX).await.map(drop),
        12 => image.apply_snapshot(&id).await,
        13 => image.delete_snapshot(&id).await,
        14 => image.create_snapshot(Snapshot::default()).await.map(drop),
        15 => {
            let size = image.info().size;
            let by = dice.below(1 << 18) & !511;
            let size =
                if dice.below(2) == 0 { size.saturating_sub(by) } else { size.saturating_add(by) };
            image.resize(size & !511).await
        }
        16 => {
            let enabled = dice.below(2) == 0;
            let add = BitmapChange::Add { granularity: None, enabled };
            let mut bits = Bitmap::new(image.info().size, 512);
            bits.set(at, len);
            let change = match (image.bitmap(&name).await, enabled) {
                (Err(_), _) => add,
                (Ok(bits), _) if bits.count() % 3 == 0 => BitmapChange::Clear,
                (Ok(_), true) => BitmapChange::Enable,
                (Ok(_), false) => BitmapChange::Disable,
            };
            match image.change_bitmap(&name, change).await {
                Ok(()) => image.change_bitmap(&name, BitmapChange::Merge(&bits)).await,
                error => error,
            }
        }
        17 => image.change_bitmap(&name, BitmapChange::Remove).await,
        18 => image.show_snapshot(Some(&id), None).await,
        _ => Image::check(&**image, if dice.below(2) == 0 { Repair::No } else { Repair::All })
            .await
            .map(drop),
    };
}

/// Images to begin with, small enough to be changed to some effect.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let base = CreateOptions { size: 24 << 10, cluster_size: 512, ..CreateOptions::default() };
    let kinds = [
        ("empty", base.clone()),
        ("old", CreateOptions { version: 2, ..base.clone() }),
        ("narrow", CreateOptions { refcount_bits: 1, ..base.clone() }),
        ("wide", CreateOptions { refcount_bits: 64, ..base.clone() }),
        ("lazy", CreateOptions { lazy_refcounts: true, cluster_size: 4096, ..base.clone() }),
        ("extended", CreateOptions { extended_l2: true, cluster_size: 16 << 10, ..base }),
    ];
    let Ok(mut the_loop) = resources::iol::Loop::new("seeds") else { return Vec::new() };
    let mut seeds = Vec::new();
    for (name, options) in kinds {
        for preallocation in [Preallocation::Off, Preallocation::Metadata] {
            let file = Memory::new(Vec::new(), LIMIT);
            let options = CreateOptions { preallocation, ..options.clone() };
            let made = the_loop.run(create(&*file, &options)).is_ok();
            if made && file.info().size <= SEED {
                seeds.push((format!("{name}-{preallocation:?}").to_lowercase(), file.bytes()));
            }
        }
        let file = Memory::new(Vec::new(), LIMIT);
        let local = the_loop.local().clone();
        if the_loop.run(fill(&local, &file, &options)).is_ok() {
            seeds.push((format!("{name}-used"), file.bytes()));
        }
    }
    seeds
}

/// An image with everything that its kind can have.
async fn fill(local: &Local, file: &Rc<Memory>, options: &CreateOptions) -> std::io::Result<()> {
    create(&**file, options).await.map_err(std::io::Error::other)?;
    let options = Options { discard: true, ..Options::default() };
    let image = open(local, file.clone(), options).await.map_err(std::io::Error::other)?;
    let cluster = image.geometry().cluster();
    let some = |byte: u8, len: u64| {
        let buf = IoBuf::zeroed(len as usize);
        buf.fill(byte);
        buf
    };
    image.write(0, some(1, 3 * cluster / 2), false).await?;
    let _ = image.write_compressed(2 * cluster, some(2, cluster)).await;
    if image.create_snapshot(Snapshot { name: "one".into(), ..Snapshot::default() }).await.is_ok() {
        image.write(0, some(3, 700), false).await?;
        image.create_snapshot(Snapshot { name: "two".into(), ..Snapshot::default() }).await?;
    }
    let _ = image.zero(cluster, cluster / 2, Zero::MayUnmap).await;
    let add = |granularity, enabled| BitmapChange::Add { granularity, enabled };
    if image.change_bitmap("map0", add(Some(512), true)).await.is_ok() {
        let mut bits = Bitmap::new(image.info().size, 512);
        bits.set(700, 9000);
        image.change_bitmap("map0", BitmapChange::Merge(&bits)).await?;
        image.change_bitmap("map1", add(None, false)).await?;
    }
    image.write(5000, some(4, 100), false).await?;
    image.close().await
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_single_changes_of_them() {
        for (_, seed) in super::seeds() {
            super::fuzz(&seed);
            for at in (0..112).chain(112..seed.len().min(8192)).step_by(7) {
                let mut bytes = seed.clone();
                bytes[at] ^= 1 << (at % 8);
                super::fuzz(&bytes);
            }
        }
    }
}
