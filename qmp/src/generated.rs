//! Types, commands and events of QMP. Made by `cargo run -p qmp --bin qmp-gen`
//! from the schema: change that, not this.
#![allow(unused_imports, clippy::large_enum_variant)]

use crate::check::{Arg, Kind};
use crate::decode;
use crate::introspect::{Entity, What};
use crate::{Command, CommandSpec, Handle, QmpError, call};
use serde::{Deserialize, Serialize};
use serde::{Deserializer, de::Error as _};
use serde_json::{Map, Value};
use std::time::Duration;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockJobType {
    /// Writes layers down into one below.
    #[serde(rename = "commit")]
    Commit,
    /// Copies from backing files up.
    #[serde(rename = "stream")]
    Stream,
    /// Keeps a copy in step.
    #[serde(rename = "mirror")]
    Mirror,
    /// Copies the drive as it was at the start.
    #[serde(rename = "backup")]
    Backup,
}

impl BlockJobType {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Commit,
        Self::Stream,
        Self::Mirror,
        Self::Backup,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Stream => "stream",
            Self::Mirror => "mirror",
            Self::Backup => "backup",
        }
    }
}

/// How a disk's requests have fared lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockDeviceIoStatus {
    /// No failure since it was last reset.
    #[serde(rename = "ok")]
    Ok,
    /// A request failed.
    #[serde(rename = "failed")]
    Failed,
    /// A write found no space.
    #[serde(rename = "nospace")]
    Nospace,
}

impl BlockDeviceIoStatus {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Failed,
        Self::Nospace,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Nospace => "nospace",
        }
    }
}

/// What to do when a request fails; for a job, `stop` means to pause it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockdevOnError {
    /// Tell the guest, or end the job with the error.
    #[serde(rename = "report")]
    Report,
    /// Send the event and go on.
    #[serde(rename = "ignore")]
    Ignore,
    /// `stop` when space ran out, `report` otherwise.
    #[serde(rename = "enospc")]
    Enospc,
    /// Stop the vCPUs, or pause the job, and try again later.
    #[serde(rename = "stop")]
    Stop,
}

impl BlockdevOnError {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Report,
        Self::Ignore,
        Self::Enospc,
        Self::Stop,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Ignore => "ignore",
            Self::Enospc => "enospc",
            Self::Stop => "stop",
        }
    }
}

/// Where a new image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NewImageMode {
    /// It is there already.
    #[serde(rename = "existing")]
    Existing,
    /// It is made, and names its backing file by the full path.
    #[serde(rename = "absolute-paths")]
    AbsolutePaths,
}

impl NewImageMode {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Existing,
        Self::AbsolutePaths,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Existing => "existing",
            Self::AbsolutePaths => "absolute-paths",
        }
    }
}

/// What a copy of a drive is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MirrorSyncMode {
    /// What the topmost image holds.
    #[serde(rename = "top")]
    Top,
    /// Everything.
    #[serde(rename = "full")]
    Full,
    /// What is written from now on, or for a backup what it replaces.
    #[serde(rename = "none")]
    None,
}

impl MirrorSyncMode {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Top,
        Self::Full,
        Self::None,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Full => "full",
            Self::None => "none",
        }
    }
}

/// Which way a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IoOperationType {
    /// From the medium.
    #[serde(rename = "read")]
    Read,
    /// To the medium.
    #[serde(rename = "write")]
    Write,
}

impl IoOperationType {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Read,
        Self::Write,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What was done about a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockErrorAction {
    /// The guest was told, or the job ended.
    #[serde(rename = "report")]
    Report,
    /// Nothing.
    #[serde(rename = "ignore")]
    Ignore,
    /// The vCPUs were stopped, or the job was paused.
    #[serde(rename = "stop")]
    Stop,
}

impl BlockErrorAction {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Report,
        Self::Ignore,
        Self::Stop,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Ignore => "ignore",
            Self::Stop => "stop",
        }
    }
}

/// What becomes of a guest's discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockdevDiscardOptions {
    /// Nothing.
    #[serde(rename = "ignore")]
    Ignore,
    /// The space is given back.
    #[serde(rename = "unmap")]
    Unmap,
}

impl BlockdevDiscardOptions {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Ignore,
        Self::Unmap,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Unmap => "unmap",
        }
    }
}

/// Who carries requests out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockdevAioOptions {
    /// Threads that wait for each.
    #[serde(rename = "threads")]
    Threads,
    /// The kernel, asynchronously; needs `cache.direct`.
    #[serde(rename = "native")]
    Native,
}

impl BlockdevAioOptions {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Threads,
        Self::Native,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Native => "native",
        }
    }
}

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

/// Who decides where the pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SpiceQueryMouseMode {
    /// The client.
    #[serde(rename = "client")]
    Client,
    /// The server.
    #[serde(rename = "server")]
    Server,
    /// Nobody can tell.
    #[serde(rename = "unknown")]
    Unknown,
}

impl SpiceQueryMouseMode {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Client,
        Self::Server,
        Self::Unknown,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Unknown => "unknown",
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

/// What kind of thing is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SchemaMetaType {
    /// A type of the protocol itself.
    #[serde(rename = "builtin")]
    Builtin,
    /// Words to choose from.
    #[serde(rename = "enum")]
    Enum,
    /// A list.
    #[serde(rename = "array")]
    Array,
    /// Members by name.
    #[serde(rename = "object")]
    Object,
    /// One of several types, told apart by how it is written.
    #[serde(rename = "alternate")]
    Alternate,
    /// A command.
    #[serde(rename = "command")]
    Command,
    /// An event.
    #[serde(rename = "event")]
    Event,
}

impl SchemaMetaType {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Builtin,
        Self::Enum,
        Self::Array,
        Self::Object,
        Self::Alternate,
        Self::Command,
        Self::Event,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Enum => "enum",
            Self::Array => "array",
            Self::Object => "object",
            Self::Alternate => "alternate",
            Self::Command => "command",
            Self::Event => "event",
        }
    }
}

/// A type of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JSONType {
    /// A string.
    #[serde(rename = "string")]
    String,
    /// A number.
    #[serde(rename = "number")]
    Number,
    /// A number without a fraction.
    #[serde(rename = "int")]
    Int,
    /// True or false.
    #[serde(rename = "boolean")]
    Boolean,
    /// Null.
    #[serde(rename = "null")]
    Null,
    /// An object.
    #[serde(rename = "object")]
    Object,
    /// A list.
    #[serde(rename = "array")]
    Array,
    /// Any of them.
    #[serde(rename = "value")]
    Value,
}

impl JSONType {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::String,
        Self::Number,
        Self::Int,
        Self::Boolean,
        Self::Null,
        Self::Object,
        Self::Array,
        Self::Value,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Int => "int",
            Self::Boolean => "boolean",
            Self::Null => "null",
            Self::Object => "object",
            Self::Array => "array",
            Self::Value => "value",
        }
    }
}

/// An architecture of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SysEmuTarget {
    /// AMD64, Intel 64.
    #[serde(rename = "x86_64")]
    X8664,
}

impl SysEmuTarget {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::X8664,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X8664 => "x86_64",
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

/// How the memory of a guest can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DumpGuestMemoryFormat {
    /// As an ELF core file.
    #[serde(rename = "elf")]
    Elf,
    /// As kdump does, with zlib; not available.
    #[serde(rename = "kdump-zlib")]
    KdumpZlib,
    /// As kdump does, with lzo; not available.
    #[serde(rename = "kdump-lzo")]
    KdumpLzo,
    /// As kdump does, with snappy; not available.
    #[serde(rename = "kdump-snappy")]
    KdumpSnappy,
}

impl DumpGuestMemoryFormat {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Elf,
        Self::KdumpZlib,
        Self::KdumpLzo,
        Self::KdumpSnappy,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::KdumpZlib => "kdump-zlib",
            Self::KdumpLzo => "kdump-lzo",
            Self::KdumpSnappy => "kdump-snappy",
        }
    }
}

/// How far the latest dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DumpStatus {
    /// There was none.
    #[serde(rename = "none")]
    None,
    /// It is being written.
    #[serde(rename = "active")]
    Active,
    /// It is written.
    #[serde(rename = "completed")]
    Completed,
    /// It could not be written.
    #[serde(rename = "failed")]
    Failed,
}

impl DumpStatus {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::Active,
        Self::Completed,
        Self::Failed,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// What a migration may make use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MigrationCapability {
    /// Send differences to pages sent before.
    #[serde(rename = "xbzrle")]
    Xbzrle,
    /// Lock all memory at once for RDMA.
    #[serde(rename = "x-rdma-pin-all")]
    XRdmaPinAll,
    /// Slow the guest down until it can be caught up with.
    #[serde(rename = "auto-converge")]
    AutoConverge,
    /// Send blocks of zeros of disks by name only.
    #[serde(rename = "zero-blocks")]
    ZeroBlocks,
    /// Let the guest go before its memory, by migrate-start-postcopy. Of later versions.
    #[serde(rename = "postcopy-ram")]
    PostcopyRam,
    /// Pack pages with zstd. Beyond the schema of 2014.
    #[serde(rename = "compress")]
    Compress,
    /// Send memory by several connections. Beyond the schema of 2014.
    #[serde(rename = "multifd")]
    Multifd,
    /// Speak TLS over tcp and unix, by `tls-creds`. Beyond the schema of 2014.
    #[serde(rename = "tls")]
    Tls,
}

impl MigrationCapability {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Xbzrle,
        Self::XRdmaPinAll,
        Self::AutoConverge,
        Self::ZeroBlocks,
        Self::PostcopyRam,
        Self::Compress,
        Self::Multifd,
        Self::Tls,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xbzrle => "xbzrle",
            Self::XRdmaPinAll => "x-rdma-pin-all",
            Self::AutoConverge => "auto-converge",
            Self::ZeroBlocks => "zero-blocks",
            Self::PostcopyRam => "postcopy-ram",
            Self::Compress => "compress",
            Self::Multifd => "multifd",
            Self::Tls => "tls",
        }
    }
}

/// Which packets of a kind a card receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RxState {
    /// Those its tables name.
    #[serde(rename = "normal")]
    Normal,
    /// None.
    #[serde(rename = "none")]
    None,
    /// All.
    #[serde(rename = "all")]
    All,
}

impl RxState {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Normal,
        Self::None,
        Self::All,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::None => "none",
            Self::All => "all",
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
    /// The machine goes off.
    #[serde(rename = "poweroff")]
    Poweroff,
    /// Nothing: the guest goes on.
    #[serde(rename = "run")]
    Run,
}

impl GuestPanicAction {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Pause,
        Self::Poweroff,
        Self::Run,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Poweroff => "poweroff",
            Self::Run => "run",
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
    /// Every vCPU gets an NMI.
    #[serde(rename = "inject-nmi")]
    InjectNmi,
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
        Self::InjectNmi,
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
            Self::InjectNmi => "inject-nmi",
        }
    }
}

/// What is done when the machine is to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RebootAction {
    /// It is reset.
    #[serde(rename = "reset")]
    Reset,
    /// It goes off.
    #[serde(rename = "shutdown")]
    Shutdown,
}

impl RebootAction {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Reset,
        Self::Shutdown,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What is done when the machine goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ShutdownAction {
    /// The process ends.
    #[serde(rename = "poweroff")]
    Poweroff,
    /// The vCPUs are stopped.
    #[serde(rename = "pause")]
    Pause,
}

impl ShutdownAction {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Poweroff,
        Self::Pause,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poweroff => "poweroff",
            Self::Pause => "pause",
        }
    }
}

/// What is done when the guest reports that it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PanicAction {
    /// The vCPUs are stopped.
    #[serde(rename = "pause")]
    Pause,
    /// The machine goes off.
    #[serde(rename = "shutdown")]
    Shutdown,
    /// The process ends with status 1.
    #[serde(rename = "exit-failure")]
    ExitFailure,
    /// Nothing but the event.
    #[serde(rename = "none")]
    None,
}

impl PanicAction {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Pause,
        Self::Shutdown,
        Self::ExitFailure,
        Self::None,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
            Self::ExitFailure => "exit-failure",
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

/// The balloon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalloonInfo {
    /// Bytes of memory the guest has left.
    pub actual: i64,
}

/// A job that runs on a drive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockJobInfo {
    /// How its requests fare.
    #[serde(rename = "io-status")]
    pub io_status: BlockDeviceIoStatus,
    /// The drive.
    pub device: String,
    /// Whether it does something at this moment.
    pub busy: bool,
    /// How far it has to go.
    pub len: i64,
    /// How far it got.
    pub offset: i64,
    /// Whether it is, or is about to be, paused.
    pub paused: bool,
    /// Bytes per second at most; 0 for no limit.
    pub speed: i64,
    /// What it does.
    pub r#type: String,
}

/// A snapshot inside an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The rest of that, in nanoseconds.
    #[serde(rename = "vm-clock-nsec")]
    pub vm_clock_nsec: i64,
    /// Its name.
    pub name: String,
    /// When it was taken, in seconds since 1970 UTC.
    #[serde(rename = "date-sec")]
    pub date_sec: i64,
    /// The rest of that, in nanoseconds.
    #[serde(rename = "date-nsec")]
    pub date_nsec: i64,
    /// The guest's virtual clock then, in seconds.
    #[serde(rename = "vm-clock-sec")]
    pub vm_clock_sec: i64,
    /// Its id, unique in the image.
    pub id: String,
    /// Bytes of saved machine in it; 0 for one of the disk alone.
    #[serde(rename = "vm-state-size")]
    pub vm_state_size: i64,
}

/// What only qcow2 images have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageInfoSpecificQCow2 {
    /// `0.10` for version 2, `1.1` for version 3.
    pub compat: String,
    /// The header's flag; version 3 only.
    #[serde(rename = "lazy-refcounts", skip_serializing_if = "Option::is_none")]
    pub lazy_refcounts: Option<bool>,
}

/// What only VMDK images have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageInfoSpecificVmdk {
    /// Its content id.
    pub cid: i64,
    /// Its parent's content id.
    #[serde(rename = "parent-cid")]
    pub parent_cid: i64,
    /// The kind its descriptor names.
    #[serde(rename = "create-type")]
    pub create_type: String,
    /// The files it consists of.
    pub extents: Vec<ImageInfo>,
}

/// An image file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The backing file itself.
    #[serde(rename = "backing-image", skip_serializing_if = "Option::is_none")]
    pub backing_image: Option<Box<ImageInfo>>,
    /// Present and true if it is compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressed: Option<bool>,
    /// The recorded format of the backing file.
    #[serde(rename = "backing-filename-format", skip_serializing_if = "Option::is_none")]
    pub backing_filename_format: Option<String>,
    /// Its internal snapshots, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Vec<SnapshotInfo>>,
    /// Bytes the guest sees.
    #[serde(rename = "virtual-size")]
    pub virtual_size: i64,
    /// Its name.
    pub filename: String,
    /// Bytes of a cluster.
    #[serde(rename = "cluster-size", skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<i64>,
    /// Its format.
    pub format: String,
    /// Bytes it takes on the host.
    #[serde(rename = "actual-size", skip_serializing_if = "Option::is_none")]
    pub actual_size: Option<i64>,
    /// What depends on its format.
    #[serde(rename = "format-specific", skip_serializing_if = "Option::is_none")]
    pub format_specific: Option<ImageInfoSpecific>,
    /// The backing file's resolved name, if that differs.
    #[serde(rename = "full-backing-filename", skip_serializing_if = "Option::is_none")]
    pub full_backing_filename: Option<String>,
    /// Present and true if it is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Its backing file, as recorded.
    #[serde(rename = "backing-filename", skip_serializing_if = "Option::is_none")]
    pub backing_filename: Option<String>,
    /// Whether it was not closed cleanly.
    #[serde(rename = "dirty-flag", skip_serializing_if = "Option::is_none")]
    pub dirty_flag: Option<bool>,
}

/// What a check of an image found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageCheck {
    /// Where the used part ends, in bytes.
    #[serde(rename = "image-end-offset", skip_serializing_if = "Option::is_none")]
    pub image_end_offset: Option<i64>,
    /// Clusters that are compressed.
    #[serde(rename = "compressed-clusters", skip_serializing_if = "Option::is_none")]
    pub compressed_clusters: Option<i64>,
    /// Clusters in all.
    #[serde(rename = "total-clusters", skip_serializing_if = "Option::is_none")]
    pub total_clusters: Option<i64>,
    /// Corruptions found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corruptions: Option<i64>,
    /// Corruptions repaired.
    #[serde(rename = "corruptions-fixed", skip_serializing_if = "Option::is_none")]
    pub corruptions_fixed: Option<i64>,
    /// How often the check itself failed.
    #[serde(rename = "check-errors")]
    pub check_errors: i64,
    /// Leaked clusters found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaks: Option<i64>,
    /// Leaks repaired.
    #[serde(rename = "leaks-fixed", skip_serializing_if = "Option::is_none")]
    pub leaks_fixed: Option<i64>,
    /// Clusters that hold data.
    #[serde(rename = "allocated-clusters", skip_serializing_if = "Option::is_none")]
    pub allocated_clusters: Option<i64>,
    /// The image.
    pub filename: String,
    /// Its format.
    pub format: String,
    /// Clusters out of order.
    #[serde(rename = "fragmented-clusters", skip_serializing_if = "Option::is_none")]
    pub fragmented_clusters: Option<i64>,
}

/// A stretch of an image and where its data is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockDeviceMapEntry {
    /// Its first byte.
    pub start: i64,
    /// Its length in bytes.
    pub length: i64,
    /// The layer that holds it; 0 is the image itself.
    pub depth: i64,
    /// It reads as zeros.
    pub zero: bool,
    /// It is read from a file.
    pub data: bool,
    /// Where in the file, if it is there as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

/// A dirty bitmap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockDirtyInfo {
    /// Bytes per bit.
    pub granularity: i64,
    /// How much is dirty, in sectors of 512 bytes.
    pub count: i64,
}

/// The medium in a drive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockDeviceInfo {
    /// Reads per second.
    pub iops_rd: i64,
    /// The image itself.
    pub image: ImageInfo,
    /// Writes per second.
    pub iops_wr: i64,
    /// It was opened for reading only.
    pub ro: bool,
    /// Bytes that count as one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_size: Option<i64>,
    /// Layers below the image.
    pub backing_file_depth: i64,
    /// Burst of bytes written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps_wr_max: Option<i64>,
    /// The format driver.
    pub drv: String,
    /// Burst of reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_rd_max: Option<i64>,
    /// Burst of bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps_max: Option<i64>,
    /// Requests per second in all.
    pub iops: i64,
    /// Bytes written per second.
    pub bps_wr: i64,
    /// Burst of bytes read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps_rd_max: Option<i64>,
    /// The image's backing file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// The image is encrypted.
    pub encrypted: bool,
    /// Bytes per second in all.
    pub bps: i64,
    /// Bytes read per second.
    pub bps_rd: i64,
    /// Burst of requests in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_max: Option<i64>,
    /// The image's file name.
    pub file: String,
    /// It, or its backing file, lacks its key.
    pub encryption_key_missing: bool,
    /// Burst of writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_wr_max: Option<i64>,
}

/// A drive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// How its requests fare, if it stops the machine on errors.
    #[serde(rename = "io-status", skip_serializing_if = "Option::is_none")]
    pub io_status: Option<BlockDeviceIoStatus>,
    /// Its name.
    pub device: String,
    /// Whether the guest locked its tray.
    pub locked: bool,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Its medium, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inserted: Option<BlockDeviceInfo>,
    /// Whether the tray is open; removable drives only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tray_open: Option<bool>,
    /// Its dirty bitmaps, while a job needs them.
    #[serde(rename = "dirty-bitmaps", skip_serializing_if = "Option::is_none")]
    pub dirty_bitmaps: Option<Vec<BlockDirtyInfo>>,
    /// Always `unknown`.
    pub r#type: String,
}

/// What has gone through a drive or a layer of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockDeviceStats {
    /// Nanoseconds spent flushing.
    pub flush_total_time_ns: i64,
    /// Where the last sector ever written begins, in bytes.
    pub wr_highest_offset: i64,
    /// Nanoseconds spent writing.
    pub wr_total_time_ns: i64,
    /// Bytes written.
    pub wr_bytes: i64,
    /// Nanoseconds spent reading.
    pub rd_total_time_ns: i64,
    /// Flushes done.
    pub flush_operations: i64,
    /// Writes done.
    pub wr_operations: i64,
    /// Bytes read.
    pub rd_bytes: i64,
    /// Reads done.
    pub rd_operations: i64,
}

