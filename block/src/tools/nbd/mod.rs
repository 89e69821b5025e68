//! `vmm-nbd`: serves an image by NBD, and lists what other servers have.
//!
//! | piece | file |
//! |---|---|
//! | options, and serving | `mod.rs` |
//! | bitmaps of the image | `bitmap.rs` |
//! | in the background | `process.rs` |
//! | as a block device of this machine | `kernel.rs` |
//! | the exports of another server | `list.rs` |
//!
//! One loop on the main thread, no lock. Clients reach what [`crate::nbd::server`] lets them.

mod bitmap;
mod kernel;
mod list;
mod process;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use resources::iol::{Either, Local, Loop, Notify, race};

use super::args::{Parsed, flag, long_flag, long_value, value};
use super::console::{Console, Fail};
use super::{args, images, secrets, signals};
use crate::disk::Disk;
use crate::nbd::address::{Address, Listener};
use crate::nbd::server::{Bitmap, Export, Server};
use crate::nbd::tls;
use crate::nbd::wire::PORT;
use crate::node::{Node, Zero};
use crate::raw::Raw;
use crate::{Cache, Spec};
use bitmap::Shown;

const OPTIONS: &[args::Opt] = &[
    value('p').long("port"),
    value('b').long("bind"),
    value('k').long("socket"),
    value('e').long("shared"),
    flag('t').long("persistent"),
    value('x').long("export-name"),
    value('D').long("description"),
    value('f').long("format"),
    long_flag("image-opts"),
    flag('r').long("read-only"),
    flag('s').long("snapshot"),
    value('l').long("load-snapshot"),
    value('o').long("offset"),
    flag('A').long("allocation-depth"),
    value('B').long("bitmap"),
    flag('n').long("nocache"),
    long_value("cache"),
    long_value("aio"),
    long_value("discard"),
    long_value("detect-zeroes"),
    long_flag("fork"),
    long_value("pid-file"),
    flag('v').long("verbose"),
    flag('L').long("list"),
    value('c').long("connect"),
    value('d').long("disconnect"),
    long_value("object"),
    long_value("tls-creds"),
    long_value("tls-hostname"),
    long_value("tls-authz"),
    value('T').long("trace"),
    flag('h').long("help"),
    flag('V').long("version"),
];

/// How often it is looked whether a signal has come.
const GLANCE: Duration = Duration::from_millis(100);

/// Runs the tool with these words, without its own name; returns its exit code.
pub fn main(console: &Console, words: &[String]) -> u8 {
    match start(console, words) {
        Ok(()) => 0,
        Err(Fail::Usage(text)) => {
            console.error(text);
            console
                .error_line(format_args!("Try `{} --help' for more information.", console.name()));
            1
        }
        Err(fail) => fail.tell(console),
    }
}

fn start(console: &Console, words: &[String]) -> Result<(), Fail> {
    let args = args::parse(OPTIONS, words).map_err(Fail::Usage)?;
    if args.has('h') {
        console.print(include_str!("help.txt"));
        return Ok(());
    }
    if args.has('V') {
        console.line(format_args!("{} version {}", console.name(), env!("CARGO_PKG_VERSION")));
        return Ok(());
    }
    if args.has("tls-authz") {
        return Err(Fail::Told("--tls-authz: lists of clients are not supported".to_owned()));
    }
    if args.has("tls-creds") && (args.has('c') || args.has('d')) {
        return Err(Fail::Told("TLS is not supported with a host device".to_owned()));
    }
    if let Some(device) = args.get('d') {
        return kernel::disconnect(console, device);
    }
    if args.has('L') {
        if !args.operands.is_empty() {
            return Err(Fail::Told("List mode is incompatible with a file name".to_owned()));
        }
        let wished = ["fork", "pid-file", "image-opts"].into_iter().find(|name| args.has(*name));
        if wished.is_some() || "rsoftcexDBlA".chars().any(|letter| args.has(letter)) {
            let text = "List mode is incompatible with per-device settings";
            return Err(Fail::Told(text.to_owned()));
        }
        let address = address(&args, "localhost")?;
        let tls = match args.get("tls-creds") {
            None => None,
            Some(id) => {
                let host = match &address {
                    Address::Inet { host, .. } => host.as_str(),
                    Address::Unix(_) => "",
                };
                let host = args.get("tls-hostname").unwrap_or(host);
                let tls = tls::client(&*secrets::parse(&args)?, id, host);
                Some(tls.map_err(|error| Fail::Told(error.to_string()))?)
            }
        };
        return list::list(console, &address, tls.as_ref());
    }
    let [file] = args.operands.as_slice() else {
        return Err(Fail::Usage("Invalid number of arguments".to_owned()));
    };
    let wish = Wish::new(&args, file)?;
    if let Some(device) = args.get('c') {
        kernel::open(device, "Failed to open")?;
    }
    match (args.has("fork") || args.has('c'), process::in_background()) {
        (true, false) => process::fork(words),
        (_, background) => {
            signals::watch();
            let mut the_loop = Loop::new("vmm-nbd").map_err(|error| error.to_string())?;
            let local = the_loop.local().clone();
            the_loop.run(serve(&local, &wish, &args, background))
        }
    }
}

