//! Saving the whole machine and loading it again under a running guest that must not notice.

use std::time::Duration;

use serde_json::json;

use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::Kernel;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("pulse::save_restore_under_load_6.12", 300, |ctx| pulses(ctx, Kernel::V6_12)),
        Test::linux("pulse::save_restore_under_load_6.1", 300, |ctx| pulses(ctx, Kernel::V6_1)),
    ]
}

const PULSES: u32 = 20;

/// Two processes copy memory and compute over it until told to stop; a wrong result is reported.
const LOAD: &str = r#"
dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
want=$(sha256sum </tmp/data)
for worker in 1 2; do
    echo 0 >/tmp/rounds$worker
    ( rounds=0
      until [ -e /tmp/stop ]; do
          cp /tmp/data /tmp/copy$worker
          got=$(sha256sum </tmp/copy$worker)
          [ "$got" = "$want" ] || echo "round $rounds of $worker: $got" >>/tmp/wrong
          rounds=$((rounds + 1))
          echo $rounds >/tmp/new$worker
          mv /tmp/new$worker /tmp/rounds$worker
      done ) >/dev/null 2>&1 &
done"#;

const ROUNDS: &str = "
for worker in 1 2; do
    rounds=$(cat /tmp/rounds$worker)
    until [ $(cat /tmp/rounds$worker) -gt $((rounds + 1)) ]; do sleep 0.05; done
done";

fn pulses(ctx: &Ctx, kernel: Kernel) -> Result {
    let mut vm = ctx.linux(kernel).cpus(2).start()?;
    vm.booted()?;
    vm.sh(LOAD)?;
    let mut last = 0.0;
    for number in 0..PULSES {
        vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        let status = vm.qmp.execute("query-status", json!({}))?;
        if status["status"] != "running" {
            return Err(format!("after pulse {number} the status is {status}").into());
        }
        let uptime: f64 = vm.sh("cut -d' ' -f1 /proc/uptime")?.trim().parse()?;
        if uptime <= last {
            return Err(format!("after pulse {number} time went from {last} to {uptime}").into());
        }
        last = uptime;
        // Both workers finish a round that they began after the pulse.
        vm.sh(ROUNDS)?;
    }
    vm.sh_within("touch /tmp/stop; wait", Duration::from_secs(120))?;
    let wrong = vm.sh("cat /tmp/wrong 2>/dev/null || true")?;
    if !wrong.is_empty() {
        return Err(format!("the load computed wrong results: {wrong}").into());
    }
    vm.check_kernel_log()
}
