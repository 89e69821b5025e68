//! Drives.

use block::tools::console::Console;
use block::tools::io::Session;
use qmp::{
    BlockDeviceIoStatus, BlockInfo, BlockPasswd, BlockResize, BlockSetIoThrottle, Change, Eject,
    Handle, ImageInfo, QmpError,
};

use crate::cli::keyval;
use crate::cli::table::DRIVE;
use crate::cmd::block::{info, stats};
use crate::drives::Home;
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, Param, arg, flag, opt};
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
    row(
        &["eject"],
        &[flag("force", b'f'), DEVICE],
        "[-f] device",
        "take out the medium of a drive; -f: even if the guest has locked it",
        |call, args| {
            let (device, force) = (args.text("device").to_owned(), Some(args.is_on("force")));
            call.vm.handle(Eject { device, force })
        },
    ),
    row(
        &["change"],
        &[DEVICE, arg("target", Kind::File), opt("arg", Kind::Word)],
        "device filename [format]",
        "put another medium into a drive",
        |call, args| {
            let (device, target) = (args.text("device").to_owned(), args.text("target").to_owned());
            let arg = args.opt_text("arg").map(str::to_owned);
            call.vm.handle(Change { device, target, arg })
        },
    ),
    row(
        &["block_passwd"],
        &[DEVICE, arg("password", Kind::Word)],
        "device password",
        "give the key of an encrypted image",
        |call, args| {
            let device = args.text("device").to_owned();
            call.vm.handle(BlockPasswd { device, password: args.text("password").to_owned() })
        },
    ),
    row(
        &["block_set_io_throttle"],
        &[
            DEVICE,
            arg("bps", Kind::Long),
            arg("bps_rd", Kind::Long),
            arg("bps_wr", Kind::Long),
            arg("iops", Kind::Long),
            arg("iops_rd", Kind::Long),
            arg("iops_wr", Kind::Long),
        ],
        "device bps bps_rd bps_wr iops iops_rd iops_wr",
        "limit a drive; 0: no limit",
        |call, args| {
            call.vm.handle(BlockSetIoThrottle {
                device: args.text("device").to_owned(),
                bps: args.number("bps"),
                bps_rd: args.number("bps_rd"),
                bps_wr: args.number("bps_wr"),
                iops: args.number("iops"),
                iops_rd: args.number("iops_rd"),
                iops_wr: args.number("iops_wr"),
                bps_max: None,
                bps_rd_max: None,
                bps_wr_max: None,
                iops_max: None,
                iops_rd_max: None,
                iops_wr_max: None,
                iops_size: None,
            })
        },
    ),
    row(
        &["qemu-io"],
        &[DEVICE, arg("command", Kind::Word)],
        "device \"command\"",
        "send a single request to a disk; what it says goes to standard output",
        exercise,
    ),
];

