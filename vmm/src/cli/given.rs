//! The options in the order they were given, from the arguments and from configuration files,
//! before they are taken into the configuration.
//!
//! `-set` changes what stands here, `-readconfig` adds to it, `-writeconfig` shows it. Pure but for
//! the reading of files, which the caller hands in. Main thread.

use super::keyval::{self, Pairs, checked};
use super::table::{self, Id, OPTIONS, Opt};
use super::{CliError, Value, config, inifile};
use std::io;
use std::path::{Path, PathBuf};

/// Reads a configuration file.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// One use of an option.
pub(super) struct Entry {
    pub(super) opt: &'static Opt,
    pub(super) value: Value,
    /// How to name it in a message.
    pub(super) place: String,
}

/// All that was given so far.
#[derive(Default)]
pub(super) struct Given {
    pub(super) entries: Vec<Entry>,
    /// Configuration files to write, and their text.
    pub(super) files: Vec<(PathBuf, String)>,
}

impl Given {
    /// Takes an option of the command line.
    pub(super) fn add(
        &mut self,
        opt: &'static Opt,
        value: Value,
        read: ReadFile<'_>,
    ) -> Result<(), CliError> {
        let shown = value.shown();
        let wrong = |message: String| CliError::at(opt, shown.as_deref(), message);
        match opt.id {
            Id::Set => self.set(&value.text()).map_err(wrong),
            Id::ReadConfig => self.read(&value.path(), read),
            Id::WriteConfig => {
                let text = inifile::render(&self.sections()).map_err(wrong)?;
                self.files.push((value.path(), text));
                Ok(())
            }
            _ => {
                let value = match value {
                    Value::Text(text) if opt.id == Id::Global => {
                        Value::Keys { pairs: config::parse_global(&text).map_err(wrong)?, text }
                    }
                    value => value,
                };
                self.push(Entry { opt, place: CliError::place(opt, shown.as_deref()), value })
            }
        }
    }

    /// An id is used once in a group whose options do not add up.
    fn push(&mut self, entry: Entry) -> Result<(), CliError> {
        if let (Some(keys), Value::Keys { pairs, .. }) = (entry.opt.keys(), &entry.value)
            && let (false, Some(id)) = (keys.merge, pairs.id())
            && self.find(keys.group, id).is_some()
        {
            return Err(CliError::new(format!(
                "{}: Duplicate ID '{id}' for {}",
                entry.place, keys.group
            )));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn find(&mut self, group: &str, id: &str) -> Option<(&'static Opt, &mut Pairs)> {
        self.entries.iter_mut().find_map(|entry| match &mut entry.value {
            Value::Keys { pairs, .. }
                if pairs.id() == Some(id)
                    && entry.opt.keys().is_some_and(|keys| keys.group == group) =>
            {
                Some((entry.opt, pairs))
            }
            _ => None,
        })
    }

    /// `-set GROUP.ID.PARAMETER=VALUE`.
    fn set(&mut self, text: &str) -> Result<(), String> {
        let parts = text.split_once('=').and_then(|(path, value)| {
            let (group, rest) = path.split_once('.')?;
            let (id, name) = rest.split_once('.')?;
            let whole = !group.is_empty() && !id.is_empty() && !name.is_empty();
            whole.then_some((group, id, name, value))
        });
        let Some((group, id, name, value)) = parts else {
            return Err(format!("can't parse: \"{text}\""));
        };
        let keys =
            table::group(group).ok_or_else(|| format!("There is no option group '{group}'"))?;
        let Some((_, pairs)) = self.find(group, id) else {
            return Err(format!("there is no {group} \"{id}\" defined"));
        };
        if value.len() > keyval::MAX_VALUE || name.len() > keyval::MAX_KEY || name == "id" {
            return Err(format!("can't parse: \"{text}\""));
        }
        let name = checked(name, value, keys).map_err(|error| error.to_string())?;
        pairs.push(name, value);
        Ok(())
    }

    fn read(&mut self, path: &Path, read: ReadFile<'_>) -> Result<(), CliError> {
        let file = path.display();
        let text =
            read(path).map_err(|error| CliError::new(format!("read config {file}: {error}")))?;
        let sections = inifile::parse(&text)
            .map_err(|(line, error)| CliError::new(format!("{file}:{line}: {error}")))?;
        for inifile::Section { line, keys, pairs } in sections {
            let of_group = |opt: &&Opt| opt.keys().is_some_and(|other| other.group == keys.group);
            // The table of groups is made of the options that have them.
            let Some(opt) = OPTIONS.iter().find(of_group) else { continue };
            let value = Value::Keys { text: String::new(), pairs };
            self.push(Entry { opt, value, place: format!("{file}:{line}") })?;
        }
        Ok(())
    }

    /// What a configuration file can say of it: options with parameters, and those that stand for
    /// a parameter of `-machine`.
    fn sections(&self) -> Vec<(&'static keyval::Keys, Pairs)> {
        let mut sections: Vec<(&'static keyval::Keys, Pairs)> = Vec::new();
        for Entry { opt, value, .. } in &self.entries {
            let machine = |name: &str, value: &str| {
                Some((&table::MACHINE, Pairs::from_iter([(name, value)])))
            };
            let found = match (opt.id, value) {
                (Id::Accel, Value::Keys { pairs, .. }) => {
                    machine("accel", pairs.get("accel").unwrap_or_default())
                }
                (_, Value::Keys { pairs, .. }) => opt.keys().map(|keys| (keys, pairs.clone())),
                (Id::EnableKvm, _) => machine("accel", "kvm"),
                (Id::Kernel, Value::Path(path)) => machine("kernel", &path.to_string_lossy()),
                (Id::Initrd, Value::Path(path)) => machine("initrd", &path.to_string_lossy()),
                (Id::Bios, Value::Path(path)) => machine("firmware", &path.to_string_lossy()),
                (Id::Append, Value::Text(text)) => machine("append", text),
                _ => None,
            };
            let Some((keys, pairs)) = found else { continue };
            let same = |other: &&mut (&keyval::Keys, Pairs)| other.0.group == keys.group;
            match sections.iter_mut().find(same) {
                Some((_, all)) if keys.merge => all.merge(pairs),
                _ => sections.push((keys, pairs)),
            }
        }
        sections
    }
}

/// Reads a file of a bounded size.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Writes the files of `-writeconfig`; `-` is standard output.
///
/// # Errors
/// Names the file.
pub fn write_files(files: &[(PathBuf, String)]) -> Result<(), String> {
    use std::io::Write as _;
    for (path, text) in files {
        let done = if path.as_os_str() == "-" {
            io::stdout().write_all(text.as_bytes())
        } else {
            std::fs::write(path, text)
        };
        done.map_err(|error| format!("-writeconfig {}: {error}", path.display()))?;
    }
    Ok(())
}
