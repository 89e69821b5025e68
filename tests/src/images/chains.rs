//! Backing chains and snapshots.

use super::tools::{BOTH, Tools, Whose, equal};
use crate::rig::Result;

/// Five images of different sizes, and a raw one that reads the same.
fn make(tools: &Tools, maker: Whose) -> Result {
    tools.ok(Whose::Others, "create -q -f raw a0 2500k")?;
    tools.ok(Whose::Others, "create -q -f raw flat 2500k")?;
    let write = |whose: Whose, image: &str, lines: &[&str]| {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        tools.io_ok(whose, image, &lines)
    };
    let first = ["write -P 1 0 2500k"];
    write(Whose::Others, "-f raw a0", &first)?;
    write(Whose::Others, "-f raw flat", &first)?;
    let mut below = "a0 -F raw".to_owned();
    for (number, (size, options, lines)) in (1..).zip([
        ("6M", "cluster_size=64k", ["write -P 11 100k 50k", "write -P 12 3M 1M"]),
        ("4M", "cluster_size=4k", ["write -P 13 128k 1000", "write -z 3500k 100k"]),
        ("8M", "cluster_size=2M", ["write -P 14 5M 1k", "write -P 15 200k 1k"]),
        ("8M", "extended_l2=on", ["write -P 16 7M 200k", "write -z 0 70k"]),
    ]) {
        let image = format!("a{number}");
        let line = format!("create -q -f qcow2 -o {options} -b {below} {image} {size}");
        tools.ok(maker, &line)?;
        tools.ok(Whose::Others, &format!("resize -q --shrink -f raw flat {size}"))?;
        write(maker, &image, &lines)?;
        write(Whose::Others, "-f raw flat", &lines)?;
        tools.clean(&image)?;
        tools.same(&image, "-F raw flat")?;
        below = format!("{image} -F qcow2");
    }
    Ok(())
}

pub(super) fn read(tools: &Tools) -> Result {
    for maker in BOTH {
        make(tools, maker)?;
        for whose in BOTH {
            tools.ok(whose, "convert -O qcow2 a4 whole")?;
            tools.same("whole", "-F raw flat")?;
            tools.ok(whose, "convert -O qcow2 -B a3 -F qcow2 a4 thin")?;
            tools.clean("thin")?;
            tools.same("thin", "-F raw flat")?;
        }
    }
    Ok(())
}

pub(super) fn commit_and_rebase(tools: &Tools) -> Result {
    for whose in BOTH {
        make(tools, whose)?;
        // One layer out of the middle.
        tools.ok(whose, "rebase -b a2 -F qcow2 a4")?;
        tools.clean("a4")?;
        tools.same("a4", "-F raw flat")?;
        tools.ok(whose, "commit a4")?;
        tools.clean("a2")?;
        tools.clean("a4")?;
        tools.same("a4", "-F raw flat")?;
        tools.same("a2", "-F raw flat")?;
        let map = tools.json(whose, "map --output=json a4")?;
        let own = map
            .as_array()
            .into_iter()
            .flatten()
            .any(|entry| entry["depth"] == 0 && entry["data"] == true);
        if own {
            return Err(format!("{whose:?}: a4 still has data after the commit").into());
        }
        // Without a backing file everything has to be there.
        make(tools, whose)?;
        tools.ok(whose, "rebase -b a1 -F qcow2 a4")?;
        tools.ok(whose, "rebase -p -b a0 -F raw a4")?;
        std::fs::remove_file(tools.path("a1"))?;
        tools.clean("a4")?;
        tools.same("a4", "-F raw flat")?;
        // By name only.
        std::fs::rename(tools.path("a0"), tools.path("b0"))?;
        tools.ok(whose, "rebase -u -b b0 -F raw a4")?;
        tools.same("a4", "-F raw flat")?;
        let line = "info --output=json a4";
        let [ours, others] = BOTH.map(|whose| tools.json(whose, line));
        equal("backing file", &ours?["backing-filename"], &others?["backing-filename"])?;
        // Down several layers at once.
        make(tools, whose)?;
        tools.ok(whose, "commit -q -d -b a1 a4")?;
        tools.clean("a1")?;
        tools.same("a1", "-F raw flat")?;
    }
    Ok(())
}

/// Taken, applied and deleted by either.
pub(super) fn snapshots(tools: &Tools) -> Result {
    for (taker, user) in [(0, 1), (1, 0), (0, 0)] {
        let (taker, user) = (BOTH[taker], BOTH[user]);
        tools.ok(taker, "create -q -f qcow2 a 4M")?;
        for (number, copy) in (1..).zip(["one", "two", "three"]) {
            let line = format!("write -P {number} {number}00k 900k");
            tools.io_ok(taker, "a", &[line])?;
            tools.ok(user, &format!("convert -O raw a {copy}.raw"))?;
            tools.ok(taker, &format!("snapshot -c {copy} a"))?;
            tools.clean("a")?;
        }
        tools.io_ok(user, "a", &["write -P 9 0 4M".into(), "write -z 1M 1M".into()])?;
        tools.clean("a")?;
        for copy in ["one", "two", "three"] {
            tools.ok(user, &format!("convert -l snapshot.name={copy} -O raw a loaded.raw"))?;
            tools.same("-f raw -F raw loaded.raw", &format!("{copy}.raw"))?;
        }
        for copy in ["two", "one", "three"] {
            tools.ok(user, &format!("snapshot -a {copy} a"))?;
            tools.clean("a")?;
            tools.same("a", &format!("-F raw {copy}.raw"))?;
            tools.io_ok(taker, "a", &["write -P 8 50k 700k".into()])?;
            tools.clean("a")?;
        }
        for copy in ["two", "one", "three"] {
            tools.ok(user, &format!("snapshot -d {copy} a"))?;
            tools.clean("a")?;
        }
        let info = tools.json(Whose::Others, "info --output=json a")?;
        if !info["snapshots"].is_null() {
            return Err("there are still snapshots".into());
        }
    }
    Ok(())
}
