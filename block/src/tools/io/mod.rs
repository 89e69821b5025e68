//! `vmm-io`: single requests to a disk, from the command line or the human monitor.
//!
//! | piece | file |
//! |---|---|
//! | the commands and their words | `command.rs` |
//! | reads and writes, now or in the background | `transfer.rs`, `background.rs` |
//! | what is told about an image | `inspect.rs` |
//! | opening, closing and everything else | `control.rs` |
//! | fault injection | `breaks.rs` |
//! | how fast it was | `report.rs` |
//!
//! A [`Session`] belongs to the loop where its disk is; no lock. Words come from whoever starts the
//! tool or has a monitor; buffers are bounded by what one request may have.

mod background;
mod breaks;
mod command;
mod control;
mod inspect;
mod report;
#[cfg(test)]
mod tests;
mod transfer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use resources::iol::{Local, Loop, Task};

use super::args::{Parsed, flag, long_flag, long_value, value};
use super::console::{Console, Fail};
use super::secrets;
use super::{args, images, signals};
use crate::disk::Disk;
use crate::open::Secrets;
use crate::open::Spec;
use crate::{Cache, Options};

/// Bytes of one request at most: what fits the signed 32-bit numbers of others, in sectors.
const MAX_REQUEST: u64 = 2_147_483_136;

/// The same in a machine that runs, where memory is short.
const MAX_BORROWED: u64 = 256 << 20;

/// A disk, and what is done with it.
pub struct Session {
    local: Local,
    console: Console,
    disk: RefCell<Option<Rc<Disk>>>,
    /// How `open` opens.
    flags: RefCell<Flags>,
    /// Somebody else's disk: it is not closed, nor is another one opened.
    borrowed: bool,
    background: RefCell<Vec<Task<()>>>,
    quit: Cell<bool>,
}

/// A command that did not do what it should; it has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failed;

/// How a file is opened.
#[derive(Debug, Clone, Default)]
struct Flags {
    read_only: bool,
    snapshot: bool,
    copy_on_read: bool,
    force_share: bool,
    image_opts: bool,
    /// The protocol alone.
    growable: bool,
    cache: Cache,
    keep_discards: bool,
    format: Option<String>,
    options: Options,
    secrets: Secrets,
    threads: bool,
}

impl Session {
    /// Without a disk.
    fn new(local: &Local, console: &Console, flags: Flags) -> Session {
        Session {
            local: local.clone(),
            console: console.clone(),
            disk: RefCell::default(),
            flags: RefCell::new(flags),
            borrowed: false,
            background: RefCell::default(),
            quit: Cell::new(false),
        }
    }

    /// With a disk that is in use: of the human monitor. What is in the background when the session
    /// ends goes on.
    pub fn borrowing(local: &Local, console: &Console, disk: Rc<Disk>) -> Session {
        let mut session = Session::new(local, console, Flags::default());
        session.disk = RefCell::new(Some(disk));
        session.borrowed = true;
        session
    }

    /// Carries out one command; true if it did what it should. What it prints goes to the
    /// console; requests in the background go on.
    pub async fn run(&self, line: &str) -> bool {
        command::run(self, line).await.is_ok()
    }

    fn disk(&self) -> Option<Rc<Disk>> {
        self.disk.borrow().clone()
    }

    /// Waits for what is in the background.
    async fn drain(&self) {
        loop {
            let Some(task) = self.background.borrow_mut().pop() else { break };
            task.await;
        }
    }

