//! Reads and writes.
//!
//! On the disk's loop.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use resources::iol::IoBuf;

use super::command::{Call, Command, Running, usage};
use super::report::Report;
use super::{Failed, Session};
use crate::disk::Disk;
use crate::node::Zero;
use crate::tools::args::{flag, value};
use crate::tools::console::Console;
use crate::tools::images::why;

pub(super) const READ: Command = Command {
    name: "read",
    alias: "r",
    args: "[-abCpqv] [-P pattern [-s off] [-l len]] off len",
    about: "reads a number of bytes at a specified offset",
    options: &[
        flag('a'),
        flag('b'),
        flag('C'),
        flag('p'),
        flag('q'),
        flag('r'),
        flag('v'),
        value('P'),
        value('s'),
        value('l'),
    ],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(read(session, call)) },
    ..Command::PLAIN
};

pub(super) const READV: Command = Command {
    name: "readv",
    args: "[-Cqv] [-P pattern] off len [len..]",
    about: "reads a number of bytes at a specified offset",
    options: &[flag('C'), flag('q'), flag('r'), flag('v'), value('P')],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(readv(session, call)) },
    ..Command::PLAIN
};

pub(super) const WRITE: Command = Command {
    name: "write",
    alias: "w",
    args: "[-bcCfnpquz] [-P pattern | -s source_file] off len",
    about: "writes a number of bytes at a specified offset",
    options: &[
        flag('b'),
        flag('c'),
        flag('C'),
        flag('f'),
        flag('n'),
        flag('p'),
        flag('q'),
        flag('r'),
        flag('u'),
        flag('z'),
        value('P'),
        value('s'),
    ],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(write(session, call)) },
    ..Command::PLAIN
};

pub(super) const WRITEV: Command = Command {
    name: "writev",
    args: "[-Cfq] [-P pattern] off len [len..]",
    about: "writes a number of bytes at a specified offset",
    options: &[flag('C'), flag('f'), flag('q'), flag('r'), value('P')],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(writev(session, call)) },
    ..Command::PLAIN
};

pub(super) const MULTIWRITE: Command = Command {
    name: "multiwrite",
    args: "[-Cq] [-P pattern] off len [len..] [; off len [len..]..]",
    about: "issues multiple write requests at once",
    options: &[flag('C'), flag('q'), value('P')],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(multiwrite(session, call)) },
    ..Command::PLAIN
};

/// Requests of one multiwrite, at most.
const MOST_WRITES: usize = 256;

/// What is written without `-P`, and what buffers hold before a read.
const WRITTEN: u8 = 0xcd;
const UNREAD: u8 = 0xab;

/// What a request is about.
#[derive(Clone)]
pub(super) enum Action {
    /// Into memory.
    Read,
    /// The state of a machine, into memory.
    ReadState,
    /// From memory, durably or not.
    Write {
        /// It is to be durable.
        durable: bool,
    },
    /// A cluster, compressed.
    WriteCompressed,
    /// The state of a machine, from memory.
    WriteState,
    /// Zeros.
    Zero {
        /// How.
        how: Zero,
        /// Not by writing them.
        fast: bool,
        /// They are to be durable.
        durable: bool,
    },
}

/// A request.
pub(super) struct Request {
    pub(super) disk: Rc<Disk>,
    pub(super) action: Action,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) buf: IoBuf,
}

impl Request {
    pub(super) async fn run(&self) -> io::Result<()> {
        let Request { disk, action, offset, len, buf } = self;
        match action {
            Action::Read => disk.read(*offset, buf.clone()).await,
            Action::Write { durable } => disk.write(*offset, buf.clone(), *durable).await,
            Action::Zero { how, fast, durable } => {
                match fast {
                    true => disk.zero_fast(*offset, *len, *how).await?,
                    false => disk.zero(*offset, *len, *how).await?,
                }
                if *durable { disk.flush().await } else { Ok(()) }
            }
            Action::WriteCompressed => {
                let request = disk.begin(*offset, *len).await?;
                request.node.write_compressed(*offset, buf.clone()).await
            }
            Action::ReadState => {
                let request = disk.begin(0, 0).await?;
                let image = request.node.image().ok_or(io::ErrorKind::Unsupported)?;
                image.read_vmstate(*offset, buf.clone()).await
            }
            Action::WriteState => {
                let _held = disk.drain().await;
                let node = disk.node();
                let image = node.image().ok_or(io::ErrorKind::Unsupported)?;
                image.write_vmstate(*offset, buf.clone()).await
            }
        }
    }
}

