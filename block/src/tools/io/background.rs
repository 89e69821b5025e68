//! Requests that go on while other commands are carried out.
//!
//! Tasks of the disk's loop; they tell how it went when they are done.

use std::time::Instant;

use resources::iol::IoBuf;

use super::command::{Call, Command, Running};
use super::report::Report;
use super::transfer::{Action, Expected, Request, dump, vector};
use super::{Failed, Session};
use crate::node::Zero;
use crate::tools::args::{flag, value};
use crate::tools::images::why;

pub(super) const READ: Command = Command {
    name: "aio_read",
    args: "[-Ciqv] [-P pattern] off len [len..]",
    about: "asynchronously reads a number of bytes",
    options: &[flag('C'), flag('i'), flag('q'), flag('r'), flag('v'), value('P')],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(read(session, call)) },
    ..Command::PLAIN
};

pub(super) const WRITE: Command = Command {
    name: "aio_write",
    args: "[-Cfiquz] [-P pattern] off len [len..]",
    about: "asynchronously writes a number of bytes",
    options: &[
        flag('C'),
        flag('f'),
        flag('i'),
        flag('q'),
        flag('r'),
        flag('u'),
        flag('z'),
        value('P'),
    ],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(write(session, call)) },
    ..Command::PLAIN
};

pub(super) const FLUSH: Command = Command {
    name: "aio_flush",
    about: "completes all outstanding aio requests",
    run: |session, _| -> Running<'_> {
        Box::pin(async {
            session.drain().await;
            Ok(())
        })
    },
    ..Command::PLAIN
};

/// Requests under way at most: each has memory of its own.
const MOST: usize = 1024;

async fn read(session: &Session, call: &Call) -> Result<(), Failed> {
    let pattern = call.args.get('P').map(|text| session.pattern(text)).transpose()?;
    let (offset, len) = vector(session, call)?;
    let Some(disk) = session.disk() else { return Err(Failed) };
    let buf = IoBuf::zeroed(len as usize);
    buf.fill(0xab);
    let request = Request { disk, action: Action::Read, offset, len, buf };
    let expected = pattern.map(|byte| Expected { byte, skip: 0, len: len as usize });
    start(session, call, request, expected)
}

async fn write(session: &Session, call: &Call) -> Result<(), Failed> {
    let args = &call.args;
    if args.has('z') && args.operands.len() > 2 {
        return session.refuse("-z supports only a single length parameter");
    }
    if args.has('u') && !args.has('z') {
        return session.refuse("-u requires -z to be specified");
    }
    if args.has('z') && args.has('P') {
        return session.refuse("-z and -P cannot be specified at the same time");
    }
    let pattern = args.get('P').map(|text| session.pattern(text)).transpose()?;
    let (offset, len) = vector(session, call)?;
    let Some(disk) = session.disk() else { return Err(Failed) };
    let durable = args.has('f');
    let (action, buf) = if args.has('z') {
        let how = if args.has('u') { Zero::MayUnmap } else { Zero::Keep };
        (Action::Zero { how, fast: false, durable }, IoBuf::empty())
    } else {
        let buf = IoBuf::zeroed(len as usize);
        buf.fill(pattern.unwrap_or(0xcd));
        (Action::Write { durable }, buf)
    };
    start(session, call, Request { disk, action, offset, len, buf }, None)
}

fn start(
    session: &Session,
    call: &Call,
    request: Request,
    expected: Option<Expected>,
) -> Result<(), Failed> {
    let mut background = session.background.borrow_mut();
    background.retain(|task| !task.is_finished());
    if background.len() >= MOST {
        return session.refuse("there are too many requests under way");
    }
    let console = session.console.clone();
    let (quiet, terse, verbose) = (call.args.has('q'), call.args.has('C'), call.args.has('v'));
    let task = session.local.spawn(async move {
        let begun = Instant::now();
        let done = request.run().await;
        let took = begun.elapsed();
        let reads = matches!(request.action, Action::Read);
        let Request { offset, len, buf, .. } = &request;
        if let Err(error) = done {
            let name = if reads { "readv" } else { "aio_write" };
            console.line(format_args!("{name} failed: {}", why(&error)));
            return;
        }
        if let Some(expected) = expected {
            let _ = expected.check(&console, *offset, buf);
        }
        if quiet {
            return;
        }
        if verbose && reads {
            dump(&console, *offset, &buf.to_vec());
        }
        let verb = if reads { "read" } else { "wrote" };
        Report { verb, offset: *offset, asked: *len, done: *len, ops: 1, took, terse }
            .print(&console);
    });
    background.push(task);
    Ok(())
}
