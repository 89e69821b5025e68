//! Drives of `-blockdev`: they have a node's name, and may stand on one another.
//!
//! A node is a drive without a device, whose name a `-device` gives. One that another names as its
//! `file` or `backing` becomes a part of that: it is closed, and opened with the other. Its name
//! stays its own, and others may be put on it too: each opens it for itself, so that two may read
//! it, but only one may write to it. Main thread; options are the user's.

use block::Options;
use block::node::Zero;
use resources::value::check_identifier;

use super::{DriveError, Drives, Home, wrong};
use crate::cli::keyval::Pairs;

impl Drives {
    /// Makes what `-blockdev` asks for. It stays when the device that has it goes.
    ///
    /// # Errors
    /// An option is wrong, or the image cannot be opened.
    pub fn add_node(&mut self, pairs: &Pairs, home: &Home<'_>) -> Result<(), DriveError> {
        let mut options: Options = pairs.iter().collect();
        let Some(name) = options.take("node-name") else {
            return wrong("Parameter 'node-name' is missing");
        };
        check_identifier("node-name", &name).map_err(|error| DriveError(error.to_string()))?;
        if self.is_taken(&name) {
            return wrong(format!("Duplicate nodes with node-name='{name}'"));
        }
        if options.get("driver").is_none() {
            return wrong("Parameter 'driver' is missing");
        }
        let named: Vec<String> = options.iter().map(|(key, _)| key.to_owned()).collect();
        for key in named {
            let last = key.rsplit('.').next().unwrap_or_default();
            match last {
                // Parts of a node have no names here; what is opened read-only stays so.
                "node-name" | "auto-read-only" => drop(options.take(&key)),
                // Only what is a node's file is written to, but for the topmost node itself.
                "detect-zeroes" if key != last && !key.ends_with("file.detect-zeroes") => {
                    options.take(&key);
                }
                "force-share" => {
                    let shared = options.take_switch(&key)?.filter(|on| *on);
                    shared.iter().for_each(|_| options.set("file.locking", "off"));
                }
                "file" | "backing" | "data-file" => self.absorb(&key, &mut options)?,
                _ => {}
            }
        }
        self.open(&name, options, home, false)
    }

    /// Puts the options of another node in place of its name.
    fn absorb(&mut self, key: &str, options: &mut Options) -> Result<(), DriveError> {
        let Some(name) = options.get(key).filter(|name| !name.is_empty()) else { return Ok(()) };
        let name = name.to_owned();
        let spec = match self.find(&name).map(|drive| drive.spec()) {
            Some(Some(spec)) => {
                if self.attached().contains(&name) {
                    return wrong(format!("Node '{name}' is busy: node is used by a device"));
                }
                self.remove(&name)?;
                self.parts.push((name, (*spec).clone()));
                spec
            }
            Some(None) | None => match self.parts.iter().find(|(part, _)| *part == name) {
                Some((_, spec)) => spec.clone().into(),
                None => return wrong(format!("Cannot find device='' nor node-name='{name}'")),
            },
        };
        options.take(key);
        if let Some(filename) = &spec.filename {
            options.set(&format!("{key}.filename"), filename);
        }
        options.put_under(key, spec.options.clone());
        if let Some(how) = spec.detect_zeroes {
            let how = if how == Zero::MayUnmap { "unmap" } else { "on" };
            options.set(&format!("{key}.detect-zeroes"), how);
        }
        if key == "file" {
            for (flag, on) in [
                ("read-only", spec.read_only),
                ("cache.direct", spec.cache.direct),
                ("cache.no-flush", spec.cache.no_flush),
            ] {
                if on && options.get(flag).is_none() {
                    options.set(flag, "on");
                }
            }
        }
        Ok(())
    }
}
