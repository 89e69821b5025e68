//! `vmm-img bitmap`: changes the dirty bitmaps that an image keeps, and `convert --bitmaps`.
//!
//! On the tool's loop. Names are a user's or an image's; the bits of one bitmap are in memory.

use std::io;
use std::rc::Rc;

use super::{Call, Command, Fail, Running, size_option};
use crate::image::{BitmapChange, Image, PersistentBitmap};
use crate::node::Node;
use crate::tools::args::{Name, flag, long_flag, long_value, value};
use crate::tools::images::{Wanted, why};

pub(super) const COMMAND: Command = Command {
    name: "bitmap",
    synopsis: "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b \
               SOURCE_FILE [-F FMT]] [-g GRANULARITY] [-f FMT | --image-opts] FILE BITMAP",
    options: &[
        value('b'),
        value('f'),
        value('F'),
        value('g'),
        flag('U').long("force-share"),
        long_flag("add"),
        long_flag("remove"),
        long_flag("clear"),
        long_flag("enable"),
        long_flag("disable"),
        long_value("merge"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(call: &Call) -> Result<(), Fail> {
    let args = &call.args;
    let refuse = |text: &str| Err(Fail::Told(text.to_owned()));
    let granularity = size_option(args, 'g', "granularity")?;
    let [file, name] = args.operands.as_slice() else {
        return refuse("Expecting filename and bitmap name");
    };
    let word = |name| match name {
        Name::Long(word @ ("add" | "remove" | "clear" | "enable" | "disable" | "merge")) => {
            Some(word)
        }
        _ => None,
    };
    let changes: Vec<_> =
        args.given().filter_map(|(name, text)| Some((word(name)?, text))).collect();
    if changes.is_empty() {
        return refuse(
            "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge",
        );
    }
    let has = |wanted: &str| changes.iter().any(|(word, _)| *word == wanted);
    if granularity.is_some() && !has("add") {
        return refuse("granularity only supported with --add");
    }
    if args.has('F') && !args.has('b') {
        return refuse("-F only supported with -b");
    }
    if args.has('b') && !has("merge") {
        return refuse("Merge bitmap source file only supported with --merge");
    }
    let node = call.open(&Wanted { writable: true, ..call.wanted(file)? }).await?;
    let source = match args.get('b') {
        Some(source) => call.open(&Wanted::read(source, args.get('F'))).await?,
        None => node.clone(),
    };
    for (word, text) in changes {
        let done = match word {
            "add" => change(&node, name, BitmapChange::Add { granularity, enabled: true }).await,
            "remove" => change(&node, name, BitmapChange::Remove).await,
            "clear" => change(&node, name, BitmapChange::Clear).await,
            "enable" => change(&node, name, BitmapChange::Enable).await,
            "disable" => change(&node, name, BitmapChange::Disable).await,
            _ => merge(&source, text, &node, name).await,
        };
        done.map_err(|error| {
            Fail::Told(format!("Operation {word} on bitmap {name} failed: {}", why(&error)))
        })?;
    }
    Ok(())
}

fn image(node: &Rc<dyn Node>) -> io::Result<&dyn Image> {
    node.image().ok_or(io::ErrorKind::Unsupported.into())
}

async fn change(node: &Rc<dyn Node>, name: &str, change: BitmapChange<'_>) -> io::Result<()> {
    image(node)?.change_bitmap(name, change).await
}

async fn merge(
    from: &Rc<dyn Node>,
    source: &str,
    node: &Rc<dyn Node>,
    name: &str,
) -> io::Result<()> {
    let bits = image(from)?.bitmap(source).await?;
    change(node, name, BitmapChange::Merge(&bits)).await
}

/// The bitmaps of a source, without those that are inconsistent: these are a failure, unless they
/// may be skipped.
pub(super) fn usable(
    call: &Call,
    source: &Rc<dyn Node>,
    skip: bool,
) -> Result<Vec<PersistentBitmap>, Fail> {
    let bitmaps = source.image().and_then(|image| image.bitmaps());
    let mut bitmaps = bitmaps.ok_or("Source lacks bitmap support")?;
    for PersistentBitmap { name, .. } in bitmaps.iter().filter(|bitmap| bitmap.inconsistent) {
        if !skip {
            call.console.error(format_args!("Cannot copy inconsistent bitmap '{name}'"));
            call.console
                .error_line("Try --skip-broken-bitmaps, or use 'bitmap --remove' to delete it");
            return Err(Fail::Code(1));
        }
        call.console.error(format_args!("warning: Skipping inconsistent bitmap '{name}'"));
    }
    bitmaps.retain(|bitmap| !bitmap.inconsistent);
    Ok(bitmaps)
}

/// Copies bitmaps of one image to another one, which has the same contents.
pub(super) async fn copy(
    bitmaps: &[PersistentBitmap],
    source: &Rc<dyn Node>,
    target: &Rc<dyn Node>,
) -> Result<(), Fail> {
    for PersistentBitmap { name, granularity, enabled, .. } in bitmaps {
        let add = BitmapChange::Add { granularity: Some(*granularity), enabled: false };
        let added = change(target, name, add).await;
        added.map_err(|e| format!("Failed to create bitmap {name}: {}", why(&e)))?;
        let fill = async {
            merge(source, name, target, name).await?;
            if *enabled { change(target, name, BitmapChange::Enable).await } else { Ok(()) }
        };
        fill.await.map_err(|e| format!("Failed to populate bitmap {name}: {}", why(&e)))?;
    }
    Ok(())
}
