//! The command line: QEMU's options, turned into a [`Config`].
//!
//! [`parse`] is a pure function of the arguments and of the files that `-readconfig` names; nothing
//! else is opened, and nothing made or printed. It runs on the main thread before there is any
//! other. Arguments may come from a program that passes on what
//! its users wrote, so that every text is bounded, checked and, in messages, free of control
//! characters.

pub mod add_fd;
pub mod config;
pub mod consoles;
pub mod daemonize;
mod given;
mod help;
mod inifile;
pub mod keyval;
pub mod log;
pub mod pidfile;
pub mod table;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use given::write_files;
pub use help::{INTERFACE_VERSION, help, version, version_verbose};

use config::{Accel, Global, NameConfig};
use given::{Entry, Given};
use keyval::Pairs;
use qmp::{PanicAction, WatchdogAction};
use resources::nearest::nearest;
use resources::value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use table::{Arg, Id, Opt};

/// What the command line wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Run a machine.
    Run(Box<Config>),
    /// Print this text on standard output and exit with 0.
    Print(String),
    /// Print a list that another part knows on standard output and exit with 0.
    List(List),
}

/// A list to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// The machine types.
    Machines,
    /// The processor models.
    Cpus,
    /// The device drivers.
    Devices,
    /// The properties of this driver.
    DeviceProperties(String),
    /// The types of `-object`.
    Objects,
    /// The back ends of `-chardev`.
    Chardevs,
    /// The back ends of `-netdev`.
    Netdevs,
}

/// Why the command line was refused: to be printed after `vmm: `; the exit code is 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CliError(String);

impl CliError {
    /// A message that stands for itself.
    fn new(message: impl Into<String>) -> Self {
        CliError(printable(&message.into()))
    }

    /// A message on an option and its argument.
    fn at(opt: &Opt, argument: Option<&str>, message: impl std::fmt::Display) -> Self {
        CliError::new(format!("{}: {message}", CliError::place(opt, argument)))
    }

    /// How a message names an option and its argument.
    fn place(opt: &Opt, argument: Option<&str>) -> String {
        let argument = argument.map(|text| format!(" {}", shortened(text))).unwrap_or_default();
        format!("-{}{argument}", opt.name)
    }
}

/// The most of an argument that is repeated in a message, in characters.
const SHOWN: usize = 120;

/// The beginning of a text.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Replaces control characters, which a terminal would act on; lines stay.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// Parses the arguments, without the program's name.
///
/// Options are first looked at each by itself, in order: the first that is wrong ends it, as do
/// `-help` and `-version`. Then they are taken in order: the first that asks for a list ends it, as
/// does the first that does not fit. Checks that concern several options come at the end.
///
/// # Errors
/// A message that names the option, its argument and, if there is one near, the valid word.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, CliError> {
    parse_with(args, &given::read_file)
}

/// [`parse`] with another way to read files.
fn parse_with(
    args: impl IntoIterator<Item = OsString>,
    read: given::ReadFile<'_>,
) -> Result<Action, CliError> {
    let mut args = args.into_iter();
    let mut given = Given::default();
    while let Some(word) = args.next() {
        let word = word.to_string_lossy();
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
            return Err(CliError::new(format!(
                "{}: not an option; options begin with '-'",
                shortened(&word)
            )));
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        let Some(opt) = table::find(name) else {
            let hint = table::suggest(name).map(|near| format!(" (did you mean -{near}?)"));
            return Err(CliError::new(format!(
                "-{}: invalid option{}",
                shortened(name),
                hint.unwrap_or_default()
            )));
        };
        let value = match opt.arg {
            Arg::None => Value::None,
            Arg::Path(_) | Arg::Text(_) | Arg::Keys(..) => {
                let Some(argument) = args.next() else {
                    return Err(CliError::at(opt, None, "requires an argument"));
                };
                Value::read(opt, argument)?
            }
        };
        match opt.id {
            Id::Help => return Ok(Action::Print(help())),
            Id::Version => {
                let verbose = args.any(|word| word == "-v" || word == "--v");
                return Ok(Action::Print(if verbose { version_verbose() } else { version() }));
            }
            _ => given.add(opt, value, read)?,
        }
    }
    let mut config = Config { write_configs: given.files, ..Config::default() };
    let mut merged = Merged::default();
    for Entry { opt, value, place } in given.entries {
        match apply(&mut config, &mut merged, opt, value) {
            Ok(None) => {}
            Ok(Some(action)) => return Ok(action),
            Err(message) => return Err(CliError::new(format!("{place}: {message}"))),
        }
    }
    config.machine_options = merged.machine;
    config.smp = merged.smp;
    check(&config)?;
    Ok(Action::Run(Box::new(config)))
}

