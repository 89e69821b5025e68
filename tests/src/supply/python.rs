//! A Python of our own with the `qemu.qmp` package, from the package index.

use std::path::Path;
use std::process::Command;

use super::cache::{Item, file_key, item};
use super::{apt, run};
use crate::rig::Result;

/// The distribution's Python; `python3-venv` brings what it needs for environments.
const PYTHON: &str = "/usr/bin/python3";
const PACKAGE: &str = "qemu.qmp==0.0.6";

/// An environment with the package.
pub struct Python {
    item: Item,
}

impl Python {
    /// Makes the environment if there is none.
    pub fn get(cache: &Path) -> Result<Self> {
        apt::install_tools()?;
        let key = format!("{PACKAGE}\n{}", file_key(Path::new(PYTHON))?);
        let what = format!("getting the Python package {PACKAGE}");
        let item = item(cache, "python", key, &what, |dir| {
            let place = dir.join("venv");
            run(Command::new(PYTHON).args(["-m", "venv"]).arg(&place))?;
            let words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
            run(Command::new(place.join("bin/python")).args(words))?;
            Ok(())
        })?;
        Ok(Self { item })
    }

    /// A command that runs Python, with nothing of the user's.
    pub fn command(&self) -> Command {
        // The environment has moved since it was made; its interpreter finds it all the same.
        let mut command = Command::new(self.item.path().join("venv/bin/python"));
        command.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env("HOME", self.item.path());
        command
    }
}
