//! Command lines through the option parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm::cli::fuzz(data));
