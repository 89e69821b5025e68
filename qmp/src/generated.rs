//! Types, commands and events of QMP. Made by `cargo run -p qmp --bin qmp-gen`
//! from the schema: change that, not this.
#![allow(unused_imports, clippy::large_enum_variant)]

use crate::check::{Arg, Kind};
use crate::decode;
use crate::{Command, CommandSpec, Handle, QmpError, call};
use serde::{Deserialize, Serialize};
use serde::{Deserializer, de::Error as _};
use serde_json::{Map, Value};
use std::time::Duration;

/// The kind of an error, for clients that branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorClass {
    /// Any error without a class of its own.
    #[serde(rename = "GenericError")]
    GenericError,
    /// No such command, or not in this mode of the session.
    #[serde(rename = "CommandNotFound")]
    CommandNotFound,
    /// The disk needs a key first.
    #[serde(rename = "DeviceEncrypted")]
    DeviceEncrypted,
    /// The device exists but nothing drives it, or the job does not exist.
    #[serde(rename = "DeviceNotActive")]
    DeviceNotActive,
    /// No device of that name.
    #[serde(rename = "DeviceNotFound")]
    DeviceNotFound,
    /// KVM lacks what the command needs.
    #[serde(rename = "KVMMissingCap")]
    KVMMissingCap,
}

impl ErrorClass {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::GenericError,
        Self::CommandNotFound,
        Self::DeviceEncrypted,
        Self::DeviceNotActive,
        Self::DeviceNotFound,
        Self::KVMMissingCap,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceEncrypted => "DeviceEncrypted",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::KVMMissingCap => "KVMMissingCap",
        }
    }
}

/// What the machine as a whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunState {
    /// Stopped by a debugger.
    #[serde(rename = "debug")]
    Debug,
    /// Waiting for, or loading, a machine from elsewhere.
    #[serde(rename = "inmigrate")]
    Inmigrate,
    /// The hypervisor could not go on.
    #[serde(rename = "internal-error")]
    InternalError,
    /// Stopped by a disk error, to be retried on cont.
    #[serde(rename = "io-error")]
    IoError,
    /// Stopped by the stop command.
    #[serde(rename = "paused")]
    Paused,
    /// Sent elsewhere completely.
    #[serde(rename = "postmigrate")]
    Postmigrate,
    /// Built and not started yet (-S).
    #[serde(rename = "prelaunch")]
    Prelaunch,
    /// Stopped to send the last of its state.
    #[serde(rename = "finish-migrate")]
    FinishMigrate,
    /// Loading a snapshot.
    #[serde(rename = "restore-vm")]
    RestoreVm,
    /// The vCPUs run.
    #[serde(rename = "running")]
    Running,
    /// Stopped while a snapshot or dump is written.
    #[serde(rename = "save-vm")]
    SaveVm,
    /// The guest powered off and the process was told to stay.
    #[serde(rename = "shutdown")]
    Shutdown,
    /// The guest sleeps (ACPI S3).
    #[serde(rename = "suspended")]
    Suspended,
    /// Stopped by a watchdog.
    #[serde(rename = "watchdog")]
    Watchdog,
    /// Stopped because the guest reported a panic.
    #[serde(rename = "guest-panicked")]
    GuestPanicked,
}

impl RunState {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Debug,
        Self::Inmigrate,
        Self::InternalError,
        Self::IoError,
        Self::Paused,
        Self::Postmigrate,
        Self::Prelaunch,
        Self::FinishMigrate,
        Self::RestoreVm,
        Self::Running,
        Self::SaveVm,
        Self::Shutdown,
        Self::Suspended,
        Self::Watchdog,
        Self::GuestPanicked,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Inmigrate => "inmigrate",
            Self::InternalError => "internal-error",
            Self::IoError => "io-error",
            Self::Paused => "paused",
            Self::Postmigrate => "postmigrate",
            Self::Prelaunch => "prelaunch",
            Self::FinishMigrate => "finish-migrate",
            Self::RestoreVm => "restore-vm",
            Self::Running => "running",
            Self::SaveVm => "save-vm",
            Self::Shutdown => "shutdown",
            Self::Suspended => "suspended",
            Self::Watchdog => "watchdog",
            Self::GuestPanicked => "guest-panicked",
        }
    }
}

