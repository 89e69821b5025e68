//! The format's row: options as data, for new images.
//!
//! On the loop of the graph, no lock. Options are a user's or a client's, those of backing files
//! an image's.

use super::create::{self, CreateError, CreateOptions, Preallocation, version_named};
use super::header::Compression;
use crate::create::{CreateOption, NewFile};
use crate::errno_text;
use crate::format::Format;
use crate::image::BackingFile;
use crate::name;
use crate::open::{OpenError, Spec};
use crate::protocol;

/// The format.
pub const QCOW2: &Format = &Format {
    name: "qcow2",
    probe,
    open: None,
    create: Some(|new| Box::pin(make(new))),
    create_options: CREATE_OPTIONS,
};

const CREATE_OPTIONS: &[CreateOption] = &[
    CreateOption { name: "size", help: "Virtual disk size" },
    CreateOption { name: "compat", help: "Compatibility level (0.10 or 1.1)" },
    CreateOption { name: "backing_file", help: "File name of a base image" },
    CreateOption { name: "backing_fmt", help: "Image format of the base image" },
    CreateOption { name: "encryption", help: "Encrypt the image" },
    CreateOption { name: "encrypt.format", help: "Encrypt the image, format choices: 'aes'" },
    CreateOption { name: "cluster_size", help: "qcow2 cluster size" },
    CreateOption {
        name: "preallocation",
        help: "Preallocation mode (allowed values: off, metadata, falloc, full)",
    },
    CreateOption { name: "lazy_refcounts", help: "Postpone refcount updates" },
    CreateOption { name: "refcount_bits", help: "Width of a reference count entry in bits" },
    CreateOption { name: "extended_l2", help: "Extended L2 tables" },
    CreateOption {
        name: "compression_type",
        help: "Compression method used for image cluster compression",
    },
    CreateOption { name: "data_file", help: "File name of an external data file" },
    CreateOption {
        name: "data_file_raw",
        help: "The external data file must stay valid as a raw image",
    },
];

fn probe(head: &[u8], _: &str) -> u8 {
    let version = head.get(4..).and_then(|rest| rest.first_chunk()).map(|v| u32::from_be_bytes(*v));
    if head.starts_with(b"QFI\xfb") && version.is_some_and(|version| version >= 2) {
        100
    } else {
        0
    }
}

async fn make(new: NewFile<'_>) -> Result<(), OpenError> {
    let NewFile { local, file, filename, size, options } = new;
    let version = match options.take("compat") {
        None => 3,
        Some(compat) => version_named(&compat).map_err(OpenError)?,
    };
    let preallocation = match options.take("preallocation") {
        None => Preallocation::Off,
        Some(mode) => Preallocation::named(&mode).map_err(OpenError)?,
    };
    let compression = match options.take("compression_type").as_deref() {
        None | Some("zlib") => Compression::Zlib,
        Some("zstd") => Compression::Zstd,
        Some(other) => return Err(OpenError(format!("Invalid parameter '{other}'"))),
    };
    let encrypted = match options.take("encrypt.format").as_deref() {
        None => options.take_switch("encryption")?.unwrap_or(false),
        Some("aes") => true,
        Some(other) => {
            return Err(OpenError(format!("Unsupported encryption format '{other}'")));
        }
    };
    let backing = options.take("backing_file").filter(|name| !name.is_empty());
    let format = options.take("backing_fmt");
    let defaults = CreateOptions::default();
    let bits = options.take_number("refcount_bits")?;
    let bits = match bits.map(u32::try_from) {
        None => defaults.refcount_bits,
        Some(bits) => bits.unwrap_or(u32::MAX),
    };
    let data_file = match options.take("data_file") {
        None => None,
        Some(data) => {
            let full = name::combine(filename, &data);
            let protocol = protocol::of_name(&full)?;
            protocol::make(local, protocol, &full).await?;
            let spec = Spec { discard: true, ..Spec::default() };
            let node = protocol::open_named(local, &spec, protocol, &full).await?;
            Some((data, node))
        }
    };
    let wanted = CreateOptions {
        size,
        version,
        cluster_size: options.take_size("cluster_size")?.unwrap_or(defaults.cluster_size),
        refcount_bits: bits,
        lazy_refcounts: options.take_switch("lazy_refcounts")?.unwrap_or(false),
        backing: backing.map(|name| BackingFile { name, format }),
        encrypted,
        extended_l2: options.take_switch("extended_l2")?.unwrap_or(false),
        compression,
        data_file,
        data_file_raw: options.take_switch("data_file_raw")?.unwrap_or(false),
        preallocation,
    };
    create::create(&*file, &wanted).await.map_err(|error| match error {
        CreateError::Invalid(text) => OpenError(text),
        CreateError::TooLarge => OpenError(
            "The image size is too large for file format 'qcow2' (try using a larger cluster size)"
                .to_owned(),
        ),
        CreateError::Io(error) => {
            OpenError(format!("Could not create image: {}", errno_text(&error)))
        }
    })
}
