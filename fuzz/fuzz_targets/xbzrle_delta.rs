//! Deltas of pages of any kind, as a migration's other side may send them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| migration::xbzrle::fuzz(data));
