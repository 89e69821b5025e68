//! Every shape of the schema, through the generated types.

#[path = "shapes/generated.rs"]
#[allow(dead_code, unreachable_pub)]
#[rustfmt::skip]
mod shapes;

use crate::{Handle, QmpError};
use serde_json::{Map, Value, json};
use shapes::*;

/// Gives back what it was given.
#[derive(Default)]
struct Echo(String);

impl Handle<Every> for Echo {
    fn handle(&mut self, command: Every) -> Result<Image, QmpError> {
        self.0 = serde_json::to_string(&command).unwrap();
        let inner = Image { name: "in".into(), backing: None, all: None };
        Ok(Image { name: "out".into(), backing: Some(Box::new(inner)), all: None })
    }
}

impl Handle<BlockdevAdd> for Echo {
    fn handle(&mut self, command: BlockdevAdd) -> Result<(), QmpError> {
        self.0 = serde_json::to_string(&command).unwrap();
        Ok(())
    }
}

impl Handle<InetCommand> for Echo {
    fn handle(&mut self, command: InetCommand) -> Result<Vec<i64>, QmpError> {
        self.0 = serde_json::to_string(&command).unwrap();
        Ok(vec![1, 2])
    }
}

impl Handle<DeviceAdd> for Echo {
    fn handle(&mut self, command: DeviceAdd) -> Result<(), QmpError> {
        self.0 = serde_json::to_string(&command).unwrap();
        Ok(())
    }
}

fn run(name: &str, args: Value) -> (Result<Value, QmpError>, String) {
    let Value::Object(args) = args else { panic!("an object") };
    let mut echo = Echo::default();
    (dispatch(&mut echo, name, args), echo.0)
}

fn error(name: &str, args: Value) -> String {
    run(name, args.clone()).0.map_or_else(|error| error.desc, |_| panic!("{args} was taken"))
}

/// `every` with the mandatory arguments and some more.
fn every(more: Value) -> Value {
    let mut args = json!({"s": "x", "i": 1, "b": true, "n": 1.5, "f": "base-64"});
    let Value::Object(more) = more else { panic!("an object") };
    args.as_object_mut().unwrap().extend(more);
    args
}

