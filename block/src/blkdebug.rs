//! Faults on purpose: a node that fails requests, and holds formats up, as rules say.
//!
//! Rules are for events: the steps that formats tell ([`Node::step`]), and `read_aio` and
//! `write_aio`, which a raw image above has raised for it. They come from a file, from options,
//! and from whoever holds a [`Blkdebug`] and sets breakpoints. For tests of formats and of clients.
//!
//! Rules, and where they are in the file:
//!
//! ```text
//! [inject-error]
//! event = "read_aio"     # then reads and writes fail, until a later event has other rules
//! errno = "5"            # with this error
//! sector = "8"           # if they touch this sector; all of them without it
//! state = "1"            # only in this state; 1 at the beginning, 0 stands for every one
//! once = "on"            # but only the first one
//! immediately = "on"     # at once, not after a turn of the loop
//!
//! [set-state]
//! event = "read_aio"
//! state = "1"
//! new_state = "2"        # when all rules of the event were looked at
//! ```
//!
//! On its loop, no lock. Rules are the user's; how many there are is bounded.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::rc::Rc;
use std::task::{Poll, Waker};

use resources::iol::{IoBuf, Local};

use crate::host::errno_text;
use crate::node::{Extent, Info, Node, Op, Zero};
use crate::open::{Layer, OpenError, Opening};
use crate::options::Options;
use crate::protocol::{self, Protocol};

/// The protocol.
pub const PROTOCOL: &Protocol = &Protocol {
    name: "blkdebug",
    prefixes: &["blkdebug"],
    from_filename,
    open: |layer| open(layer),
    create: None,
};

/// Rules at most, and breakpoints.
const MAX_RULES: usize = 4096;
/// Bytes of a file of rules at most.
const MAX_CONFIG: u64 = 1 << 20;

/// All events.
pub const EVENTS: &[&str] = &[
    "l1_update",
    "l1_grow.alloc_table",
    "l1_grow.write_table",
    "l1_grow.activate_table",
    "l2_load",
    "l2_update",
    "l2_update_compressed",
    "l2_alloc.cow_read",
    "l2_alloc.write",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "vmstate_load",
    "vmstate_save",
    "cow_read",
    "cow_write",
    "reftable_load",
    "reftable_grow",
    "reftable_update",
    "refblock_load",
    "refblock_update",
    "refblock_update_part",
    "refblock_alloc",
    "refblock_alloc.hookup",
    "refblock_alloc.write",
    "refblock_alloc.write_blocks",
    "refblock_alloc.write_table",
    "refblock_alloc.switch_table",
    "cluster_alloc",
    "cluster_alloc_bytes",
    "cluster_free",
    "flush_to_os",
    "flush_to_disk",
];

/// What fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    errno: i32,
    sector: Option<u64>,
    once: bool,
    immediately: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Inject(Fault),
    State(u64),
    /// Whoever raises the event is held, under this name.
    Break(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    event: String,
    /// 0 for every state.
    state: u64,
    deed: Deed,
}

/// A request that is held.
struct Held {
    tag: String,
    go: Rc<Cell<bool>>,
    waker: Option<Waker>,
}

