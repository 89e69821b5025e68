//! Channels of memory of any kind, as a migration's other side may open them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| migration::fuzz::channel(data));
