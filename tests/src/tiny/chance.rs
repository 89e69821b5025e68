//! Moves that end in any way at any moment: afterwards exactly one side has the guest, whole.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::migrate::{Cutter, checker, ended};
use super::pause::{size, wait_for_more};
use super::{SOON, expect_shown, expect_status, shown};
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{TestVm, VmBuilder};
use crate::rig::{Result, thorough};

pub(super) fn tests() -> Vec<Test> {
    vec![Test::tiny("migrate::at_any_moment", 300, at_any_moment)]
}

/// Numbers that look like chance; the same again from the same seed.
struct Chance(u64);

impl Chance {
    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % limit
    }
}

/// What happens to a move.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    None,
    /// The user cancels it after so many ms.
    Cancel(u64),
    /// The destination is killed after so many ms.
    Kill(u64),
    /// It is killed, or the connection cut, when so many bytes went there or so many back.
    Cut {
        forward: u64,
        back: u64,
        kill: bool,
    },
}

impl Mishap {
    fn any(chance: &mut Chance) -> Mishap {
        match chance.below(6) {
            0 => Mishap::None,
            1 => Mishap::Cancel(chance.below(120)),
            2 => Mishap::Kill(chance.below(120)),
            3 => Mishap::Cut { forward: u64::MAX, back: 1 + chance.below(20), kill: true },
            way => {
                // From a byte to more than there is, each size as often as the others.
                let size = 1 << chance.below(25);
                let forward = size + chance.below(size);
                Mishap::Cut { forward, back: u64::MAX, kill: way == 4 }
            }
        }
    }
}

struct Pair {
    builder: VmBuilder,
    dir: PathBuf,
    rounds: PathBuf,
}

/// A hundred moves.
fn at_any_moment(ctx: &Ctx) -> Result {
    let seed = std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let mut chance = Chance(seed);
    let (builder, rounds) = checker(ctx)?;
    let pair = Pair { builder, dir: ctx.dir.to_path_buf(), rounds };
    let mut here = pair.builder.clone().start()?;
    let mut seen = wait_for_more(0, || size(&pair.rounds))?;
    let mut ends = [0; 3];
    for time in 0..thorough(100, 500) {
        let mishap = Mishap::any(&mut chance);
        let deltas = chance.below(2) == 1;
        let explain = |error| format!("seed {seed}, move {time}, {mishap:?}: {error}");
        let (vm, end) = pair.attempt(here, mishap, deltas).map_err(explain)?;
        here = vm;
        ends[end] += 1;
        seen = wait_for_more(seen, || size(&pair.rounds)).map_err(explain)?;
    }
    println!("{} moved, {} stayed, {} could be at either side", ends[0], ends[1], ends[2]);
    // Where the guest was given to one that was killed then, its rounds there were for nothing.
    here.console.type_text("x")?;
    let rounds = shown(&mut here, "rounds")?;
    expect_shown(&mut here, "bad", 0)?;
    match size(&pair.rounds)? {
        written if written >= rounds => Ok(()),
        written => Err(format!("{rounds} rounds, but only {written} written").into()),
    }
}

impl Pair {
    /// Tries to move the guest; gives the process that has it, and how it ended.
    fn attempt(&self, mut here: TestVm, mishap: Mishap, deltas: bool) -> Result<(TestVm, usize)> {
        let (front, behind) = (self.dir.join("f"), self.dir.join("b"));
        for socket in [&front, &behind] {
            let _ = std::fs::remove_file(socket);
        }
        let incoming = format!("unix:{}", behind.display());
        let there = self.builder.clone().args(["-incoming", &incoming]).start()?;
        let mut to = &behind;
        let mut cutter = None;
        if let Mishap::Cut { forward, back, kill } = mishap {
            let victim = if kill { there.process.id() } else { 0 };
            cutter = Some(Cutter::start(&front, behind.clone(), (forward, back), victim)?);
            to = &front;
        }
        let on = json!([{ "capability": "xbzrle", "state": deltas }]);
        here.qmp.execute("migrate-set-capabilities", json!({ "capabilities": on }))?;
        here.qmp.execute("migrate_set_speed", json!({ "value": 1u64 << 30 }))?;
        here.qmp.execute("migrate_set_downtime", json!({ "value": 0.5 }))?;
        here.qmp.execute("migrate", json!({ "uri": format!("unix:{}", to.display()) }))?;
        match mishap {
            Mishap::Cancel(ms) => {
                sleep(Duration::from_millis(ms));
                here.qmp.execute("migrate_cancel", json!({}))?;
            }
            Mishap::Kill(ms) => {
                sleep(Duration::from_millis(ms));
                there.process.signal(Signal::KILL)?;
            }
            Mishap::None | Mishap::Cut { .. } => {}
        }
        let info = ended(&mut here)?;
        if let Some(cutter) = cutter {
            // It fails where an end is gone before it noticed.
            let _ = cutter.passed();
        }
        self.owner(here, there, &info)
    }

    /// Finds who has the guest: exactly one.
    fn owner(&self, mut here: TestVm, mut there: TestVm, info: &Value) -> Result<(TestVm, usize)> {
        let source = status(&mut here)?.ok_or("the source has ended")?;
        match (info["status"].as_str(), source.as_str()) {
            (Some("completed"), "postmigrate") => {
                // The user may have killed it since.
                let there_is = settled(&mut there)?;
                if there_is.as_deref() == Some("running") {
                    return Ok((there, 0));
                }
                // It was given away to one that is no more.
                here.qmp.execute("cont", json!({}))?;
                Ok((here, 2))
            }
            (Some("failed" | "cancelled"), "running") => match settled(&mut there)?.as_deref() {
                Some("running") => Err("it runs at both sides".into()),
                _ => Ok((here, 1)),
            },
            (Some("failed"), "postmigrate") => {
                if settled(&mut there)?.as_deref() == Some("running") {
                    return Ok((there, 2));
                }
                here.qmp.execute("cont", json!({}))?;
                expect_status(&mut here, "running")?;
                Ok((here, 2))
            }
            (_, source) => Err(format!("the source is {source}: {info}").into()),
        }
    }
}

/// The run state; `None` if the process has ended.
fn status(vm: &mut TestVm) -> Result<Option<String>> {
    if !vm.process.running()? {
        return Ok(None);
    }
    match vm.qmp.execute("query-status", json!({})) {
        Ok(status) => Ok(status["status"].as_str().map(str::to_owned)),
        // It ends right now.
        Err(error) => match vm.exit_code(SOON) {
            _ if vm.process.running()? => Err(error),
            _ => Ok(None),
        },
    }
}

/// The run state once nothing comes in any more.
fn settled(vm: &mut TestVm) -> Result<Option<String>> {
    let deadline = Instant::now() + SOON;
    loop {
        match status(vm)?.as_deref() {
            Some("inmigrate") if Instant::now() < deadline => sleep(Duration::from_millis(2)),
            Some("inmigrate") => return Err("the destination waits for ever".into()),
            other => return Ok(other.map(str::to_owned)),
        }
    }
}
