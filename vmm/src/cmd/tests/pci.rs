//! The PCI bus.

use serde_json::json;

use crate::testing::Rig;

#[test]
fn the_chipset_is_told_and_stays() {
    let mut rig = Rig::new();
    rig.vm.reset().unwrap();
    let info = rig.run("query-pci", "{}").unwrap();
    let devices = info[0]["devices"].as_array().unwrap();
    let found: Vec<_> = devices.iter().map(|d| (&d["slot"], &d["function"], &d["id"])).collect();
    let intel = |device: u16| json!({"vendor": 0x8086, "device": device});
    assert_eq!(
        found,
        [
            (&json!(0), &json!(0), &intel(0x1237)),
            (&json!(1), &json!(0), &intel(0x7000)),
            (&json!(1), &json!(3), &intel(0x7113)),
        ]
    );
    let line = r#"{"command-line": "info pci"}"#;
    let text = rig.run("human-monitor-command", line).unwrap();
    let tail = "  Bus  0, device   1, function 3:\r\n    Bridge: PCI device 8086:7113\r\n      \
                IRQ 9.\r\n      id \"\"\r\n";
    assert!(text.as_str().unwrap().ends_with(tail), "{text}");
    assert_eq!(
        rig.error("device_del", r#"{"id": "/machine/piix3"}"#),
        "Device 'PIIX3' does not support hotplugging"
    );
}
