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

/// How bytes are written in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataFormat {
    /// As they are.
    #[serde(rename = "utf8")]
    Utf8,
    /// In base 64 (RFC 3548).
    #[serde(rename = "base64")]
    Base64,
}

impl DataFormat {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Utf8,
        Self::Base64,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Base64 => "base64",
        }
    }
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CommandLineParameterType {
    /// Any text.
    #[serde(rename = "string")]
    String,
    /// `on` or `off`.
    #[serde(rename = "boolean")]
    Boolean,
    /// A whole number.
    #[serde(rename = "number")]
    Number,
    /// Bytes, with a suffix such as `M` if wanted.
    #[serde(rename = "size")]
    Size,
}

impl CommandLineParameterType {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::String,
        Self::Boolean,
        Self::Number,
        Self::Size,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::Size => "size",
        }
    }
}

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

/// A key, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QKeyCode {
    /// `shift`.
    #[serde(rename = "shift")]
    Shift,
    /// `shift_r`.
    #[serde(rename = "shift_r")]
    ShiftR,
    /// `alt`.
    #[serde(rename = "alt")]
    Alt,
    /// `alt_r`.
    #[serde(rename = "alt_r")]
    AltR,
    /// `altgr`.
    #[serde(rename = "altgr")]
    Altgr,
    /// `altgr_r`.
    #[serde(rename = "altgr_r")]
    AltgrR,
    /// `ctrl`.
    #[serde(rename = "ctrl")]
    Ctrl,
    /// `ctrl_r`.
    #[serde(rename = "ctrl_r")]
    CtrlR,
    /// `menu`.
    #[serde(rename = "menu")]
    Menu,
    /// `esc`.
    #[serde(rename = "esc")]
    Esc,
    /// `1`.
    #[serde(rename = "1")]
    N1,
    /// `2`.
    #[serde(rename = "2")]
    N2,
    /// `3`.
    #[serde(rename = "3")]
    N3,
    /// `4`.
    #[serde(rename = "4")]
    N4,
    /// `5`.
    #[serde(rename = "5")]
    N5,
    /// `6`.
    #[serde(rename = "6")]
    N6,
    /// `7`.
    #[serde(rename = "7")]
    N7,
    /// `8`.
    #[serde(rename = "8")]
    N8,
    /// `9`.
    #[serde(rename = "9")]
    N9,
    /// `0`.
    #[serde(rename = "0")]
    N0,
    /// `minus`.
    #[serde(rename = "minus")]
    Minus,
    /// `equal`.
    #[serde(rename = "equal")]
    Equal,
    /// `backspace`.
    #[serde(rename = "backspace")]
    Backspace,
    /// `tab`.
    #[serde(rename = "tab")]
    Tab,
    /// `q`.
    #[serde(rename = "q")]
    Q,
    /// `w`.
    #[serde(rename = "w")]
    W,
    /// `e`.
    #[serde(rename = "e")]
    E,
    /// `r`.
    #[serde(rename = "r")]
    R,
    /// `t`.
    #[serde(rename = "t")]
    T,
    /// `y`.
    #[serde(rename = "y")]
    Y,
    /// `u`.
    #[serde(rename = "u")]
    U,
    /// `i`.
    #[serde(rename = "i")]
    I,
    /// `o`.
    #[serde(rename = "o")]
    O,
    /// `p`.
    #[serde(rename = "p")]
    P,
    /// `bracket_left`.
    #[serde(rename = "bracket_left")]
    BracketLeft,
    /// `bracket_right`.
    #[serde(rename = "bracket_right")]
    BracketRight,
    /// `ret`.
    #[serde(rename = "ret")]
    Ret,
    /// `a`.
    #[serde(rename = "a")]
    A,
    /// `s`.
    #[serde(rename = "s")]
    S,
    /// `d`.
    #[serde(rename = "d")]
    D,
    /// `f`.
    #[serde(rename = "f")]
    F,
    /// `g`.
    #[serde(rename = "g")]
    G,
    /// `h`.
    #[serde(rename = "h")]
    H,
    /// `j`.
    #[serde(rename = "j")]
    J,
    /// `k`.
    #[serde(rename = "k")]
    K,
    /// `l`.
    #[serde(rename = "l")]
    L,
    /// `semicolon`.
    #[serde(rename = "semicolon")]
    Semicolon,
    /// `apostrophe`.
    #[serde(rename = "apostrophe")]
    Apostrophe,
    /// `grave_accent`.
    #[serde(rename = "grave_accent")]
    GraveAccent,
    /// `backslash`.
    #[serde(rename = "backslash")]
    Backslash,
    /// `z`.
    #[serde(rename = "z")]
    Z,
    /// `x`.
    #[serde(rename = "x")]
    X,
    /// `c`.
    #[serde(rename = "c")]
    C,
    /// `v`.
    #[serde(rename = "v")]
    V,
    /// `b`.
    #[serde(rename = "b")]
    B,
    /// `n`.
    #[serde(rename = "n")]
    N,
    /// `m`.
    #[serde(rename = "m")]
    M,
    /// `comma`.
    #[serde(rename = "comma")]
    Comma,
    /// `dot`.
    #[serde(rename = "dot")]
    Dot,
    /// `slash`.
    #[serde(rename = "slash")]
    Slash,
    /// `asterisk`.
    #[serde(rename = "asterisk")]
    Asterisk,
    /// `spc`.
    #[serde(rename = "spc")]
    Spc,
    /// `caps_lock`.
    #[serde(rename = "caps_lock")]
    CapsLock,
    /// `f1`.
    #[serde(rename = "f1")]
    F1,
    /// `f2`.
    #[serde(rename = "f2")]
    F2,
    /// `f3`.
    #[serde(rename = "f3")]
    F3,
    /// `f4`.
    #[serde(rename = "f4")]
    F4,
    /// `f5`.
    #[serde(rename = "f5")]
    F5,
    /// `f6`.
    #[serde(rename = "f6")]
    F6,
    /// `f7`.
    #[serde(rename = "f7")]
    F7,
    /// `f8`.
    #[serde(rename = "f8")]
    F8,
    /// `f9`.
    #[serde(rename = "f9")]
    F9,
    /// `f10`.
    #[serde(rename = "f10")]
    F10,
    /// `num_lock`.
    #[serde(rename = "num_lock")]
    NumLock,
    /// `scroll_lock`.
    #[serde(rename = "scroll_lock")]
    ScrollLock,
    /// `kp_divide`.
    #[serde(rename = "kp_divide")]
    KpDivide,
    /// `kp_multiply`.
    #[serde(rename = "kp_multiply")]
    KpMultiply,
    /// `kp_subtract`.
    #[serde(rename = "kp_subtract")]
    KpSubtract,
    /// `kp_add`.
    #[serde(rename = "kp_add")]
    KpAdd,
    /// `kp_enter`.
    #[serde(rename = "kp_enter")]
    KpEnter,
    /// `kp_decimal`.
    #[serde(rename = "kp_decimal")]
    KpDecimal,
    /// `sysrq`.
    #[serde(rename = "sysrq")]
    Sysrq,
    /// `kp_0`.
    #[serde(rename = "kp_0")]
    Kp0,
    /// `kp_1`.
    #[serde(rename = "kp_1")]
    Kp1,
    /// `kp_2`.
    #[serde(rename = "kp_2")]
    Kp2,
    /// `kp_3`.
    #[serde(rename = "kp_3")]
    Kp3,
    /// `kp_4`.
    #[serde(rename = "kp_4")]
    Kp4,
    /// `kp_5`.
    #[serde(rename = "kp_5")]
    Kp5,
    /// `kp_6`.
    #[serde(rename = "kp_6")]
    Kp6,
    /// `kp_7`.
    #[serde(rename = "kp_7")]
    Kp7,
    /// `kp_8`.
    #[serde(rename = "kp_8")]
    Kp8,
    /// `kp_9`.
    #[serde(rename = "kp_9")]
    Kp9,
    /// `less`.
    #[serde(rename = "less")]
    Less,
    /// `f11`.
    #[serde(rename = "f11")]
    F11,
    /// `f12`.
    #[serde(rename = "f12")]
    F12,
    /// `print`.
    #[serde(rename = "print")]
    Print,
    /// `home`.
    #[serde(rename = "home")]
    Home,
    /// `pgup`.
    #[serde(rename = "pgup")]
    Pgup,
    /// `pgdn`.
    #[serde(rename = "pgdn")]
    Pgdn,
    /// `end`.
    #[serde(rename = "end")]
    End,
    /// `left`.
    #[serde(rename = "left")]
    Left,
    /// `up`.
    #[serde(rename = "up")]
    Up,
    /// `down`.
    #[serde(rename = "down")]
    Down,
    /// `right`.
    #[serde(rename = "right")]
    Right,
    /// `insert`.
    #[serde(rename = "insert")]
    Insert,
    /// `delete`.
    #[serde(rename = "delete")]
    Delete,
    /// `stop`.
    #[serde(rename = "stop")]
    Stop,
    /// `again`.
    #[serde(rename = "again")]
    Again,
    /// `props`.
    #[serde(rename = "props")]
    Props,
    /// `undo`.
    #[serde(rename = "undo")]
    Undo,
    /// `front`.
    #[serde(rename = "front")]
    Front,
    /// `copy`.
    #[serde(rename = "copy")]
    Copy,
    /// `open`.
    #[serde(rename = "open")]
    Open,
    /// `paste`.
    #[serde(rename = "paste")]
    Paste,
    /// `find`.
    #[serde(rename = "find")]
    Find,
    /// `cut`.
    #[serde(rename = "cut")]
    Cut,
    /// `lf`.
    #[serde(rename = "lf")]
    Lf,
    /// `help`.
    #[serde(rename = "help")]
    Help,
    /// `meta_l`.
    #[serde(rename = "meta_l")]
    MetaL,
    /// `meta_r`.
    #[serde(rename = "meta_r")]
    MetaR,
    /// `compose`.
    #[serde(rename = "compose")]
    Compose,
}

