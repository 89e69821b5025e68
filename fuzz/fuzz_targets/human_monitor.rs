//! What a user types into a human monitor, to a machine without parts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::hmp::fuzz(data));