/// What is to be served.
struct Wish {
    spec: Spec,
    name: String,
    offset: u64,
    /// The snapshot that is wanted in the image's place.
    snapshot: Option<String>,
    clients: usize,
    address: Address,
    tls: Option<resources::tls::Server>,
}

impl Wish {
    fn new(args: &Parsed, file: &str) -> Result<Wish, Fail> {
        let told = |text: String| Err(Fail::Told(text));
        let mut cache = Cache::default();
        if args.has('n') {
            cache = Cache::named("none").unwrap_or(cache);
        }
        if let Some(mode) = args.get("cache") {
            match Cache::named(mode) {
                Some(named) => cache = named,
                None => return told(format!("Invalid cache mode `{mode}'")),
            }
        }
        let threads = match args.get("aio") {
            None | Some("io_uring" | "native") => false,
            Some("threads") => true,
            Some(mode) => return told(format!("Invalid aio mode '{mode}'")),
        };
        let discard = match args.get("discard") {
            None | Some("unmap" | "on") => true,
            Some("ignore" | "off") => false,
            Some(mode) => return told(format!("Invalid discard mode `{mode}'")),
        };
        let detect_zeroes = match args.get("detect-zeroes") {
            None | Some("off") => None,
            Some("on") => Some(Zero::Keep),
            Some("unmap") if discard => Some(Zero::MayUnmap),
            Some("unmap") => {
                let text = "setting detect-zeroes to unmap is not allowed without setting discard \
                            operation to unmap";
                return told(text.to_owned());
            }
            Some(mode) => return told(format!("Invalid detect-zeroes mode `{mode}'")),
        };
        let number = |letter: char, what: &str| match args.get(letter) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Fail::Told(format!("Invalid {what} '{text}'"))),
            },
        };
        let offset = number('o', "offset")?.unwrap_or(0);
        let clients = match number('e', "shared device number")?.unwrap_or(1) {
            0 => usize::MAX,
            number => usize::try_from(number).unwrap_or(usize::MAX),
        };
        for (letter, what) in [('x', "export name"), ('D', "export description")] {
            if args.get(letter).is_some_and(|text| text.len() > crate::nbd::wire::MAX_STRING) {
                return told(format!("{what} is too long"));
            }
        }
        let spec = if args.has("image-opts") {
            Spec::options(images::split_options(file).into_iter().collect())
        } else {
            Spec::file(file, args.get('f'))
        };
        let secrets = secrets::parse(args)?;
        let snapshot = args.get('l').map(str::to_owned);
        let spec = Spec {
            read_only: args.has('r') || snapshot.is_some(),
            snapshot: args.has('s'),
            secrets,
            cache,
            discard,
            detect_zeroes,
            threads,
            ..spec
        };
        let address = address(args, "")?;
        let tls = match args.get("tls-creds") {
            None => None,
            Some(id) => match tls::server(&spec.secrets, id) {
                Ok(tls) => Some(tls),
                Err(error) => return told(error.to_string()),
            },
        };
        Ok(Wish { spec, name: file.to_owned(), offset, snapshot, clients, address, tls })
    }

    /// Opens the image.
    async fn open(&self, local: &Local) -> Result<Rc<dyn Node>, Fail> {
        let name = &self.name;
        let opened = crate::open(local, &self.spec).await;
        let node = opened.map_err(|error| {
            let error = error.to_string();
            let told = error.starts_with("Could not open") || error.starts_with("Unknown");
            let error = if told { error } else { format!("Could not open '{name}': {error}") };
            Fail::Told(format!("Failed to open '{name}': {error}"))
        })?;
        if let Some(snapshot) = &self.snapshot {
            images::show(&node, snapshot).await?;
        }
        if self.offset == 0 {
            return Ok(node);
        }
        let offset = self.offset;
        let size = node.info().size;
        let part = size.checked_sub(offset).filter(|rest| *rest > 0);
        let part = part.and_then(|rest| Raw::new(node, offset, Some(rest)).ok());
        match part {
            Some(part) => Ok(Rc::new(part)),
            None => Err(Fail::Told(format!(
                "Offset ({offset}) has to be smaller than the image size ({size})"
            ))),
        }
    }
}

