//! `vmm-img amend`: changes what an image is.
//!
//! On the tool's loop.

use super::create::{chosen_options, list};
use super::{Call, Command, Fail, Running};
use crate::format;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{Wanted, why};
use crate::tools::progress::Progress;

pub(super) const COMMAND: Command = Command {
    name: "amend",
    synopsis: "[-p] [-q] [-f FMT | --image-opts] [-t CACHE] [--force] -o OPTIONS FILE",
    options: &[
        value('o'),
        value('f'),
        value('t'),
        flag('p'),
        flag('q'),
        long_flag("force"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(call: &Call) -> Result<(), Fail> {
    if !call.args.has('o') {
        return Err(Fail::Usage("Must specify options (-o)".to_owned()));
    }
    let lists = |name: Option<&str>| -> Result<(), Fail> {
        let format = name.and_then(format::named).map(|format| (format.name, format.amend_options));
        match format {
            Some((name, options @ [_, ..])) => {
                call.console.line(format_args!("Amend options for '{name}':"));
                list(&call.console, options);
                Err(Fail::Code(0))
            }
            _ => Ok(()),
        }
    };
    let chosen = chosen_options(call, call.args.get('f').unwrap_or("raw"))?;
    if chosen.is_none() {
        lists(call.args.get('f'))?;
    }
    let [name] = call.operands("Expecting one image file name")?;
    let cache = call.cache('t', "writeback", "Invalid cache option")?;
    let image = call.open(&Wanted { writable: true, cache, ..call.wanted(name)? }).await?;
    let driver = image.driver();
    if chosen.is_none() {
        lists(Some(driver))?;
    }
    let known = format::named(driver).map(|format| format.amend_options).unwrap_or_default();
    let (Some(format), [_, ..]) = (image.image(), known) else {
        let text = format!("Format driver '{driver}' does not support option amendment");
        return Err(text.into());
    };
    let mut options = chosen.unwrap_or_default();
    if let Some((key, _)) = options.iter().find(|(key, _)| known.iter().all(|o| o.name != *key)) {
        call.console.error(format_args!("Invalid parameter '{key}'"));
        let made = format::named(driver).map(|format| format.create_options).unwrap_or_default();
        if made.iter().any(|option| option.name == key) {
            call.console.error_line("This option is only supported for image creation");
        }
        return Err(Fail::Code(1));
    }
    let rebase = options.has("backing_file") || options.has("backing_fmt");
    let progress = Progress::new(&call.console, call.args.has('p') && !call.quiet(), 1);
    if let Err(error) = format.amend(&mut options).await {
        if call.args.has('p') && !call.quiet() {
            call.console.line("");
        }
        call.console.error(why(&error));
        if rebase {
            call.console
                .error_line(format_args!("You can use '{} rebase' instead.", call.console.name()));
        }
        return Err(Fail::Code(1));
    }
    progress.end();
    image.flush().await.map_err(|error| Fail::Told(why(&error)))
}
