//! What is logged, and where to.

use qmp::QmpError;

use super::help::log_items;
use crate::cli::log;
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg};
use crate::hmp::table::{Row, row};

pub(super) const ROWS: &[Row] = &[
    row(
        &["log"],
        &[arg("items", Kind::Word).words(|_| {
            log::ITEMS.iter().map(|item| item.name.to_owned()).chain(["none".to_owned()]).collect()
        })],
        "item1[,...]",
        "choose what is logged, 'none' for nothing more than warnings",
        choose,
    ),
    row(&["logfile"], &[arg("filename", Kind::File)], "filename", "log to a file", |_, args| {
        log::set_file(args.text("filename").as_ref()).map_err(QmpError::generic)
    }),
];

fn choose(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let items = match args.text("items") {
        "none" => Ok(Vec::new()),
        text => log::parse_items(text),
    };
    match items {
        Ok(items) => log::set_items(&items).map_err(QmpError::generic)?,
        Err(_) => log_items(call),
    }
    Ok(())
}
