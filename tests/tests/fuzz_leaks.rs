//! Clients of a live machine, good and bad, leave no descriptor open. One test, alone in its
//! process, because it counts what the process has.

use std::time::{Duration, Instant};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn no_descriptor_is_left() {
    let run = |number: u8| {
        let mut choices = u32::from(number);
        let bytes = (0..600).map(|_| {
            choices = choices.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (choices >> 24) as u8
        });
        vmm::cmd::fuzz::commands(&bytes.collect::<Vec<_>>());
    };
    // What is made once and stays.
    run(0);
    let before = descriptors();
    (0..=255).for_each(run);
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/qmp_session");
    for seed in std::fs::read_dir(seeds).unwrap() {
        let mut seed = std::fs::read(seed.unwrap().path()).unwrap();
        for cut in [1, 7, 255] {
            seed[0] = cut;
            vmm::cmd::fuzz::session(&seed);
        }
    }
    // Threads that serve what was closed may take a moment to end.
    let end = Instant::now() + Duration::from_secs(20);
    while descriptors() > before {
        assert!(Instant::now() < end, "{before} descriptors before, {} after", descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
}