impl QKeyCode {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Shift,
        Self::ShiftR,
        Self::Alt,
        Self::AltR,
        Self::Altgr,
        Self::AltgrR,
        Self::Ctrl,
        Self::CtrlR,
        Self::Menu,
        Self::Esc,
        Self::N1,
        Self::N2,
        Self::N3,
        Self::N4,
        Self::N5,
        Self::N6,
        Self::N7,
        Self::N8,
        Self::N9,
        Self::N0,
        Self::Minus,
        Self::Equal,
        Self::Backspace,
        Self::Tab,
        Self::Q,
        Self::W,
        Self::E,
        Self::R,
        Self::T,
        Self::Y,
        Self::U,
        Self::I,
        Self::O,
        Self::P,
        Self::BracketLeft,
        Self::BracketRight,
        Self::Ret,
        Self::A,
        Self::S,
        Self::D,
        Self::F,
        Self::G,
        Self::H,
        Self::J,
        Self::K,
        Self::L,
        Self::Semicolon,
        Self::Apostrophe,
        Self::GraveAccent,
        Self::Backslash,
        Self::Z,
        Self::X,
        Self::C,
        Self::V,
        Self::B,
        Self::N,
        Self::M,
        Self::Comma,
        Self::Dot,
        Self::Slash,
        Self::Asterisk,
        Self::Spc,
        Self::CapsLock,
        Self::F1,
        Self::F2,
        Self::F3,
        Self::F4,
        Self::F5,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F9,
        Self::F10,
        Self::NumLock,
        Self::ScrollLock,
        Self::KpDivide,
        Self::KpMultiply,
        Self::KpSubtract,
        Self::KpAdd,
        Self::KpEnter,
        Self::KpDecimal,
        Self::Sysrq,
        Self::Kp0,
        Self::Kp1,
        Self::Kp2,
        Self::Kp3,
        Self::Kp4,
        Self::Kp5,
        Self::Kp6,
        Self::Kp7,
        Self::Kp8,
        Self::Kp9,
        Self::Less,
        Self::F11,
        Self::F12,
        Self::Print,
        Self::Home,
        Self::Pgup,
        Self::Pgdn,
        Self::End,
        Self::Left,
        Self::Up,
        Self::Down,
        Self::Right,
        Self::Insert,
        Self::Delete,
        Self::Stop,
        Self::Again,
        Self::Props,
        Self::Undo,
        Self::Front,
        Self::Copy,
        Self::Open,
        Self::Paste,
        Self::Find,
        Self::Cut,
        Self::Lf,
        Self::Help,
        Self::MetaL,
        Self::MetaR,
        Self::Compose,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shift => "shift",
            Self::ShiftR => "shift_r",
            Self::Alt => "alt",
            Self::AltR => "alt_r",
            Self::Altgr => "altgr",
            Self::AltgrR => "altgr_r",
            Self::Ctrl => "ctrl",
            Self::CtrlR => "ctrl_r",
            Self::Menu => "menu",
            Self::Esc => "esc",
            Self::N1 => "1",
            Self::N2 => "2",
            Self::N3 => "3",
            Self::N4 => "4",
            Self::N5 => "5",
            Self::N6 => "6",
            Self::N7 => "7",
            Self::N8 => "8",
            Self::N9 => "9",
            Self::N0 => "0",
            Self::Minus => "minus",
            Self::Equal => "equal",
            Self::Backspace => "backspace",
            Self::Tab => "tab",
            Self::Q => "q",
            Self::W => "w",
            Self::E => "e",
            Self::R => "r",
            Self::T => "t",
            Self::Y => "y",
            Self::U => "u",
            Self::I => "i",
            Self::O => "o",
            Self::P => "p",
            Self::BracketLeft => "bracket_left",
            Self::BracketRight => "bracket_right",
            Self::Ret => "ret",
            Self::A => "a",
            Self::S => "s",
            Self::D => "d",
            Self::F => "f",
            Self::G => "g",
            Self::H => "h",
            Self::J => "j",
            Self::K => "k",
            Self::L => "l",
            Self::Semicolon => "semicolon",
            Self::Apostrophe => "apostrophe",
            Self::GraveAccent => "grave_accent",
            Self::Backslash => "backslash",
            Self::Z => "z",
            Self::X => "x",
            Self::C => "c",
            Self::V => "v",
            Self::B => "b",
            Self::N => "n",
            Self::M => "m",
            Self::Comma => "comma",
            Self::Dot => "dot",
            Self::Slash => "slash",
            Self::Asterisk => "asterisk",
            Self::Spc => "spc",
            Self::CapsLock => "caps_lock",
            Self::F1 => "f1",
            Self::F2 => "f2",
            Self::F3 => "f3",
            Self::F4 => "f4",
            Self::F5 => "f5",
            Self::F6 => "f6",
            Self::F7 => "f7",
            Self::F8 => "f8",
            Self::F9 => "f9",
            Self::F10 => "f10",
            Self::NumLock => "num_lock",
            Self::ScrollLock => "scroll_lock",
            Self::KpDivide => "kp_divide",
            Self::KpMultiply => "kp_multiply",
            Self::KpSubtract => "kp_subtract",
            Self::KpAdd => "kp_add",
            Self::KpEnter => "kp_enter",
            Self::KpDecimal => "kp_decimal",
            Self::Sysrq => "sysrq",
            Self::Kp0 => "kp_0",
            Self::Kp1 => "kp_1",
            Self::Kp2 => "kp_2",
            Self::Kp3 => "kp_3",
            Self::Kp4 => "kp_4",
            Self::Kp5 => "kp_5",
            Self::Kp6 => "kp_6",
            Self::Kp7 => "kp_7",
            Self::Kp8 => "kp_8",
            Self::Kp9 => "kp_9",
            Self::Less => "less",
            Self::F11 => "f11",
            Self::F12 => "f12",
            Self::Print => "print",
            Self::Home => "home",
            Self::Pgup => "pgup",
            Self::Pgdn => "pgdn",
            Self::End => "end",
            Self::Left => "left",
            Self::Up => "up",
            Self::Down => "down",
            Self::Right => "right",
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::Stop => "stop",
            Self::Again => "again",
            Self::Props => "props",
            Self::Undo => "undo",
            Self::Front => "front",
            Self::Copy => "copy",
            Self::Open => "open",
            Self::Paste => "paste",
            Self::Find => "find",
            Self::Cut => "cut",
            Self::Lf => "lf",
            Self::Help => "help",
            Self::MetaL => "meta_l",
            Self::MetaR => "meta_r",
            Self::Compose => "compose",
        }
    }
}

