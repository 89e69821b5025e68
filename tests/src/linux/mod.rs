//! Tests that boot Debian kernels, by subject.

mod boot;

use crate::rig::registry::Test;

/// Every Linux test.
pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    tests.extend(boot::tests());
    tests
}
