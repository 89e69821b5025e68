//! The table of options: everything the command line knows about itself.
//!
//! `-help`, the suggestions for a misspelt option and `query-command-line-options` are made from
//! it. To add an option: a row here, an [`Id`], and the arm that the compiler then asks for in
//! `apply` in the parent module. Constant data: any thread, no lock.

use super::keyval::{Key, Keys, Kind};
use resources::nearest::nearest;

/// Which option a row describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the option of that name; the table says what it does")]
pub enum Id {
    Accel,
    Action,
    AddFd,
    Append,
    Bios,
    Chardev,
    Chroot,
    Cpu,
    Daemonize,
    Debugcon,
    Device,
    Display,
    Echr,
    EnableKvm,
    Global,
    Help,
    Initrd,
    Kernel,
    Log,
    LogFile,
    Machine,
    MemPath,
    MemPrealloc,
    Memory,
    Mon,
    Monitor,
    Msg,
    Name,
    Net,
    Drive,
    Hda,
    Hdb,
    Hdc,
    Hdd,
    Cdrom,
    Snapshot,
    Blockdev,
    Netdev,
    Nic,
    Incoming,
    Loadvm,
    NoReboot,
    NoShutdown,
    NoUserConfig,
    Nodefaults,
    Nographic,
    Object,
    Pidfile,
    Qmp,
    Qtest,
    ReadConfig,
    Rtc,
    RunAs,
    Sandbox,
    Serial,
    Set,
    Smp,
    Stopped,
    Trace,
    Uuid,
    Version,
    Vga,
    Watchdog,
    WatchdogAction,
    WriteConfig,
}

/// What stands after an option; the text is its name in `-help`.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// Nothing.
    None,
    /// A path, taken as it is: any bytes, no escapes.
    Path(&'static str),
    /// Text, taken as it is: UTF-8, no escapes.
    Text(&'static str),
    /// Parameters in the option language.
    Keys(&'static str, &'static Keys),
}

/// The part of `-help` that an option stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Machine, processors and memory.
    Machine,
    /// What the guest starts from.
    Boot,
    /// Devices and character devices.
    Device,
    /// Monitors and display.
    Monitor,
    /// The process itself.
    Process,
    /// Finding faults.
    Faults,
}

impl Section {
    /// All sections, in the order of `-help`.
    pub const ALL: [Section; 6] = [
        Section::Machine,
        Section::Boot,
        Section::Device,
        Section::Monitor,
        Section::Process,
        Section::Faults,
    ];

    /// The heading in `-help`.
    pub fn title(self) -> &'static str {
        match self {
            Section::Machine => "Machine, processors and memory",
            Section::Boot => "Boot",
            Section::Device => "Devices and character devices",
            Section::Monitor => "Monitors and display",
            Section::Process => "Process",
            Section::Faults => "Finding faults",
        }
    }
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Which one.
    pub id: Id,
    /// Its name without the dash.
    pub name: &'static str,
    /// Other names of the same.
    pub aliases: &'static [&'static str],
    /// What stands after it.
    pub arg: Arg,
    /// Its part of `-help`.
    pub section: Section,
    /// One line for `-help`.
    pub help: &'static str,
}

impl Opt {
    /// The parameters that it has, also when it has a form of its own to write them.
    pub fn keys(&self) -> Option<&'static Keys> {
        match self.arg {
            Arg::Keys(_, keys) => Some(keys),
            Arg::Path(_) | Arg::Text(_) | Arg::None => match self.id {
                Id::Global => Some(&GLOBAL),
                _ => None,
            },
        }
    }
}

/// Finds an option by its name or alias, without dashes.
pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|opt| opt.name == name || opt.aliases.contains(&name))
}

/// The option name nearest to one that does not exist.
pub fn suggest(name: &str) -> Option<&'static str> {
    let name = name.split('=').next().unwrap_or(name);
    if find(name).is_some() {
        return find(name).map(|opt| opt.name);
    }
    let names = OPTIONS.iter().flat_map(|opt| std::iter::once(&opt.name).chain(opt.aliases));
    nearest(name, names.copied())
}

/// The order in which QEMU registers its groups of parameters; others come after.
const GROUP_ORDER: &[&str] = &[
    "chardev",
    "device",
    "netdev",
    "net",
    "rtc",
    "global",
    "mon",
    "trace",
    "option-rom",
    "machine",
    "smp-opts",
    "boot-opts",
    "sandbox",
    "add-fd",
    "object",
    "tpmdev",
    "realtime",
    "msg",
    "acpi",
    "smbios",
    "drive",
];

