//! The edges between the workspace's crates are these and no others.

use std::collections::BTreeSet;

use cargo_metadata::MetadataCommand;

/// For each crate the crates it may use.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("resources", &[]),
    ("qmp", &[]),
    ("block", &["resources"]),
    ("devices", &["resources", "block"]),
    ("migration", &["resources"]),
    ("vmm", &["resources", "block", "devices", "migration", "qmp"]),
];

/// The crate that may use them all.
const SEES_ALL: &str = "tests";

#[test]
fn crates_depend_on_each_other_only_as_laid_down() {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let members: BTreeSet<&str> =
        metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut unexpected = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if name == SEES_ALL {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            unexpected.push(format!("the crate {name} is not laid down"));
            continue;
        };
        for dependency in &package.dependencies {
            let target = dependency.name.as_str();
            if members.contains(target) && !allowed.contains(&target) {
                unexpected.push(format!("{name} uses {target}"));
            }
        }
    }
    assert!(unexpected.is_empty(), "new edges: {unexpected:#?}");
}