/// The counters of a drive, and of the layer under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockStats {
    /// The drive's name; layers have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The layer that holds the bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<BlockStats>>,
    /// The counters.
    pub stats: BlockDeviceStats,
}

/// A new image on top of a drive's present one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevSnapshot {
    /// The drive.
    pub device: String,
    /// The new image.
    #[serde(rename = "snapshot-file")]
    pub snapshot_file: String,
    /// Its format; `qcow2` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where it comes from; `absolute-paths` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<NewImageMode>,
}

/// A new snapshot inside a drive's image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevSnapshotInternal {
    /// The drive.
    pub device: String,
    /// The snapshot's name.
    pub name: String,
}

/// A copy of a drive as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriveBackup {
    /// The drive.
    pub device: String,
    /// The file to copy to.
    pub target: String,
    /// Its format; the drive's when absent, or found out for an existing file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// What the copy is to hold.
    pub sync: MirrorSyncMode,
    /// Where the target comes from; `absolute-paths` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<NewImageMode>,
    /// Bytes per second at most; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<i64>,
    /// When reading the drive fails; `report` when absent.
    #[serde(rename = "on-source-error", skip_serializing_if = "Option::is_none")]
    pub on_source_error: Option<BlockdevOnError>,
    /// When writing the copy fails; `report` when absent.
    #[serde(rename = "on-target-error", skip_serializing_if = "Option::is_none")]
    pub on_target_error: Option<BlockdevOnError>,
}

/// Nothing: the action always fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abort {
}

/// How caches are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevCacheOptions {
    /// The guest sees a write cache; yes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writeback: Option<bool>,
    /// The host's page cache is bypassed; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
    /// Flushes are ignored; no when absent.
    #[serde(rename = "no-flush", skip_serializing_if = "Option::is_none")]
    pub no_flush: Option<bool>,
}

/// The options of every block device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevOptionsBase {
    /// What drives it.
    pub driver: String,
    /// Its name; needed for the device itself, refused for the parts of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What becomes of discards; `ignore` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard: Option<BlockdevDiscardOptions>,
    /// How caches are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<BlockdevCacheOptions>,
    /// Who carries requests out; `threads` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aio: Option<BlockdevAioOptions>,
    /// When reading fails; `report` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerror: Option<BlockdevOnError>,
    /// When writing fails; `enospc` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub werror: Option<BlockdevOnError>,
    /// Whether nothing may be written; no when absent.
    #[serde(rename = "read-only", skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A file, or what can be named like one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevOptionsFile {
    /// Its path or URL.
    pub filename: String,
}

/// A directory shown as a FAT disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevOptionsVVFAT {
    /// The directory.
    pub dir: String,
    /// 12, 16 or 32.
    #[serde(rename = "fat-type", skip_serializing_if = "Option::is_none")]
    pub fat_type: Option<i64>,
    /// A floppy rather than a hard disk; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floppy: Option<bool>,
    /// Whether the guest may write; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rw: Option<bool>,
}

/// A format that needs nothing but its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevOptionsGenericFormat {
    /// Where its bytes are.
    pub file: Box<BlockdevRef>,
}

/// A format that may have a backing file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevOptionsGenericCOWFormat {
    /// Where its bytes are.
    pub file: Box<BlockdevRef>,
    /// The backing file; what the image says when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing: Option<Box<BlockdevRef>>,
}

/// A qcow2 image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevOptionsQcow2 {
    /// Where its bytes are.
    pub file: Box<BlockdevRef>,
    /// The backing file; what the image says when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing: Option<Box<BlockdevRef>>,
    /// Put off reference counts; what the image says when absent.
    #[serde(rename = "lazy-refcounts", skip_serializing_if = "Option::is_none")]
    pub lazy_refcounts: Option<bool>,
    /// The guest's discards reach the file.
    #[serde(rename = "pass-discard-request", skip_serializing_if = "Option::is_none")]
    pub pass_discard_request: Option<bool>,
    /// Space freed by snapshot operations is discarded in the file.
    #[serde(rename = "pass-discard-snapshot", skip_serializing_if = "Option::is_none")]
    pub pass_discard_snapshot: Option<bool>,
    /// Space freed otherwise is discarded in the file.
    #[serde(rename = "pass-discard-other", skip_serializing_if = "Option::is_none")]
    pub pass_discard_other: Option<bool>,
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

/// A VNC client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VncClientInfo {
    /// `ipv4`, `ipv6`, `unix` or `unknown`.
    pub family: String,
    /// Its port.
    pub service: String,
    /// The name in its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x509_dname: Option<String>,
    /// Its address.
    pub host: String,
    /// The user it logged in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl_username: Option<String>,
}

/// The VNC server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VncInfo {
    /// Whether there is one.
    pub enabled: bool,
    /// How clients prove who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// `ipv4`, `ipv6`, `unix` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Who is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<VncClientInfo>>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// The VNC server, as events tell of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VncServerInfo {
    /// How clients prove who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// `ipv4`, `ipv6`, `unix` or `unknown`.
    pub family: String,
    /// Its port.
    pub service: String,
    /// Its address.
    pub host: String,
}

/// One end of a SPICE connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpiceBasicInfo {
    /// Its port.
    pub port: String,
    /// `ipv4`, `ipv6`, `unix` or `unknown`.
    pub family: String,
    /// Its address.
    pub host: String,
}

/// The SPICE server, as events tell of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpiceServerInfo {
    /// How clients prove who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// Its port.
    pub port: String,
    /// `ipv4`, `ipv6`, `unix` or `unknown`.
    pub family: String,
    /// Its address.
    pub host: String,
}

/// A SPICE client's channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpiceChannel {
    /// Its port.
    pub port: String,
    /// `ipv4`, `ipv6`, `unix` or `unknown`.
    pub family: String,
    /// The kind of channel; 1 is the main one.
    #[serde(rename = "channel-type")]
    pub channel_type: i64,
    /// The session; its channels have the same.
    #[serde(rename = "connection-id")]
    pub connection_id: i64,
    /// Its address.
    pub host: String,
    /// Its number among those of the kind.
    #[serde(rename = "channel-id")]
    pub channel_id: i64,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// The SPICE server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpiceInfo {
    /// Whether the last migration took its clients along.
    pub migrated: bool,
    /// Whether there is one.
    pub enabled: bool,
    /// How clients prove who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Its version.
    #[serde(rename = "compiled-version", skip_serializing_if = "Option::is_none")]
    pub compiled_version: Option<String>,
    /// Its port for TLS.
    #[serde(rename = "tls-port", skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<i64>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Who is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<SpiceChannel>>,
    /// Who decides where the pointer is.
    #[serde(rename = "mouse-mode")]
    pub mouse_mode: SpiceQueryMouseMode,
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

/// A type of the protocol itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoBuiltin {
    /// How it is written.
    #[serde(rename = "json-type")]
    pub json_type: JSONType,
}

/// A word of an enum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoEnumMember {
    /// The word.
    pub name: String,
}

/// Words to choose from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoEnum {
    /// The words.
    pub members: Vec<SchemaInfoEnumMember>,
    /// The words once more, for older clients.
    pub values: Vec<String>,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoArray {
    /// What each element is.
    #[serde(rename = "element-type")]
    pub element_type: String,
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoObjectMember {
    /// Its name.
    pub name: String,
    /// Here, as null, if it may be absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What it is.
    pub r#type: String,
}

/// The members that an object has besides in one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoObjectVariant {
    /// The value of the tag.
    pub case: String,
    /// An object that has them.
    pub r#type: String,
}

/// Members by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoObject {
    /// The member whose value tells the case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variants: Option<Vec<SchemaInfoObjectVariant>>,
    /// Those that it has in every case.
    pub members: Vec<SchemaInfoObjectMember>,
}

/// One type of an alternate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoAlternateMember {
    /// The type.
    pub r#type: String,
}

/// One of several types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoAlternate {
    /// The types.
    pub members: Vec<SchemaInfoAlternateMember>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoCommand {
    /// What it returns.
    #[serde(rename = "ret-type")]
    pub ret_type: String,
    /// The object that its arguments form.
    #[serde(rename = "arg-type")]
    pub arg_type: String,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoEvent {
    /// The object that its data are.
    #[serde(rename = "arg-type")]
    pub arg_type: String,
}

/// What every description has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaInfoBase {
    /// Its name: a command's or event's own, a number for a type, that of the element in brackets for a list.
    pub name: String,
    /// What kind of thing it is.
    #[serde(rename = "meta-type")]
    pub meta_type: SchemaMetaType,
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

/// What is known of a vCPU without asking it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuInfoFast {
    /// The kernel's id of its thread.
    #[serde(rename = "thread-id")]
    pub thread_id: i64,
    /// Its place in the object tree.
    #[serde(rename = "qom-path")]
    pub qom_path: String,
    /// Its index.
    #[serde(rename = "cpu-index")]
    pub cpu_index: i64,
    /// Its architecture.
    pub target: SysEmuTarget,
}

/// A globally unique number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuidInfo {
    /// Written as a UUID.
    pub guid: String,
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

/// What this machine can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurrentMachineParams {
    /// A guest that sleeps can be woken up.
    #[serde(rename = "wakeup-suspend-support")]
    pub wakeup_suspend_support: bool,
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

/// How dumps can be written here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DumpGuestMemoryCapability {
    /// The forms of files that are available.
    pub formats: Vec<DumpGuestMemoryFormat>,
}

/// The latest dump.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DumpQueryResult {
    /// How many bytes it has.
    pub total: i64,
    /// How far it is.
    pub status: DumpStatus,
    /// How many bytes are written.
    pub completed: i64,
}

/// How much memory the guest has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryInfo {
    /// Bytes from the start.
    #[serde(rename = "base-memory")]
    pub base_memory: u64,
    /// Bytes added since.
    #[serde(rename = "plugged-memory", skip_serializing_if = "Option::is_none")]
    pub plugged_memory: Option<u64>,
}

/// How much has been sent of something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrationStats {
    /// Bytes in all.
    pub total: i64,
    /// Bytes still to send.
    pub remaining: i64,
    /// Millions of bits per second.
    pub mbps: f64,
    /// Bytes sent.
    pub transferred: i64,
    /// Pages of zeros.
    pub duplicate: i64,
    /// Pages the guest writes per second.
    #[serde(rename = "dirty-pages-rate")]
    pub dirty_pages_rate: i64,
    /// Always 0.
    pub skipped: i64,
    /// Bytes of those.
    #[serde(rename = "normal-bytes")]
    pub normal_bytes: i64,
    /// Pages sent whole.
    pub normal: i64,
}

/// How sending differences instead of pages fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XBZRLECacheStats {
    /// Bytes sent as differences.
    pub bytes: i64,
    /// Bytes of the cache.
    #[serde(rename = "cache-size")]
    pub cache_size: i64,
    /// Pages sent as differences.
    pub pages: i64,
    /// Pages whose difference was longer than themselves.
    pub overflow: i64,
    /// Pages the cache did not hold.
    #[serde(rename = "cache-miss")]
    pub cache_miss: i64,
}

/// How a migration stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrationInfo {
    /// Milliseconds the guest would stand still.
    #[serde(rename = "expected-downtime", skip_serializing_if = "Option::is_none")]
    pub expected_downtime: Option<i64>,
    /// The percentage of its time that is taken from the guest, while that is. Newer than the version of this interface.
    #[serde(rename = "cpu-throttle-percentage", skip_serializing_if = "Option::is_none")]
    pub cpu_throttle_percentage: Option<i64>,
    /// How sending differences fares, if that is on.
    #[serde(rename = "xbzrle-cache", skip_serializing_if = "Option::is_none")]
    pub xbzrle_cache: Option<XBZRLECacheStats>,
    /// `setup`, `active`, `postcopy-active`, `completed`, `failed` or `cancelled`; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How much of the disks was sent, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<MigrationStats>,
    /// Milliseconds before the first page.
    #[serde(rename = "setup-time", skip_serializing_if = "Option::is_none")]
    pub setup_time: Option<i64>,
    /// Milliseconds the guest stood still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime: Option<i64>,
    /// Milliseconds since it began, or that it took.
    #[serde(rename = "total-time", skip_serializing_if = "Option::is_none")]
    pub total_time: Option<i64>,
    /// How much memory was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram: Option<MigrationStats>,
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrationCapabilityStatus {
    /// Whether it is on.
    pub state: bool,
    /// Which one.
    pub capability: MigrationCapability,
}

/// What migrations may use, and how. Beyond the schema of 2014.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrationParameters {
    /// The bytes of the cache for differences.
    #[serde(rename = "xbzrle-cache-size")]
    pub xbzrle_cache_size: i64,
    /// How hard pages are packed: 1 to 19.
    #[serde(rename = "compress-level")]
    pub compress_level: i64,
    /// How many connections are for memory: 1 to 16.
    #[serde(rename = "multifd-channels")]
    pub multifd_channels: i64,
    /// Milliseconds the guest may stand still.
    #[serde(rename = "downtime-limit")]
    pub downtime_limit: i64,
    /// The object that has the credentials; empty if none has.
    #[serde(rename = "tls-creds")]
    pub tls_creds: String,
    /// Who the destination must be; empty for the host of the URI.
    #[serde(rename = "tls-hostname")]
    pub tls_hostname: String,
    /// Bytes per second; 0 if there is no limit.
    #[serde(rename = "max-bandwidth")]
    pub max_bandwidth: i64,
}

/// No network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevNoneOptions {
}

/// A network card made by the old option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetLegacyNicOptions {
    /// The back end it talks to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// Its MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macaddr: Option<String>,
    /// What card it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its place on the PCI bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Its MSI-X vectors; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<u32>,
}

/// A network inside the process, which needs no privilege.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevUserOptions {
    /// The name DHCP gives the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Keep the guest from the host and the world.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restrict: Option<bool>,
    /// The old name of `net`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The network's address and mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    /// The host's address in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The directory offered by TFTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tftp: Option<String>,
    /// The file to boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootfile: Option<String>,
    /// The first address DHCP gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcpstart: Option<String>,
    /// The name server's address in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// Domains to search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnssearch: Option<Vec<QmpString>>,
    /// The directory offered by SMB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smb: Option<String>,
    /// The SMB server's address in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smbserver: Option<String>,
    /// Ports of the host that lead to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostfwd: Option<Vec<QmpString>>,
    /// Addresses in it that lead out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guestfwd: Option<Vec<QmpString>>,
}

/// A TAP interface of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevTapOptions {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// A descriptor of one that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<String>,
    /// Several, by colons, one for each queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fds: Option<String>,
    /// What is run to bring it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// What is run to take it down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downscript: Option<String>,
    /// What is run to open it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// Bytes of its send buffer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sndbuf: Option<u64>,
    /// Offload headers before each packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnet_hdr: Option<bool>,
    /// Let the kernel move the packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost: Option<bool>,
    /// An open descriptor for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostfd: Option<String>,
    /// Several, by colons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostfds: Option<String>,
    /// That even for guests without MSI-X.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostforce: Option<bool>,
    /// How many queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
}

/// Another machine's network, over a socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevSocketOptions {
    /// An open socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<String>,
    /// Where to wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Where it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// A multicast group and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcast: Option<String>,
    /// The address to send from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localaddr: Option<String>,
    /// Where to send datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<String>,
}

/// A VDE switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevVdeOptions {
    /// Its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock: Option<String>,
    /// The port at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The group that owns the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The socket's permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u16>,
}

/// A record of all packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevDumpOptions {
    /// Bytes kept of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<u64>,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A bridge of the host, joined by a TAP interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevBridgeOptions {
    /// The bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub br: Option<String>,
    /// What is run to join it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
}

/// A port of a hub inside the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevHubPortOptions {
    /// The hub's number.
    pub hubid: i32,
}

/// A netmap interface or a port of a VALE switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevNetmapOptions {
    /// Its name.
    pub ifname: String,
    /// The netmap device; `/dev/netmap` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devname: Option<String>,
}

/// What the old network option makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetLegacy {
    /// The hub it joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name, if it has no id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is.
    pub opts: NetClientOptions,
}

/// A network back end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Netdev {
    /// Its name.
    pub id: String,
    /// What it is.
    pub opts: NetClientOptions,
}

/// What a card receives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RxFilterInfo {
    /// It receives everything.
    pub promiscuous: bool,
    /// The card.
    pub name: String,
    /// Its own address.
    #[serde(rename = "main-mac")]
    pub main_mac: String,
    /// Which unicast packets.
    pub unicast: RxState,
    /// The VLANs it receives.
    #[serde(rename = "vlan-table")]
    pub vlan_table: Vec<i64>,
    /// The unicast addresses it receives.
    #[serde(rename = "unicast-table")]
    pub unicast_table: Vec<String>,
    /// Which multicast packets.
    pub multicast: RxState,
    /// There were too many multicast addresses.
    #[serde(rename = "multicast-overflow")]
    pub multicast_overflow: bool,
    /// There were too many unicast addresses.
    #[serde(rename = "unicast-overflow")]
    pub unicast_overflow: bool,
    /// The multicast addresses it receives.
    #[serde(rename = "multicast-table")]
    pub multicast_table: Vec<String>,
    /// What the device says of broadcasts; inverted, as ever.
    #[serde(rename = "broadcast-allowed")]
    pub broadcast_allowed: bool,
}

/// A range of addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciMemoryRange {
    /// The last.
    pub limit: i64,
    /// The first.
    pub base: i64,
}

/// What a base address register describes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciMemoryRegion {
    /// Whether reads have no effects; memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<bool>,
    /// Whether it may be above 4 GiB; memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_type_64: Option<bool>,
    /// Which register: 0 to 5, or 6 for the expansion ROM.
    pub bar: i64,
    /// How many bytes.
    pub size: i64,
    /// Where it is; -1 when nowhere.
    pub address: i64,
    /// `io` or `memory`.
    pub r#type: String,
}

/// A part of [`PciBridgeInfo`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciBridgeInfoBus {
    /// `prefetchable_range`.
    pub prefetchable_range: PciMemoryRange,
    /// `memory_range`.
    pub memory_range: PciMemoryRange,
    /// `secondary`.
    pub secondary: i64,
    /// `io_range`.
    pub io_range: PciMemoryRange,
    /// `number`.
    pub number: i64,
    /// `subordinate`.
    pub subordinate: i64,
}

/// What makes a device a bridge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciBridgeInfo {
    /// The buses it joins, and what it passes on.
    pub bus: PciBridgeInfoBus,
    /// What is behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<PciDeviceInfo>>,
}

/// A part of [`PciDeviceInfo`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciDeviceInfoClassInfo {
    /// `class`.
    pub class: i64,
    /// `desc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc: Option<String>,
}

/// A part of [`PciDeviceInfo`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciDeviceInfoId {
    /// `device`.
    pub device: i64,
    /// `vendor`.
    pub vendor: i64,
}

/// A PCI device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciDeviceInfo {
    /// Its bus.
    pub bus: i64,
    /// What makes it a bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_bridge: Option<PciBridgeInfo>,
    /// Its id, or nothing.
    pub qdev_id: String,
    /// Its interrupt line, if it has a pin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub irq: Option<i64>,
    /// Its slot.
    pub slot: i64,
    /// What kind of device it is.
    pub class_info: PciDeviceInfoClassInfo,
    /// Which device it is.
    pub id: PciDeviceInfoId,
    /// Its function.
    pub function: i64,
    /// Its regions.
    pub regions: Vec<PciMemoryRegion>,
}

/// A host bridge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PciInfo {
    /// The number of its bus.
    pub bus: i64,
    /// What is on it.
    pub devices: Vec<PciDeviceInfo>,
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

