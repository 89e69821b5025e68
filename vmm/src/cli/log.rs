//! Logging: `-d` says what, `-D` where to.
//!
//! Warnings and errors of the program are always written. What a guest provokes has a target of
//! its own ([`resources::log`]) and is written only if `-d` names it, in limited amounts. A line is
//! formatted by the thread that logs it and leaves by one write. Set up once by the main thread.

use super::keyval::did_you_mean;
use parking_lot::Mutex;
use resources::fdset;
use resources::nearest::nearest;
use rustix::fs::{Mode, OFlags};
use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{self as subscriber_fmt, FmtContext};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// One thing that `-d` can name. Its name is also the tracing target of its lines.
#[derive(Debug, PartialEq, Eq)]
pub struct LogItem {
    /// Its name.
    pub name: &'static str,
    /// One line for `-d help`.
    pub help: &'static str,
}

const fn item(name: &'static str, help: &'static str) -> LogItem {
    LogItem { name, help }
}

/// The item that stands for everything the program itself says.
const DEBUG: &str = "debug";

/// All items. Those of an emulator's translator are known and silent, for scripts that name them.
pub static ITEMS: &[LogItem] = &[
    item("guest_errors", "what the guest does wrong, in limited amounts"),
    item("unimp", "what the guest asks for and is not there"),
    item("cpu_reset", "processor state before each reset"),
    item("int", "interrupts"),
    item("ioport", "accesses to I/O ports"),
    item(DEBUG, "everything the program says about itself"),
    item("cpu", "accepted: nothing to say under a hypervisor"),
    item("exec", "accepted: nothing to say under a hypervisor"),
    item("in_asm", "accepted: nothing to say under a hypervisor"),
    item("op", "accepted: nothing to say under a hypervisor"),
    item("op_opt", "accepted: nothing to say under a hypervisor"),
    item("out_asm", "accepted: nothing to say under a hypervisor"),
    item("pcall", "accepted: nothing to say under a hypervisor"),
];

/// What to log and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The items, each once.
    pub items: Vec<&'static LogItem>,
    /// A file; standard error without one.
    pub file: Option<PathBuf>,
}

/// Parses the list of `-d`.
///
/// # Errors
/// `unknown log item 'NAME'`, the nearest one, and the list of all.
pub fn parse_items(text: &str) -> Result<Vec<&'static LogItem>, String> {
    let mut items = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let item = ITEMS.iter().find(|item| item.name == name).ok_or_else(|| {
            let hint = did_you_mean(nearest(name, ITEMS.iter().map(|item| item.name)));
            format!("unknown log item '{name}'{hint}\n{}", list().trim_end())
        })?;
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Ok(items)
}

/// The text of `-d help`.
pub fn list() -> String {
    let mut text = "Log items (separated by commas):\n".to_owned();
    for item in ITEMS {
        text.push_str(&format!("{:<15} {}\n", item.name, item.help));
    }
    text
}