/// A general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum X86CPURegister32 {
    /// `EAX`.
    #[serde(rename = "EAX")]
    Eax,
    /// `EBX`.
    #[serde(rename = "EBX")]
    Ebx,
    /// `ECX`.
    #[serde(rename = "ECX")]
    Ecx,
    /// `EDX`.
    #[serde(rename = "EDX")]
    Edx,
    /// `ESP`.
    #[serde(rename = "ESP")]
    Esp,
    /// `EBP`.
    #[serde(rename = "EBP")]
    Ebp,
    /// `ESI`.
    #[serde(rename = "ESI")]
    Esi,
    /// `EDI`.
    #[serde(rename = "EDI")]
    Edi,
}

impl X86CPURegister32 {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Eax,
        Self::Ebx,
        Self::Ecx,
        Self::Edx,
        Self::Esp,
        Self::Ebp,
        Self::Esi,
        Self::Edi,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
            Self::Esp => "ESP",
            Self::Ebp => "EBP",
            Self::Esi => "ESI",
            Self::Edi => "EDI",
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

/// How the guest sees a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TpmModel {
    /// By the TPM Interface Specification.
    #[serde(rename = "tpm-tis")]
    TpmTis,
}

impl TpmModel {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::TpmTis,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TpmTis => "tpm-tis",
        }
    }
}

