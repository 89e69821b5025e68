//! NBD servers of any kind, at our client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| block::nbd::fuzz::server(data));