/// Where to listen or to connect.
fn address(args: &Parsed, host: &str) -> Result<Address, Fail> {
    if let Some(path) = args.get('k') {
        if !path.starts_with('/') {
            return Err(Fail::Told("socket path must be absolute".to_owned()));
        }
        return Ok(Address::Unix(path.to_owned()));
    }
    let host = args.get('b').unwrap_or(host).to_owned();
    let port = match args.get('p') {
        None => PORT,
        Some(text) => text.parse().map_err(|_| {
            let why = "Servname not supported for ai_socktype";
            Fail::Told(format!("address resolution failed for {host}:{text}: {why}"))
        })?,
    };
    Ok(Address::Inet { host, port })
}

/// Serves the image until it is enough.
async fn serve(local: &Local, wish: &Wish, args: &Parsed, background: bool) -> Result<(), Fail> {
    let node = wish.open(local).await?;
    let disk = Disk::alone(node.clone());
    disk.set_detect_zeroes(wish.spec.detect_zeroes);
    let size = disk.info().size;
    let writable = !wish.spec.read_only && !disk.info().read_only;
    let place = Arc::new(local.keep(disk.clone()));
    let export = Export::new(args.get('x').unwrap_or_default(), size, move || Some(place.clone()))
        .description(args.get('D').map(str::to_owned))
        .writable(writable)
        .multi_conn(true)
        .allocation_depth(args.has('A'))
        .resizable(writable && wish.offset == 0 && wish.clients == 1);
    let mut export = export;
    for name in args.all('B') {
        let shown = Arc::new(local.keep(Shown::find(&disk, name).await?));
        export = export.bitmap(name, move |local| Some(shown.get(local)? as Rc<dyn Bitmap>));
    }
    let server = Server::with_tls(wish.clients, wish.tls.clone());
    server.add(export).map_err(|error| error.to_string())?;
    let served = match args.get('c') {
        Some(device) => show(local, &server, device, args, background).await,
        None => match wish.address.listen(None, |_| true) {
            Ok(listener) => listen(local, &server, listener, args, background).await,
            Err(error) => Err(Fail::Told(error.to_string())),
        },
    };
    server.stop();
    let _held = disk.drain().await;
    let closed = node.close().await;
    let closed = closed.map_err(|error| {
        Fail::Told(format!("Could not finish writing to '{}': {}", wish.name, images::why(&error)))
    });
    served.and(closed)
}

/// It serves.
fn begun(args: &Parsed, background: bool) -> Result<(), Fail> {
    if let Some(file) = args.get("pid-file") {
        let number = format!("{}\n", std::process::id());
        std::fs::write(file, number).map_err(|error| {
            let why = crate::errno_text(&error);
            Fail::Told(format!("cannot create PID file: Cannot open pid file {file}: {why}"))
        })?;
    }
    if background {
        process::ready();
    }
    Ok(())
}

/// Serves the kernel, for as long as its device is there.
async fn show(
    local: &Local,
    server: &Server,
    name: &str,
    args: &Parsed,
    background: bool,
) -> Result<(), Fail> {
    let export = args.get('x').unwrap_or_default();
    let device = kernel::Device::connect(local, server, export, name).await?;
    let begun = begun(args, background);
    let mut asked = false;
    if begun.is_err() {
        device.end();
    }
    while let Either::Right(()) = race(device.ended(), local.sleep(GLANCE)).await {
        if signals::check().is_err() && !asked {
            device.end();
            asked = true;
        }
    }
    begun
}

async fn listen(
    local: &Local,
    server: &Server,
    listener: Listener,
    args: &Parsed,
    background: bool,
) -> Result<(), Fail> {
    let path = match &listener.address {
        Address::Unix(path) => Some(path.clone()),
        Address::Inet { .. } => None,
    };
    begun(args, background)?;
    let gone = Notify::new();
    let (persistent, tell) = (args.has('t'), gone.clone());
    let accepting = server.listen(local, listener.fd, move || tell.notify());
    let enough = async {
        loop {
            match race(gone.notified(), local.sleep(GLANCE)).await {
                // The last one has gone, and one has been there.
                Either::Left(()) if !persistent && matches!(server.clients(), (0, 1..)) => return,
                Either::Left(()) => {}
                Either::Right(()) if signals::check().is_err() => return,
                Either::Right(()) => {}
            }
        }
    };
    let done = race(accepting, enough).await;
    if let Some(path) = path {
        let _ = rustix::fs::unlink(path);
    }
    match done {
        Either::Left(Err(error)) => Err(Fail::Told(error.to_string())),
        _ => Ok(()),
    }
}
