//! What a client of the debug port sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::qtest::fuzz(data));
