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

/// What a human is told.
fn human(vm: &mut crate::vm::Vm, line: &str) -> String {
    let answer = ask(vm, "human-monitor-command", json!({"command-line": line})).unwrap();
    answer.as_str().unwrap().replace('\r', "")
}

#[test]
fn netdevs_come_and_go_and_are_listed() {
    let mut vm = nothing();
    let on = resources::iol::Loop::new("test").unwrap();
    vm.nets = crate::nets::Nets::new(on.handle());
    let add = json!({"id": "p0", "type": "hubport", "hubid": 7});
    assert_eq!(ask(&mut vm, "netdev_add", add.clone()), Ok(json!({})));
    refuses(&mut vm, "netdev_add", &[(add.clone(), "Duplicate ID 'p0' for netdev")]);
    let socket = json!({"id": "s0", "type": "socket", "listen": "127.0.0.1:0"});
    assert_eq!(ask(&mut vm, "netdev_add", socket), Ok(json!({})));
    refuses(
        &mut vm,
        "netdev_add",
        &[
            (json!({"id": "n", "type": "hubport"}), "Parameter 'hubid' is missing"),
            (
                json!({"id": "n", "type": "hubport", "hubid": "x"}),
                "Parameter 'hubid' expects an int64 value",
            ),
            (json!({"id": "n", "type": "socket"}), "Device 'socket' could not be initialized"),
        ],
    );
    assert_eq!(human(&mut vm, "info network"), "hub 7\ns0: index=0,type=socket,\n");
    assert_eq!(
        human(&mut vm, "netdev_add socket,id=s0,listen=:0"),
        "Duplicate ID 's0' for netdev\n"
    );
    assert_eq!(human(&mut vm, "netdev_del s0"), "");
    assert_eq!(ask(&mut vm, "netdev_del", json!({"id": "p0"})), Ok(json!({})));
    assert_eq!(ask(&mut vm, "netdev_add", add), Ok(json!({})));
}

#[test]
fn back_ends_join_hubs() {
    let mut vm = nothing();
    let on = resources::iol::Loop::new("test").unwrap();
    vm.nets = crate::nets::Nets::new(on.handle());
    assert_eq!(human(&mut vm, "host_net_add socket listen=127.0.0.1:0,vlan=2,name=s"), "");
    assert_eq!(human(&mut vm, "info network"), "hub 2\n \\ s: index=0,type=socket,\n");
    refuses(&mut vm, "netdev_del", &[(json!({"id": "s"}), "Device 's' is not a netdev")]);
    assert_eq!(human(&mut vm, "host_net_add nic"), "invalid host network device nic\n");
    let failed = "'x' is not HOST:PORT\nadding host network device socket failed\n";
    assert_eq!(human(&mut vm, "host_net_add socket listen=x"), failed);
    assert_eq!(human(&mut vm, "host_net_remove 1 s"), "invalid host network device s\n");
    assert_eq!(human(&mut vm, "host_net_remove 2 s"), "");
    assert_eq!(human(&mut vm, "info network"), "hub 2\n");
    let unused = "user mode network stack not in use\n";
    assert_eq!(human(&mut vm, "hostfwd_add tcp::0-:22"), unused);
    assert_eq!(human(&mut vm, "hostfwd_remove tcp::0"), unused);
    assert_eq!(human(&mut vm, "info usernet"), "");
    let added = human(&mut vm, "host_net_add user restrict=on");
    if added.contains("not installed") {
        return resources::testing::skipped(added);
    }
    let listed = "hub 0\n \\ user.0: index=0,type=user,net=10.0.2.0,restrict=on\nhub 2\n";
    assert_eq!(human(&mut vm, "info network"), listed);
    assert_eq!(human(&mut vm, "hostfwd_add 0 user.0 tcp:127.0.0.1:0-:22"), "");
    assert_eq!(human(&mut vm, "hostfwd_add x"), "invalid host forwarding rule 'x'\n");
    let not_found = "host forwarding rule for tcp:127.0.0.1:1 not found\n";
    assert_eq!(human(&mut vm, "hostfwd_remove tcp:127.0.0.1:1"), not_found);
    assert_eq!(human(&mut vm, "hostfwd_remove x"), "invalid format\n");
    assert!(human(&mut vm, "info usernet").starts_with("VLAN 0 (user.0):\n"));
}