/// The node.
pub struct Blkdebug {
    local: Local,
    file: Rc<dyn Node>,
    name: String,
    rules: RefCell<Vec<Rule>>,
    active: RefCell<Vec<Fault>>,
    state: Cell<u64>,
    held: RefCell<Vec<Held>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Blkdebug {
    /// Holds the next request that raises `event`, under the name `tag`.
    ///
    /// # Errors
    /// `NotFound` for an unknown event.
    pub fn add_break(&self, event: &str, tag: &str) -> io::Result<()> {
        if !EVENTS.contains(&event) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let mut rules = self.rules.borrow_mut();
        if rules.len() >= MAX_RULES {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        rules.push(Rule { event: event.to_owned(), state: 0, deed: Deed::Break(tag.to_owned()) });
        Ok(())
    }

    /// Lets the first request go on that is held under this name.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn resume(&self, tag: &str) -> io::Result<()> {
        let mut held = self.held.borrow_mut();
        let found = held.iter().position(|held| held.tag == tag && !held.go.get());
        let at = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        release(held.remove(at));
        Ok(())
    }

    /// Forgets the breakpoints of this name, and lets those go on that they hold.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn remove_break(&self, tag: &str) -> io::Result<()> {
        let mut rules = self.rules.borrow_mut();
        let count = rules.len();
        rules.retain(|rule| !matches!(&rule.deed, Deed::Break(other) if other == tag));
        let mut found = rules.len() < count;
        while self.resume(tag).is_ok() {
            found = true;
        }
        found.then_some(()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// Whether a request is held under this name.
    pub fn is_held(&self, tag: &str) -> bool {
        self.held.borrow().iter().any(|held| held.tag == tag)
    }

    /// Waits until a request is held under this name.
    pub async fn wait_held(&self, tag: &str) {
        poll_fn(|cx| {
            if self.is_held(tag) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Looks at all rules for an event; returns the names under which it is held.
    fn raise(&self, event: &str) -> Vec<String> {
        let now = self.state.get();
        let (mut faults, mut tags, mut next) = (Vec::new(), Vec::new(), now);
        self.rules.borrow_mut().retain(|rule| {
            if rule.event != event || (rule.state != 0 && rule.state != now) {
                return true;
            }
            match &rule.deed {
                Deed::Inject(fault) => faults.push(*fault),
                Deed::State(state) => next = *state,
                Deed::Break(tag) => {
                    tags.push(tag.clone());
                    return false;
                }
            }
            true
        });
        if !faults.is_empty() {
            self.active.replace(faults);
        }
        self.state.set(next);
        tags
    }

    async fn hold(&self, tag: String) {
        say(format_args!("blkdebug: Suspended request '{tag}'"));
        let go = Rc::new(Cell::new(false));
        self.held.borrow_mut().push(Held { tag, go: go.clone(), waker: None });
        self.waiting.take().into_iter().for_each(Waker::wake);
        poll_fn(|cx| {
            if go.get() {
                return Poll::Ready(());
            }
            let mut held = self.held.borrow_mut();
            if let Some(held) = held.iter_mut().find(|held| Rc::ptr_eq(&held.go, &go)) {
                held.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Fails a request if a rule says so.
    async fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let (first, end) = (offset / 512, offset.saturating_add(len).div_ceil(512));
        let hits = |fault: &&Fault| match fault.sector {
            None => true,
            Some(sector) => (first..end).contains(&sector),
        };
        let hit = self.active.borrow().iter().find(hits).copied();
        let Some(fault) = hit else { return Ok(()) };
        if fault.once {
            self.active.borrow_mut().clear();
        }
        if !fault.immediately {
            self.local.yield_now().await;
        }
        Err(io::Error::from_raw_os_error(fault.errno))
    }
}

/// Says something where whoever set a breakpoint looks for it: on the process's standard output.
fn say(text: std::fmt::Arguments<'_>) {
    // Nobody need read it.
    let _ = writeln!(io::stdout(), "{text}");
}

fn release(held: Held) {
    say(format_args!("blkdebug: Resuming request '{}'", held.tag));
    held.go.set(true);
    if let Some(waker) = held.waker {
        waker.wake();
    }
}

impl Node for Blkdebug {
    fn info(&self) -> Info {
        self.file.info()
    }

    fn read(&self, offset: u64, buf: IoBuf) -> Op<'_> {
        Box::pin(async move {
            self.check(offset, buf.len() as u64).await?;
            self.file.read(offset, buf).await
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, durable: bool) -> Op<'_> {
        Box::pin(async move {
            self.check(offset, buf.len() as u64).await?;
            self.file.write(offset, buf, durable).await
        })
    }

    fn zero(&self, offset: u64, len: u64, how: Zero) -> Op<'_> {
        Box::pin(async move {
            self.check(offset, len).await?;
            self.file.zero(offset, len, how).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Op<'_> {
        self.file.discard(offset, len)
    }

    fn flush(&self) -> Op<'_> {
        self.file.flush()
    }

    fn map(&self, offset: u64, len: u64) -> Op<'_, Extent> {
        self.file.map(offset, len)
    }

    fn reopen(&self, read_only: bool) -> Op<'_> {
        self.file.reopen(read_only)
    }

    fn resize(&self, size: u64) -> Op<'_> {
        self.file.resize(size)
    }

    fn step(&self, name: &'static str) -> Option<Op<'_, ()>> {
        let tags = self.raise(name);
        if tags.is_empty() {
            return None;
        }
        Some(Box::pin(async move {
            for tag in tags {
                self.hold(tag).await;
            }
            Ok(())
        }))
    }

    fn blkdebug(&self) -> Option<&Blkdebug> {
        Some(self)
    }

    fn driver(&self) -> &'static str {
        "blkdebug"
    }

    fn filename(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn children(&self) -> Vec<(&'static str, Rc<dyn Node>)> {
        vec![("file", self.file.clone())]
    }
}

/// Runs `then` on the blkdebug that is the first below a node, down its files.
///
/// # Errors
/// `Unsupported` when there is none.
pub async fn with<R>(node: Rc<dyn Node>, then: impl AsyncFnOnce(&Blkdebug) -> R) -> io::Result<R> {
    let mut node = node;
    loop {
        if let Some(found) = node.blkdebug() {
            return Ok(then(found).await);
        }
        let file = node.children().into_iter().find(|(role, _)| *role == "file");
        node = file.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTSUP))?.1;
    }
}

/// `blkdebug:CONFIG:IMAGE`; the file of rules may be left out.
fn from_filename(filename: &str, options: &mut Options) -> Result<(), OpenError> {
    let parts = filename.strip_prefix("blkdebug:").and_then(|rest| rest.split_once(':'));
    let Some((config, image)) = parts else {
        options.set("x-image", filename);
        return Ok(());
    };
    if !config.is_empty() {
        options.set("config", config);
    }
    options.set("x-image", image);
    Ok(())
}

fn open(mut layer: Layer<'_>) -> Opening<'_> {
    Box::pin(async move {
        let options = &mut *layer.options;
        let mut rules = match options.take("config") {
            None => Vec::new(),
            Some(config) => {
                let name = config.clone();
                let text = layer.local.pool(move || read_config(&name)).await;
                let cannot = |error: io::Error| {
                    let why = errno_text(&error);
                    OpenError(format!("Could not read blkdebug config file: {why}"))
                };
                parse(&text.and_then(|text| text).map_err(cannot)?)?
            }
        };
        for (section, all) in ["inject-error", "set-state"].map(|it| (it, options.take_under(it))) {
            let mut all = all;
            // Lists have numbers for names.
            for index in 0..MAX_RULES {
                let one = all.take_under(&index.to_string());
                if one.is_empty() {
                    break;
                }
                rules.push(rule(section, one)?);
            }
            if let Some(key) = all.first_key() {
                let text = format!("Invalid parameter '{section}.{key}'");
                return Err(OpenError(text));
            }
        }
        let image = options.take("x-image");
        if image.is_none() && !options.has("image") {
            let text = "blkdebug requires both config file and image path";
            return Err(OpenError(text.to_owned()));
        }
        let config = image.clone().unwrap_or_default();
        // What is below has no format, unless it says so.
        if options.get("image.driver").is_none() {
            let protocol = image.as_deref().map_or(Ok(protocol::FILE), protocol::of_name)?;
            options.set("image.driver", protocol.name);
        }
        let file = layer.open_child("image", image).await?;
        let name = match file.filename() {
            Some(name) => format!("blkdebug::{name}"),
            None => format!("blkdebug::{config}"),
        };
        let node: Rc<dyn Node> = Rc::new(Blkdebug {
            local: layer.local.clone(),
            file,
            name,
            rules: RefCell::new(rules),
            active: RefCell::default(),
            state: Cell::new(1),
            held: RefCell::default(),
            waiting: RefCell::default(),
        });
        Ok(node)
    })
}

fn read_config(name: &str) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(name)?.take(MAX_CONFIG).read_to_string(&mut text)?;
    Ok(text)
}

/// The rules of a file.
fn parse(text: &str) -> Result<Vec<Rule>, OpenError> {
    let mut rules = Vec::new();
    let mut section: Option<(String, Options)> = None;
    let end = |section: &mut Option<(String, Options)>, rules: &mut Vec<Rule>| {
        let Some((name, options)) = section.take() else { return Ok(()) };
        if rules.len() >= MAX_RULES {
            return Err(OpenError("there are too many rules for blkdebug".to_owned()));
        }
        rules.push(rule(&name, options)?);
        Ok(())
    };
    for (number, line) in text.lines().enumerate() {
        let wrong = || OpenError(format!("blkdebug config file, line {}: parse error", number + 1));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            end(&mut section, &mut rules)?;
            let name = name.split_whitespace().next().unwrap_or_default();
            section = Some((name.to_owned(), Options::new()));
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        let (_, options) = section.as_mut().ok_or_else(wrong)?;
        options.set(key.trim(), value.trim().trim_matches('"'));
    }
    end(&mut section, &mut rules)?;
    Ok(rules)
}

fn rule(section: &str, mut options: Options) -> Result<Rule, OpenError> {
    let refuse = |text: String| Err(OpenError(text));
    let Some(event) = options.take("event") else {
        return refuse(format!("a rule of blkdebug in [{section}] has no event"));
    };
    if !EVENTS.contains(&event.as_str()) {
        return refuse(format!("Invalid event name \"{event}\""));
    }
    let state = options.take_number("state")?.unwrap_or(0);
    let deed = match section {
        "inject-error" => Deed::Inject(Fault {
            errno: options.take_number("errno")?.and_then(|n| i32::try_from(n).ok()).unwrap_or(5),
            sector: match options.take("sector").as_deref() {
                None | Some("-1") => None,
                Some(text) => match text.parse() {
                    Ok(sector) => Some(sector),
                    Err(_) => return refuse("Parameter 'sector' expects a number".to_owned()),
                },
            },
            once: options.take_switch("once")?.unwrap_or(false),
            immediately: options.take_switch("immediately")?.unwrap_or(false),
        }),
        "set-state" => match options.take_number("new_state")? {
            Some(state) => Deed::State(state),
            None => return refuse("a rule of blkdebug in [set-state] has no new_state".to_owned()),
        },
        other => return refuse(format!("there is no group '{other}'")),
    };
    match options.first_key() {
        None => Ok(Rule { event, state, deed }),
        Some(key) => refuse(format!("Invalid parameter '{key}'")),
    }
}

#[cfg(test)]
mod tests {
    use resources::iol::Loop;

    use super::*;
    use crate::memory::Memory;
    use crate::raw::Raw;

    fn debug(local: &Local, rules: &str) -> Rc<Blkdebug> {
        Rc::new(Blkdebug {
            local: local.clone(),
            file: Memory::new(vec![0; 8192], 8192),
            name: String::new(),
            rules: RefCell::new(parse(rules).unwrap()),
            active: RefCell::default(),
            state: Cell::new(1),
            held: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    fn run<F: Future>(task: impl FnOnce(Local) -> F) -> F::Output {
        let mut the_loop = Loop::new("test").unwrap();
        let local = the_loop.local().clone();
        the_loop.run(task(local))
    }

    async fn read(node: &dyn Node, sector: u64) -> i32 {
        let done = node.read(sector * 512, IoBuf::zeroed(512)).await;
        done.map_or_else(|error| error.raw_os_error().unwrap(), |()| 0)
    }

    #[test]
    fn states_toggle_and_errors_stay() {
        run(|local| async move {
            let rules = "[inject-error]\nevent = \"read_aio\"\nerrno = \"28\"\nstate = \"1\"\n\
                         sector = \"3\"\nonce = \"on\"\nimmediately = \"on\"\n\n\
                         [set-state]\nstate = \"1\"\nevent = \"read_aio\"\nnew_state = \"2\"\n\
                         [set-state]\nstate = \"2\"\nevent = \"read_aio\"\nnew_state = \"1\"\n";
            let raw = Raw::new(debug(&local, rules), 0, None).unwrap();
            // The rule is active from the first request on, and in the second state too.
            assert_eq!(read(&raw, 0).await, 0);
            assert_eq!(read(&raw, 3).await, 28);
            // It failed once; this is the first state again.
            assert_eq!(read(&raw, 3).await, 28);
            assert_eq!(read(&raw, 3).await, 0);
        });
    }

    #[test]
    fn breakpoints_hold_the_next_request() {
        run(|local| async move {
            let node = debug(&local, "");
            let raw: Rc<dyn Node> = Rc::new(Raw::new(node.clone(), 0, None).unwrap());
            assert_eq!(node.add_break("nonsense", "a").unwrap_err().raw_os_error(), Some(2));
            node.add_break("write_aio", "a").unwrap();
            let (writer, target) = (raw.clone(), local.clone());
            let write = target.spawn(async move {
                writer.write(0, IoBuf::copy_of(b"held"), false).await.unwrap();
            });
            node.wait_held("a").await;
            assert!(!write.is_finished());
            assert_eq!(read(&*raw, 0).await, 0);
            with(raw.clone(), async |found| found.resume("a")).await.unwrap().unwrap();
            write.await;
            assert_eq!(node.resume("a").unwrap_err().raw_os_error(), Some(2));
            node.add_break("read_aio", "b").unwrap();
            node.remove_break("b").unwrap();
            node.remove_break("b").unwrap_err();
            assert_eq!(read(&*raw, 0).await, 0);
            let none: Rc<dyn Node> = Memory::new(vec![0; 512], 512);
            assert!(with(none, async |_| ()).await.is_err());
        });
    }

    #[test]
    fn mistakes_in_rules_are_named() {
        for (text, why) in [
            ("[inject-error]\n", "has no event"),
            ("[inject-error]\nevent = \"x\"\n", "Invalid event name \"x\""),
            ("[set-state]\nevent = \"l2_load\"\n", "has no new_state"),
            ("[x]\nevent = \"l2_load\"\n", "no group 'x'"),
            ("event = 1\n", "line 1: parse error"),
            ("[inject-error]\nevent\n", "line 2: parse error"),
            ("[inject-error]\nevent = \"l2_load\"\nx = \"1\"\n", "Invalid parameter 'x'"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
