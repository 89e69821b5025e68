//! How fast pages are encoded and zeros found: `cargo vmbench --only xbzrle`.
//!
//! Megabytes of pages a second, on one thread, by each set of instructions this processor has and
//! as a ratio to the portable one, which goes byte by byte as the format is told.

use std::hint::black_box;
use std::time::Duration;

use migration::simd::Simd;
use migration::xbzrle::{Encoded, Encoder, PAGE_SIZE, Page, decode};
use migration::zero::is_zero_by;
use rustix::time::{ClockId, clock_gettime};

/// Pairs of pages that the processor's inner caches hold, so that the encoders are compared and
/// not the memory; too many for it to remember where the runs are.
const PAGES: usize = 256;
/// So long each figure is measured, and the best of so many is shown.
const TIME: Duration = Duration::from_millis(200);
const ROUNDS: usize = 3;

fn main() {
    println!("{:<34} {:>12} {:>12} {:>7}", "XBZRLE", "instructions", "MB/s", "ratio");
    let old: Vec<Page> = pages();
    for run in [1, 32] {
        for percent in [1, 10, 50] {
            let new = changed(&old, percent, run);
            let name = format!("{percent} % changed, {run} at a time");
            let mut out = [0; PAGE_SIZE];
            compare(&name, |simd| {
                let mut encoder = Encoder::with(simd);
                for (old, new) in old.iter().zip(&new) {
                    black_box(encoder.encode(old, new, &mut out));
                }
            });
        }
    }
    let mut out = [0; PAGE_SIZE];
    compare("nothing changed", |simd| {
        let mut encoder = Encoder::with(simd);
        for page in &old {
            black_box(encoder.encode(page, black_box(page), &mut out));
        }
    });
    decoding(&old);
    zeros();
}

/// Shows the speed of `work`, which goes over all pages.
fn compare(name: &str, mut work: impl FnMut(Simd)) {
    let mut portable = 0.0;
    for simd in Simd::available() {
        let speed = speed(PAGES, || work(simd));
        if simd == Simd::Portable {
            portable = speed;
        }
        let instructions = format!("{simd:?}");
        println!("{name:<34} {instructions:>12} {speed:>12.0} {:>7.2}", speed / portable);
    }
}

/// Megabytes a second, where `work` goes over that many pages.
fn speed(pages: usize, mut work: impl FnMut()) -> f64 {
    let round = |_| {
        let start = cpu_time();
        let mut times = 0;
        while cpu_time() - start < TIME {
            work();
            times += 1;
        }
        (times * pages * PAGE_SIZE) as f64 / (cpu_time() - start).as_secs_f64() / 1e6
    };
    (0..ROUNDS).map(round).fold(0.0, f64::max)
}

/// What this thread has used: others may run beside it.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn decoding(old: &[Page]) {
    for percent in [1, 10] {
        let deltas: Vec<Vec<u8>> = old
            .iter()
            .zip(&changed(old, percent, 1))
            .filter_map(|(old, new)| {
                let mut out = [0; PAGE_SIZE];
                match Encoder::new().encode(old, new, &mut out) {
                    Encoded::Delta(len) => Some(out[..len].to_vec()),
                    _ => None,
                }
            })
            .collect();
        let mut page = [0; PAGE_SIZE];
        let speed = speed(deltas.len(), || {
            for delta in &deltas {
                decode(delta, &mut page).unwrap();
            }
        });
        println!("{:<34} {:>12} {speed:>12.0}", format!("decode, {percent} % changed"), "-");
    }
}

/// The zero check over memory that no cache holds, beside the speed of a copy's reading half.
fn zeros() {
    const LARGE: usize = 256 << 20;
    let large = vec![0_u8; LARGE];
    // Pages of their own, not the one zero page of the host.
    let mut large = black_box(large);
    large.iter_mut().step_by(PAGE_SIZE).for_each(|byte| *byte = 1);
    large.iter_mut().step_by(PAGE_SIZE).for_each(|byte| *byte = 0);
    let memory = speed(LARGE / PAGE_SIZE, || {
        let (words, _) = large.as_chunks::<64>();
        black_box(words.iter().fold([0_u8; 64], |mut all, word| {
            all.iter_mut().zip(word).for_each(|(all, byte)| *all |= byte);
            all
        }));
    });
    println!("{:<34} {:>12} {memory:>12.0}", "reading memory", "-");
    for simd in Simd::available() {
        let speed = speed(LARGE / PAGE_SIZE, || {
            assert!(large.chunks(PAGE_SIZE).all(|page| is_zero_by(simd, page)));
        });
        let instructions = format!("{simd:?}");
        let ratio = speed / memory;
        println!("{:<34} {instructions:>12} {speed:>12.0} {ratio:>7.2}", "zero pages, to memory");
    }
}

/// Bytes that do not repeat soon.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn pages() -> Vec<Page> {
    let mut random = random();
    (0..PAGES).map(|_| std::array::from_fn(|_| random() as u8)).collect()
}

/// The pages with so many percent of their bytes changed, `run` together.
fn changed(old: &[Page], percent: usize, run: usize) -> Vec<Page> {
    let mut random = random();
    let mut pages = old.to_vec();
    for page in &mut pages {
        let mut places: Vec<usize> = (0..PAGE_SIZE / run).collect();
        for taken in 0..(PAGE_SIZE * percent / 100).div_ceil(run) {
            let other = taken + random() as usize % (places.len() - taken);
            places.swap(taken, other);
            let start = places[taken] * run;
            page[start..start + run].iter_mut().for_each(|byte| *byte ^= 0x5A);
        }
    }
    pages
}