/// Runs a request, and tells how it went.
async fn carry_out(
    session: &Session,
    call: &Call,
    request: &Request,
    check: impl FnOnce(&Console) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let start = Instant::now();
    let done = request.run().await;
    let took = start.elapsed();
    if let Err(error) = done {
        return session.refuse(format_args!("{} failed: {}", call.command.name, why(&error)));
    }
    let checked = check(&session.console);
    if !call.args.has('q') {
        let verb = match request.action {
            Action::Read | Action::ReadState => "read",
            _ => "wrote",
        };
        let (offset, asked) = (request.offset, request.len);
        let terse = call.args.has('C');
        Report { verb, offset, asked, done: asked, ops: 1, took, terse }.print(&session.console);
    }
    checked
}

/// What a read is expected to give.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) byte: u8,
    pub(super) skip: usize,
    pub(super) len: usize,
}

impl Expected {
    pub(super) fn check(self, console: &Console, offset: u64, buf: &IoBuf) -> Result<(), Failed> {
        let part = buf.skip(self.skip).slice(0..self.len);
        if part.to_vec().iter().all(|byte| *byte == self.byte) {
            return Ok(());
        }
        let at = offset + self.skip as u64;
        let len = self.len;
        console.line(format_args!("Pattern verification failed at offset {at}, {len} bytes"));
        Err(Failed)
    }
}

async fn read(session: &Session, call: &Call) -> Result<(), Failed> {
    let args = &call.args;
    let pattern = args.get('P').map(|text| session.pattern(text)).transpose()?;
    let part_len = args.get('l').map(|text| session.number(text)).transpose()?;
    let part_start = args.get('s').map(|text| session.number(text)).transpose()?;
    call.exactly(session, 2)?;
    if pattern.is_none() && (part_len.is_some() || part_start.is_some()) {
        return usage(session, call.command);
    }
    let offset = session.number(call.operand(session, 0)?)?;
    let len = session.length(call.operand(session, 1)?)?;
    let skip = part_start.unwrap_or(0);
    let part = part_len.or_else(|| len.checked_sub(skip));
    let fits = |part: &u64| skip.checked_add(*part).is_some_and(|end| end <= len);
    let Some(part) = part.filter(fits) else {
        return session.refuse("pattern verification range exceeds end of read data");
    };
    let expected = pattern.map(|byte| Expected { byte, skip: skip as usize, len: part as usize });
    let action = if args.has('b') { Action::ReadState } else { Action::Read };
    fetch(session, call, action, offset, len, expected).await
}

async fn readv(session: &Session, call: &Call) -> Result<(), Failed> {
    let pattern = call.args.get('P').map(|text| session.pattern(text)).transpose()?;
    let (offset, len) = vector(session, call)?;
    let expected = pattern.map(|byte| Expected { byte, skip: 0, len: len as usize });
    fetch(session, call, Action::Read, offset, len, expected).await
}

async fn fetch(
    session: &Session,
    call: &Call,
    action: Action,
    offset: u64,
    len: u64,
    expected: Option<Expected>,
) -> Result<(), Failed> {
    let Some(disk) = session.disk() else { return Err(Failed) };
    let buf = IoBuf::zeroed(len as usize);
    buf.fill(UNREAD);
    let request = Request { disk, action, offset, len, buf: buf.clone() };
    carry_out(session, call, &request, |console| {
        let checked = expected.map_or(Ok(()), |expected| expected.check(console, offset, &buf));
        if call.args.has('v') && !call.args.has('q') {
            dump(console, offset, &buf.to_vec());
        }
        checked
    })
    .await
}

/// The offset and the length of a request in several pieces of memory.
pub(super) fn vector(session: &Session, call: &Call) -> Result<(u64, u64), Failed> {
    let offset = session.number(call.operand(session, 0)?)?;
    call.operand(session, 1)?;
    let mut len = 0u64;
    for text in call.args.operands.iter().skip(1) {
        len = len.saturating_add(session.length(text)?);
        if len > super::MAX_REQUEST {
            return session.refuse(format_args!("Argument '{text}' exceeds maximum size"));
        }
    }
    Ok((offset, len))
}

async fn write(session: &Session, call: &Call) -> Result<(), Failed> {
    let args = &call.args;
    call.exactly(session, 2)?;
    let has = |letter: char| args.has(letter);
    if has('b') && has('z') {
        return session.refuse("-b and -z cannot be specified at the same time");
    }
    if has('f') && (has('b') || has('c')) {
        return session.refuse("-f and -b or -c cannot be specified at the same time");
    }
    if has('n') && !has('z') {
        return session.refuse("-n requires -z to be specified");
    }
    if has('u') && !has('z') {
        return session.refuse("-u requires -z to be specified");
    }
    if [has('z'), has('P'), has('s')].into_iter().filter(|given| *given).count() > 1 {
        return session.refuse("Only one of -z, -P, and -s can be specified at the same time");
    }
    let pattern = args.get('P').map(|text| session.pattern(text)).transpose()?;
    let offset = session.number(call.operand(session, 0)?)?;
    let text = call.operand(session, 1)?;
    let zero = has('z');
    let len = if zero { session.number(text)? } else { session.length(text)? };
    let buf = match args.get('s') {
        Some(name) => from_file(session, name, len as usize).await?,
        None => IoBuf::zeroed(if zero { 0 } else { len as usize }),
    };
    if !zero && !has('s') {
        buf.fill(pattern.unwrap_or(WRITTEN));
    }
    let durable = has('f');
    let action = if zero {
        let how = if has('u') { Zero::MayUnmap } else { Zero::Keep };
        Action::Zero { how, fast: has('n'), durable }
    } else if has('b') {
        Action::WriteState
    } else if has('c') {
        Action::WriteCompressed
    } else {
        Action::Write { durable }
    };
    let Some(disk) = session.disk() else { return Err(Failed) };
    let request = Request { disk, action, offset, len, buf };
    carry_out(session, call, &request, |_| Ok(())).await
}

