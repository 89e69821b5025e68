//! The writer: QEMU's spacing and escapes, on one line or indented.
//!
//! Pure; no lock. It writes what this program made and the ids that clients gave, which the reader
//! has bounded.

use serde_json::{Map, Number, Value};

/// Appends `value` to `out`: members apart by `", "`, names and values by
/// `": "`, everything but printable ASCII as `\uXXXX`.
///
/// `pretty` puts each member on a line of its own, four spaces deeper than what
/// holds it. Line ends are CR LF then, as everything a monitor says.
pub fn write(out: &mut Vec<u8>, value: &Value, pretty: bool) {
    write_value(out, value, pretty.then_some(0));
}

/// `level` is the indentation, or `None` on one line. Recursion is as deep as
/// the value, which the parser and the schema bound.
fn write_value(out: &mut Vec<u8>, value: &Value, level: Option<usize>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => write_array(out, items, level),
        Value::Object(members) => write_object(out, members, level),
    }
}

fn write_array(out: &mut Vec<u8>, items: &[Value], level: Option<usize>) {
    out.push(b'[');
    let inner = level.map(|level| level.saturating_add(1));
    for (n, item) in items.iter().enumerate() {
        separate(out, n, inner);
        write_value(out, item, inner);
    }
    new_line(out, level);
    out.push(b']');
}

fn write_object(out: &mut Vec<u8>, members: &Map<String, Value>, level: Option<usize>) {
    out.push(b'{');
    let inner = level.map(|level| level.saturating_add(1));
    for (n, (name, value)) in members.iter().enumerate() {
        separate(out, n, inner);
        write_string(out, name);
        out.extend_from_slice(b": ");
        write_value(out, value, inner);
    }
    new_line(out, level);
    out.push(b'}');
}

fn separate(out: &mut Vec<u8>, n: usize, level: Option<usize>) {
    if n > 0 {
        out.extend_from_slice(b", ");
    }
    new_line(out, level);
}

fn new_line(out: &mut Vec<u8>, level: Option<usize>) {
    if let Some(level) = level {
        out.extend_from_slice(b"\r\n");
        out.resize(out.len().saturating_add(level.saturating_mul(4)), b' ');
    }
}

/// Integers are signed 64 bits on the wire: an unsigned one with the top bit
/// set comes out negative. Floats have at most six decimals and no idle zeros.
fn write_number(out: &mut Vec<u8>, number: &Number) {
    let text = if let Some(n) = number.as_i64() {
        n.to_string()
    } else if let Some(n) = number.as_u64() {
        n.cast_signed().to_string()
    } else {
        let text = format!("{:.6}", number.as_f64().unwrap_or_default());
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\x08' => out.extend_from_slice(b"\\b"),
            '\x0c' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            // Printable ASCII, so one byte.
            ' '..='~' => out.extend(u8::try_from(c)),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04X}").as_bytes());
                }
            }
        }
    }
    out.push(b'"');
}
