//! What people are shown of devices and objects: `info qtree`, `info qom-tree`, and the lists of
//! `-device help` and device_add. Laid out as tools parse it.
//!
//! Main thread; pure functions of the machine.

use std::fmt::Write as _;

use resources::class::{Class, UnknownClass};
use resources::props::Value;

use super::props::written;
use super::{Found, Tree};
use crate::machine::Board;
use crate::machine::bus::{Bus, Plugged, SYSTEM_BUS};
use crate::plug::Means;
use crate::vm::Vm;

/// The text of `info qtree`.
pub fn qtree(board: &Board) -> String {
    let mut text = String::new();
    if let Some(bus) = board.bus(SYSTEM_BUS) {
        qtree_bus(board, bus, 0, &mut text);
    }
    text
}

fn qtree_bus(board: &Board, bus: &Bus, indent: usize, text: &mut String) {
    let pad = " ".repeat(indent);
    let _ = writeln!(text, "{pad}bus: {}\n{pad}  type {}", bus.name, bus.kind);
    // The newest first.
    for device in board.on_bus(&bus.name).rev() {
        qtree_device(board, device, indent + 2, text);
    }
}

fn qtree_device(board: &Board, device: &Plugged, indent: usize, text: &mut String) {
    let pad = " ".repeat(indent);
    let (name, id) = (device.class.name, device.id().unwrap_or_default());
    let _ = writeln!(text, "{pad}dev: {name}, id \"{id}\"");
    for (prop, (name, value)) in device.class.all_props().zip(device.props.iter()) {
        let _ = writeln!(text, "{pad}  {name} = {}", written(prop.kind, value));
    }
    if device.class.bus == "ISA"
        && let Some((_, Some(Value::Uint(irq)))) = device.props.iter().find(|(n, _)| *n == "irq")
    {
        let _ = writeln!(text, "{pad}  isa irq {irq}");
    }
    for bus in board.buses_of(device.name()) {
        qtree_bus(board, bus, indent + 2, text);
    }
}

/// The text of `info qom-tree PATH`; without a path that of the machine.
pub fn qom_tree(vm: &Vm, path: Option<&str>) -> String {
    let tree = Tree::of(vm);
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/machine");
    match tree.find(path) {
        Found::One(number) => {
            let mut text = String::new();
            qom_node(&tree, number, 0, &mut text);
            text
        }
        Found::Nothing => format!("Path '{path}' could not be resolved.\n"),
        Found::Ambiguous => format!("Warning: Path '{path}' is ambiguous.\n"),
    }
}

fn qom_node(tree: &Tree<'_>, number: usize, indent: usize, text: &mut String) {
    let Some(node) = tree.get(number) else { return };
    let name = match node.path.rsplit_once('/') {
        // The one that was asked for is told by its whole path, where it has one name only.
        Some((_, name)) if !name.is_empty() => name,
        _ => "",
    };
    let _ = writeln!(text, "{}/{name} ({})", " ".repeat(indent), tree.type_name(&node.object));
    let mut children: Vec<_> = tree.children(number).collect();
    children.sort_unstable();
    for (_, child) in children {
        qom_node(tree, child, indent + 2, text);
    }
}

/// The text of `device_add help`.
pub fn device_help(means: &Means) -> String {
    Class::list(means.classes)
}

/// The text of `device_add DRIVER,help`.
///
/// # Errors
/// There is no such driver.
pub fn driver_help(means: &Means, driver: &str) -> Result<String, UnknownClass> {
    Ok(Class::find(means.classes, driver)?.help())
}
