//! The NBD tool: see [`block::tools::nbd`].

use std::process::ExitCode;

use block::tools::console::Console;
use block::tools::nbd;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(nbd::main(&Console::standard("vmm-nbd"), &words))
}
