//! The option language: `first,key=value,key,nokey`, with `,,` for a comma in a value.
//!
//! Pure functions: any thread, no lock. The text comes from the command line, later also from a
//! monitor's client: names, values and the number of parameters are bounded, and what is too long
//! is refused by name rather than cut.

use resources::nearest::nearest;
use resources::value::{self, ValueError};

/// The longest parameter name, in bytes.
pub const MAX_KEY: usize = 127;

/// The longest value, in bytes: as long as the longest path.
pub const MAX_VALUE: usize = 4096;

/// The most parameters in one option.
pub const MAX_PAIRS: usize = 256;

/// What one parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text, or text with a syntax of its own.
    String,
    /// `on` or `off`; a bare `key` means on, `nokey` off.
    Boolean,
    /// An unsigned number, see [`value::parse_number`].
    Number,
    /// A size in bytes, see [`value::parse_size`].
    Size,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// One parameter of an option.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name; `-` and `_` in it are the same letter.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// One line for `-help`.
    pub help: &'static str,
}

/// The parameters of an option.
#[derive(Debug)]
pub struct Keys {
    /// The name of the group in `query-command-line-options`.
    pub group: &'static str,
    /// The parameter whose value may stand first without its name.
    pub implied: Option<&'static str>,
    /// The known parameters; for an open group, those that are checked here.
    pub keys: &'static [Key],
    /// Whether other parameters are passed on unchecked.
    pub open: bool,
    /// Whether repetitions of the option add to one set of parameters.
    pub merge: bool,
}

impl Keys {
    /// Finds a parameter by its name, taking `-` and `_` as the same letter.
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        let same = |a: u8, b: u8| a == b || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_'));
        self.keys.iter().find(|key| {
            key.name.len() == name.len()
                && key.name.bytes().zip(name.bytes()).all(|(a, b)| same(a, b))
        })
    }
}

/// The parameters given for one option, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// The value of a parameter; the last one if it was repeated.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of a boolean parameter that the table has checked; `None` if it is absent.
    pub fn switch(&self, key: &str) -> Option<bool> {
        self.get(key).map(|value| value == "on")
    }

    /// The identifier, if one was given.
    pub fn id(&self) -> Option<&str> {
        self.get("id")
    }

    /// All parameters in order, repetitions included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a parameter at the end.
    pub fn push(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }

    /// Adds parameters at the end, so that they win over those already here.
    pub fn merge(&mut self, later: Pairs) {
        self.0.extend(later.0);
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Pairs(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// Why an option's text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyvalError {
    /// The option has no such parameter.
    #[error("Invalid parameter '{key}'{}", did_you_mean(*.nearest))]
    Unknown {
        /// The name that was given.
        key: String,
        /// The parameter that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value is not of its parameter's kind.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A value is none of the words that its parameter takes.
    #[error("invalid option value '{value}' for '{key}'{} (valid: {})",
            did_you_mean(*.nearest), .valid.join(", "))]
    NotOneOf {
        /// The parameter.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// The word that was probably meant.
        nearest: Option<&'static str>,
        /// All words.
        valid: &'static [&'static str],
    },
    /// A name is too long.
    #[error("parameter name '{0}...' is longer than {MAX_KEY} bytes")]
    LongKey(String),
    /// A value is too long.
    #[error("value of parameter '{0}' is longer than {MAX_VALUE} bytes")]
    LongValue(String),
    /// There are too many parameters.
    #[error("more than {MAX_PAIRS} parameters")]
    TooMany,
}

/// ` (did you mean 'WORD'?)`, or nothing.
pub(super) fn did_you_mean(word: Option<&str>) -> String {
    word.map_or_else(String::new, |word| format!(" (did you mean '{word}'?)"))
}

/// Parses an option's text by the table of its parameters. Values are checked against their kind
/// and kept as text; names are turned into the table's spelling.
///
/// # Errors
/// See [`KeyvalError`].
pub fn parse(text: &str, keys: &Keys) -> Result<Pairs, KeyvalError> {
    let mut pairs = Pairs::default();
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        if pairs.0.len() == MAX_PAIRS {
            return Err(KeyvalError::TooMany);
        }
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        let (key, value) = if let Some(tail) = tail.strip_prefix('=') {
            check_key_length(name)?;
            let value;
            (value, rest) = take_value(name, tail)?;
            (name, value)
        } else if let (true, Some(implied)) = (first, keys.implied) {
            let value;
            (value, rest) = take_value(implied, rest)?;
            (implied, value)
        } else {
            check_key_length(name)?;
            rest = tail.strip_prefix(',').unwrap_or(tail);
            let (name, value) = bare(name, keys);
            (name, value.to_owned())
        };
        first = false;
        let key = checked(key, &value, keys)?;
        pairs.push(key, value);
    }
    Ok(pairs)
}