/// Host memory that a machine can use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memdev {
    /// Whether other processes that map it see changes.
    pub share: bool,
    /// Whether all of it was taken at once.
    pub prealloc: bool,
    /// The nodes of the host that the policy is about.
    #[serde(rename = "host-nodes")]
    pub host_nodes: Vec<u16>,
    /// Bytes.
    pub size: u64,
    /// Whether the host may share equal pages.
    pub merge: bool,
    /// Whether it is part of core dumps.
    pub dump: bool,
    /// On which nodes of the host it lies.
    pub policy: String,
    /// The name of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A thread that serves devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IoThreadInfo {
    /// By how much polling is shortened; 0.
    #[serde(rename = "poll-shrink")]
    pub poll_shrink: i64,
    /// The system's number for the thread.
    #[serde(rename = "thread-id")]
    pub thread_id: i64,
    /// The most requests started at once; 0 for no limit.
    #[serde(rename = "aio-max-batch")]
    pub aio_max_batch: i64,
    /// By how much polling is prolonged; 0.
    #[serde(rename = "poll-grow")]
    pub poll_grow: i64,
    /// How long it polls before it sleeps; 0.
    #[serde(rename = "poll-max-ns")]
    pub poll_max_ns: i64,
    /// The name of the object.
    pub id: String,
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

/// What depends on an image's format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum ImageInfoSpecific {
    /// A qcow2 image.
    #[serde(rename = "qcow2")]
    Qcow2(ImageInfoSpecificQCow2),
    /// A VMDK image.
    #[serde(rename = "vmdk")]
    Vmdk(ImageInfoSpecificVmdk),
}

/// One action of a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum TransactionAction {
    /// Put a new image on top.
    #[serde(rename = "blockdev-snapshot-sync")]
    BlockdevSnapshotSync(BlockdevSnapshot),
    /// Start a backup.
    #[serde(rename = "drive-backup")]
    DriveBackup(DriveBackup),
    /// Fail, to try out what happens then.
    #[serde(rename = "abort")]
    Abort(Abort),
    /// Take an internal snapshot.
    #[serde(rename = "blockdev-snapshot-internal-sync")]
    BlockdevSnapshotInternalSync(BlockdevSnapshotInternal),
}

/// A block device to be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockdevOptions {
    /// Its name; needed for the device itself, refused for the parts of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What becomes of discards; `ignore` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard: Option<BlockdevDiscardOptions>,
    /// How caches are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<BlockdevCacheOptions>,
    /// Who carries requests out; `threads` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aio: Option<BlockdevAioOptions>,
    /// When reading fails; `report` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerror: Option<BlockdevOnError>,
    /// When writing fails; `enospc` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub werror: Option<BlockdevOnError>,
    /// Whether nothing may be written; no when absent.
    #[serde(rename = "read-only", skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// The member `driver`, and the members that follow from it.
    #[serde(flatten)]
    pub driver: BlockdevOptionsDriver,
}

/// The cases of [`BlockdevOptions`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "driver")]
pub enum BlockdevOptionsDriver {
    /// A file of the host.
    #[serde(rename = "file")]
    File(BlockdevOptionsFile),
    /// A file got by HTTP.
    #[serde(rename = "http")]
    Http(BlockdevOptionsFile),
    /// A file got by HTTPS.
    #[serde(rename = "https")]
    Https(BlockdevOptionsFile),
    /// A file got by FTP.
    #[serde(rename = "ftp")]
    Ftp(BlockdevOptionsFile),
    /// A file got by FTP over TLS.
    #[serde(rename = "ftps")]
    Ftps(BlockdevOptionsFile),
    /// A file got by TFTP.
    #[serde(rename = "tftp")]
    Tftp(BlockdevOptionsFile),
    /// A directory as a FAT disk.
    #[serde(rename = "vvfat")]
    Vvfat(BlockdevOptionsVVFAT),
    /// A Bochs image.
    #[serde(rename = "bochs")]
    Bochs(Box<BlockdevOptionsGenericFormat>),
    /// A compressed loop image.
    #[serde(rename = "cloop")]
    Cloop(Box<BlockdevOptionsGenericFormat>),
    /// A user-mode Linux image.
    #[serde(rename = "cow")]
    Cow(Box<BlockdevOptionsGenericCOWFormat>),
    /// An Apple disk image.
    #[serde(rename = "dmg")]
    Dmg(Box<BlockdevOptionsGenericFormat>),
    /// A Parallels image.
    #[serde(rename = "parallels")]
    Parallels(Box<BlockdevOptionsGenericFormat>),
    /// A qcow image of version 1.
    #[serde(rename = "qcow")]
    Qcow(Box<BlockdevOptionsGenericCOWFormat>),
    /// A qcow2 image.
    #[serde(rename = "qcow2")]
    Qcow2(Box<BlockdevOptionsQcow2>),
    /// A QED image.
    #[serde(rename = "qed")]
    Qed(Box<BlockdevOptionsGenericCOWFormat>),
    /// The bytes as they are.
    #[serde(rename = "raw")]
    Raw(Box<BlockdevOptionsGenericFormat>),
    /// A VirtualBox image.
    #[serde(rename = "vdi")]
    Vdi(Box<BlockdevOptionsGenericFormat>),
    /// A Hyper-V image.
    #[serde(rename = "vhdx")]
    Vhdx(Box<BlockdevOptionsGenericFormat>),
    /// A VMware image.
    #[serde(rename = "vmdk")]
    Vmdk(Box<BlockdevOptionsGenericCOWFormat>),
    /// A Virtual PC image.
    #[serde(rename = "vpc")]
    Vpc(Box<BlockdevOptionsGenericFormat>),
}

impl<'de> Deserialize<'de> for BlockdevOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        let id = object.take("id")?;
        let discard = object.take("discard")?;
        let cache = object.take("cache")?;
        let aio = object.take("aio")?;
        let rerror = object.take("rerror")?;
        let werror = object.take("werror")?;
        let read_only = object.take("read-only")?;
        let case: String = object.take("driver")?;
        let driver = match case.as_str() {
            "file" => BlockdevOptionsDriver::File(object.finish()?),
            "http" => BlockdevOptionsDriver::Http(object.finish()?),
            "https" => BlockdevOptionsDriver::Https(object.finish()?),
            "ftp" => BlockdevOptionsDriver::Ftp(object.finish()?),
            "ftps" => BlockdevOptionsDriver::Ftps(object.finish()?),
            "tftp" => BlockdevOptionsDriver::Tftp(object.finish()?),
            "vvfat" => BlockdevOptionsDriver::Vvfat(object.finish()?),
            "bochs" => BlockdevOptionsDriver::Bochs(object.finish()?),
            "cloop" => BlockdevOptionsDriver::Cloop(object.finish()?),
            "cow" => BlockdevOptionsDriver::Cow(object.finish()?),
            "dmg" => BlockdevOptionsDriver::Dmg(object.finish()?),
            "parallels" => BlockdevOptionsDriver::Parallels(object.finish()?),
            "qcow" => BlockdevOptionsDriver::Qcow(object.finish()?),
            "qcow2" => BlockdevOptionsDriver::Qcow2(object.finish()?),
            "qed" => BlockdevOptionsDriver::Qed(object.finish()?),
            "raw" => BlockdevOptionsDriver::Raw(object.finish()?),
            "vdi" => BlockdevOptionsDriver::Vdi(object.finish()?),
            "vhdx" => BlockdevOptionsDriver::Vhdx(object.finish()?),
            "vmdk" => BlockdevOptionsDriver::Vmdk(object.finish()?),
            "vpc" => BlockdevOptionsDriver::Vpc(object.finish()?),
            _ => return Err(D::Error::custom(QmpError::invalid(&case))),
        };
        Ok(Self { id, discard, cache, aio, rerror, werror, read_only, driver })
    }
}

/// A block device, told by its options or by name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BlockdevRef {
    /// A new one.
    #[serde(rename = "definition")]
    Definition(Box<BlockdevOptions>),
    /// One that is there; nothing for none.
    #[serde(rename = "reference")]
    Reference(String),
}

impl<'de> Deserialize<'de> for BlockdevRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value {
            Value::Object(_) => decode::value(value).map(Self::Definition),
            Value::String(_) => decode::value(value).map(Self::Reference),
            _ => Err(D::Error::custom(QmpError::invalid_type("null", "BlockdevRef"))),
        }
    }
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
    /// Standard output alone.
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

/// One thing of the interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SchemaInfo {
    /// Its name: a command's or event's own, a number for a type, that of the element in brackets for a list.
    pub name: String,
    /// The member `meta-type`, and the members that follow from it.
    #[serde(flatten)]
    pub meta_type: SchemaInfoMetaType,
}

/// The cases of [`SchemaInfo`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "meta-type")]
pub enum SchemaInfoMetaType {
    /// A type of the protocol itself.
    #[serde(rename = "builtin")]
    Builtin(SchemaInfoBuiltin),
    /// Words to choose from.
    #[serde(rename = "enum")]
    Enum(SchemaInfoEnum),
    /// A list.
    #[serde(rename = "array")]
    Array(SchemaInfoArray),
    /// Members by name.
    #[serde(rename = "object")]
    Object(SchemaInfoObject),
    /// One of several types.
    #[serde(rename = "alternate")]
    Alternate(SchemaInfoAlternate),
    /// A command.
    #[serde(rename = "command")]
    Command(SchemaInfoCommand),
    /// An event.
    #[serde(rename = "event")]
    Event(SchemaInfoEvent),
}

impl<'de> Deserialize<'de> for SchemaInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        let name = object.take("name")?;
        let case: String = object.take("meta-type")?;
        let meta_type = match case.as_str() {
            "builtin" => SchemaInfoMetaType::Builtin(object.finish()?),
            "enum" => SchemaInfoMetaType::Enum(object.finish()?),
            "array" => SchemaInfoMetaType::Array(object.finish()?),
            "object" => SchemaInfoMetaType::Object(object.finish()?),
            "alternate" => SchemaInfoMetaType::Alternate(object.finish()?),
            "command" => SchemaInfoMetaType::Command(object.finish()?),
            "event" => SchemaInfoMetaType::Event(object.finish()?),
            _ => return Err(D::Error::custom(QmpError::invalid(&case))),
        };
        Ok(Self { name, meta_type })
    }
}

/// What is at one end of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum NetClientOptions {
    /// Nothing.
    #[serde(rename = "none")]
    None(NetdevNoneOptions),
    /// A card.
    #[serde(rename = "nic")]
    Nic(NetLegacyNicOptions),
    /// The network inside the process.
    #[serde(rename = "user")]
    User(NetdevUserOptions),
    /// A TAP interface.
    #[serde(rename = "tap")]
    Tap(NetdevTapOptions),
    /// Another machine.
    #[serde(rename = "socket")]
    Socket(NetdevSocketOptions),
    /// A VDE switch.
    #[serde(rename = "vde")]
    Vde(NetdevVdeOptions),
    /// A record.
    #[serde(rename = "dump")]
    Dump(NetdevDumpOptions),
    /// A bridge.
    #[serde(rename = "bridge")]
    Bridge(NetdevBridgeOptions),
    /// A hub.
    #[serde(rename = "hubport")]
    Hubport(NetdevHubPortOptions),
    /// A netmap interface.
    #[serde(rename = "netmap")]
    Netmap(NetdevNetmapOptions),
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

/// `eject`: Takes the medium out of a drive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eject {
    /// The drive.
    pub device: String,
    /// Even if the guest locked the tray; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

impl Command for Eject {
    const NAME: &'static str = "eject";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "force", kind: Kind::Bool, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `change`: Changes a drive's medium, or for the device `vnc` the display's password or address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The drive, or `vnc`.
    pub device: String,
    /// The file, or `password`, or the display's new address.
    pub target: String,
    /// The file's format, or the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arg: Option<String>,
}

