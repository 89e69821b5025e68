//! What a QMP client sends, through a session.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| qmp::fuzz::fuzz(data));