/// Why the machine was shut down or reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ShutdownCause {
    /// Nobody asked.
    #[serde(rename = "none")]
    None,
    /// The host failed.
    #[serde(rename = "host-error")]
    HostError,
    /// The quit command.
    #[serde(rename = "host-qmp-quit")]
    HostQmpQuit,
    /// The system_reset command.
    #[serde(rename = "host-qmp-system-reset")]
    HostQmpSystemReset,
    /// A signal to the process.
    #[serde(rename = "host-signal")]
    HostSignal,
    /// The user at the terminal or window.
    #[serde(rename = "host-ui")]
    HostUi,
    /// The guest powered off.
    #[serde(rename = "guest-shutdown")]
    GuestShutdown,
    /// The guest reset the machine, or all its vCPUs failed.
    #[serde(rename = "guest-reset")]
    GuestReset,
    /// The guest's kernel panicked.
    #[serde(rename = "guest-panic")]
    GuestPanic,
    /// A part of the machine that resets apart from the rest.
    #[serde(rename = "subsystem-reset")]
    SubsystemReset,
    /// A snapshot is loaded.
    #[serde(rename = "snapshot-load")]
    SnapshotLoad,
}

impl ShutdownCause {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::HostError,
        Self::HostQmpQuit,
        Self::HostQmpSystemReset,
        Self::HostSignal,
        Self::HostUi,
        Self::GuestShutdown,
        Self::GuestReset,
        Self::GuestPanic,
        Self::SubsystemReset,
        Self::SnapshotLoad,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::HostError => "host-error",
            Self::HostQmpQuit => "host-qmp-quit",
            Self::HostQmpSystemReset => "host-qmp-system-reset",
            Self::HostSignal => "host-signal",
            Self::HostUi => "host-ui",
            Self::GuestShutdown => "guest-shutdown",
            Self::GuestReset => "guest-reset",
            Self::GuestPanic => "guest-panic",
            Self::SubsystemReset => "subsystem-reset",
            Self::SnapshotLoad => "snapshot-load",
        }
    }
}

/// What is done about a guest's panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestPanicAction {
    /// The vCPUs are stopped.
    #[serde(rename = "pause")]
    Pause,
}

impl GuestPanicAction {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Pause,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
        }
    }
}

/// What is done when a watchdog runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WatchdogAction {
    /// The machine is reset.
    #[serde(rename = "reset")]
    Reset,
    /// The power button is pressed.
    #[serde(rename = "shutdown")]
    Shutdown,
    /// The process ends.
    #[serde(rename = "poweroff")]
    Poweroff,
    /// The vCPUs are stopped.
    #[serde(rename = "pause")]
    Pause,
    /// A line on stderr, and the guest goes on.
    #[serde(rename = "debug")]
    Debug,
    /// Nothing but the event.
    #[serde(rename = "none")]
    None,
}

impl WatchdogAction {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Reset,
        Self::Shutdown,
        Self::Poweroff,
        Self::Pause,
        Self::Debug,
        Self::None,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
            Self::Poweroff => "poweroff",
            Self::Pause => "pause",
            Self::Debug => "debug",
            Self::None => "none",
        }
    }
}

/// A part of [`VersionInfo`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionInfoQemu {
    /// `micro`.
    pub micro: i64,
    /// `minor`.
    pub minor: i64,
    /// `major`.
    pub major: i64,
}

/// Which version of the interface is spoken, and by which package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The QEMU version whose behaviour clients may expect.
    pub qemu: VersionInfoQemu,
    /// The packager's suffix, normally empty.
    pub package: String,
}

/// One command of the interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandInfo {
    /// What a client writes after "execute".
    pub name: String,
}

/// One event of the interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventInfo {
    /// What stands after "event" when it is sent.
    pub name: String,
}

/// The guest's name, if it was given one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NameInfo {
    /// The value of -name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The guest's UUID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UuidInfo {
    /// In the form 8-4-4-4-12, lower case; all zeros when none was given.
    #[serde(rename = "UUID")]
    pub uuid: String,
}

/// Whether KVM is there and used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KvmInfo {
    /// The guest runs on KVM.
    pub enabled: bool,
    /// This program can use KVM.
    pub present: bool,
}

/// The guest's architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Always `x86_64` here.
    pub arch: String,
}

/// One vCPU. Members of other architectures are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuInfo {
    /// True for the first vCPU only.
    pub current: bool,
    /// Its index.
    #[serde(rename = "CPU")]
    pub cpu: i64,
    /// Instruction pointer plus code segment base; the upper half of the address space is negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pc: Option<i64>,
    /// Whether it waits for an interrupt.
    pub halted: bool,
    /// The kernel's id of its thread.
    pub thread_id: i64,
}

/// The run state, three ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// The state.
    pub status: RunState,
    /// Whether each instruction is run alone; never with KVM.
    pub singlestep: bool,
    /// Whether the state is `running`.
    pub running: bool,
}

/// `quit`: Ends the process after the reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quit {
}

impl Command for Quit {
    const NAME: &'static str = "quit";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `stop`: Stops the vCPUs; without effect when they are stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
}

impl Command for Stop {
    const NAME: &'static str = "stop";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `cont`: Starts or continues the vCPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cont {
}

