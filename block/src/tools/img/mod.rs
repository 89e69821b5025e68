//! `vmm-img`: makes, shows, checks, copies and changes disk images.
//!
//! One file for each subcommand, and a row in `COMMANDS`. A subcommand opens its images through
//! `Call::open`; when it is done, well or not, they are closed in the opposite order, and what
//! they could not bring to their files is an error of the tool.
//!
//! One thread with a loop. Words come from whoever starts it, images from anybody.

mod amend;
mod bench;
mod bitmap;
mod check;
mod commit;
mod compare;
mod convert;
mod copy;
mod create;
mod dd;
mod info;
mod map;
mod measure;
mod offload;
mod rebase;
mod resize;
mod snapshot;
#[cfg(test)]
mod tests;

pub(in crate::tools) use info::specific;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use resources::iol::{Local, Loop};

use super::args::{self, Opt, Parsed};
use super::console::{Console, Fail};
use super::images::{self, Wanted};
use super::{secrets, signals};
use crate::Cache;
use crate::node::Node;
use crate::open::Secrets;

/// A subcommand under way.
type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Fail>> + 'a>>;

/// A subcommand.
pub(crate) struct Command {
    name: &'static str,
    synopsis: &'static str,
    options: &'static [Opt],
    run: for<'a> fn(&'a Call) -> Running<'a>,
}

/// All subcommands, as the help lists them.
static COMMANDS: &[&Command] = &[
    &amend::COMMAND,
    &bench::COMMAND,
    &bitmap::COMMAND,
    &check::COMMAND,
    &commit::COMMAND,
    &compare::COMMAND,
    &convert::COMMAND,
    &create::COMMAND,
    &dd::COMMAND,
    &info::COMMAND,
    &map::COMMAND,
    &measure::COMMAND,
    &rebase::COMMAND,
    &resize::COMMAND,
    &snapshot::COMMAND,
];

/// What a subcommand is given.
pub(crate) struct Call {
    local: Local,
    console: Console,
    args: Parsed,
    secrets: Secrets,
    opened: RefCell<Vec<Rc<dyn Node>>>,
}

/// Runs the tool with these words, without its own name; returns its exit code.
pub fn main(console: &Console, words: &[String]) -> u8 {
    signals::watch();
    tell(console, words)
}

fn tell(console: &Console, words: &[String]) -> u8 {
    match run(console, words) {
        Ok(()) => 0,
        Err(fail) => fail.tell(console),
    }
}

fn run(console: &Console, words: &[String]) -> Result<(), Fail> {
    let usage = |text: &str| Fail::Usage(text.to_owned());
    let (name, rest) = words.split_first().ok_or_else(|| usage("Not enough arguments"))?;
    match name.as_str() {
        "-h" | "--help" => {
            help(console);
            return Ok(());
        }
        "-V" | "--version" => {
            version(console);
            return Ok(());
        }
        name if name.starts_with('-') => {
            return Err(Fail::Usage(format!("unrecognized option '{name}'")));
        }
        _ => {}
    }
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| Fail::Usage(format!("Command not found: {name}")))?;
    if rest.iter().any(|word| word == "-h" || word == "--help") {
        help(console);
        return Ok(());
    }
    let args = args::parse(command.options, rest).map_err(Fail::Usage)?;
    let secrets = secrets::parse(&args)?;
    let mut the_loop = Loop::new("img").map_err(|error| images::why(&error))?;
    let local = the_loop.local().clone();
    let console = console.clone();
    let call = Call { local, console, args, secrets, opened: RefCell::default() };
    the_loop.run(async {
        let done = (command.run)(&call).await;
        let closed = call.close().await;
        done.and(closed)
    })
}

fn version(console: &Console) {
    console.line(format_args!("{} version {}", console.name(), env!("CARGO_PKG_VERSION")));
}

fn help(console: &Console) {
    version(console);
    console.line(format_args!("usage: {} COMMAND [OPTIONS] ...", console.name()));
    console.line("Makes, shows, checks, copies and changes disk images.\n\nCommands:");
    for command in COMMANDS {
        console.line(format_args!("  {} {}", command.name, command.synopsis));
    }
    console.print(include_str!("help.txt"));
}

impl Call {
    fn quiet(&self) -> bool {
        self.args.has('q')
    }

    /// Whether JSON is wanted.
    fn json(&self) -> Result<bool, Fail> {
        match self.args.get("output") {
            None | Some("human") => Ok(false),
            Some("json") => Ok(true),
            Some(_) => Err("--output must be used with human or json as argument.".into()),
        }
    }

    /// The operands, which have to be so many.
    fn operands<const N: usize>(&self, otherwise: &str) -> Result<[&str; N], Fail> {
        let operands: Vec<&str> = self.args.operands.iter().map(String::as_str).collect();
        <[&str; N]>::try_from(operands).map_err(|_| Fail::Usage(otherwise.to_owned()))
    }

    /// A cache mode that an option names.
    fn cache(&self, option: char, default: &str, refusal: &str) -> Result<Cache, Fail> {
        let name = self.args.get(option).unwrap_or(default);
        Cache::named(name).ok_or_else(|| Fail::Told(format!("{refusal}: {name}")))
    }

    /// An image to be read, with the options that most subcommands have.
    fn wanted<'a>(&'a self, name: &'a str) -> Result<Wanted<'a>, Fail> {
        let image_opts = self.args.has("image-opts");
        let format = self.args.get('f');
        if image_opts && format.is_some() {
            return Err("--image-opts and --format are mutually exclusive".into());
        }
        let force_share = self.args.has('U');
        Ok(Wanted { image_opts, force_share, ..Wanted::read(name, format) })
    }

    /// Opens an image, which is closed when the subcommand is done.
    async fn open(&self, wanted: &Wanted<'_>) -> Result<Rc<dyn Node>, Fail> {
        let node = images::open(&self.local, wanted, &self.secrets).await?;
        self.opened.borrow_mut().push(node.clone());
        Ok(node)
    }

    async fn close(&self) -> Result<(), Fail> {
        let mut result = Ok(());
        loop {
            let Some(node) = self.opened.borrow_mut().pop() else { break };
            let closed = node.close().await.map_err(|error| {
                Fail::Told(format!("Could not finish writing: {}", images::why(&error)))
            });
            result = result.and(closed);
        }
        result
    }
}

/// A size given by an option.
fn size_option(
    args: &Parsed,
    name: impl Into<args::Name>,
    what: &str,
) -> Result<Option<u64>, Fail> {
    let Some(text) = args.get(name) else { return Ok(None) };
    let size = super::size::parse(text);
    size.map(Some)
        .ok_or_else(|| Fail::Told(format!("Invalid {what} specified. {}", super::size::SUFFIXES)))
}
