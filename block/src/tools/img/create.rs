//! `vmm-img create`: makes an image, and the options that new images have.
//!
//! On the tool's loop.

use super::{Call, Command, Fail, Running};
use crate::tools::args::{flag, long_value, value};
use crate::tools::{images, size};
use crate::{NewImage, Options};

pub(super) const COMMAND: Command = Command {
    name: "create",
    synopsis: "[-q] [-f FMT] [-b BASE [-F FMT]] [-u] [-o OPTIONS] FILE [SIZE]",
    options: &[
        flag('q'),
        value('f'),
        value('b'),
        value('F'),
        flag('u'),
        value('o'),
        flag('e'),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

/// The options that `-o` gives, of all of them that were given; the list of those that there are
/// is printed if it is asked for, and that is all.
pub(super) fn format_options(call: &Call, format: &str) -> Result<Options, Fail> {
    let mut options = Options::new();
    for text in call.args.all('o') {
        for (key, value) in images::split_options(text) {
            if key == "help" || key == "?" {
                list(call, format)?;
                return Err(Fail::Code(0));
            }
            if key.is_empty() {
                let text = format!("Invalid options for file format '{format}'.");
                return Err(text.into());
            }
            options.set(&key, &value);
        }
    }
    Ok(options)
}

fn list(call: &Call, format: &str) -> Result<(), Fail> {
    if !images::is_format(format) {
        return Err(Fail::Told(format!("Unknown file format '{format}'")));
    }
    call.console.line("Supported options:");
    for option in images::create_options(format) {
        call.console.line(format_args!("{:<16} {}", option.name, option.help));
    }
    Ok(())
}

async fn run(call: &Call) -> Result<(), Fail> {
    let format = call.args.get('f').unwrap_or("raw");
    if call.args.has('e') {
        return Err("option -e is deprecated, please use '-o encryption' instead!".into());
    }
    let options = format_options(call, format)?;
    let (name, text) = match call.args.operands.as_slice() {
        [name] => (name, None),
        [name, size] => (name, Some(size)),
        [] => return Err(Fail::Usage("Expecting image file name".to_owned())),
        [_, _, extra, ..] => return Err(Fail::Usage(format!("Unexpected argument: {extra}"))),
    };
    let size = match text {
        None => None,
        Some(text) => Some(parse_size(call, text)?),
    };
    let new = NewImage {
        filename: name.clone(),
        format: format.to_owned(),
        size,
        backing: call.args.get('b').map(str::to_owned),
        backing_format: call.args.get('F').map(str::to_owned),
        options,
    };
    if !call.quiet() {
        call.console.line(announcement(&new));
    }
    let made = images::create(&call.local, &new).await;
    made.map_err(|error| Fail::Told(format!("{name}: {error}")))
}

fn parse_size(call: &Call, text: &str) -> Result<u64, Fail> {
    if let Some(size) = size::parse(text) {
        return Ok(size);
    }
    if resources::value::parse_size("", text).is_ok() {
        return Err("Image size must be less than 8 EiB!".into());
    }
    for line in format!("Invalid image size specified! {}", size::SUFFIXES).lines() {
        call.console.error(line);
    }
    Err(Fail::Code(1))
}

/// What is about to be made.
fn announcement(new: &NewImage) -> String {
    let NewImage { filename, format, .. } = new;
    let mut text = format!("Formatting '{filename}', fmt={format}");
    if let Some(size) = new.size {
        text.push_str(&format!(" size={size}"));
    }
    let given = [("backing_file", &new.backing), ("backing_fmt", &new.backing_format)];
    for (key, value) in given {
        if let Some(value) = value {
            text.push_str(&format!(" {key}='{value}'"));
        }
    }
    for (key, value) in new.options.iter() {
        let quoted = matches!(key, "backing_file" | "backing_fmt" | "data_file");
        let bytes = matches!(key, "size" | "cluster_size").then(|| size::parse(value)).flatten();
        match bytes {
            Some(bytes) => text.push_str(&format!(" {key}={bytes}")),
            None if quoted => text.push_str(&format!(" {key}='{value}'")),
            None => text.push_str(&format!(" {key}={value}")),
        }
    }
    text
}
