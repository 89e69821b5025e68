//! Drives.

use qmp::{BlockResize, Handle, QmpError};

use crate::cli::keyval;
use crate::cli::table::DRIVE;
use crate::cmd::block::{info, stats};
use crate::drives::Home;
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, Param, arg};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

/// The name of a drive.
const DEVICE: Param = arg("device", Kind::Word).words(ids);

pub(super) const ROWS: &[Row] = &[
    row(
        &["block_resize"],
        &[DEVICE, arg("size", Kind::Size)],
        "device size",
        "change the size of a disk",
        |call, args| {
            let size = args.number("size");
            call.vm.handle(BlockResize { device: args.text("device").to_owned(), size })
        },
    ),
    row(
        &["drive_add"],
        &[arg("pci_addr", Kind::Word), arg("opts", Kind::Options)],
        "pci_addr opts",
        "make a drive, as -drive if=none does",
        add,
    ),
    row(
        &["drive_del"],
        &[arg("id", Kind::Word).words(ids)],
        "id",
        "remove a drive",
        |call, args| Ok(call.vm.drives.remove(args.text("id"))?),
    ),
];

pub(super) const INFO: &[Row] = &[
    bare(&["block"], "show the drives", |call, _| {
        let mut text = String::new();
        for drive in call.vm.drives.iter() {
            let all = info(drive);
            text.push_str(&all.device);
            match &all.inserted {
                None => text.push_str(": [not inserted]\n"),
                Some(medium) => {
                    let read_only = if medium.ro { ", read-only" } else { "" };
                    text.push_str(&format!(": {} ({}{read_only})\n", medium.file, medium.drv));
                }
            }
            if let Some(status) = all.io_status
                && status != qmp::BlockDeviceIoStatus::Ok
            {
                text.push_str(&format!("    I/O status:       {}\n", status.as_str()));
            }
            if all.removable {
                let lock = if all.locked { "locked" } else { "not locked" };
                let tray = if all.tray_open == Some(true) { "open" } else { "closed" };
                text.push_str(&format!("    Removable device: {lock}, tray {tray}\n"));
            }
        }
        call.print(&text);
        Ok(())
    }),
    bare(&["blockstats"], "show the counters of the drives", |call, _| {
        let mut text = String::new();
        for drive in call.vm.drives.iter() {
            let one = stats(drive).stats;
            text.push_str(&format!(
                "{}: rd_bytes={} wr_bytes={} rd_operations={} wr_operations={} \
                 flush_operations={} wr_total_time_ns={} rd_total_time_ns={} \
                 flush_total_time_ns={}\n",
                drive.id(),
                one.rd_bytes,
                one.wr_bytes,
                one.rd_operations,
                one.wr_operations,
                one.flush_operations,
                one.wr_total_time_ns,
                one.rd_total_time_ns,
                one.flush_total_time_ns,
            ));
        }
        call.print(&text);
        Ok(())
    }),
];

fn ids(vm: &Vm) -> Vec<String> {
    vm.drives.iter().map(|drive| drive.id().to_owned()).collect()
}

fn add(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let pairs = keyval::parse(args.text("opts"), &DRIVE)
        .map_err(|error| QmpError::generic(error.to_string()))?;
    if pairs.get("if") != Some("none") {
        return Err(QmpError::generic("Can't hot-add drive to type: use if=none and device_add"));
    }
    let io = call.vm.chardevs.io().map_err(|error| QmpError::generic(error.to_string()))?;
    let mailbox = call.vm.mailbox().clone();
    call.vm.drives.add_option(&pairs, &Home { io, mailbox: &mailbox })?;
    call.print("OK\n");
    Ok(())
}
