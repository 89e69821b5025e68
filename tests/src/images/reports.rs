//! What the tools say about the same image.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use serde_json::{Map, Value};

use super::tools::{BOTH, Tools, Whose, equal};
use super::variants::{ALL, SIZE, Variant, writes};
use crate::rig::Result;

fn make(tools: &Tools, variant: &Variant) -> Result {
    let options = variant.options;
    tools.ok(Whose::Others, &format!("create -q -f qcow2 -o {options} a.qcow2 {SIZE}"))?;
    tools.io_ok(Whose::Others, "a.qcow2", &writes(3))
}

fn without(mut value: Value, names: &[&str]) -> Value {
    match &mut value {
        Value::Object(members) => {
            let kept = std::mem::take(members).into_iter();
            let kept = kept.filter(|(name, _)| !names.contains(&name.as_str()));
            *members = kept.map(|(name, value)| (name, without(value, names))).collect();
        }
        Value::Array(values) => {
            for value in values {
                *value = without(value.take(), names);
            }
        }
        _ => {}
    }
    value
}

/// The same members with the same values.
pub(super) fn info(tools: &Tools) -> Result {
    // Members of later versions, and one that is always there in these.
    let other = ["icount", "full-backing-filename"];
    for variant in ALL {
        make(tools, variant)?;
        if !variant.single && !variant.options.contains("refcount_bits=1") {
            tools.ok(Whose::Others, "snapshot -c first a.qcow2")?;
            tools.ok(Whose::Others, "snapshot -c second a.qcow2")?;
        }
        // The others do not count what a data file takes.
        let ignored = match variant.options.contains("data_file") {
            true => [other[0], other[1], "actual-size"],
            false => [other[0], other[1], ""],
        };
        let [ours, others] = BOTH.map(|whose| {
            tools.json(whose, "info --output=json a.qcow2").map(|value| without(value, &ignored))
        });
        equal(variant.options, &ours?, &others?)?;
    }
    for (name, size) in [("b.raw", "5M"), ("c.raw", "0")] {
        tools.ok(Whose::Others, &format!("create -q -f raw {name} {size}"))?;
        let [ours, others] =
            BOTH.map(|whose| tools.json(whose, &format!("info --output=json -f raw {name}")));
        equal(name, &ours?, &others?)?;
    }
    tools.ok(Whose::Others, "create -q -f qcow2 -b b.raw -F raw d.qcow2")?;
    let line = "info --output=json --backing-chain d.qcow2";
    let [ours, others] =
        BOTH.map(|whose| tools.json(whose, line).map(|value| without(value, &other)));
    equal("a chain", &ours?, &others?)
}

/// Runs of the same kind, whoever cut them: data that may be zero is data.
fn runs(map: &Value) -> Vec<(u64, u64, u64, bool, Option<u64>)> {
    let mut runs: Vec<(u64, u64, u64, bool, Option<u64>)> = Vec::new();
    let number = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_u64);
    for entry in map.as_array().into_iter().flatten() {
        let start = number(entry, "start").unwrap_or(0);
        let len = number(entry, "length").unwrap_or(0);
        let data = entry.get("data").and_then(Value::as_bool).unwrap_or(false);
        let depth = number(entry, "depth").unwrap_or(0);
        let offset = number(entry, "offset").filter(|_| data);
        if let Some((_, known, before, kind, place)) = runs.last_mut()
            && (*before, *kind) == (depth, data)
            && place.map(|place| place + *known) == offset
        {
            *known += len;
            continue;
        }
        runs.push((start, len, depth, data, offset));
    }
    runs
}

/// Data lies in the same places.
pub(super) fn map(tools: &Tools) -> Result {
    for variant in ALL {
        make(tools, variant)?;
        let [ours, others] =
            BOTH.map(|whose| tools.json(whose, "map --output=json a.qcow2").map(|map| runs(&map)));
        equal(variant.options, &ours?, &others?)?;
    }
    tools.ok(Whose::Others, "create -q -f qcow2 base.qcow2 3M")?;
    tools.io_ok(Whose::Others, "base.qcow2", &["write 0 200k".into(), "write -z 1M 1M".into()])?;
    tools.ok(Whose::Others, "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 5M")?;
    tools.io_ok(Whose::Others, "top.qcow2", &["write 64k 64k".into(), "write 4M 64k".into()])?;
    let [ours, others] =
        BOTH.map(|whose| tools.json(whose, "map --output=json top.qcow2").map(|map| runs(&map)));
    equal("a chain", &ours?, &others?)?;
    let [ours, others] = BOTH.map(|whose| tools.ok(whose, "map top.qcow2"));
    equal("a chain, for people", &ours?, &others?)
}