#[test]
fn values_pass_unchanged() {
    for args in [
        every(json!({})),
        every(json!({"u8": 255, "i8": -128, "i16": 5, "u32": 1, "i32": -1, "size": 1_u64 << 40})),
        every(json!({"list": ["a", "b"], "any": {"x": [1, "2", 3.5, false]}})),
        every(json!({"address": {"type": "inet", "data": {"host": "h", "port": "1", "to": 2}}})),
        every(json!({"address": {"type": "fd", "data": {"str": "f"}}})),
        every(json!({"address": {"type": "number", "data": 7}})),
        every(json!({"address": {"type": "none", "data": {}}})),
        every(json!({"image": {"name": "a", "backing": {"name": "b"}, "all": [{"name": "c"}]}})),
        every(json!({"regs": {"pc": 1, "PC": 2, "type": "t", "deep": {"x-y": 0.5}}})),
    ] {
        let (result, echo) = run("every", args.clone());
        assert_eq!(result, Ok(json!({"name": "out", "backing": {"name": "in"}})));
        assert_eq!(serde_json::from_str::<Value>(&echo).unwrap(), args);
    }
    let (result, echo) = run("inet", json!({"host": "h", "port": "p"}));
    assert_eq!((result, echo.as_str()), (Ok(json!([1, 2])), r#"{"host":"h","port":"p"}"#));
    let (result, echo) = run("device_add", json!({"addr": 3, "driver": "d", "x": [1]}));
    assert_eq!((result, echo.as_str()), (Ok(json!({})), r#"{"driver":"d","addr":3,"x":[1]}"#));
}

#[test]
fn flat_unions_and_alternates() {
    let options = json!({"options": {
        "id": "a", "format": "utf8", "driver": "qcow2",
        "file": {"driver": "file", "filename": "f"}, "backing": "b"
    }});
    let (result, echo) = run("blockdev-add", options.clone());
    assert_eq!(result, Ok(json!({})));
    assert_eq!(serde_json::from_str::<Value>(&echo).unwrap(), options);

    for (options, expected) in [
        (json!({"id": 3}), "Invalid parameter type for 'id', expected: string"),
        (json!({}), "Invalid parameter type for 'driver', expected: string"),
        (json!({"driver": "zip"}), "Invalid parameter 'zip'"),
        (json!({"driver": "file"}), "Invalid parameter type for 'filename', expected: string"),
        (json!({"driver": "raw"}), "Parameter 'file' is missing"),
        (
            json!({"driver": "raw", "file": {"driver": "file", "filename": "f", "zz": 1}}),
            "QMP input object member 'zz' is unexpected",
        ),
    ] {
        assert_eq!(error("blockdev-add", json!({"options": options})), expected);
    }
    assert_eq!(
        error("blockdev-add", json!({"options": 3})),
        "Invalid parameter type for 'options', expected: QDict"
    );
}

#[test]
fn texts_are_exact() {
    for (more, expected) in [
        (json!({"i": "1"}), "Invalid parameter type for 'i', expected: int"),
        (json!({"f": "hex"}), "Invalid parameter 'hex'"),
        (json!({"f": 3}), "Invalid parameter type for 'f', expected: string"),
        (json!({"u8": 256}), "Parameter 'u8' expects uint8_t"),
        (json!({"u8": -1}), "Parameter 'u8' expects uint8_t"),
        (json!({"i8": 128}), "Parameter 'i8' expects int8_t"),
        (json!({"i16": 1 << 15}), "Parameter 'i16' expects int16_t"),
        (json!({"u32": -1}), "Parameter 'u32' expects uint32_t"),
        (json!({"i32": 1_u64 << 31}), "Parameter 'i32' expects int32_t"),
        (json!({"list": "x"}), "Invalid parameter type for 'list', expected: list"),
        (json!({"list": ["x", 3]}), "Invalid parameter type for 'null', expected: string"),
        (json!({"address": 3}), "Invalid parameter type for 'address', expected: QDict"),
        (json!({"address": {}}), "Invalid parameter type for 'type', expected: string"),
        (json!({"address": {"type": "x"}}), "Invalid parameter 'x'"),
        (
            json!({"address": {"type": "inet"}}),
            "Invalid parameter type for 'data', expected: QDict",
        ),
        (
            json!({"address": {"type": "number"}}),
            "Invalid parameter type for 'data', expected: integer",
        ),
        (
            json!({"address": {"type": "inet", "data": {"port": 1}}}),
            "Invalid parameter type for 'host', expected: string",
        ),
        (
            json!({"address": {"type": "inet", "data": {"host": "", "port": "", "ipv4": 1}}}),
            "Invalid parameter type for 'ipv4', expected: boolean",
        ),
        (
            json!({"address": {"type": "inet", "data": {"zz": 1, "host": "", "port": ""}}}),
            "QMP input object member 'zz' is unexpected",
        ),
        (
            json!({"address": {"type": "none", "data": {}, "zz": 1}}),
            "QMP input object member 'zz' is unexpected",
        ),
        (
            json!({"regs": {"pc": 1, "type": "", "deep": {"x-y": true}}}),
            "Invalid parameter type for 'x-y', expected: number",
        ),
        (
            json!({"regs": {"pc": 1.5, "type": "", "deep": {"x-y": 1}}}),
            "Invalid parameter type for 'pc', expected: integer",
        ),
    ] {
        assert_eq!(error("every", every(more)), expected);
    }
    assert_eq!(error("device_add", json!({"x": 1})), "Parameter 'driver' is missing");
    assert_eq!(error("nonsense", json!({})), "The command nonsense has not been found");
}

#[test]
fn a_negative_size_stands_for_its_bits() {
    let (_, echo) = run("every", every(json!({"size": -1})));
    assert!(echo.contains("\"size\":18446744073709551615"));
}

#[test]
fn events_carry_their_data() {
    let inet = Inet { host: "h".into(), port: "p".into(), to: None, ipv4: None };
    let moved = Event::Moved(inet);
    assert_eq!(moved.name(), "MOVED");
    assert_eq!(
        serde_json::to_value(&moved).unwrap(),
        json!({"event": "MOVED", "data": {"host": "h", "port": "p"}})
    );
    let opened = Event::Opened { device_name: Some("d".into()), format: Format::Base64 };
    assert_eq!(
        serde_json::to_value(&opened).unwrap(),
        json!({"event": "OPENED", "data": {"device-name": "d", "format": "base-64"}})
    );
}

#[test]
fn deep_values_are_bounded_by_the_parser_only() {
    let deep = (0..2000).fold(json!(1), |inner, _| json!([inner]));
    let args = every(json!({"any": deep}));
    let Value::Object(args) = args else { panic!("an object") };
    let command: Every = super::arguments(args).unwrap();
    assert!(command.any.is_some());
    assert!(super::arguments::<Every>(Map::new()).is_err());
}

#[test]
fn every_shape_can_be_described() {
    let mut roots: Vec<_> = COMMANDS.iter().map(|spec| spec.name).collect();
    roots.extend(EVENTS);
    crate::introspect::tests::check(INTROSPECTION, &roots);
}
