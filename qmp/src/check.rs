//! The first look at a command's arguments: names and JSON types.
//!
//! It works from the table the generator writes, before anything is decoded.
//! Hostile clients reach it with any object at all.

use crate::QmpError;
use serde_json::{Map, Value};

/// What the first look demands of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string, or a word of an enum.
    Str,
    /// A number without fraction that fits 64 bits.
    Int,
    /// Any number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Anything; [`crate::decode`] looks closer.
    Any,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Str => "string",
            Kind::Int => "int",
            Kind::Number => "number",
            Kind::Bool => "bool",
            Kind::Any => "any",
        }
    }

    fn accepts(self, value: &Value) -> bool {
        match self {
            Kind::Str => value.is_string(),
            Kind::Int => value.is_i64() || value.is_u64(),
            Kind::Number => value.is_number(),
            Kind::Bool => value.is_boolean(),
            Kind::Any => true,
        }
    }
}

/// One argument of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its JSON type.
    pub kind: Kind,
    /// Whether it may be left out.
    pub optional: bool,
}

/// Looks for missing arguments and for mistyped ones, each in the table's order,
/// then for unknown ones, in the client's order. An `open` command may be given
/// others than the table's; whether what it takes of any type is there,
/// [`crate::decode`] sees.
///
/// # Errors
/// The first missing, unknown or mistyped argument.
pub fn check(table: &[Arg], open: bool, args: &Map<String, Value>) -> Result<(), QmpError> {
    let mandatory = |arg: &&Arg| !(arg.optional || open && arg.kind == Kind::Any);
    let mut missing = table.iter().filter(mandatory);
    if let Some(arg) = missing.find(|arg| !args.contains_key(arg.name)) {
        return Err(QmpError::missing(arg.name));
    }
    let accepts = |arg: &Arg| args.get(arg.name).is_none_or(|value| arg.kind.accepts(value));
    if let Some(arg) = table.iter().find(|arg| !accepts(arg)) {
        return Err(QmpError::invalid_type(arg.name, arg.kind.word()));
    }
    match args.keys().find(|name| !open && !table.iter().any(|arg| arg.name == **name)) {
        Some(name) => Err(QmpError::invalid(name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TABLE: &[Arg] = &[
        Arg { name: "name", kind: Kind::Str, optional: false },
        Arg { name: "up", kind: Kind::Bool, optional: false },
        Arg { name: "n", kind: Kind::Int, optional: true },
        Arg { name: "f", kind: Kind::Number, optional: true },
        Arg { name: "x", kind: Kind::Any, optional: true },
    ];

    fn desc(open: bool, args: Value) -> String {
        let Value::Object(args) = args else { panic!("an object") };
        check(TABLE, open, &args).map_or_else(|error| error.desc, |()| "ok".into())
    }

    #[test]
    fn texts_are_exact() {
        for (args, expected) in [
            (json!({}), "Parameter 'name' is missing"),
            (json!({"up": 3}), "Parameter 'name' is missing"),
            (json!({"name": 3}), "Parameter 'up' is missing"),
            (json!({"name": 3, "up": true}), "Invalid parameter type for 'name', expected: string"),
            (json!({"name": "", "up": 1}), "Invalid parameter type for 'up', expected: bool"),
            (
                json!({"name": "", "up": true, "n": 1.0}),
                "Invalid parameter type for 'n', expected: int",
            ),
            (
                json!({"name": "", "up": true, "f": "1"}),
                "Invalid parameter type for 'f', expected: number",
            ),
            (json!({"name": "", "up": true, "zz": 1}), "Invalid parameter 'zz'"),
            (json!({"name": "", "up": true, "n": 1, "f": 1.5, "x": []}), "ok"),
            (json!({"name": "", "up": true, "f": 2}), "ok"),
        ] {
            assert_eq!(desc(false, args), expected);
        }
        assert_eq!(desc(true, json!({"name": "", "up": true, "zz": 1})), "ok");
    }
}
