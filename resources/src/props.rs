//! Typed properties: what a device, and later any other object, can be told when it is made.
//!
//! A property's default is written as a user would write it, so there is one parser for the
//! table, for the defaults of a machine version, for `-global` and for `-device`, and `help`
//! shows the truth. Pure functions: any thread, no lock. Names and values come from the command
//! line or a monitor's client: everything that a [`Prop`] does not take is refused with the text
//! that management software knows, and what is kept is no larger than what was given.

use crate::nearest::nearest;
use crate::value;

/// One property of a class.
#[derive(Clone, Copy, Debug)]
pub struct Prop {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The value when nobody gives one; `None` leaves the property unset.
    pub default: Option<&'static str>,
    /// One line for `help`.
    pub help: &'static str,
}

/// What a property takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A switch: `on`, `yes`, `true`, or `off`, `no`, `false`, in either case.
    Bool,
    /// A number of 8 bits, from `min` to `max`.
    U8(u8, u8),
    /// A number of 16 bits, from `min` to `max`.
    U16(u16, u16),
    /// A number of 32 bits, from `min` to `max`.
    U32(u32, u32),
    /// A number of 64 bits, from `min` to `max`.
    U64(u64, u64),
    /// As [`Kind::U8`], written in hexadecimal for people.
    Hex8(u8, u8),
    /// As [`Kind::U32`], written in hexadecimal for people.
    Hex32(u32, u32),
    /// A size in bytes, see [`value::parse_size`].
    Size,
    /// Any text.
    Str,
    /// The id of a character device.
    Chardev,
    /// The id of a disk's back end.
    Drive,
    /// The id of a network's back end.
    Netdev,
    /// An Ethernet address: `52:54:00:12:34:56`.
    Mac,
    /// A place on a PCI bus: `SLOT` or `SLOT.FUNCTION`, both in hexadecimal.
    Devfn,
    /// A UUID.
    Uuid,
    /// The id of an object of this type.
    Link(&'static str),
    /// One of these words.
    Enum(&'static [&'static str]),
}

impl Kind {
    /// The name of the type in `help`.
    pub fn type_name(self) -> &'static str {
        match self {
            Kind::Bool => "boolean",
            Kind::U8(..) | Kind::Hex8(..) => "uint8",
            Kind::U16(..) => "uint16",
            Kind::U32(..) | Kind::Hex32(..) => "uint32",
            Kind::U64(..) => "uint64",
            Kind::Size => "size",
            Kind::Str | Kind::Enum(_) | Kind::Mac | Kind::Uuid => "str",
            Kind::Chardev => "chr",
            Kind::Drive => "drive",
            Kind::Netdev => "netdev",
            Kind::Devfn => "int32",
            Kind::Link(type_name) => type_name,
        }
    }

    /// The name of the type in device-list-properties, where one that tells how the value is
    /// written comes before the plain one.
    pub fn legacy_name(self) -> &'static str {
        match self {
            Kind::Hex8(..) => "hex8",
            Kind::Hex32(..) => "hex32",
            Kind::Mac => "macaddr",
            Kind::Devfn => "pci-devfn",
            other => other.qom_name(),
        }
    }

    /// The name of the type among the properties of an object.
    pub fn qom_name(self) -> &'static str {
        match self {
            Kind::Str | Kind::Enum(_) | Kind::Mac | Kind::Uuid => "string",
            other => other.type_name(),
        }
    }

    /// For numbers: the type's name in error messages, its largest value, and the range taken.
    fn number(self) -> Option<(&'static str, u64, u64, u64)> {
        Some(match self {
            Kind::U8(min, max) | Kind::Hex8(min, max) => {
                ("uint8_t", u8::MAX.into(), min.into(), max.into())
            }
            Kind::U16(min, max) => ("uint16_t", u16::MAX.into(), min.into(), max.into()),
            Kind::U32(min, max) | Kind::Hex32(min, max) => {
                ("uint32_t", u32::MAX.into(), min.into(), max.into())
            }
            Kind::U64(min, max) => ("uint64_t", u64::MAX, min, max),
            _ => return None,
        })
    }
}

