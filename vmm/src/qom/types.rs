//! The types of objects: what is known by name, and of what it is one.
//!
//! Made anew from the tables of devices, objects, machines, processors and chardevs at each
//! question, so that it cannot disagree with them. Pure; the names asked for are a client's.

use std::borrow::Cow;

use devices::class::Ctx;
use resources::class::Class;

use crate::cpu::model::model_names;
use crate::machine::MACHINES;
use crate::objects::{self, ObjectType};

/// A type of objects.
#[derive(Clone)]
pub struct Type {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The type of which each is one too; none of the root.
    pub parent: Option<&'static str>,
    /// No object is of this type and none of its children.
    pub is_abstract: bool,
    /// What its objects are.
    pub kind: Kind,
}

/// What the objects of a type are.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Devices.
    Device(&'static Class<Ctx>),
    /// Objects of users.
    Object(&'static ObjectType),
    /// Something else, without properties that are known beforehand.
    Other,
}

/// The types that no table names, with their parents: those that only have children, ...
const ABSTRACT: &[(&str, &str)] = &[
    ("device", "object"),
    ("sys-bus-device", "device"),
    ("isa-device", "device"),
    ("cpu", "device"),
    ("x86_64-cpu", "cpu"),
    ("bus", "object"),
    ("machine", "object"),
    ("chardev", "object"),
    ("memory-backend", "object"),
    ("rng-backend", "object"),
    ("tls-creds", "object"),
];

/// ... and the others.
const PLAIN: &[(&str, &str)] = &[("container", "object"), ("System", "bus"), ("ISA", "bus")];

/// The words for kinds of chardevs.
const CHARDEVS: &[&str] = &[
    "null", "file", "stdio", "pty", "socket", "serial", "parallel", "pipe", "udp", "mux",
    "msmouse", "console", "vc", "ringbuf", "memory",
];

/// The type of a kind of chardevs.
pub fn chardev_type(kind: &str) -> String {
    format!("chardev-{kind}")
}

/// The type of processors of a model.
pub fn cpu_type(model: &str) -> String {
    format!("{model}-x86_64-cpu")
}

/// The type of a machine.
pub fn machine_type(name: &str) -> String {
    format!("{name}-machine")
}

/// The type of which the devices of a class are, besides that of their own.
fn device_parent(class: &Class<Ctx>) -> &'static str {
    match class.bus {
        "ISA" => "isa-device",
        "System" => "sys-bus-device",
        _ => "device",
    }
}

/// Whether devices of no class of its own are of this type, so that none can be made by its name.
pub fn is_abstract_device(name: &str) -> bool {
    let is = |wanted: &str| ABSTRACT.iter().find(|(name, _)| *name == wanted);
    let mut found = is(name);
    while let Some((name, parent)) = found {
        if *name == "device" {
            return true;
        }
        found = is(parent);
    }
    false
}

/// Whether it is the type of a processor.
pub fn is_cpu(name: &str) -> bool {
    name.strip_suffix("-x86_64-cpu").is_some_and(|model| model_names().any(|other| other == model))
}

/// All types; `classes` are those of devices.
pub fn all(classes: &'static [Class<Ctx>]) -> Vec<Type> {
    let plain = |name: Cow<'static, str>, parent| Type {
        name,
        parent: Some(parent),
        is_abstract: false,
        kind: Kind::Other,
    };
    let root = Type { parent: None, is_abstract: true, ..plain("object".into(), "") };
    let mut types = vec![root];
    types.extend(
        ABSTRACT
            .iter()
            .map(|(name, parent)| Type { is_abstract: true, ..plain((*name).into(), parent) }),
    );
    types.extend(PLAIN.iter().map(|(name, parent)| plain((*name).into(), parent)));
    types.extend(MACHINES.iter().map(|m| plain(machine_type(m.name).into(), "machine")));
    types.extend(model_names().map(|model| plain(cpu_type(model).into(), "x86_64-cpu")));
    types.extend(CHARDEVS.iter().map(|kind| plain(chardev_type(kind).into(), "chardev")));
    types.extend(classes.iter().map(|class| Type {
        kind: Kind::Device(class),
        ..plain(class.name.into(), device_parent(class))
    }));
    types.extend(
        objects::TYPES.iter().map(|class| Type {
            kind: Kind::Object(class),
            ..plain(class.name.into(), class.parent)
        }),
    );
    types
}

/// A type by its name.
pub fn find(types: &[Type], name: &str) -> Option<Type> {
    types.iter().find(|known| known.name == name).cloned()
}

/// Whether what is of type `name` is also of type `of`. Objects that users can make have the
/// interface `user-creatable`.
pub fn implements(types: &[Type], name: &str, of: &str) -> bool {
    let mut next = find(types, name);
    // No chain is longer than there are types.
    for _ in 0..types.len() {
        let Some(known) = next else { return false };
        if known.name == of || of == "user-creatable" && matches!(known.kind, Kind::Object(_)) {
            return true;
        }
        next = known.parent.and_then(|parent| find(types, parent));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::class::CLASSES;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_one_type_and_every_parent_is_known() {
        let types = all(CLASSES);
        let names: BTreeSet<_> = types.iter().map(|known| known.name.clone()).collect();
        assert_eq!(names.len(), types.len());
        for known in &types {
            assert!(implements(&types, &known.name, "object"), "{}", known.name);
        }
    }

    #[test]
    fn relations() {
        let types = all(CLASSES);
        for (name, of, is) in [
            ("isa-serial", "isa-device", true),
            ("isa-serial", "device", true),
            ("isa-serial", "isa-serial", true),
            ("isa-serial", "sys-bus-device", false),
            ("qemu64-x86_64-cpu", "cpu", true),
            ("pc-i440fx-2.0-machine", "machine", true),
            ("rng-random", "rng-backend", true),
            ("rng-random", "user-creatable", true),
            ("isa-serial", "user-creatable", false),
            ("nosuch", "object", false),
            ("isa-serial", "nosuch", false),
        ] {
            assert_eq!(implements(&types, name, of), is, "{name} {of}");
        }
        assert!(is_abstract_device("device") && is_abstract_device("x86_64-cpu"));
        assert!(!is_abstract_device("isa-serial") && !is_abstract_device("memory-backend"));
        assert!(is_cpu("qemu64-x86_64-cpu") && !is_cpu("nosuch-x86_64-cpu"));
    }
}
