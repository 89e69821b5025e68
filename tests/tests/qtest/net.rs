//! Networks from the command line.

use serde_json::json;

use super::*;

impl Machine {
    fn networks(&mut self) -> String {
        let line = json!({"command-line": "info network"});
        let said = self.vm.qmp.execute("human-monitor-command", line).unwrap();
        said.as_str().unwrap().replace('\r', "")
    }
}

#[test]
fn a_card_with_what_it_is_plugged_into() {
    let mac = "52:54:00:00:00:09";
    let card = format!("hubport,hubid=3,id=h,model=virtio-net-pci,mac={mac},addr=9");
    let mut m =
        Machine::new(["-nic", &card, "-nic", "socket,udp=127.0.0.1:9,localaddr=127.0.0.1:0"]);
    let said = m.networks();
    assert!(said.contains(&format!("model=virtio-net-pci,macaddr={mac}")), "{said}");
    assert!(said.contains("nic.0: index=0,type=socket,socket: udp=127.0.0.1:9"), "{said}");
    assert!(said.contains("model=virtio-net-pci,macaddr=52:54:00:12:34:56"), "{said}");
    let cards = m.qmp("query-pci")[0]["devices"].as_array().unwrap().clone();
    let slots: Vec<_> = cards.iter().filter(|card| card["class_info"]["class"] == 512).collect();
    assert_eq!(slots.iter().filter(|card| card["slot"] == 9).count(), 1, "{slots:?}");
    assert_eq!(slots.len(), 2);
}
