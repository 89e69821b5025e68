//! Saved state of a machine: its list of sections, loaded and run with.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::vm::fuzz(data));