/// The same counts of what is wrong.
pub(super) fn check(tools: &Tools) -> Result {
    let counts = |whose: Whose| -> Result<(Option<i32>, Value)> {
        let output = tools.img(whose, "check --output=json a.qcow2")?;
        let value: Value = serde_json::from_slice(&output.stdout)?;
        Ok((output.status.code(), value))
    };
    for variant in ALL {
        make(tools, variant)?;
        equal(variant.options, &counts(Whose::Ours)?, &counts(Whose::Others)?)?;
    }
    // Damage: the first refcount block, an L2 entry, an L1 entry.
    for (what, table, entry, value) in [
        ("a refcount of 0", 48, None, 0u64),
        ("an L1 entry without its flag", 40, Some(0), 0x0000_0000_0004_0000),
    ] {
        make(tools, &ALL[0])?;
        let file = OpenOptions::new().read(true).write(true).open(tools.path("a.qcow2"))?;
        let mut number = [0; 8];
        file.read_exact_at(&mut number, table)?;
        let at = u64::from_be_bytes(number);
        match entry {
            Some(entry) => {
                file.read_exact_at(&mut number, at + entry * 8)?;
                let kept = u64::from_be_bytes(number) & !(1 << 63);
                let _ = value;
                file.write_all_at(&kept.to_be_bytes(), at + entry * 8)?;
            }
            None => {
                file.read_exact_at(&mut number, at)?;
                let block = u64::from_be_bytes(number);
                // Refcounts of clusters 5 and 6.
                file.write_all_at(&[0, 0, 0, 3], block + 10)?;
            }
        }
        let (ours, others) = (counts(Whose::Ours)?, counts(Whose::Others)?);
        equal(what, &ours, &others)?;
        // Each mends it to the other's liking.
        std::fs::copy(tools.path("a.qcow2"), tools.path("b.qcow2"))?;
        tools.img(Whose::Ours, "check -r all a.qcow2")?;
        tools.clean("a.qcow2")?;
        tools.img(Whose::Others, "check -r all b.qcow2")?;
        tools.clean("b.qcow2")?;
    }
    Ok(())
}

/// The same numbers of bytes.
pub(super) fn measure(tools: &Tools) -> Result {
    let pick =
        |value: Value| -> Map<String, Value> { value.as_object().cloned().unwrap_or_default() };
    let ask = |line: &str| -> Result {
        // Images with bitmaps are not made here.
        let told = |whose| tools.json(whose, line).map(|value| pick(without(value, &["bitmaps"])));
        let [ours, others] = BOTH.map(told);
        equal(line, &ours?, &others?)
    };
    for size in ["0", "1k", "1G", "1T"] {
        ask(&format!("measure --output=json --size {size} -O raw"))?;
        for variant in ALL.iter().filter(|variant| !variant.plain) {
            let options = variant.options;
            let small = options.contains("cluster_size=512") || options.contains("cluster_size=1k");
            if size == "1T" && small {
                continue;
            }
            ask(&format!("measure --output=json --size {size} -O qcow2 -o {options}"))?;
        }
    }
    make(tools, &ALL[0])?;
    for options in ["", "-o cluster_size=4k", "-o extended_l2=on"] {
        ask(&format!("measure --output=json -O qcow2 {options} a.qcow2"))?;
    }
    ask("measure --output=json -O raw a.qcow2")
}

/// The same exit codes and words.
pub(super) fn compare(tools: &Tools) -> Result {
    make(tools, &ALL[0])?;
    tools.ok(Whose::Others, "convert -O raw a.qcow2 a.raw")?;
    for (name, line) in [
        ("first.raw", "write -P 99 0 1"),
        ("middle.raw", "write -P 99 3000000 1"),
        ("last.raw", "write -P 99 6291455 1"),
        ("hole.raw", "write -P 99 4500000 600"),
    ] {
        std::fs::copy(tools.path("a.raw"), tools.path(name))?;
        tools.io_ok(Whose::Others, &format!("-f raw {name}"), &[line.to_owned()])?;
    }
    tools.ok(Whose::Others, "convert -O qcow2 a.raw longer.qcow2")?;
    tools.ok(Whose::Others, "resize -q longer.qcow2 +1M")?;
    for line in [
        "a.qcow2 a.raw",
        "a.qcow2 first.raw",
        "middle.raw a.qcow2",
        "a.qcow2 last.raw",
        "a.raw hole.raw",
        "a.qcow2 longer.qcow2",
        "longer.qcow2 a.qcow2",
        "-s longer.qcow2 a.qcow2",
        "-q a.raw first.raw",
        "a.raw nothing.raw",
    ] {
        let said = |whose: Whose| -> Result<(Option<i32>, String)> {
            let output = tools.img(whose, &format!("compare {line}"))?;
            Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
        };
        equal(line, &said(Whose::Ours)?, &said(Whose::Others)?)?;
    }
    Ok(())
}
