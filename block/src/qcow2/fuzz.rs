//! Images of anybody, looked at and mended: for fuzzing.
//!
//! The bytes are the image's file, which lies in memory and cannot grow for ever. Nothing may
//! panic, hang or take memory without bound, and what is called clean has to stay so.

use super::{CreateOptions, Preallocation, check_file, create};
use crate::image::Repair;
use crate::memory::Memory;
use crate::node::Node;

/// Bytes that the file may grow to.
const LIMIT: u64 = 8 << 20;
/// Bytes of a seed, at most.
const SEED: u64 = 64 << 10;

/// Checks and mends an image.
///
/// # Panics
/// On a mistake of ours.
#[expect(clippy::panic, reason = "this is how a fuzzer learns of mistakes")]
pub fn fuzz(data: &[u8]) {
    let Ok(mut the_loop) = resources::iol::Loop::new("fuzz") else { return };
    the_loop.run(async {
        let file = Memory::new(data.to_vec(), LIMIT);
        let Ok(found) = check_file(&*file, Repair::No).await else { return };
        if file.bytes() != data {
            panic!("a check has written");
        }
        if check_file(&*file, Repair::Leaks).await.is_err() {
            return;
        }
        let Ok(mended) = check_file(&*file, Repair::All).await else { return };
        let clean =
            |check: &crate::Check| check.corruptions + check.leaks + check.check_errors == 0;
        if clean(&mended) {
            match check_file(&*file, Repair::No).await {
                Ok(again) if clean(&again) => {}
                again => panic!("mended is not clean: {found:?} {mended:?} {again:?}"),
            }
        }
    });
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
    }
    seeds
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
