//! Opening, closing, and everything that is neither a transfer nor a question.
//!
//! On the disk's loop.

use std::time::{Duration, Instant};

use super::command::{COMMANDS, Call, Command, Running, find, summary, usage};
use super::report::Report;
use super::{Failed, Flags, Session, keep_discards};
use crate::disk::Disk;
use crate::tools::args::{flag, value};
use crate::tools::images::{split_options, why};
use crate::{Cache, Options};

pub(super) const OPEN: Command = Command {
    name: "open",
    alias: "o",
    args: "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
    about: "open the file specified by path",
    options: &[
        flag('r'),
        flag('s'),
        flag('C'),
        flag('n'),
        flag('g'),
        flag('k'),
        flag('U'),
        value('t'),
        value('d'),
        value('o'),
        value('i'),
    ],
    words: (0, None),
    on_disk: false,
    run: |session, call| -> Running<'_> { Box::pin(open(session, call)) },
};

pub(super) const CLOSE: Command = Command {
    name: "close",
    alias: "c",
    about: "close the current open file",
    run: |session, _| -> Running<'_> {
        Box::pin(async {
            session.own()?;
            session.close().await
        })
    },
    ..Command::PLAIN
};

pub(super) const REOPEN: Command = Command {
    name: "reopen",
    args: "[(-r|-w)]",
    about: "reopens an image with new options",
    options: &[flag('r'), flag('w')],
    words: (0, None),
    run: |session, call| -> Running<'_> { Box::pin(reopen(session, call)) },
    ..Command::PLAIN
};

pub(super) const FLUSH: Command = Command {
    name: "flush",
    alias: "f",
    about: "flush all in-core file state to disk",
    run: |session, _| -> Running<'_> {
        Box::pin(async {
            let Some(disk) = session.disk() else { return Err(Failed) };
            match disk.flush().await {
                Ok(()) => Ok(()),
                Err(error) => session.refuse(format_args!("flush failed: {}", why(&error))),
            }
        })
    },
    ..Command::PLAIN
};

pub(super) const TRUNCATE: Command = Command {
    name: "truncate",
    alias: "t",
    args: "off",
    about: "truncates the current file at the given offset",
    words: (1, Some(1)),
    run: |session, call| -> Running<'_> { Box::pin(truncate(session, call)) },
    ..Command::PLAIN
};

pub(super) const DISCARD: Command = Command {
    name: "discard",
    alias: "d",
    args: "[-Cq] off len",
    about: "discards a number of bytes at a specified offset",
    options: &[flag('C'), flag('q')],
    words: (2, None),
    run: |session, call| -> Running<'_> { Box::pin(discard(session, call)) },
    ..Command::PLAIN
};

pub(super) const SLEEP: Command = Command {
    name: "sleep",
    args: "ms",
    about: "waits for the given value in milliseconds",
    words: (1, Some(1)),
    on_disk: false,
    run: |session, call| -> Running<'_> { Box::pin(sleep(session, call)) },
    ..Command::PLAIN
};

pub(super) const ABORT: Command = Command {
    name: "abort",
    about: "simulate a program crash using abort(3)",
    on_disk: false,
    run: |session, _| -> Running<'_> {
        Box::pin(async {
            session.own()?;
            std::process::abort()
        })
    },
    ..Command::PLAIN
};

pub(super) const QUIT: Command = Command {
    name: "quit",
    alias: "q",
    about: "exit the program",
    on_disk: false,
    run: |session, _| -> Running<'_> {
        Box::pin(async {
            session.quit.set(true);
            Ok(())
        })
    },
    ..Command::PLAIN
};

pub(super) const HELP: Command = Command {
    name: "help",
    alias: "?",
    args: "[command]",
    about: "help for one or all commands",
    words: (0, Some(1)),
    on_disk: false,
    run: |session, call| -> Running<'_> { Box::pin(help(session, call)) },
    ..Command::PLAIN
};

impl Session {
    /// The disk is the session's own.
    fn own(&self) -> Result<(), Failed> {
        if self.borrowed {
            return self.refuse("not with a disk that is in use");
        }
        Ok(())
    }