/// Several requests at the same time, each with the next pattern.
async fn multiwrite(session: &Session, call: &Call) -> Result<(), Failed> {
    let pattern = call.args.get('P').map(|text| session.pattern(text)).transpose()?;
    let Some(disk) = session.disk() else { return Err(Failed) };
    let (mut requests, mut total) = (Vec::new(), 0u64);
    let each = call.args.operands.split(|word| word == ";");
    for (number, words) in (0u8..).zip(each.take(MOST_WRITES)) {
        let [offset, lens @ ..] = words else { return usage(session, call.command) };
        let offset = session.number(offset)?;
        let mut len = 0u64;
        for text in lens {
            len = len.saturating_add(session.length(text)?);
        }
        total = total.saturating_add(len);
        if lens.is_empty() || total > super::MAX_REQUEST {
            return usage(session, call.command);
        }
        let buf = IoBuf::zeroed(len as usize);
        buf.fill(pattern.unwrap_or(WRITTEN).wrapping_add(number));
        let action = Action::Write { durable: false };
        requests.push(Rc::new(Request { disk: disk.clone(), action, offset, len, buf }));
    }
    let start = Instant::now();
    let tasks: Vec<_> = requests
        .iter()
        .map(|request| {
            let request = request.clone();
            session.local.spawn(async move { request.run().await })
        })
        .collect();
    let mut result = Ok(());
    for task in tasks {
        let ended = task.await;
        result = result.and(ended);
    }
    let took = start.elapsed();
    if let Err(error) = result {
        return session.refuse(format_args!("aio_multiwrite failed: {}", why(&error)));
    }
    if !call.args.has('q') {
        let offset = requests.first().map_or(0, |request| request.offset);
        let (ops, terse) = (requests.len() as u64, call.args.has('C'));
        Report { verb: "wrote", offset, asked: total, done: total, ops, took, terse }
            .print(&session.console);
    }
    Ok(())
}

async fn writev(session: &Session, call: &Call) -> Result<(), Failed> {
    let pattern = call.args.get('P').map(|text| session.pattern(text)).transpose()?;
    let (offset, len) = vector(session, call)?;
    let Some(disk) = session.disk() else { return Err(Failed) };
    let buf = IoBuf::zeroed(len as usize);
    buf.fill(pattern.unwrap_or(WRITTEN));
    let action = Action::Write { durable: call.args.has('f') };
    let request = Request { disk, action, offset, len, buf };
    carry_out(session, call, &request, |_| Ok(())).await
}

/// The contents of a file, over and over.
async fn from_file(session: &Session, name: &str, len: usize) -> Result<IoBuf, Failed> {
    let path = name.to_owned();
    let read = session.local.pool(move || {
        let mut data = Vec::new();
        let file = std::fs::File::open(path)?;
        io::Read::read_to_end(&mut io::Read::take(file, len as u64), &mut data)?;
        Ok(data)
    });
    let data = match read.await {
        Ok(Ok(data)) => data,
        Ok(Err(error)) | Err(error) => {
            session.console.error_line(format_args!("{name}: {}", why(&error)));
            return Err(Failed);
        }
    };
    if data.is_empty() {
        return session.refuse(format_args!("{name}: file is empty"));
    }
    let buf = IoBuf::zeroed(len);
    let mut at = 0;
    while at < len {
        at += buf.copy_from(at, data.get(..data.len().min(len - at)).unwrap_or_default());
    }
    Ok(buf)
}

/// Bytes, sixteen on a line.
pub(super) fn dump(console: &Console, offset: u64, bytes: &[u8]) {
    let mut at = offset;
    for line in bytes.chunks(16) {
        let numbers: String = line.iter().map(|byte| format!("{byte:02x} ")).collect();
        let shown = |byte: &u8| if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '.' };
        let letters: String = line.iter().map(shown).collect();
        console.line(format_args!("{at:08x}:  {numbers} {letters}"));
        at += line.len() as u64;
    }
}