impl Command for Change {
    const NAME: &'static str = "change";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "target", kind: Kind::Str, optional: false },
        Arg { name: "arg", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `screendump`: Writes what the screen shows to a PPM file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Screendump {
    /// The file.
    pub filename: String,
}

impl Command for Screendump {
    const NAME: &'static str = "screendump";
    const ARGS: &'static [Arg] = &[
        Arg { name: "filename", kind: Kind::Str, optional: false },
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

/// `migrate`: Starts to send the machine elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migrate {
    /// Where to: `tcp:HOST:PORT`, `unix:PATH`, `fd:NAME` or `exec:COMMAND`.
    pub uri: String,
    /// With its disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blk: Option<bool>,
    /// With what its disks have over their backing files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inc: Option<bool>,
    /// Without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach: Option<bool>,
}

impl Command for Migrate {
    const NAME: &'static str = "migrate";
    const ARGS: &'static [Arg] = &[
        Arg { name: "uri", kind: Kind::Str, optional: false },
        Arg { name: "blk", kind: Kind::Bool, optional: true },
        Arg { name: "inc", kind: Kind::Bool, optional: true },
        Arg { name: "detach", kind: Kind::Bool, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `migrate_cancel`: Stops the migration, if one is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateCancel {
}

impl Command for MigrateCancel {
    const NAME: &'static str = "migrate_cancel";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `migrate-set-cache-size`: Sets the size of the cache for differences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateSetCacheSize {
    /// In bytes; rounded down to a power of two.
    pub value: i64,
}

impl Command for MigrateSetCacheSize {
    const NAME: &'static str = "migrate-set-cache-size";
    const ARGS: &'static [Arg] = &[
        Arg { name: "value", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `query-migrate-cache-size`: Asks for the size of the cache for differences, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMigrateCacheSize {
}

impl Command for QueryMigrateCacheSize {
    const NAME: &'static str = "query-migrate-cache-size";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = i64;
}

/// `migrate_set_speed`: Sets how fast a migration may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateSetSpeed {
    /// In bytes per second.
    pub value: i64,
}

impl Command for MigrateSetSpeed {
    const NAME: &'static str = "migrate_set_speed";
    const ARGS: &'static [Arg] = &[
        Arg { name: "value", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `migrate_set_downtime`: Sets how long the guest may stand still.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateSetDowntime {
    /// In seconds.
    pub value: f64,
}

impl Command for MigrateSetDowntime {
    const NAME: &'static str = "migrate_set_downtime";
    const ARGS: &'static [Arg] = &[
        Arg { name: "value", kind: Kind::Number, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `client_migrate_info`: Tells a display's clients where the machine will be next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientMigrateInfo {
    /// `spice`.
    pub protocol: String,
    /// The host it goes to.
    pub hostname: String,
    /// The port there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// The port for TLS there.
    #[serde(rename = "tls-port", skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<i64>,
    /// The subject of its certificate.
    #[serde(rename = "cert-subject", skip_serializing_if = "Option::is_none")]
    pub cert_subject: Option<String>,
}

impl Command for ClientMigrateInfo {
    const NAME: &'static str = "client_migrate_info";
    const ARGS: &'static [Arg] = &[
        Arg { name: "protocol", kind: Kind::Str, optional: false },
        Arg { name: "hostname", kind: Kind::Str, optional: false },
        Arg { name: "port", kind: Kind::Int, optional: true },
        Arg { name: "tls-port", kind: Kind::Int, optional: true },
        Arg { name: "cert-subject", kind: Kind::Str, optional: true },
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
    /// Return at once; DUMP_COMPLETED follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach: Option<bool>,
    /// The form of the file; `elf` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DumpGuestMemoryFormat>,
}

impl Command for DumpGuestMemory {
    const NAME: &'static str = "dump-guest-memory";
    const ARGS: &'static [Arg] = &[
        Arg { name: "length", kind: Kind::Int, optional: true },
        Arg { name: "end", kind: Kind::Int, optional: true },
        Arg { name: "begin", kind: Kind::Int, optional: true },
        Arg { name: "protocol", kind: Kind::Str, optional: false },
        Arg { name: "paging", kind: Kind::Bool, optional: false },
        Arg { name: "detach", kind: Kind::Bool, optional: true },
        Arg { name: "format", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `netdev_add`: Makes a network back end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetdevAdd {
    /// Its name.
    pub id: String,
    /// What it is; the other arguments are its options.
    pub r#type: String,
    /// The arguments that have no field of their own.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for NetdevAdd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        Ok(Self {
            id: object.take("id")?,
            r#type: object.take("type")?,
            rest: object.rest(),
        })
    }
}

impl Command for NetdevAdd {
    const NAME: &'static str = "netdev_add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "id", kind: Kind::Str, optional: false },
        Arg { name: "type", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = true;
    type Ret = ();
}

/// `netdev_del`: Removes a network back end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetdevDel {
    /// Its name.
    pub id: String,
}

impl Command for NetdevDel {
    const NAME: &'static str = "netdev_del";
    const ARGS: &'static [Arg] = &[
        Arg { name: "id", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block_resize`: Changes the size of a drive's image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockResize {
    /// The drive.
    pub device: String,
    /// The new size in bytes.
    pub size: i64,
}

impl Command for BlockResize {
    const NAME: &'static str = "block_resize";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "size", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block-stream`: Copies from backing files into the topmost image, and drops them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockStream {
    /// The drive.
    pub device: String,
    /// The backing file to stop above; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Bytes per second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<i64>,
    /// When a request fails; `report` when absent.
    #[serde(rename = "on-error", skip_serializing_if = "Option::is_none")]
    pub on_error: Option<BlockdevOnError>,
}

impl Command for BlockStream {
    const NAME: &'static str = "block-stream";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "base", kind: Kind::Str, optional: true },
        Arg { name: "speed", kind: Kind::Int, optional: true },
        Arg { name: "on-error", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block-commit`: Writes layers of a drive down into one below them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockCommit {
    /// The drive.
    pub device: String,
    /// The image to write into; the deepest when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The topmost image whose data goes down.
    pub top: String,
    /// Bytes per second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<i64>,
}

impl Command for BlockCommit {
    const NAME: &'static str = "block-commit";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "base", kind: Kind::Str, optional: true },
        Arg { name: "top", kind: Kind::Str, optional: false },
        Arg { name: "speed", kind: Kind::Int, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `drive-backup`: Starts to copy a drive as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DriveBackupCommand(pub DriveBackup);

impl Command for DriveBackupCommand {
    const NAME: &'static str = "drive-backup";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "target", kind: Kind::Str, optional: false },
        Arg { name: "format", kind: Kind::Str, optional: true },
        Arg { name: "sync", kind: Kind::Str, optional: false },
        Arg { name: "mode", kind: Kind::Str, optional: true },
        Arg { name: "speed", kind: Kind::Int, optional: true },
        Arg { name: "on-source-error", kind: Kind::Str, optional: true },
        Arg { name: "on-target-error", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block-job-set-speed`: Sets how fast a drive's job may go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockJobSetSpeed {
    /// The drive.
    pub device: String,
    /// Bytes per second at most; 0 for no limit.
    pub speed: i64,
}

impl Command for BlockJobSetSpeed {
    const NAME: &'static str = "block-job-set-speed";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "speed", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block-job-cancel`: Asks a drive's job to end early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockJobCancel {
    /// The drive.
    pub device: String,
    /// Even if it is paused; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

impl Command for BlockJobCancel {
    const NAME: &'static str = "block-job-cancel";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "force", kind: Kind::Bool, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block-job-pause`: Pauses a drive's job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockJobPause {
    /// The drive.
    pub device: String,
}

impl Command for BlockJobPause {
    const NAME: &'static str = "block-job-pause";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block-job-resume`: Lets a drive's paused job go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockJobResume {
    /// The drive.
    pub device: String,
}

impl Command for BlockJobResume {
    const NAME: &'static str = "block-job-resume";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block-job-complete`: Ends a mirror that is in step, and moves the drive to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockJobComplete {
    /// The drive.
    pub device: String,
}

impl Command for BlockJobComplete {
    const NAME: &'static str = "block-job-complete";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `transaction`: Does several things to drives, or none of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// What to do, in order.
    pub actions: Vec<TransactionAction>,
}

impl Command for Transaction {
    const NAME: &'static str = "transaction";
    const ARGS: &'static [Arg] = &[
        Arg { name: "actions", kind: Kind::Any, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `blockdev-snapshot-sync`: Puts a new image on top of a drive's present one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockdevSnapshotSync(pub BlockdevSnapshot);

impl Command for BlockdevSnapshotSync {
    const NAME: &'static str = "blockdev-snapshot-sync";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "snapshot-file", kind: Kind::Str, optional: false },
        Arg { name: "format", kind: Kind::Str, optional: true },
        Arg { name: "mode", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `blockdev-snapshot-internal-sync`: Takes a snapshot inside a drive's image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockdevSnapshotInternalSync(pub BlockdevSnapshotInternal);

impl Command for BlockdevSnapshotInternalSync {
    const NAME: &'static str = "blockdev-snapshot-internal-sync";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "name", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `blockdev-snapshot-delete-internal-sync`: Deletes a snapshot inside a drive's image and tells what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevSnapshotDeleteInternalSync {
    /// The drive.
    pub device: String,
    /// The snapshot's id; this or the name must be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Command for BlockdevSnapshotDeleteInternalSync {
    const NAME: &'static str = "blockdev-snapshot-delete-internal-sync";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "id", kind: Kind::Str, optional: true },
        Arg { name: "name", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = SnapshotInfo;
}

/// `drive-mirror`: Starts to copy a drive and keep the copy in step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriveMirror {
    /// The drive.
    pub device: String,
    /// The file to copy to.
    pub target: String,
    /// Its format; the drive's when absent, or found out for an existing file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// What the copy is to hold.
    pub sync: MirrorSyncMode,
    /// Where the target comes from; `absolute-paths` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<NewImageMode>,
    /// Bytes per second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<i64>,
    /// Bytes per bit of the dirty bitmap: a power of two, 512 to 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<u32>,
    /// Bytes under way at most.
    #[serde(rename = "buf-size", skip_serializing_if = "Option::is_none")]
    pub buf_size: Option<i64>,
    /// When reading the drive fails; `report` when absent.
    #[serde(rename = "on-source-error", skip_serializing_if = "Option::is_none")]
    pub on_source_error: Option<BlockdevOnError>,
    /// When writing the copy fails; `report` when absent.
    #[serde(rename = "on-target-error", skip_serializing_if = "Option::is_none")]
    pub on_target_error: Option<BlockdevOnError>,
}

impl Command for DriveMirror {
    const NAME: &'static str = "drive-mirror";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "target", kind: Kind::Str, optional: false },
        Arg { name: "format", kind: Kind::Str, optional: true },
        Arg { name: "sync", kind: Kind::Str, optional: false },
        Arg { name: "mode", kind: Kind::Str, optional: true },
        Arg { name: "speed", kind: Kind::Int, optional: true },
        Arg { name: "granularity", kind: Kind::Int, optional: true },
        Arg { name: "buf-size", kind: Kind::Int, optional: true },
        Arg { name: "on-source-error", kind: Kind::Str, optional: true },
        Arg { name: "on-target-error", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `balloon`: Asks the guest to make do with less memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balloon {
    /// Bytes it may keep.
    pub value: i64,
}

impl Command for Balloon {
    const NAME: &'static str = "balloon";
    const ARGS: &'static [Arg] = &[
        Arg { name: "value", kind: Kind::Int, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `set_link`: Plugs or unplugs a network cable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetLink {
    /// The card or back end.
    pub name: String,
    /// Whether it is plugged in.
    pub up: bool,
}

impl Command for SetLink {
    const NAME: &'static str = "set_link";
    const ARGS: &'static [Arg] = &[
        Arg { name: "name", kind: Kind::Str, optional: false },
        Arg { name: "up", kind: Kind::Bool, optional: false },
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

/// `block_passwd`: Gives an encrypted image its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockPasswd {
    /// The drive.
    pub device: String,
    /// The key.
    pub password: String,
}

impl Command for BlockPasswd {
    const NAME: &'static str = "block_passwd";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "password", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `block_set_io_throttle`: Sets the limits of a drive's requests; 0 is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockSetIoThrottle {
    /// The drive.
    pub device: String,
    /// Bytes per second in all.
    pub bps: i64,
    /// Bytes read per second.
    pub bps_rd: i64,
    /// Bytes written per second.
    pub bps_wr: i64,
    /// Requests per second in all.
    pub iops: i64,
    /// Reads per second.
    pub iops_rd: i64,
    /// Writes per second.
    pub iops_wr: i64,
    /// Burst of bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps_max: Option<i64>,
    /// Burst of bytes read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps_rd_max: Option<i64>,
    /// Burst of bytes written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps_wr_max: Option<i64>,
    /// Burst of requests in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_max: Option<i64>,
    /// Burst of reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_rd_max: Option<i64>,
    /// Burst of writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_wr_max: Option<i64>,
    /// Bytes that count as one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_size: Option<i64>,
}

impl Command for BlockSetIoThrottle {
    const NAME: &'static str = "block_set_io_throttle";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "bps", kind: Kind::Int, optional: false },
        Arg { name: "bps_rd", kind: Kind::Int, optional: false },
        Arg { name: "bps_wr", kind: Kind::Int, optional: false },
        Arg { name: "iops", kind: Kind::Int, optional: false },
        Arg { name: "iops_rd", kind: Kind::Int, optional: false },
        Arg { name: "iops_wr", kind: Kind::Int, optional: false },
        Arg { name: "bps_max", kind: Kind::Int, optional: true },
        Arg { name: "bps_rd_max", kind: Kind::Int, optional: true },
        Arg { name: "bps_wr_max", kind: Kind::Int, optional: true },
        Arg { name: "iops_max", kind: Kind::Int, optional: true },
        Arg { name: "iops_rd_max", kind: Kind::Int, optional: true },
        Arg { name: "iops_wr_max", kind: Kind::Int, optional: true },
        Arg { name: "iops_size", kind: Kind::Int, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `set_password`: Sets the password of a display.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetPassword {
    /// `vnc` or `spice`.
    pub protocol: String,
    /// The password; only 8 bytes of it count for VNC.
    pub password: String,
    /// What becomes of clients: `fail`, `disconnect` or, when absent, `keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<String>,
}

impl Command for SetPassword {
    const NAME: &'static str = "set_password";
    const ARGS: &'static [Arg] = &[
        Arg { name: "protocol", kind: Kind::Str, optional: false },
        Arg { name: "password", kind: Kind::Str, optional: false },
        Arg { name: "connected", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `expire_password`: Sets until when the password of a display is good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpirePassword {
    /// `vnc` or `spice`.
    pub protocol: String,
    /// `now`, `never`, `+SECONDS` from now, or seconds since 1970.
    pub time: String,
}

impl Command for ExpirePassword {
    const NAME: &'static str = "expire_password";
    const ARGS: &'static [Arg] = &[
        Arg { name: "protocol", kind: Kind::Str, optional: false },
        Arg { name: "time", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
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
    /// Capabilities to switch on. The greeting offers none, so it must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable: Option<Vec<String>>,
}

impl Command for QmpCapabilities {
    const NAME: &'static str = "qmp_capabilities";
    const ARGS: &'static [Arg] = &[
        Arg { name: "enable", kind: Kind::Any, optional: true },
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

/// `query-block`: Lists the drives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryBlock {
}

impl Command for QueryBlock {
    const NAME: &'static str = "query-block";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<BlockInfo>;
}

/// `query-blockstats`: Asks for the drives' counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryBlockstats {
}

impl Command for QueryBlockstats {
    const NAME: &'static str = "query-blockstats";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<BlockStats>;
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

/// `query-pci`: Lists the PCI devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryPci {
}

impl Command for QueryPci {
    const NAME: &'static str = "query-pci";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<PciInfo>;
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

/// `query-vnc`: Asks about the VNC server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryVnc {
}

impl Command for QueryVnc {
    const NAME: &'static str = "query-vnc";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = VncInfo;
}

/// `query-spice`: Asks about the SPICE server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuerySpice {
}

impl Command for QuerySpice {
    const NAME: &'static str = "query-spice";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = SpiceInfo;
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

/// `query-migrate`: Asks how the migration stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMigrate {
}

impl Command for QueryMigrate {
    const NAME: &'static str = "query-migrate";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = MigrationInfo;
}

/// `migrate-set-capabilities`: Switches capabilities on and off.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MigrateSetCapabilities {
    /// Which ones, and how.
    pub capabilities: Vec<MigrationCapabilityStatus>,
    /// The arguments that have no field of their own.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for MigrateSetCapabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        Ok(Self {
            capabilities: object.take("capabilities")?,
            rest: object.rest(),
        })
    }
}

impl Command for MigrateSetCapabilities {
    const NAME: &'static str = "migrate-set-capabilities";
    const ARGS: &'static [Arg] = &[
        Arg { name: "capabilities", kind: Kind::Any, optional: false },
    ];
    const OPEN: bool = true;
    type Ret = ();
}

/// `query-migrate-capabilities`: Lists the capabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMigrateCapabilities {
}

impl Command for QueryMigrateCapabilities {
    const NAME: &'static str = "query-migrate-capabilities";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<MigrationCapabilityStatus>;
}

/// `query-balloon`: Asks how much memory the balloon leaves the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryBalloon {
}

impl Command for QueryBalloon {
    const NAME: &'static str = "query-balloon";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = BalloonInfo;
}

/// `query-block-jobs`: Lists the jobs that run on drives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryBlockJobs {
}

impl Command for QueryBlockJobs {
    const NAME: &'static str = "query-block-jobs";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<BlockJobInfo>;
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

/// `nbd-server-start`: Offers an address at which drives can be exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NbdServerStart {
    /// Where to listen.
    pub addr: SocketAddress,
}

impl Command for NbdServerStart {
    const NAME: &'static str = "nbd-server-start";
    const ARGS: &'static [Arg] = &[
        Arg { name: "addr", kind: Kind::Any, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `nbd-server-add`: Exports a drive under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NbdServerAdd {
    /// The drive.
    pub device: String,
    /// Whether clients may write; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable: Option<bool>,
}

impl Command for NbdServerAdd {
    const NAME: &'static str = "nbd-server-add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "device", kind: Kind::Str, optional: false },
        Arg { name: "writable", kind: Kind::Bool, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `nbd-server-stop`: Ends all exports and stops listening.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NbdServerStop {
}

impl Command for NbdServerStop {
    const NAME: &'static str = "nbd-server-stop";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `change-vnc-password`: Sets the password of the VNC display; clients stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeVncPassword {
    /// The password.
    pub password: String,
}

impl Command for ChangeVncPassword {
    const NAME: &'static str = "change-vnc-password";
    const ARGS: &'static [Arg] = &[
        Arg { name: "password", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
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

/// `query-rx-filter`: Asks what cards receive, and lets them tell of the next change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryRxFilter {
    /// One card; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Command for QueryRxFilter {
    const NAME: &'static str = "query-rx-filter";
    const ARGS: &'static [Arg] = &[
        Arg { name: "name", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = Vec<RxFilterInfo>;
}

/// `blockdev-add`: Makes a block device that nothing is attached to yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevAdd {
    /// What it is to be.
    pub options: BlockdevOptions,
}

impl Command for BlockdevAdd {
    const NAME: &'static str = "blockdev-add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "options", kind: Kind::Any, optional: false },
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

/// `x-system-sleep`: Presses the sleep button.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct XSystemSleep {
}

impl Command for XSystemSleep {
    const NAME: &'static str = "x-system-sleep";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `query-qmp-schema`: Describes the interface: its commands, its events and every type they use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryQmpSchema {
}

impl Command for QueryQmpSchema {
    const NAME: &'static str = "query-qmp-schema";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<SchemaInfo>;
}

/// `query-cpus-fast`: Lists the vCPUs by index, without a word from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryCpusFast {
}

impl Command for QueryCpusFast {
    const NAME: &'static str = "query-cpus-fast";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<CpuInfoFast>;
}

/// `query-vm-generation-id`: Tells the machine's generation id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryVmGenerationId {
}

impl Command for QueryVmGenerationId {
    const NAME: &'static str = "query-vm-generation-id";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = GuidInfo;
}

/// `query-current-machine`: Asks what this machine can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryCurrentMachine {
}

impl Command for QueryCurrentMachine {
    const NAME: &'static str = "query-current-machine";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = CurrentMachineParams;
}

/// `query-dump-guest-memory-capability`: Asks how dumps can be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryDumpGuestMemoryCapability {
}

impl Command for QueryDumpGuestMemoryCapability {
    const NAME: &'static str = "query-dump-guest-memory-capability";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = DumpGuestMemoryCapability;
}

/// `query-dump`: Asks how far the latest dump is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryDump {
}

impl Command for QueryDump {
    const NAME: &'static str = "query-dump";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = DumpQueryResult;
}

/// `query-memory-size-summary`: Asks how much memory the guest has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMemorySizeSummary {
}

impl Command for QueryMemorySizeSummary {
    const NAME: &'static str = "query-memory-size-summary";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = MemoryInfo;
}

/// `migrate-start-postcopy`: Lets the guest go before its memory. Of later versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateStartPostcopy {
}

impl Command for MigrateStartPostcopy {
    const NAME: &'static str = "migrate-start-postcopy";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `migrate-set-parameters`: Sets what migrations may use. Beyond the schema of 2014.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateSetParameters {
    /// The bytes of the cache for differences, a power of two.
    #[serde(rename = "xbzrle-cache-size", skip_serializing_if = "Option::is_none")]
    pub xbzrle_cache_size: Option<i64>,
    /// How hard pages are packed: 1 to 19.
    #[serde(rename = "compress-level", skip_serializing_if = "Option::is_none")]
    pub compress_level: Option<i64>,
    /// How many connections are for memory: 1 to 16.
    #[serde(rename = "multifd-channels", skip_serializing_if = "Option::is_none")]
    pub multifd_channels: Option<i64>,
    /// Milliseconds the guest may stand still.
    #[serde(rename = "downtime-limit", skip_serializing_if = "Option::is_none")]
    pub downtime_limit: Option<i64>,
    /// The object that has the credentials; empty for none.
    #[serde(rename = "tls-creds", skip_serializing_if = "Option::is_none")]
    pub tls_creds: Option<String>,
    /// Who the destination must be; empty for the host of the URI.
    #[serde(rename = "tls-hostname", skip_serializing_if = "Option::is_none")]
    pub tls_hostname: Option<String>,
    /// Bytes per second; below 10 there is no limit.
    #[serde(rename = "max-bandwidth", skip_serializing_if = "Option::is_none")]
    pub max_bandwidth: Option<i64>,
}

impl Command for MigrateSetParameters {
    const NAME: &'static str = "migrate-set-parameters";
    const ARGS: &'static [Arg] = &[
        Arg { name: "xbzrle-cache-size", kind: Kind::Int, optional: true },
        Arg { name: "compress-level", kind: Kind::Int, optional: true },
        Arg { name: "multifd-channels", kind: Kind::Int, optional: true },
        Arg { name: "downtime-limit", kind: Kind::Int, optional: true },
        Arg { name: "tls-creds", kind: Kind::Str, optional: true },
        Arg { name: "tls-hostname", kind: Kind::Str, optional: true },
        Arg { name: "max-bandwidth", kind: Kind::Int, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `query-migrate-parameters`: Asks what migrations may use. Beyond the schema of 2014.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMigrateParameters {
}

impl Command for QueryMigrateParameters {
    const NAME: &'static str = "query-migrate-parameters";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = MigrationParameters;
}

/// `migrate-incoming`: Waits for a machine, after `-incoming defer`. Beyond the schema of 2014.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateIncoming {
    /// Where it comes in, as for `-incoming`.
    pub uri: String,
}

impl Command for MigrateIncoming {
    const NAME: &'static str = "migrate-incoming";
    const ARGS: &'static [Arg] = &[
        Arg { name: "uri", kind: Kind::Str, optional: false },
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

/// `query-memdev`: Lists the memory backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryMemdev {
}

impl Command for QueryMemdev {
    const NAME: &'static str = "query-memdev";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<Memdev>;
}

/// `query-iothreads`: Lists the threads made as objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryIothreads {
}

impl Command for QueryIothreads {
    const NAME: &'static str = "query-iothreads";
    const ARGS: &'static [Arg] = &[
    ];
    const OPEN: bool = false;
    type Ret = Vec<IoThreadInfo>;
}

/// `watchdog-set-action`: Says what is done from now on when a watchdog runs out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchdogSetAction {
    /// What is to be done.
    pub action: WatchdogAction,
}

impl Command for WatchdogSetAction {
    const NAME: &'static str = "watchdog-set-action";
    const ARGS: &'static [Arg] = &[
        Arg { name: "action", kind: Kind::Str, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `set-action`: Says what is done from now on in these cases; those left out stay as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetAction {
    /// When the machine is to be reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reboot: Option<RebootAction>,
    /// When the machine goes off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<ShutdownAction>,
    /// When the guest reports that it cannot go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<PanicAction>,
    /// When a watchdog runs out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogAction>,
}

impl Command for SetAction {
    const NAME: &'static str = "set-action";
    const ARGS: &'static [Arg] = &[
        Arg { name: "reboot", kind: Kind::Str, optional: true },
        Arg { name: "shutdown", kind: Kind::Str, optional: true },
        Arg { name: "panic", kind: Kind::Str, optional: true },
        Arg { name: "watchdog", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// Carries out every command of the schema that is not pending.
pub trait Commands:
    Handle<Quit> +
    Handle<Eject> +
    Handle<Change> +
    Handle<Stop> +
    Handle<Cont> +
    Handle<SystemWakeup> +
    Handle<SystemReset> +
    Handle<SystemPowerdown> +
    Handle<DeviceAdd> +
    Handle<DeviceDel> +
    Handle<Cpu> +
    Handle<CpuAdd> +
    Handle<Memsave> +
    Handle<Pmemsave> +
    Handle<InjectNmi> +
    Handle<RingbufWrite> +
    Handle<RingbufRead> +
    Handle<XenSaveDevicesState> +
    Handle<XenSetGlobalDirtyLog> +
    Handle<Migrate> +
    Handle<MigrateCancel> +
    Handle<MigrateSetCacheSize> +
    Handle<QueryMigrateCacheSize> +
    Handle<MigrateSetSpeed> +
    Handle<MigrateSetDowntime> +
    Handle<ClientMigrateInfo> +
    Handle<DumpGuestMemory> +
    Handle<NetdevAdd> +
    Handle<NetdevDel> +
    Handle<BlockResize> +
    Handle<BlockStream> +
    Handle<BlockCommit> +
    Handle<DriveBackupCommand> +
    Handle<BlockJobSetSpeed> +
    Handle<BlockJobCancel> +
    Handle<BlockJobPause> +
    Handle<BlockJobResume> +
    Handle<BlockJobComplete> +
    Handle<Transaction> +
    Handle<BlockdevSnapshotSync> +
    Handle<BlockdevSnapshotInternalSync> +
    Handle<BlockdevSnapshotDeleteInternalSync> +
    Handle<DriveMirror> +
    Handle<Balloon> +
    Handle<SetLink> +
    Handle<Getfd> +
    Handle<Closefd> +
    Handle<AddFd> +
    Handle<RemoveFd> +
    Handle<QueryFdsets> +
    Handle<BlockPasswd> +
    Handle<BlockSetIoThrottle> +
    Handle<AddClient> +
    Handle<HumanMonitorCommand> +
    Handle<QueryVersion> +
    Handle<QueryChardev> +
    Handle<QueryBlock> +
    Handle<QueryBlockstats> +
    Handle<QueryCpus> +
    Handle<QueryPci> +
    Handle<QueryKvm> +
    Handle<QueryStatus> +
    Handle<QueryMice> +
    Handle<QueryVnc> +
    Handle<QueryName> +
    Handle<QueryUuid> +
    Handle<QueryCommandLineOptions> +
    Handle<QueryMigrate> +
    Handle<MigrateSetCapabilities> +
    Handle<QueryMigrateCapabilities> +
    Handle<QueryBalloon> +
    Handle<QueryBlockJobs> +
    Handle<QomList> +
    Handle<QomSet> +
    Handle<QomGet> +
    Handle<NbdServerStart> +
    Handle<NbdServerAdd> +
    Handle<NbdServerStop> +
    Handle<QomListTypes> +
    Handle<DeviceListProperties> +
    Handle<QueryMachines> +
    Handle<QueryCpuDefinitions> +
    Handle<QueryTarget> +
    Handle<QueryTpm> +
    Handle<QueryTpmModels> +
    Handle<QueryTpmTypes> +
    Handle<ChardevAdd> +
    Handle<ChardevRemove> +
    Handle<QueryRxFilter> +
    Handle<BlockdevAdd> +
    Handle<ChardevChange> +
    Handle<ChardevSendBreak> +
    Handle<XPulseSaveRestore> +
    Handle<XSystemSleep> +
    Handle<QueryCpusFast> +
    Handle<QueryVmGenerationId> +
    Handle<QueryCurrentMachine> +
    Handle<QueryDumpGuestMemoryCapability> +
    Handle<QueryDump> +
    Handle<QueryMemorySizeSummary> +
    Handle<MigrateStartPostcopy> +
    Handle<MigrateSetParameters> +
    Handle<QueryMigrateParameters> +
    Handle<MigrateIncoming> +
    Handle<QomListProperties> +
    Handle<ObjectAdd> +
    Handle<ObjectDel> +
    Handle<QueryMemdev> +
    Handle<QueryIothreads> +
    Handle<WatchdogSetAction> +
    Handle<SetAction>
{
}

impl<T> Commands for T where
    T:
    Handle<Quit> +
    Handle<Eject> +
    Handle<Change> +
    Handle<Stop> +
    Handle<Cont> +
    Handle<SystemWakeup> +
    Handle<SystemReset> +
    Handle<SystemPowerdown> +
    Handle<DeviceAdd> +
    Handle<DeviceDel> +
    Handle<Cpu> +
    Handle<CpuAdd> +
    Handle<Memsave> +
    Handle<Pmemsave> +
    Handle<InjectNmi> +
    Handle<RingbufWrite> +
    Handle<RingbufRead> +
    Handle<XenSaveDevicesState> +
    Handle<XenSetGlobalDirtyLog> +
    Handle<Migrate> +
    Handle<MigrateCancel> +
    Handle<MigrateSetCacheSize> +
    Handle<QueryMigrateCacheSize> +
    Handle<MigrateSetSpeed> +
    Handle<MigrateSetDowntime> +
    Handle<ClientMigrateInfo> +
    Handle<DumpGuestMemory> +
    Handle<NetdevAdd> +
    Handle<NetdevDel> +
    Handle<BlockResize> +
    Handle<BlockStream> +
    Handle<BlockCommit> +
    Handle<DriveBackupCommand> +
    Handle<BlockJobSetSpeed> +
    Handle<BlockJobCancel> +
    Handle<BlockJobPause> +
    Handle<BlockJobResume> +
    Handle<BlockJobComplete> +
    Handle<Transaction> +
    Handle<BlockdevSnapshotSync> +
    Handle<BlockdevSnapshotInternalSync> +
    Handle<BlockdevSnapshotDeleteInternalSync> +
    Handle<DriveMirror> +
    Handle<Balloon> +
    Handle<SetLink> +
    Handle<Getfd> +
    Handle<Closefd> +
    Handle<AddFd> +
    Handle<RemoveFd> +
    Handle<QueryFdsets> +
    Handle<BlockPasswd> +
    Handle<BlockSetIoThrottle> +
    Handle<AddClient> +
    Handle<HumanMonitorCommand> +
    Handle<QueryVersion> +
    Handle<QueryChardev> +
    Handle<QueryBlock> +
    Handle<QueryBlockstats> +
    Handle<QueryCpus> +
    Handle<QueryPci> +
    Handle<QueryKvm> +
    Handle<QueryStatus> +
    Handle<QueryMice> +
    Handle<QueryVnc> +
    Handle<QueryName> +
    Handle<QueryUuid> +
    Handle<QueryCommandLineOptions> +
    Handle<QueryMigrate> +
    Handle<MigrateSetCapabilities> +
    Handle<QueryMigrateCapabilities> +
    Handle<QueryBalloon> +
    Handle<QueryBlockJobs> +
    Handle<QomList> +
    Handle<QomSet> +
    Handle<QomGet> +
    Handle<NbdServerStart> +
    Handle<NbdServerAdd> +
    Handle<NbdServerStop> +
    Handle<QomListTypes> +
    Handle<DeviceListProperties> +
    Handle<QueryMachines> +
    Handle<QueryCpuDefinitions> +
    Handle<QueryTarget> +
    Handle<QueryTpm> +
    Handle<QueryTpmModels> +
    Handle<QueryTpmTypes> +
    Handle<ChardevAdd> +
    Handle<ChardevRemove> +
    Handle<QueryRxFilter> +
    Handle<BlockdevAdd> +
    Handle<ChardevChange> +
    Handle<ChardevSendBreak> +
    Handle<XPulseSaveRestore> +
    Handle<XSystemSleep> +
    Handle<QueryCpusFast> +
    Handle<QueryVmGenerationId> +
    Handle<QueryCurrentMachine> +
    Handle<QueryDumpGuestMemoryCapability> +
    Handle<QueryDump> +
    Handle<QueryMemorySizeSummary> +
    Handle<MigrateStartPostcopy> +
    Handle<MigrateSetParameters> +
    Handle<QueryMigrateParameters> +
    Handle<MigrateIncoming> +
    Handle<QomListProperties> +
    Handle<ObjectAdd> +
    Handle<ObjectDel> +
    Handle<QueryMemdev> +
    Handle<QueryIothreads> +
    Handle<WatchdogSetAction> +
    Handle<SetAction>
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
        "eject" => call::<Eject, _>(vm, args),
        "change" => call::<Change, _>(vm, args),
        "stop" => call::<Stop, _>(vm, args),
        "cont" => call::<Cont, _>(vm, args),
        "system_wakeup" => call::<SystemWakeup, _>(vm, args),
        "system_reset" => call::<SystemReset, _>(vm, args),
        "system_powerdown" => call::<SystemPowerdown, _>(vm, args),
        "device_add" => call::<DeviceAdd, _>(vm, args),
        "device_del" => call::<DeviceDel, _>(vm, args),
        "cpu" => call::<Cpu, _>(vm, args),
        "cpu-add" => call::<CpuAdd, _>(vm, args),
        "memsave" => call::<Memsave, _>(vm, args),
        "pmemsave" => call::<Pmemsave, _>(vm, args),
        "inject-nmi" => call::<InjectNmi, _>(vm, args),
        "ringbuf-write" => call::<RingbufWrite, _>(vm, args),
        "ringbuf-read" => call::<RingbufRead, _>(vm, args),
        "xen-save-devices-state" => call::<XenSaveDevicesState, _>(vm, args),
        "xen-set-global-dirty-log" => call::<XenSetGlobalDirtyLog, _>(vm, args),
        "migrate" => call::<Migrate, _>(vm, args),
        "migrate_cancel" => call::<MigrateCancel, _>(vm, args),
        "migrate-set-cache-size" => call::<MigrateSetCacheSize, _>(vm, args),
        "query-migrate-cache-size" => call::<QueryMigrateCacheSize, _>(vm, args),
        "migrate_set_speed" => call::<MigrateSetSpeed, _>(vm, args),
        "migrate_set_downtime" => call::<MigrateSetDowntime, _>(vm, args),
        "client_migrate_info" => call::<ClientMigrateInfo, _>(vm, args),
        "dump-guest-memory" => call::<DumpGuestMemory, _>(vm, args),
        "netdev_add" => call::<NetdevAdd, _>(vm, args),
        "netdev_del" => call::<NetdevDel, _>(vm, args),
        "block_resize" => call::<BlockResize, _>(vm, args),
        "block-stream" => call::<BlockStream, _>(vm, args),
        "block-commit" => call::<BlockCommit, _>(vm, args),
        "drive-backup" => call::<DriveBackupCommand, _>(vm, args),
        "block-job-set-speed" => call::<BlockJobSetSpeed, _>(vm, args),
        "block-job-cancel" => call::<BlockJobCancel, _>(vm, args),
        "block-job-pause" => call::<BlockJobPause, _>(vm, args),
        "block-job-resume" => call::<BlockJobResume, _>(vm, args),
        "block-job-complete" => call::<BlockJobComplete, _>(vm, args),
        "transaction" => call::<Transaction, _>(vm, args),
        "blockdev-snapshot-sync" => call::<BlockdevSnapshotSync, _>(vm, args),
        "blockdev-snapshot-internal-sync" => call::<BlockdevSnapshotInternalSync, _>(vm, args),
        "blockdev-snapshot-delete-internal-sync" => call::<BlockdevSnapshotDeleteInternalSync, _>(vm, args),
        "drive-mirror" => call::<DriveMirror, _>(vm, args),
        "balloon" => call::<Balloon, _>(vm, args),
        "set_link" => call::<SetLink, _>(vm, args),
        "getfd" => call::<Getfd, _>(vm, args),
        "closefd" => call::<Closefd, _>(vm, args),
        "add-fd" => call::<AddFd, _>(vm, args),
        "remove-fd" => call::<RemoveFd, _>(vm, args),
        "query-fdsets" => call::<QueryFdsets, _>(vm, args),
        "block_passwd" => call::<BlockPasswd, _>(vm, args),
        "block_set_io_throttle" => call::<BlockSetIoThrottle, _>(vm, args),
        "add_client" => call::<AddClient, _>(vm, args),
        "human-monitor-command" => call::<HumanMonitorCommand, _>(vm, args),
        "query-version" => call::<QueryVersion, _>(vm, args),
        "query-commands" => call::<QueryCommands, _>(&mut crate::own::Tables, args),
        "query-events" => call::<QueryEvents, _>(&mut crate::own::Tables, args),
        "query-chardev" => call::<QueryChardev, _>(vm, args),
        "query-block" => call::<QueryBlock, _>(vm, args),
        "query-blockstats" => call::<QueryBlockstats, _>(vm, args),
        "query-cpus" => call::<QueryCpus, _>(vm, args),
        "query-pci" => call::<QueryPci, _>(vm, args),
        "query-kvm" => call::<QueryKvm, _>(vm, args),
        "query-status" => call::<QueryStatus, _>(vm, args),
        "query-mice" => call::<QueryMice, _>(vm, args),
        "query-vnc" => call::<QueryVnc, _>(vm, args),
        "query-name" => call::<QueryName, _>(vm, args),
        "query-uuid" => call::<QueryUuid, _>(vm, args),
        "query-command-line-options" => call::<QueryCommandLineOptions, _>(vm, args),
        "query-migrate" => call::<QueryMigrate, _>(vm, args),
        "migrate-set-capabilities" => call::<MigrateSetCapabilities, _>(vm, args),
        "query-migrate-capabilities" => call::<QueryMigrateCapabilities, _>(vm, args),
        "query-balloon" => call::<QueryBalloon, _>(vm, args),
        "query-block-jobs" => call::<QueryBlockJobs, _>(vm, args),
        "qom-list" => call::<QomList, _>(vm, args),
        "qom-set" => call::<QomSet, _>(vm, args),
        "qom-get" => call::<QomGet, _>(vm, args),
        "nbd-server-start" => call::<NbdServerStart, _>(vm, args),
        "nbd-server-add" => call::<NbdServerAdd, _>(vm, args),
        "nbd-server-stop" => call::<NbdServerStop, _>(vm, args),
        "qom-list-types" => call::<QomListTypes, _>(vm, args),
        "device-list-properties" => call::<DeviceListProperties, _>(vm, args),
        "query-machines" => call::<QueryMachines, _>(vm, args),
        "query-cpu-definitions" => call::<QueryCpuDefinitions, _>(vm, args),
        "query-target" => call::<QueryTarget, _>(vm, args),
        "query-tpm" => call::<QueryTpm, _>(vm, args),
        "query-tpm-models" => call::<QueryTpmModels, _>(vm, args),
        "query-tpm-types" => call::<QueryTpmTypes, _>(vm, args),
        "chardev-add" => call::<ChardevAdd, _>(vm, args),
        "chardev-remove" => call::<ChardevRemove, _>(vm, args),
        "query-rx-filter" => call::<QueryRxFilter, _>(vm, args),
        "blockdev-add" => call::<BlockdevAdd, _>(vm, args),
        "chardev-change" => call::<ChardevChange, _>(vm, args),
        "chardev-send-break" => call::<ChardevSendBreak, _>(vm, args),
        "x-pulse-save-restore" => call::<XPulseSaveRestore, _>(vm, args),
        "x-system-sleep" => call::<XSystemSleep, _>(vm, args),
        "query-qmp-schema" => call::<QueryQmpSchema, _>(&mut crate::own::Tables, args),
        "query-cpus-fast" => call::<QueryCpusFast, _>(vm, args),
        "query-vm-generation-id" => call::<QueryVmGenerationId, _>(vm, args),
        "query-current-machine" => call::<QueryCurrentMachine, _>(vm, args),
        "query-dump-guest-memory-capability" => call::<QueryDumpGuestMemoryCapability, _>(vm, args),
        "query-dump" => call::<QueryDump, _>(vm, args),
        "query-memory-size-summary" => call::<QueryMemorySizeSummary, _>(vm, args),
        "migrate-start-postcopy" => call::<MigrateStartPostcopy, _>(vm, args),
        "migrate-set-parameters" => call::<MigrateSetParameters, _>(vm, args),
        "query-migrate-parameters" => call::<QueryMigrateParameters, _>(vm, args),
        "migrate-incoming" => call::<MigrateIncoming, _>(vm, args),
        "qom-list-properties" => call::<QomListProperties, _>(vm, args),
        "object-add" => call::<ObjectAdd, _>(vm, args),
        "object-del" => call::<ObjectDel, _>(vm, args),
        "query-memdev" => call::<QueryMemdev, _>(vm, args),
        "query-iothreads" => call::<QueryIothreads, _>(vm, args),
        "watchdog-set-action" => call::<WatchdogSetAction, _>(vm, args),
        "set-action" => call::<SetAction, _>(vm, args),
        _ => Err(QmpError::command_not_found(name)),
    }
}

/// Every command, in the order of registration.
pub static COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "quit", args: Quit::ARGS },
    CommandSpec { name: "eject", args: Eject::ARGS },
    CommandSpec { name: "change", args: Change::ARGS },
    CommandSpec { name: "stop", args: Stop::ARGS },
    CommandSpec { name: "cont", args: Cont::ARGS },
    CommandSpec { name: "system_wakeup", args: SystemWakeup::ARGS },
    CommandSpec { name: "system_reset", args: SystemReset::ARGS },
    CommandSpec { name: "system_powerdown", args: SystemPowerdown::ARGS },
    CommandSpec { name: "device_add", args: DeviceAdd::ARGS },
    CommandSpec { name: "device_del", args: DeviceDel::ARGS },
    CommandSpec { name: "cpu", args: Cpu::ARGS },
    CommandSpec { name: "cpu-add", args: CpuAdd::ARGS },
    CommandSpec { name: "memsave", args: Memsave::ARGS },
    CommandSpec { name: "pmemsave", args: Pmemsave::ARGS },
    CommandSpec { name: "inject-nmi", args: InjectNmi::ARGS },
    CommandSpec { name: "ringbuf-write", args: RingbufWrite::ARGS },
    CommandSpec { name: "ringbuf-read", args: RingbufRead::ARGS },
    CommandSpec { name: "xen-save-devices-state", args: XenSaveDevicesState::ARGS },
    CommandSpec { name: "xen-set-global-dirty-log", args: XenSetGlobalDirtyLog::ARGS },
    CommandSpec { name: "migrate", args: Migrate::ARGS },
    CommandSpec { name: "migrate_cancel", args: MigrateCancel::ARGS },
    CommandSpec { name: "migrate-set-cache-size", args: MigrateSetCacheSize::ARGS },
    CommandSpec { name: "query-migrate-cache-size", args: QueryMigrateCacheSize::ARGS },
    CommandSpec { name: "migrate_set_speed", args: MigrateSetSpeed::ARGS },
    CommandSpec { name: "migrate_set_downtime", args: MigrateSetDowntime::ARGS },
    CommandSpec { name: "client_migrate_info", args: ClientMigrateInfo::ARGS },
    CommandSpec { name: "dump-guest-memory", args: DumpGuestMemory::ARGS },
    CommandSpec { name: "netdev_add", args: NetdevAdd::ARGS },
    CommandSpec { name: "netdev_del", args: NetdevDel::ARGS },
    CommandSpec { name: "block_resize", args: BlockResize::ARGS },
    CommandSpec { name: "block-stream", args: BlockStream::ARGS },
    CommandSpec { name: "block-commit", args: BlockCommit::ARGS },
    CommandSpec { name: "drive-backup", args: DriveBackupCommand::ARGS },
    CommandSpec { name: "block-job-set-speed", args: BlockJobSetSpeed::ARGS },
    CommandSpec { name: "block-job-cancel", args: BlockJobCancel::ARGS },
    CommandSpec { name: "block-job-pause", args: BlockJobPause::ARGS },
    CommandSpec { name: "block-job-resume", args: BlockJobResume::ARGS },
    CommandSpec { name: "block-job-complete", args: BlockJobComplete::ARGS },
    CommandSpec { name: "transaction", args: Transaction::ARGS },
    CommandSpec { name: "blockdev-snapshot-sync", args: BlockdevSnapshotSync::ARGS },
    CommandSpec { name: "blockdev-snapshot-internal-sync", args: BlockdevSnapshotInternalSync::ARGS },
    CommandSpec { name: "blockdev-snapshot-delete-internal-sync", args: BlockdevSnapshotDeleteInternalSync::ARGS },
    CommandSpec { name: "drive-mirror", args: DriveMirror::ARGS },
    CommandSpec { name: "balloon", args: Balloon::ARGS },
    CommandSpec { name: "set_link", args: SetLink::ARGS },
    CommandSpec { name: "getfd", args: Getfd::ARGS },
    CommandSpec { name: "closefd", args: Closefd::ARGS },
    CommandSpec { name: "add-fd", args: AddFd::ARGS },
    CommandSpec { name: "remove-fd", args: RemoveFd::ARGS },
    CommandSpec { name: "query-fdsets", args: QueryFdsets::ARGS },
    CommandSpec { name: "block_passwd", args: BlockPasswd::ARGS },
    CommandSpec { name: "block_set_io_throttle", args: BlockSetIoThrottle::ARGS },
    CommandSpec { name: "add_client", args: AddClient::ARGS },
    CommandSpec { name: "qmp_capabilities", args: QmpCapabilities::ARGS },
    CommandSpec { name: "human-monitor-command", args: HumanMonitorCommand::ARGS },
    CommandSpec { name: "query-version", args: QueryVersion::ARGS },
    CommandSpec { name: "query-commands", args: QueryCommands::ARGS },
    CommandSpec { name: "query-events", args: QueryEvents::ARGS },
    CommandSpec { name: "query-chardev", args: QueryChardev::ARGS },
    CommandSpec { name: "query-block", args: QueryBlock::ARGS },
    CommandSpec { name: "query-blockstats", args: QueryBlockstats::ARGS },
    CommandSpec { name: "query-cpus", args: QueryCpus::ARGS },
    CommandSpec { name: "query-pci", args: QueryPci::ARGS },
    CommandSpec { name: "query-kvm", args: QueryKvm::ARGS },
    CommandSpec { name: "query-status", args: QueryStatus::ARGS },
    CommandSpec { name: "query-mice", args: QueryMice::ARGS },
    CommandSpec { name: "query-vnc", args: QueryVnc::ARGS },
    CommandSpec { name: "query-name", args: QueryName::ARGS },
    CommandSpec { name: "query-uuid", args: QueryUuid::ARGS },
    CommandSpec { name: "query-command-line-options", args: QueryCommandLineOptions::ARGS },
    CommandSpec { name: "query-migrate", args: QueryMigrate::ARGS },
    CommandSpec { name: "migrate-set-capabilities", args: MigrateSetCapabilities::ARGS },
    CommandSpec { name: "query-migrate-capabilities", args: QueryMigrateCapabilities::ARGS },
    CommandSpec { name: "query-balloon", args: QueryBalloon::ARGS },
    CommandSpec { name: "query-block-jobs", args: QueryBlockJobs::ARGS },
    CommandSpec { name: "qom-list", args: QomList::ARGS },
    CommandSpec { name: "qom-set", args: QomSet::ARGS },
    CommandSpec { name: "qom-get", args: QomGet::ARGS },
    CommandSpec { name: "nbd-server-start", args: NbdServerStart::ARGS },
    CommandSpec { name: "nbd-server-add", args: NbdServerAdd::ARGS },
    CommandSpec { name: "nbd-server-stop", args: NbdServerStop::ARGS },
    CommandSpec { name: "qom-list-types", args: QomListTypes::ARGS },
    CommandSpec { name: "device-list-properties", args: DeviceListProperties::ARGS },
    CommandSpec { name: "query-machines", args: QueryMachines::ARGS },
    CommandSpec { name: "query-cpu-definitions", args: QueryCpuDefinitions::ARGS },
    CommandSpec { name: "query-target", args: QueryTarget::ARGS },
    CommandSpec { name: "query-tpm", args: QueryTpm::ARGS },
    CommandSpec { name: "query-tpm-models", args: QueryTpmModels::ARGS },
    CommandSpec { name: "query-tpm-types", args: QueryTpmTypes::ARGS },
    CommandSpec { name: "chardev-add", args: ChardevAdd::ARGS },
    CommandSpec { name: "chardev-remove", args: ChardevRemove::ARGS },
    CommandSpec { name: "query-rx-filter", args: QueryRxFilter::ARGS },
    CommandSpec { name: "blockdev-add", args: BlockdevAdd::ARGS },
    CommandSpec { name: "chardev-change", args: ChardevChange::ARGS },
    CommandSpec { name: "chardev-send-break", args: ChardevSendBreak::ARGS },
    CommandSpec { name: "x-pulse-save-restore", args: XPulseSaveRestore::ARGS },
    CommandSpec { name: "x-system-sleep", args: XSystemSleep::ARGS },
    CommandSpec { name: "query-qmp-schema", args: QueryQmpSchema::ARGS },
    CommandSpec { name: "query-cpus-fast", args: QueryCpusFast::ARGS },
    CommandSpec { name: "query-vm-generation-id", args: QueryVmGenerationId::ARGS },
    CommandSpec { name: "query-current-machine", args: QueryCurrentMachine::ARGS },
    CommandSpec { name: "query-dump-guest-memory-capability", args: QueryDumpGuestMemoryCapability::ARGS },
    CommandSpec { name: "query-dump", args: QueryDump::ARGS },
    CommandSpec { name: "query-memory-size-summary", args: QueryMemorySizeSummary::ARGS },
    CommandSpec { name: "migrate-start-postcopy", args: MigrateStartPostcopy::ARGS },
    CommandSpec { name: "migrate-set-parameters", args: MigrateSetParameters::ARGS },
    CommandSpec { name: "query-migrate-parameters", args: QueryMigrateParameters::ARGS },
    CommandSpec { name: "migrate-incoming", args: MigrateIncoming::ARGS },
    CommandSpec { name: "qom-list-properties", args: QomListProperties::ARGS },
    CommandSpec { name: "object-add", args: ObjectAdd::ARGS },
    CommandSpec { name: "object-del", args: ObjectDel::ARGS },
    CommandSpec { name: "query-memdev", args: QueryMemdev::ARGS },
    CommandSpec { name: "query-iothreads", args: QueryIothreads::ARGS },
    CommandSpec { name: "watchdog-set-action", args: WatchdogSetAction::ARGS },
    CommandSpec { name: "set-action", args: SetAction::ARGS },
];

/// Commands that have types and no handler: clients are told they do not exist.
pub static PENDING: &[&str] = &[
    "screendump",
    "send-key",
    "set_password",
    "expire_password",
    "query-spice",
    "change-vnc-password",
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
    /// A VNC client connected; nothing is known of it yet.
    #[serde(rename = "VNC_CONNECTED")]
    VncConnected {
        /// The server.
        server: VncServerInfo,
        /// The client.
        client: VncClientInfo,
    },
    /// A VNC client may now use the display.
    #[serde(rename = "VNC_INITIALIZED")]
    VncInitialized {
        /// The server.
        server: VncServerInfo,
        /// The client.
        client: VncClientInfo,
    },
    /// A VNC client is gone.
    #[serde(rename = "VNC_DISCONNECTED")]
    VncDisconnected {
        /// The server.
        server: VncServerInfo,
        /// The client.
        client: VncClientInfo,
    },
    /// A guest's request to a drive failed.
    #[serde(rename = "BLOCK_IO_ERROR")]
    BlockIoError {
        /// The drive.
        device: String,
        /// Which way it went.
        operation: IoOperationType,
        /// What is done about it.
        action: BlockErrorAction,
    },
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
    /// A SPICE client connected.
    #[serde(rename = "SPICE_CONNECTED")]
    SpiceConnected {
        /// The server.
        server: SpiceBasicInfo,
        /// The client.
        client: SpiceBasicInfo,
    },
    /// A SPICE client's channel is in use.
    #[serde(rename = "SPICE_INITIALIZED")]
    SpiceInitialized {
        /// The server.
        server: SpiceServerInfo,
        /// The channel.
        client: SpiceChannel,
    },
    /// A SPICE client's channel is gone.
    #[serde(rename = "SPICE_DISCONNECTED")]
    SpiceDisconnected {
        /// The server.
        server: SpiceBasicInfo,
        /// The client.
        client: SpiceBasicInfo,
    },
    /// A job ended, well or with an error.
    #[serde(rename = "BLOCK_JOB_COMPLETED")]
    BlockJobCompleted {
        /// The drive.
        device: String,
        /// How far it had to go.
        len: i64,
        /// How far it got.
        offset: i64,
        /// Bytes per second at most.
        speed: i64,
        /// What it does.
        r#type: BlockJobType,
        /// What went wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A job ended because it was asked to.
    #[serde(rename = "BLOCK_JOB_CANCELLED")]
    BlockJobCancelled {
        /// The drive.
        device: String,
        /// How far it had to go.
        len: i64,
        /// How far it got.
        offset: i64,
        /// Bytes per second at most.
        speed: i64,
        /// What it does.
        r#type: BlockJobType,
    },
    /// A job's request failed.
    #[serde(rename = "BLOCK_JOB_ERROR")]
    BlockJobError {
        /// The drive whose job it is.
        device: String,
        /// `read` for the source, `write` for the target.
        operation: IoOperationType,
        /// What is done about it.
        action: BlockErrorAction,
    },
    /// A mirror is in step and can be completed.
    #[serde(rename = "BLOCK_JOB_READY")]
    BlockJobReady {
        /// The drive.
        device: String,
        /// How far it had to go.
        len: i64,
        /// How far it got.
        offset: i64,
        /// Bytes per second at most.
        speed: i64,
        /// What it does.
        r#type: BlockJobType,
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
    /// A drive's tray opened or closed.
    #[serde(rename = "DEVICE_TRAY_MOVED")]
    DeviceTrayMoved {
        /// The drive.
        device: String,
        /// Whether it is open now.
        #[serde(rename = "tray-open")]
        tray_open: bool,
    },
    /// The guest changed what a card receives; the next event comes after a query.
    #[serde(rename = "NIC_RX_FILTER_CHANGED")]
    NicRxFilterChanged {
        /// The card's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its place in the object tree.
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
    /// The guest's balloon grew or shrank.
    #[serde(rename = "BALLOON_CHANGE")]
    BalloonChange {
        /// Bytes of memory the guest has left.
        actual: i64,
    },
    /// The SPICE clients went along with the machine.
    #[serde(rename = "SPICE_MIGRATE_COMPLETED")]
    SpiceMigrateCompleted,
    /// The guest reported that it cannot go on.
    #[serde(rename = "GUEST_PANICKED")]
    GuestPanicked {
        /// What is done about it.
        action: GuestPanicAction,
    },
    /// An image would have been damaged, and is not written any more.
    #[serde(rename = "BLOCK_IMAGE_CORRUPTED")]
    BlockImageCorrupted {
        /// The drive, or nothing for a layer without a name.
        device: String,
        /// What was wrong.
        msg: String,
        /// Where in the image, in bytes.
        offset: i64,
        /// How many bytes.
        size: i64,
    },
    /// A program of the guest opened or closed a virtio serial port. Newer than the version of this interface.
    #[serde(rename = "VSERPORT_CHANGE")]
    VserportChange {
        /// Whether the port is open now.
        open: bool,
        /// The id of the port's device.
        id: String,
    },
    /// A dump that was told to detach has ended.
    #[serde(rename = "DUMP_COMPLETED")]
    DumpCompleted {
        /// The dump.
        result: DumpQueryResult,
        /// Why it could not be written.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The guest reported that it cannot go on, and has started another kernel to deal with that.
    #[serde(rename = "GUEST_CRASHLOADED")]
    GuestCrashloaded {
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
            Self::VncConnected { .. } => "VNC_CONNECTED",
            Self::VncInitialized { .. } => "VNC_INITIALIZED",
            Self::VncDisconnected { .. } => "VNC_DISCONNECTED",
            Self::BlockIoError { .. } => "BLOCK_IO_ERROR",
            Self::RtcChange { .. } => "RTC_CHANGE",
            Self::Watchdog { .. } => "WATCHDOG",
            Self::SpiceConnected { .. } => "SPICE_CONNECTED",
            Self::SpiceInitialized { .. } => "SPICE_INITIALIZED",
            Self::SpiceDisconnected { .. } => "SPICE_DISCONNECTED",
            Self::BlockJobCompleted { .. } => "BLOCK_JOB_COMPLETED",
            Self::BlockJobCancelled { .. } => "BLOCK_JOB_CANCELLED",
            Self::BlockJobError { .. } => "BLOCK_JOB_ERROR",
            Self::BlockJobReady { .. } => "BLOCK_JOB_READY",
            Self::DeviceDeleted { .. } => "DEVICE_DELETED",
            Self::DeviceTrayMoved { .. } => "DEVICE_TRAY_MOVED",
            Self::NicRxFilterChanged { .. } => "NIC_RX_FILTER_CHANGED",
            Self::Suspend => "SUSPEND",
            Self::SuspendDisk => "SUSPEND_DISK",
            Self::Wakeup => "WAKEUP",
            Self::BalloonChange { .. } => "BALLOON_CHANGE",
            Self::SpiceMigrateCompleted => "SPICE_MIGRATE_COMPLETED",
            Self::GuestPanicked { .. } => "GUEST_PANICKED",
            Self::BlockImageCorrupted { .. } => "BLOCK_IMAGE_CORRUPTED",
            Self::VserportChange { .. } => "VSERPORT_CHANGE",
            Self::DumpCompleted { .. } => "DUMP_COMPLETED",
            Self::GuestCrashloaded { .. } => "GUEST_CRASHLOADED",
        }
    }

    /// The period in which clients are told of one of the kind at most.
    pub fn rate_limit(&self) -> Option<Duration> {
        match self {
            Self::RtcChange { .. } => Some(Duration::from_millis(1000)),
            Self::Watchdog { .. } => Some(Duration::from_millis(1000)),
            Self::BalloonChange { .. } => Some(Duration::from_millis(1000)),
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
    "VNC_CONNECTED",
    "VNC_INITIALIZED",
    "VNC_DISCONNECTED",
    "BLOCK_IO_ERROR",
    "RTC_CHANGE",
    "WATCHDOG",
    "SPICE_CONNECTED",
    "SPICE_INITIALIZED",
    "SPICE_DISCONNECTED",
    "BLOCK_JOB_COMPLETED",
    "BLOCK_JOB_CANCELLED",
    "BLOCK_JOB_ERROR",
    "BLOCK_JOB_READY",
    "DEVICE_DELETED",
    "DEVICE_TRAY_MOVED",
    "NIC_RX_FILTER_CHANGED",
    "SUSPEND",
    "SUSPEND_DISK",
    "WAKEUP",
    "BALLOON_CHANGE",
    "SPICE_MIGRATE_COMPLETED",
    "GUEST_PANICKED",
    "BLOCK_IMAGE_CORRUPTED",
    "VSERPORT_CHANGE",
    "DUMP_COMPLETED",
    "GUEST_CRASHLOADED",
];

/// Commands, events and types for clients that look before they ask.
pub(crate) static INTROSPECTION: &[Entity] = &[
    Entity { name: "quit", kind: What::Command("0", "0") },
    Entity { name: "eject", kind: What::Command("1", "0") },
    Entity { name: "change", kind: What::Command("2", "0") },
    Entity { name: "stop", kind: What::Command("0", "0") },
    Entity { name: "cont", kind: What::Command("0", "0") },
    Entity { name: "system_wakeup", kind: What::Command("0", "0") },
    Entity { name: "system_reset", kind: What::Command("0", "0") },
    Entity { name: "system_powerdown", kind: What::Command("0", "0") },
    Entity { name: "device_add", kind: What::Command("0", "0") },
    Entity { name: "device_del", kind: What::Command("3", "0") },
    Entity { name: "cpu", kind: What::Command("4", "0") },
    Entity { name: "cpu-add", kind: What::Command("5", "0") },
    Entity { name: "memsave", kind: What::Command("6", "0") },
    Entity { name: "pmemsave", kind: What::Command("7", "0") },
    Entity { name: "inject-nmi", kind: What::Command("0", "0") },
    Entity { name: "ringbuf-write", kind: What::Command("8", "0") },
    Entity { name: "ringbuf-read", kind: What::Command("9", "str") },
    Entity { name: "xen-save-devices-state", kind: What::Command("10", "0") },
    Entity { name: "xen-set-global-dirty-log", kind: What::Command("11", "0") },
    Entity { name: "migrate", kind: What::Command("12", "0") },
    Entity { name: "migrate_cancel", kind: What::Command("0", "0") },
    Entity { name: "migrate-set-cache-size", kind: What::Command("13", "0") },
    Entity { name: "query-migrate-cache-size", kind: What::Command("0", "int") },
    Entity { name: "migrate_set_speed", kind: What::Command("14", "0") },
    Entity { name: "migrate_set_downtime", kind: What::Command("15", "0") },
    Entity { name: "client_migrate_info", kind: What::Command("16", "0") },
    Entity { name: "dump-guest-memory", kind: What::Command("17", "0") },
    Entity { name: "netdev_add", kind: What::Command("18", "0") },
    Entity { name: "netdev_del", kind: What::Command("19", "0") },
    Entity { name: "block_resize", kind: What::Command("20", "0") },
    Entity { name: "block-stream", kind: What::Command("21", "0") },
    Entity { name: "block-commit", kind: What::Command("22", "0") },
    Entity { name: "drive-backup", kind: What::Command("23", "0") },
    Entity { name: "block-job-set-speed", kind: What::Command("24", "0") },
    Entity { name: "block-job-cancel", kind: What::Command("25", "0") },
    Entity { name: "block-job-pause", kind: What::Command("26", "0") },
    Entity { name: "block-job-resume", kind: What::Command("27", "0") },
    Entity { name: "block-job-complete", kind: What::Command("28", "0") },
    Entity { name: "transaction", kind: What::Command("29", "0") },
    Entity { name: "blockdev-snapshot-sync", kind: What::Command("30", "0") },
    Entity { name: "blockdev-snapshot-internal-sync", kind: What::Command("31", "0") },
    Entity { name: "blockdev-snapshot-delete-internal-sync", kind: What::Command("32", "33") },
    Entity { name: "drive-mirror", kind: What::Command("34", "0") },
    Entity { name: "balloon", kind: What::Command("35", "0") },
    Entity { name: "set_link", kind: What::Command("36", "0") },
    Entity { name: "getfd", kind: What::Command("37", "0") },
    Entity { name: "closefd", kind: What::Command("38", "0") },
    Entity { name: "add-fd", kind: What::Command("39", "40") },
    Entity { name: "remove-fd", kind: What::Command("41", "0") },
    Entity { name: "query-fdsets", kind: What::Command("0", "[42]") },
    Entity { name: "block_passwd", kind: What::Command("43", "0") },
    Entity { name: "block_set_io_throttle", kind: What::Command("44", "0") },
    Entity { name: "add_client", kind: What::Command("45", "0") },
    Entity { name: "qmp_capabilities", kind: What::Command("46", "0") },
    Entity { name: "human-monitor-command", kind: What::Command("47", "str") },
    Entity { name: "query-version", kind: What::Command("0", "48") },
    Entity { name: "query-commands", kind: What::Command("0", "[49]") },
    Entity { name: "query-events", kind: What::Command("0", "[50]") },
    Entity { name: "query-chardev", kind: What::Command("0", "[51]") },
    Entity { name: "query-block", kind: What::Command("0", "[52]") },
    Entity { name: "query-blockstats", kind: What::Command("0", "[53]") },
    Entity { name: "query-cpus", kind: What::Command("0", "[54]") },
    Entity { name: "query-pci", kind: What::Command("0", "[55]") },
    Entity { name: "query-kvm", kind: What::Command("0", "56") },
    Entity { name: "query-status", kind: What::Command("0", "57") },
    Entity { name: "query-mice", kind: What::Command("0", "[58]") },
    Entity { name: "query-vnc", kind: What::Command("0", "59") },
    Entity { name: "query-name", kind: What::Command("0", "60") },
    Entity { name: "query-uuid", kind: What::Command("0", "61") },
    Entity { name: "query-command-line-options", kind: What::Command("62", "[63]") },
    Entity { name: "query-migrate", kind: What::Command("0", "64") },
    Entity { name: "migrate-set-capabilities", kind: What::Command("65", "0") },
    Entity { name: "query-migrate-capabilities", kind: What::Command("0", "[66]") },
    Entity { name: "query-balloon", kind: What::Command("0", "67") },
    Entity { name: "query-block-jobs", kind: What::Command("0", "[68]") },
    Entity { name: "qom-list", kind: What::Command("69", "[70]") },
    Entity { name: "qom-set", kind: What::Command("71", "0") },
    Entity { name: "qom-get", kind: What::Command("72", "any") },
    Entity { name: "nbd-server-start", kind: What::Command("73", "0") },
    Entity { name: "nbd-server-add", kind: What::Command("74", "0") },
    Entity { name: "nbd-server-stop", kind: What::Command("0", "0") },
    Entity { name: "qom-list-types", kind: What::Command("75", "[76]") },
    Entity { name: "device-list-properties", kind: What::Command("77", "[78]") },
    Entity { name: "query-machines", kind: What::Command("0", "[79]") },
    Entity { name: "query-cpu-definitions", kind: What::Command("0", "[80]") },
    Entity { name: "query-target", kind: What::Command("0", "81") },
    Entity { name: "query-tpm", kind: What::Command("0", "[82]") },
    Entity { name: "query-tpm-models", kind: What::Command("0", "[83]") },
    Entity { name: "query-tpm-types", kind: What::Command("0", "[84]") },
    Entity { name: "chardev-add", kind: What::Command("85", "86") },
    Entity { name: "chardev-remove", kind: What::Command("87", "0") },
    Entity { name: "query-rx-filter", kind: What::Command("88", "[89]") },
    Entity { name: "blockdev-add", kind: What::Command("90", "0") },
    Entity { name: "chardev-change", kind: What::Command("91", "86") },
    Entity { name: "chardev-send-break", kind: What::Command("92", "0") },
    Entity { name: "x-pulse-save-restore", kind: What::Command("0", "0") },
    Entity { name: "x-system-sleep", kind: What::Command("0", "0") },
    Entity { name: "query-qmp-schema", kind: What::Command("0", "[93]") },
    Entity { name: "query-cpus-fast", kind: What::Command("0", "[94]") },
    Entity { name: "query-vm-generation-id", kind: What::Command("0", "95") },
    Entity { name: "query-current-machine", kind: What::Command("0", "96") },
    Entity { name: "query-dump-guest-memory-capability", kind: What::Command("0", "97") },
    Entity { name: "query-dump", kind: What::Command("0", "98") },
    Entity { name: "query-memory-size-summary", kind: What::Command("0", "99") },
    Entity { name: "migrate-start-postcopy", kind: What::Command("0", "0") },
    Entity { name: "migrate-set-parameters", kind: What::Command("100", "0") },
    Entity { name: "query-migrate-parameters", kind: What::Command("0", "101") },
    Entity { name: "migrate-incoming", kind: What::Command("102", "0") },
    Entity { name: "qom-list-properties", kind: What::Command("103", "[70]") },
    Entity { name: "object-add", kind: What::Command("104", "0") },
    Entity { name: "object-del", kind: What::Command("105", "0") },
    Entity { name: "query-memdev", kind: What::Command("0", "[106]") },
    Entity { name: "query-iothreads", kind: What::Command("0", "[107]") },
    Entity { name: "watchdog-set-action", kind: What::Command("108", "0") },
    Entity { name: "set-action", kind: What::Command("109", "0") },
    Entity { name: "SHUTDOWN", kind: What::Event("110") },
    Entity { name: "RESET", kind: What::Event("111") },
    Entity { name: "POWERDOWN", kind: What::Event("0") },
    Entity { name: "STOP", kind: What::Event("0") },
    Entity { name: "RESUME", kind: What::Event("0") },
    Entity { name: "VNC_CONNECTED", kind: What::Event("112") },
    Entity { name: "VNC_INITIALIZED", kind: What::Event("113") },
    Entity { name: "VNC_DISCONNECTED", kind: What::Event("114") },
    Entity { name: "BLOCK_IO_ERROR", kind: What::Event("115") },
    Entity { name: "RTC_CHANGE", kind: What::Event("116") },
    Entity { name: "WATCHDOG", kind: What::Event("117") },
    Entity { name: "SPICE_CONNECTED", kind: What::Event("118") },
    Entity { name: "SPICE_INITIALIZED", kind: What::Event("119") },
    Entity { name: "SPICE_DISCONNECTED", kind: What::Event("120") },
    Entity { name: "BLOCK_JOB_COMPLETED", kind: What::Event("121") },
    Entity { name: "BLOCK_JOB_CANCELLED", kind: What::Event("122") },
    Entity { name: "BLOCK_JOB_ERROR", kind: What::Event("123") },
    Entity { name: "BLOCK_JOB_READY", kind: What::Event("124") },
    Entity { name: "DEVICE_DELETED", kind: What::Event("125") },
    Entity { name: "DEVICE_TRAY_MOVED", kind: What::Event("126") },
    Entity { name: "NIC_RX_FILTER_CHANGED", kind: What::Event("127") },
    Entity { name: "SUSPEND", kind: What::Event("0") },
    Entity { name: "SUSPEND_DISK", kind: What::Event("0") },
    Entity { name: "WAKEUP", kind: What::Event("0") },
    Entity { name: "BALLOON_CHANGE", kind: What::Event("128") },
    Entity { name: "SPICE_MIGRATE_COMPLETED", kind: What::Event("0") },
    Entity { name: "GUEST_PANICKED", kind: What::Event("129") },
    Entity { name: "BLOCK_IMAGE_CORRUPTED", kind: What::Event("130") },
    Entity { name: "VSERPORT_CHANGE", kind: What::Event("131") },
    Entity { name: "DUMP_COMPLETED", kind: What::Event("132") },
    Entity { name: "GUEST_CRASHLOADED", kind: What::Event("133") },
    Entity { name: "0", kind: What::Object { members: &[], tag: None, cases: &[] } },
    Entity { name: "1", kind: What::Object { members: &[("device", "str", false), ("force", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "2", kind: What::Object { members: &[("device", "str", false), ("target", "str", false), ("arg", "str", true)], tag: None, cases: &[] } },
    Entity { name: "3", kind: What::Object { members: &[("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "4", kind: What::Object { members: &[("index", "int", false)], tag: None, cases: &[] } },
    Entity { name: "5", kind: What::Object { members: &[("id", "int", false)], tag: None, cases: &[] } },
    Entity { name: "6", kind: What::Object { members: &[("cpu", "int", true), ("filename", "str", false), ("size", "int", false), ("val", "int", false), ("cpu-index", "int", true)], tag: None, cases: &[] } },
    Entity { name: "7", kind: What::Object { members: &[("filename", "str", false), ("size", "int", false), ("val", "int", false)], tag: None, cases: &[] } },
    Entity { name: "8", kind: What::Object { members: &[("device", "str", false), ("format", "134", true), ("data", "str", false)], tag: None, cases: &[] } },
    Entity { name: "9", kind: What::Object { members: &[("device", "str", false), ("size", "int", false), ("format", "134", true)], tag: None, cases: &[] } },
    Entity { name: "str", kind: What::Builtin(crate::JSONType::String) },
    Entity { name: "10", kind: What::Object { members: &[("filename", "str", false)], tag: None, cases: &[] } },
    Entity { name: "11", kind: What::Object { members: &[("enable", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "12", kind: What::Object { members: &[("uri", "str", false), ("blk", "bool", true), ("inc", "bool", true), ("detach", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "13", kind: What::Object { members: &[("value", "int", false)], tag: None, cases: &[] } },
    Entity { name: "int", kind: What::Builtin(crate::JSONType::Int) },
    Entity { name: "14", kind: What::Object { members: &[("value", "int", false)], tag: None, cases: &[] } },
    Entity { name: "15", kind: What::Object { members: &[("value", "number", false)], tag: None, cases: &[] } },
    Entity { name: "16", kind: What::Object { members: &[("protocol", "str", false), ("hostname", "str", false), ("port", "int", true), ("tls-port", "int", true), ("cert-subject", "str", true)], tag: None, cases: &[] } },
    Entity { name: "17", kind: What::Object { members: &[("length", "int", true), ("end", "int", true), ("begin", "int", true), ("protocol", "str", false), ("paging", "bool", false), ("detach", "bool", true), ("format", "135", true)], tag: None, cases: &[] } },
    Entity { name: "18", kind: What::Object { members: &[("id", "str", false), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "19", kind: What::Object { members: &[("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "20", kind: What::Object { members: &[("device", "str", false), ("size", "int", false)], tag: None, cases: &[] } },
    Entity { name: "21", kind: What::Object { members: &[("device", "str", false), ("base", "str", true), ("speed", "int", true), ("on-error", "136", true)], tag: None, cases: &[] } },
    Entity { name: "22", kind: What::Object { members: &[("device", "str", false), ("base", "str", true), ("top", "str", false), ("speed", "int", true)], tag: None, cases: &[] } },
    Entity { name: "23", kind: What::Object { members: &[("device", "str", false), ("target", "str", false), ("format", "str", true), ("sync", "137", false), ("mode", "138", true), ("speed", "int", true), ("on-source-error", "136", true), ("on-target-error", "136", true)], tag: None, cases: &[] } },
    Entity { name: "24", kind: What::Object { members: &[("device", "str", false), ("speed", "int", false)], tag: None, cases: &[] } },
    Entity { name: "25", kind: What::Object { members: &[("device", "str", false), ("force", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "26", kind: What::Object { members: &[("device", "str", false)], tag: None, cases: &[] } },
    Entity { name: "27", kind: What::Object { members: &[("device", "str", false)], tag: None, cases: &[] } },
    Entity { name: "28", kind: What::Object { members: &[("device", "str", false)], tag: None, cases: &[] } },
    Entity { name: "29", kind: What::Object { members: &[("actions", "[139]", false)], tag: None, cases: &[] } },
    Entity { name: "30", kind: What::Object { members: &[("device", "str", false), ("snapshot-file", "str", false), ("format", "str", true), ("mode", "138", true)], tag: None, cases: &[] } },
    Entity { name: "31", kind: What::Object { members: &[("device", "str", false), ("name", "str", false)], tag: None, cases: &[] } },
    Entity { name: "32", kind: What::Object { members: &[("device", "str", false), ("id", "str", true), ("name", "str", true)], tag: None, cases: &[] } },
    Entity { name: "33", kind: What::Object { members: &[("vm-clock-nsec", "int", false), ("name", "str", false), ("date-sec", "int", false), ("date-nsec", "int", false), ("vm-clock-sec", "int", false), ("id", "str", false), ("vm-state-size", "int", false)], tag: None, cases: &[] } },
    Entity { name: "34", kind: What::Object { members: &[("device", "str", false), ("target", "str", false), ("format", "str", true), ("sync", "137", false), ("mode", "138", true), ("speed", "int", true), ("granularity", "int", true), ("buf-size", "int", true), ("on-source-error", "136", true), ("on-target-error", "136", true)], tag: None, cases: &[] } },
    Entity { name: "35", kind: What::Object { members: &[("value", "int", false)], tag: None, cases: &[] } },
    Entity { name: "36", kind: What::Object { members: &[("name", "str", false), ("up", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "37", kind: What::Object { members: &[("fdname", "str", false)], tag: None, cases: &[] } },
    Entity { name: "38", kind: What::Object { members: &[("fdname", "str", false)], tag: None, cases: &[] } },
    Entity { name: "39", kind: What::Object { members: &[("fdset-id", "int", true), ("opaque", "str", true)], tag: None, cases: &[] } },
    Entity { name: "40", kind: What::Object { members: &[("fd", "int", false), ("fdset-id", "int", false)], tag: None, cases: &[] } },
    Entity { name: "41", kind: What::Object { members: &[("fd", "int", true), ("fdset-id", "int", false)], tag: None, cases: &[] } },
    Entity { name: "42", kind: What::Object { members: &[("fds", "[140]", false), ("fdset-id", "int", false)], tag: None, cases: &[] } },
    Entity { name: "[42]", kind: What::Array("42") },
    Entity { name: "43", kind: What::Object { members: &[("device", "str", false), ("password", "str", false)], tag: None, cases: &[] } },
    Entity { name: "44", kind: What::Object { members: &[("device", "str", false), ("bps", "int", false), ("bps_rd", "int", false), ("bps_wr", "int", false), ("iops", "int", false), ("iops_rd", "int", false), ("iops_wr", "int", false), ("bps_max", "int", true), ("bps_rd_max", "int", true), ("bps_wr_max", "int", true), ("iops_max", "int", true), ("iops_rd_max", "int", true), ("iops_wr_max", "int", true), ("iops_size", "int", true)], tag: None, cases: &[] } },
    Entity { name: "45", kind: What::Object { members: &[("protocol", "str", false), ("skipauth", "bool", true), ("tls", "bool", true), ("fdname", "str", false)], tag: None, cases: &[] } },
    Entity { name: "46", kind: What::Object { members: &[("enable", "[str]", true)], tag: None, cases: &[] } },
    Entity { name: "47", kind: What::Object { members: &[("command-line", "str", false), ("cpu-index", "int", true)], tag: None, cases: &[] } },
    Entity { name: "48", kind: What::Object { members: &[("qemu", "141", false), ("package", "str", false)], tag: None, cases: &[] } },
    Entity { name: "49", kind: What::Object { members: &[("name", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[49]", kind: What::Array("49") },
    Entity { name: "50", kind: What::Object { members: &[("name", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[50]", kind: What::Array("50") },
    Entity { name: "51", kind: What::Object { members: &[("filename", "str", false), ("label", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[51]", kind: What::Array("51") },
    Entity { name: "52", kind: What::Object { members: &[("io-status", "142", true), ("device", "str", false), ("locked", "bool", false), ("removable", "bool", false), ("inserted", "143", true), ("tray_open", "bool", true), ("dirty-bitmaps", "[144]", true), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[52]", kind: What::Array("52") },
    Entity { name: "53", kind: What::Object { members: &[("device", "str", true), ("parent", "53", true), ("stats", "145", false)], tag: None, cases: &[] } },
    Entity { name: "[53]", kind: What::Array("53") },
    Entity { name: "54", kind: What::Object { members: &[("current", "bool", false), ("CPU", "int", false), ("pc", "int", true), ("halted", "bool", false), ("thread_id", "int", false)], tag: None, cases: &[] } },
    Entity { name: "[54]", kind: What::Array("54") },
    Entity { name: "55", kind: What::Object { members: &[("bus", "int", false), ("devices", "[146]", false)], tag: None, cases: &[] } },
    Entity { name: "[55]", kind: What::Array("55") },
    Entity { name: "56", kind: What::Object { members: &[("enabled", "bool", false), ("present", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "57", kind: What::Object { members: &[("status", "147", false), ("singlestep", "bool", false), ("running", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "58", kind: What::Object { members: &[("index", "int", false), ("name", "str", false), ("current", "bool", false), ("absolute", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "[58]", kind: What::Array("58") },
    Entity { name: "59", kind: What::Object { members: &[("enabled", "bool", false), ("auth", "str", true), ("family", "str", true), ("clients", "[148]", true), ("service", "str", true), ("host", "str", true)], tag: None, cases: &[] } },
    Entity { name: "60", kind: What::Object { members: &[("name", "str", true)], tag: None, cases: &[] } },
    Entity { name: "61", kind: What::Object { members: &[("UUID", "str", false)], tag: None, cases: &[] } },
    Entity { name: "62", kind: What::Object { members: &[("option", "str", true)], tag: None, cases: &[] } },
    Entity { name: "63", kind: What::Object { members: &[("parameters", "[149]", false), ("option", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[63]", kind: What::Array("63") },
    Entity { name: "64", kind: What::Object { members: &[("expected-downtime", "int", true), ("cpu-throttle-percentage", "int", true), ("xbzrle-cache", "150", true), ("status", "str", true), ("disk", "151", true), ("setup-time", "int", true), ("downtime", "int", true), ("total-time", "int", true), ("ram", "151", true)], tag: None, cases: &[] } },
    Entity { name: "65", kind: What::Object { members: &[("capabilities", "[66]", false)], tag: None, cases: &[] } },
    Entity { name: "66", kind: What::Object { members: &[("state", "bool", false), ("capability", "152", false)], tag: None, cases: &[] } },
    Entity { name: "[66]", kind: What::Array("66") },
    Entity { name: "67", kind: What::Object { members: &[("actual", "int", false)], tag: None, cases: &[] } },
    Entity { name: "68", kind: What::Object { members: &[("io-status", "142", false), ("device", "str", false), ("busy", "bool", false), ("len", "int", false), ("offset", "int", false), ("paused", "bool", false), ("speed", "int", false), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[68]", kind: What::Array("68") },
    Entity { name: "69", kind: What::Object { members: &[("path", "str", false)], tag: None, cases: &[] } },
    Entity { name: "70", kind: What::Object { members: &[("name", "str", false), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[70]", kind: What::Array("70") },
    Entity { name: "71", kind: What::Object { members: &[("path", "str", false), ("property", "str", false), ("value", "any", false)], tag: None, cases: &[] } },
    Entity { name: "72", kind: What::Object { members: &[("path", "str", false), ("property", "str", false)], tag: None, cases: &[] } },
    Entity { name: "any", kind: What::Builtin(crate::JSONType::Value) },
    Entity { name: "73", kind: What::Object { members: &[("addr", "153", false)], tag: None, cases: &[] } },
    Entity { name: "74", kind: What::Object { members: &[("device", "str", false), ("writable", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "75", kind: What::Object { members: &[("abstract", "bool", true), ("implements", "str", true)], tag: None, cases: &[] } },
    Entity { name: "76", kind: What::Object { members: &[("name", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[76]", kind: What::Array("76") },
    Entity { name: "77", kind: What::Object { members: &[("typename", "str", false)], tag: None, cases: &[] } },
    Entity { name: "78", kind: What::Object { members: &[("name", "str", false), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[78]", kind: What::Array("78") },
    Entity { name: "79", kind: What::Object { members: &[("name", "str", false), ("is-default", "bool", true), ("cpu-max", "int", false), ("alias", "str", true)], tag: None, cases: &[] } },
    Entity { name: "[79]", kind: What::Array("79") },
    Entity { name: "80", kind: What::Object { members: &[("name", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[80]", kind: What::Array("80") },
    Entity { name: "81", kind: What::Object { members: &[("arch", "str", false)], tag: None, cases: &[] } },
    Entity { name: "82", kind: What::Object { members: &[("model", "83", false), ("options", "154", false), ("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[82]", kind: What::Array("82") },
    Entity { name: "83", kind: What::Enum(&["tpm-tis"]) },
    Entity { name: "[83]", kind: What::Array("83") },
    Entity { name: "84", kind: What::Enum(&["passthrough"]) },
    Entity { name: "[84]", kind: What::Array("84") },
    Entity { name: "85", kind: What::Object { members: &[("backend", "155", false), ("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "86", kind: What::Object { members: &[("pty", "str", true)], tag: None, cases: &[] } },
    Entity { name: "87", kind: What::Object { members: &[("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "88", kind: What::Object { members: &[("name", "str", true)], tag: None, cases: &[] } },
    Entity { name: "89", kind: What::Object { members: &[("promiscuous", "bool", false), ("name", "str", false), ("main-mac", "str", false), ("unicast", "156", false), ("vlan-table", "[int]", false), ("unicast-table", "[str]", false), ("multicast", "156", false), ("multicast-overflow", "bool", false), ("unicast-overflow", "bool", false), ("multicast-table", "[str]", false), ("broadcast-allowed", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "[89]", kind: What::Array("89") },
    Entity { name: "90", kind: What::Object { members: &[("options", "157", false)], tag: None, cases: &[] } },
    Entity { name: "91", kind: What::Object { members: &[("backend", "155", false), ("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "92", kind: What::Object { members: &[("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "93", kind: What::Object { members: &[("name", "str", false), ("meta-type", "158", false)], tag: Some("meta-type"), cases: &[("builtin", "159"), ("enum", "160"), ("array", "161"), ("object", "162"), ("alternate", "163"), ("command", "164"), ("event", "165")] } },
    Entity { name: "[93]", kind: What::Array("93") },
    Entity { name: "94", kind: What::Object { members: &[("thread-id", "int", false), ("qom-path", "str", false), ("cpu-index", "int", false), ("target", "166", false)], tag: None, cases: &[] } },
    Entity { name: "[94]", kind: What::Array("94") },
    Entity { name: "95", kind: What::Object { members: &[("guid", "str", false)], tag: None, cases: &[] } },
    Entity { name: "96", kind: What::Object { members: &[("wakeup-suspend-support", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "97", kind: What::Object { members: &[("formats", "[135]", false)], tag: None, cases: &[] } },
    Entity { name: "98", kind: What::Object { members: &[("total", "int", false), ("status", "167", false), ("completed", "int", false)], tag: None, cases: &[] } },
    Entity { name: "99", kind: What::Object { members: &[("base-memory", "int", false), ("plugged-memory", "int", true)], tag: None, cases: &[] } },
    Entity { name: "100", kind: What::Object { members: &[("xbzrle-cache-size", "int", true), ("compress-level", "int", true), ("multifd-channels", "int", true), ("downtime-limit", "int", true), ("tls-creds", "str", true), ("tls-hostname", "str", true), ("max-bandwidth", "int", true)], tag: None, cases: &[] } },
    Entity { name: "101", kind: What::Object { members: &[("xbzrle-cache-size", "int", false), ("compress-level", "int", false), ("multifd-channels", "int", false), ("downtime-limit", "int", false), ("tls-creds", "str", false), ("tls-hostname", "str", false), ("max-bandwidth", "int", false)], tag: None, cases: &[] } },
    Entity { name: "102", kind: What::Object { members: &[("uri", "str", false)], tag: None, cases: &[] } },
    Entity { name: "103", kind: What::Object { members: &[("typename", "str", false)], tag: None, cases: &[] } },
    Entity { name: "104", kind: What::Object { members: &[("qom-type", "str", false), ("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "105", kind: What::Object { members: &[("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "106", kind: What::Object { members: &[("share", "bool", false), ("prealloc", "bool", false), ("host-nodes", "[int]", false), ("size", "int", false), ("merge", "bool", false), ("dump", "bool", false), ("policy", "str", false), ("id", "str", true)], tag: None, cases: &[] } },
    Entity { name: "[106]", kind: What::Array("106") },
    Entity { name: "107", kind: What::Object { members: &[("poll-shrink", "int", false), ("thread-id", "int", false), ("aio-max-batch", "int", false), ("poll-grow", "int", false), ("poll-max-ns", "int", false), ("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[107]", kind: What::Array("107") },
    Entity { name: "108", kind: What::Object { members: &[("action", "168", false)], tag: None, cases: &[] } },
    Entity { name: "109", kind: What::Object { members: &[("reboot", "169", true), ("shutdown", "170", true), ("panic", "171", true), ("watchdog", "168", true)], tag: None, cases: &[] } },
    Entity { name: "110", kind: What::Object { members: &[("guest", "bool", false), ("reason", "172", false)], tag: None, cases: &[] } },
    Entity { name: "111", kind: What::Object { members: &[("guest", "bool", false), ("reason", "172", false)], tag: None, cases: &[] } },
    Entity { name: "112", kind: What::Object { members: &[("server", "173", false), ("client", "148", false)], tag: None, cases: &[] } },
    Entity { name: "113", kind: What::Object { members: &[("server", "173", false), ("client", "148", false)], tag: None, cases: &[] } },
    Entity { name: "114", kind: What::Object { members: &[("server", "173", false), ("client", "148", false)], tag: None, cases: &[] } },
    Entity { name: "115", kind: What::Object { members: &[("device", "str", false), ("operation", "174", false), ("action", "175", false)], tag: None, cases: &[] } },
    Entity { name: "116", kind: What::Object { members: &[("offset", "int", false)], tag: None, cases: &[] } },
    Entity { name: "117", kind: What::Object { members: &[("action", "168", false)], tag: None, cases: &[] } },
    Entity { name: "118", kind: What::Object { members: &[("server", "176", false), ("client", "176", false)], tag: None, cases: &[] } },
    Entity { name: "119", kind: What::Object { members: &[("server", "177", false), ("client", "178", false)], tag: None, cases: &[] } },
    Entity { name: "120", kind: What::Object { members: &[("server", "176", false), ("client", "176", false)], tag: None, cases: &[] } },
    Entity { name: "121", kind: What::Object { members: &[("device", "str", false), ("len", "int", false), ("offset", "int", false), ("speed", "int", false), ("type", "179", false), ("error", "str", true)], tag: None, cases: &[] } },
    Entity { name: "122", kind: What::Object { members: &[("device", "str", false), ("len", "int", false), ("offset", "int", false), ("speed", "int", false), ("type", "179", false)], tag: None, cases: &[] } },
    Entity { name: "123", kind: What::Object { members: &[("device", "str", false), ("operation", "174", false), ("action", "175", false)], tag: None, cases: &[] } },
    Entity { name: "124", kind: What::Object { members: &[("device", "str", false), ("len", "int", false), ("offset", "int", false), ("speed", "int", false), ("type", "179", false)], tag: None, cases: &[] } },
    Entity { name: "125", kind: What::Object { members: &[("device", "str", true), ("path", "str", false)], tag: None, cases: &[] } },
    Entity { name: "126", kind: What::Object { members: &[("device", "str", false), ("tray-open", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "127", kind: What::Object { members: &[("name", "str", true), ("path", "str", false)], tag: None, cases: &[] } },
    Entity { name: "128", kind: What::Object { members: &[("actual", "int", false)], tag: None, cases: &[] } },
    Entity { name: "129", kind: What::Object { members: &[("action", "180", false)], tag: None, cases: &[] } },
    Entity { name: "130", kind: What::Object { members: &[("device", "str", false), ("msg", "str", false), ("offset", "int", false), ("size", "int", false)], tag: None, cases: &[] } },
    Entity { name: "131", kind: What::Object { members: &[("open", "bool", false), ("id", "str", false)], tag: None, cases: &[] } },
    Entity { name: "132", kind: What::Object { members: &[("result", "98", false), ("error", "str", true)], tag: None, cases: &[] } },
    Entity { name: "133", kind: What::Object { members: &[("action", "180", false)], tag: None, cases: &[] } },
    Entity { name: "bool", kind: What::Builtin(crate::JSONType::Boolean) },
    Entity { name: "134", kind: What::Enum(&["utf8", "base64"]) },
    Entity { name: "number", kind: What::Builtin(crate::JSONType::Number) },
    Entity { name: "135", kind: What::Enum(&["elf", "kdump-zlib", "kdump-lzo", "kdump-snappy"]) },
    Entity { name: "136", kind: What::Enum(&["report", "ignore", "enospc", "stop"]) },
    Entity { name: "137", kind: What::Enum(&["top", "full", "none"]) },
    Entity { name: "138", kind: What::Enum(&["existing", "absolute-paths"]) },
    Entity { name: "139", kind: What::Object { members: &[("type", "181", false)], tag: Some("type"), cases: &[("blockdev-snapshot-sync", "182"), ("drive-backup", "183"), ("abort", "184"), ("blockdev-snapshot-internal-sync", "185")] } },
    Entity { name: "[139]", kind: What::Array("139") },
    Entity { name: "140", kind: What::Object { members: &[("fd", "int", false), ("opaque", "str", true)], tag: None, cases: &[] } },
    Entity { name: "[140]", kind: What::Array("140") },
    Entity { name: "[str]", kind: What::Array("str") },
    Entity { name: "141", kind: What::Object { members: &[("micro", "int", false), ("minor", "int", false), ("major", "int", false)], tag: None, cases: &[] } },
    Entity { name: "142", kind: What::Enum(&["ok", "failed", "nospace"]) },
    Entity { name: "143", kind: What::Object { members: &[("iops_rd", "int", false), ("image", "186", false), ("iops_wr", "int", false), ("ro", "bool", false), ("iops_size", "int", true), ("backing_file_depth", "int", false), ("bps_wr_max", "int", true), ("drv", "str", false), ("iops_rd_max", "int", true), ("bps_max", "int", true), ("iops", "int", false), ("bps_wr", "int", false), ("bps_rd_max", "int", true), ("backing_file", "str", true), ("encrypted", "bool", false), ("bps", "int", false), ("bps_rd", "int", false), ("iops_max", "int", true), ("file", "str", false), ("encryption_key_missing", "bool", false), ("iops_wr_max", "int", true)], tag: None, cases: &[] } },
    Entity { name: "144", kind: What::Object { members: &[("granularity", "int", false), ("count", "int", false)], tag: None, cases: &[] } },
    Entity { name: "[144]", kind: What::Array("144") },
    Entity { name: "145", kind: What::Object { members: &[("flush_total_time_ns", "int", false), ("wr_highest_offset", "int", false), ("wr_total_time_ns", "int", false), ("wr_bytes", "int", false), ("rd_total_time_ns", "int", false), ("flush_operations", "int", false), ("wr_operations", "int", false), ("rd_bytes", "int", false), ("rd_operations", "int", false)], tag: None, cases: &[] } },
    Entity { name: "146", kind: What::Object { members: &[("bus", "int", false), ("pci_bridge", "187", true), ("qdev_id", "str", false), ("irq", "int", true), ("slot", "int", false), ("class_info", "188", false), ("id", "189", false), ("function", "int", false), ("regions", "[190]", false)], tag: None, cases: &[] } },
    Entity { name: "[146]", kind: What::Array("146") },
    Entity { name: "147", kind: What::Enum(&["debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch", "finish-migrate", "restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog", "guest-panicked"]) },
    Entity { name: "148", kind: What::Object { members: &[("family", "str", false), ("service", "str", false), ("x509_dname", "str", true), ("host", "str", false), ("sasl_username", "str", true)], tag: None, cases: &[] } },
    Entity { name: "[148]", kind: What::Array("148") },
    Entity { name: "149", kind: What::Object { members: &[("name", "str", false), ("help", "str", true), ("type", "191", false)], tag: None, cases: &[] } },
    Entity { name: "[149]", kind: What::Array("149") },
    Entity { name: "150", kind: What::Object { members: &[("bytes", "int", false), ("cache-size", "int", false), ("pages", "int", false), ("overflow", "int", false), ("cache-miss", "int", false)], tag: None, cases: &[] } },
    Entity { name: "151", kind: What::Object { members: &[("total", "int", false), ("remaining", "int", false), ("mbps", "number", false), ("transferred", "int", false), ("duplicate", "int", false), ("dirty-pages-rate", "int", false), ("skipped", "int", false), ("normal-bytes", "int", false), ("normal", "int", false)], tag: None, cases: &[] } },
    Entity { name: "152", kind: What::Enum(&["xbzrle", "x-rdma-pin-all", "auto-converge", "zero-blocks", "postcopy-ram", "compress", "multifd", "tls"]) },
    Entity { name: "153", kind: What::Object { members: &[("type", "192", false)], tag: Some("type"), cases: &[("inet", "193"), ("unix", "194"), ("fd", "195")] } },
    Entity { name: "154", kind: What::Object { members: &[("type", "196", false)], tag: Some("type"), cases: &[("passthrough", "197")] } },
    Entity { name: "155", kind: What::Object { members: &[("type", "198", false)], tag: Some("type"), cases: &[("file", "199"), ("serial", "200"), ("parallel", "201"), ("pipe", "202"), ("socket", "203"), ("udp", "204"), ("pty", "205"), ("null", "206"), ("mux", "207"), ("msmouse", "208"), ("braille", "209"), ("stdio", "210"), ("console", "211"), ("spicevmc", "212"), ("spiceport", "213"), ("vc", "214"), ("ringbuf", "215"), ("memory", "216")] } },
    Entity { name: "156", kind: What::Enum(&["normal", "none", "all"]) },
    Entity { name: "[int]", kind: What::Array("int") },
    Entity { name: "157", kind: What::Object { members: &[("id", "str", true), ("discard", "223", true), ("cache", "224", true), ("aio", "225", true), ("rerror", "136", true), ("werror", "136", true), ("read-only", "bool", true), ("driver", "217", false)], tag: Some("driver"), cases: &[("file", "218"), ("http", "218"), ("https", "218"), ("ftp", "218"), ("ftps", "218"), ("tftp", "218"), ("vvfat", "219"), ("bochs", "220"), ("cloop", "220"), ("cow", "221"), ("dmg", "220"), ("parallels", "220"), ("qcow", "221"), ("qcow2", "222"), ("qed", "221"), ("raw", "220"), ("vdi", "220"), ("vhdx", "220"), ("vmdk", "221"), ("vpc", "220")] } },
    Entity { name: "158", kind: What::Enum(&["builtin", "enum", "array", "object", "alternate", "command", "event"]) },
    Entity { name: "159", kind: What::Object { members: &[("json-type", "226", false)], tag: None, cases: &[] } },
    Entity { name: "160", kind: What::Object { members: &[("members", "[227]", false), ("values", "[str]", false)], tag: None, cases: &[] } },
    Entity { name: "161", kind: What::Object { members: &[("element-type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "162", kind: What::Object { members: &[("tag", "str", true), ("variants", "[228]", true), ("members", "[229]", false)], tag: None, cases: &[] } },
    Entity { name: "163", kind: What::Object { members: &[("members", "[230]", false)], tag: None, cases: &[] } },
    Entity { name: "164", kind: What::Object { members: &[("ret-type", "str", false), ("arg-type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "165", kind: What::Object { members: &[("arg-type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "166", kind: What::Enum(&["x86_64"]) },
    Entity { name: "[135]", kind: What::Array("135") },
    Entity { name: "167", kind: What::Enum(&["none", "active", "completed", "failed"]) },
    Entity { name: "168", kind: What::Enum(&["reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"]) },
    Entity { name: "169", kind: What::Enum(&["reset", "shutdown"]) },
    Entity { name: "170", kind: What::Enum(&["poweroff", "pause"]) },
    Entity { name: "171", kind: What::Enum(&["pause", "shutdown", "exit-failure", "none"]) },
    Entity { name: "172", kind: What::Enum(&["none", "host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "host-ui", "guest-shutdown", "guest-reset", "guest-panic", "subsystem-reset", "snapshot-load"]) },
    Entity { name: "173", kind: What::Object { members: &[("auth", "str", true), ("family", "str", false), ("service", "str", false), ("host", "str", false)], tag: None, cases: &[] } },
    Entity { name: "174", kind: What::Enum(&["read", "write"]) },
    Entity { name: "175", kind: What::Enum(&["report", "ignore", "stop"]) },
    Entity { name: "176", kind: What::Object { members: &[("port", "str", false), ("family", "str", false), ("host", "str", false)], tag: None, cases: &[] } },
    Entity { name: "177", kind: What::Object { members: &[("auth", "str", true), ("port", "str", false), ("family", "str", false), ("host", "str", false)], tag: None, cases: &[] } },
    Entity { name: "178", kind: What::Object { members: &[("port", "str", false), ("family", "str", false), ("channel-type", "int", false), ("connection-id", "int", false), ("host", "str", false), ("channel-id", "int", false), ("tls", "bool", false)], tag: None, cases: &[] } },
    Entity { name: "179", kind: What::Enum(&["commit", "stream", "mirror", "backup"]) },
    Entity { name: "180", kind: What::Enum(&["pause", "poweroff", "run"]) },
    Entity { name: "181", kind: What::Enum(&["blockdev-snapshot-sync", "drive-backup", "abort", "blockdev-snapshot-internal-sync"]) },
    Entity { name: "182", kind: What::Object { members: &[("data", "30", false)], tag: None, cases: &[] } },
    Entity { name: "183", kind: What::Object { members: &[("data", "23", false)], tag: None, cases: &[] } },
    Entity { name: "184", kind: What::Object { members: &[("data", "231", false)], tag: None, cases: &[] } },
    Entity { name: "185", kind: What::Object { members: &[("data", "31", false)], tag: None, cases: &[] } },
    Entity { name: "186", kind: What::Object { members: &[("backing-image", "186", true), ("compressed", "bool", true), ("backing-filename-format", "str", true), ("snapshots", "[33]", true), ("virtual-size", "int", false), ("filename", "str", false), ("cluster-size", "int", true), ("format", "str", false), ("actual-size", "int", true), ("format-specific", "232", true), ("full-backing-filename", "str", true), ("encrypted", "bool", true), ("backing-filename", "str", true), ("dirty-flag", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "187", kind: What::Object { members: &[("bus", "233", false), ("devices", "[146]", true)], tag: None, cases: &[] } },
    Entity { name: "188", kind: What::Object { members: &[("class", "int", false), ("desc", "str", true)], tag: None, cases: &[] } },
    Entity { name: "189", kind: What::Object { members: &[("device", "int", false), ("vendor", "int", false)], tag: None, cases: &[] } },
    Entity { name: "190", kind: What::Object { members: &[("prefetch", "bool", true), ("mem_type_64", "bool", true), ("bar", "int", false), ("size", "int", false), ("address", "int", false), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[190]", kind: What::Array("190") },
    Entity { name: "191", kind: What::Enum(&["string", "boolean", "number", "size"]) },
    Entity { name: "192", kind: What::Enum(&["inet", "unix", "fd"]) },
    Entity { name: "193", kind: What::Object { members: &[("data", "234", false)], tag: None, cases: &[] } },
    Entity { name: "194", kind: What::Object { members: &[("data", "235", false)], tag: None, cases: &[] } },
    Entity { name: "195", kind: What::Object { members: &[("data", "236", false)], tag: None, cases: &[] } },
    Entity { name: "196", kind: What::Enum(&["passthrough"]) },
    Entity { name: "197", kind: What::Object { members: &[("data", "237", false)], tag: None, cases: &[] } },
    Entity { name: "198", kind: What::Enum(&["file", "serial", "parallel", "pipe", "socket", "udp", "pty", "null", "mux", "msmouse", "braille", "stdio", "console", "spicevmc", "spiceport", "vc", "ringbuf", "memory"]) },
    Entity { name: "199", kind: What::Object { members: &[("data", "238", false)], tag: None, cases: &[] } },
    Entity { name: "200", kind: What::Object { members: &[("data", "239", false)], tag: None, cases: &[] } },
    Entity { name: "201", kind: What::Object { members: &[("data", "239", false)], tag: None, cases: &[] } },
    Entity { name: "202", kind: What::Object { members: &[("data", "239", false)], tag: None, cases: &[] } },
    Entity { name: "203", kind: What::Object { members: &[("data", "240", false)], tag: None, cases: &[] } },
    Entity { name: "204", kind: What::Object { members: &[("data", "241", false)], tag: None, cases: &[] } },
    Entity { name: "205", kind: What::Object { members: &[("data", "242", false)], tag: None, cases: &[] } },
    Entity { name: "206", kind: What::Object { members: &[("data", "242", false)], tag: None, cases: &[] } },
    Entity { name: "207", kind: What::Object { members: &[("data", "243", false)], tag: None, cases: &[] } },
    Entity { name: "208", kind: What::Object { members: &[("data", "242", false)], tag: None, cases: &[] } },
    Entity { name: "209", kind: What::Object { members: &[("data", "242", false)], tag: None, cases: &[] } },
    Entity { name: "210", kind: What::Object { members: &[("data", "244", false)], tag: None, cases: &[] } },
    Entity { name: "211", kind: What::Object { members: &[("data", "242", false)], tag: None, cases: &[] } },
    Entity { name: "212", kind: What::Object { members: &[("data", "245", false)], tag: None, cases: &[] } },
    Entity { name: "213", kind: What::Object { members: &[("data", "246", false)], tag: None, cases: &[] } },
    Entity { name: "214", kind: What::Object { members: &[("data", "247", false)], tag: None, cases: &[] } },
    Entity { name: "215", kind: What::Object { members: &[("data", "248", false)], tag: None, cases: &[] } },
    Entity { name: "216", kind: What::Object { members: &[("data", "248", false)], tag: None, cases: &[] } },
    Entity { name: "217", kind: What::Enum(&["file", "http", "https", "ftp", "ftps", "tftp", "vvfat", "bochs", "cloop", "cow", "dmg", "parallels", "qcow", "qcow2", "qed", "raw", "vdi", "vhdx", "vmdk", "vpc"]) },
    Entity { name: "218", kind: What::Object { members: &[("filename", "str", false)], tag: None, cases: &[] } },
    Entity { name: "219", kind: What::Object { members: &[("dir", "str", false), ("fat-type", "int", true), ("floppy", "bool", true), ("rw", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "220", kind: What::Object { members: &[("file", "249", false)], tag: None, cases: &[] } },
    Entity { name: "221", kind: What::Object { members: &[("file", "249", false), ("backing", "249", true)], tag: None, cases: &[] } },
    Entity { name: "222", kind: What::Object { members: &[("file", "249", false), ("backing", "249", true), ("lazy-refcounts", "bool", true), ("pass-discard-request", "bool", true), ("pass-discard-snapshot", "bool", true), ("pass-discard-other", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "223", kind: What::Enum(&["ignore", "unmap"]) },
    Entity { name: "224", kind: What::Object { members: &[("writeback", "bool", true), ("direct", "bool", true), ("no-flush", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "225", kind: What::Enum(&["threads", "native"]) },
    Entity { name: "226", kind: What::Enum(&["string", "number", "int", "boolean", "null", "object", "array", "value"]) },
    Entity { name: "227", kind: What::Object { members: &[("name", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[227]", kind: What::Array("227") },
    Entity { name: "228", kind: What::Object { members: &[("case", "str", false), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[228]", kind: What::Array("228") },
    Entity { name: "229", kind: What::Object { members: &[("name", "str", false), ("default", "any", true), ("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[229]", kind: What::Array("229") },
    Entity { name: "230", kind: What::Object { members: &[("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "[230]", kind: What::Array("230") },
    Entity { name: "231", kind: What::Object { members: &[], tag: None, cases: &[] } },
    Entity { name: "[33]", kind: What::Array("33") },
    Entity { name: "232", kind: What::Object { members: &[("type", "250", false)], tag: Some("type"), cases: &[("qcow2", "251"), ("vmdk", "252")] } },
    Entity { name: "233", kind: What::Object { members: &[("prefetchable_range", "253", false), ("memory_range", "253", false), ("secondary", "int", false), ("io_range", "253", false), ("number", "int", false), ("subordinate", "int", false)], tag: None, cases: &[] } },
    Entity { name: "234", kind: What::Object { members: &[("host", "str", false), ("port", "str", false), ("to", "int", true), ("ipv4", "bool", true), ("ipv6", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "235", kind: What::Object { members: &[("path", "str", false)], tag: None, cases: &[] } },
    Entity { name: "236", kind: What::Object { members: &[("str", "str", false)], tag: None, cases: &[] } },
    Entity { name: "237", kind: What::Object { members: &[("cancel-path", "str", true), ("path", "str", true)], tag: None, cases: &[] } },
    Entity { name: "238", kind: What::Object { members: &[("in", "str", true), ("out", "str", false)], tag: None, cases: &[] } },
    Entity { name: "239", kind: What::Object { members: &[("device", "str", false)], tag: None, cases: &[] } },
    Entity { name: "240", kind: What::Object { members: &[("addr", "153", false), ("server", "bool", true), ("wait", "bool", true), ("nodelay", "bool", true), ("telnet", "bool", true), ("reconnect", "int", true)], tag: None, cases: &[] } },
    Entity { name: "241", kind: What::Object { members: &[("remote", "153", false), ("local", "153", true)], tag: None, cases: &[] } },
    Entity { name: "242", kind: What::Object { members: &[], tag: None, cases: &[] } },
    Entity { name: "243", kind: What::Object { members: &[("chardev", "str", false)], tag: None, cases: &[] } },
    Entity { name: "244", kind: What::Object { members: &[("signal", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "245", kind: What::Object { members: &[("type", "str", false)], tag: None, cases: &[] } },
    Entity { name: "246", kind: What::Object { members: &[("fqdn", "str", false)], tag: None, cases: &[] } },
    Entity { name: "247", kind: What::Object { members: &[("width", "int", true), ("height", "int", true), ("cols", "int", true), ("rows", "int", true)], tag: None, cases: &[] } },
    Entity { name: "248", kind: What::Object { members: &[("size", "int", true)], tag: None, cases: &[] } },
    Entity { name: "249", kind: What::Alternate(&["157", "str"]) },
    Entity { name: "250", kind: What::Enum(&["qcow2", "vmdk"]) },
    Entity { name: "251", kind: What::Object { members: &[("data", "254", false)], tag: None, cases: &[] } },
    Entity { name: "252", kind: What::Object { members: &[("data", "255", false)], tag: None, cases: &[] } },
    Entity { name: "253", kind: What::Object { members: &[("limit", "int", false), ("base", "int", false)], tag: None, cases: &[] } },
    Entity { name: "254", kind: What::Object { members: &[("compat", "str", false), ("lazy-refcounts", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "255", kind: What::Object { members: &[("cid", "int", false), ("parent-cid", "int", false), ("create-type", "str", false), ("extents", "[186]", false)], tag: None, cases: &[] } },
    Entity { name: "[186]", kind: What::Array("186") },
];
