//! The monitor's conversations, word by word: see [`transcript`].

use std::path::Path;

use qmp::COMMANDS;
use serde_json::{Value, json};

use crate::host::image::QEMU;
use crate::rig::Result;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::Peer;
use crate::supply::apt;
use crate::transcript::run::{self, Stage};
use crate::transcript::script::Machine;
use crate::transcript::{self, cover, differ};

pub(super) fn tests() -> Vec<Test> {
    let mut tests: Vec<_> = transcript::names()
        .map(|name| {
            let body = move |ctx: &Ctx| run::run(ctx, &transcript::script(name)?);
            Test::tiny(&format!("transcript::{name}"), 120, body)
        })
        .collect();
    tests.push(Test::tiny("transcript::leaves_nothing_out", 60, leaves_nothing_out));
    tests.push(Test::tiny("transcript::as_qemu_has_it", 300, as_qemu_has_it));
    tests
}

/// What a machine says is what QEMU says, but for what is written down.
fn as_qemu_has_it(ctx: &Ctx) -> Result {
    if !Path::new(QEMU).exists() {
        apt::install_tools()?;
    }
    let theirs = Ctx::new(Peer::Qemu(QEMU.into()), &ctx.guests, None)?;
    differ::run(ctx, &theirs, &transcript::all()?)
}

/// Every command that a machine says it has and every event has its transcripts.
fn leaves_nothing_out(ctx: &Ctx) -> Result {
    let mut stage = Stage::start(ctx, Machine::None, &[])?;
    let names = |list: Value| -> Vec<String> {
        let names = list.as_array().into_iter().flatten();
        names.filter_map(|item| Some(item["name"].as_str()?.to_owned())).collect()
    };
    let commands = names(stage.qmp().execute("query-commands", json!({}))?);
    let events = names(stage.qmp().execute("query-events", json!({}))?);
    let specs: Vec<_> =
        COMMANDS.iter().filter(|spec| commands.iter().any(|name| name == spec.name)).collect();
    if specs.len() != commands.len() || events.is_empty() {
        return Err(format!("the machine has other commands or events: {commands:?}").into());
    }
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let gaps = cover::gaps(&transcript::all()?, &specs, &events);
    let scripts = transcript::all()?;
    let count: usize = scripts.iter().map(|script| script.exchanges().len()).sum();
    println!("{count} exchanges about {} commands", specs.len());
    if gaps.is_empty() { Ok(()) } else { Err(gaps.join("\n").into()) }
}
