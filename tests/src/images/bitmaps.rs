//! Dirty bitmaps that images keep, and options of images that are changed.

use std::process::Command;

use serde_json::Value;

use super::nbd::{serve_as, uri};
use super::tools::{BOTH, Tools, Whose, equal};
use crate::rig::Result;
use crate::supply::run;

/// What a server offers in a context, as nbdinfo lists it.
fn map(
    tools: &Tools,
    whose: Whose,
    options: &[&str],
    context: &str,
    image: &str,
) -> Result<String> {
    let options = [&["-r", "-f", "qcow2"], options].concat();
    let _server = serve_as(tools, whose, &options, image)?;
    let map = run(Command::new("nbdinfo").arg(format!("--map={context}")).arg(uri(tools)))?;
    Ok(String::from_utf8_lossy(&map).into_owned())
}

/// What is dirty in a bitmap; both servers have to say the same.
fn dirty(tools: &Tools, image: &str, bitmap: &str) -> Result<String> {
    let context = format!("qemu:dirty-bitmap:{bitmap}");
    let [ours, others] = BOTH.map(|whose| map(tools, whose, &["-B", bitmap], &context, image));
    let (ours, others) = (ours?, others?);
    equal(&format!("{bitmap} of {image}"), &ours, &others)?;
    Ok(ours)
}

/// What both tell about the format of an image, which has to be the same.
fn specific(tools: &Tools, image: &str) -> Result<Value> {
    let line = format!("info --output=json {image}");
    let [ours, others] = BOTH.map(|whose| tools.json(whose, &line));
    let (mut ours, mut others) = (ours?, others?);
    equal(image, &ours["format-specific"], &others["format-specific"])?;
    let human = format!("info {image}");
    let [words, theirs] = BOTH.map(|whose| tools.ok(whose, &human));
    let format = |text: String| {
        text.split_once("Format specific").map(|(_, text)| text.to_owned()).unwrap_or_default()
    };
    // The others' newer versions say more after what is about the format.
    equal(image, &format(words?), &format(theirs?))?;
    others["format-specific"] = Value::Null;
    Ok(ours["format-specific"]["data"].take())
}

fn io(tools: &Tools, whose: Whose, image: &str, lines: &[&str]) -> Result {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    tools.io_ok(whose, image, &lines)
}

/// Made by one, followed by the other's writes, read by both.
pub(super) fn followed(tools: &Tools) -> Result {
    for (maker, writer) in [(0, 0), (0, 1), (1, 0)] {
        let (maker, writer) = (BOTH[maker], BOTH[writer]);
        for options in ["cluster_size=64k", "cluster_size=512", "extended_l2=on,cluster_size=128k"]
        {
            tools.ok(maker, &format!("create -q -f qcow2 -o {options} a 9M"))?;
            tools.ok(maker, "bitmap --add a b0")?;
            tools.ok(maker, "bitmap --add -g 512 a fine")?;
            tools.ok(maker, "bitmap --add --disable -g 2M a off")?;
            specific(tools, "a")?;
            let lines =
                ["write 100k 200k", "write -z 3M 1M", "discard 5M 512k", "write 9436672 512"];
            io(tools, writer, "a", &lines)?;
            tools.clean("a")?;
            specific(tools, "a")?;
            let (b0, fine) = (dirty(tools, "a", "b0")?, dirty(tools, "a", "fine")?);
            if b0 == fine || !fine.contains("204800") {
                return Err(format!("the bitmaps do not follow: {b0}{fine}").into());
            }
            let off = dirty(tools, "a", "off")?;
            tools.ok(writer, "bitmap --merge fine a off")?;
            if dirty(tools, "a", "off")? == off {
                return Err("nothing was merged".into());
            }
            tools.ok(maker, "bitmap --clear --disable a b0")?;
            io(tools, writer, "a", &["write 0 1M"])?;
            equal("a clear bitmap", &dirty(tools, "a", "b0")?.contains("dirty"), &false)?;
            tools.ok(writer, "bitmap --enable a b0")?;
            for size in ["6M", "12M"] {
                tools.ok(writer, &format!("resize -q --shrink a {size}"))?;
                tools.clean("a")?;
                for name in ["b0", "fine", "off"] {
                    dirty(tools, "a", name)?;
                }
            }
            io(tools, maker, "a", &["write 11M 64k"])?;
            for name in ["b0", "fine", "off"] {
                dirty(tools, "a", name)?;
            }
            tools.ok(maker, "bitmap --remove a fine")?;
            tools.ok(writer, "bitmap --remove a b0")?;
            tools.ok(writer, "bitmap --remove a off")?;
            tools.clean("a")?;
            equal("no bitmaps", &specific(tools, "a")?["bitmaps"], &Value::Null)?;
        }
        // Refused in the same way.
        tools.ok(maker, "create -q -f qcow2 a 1M")?;
        tools.ok(maker, "bitmap --add a b0")?;
        for line in [
            "bitmap a b0",
            "bitmap --add a",
            "bitmap --add a b0",
            "bitmap --remove a nothing",
            "bitmap --add -g 3 a b1",
            "bitmap --clear -g 4k a b0",
            "bitmap --clear -F qcow2 a b0",
            "bitmap --clear -b a a b0",
            "bitmap --merge nothing a b0",
        ] {
            let [ours, others] = BOTH.map(|whose| tools.img(whose, line));
            let said = |output: std::process::Output| {
                let text = String::from_utf8_lossy(&output.stderr).replace("vmm-img", "qemu-img");
                (output.status.code(), text)
            };
            equal(line, &said(ours?), &said(others?))?;
        }
    }
    Ok(())
}

