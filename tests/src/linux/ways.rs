//! The ways in which Linux guests move: with one capability after the other, and with those that
//! go together.

use std::path::Path;

use serde_json::{Value, json};

use super::migrate::{expect_ended, migrate};
use crate::rig::Result;
use crate::rig::moving::{begin_slowly, credentials, tcp, trust};
use crate::rig::vm::{SOON, TestVm, VmBuilder};

/// What is switched on at both ends.
pub(super) type Way = &'static [&'static str];

/// The guest goes before its memory.
pub(super) const EARLY: Way = &[POSTCOPY];
const POSTCOPY: &str = "postcopy-ram";
const TLS: &str = "tls";
/// Memory has connections of its own.
pub(super) const CHANNELS: Way = &["multifd"];

/// One after the other they are what a guest meets.
pub(super) const WAYS: [Way; 11] = [
    &[],
    &["xbzrle"],
    EARLY,
    CHANNELS,
    &["compress"],
    &["auto-converge"],
    &["multifd", "compress"],
    &["xbzrle", "auto-converge", "compress"],
    &[TLS],
    &[TLS, POSTCOPY],
    &[TLS, "multifd"],
];

/// The first ones, which guests go that move with their network.
pub(super) const ELSEWHERE: usize = 4;

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
    let uri = match way.contains(&TLS) {
        true => tcp()?,
        false => format!("unix:{}", dir.join(name).display()),
    };
    let mut there = there.args(["-incoming", "defer"]).start()?;
    for end in [&mut vm, &mut there] {
        let all = WAYS.iter().flat_map(|way| way.iter());
        let states: Vec<_> =
            all.map(|name| json!({ "capability": name, "state": way.contains(name) })).collect();
        end.qmp.execute("migrate-set-capabilities", json!({ "capabilities": states }))?;
    }
    if way.contains(&TLS) {
        let secrets = credentials(&dir.join(format!("{name}-tls")))?;
        trust(&mut vm, "client", &secrets)?;
        trust(&mut there, "server", &secrets)?;
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
    begin_slowly(vm, uri, 8 << 20, 8 << 20)?;
    vm.qmp.execute("migrate-start-postcopy", json!({}))?;
    vm.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
    Ok(())
}
