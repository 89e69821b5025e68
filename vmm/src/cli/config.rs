//! What the command line asks for, as types. Nothing here opens a file or makes a device.
//!
//! Plain data made on the main thread before any other exists. Numbers in it are within the
//! ranges that their fields name, whatever the text was.

use super::keyval::Pairs;
use super::log::LogConfig;
use qmp::{PanicAction, WatchdogAction};
use resources::nearest::nearest;
use resources::value;
use std::path::PathBuf;
use time::{Date, Month, PrimitiveDateTime, Time};
use uuid::Uuid;

/// Everything that was asked for. Devices that are there unless something else was asked for are
/// added by [`super::consoles::consoles`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Machine type, `None` for the default one.
    pub machine: Option<String>,
    /// Hypervisor.
    pub accel: Accel,
    /// Entries of each vCPU's ring of pages that it writes; `None`: bitmaps instead.
    pub dirty_ring: Option<u32>,
    /// All parameters of `-machine`, by the names in the table.
    pub machine_options: Pairs,
    /// Parameters of `-smp`, for the topology's own parser.
    pub smp: Pairs,
    /// The text of `-cpu`, for the processor model's own parser.
    pub cpu: Option<String>,
    /// Guest memory.
    pub memory: MemConfig,
    /// Clock of the machine.
    pub rtc: RtcConfig,
    /// Name of the guest and of the process.
    pub name: NameConfig,
    /// UUID of the machine.
    pub uuid: Option<Uuid>,
    /// Kernel image for direct boot.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk; for a multiboot kernel a list of modules.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub append: Option<String>,
    /// Firmware image.
    pub bios: Option<PathBuf>,
    /// `-device`, in order.
    pub devices: Vec<Pairs>,
    /// `-global`, in order.
    pub globals: Vec<Global>,
    /// `-object`, in order; each has an id.
    pub objects: Vec<Pairs>,
    /// `-chardev`, in order; each has an id.
    pub chardevs: Vec<Pairs>,
    /// `-drive`, in order.
    pub drives: Vec<Pairs>,
    /// `-blockdev`, in order.
    pub blockdevs: Vec<Pairs>,
    /// What drives write goes to temporary files where they do not say otherwise.
    pub snapshot: bool,
    /// `-netdev`, in order.
    pub netdevs: Vec<Pairs>,
    /// `-net`, in order.
    pub nets: Vec<Pairs>,
    /// `-nic`, in order.
    pub nics: Vec<Pairs>,
    /// `-serial` without the `none`s: COM1 and on, at most [`MAX_SERIAL`].
    pub serials: Vec<String>,
    /// `-debugcon`.
    pub debugcon: Option<String>,
    /// `-qmp`: device strings, to be parsed with the defaults [`QMP_DEFAULTS`].
    pub qmp: Vec<String>,
    /// `-monitor` without the `none`s.
    pub monitors: Vec<String>,
    /// `-mon`.
    pub mons: Vec<Pairs>,
    /// `-qtest`.
    pub qtest: Option<String>,
    /// Escape character of a shared terminal; 0 for none, `None` for the usual one.
    pub escape: Option<u8>,
    /// No display; the terminal for COM1 and the monitor.
    pub nographic: bool,
    /// No default devices.
    pub nodefaults: bool,
    /// An option that stands in for the default COM1 was given.
    pub serial_given: bool,
    /// An option that stands in for the default monitor was given.
    pub monitor_given: bool,
    /// Do not start the processors.
    pub stopped: bool,
    /// Where a guest comes from that is taken over.
    pub incoming: Option<String>,
    /// The snapshot that the machine goes on from.
    pub loadvm: Option<String>,
    /// Exit when the guest reboots.
    pub no_reboot: bool,
    /// Stop, not exit, when the guest powers off.
    pub no_shutdown: bool,
    /// What is done when the guest reports that it panicked.
    pub panic: Option<PanicAction>,
    /// What is done when a watchdog runs out.
    pub watchdog: Option<WatchdogAction>,
    /// The driver of `-watchdog`, which is among the devices.
    pub watchdog_model: Option<&'static str>,
    /// Go to the background.
    pub daemonize: bool,
    /// File for the process id.
    pub pidfile: Option<PathBuf>,
    /// `-add-fd`, in order.
    pub add_fds: Vec<Pairs>,
    /// What to log and where.
    pub log: LogConfig,
    /// Configuration files to write, and their text; `-` is standard output.
    pub write_configs: Vec<(PathBuf, String)>,
    /// The directory that becomes the root when everything is set up.
    pub chroot: Option<PathBuf>,
    /// The user to become when everything is set up.
    pub run_as: Option<String>,
    /// Whether messages begin with the time.
    pub timestamps: bool,
}

/// The most `-serial` devices: COM1 to COM4.
pub const MAX_SERIAL: usize = 4;

/// What a `-qmp` device string means where it says nothing itself: listen and do not wait, so
/// that `-qmp unix:PATH` is a socket ready to be connected to.
pub const QMP_DEFAULTS: &[(&str, &str)] = &[("server", "on"), ("wait", "off")];

