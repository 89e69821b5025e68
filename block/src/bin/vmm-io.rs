//! The tool for single requests: see [`block::tools::io`].

use std::process::ExitCode;

use block::tools::console::Console;
use block::tools::io;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(io::main(&Console::standard("vmm-io"), &words))
}