    /// Opens a file.
    pub(super) async fn open(&self, name: &str) -> Result<(), Failed> {
        if self.disk().is_some() {
            self.console.error("file open already, try 'help close'");
            return Err(Failed);
        }
        let flags = self.flags.borrow().clone();
        match crate::open(&self.local, &flags.spec(name)).await {
            Ok(node) => {
                let disk = Disk::of_tool(node, flags.cache.writeback, !flags.keep_discards);
                if flags.copy_on_read {
                    disk.set_copy_on_read(true).await;
                }
                *self.disk.borrow_mut() = Some(disk);
                Ok(())
            }
            Err(error) => {
                let name = if name.is_empty() { "(null)" } else { name };
                self.console.error(format_args!("can't open device {name}: {error}"));
                Err(Failed)
            }
        }
    }
}

async fn open(session: &Session, call: &Call) -> Result<(), Failed> {
    session.own()?;
    let args = &call.args;
    let cache = match (args.get('t'), args.has('n')) {
        (None, true) => "none",
        (name, _) => name.unwrap_or("writeback"),
    };
    let Some(cache) = Cache::named(cache) else {
        return session.refuse(format_args!("Invalid cache option: {cache}"));
    };
    let Ok(keep_discards) = keep_discards(args.get('d')) else {
        let text = args.get('d').unwrap_or_default();
        return session.refuse(format_args!("Invalid discard option: {text}"));
    };
    let options: Options = args.all('o').flat_map(split_options).collect();
    let name = match args.operands.as_slice() {
        [] => String::new(),
        [name] => name.clone(),
        _ => return usage(session, call.command),
    };
    let format = options.get("driver").map(str::to_owned);
    let secrets = session.flags.borrow().secrets.clone();
    *session.flags.borrow_mut() = Flags {
        read_only: args.has('r'),
        snapshot: args.has('s'),
        copy_on_read: args.has('C'),
        force_share: args.has('U'),
        image_opts: name.is_empty(),
        growable: args.has('g'),
        cache,
        keep_discards,
        format,
        options,
        secrets,
        threads: args.get('i') == Some("threads"),
    };
    session.open(&name).await
}

async fn reopen(session: &Session, call: &Call) -> Result<(), Failed> {
    let Some(disk) = session.disk() else { return Err(Failed) };
    let read_only = match (call.args.has('r'), call.args.has('w')) {
        (true, true) => return usage(session, call.command),
        (false, false) => return Ok(()),
        (read_only, _) => read_only,
    };
    let _held = disk.drain().await;
    match disk.node().reopen(read_only).await {
        Ok(()) => Ok(()),
        Err(error) => session.refuse(format_args!("Could not reopen the file: {}", why(&error))),
    }
}

async fn truncate(session: &Session, call: &Call) -> Result<(), Failed> {
    let size = session.number(call.operand(session, 0)?)?;
    let Some(disk) = session.disk() else { return Err(Failed) };
    match disk.resize(size).await {
        Ok(()) => Ok(()),
        Err(error) => session.refuse(format_args!("truncate: {}", why(&error))),
    }
}

async fn discard(session: &Session, call: &Call) -> Result<(), Failed> {
    call.exactly(session, 2)?;
    let offset = session.number(call.operand(session, 0)?)?;
    let len = session.length(call.operand(session, 1)?)?;
    let Some(disk) = session.disk() else { return Err(Failed) };
    let start = Instant::now();
    if let Err(error) = disk.discard(offset, len).await {
        return session.refuse(format_args!("discard failed: {}", why(&error)));
    }
    if !call.args.has('q') {
        let (took, terse) = (start.elapsed(), call.args.has('C'));
        Report { verb: "discard", offset, asked: len, done: len, ops: 1, took, terse }
            .print(&session.console);
    }
    Ok(())
}

async fn sleep(session: &Session, call: &Call) -> Result<(), Failed> {
    session.own()?;
    let text = call.operand(session, 0)?;
    let Ok(millis) = resources::value::parse_number("", text) else {
        return session.refuse(format_args!("{text} is not a number of milliseconds"));
    };
    session.local.sleep(Duration::from_millis(millis)).await;
    Ok(())
}

async fn help(session: &Session, call: &Call) -> Result<(), Failed> {
    let console = &session.console;
    let Some(name) = call.args.operands.first() else {
        for command in COMMANDS {
            console.line(summary(command));
        }
        console.line("\nUse 'help commandname' for extended help.");
        return Ok(());
    };
    match find(name) {
        Some(command) => {
            console.line(summary(command));
            Ok(())
        }
        None => session.refuse(format_args!("command {name} not found")),
    }
}
