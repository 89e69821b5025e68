//! qcow2 images of anybody, checked and mended.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| block::qcow2::fuzz::fuzz(data));
