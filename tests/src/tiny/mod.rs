//! Tests with guests of a few instructions, which run on any KVM.

use crate::rig::registry::Test;

/// Every tiny-guest test.
pub fn tests() -> Vec<Test> {
    Vec::new()
}
