//! Network cards.

use qmp::{Handle, SetLink};

use crate::hmp::parse::{Kind, arg};
use crate::hmp::table::{Row, row};

pub(super) const ROWS: &[Row] = &[row(
    &["set_link"],
    &[arg("name", Kind::Word), arg("up", Kind::Switch)],
    "name on|off",
    "plug a network cable in, or out",
    |call, args| {
        let (name, up) = (args.text("name").to_owned(), args.is_on("up"));
        call.vm.handle(SetLink { name, up })
    },
)];
