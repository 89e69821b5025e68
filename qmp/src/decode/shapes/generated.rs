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

/// Two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// `utf8`.
    #[serde(rename = "utf8")]
    Utf8,
    /// `base-64`.
    #[serde(rename = "base-64")]
    Base64,
}

impl Format {
    /// Every value, in order.
    pub const ALL: &'static [Self] = &[
        Self::Utf8,
        Self::Base64,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Base64 => "base-64",
        }
    }
}

/// A place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inet {
    /// `host`.
    pub host: String,
    /// `port`.
    pub port: String,
    /// `to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// `ipv4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
}

/// No members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nothing {
}

/// A name that Rust has too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QmpString {
    /// `str`.
    pub str: String,
}

/// What all have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// `driver`.
    pub driver: String,
    /// `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `format`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// `filename`.
    pub filename: String,
}

/// On something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Over {
    /// `file`.
    pub file: Box<Ref>,
}

/// On two things.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cow {
    /// `file`.
    pub file: Box<Ref>,
    /// `backing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing: Option<Box<Ref>>,
}

/// It holds itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// `name`.
    pub name: String,
    /// `backing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing: Option<Box<Image>>,
    /// `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<Image>>,
}

/// A part of [`Regs`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegsDeep {
    /// `x-y`.
    #[serde(rename = "x-y")]
    pub x_y: f64,
}

/// Names that clash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regs {
    /// `pc`.
    pub pc: i64,
    /// `PC`.
    #[serde(rename = "PC", skip_serializing_if = "Option::is_none")]
    pub pc_upper: Option<i64>,
    /// `type`.
    pub r#type: String,
    /// `deep`.
    pub deep: RegsDeep,
}

/// A tagged place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Address {
    /// `inet`.
    #[serde(rename = "inet")]
    Inet(Inet),
    /// `fd`.
    #[serde(rename = "fd")]
    Fd(QmpString),
    /// `number`.
    #[serde(rename = "number")]
    Number(i64),
    /// `none`.
    #[serde(rename = "none")]
    None(Nothing),
}

/// Flat, and it holds itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `format`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The member `driver`, and the members that follow from it.
    #[serde(flatten)]
    pub driver: OptionsDriver,
}

/// The cases of [`Options`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "driver")]
pub enum OptionsDriver {
    /// `file`.
    #[serde(rename = "file")]
    File(File),
    /// `raw`.
    #[serde(rename = "raw")]
    Raw(Box<Over>),
    /// `qcow2`.
    #[serde(rename = "qcow2")]
    Qcow2(Box<Cow>),
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        let id = object.take("id")?;
        let format = object.take("format")?;
        let case: String = object.take("driver")?;
        let driver = match case.as_str() {
            "file" => OptionsDriver::File(object.finish()?),
            "raw" => OptionsDriver::Raw(object.finish()?),
            "qcow2" => OptionsDriver::Qcow2(object.finish()?),
            _ => return Err(D::Error::custom(QmpError::invalid(&case))),
        };
        Ok(Self { id, format, driver })
    }
}

/// By name or in place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Ref {
    /// `definition`.
    #[serde(rename = "definition")]
    Definition(Box<Options>),
    /// `reference`.
    #[serde(rename = "reference")]
    Reference(String),
}

impl<'de> Deserialize<'de> for Ref {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value {
            Value::Object(_) => decode::value(value).map(Self::Definition),
            Value::String(_) => decode::value(value).map(Self::Reference),
            _ => Err(D::Error::custom(QmpError::invalid_type("null", "Ref"))),
        }
    }
}

/// `every`: Takes every type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Every {
    /// `s`.
    pub s: String,
    /// `i`.
    pub i: i64,
    /// `b`.
    pub b: bool,
    /// `n`.
    pub n: f64,
    /// `f`.
    pub f: Format,
    /// `u8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u8: Option<u8>,
    /// `i8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub i8: Option<i8>,
    /// `i16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub i16: Option<i16>,
    /// `u32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u32: Option<u32>,
    /// `i32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub i32: Option<i32>,
    /// `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// `list`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<String>>,
    /// `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any: Option<Value>,
    /// `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// `image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// `regs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regs: Option<Regs>,
}

