//! Descriptors that came over the monitor's socket.

use qmp::{Closefd, Getfd};

use crate::hmp::parse::{Kind, arg};
use crate::hmp::table::{Row, row};
use qmp::Handle;

pub(super) const ROWS: &[Row] = &[
    row(
        &["getfd"],
        &[arg("fdname", Kind::Word)],
        "fdname",
        "name the descriptor that was sent along",
        |call, args| call.vm.handle(Getfd { fdname: args.text("fdname").to_owned() }),
    ),
    row(
        &["closefd"],
        &[arg("fdname", Kind::Word)],
        "fdname",
        "close a descriptor that has a name",
        |call, args| call.vm.handle(Closefd { fdname: args.text("fdname").to_owned() }),
    ),
];
