//! Holding requests where a test wants them: what `blkdebug` below a disk can do.
//!
//! On the disk's loop.

use super::command::{Call, Command, Running};
use super::{Failed, Session};

pub(super) const BREAK: Command = Command {
    name: "break",
    alias: "",
    args: "event tag",
    about: "sets a breakpoint on event and tags the stopped request as tag",
    options: &[],
    words: (2, Some(2)),
    on_disk: true,
    run: |session, call| -> Running<'_> { Box::pin(set(session, call)) },
};

pub(super) const REMOVE_BREAK: Command = Command {
    name: "remove_break",
    alias: "",
    args: "tag",
    about: "remove a breakpoint by tag",
    options: &[],
    words: (1, Some(1)),
    on_disk: true,
    run: |session, call| -> Running<'_> { Box::pin(remove(session, call)) },
};

pub(super) const RESUME: Command = Command {
    name: "resume",
    alias: "",
    args: "tag",
    about: "resumes the request tagged as tag",
    options: &[],
    words: (1, Some(1)),
    on_disk: true,
    run: |session, call| -> Running<'_> { Box::pin(resume(session, call)) },
};

pub(super) const WAIT_BREAK: Command = Command {
    name: "wait_break",
    alias: "",
    args: "tag",
    about: "waits for the suspension of a request",
    options: &[],
    words: (1, Some(1)),
    on_disk: true,
    run: |session, call| -> Running<'_> { Box::pin(wait(session, call)) },
};

const UNSUPPORTED: &str = "Operation not supported";

async fn set(session: &Session, _call: &Call) -> Result<(), Failed> {
    session.refuse(format_args!("Could not set breakpoint: {UNSUPPORTED}"))
}

async fn remove(session: &Session, call: &Call) -> Result<(), Failed> {
    let tag = call.operand(session, 0)?;
    session.refuse(format_args!("Could not remove breakpoint {tag}: {UNSUPPORTED}"))
}

async fn resume(session: &Session, _call: &Call) -> Result<(), Failed> {
    session.refuse(format_args!("Could not resume request: {UNSUPPORTED}"))
}

async fn wait(session: &Session, _call: &Call) -> Result<(), Failed> {
    session.refuse(format_args!("Could not wait for the request: {UNSUPPORTED}"))
}
