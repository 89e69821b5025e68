//! Differences between what two peers say, field by field.
//!
//! A difference is a line: `COMMAND: PLACE: OURS | THEIRS`. Any thread; no lock.

use serde_json::{Map, Value};

/// What stands for a member or message that one of the two lacks.
const NOTHING: &str = "nothing";

/// The differences of two replies to `command`.
pub fn replies(command: &str, ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match (ours.get("return"), theirs.get("return")) {
        (Some(ours), Some(theirs)) => values("return", ours, theirs, &mut found),
        // A greeting.
        (None, None) if ours.get("error").is_none() && theirs.get("error").is_none() => {
            values("message", ours, theirs, &mut found);
        }
        (None, None) => {
            let (ours, theirs) = (outcome(ours), outcome(theirs));
            if ours != theirs {
                found.push(format!("{ours} | {theirs}"));
            }
        }
        _ => found.push(format!("{} | {}", outcome(ours), outcome(theirs))),
    }
    if ours.get("id") != theirs.get("id") {
        let id = |reply: &Value| reply.get("id").map_or(NOTHING.to_owned(), Value::to_string);
        found.push(format!("id: {} | {}", id(ours), id(theirs)));
    }
    found.into_iter().map(|line| format!("{command}: {line}")).collect()
}

/// The differences of two events' data.
pub fn events(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let name = ours["event"].as_str().unwrap_or_default();
    let data = |event: &Value| event.get("data").cloned().unwrap_or(Value::Object(Map::new()));
    values("data", &data(ours), &data(theirs), &mut found);
    found.into_iter().map(|line| format!("{name}: {line}")).collect()
}

/// A reply in few words.
fn outcome(reply: &Value) -> String {
    let member = |name: &str| reply["error"][name].as_str().unwrap_or_default();
    match reply.get("error") {
        Some(_) => format!("{}: {}", member("class"), member("desc")),
        None => match reply.get("return") {
            Some(value) => format!("return {value}"),
            None => reply.to_string(),
        },
    }
}

fn values(place: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => objects(place, ours, theirs, found),
        (Value::Array(ours), Value::Array(theirs)) => lists(place, ours, theirs, found),
        _ if ours == theirs => {}
        _ => found.push(format!("{place}: {ours} | {theirs}")),
    }
}

fn objects(
    place: &str,
    ours: &Map<String, Value>,
    theirs: &Map<String, Value>,
    found: &mut Vec<String>,
) {
    for (name, value) in ours {
        match theirs.get(name) {
            Some(other) => values(&format!("{place}.{name}"), value, other, found),
            None => found.push(format!("{place}.{name}: {value} | {NOTHING}")),
        }
    }
    for (name, value) in theirs {
        if !ours.contains_key(name) {
            found.push(format!("{place}.{name}: {NOTHING} | {value}"));
        }
    }
    let order = |of: &Map<String, Value>, both: &Map<String, Value>| {
        let names: Vec<_> = of.keys().filter(|name| both.contains_key(*name)).cloned().collect();
        names.join(" ")
    };
    let (ours, theirs) = (order(ours, theirs), order(theirs, ours));
    if ours != theirs {
        found.push(format!("{place}: order {ours} | {theirs}"));
    }
}

/// Lists of things with names are compared name by name, others in their order.
fn lists(place: &str, ours: &[Value], theirs: &[Value], found: &mut Vec<String>) {
    let key = ["name", "label", "option", "id"].into_iter().find(|key| {
        let named = |list: &[Value]| !list.is_empty() && list.iter().all(|v| v[key].is_string());
        named(ours) && named(theirs)
    });
    let Some(key) = key else {
        if ours.len() != theirs.len() {
            found.push(format!("{place}: {} items | {} items", ours.len(), theirs.len()));
        }
        for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            values(&format!("{place}[{index}]"), ours, theirs, found);
        }
        return;
    };
    let find = |list: &[Value], value: &Value| list.iter().find(|v| v[key] == value[key]).cloned();
    let place = |value: &Value| format!("{place}[{}]", value[key].as_str().unwrap_or_default());
    for value in ours {
        match find(theirs, value) {
            Some(other) => values(&place(value), value, &other, found),
            None => found.push(format!("{}: {value} | {NOTHING}", place(value))),
        }
    }
    for value in theirs.iter().filter(|value| find(ours, value).is_none()) {
        found.push(format!("{}: {NOTHING} | {value}", place(value)));
    }
    // The order of those that both have.
    let order = |of: &[Value], both: &[Value]| {
        let names = of.iter().filter(|value| find(both, value).is_some());
        names.filter_map(|value| value[key].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (mine, other) = (order(ours, theirs), order(theirs, ours));
    if mine != other {
        found.push(format!("order of the list: {} | {}", mine.join(" "), other.join(" ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tells_every_field_that_differs() {
        let ours =
            json!({"return": {"a": 1, "b": [1, 2], "c": [{"name": "x", "n": 1}, {"name": "y"}]}});
        let theirs =
            json!({"return": {"b": [1, 3], "a": 1, "c": [{"name": "x", "n": 2}], "d": true}});
        assert_eq!(
            replies("q", &ours, &theirs),
            [
                "q: return.b[1]: 2 | 3",
                "q: return.c[x].n: 1 | 2",
                "q: return.c[y]: {\"name\":\"y\"} | nothing",
                "q: return.d: nothing | true",
                "q: return: order a b c | b a c",
            ]
        );
        let error = json!({"error": {"class": "GenericError", "desc": "no"}, "id": 1});
        assert_eq!(
            replies("q", &json!({"return": {}}), &error),
            ["q: return {} | GenericError: no", "q: id: nothing | 1"]
        );
        assert!(replies("q", &error, &error).is_empty());
        assert_eq!(
            events(&json!({"event": "RESET"}), &json!({"event": "RESET", "data": {"guest": true}})),
            ["RESET: data.guest: nothing | true"]
        );
    }
}