/// The parameters of options whose repetitions add up.
#[derive(Default)]
struct Merged {
    machine: Pairs,
    smp: Pairs,
    memory: Pairs,
    rtc: Pairs,
}

/// The argument of an option, by the table's kinds.
enum Value {
    None,
    Path(PathBuf),
    Text(String),
    Keys { text: String, pairs: Pairs },
}

impl Value {
    fn read(opt: &Opt, argument: OsString) -> Result<Value, CliError> {
        if let Arg::Path(_) = opt.arg {
            if argument.is_empty() {
                return Err(CliError::at(opt, None, "the path is empty"));
            }
            return Ok(Value::Path(argument.into()));
        }
        let text = String::from_utf8(argument.into_vec()).map_err(|e| {
            let shown = String::from_utf8_lossy(e.as_bytes()).into_owned();
            CliError::at(opt, Some(&shown), "not valid UTF-8")
        })?;
        match opt.arg {
            Arg::Keys(_, keys) => match keyval::parse(&text, keys) {
                Ok(pairs) => Ok(Value::Keys { text, pairs }),
                Err(e) => Err(CliError::at(opt, Some(&text), e)),
            },
            _ => Ok(Value::Text(text)),
        }
    }

    /// The text to repeat in a message.
    fn shown(&self) -> Option<String> {
        match self {
            Value::None => None,
            Value::Path(path) => Some(path.to_string_lossy().into_owned()),
            Value::Text(text) | Value::Keys { text, .. } => Some(shortened(text)),
        }
    }

    // An option gets the kind of argument that its row in the table names, so that what these
    // return for another kind is never seen.

    fn path(self) -> PathBuf {
        if let Value::Path(path) = self { path } else { PathBuf::new() }
    }

    fn text(self) -> String {
        if let Value::Text(text) = self { text } else { String::new() }
    }

    fn pairs(self) -> Pairs {
        if let Value::Keys { pairs, .. } = self { pairs } else { Pairs::default() }
    }
}