/// What is behind a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TpmType {
    /// The host's.
    #[serde(rename = "passthrough")]
    Passthrough,
}

impl TpmType {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Passthrough,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
        }
    }
}

/// One character device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevInfo {
    /// What it is connected to, in a form of its kind's own.
    pub filename: String,
    /// Its id.
    pub label: String,
}

/// A file that takes the output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevFile {
    /// A file to read input from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#in: Option<String>,
    /// The file; made, or cut to nothing.
    pub out: String,
}

/// A device or named pipe of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevHostdev {
    /// Its path.
    pub device: String,
}

/// A stream socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevSocket {
    /// Where to listen or whom to call.
    pub addr: SocketAddress,
    /// Whether to listen; true if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<bool>,
    /// Whether to wait for the first client before anything else; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Whether small pieces are sent at once (TCP_NODELAY); false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodelay: Option<bool>,
    /// Whether the telnet protocol is spoken; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telnet: Option<bool>,
    /// Seconds until a lost connection is tried again; 0 or absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<i64>,
}

/// Datagrams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevUdp {
    /// Where they are sent.
    pub remote: SocketAddress,
    /// Where they are received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddress>,
}

/// Several users of one character device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevMux {
    /// The id of the device that they share.
    pub chardev: String,
}

/// Standard input and output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevStdio {
    /// Whether keys such as Ctrl-C send signals; true if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<bool>,
}

/// A channel of a SPICE client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevSpiceChannel {
    /// Its kind, such as `vdagent`.
    pub r#type: String,
}

/// A port of a SPICE client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevSpicePort {
    /// Its name.
    pub fqdn: String,
}

/// A text console on the display.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevVC {
    /// In pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// In pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// In characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<i64>,
    /// In characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
}

/// A ring buffer in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevRingbuf {
    /// In bytes, a power of two; 65536 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// Nothing to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevDummy {
}

/// What there is to know about a new character device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevReturn {
    /// The path of a `pty`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty: Option<String>,
}

/// One parameter of an option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandLineParameterInfo {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What it takes.
    pub r#type: CommandLineParameterType,
}

/// One option with parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandLineOptionInfo {
    /// What it takes; empty if anything.
    pub parameters: Vec<CommandLineParameterInfo>,
    /// Its name.
    pub option: String,
}

/// An ACPI table given by option: its header, and where its body is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcpiTableOptions {
    /// Signature, four bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sig: Option<String>,
    /// Revision of the table's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rev: Option<u8>,
    /// Maker, six bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oem_id: Option<String>,
    /// Maker's name for the table, eight bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oem_table_id: Option<String>,
    /// Maker's revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oem_rev: Option<u32>,
    /// Maker of the compiler, four bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asl_compiler_id: Option<String>,
    /// Revision of the compiler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asl_compiler_rev: Option<u32>,
    /// Files that hold header and body, separated by `:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Files that hold the body, separated by `:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
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

/// Where a descriptor went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddfdInfo {
    /// Its number in this process.
    pub fd: i64,
    /// The set it is in.
    #[serde(rename = "fdset-id")]
    pub fdset_id: i64,
}

/// A descriptor in a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FdsetFdInfo {
    /// Its number in this process.
    pub fd: i64,
    /// The client's note about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
}

/// A set of descriptors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FdsetInfo {
    /// The descriptors, the oldest first.
    pub fds: Vec<FdsetFdInfo>,
    /// Its number.
    #[serde(rename = "fdset-id")]
    pub fdset_id: i64,
}

/// One property of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DevicePropertyInfo {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub r#type: String,
}

/// A pointing device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MouseInfo {
    /// Its number, in the order in which they came.
    pub index: i64,
    /// What it is.
    pub name: String,
    /// Whether it is the one that is used.
    pub current: bool,
    /// Whether it tells places, not movements.
    pub absolute: bool,
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

/// One kind of machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineInfo {
    /// Its name, for -machine.
    pub name: String,
    /// True for the one that is used without -machine; absent otherwise.
    #[serde(rename = "is-default", skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// How many vCPUs it may have.
    #[serde(rename = "cpu-max")]
    pub cpu_max: i64,
    /// Its other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

/// One CPU model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuDefinitionInfo {
    /// Its name, for -cpu.
    pub name: String,
}

/// A register full of features that CPUID tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct X86CPUFeatureWordInfo {
    /// The register.
    #[serde(rename = "cpuid-register")]
    pub cpuid_register: X86CPURegister32,
    /// The sub-leaf it is told by, if the leaf has several.
    #[serde(rename = "cpuid-input-ecx", skip_serializing_if = "Option::is_none")]
    pub cpuid_input_ecx: Option<i64>,
    /// The leaf it is told by.
    #[serde(rename = "cpuid-input-eax")]
    pub cpuid_input_eax: i64,
    /// Its bits.
    pub features: i64,
}

/// One property of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectPropertyInfo {
    /// Its name.
    pub name: String,
    /// Its type; `child<TYPE>` and `link<TYPE>` lead to other objects.
    pub r#type: String,
}

/// One type of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectTypeInfo {
    /// Its name.
    pub name: String,
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

/// A string, where only structs may stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QmpString {
    /// The string.
    pub str: String,
}

