//! Answers of any kind, at a machine whose guest is to go before its memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| migration::fuzz::answers(data));
