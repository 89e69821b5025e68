//! Transcripts of conversations with the monitor: for every command what it answers to right and
//! wrong arguments, for every event what it says.
//!
//! They are text, in `tests/transcripts/`; [`mod@script`] says how they are written, [`run`] has the
//! conversations, [`cover`] finds what they leave out, and [`differ`] has them with QEMU as well
//! and [compares](mod@compare).

pub mod compare;
pub mod cover;
pub mod differ;
pub mod pattern;
pub mod run;
pub mod script;

use script::Script;

use crate::rig::Result;

/// The files, in the order in which they run.
const FILES: &[(&str, &str)] = &[
    ("session", include_str!("../../transcripts/session.qmp")),
    ("identity", include_str!("../../transcripts/identity.qmp")),
    ("life", include_str!("../../transcripts/life.qmp")),
    ("trouble", include_str!("../../transcripts/trouble.qmp")),
    ("introspection", include_str!("../../transcripts/introspection.qmp")),
    ("descriptors", include_str!("../../transcripts/descriptors.qmp")),
    ("balloon", include_str!("../../transcripts/balloon.qmp")),
    ("block", include_str!("../../transcripts/block.qmp")),
    ("nbd", include_str!("../../transcripts/nbd.qmp")),
    ("jobs", include_str!("../../transcripts/jobs.qmp")),
    ("chardev", include_str!("../../transcripts/chardev.qmp")),
    ("memory", include_str!("../../transcripts/memory.qmp")),
    ("absent", include_str!("../../transcripts/absent.qmp")),
    ("migrate", include_str!("../../transcripts/migrate.qmp")),
    ("objects", include_str!("../../transcripts/objects.qmp")),
    ("pci", include_str!("../../transcripts/pci.qmp")),
    ("devices", include_str!("../../transcripts/devices.qmp")),
    ("human", include_str!("../../transcripts/human.qmp")),
    ("net", include_str!("../../transcripts/net.qmp")),
    ("nic", include_str!("../../transcripts/nic.qmp")),
];

/// The names of the files, without their ending.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// Reads the file `name`.
pub fn script(name: &'static str) -> Result<Script> {
    let found = FILES.iter().find(|(other, _)| *other == name);
    let (_, text) = found.ok_or_else(|| format!("there is no transcript {name}"))?;
    Script::parse(name, text)
}

/// Reads all files.
pub fn all() -> Result<Vec<Script>> {
    FILES.iter().map(|(name, text)| Script::parse(name, text)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_is_listed() {
        let dir = crate::workspace::root().join("tests/transcripts");
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let files = files.filter_map(|name| name.to_str()?.strip_suffix(".qmp").map(str::to_owned));
        let mut files: Vec<String> = files.collect();
        let mut names: Vec<_> = super::names().collect();
        files.sort();
        names.sort_unstable();
        assert_eq!(files, names);
    }
}
