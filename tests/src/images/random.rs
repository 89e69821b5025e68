//! Random operations on one image by both sides, beside a flat file.

use super::tools::{BOTH, Tools, Whose};
use super::variants::{ALL, Variant};
use crate::rig::Result;

const SIZE: u64 = 3_000_320;
const ROUNDS: u64 = 6;
const STEPS: usize = 25;

/// The same sequence for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % end
    }

    fn range(&mut self) -> (u64, u64) {
        let unit = [1, 512, 4096, 65536][self.below(4) as usize];
        let offset = self.below(SIZE / unit) * unit;
        let len = (1 + self.below(if unit == 1 { 100_000 } else { 40 })) * unit;
        (offset, len.min(SIZE - offset))
    }
}

/// Operations, and what they are for a flat file.
fn steps(random: &mut Random) -> (Vec<String>, Vec<String>) {
    let (mut image, mut flat) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let (offset, len) = random.range();
        let line = match random.below(8) {
            0..=3 => format!("write -P {} {offset} {len}", 1 + random.below(255)),
            4 => format!("write -z {offset} {len}"),
            5 => format!("write -zu {offset} {len}"),
            6 => format!("aio_write -P {} {offset} {len}\naio_flush", 1 + random.below(255)),
            _ => {
                image.push(format!("read {offset} {len}"));
                continue;
            }
        };
        image.extend(line.lines().map(str::to_owned));
        flat.extend(line.lines().map(str::to_owned));
    }
    (image, flat)
}

fn play(tools: &Tools, variant: &Variant, image: &str, seed: u64) -> Result {
    let mut random = Random(seed);
    for round in 0..ROUNDS {
        let whose = BOTH[random.below(2) as usize];
        let (on_image, on_flat) = steps(&mut random);
        tools.io_ok(whose, image, &on_image)?;
        tools.io_ok(Whose::Others, "-f raw flat", &on_flat)?;
        let verdict = tools.clean(image).and_then(|()| tools.same(image, "-F raw flat"));
        verdict.map_err(|error| {
            let said = on_image.join("; ");
            format!("{} seed {seed} round {round} by {whose:?}: {error}\n{said}", variant.options)
        })?;
        let single = variant.single || variant.options.contains("refcount_bits=1");
        if round == 2 && !single {
            tools.ok(BOTH[random.below(2) as usize], &format!("snapshot -c {round} {image}"))?;
        }
        if round == 4 && !single {
            tools.ok(BOTH[random.below(2) as usize], &format!("snapshot -d 2 {image}"))?;
            tools.clean(image)?;
        }
    }
    Ok(())
}

pub(super) fn operations(tools: &Tools) -> Result {
    let mut failures = String::new();
    for (seed, variant) in (1..).zip(ALL) {
        let maker = BOTH[(seed % 2) as usize];
        let options = variant.options;
        tools.ok(maker, &format!("create -q -f qcow2 -o {options} a {SIZE}"))?;
        tools.ok(Whose::Others, &format!("create -q -f raw flat {SIZE}"))?;
        if let Err(error) = play(tools, variant, "a", seed) {
            failures.push_str(&format!("{error}\n"));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.into()) }
}

pub(super) fn in_a_chain(tools: &Tools) -> Result {
    let mut failures = String::new();
    for (seed, variant) in (100..).zip(ALL) {
        let options = variant.options;
        if options.contains("preallocation") || options.contains("raw=on") {
            continue;
        }
        let (maker, smaller) = (BOTH[(seed % 2) as usize], SIZE - 700_000);
        tools.ok(maker, &format!("create -q -f qcow2 -o cluster_size=4k base {smaller}"))?;
        tools.ok(Whose::Others, &format!("create -q -f raw flat {SIZE}"))?;
        let line = vec![format!("write -P 7 1000 {}", smaller / 2)];
        tools.io_ok(maker, "base", &line)?;
        tools.io_ok(Whose::Others, "-f raw flat", &line)?;
        tools.ok(maker, &format!("create -q -f qcow2 -b base -F qcow2 -o {options} a {SIZE}"))?;
        if let Err(error) = play(tools, variant, "a", seed) {
            failures.push_str(&format!("{error}\n"));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.into()) }
}
