//! `vmm-img measure`: how much room an image will need.
//!
//! On the tool's loop.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::create::format_options;
use super::{Call, Command, Fail, Running};
use crate::Options;
use crate::chain::{self, Content};
use crate::image::BackingFile;
use crate::node::Node;
use crate::qcow2::create::version_named;
use crate::qcow2::{CreateOptions, Measure, Preallocation, Touched, measure};
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{self, Wanted, why};
use crate::tools::{json, signals, size};

pub(super) const COMMAND: Command = Command {
    name: "measure",
    synopsis: "[--output=human|json] [-O FMT] [-o OPTIONS] [--size N | [-f FMT | --image-opts] \
               [-l SNAPSHOT] [-U] FILE]",
    options: &[
        value('f'),
        value('l'),
        value('O'),
        value('o'),
        flag('U').long("force-share"),
        long_value("size"),
        long_value("output"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(call: &Call) -> Result<(), Fail> {
    let as_json = call.json()?;
    let format = call.args.get('O').unwrap_or("raw");
    let given = match call.args.get("size") {
        None => None,
        Some(text) => {
            let size = size::parse(text);
            Some(size.ok_or_else(|| format!("Invalid image size specified. {}", size::SUFFIXES))?)
        }
    };
    let name = match call.args.operands.as_slice() {
        [] => None,
        [name] => Some(name),
        _ => return Err("At most one filename argument is allowed.".into()),
    };
    let about_file = call.args.has("image-opts") || call.args.has('f') || call.args.has('l');
    let image = match (name, given) {
        (None, _) if about_file => {
            return Err("--image-opts, -f, and -l require a filename argument.".into());
        }
        (None, None) => return Err("Either --size N or one filename must be specified.".into()),
        (Some(_), Some(_)) => {
            return Err("--size N cannot be used together with a filename.".into());
        }
        (None, Some(_)) => None,
        (Some(name), None) => {
            let wanted = Wanted { snapshot: call.args.get('l'), ..call.wanted(name)? };
            Some(call.open(&wanted).await?)
        }
    };
    if !images::is_format(format) {
        return Err(Fail::Told(format!("Unknown file format '{format}'")));
    }
    let options = format_options(call, format)?;
    let size = given.or(image.as_ref().map(|image| image.info().size)).unwrap_or(0);
    let found = match format {
        "raw" => Measure { required: size, fully_allocated: size, bitmaps: None },
        "qcow2" => of_qcow2(image.as_ref(), size, options).await?,
        _ => {
            let text = format!("Format driver '{format}' does not support size measurement");
            return Err(text.into());
        }
    };
    if as_json {
        let mut members = Map::new();
        members.insert("required".to_owned(), json!(found.required));
        members.insert("fully-allocated".to_owned(), json!(found.fully_allocated));
        if let Some(bitmaps) = found.bitmaps {
            members.insert("bitmaps".to_owned(), json!(bitmaps));
        }
        call.console.line(json::pretty(Value::Object(members)));
        return Ok(());
    }
    call.console.line(format_args!("required size: {}", found.required));
    call.console.line(format_args!("fully allocated size: {}", found.fully_allocated));
    if let Some(bitmaps) = found.bitmaps {
        call.console.line(format_args!("bitmaps size: {bitmaps}"));
    }
    Ok(())
}

async fn of_qcow2(
    image: Option<&Rc<dyn Node>>,
    size: u64,
    options: Options,
) -> Result<Measure, Fail> {
    let wanted = parse(size, options)?;
    let mut touched = Touched::new(wanted.cluster_size);
    let mut bitmaps = None;
    if let Some(image) = image {
        // With a backing file only what the image itself has is copied.
        let layers = wanted.backing.as_ref().map(|_| 1);
        let mut at = 0;
        while at < size {
            signals::check()?;
            let place = chain::look(image, at, size - at, layers).await;
            let place = place.map_err(|e| format!("Unable to get block status: {}", why(&e)))?;
            if place.content == Content::Data {
                touched.add(at, place.len);
            }
            at += place.len;
        }
        // Length of the name, and bytes for each bit.
        let all = image.image().and_then(|image| image.bitmaps()).filter(|_| wanted.version >= 3);
        bitmaps = all.map(|all| -> Vec<_> {
            all.iter().map(|bitmap| (bitmap.name.len(), bitmap.granularity)).collect()
        });
    }
    let found = measure(&wanted, touched.bytes(), bitmaps.as_deref());
    found.map_err(|error| Fail::Told(error.to_string()))
}

fn parse(size: u64, mut options: Options) -> Result<CreateOptions, Fail> {
    let told = |error: crate::options::OptionError| Fail::Told(error.to_string());
    let known = images::create_options("qcow2");
    if let Some((key, _)) = options.iter().find(|(key, _)| known.iter().all(|o| o.name != *key)) {
        return Err(Fail::Told(format!("Invalid parameter '{key}'")));
    }
    let defaults = CreateOptions::default();
    let version = options.take("compat").map(|compat| version_named(&compat)).transpose()?;
    let mode = options.take("preallocation");
    let mode = mode.map(|mode| Preallocation::named(&mode)).transpose()?;
    let bits = options.take_number("refcount_bits").map_err(told)?;
    let backing = options.take("backing_file").filter(|name| !name.is_empty());
    Ok(CreateOptions {
        size,
        version: version.unwrap_or(defaults.version),
        preallocation: mode.unwrap_or(defaults.preallocation),
        refcount_bits: bits
            .map_or(defaults.refcount_bits, |bits| u32::try_from(bits).unwrap_or(u32::MAX)),
        cluster_size: options
            .take_size("cluster_size")
            .map_err(told)?
            .unwrap_or(defaults.cluster_size),
        extended_l2: options.take_switch("extended_l2").map_err(told)?.unwrap_or(false),
        backing: backing.map(|name| BackingFile { name, format: None }),
        ..defaults
    })
}
