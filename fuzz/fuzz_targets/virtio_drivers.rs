//! Drivers of each virtio device that do whatever they like with rings and registers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devices::virtio::fuzz::fuzz(data));
