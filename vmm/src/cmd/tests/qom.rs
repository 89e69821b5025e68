use serde_json::json;

use crate::testing::Rig;

fn names(list: &serde_json::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[test]
fn the_tree_is_listed_newest_first() {
    let mut rig = Rig::new();
    rig.run("device_add", r#"{"driver": "thing", "id": "t", "port": 16}"#).unwrap();
    let mut list = |path: &str| {
        rig.run("qom-list", &json!({"path": path}).to_string()).unwrap_or_else(|e| panic!("{e}"))
    };
    let root = json!([
        {"name": "backend", "type": "child<container>"},
        {"name": "chardevs", "type": "child<container>"},
        {"name": "objects", "type": "child<container>"},
        {"name": "machine", "type": "child<pc-i440fx-2.0-machine>"},
        {"name": "type", "type": "string"},
    ]);
    assert_eq!(list("/"), root);
    assert_eq!(list("//"), root);
    let machine = list("/machine");
    let machine = names(&machine);
    for name in ["peripheral", "peripheral-anon", "unattached", "rtc", "i8042", "rtc-time", "pm"] {
        assert!(machine.contains(&name), "{name}: {machine:?}");
    }
    assert_eq!(
        list("/machine/peripheral"),
        json!([{"name": "t", "type": "child<test-thing>"}, {"name": "type", "type": "string"}])
    );
    assert_eq!(
        list("/machine/peripheral/t"),
        json!([
            {"name": "parent_bus", "type": "link<bus>"},
            {"name": "mood", "type": "int"},
            {"name": "fast", "type": "boolean"},
            {"name": "way", "type": "string"},
            {"name": "chardev", "type": "chr"},
            {"name": "port", "type": "uint32"},
            {"name": "legacy-port", "type": "legacy<hex32>"},
            {"name": "level", "type": "uint8"},
            {"name": "hotplugged", "type": "bool"},
            {"name": "hotpluggable", "type": "bool"},
            {"name": "realized", "type": "bool"},
            {"name": "type", "type": "string"},
        ])
    );
    assert_eq!(
        list("test.0"),
        json!([
            {"name": "child[0]", "type": "link<test-thing>"},
            {"name": "realized", "type": "bool"},
            {"name": "type", "type": "string"},
        ])
    );
    // Along links, with more slashes than needed, and by the end of a path.
    let thing = list("/machine/peripheral/t");
    for path in [
        "t",
        "peripheral/t",
        "machine//peripheral/t/",
        "/machine/peripheral/t/parent_bus/child[0]",
        "test.0/child[0]",
    ] {
        assert_eq!(list(path), thing, "{path}");
    }
}

#[test]
fn values_are_read() {
    let mut rig = Rig::new();
    rig.run("device_add", r#"{"driver": "thing", "id": "t", "port": 16}"#).unwrap();
    for (path, property, value) in [
        ("/machine", "type", json!("pc-i440fx-2.0-machine")),
        ("/machine", "peripheral", json!("/machine/peripheral")),
        ("/", "machine", json!("/machine")),
        ("t", "type", json!("test-thing")),
        ("t", "realized", json!(true)),
        ("t", "hotpluggable", json!(true)),
        ("t", "parent_bus", json!("/machine/piix3/test.0")),
        ("t", "level", json!(1)),
        ("t", "port", json!(16)),
        ("t", "legacy-port", json!("0x10")),
        ("t", "chardev", json!("")),
        ("t", "fast", json!(false)),
        ("t", "mood", json!(5)),
        ("/machine/serial[0]", "type", json!("isa-serial")),
        ("/machine/serial[0]", "iobase", json!(0x3f8)),
        ("/machine/serial[0]", "legacy-iobase", json!("0x3f8")),
        ("/machine/serial[0]", "irq", json!(4)),
        ("/machine/serial[0]", "chardev", json!("com")),
        ("/machine/serial[0]", "hotpluggable", json!(false)),
        ("/machine/i8042", "type", json!("i8042")),
        ("/machine/rtc", "type", json!("mc146818rtc")),
        ("/machine/pm", "type", json!("acpi-pm")),
        ("isa.0", "type", json!("ISA")),
        ("test.0", "child[0]", json!("/machine/peripheral/t")),
        ("sysbus", "type", json!("System")),
        ("/objects", "type", json!("container")),
        ("/chardevs", "c1", json!("/chardevs/c1")),
        ("/chardevs/c1", "type", json!("chardev-null")),
    ] {
        assert_eq!(rig.get(path, property), value, "{path} {property}");
    }
    // 2001-09-09 01:46:40 UTC.
    let time = json!({"tm_year": 101, "tm_sec": 40, "tm_hour": 1, "tm_min": 46, "tm_mon": 8,
                      "tm_mday": 9});
    assert_eq!(rig.get("/machine", "rtc-time"), time);
    assert_eq!(rig.get("/machine/rtc", "date"), time);
}

#[test]
fn values_are_set_where_they_can_be() {
    let mut rig = Rig::new();
    rig.run("device_add", r#"{"driver": "thing", "id": "t"}"#).unwrap();
    rig.run("device_add", r#"{"driver": "thing"}"#).unwrap();
    rig.run("object-add", r#"{"qom-type": "rng-builtin", "id": "r"}"#).unwrap();
    let mut set = |path: &str, property: &str, value: serde_json::Value| {
        let arguments = json!({"path": path, "property": property, "value": value});
        rig.run("qom-set", &arguments.to_string())
    };
    assert_eq!(set("t", "mood", json!(7)), Ok(json!({})));
    assert_eq!(set("t", "realized", json!(true)), Ok(json!({})));
    let denied = "Insufficient permission to perform this operation";
    for (path, property, value, text) in [
        ("t", "mood", json!(10), "the mood is out of range"),
        ("t", "mood", json!("x"), "Invalid parameter type for 'mood', expected: integer"),
        ("t", "mood", json!([1]), "Invalid parameter type for 'mood', expected: integer"),
        ("t", "realized", json!(1), "Invalid parameter type for 'realized', expected: boolean"),
        ("t", "type", json!("x"), denied),
        ("t", "hotplugged", json!(true), denied),
        ("t", "parent_bus", json!("/"), denied),
        ("/objects", "r", json!("x"), denied),
        ("/objects/r", "opened", json!(false), denied),
        ("/machine", "rtc-time", json!({}), denied),
        ("t", "nosuch", json!(1), "Property '.nosuch' not found"),
        ("nosuch", "type", json!(1), "DeviceNotFound: Device 'nosuch' not found"),
        (
            "t",
            "level",
            json!("x"),
            "Attempt to set property 'level' on device 't' (type 'test-thing') after it was \
             realized",
        ),
        (
            "/machine/peripheral-anon/device[0]",
            "level",
            json!(1),
            "Attempt to set property 'level' on anonymous device (type 'test-thing') after it was \
             realized",
        ),
        ("/machine/i8042", "realized", json!(false), "Bus 'isa.0' does not support hotplugging"),
    ] {
        assert_eq!(set(path, property, value), Err(text.to_owned()), "{path} {property}");
    }
    assert_eq!(rig.get("t", "mood"), json!(7));
    let arguments = json!({"path": "t", "property": "realized", "value": false});
    rig.run("qom-set", &arguments.to_string()).unwrap();
    assert_eq!(rig.events().len(), 1);
    assert_eq!(rig.error("qom-list", r#"{"path": "t"}"#), "DeviceNotFound: Device 't' not found");
}

#[test]
fn mistakes_are_told() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.run("device_add", r#"{"driver": "thing"}"#).unwrap();
    }
    let lost = "DeviceNotFound: Device 'x' not found";
    for (command, arguments, text) in [
        ("qom-list", r#"{}"#, "Parameter 'path' is missing"),
        ("qom-list", r#"{"path": 1}"#, "Invalid parameter type for 'path', expected: string"),
        ("qom-list", r#"{"path": "/", "y": 1}"#, "Invalid parameter 'y'"),
        ("qom-list", r#"{"path": "x"}"#, lost),
        ("qom-list", r#"{"path": "/x"}"#, "DeviceNotFound: Device '/x' not found"),
        // Which of all objects?
        ("qom-list", r#"{"path": ""}"#, "DeviceNotFound: Device '' not found"),
        ("qom-list", r#"{"path": "parent_bus"}"#, "DeviceNotFound: Device 'parent_bus' not found"),
        // A property that leads nowhere.
        (
            "qom-list",
            r#"{"path": "/machine/type"}"#,
            "DeviceNotFound: Device '/machine/type' not found",
        ),
        ("qom-get", r#"{"path": "/"}"#, "Parameter 'property' is missing"),
        ("qom-get", r#"{"property": "x"}"#, "Parameter 'path' is missing"),
        (
            "qom-get",
            r#"{"path": "/", "property": 1}"#,
            "Invalid parameter type for 'property', expected: string",
        ),
        ("qom-get", r#"{"path": "/", "property": "x", "y": 1}"#, "Invalid parameter 'y'"),
        ("qom-get", r#"{"path": "x", "property": "x"}"#, lost),
        ("qom-get", r#"{"path": "/", "property": "x"}"#, "Property '.x' not found"),
        ("qom-set", r#"{"path": "x", "property": "x"}"#, "Parameter 'value' is missing"),
        (
            "qom-set",
            r#"{"path": "x", "property": "x", "value": 1, "y": 1}"#,
            "Invalid parameter 'y'",
        ),
        ("qom-list-types", r#"{"y": 1}"#, "Invalid parameter 'y'"),
        (
            "qom-list-types",
            r#"{"abstract": 1}"#,
            "Invalid parameter type for 'abstract', expected: bool",
        ),
        (
            "qom-list-types",
            r#"{"implements": 1}"#,
            "Invalid parameter type for 'implements', expected: string",
        ),
        ("qom-list-properties", r#"{}"#, "Parameter 'typename' is missing"),
        (
            "qom-list-properties",
            r#"{"typename": 1}"#,
            "Invalid parameter type for 'typename', expected: string",
        ),
        ("qom-list-properties", r#"{"typename": "device", "y": 1}"#, "Invalid parameter 'y'"),
        ("qom-list-properties", r#"{"typename": "x"}"#, "DeviceNotFound: Class 'x' not found"),
    ] {
        assert_eq!(rig.error(command, arguments), text, "{command} {arguments}");
    }
}

#[test]
fn types() {
    let mut rig = Rig::new();
    let mut list = |arguments: &str| {
        let list = rig.run("qom-list-types", arguments).unwrap();
        names(&list).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = list("{}");
    for name in ["isa-serial", "container", "rng-random", "qemu64-x86_64-cpu"] {
        assert!(all.iter().any(|other| other == name), "{name}");
    }
    assert!(!all.iter().any(|name| name == "device" || name == "object"));
    assert!(list(r#"{"abstract": true}"#).iter().any(|name| name == "device"));
    assert_eq!(list(r#"{"implements": "rng-backend"}"#), ["rng-random", "rng-egd", "rng-builtin"]);
    assert_eq!(
        list(r#"{"implements": "memory-backend", "abstract": true}"#),
        ["memory-backend", "memory-backend-ram", "memory-backend-file", "memory-backend-memfd"]
    );
    assert!(list(r#"{"implements": "nosuch"}"#).is_empty());
    let properties = |rig: &mut Rig, typename: &str| {
        let arguments = json!({"typename": typename}).to_string();
        rig.run("qom-list-properties", &arguments).unwrap()
    };
    assert_eq!(
        properties(&mut rig, "rng-random"),
        json!([{"name": "filename", "type": "string"}, {"name": "type", "type": "string"}])
    );
    let serial = properties(&mut rig, "isa-serial");
    assert!(names(&serial).starts_with(&["parent_bus", "wakeup", "irq", "iobase"]), "{serial}");
    assert_eq!(names(&properties(&mut rig, "container")), ["type"]);
}