/// A property that cannot be what it was to be. The texts are part of the interface; a
/// suggestion for people comes separately, from [`hint`](PropError::hint).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropError {
    /// The class has no such property.
    #[error("Property '{class}.{name}' not found")]
    Unknown {
        /// The class.
        class: &'static str,
        /// The name that was given.
        name: String,
        /// The property that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The value is none of the words that the property takes.
    #[error("Property '{class}.{name}' doesn't take value '{value}'")]
    Value {
        /// The class.
        class: &'static str,
        /// The property.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// The word that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The number is out of the property's range.
    #[error("Property {class}.{name} doesn't take value {value} (minimum: {min}, maximum: {max})")]
    Range {
        /// The class.
        class: &'static str,
        /// The property.
        name: &'static str,
        /// The value that was given.
        value: u64,
        /// The lowest value.
        min: u64,
        /// The highest value.
        max: u64,
    },
    /// The value is not of the property's type.
    #[error("Invalid parameter type for '{name}', expected: {expected}")]
    Type {
        /// The property.
        name: &'static str,
        /// The type's name: `integer` or `boolean`.
        expected: &'static str,
    },
    /// The value is too large for the type, or not of its syntax.
    #[error("Parameter '{name}' expects {expected}")]
    Syntax {
        /// The property.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// The property must be given.
    #[error("Parameter '{0}' is missing")]
    Missing(&'static str),
    /// There is no back end of this id.
    #[error("Property '{class}.{name}' can't find value '{value}'")]
    NoSuch {
        /// The class.
        class: &'static str,
        /// The property.
        name: &'static str,
        /// The id that was given.
        value: String,
    },
    /// The back end serves another device.
    #[error("Property '{class}.{name}' can't take value '{value}', it's in use")]
    InUse {
        /// The class.
        class: &'static str,
        /// The property.
        name: &'static str,
        /// The id that was given.
        value: String,
    },
}

impl PropError {
    /// The word that was probably meant, for messages to people.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            PropError::Unknown { nearest, .. } | PropError::Value { nearest, .. } => *nearest,
            _ => None,
        }
    }
}

/// Defaults that come before the user's values and after the table's: those of a machine
/// version, then those of `-global`. The later one wins.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<(String, String, String)>);

impl Overrides {
    /// Adds a default for property `name` of `class`.
    pub fn push(
        &mut self,
        class: impl Into<String>,
        name: impl Into<String>,
        value: impl Into<String>,
    ) {
        self.0.push((class.into(), name.into(), value.into()));
    }

    /// All of them in order: class, property, value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().map(|(class, name, value)| (class.as_str(), name.as_str(), value.as_str()))
    }
}

impl<T: Into<String>> FromIterator<(T, T, T)> for Overrides {
    fn from_iter<I: IntoIterator<Item = (T, T, T)>>(all: I) -> Self {
        all.into_iter().fold(Overrides::default(), |mut overrides, (class, name, value)| {
            overrides.push(class, name, value);
            overrides
        })
    }
}

