//! Many resets in a row, at every stage of a boot.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, Peer, SOON};

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("reset::fifty_in_a_row", 600, fifty_in_a_row)]
}

/// When a reset comes, after the one before it: from the first instructions to user space.
const MOMENTS: [Option<u64>; 10] = [
    Some(0),
    Some(2),
    Some(10),
    Some(50),
    Some(150),
    Some(400),
    Some(800),
    Some(0),
    Some(1500),
    None, // when the shell is there
];

fn fifty_in_a_row(ctx: &Ctx) -> Result {
    let mut vm = ctx.linux(Kernel::V6_12).cpus(2).start()?;
    for number in 0..50 {
        match MOMENTS[number % MOMENTS.len()] {
            // The moment is the point of the test, not something waited for.
            Some(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
            None => vm.booted()?,
        }
        vm.console.skip();
        vm.qmp.execute("system_reset", json!({}))?;
        let mut event = vm.qmp.event("RESET", SOON)?;
        // QEMU's firmware resets the machine once more when it finds itself interrupted.
        while matches!(ctx.peer, Peer::Qemu(_)) && event["data"]["reason"] == "guest-reset" {
            event = vm.qmp.event("RESET", SOON)?;
        }
        if event["data"] != json!({ "guest": false, "reason": "host-qmp-system-reset" }) {
            return Err(format!("reset {number} gave {event}").into());
        }
    }
    vm.booted()?;
    let online = vm.sh("nproc")?;
    if online != "2" {
        return Err(format!("{online} of 2 vCPUs came back").into());
    }
    vm.check_kernel_log()
}