impl Command for Every {
    const NAME: &'static str = "every";
    const ARGS: &'static [Arg] = &[
        Arg { name: "s", kind: Kind::Str, optional: false },
        Arg { name: "i", kind: Kind::Int, optional: false },
        Arg { name: "b", kind: Kind::Bool, optional: false },
        Arg { name: "n", kind: Kind::Number, optional: false },
        Arg { name: "f", kind: Kind::Str, optional: false },
        Arg { name: "u8", kind: Kind::Int, optional: true },
        Arg { name: "i8", kind: Kind::Int, optional: true },
        Arg { name: "i16", kind: Kind::Int, optional: true },
        Arg { name: "u32", kind: Kind::Int, optional: true },
        Arg { name: "i32", kind: Kind::Int, optional: true },
        Arg { name: "size", kind: Kind::Int, optional: true },
        Arg { name: "list", kind: Kind::Any, optional: true },
        Arg { name: "any", kind: Kind::Any, optional: true },
        Arg { name: "address", kind: Kind::Any, optional: true },
        Arg { name: "image", kind: Kind::Any, optional: true },
        Arg { name: "regs", kind: Kind::Any, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = Image;
}

/// `blockdev-add`: Takes a flat union.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockdevAdd {
    /// `options`.
    pub options: Options,
}

impl Command for BlockdevAdd {
    const NAME: &'static str = "blockdev-add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "options", kind: Kind::Any, optional: false },
    ];
    const OPEN: bool = false;
    type Ret = ();
}

/// `inet`: Takes a struct as it is, and has its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InetCommand(pub Inet);

impl Command for InetCommand {
    const NAME: &'static str = "inet";
    const ARGS: &'static [Arg] = &[
        Arg { name: "host", kind: Kind::Str, optional: false },
        Arg { name: "port", kind: Kind::Str, optional: false },
        Arg { name: "to", kind: Kind::Int, optional: true },
        Arg { name: "ipv4", kind: Kind::Bool, optional: true },
    ];
    const OPEN: bool = false;
    type Ret = Vec<i64>;
}

/// `device_add`: Takes anything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceAdd {
    /// `driver`.
    pub driver: String,
    /// `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The arguments that have no field of their own.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for DeviceAdd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = decode::Flat::new(deserializer)?;
        Ok(Self {
            driver: object.take("driver")?,
            id: object.take("id")?,
            rest: object.rest(),
        })
    }
}

impl Command for DeviceAdd {
    const NAME: &'static str = "device_add";
    const ARGS: &'static [Arg] = &[
        Arg { name: "driver", kind: Kind::Str, optional: false },
        Arg { name: "id", kind: Kind::Str, optional: true },
    ];
    const OPEN: bool = true;
    type Ret = ();
}

/// Carries out every command of the schema that is not pending.
pub trait Commands:
    Handle<Every> +
    Handle<BlockdevAdd> +
    Handle<InetCommand> +
    Handle<DeviceAdd>
{
}

impl<T> Commands for T where
    T:
    Handle<Every> +
    Handle<BlockdevAdd> +
    Handle<InetCommand> +
    Handle<DeviceAdd>
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
        "every" => call::<Every, _>(vm, args),
        "blockdev-add" => call::<BlockdevAdd, _>(vm, args),
        "inet" => call::<InetCommand, _>(vm, args),
        "device_add" => call::<DeviceAdd, _>(vm, args),
        _ => Err(QmpError::command_not_found(name)),
    }
}

/// Every command, in the order of registration.
pub static COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "every", args: Every::ARGS },
    CommandSpec { name: "blockdev-add", args: BlockdevAdd::ARGS },
    CommandSpec { name: "inet", args: InetCommand::ARGS },
    CommandSpec { name: "device_add", args: DeviceAdd::ARGS },
];

/// Commands that have types and no handler: clients are told they do not exist.
pub static PENDING: &[&str] = &[
];

/// The commands that clients expect, implemented or not.
pub static EXPECTED: &[&str] = &[
];

/// What clients are told without asking.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", content = "data")]
pub enum Event {
    /// With a struct.
    #[serde(rename = "MOVED")]
    Moved(Inet),
    /// With members.
    #[serde(rename = "OPENED")]
    Opened {
        /// `device-name`.
        #[serde(rename = "device-name", skip_serializing_if = "Option::is_none")]
        device_name: Option<String>,
        /// `format`.
        format: Format,
    },
}

impl Event {
    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Moved(_) => "MOVED",
            Self::Opened { .. } => "OPENED",
        }
    }

    /// The period in which clients are told of one of the kind at most.
    pub fn rate_limit(&self) -> Option<Duration> {
        match self {
            Self::Moved(_) => Some(Duration::from_millis(5)),
            _ => None,
        }
    }
}

/// The name of every event, in the order of registration.
pub static EVENTS: &[&str] = &[
    "MOVED",
    "OPENED",
];

