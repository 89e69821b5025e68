//! Options of the tools that are about more than one kind of image: passwords, room given
//! beforehand, images whose backing file is not there.

use super::tools::{BOTH, Tools, Whose, equal};
use crate::rig::Result;

/// What a tool says on standard error, in the others' name, and its exit code.
fn failure(tools: &Tools, whose: Whose, line: &str) -> Result<(Option<i32>, String)> {
    let output = tools.img(whose, line)?;
    let text = String::from_utf8_lossy(&output.stderr).replace("vmm-img", "qemu-img");
    Ok((output.status.code(), text))
}

/// Encrypted by one, read by the other.
pub(super) fn passwords(tools: &Tools) -> Result {
    const OPTS: &str = "driver=qcow2,encrypt.key-secret=s,file.filename=a";
    let secret = "--object secret,id=s,data=word";
    for (maker, user) in [(0, 1), (1, 0)] {
        let (maker, user) = (BOTH[maker], BOTH[user]);
        let kind = "-o encrypt.format=aes,encrypt.key-secret=s";
        tools.ok(maker, &format!("create -q {secret} -f qcow2 {kind} a 2M"))?;
        let image = format!("{secret} --image-opts {OPTS}");
        tools.io_ok(maker, &image, &["write -P 7 100k 200k".into()])?;
        tools.io_ok(user, &image, &["read -P 7 100k 200k".into(), "write -P 8 1M 512".into()])?;
        for whose in BOTH {
            tools.ok(whose, &format!("convert {image} -O raw plain"))?;
            tools.ok(Whose::Others, "convert -f raw -O qcow2 plain b")?;
            tools.ok(whose, &format!("convert {secret} -f raw -O qcow2 {kind} plain a"))?;
            tools.ok(user, &format!("convert {image} -O raw again"))?;
            tools.same("-f raw -F raw plain", "again")?;
        }
        let other = format!("convert --image-opts {OPTS} -O raw again");
        equal("without a password", &tools.img(maker, &other)?.status.code(), &Some(1))?;
    }
    Ok(())
}

/// Room for what is new of an image.
pub(super) fn preallocated(tools: &Tools) -> Result {
    for options in ["cluster_size=64k", "cluster_size=2M", "extended_l2=on"] {
        for mode in ["off", "metadata", "falloc", "full"] {
            let mut maps = Vec::new();
            for whose in BOTH {
                tools.ok(whose, &format!("create -q -f qcow2 -o {options} a 3M"))?;
                tools.io_ok(whose, "a", &["write -P 3 1M 64k".into()])?;
                tools.ok(whose, &format!("resize -q --preallocation={mode} a 9M"))?;
                tools.clean("a")?;
                let map = tools.json(Whose::Others, "map --output=json a")?;
                let data = |entry: &serde_json::Value| entry["data"] == true;
                let entries = map.as_array().into_iter().flatten().filter(|entry| data(entry));
                maps.push(entries.filter_map(|entry| entry["length"].as_u64()).sum::<u64>());
                tools.io_ok(whose, "a", &["read -P 0 3M 6M".into(), "read -P 3 1M 64k".into()])?;
                tools.io_ok(whose, "a", &["write -P 4 8M 100k".into()])?;
                tools.clean("a")?;
            }
            equal(&format!("{options} {mode}"), &maps.first(), &maps.get(1))?;
        }
    }
    for mode in ["falloc", "full"] {
        for whose in BOTH {
            tools.ok(whose, "create -q -f raw r 1M")?;
            tools.ok(whose, &format!("resize -q -f raw --preallocation={mode} r 2M"))?;
            let info = tools.json(Whose::Others, "info -f raw --output=json r")?;
            let there = info["actual-size"].as_u64().is_some_and(|size| size >= 1 << 20);
            equal(mode, &there, &true)?;
        }
    }
    Ok(())
}

/// A backing file that is not there, and a machine's state.
pub(super) fn others(tools: &Tools) -> Result {
    for whose in BOTH {
        tools.ok(whose, "create -q -u -f qcow2 -b nothing -F qcow2 a 1M")?;
        tools.ok(Whose::Others, "info -f qcow2 a")?;
    }
    for line in [
        "create -q -u -f qcow2 -b nothing -F qcow2 b",
        "create -q -f qcow2 -b nothing -F qcow2 b 1M",
        "create -q -f qcow2 --object secret,id=s b 1M",
        "bench -i x a",
    ] {
        let [ours, others] = BOTH.map(|whose| failure(tools, whose, line));
        equal(line, &ours?, &others?)?;
    }
    for (maker, user) in [(0, 1), (1, 0)] {
        let (maker, user) = (BOTH[maker], BOTH[user]);
        tools.ok(maker, "create -q -f qcow2 a 1M")?;
        tools.io_ok(maker, "a", &["write -b -P 5 1024 64k".into(), "write -P 6 0 1M".into()])?;
        tools.io_ok(user, "a", &["read -b -P 5 1024 64k".into(), "read -P 6 0 1M".into()])?;
        tools.clean("a")?;
        for aio in ["threads", "native", "io_uring"] {
            tools.ok(maker, &format!("bench -q -t none -i {aio} -c 100 a"))?;
        }
    }
    let lines = ["multiwrite -P 1 0 4k 4k ; 16k 4k ; 32k 1k", "read -P 1 0 8k", "read -P 2 16k 4k"];
    let lines = lines.map(str::to_owned);
    tools.io_ok(Whose::Ours, "a", &[&lines[..], &["read -P 3 32k 1k".to_owned()]].concat())
}
