//! Snapshots of the machine with its disks.

use qmp::QmpError;

use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg, opt};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

pub(super) const ROWS: &[Row] = &[
    row(
        &["savevm"],
        &[opt("name", Kind::Word)],
        "[tag|id]",
        "save the machine and its disks in a snapshot",
        |call, args| call.vm.save_snapshot(args.opt_text("name")),
    ),
    row(
        &["loadvm"],
        &[arg("name", Kind::Word).words(tags)],
        "tag|id",
        "make the machine and its disks what they were at a snapshot",
        |call, args| call.vm.load_snapshot(args.text("name")),
    ),
    row(
        &["delvm"],
        &[arg("name", Kind::Word).words(tags)],
        "tag|id",
        "delete a snapshot from all disks",
        |call, args| call.vm.delete_snapshot(args.text("name")),
    ),
];

pub(super) const INFO: &[Row] =
    &[bare(&["snapshots"], "show the snapshots that all disks have", info)];

fn tags(vm: &Vm) -> Vec<String> {
    let all = vm.snapshot_disks().into_iter().flat_map(|(_, snapshots)| snapshots);
    all.map(|snapshot| snapshot.name).collect()
}

fn info(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let mut disks = call.vm.snapshot_disks().into_iter();
    let Some((_, mut first)) = disks.next() else {
        call.print("No available block device supports snapshots\n");
        return Ok(());
    };
    if first.is_empty() {
        call.print("There is no snapshot available.\n");
        return Ok(());
    }
    for (_, all) in disks {
        first.retain(|snapshot| all.iter().any(|other| other.id == snapshot.id));
    }
    if first.is_empty() {
        call.print("There is no suitable snapshot available\n");
        return Ok(());
    }
    block::snapshot::listing(&first).iter().for_each(|line| call.line(line));
    Ok(())
}
