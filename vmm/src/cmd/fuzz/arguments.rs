//! Commands and arguments made up from a fuzzer's bytes, by what the interface says of itself.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::fuzz_machine;

/// Deeper values are not made.
const DEPTH: u32 = 6;

/// Strings that mean something to some command.
const WORDS: &[&str] = &[
    "",
    "a",
    "b",
    "c",
    "serial0",
    "/machine",
    "/machine/unattached",
    "/objects/a",
    "isa-serial",
    "isa-debugcon",
    "isa-debug-exit",
    "rng-random",
    "rng-builtin",
    "memory-backend-ram",
    "memory-backend-file",
    "iothread",
    "secret",
    "file:a",
    "file:b",
    "fd:a",
    "/a",
    "b/c",
    "spice",
    "vnc",
    "ringbuf",
    "info status",
    "info qtree",
    "info qom-tree",
    "info chardev",
    "info mtree",
    "info registers",
    "x /4xb 0",
    "xp /2i 0",
    "print 1+2*3",
    "sum 0 16",
    "help",
    "system_reset",
    "stop",
    "cont",
    "o /b 0x80 1",
    "i /b 0x71",
    "cpu 0",
    "1",
    "-1",
    "4096",
    "on",
    "off",
    "utf8",
    "type",
    "realized",
    "\u{e9}\u{1f600}",
    "%s%n",
    "a,b=c",
    "127.0.0.1",
    "0",
    "65536",
    "mux",
];

/// Members that some commands take besides those they name.
const KEYS: &[&str] = &[
    "id", "driver", "qom-type", "size", "filename", "chardev", "share", "data", "props", "iobase",
    "index", "mem-path", "type", "x",
];

/// What members are given half of the time, so that commands have to do with one another.
const USUAL: &[(&str, &str)] = &[
    ("id", "a"),
    ("device", "a"),
    ("fdname", "a"),
    ("chardev", "a"),
    ("protocol", "file:a"),
    ("protocol", "fd:a"),
    ("qom-type", "memory-backend-ram"),
    ("driver", "isa-debug-exit"),
    ("path", "/machine"),
];

const INTEGERS: &[i64] = &[
    0,
    1,
    2,
    3,
    7,
    16,
    100,
    255,
    4096,
    65535,
    65536,
    -1,
    -2,
    1 << 20,
    1 << 32,
    i64::MAX,
    i64::MIN,
];

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::new);

/// What the interface says of itself.
struct Schema {
    /// Names, and the types of the arguments.
    commands: Vec<(String, String)>,
    types: BTreeMap<String, Value>,
}

impl Schema {
    fn new() -> Schema {
        let entities = qmp::dispatch(&mut fuzz_machine(), "query-qmp-schema", Map::new());
        let entities = entities.expect("the interface as data");
        let mut schema = Schema { commands: Vec::new(), types: BTreeMap::new() };
        for entity in entities.as_array().into_iter().flatten() {
            let name = text(entity, "name");
            if text(entity, "meta-type") == "command" {
                schema.commands.push((name, text(entity, "arg-type")));
            } else {
                schema.types.insert(name, entity.clone());
            }
        }
        assert!(schema.commands.len() > 10, "the interface has commands");
        schema
    }
}

fn text(entity: &Value, member: &str) -> String {
    entity.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The fuzzer's bytes, of which each choice takes one.
pub(super) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Source(data)
    }

    /// The next command and its arguments; `None` at the end of the bytes.
    pub(super) fn command(&mut self) -> Option<(String, Value)> {
        if self.0.is_empty() {
            return None;
        }
        let (name, arguments) = self.pick(&SCHEMA.commands)?;
        Some((name.clone(), self.value(arguments, 0)))
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// True once in so many times, and never when the bytes are used up.
    fn once_in(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    fn pick<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        list.get(usize::from(self.byte()) % list.len().max(1))
    }

    fn word(&mut self) -> String {
        self.pick(WORDS).copied().unwrap_or_default().to_owned()
    }

    /// A value of a type, or in rare cases of another.
    fn value(&mut self, name: &str, depth: u32) -> Value {
        let entity = SCHEMA.types.get(name);
        // Arguments as a whole are an object in any case.
        if depth > 0 && self.once_in(16) {
            return self.any(depth);
        }
        let Some(entity) = entity.filter(|_| depth < DEPTH) else { return self.any(depth) };
        let list = |member: &str| entity.get(member).and_then(Value::as_array);
        match text(entity, "meta-type").as_str() {
            "builtin" => match text(entity, "json-type").as_str() {
                "string" => self.word().into(),
                "int" => self.pick(INTEGERS).copied().unwrap_or_default().into(),
                "number" => json!(f64::from(self.byte()) / 3.0),
                "boolean" => self.once_in(2).into(),
                _ => self.any(depth),
            },
            "enum" => match list("values") {
                Some(words) if !self.once_in(32) => self.pick(words).cloned().unwrap_or_default(),
                _ => self.word().into(),
            },
            "array" => {
                let element = text(entity, "element-type");
                (0..self.byte() % 4).map(|_| self.value(&element, depth + 1)).collect()
            }
            "alternate" => match list("members").and_then(|types| self.pick(types)) {
                Some(one) => self.value(&text(one, "type"), depth + 1),
                None => self.any(depth),
            },
            _ => Value::Object(self.object(entity, depth)),
        }
    }

    fn object(&mut self, entity: &Value, depth: u32) -> Map<String, Value> {
        let mut members = Map::new();
        let list = |entity: &Value, member: &str| {
            entity.get(member).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        for member in list(entity, "members") {
            let optional = member.get("default").is_some();
            if !self.once_in(if optional { 2 } else { 32 }) {
                let name = text(&member, "name");
                let mut value = self.value(&text(&member, "type"), depth + 1);
                let usual: Vec<_> = USUAL.iter().filter(|(of, _)| *of == name).collect();
                if value.is_string() && !usual.is_empty() && self.once_in(2) {
                    value = self.pick(&usual).map_or(Value::Null, |(_, usual)| (*usual).into());
                }
                members.insert(name, value);
            }
        }
        let tag = members.get(&text(entity, "tag")).cloned();
        for case in list(entity, "variants") {
            if case.get("case") == tag.as_ref()
                && let Some(inner) = SCHEMA.types.get(&text(&case, "type"))
            {
                members.extend(self.object(inner, depth + 1));
            }
        }
        for _ in 0..if self.once_in(8) { self.byte() % 5 } else { 0 } {
            let key = self.pick(KEYS).copied().unwrap_or_default();
            let value = self.any(depth + 1);
            members.insert(key.to_owned(), value);
        }
        members
    }

    /// Anything.
    fn any(&mut self, depth: u32) -> Value {
        match self.byte() % 8 {
            0 => self.once_in(2).into(),
            1 | 2 => self.pick(INTEGERS).copied().unwrap_or_default().into(),
            3 => json!(f64::from(self.byte()) - 0.5),
            4 if depth < DEPTH => (0..self.byte() % 4).map(|_| self.any(depth + 1)).collect(),
            5 if depth < DEPTH => (0..self.byte() % 4)
                .map(|_| {
                    let key = self.pick(KEYS).copied().unwrap_or_default().to_owned();
                    (key, self.any(depth + 1))
                })
                .collect(),
            _ => self.word().into(),
        }
    }
}
