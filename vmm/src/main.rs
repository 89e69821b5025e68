//! The `vmm` command.
//!
//! Main thread. The terminal is put right on every way out, a panic's too.

use std::process::ExitCode;

use devices::class::CLASSES;
use resources::class::Class;
use vmm::cli::{self, Action, List};

fn main() -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        devices::chardev::stdio::restore_terminal();
        hook(info);
    }));
    let status = match run() {
        Ok(status) => status,
        Err(error) => {
            cli::log::tell(error);
            1
        }
    };
    devices::chardev::stdio::restore_terminal();
    ExitCode::from(status)
}

fn run() -> Result<u8, Box<dyn std::error::Error>> {
    match cli::parse(std::env::args_os().skip(1))? {
        Action::Run(config) => Ok(vmm::start::run(&config)?),
        Action::Print(text) => Ok(print(&text)),
        Action::List(List::Machines) => Ok(print(&vmm::machine::help_text())),
        Action::List(List::Cpus) => Ok(print(&vmm::cpu::model::help_text())),
        Action::List(List::Devices) => Ok(print(&Class::list(CLASSES))),
        Action::List(List::DeviceProperties(driver)) => {
            Ok(print(&Class::find(CLASSES, &driver).map_err(vmm::plug::PlugError::from)?.help()))
        }
        Action::List(List::Chardevs) => Ok(print(&vmm::chardevs::help_text())),
        Action::List(List::Netdevs) => Ok(print(&vmm::nets::help_text())),
        Action::List(List::Objects) => Ok(print("")),
    }
}

/// Prints to standard output; a reader that went away is no error.
fn print(text: &str) -> u8 {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}
