//! `vmm-img commit`: writes what an image has into an image below it.
//!
//! On the tool's loop.

use std::rc::Rc;

use super::copy::{Copy, Source};
use super::{Call, Command, Fail, Running, size_option};
use crate::chain;
use crate::name;
use crate::node::Node;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{Wanted, why};

pub(super) const COMMAND: Command = Command {
    name: "commit",
    synopsis: "[-f FMT | --image-opts] [-t CACHE] [-b BASE] [-r RATE] [-d] [-p] [-q] FILE",
    options: &[
        value('f'),
        value('t'),
        value('b'),
        value('r'),
        flag('d'),
        flag('p'),
        flag('q'),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(call: &Call) -> Result<(), Fail> {
    let [name] = call.operands("Expecting one image file name")?;
    let cache = call.cache('t', "writeback", "Invalid cache option")?;
    let rate = size_option(&call.args, 'r', "rate limit")?;
    let top = call.open(&Wanted { writable: true, cache, ..call.wanted(name)? }).await?;
    let below = chain::backing(&top).ok_or("Image does not have a backing file")?;
    let (base, layers) = match call.args.get('b') {
        None => (below, 1),
        Some(name) => find(below, name).ok_or_else(|| {
            format!("Did not find '{name}' in the backing chain of '{}'", file(&top))
        })?,
    };
    base.reopen(false).await.map_err(|error| format!("Block job failed: {}", why(&error)))?;
    let done = commit(call, &top, &base, layers, rate).await;
    // It is as durable as it is going to be, and nobody writes it any more.
    let closed = base.reopen(true).await;
    done?;
    closed.map_err(|error| format!("Block job failed: {}", why(&error)))?;
    if layers == 1
        && !call.args.has('d')
        && let Some(image) = top.image()
    {
        match image.make_empty().await {
            Err(error) if error.kind() != std::io::ErrorKind::Unsupported => {
                return Err(Fail::Told(format!("Could not empty {}: {}", file(&top), why(&error))));
            }
            _ => {}
        }
    }
    if !call.quiet() {
        call.console.line("Image committed.");
    }
    Ok(())
}

async fn commit(
    call: &Call,
    top: &Rc<dyn Node>,
    base: &Rc<dyn Node>,
    layers: u32,
    rate: Option<u64>,
) -> Result<(), Fail> {
    let failed = |error: std::io::Error| format!("Block job failed: {}", why(&error));
    if base.info().size < top.info().size {
        base.resize(top.info().size).await.map_err(failed)?;
    }
    let copy = Copy::new(vec![Source::all(top)], base);
    let copy = Copy { sparse: 0, layers: Some(layers), rate, ..copy };
    copy.run(&call.local, &call.console, call.args.has('p')).await?;
    Ok(base.flush().await.map_err(failed)?)
}

/// The image of this name below, and how many lie above it.
fn find(mut node: Rc<dyn Node>, name: &str) -> Option<(Rc<dyn Node>, u32)> {
    let mut layers = 1;
    while file(&node) != name {
        node = chain::backing(&node)?;
        layers += 1;
    }
    Some((node, layers))
}

fn file(node: &Rc<dyn Node>) -> String {
    name::of(&**node)
}
