//! Devices and objects.

use qmp::{DeviceDel, Handle, ObjectDel, QmpError};

use crate::cli::keyval::{self, Keys, Pairs};
use crate::cli::table::{DEVICE, OBJECT};
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg, opt};
use crate::hmp::table::{Row, bare, row};
use crate::objects;
use crate::qom::text;

pub(super) const ROWS: &[Row] = &[
    row(
        &["device_add"],
        &[arg("device", Kind::Options)],
        "driver[,prop=value][,...]",
        "add a device, as -device does",
        device_add,
    ),
    row(&["device_del"], &[arg("id", Kind::Word)], "device", "remove a device", |call, args| {
        call.vm.handle(DeviceDel { id: args.text("id").to_owned() })
    }),
    row(
        &["object_add"],
        &[arg("object", Kind::Options)],
        "qom-type,id=id[,prop=value][,...]",
        "make an object, as -object does",
        object_add,
    ),
    row(&["object_del"], &[arg("id", Kind::Word)], "id", "remove an object", |call, args| {
        call.vm.handle(ObjectDel { id: args.text("id").to_owned() })
    }),
];

pub(super) const INFO: &[Row] = &[
    bare(&["qtree"], "show the devices on their buses", |call, _| {
        call.print(&text::qtree(&call.vm.board));
        Ok(())
    }),
    row(
        &["qom-tree"],
        &[opt("path", Kind::Word)],
        "[path]",
        "show the objects below a path",
        |call, args| {
            call.print(&text::qom_tree(call.vm, args.opt_text("path")));
            Ok(())
        },
    ),
];

fn options(text: &str, keys: &Keys) -> Result<Pairs, QmpError> {
    keyval::parse(text, keys).map_err(|error| QmpError::generic(error.to_string()))
}

fn device_add(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let pairs = options(args.text("device"), &DEVICE)?;
    let driver = pairs.get("driver").unwrap_or_default();
    if ["help", "?"].contains(&driver) {
        call.print(&text::device_help(&call.vm.means));
        return Ok(());
    }
    if pairs.get("help").or(pairs.get("?")).is_some() {
        let help = text::driver_help(&call.vm.means, driver);
        let help = help.map_err(|error| QmpError::generic(error.to_string()))?;
        call.print(&help);
        return Ok(());
    }
    let given: Vec<_> = pairs.iter().collect();
    Ok(call.vm.plug(&given)?)
}

fn object_add(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let pairs = options(args.text("object"), &OBJECT)?;
    let name = pairs.get("qom-type").ok_or_else(|| QmpError::missing("qom-type"))?;
    let id = pairs.id().ok_or_else(|| QmpError::missing("id"))?;
    let (class, chardevs) = (objects::find(name)?, call.vm.chardevs.finder());
    Ok(call.vm.objects.add(class, id, pairs.iter(), &chardevs)?)
}
