//! Saved state of each device, loaded and worked on.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devices::fuzz::fuzz_state(data));
