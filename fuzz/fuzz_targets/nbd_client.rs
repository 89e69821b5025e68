//! NBD clients of any kind, at our server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| block::nbd::fuzz::client(data));