impl Command for Cont {
    const NAME: &'static str = "cont";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `system_wakeup`: Wakes a suspended guest; without effect otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemWakeup {
}

impl Command for SystemWakeup {
    const NAME: &'static str = "system_wakeup";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `system_reset`: Asks for a reset; it happens after the reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemReset {
}

impl Command for SystemReset {
    const NAME: &'static str = "system_reset";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `system_powerdown`: Presses the power button; the guest decides what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemPowerdown {
}

impl Command for SystemPowerdown {
    const NAME: &'static str = "system_powerdown";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `qmp_capabilities`: Ends capabilities negotiation: from here on commands are taken and events delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QmpCapabilities {
}

impl Command for QmpCapabilities {
    const NAME: &'static str = "qmp_capabilities";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `query-version`: Asks for the version, as the greeting gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryVersion {
}

impl Command for QueryVersion {
    const NAME: &'static str = "query-version";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = VersionInfo;
}

/// `query-commands`: Lists the commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryCommands {
}

impl Command for QueryCommands {
    const NAME: &'static str = "query-commands";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<CommandInfo>;
}

/// `query-events`: Lists the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryEvents {
}

impl Command for QueryEvents {
    const NAME: &'static str = "query-events";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<EventInfo>;
}

/// `query-cpus`: Lists the vCPUs by index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryCpus {
}

impl Command for QueryCpus {
    const NAME: &'static str = "query-cpus";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<CpuInfo>;
}

/// `query-kvm`: Asks whether the guest runs on KVM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryKvm {
}

impl Command for QueryKvm {
    const NAME: &'static str = "query-kvm";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = KvmInfo;
}

/// `query-status`: Asks for the run state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryStatus {
}

impl Command for QueryStatus {
    const NAME: &'static str = "query-status";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = StatusInfo;
}

/// `query-name`: Asks for the guest's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryName {
}

impl Command for QueryName {
    const NAME: &'static str = "query-name";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = NameInfo;
}

/// `query-uuid`: Asks for the guest's UUID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryUuid {
}

impl Command for QueryUuid {
    const NAME: &'static str = "query-uuid";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = UuidInfo;
}

/// `query-target`: Asks for the guest's architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryTarget {
}

impl Command for QueryTarget {
    const NAME: &'static str = "query-target";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = TargetInfo;
}

/// `x-pulse-save-restore`: Stops, saves everything, resets, loads it back and continues: the guest must not notice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XPulseSaveRestore {
}

impl Command for XPulseSaveRestore {
    const NAME: &'static str = "x-pulse-save-restore";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// Carries out every command of the schema.
pub trait Commands:
    Handle<Quit> +
    Handle<Stop> +
    Handle<Cont> +
    Handle<SystemWakeup> +
    Handle<SystemReset> +
    Handle<SystemPowerdown> +
    Handle<QueryVersion> +
    Handle<QueryCpus> +
    Handle<QueryKvm> +
    Handle<QueryStatus> +
    Handle<QueryName> +
    Handle<QueryUuid> +
    Handle<QueryTarget> +
    Handle<XPulseSaveRestore>
{
}

impl<T> Commands for T where
    T:
    Handle<Quit> +
    Handle<Stop> +
    Handle<Cont> +
    Handle<SystemWakeup> +
    Handle<SystemReset> +
    Handle<SystemPowerdown> +
    Handle<QueryVersion> +
    Handle<QueryCpus> +
    Handle<QueryKvm> +
    Handle<QueryStatus> +
    Handle<QueryName> +
    Handle<QueryUuid> +
    Handle<QueryTarget> +
    Handle<XPulseSaveRestore>
{
}

/// Runs a command by its name.
///
/// # Errors
/// There is no such command, its arguments are wrong, or its handler says so.
pub fn dispatch<V: Commands>(
    vm: &mut V,
    name: &str,
    args: Map<String, Value>,
) -> Result<Value, QmpError> {
    match name {
        "quit" => call::<Quit, _>(vm, args),
        "stop" => call::<Stop, _>(vm, args),
        "cont" => call::<Cont, _>(vm, args),
        "system_wakeup" => call::<SystemWakeup, _>(vm, args),
        "system_reset" => call::<SystemReset, _>(vm, args),
        "system_powerdown" => call::<SystemPowerdown, _>(vm, args),
        "query-version" => call::<QueryVersion, _>(vm, args),
        "query-commands" => call::<QueryCommands, _>(&mut crate::own::Tables, args),
        "query-events" => call::<QueryEvents, _>(&mut crate::own::Tables, args),
        "query-cpus" => call::<QueryCpus, _>(vm, args),
        "query-kvm" => call::<QueryKvm, _>(vm, args),
        "query-status" => call::<QueryStatus, _>(vm, args),
        "query-name" => call::<QueryName, _>(vm, args),
        "query-uuid" => call::<QueryUuid, _>(vm, args),
        "query-target" => call::<QueryTarget, _>(vm, args),
        "x-pulse-save-restore" => call::<XPulseSaveRestore, _>(vm, args),
        _ => Err(QmpError::command_not_found(name)),
    }
}

/// Every command, in the order of registration.
pub static COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "quit", args: Quit::ARGS },
    CommandSpec { name: "stop", args: Stop::ARGS },
    CommandSpec { name: "cont", args: Cont::ARGS },
    CommandSpec { name: "system_wakeup", args: SystemWakeup::ARGS },
    CommandSpec { name: "system_reset", args: SystemReset::ARGS },
    CommandSpec { name: "system_powerdown", args: SystemPowerdown::ARGS },
    CommandSpec { name: "qmp_capabilities", args: QmpCapabilities::ARGS },
    CommandSpec { name: "query-version", args: QueryVersion::ARGS },
    CommandSpec { name: "query-commands", args: QueryCommands::ARGS },
    CommandSpec { name: "query-events", args: QueryEvents::ARGS },
    CommandSpec { name: "query-cpus", args: QueryCpus::ARGS },
    CommandSpec { name: "query-kvm", args: QueryKvm::ARGS },
    CommandSpec { name: "query-status", args: QueryStatus::ARGS },
    CommandSpec { name: "query-name", args: QueryName::ARGS },
    CommandSpec { name: "query-uuid", args: QueryUuid::ARGS },
    CommandSpec { name: "query-target", args: QueryTarget::ARGS },
    CommandSpec { name: "x-pulse-save-restore", args: XPulseSaveRestore::ARGS },
];