/// The hypervisor under the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM.
    #[default]
    Kvm,
    /// None: processors do not run, the machine is driven by the qtest protocol.
    Qtest,
}

impl Accel {
    /// The first accelerator of a list with `:` between its names that this program has.
    ///
    /// # Errors
    /// `"NAME" accelerator does not exist.` if it has none of them.
    pub fn parse(list: &str) -> Result<Accel, String> {
        const NAMES: [(&str, Accel); 2] = [("kvm", Accel::Kvm), ("qtest", Accel::Qtest)];
        for name in list.split(':') {
            if let Some((_, accel)) = NAMES.iter().find(|(known, _)| *known == name) {
                return Ok(*accel);
            }
        }
        let hint = match nearest(list, NAMES.map(|(name, _)| name)) {
            Some(name) => format!("did you mean '{name}'?"),
            None => "valid: kvm, qtest".to_owned(),
        };
        Err(format!("\"{list}\" accelerator does not exist. ({hint})"))
    }
}

/// The models of watchdogs: driver and description.
pub const WATCHDOGS: [(&str, &str); 2] = [("i6300esb", "Intel 6300ESB"), ("ib700", "iBASE 700")];

/// Guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemConfig {
    /// Bytes at the start: a multiple of [`MemConfig::ALIGN`], from that to [`MemConfig::MAX`].
    pub size: u64,
    /// Slots for memory that is plugged in later, at most [`MemConfig::MAX_SLOTS`].
    pub slots: u64,
    /// Bytes when all slots are filled: not below `size`, not above [`MemConfig::MAX`].
    pub max: u64,
    /// A directory (of hugetlbfs perhaps) for the file that holds it, or that file.
    pub path: Option<PathBuf>,
    /// Whether all of it is taken at the start.
    pub prealloc: bool,
}

impl Default for MemConfig {
    fn default() -> Self {
        MemConfig {
            size: MemConfig::DEFAULT,
            slots: 0,
            max: MemConfig::DEFAULT,
            path: None,
            prealloc: false,
        }
    }
}

impl MemConfig {
    /// Bytes if nothing is said, or 0.
    pub const DEFAULT: u64 = 128 << 20;
    /// Sizes are rounded up to a multiple of this.
    pub const ALIGN: u64 = 8 << 10;
    /// The largest size: 4 TiB.
    pub const MAX: u64 = 4 << 40;
    /// The most slots.
    pub const MAX_SLOTS: u64 = 256;

    /// Takes the parameters of `-m`.
    ///
    /// # Errors
    /// `invalid ram size: TEXT`, and messages on `slots` and `maxmem`.
    pub(super) fn set(&mut self, pairs: &Pairs) -> Result<(), String> {
        let size = |text: &str| {
            let bytes =
                value::parse_mib_size(text).ok_or_else(|| format!("invalid ram size: {text}"))?;
            match bytes.checked_next_multiple_of(MemConfig::ALIGN) {
                Some(bytes) if bytes <= MemConfig::MAX => Ok(bytes),
                _ => Err(format!("ram size too large: {text} (at most 4T)")),
            }
        };
        self.size = match size(pairs.get("size").unwrap_or("0"))? {
            0 => MemConfig::DEFAULT,
            bytes => bytes,
        };
        self.slots = match pairs.get("slots") {
            None => 0,
            Some(text) => {
                let slots = value::parse_number("slots", text).map_err(|e| e.to_string())?;
                if slots > MemConfig::MAX_SLOTS {
                    return Err(format!(
                        "invalid number of memory slots: {text} (at most {})",
                        MemConfig::MAX_SLOTS
                    ));
                }
                slots
            }
        };
        self.max = match pairs.get("maxmem") {
            None if self.slots > 0 => return Err("'slots' needs 'maxmem'".to_owned()),
            None => self.size,
            Some(text) => size(text)?,
        };
        if self.max < self.size {
            return Err(format!(
                "'maxmem' ({:#x} bytes) is smaller than 'size' ({:#x} bytes)",
                self.max, self.size
            ));
        }
        if self.max > self.size && self.slots == 0 {
            return Err("'maxmem' above 'size' needs 'slots'".to_owned());
        }
        Ok(())
    }
}

/// The clock of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtcConfig {
    /// What it shows at the start.
    pub base: RtcBase,
    /// What it runs by.
    pub clock: RtcClock,
    /// Whether ticks that the guest was too slow for are made up for.
    pub slew: bool,
}

/// What the clock of the machine shows at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcBase {
    /// The host's time in UTC.
    #[default]
    Utc,
    /// The host's time in its time zone.
    Localtime,
    /// This date and time.
    Date(PrimitiveDateTime),
}

/// What the clock of the machine runs by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcClock {
    /// The host's clock, with its corrections.
    #[default]
    Host,
    /// The host's monotonic clock.
    Rt,
    /// The guest's time, which stands still while the machine is stopped.
    Vm,
}

