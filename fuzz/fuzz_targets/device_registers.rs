//! Random register accesses of each device.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devices::fuzz::fuzz_registers(data));
