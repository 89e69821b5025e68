//! Streams of any kind that can be answered, at a machine that waits for a guest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| migration::fuzz::late(data));