/// A value, checked against its property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A switch.
    Bool(bool),
    /// A number or a size.
    Uint(u64),
    /// A number that may be negative; only of properties that a device answers itself.
    Int(i64),
    /// A text, an id or a word.
    Text(String),
    /// Named values; only of properties that a device answers itself.
    Struct(Vec<(&'static str, Value)>),
}

/// Parameters of `-device` and device_add that are not properties.
const RESERVED: [&str; 3] = ["driver", "id", "bus"];

/// The properties of one object: parsed, checked and with their defaults.
#[derive(Clone, Debug)]
pub struct Props {
    class: &'static str,
    id: Option<String>,
    values: Vec<(&'static str, Option<Value>)>,
}

impl Props {
    /// No properties.
    pub fn none(class: &'static str) -> Props {
        Props { class, id: None, values: Vec::new() }
    }

    /// Applies the defaults of the table `props`, then `overrides`, then what was `given`. Of `driver`, `id`
    /// and `bus` only the id is kept; that they are right is for the caller to see to.
    ///
    /// # Errors
    /// The first property, in this order, that is unknown or takes no such value.
    pub fn parse<'a>(
        class: &'static str,
        props: impl Iterator<Item = &'static Prop> + Clone,
        overrides: &Overrides,
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Props, PropError> {
        let values = props.clone().map(|prop| (prop.name, None)).collect();
        let mut all = Props { class, id: None, values };
        for prop in props.clone() {
            if let Some(text) = prop.default {
                all.set(&props, prop.name, text)?;
            }
        }
        for (_, name, text) in overrides.iter().filter(|(other, ..)| *other == class) {
            all.set(&props, name, text)?;
        }
        for (name, text) in given {
            if name == "id" {
                all.id = Some(text.to_owned());
            } else if !RESERVED.contains(&name) {
                all.set(&props, name, text)?;
            }
        }
        Ok(all)
    }

    fn set(
        &mut self,
        props: &(impl Iterator<Item = &'static Prop> + Clone),
        name: &str,
        text: &str,
    ) -> Result<(), PropError> {
        let found = props.clone().zip(&mut self.values).find(|(prop, _)| prop.name == name);
        let Some((prop, (_, value))) = found else {
            return Err(PropError::Unknown {
                class: self.class,
                name: name.to_owned(),
                nearest: nearest(name, props.clone().map(|prop| prop.name)),
            });
        };
        *value = Some(parse_value(self.class, prop, text)?);
        Ok(())
    }

    /// The name of the class.
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// The id that was given.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// All properties in the table's order, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Option<&Value>)> {
        self.values.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// Gives a property that was left unset the value that the maker chose for it. A name that
    /// the table does not have changes nothing.
    pub fn fill(&mut self, name: &'static str, chosen: Value) {
        let found = self.values.iter_mut().find(|(other, _)| *other == name);
        debug_assert!(found.is_some(), "{}.{name} is not in the table", self.class);
        if let Some((_, value @ None)) = found {
            *value = Some(chosen);
        }
    }

    /// Unsets a property whose value is not to be kept.
    pub fn forget(&mut self, name: &'static str) {
        if let Some((_, value)) = self.values.iter_mut().find(|(other, _)| *other == name) {
            *value = None;
        }
    }

    /// The value of a property as the type that is wanted: `bool`, `u8` to `u64`, `&str`, or an
    /// `Option` of one for a property that may be unset.
    ///
    /// # Errors
    /// [`PropError::Missing`] if it is unset and needed. Asking for a name or a type that the
    /// table does not have is a mistake of the caller, reported as any other error.
    pub fn get<'a, T: FromValue<'a>>(&'a self, name: &'static str) -> Result<T, PropError> {
        let found = self.values.iter().find(|(other, _)| *other == name);
        debug_assert!(found.is_some(), "{}.{name} is not in the table", self.class);
        T::from_value(name, found.and_then(|(_, value)| value.as_ref()))
    }
}

/// Checks `text` against `prop`.
fn parse_value(class: &'static str, prop: &Prop, text: &str) -> Result<Value, PropError> {
    let name = prop.name;
    if let Some((width, largest, min, max)) = prop.kind.number() {
        let value = value::parse_number(name, text)
            .map_err(|_| PropError::Type { name, expected: "integer" })?;
        if value > largest {
            return Err(PropError::Syntax { name, expected: width });
        }
        if !(min..=max).contains(&value) {
            return Err(PropError::Range { class, name, value, min, max });
        }
        return Ok(Value::Uint(value));
    }
    match prop.kind {
        Kind::Bool => {
            let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
            if is(["on", "yes", "true"]) {
                Ok(Value::Bool(true))
            } else if is(["off", "no", "false"]) {
                Ok(Value::Bool(false))
            } else {
                Err(PropError::Type { name, expected: "boolean" })
            }
        }
        Kind::Size => value::parse_size(name, text)
            .map(Value::Uint)
            .map_err(|_| PropError::Syntax { name, expected: "a size" }),
        Kind::Devfn => devfn(text).map(Value::Uint).ok_or_else(|| PropError::Value {
            class,
            name,
            value: text.to_owned(),
            nearest: None,
        }),
        Kind::Enum(words) if !words.contains(&text) => Err(PropError::Value {
            class,
            name,
            value: text.to_owned(),
            nearest: nearest(text, words.iter().copied()),
        }),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// The number of a slot and a function on a PCI bus.
fn devfn(text: &str) -> Option<u64> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most| {
        let text = text.strip_prefix("0x").unwrap_or(text);
        let number = u64::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'))?;
        (number <= most).then_some(number)
    };
    Some(digits(slot, 31)? << 3 | digits(function, 7)?)
}

/// A type that [`Props::get`] can give.
pub trait FromValue<'a>: Sized {
    /// Takes a property's value, if it has one.
    fn from_value(name: &'static str, value: Option<&'a Value>) -> Result<Self, PropError>;
}

impl<'a> FromValue<'a> for bool {
    fn from_value(name: &'static str, value: Option<&'a Value>) -> Result<Self, PropError> {
        match value {
            Some(Value::Bool(on)) => Ok(*on),
            Some(_) => Err(PropError::Type { name, expected: "boolean" }),
            None => Err(PropError::Missing(name)),
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    fn from_value(name: &'static str, value: Option<&'a Value>) -> Result<Self, PropError> {
        match value {
            Some(Value::Text(text)) => Ok(text),
            Some(_) => Err(PropError::Type { name, expected: "string" }),
            None => Err(PropError::Missing(name)),
        }
    }
}

macro_rules! unsigned {
    ($($type:ty => $word:literal),*) => {$(
        impl<'a> FromValue<'a> for $type {
            fn from_value(name: &'static str, value: Option<&'a Value>) -> Result<Self, PropError> {
                match value {
                    Some(Value::Uint(n)) => <$type>::try_from(*n)
                        .map_err(|_| PropError::Syntax { name, expected: $word }),
                    Some(_) => Err(PropError::Type { name, expected: "integer" }),
                    None => Err(PropError::Missing(name)),
                }
            }
        }
    )*};
}
unsigned!(u8 => "uint8_t", u16 => "uint16_t", u32 => "uint32_t", u64 => "uint64_t");

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(name: &'static str, value: Option<&'a Value>) -> Result<Self, PropError> {
        value.map(|value| T::from_value(name, Some(value))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROPS: &[Prop] = &[
        Prop { name: "readback", kind: Kind::Bool, default: Some("on"), help: "" },
        Prop { name: "iobase", kind: Kind::U32(1, 0xffff), default: Some("0x3f8"), help: "" },
        Prop { name: "irq", kind: Kind::U8(0, 255), default: None, help: "" },
        Prop { name: "vgamem", kind: Kind::Size, default: Some("16M"), help: "" },
        Prop { name: "chardev", kind: Kind::Chardev, default: None, help: "" },
        Prop {
            name: "lost_tick_policy",
            kind: Kind::Enum(&["discard", "slew"]),
            default: Some("discard"),
            help: "",
        },
        Prop { name: "serial", kind: Kind::Str, default: None, help: "" },
    ];

    fn parse(given: &[(&str, &str)]) -> Result<Props, PropError> {
        Props::parse("thing", PROPS.iter(), &Overrides::default(), given.iter().copied())
    }

    fn refused(name: &str, value: &str) -> String {
        parse(&[(name, value)]).unwrap_err().to_string()
    }

    #[test]
    fn places_on_a_pci_bus() {
        assert_eq!(devfn("3"), Some(0x18));
        assert_eq!(devfn("0x1f.7"), Some(0xff));
        for wrong in ["", ".", "3.", "20", "3.8", "+3", "-1", "3.0.0", "g"] {
            assert_eq!(devfn(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn defaults_then_overrides_then_the_users() {
        let overrides = Overrides::from_iter([
            ("thing", "iobase", "0x2f8"),
            ("other", "iobase", "9"),
            ("thing", "irq", "3"),
            ("thing", "irq", "5"),
        ]);
        let given = [("driver", "thing"), ("id", "t0"), ("bus", "isa.0"), ("iobase", "1")];
        let props = Props::parse("thing", PROPS.iter(), &overrides, given).unwrap();
        assert_eq!((props.class(), props.id()), ("thing", Some("t0")));
        assert_eq!(props.get::<u16>("iobase"), Ok(1));
        assert_eq!(props.get::<Option<u8>>("irq"), Ok(Some(5)));
        assert_eq!(props.get::<bool>("readback"), Ok(true));
        assert_eq!(props.get::<u64>("vgamem"), Ok(16 << 20));
        assert_eq!(props.get::<&str>("lost_tick_policy"), Ok("discard"));
        assert_eq!(props.get::<Option<&str>>("serial"), Ok(None));
        assert_eq!(props.get::<&str>("chardev"), Err(PropError::Missing("chardev")));
    }

    #[test]
    fn the_words_of_each_refusal() {
        assert_eq!(refused("iobse", "1"), "Property 'thing.iobse' not found");
        assert_eq!(
            refused("lost_tick_policy", "slow"),
            "Property 'thing.lost_tick_policy' doesn't take value 'slow'"
        );
        assert_eq!(
            refused("iobase", "0x10000"),
            "Property thing.iobase doesn't take value 65536 (minimum: 1, maximum: 65535)"
        );
        for value in ["", "x", "-1"] {
            assert_eq!(
                refused("irq", value),
                "Invalid parameter type for 'irq', expected: integer"
            );
        }
        assert_eq!(refused("irq", "256"), "Parameter 'irq' expects uint8_t");
        assert_eq!(
            refused("readback", "2"),
            "Invalid parameter type for 'readback', expected: boolean"
        );
        assert_eq!(refused("vgamem", "big"), "Parameter 'vgamem' expects a size");
        assert_eq!(PropError::Missing("chardev").to_string(), "Parameter 'chardev' is missing");
    }

    #[test]
    fn people_get_a_hint() {
        assert_eq!(parse(&[("iobse", "1")]).unwrap_err().hint(), Some("iobase"));
        assert_eq!(parse(&[("lost_tick_policy", "slow")]).unwrap_err().hint(), Some("slew"));
        assert_eq!(parse(&[("irq", "x")]).unwrap_err().hint(), None);
    }

    #[test]
    fn switches_have_many_spellings() {
        for (text, on) in
            [("on", true), ("Yes", true), ("TRUE", true), ("off", false), ("No", false)]
        {
            assert_eq!(parse(&[("readback", text)]).unwrap().get("readback"), Ok(on));
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(pairs in prop::collection::vec(("[a-z_]{0,9}|irq|vgamem|iobase", ".{0,20}"), 0..8)) {
            let _ = Props::parse(
                "thing",
                PROPS.iter(),
                &Overrides::default(),
                pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())),
            );
        }
    }
}