/// Takes one option into the configuration. An error is a message without the option's name.
fn apply(
    config: &mut Config,
    merged: &mut Merged,
    opt: &Opt,
    value: Value,
) -> Result<Option<Action>, String> {
    match opt.id {
        Id::AddFd => config.add_fds.push(value.pairs()),
        Id::Machine => return machine(config, merged, value.pairs()),
        Id::Accel => {
            let pairs = value.pairs();
            let list = pairs.get("accel").unwrap_or_default();
            if is_help(list) {
                return Ok(Some(Action::Print("kvm\nqtest\n".to_owned())));
            }
            config.accel = Accel::parse(list)?;
            if let Some(entries) = pairs.get("dirty-ring-size") {
                config.dirty_ring = dirty_ring(entries)?;
            }
            merged.machine.push("accel", list);
        }
        Id::EnableKvm => {
            config.accel = Accel::Kvm;
            merged.machine.push("accel", "kvm");
        }
        Id::Cpu => {
            let text = value.text();
            if is_help(&text) {
                return Ok(Some(Action::List(List::Cpus)));
            }
            config.cpu = Some(text);
        }
        Id::Smp => merged.smp.merge(value.pairs()),
        Id::Memory => {
            merged.memory.merge(value.pairs());
            config.memory.set(&merged.memory)?;
        }
        Id::MemPath => config.memory.path = Some(value.path()),
        Id::MemPrealloc => config.memory.prealloc = true,
        Id::Rtc => {
            merged.rtc.merge(value.pairs());
            config.rtc.set(&merged.rtc)?;
        }
        Id::Name => config.name = NameConfig::parse(&value.pairs())?,
        Id::Uuid => config.uuid = Some(config::parse_uuid(&value.text())?),
        Id::Kernel => config.kernel = Some(value.path()),
        Id::Initrd => config.initrd = Some(value.path()),
        Id::Append => config.append = Some(value.text()),
        Id::Bios => config.bios = Some(value.path()),
        Id::Device => {
            let pairs = value.pairs();
            let driver = pairs.get("driver").unwrap_or_default();
            if is_help(driver) {
                return Ok(Some(Action::List(List::Devices)));
            }
            if driver.is_empty() {
                return Err("Parameter 'driver' is missing".to_owned());
            }
            if pairs.get("help").or(pairs.get("?")) == Some("on") {
                let driver = driver.to_owned();
                return Ok(Some(Action::List(List::DeviceProperties(driver))));
            }
            config.serial_given |= driver == "isa-serial";
            config.devices.push(pairs);
        }
        Id::Watchdog => return watchdog(config, &value.text()),
        Id::WatchdogAction => {
            let action = by_name(WatchdogAction::ALL, WatchdogAction::as_str, &value.text());
            config.watchdog =
                Some(action.ok_or_else(|| "Unknown -watchdog-action parameter".to_owned())?);
        }
        Id::Global => config.globals.push(Global::from_pairs(&value.pairs())?),
        Id::Object => {
            let pairs = value.pairs();
            match pairs.get("qom-type") {
                Some(kind) if is_help(kind) => return Ok(Some(Action::List(List::Objects))),
                Some(kind) if !kind.is_empty() => {}
                _ => return Err("Parameter 'qom-type' is missing".to_owned()),
            }
            if pairs.id().is_none() {
                return Err("Parameter 'id' is missing".to_owned());
            }
            config.objects.push(pairs);
        }
        Id::Chardev => {
            let pairs = value.pairs();
            if is_help(pairs.get("backend").unwrap_or_default()) {
                return Ok(Some(Action::List(List::Chardevs)));
            }
            let Some(id) = pairs.id() else {
                return Err("chardev: no id specified".to_owned());
            };
            if pairs.get("backend").unwrap_or_default().is_empty() {
                return Err(format!("chardev: \"{id}\" missing backend"));
            }
            config.chardevs.push(pairs);
        }
        Id::Serial => {
            config.serial_given = true;
            if let Some(device) = device(value)? {
                if config.serials.len() == config::MAX_SERIAL {
                    return Err(format!("too many serial ports (at most {})", config::MAX_SERIAL));
                }
                config.serials.push(device);
            }
        }
        Id::Debugcon => config.debugcon = device(value)?,
        Id::Qtest => config.qtest = device(value)?,
        Id::Qmp => {
            config.monitor_given = true;
            config.qmp.extend(device(value)?);
        }
        Id::Monitor => {
            config.monitor_given = true;
            config.monitors.extend(device(value)?);
        }
        Id::Mon => {
            let pairs = value.pairs();
            if pairs.get("chardev").unwrap_or_default().is_empty() {
                return Err("Parameter 'chardev' is missing".to_owned());
            }
            if let Some(mode) = pairs.get("mode")
                && !matches!(mode, "readline" | "control")
            {
                let hint = keyval::did_you_mean(nearest(mode, ["readline", "control"]));
                return Err(format!("unknown monitor mode \"{mode}\"{hint}"));
            }
            config.monitor_given = true;
            config.mons.push(pairs);
        }
        Id::Drive => config.drives.push(value.pairs()),
        Id::Hda => config.drives.push(short_drive("0", "disk", &value.text())),
        Id::Hdb => config.drives.push(short_drive("1", "disk", &value.text())),
        Id::Hdc => config.drives.push(short_drive("2", "disk", &value.text())),
        Id::Hdd => config.drives.push(short_drive("3", "disk", &value.text())),
        Id::Cdrom => config.drives.push(short_drive("2", "cdrom", &value.text())),
        Id::Snapshot => config.snapshot = true,
        Id::Blockdev => config.blockdevs.push(blockdev(&value.text())?),
        Id::Netdev => {
            let pairs = value.pairs();
            if is_help(pairs.get("type").unwrap_or_default()) {
                return Ok(Some(Action::List(List::Netdevs)));
            }
            config.netdevs.push(pairs);
        }
        Id::Net => {
            let pairs = value.pairs();
            if pairs.get("type") != Some("none") {
                config.nets.push(pairs);
            }
        }
        Id::Nic => {
            let pairs = value.pairs();
            match pairs.get("type").unwrap_or_default() {
                "none" => {}
                kind if is_help(kind) => return Ok(Some(Action::List(List::Netdevs))),
                _ => config.nics.push(pairs),
            }
        }
        Id::Display => only_none(&value.text(), "display type")?,
        Id::Vga => only_none(&value.text(), "vga type")?,
        Id::Echr => {
            let text = value.text();
            let number = value::parse_number("echr", &text).map_err(|e| e.to_string())?;
            let byte = u8::try_from(number)
                .map_err(|_| format!("invalid escape character {text} (at most 255)"))?;
            config.escape = Some(byte);
        }
        Id::Nographic => config.nographic = true,
        Id::Nodefaults => config.nodefaults = true,
        Id::Stopped => config.stopped = true,
        Id::Action => {
            for (key, what) in value.pairs().iter() {
                match key {
                    "reboot" => config.no_reboot = what == "shutdown",
                    "shutdown" => config.no_shutdown = what == "pause",
                    "panic" => {
                        config.panic = by_name(PanicAction::ALL, PanicAction::as_str, what);
                    }
                    _ => {
                        let action = by_name(WatchdogAction::ALL, WatchdogAction::as_str, what);
                        config.watchdog = action;
                    }
                }
            }
        }
        Id::Incoming => config.incoming = Some(value.text()),
        Id::Loadvm => config.loadvm = Some(value.text()),
        Id::NoReboot => config.no_reboot = true,
        Id::NoShutdown => config.no_shutdown = true,
        Id::Daemonize => config.daemonize = true,
        Id::Pidfile => config.pidfile = Some(value.path()),
        Id::Chroot => config.chroot = Some(value.path()),
        Id::RunAs => config.run_as = Some(value.text()),
        Id::Sandbox => {
            if value.pairs().switch("enable") == Some(true) {
                return Err(
                    "sandboxing request but seccomp is not compiled into this build".to_owned()
                );
            }
        }
        Id::Trace => {
            return Err("there are no trace events; -d and -D tell what goes on".to_owned());
        }
        Id::Msg => {
            if let Some(on) = value.pairs().switch("timestamp") {
                config.timestamps = on;
            }
        }
        Id::NoUserConfig => {}
        // Taken before they come here.
        Id::Help | Id::Version | Id::Set | Id::ReadConfig | Id::WriteConfig => {}
        Id::Log => {
            let text = value.text();
            if is_help(&text) {
                return Ok(Some(Action::Print(log::list())));
            }
            config.log.items = log::parse_items(&text)?;
        }
        Id::LogFile => config.log.file = Some(value.path()),
    }
    Ok(None)
}