/// The groups of parameters that options have, in QEMU's order of registration.
pub fn groups() -> Vec<&'static Keys> {
    let mut groups: Vec<&Keys> = OPTIONS.iter().filter_map(Opt::keys).collect();
    let place = |name: &str| GROUP_ORDER.iter().position(|other| *other == name);
    groups.sort_by_key(|keys| place(keys.group).unwrap_or(GROUP_ORDER.len()));
    // Options that share a group stand side by side now.
    groups.dedup_by_key(|keys| keys.group);
    groups
}

/// The parameters of a group.
pub fn group(name: &str) -> Option<&'static Keys> {
    OPTIONS.iter().filter_map(Opt::keys).find(|keys| keys.group == name)
}

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

const fn opt(
    id: Id,
    name: &'static str,
    aliases: &'static [&'static str],
    arg: Arg,
    section: Section,
    help: &'static str,
) -> Opt {
    Opt { id, name, aliases, arg, section, help }
}

/// Parameters of `-machine`.
pub static MACHINE: Keys = Keys {
    group: "machine",
    implied: Some("type"),
    keys: &[
        key("type", Kind::String, "machine type; 'help' lists them"),
        key("accel", Kind::String, "accelerators to try in turn, 'kvm' or 'qtest', split by ':'"),
        key("kernel_irqchip", Kind::Boolean, "interrupt controllers in the kernel"),
        key("kvm_shadow_mem", Kind::Size, "size of the shadow page tables"),
        key("kernel", Kind::String, "as -kernel"),
        key("initrd", Kind::String, "as -initrd"),
        key("append", Kind::String, "as -append"),
        key("firmware", Kind::String, "as -bios"),
        key("dtb", Kind::String, "device tree; unused on this architecture"),
        key("dumpdtb", Kind::String, "device tree output; unused on this architecture"),
        key("phandle_start", Kind::Number, "first phandle; unused on this architecture"),
        key("dt_compatible", Kind::String, "root node's name; unused on this architecture"),
        key("dump-guest-core", Kind::Boolean, "guest memory in a core dump"),
        key("mem-merge", Kind::Boolean, "let the host merge equal pages"),
        key("memory-backend", Kind::String, "id of the -object that is guest RAM"),
        key("usb", Kind::Boolean, "USB controller"),
    ],
    open: false,
    merge: true,
};

/// Parameters of `-accel`.
pub static ACCEL: Keys = Keys {
    group: "accel",
    implied: Some("accel"),
    keys: &[
        key("accel", Kind::String, "'kvm' or 'qtest'"),
        key("dirty-ring-size", Kind::Number, "entries of KVM's dirty rings; 0: bitmaps"),
    ],
    open: false,
    merge: false,
};

/// Parameters of `-smp`.
pub static SMP: Keys = Keys {
    group: "smp-opts",
    implied: Some("cpus"),
    keys: &[
        key("cpus", Kind::Number, "processors at the start (1)"),
        key("sockets", Kind::Number, "processor packages"),
        key("cores", Kind::Number, "cores in a package"),
        key("threads", Kind::Number, "threads in a core"),
        key("maxcpus", Kind::Number, "processors after all are plugged in"),
    ],
    open: false,
    merge: true,
};

/// Parameters of `-m`. Sizes count MiB here, so they are parsed apart.
pub static MEMORY: Keys = Keys {
    group: "memory",
    implied: Some("size"),
    keys: &[
        key("size", Kind::String, "size at the start, MiB if there is no suffix (128)"),
        key("slots", Kind::Number, "slots for more memory (0)"),
        key("maxmem", Kind::String, "size with all slots filled"),
    ],
    open: false,
    merge: true,
};

/// Parameters of `-name`.
pub static NAME: Keys = Keys {
    group: "name",
    implied: Some("guest"),
    keys: &[
        key("guest", Kind::String, "name of the guest"),
        key("process", Kind::String, "name of the process, 15 bytes of it"),
        key("debug-threads", Kind::Boolean, "accepted; threads always have names"),
    ],
    // An unknown one has a message of its own.
    open: true,
    merge: false,
};

