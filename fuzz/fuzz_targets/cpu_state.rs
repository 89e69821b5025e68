//! Saved state of a processor, decoded and checked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::cpu::state::fuzz(data));
