//! Every QMP command, with arguments made up, on a live machine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::cmd::fuzz::commands(data));
