//! Running the tools, ours and others.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::rig::Result;
use crate::scratch::Scratch;
use crate::workspace::{cargo, target};

/// Whose tools.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whose {
    /// `vmm-img` and `vmm-io`.
    Ours,
    /// `qemu-img` and `qemu-io`.
    Others,
}

pub(super) const BOTH: [Whose; 2] = [Whose::Ours, Whose::Others];

/// The tools of both, and a directory to work in.
pub struct Tools {
    ours: PathBuf,
    dir: Scratch,
}

/// Where our tools are: built for release now, or in the directory that `VMTEST_TOOLS` names.
pub fn built() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VMTEST_TOOLS") {
        return Ok(std::fs::canonicalize(path)?);
    }
    println!("building the image tools");
    let built = cargo().args(["build", "--release", "--package", "block", "--bins"]).status()?;
    if !built.success() {
        return Err("the image tools do not build".into());
    }
    Ok(target()?.join("release"))
}

impl Tools {
    /// A fresh directory.
    pub fn new(ours: &Path) -> Result<Self> {
        Ok(Self { ours: ours.to_owned(), dir: Scratch::new()? })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn command(&self, whose: Whose, tool: &str) -> Command {
        let mut command = match whose {
            Whose::Ours => Command::new(self.ours.join(format!("vmm-{tool}"))),
            Whose::Others => Command::new(format!("qemu-{tool}")),
        };
        command.current_dir(&*self.dir);
        command
    }

    /// Runs the image tool with words that have no blanks in them.
    pub(super) fn img(&self, whose: Whose, line: &str) -> Result<Output> {
        let output = self.command(whose, "img").args(line.split_whitespace()).output();
        Ok(output.map_err(|error| format!("{whose:?} {line}: {error}"))?)
    }

    /// The same, which has to go well; what it says.
    pub(super) fn ok(&self, whose: Whose, line: &str) -> Result<String> {
        let output = self.img(whose, line)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{whose:?} img {line}: {}: {said}{error}", output.status).into())
    }

    /// What it says, as JSON.
    pub(super) fn json(&self, whose: Whose, line: &str) -> Result<Value> {
        let said = self.ok(whose, line)?;
        Ok(serde_json::from_str(&said)
            .map_err(|error| format!("{whose:?} {line}: {error}: {said}"))?)
    }

    /// Runs commands of the exerciser; what it says.
    pub(super) fn io(&self, whose: Whose, image: &str, commands: &[String]) -> Result<Output> {
        let mut command = self.command(whose, "io");
        for line in commands {
            command.arg("-c").arg(line);
        }
        Ok(command.args(image.split_whitespace()).output()?)
    }

    /// The same, and all of them have to go well.
    pub(super) fn io_ok(&self, whose: Whose, image: &str, commands: &[String]) -> Result {
        let output = self.io(whose, image, commands)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let wrong = ["failed", "error", "Error"].iter().any(|word| said.contains(word));
        if output.status.success() && !wrong {
            return Ok(());
        }
        let commands = commands.join("; ");
        Err(format!("{whose:?} io {image} {commands}: {}: {said}{error}", output.status).into())
    }

    /// Both find nothing wrong with an image.
    pub(super) fn clean(&self, image: &str) -> Result {
        for whose in BOTH {
            self.ok(whose, &format!("check -q {image}"))?;
        }
        Ok(())
    }

    /// Both find two images the same.
    pub(super) fn same(&self, one: &str, other: &str) -> Result {
        for whose in BOTH {
            self.ok(whose, &format!("compare {one} {other}"))?;
        }
        Ok(())
    }
}

/// Two things that should be the same.
pub(super) fn equal<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, others: &T) -> Result {
    if ours == others {
        return Ok(());
    }
    Err(format!("{what}:\nours   {ours:#?}\nothers {others:#?}").into())
}
