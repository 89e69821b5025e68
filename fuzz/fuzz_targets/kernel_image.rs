//! Kernel images through the direct boot loaders.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::boot::fuzz(data));