/// What clients are told without asking.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", content = "data")]
pub enum Event {
    /// The machine is about to end, or, told to stay, to stop.
    #[serde(rename = "SHUTDOWN")]
    Shutdown {
        /// Whether the guest asked for it.
        guest: bool,
        /// Who asked, and how.
        reason: ShutdownCause,
    },
    /// Every device has been reset.
    #[serde(rename = "RESET")]
    Reset {
        /// Whether the guest asked for it.
        guest: bool,
        /// Who asked, and how.
        reason: ShutdownCause,
    },
    /// The power button is about to be pressed.
    #[serde(rename = "POWERDOWN")]
    Powerdown,
    /// The vCPUs stopped.
    #[serde(rename = "STOP")]
    Stop,
    /// The vCPUs run (again).
    #[serde(rename = "RESUME")]
    Resume,
    /// The guest set its clock.
    #[serde(rename = "RTC_CHANGE")]
    RtcChange {
        /// Seconds the guest's clock is ahead of the reference.
        offset: i64,
    },
    /// A watchdog ran out; sent before its action.
    #[serde(rename = "WATCHDOG")]
    Watchdog {
        /// What is about to be done.
        action: WatchdogAction,
    },
    /// The guest went to sleep (ACPI S3).
    #[serde(rename = "SUSPEND")]
    Suspend,
    /// The guest has written itself to its disk (ACPI S4); SHUTDOWN follows.
    #[serde(rename = "SUSPEND_DISK")]
    SuspendDisk,
    /// The guest woke from sleep.
    #[serde(rename = "WAKEUP")]
    Wakeup,
    /// The guest reported that it cannot go on.
    #[serde(rename = "GUEST_PANICKED")]
    GuestPanicked {
        /// What is done about it.
        action: GuestPanicAction,
    },
}

impl Event {
    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shutdown { .. } => "SHUTDOWN",
            Self::Reset { .. } => "RESET",
            Self::Powerdown => "POWERDOWN",
            Self::Stop => "STOP",
            Self::Resume => "RESUME",
            Self::RtcChange { .. } => "RTC_CHANGE",
            Self::Watchdog { .. } => "WATCHDOG",
            Self::Suspend => "SUSPEND",
            Self::SuspendDisk => "SUSPEND_DISK",
            Self::Wakeup => "WAKEUP",
            Self::GuestPanicked { .. } => "GUEST_PANICKED",
        }
    }

    /// The period in which clients are told of one of the kind at most.
    pub fn rate_limit(&self) -> Option<Duration> {
        match self {
            Self::RtcChange { .. } => Some(Duration::from_millis(1000)),
            Self::Watchdog { .. } => Some(Duration::from_millis(1000)),
            _ => None,
        }
    }
}

/// The name of every event, in the order of registration.
pub static EVENTS: &[&str] = &[
    "SHUTDOWN",
    "RESET",
    "POWERDOWN",
    "STOP",
    "RESUME",
    "RTC_CHANGE",
    "WATCHDOG",
    "SUSPEND",
    "SUSPEND_DISK",
    "WAKEUP",
    "GUEST_PANICKED",
];
