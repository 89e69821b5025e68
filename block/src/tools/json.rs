//! JSON as tools print it: four spaces deep, the members of objects in the order that clients
//! have always seen.
//!
//! That order is the one of a hash table of 512 buckets over the names. Plain functions.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

/// The value as text, with its objects in order.
pub fn pretty(value: Value) -> String {
    let mut text = Vec::new();
    let format = PrettyFormatter::with_indent(b"    ");
    let mut serializer = Serializer::with_formatter(&mut text, format);
    // Writing to memory does not fail, nor does a value that is JSON already.
    let _ = ordered(value).serialize(&mut serializer);
    String::from_utf8_lossy(&text).into_owned()
}

fn ordered(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_by_key(|(name, _)| bucket(name));
            let members = members.into_iter().map(|(name, value)| (name, ordered(value)));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(values) => Value::Array(values.into_iter().map(ordered).collect()),
        value => value,
    }
}

/// Where a name is in the table.
fn bucket(name: &str) -> u32 {
    let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let start = 0x238f_13af_u32.wrapping_mul(len);
    let mixed = name.bytes().zip(0u32..).fold(start, |sum, (byte, at)| {
        sum.wrapping_add(u32::from(byte) << (at.wrapping_mul(5) % 24))
    });
    mixed.wrapping_mul(1_103_515_243).wrapping_add(12345) % 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_as_clients_know_them() {
        for order in [
            "backing-image compressed backing-filename-format snapshots virtual-size filename \
             cluster-size format actual-size format-specific full-backing-filename encrypted \
             backing-filename dirty-flag",
            "image-end-offset compressed-clusters total-clusters corruptions corruptions-fixed \
             check-errors leaks leaks-fixed allocated-clusters filename format \
             fragmented-clusters",
            "vm-clock-nsec name date-sec date-nsec vm-clock-sec id vm-state-size",
        ] {
            let names: Vec<&str> = order.split_whitespace().collect();
            let mut members = names.clone();
            members.sort_unstable();
            members.sort_by_key(|name| bucket(name));
            assert_eq!(members, names);
        }
    }

    #[test]
    fn four_spaces() {
        let value = serde_json::json!({"filename": "a", "check-errors": [1], "x": {}});
        let text = pretty(value);
        assert!(text.starts_with("{\n    \""), "{text}");
        assert!(text.contains("[\n        1\n    ]"), "{text}");
    }
}
