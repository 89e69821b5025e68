//! What Tab completes: names of commands, and arguments where the words are known.
//!
//! Main thread. What is typed is a client's; file names are looked up in one directory, of which
//! [`MAX_FILES`] entries are read at most.

use super::commands::COMMANDS;
use super::parse::{Kind, Param};
use super::table::{self, Action};
use crate::vm::Vm;

/// How many entries of a directory are looked at.
const MAX_FILES: usize = 1000;

/// The words that begin with the last one of `typed`, and how many bytes of it are typed.
pub(super) fn words(vm: &Vm, typed: &str) -> (usize, Vec<String>) {
    let (before, last) = match typed.rfind(|c: char| c.is_ascii_whitespace()) {
        Some(at) => typed.split_at(at.saturating_add(1)),
        None => ("", typed),
    };
    let mut all = candidates(vm, before.split_ascii_whitespace(), last);
    all.retain(|word| word.starts_with(last));
    all.sort_unstable();
    all.dedup();
    (last.len(), all)
}

fn candidates<'a>(vm: &Vm, mut before: impl Iterator<Item = &'a str>, last: &str) -> Vec<String> {
    let mut rows = COMMANDS;
    let row = loop {
        let Some(name) = before.next() else { return table::names(rows) };
        let name = name.split('/').next().unwrap_or_default();
        match table::find(rows, name) {
            None => return Vec::new(),
            Some(row) => match row.action {
                Action::Sub(sub) => rows = sub,
                Action::Run(_) => break row,
            },
        }
    };
    let given = before.filter(|word| !word.starts_with('-')).count();
    let is_positional = |param: &&Param| !matches!(param.kind, Kind::Flag(_) | Kind::Format);
    match row.args.iter().filter(is_positional).nth(given) {
        Some(Param { words: Some(words), .. }) => words(vm),
        Some(Param { kind: Kind::File, .. }) => files(last),
        _ => Vec::new(),
    }
}

/// The files whose name goes on from `typed`, directories with a slash.
fn files(typed: &str) -> Vec<String> {
    let split = typed.rfind('/').map_or(0, |at| at.saturating_add(1));
    let (directory, start) = typed.split_at(split);
    let place = if directory.is_empty() { "." } else { directory };
    let Ok(entries) = std::fs::read_dir(place) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.take(MAX_FILES).flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(start) && (!name.starts_with('.') || start.starts_with('.')) {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            found.push(format!("{directory}{name}{slash}"));
        }
    }
    found
}