/// Commands, events and types for clients that look before they ask.
pub(crate) static INTROSPECTION: &[Entity] = &[
    Entity { name: "every", kind: What::Command("0", "1") },
    Entity { name: "blockdev-add", kind: What::Command("2", "3") },
    Entity { name: "inet", kind: What::Command("4", "[int]") },
    Entity { name: "device_add", kind: What::Command("5", "3") },
    Entity { name: "MOVED", kind: What::Event("4") },
    Entity { name: "OPENED", kind: What::Event("6") },
    Entity { name: "0", kind: What::Object { members: &[("s", "str", false), ("i", "int", false), ("b", "bool", false), ("n", "number", false), ("f", "7", false), ("u8", "int", true), ("i8", "int", true), ("i16", "int", true), ("u32", "int", true), ("i32", "int", true), ("size", "int", true), ("list", "[str]", true), ("any", "any", true), ("address", "8", true), ("image", "1", true), ("regs", "9", true)], tag: None, cases: &[] } },
    Entity { name: "1", kind: What::Object { members: &[("name", "str", false), ("backing", "1", true), ("all", "[1]", true)], tag: None, cases: &[] } },
    Entity { name: "2", kind: What::Object { members: &[("options", "10", false)], tag: None, cases: &[] } },
    Entity { name: "3", kind: What::Object { members: &[], tag: None, cases: &[] } },
    Entity { name: "4", kind: What::Object { members: &[("host", "str", false), ("port", "str", false), ("to", "int", true), ("ipv4", "bool", true)], tag: None, cases: &[] } },
    Entity { name: "int", kind: What::Builtin(crate::JSONType::Int) },
    Entity { name: "[int]", kind: What::Array("int") },
    Entity { name: "5", kind: What::Object { members: &[("driver", "str", false), ("id", "str", true)], tag: None, cases: &[] } },
    Entity { name: "6", kind: What::Object { members: &[("device-name", "str", true), ("format", "7", false)], tag: None, cases: &[] } },
    Entity { name: "str", kind: What::Builtin(crate::JSONType::String) },
    Entity { name: "bool", kind: What::Builtin(crate::JSONType::Boolean) },
    Entity { name: "number", kind: What::Builtin(crate::JSONType::Number) },
    Entity { name: "7", kind: What::Enum(&["utf8", "base-64"]) },
    Entity { name: "[str]", kind: What::Array("str") },
    Entity { name: "any", kind: What::Builtin(crate::JSONType::Value) },
    Entity { name: "8", kind: What::Object { members: &[("type", "11", false)], tag: Some("type"), cases: &[("inet", "12"), ("fd", "13"), ("number", "14"), ("none", "15")] } },
    Entity { name: "9", kind: What::Object { members: &[("pc", "int", false), ("PC", "int", true), ("type", "str", false), ("deep", "16", false)], tag: None, cases: &[] } },
    Entity { name: "[1]", kind: What::Array("1") },
    Entity { name: "10", kind: What::Object { members: &[("id", "str", true), ("format", "7", true), ("driver", "17", false)], tag: Some("driver"), cases: &[("file", "18"), ("raw", "19"), ("qcow2", "20")] } },
    Entity { name: "11", kind: What::Enum(&["inet", "fd", "number", "none"]) },
    Entity { name: "12", kind: What::Object { members: &[("data", "4", false)], tag: None, cases: &[] } },
    Entity { name: "13", kind: What::Object { members: &[("data", "21", false)], tag: None, cases: &[] } },
    Entity { name: "14", kind: What::Object { members: &[("data", "int", false)], tag: None, cases: &[] } },
    Entity { name: "15", kind: What::Object { members: &[("data", "22", false)], tag: None, cases: &[] } },
    Entity { name: "16", kind: What::Object { members: &[("x-y", "number", false)], tag: None, cases: &[] } },
    Entity { name: "17", kind: What::Enum(&["file", "raw", "qcow2"]) },
    Entity { name: "18", kind: What::Object { members: &[("filename", "str", false)], tag: None, cases: &[] } },
    Entity { name: "19", kind: What::Object { members: &[("file", "23", false)], tag: None, cases: &[] } },
    Entity { name: "20", kind: What::Object { members: &[("file", "23", false), ("backing", "23", true)], tag: None, cases: &[] } },
    Entity { name: "21", kind: What::Object { members: &[("str", "str", false)], tag: None, cases: &[] } },
    Entity { name: "22", kind: What::Object { members: &[], tag: None, cases: &[] } },
    Entity { name: "23", kind: What::Alternate(&["10", "str"]) },
];