    /// Ends the use of the disk.
    async fn close(&self) -> Result<(), Failed> {
        self.drain().await;
        let Some(disk) = self.disk.take() else { return Ok(()) };
        if self.borrowed {
            return Ok(());
        }
        let _held = disk.drain().await;
        disk.node().close().await.map_err(|error| {
            self.console.error(format_args!("Could not finish writing: {}", images::why(&error)));
            Failed
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // An operation that has begun is not given up half way.
        self.background.take().into_iter().for_each(Task::detach);
    }
}

const OPTIONS: &[args::Opt] = &[
    value('c').long("cmd"),
    value('f').long("format"),
    flag('r').long("read-only"),
    flag('s').long("snapshot"),
    flag('n').long("nocache"),
    flag('C').long("copy-on-read"),
    flag('g').long("growable"),
    flag('m').long("misalign"),
    flag('k').long("native-aio"),
    value('i').long("aio"),
    value('d').long("discard"),
    value('t').long("cache"),
    value('T').long("trace"),
    flag('U').long("force-share"),
    long_flag("image-opts"),
    long_value("object"),
    flag('h').long("help"),
    flag('V').long("version"),
];

/// Runs the tool with these words, without its own name; returns its exit code.
pub fn main(console: &Console, words: &[String]) -> u8 {
    signals::watch();
    match start(console, words) {
        Ok(()) => 0,
        Err(fail) => fail.tell(console),
    }
}

fn start(console: &Console, words: &[String]) -> Result<(), Fail> {
    let args = args::parse(OPTIONS, words).map_err(Fail::Usage)?;
    if args.has('h') {
        help(console);
        return Ok(());
    }
    if args.has('V') {
        console.line(format_args!("{} version {}", console.name(), env!("CARGO_PKG_VERSION")));
        return Ok(());
    }
    let flags = flags(&args)?;
    let file = match args.operands.as_slice() {
        [] => None,
        [file] => Some(file.clone()),
        _ => return Err(Fail::Usage("Expecting one image file name".to_owned())),
    };
    let commands: Vec<&str> = args.all('c').collect();
    let mut the_loop = Loop::new("io").map_err(|error| images::why(&error))?;
    let local = the_loop.local().clone();
    let session = Session::new(&local, console, flags);
    the_loop.run(async {
        let mut good = match file {
            Some(file) => session.open(&file).await.is_ok(),
            None => true,
        };
        // Without a file there is nothing that commands given beforehand could be about.
        if !good {
            return Err(Fail::Code(1));
        }
        for line in &commands {
            signals::check()?;
            if session.quit.get() {
                break;
            }
            good &= session.run(line).await;
        }
        if commands.is_empty() {
            session.prompt().await?;
        }
        good &= session.close().await.is_ok();
        if good { Ok(()) } else { Err(Fail::Code(1)) }
    })
}

impl Session {
    /// Commands from standard input, until it ends.
    async fn prompt(&self) -> Result<(), Fail> {
        while !self.quit.get() {
            signals::check()?;
            self.console.print(format_args!("{}> ", self.console.name()));
            let line = self.local.pool(|| {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map(|count| (count > 0).then_some(line))
            });
            match line.await {
                Ok(Ok(Some(line))) => _ = self.run(line.trim_end_matches('\n')).await,
                Ok(Ok(None)) => break,
                Ok(Err(error)) | Err(error) => return Err(images::why(&error).into()),
            }
        }
        Ok(())
    }
}

/// What the tool's own options ask for.
fn flags(args: &Parsed) -> Result<Flags, Fail> {
    let cache = match (args.get('t'), args.has('n')) {
        (None, true) => "none",
        (name, _) => name.unwrap_or("writeback"),
    };
    let cache = Cache::named(cache).ok_or_else(|| format!("Invalid cache option: {cache}"))?;
    if args.has("image-opts") && args.has('f') {
        return Err("--image-opts and -f are mutually exclusive".into());
    }
    Ok(Flags {
        read_only: args.has('r'),
        snapshot: args.has('s'),
        copy_on_read: args.has('C'),
        force_share: args.has('U'),
        image_opts: args.has("image-opts"),
        growable: args.has('g'),
        cache,
        keep_discards: keep_discards(args.get('d'))?,
        format: args.get('f').map(str::to_owned),
        options: Options::new(),
        secrets: secrets::parse(args)?,
        threads: args.get('i') == Some("threads"),
    })
}

/// What `-d` asks for: whether discards go no further.
fn keep_discards(text: Option<&str>) -> Result<bool, Fail> {
    match text {
        None | Some("unmap" | "on") => Ok(false),
        Some("ignore" | "off") => Ok(true),
        Some(other) => Err(Fail::Told(format!("Invalid discard option: {other}"))),
    }
}

impl Flags {
    fn spec(&self, name: &str) -> Spec {
        let spec = if self.image_opts {
            Spec::options(images::split_options(name).into_iter().collect())
        } else {
            Spec::file(name, self.format.as_deref())
        };
        let mut options = spec.options.clone();
        for (key, value) in self.options.iter() {
            options.set(key, value);
        }
        if self.growable {
            options.set("driver", "file");
        }
        Spec {
            options,
            device: "hda".to_owned(),
            read_only: self.read_only,
            snapshot: self.snapshot,
            cache: self.cache,
            discard: !self.keep_discards,
            no_locking: self.force_share,
            secrets: self.secrets.clone(),
            threads: self.threads,
            ..spec
        }
    }
}

fn help(console: &Console) {
    let name = console.name();
    console.line(format_args!("usage: {name} [OPTIONS] [-c COMMAND]... [FILE]"));
    console.print(include_str!("help.txt"));
}
