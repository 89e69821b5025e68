use proptest::prelude::*;

use super::text::{device_help, driver_help, qom_tree, qtree};
use super::*;
use crate::testing::Rig;

fn rig() -> Rig {
    let mut rig = Rig::new();
    for arguments in
        [r#"{"driver": "thing", "id": "t", "port": 16, "way": "up"}"#, r#"{"driver": "thing"}"#]
    {
        rig.run("device_add", arguments).unwrap();
    }
    rig.run("object-add", r#"{"qom-type": "rng-builtin", "id": "r"}"#).unwrap();
    rig
}

#[test]
fn every_path_leads_to_its_object() {
    let rig = rig();
    let tree = Tree::of(&rig.vm);
    assert!(tree.nodes.len() > 15);
    for (number, node) in tree.nodes.iter().enumerate() {
        assert_eq!(tree.find(&node.path), Found::One(number), "{}", node.path);
        // Each object is a property of the one it is below.
        if let Some((parent, name)) = node.path.rsplit_once('/').filter(|_| number > 0) {
            let Found::One(parent) = tree.find(&format!("{parent}/")) else {
                panic!("{} is below nothing", node.path);
            };
            let props = tree.props(parent);
            assert!(props.iter().any(|prop| prop.name == name), "{}", node.path);
        }
        for prop in tree.props(number) {
            if prop.type_name.starts_with("link<") || prop.type_name.starts_with("child<") {
                let target = prop.value().unwrap();
                let Found::One(_) = tree.find(target.as_str().unwrap()) else {
                    panic!("{} {} leads nowhere", node.path, prop.name);
                };
            }
        }
    }
    assert_eq!(
        tree.find("device[0]"),
        Found::One(tree.by_path("/machine/peripheral-anon/device[0]").unwrap())
    );
    assert_eq!(tree.find("parent_bus"), Found::Ambiguous);
    assert_eq!(tree.find(&"/".repeat(MAX_PATH)), Found::One(0));
    assert_eq!(tree.find(&"/".repeat(MAX_PATH + 1)), Found::Nothing);
    assert_eq!(tree.find("test.0/child[00]"), Found::Nothing);
    assert_eq!(tree.find("test.0/child[9]"), Found::Nothing);
}

#[test]
fn processors_come_before_devices() {
    let rig = rig();
    let tree = Tree::new(&rig.vm.board, &[0, 1], &rig.vm.objects, &rig.vm.chardevs);
    assert!(matches!(tree.find(&cpu_path(1)), Found::One(_)));
    assert_eq!(tree.find("device[1]"), tree.find("/machine/unattached/device[1]"));
    assert_eq!(tree.find("device[0]"), Found::Ambiguous);
}

#[test]
fn the_tree_of_buses_as_text() {
    let text = qtree(&rig().vm.board);
    let head = "bus: main-system-bus\n  type System\n  dev: part, id \"\"\n    bus: hub.0\n      \
                type Hub\n  dev: acpi-cpu-hotplug, id \"\"\n  dev: acpi-pci-hotplug, id \"\"\n  dev: acpi-pm, id \"\"\n  dev: i440FX-pcihost, id \"\"\n    \
                bus: pci.0\n      type PCI\n      dev: PIIX4_PM, id \"\"\n        \
                disable_s3 = 0\n        disable_s4 = 0\n        s4_val = 2\n      \
                dev: PIIX3, id \"\"\n        bus: isa.0\n          type ISA\n          \
                dev: isa-serial, id \"\"\n            chardev = \"com\"\n            \
                index = 0\n            iobase = 0x3f8\n            irq = 4\n            \
                wakeup = 0\n            isa irq 4\n          dev: mc146818rtc, id \"\"\n";
    assert!(text.starts_with(head), "{text}");
    let tail = "        bus: test.0\n          type Test\n          dev: test-thing, id \"\"\n            \
                level = 1\n            port = <null>\n            chardev = <null>\n            \
                way = <null>\n            fast = false\n          dev: test-thing, id \"t\"\n            \
                level = 1\n            port = 0x10\n            chardev = <null>\n            \
                way = \"up\"\n            fast = false\n      dev: i440FX, id \"\"\n";
    assert!(text.ends_with(tail), "{text}");
}

#[test]
fn the_tree_of_objects_as_text() {
    let rig = rig();
    assert_eq!(qom_tree(&rig.vm, Some("/objects")), "/objects (container)\n  /r (rng-builtin)\n");
    let whole = qom_tree(&rig.vm, Some("/"));
    assert!(whole.starts_with("/ (container)\n  /backend (container)\n"), "{whole}");
    let machine = qom_tree(&rig.vm, None);
    assert!(machine.starts_with("/machine (pc-i440fx-2.0-machine)\n"), "{machine}");
    assert!(machine.contains("\n  /peripheral (container)\n    /t (test-thing)\n"), "{machine}");
    assert_eq!(qom_tree(&rig.vm, Some("x")), "Path 'x' could not be resolved.\n");
    assert_eq!(qom_tree(&rig.vm, Some("parent_bus")), "Warning: Path 'parent_bus' is ambiguous.\n");
}

#[test]
fn help_of_drivers() {
    let rig = rig();
    let help = device_help(&rig.vm.means);
    assert!(
        help.contains("name \"test-thing\", bus Test, alias \"thing\"") && !help.contains("i8042")
    );
    assert!(driver_help(&rig.vm.means, "thing").unwrap().starts_with("test-thing.level=uint8"));
    assert!(driver_help(&rig.vm.means, "nosuch").is_err());
}

/// Paths of what is there and what is not, whole and in pieces.
fn paths() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z/.\\[\\]0-9]{0,8}",
        prop::sample::select(vec![
            "",
            "machine",
            "peripheral",
            "peripheral-anon",
            "unattached",
            "t",
            "device[0]",
            "isa",
            "isa.0",
            "test.0",
            "parent_bus",
            "child[0]",
            "child[1]",
            "type",
            "objects",
            "r",
        ])
        .prop_map(str::to_owned),
    ];
    (any::<bool>(), prop::collection::vec(part, 0..8)).prop_map(|(absolute, parts)| {
        let path = parts.join("/");
        if absolute { format!("/{path}") } else { path }
    })
}

proptest! {
    #[test]
    fn any_path_is_safe_and_its_object_is_one(path in prop_oneof![paths(), ".{0,60}"]) {
        thread_local!(static RIG: Rig = rig());
        RIG.with(|rig| {
            let tree = Tree::of(&rig.vm);
            if let Found::One(number) = tree.find(&path) {
                let node = tree.get(number).unwrap();
                prop_assert_eq!(tree.find(&node.path), Found::One(number));
                prop_assert!(!tree.props(number).is_empty());
            }
            Ok(())
        })?;
    }
}
