//! Devices and objects: making, removing, and looking at them by path.

use qmp::{DeviceDel, Handle, ObjectDel, QmpError, QomGet, QomList, QomSet};
use serde_json::Value;

use crate::cli::keyval;
use crate::cli::table::{DEVICE, OBJECT};
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, Param, arg, opt};
use crate::hmp::table::{Row, bare, row};
use crate::objects;
use crate::qom::{self, Tree};
use crate::vm::Vm;

const PATH: Param = arg("path", Kind::Word).words(paths);
const PROPERTY: Param = arg("property", Kind::Word);

pub(super) const ROWS: &[Row] = &[
    row(
        &["device_add"],
        &[arg("device", Kind::Options).words(drivers)],
        "driver[,prop=value][,...]",
        "add a device, as -device does",
        device_add,
    ),
    row(
        &["device_del"],
        &[arg("id", Kind::Word).words(devices)],
        "device",
        "remove a device",
        |call, args| call.vm.handle(DeviceDel { id: args.text("id").to_owned() }),
    ),
    row(
        &["object_add"],
        &[arg("object", Kind::Options).words(types)],
        "qom-type,id=str[,prop=value][,...]",
        "make an object, as -object does",
        object_add,
    ),
    row(
        &["object_del"],
        &[arg("id", Kind::Word).words(ids)],
        "id",
        "remove an object",
        |call, args| call.vm.handle(ObjectDel { id: args.text("id").to_owned() }),
    ),
    row(
        &["qom-list"],
        &[opt("path", Kind::Word).words(paths)],
        "path",
        "show the properties of an object",
        qom_list,
    ),
    row(&["qom-get"], &[PATH, PROPERTY], "path property", "show a property", qom_get),
    row(
        &["qom-set"],
        &[PATH, PROPERTY, arg("value", Kind::Rest)],
        "path property value",
        "set a property",
        qom_set,
    ),
];

pub(super) const INFO: &[Row] = &[
    bare(&["qtree"], "show the devices on their buses", |call, _| {
        call.print(&qom::text::qtree(&call.vm.board));
        Ok(())
    }),
    row(
        &["qom-tree"],
        &[opt("path", Kind::Word).words(paths)],
        "[path]",
        "show the objects under a path",
        |call, args| {
            call.print(&qom::text::qom_tree(call.vm, args.opt_text("path")));
            Ok(())
        },
    ),
];

fn drivers(vm: &Vm) -> Vec<String> {
    let classes = vm.means.classes.iter().filter(|class| class.create.is_some());
    classes.map(|class| class.name.to_owned()).collect()
}

fn devices(vm: &Vm) -> Vec<String> {
    vm.board.devices.iter().filter_map(|device| device.id()).map(str::to_owned).collect()
}

fn types(_: &Vm) -> Vec<String> {
    objects::TYPES.iter().map(|class| format!("{},id=", class.name)).collect()
}

fn ids(vm: &Vm) -> Vec<String> {
    vm.objects.iter().map(|entry| entry.id().to_owned()).collect()
}

fn paths(vm: &Vm) -> Vec<String> {
    let tree = Tree::of(vm);
    (0..).map_while(|number| tree.get(number)).map(|node| node.path.to_string()).collect()
}

fn device_add(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let pairs = keyval::parse(args.text("device"), &DEVICE).map_err(said)?;
    let driver = pairs.get("driver").unwrap_or_default();
    if matches!(driver, "help" | "?") {
        call.print(&qom::text::device_help(&call.vm.means));
    } else if pairs.get("help").or(pairs.get("?")) == Some("on") {
        let help = qom::text::driver_help(&call.vm.means, driver).map_err(said)?;
        call.print(&help);
    } else {
        call.vm.plug(&pairs.iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

fn object_add(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let pairs = keyval::parse(args.text("object"), &OBJECT).map_err(said)?;
    let name = pairs.get("qom-type").ok_or_else(|| QmpError::missing("qom-type"))?;
    let id = pairs.id().ok_or_else(|| QmpError::missing("id"))?;
    let class = objects::find(name)?;
    Ok(call.vm.objects.add(class, id, pairs.iter(), &call.vm.chardevs.finder())?)
}

fn said(error: impl std::fmt::Display) -> QmpError {
    QmpError::generic(error.to_string())
}

fn qom_list(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let Some(path) = args.opt_text("path") else {
        call.line("/");
        return Ok(());
    };
    for info in call.vm.handle(QomList { path: path.to_owned() })? {
        call.line(format_args!("{} ({})", info.name, info.r#type));
    }
    Ok(())
}

fn get(vm: &mut Vm, args: &Args) -> Result<Value, QmpError> {
    let (path, property) = (args.text("path").to_owned(), args.text("property").to_owned());
    vm.handle(QomGet { path, property })
}

fn qom_get(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let value = get(call.vm, args)?;
    let mut text = Vec::new();
    qmp::json::write(&mut text, &value, true);
    call.line(String::from_utf8_lossy(&text));
    Ok(())
}

fn qom_set(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let text = args.text("value");
    // What is typed has the type of what is there.
    let value = match (get(call.vm, args), text) {
        (Ok(Value::Bool(_)), "on" | "yes" | "true") => Value::Bool(true),
        (Ok(Value::Bool(_)), "off" | "no" | "false") => Value::Bool(false),
        (Ok(Value::Number(_)), text) => {
            serde_json::from_str(text).ok().filter(Value::is_number).unwrap_or_else(|| text.into())
        }
        (_, text) => text.into(),
    };
    let (path, property) = (args.text("path").to_owned(), args.text("property").to_owned());
    call.vm.handle(QomSet { path, property, value })
}
