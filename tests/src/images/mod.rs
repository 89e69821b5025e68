//! The image tools beside those of the distribution: each reads, checks and changes what the other
//! made, and both say the same.
//!
//! `tools` runs programs, `variants` has the kinds of images; the tests are in the file of their
//! subject. They need no KVM. Each test has a directory of its own and runs on one thread.

mod bitmaps;
mod chains;
mod features;
mod nbd;
mod options;
mod random;
mod reports;
mod scripts;
mod tools;
mod variants;

pub use tools::{Tools, Whose, built};

use crate::rig::Result;

/// A test of images.
#[derive(Clone, Copy)]
pub struct ImageTest {
    /// `images::what`.
    pub name: &'static str,
    /// Compares the tools.
    pub body: fn(&Tools) -> Result,
}

/// Every test.
pub const ALL: &[ImageTest] = &[
    ImageTest { name: "images::ours_read_by_others", body: features::ours_read_by_others },
    ImageTest { name: "images::others_read_by_us", body: features::others_read_by_us },
    ImageTest { name: "images::converted_both_ways", body: features::converted },
    ImageTest { name: "images::compressed_both_ways", body: features::compressed },
    ImageTest { name: "images::resized", body: features::resized },
    ImageTest { name: "images::info_of_others_images", body: reports::info },
    ImageTest { name: "images::map_of_others_images", body: reports::map },
    ImageTest { name: "images::check_of_damage", body: reports::check },
    ImageTest { name: "images::measure", body: reports::measure },
    ImageTest { name: "images::compare_codes", body: reports::compare },
    ImageTest { name: "images::chain_of_five", body: chains::read },
    ImageTest { name: "images::commit_and_rebase", body: chains::commit_and_rebase },
    ImageTest { name: "images::snapshots", body: chains::snapshots },
    ImageTest { name: "images::bitmaps", body: bitmaps::followed },
    ImageTest { name: "images::bitmaps_copied", body: bitmaps::copied },
    ImageTest { name: "images::amend", body: bitmaps::amended },
    ImageTest { name: "images::passwords", body: options::passwords },
    ImageTest { name: "images::preallocated", body: options::preallocated },
    ImageTest { name: "images::other_options", body: options::others },
    ImageTest { name: "images::nbd_contexts", body: bitmaps::contexts },
    ImageTest { name: "images::random_operations", body: random::operations },
    ImageTest { name: "images::random_operations_in_a_chain", body: random::in_a_chain },
    ImageTest { name: "images::nbd_libnbd", body: nbd::libnbd },
    ImageTest { name: "images::nbd_shell", body: nbd::shell },
    ImageTest { name: "images::nbd_images", body: nbd::images },
    ImageTest { name: "images::nbd_list", body: nbd::list },
    ImageTest { name: "images::scripts", body: scripts::same_output },
];