/// A drive that `-hda` and the like stand for.
fn short_drive(index: &str, media: &str, file: &str) -> Pairs {
    [("index", index), ("media", media), ("file", file)].into_iter().collect()
}

/// The options of `-blockdev`: a JSON object, or parameters.
fn blockdev(text: &str) -> Result<Pairs, String> {
    if text.starts_with('{') {
        let options = block::Options::from_json(text).map_err(|error| error.to_string())?;
        return Ok(options.iter().collect());
    }
    keyval::parse(text, &table::BLOCKDEV).map_err(|error| error.to_string())
}

/// The value of this name.
fn by_name<T: Copy>(all: &[T], name_of: fn(T) -> &'static str, name: &str) -> Option<T> {
    all.iter().copied().find(|value| name_of(*value) == name)
}

/// Takes `-watchdog`: a device of this model.
fn watchdog(config: &mut Config, model: &str) -> Result<Option<Action>, String> {
    let list = || {
        let line = |(name, text)| format!("  {name:<12}{text}\n");
        config::WATCHDOGS.map(line).concat()
    };
    if is_help(model) {
        return Ok(Some(Action::Print(list())));
    }
    if config.watchdog_model.is_some() {
        return Err("only one watchdog option may be given".to_owned());
    }
    let known = config::WATCHDOGS.iter().find(|(name, _)| name.eq_ignore_ascii_case(model));
    let (driver, _) = known.ok_or_else(|| {
        format!("Unknown -watchdog device. Supported devices are:\n{}", list().trim_end())
    })?;
    config.watchdog_model = Some(driver);
    let mut pairs = Pairs::default();
    pairs.push("driver", *driver);
    config.devices.push(pairs);
    Ok(None)
}

