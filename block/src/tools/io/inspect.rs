//! What is told about an image.
//!
//! On the disk's loop. Figures are the image's.

use std::rc::Rc;

use super::command::{Call, Command, Running};
use super::{Failed, Session};
use crate::disk::Disk;
use crate::node::State;
use crate::tools::images::why;
use crate::tools::img::specific;
use crate::tools::signals;
use crate::tools::size::long_bytes;

pub(super) const ALLOC: Command = Command {
    name: "alloc",
    alias: "a",
    args: "offset [count]",
    about: "checks if offset is allocated in the file",
    words: (1, Some(2)),
    run: |session, call| -> Running<'_> { Box::pin(alloc(session, call)) },
    ..Command::PLAIN
};

pub(super) const MAP: Command = Command {
    name: "map",
    about: "prints the allocated areas of a file",
    run: |session, _| -> Running<'_> { Box::pin(map(session)) },
    ..Command::PLAIN
};

pub(super) const LENGTH: Command = Command {
    name: "length",
    alias: "l",
    about: "gets the length of the current file",
    run: |session, _| -> Running<'_> {
        Box::pin(async {
            let Some(disk) = session.disk() else { return Err(Failed) };
            session.console.line(long_bytes(disk.info().size));
            Ok(())
        })
    },
    ..Command::PLAIN
};

pub(super) const INFO: Command = Command {
    name: "info",
    alias: "i",
    about: "prints information about the current file",
    run: |session, _| -> Running<'_> { Box::pin(info(session)) },
    ..Command::PLAIN
};

/// Bytes from `offset` on that are all in the top image, or all not.
async fn state(disk: &Rc<Disk>, offset: u64, len: u64) -> std::io::Result<(bool, u64)> {
    let extent = disk.map(offset, len).await?;
    Ok((extent.state != State::Absent, extent.len.clamp(1, len)))
}

async fn alloc(session: &Session, call: &Call) -> Result<(), Failed> {
    let start = session.number(call.operand(session, 0)?)?;
    let count = match call.args.operands.get(1) {
        Some(text) => session.number(text)?,
        None => 512,
    };
    let Some(disk) = session.disk() else { return Err(Failed) };
    let (mut at, mut sum) = (start, 0);
    let end = start.saturating_add(count).min(disk.info().size);
    while at < end {
        if signals::check().is_err() {
            return Err(Failed);
        }
        match state(&disk, at, end - at).await {
            Ok((allocated, len)) => {
                sum += if allocated { len } else { 0 };
                at += len;
            }
            Err(error) => {
                return session.refuse(format_args!("is_allocated failed: {}", why(&error)));
            }
        }
    }
    let place = long_bytes(start);
    session.console.line(format_args!("{sum}/{count} bytes allocated at offset {place}"));
    Ok(())
}

async fn map(session: &Session) -> Result<(), Failed> {
    let Some(disk) = session.disk() else { return Err(Failed) };
    let size = disk.info().size;
    let mut at = 0;
    let mut run: Option<(u64, u64, bool)> = None;
    while at < size {
        if signals::check().is_err() {
            return Err(Failed);
        }
        let (allocated, len) = match state(&disk, at, size - at).await {
            Ok(found) => found,
            Err(error) => {
                let why = why(&error);
                return session.refuse(format_args!("Failed to get allocation status: {why}"));
            }
        };
        match &mut run {
            Some((_, known, kind)) if *kind == allocated => *known += len,
            _ => {
                if let Some(done) = run.replace((at, len, allocated)) {
                    row(session, done);
                }
            }
        }
        at += len;
    }
    if let Some(last) = run {
        row(session, last);
    }
    Ok(())
}

fn row(session: &Session, (start, len, allocated): (u64, u64, bool)) {
    let kind = if allocated { "    allocated" } else { "not allocated" };
    let (size, place) = (long_bytes(len), long_bytes(start));
    session
        .console
        .line(format_args!("{size} ({len:#x}) bytes {kind} at offset {place} ({start:#x})"));
}

async fn info(session: &Session) -> Result<(), Failed> {
    let Some(disk) = session.disk() else { return Err(Failed) };
    let node = disk.node();
    let console = &session.console;
    console.line(format_args!("format name: {}", node.driver()));
    let facts = node.image().map(|image| image.facts()).unwrap_or_default();
    let size = |bytes: Option<u64>| long_bytes(bytes.unwrap_or(0));
    console.line(format_args!("cluster size: {}", size(facts.cluster_size)));
    console.line(format_args!("vm state offset: {}", size(facts.vmstate_offset)));
    if !facts.specific.is_empty() {
        specific(console, &facts.specific);
    }
    Ok(())
}
