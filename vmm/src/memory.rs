//! Which host memory becomes guest RAM: `-m`, `-mem-path`, `-mem-prealloc`, or a
//! `memory-backend-*` object that `-machine memory-backend=ID` names.
//!
//! Main thread, before the machine is built. A pure function of the options.

use resources::nearest::nearest;
use resources::ram::{RamBackend, RamConfig};
use resources::value::{ValueError, parse_bool, parse_size};

use crate::cli::config::Config;
use crate::cli::keyval::Pairs;

/// The object types, each with its keys besides those of all.
const TYPES: [(&str, &[&str]); 3] = [
    ("memory-backend-ram", &[]),
    ("memory-backend-file", &["mem-path"]),
    ("memory-backend-memfd", &["hugetlb", "hugetlbsize"]),
];

/// The keys of every type.
const KEYS: [&str; 5] = ["qom-type", "id", "size", "share", "prealloc"];

/// The size of a huge page when none is given.
const HUGE: u64 = 2 << 20;

/// Options that cannot become RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No such object type.
    #[error("-object {0}: not an object type{hint}", hint = hint(.0, TYPES.map(|(name, _)| name)))]
    Type(String),
    /// The type has no such key.
    #[error("-object {object}: Property '{object}.{key}' not found{hint}",
            hint = hint(.key, keys(.object)))]
    Key {
        /// The type.
        object: String,
        /// The key.
        key: String,
    },
    /// A value that does not fit its key.
    #[error("-object: {0}")]
    Value(#[from] ValueError),
    /// A key that is needed.
    #[error("-object {0}: Parameter '{1}' is missing")]
    Missing(String, &'static str),
    /// `-machine memory-backend=` names none of the objects.
    #[error("-machine memory-backend={0}: there is no such memory backend")]
    Unknown(String),
    /// Two sizes that differ.
    #[error("machine memory size {machine} differs from size {backend} of memory backend '{id}'")]
    Size {
        /// Of `-m`.
        machine: u64,
        /// Of the object.
        backend: u64,
        /// Its id.
        id: String,
    },
}

fn hint<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, valid).map(|word| format!(" (did you mean '{word}'?)")).unwrap_or_default()
}

fn keys(object: &str) -> Vec<&'static str> {
    let own = TYPES.iter().find(|(name, _)| *name == object).map_or(&[][..], |(_, keys)| keys);
    KEYS.iter().chain(own).copied().collect()
}

/// What RAM the options ask for.
///
/// # Errors
/// See [`MemoryError`].
pub fn ram_config(config: &Config) -> Result<RamConfig, MemoryError> {
    let mut found = None;
    let wanted = config.machine_options.get("memory-backend");
    for object in &config.objects {
        let ram = backend(object)?;
        if wanted.is_some() && object.id() == wanted {
            found = Some(ram);
        }
    }
    let Some(id) = wanted else {
        let memory = &config.memory;
        let backend = match &memory.path {
            Some(path) => RamBackend::File(path.clone()),
            None => RamBackend::Anonymous,
        };
        let prealloc = memory.prealloc;
        return Ok(RamConfig { size: memory.size, backend, prealloc, share: false });
    };
    let ram = found.ok_or_else(|| MemoryError::Unknown(id.to_owned()))?;
    if ram.size != config.memory.size {
        let (machine, backend) = (config.memory.size, ram.size);
        return Err(MemoryError::Size { machine, backend, id: id.to_owned() });
    }
    Ok(ram)
}

fn backend(object: &Pairs) -> Result<RamConfig, MemoryError> {
    let name = object.get("qom-type").unwrap_or_default().to_owned();
    if !TYPES.iter().any(|(known, _)| *known == name) {
        return Err(MemoryError::Type(name));
    }
    if let Some((key, _)) = object.iter().find(|(key, _)| !keys(&name).contains(key)) {
        return Err(MemoryError::Key { object: name, key: key.to_owned() });
    }
    let switch = |key: &str| object.get(key).map_or(Ok(false), |value| parse_bool(key, value));
    let need =
        |key: &'static str| object.get(key).ok_or_else(|| MemoryError::Missing(name.clone(), key));
    let backend = match name.as_str() {
        "memory-backend-file" => RamBackend::File(need("mem-path")?.into()),
        "memory-backend-memfd" => {
            let size = object.get("hugetlbsize").map(|value| parse_size("hugetlbsize", value));
            let size = size.transpose()?;
            RamBackend::Memfd(switch("hugetlb")?.then(|| size.unwrap_or(HUGE)))
        }
        _ => RamBackend::Anonymous,
    };
    let size = parse_size("size", need("size")?)?;
    // Memory files are shared unless the user says otherwise, as other processes expect.
    let memfd = matches!(backend, RamBackend::Memfd(_)) && object.get("share").is_none();
    Ok(RamConfig { size, backend, prealloc: switch("prealloc")?, share: memfd || switch("share")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Action, parse};

    fn ram(options: &str) -> Result<RamConfig, String> {
        let Action::Run(config) = parse(options.split_whitespace().map(Into::into)).unwrap() else {
            panic!("not a run");
        };
        ram_config(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn objects_and_short_options_become_ram() {
        let plain = ram("-m 64 -mem-path /dev/shm -mem-prealloc").unwrap();
        assert_eq!(plain.backend, RamBackend::File("/dev/shm".into()));
        assert!(plain.prealloc && !plain.share);
        let object = "-m 64 -machine memory-backend=m -object memory-backend-";
        let huge = ram(&format!("{object}memfd,id=m,size=64M,hugetlb=on,prealloc=on")).unwrap();
        assert_eq!(huge.backend, RamBackend::Memfd(Some(HUGE)));
        assert!(huge.prealloc && huge.share);
        let file = ram(&format!("{object}file,id=m,size=64M,mem-path=/x,share=on")).unwrap();
        assert_eq!(file.backend, RamBackend::File("/x".into()));
        assert!(file.share);
        assert_eq!(ram(&format!("{object}ram,id=m,size=64M")).unwrap().size, 64 << 20);
    }

    #[test]
    fn mistakes_are_named() {
        let object = "-m 64 -machine memory-backend=m -object ";
        for (options, text) in [
            ("memory-backend-memf,id=m,size=64M", "did you mean 'memory-backend-memfd'?"),
            ("memory-backend-ram,id=m,size=64M,shar=on", "did you mean 'share'?"),
            ("memory-backend-ram,id=m,size=32M", "differs from size 33554432"),
            ("memory-backend-ram,id=n,size=64M", "memory-backend=m: there is no such"),
            ("memory-backend-file,id=m,size=64M", "Parameter 'mem-path' is missing"),
            ("memory-backend-ram,id=m", "Parameter 'size' is missing"),
            ("memory-backend-ram,id=m,size=64M,prealloc=maybe", "expects 'on' or 'off'"),
        ] {
            let error = ram(&format!("{object}{options}")).unwrap_err();
            assert!(error.contains(text), "{options}: {error}");
        }
    }
}
