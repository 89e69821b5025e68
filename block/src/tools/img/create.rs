//! `vmm-img create`: makes an image, and the options that new images have.
//!
//! On the tool's loop.

use super::{Call, Command, Fail, Running};
use crate::tools::args::{flag, long_value, value};
use crate::tools::console::Console;
use crate::tools::images::Wanted;
use crate::tools::{images, size};
use crate::{CreateOption, NewImage, Options, name};

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
    if let Some(options) = chosen_options(call, format)? {
        return Ok(options);
    }
    if !images::is_format(format) {
        return Err(Fail::Told(format!("Unknown file format '{format}'")));
    }
    call.console.line("Supported options:");
    list(&call.console, images::create_options(format));
    Err(Fail::Code(0))
}

/// The options that `-o` gives; `None` when the list of those that there are is asked for.
pub(super) fn chosen_options(call: &Call, format: &str) -> Result<Option<Options>, Fail> {
    let mut options = Options::new();
    for text in call.args.all('o') {
        for (key, value) in images::split_options(text) {
            if key == "help" || key == "?" {
                return Ok(None);
            }
            if key.is_empty() {
                let text = format!("Invalid options for file format '{format}'.");
                return Err(text.into());
            }
            options.set(&key, &value);
        }
    }
    if let Some(id) = options.get("encrypt.key-secret")
        && !call.secrets.passwords.contains_key(id)
    {
        return Err(Fail::Told(format!("No secret with id '{id}'")));
    }
    Ok(Some(options))
}

pub(super) fn list(console: &Console, options: &[CreateOption]) {
    for option in options {
        console.line(format_args!("{:<16} {}", option.name, option.help));
    }
}

async fn run(call: &Call) -> Result<(), Fail> {
    let format = call.args.get('f').unwrap_or("raw");
    if call.args.has('e') {
        return Err("option -e is deprecated, please use '-o encryption' instead!".into());
    }
    let options = format_options(call, format)?;
    let (file, text) = match call.args.operands.as_slice() {
        [file] => (file, None),
        [file, size] => (file, Some(size)),
        [] => return Err(Fail::Usage("Expecting image file name".to_owned())),
        [_, _, extra, ..] => return Err(Fail::Usage(format!("Unexpected argument: {extra}"))),
    };
    let size = match text {
        None => None,
        Some(text) => Some(parse_size(call, text)?),
    };
    let new = NewImage {
        filename: file.clone(),
        format: format.to_owned(),
        size,
        backing: call.args.get('b').map(str::to_owned),
        backing_format: call.args.get('F').map(str::to_owned),
        options,
    };
    if !call.quiet() {
        call.console.line(announcement(&new));
    }
    if call.args.has('u') {
        if new.size.is_none() && !new.options.has("size") {
            return Err(Fail::Told(format!("{file}: Image creation needs a size parameter")));
        }
    } else {
        look_below(call, &new).await?;
    }
    let made = images::create(&call.local, &new).await;
    made.map_err(|error| Fail::Told(format!("{file}: {error}")))
}

/// What shows through a new image has to be there, even where its size is not needed.
async fn look_below(call: &Call, new: &NewImage) -> Result<(), Fail> {
    let backing = new.backing.as_deref().or(new.options.get("backing_file"));
    let Some(backing) = backing.filter(|name| !name.is_empty() && *name != new.filename) else {
        return Ok(());
    };
    let full = name::combine(&new.filename, backing);
    let format = new.backing_format.as_deref().or(new.options.get("backing_fmt"));
    let wanted = Wanted { no_backing: true, force_share: true, ..Wanted::read(&full, format) };
    if let Err(Fail::Told(text)) = call.open(&wanted).await.map(drop) {
        // Opening names it once more.
        let text = text.strip_prefix(&format!("Could not open '{full}': ")).unwrap_or(&text);
        call.console.error(format_args!("{}: {text}", new.filename));
        call.console.error_line("Could not open backing image.");
        return Err(Fail::Code(1));
    }
    call.close().await
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
