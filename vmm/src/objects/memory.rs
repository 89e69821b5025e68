//! `memory-backend-*`, and which host memory becomes guest RAM: `-m`, `-mem-path`,
//! `-mem-prealloc`, or such an object that `-machine memory-backend=ID` names.
//!
//! Main thread, before the machine is built or when a client asks. Sizes and paths are a user's or
//! a client's; the host says what it has. What a guest does with the memory is not seen here.

use std::sync::Arc;

use resources::props::{Kind, Prop, Props, Value};
use resources::ram::{PAGE, Ram, RamBackend, RamConfig, RamError};

use super::{Object, ObjectError, ObjectType, Objects, reason};
use crate::cli::config::{Config, MemConfig};

/// The size of a huge page when none is given.
const HUGE: u64 = 2 << 20;

macro_rules! props {
    ($($own:expr),*) => {
        &[
            Prop { name: "size", kind: Kind::Size, default: None, help: "bytes" },
            Prop {
                name: "share",
                kind: Kind::Bool,
                default: None,
                help: "whether other processes that map the file see changes",
            },
            Prop {
                name: "prealloc",
                kind: Kind::Bool,
                default: Some("off"),
                help: "whether all of it is taken at once",
            },
            Prop {
                name: "merge",
                kind: Kind::Bool,
                default: Some("off"),
                help: "whether the host may share equal pages",
            },
            Prop {
                name: "dump",
                kind: Kind::Bool,
                default: Some("off"),
                help: "whether it is part of core dumps",
            },
            Prop {
                name: "policy",
                kind: Kind::Enum(&["default"]),
                default: Some("default"),
                help: "on which nodes of the host it lies",
            },
            $($own),*
        ]
    };
}

/// Anonymous memory.
pub(super) const RAM: ObjectType = ObjectType {
    name: "memory-backend-ram",
    parent: "memory-backend",
    props: props!(),
    needs: &["size"],
    create: |props, _| make(props, RamBackend::Anonymous),
};

/// A file, or an unlinked one in a directory.
pub(super) const FILE: ObjectType = ObjectType {
    name: "memory-backend-file",
    parent: "memory-backend",
    props: props!(Prop {
        name: "mem-path",
        kind: Kind::Str,
        default: None,
        help: "the file, or a directory for it"
    }),
    needs: &["size", "mem-path"],
    create: |props, _| {
        let path = props.get::<&str>("mem-path")?.into();
        make(props, RamBackend::File(path))
    },
};

/// A memory file without a name.
pub(super) const MEMFD: ObjectType = ObjectType {
    name: "memory-backend-memfd",
    parent: "memory-backend",
    props: props!(
        Prop {
            name: "hugetlb",
            kind: Kind::Bool,
            default: Some("off"),
            help: "whether its pages are huge ones"
        },
        Prop { name: "hugetlbsize", kind: Kind::Size, default: None, help: "bytes of these" }
    ),
    needs: &["size"],
    create: |props, _| {
        // Memory files are shared unless the user says otherwise, as other processes expect.
        props.fill("share", Value::Bool(true));
        let huge = props.get::<Option<u64>>("hugetlbsize")?.unwrap_or(HUGE);
        let backend = RamBackend::Memfd(props.get::<bool>("hugetlb")?.then_some(huge));
        make(props, backend)
    },
};

fn make(props: &mut Props, backend: RamBackend) -> Result<Object, ObjectError> {
    props.fill("share", Value::Bool(false));
    let size: u64 = props.get("size")?;
    let refused = |why: String| ObjectError::Refused(why);
    if size == 0 {
        let class = props.class();
        return Err(refused(format!("property 'size' of {class} doesn't take value '0'")));
    }
    if size > MemConfig::MAX {
        return Err(refused(format!("{size} bytes of memory are too many (at most 4T)")));
    }
    let config = RamConfig {
        size: size.next_multiple_of(PAGE),
        backend,
        prealloc: props.get("prealloc")?,
        share: props.get("share")?,
        merge: props.get("merge")?,
        dump: props.get("dump")?,
    };
    let ram = Ram::new(&config).map_err(|error| refused(reason(&error)))?;
    Ok(Object::Memory(Arc::new(MemoryBackend { ram, config })))
}