/// Parameters of `-rtc`.
pub static RTC: Keys = Keys {
    group: "rtc",
    implied: None,
    keys: &[
        key("base", Kind::String, "'utc', 'localtime' or YYYY-MM-DD[Thh:mm:ss] (utc)"),
        key("clock", Kind::OneOf(&["host", "rt", "vm"]), "clock it runs by (host)"),
        key("driftfix", Kind::OneOf(&["none", "slew"]), "make up for lost ticks (none)"),
    ],
    open: false,
    merge: true,
};

/// Parameters of `-action`.
pub static ACTION: Keys = Keys {
    group: "action",
    implied: None,
    keys: &[
        key("reboot", Kind::OneOf(&["reset", "shutdown"]), "when it is to be reset (reset)"),
        key("shutdown", Kind::OneOf(&["poweroff", "pause"]), "when it goes off (poweroff)"),
        key(
            "panic",
            Kind::OneOf(&["pause", "shutdown", "exit-failure", "none"]),
            "when the guest reports that it panicked (pause)",
        ),
        key(
            "watchdog",
            Kind::OneOf(&["reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none"]),
            "when a watchdog runs out (reset)",
        ),
    ],
    open: false,
    merge: true,
};

/// Parameters of `-chardev`.
pub static CHARDEV: Keys = Keys {
    group: "chardev",
    implied: Some("backend"),
    keys: &[
        key("backend", Kind::String, "'null', 'stdio', 'socket', ...; 'help' lists them"),
        key("path", Kind::String, "file, pipe, device, or UNIX socket"),
        key("append", Kind::Boolean, "file: keep what is there (off)"),
        key("input-path", Kind::String, "file: where to read input"),
        key("host", Kind::String, "TCP address"),
        key("port", Kind::String, "TCP port"),
        key("to", Kind::Number, "last port to try"),
        key("ipv4", Kind::Boolean, "use IPv4"),
        key("ipv6", Kind::Boolean, "use IPv6"),
        key("localaddr", Kind::String, "own UDP address"),
        key("localport", Kind::String, "own UDP port"),
        key("server", Kind::Boolean, "listen (off)"),
        key("wait", Kind::Boolean, "wait for a client before starting (on)"),
        key("delay", Kind::Boolean, "let the kernel gather small packets (on)"),
        key("nodelay", Kind::Boolean, "do not let it"),
        key("telnet", Kind::Boolean, "speak the telnet protocol"),
        key("reconnect", Kind::Number, "seconds until a client connects anew (0, never)"),
        key("reconnect-ms", Kind::Number, "the same in milliseconds"),
        key("mux", Kind::Boolean, "share between up to four users"),
        key("signal", Kind::Boolean, "stdio: keep Ctrl-C (on)"),
        key("size", Kind::Size, "ringbuf: its size"),
        key("chardev", Kind::String, "mux: what is shared"),
        key("name", Kind::String, "spice channel"),
        key("debug", Kind::Number, "spice debug level"),
        key("width", Kind::Number, "text console, in pixels"),
        key("height", Kind::Number, "text console, in pixels"),
        key("cols", Kind::Number, "text console, in characters"),
        key("rows", Kind::Number, "text console, in characters"),
    ],
    open: false,
    merge: false,
};

/// Parameters of `-mon`.
pub static MON: Keys = Keys {
    group: "mon",
    implied: Some("chardev"),
    keys: &[
        key("chardev", Kind::String, "its character device"),
        key("mode", Kind::String, "'readline' or 'control' (readline)"),
        key("pretty", Kind::Boolean, "indent QMP output"),
        key("default", Kind::Boolean, "accepted"),
    ],
    open: false,
    merge: false,
};

/// Parameters of `-device`: each driver has its own.
pub static DEVICE: Keys =
    Keys { group: "device", implied: Some("driver"), keys: &[], open: true, merge: false };

/// Parameters of `-sandbox`.
pub static SANDBOX: Keys = Keys {
    group: "sandbox",
    implied: Some("enable"),
    keys: &[key("enable", Kind::Boolean, "filter system calls; only 'off' is there")],
    open: false,
    merge: false,
};

/// Parameters of `-trace`.
pub static TRACE: Keys = Keys {
    group: "trace",
    implied: None,
    keys: &[
        key("events", Kind::String, "file with the names of events"),
        key("file", Kind::String, "file for what they tell"),
    ],
    open: false,
    merge: false,
};

/// Parameters of `-msg`.
pub static MSG: Keys = Keys {
    group: "msg",
    implied: None,
    keys: &[key("timestamp", Kind::Boolean, "begin messages with the time (off)")],
    open: false,
    merge: true,
};