/// A name without a value: on, or off if it is `no` and the name of a boolean.
fn bare<'a>(name: &'a str, keys: &Keys) -> (&'a str, &'static str) {
    if keys.find(name).is_none()
        && let Some(positive) = name.strip_prefix("no")
        && keys.find(positive).is_some_and(|key| key.kind == Kind::Boolean)
    {
        return (positive, "off");
    }
    (name, "on")
}

/// Checks a value against its parameter; returns the parameter's name as the table spells it.
///
/// # Errors
/// There is no such parameter, or it does not take the value.
pub(super) fn checked<'a>(name: &'a str, value: &str, keys: &Keys) -> Result<&'a str, KeyvalError> {
    if name == "id" {
        value::check_identifier(name, value)?;
    }
    let Some(key) = keys.find(name) else {
        if keys.open || name == "id" {
            return Ok(name);
        }
        return Err(KeyvalError::Unknown {
            key: name.to_owned(),
            nearest: nearest(name, keys.keys.iter().map(|key| key.name)),
        });
    };
    match key.kind {
        Kind::String => {}
        Kind::Boolean => {
            value::parse_bool(key.name, value)?;
        }
        Kind::Number => {
            // Whether a sign makes sense is for the option to say.
            value::parse_number(key.name, value).map(drop).or_else(|error| {
                value::parse_signed(key.name, value).map_err(|_| error).map(drop)
            })?;
        }
        Kind::Size => {
            value::parse_size(key.name, value)?;
        }
        Kind::OneOf(valid) => {
            if !valid.contains(&value) {
                return Err(KeyvalError::NotOneOf {
                    key: key.name,
                    value: value.to_owned(),
                    nearest: nearest(value, valid.iter().copied()),
                    valid,
                });
            }
        }
    }
    Ok(key.name)
}

fn check_key_length(name: &str) -> Result<(), KeyvalError> {
    if name.len() > MAX_KEY {
        return Err(KeyvalError::LongKey(name.chars().take(32).collect()));
    }
    Ok(())
}

