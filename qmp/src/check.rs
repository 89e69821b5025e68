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

/// Looks for missing arguments, then for unknown and mistyped ones, both in the
/// order of QEMU's hash of their names, so that of several mistakes the same one
/// is reported. An `open` command may be given others than the table's, misses
/// them in the table's order, and leaves it to [`crate::decode`] to see whether
/// what it takes of any type is there.
///
/// # Errors
/// The first missing, unknown or mistyped argument.
pub fn check(table: &[Arg], open: bool, args: &Map<String, Value>) -> Result<(), QmpError> {
    let missing = table.iter().filter(|arg| {
        !(arg.optional || open && arg.kind == Kind::Any || args.contains_key(arg.name))
    });
    let first = missing.min_by_key(|arg| if open { 0 } else { bucket(arg.name) });
    if let Some(arg) = first {
        return Err(QmpError::missing(arg.name));
    }
    let wrong = args.iter().filter_map(|(name, value)| {
        let arg = table.iter().find(|arg| arg.name == name);
        match arg {
            Some(arg) if arg.kind.accepts(value) => None,
            None if open => None,
            _ => Some((name, arg)),
        }
    });
    match wrong.min_by_key(|(name, _)| bucket(name)) {
        Some((name, Some(arg))) => Err(QmpError::invalid_type(name, arg.kind.word())),
        Some((name, None)) => Err(QmpError::invalid(name)),
        None => Ok(()),
    }
}

/// Where QEMU's hash table of 512 buckets has the name: it goes through arguments,
/// and writes members, from the first bucket to the last.
pub fn bucket(name: &str) -> u32 {
    let start = 0x238F_13AF_u32.wrapping_mul(name.len() as u32);
    let sum = name
        .bytes()
        .enumerate()
        .fold(start, |sum, (index, byte)| sum.wrapping_add(u32::from(byte) << (5 * index % 24)));
    sum.wrapping_mul(1_103_515_243).wrapping_add(12_345) % 512
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

    #[test]
    fn names_are_gone_through_in_the_hash_s_order() {
        // What several commands complain about first, second, ...
        for order in [
            "cpu filename size val",
            "blk uri detach inc",
            "end begin protocol paging",
            "protocol connected password",
            "protocol skipauth tls fdname",
            "device format data",
            "device size format",
            "device target arg",
            "backend id",
            "path property value",
            "name up",
            "iops_rd device iops_wr iops bps_wr bps bps_rd",
            "device sync target",
        ] {
            let buckets: Vec<_> = order.split(' ').map(bucket).collect();
            assert!(buckets.is_sorted(), "{order}: {buckets:?}");
        }
        let wrong = json!({"name": "", "up": true, "zz": 1, "n": "", "f": ""});
        let Value::Object(object) = &wrong else { panic!("an object") };
        let first = object.keys().filter(|name| name.len() < 2 || *name == "zz");
        let first = first.min_by_key(|name| bucket(name)).unwrap();
        assert!(desc(false, wrong.clone()).contains(&format!("'{first}'")));
        assert_eq!(desc(true, json!({})), "Parameter 'name' is missing");
    }
}