/// What `-global` sets, as configuration files have it.
pub static GLOBAL: Keys = Keys {
    group: "global",
    implied: None,
    keys: &[
        key("driver", Kind::String, "driver of the devices"),
        key("property", Kind::String, "their property"),
        key("value", Kind::String, "its value"),
    ],
    open: false,
    merge: false,
};

/// Parameters of `-object`: each type has its own.
pub static OBJECT: Keys =
    Keys { group: "object", implied: Some("qom-type"), keys: &[], open: true, merge: false };

/// Parameters of `-drive`; the rest is its driver's.
pub static DRIVE: Keys =
    Keys { group: "drive", implied: None, keys: &[], open: true, merge: false };

/// Parameters of `-blockdev`, all of which are its driver's.
pub static BLOCKDEV: Keys =
    Keys { group: "blockdev", implied: Some("driver"), keys: &[], open: true, merge: false };

/// Parameters of `-netdev`; the rest is its back end's.
pub static NETDEV: Keys =
    Keys { group: "netdev", implied: Some("type"), keys: &[], open: true, merge: false };

/// Parameters of `-net`; the rest is its back end's.
pub static NET: Keys =
    Keys { group: "net", implied: Some("type"), keys: &[], open: true, merge: false };

/// Parameters of `-nic`: those of its network card; the rest is its back end's.
pub static NIC: Keys =
    Keys { group: "nic", implied: Some("type"), keys: &[], open: true, merge: false };

/// Parameters of `-add-fd`.
pub static ADD_FD: Keys = Keys {
    group: "add-fd",
    implied: None,
    keys: &[
        key("fd", Kind::Number, "the descriptor, above 2"),
        key("set", Kind::Number, "the set's number"),
        key("opaque", Kind::String, "a note that query-fdsets gives back"),
    ],
    open: false,
    merge: false,
};

use Section::{Boot, Device, Faults, Machine, Monitor, Process};

