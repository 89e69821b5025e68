//! Images with every feature, made by one side and used by the other.

use super::tools::{BOTH, Tools, Whose};
use super::variants::{ALL, SIZE, Variant, writes};
use crate::rig::Result;

/// What goes wrong is told with the kind of image.
fn each(tools: &Tools, test: impl Fn(&Tools, &Variant) -> Result) -> Result {
    let mut failures = String::new();
    for variant in ALL {
        if let Err(error) = test(tools, variant) {
            failures.push_str(&format!("{}: {error}\n", variant.options));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.into()) }
}

/// Makes an image and a raw one, and writes the same to both.
fn make(tools: &Tools, variant: &Variant, maker: Whose, writer: Whose) -> Result {
    tools.ok(maker, &format!("create -q -f qcow2 -o {} a.qcow2 {SIZE}", variant.options))?;
    tools.clean("a.qcow2")?;
    tools.ok(Whose::Others, &format!("create -q -f raw a.raw {SIZE}"))?;
    tools.io_ok(writer, "a.qcow2", &writes(1))?;
    tools.io_ok(Whose::Others, "-f raw a.raw", &writes(1))
}

fn use_it(tools: &Tools, variant: &Variant, maker: Whose, writer: Whose) -> Result {
    make(tools, variant, maker, writer)?;
    tools.clean("a.qcow2")?;
    tools.same("a.qcow2", "-F raw a.raw")?;
    // The other one goes on with it, over what is there.
    let other = if writer == Whose::Ours { Whose::Others } else { Whose::Ours };
    let more = writes(2).into_iter().map(|line| line.replace("100k", "700k"));
    let more: Vec<String> = more.collect();
    tools.io_ok(other, "a.qcow2", &more)?;
    tools.io_ok(Whose::Others, "-f raw a.raw", &more)?;
    tools.clean("a.qcow2")?;
    tools.same("a.qcow2", "-F raw a.raw")?;
    if variant.plain {
        return Ok(());
    }
    // Compressed clusters where nothing is yet, and writes over them.
    if variant.options.contains("cluster_size=") || variant.options.contains("preallocation") {
        return Ok(());
    }
    let packed = ["write -c -P 77 4608k 64k".to_owned(), "write -P 78 4610k 5k".to_owned()];
    let plain = packed.clone().map(|line| line.replace("-c ", ""));
    tools.io_ok(writer, "a.qcow2", &packed)?;
    tools.io_ok(Whose::Others, "-f raw a.raw", &plain)?;
    tools.clean("a.qcow2")?;
    tools.same("a.qcow2", "-F raw a.raw")
}

/// We make and write.
pub(super) fn ours_read_by_others(tools: &Tools) -> Result {
    each(tools, |tools, variant| use_it(tools, variant, Whose::Ours, Whose::Ours))
}

/// The others do.
pub(super) fn others_read_by_us(tools: &Tools) -> Result {
    each(tools, |tools, variant| use_it(tools, variant, Whose::Others, Whose::Others))
}

/// Copies in every direction.
pub(super) fn converted(tools: &Tools) -> Result {
    each(tools, |tools, variant| {
        make(tools, variant, Whose::Others, Whose::Others)?;
        for whose in BOTH {
            tools.ok(whose, "convert -O raw a.qcow2 b.raw")?;
            tools.same("-f raw -F raw a.raw", "b.raw")?;
            let options = variant.options.replace("data.raw", "data-b.raw");
            tools.ok(whose, &format!("convert -O qcow2 -o {options} b.raw b.qcow2"))?;
            tools.clean("b.qcow2")?;
            tools.same("b.qcow2", "-F raw a.raw")?;
        }
        for options in ["-W -m 16", "-S 0", "-S 64k", "-m 1", "-t none -T none", "-t writethrough"]
        {
            tools.ok(Whose::Ours, &format!("convert {options} -O qcow2 a.qcow2 c.qcow2"))?;
            tools.clean("c.qcow2")?;
            tools.same("c.qcow2", "-F raw a.raw")?;
        }
        // Into one that is there, and not empty.
        tools.ok(Whose::Others, &format!("create -q -f qcow2 d.qcow2 {SIZE}"))?;
        tools.io_ok(Whose::Others, "d.qcow2", &[format!("write -P 9 0 {SIZE}")])?;
        tools.ok(Whose::Ours, "convert -n -O qcow2 a.qcow2 d.qcow2")?;
        tools.clean("d.qcow2")?;
        tools.same("d.qcow2", "-F raw a.raw")
    })
}

/// Compressed copies.
pub(super) fn compressed(tools: &Tools) -> Result {
    each(tools, |tools, variant| {
        if variant.plain || variant.options.contains("preallocation") {
            return Ok(());
        }
        make(tools, variant, Whose::Others, Whose::Others)?;
        for whose in BOTH {
            let options = variant.options;
            tools.ok(whose, &format!("convert -c -O qcow2 -o {options} a.qcow2 b.qcow2"))?;
            tools.clean("b.qcow2")?;
            tools.same("b.qcow2", "-F raw a.raw")?;
        }
        Ok(())
    })
}

/// Larger and smaller, by either side.
pub(super) fn resized(tools: &Tools) -> Result {
    each(tools, |tools, variant| {
        for whose in BOTH {
            make(tools, variant, whose, whose)?;
            let mut sizes = vec!["+5M", "9000k", "30M"];
            if !variant.options.contains("raw=on") {
                sizes.push("2500k");
                // The others leave what was in the rest of the last cluster, and show it here.
                sizes.extend((whose == Whose::Ours).then_some("3M"));
            }
            for size in sizes {
                for (image, format) in [("a.qcow2", "qcow2"), ("a.raw", "raw")] {
                    tools.ok(whose, &format!("resize -q --shrink -f {format} {image} {size}"))?;
                }
                tools.clean("a.qcow2")?;
                tools.same("a.qcow2", "-F raw a.raw")?;
            }
        }
        Ok(())
    })
}
