//! Each command on a machine without devices.

use serde_json::json;

use crate::cmd::testing::{ask, nothing, refuses};

#[test]
fn texts_of_refusals() {
    let mut vm = nothing();
    let on = resources::iol::Loop::new("test").unwrap();
    vm.nets = crate::nets::Nets::new(on.handle());
    refuses(
        &mut vm,
        "netdev_add",
        &[
            (json!({"id": "n"}), "Parameter 'type' is missing"),
            (json!({"id": "n", "type": "foo"}), "Invalid parameter 'foo'"),
            (json!({"id": "n", "type": "none"}), "Parameter 'type' expects a netdev backend type"),
            (json!({"id": "n", "type": "vde"}), "Parameter 'type' expects a netdev backend type"),
            (
                json!({"id": "n", "type": "netmap", "ifname": "x"}),
                "Parameter 'type' expects a netdev backend type",
            ),
            (json!({"id": "1", "type": "tap"}), "Parameter 'id' expects an identifier"),
            (json!({"id": "n", "type": "tap", "x": 1}), "Invalid parameter 'x'"),
            (
                json!({"id": "n", "type": "tap", "vhost": "maybe"}),
                "Parameter 'vhost' expects on|yes|y|off|no|n",
            ),
            // What is wrong with the host is for the log.
            (
                json!({"id": "n", "type": "tap", "fd": "3", "script": "no"}),
                "Device 'tap' could not be initialized",
            ),
            (
                json!({"id": "n", "type": "tap", "fd": "x"}),
                "File descriptor named 'x' has not been found",
            ),
            (
                json!({"id": "n", "type": "tap", "fd": 99999}),
                "Invalid file descriptor number '99999'",
            ),
        ],
    );
    refuses(&mut vm, "netdev_del", &[(json!({"id": "n"}), "Device 'n' not found")]);
    assert_eq!(
        ask(&mut vm, "human-monitor-command", json!({"command-line": "info network"})),
        Ok("".into())
    );
}
