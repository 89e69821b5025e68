//! Memory, page tables and address spaces.

use qmp::QmpError;

use crate::examine::{self, Place};
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg};
use crate::hmp::table::{Row, bare, row};

pub(super) const ROWS: &[Row] = &[
    row(
        &["x"],
        &[arg("fmt", Kind::Format), arg("addr", Kind::Long)],
        "/fmt addr",
        "show memory by virtual address",
        |call, args| {
            let cpu = call.monitor.cpu;
            show(call, args, |address| Place::Virtual(cpu, address))
        },
    ),
    row(
        &["xp"],
        &[arg("fmt", Kind::Format), arg("addr", Kind::Long)],
        "/fmt addr",
        "show memory by physical address",
        |call, args| show(call, args, Place::Physical),
    ),
    row(
        &["gva2gpa"],
        &[arg("addr", Kind::Long)],
        "addr",
        "show the physical address of a virtual one",
        |call, args| {
            let text = examine::gva2gpa(call.vm, call.monitor.cpu, address(args))?;
            call.print(&text);
            Ok(())
        },
    ),
    row(
        &["gpa2hva"],
        &[arg("addr", Kind::Long)],
        "addr",
        "show the address in this process of a physical one",
        |call, args| {
            call.print(&examine::gpa2hva(&call.vm.board, address(args)));
            Ok(())
        },
    ),
];

pub(super) const INFO: &[Row] = &[
    bare(&["tlb"], "show the mappings of virtual memory", |call, _| {
        let text = examine::tlb(call.vm, call.monitor.cpu)?;
        call.print(&text);
        Ok(())
    }),
    bare(&["mem"], "show the ranges of virtual memory that are mapped", |call, _| {
        let text = examine::mappings(call.vm, call.monitor.cpu)?;
        call.print(&text);
        Ok(())
    }),
    bare(&["mtree"], "show the address spaces", |call, _| {
        call.print(&examine::mtree(&call.vm.board));
        Ok(())
    }),
    bare(&["roms"], "show what is loaded at each reset", |call, _| {
        call.print(&examine::roms(&call.vm.board));
        Ok(())
    }),
    bare(&["numa"], "show the NUMA nodes", |call, _| {
        call.print(&examine::numa(call.vm));
        Ok(())
    }),
];

fn address(args: &Args) -> u64 {
    args.number("addr").cast_unsigned()
}

fn show(
    call: &mut Call<'_>,
    args: &Args,
    place: impl FnOnce(u64) -> Place,
) -> Result<(), QmpError> {
    let text = examine::memory(call.vm, place(address(args)), args.format())?;
    call.print(&text);
    Ok(())
}
