//! QEMU's script that looks into streams of migrations, out of the sources of the distribution's
//! QEMU: fetched when a test needs it, and never part of this project.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Item, item};
use super::run;
use crate::rig::Result;

/// Where the sources are. Updates of the distribution change only what comes on top of them.
const SOURCES: &str = "http://deb.debian.org/debian/pool/main/q/qemu/qemu_7.2+dfsg.orig.tar.xz";
const SHA256: &str = "91aca71520040edc40b8d437aa3004dae614f58e286cf653ee8996c07af2962f";
const SCRIPT: &str = "scripts/analyze-migration.py";
const PYTHON: &str = "/usr/bin/python3";

/// The script.
pub struct Analyzer {
    item: Item,
}

impl Analyzer {
    /// Fetches it, unless it was.
    pub fn get(cache: &Path) -> Result<Self> {
        let what = "getting the script that looks into streams";
        let item = item(cache, "analyzer", SHA256.to_owned(), what, |dir| {
            let archive = dir.join("sources.tar.xz");
            let mut fetch = Command::new("/usr/lib/apt/apt-helper");
            fetch.args(["download-file", SOURCES]).arg(&archive);
            run(fetch.arg(format!("SHA256:{SHA256}")))?;
            let mut unpack = Command::new("tar");
            unpack.arg("-xJf").arg(&archive).arg("-C").arg(dir);
            run(unpack.args(["--strip-components=2", "--wildcards"]).arg(format!("*/{SCRIPT}")))?;
            Ok(std::fs::remove_file(archive)?)
        })?;
        Ok(Self { item })
    }

    /// What it says of a stream.
    pub fn look(&self, stream: &Path, what: &str) -> Result<Vec<u8>> {
        let script: PathBuf = self.item.path().join("analyze-migration.py");
        run(Command::new(PYTHON).arg(script).arg("-f").arg(stream).args(["-d", what]))
    }
}