/// By convert, and by merging from another file; measured.
pub(super) fn copied(tools: &Tools) -> Result {
    for whose in BOTH {
        let other = BOTH[usize::from(whose == Whose::Ours)];
        tools.ok(whose, "create -q -f qcow2 a 9M")?;
        for bitmap in ["bitmap --add a b0", "bitmap --add --disable -g 4k a b1"] {
            tools.ok(whose, bitmap)?;
        }
        io(tools, other, "a", &["write 1M 5M"])?;
        let line = "measure --output=json -O qcow2 a";
        let [ours, others] = BOTH.map(|whose| tools.json(whose, line));
        equal("measured", &ours?, &others?)?;
        tools.ok(whose, "convert --bitmaps -O qcow2 a b")?;
        tools.clean("b")?;
        equal("bitmaps", &specific(tools, "b")?["bitmaps"], &specific(tools, "a")?["bitmaps"])?;
        equal("bits", &dirty(tools, "b", "b0")?, &dirty(tools, "a", "b0")?)?;
        tools.ok(whose, "bitmap --merge b0 -b a -F qcow2 b b1")?;
        equal("merged", &dirty(tools, "b", "b1")?, &dirty(tools, "a", "b0")?)?;
        // What was open when its program ended is nobody's any more.
        let _ = tools.io(other, "a", &["write 0 64k".into(), "flush".into(), "abort".into()])?;
        for whose in BOTH {
            let output = tools.img(whose, "convert --bitmaps -O qcow2 a c")?;
            equal("a broken bitmap", &output.status.code(), &Some(1))?;
            tools.ok(whose, "convert --bitmaps --skip-broken-bitmaps -O qcow2 a c")?;
            tools.clean("c")?;
        }
        tools.ok(whose, "bitmap --remove a b0")?;
        tools.clean("a")?;
    }
    Ok(())
}

pub(super) fn amended(tools: &Tools) -> Result {
    for whose in BOTH {
        tools.ok(whose, "create -q -f qcow2 -o compat=0.10 a 9M")?;
        io(tools, whose, "a", &["write -P 3 1M 5M"])?;
        tools.ok(Whose::Others, "convert -O raw a flat")?;
        for options in [
            "compat=1.1,lazy_refcounts=on",
            "refcount_bits=64",
            "refcount_bits=1",
            "lazy_refcounts=off,refcount_bits=16",
            "compat=v2",
            "compat=v3,size=9M",
        ] {
            tools.ok(whose, &format!("amend -q -f qcow2 -o {options} a"))?;
            tools.clean("a")?;
            tools.same("a", "-F raw flat")?;
            specific(tools, "a")?;
        }
        tools.ok(whose, "amend -o size=12M a")?;
        let info = tools.json(Whose::Others, "info --output=json a")?;
        equal("the size", &info["virtual-size"].as_u64(), &Some(12 << 20))?;
    }
    tools.ok(Whose::Others, "create -q -f raw r 1M")?;
    for line in [
        "amend a",
        "amend -f qcow2 -o cluster_size=4k a",
        "amend -f qcow2 -o nothing=4k a",
        "amend -f qcow2 -o backing_file=r a",
        "amend -f qcow2 -o compat=0.10,lazy_refcounts=on a",
        "amend -f qcow2 -o refcount_bits=3 a",
        "amend -f qcow2 -o data_file=x a",
        "amend -f raw -o size=4M r",
    ] {
        let [ours, others] = BOTH.map(|whose| tools.img(whose, line));
        let said = |output: std::process::Output| {
            let text = String::from_utf8_lossy(&output.stderr).replace("vmm-img", "qemu-img");
            (output.status.code(), text)
        };
        equal(line, &said(ours?), &said(others?))?;
    }
    Ok(())
}

/// The depth of what shows, and a snapshot in the image's place.
pub(super) fn contexts(tools: &Tools) -> Result {
    tools.ok(Whose::Others, "create -q -f qcow2 a 4M")?;
    io(tools, Whose::Others, "a", &["write 0 1M", "write 2M 64k"])?;
    tools.ok(Whose::Others, "create -q -f qcow2 -b a -F qcow2 b 5M")?;
    io(tools, Whose::Others, "b", &["write 512k 1M", "write -z 3M 64k"])?;
    let context = "qemu:allocation-depth";
    let [ours, others] = BOTH.map(|whose| map(tools, whose, &["-A"], context, "b"));
    equal("depths", &ours?, &others?)?;
    tools.ok(Whose::Others, "snapshot -c one a")?;
    io(tools, Whose::Others, "a", &["write -z 0 4M"])?;
    for name in ["one", "1", "snapshot.name=one"] {
        let [ours, others] =
            BOTH.map(|whose| map(tools, whose, &["-l", name], "base:allocation", "a"));
        equal(name, &ours?, &others?)?;
    }
    Ok(())
}
