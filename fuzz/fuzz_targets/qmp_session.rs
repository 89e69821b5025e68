//! What a QMP client says to a live machine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::cmd::fuzz::session(data));
