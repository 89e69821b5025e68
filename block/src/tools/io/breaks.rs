//! Holding requests where a test wants them: what `blkdebug` below a disk can do.
//!
//! On the disk's loop.

use std::io;
use std::time::Duration;

use resources::iol::{Either, race};

use super::command::{Call, Command, Running};
use super::{Failed, Session};
use crate::blkdebug::{self, Blkdebug};

pub(super) const BREAK: Command = Command {
    name: "break",
    args: "event tag",
    about: "sets a breakpoint on event and tags the stopped request as tag",
    words: (2, Some(2)),
    run: |session, call| -> Running<'_> { Box::pin(set(session, call)) },
    ..Command::PLAIN
};

pub(super) const REMOVE_BREAK: Command = Command {
    name: "remove_break",
    args: "tag",
    about: "remove a breakpoint by tag",
    words: (1, Some(1)),
    run: |session, call| -> Running<'_> { Box::pin(remove(session, call)) },
    ..Command::PLAIN
};

pub(super) const RESUME: Command = Command {
    name: "resume",
    args: "tag",
    about: "resumes the request tagged as tag",
    words: (1, Some(1)),
    run: |session, call| -> Running<'_> { Box::pin(resume(session, call)) },
    ..Command::PLAIN
};

pub(super) const WAIT_BREAK: Command = Command {
    name: "wait_break",
    args: "tag",
    about: "waits for the suspension of a request",
    words: (1, Some(1)),
    run: |session, call| -> Running<'_> { Box::pin(wait(session, call)) },
    ..Command::PLAIN
};

/// How long a command of the human monitor waits: the machine waits with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `then` on the blkdebug below the disk.
async fn on_blkdebug(
    session: &Session,
    then: impl AsyncFnOnce(&Blkdebug) -> io::Result<()>,
) -> io::Result<()> {
    let Some(disk) = session.disk() else { return Err(io::ErrorKind::Unsupported.into()) };
    blkdebug::with(disk.node(), then).await?
}

/// Why it cannot be, as the C library says it.
fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::Unsupported => "Operation not supported",
        io::ErrorKind::TimedOut => "Connection timed out",
        _ => "No such file or directory",
    }
}

async fn set(session: &Session, call: &Call) -> Result<(), Failed> {
    let (event, tag) = (call.operand(session, 0)?, call.operand(session, 1)?);
    match on_blkdebug(session, async |node| node.add_break(event, tag)).await {
        Ok(()) => Ok(()),
        Err(error) => session.refuse(format_args!("Could not set breakpoint: {}", reason(&error))),
    }
}

async fn remove(session: &Session, call: &Call) -> Result<(), Failed> {
    let tag = call.operand(session, 0)?;
    match on_blkdebug(session, async |node| node.remove_break(tag)).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let why = reason(&error);
            session.refuse(format_args!("Could not remove breakpoint {tag}: {why}"))
        }
    }
}

async fn resume(session: &Session, call: &Call) -> Result<(), Failed> {
    let tag = call.operand(session, 0)?;
    match on_blkdebug(session, async |node| node.resume(tag)).await {
        Ok(()) => Ok(()),
        Err(error) => session.refuse(format_args!("Could not resume request: {}", reason(&error))),
    }
}

async fn wait(session: &Session, call: &Call) -> Result<(), Failed> {
    let tag = call.operand(session, 0)?;
    let waiting = on_blkdebug(session, async |node| {
        if !session.borrowed {
            node.wait_held(tag).await;
            return Ok(());
        }
        match race(node.wait_held(tag), session.local.sleep(PATIENCE)).await {
            Either::Left(()) => Ok(()),
            Either::Right(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    });
    match waiting.await {
        Ok(()) => Ok(()),
        Err(error) => {
            session.refuse(format_args!("Could not wait for the request: {}", reason(&error)))
        }
    }
}