/// The entries of dirty rings.
fn dirty_ring(entries: &str) -> Result<Option<u32>, String> {
    match entries.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(entries) if entries.is_power_of_two() => Ok(Some(entries)),
        _ => Err("dirty-ring-size must be a power of two.".to_owned()),
    }
}

/// Takes `-machine`, some of whose parameters are options of their own too.
fn machine(
    config: &mut Config,
    merged: &mut Merged,
    pairs: Pairs,
) -> Result<Option<Action>, String> {
    for (key, value) in pairs.iter() {
        let path = || {
            if value.is_empty() {
                Err(format!("Parameter '{key}' is empty"))
            } else {
                Ok(value.into())
            }
        };
        match key {
            "type" if is_help(value) => return Ok(Some(Action::List(List::Machines))),
            "type" => config.machine = Some(value.to_owned()),
            "accel" => config.accel = Accel::parse(value)?,
            "kernel" => config.kernel = Some(path()?),
            "initrd" => config.initrd = Some(path()?),
            "firmware" => config.bios = Some(path()?),
            "append" => config.append = Some(value.to_owned()),
            _ => {}
        }
    }
    merged.machine.merge(pairs);
    Ok(None)
}

/// A device string; `None` for the word `none`.
fn device(value: Value) -> Result<Option<String>, String> {
    let text = value.text();
    match text.as_str() {
        "" => Err("the device is empty".to_owned()),
        "none" => Ok(None),
        _ if text.len() > keyval::MAX_VALUE => {
            Err(format!("the device is longer than {} bytes", keyval::MAX_VALUE))
        }
        _ => Ok(Some(text)),
    }
}

/// Checks an option of which there is only the denial.
fn only_none(text: &str, what: &str) -> Result<(), String> {
    if text == "none" { Ok(()) } else { Err(format!("Unknown {what}: {text} (valid: none)")) }
}

fn is_help(text: &str) -> bool {
    matches!(text, "help" | "?")
}

/// Checks that concern several options.
fn check(config: &Config) -> Result<(), CliError> {
    if config.kernel.is_none() {
        if config.initrd.is_some() {
            return Err(CliError::new("-initrd only allowed with -kernel option"));
        }
        if config.append.is_some() {
            return Err(CliError::new("-append only allowed with -kernel option"));
        }
    }
    if config.daemonize {
        let defaults = consoles::default_serial(config) || consoles::default_monitor(config);
        if config.nographic && defaults {
            return Err(CliError::new("-nographic can not be used with -daemonize"));
        }
        if consoles::uses_stdio(config) {
            return Err(CliError::new("cannot use stdio with -daemonize"));
        }
    }
    Ok(())
}

/// Parses what a fuzzer made up: arguments with a zero byte between them. A configuration file
/// holds its own name, so that there is something in it.
pub fn fuzz(data: &[u8]) {
    let args = data.split(|b| *b == 0).map(|arg| OsString::from_vec(arg.to_vec()));
    let read = |path: &std::path::Path| Ok(path.to_string_lossy().into_owned());
    if let Ok(Action::Run(config)) = parse_with(args, &read) {
        consoles::consoles(&config, true);
        consoles::consoles(&config, false);
    }
}