impl RtcConfig {
    /// Takes the parameters of `-rtc`, whose words the table has checked.
    ///
    /// # Errors
    /// `Invalid date format. Valid formats are:` and the formats.
    pub(super) fn set(&mut self, pairs: &Pairs) -> Result<(), String> {
        self.base = match pairs.get("base") {
            None | Some("utc") => RtcBase::Utc,
            Some("localtime") => RtcBase::Localtime,
            Some(text) => RtcBase::Date(parse_date(text).ok_or_else(|| {
                let hint = super::keyval::did_you_mean(nearest(text, ["utc", "localtime"]));
                format!(
                    "invalid option value '{text}'{hint}\nInvalid date format. Valid formats \
                     are:\n'2006-06-17T16:01:21' or '2006-06-17'"
                )
            })?),
        };
        self.clock = match pairs.get("clock") {
            Some("rt") => RtcClock::Rt,
            Some("vm") => RtcClock::Vm,
            _ => RtcClock::Host,
        };
        self.slew = pairs.get("driftfix") == Some("slew");
        Ok(())
    }
}

/// Parses `YYYY-MM-DD` or `YYYY-MM-DDThh:mm:ss`.
fn parse_date(text: &str) -> Option<PrimitiveDateTime> {
    fn three(text: &str, separator: char, lengths: [usize; 3]) -> Option<[u16; 3]> {
        let mut parts = text.splitn(3, separator);
        let mut numbers = [0; 3];
        for (number, length) in numbers.iter_mut().zip(lengths) {
            let part = parts.next()?;
            if part.len() != length || !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            *number = part.parse().ok()?;
        }
        Some(numbers)
    }
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = three(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = three(time, ':', [2, 2, 2])?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year.into(), month, u8::try_from(day).ok()?).ok()?;
    let time = Time::from_hms(
        u8::try_from(hour).ok()?,
        u8::try_from(minute).ok()?,
        u8::try_from(second).ok()?,
    );
    Some(PrimitiveDateTime::new(date, time.ok()?))
}

/// Names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameConfig {
    /// The guest's name, as `query-name` shows it.
    pub guest: Option<String>,
    /// The name that the process gives itself; the kernel keeps 15 bytes of it.
    pub process: Option<String>,
}

impl NameConfig {
    /// Takes the parameters of `-name`.
    ///
    /// # Errors
    /// `Unknown subargument TEXT to -name`.
    pub(super) fn parse(pairs: &Pairs) -> Result<NameConfig, String> {
        for (key, value) in pairs.iter() {
            if super::table::NAME.find(key).is_none() {
                let hint = nearest(key, ["process", "guest", "debug-threads"]);
                return Err(format!(
                    "Unknown subargument {key}={value} to -name{}",
                    super::keyval::did_you_mean(hint)
                ));
            }
        }
        let get = |key| pairs.get(key).map(str::to_owned);
        Ok(NameConfig { guest: get("guest"), process: get("process") })
    }
}

/// A default for a property of every device of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// The driver.
    pub driver: String,
    /// Its property.
    pub property: String,
    /// The value, as text.
    pub value: String,
}

impl Global {
    /// Takes the parameters of the group.
    ///
    /// # Errors
    /// `Parameter 'NAME' is missing`.
    pub(super) fn from_pairs(pairs: &Pairs) -> Result<Global, String> {
        let get = |name: &str| {
            let value = pairs.get(name).filter(|value| name == "value" || !value.is_empty());
            value.map(str::to_owned).ok_or_else(|| format!("Parameter '{name}' is missing"))
        };
        Ok(Global { driver: get("driver")?, property: get("property")?, value: get("value")? })
    }
}

/// Parses `DRIVER.PROPERTY=VALUE`, names of up to 63 bytes; or the same as parameters.
///
/// # Errors
/// `can't parse: "TEXT"`, or what is wrong with a parameter.
pub(super) fn parse_global(text: &str) -> Result<Pairs, String> {
    if text.starts_with("driver=") {
        return super::keyval::parse(text, &super::table::GLOBAL).map_err(|e| e.to_string());
    }
    let parts = text.split_once('.').and_then(|(driver, rest)| {
        let (property, value) = rest.split_once('=')?;
        Some((driver, property, value))
    });
    match parts {
        Some((driver, property, value))
            if (1..64).contains(&driver.len()) && (1..64).contains(&property.len()) =>
        {
            Ok(Pairs::from_iter([("driver", driver), ("property", property), ("value", value)]))
        }
        _ => Err(format!("can't parse: \"{text}\"")),
    }
}

/// Parses a UUID of 36 characters.
///
/// # Errors
/// `Fail to parse UUID string. Wrong format.`
pub(super) fn parse_uuid(text: &str) -> Result<Uuid, String> {
    // The library takes other spellings too.
    let uuid = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
    uuid.ok_or_else(|| "Fail to parse UUID string. Wrong format.".to_owned())
}
