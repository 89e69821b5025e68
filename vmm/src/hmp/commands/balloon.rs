//! The memory that the guest gives back.

use qmp::{Balloon, Handle, QmpError, QueryBalloon};

use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg};
use crate::hmp::table::{Row, bare, row};

pub(super) const INFO: &[Row] =
    &[bare(&["balloon"], "show how much memory the guest has left", info)];

pub(super) const ROWS: &[Row] = &[row(
    &["balloon"],
    &[arg("value", Kind::Mib)],
    "target",
    "ask the guest to make do with so many MiB of memory",
    |call, args| call.vm.handle(Balloon { value: args.number("value") }),
)];

fn info(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let left = call.vm.handle(QueryBalloon {})?.actual;
    call.line(format_args!("balloon: actual={}", left >> 20));
    Ok(())
}
