//! `vmm-img check`: whether an image's metadata hold together, and mending them.
//!
//! On the tool's loop.

use serde_json::{Map, Value, json};

use super::{Call, Command, Fail, Running};
use crate::image::{Check, Image, Repair};
use crate::name;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::console::Console;
use crate::tools::images::{Wanted, why};
use crate::tools::json;

pub(super) const COMMAND: Command = Command {
    name: "check",
    synopsis: "[-q] [-f FMT | --image-opts] [--output=human|json] [-r leaks|all] [-T CACHE] [-U] FILE",
    options: &[
        flag('q').long("quiet"),
        value('f').long("format"),
        long_value("output"),
        value('r').long("repair"),
        value('T'),
        flag('U').long("force-share"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

const CORRUPT: u8 = 2;
const LEAKS: u8 = 3;
const CANNOT: u8 = 63;

async fn run(call: &Call) -> Result<(), Fail> {
    let as_json = call.json()?;
    let repair = match call.args.get('r') {
        None => Repair::No,
        Some("leaks") => Repair::Leaks,
        Some("all") => Repair::All,
        Some(other) => {
            let text = "-r expects 'leaks' or 'all' as a parameter";
            return Err(Fail::Usage(format!("{text}, not '{other}'")));
        }
    };
    let [name] = call.operands("Expecting one image file name")?;
    let cache = call.cache('T', "writeback", "Invalid source cache option")?;
    let wanted = call.wanted(name)?;
    let writable = repair != Repair::No;
    let node = call.open(&Wanted { writable, cache, check: true, ..wanted }).await?;
    let unsupported = || {
        if !as_json {
            call.console.error("This image format does not support checks");
        }
        Fail::Code(CANNOT)
    };
    let image = node.image().ok_or_else(unsupported)?;
    let mut check = look(call, image, repair).await?.ok_or_else(unsupported)?;
    if check.corruptions_fixed > 0 || check.leaks_fixed > 0 {
        let (leaks, corruptions) = (check.leaks_fixed, check.corruptions_fixed);
        if !call.quiet() && !as_json {
            let console = &call.console;
            console.line("The following inconsistencies were found and repaired:\n");
            console
                .line(format_args!("    {leaks} leaked clusters\n    {corruptions} corruptions\n"));
            console.line("Double checking the fixed image now...");
        }
        check = look(call, image, Repair::No).await?.ok_or_else(unsupported)?;
        (check.leaks_fixed, check.corruptions_fixed) = (leaks, corruptions);
    }
    if as_json {
        let filename = Some(name::of(&*node)).filter(|name| !name.is_empty());
        let filename = filename.unwrap_or_else(|| name.to_owned());
        call.console.line(json::pretty(to_json(&check, &filename, node.driver())));
    } else if !call.quiet() {
        human(&call.console, &check);
    }
    match check {
        Check { corruptions: 1.., .. } => Err(Fail::Code(CORRUPT)),
        Check { leaks: 1.., .. } => Err(Fail::Code(LEAKS)),
        Check { check_errors: 1.., .. } => Err(Fail::Code(1)),
        _ => Ok(()),
    }
}

async fn look(call: &Call, image: &dyn Image, repair: Repair) -> Result<Option<Check>, Fail> {
    match image.check(repair).await {
        Ok(check) => {
            check.lines.iter().for_each(|line| call.console.error_line(line));
            Ok(Some(check))
        }
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(Fail::Told(format!("Check failed: {}", why(&error)))),
    }
}

fn to_json(check: &Check, filename: &str, format: &str) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| {
        members.insert(name.to_owned(), value);
    };
    put("filename", json!(filename));
    put("format", json!(format));
    put("check-errors", json!(check.check_errors));
    for (name, number) in [
        ("corruptions", check.corruptions),
        ("leaks", check.leaks),
        ("corruptions-fixed", check.corruptions_fixed),
        ("leaks-fixed", check.leaks_fixed),
        ("image-end-offset", check.image_end_offset),
        ("total-clusters", check.total_clusters),
        ("allocated-clusters", check.allocated_clusters),
        ("fragmented-clusters", check.fragmented_clusters),
        ("compressed-clusters", check.compressed_clusters),
    ] {
        if number > 0 {
            put(name, json!(number));
        }
    }
    Value::Object(members)
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn percent(part: u64, all: u64) -> f64 {
    part as f64 * 100.0 / all as f64
}

fn human(console: &Console, check: &Check) {
    let Check { corruptions, leaks, check_errors, .. } = check;
    if *corruptions == 0 && *leaks == 0 && *check_errors == 0 {
        console.line("No errors were found on the image.");
    }
    if *corruptions > 0 {
        console.line(format_args!("\n{corruptions} errors were found on the image."));
        console.line("Data may be corrupted, or further writes to the image may corrupt it.");
    }
    if *leaks > 0 {
        console.line(format_args!("\n{leaks} leaked clusters were found on the image."));
        console.line("This means waste of disk space, but no harm to data.");
    }
    if *check_errors > 0 {
        let text = "internal errors have occurred during the check.";
        console.line(format_args!("\n{check_errors} {text}"));
    }
    let (total, allocated) = (check.total_clusters, check.allocated_clusters);
    if total > 0 && allocated > 0 {
        console.line(format_args!(
            "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
            percent(allocated, total),
            percent(check.fragmented_clusters, allocated),
            percent(check.compressed_clusters, allocated),
        ));
    }
    if check.image_end_offset > 0 {
        console.line(format_args!("Image end offset: {}", check.image_end_offset));
    }
}
