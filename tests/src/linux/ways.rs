//! The ways in which Linux guests move: with one capability after the other, and with those that
//! go together.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::migrate::{expect_ended, migrate};
use crate::rig::Result;
use crate::rig::vm::{SOON, TestVm, VmBuilder};

/// What is switched on at both ends.
pub(super) type Way = &'static [&'static str];

/// The guest goes before its memory.
pub(super) const EARLY: Way = &[POSTCOPY];
const POSTCOPY: &str = "postcopy-ram";
/// Memory has connections of its own.
pub(super) const CHANNELS: Way = &["multifd"];

/// One after the other they are what a guest meets.
pub(super) const WAYS: [Way; 8] = [
    &[],
    &["xbzrle"],
    EARLY,
    CHANNELS,
    &["compress"],
    &["auto-converge"],
    &["multifd", "compress"],
    &["xbzrle", "auto-converge", "compress"],
];

/// Where a guest has come from.
pub(super) struct Left {
    /// The process, which has the guest no more.
    pub(super) vm: TestVm,
    /// What it says of the move.
    pub(super) info: Value,
}

/// Moves the guest to a new process of `there`; `name` is that of a socket in `dir`.
pub(super) fn go(
    mut vm: TestVm,
    there: VmBuilder,
    way: Way,
    (dir, name): (&Path, &str),
) -> Result<(TestVm, Left)> {
    let uri = format!("unix:{}", dir.join(name).display());
    let mut there = there.args(["-incoming", "defer"]).start()?;
    for end in [&mut vm, &mut there] {
        let all = WAYS.iter().flat_map(|way| way.iter());
        let states: Vec<_> =
            all.map(|name| json!({ "capability": name, "state": way.contains(name) })).collect();
        end.qmp.execute("migrate-set-capabilities", json!({ "capabilities": states }))?;
    }
    there.qmp.execute("migrate-incoming", json!({ "uri": uri }))?;
    if way.contains(&POSTCOPY) {
        leave_early(&mut vm, &uri)?;
    } else {
        migrate(&mut vm, &uri)?;
    }
    let info = expect_ended(&mut vm, "completed")?;
    there.qmp.event("RESUME", SOON).map_err(|error| there.process.explain(error))?;
    Ok((there, Left { vm, info }))
}

/// Begins so slowly that most of its memory follows the guest.
fn leave_early(vm: &mut TestVm, uri: &str) -> Result {
    vm.qmp.execute("migrate_set_speed", json!({ "value": 8 << 20 }))?;
    vm.qmp.execute("migrate_set_downtime", json!({ "value": 0 }))?;
    vm.qmp.execute("migrate", json!({ "uri": uri }))?;
    let deadline = Instant::now() + SOON;
    loop {
        let info = vm.qmp.execute("query-migrate", json!({}))?;
        if info["ram"]["transferred"].as_u64() > Some(8 << 20) {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("nothing is sent: {info}").into());
        }
        sleep(Duration::from_millis(20));
    }
    vm.qmp.execute("migrate-start-postcopy", json!({}))?;
    vm.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
    Ok(())
}