/// A TCP or UDP address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InetSocketAddress {
    /// Name or number of the host; empty: any.
    pub host: String,
    /// Number or name of the port.
    pub port: String,
    /// The last port to try when listening; `port` is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// Whether IPv4 may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Whether IPv6 may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
}

/// A local address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnixSocketAddress {
    /// Where it is in the file system.
    pub path: String,
}

/// Where the host's TPM is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TPMPassthroughOptions {
    /// The file that stops a command of it.
    #[serde(rename = "cancel-path", skip_serializing_if = "Option::is_none")]
    pub cancel_path: Option<String>,
    /// Its device node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// One TPM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TPMInfo {
    /// How the guest sees it.
    pub model: TpmModel,
    /// What is behind it.
    pub options: TpmTypeOptions,
    /// Its id.
    pub id: String,
}

/// What a character device is connected to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum ChardevBackend {
    /// A file.
    #[serde(rename = "file")]
    File(ChardevFile),
    /// A serial port of the host.
    #[serde(rename = "serial")]
    Serial(ChardevHostdev),
    /// A parallel port of the host.
    #[serde(rename = "parallel")]
    Parallel(ChardevHostdev),
    /// A named pipe, or two with the endings `.in` and `.out`.
    #[serde(rename = "pipe")]
    Pipe(ChardevHostdev),
    /// A stream socket.
    #[serde(rename = "socket")]
    Socket(ChardevSocket),
    /// Datagrams.
    #[serde(rename = "udp")]
    Udp(ChardevUdp),
    /// A pseudo terminal, made for it.
    #[serde(rename = "pty")]
    Pty(ChardevDummy),
    /// Nothing.
    #[serde(rename = "null")]
    Null(ChardevDummy),
    /// Another character device, shared.
    #[serde(rename = "mux")]
    Mux(ChardevMux),
    /// A serial mouse by Microsoft's protocol.
    #[serde(rename = "msmouse")]
    Msmouse(ChardevDummy),
    /// A braille display.
    #[serde(rename = "braille")]
    Braille(ChardevDummy),
    /// Standard input and output.
    #[serde(rename = "stdio")]
    Stdio(ChardevStdio),
    /// The console of a Windows host.
    #[serde(rename = "console")]
    Console(ChardevDummy),
    /// A channel of a SPICE client.
    #[serde(rename = "spicevmc")]
    Spicevmc(ChardevSpiceChannel),
    /// A port of a SPICE client.
    #[serde(rename = "spiceport")]
    Spiceport(ChardevSpicePort),
    /// A text console on the display.
    #[serde(rename = "vc")]
    Vc(ChardevVC),
    /// A ring buffer in memory.
    #[serde(rename = "ringbuf")]
    Ringbuf(ChardevRingbuf),
    /// The former name of `ringbuf`.
    #[serde(rename = "memory")]
    Memory(ChardevRingbuf),
}

/// A key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum KeyValue {
    /// By the code it sends (scan code set 1).
    #[serde(rename = "number")]
    Number(i64),
    /// By its name.
    #[serde(rename = "qcode")]
    Qcode(QKeyCode),
}

/// An address, or a socket that is open already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum SocketAddress {
    /// An address of the Internet.
    #[serde(rename = "inet")]
    Inet(InetSocketAddress),
    /// A path.
    #[serde(rename = "unix")]
    Unix(UnixSocketAddress),
    /// The name that getfd gave to a socket.
    #[serde(rename = "fd")]
    Fd(QmpString),
}

/// What is behind a TPM, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum TpmTypeOptions {
    /// The host's.
    #[serde(rename = "passthrough")]
    Passthrough(TPMPassthroughOptions),
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

/// `device_add`: Adds a device; `driver` names its type, `id` and `bus` what they say, the others are its properties.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceAdd {
    /// The arguments that have no field of their own.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for DeviceAdd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = decode::Flat::new(deserializer)?;
        Ok(Self {
            rest: object.rest(),
        })
    }
}

impl Command for DeviceAdd {
    const NAME: &'static str = "device_add";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = true;
    type Ret = ();
}

/// `device_del`: Removes a device, or asks the guest to let it go; DEVICE_DELETED tells when it is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceDel {
    /// The device's id.
    pub id: String,
}

impl Command for DeviceDel {
    const NAME: &'static str = "device_del";
    const ARGS: &'static [Arg] = &[
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `send-key`: Presses keys one after another and releases them in reverse order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SendKey {
    /// The keys.
    pub keys: Vec<KeyValue>,
    /// Milliseconds of the guest's clock between the last press and the first release; 100 if absent.
    #[serde(rename = "hold-time", skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<i64>,
    /// The arguments that have no field of their own.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for SendKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        Ok(Self {
            keys: object.take("keys")?,
            hold_time: object.take("hold-time")?,
            rest: object.rest(),
        })
    }
}

impl Command for SendKey {
    const NAME: &'static str = "send-key";
    const ARGS: &'static [Arg] = &[
        Arg { name: "keys", kind: Kind::Any, optional: false },
        Arg { name: "hold-time", kind: Kind::Int, optional: true },
    ];
    const OPEN: bool = true;
    type Ret = ();
}

/// `cpu`: Without effect: no command of this protocol depends on a vCPU chosen before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// A vCPU.
    pub index: i64,
}