thread_local! {
    /// What is told while somebody listens.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; what it tells the user on this thread is returned instead, a line feed after each.
pub fn listen<T>(work: impl FnOnce() -> T) -> (T, String) {
    let before = HEARD.replace(Some(String::new()));
    let done = work();
    (done, HEARD.replace(before).unwrap_or_default())
}

/// Says something to the user on standard error. Nothing happens if that takes nothing: who
/// listened may be gone, and a pipe that standard output shares may be full.
pub fn tell(text: impl fmt::Display) {
    let heard = HEARD.with_borrow_mut(|heard| {
        heard.as_mut().map(|heard| heard.push_str(&format!("{text}\n"))).is_some()
    });
    if heard {
        return;
    }
    let line = format!("{}vmm: {text}\n", time());
    if cfg!(test) {
        // Kept with the output of the test.
        eprint!("{line}");
    } else {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Whether messages on standard error begin with the time.
static TIMESTAMPS: AtomicBool = AtomicBool::new(false);

/// Has messages on standard error begin with the time, or not (`-msg timestamp`).
pub fn set_timestamps(on: bool) {
    TIMESTAMPS.store(on, Ordering::Relaxed);
}

/// What stands before a message on standard error.
fn time() -> String {
    let mut text = String::new();
    if TIMESTAMPS.load(Ordering::Relaxed)
        && SystemTime.format_time(&mut Writer::new(&mut text)).is_ok()
    {
        text.push(' ');
    }
    text
}

/// Starts logging. Until then nothing is written.
///
/// # Errors
/// `Could not open 'FILE': REASON`, or that logging runs already.
pub fn init(config: &LogConfig) -> Result<(), String> {
    if let Some(path) = &config.file {
        set_file(path)?;
    }
    let layer = subscriber_fmt::layer()
        .with_ansi(false)
        .fmt_fields(DefaultFields::new())
        .event_format(Line { timestamps: || FILE.lock().is_some() })
        .with_writer(BoxMakeWriter::new(destination))
        // It would tell of a failed write on standard error, and panic if that fails too.
        .log_internal_errors(false);
    let (targets, handle) = reload::Layer::new(targets(&config.items));
    let subscriber = tracing_subscriber::registry().with(targets).with(layer);
    subscriber.try_init().map_err(|e| e.to_string())?;
    let _ = CHOICE.set(handle);
    Ok(())
}

/// Which lines are written, to be changed while the program runs.
static CHOICE: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Where lines are written, if not to standard error.
static FILE: Mutex<Option<Arc<fdset::File>>> = Mutex::new(None);

/// Chooses anew what is logged.
///
/// # Errors
/// Logging was not started.
pub fn set_items(items: &[&LogItem]) -> Result<(), String> {
    let choice = CHOICE.get().ok_or("logging was not started")?;
    choice.reload(targets(items)).map_err(|error| error.to_string())
}

/// Has lines written to a file, which is emptied.
///
/// # Errors
/// `Could not open 'FILE': REASON`.
pub fn set_file(path: &Path) -> Result<(), String> {
    *FILE.lock() = Some(file(path)?);
    Ok(())
}

fn destination() -> Destination {
    FILE.lock().clone().map_or(Destination::Stderr, Destination::File)
}

/// Where one line goes.
enum Destination {
    Stderr,
    File(Arc<fdset::File>),
}

impl std::io::Write for Destination {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match self {
            Destination::Stderr => std::io::stderr().write(line),
            Destination::File(file) => (&**file).write(line),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Opens the log file; lines of several threads do not mix, as each is one appending write.
fn file(path: &Path) -> Result<Arc<fdset::File>, String> {
    let open = || {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
        let file = fdset::open(path, flags, Mode::from_raw_mode(0o666))?;
        // Pipes and terminals have no length to set.
        if file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        Ok(file)
    };
    let file =
        open().map_err(|e: std::io::Error| format!("Could not open '{}': {e}", path.display()))?;
    Ok(Arc::new(file))
}

/// Which lines are written.
fn targets(items: &[&LogItem]) -> Targets {
    let named = |name| items.iter().any(|item| item.name == name);
    let level = if named(DEBUG) { LevelFilter::DEBUG } else { LevelFilter::WARN };
    // A target that is not an item is the path of a module; prefixes match, so that an item
    // which is silent needs its own entry.
    let silent_or_not = ITEMS.iter().filter(|item| item.name != DEBUG).map(|item| {
        (item.name, if named(item.name) { LevelFilter::TRACE } else { LevelFilter::OFF })
    });
    Targets::new().with_default(level).with_targets(silent_or_not)
}

/// The form of a line: `vmm: warning: MESSAGE` on standard error, `TIME LEVEL TARGET: MESSAGE` in
/// a file.
struct Line {
    timestamps: fn() -> bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        if (self.timestamps)() {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {level} {}: ", metadata.target())?;
        } else {
            write!(writer, "{}vmm: {level}: ", time())?;
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::log::GUEST_ERRORS;

    fn names(text: &str) -> Vec<&'static str> {
        parse_items(text).unwrap().iter().map(|item| item.name).collect()
    }

    #[test]
    fn items_are_parsed() {
        assert_eq!(names("guest_errors,unimp,guest_errors"), ["guest_errors", "unimp"]);
        assert_eq!(names(""), Vec::<&str>::new());
        assert!(ITEMS.iter().any(|item| item.name == GUEST_ERRORS));
    }

    #[test]
    fn an_unknown_item_is_named_with_the_list() {
        let error = parse_items("unimp,guest_error").unwrap_err();
        assert!(
            error.starts_with("unknown log item 'guest_error' (did you mean 'guest_errors'?)\n"),
            "{error}"
        );
        assert!(error.ends_with("under a hypervisor"), "{error}");
    }

    #[test]
    fn the_guest_is_silent_unless_asked_for() {
        let quiet = targets(&[]);
        assert!(!quiet.would_enable(GUEST_ERRORS, &Level::WARN));
        assert!(quiet.would_enable("vmm::vm", &Level::WARN));
        assert!(!quiet.would_enable("vmm::vm", &Level::INFO));
        let loud = targets(&parse_items("guest_errors,debug").unwrap());
        assert!(loud.would_enable(GUEST_ERRORS, &Level::WARN));
        assert!(!loud.would_enable("unimp", &Level::WARN));
        assert!(loud.would_enable("vmm::vm", &Level::DEBUG));
        assert!(loud.would_enable("devices::serial", &Level::DEBUG));
    }

    #[test]
    fn a_file_gets_whole_lines() {
        let dir = std::env::temp_dir().join(format!("vmm-log-{}", std::process::id()));
        let path = dir.join("log");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(&path, "old\n").unwrap();
        let layer = subscriber_fmt::layer()
            .with_ansi(false)
            .event_format(Line { timestamps: || true })
            .with_writer(file(&path).unwrap());
        let subscriber = tracing_subscriber::registry().with(targets(&[])).with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "vmm::test", "first {}", 1);
            tracing::info!(target: "vmm::test", "not this");
            tracing::error!(target: "vmm::test", "second\x1b[31m");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with("Z warning vmm::test: first 1"), "{text}");
        assert!(lines[1].contains(" error vmm::test: second"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = file(Path::new("/nonexistent/log")).err().unwrap();
        assert!(error.starts_with("Could not open '/nonexistent/log': No such file"), "{error}");
    }
}