/// Host memory that a machine can use.
pub struct MemoryBackend {
    /// The memory.
    pub ram: Ram,
    /// What was asked for.
    pub config: RamConfig,
}

/// Guest RAM, and the object that it is of.
pub struct MainRam {
    /// The memory.
    pub ram: Ram,
    /// Whether it reads as zero.
    pub fresh: bool,
    /// What `-machine memory-backend=` named.
    pub backend: Option<Arc<MemoryBackend>>,
}

/// Options that cannot become RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
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
    /// The host refuses it.
    #[error(transparent)]
    Ram(#[from] RamError),
}

/// The RAM that the options ask for.
///
/// # Errors
/// See [`MemoryError`].
pub fn main_ram(config: &Config, objects: &Objects) -> Result<MainRam, MemoryError> {
    let Some(id) = config.machine_options.get("memory-backend") else {
        let wanted = ram_config(&config.memory);
        // A file may hold anything.
        let fresh = !matches!(wanted.backend, RamBackend::File(_));
        return Ok(MainRam { ram: Ram::new(&wanted)?, fresh, backend: None });
    };
    let backend = objects.memory(id).ok_or_else(|| MemoryError::Unknown(id.to_owned()))?;
    let (machine, size) = (config.memory.size, backend.config.size);
    if size != machine {
        return Err(MemoryError::Size { machine, backend: size, id: id.to_owned() });
    }
    let fresh = !matches!(backend.config.backend, RamBackend::File(_));
    Ok(MainRam { ram: backend.ram.clone(), fresh, backend: Some(backend) })
}

fn ram_config(memory: &MemConfig) -> RamConfig {
    let backend = match &memory.path {
        Some(path) => RamBackend::File(path.clone()),
        None => RamBackend::Anonymous,
    };
    RamConfig { size: memory.size, backend, prealloc: memory.prealloc, ..RamConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chardevs::Chardevs;
    use crate::cli::{Action, parse};

    fn config(options: &str) -> Config {
        match parse(options.split_whitespace().map(Into::into)).unwrap() {
            Action::Run(config) => *config,
            _ => panic!("not a run"),
        }
    }

    /// The RAM of a machine with these options, and the backend's configuration.
    fn ram(options: &str) -> Result<(MainRam, RamConfig), String> {
        let config = config(options);
        let objects = crate::objects::of_options(&config.objects, &Chardevs::default().finder())
            .map_err(|error| error.to_string())?;
        let main = main_ram(&config, &objects).map_err(|error| error.to_string())?;
        let asked = match &main.backend {
            Some(backend) => backend.config.clone(),
            None => ram_config(&config.memory),
        };
        Ok((main, asked))
    }

    #[test]
    fn objects_and_short_options_become_ram() {
        let (main, plain) = ram("-m 64 -mem-path /dev/shm").unwrap();
        assert_eq!(plain.backend, RamBackend::File("/dev/shm".into()));
        assert!(!plain.prealloc && !plain.share && !main.fresh);
        assert!(ram_config(&config("-m 64 -mem-prealloc").memory).prealloc);
        let object = "-m 64 -machine memory-backend=m -object memory-backend-";
        let (main, memfd) = ram(&format!("{object}memfd,id=m,size=64M")).unwrap();
        assert_eq!(memfd.backend, RamBackend::Memfd(None));
        assert!(memfd.share && main.fresh && main.ram.size() == 64 << 20);
        let (_, file) = ram(&format!("{object}file,id=m,size=64M,mem-path=/tmp,share=on")).unwrap();
        assert_eq!(file.backend, RamBackend::File("/tmp".into()));
        assert!(file.share);
        assert_eq!(ram(&format!("{object}ram,id=m,size=64M")).unwrap().1.size, 64 << 20);
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
            ("memory-backend-ram,id=m,size=0", "doesn't take value '0'"),
            ("memory-backend-ram,id=m,size=5T", "too many"),
            ("memory-backend-ram,id=m,size=64M,prealloc=maybe", "'prealloc', expected: boolean"),
        ] {
            let error = ram(&format!("{object}{options}")).err().unwrap();
            assert!(error.contains(text), "{options}: {error}");
        }
    }
}
