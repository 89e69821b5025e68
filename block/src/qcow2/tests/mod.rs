//! Images as a whole.

mod crash;
pub(super) mod failing;
mod hostile;
mod model;
mod power;
mod updates;
mod zeros;

use std::rc::Rc;

use resources::iol::{IoBuf, Local, Loop};

use super::{CreateOptions, Options, Qcow2, check_file, create, open};
use crate::image::Repair;
use crate::memory::Memory;
use crate::node::Node;

const LIMIT: u64 = 256 << 20;

pub(super) fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

pub(super) async fn made(options: &CreateOptions) -> Rc<Memory> {
    let file = Memory::new(Vec::new(), LIMIT);
    create(&*file, options).await.unwrap();
    file
}

async fn opened(local: &Local, file: &Rc<Memory>, options: Options) -> Rc<Qcow2> {
    open(local, file.clone(), options).await.unwrap()
}

pub(super) async fn bytes(node: &dyn Node, offset: u64, len: usize) -> Vec<u8> {
    let buf = IoBuf::zeroed(len);
    buf.fill(0xee);
    node.read(offset, buf.clone()).await.unwrap();
    buf.to_vec()
}

/// Neither damage nor, after a clean end, lost room.
pub(super) async fn assert_clean(file: &dyn Node, leaks: bool) {
    let check = check_file(file, Repair::No).await.unwrap();
    assert_eq!((check.corruptions, check.check_errors), (0, 0), "{:?}", check.lines);
    assert!(leaks || check.leaks == 0, "{:?}", check.lines);
}

/// Nothing but room is lost, and flags: those that are missing cost a copy, and those of clusters
/// that are counted too often, and used once, are true.
pub(super) fn assert_harmless(lines: &[String], cluster_bits: u32, how: &str) {
    let number = |text: &str| text.parse::<u64>().unwrap();
    let mut once = Vec::new();
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let flagged = line.split("_entry=").nth(1).map(|rest| rest.split(' ').next().unwrap());
        let well = match (&words[..], flagged.map(|entry| u64::from_str_radix(entry, 16).unwrap()))
        {
            (["Leaked", "cluster", cluster, _, reference], _) => {
                if *reference == "reference=1" {
                    once.push(number(cluster));
                }
                true
            }
            (["ERROR", "OFLAG_COPIED", ..], Some(entry)) => {
                entry >> 63 == 0 || once.contains(&((entry << 8 >> 17 << 9) >> cluster_bits))
            }
            _ => false,
        };
        assert!(well, "{line} in {lines:?}; {how}");
    }
}

/// So many clusters to be lost that the refcount blocks, or the refcount table, are nearly full.
fn nearly_full(cluster_bits: u32, refcount_bits: u32, seed: u64) -> u64 {
    let block = (8u64 << cluster_bits) / u64::from(refcount_bits);
    let table = block << (cluster_bits - 3);
    let all = if seed & 1 == 0 { table } else { block * (1 + seed / 2 % 3) };
    // The blocks themselves are counted, too.
    if all << cluster_bits > 4 << 20 { 0 } else { all - all / block - 12 - seed / 8 % 16 }
}

/// Has an image lose clusters.
async fn lose(local: &Local, file: &Rc<Memory>, clusters: u64) {
    let options = Options { check: true, ..Options::default() };
    let image = opened(local, file, options).await;
    for _ in 0..clusters {
        // One by one: nothing grows for them all.
        image.allocate(1).await.unwrap();
    }
    image.close().await.unwrap();
}

/// So many cases, unless the environment asks for a number.
fn config(cases: u32) -> proptest::prelude::ProptestConfig {
    let default = proptest::prelude::ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { default.cases } else { cases };
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..default }
}
