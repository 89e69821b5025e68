//! The image tool: see [`block::tools::img`].

use std::process::ExitCode;

use block::tools::console::Console;
use block::tools::img;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(img::main(&Console::standard("vmm-img"), &words))
}
