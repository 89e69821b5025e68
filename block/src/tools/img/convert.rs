//! `vmm-img convert`: copies images into a new one, or into one that is there.
//!
//! On the tool's loop; compression is done by its pool.

use std::rc::Rc;

use super::bitmap;
use super::copy::{Copy, Source};
use super::create::format_options;
use super::offload::Offload;
use super::{Call, Command, Fail, Running, size_option};
use crate::NewImage;
use crate::create::is_zero_when_new;
use crate::node::Node;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{self, Wanted};
use crate::tools::size;

pub(super) const COMMAND: Command = Command {
    name: "convert",
    synopsis: "[-c] [-p] [-q] [-n] [-C] [-U] [-W] [-f FMT | --image-opts] [-t CACHE] [-T CACHE] \
               [-O FMT | --target-image-opts] [-B BASE [-F FMT]] [-o OPTIONS] [-l SNAPSHOT] \
               [-S SIZE] [-r RATE] [-m REQUESTS] [--target-is-zero] [--salvage] [--bitmaps \
               [--skip-broken-bitmaps]] FILE... OUTPUT",
    options: &[
        flag('c'),
        flag('p'),
        flag('q'),
        flag('n'),
        flag('C'),
        flag('W'),
        flag('U').long("force-share"),
        value('f'),
        value('F'),
        value('O'),
        value('B'),
        value('o'),
        value('l'),
        value('s'),
        value('S'),
        value('t'),
        value('T'),
        value('m'),
        value('r'),
        long_flag("image-opts"),
        long_flag("target-image-opts"),
        long_flag("target-is-zero"),
        long_flag("salvage"),
        long_flag("bitmaps"),
        long_flag("skip-broken-bitmaps"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

const MAX_REQUESTS: u64 = 16;
const MAX_SPARSE: u64 = 1 << 31;

/// What the options ask for.
struct Plan<'a> {
    inputs: &'a [String],
    output: &'a str,
    format: &'a str,
    compress: bool,
    create: bool,
    sparse: u64,
    requests: usize,
}

fn plan(call: &Call) -> Result<Plan<'_>, Fail> {
    let args = &call.args;
    let refuse = |text: &str| Err(Fail::Told(text.to_owned()));
    let Some((output, inputs)) = args.operands.split_last() else {
        return refuse("Must specify image file name");
    };
    if inputs.is_empty() {
        return refuse("Must specify image file name");
    }
    let (compress, create) = (args.has('c'), !args.has('n'));
    let target_image_opts = args.has("target-image-opts");
    if create && target_image_opts {
        return refuse("--target-image-opts requires use of -n flag");
    }
    if create && args.has("target-is-zero") {
        return refuse("--target-is-zero requires use of -n flag");
    }
    if target_image_opts && args.has('O') {
        return refuse("-O and --target-image-opts are mutually exclusive");
    }
    if args.has('C') && (compress || args.has('S') || args.has("salvage")) {
        return refuse("Cannot use copy offloading with -c, -S or --salvage");
    }
    if args.has("skip-broken-bitmaps") && !args.has("bitmaps") {
        return refuse("Use of --skip-broken-bitmaps requires --bitmaps");
    }
    if args.has('B') && inputs.len() > 1 {
        return refuse("-B makes no sense when concatenating multiple input images");
    }
    if args.has('l') && inputs.len() > 1 {
        return refuse("No support for concatenating multiple snapshot");
    }
    if args.has('l') && args.has("bitmaps") {
        return refuse("--bitmaps cannot be used with -l: bitmaps tell of the active disk");
    }
    if !create && args.has('o') {
        call.console.error("warning: -o has no effect when skipping image creation");
    }
    let sparse = match args.get('S') {
        None => 4096,
        Some(text) => {
            let size = size::parse(text).filter(|size| size % 512 == 0 && *size <= MAX_SPARSE);
            size.ok_or_else(|| {
                format!(
                    "Invalid buffer size for sparse output specified. Valid sizes are multiples \
                     of 512 up to {MAX_SPARSE}. Select 0 to disable sparse detection (fully \
                     allocates output)."
                )
            })?
        }
    };
    let requests = match args.get('m') {
        None => 8,
        Some(text) => {
            let number = resources::value::parse_number("", text).ok();
            let number = number.filter(|number| (1..=MAX_REQUESTS).contains(number));
            number.ok_or_else(|| {
                format!(
                    "Invalid number of coroutines. Allowed number of coroutines is between 1 \
                         and {MAX_REQUESTS}"
                )
            })?
        }
    };
    let requests = usize::try_from(requests).unwrap_or(1);
    let format = args.get('O').unwrap_or("raw");
    Ok(Plan { inputs, output, format, compress, create, sparse, requests })
}

async fn run(call: &Call) -> Result<(), Fail> {
    let plan = plan(call)?;
    let source_cache = call.cache('T', "writeback", "Invalid source cache option")?;
    let cache = call.cache('t', "unsafe", "Invalid cache option")?;
    let rate = size_option(&call.args, 'r', "rate limit")?;
    let mut sources = Vec::new();
    for name in plan.inputs {
        let wanted = Wanted { cache: source_cache, ..call.wanted(name)? };
        let wanted = Wanted { snapshot: call.args.get('l'), ..wanted };
        sources.push(Source::all(&call.open(&wanted).await?));
    }
    let bitmaps = match (call.args.has("bitmaps"), sources.as_slice()) {
        (false, _) => None,
        (true, [source]) => {
            let skip = call.args.has("skip-broken-bitmaps");
            Some((bitmap::usable(call, &source.node, skip)?, source.node.clone()))
        }
        (true, _) => return Err("Copying bitmaps only possible with single source".into()),
    };
    let total = sources.iter().try_fold(0u64, |sum, source| sum.checked_add(source.len));
    let total = total.ok_or("the images together are too large")?;
    let mut backed = call.args.has('B');
    if plan.create {
        backed |= create(call, &plan, total).await?;
    }
    let target_opts = call.args.has("target-image-opts");
    let format = Some(plan.format).filter(|_| !target_opts && (plan.create || call.args.has('O')));
    let key = match plan.create {
        true => format_options(call, plan.format)?.take("encrypt.key-secret"),
        false => None,
    };
    let wanted = Wanted {
        writable: true,
        key_secret: key.as_deref(),
        image_opts: target_opts,
        cache,
        ..Wanted::read(plan.output, format)
    };
    let target = call.open(&wanted).await?;
    if target.info().size < total {
        return Err("output file is smaller than input file".into());
    }
    if bitmaps.is_some() && target.image().is_none_or(|image| image.bitmaps().is_none()) {
        let text = format!("Format driver '{}' does not support bitmaps", target.driver());
        return Err(text.into());
    }
    let compressed = if plan.compress { Some(cluster_of(&target)?) } else { None };
    let zeroed =
        call.args.has("target-is-zero") || plan.create && !backed && is_zero_when_new(&*target);
    let offload = if call.args.has('C') { Offload::new(&target).await } else { None };
    let copy = Copy::new(sources, &target);
    let copy = Copy {
        workers: plan.requests,
        any_order: call.args.has('W'),
        sparse: plan.sparse,
        full: plan.sparse == 0 && !backed,
        zeroed,
        layers: backed.then_some(1),
        compressed,
        salvage: call.args.has("salvage"),
        rate,
        offload,
        ..copy
    };
    copy.run(&call.local, &call.console, call.args.has('p') && !call.quiet()).await?;
    if let Some((bitmaps, source)) = bitmaps {
        bitmap::copy(&bitmaps, &source, &target).await?;
    }
    target
        .flush()
        .await
        .map_err(|error| format!("error while writing: {}", images::why(&error)))?;
    Ok(())
}

/// Makes the target; whether it has a backing file.
async fn create(call: &Call, plan: &Plan<'_>, total: u64) -> Result<bool, Fail> {
    let mut options = format_options(call, plan.format)?;
    let knows = |name: &str| images::create_options(plan.format).iter().any(|o| o.name == name);
    if plan.compress {
        if !knows("compression_type") {
            return Err("Compression not supported for this file format".into());
        }
        if options.get("encryption").is_some_and(|value| value == "on")
            || options.get("encrypt.format").is_some()
        {
            return Err("Compression and encryption not supported at the same time".into());
        }
        if options.get("preallocation").is_some_and(|mode| mode != "off") {
            return Err("Compression and preallocation not supported at the same time".into());
        }
    }
    options.take("size");
    let new = NewImage {
        filename: plan.output.to_owned(),
        format: plan.format.to_owned(),
        size: Some(total),
        backing: call.args.get('B').map(str::to_owned),
        backing_format: call.args.get('F').map(str::to_owned),
        options,
    };
    let backed = new.options.get("backing_file").is_some_and(|name| !name.is_empty());
    images::create(&call.local, &new).await.map_err(|error| {
        format!("{}: error while converting {}: {error}", plan.output, plan.format)
    })?;
    Ok(backed)
}

fn cluster_of(target: &Rc<dyn Node>) -> Result<u64, Fail> {
    let cluster = target.image().and_then(|image| image.facts().cluster_size);
    let cluster = cluster.ok_or("Compression not supported for this file format")?;
    let good = cluster.is_power_of_two() && cluster <= 2 << 20;
    Ok(good.then_some(cluster).ok_or("invalid cluster size")?)
}
