//! Devices that come and go, by the registers through which the guest hears of them.

use serde_json::json;

use super::*;

const UP: u16 = 0xae00;
const BUS: u16 = 0xae10;

impl Machine {
    fn plug(&mut self, arguments: serde_json::Value) -> Result<(), String> {
        let done = self.vm.qmp.execute("device_add", arguments);
        done.map(drop).map_err(|error| error.to_string())
    }

    /// The slots of a bus to which something has come.
    fn came(&mut self, bus: u32) -> u32 {
        self.q.command(&format!("outl {BUS:#x} {bus:#x}")).unwrap();
        self.q.inl(UP).unwrap()
    }
}

/// The guest has read no tables that tell of what is behind a bridge that has just come.
#[test]
fn a_bridge_that_came_takes_devices_after_the_next_reset() {
    let mut m = Machine::new(["-device", "pci-bridge,id=first,chassis_nr=1,addr=4"]);
    let bridge =
        |chassis: u32, id: &str| json!({"driver": "pci-bridge", "id": id, "chassis_nr": chassis});
    let card = |id: &str, bus: &str| json!({"driver": "virtio-rng-pci", "id": id, "bus": bus, "addr": "0x7"});
    m.plug(card("a", "first")).unwrap();
    assert_eq!(m.came(1), 1 << 7);
    m.plug(bridge(2, "late")).unwrap();
    let error = m.plug(card("b", "late")).unwrap_err();
    assert!(error.contains("Bus 'late' does not support hotplugging"), "{error}");
    m.qmp("system_reset");
    m.event("RESET");
    m.plug(card("b", "late")).unwrap();
    assert_eq!((m.came(2), m.came(1)), (1 << 7, 0));
    // It goes with what is behind it, and its number is another bridge's.
    m.vm.qmp.execute("device_del", json!({"id": "late"})).unwrap();
    m.qmp("system_reset");
    assert_eq!(m.event("DEVICE_DELETED")["data"]["device"], "b");
    assert_eq!(m.event("DEVICE_DELETED")["data"]["device"], "late");
    m.event("RESET");
    for (round, id) in (0..20).zip(["x", "y"].iter().cycle()) {
        m.plug(bridge(3 + round % 2, id)).unwrap();
        m.qmp("system_reset");
        m.event("RESET");
        m.plug(card("c", id)).unwrap();
        assert_eq!(m.came(2), 1 << 7, "round {round}");
        m.vm.qmp.execute("device_del", json!({"id": id})).unwrap();
        m.qmp("system_reset");
        m.event("RESET");
    }
}

#[test]
fn a_place_in_the_boot_order_is_taken_once() {
    let mut m = Machine::new(["-device", "virtio-net-pci,id=first,bootindex=1"]);
    let card = |index: u32| json!({"driver": "virtio-net-pci", "id": "c", "bootindex": index});
    let error = m.plug(card(1)).unwrap_err();
    assert!(error.contains("The bootindex 1 has already been used"), "{error}");
    m.plug(card(2)).unwrap();
    let path = json!({"path": "/machine/peripheral/c", "property": "bootindex"});
    assert_eq!(m.vm.qmp.execute("qom-get", path).unwrap(), 2);
}

#[test]
fn no_device_has_an_option_rom() {
    let mut m = Machine::new(["-device", "virtio-net-pci,romfile=,rombar=0"]);
    let error = m.plug(json!({"driver": "virtio-rng-pci", "romfile": "x.rom"})).unwrap_err();
    assert!(error.contains("cannot have an option ROM"), "{error}");
}