/// All options, in the order of `-help`.
pub static OPTIONS: &[Opt] = &[
    opt(Id::Machine, "machine", &["M"], Arg::Keys("TYPE", &MACHINE), Machine, "kind of machine"),
    opt(Id::Accel, "accel", &[], Arg::Keys("ACCEL", &ACCEL), Machine, "as -machine accel="),
    opt(Id::EnableKvm, "enable-kvm", &[], Arg::None, Machine, "as -machine accel=kvm, the default"),
    opt(
        Id::Cpu,
        "cpu",
        &[],
        Arg::Text("MODEL[,+FEATURE][,-FEATURE][,KEY=VALUE]..."),
        Machine,
        "kind of processor; 'help' lists them",
    ),
    opt(Id::Smp, "smp", &[], Arg::Keys("N", &SMP), Machine, "processors"),
    opt(Id::Memory, "m", &[], Arg::Keys("SIZE", &MEMORY), Machine, "guest memory"),
    opt(
        Id::MemPath,
        "mem-path",
        &[],
        Arg::Path("PATH"),
        Machine,
        "directory or file that holds guest memory, on hugetlbfs perhaps",
    ),
    opt(Id::MemPrealloc, "mem-prealloc", &[], Arg::None, Machine, "take all memory at the start"),
    opt(Id::Rtc, "rtc", &[], Arg::Keys("", &RTC), Machine, "clock of the machine"),
    opt(Id::Name, "name", &[], Arg::Keys("NAME", &NAME), Machine, "name of the guest"),
    opt(Id::Uuid, "uuid", &[], Arg::Text("UUID"), Machine, "UUID of the machine"),
    opt(Id::Kernel, "kernel", &[], Arg::Path("FILE"), Boot, "bzImage, ELF or multiboot kernel"),
    opt(Id::Initrd, "initrd", &[], Arg::Path("FILE"), Boot, "initial RAM disk"),
    opt(Id::Append, "append", &[], Arg::Text("TEXT"), Boot, "kernel command line"),
    opt(Id::Bios, "bios", &[], Arg::Path("FILE"), Boot, "firmware image, up to 16 MiB"),
    opt(
        Id::Device,
        "device",
        &[],
        Arg::Keys("DRIVER", &DEVICE),
        Device,
        "a device; 'help' lists them, 'DRIVER,help' a driver's properties",
    ),
    opt(
        Id::Watchdog,
        "watchdog",
        &[],
        Arg::Text("MODEL"),
        Device,
        "a watchdog; 'help' lists the models",
    ),
    opt(
        Id::WatchdogAction,
        "watchdog-action",
        &[],
        Arg::Text("reset|shutdown|poweroff|inject-nmi|pause|debug|none"),
        Device,
        "what is done when a watchdog runs out (reset)",
    ),
    opt(
        Id::Global,
        "global",
        &[],
        Arg::Text("DRIVER.PROPERTY=VALUE"),
        Device,
        "default of a property",
    ),
    opt(Id::Object, "object", &[], Arg::Keys("TYPE", &OBJECT), Device, "an object; needs id="),
    opt(
        Id::Chardev,
        "chardev",
        &[],
        Arg::Keys("BACKEND", &CHARDEV),
        Device,
        "a character device; needs id=",
    ),
    opt(Id::Serial, "serial", &[], Arg::Text("DEV"), Device, "back end of the next of COM1..COM4"),
    opt(
        Id::Debugcon,
        "debugcon",
        &[],
        Arg::Text("DEV"),
        Device,
        "back end of debug ports 0xe9 and 0x402",
    ),
    opt(
        Id::Drive,
        "drive",
        &[],
        Arg::Keys("file=FILE", &DRIVE),
        Device,
        "a disk image, with if=virtio as a disk of the guest",
    ),
    opt(Id::Hda, "hda", &[], Arg::Text("FILE"), Device, "the first disk, of a SCSI controller"),
    opt(Id::Hdb, "hdb", &[], Arg::Text("FILE"), Device, "the second disk"),
    opt(Id::Hdc, "hdc", &[], Arg::Text("FILE"), Device, "the third disk"),
    opt(Id::Hdd, "hdd", &[], Arg::Text("FILE"), Device, "the fourth disk"),
    opt(Id::Cdrom, "cdrom", &[], Arg::Text("FILE"), Device, "a CD-ROM, in place of the third disk"),
    opt(
        Id::Snapshot,
        "snapshot",
        &[],
        Arg::None,
        Device,
        "what drives write goes to temporary files",
    ),
    opt(
        Id::Blockdev,
        "blockdev",
        &[],
        Arg::Text("OPTIONS"),
        Device,
        "a disk image for a -device; needs node-name=, file.filename=",
    ),
    opt(
        Id::Netdev,
        "netdev",
        &[],
        Arg::Keys("TYPE", &NETDEV),
        Device,
        "what a network card is plugged into; needs id=",
    ),
    opt(
        Id::Net,
        "net",
        &[],
        Arg::Keys("TYPE", &NET),
        Device,
        "a network card or what it is plugged into, on hub 0 or vlan=",
    ),
    opt(
        Id::Nic,
        "nic",
        &[],
        Arg::Keys("TYPE", &NIC),
        Device,
        "a network card (model=, mac=) with what it is plugged into, or none",
    ),
    opt(Id::Nodefaults, "nodefaults", &[], Arg::None, Device, "no default devices"),
    opt(
        Id::Qmp,
        "qmp",
        &[],
        Arg::Text("DEV"),
        Monitor,
        "QMP on DEV: unix:PATH or tcp:HOST:PORT listens without waiting; server=off connects",
    ),
    opt(Id::Monitor, "monitor", &[], Arg::Text("DEV"), Monitor, "human monitor on DEV, or 'none'"),
    opt(Id::Mon, "mon", &[], Arg::Keys("ID", &MON), Monitor, "monitor on a character device"),
    opt(
        Id::Nographic,
        "nographic",
        &[],
        Arg::None,
        Monitor,
        "no display; COM1 and the monitor on stdin and stdout",
    ),
    opt(Id::Display, "display", &[], Arg::Text("none"), Monitor, "no display"),
    opt(Id::Vga, "vga", &[], Arg::Text("none"), Monitor, "no display adapter"),
    opt(Id::Echr, "echr", &[], Arg::Text("N"), Monitor, "escape character of the terminal (1)"),
    opt(
        Id::AddFd,
        "add-fd",
        &[],
        Arg::Keys("fd=FD,set=N", &ADD_FD),
        Process,
        "put an inherited descriptor into set N, whose file name is /dev/fdset/N",
    ),
    opt(Id::Stopped, "S", &[], Arg::None, Process, "do not start the processors"),
    opt(
        Id::Action,
        "action",
        &[],
        Arg::Keys("WHEN=WHAT", &ACTION),
        Process,
        "what is done when the machine is to be reset, goes off or is in trouble",
    ),
    opt(
        Id::Incoming,
        "incoming",
        &[],
        Arg::Text("URI"),
        Process,
        "wait for a guest: tcp:[HOST]:PORT, unix:PATH, fd:N, exec:COMMAND, file:PATH or defer",
    ),
    opt(
        Id::Loadvm,
        "loadvm",
        &[],
        Arg::Text("TAG"),
        Process,
        "go on from a snapshot of the machine, by name or id",
    ),
    opt(Id::NoReboot, "no-reboot", &[], Arg::None, Process, "exit when the guest reboots"),
    opt(Id::NoShutdown, "no-shutdown", &[], Arg::None, Process, "stop when the guest powers off"),
    opt(Id::Daemonize, "daemonize", &[], Arg::None, Process, "go to the background when ready"),
    opt(Id::Pidfile, "pidfile", &[], Arg::Path("FILE"), Process, "file for the process id"),
    opt(
        Id::RunAs,
        "runas",
        &[],
        Arg::Text("USER"),
        Process,
        "become USER, a name or UID:GID, when everything is set up",
    ),
    opt(Id::Chroot, "chroot", &[], Arg::Path("DIR"), Process, "make DIR the root, before -runas"),
    opt(Id::Sandbox, "sandbox", &[], Arg::Keys("on|off", &SANDBOX), Process, "system calls"),
    opt(
        Id::ReadConfig,
        "readconfig",
        &[],
        Arg::Path("FILE"),
        Process,
        "options with parameters from FILE: [GROUP \"ID\"] and lines of KEY = \"VALUE\"",
    ),
    opt(
        Id::WriteConfig,
        "writeconfig",
        &[],
        Arg::Path("FILE"),
        Process,
        "what was given so far to FILE, or to stdout if it is '-'",
    ),
    opt(
        Id::Set,
        "set",
        &[],
        Arg::Text("GROUP.ID.KEY=VALUE"),
        Process,
        "a parameter of what was given before with that id",
    ),
    opt(Id::Msg, "msg", &[], Arg::Keys("", &MSG), Process, "form of messages"),
    opt(
        Id::NoUserConfig,
        "no-user-config",
        &["nodefconfig"],
        Arg::None,
        Process,
        "accepted; only -readconfig reads configuration files",
    ),
    opt(Id::Help, "help", &["h", "?"], Arg::None, Process, "this text"),
    opt(
        Id::Version,
        "version",
        &[],
        Arg::None,
        Process,
        "version; -v after it: also how much of QMP there is",
    ),
    opt(Id::Log, "d", &[], Arg::Text("ITEM,..."), Faults, "what to log; 'help' lists the items"),
    opt(Id::Trace, "trace", &[], Arg::Keys("", &TRACE), Faults, "refused: no trace events"),
    opt(Id::LogFile, "D", &[], Arg::Path("FILE"), Faults, "log to FILE, not to stderr"),
    opt(
        Id::Qtest,
        "qtest",
        &[],
        Arg::Text("DEV"),
        Faults,
        "qtest protocol on DEV, for -machine accel=qtest",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_keys_are_unique() {
        let mut names = HashSet::new();
        for opt in OPTIONS {
            for name in std::iter::once(&opt.name).chain(opt.aliases) {
                assert!(names.insert(*name), "-{name} twice");
            }
            if let Arg::Keys(_, keys) = opt.arg {
                let mut seen = HashSet::new();
                assert!(keys.keys.iter().all(|key| seen.insert(key.name)), "{}", keys.group);
                if let (Some(implied), false) = (keys.implied, keys.open) {
                    assert!(keys.find(implied).is_some(), "{implied} of {}", keys.group);
                }
            }
        }
    }

    #[test]
    fn groups_have_the_order_of_qemu() {
        let names: Vec<_> = groups().iter().map(|keys| keys.group).collect();
        let places: Vec<_> =
            GROUP_ORDER.iter().filter_map(|name| names.iter().position(|n| n == name)).collect();
        assert!(places.len() > 5 && places.is_sorted(), "{names:?}");
        assert!(names.iter().all(|name| group(name).is_some_and(|keys| keys.group == *name)));
        assert!(group("nonsense").is_none());
    }

    #[test]
    fn suggests_options() {
        assert_eq!(suggest("machin"), Some("machine"));
        assert_eq!(suggest("kernal"), Some("kernel"));
        assert_eq!(suggest("kernel=foo"), Some("kernel"));
        assert_eq!(suggest("noreboot"), Some("no-reboot"));
        assert_eq!(suggest("completely-different"), None);
    }
}