/// A drive as `info block` shows it.
fn shown(all: &BlockInfo, verbose: bool) -> String {
    let mut text = all.device.clone();
    match &all.inserted {
        None => text.push_str(": [not inserted]\n"),
        Some(medium) => {
            let read_only = if medium.ro { ", read-only" } else { "" };
            let encrypted = if medium.encrypted { ", encrypted" } else { "" };
            let (file, format) = (&medium.file, &medium.drv);
            text.push_str(&format!(": {file} ({format}{read_only}{encrypted})\n"));
        }
    }
    let mut line = |name: &str, value: String| {
        text.push_str(&format!("    {:<18}{value}\n", format!("{name}:")));
    };
    if let Some(status) = all.io_status
        && status != BlockDeviceIoStatus::Ok
    {
        line("I/O status", status.as_str().to_owned());
    }
    if all.removable {
        let lock = if all.locked { "locked" } else { "not locked" };
        let tray = if all.tray_open == Some(true) { "open" } else { "closed" };
        line("Removable device", format!("{lock}, tray {tray}"));
    }
    let Some(medium) = &all.inserted else { return text };
    if let Some(backing) = &medium.backing_file {
        line("Backing file", format!("{backing} (chain depth: {})", medium.backing_file_depth));
    }
    let limits = [
        ("bps", Some(medium.bps)),
        ("bps_rd", Some(medium.bps_rd)),
        ("bps_wr", Some(medium.bps_wr)),
        ("bps_max", medium.bps_max),
        ("bps_rd_max", medium.bps_rd_max),
        ("bps_wr_max", medium.bps_wr_max),
        ("iops", Some(medium.iops)),
        ("iops_rd", Some(medium.iops_rd)),
        ("iops_wr", Some(medium.iops_wr)),
        ("iops_max", medium.iops_max),
        ("iops_rd_max", medium.iops_rd_max),
        ("iops_wr_max", medium.iops_wr_max),
        ("iops_size", medium.iops_size),
    ]
    .map(|(name, value)| (name, value.unwrap_or(0)));
    if limits.iter().any(|(_, value)| *value != 0) {
        let all: Vec<_> = limits.iter().map(|(name, value)| format!("{name}={value}")).collect();
        line("I/O throttling", all.join(" "));
    }
    if verbose {
        text.push_str("\nImages:\n");
        let mut next = Some(&medium.image);
        while let Some(image) = next {
            text.push_str(&image_shown(image));
            next = image.backing_image.as_deref();
            if next.is_some() {
                text.push('\n');
            }
        }
    }
    text
}

fn image_shown(image: &ImageInfo) -> String {
    let mut text = format!(
        "image: {}\nfile format: {}\nvirtual size: {} bytes\n",
        image.filename, image.format, image.virtual_size
    );
    match image.actual_size {
        Some(size) => text.push_str(&format!("disk size: {size} bytes\n")),
        None => text.push_str("disk size: unavailable\n"),
    }
    if image.encrypted == Some(true) {
        text.push_str("encrypted: yes\n");
    }
    if let Some(size) = image.cluster_size {
        text.push_str(&format!("cluster_size: {size}\n"));
    }
    if image.dirty_flag == Some(true) {
        text.push_str("cleanly shut down: no\n");
    }
    if let Some(name) = &image.backing_filename {
        text.push_str(&format!("backing file: {name}"));
        if let Some(full) = &image.full_backing_filename {
            text.push_str(&format!(" (actual path: {full})"));
        }
        text.push('\n');
        if let Some(format) = &image.backing_filename_format {
            text.push_str(&format!("backing file format: {format}\n"));
        }
    }
    if let Some(snapshots) = &image.snapshots {
        text.push_str("Snapshot list:\n");
        for snapshot in snapshots {
            let (id, name, size) = (&snapshot.id, &snapshot.name, snapshot.vm_state_size);
            text.push_str(&format!("{id:<10}{name:<20}{size:>7}\n"));
        }
    }
    text
}

pub(super) const INFO: &[Row] = &[
    row(
        &["block"],
        &[flag("verbose", b'v'), opt("device", Kind::Word).words(ids)],
        "[-v] [device]",
        "show the drives, or one; -v: and their images",
        |call, args| {
            let mut text = String::new();
            for drive in call.vm.drives.iter() {
                if args.opt_text("device").is_none_or(|id| id == drive.id()) {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(&shown(&info(drive), args.is_on("verbose")));
                }
            }
            call.print(&text);
            Ok(())
        },
    ),
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

fn exercise(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let id = args.text("device");
    let drive = call.vm.drives.find(id);
    let drive = drive.ok_or_else(|| QmpError::generic(format!("Device '{id}' not found")))?;
    let line = args.text("command").to_owned();
    let done = drive.on_loop(|local, disk| async move {
        let console = Console::standard("qemu-io");
        Session::borrowing(&local, &console, disk).run(&line).await
    });
    done.map(drop).map_err(|_| QmpError::generic(format!("Device '{id}' has no medium")))
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