/// Takes a value off the front of `text`: up to a single comma, with two commas for one. Returns
/// it and what follows the comma.
fn take_value<'a>(key: &str, text: &'a str) -> Result<(String, &'a str), KeyvalError> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(',').unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        if value.len() + part.len() > MAX_VALUE {
            return Err(KeyvalError::LongValue(key.to_owned()));
        }
        value.push_str(part);
        rest = tail.strip_prefix(',').unwrap_or(tail);
        match rest.strip_prefix(',') {
            Some(after) if !tail.is_empty() => {
                value.push(',');
                rest = after;
            }
            _ => return Ok((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: Keys = Keys {
        group: "test",
        implied: Some("type"),
        keys: &[
            Key { name: "type", kind: Kind::String, help: "" },
            Key { name: "usb", kind: Kind::Boolean, help: "" },
            Key { name: "nodes", kind: Kind::Number, help: "" },
            Key { name: "des", kind: Kind::Boolean, help: "" },
            Key { name: "kernel_irqchip", kind: Kind::Boolean, help: "" },
            Key { name: "size", kind: Kind::Size, help: "" },
            Key { name: "clock", kind: Kind::OneOf(&["host", "rt", "vm"]), help: "" },
        ],
        open: false,
        merge: false,
    };
    const OPEN: Keys =
        Keys { group: "open", implied: Some("driver"), keys: &[], open: true, merge: false };

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text, &KEYS).unwrap().0
    }

    fn error(text: &str) -> String {
        parse(text, &KEYS).unwrap_err().to_string()
    }

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn the_first_word_is_the_implied_value() {
        assert_eq!(pairs("pc"), own(&[("type", "pc")]));
        assert_eq!(pairs("type=pc"), own(&[("type", "pc")]));
        assert_eq!(pairs("a,,b,usb=on"), own(&[("type", "a,b"), ("usb", "on")]));
        assert_eq!(pairs(""), own(&[]));
        assert_eq!(pairs(",usb"), own(&[("type", ""), ("usb", "on")]));
        assert_eq!(error("usb=on,pc"), "Invalid parameter 'pc'");
    }

    #[test]
    fn two_commas_are_one() {
        assert_eq!(pairs("type=a,,b"), own(&[("type", "a,b")]));
        assert_eq!(pairs("type=a,,,usb"), own(&[("type", "a,"), ("usb", "on")]));
        assert_eq!(pairs("type=,,"), own(&[("type", ",")]));
        assert_eq!(pairs("type=a,"), own(&[("type", "a")]));
        assert_eq!(pairs("type=a=b"), own(&[("type", "a=b")]));
    }

    #[test]
    fn a_bare_name_is_on_and_no_before_a_boolean_is_off() {
        assert_eq!(pairs("pc,usb"), own(&[("type", "pc"), ("usb", "on")]));
        assert_eq!(pairs("pc,nousb"), own(&[("type", "pc"), ("usb", "off")]));
        // A name that begins with "no" of its own is not a denial.
        assert_eq!(pairs("pc,nodes=3"), own(&[("type", "pc"), ("nodes", "3")]));
        assert_eq!(error("pc,nodes"), "Parameter 'nodes' expects a number");
        assert_eq!(error("pc,nosize"), "Invalid parameter 'nosize' (did you mean 'size'?)");
        assert_eq!(parse("x,nofoo", &OPEN).unwrap().0, own(&[("driver", "x"), ("nofoo", "on")]));
    }

    #[test]
    fn the_last_of_repeated_names_wins_and_all_are_kept() {
        let pairs = parse("a,type=b,type=c", &KEYS).unwrap();
        assert_eq!(pairs.get("type"), Some("c"));
        assert_eq!(pairs.iter().count(), 3);
    }

    #[test]
    fn a_dash_is_an_underscore() {
        assert_eq!(
            pairs("kernel-irqchip=off,usb=on"),
            own(&[("kernel_irqchip", "off"), ("usb", "on")])
        );
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(error("pc,usbb=on"), "Invalid parameter 'usbb' (did you mean 'usb'?)");
        assert_eq!(error("pc,=on"), "Invalid parameter ''");
        assert_eq!(error("pc,usb=maybe"), "Parameter 'usb' expects 'on' or 'off'");
        assert_eq!(error("pc,nodes=x"), "Parameter 'nodes' expects a number");
        assert_eq!(error("pc,size=x"), "Parameter 'size' expects a size");
        assert_eq!(error("pc,id=0"), "Parameter 'id' expects an identifier");
        assert_eq!(
            error("pc,clock=hosts"),
            "invalid option value 'hosts' for 'clock' (did you mean 'host'?) (valid: host, rt, vm)"
        );
    }

    #[test]
    fn lengths_are_bounded() {
        let name = "x".repeat(MAX_KEY + 1);
        assert!(error(&format!("pc,{name}=1")).ends_with("...' is longer than 127 bytes"));
        assert!(error(&format!("pc,{name}")).ends_with("...' is longer than 127 bytes"));
        assert!(parse(&format!("type={}", "x".repeat(MAX_VALUE)), &KEYS).is_ok());
        assert_eq!(
            error(&format!("type={}", "x".repeat(MAX_VALUE + 1))),
            "value of parameter 'type' is longer than 4096 bytes"
        );
        assert_eq!(error(&",usb".repeat(MAX_PAIRS + 1)), "more than 256 parameters");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "([a-z]{0,6}[=,]{0,3}.?){0,20}") {
            let _ = parse(&text, &KEYS);
            let _ = parse(&text, &OPEN);
        }

        #[test]
        fn what_is_escaped_is_read_back(
            values in prop::collection::vec("[a-z,=]{0,12}", 1..8),
        ) {
            let text: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(i, value)| format!("k{i}={}", value.replace(',', ",,")))
                .collect();
            let read = parse(&text.join(","), &OPEN).unwrap();
            for (i, value) in values.iter().enumerate() {
                prop_assert_eq!(read.get(&format!("k{i}")), Some(value.as_str()));
            }
        }
    }
}
