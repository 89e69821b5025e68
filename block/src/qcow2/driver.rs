//! The format's row: options as data, for images that are opened and for new ones.
//!
//! On the loop of the graph, no lock. Options are a user's or a client's, those of backing files
//! an image's.

use std::rc::Rc;

use super::create::{self, CreateError, CreateOptions, Preallocation, version_named};
use super::header::Compression;
use super::options::{DEFAULT_REFCOUNT_CACHE, Options, OverlapCheck, PassDiscard};
use crate::create::{CreateOption, NewFile};
use crate::errno_text;
use crate::format::Format;
use crate::image::{BackingFile, Image};
use crate::name;
use crate::node::Node;
use crate::open::{self, Layer, OpenError, Spec};
use crate::protocol;

/// The format.
pub const QCOW2: &Format = &Format {
    name: "qcow2",
    probe,
    open: Some(|layer, file| Box::pin(open_layer(layer, file))),
    create: Some(|new| Box::pin(make(new))),
    create_options: CREATE_OPTIONS,
    amend_options: AMEND_OPTIONS,
};

const CREATE_OPTIONS: &[CreateOption] = &[
    CreateOption { name: "size", help: "Virtual disk size" },
    CreateOption { name: "compat", help: "Compatibility level (0.10 or 1.1)" },
    CreateOption { name: "backing_file", help: "File name of a base image" },
    CreateOption { name: "backing_fmt", help: "Image format of the base image" },
    CreateOption { name: "encryption", help: "Encrypt the image" },
    CreateOption { name: "encrypt.format", help: "Encrypt the image, format choices: 'aes'" },
    CreateOption { name: "encrypt.key-secret", help: "ID of secret providing qcow AES key" },
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

const AMEND_OPTIONS: &[CreateOption] = &[
    CreateOption { name: "backing_file", help: "File name of a base image" },
    CreateOption { name: "backing_fmt", help: "Image format of the base image" },
    CreateOption { name: "compat", help: "Compatibility level (0.10 or 1.1)" },
    CreateOption { name: "data_file", help: "File name of an external data file" },
    CreateOption {
        name: "data_file_raw",
        help: "The external data file must stay valid as a raw image",
    },
    CreateOption { name: "lazy_refcounts", help: "Postpone refcount updates" },
    CreateOption { name: "refcount_bits", help: "Width of a reference count entry in bits" },
    CreateOption { name: "size", help: "Virtual disk size" },
];

fn probe(head: &[u8], _: &str) -> u8 {
    let version = head.get(4..).and_then(|rest| rest.first_chunk()).map(|v| u32::from_be_bytes(*v));
    if head.starts_with(b"QFI\xfb") && version.is_some_and(|version| version >= 2) {
        100
    } else {
        0
    }
}

async fn open_layer(mut layer: Layer<'_>, file: Rc<dyn Node>) -> Result<Rc<dyn Node>, OpenError> {
    let spec = layer.spec;
    let header = super::read_header(&*file, &spec.device).await.map_err(refused)?;
    let data_file = match header.external_data() {
        true => open_data_file(&mut layer, &file, header.data_file.as_deref()).await?,
        false => None,
    };
    let options = &mut *layer.options;
    let key = key(spec, options)?;
    let (l2_cache_size, refcount_cache_size) = cache_sizes(options)?;
    let pass = PassDiscard::default();
    let wanted = Options {
        read_only: spec.read_only,
        device: spec.device.clone(),
        backing: None,
        data_file,
        lazy_refcounts: options.take_switch("lazy-refcounts")?,
        discard: spec.discard,
        pass_discard: PassDiscard {
            request: options.take_switch("pass-discard-request")?.unwrap_or(spec.discard),
            snapshot: options.take_switch("pass-discard-snapshot")?.unwrap_or(pass.snapshot),
            other: options.take_switch("pass-discard-other")?.unwrap_or(pass.other),
        },
        overlap_check: overlap_check(options)?,
        l2_cache_size,
        refcount_cache_size,
        cache_entry_size: options.take_size("l2-cache-entry-size")?,
        cache_clean_interval: options.take_number("cache-clean-interval")?,
        check: spec.check,
        on_corruption: spec.on_corruption.clone(),
    };
    let image = super::open(layer.local, file, wanted).await.map_err(refused)?;
    if let (Some(key), true) = (key, image.is_encrypted()) {
        let set = image.set_key(&key);
        set.map_err(|error| OpenError(errno_text(&error)))?;
    }
    Ok(image)
}

/// The password that options name.
fn key(spec: &Spec, options: &mut crate::options::Options) -> Result<Option<String>, OpenError> {
    if let Some(format) = options.take("encrypt.format").filter(|format| format != "aes") {
        return Err(OpenError(format!("Unsupported encryption format '{format}'")));
    }
    let Some(id) = options.take("encrypt.key-secret") else { return Ok(None) };
    let secret = spec.secrets.passwords.get(&id).cloned();
    secret.map(Some).ok_or_else(|| OpenError(format!("No secret with id '{id}'")))
}

fn refused(error: super::OpenError) -> OpenError {
    OpenError(error.to_string())
}

/// The file with the guest's data: what the options say, or what the image names. Its bytes are the
/// guest's and are never taken for a format.
async fn open_data_file(
    layer: &mut Layer<'_>,
    file: &Rc<dyn Node>,
    named: Option<&str>,
) -> Result<Option<Rc<dyn Node>>, OpenError> {
    let mut options = layer.options.take_under("data-file");
    let given = layer.options.take("data-file").or_else(|| options.take("filename"));
    let named = named.filter(|_| options.is_empty());
    let filename = given.or_else(|| named.map(|named| name::combine(&name::of(&**file), named)));
    if filename.is_none() && options.is_empty() {
        return Ok(None);
    }
    if options.get("driver").is_none() {
        let protocol = filename.as_deref().map_or(Ok(protocol::FILE), protocol::of_name)?;
        options.set("driver", protocol.name);
    }
    let spec = Spec { no_backing: true, ..layer.spec.below(filename, options) };
    let opened = open::open(layer.local, &spec).await;
    opened.map(Some).map_err(|error| OpenError(format!("Could not open data file: {error}")))
}

/// Bytes for L2 tables and for refcount blocks.
fn cache_sizes(
    options: &mut crate::options::Options,
) -> Result<(Option<u64>, Option<u64>), OpenError> {
    let all = options.take_size("cache-size")?;
    let l2 = options.take_size("l2-cache-size")?;
    let refcounts = options.take_size("refcount-cache-size")?;
    let Some(all) = all else { return Ok((l2, refcounts)) };
    let text = match (l2, refcounts) {
        (Some(_), Some(_)) => {
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"
        }
        (Some(l2), None) if l2 > all => "l2-cache-size may not exceed cache-size",
        (None, Some(refcounts)) if refcounts > all => {
            "refcount-cache-size may not exceed cache-size"
        }
        (Some(l2), None) => return Ok((Some(l2), Some(all - l2))),
        (None, Some(refcounts)) => return Ok((Some(all - refcounts), Some(refcounts))),
        (None, None) => {
            let refcounts = DEFAULT_REFCOUNT_CACHE.min(all / 4);
            return Ok((Some(all - refcounts), Some(refcounts)));
        }
    };
    Err(OpenError(text.to_owned()))
}

fn overlap_check(options: &mut crate::options::Options) -> Result<OverlapCheck, OpenError> {
    let template = options.take("overlap-check.template");
    let mut check = match options.take("overlap-check").or(template) {
        None => OverlapCheck::default(),
        Some(name) => OverlapCheck::named(&name).map_err(OpenError)?,
    };
    for (key, place) in [
        ("overlap-check.main-header", &mut check.main_header),
        ("overlap-check.active-l1", &mut check.active_l1),
        ("overlap-check.active-l2", &mut check.active_l2),
        ("overlap-check.refcount-table", &mut check.refcount_table),
        ("overlap-check.refcount-block", &mut check.refcount_block),
        ("overlap-check.snapshot-table", &mut check.snapshot_table),
        ("overlap-check.inactive-l1", &mut check.inactive_l1),
        ("overlap-check.inactive-l2", &mut check.inactive_l2),
    ] {
        if let Some(on) = options.take_switch(key)? {
            *place = on;
        }
    }
    Ok(check)
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
    // Nothing of the password is in the image: it counts when something is written.
    options.take("encrypt.key-secret");
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