impl Command for Cpu {
    const NAME: &'static str = "cpu";
    const ARGS: &'static [Arg] = &[
        Arg { name: "index", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `cpu-add`: Adds a vCPU to a running machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuAdd {
    /// Its number, from 0 to below the machine's maximum.
    pub id: i64,
}

impl Command for CpuAdd {
    const NAME: &'static str = "cpu-add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "id", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `memsave`: Writes memory to a file, addressed as a vCPU sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memsave {
    /// The vCPU by its index, under its other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<i64>,
    /// The file; made, or cut to nothing.
    pub filename: String,
    /// How many bytes.
    pub size: i64,
    /// The virtual address.
    pub val: i64,
    /// The vCPU by its index; 0 if absent.
    #[serde(rename = "cpu-index", skip_serializing_if = "Option::is_none")]
    pub cpu_index: Option<i64>,
}

impl Command for Memsave {
    const NAME: &'static str = "memsave";
    const ARGS: &'static [Arg] = &[
        Arg { name: "cpu", kind: Kind::Int, optional: true },
        Arg { name: "filename", kind: Kind::Str, optional: false },
        Arg { name: "size", kind: Kind::Int, optional: false },
        Arg { name: "val", kind: Kind::Int, optional: false },
        Arg { name: "cpu-index", kind: Kind::Int, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `pmemsave`: Writes memory to a file, by guest-physical address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pmemsave {
    /// The file; made, or cut to nothing.
    pub filename: String,
    /// How many bytes.
    pub size: i64,
    /// The physical address.
    pub val: i64,
}

impl Command for Pmemsave {
    const NAME: &'static str = "pmemsave";
    const ARGS: &'static [Arg] = &[
        Arg { name: "filename", kind: Kind::Str, optional: false },
        Arg { name: "size", kind: Kind::Int, optional: false },
        Arg { name: "val", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `inject-nmi`: Sends every vCPU a non-maskable interrupt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InjectNmi {
}

impl Command for InjectNmi {
    const NAME: &'static str = "inject-nmi";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `ringbuf-write`: Puts bytes into a ring buffer; when it is full the oldest give way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingbufWrite {
    /// The id of a `ringbuf` character device.
    pub device: String,
    /// How `data` is written; `utf8` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DataFormat>,
    /// The bytes.
    pub data: String,
}

impl Command for RingbufWrite {
    const NAME: &'static str = "ringbuf-write";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "format", kind: Kind::Str, optional: true },
        Arg { name: "data", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `ringbuf-read`: Takes the oldest bytes out of a ring buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingbufRead {
    /// The id of a `ringbuf` character device.
    pub device: String,
    /// How many bytes at most.
    pub size: i64,
    /// How they are to be written; `utf8` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DataFormat>,
}

impl Command for RingbufRead {
    const NAME: &'static str = "ringbuf-read";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "size", kind: Kind::Int, optional: false },
        Arg { name: "format", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = String;
}

/// `xen-save-devices-state`: Writes the state of everything but RAM to a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XenSaveDevicesState {
    /// The file; made, or cut to nothing.
    pub filename: String,
}

impl Command for XenSaveDevicesState {
    const NAME: &'static str = "xen-save-devices-state";
    const ARGS: &'static [Arg] = &[
        Arg { name: "filename", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `xen-set-global-dirty-log`: Without effect but under Xen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XenSetGlobalDirtyLog {
    /// Whether pages that are written are to be remembered.
    pub enable: bool,
}

impl Command for XenSetGlobalDirtyLog {
    const NAME: &'static str = "xen-set-global-dirty-log";
    const ARGS: &'static [Arg] = &[
        Arg { name: "enable", kind: Kind::Bool, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `dump-guest-memory`: Writes memory and registers as an ELF core file. A running guest stands still meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DumpGuestMemory {
    /// How many bytes; goes with `begin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<i64>,
    /// Without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// The physical address of the first byte; goes with `length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin: Option<i64>,
    /// Where to: `file:PATH`, or `fd:NAME` after getfd.
    pub protocol: String,
    /// Whether the program headers follow the guest's page tables.
    pub paging: bool,
}

impl Command for DumpGuestMemory {
    const NAME: &'static str = "dump-guest-memory";
    const ARGS: &'static [Arg] = &[
        Arg { name: "length", kind: Kind::Int, optional: true },
        Arg { name: "end", kind: Kind::Int, optional: true },
        Arg { name: "begin", kind: Kind::Int, optional: true },
        Arg { name: "protocol", kind: Kind::Str, optional: false },
        Arg { name: "paging", kind: Kind::Bool, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `getfd`: Keeps the descriptor that came with it, for this monitor, under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Getfd {
    /// The name; not starting with a digit. What had it before is closed.
    pub fdname: String,
}

impl Command for Getfd {
    const NAME: &'static str = "getfd";
    const ARGS: &'static [Arg] = &[
        Arg { name: "fdname", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `closefd`: Closes a descriptor of this monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closefd {
    /// The name that getfd gave to it.
    pub fdname: String,
}

impl Command for Closefd {
    const NAME: &'static str = "closefd";
    const ARGS: &'static [Arg] = &[
        Arg { name: "fdname", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `add-fd`: Puts the descriptor that came with it into a set, which files can be opened from as `/dev/fdset/ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddFd {
    /// The set, made if it is new; if absent, a new one.
    #[serde(rename = "fdset-id", skip_serializing_if = "Option::is_none")]
    pub fdset_id: Option<i64>,
    /// The client's note about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
}

impl Command for AddFd {
    const NAME: &'static str = "add-fd";
    const ARGS: &'static [Arg] = &[
        Arg { name: "fdset-id", kind: Kind::Int, optional: true },
        Arg { name: "opaque", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = AddfdInfo;
}

/// `remove-fd`: Removes a descriptor, or all, from a set; they are closed as soon as nothing opened from them is in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoveFd {
    /// The descriptor; if absent, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<i64>,
    /// The set.
    #[serde(rename = "fdset-id")]
    pub fdset_id: i64,
}

impl Command for RemoveFd {
    const NAME: &'static str = "remove-fd";
    const ARGS: &'static [Arg] = &[
        Arg { name: "fd", kind: Kind::Int, optional: true },
        Arg { name: "fdset-id", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `query-fdsets`: Lists the sets of descriptors, the highest number first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryFdsets {
}

impl Command for QueryFdsets {
    const NAME: &'static str = "query-fdsets";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<FdsetInfo>;
}

/// `add_client`: Hands a connected socket, passed before by getfd, to a server of this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddClient {
    /// `vnc`, `spice`, or the id of a character device.
    pub protocol: String,
    /// Whether the client need not prove who it is; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipauth: Option<bool>,
    /// Whether to speak TLS; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// The name that getfd gave to the socket.
    pub fdname: String,
}

impl Command for AddClient {
    const NAME: &'static str = "add_client";
    const ARGS: &'static [Arg] = &[
        Arg { name: "protocol", kind: Kind::Str, optional: false },
        Arg { name: "skipauth", kind: Kind::Bool, optional: true },
        Arg { name: "tls", kind: Kind::Bool, optional: true },
        Arg { name: "fdname", kind: Kind::Str, optional: false },
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

/// `human-monitor-command`: Runs a command of the human monitor and gives what it prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HumanMonitorCommand {
    /// The command with its arguments.
    #[serde(rename = "command-line")]
    pub command_line: String,
    /// The vCPU that it is about; 0 if absent.
    #[serde(rename = "cpu-index", skip_serializing_if = "Option::is_none")]
    pub cpu_index: Option<i64>,
}

impl Command for HumanMonitorCommand {
    const NAME: &'static str = "human-monitor-command";
    const ARGS: &'static [Arg] = &[
        Arg { name: "command-line", kind: Kind::Str, optional: false },
        Arg { name: "cpu-index", kind: Kind::Int, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = String;
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

/// `query-chardev`: Lists the character devices, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryChardev {
}

impl Command for QueryChardev {
    const NAME: &'static str = "query-chardev";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<ChardevInfo>;
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

/// `query-mice`: Lists the pointing devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMice {
}

impl Command for QueryMice {
    const NAME: &'static str = "query-mice";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<MouseInfo>;
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

/// `query-command-line-options`: Lists the options that have parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryCommandLineOptions {
    /// Lists only this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
}

impl Command for QueryCommandLineOptions {
    const NAME: &'static str = "query-command-line-options";
    const ARGS: &'static [Arg] = &[
        Arg { name: "option", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = Vec<CommandLineOptionInfo>;
}

/// `qom-list`: Lists the properties of an object, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QomList {
    /// The object: an absolute path, or the end of one that is unique.
    pub path: String,
}

impl Command for QomList {
    const NAME: &'static str = "qom-list";
    const ARGS: &'static [Arg] = &[
        Arg { name: "path", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = Vec<ObjectPropertyInfo>;
}

/// `qom-set`: Writes a property.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QomSet {
    /// The object, as for qom-list.
    pub path: String,
    /// The property's name.
    pub property: String,
    /// What to write, of the property's type.
    pub value: Value,
}

impl Command for QomSet {
    const NAME: &'static str = "qom-set";
    const ARGS: &'static [Arg] = &[
        Arg { name: "path", kind: Kind::Str, optional: false },
        Arg { name: "property", kind: Kind::Str, optional: false },
        Arg { name: "value", kind: Kind::Any, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `qom-get`: Reads a property.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QomGet {
    /// The object, as for qom-list.
    pub path: String,
    /// The property's name.
    pub property: String,
}

impl Command for QomGet {
    const NAME: &'static str = "qom-get";
    const ARGS: &'static [Arg] = &[
        Arg { name: "path", kind: Kind::Str, optional: false },
        Arg { name: "property", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = Value;
}

/// `qom-list-types`: Lists the types of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QomListTypes {
    /// Whether to list also those that no object is of directly; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#abstract: Option<bool>,
    /// Lists only those that are of this type too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub implements: Option<String>,
}

impl Command for QomListTypes {
    const NAME: &'static str = "qom-list-types";
    const ARGS: &'static [Arg] = &[
        Arg { name: "abstract", kind: Kind::Bool, optional: true },
        Arg { name: "implements", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = Vec<ObjectTypeInfo>;
}

/// `device-list-properties`: Lists the properties of a type of devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceListProperties {
    /// The type, as `driver` of device_add names it.
    pub typename: String,
}

impl Command for DeviceListProperties {
    const NAME: &'static str = "device-list-properties";
    const ARGS: &'static [Arg] = &[
        Arg { name: "typename", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = Vec<DevicePropertyInfo>;
}

/// `query-machines`: Lists the kinds of machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMachines {
}

impl Command for QueryMachines {
    const NAME: &'static str = "query-machines";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<MachineInfo>;
}

/// `query-cpu-definitions`: Lists the CPU models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryCpuDefinitions {
}

impl Command for QueryCpuDefinitions {
    const NAME: &'static str = "query-cpu-definitions";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<CpuDefinitionInfo>;
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

/// `query-tpm`: Lists the TPMs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryTpm {
}

impl Command for QueryTpm {
    const NAME: &'static str = "query-tpm";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<TPMInfo>;
}

/// `query-tpm-models`: Lists the models that can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryTpmModels {
}

impl Command for QueryTpmModels {
    const NAME: &'static str = "query-tpm-models";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<TpmModel>;
}

/// `query-tpm-types`: Lists what can be used behind a TPM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryTpmTypes {
}

impl Command for QueryTpmTypes {
    const NAME: &'static str = "query-tpm-types";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<TpmType>;
}

/// `chardev-add`: Makes a character device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevAdd {
    /// What it is connected to.
    pub backend: ChardevBackend,
    /// Its id, which must be new.
    pub id: String,
}

impl Command for ChardevAdd {
    const NAME: &'static str = "chardev-add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "backend", kind: Kind::Any, optional: false },
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ChardevReturn;
}

/// `chardev-remove`: Removes a character device that nobody uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevRemove {
    /// The device.
    pub id: String,
}

impl Command for ChardevRemove {
    const NAME: &'static str = "chardev-remove";
    const ARGS: &'static [Arg] = &[
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `chardev-change`: Connects a character device that is in use to something else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevChange {
    /// The new connection.
    pub backend: ChardevBackend,
    /// The device.
    pub id: String,
}

impl Command for ChardevChange {
    const NAME: &'static str = "chardev-change";
    const ARGS: &'static [Arg] = &[
        Arg { name: "backend", kind: Kind::Any, optional: false },
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ChardevReturn;
}

/// `chardev-send-break`: Gives the user of a character device a break, as if it had come over the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChardevSendBreak {
    /// The device.
    pub id: String,
}

impl Command for ChardevSendBreak {
    const NAME: &'static str = "chardev-send-break";
    const ARGS: &'static [Arg] = &[
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
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

/// `qom-list-properties`: Lists the properties that objects of a type have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QomListProperties {
    /// The type.
    pub typename: String,
}

impl Command for QomListProperties {
    const NAME: &'static str = "qom-list-properties";
    const ARGS: &'static [Arg] = &[
        Arg { name: "typename", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = Vec<ObjectPropertyInfo>;
}

/// `object-add`: Makes an object below `/objects`; the other arguments are its properties.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectAdd {
    /// The object's type.
    #[serde(rename = "qom-type")]
    pub qom_type: String,
    /// Its name, which must be new.
    pub id: String,
    /// The arguments that have no field of their own.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for ObjectAdd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        Ok(Self {
            qom_type: object.take("qom-type")?,
            id: object.take("id")?,
            rest: object.rest(),
        })
    }
}

impl Command for ObjectAdd {
    const NAME: &'static str = "object-add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "qom-type", kind: Kind::Str, optional: false },
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = true;
    type Ret = ();
}

/// `object-del`: Removes an object that nobody uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectDel {
    /// Its name below `/objects`.
    pub id: String,
}

impl Command for ObjectDel {
    const NAME: &'static str = "object-del";
    const ARGS: &'static [Arg] = &[
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// Carries out every command of the schema that is not pending.
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

/// Commands that have types and no handler: clients are told they do not exist.
pub static PENDING: &[&str] = &[
    "device_add",
    "device_del",
    "send-key",
    "cpu",
    "cpu-add",
    "memsave",
    "pmemsave",
    "inject-nmi",
    "ringbuf-write",
    "ringbuf-read",
    "xen-save-devices-state",
    "xen-set-global-dirty-log",
    "dump-guest-memory",
    "getfd",
    "closefd",
    "add-fd",
    "remove-fd",
    "query-fdsets",
    "add_client",
    "human-monitor-command",
    "query-chardev",
    "query-mice",
    "query-command-line-options",
    "qom-list",
    "qom-set",
    "qom-get",
    "qom-list-types",
    "device-list-properties",
    "query-machines",
    "query-cpu-definitions",
    "query-tpm",
    "query-tpm-models",
    "query-tpm-types",
    "chardev-add",
    "chardev-remove",
    "chardev-change",
    "chardev-send-break",
    "qom-list-properties",
    "object-add",
    "object-del",
];

/// The commands that clients expect, implemented or not.
pub static EXPECTED: &[&str] = &[
    "quit",
    "eject",
    "change",
    "screendump",
    "stop",
    "cont",
    "system_wakeup",
    "system_reset",
    "system_powerdown",
    "device_del",
    "send-key",
    "cpu",
    "cpu-add",
    "memsave",
    "pmemsave",
    "inject-nmi",
    "ringbuf-write",
    "ringbuf-read",
    "xen-save-devices-state",
    "xen-set-global-dirty-log",
    "migrate",
    "migrate_cancel",
    "migrate-set-cache-size",
    "query-migrate-cache-size",
    "migrate_set_speed",
    "migrate_set_downtime",
    "dump-guest-memory",
    "netdev_add",
    "netdev_del",
    "block_resize",
    "block-stream",
    "block-commit",
    "drive-backup",
    "block-job-set-speed",
    "block-job-cancel",
    "block-job-pause",
    "block-job-resume",
    "block-job-complete",
    "transaction",
    "blockdev-snapshot-sync",
    "blockdev-snapshot-internal-sync",
    "blockdev-snapshot-delete-internal-sync",
    "drive-mirror",
    "balloon",
    "set_link",
    "getfd",
    "closefd",
    "add-fd",
    "remove-fd",
    "query-fdsets",
    "block_passwd",
    "block_set_io_throttle",
    "set_password",
    "expire_password",
    "add_client",
    "human-monitor-command",
    "query-version",
    "query-commands",
    "query-events",
    "query-chardev",
    "query-block",
    "query-blockstats",
    "query-cpus",
    "query-pci",
    "query-kvm",
    "query-status",
    "query-mice",
    "query-vnc",
    "query-spice",
    "query-name",
    "query-uuid",
    "query-command-line-options",
    "query-migrate",
    "migrate-set-capabilities",
    "query-migrate-capabilities",
    "query-balloon",
    "query-block-jobs",
    "qom-list",
    "qom-set",
    "qom-get",
    "nbd-server-start",
    "nbd-server-add",
    "nbd-server-stop",
    "change-vnc-password",
    "qom-list-types",
    "device-list-properties",
    "query-machines",
    "query-cpu-definitions",
    "query-target",
    "query-tpm",
    "query-tpm-models",
    "query-tpm-types",
    "chardev-add",
    "chardev-remove",
    "query-rx-filter",
    "blockdev-add",
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
    /// A device is gone, and its id free again.
    #[serde(rename = "DEVICE_DELETED")]
    DeviceDeleted {
        /// Its id, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Where it was in the object tree.
        path: String,
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
            Self::DeviceDeleted { .. } => "DEVICE_DELETED",
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
    "DEVICE_DELETED",
    "SUSPEND",
    "SUSPEND_DISK",
    "WAKEUP",
    "GUEST_PANICKED",
];
