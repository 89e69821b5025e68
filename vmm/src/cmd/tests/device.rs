use serde_json::json;

use crate::testing::Rig;

#[test]
fn a_device_comes_and_goes() {
    let mut rig = Rig::new();
    rig.vm.start();
    rig.events();
    let add = r#"{"driver": "thing", "id": "t", "port": 256, "fast": true, "way": "up",
                  "ignored": [1], "also": {}}"#;
    assert_eq!(rig.run("device_add", add), Ok(json!({})));
    let mut byte = [0];
    rig.vm.board.ports.read(0x100, &mut byte);
    assert_eq!(byte, [1], "it was started");
    assert_eq!(rig.get("/machine/peripheral/t", "hotplugged"), json!(true));
    assert_eq!(rig.get("/machine/peripheral/t", "port"), json!(256));
    assert_eq!(rig.get("/machine/peripheral/t", "fast"), json!(true));
    assert_eq!(
        rig.error("device_add", r#"{"driver": "thing", "id": "t"}"#),
        "Duplicate ID 't' for device"
    );
    assert_eq!(rig.run("device_del", r#"{"id": "t"}"#), Ok(json!({})));
    rig.vm.board.ports.read(0x100, &mut byte);
    assert_eq!(byte, [0xff], "nothing is there");
    let gone = json!({"event": "DEVICE_DELETED",
                      "data": {"device": "t", "path": "/machine/peripheral/t"}});
    assert_eq!(rig.events(), [gone]);
    assert_eq!(*rig.told.lock(), ["+/machine/peripheral/t", "-/machine/peripheral/t"]);
    // The id is free again, and stays so when the device is refused.
    for _ in 0..2 {
        let error = rig.error("device_add", r#"{"driver": "thing", "id": "t", "level": 9}"#);
        assert_eq!(error, "Device initialization failed.");
    }
    assert_eq!(rig.run("device_add", r#"{"driver": "thing", "id": "t"}"#), Ok(json!({})));
}

#[test]
fn devices_without_an_id_are_numbered_and_found_by_path() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.run("device_add", r#"{"driver": "test-thing"}"#).unwrap();
    }
    rig.run("device_del", r#"{"id": "/machine/peripheral-anon/device[0]"}"#).unwrap();
    let gone = json!({"event": "DEVICE_DELETED",
                      "data": {"path": "/machine/peripheral-anon/device[0]"}});
    assert_eq!(rig.events(), [gone]);
    rig.run("device_add", r#"{"driver": "test-thing"}"#).unwrap();
    let list = rig.run("qom-list", r#"{"path": "/machine/peripheral-anon"}"#).unwrap();
    assert_eq!(
        list,
        json!([
            {"name": "device[2]", "type": "child<test-thing>"},
            {"name": "device[1]", "type": "child<test-thing>"},
            {"name": "type", "type": "string"},
        ])
    );
}

#[test]
fn a_device_that_the_guest_must_let_go_stays_until_it_does() {
    let mut rig = Rig::new();
    rig.run("device_add", r#"{"driver": "thing", "id": "slow"}"#).unwrap();
    for _ in 0..2 {
        assert_eq!(rig.run("device_del", r#"{"id": "slow"}"#), Ok(json!({})));
    }
    assert!(rig.events().is_empty());
    rig.vm.unplugged("/machine/peripheral/slow");
    assert_eq!(rig.events().len(), 1);
    assert_eq!(
        rig.error("device_del", r#"{"id": "slow"}"#),
        "DeviceNotFound: Device 'slow' not found"
    );
}

#[test]
fn each_mistake_in_device_add_is_told_in_its_turn() {
    let mut rig = Rig::new();
    for (arguments, text) in [
        (r#"{"id": "1x", "driver": "nosuch"}"#, "Parameter 'id' expects an identifier"),
        (r#"{"id": "x"}"#, "Parameter 'driver' is missing"),
        (r#"{"driver": []}"#, "Parameter 'driver' is missing"),
        (r#"{"driver": "nosuch", "bus": "x"}"#, "'nosuch' is not a valid device model name"),
        (r#"{"driver": "rng-random"}"#, "'rng-random' is not a valid device model name"),
        (r#"{"driver": "isa-device"}"#, "Parameter 'driver' expects non-abstract device type"),
        (r#"{"driver": "i8042"}"#, "Parameter 'driver' expects pluggable device type"),
        (r#"{"driver": "qemu64-x86_64-cpu"}"#, "Parameter 'driver' expects pluggable device type"),
        (r#"{"driver": "thing", "bus": "x.0", "x": 1}"#, "Bus 'x.0' not found"),
        (r#"{"driver": "thing", "bus": "/x"}"#, "DeviceNotFound: Device 'x' not found"),
        (r#"{"driver": "thing", "bus": "isa.0/x"}"#, "DeviceNotFound: Device 'x' not found"),
        (r#"{"driver": "thing", "bus": "isa.0/i8042"}"#, "Device 'i8042' has no child bus"),
        (
            r#"{"driver": "thing", "bus": "/i440FX-pcihost/pci.0/PIIX3"}"#,
            "Device 'PIIX3' has multiple child busses",
        ),
        (r#"{"driver": "thing", "bus": "/i440FX-pcihost/pci.0/PIIX3/x.0"}"#, "Bus 'x.0' not found"),
        (
            r#"{"driver": "thing", "bus": "/i440FX-pcihost/pci.0/PIIX3/isa.0"}"#,
            "Device 'test-thing' can't go on a ISA bus",
        ),
        (r#"{"driver": "thing", "bus": "/part"}"#, "Device 'test-thing' can't go on a Hub bus"),
        (r#"{"driver": "isa-serial", "x": 1}"#, "Bus 'isa.0' does not support hotplugging"),
        (r#"{"driver": "thing", "x": 1}"#, "Property '.x' not found"),
        (
            r#"{"driver": "thing", "level": "x"}"#,
            "Invalid parameter type for 'level', expected: integer",
        ),
        (
            r#"{"driver": "thing", "level": 10}"#,
            "Property test-thing.level doesn't take value 10 (minimum: 0, maximum: 9)",
        ),
        (r#"{"driver": "thing", "level": 256}"#, "Parameter 'level' expects uint8_t"),
        (
            r#"{"driver": "thing", "fast": "maybe"}"#,
            "Invalid parameter type for 'fast', expected: boolean",
        ),
        (
            r#"{"driver": "thing", "way": "left"}"#,
            "Property 'test-thing.way' doesn't take value 'left'",
        ),
        (
            r#"{"driver": "thing", "chardev": "x"}"#,
            "Property 'test-thing.chardev' can't find value 'x'",
        ),
        (r#"{"driver": "thing", "level": 9}"#, "Device initialization failed."),
        (
            r#"{"driver": "thing", "port": 65536}"#,
            "Property test-thing.port doesn't take value 65536 (minimum: 0, maximum: 65535)",
        ),
    ] {
        assert_eq!(rig.error("device_add", arguments), text, "{arguments}");
    }
    assert!(rig.told.lock().is_empty());
    // Nothing was left behind.
    for n in 0..3 {
        rig.run("device_add", &format!(r#"{{"driver": "thing", "id": "t{n}"}}"#)).unwrap();
    }
    for (arguments, text) in [
        (r#"{"driver": "thing", "bus": "test.0"}"#, "Bus 'test.0' is full"),
        (r#"{"driver": "thing"}"#, "No 'Test' bus found for device 'test-thing'"),
    ] {
        assert_eq!(rig.error("device_add", arguments), text);
    }
}

#[test]
fn a_chardev_serves_one_device() {
    let mut rig = Rig::new();
    let given = [("driver", "isa-serial"), ("chardev", "c0"), ("id", "s")];
    let requests: resources::request::Requests = rig.vm.mailbox().clone();
    let host = crate::plug::host(
        requests,
        &rig.vm.chardevs,
        &rig.vm.objects,
        &rig.vm.nets,
        &rig.vm.drives,
    )
    .unwrap();
    crate::plug::plug(&mut rig.vm.board, &given, &rig.vm.means, host, false).unwrap();
    assert_eq!(
        rig.error("device_add", r#"{"driver": "thing", "chardev": "c0"}"#),
        "Property 'test-thing.chardev' can't take value 'c0', it's in use"
    );
    // It took the next place after COM1, and says which.
    assert_eq!(rig.get("s", "index"), json!(1));
    assert_eq!(rig.get("s", "iobase"), json!(0x2f8));
    assert_eq!(rig.get("s", "irq"), json!(3));
    assert_eq!(rig.get("s", "hotplugged"), json!(false));
}

#[test]
fn each_mistake_in_device_del_is_told() {
    let mut rig = Rig::new();
    rig.run("device_add", r#"{"driver": "thing", "id": "stuck"}"#).unwrap();
    for (arguments, text) in [
        (r#"{}"#, "Parameter 'id' is missing"),
        (r#"{"id": 1}"#, "Invalid parameter type for 'id', expected: string"),
        (r#"{"id": "x", "y": 1}"#, "Invalid parameter 'y'"),
        (r#"{"id": "x"}"#, "DeviceNotFound: Device 'x' not found"),
        (r#"{"id": "/machine/i8042"}"#, "Bus 'isa.0' does not support hotplugging"),
        (r#"{"id": "stuck"}"#, "Device 'stuck' is stuck"),
    ] {
        assert_eq!(rig.error("device_del", arguments), text, "{arguments}");
    }
    assert!(rig.events().is_empty());
}

#[test]
fn properties_of_a_type() {
    let mut rig = Rig::new();
    let list = rig.run("device-list-properties", r#"{"typename": "isa-serial"}"#);
    let expected = json!([
        {"name": "wakeup", "type": "uint32"},
        {"name": "irq", "type": "uint32"},
        {"name": "iobase", "type": "hex32"},
        {"name": "index", "type": "uint32"},
        {"name": "chardev", "type": "chr"},
    ]);
    assert_eq!(list, Ok(expected));
    for nothing in ["device", "qemu64-x86_64-cpu"] {
        let arguments = json!({"typename": nothing}).to_string();
        assert_eq!(rig.run("device-list-properties", &arguments), Ok(json!([])));
    }
    for (arguments, text) in [
        (r#"{}"#, "Parameter 'typename' is missing"),
        (r#"{"typename": true}"#, "Invalid parameter type for 'typename', expected: string"),
        (r#"{"typename": "device", "y": 1}"#, "Invalid parameter 'y'"),
        (r#"{"typename": "x"}"#, "DeviceNotFound: Device 'x' not found"),
        (r#"{"typename": "container"}"#, "Parameter 'name' expects device"),
    ] {
        assert_eq!(rig.error("device-list-properties", arguments), text, "{arguments}");
    }
}

#[test]
fn people_have_the_same_road() {
    let mut rig = Rig::new();
    let mut say = |line: &str| {
        let arguments = json!({"command-line": line}).to_string();
        rig.run("human-monitor-command", &arguments).unwrap().as_str().unwrap().to_owned()
    };
    assert_eq!(say("device_add thing,id=t,port=0x10"), "");
    assert_eq!(say("device_add thing,id=t"), "Duplicate ID 't' for device\r\n");
    assert_eq!(say("device_add thing,prot=1"), "Property '.prot' not found\r\n");
    assert!(say("info qtree").contains("dev: test-thing, id \"t\"\r\n"));
    assert!(say("device_add help").contains("name \"test-thing\", bus Test"));
    assert!(say("device_add thing,help").starts_with("test-thing.level=uint8"));
    assert_eq!(say("device_add x,help"), "'x' is not a valid device model name\r\n");
    assert_eq!(say("device_del t"), "");
    assert_eq!(say("device_del t"), "Device 't' not found\r\n");
    assert_eq!(say("object_add memory-backend-ram,id=m,size=1M"), "");
    assert_eq!(say("object_add memory-backend-ram,size=1M"), "Parameter 'id' is missing\r\n");
    assert_eq!(say("object_add id=m"), "Parameter 'qom-type' is missing\r\n");
    assert_eq!(say("object_add x,id=m"), "Parameter 'qom-type' does not accept value 'x'\r\n");
    assert_eq!(
        say("info qom-tree /objects"),
        "/objects (container)\r\n  /m (memory-backend-ram)\r\n"
    );
    assert_eq!(say("object_del m"), "");
    assert_eq!(say("object_del m"), "object 'm' not found\r\n");
}
