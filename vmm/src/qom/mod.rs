//! The objects of a machine as a tree of paths: a view over the live devices, processors, buses
//! and users' objects, made anew for each question. There is no second model to be kept in step.
//!
//! ```text
//! /machine                       the machine
//!   /peripheral/ID               devices that users made
//!   /peripheral-anon/device[N]   those without an id
//!   /unattached/device[N]        processors
//!   /unattached/sysbus           the system bus
//!   /rtc, /isa/isa.0, ...        parts of the board and their buses
//! /objects/ID                    objects that users made
//! /chardevs/ID                   character devices
//! /backend
//! ```
//!
//! Main thread. It locks a device briefly to ask for a property that changes by itself. Paths,
//! names and values are a client's: the work for a path is bounded by its length, which is bounded
//! here.

use std::borrow::Cow;

use resources::props::Value;

use crate::chardevs::Chardevs;
use crate::cpu::thread::VcpuHandle;
use crate::machine::Board;
use crate::machine::bus::{Bus, Plugged};
use crate::objects::{Entry, Objects};
use crate::vm::Vm;

mod props;
#[cfg(test)]
mod tests;
pub mod text;
pub mod types;

pub use props::{Property, Setting, Source, of_type};

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;

/// What is at a path.
#[derive(Clone, Copy)]
pub enum Object<'a> {
    /// Nothing but others below it.
    Container,
    /// The machine.
    Machine,
    /// A device.
    Device(&'a Plugged),
    /// A bus.
    Bus(&'a Bus),
    /// A processor, by its index.
    Cpu(usize),
    /// An object that a user made.
    User(&'a Entry),
    /// A chardev, with the word for its kind.
    Chardev(&'static str),
}

/// An object in its place.
pub struct Node<'a> {
    /// Its path: `/machine/peripheral/x`; of the root `/`.
    pub path: Cow<'a, str>,
    /// What is there.
    pub object: Object<'a>,
}

/// All objects, each after the one it is below, in the order in which they came to be.
pub struct Tree<'a> {
    board: &'a Board,
    nodes: Vec<Node<'a>>,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// One object: its number.
    One(usize),
    /// None.
    Nothing,
    /// Several, by a partial path.
    Ambiguous,
}

impl<'a> Tree<'a> {
    /// The objects of a machine.
    pub fn of(vm: &'a Vm) -> Tree<'a> {
        let vcpus: Vec<_> = vm.vcpus.iter().map(VcpuHandle::index).collect();
        Tree::new(&vm.board, &vcpus, &vm.objects, &vm.chardevs)
    }

    /// The objects of a board, processors with these indices, users and chardevs.
    fn new(
        board: &'a Board,
        vcpus: &[usize],
        objects: &'a Objects,
        chardevs: &'a Chardevs,
    ) -> Tree<'a> {
        let mut tree = Tree { board, nodes: Vec::new() };
        tree.add("/", Object::Container);
        tree.add("/machine", Object::Machine);
        for name in ["peripheral", "peripheral-anon", "unattached"] {
            tree.add(format!("/machine/{name}"), Object::Container);
        }
        for index in vcpus {
            tree.add(cpu_path(*index), Object::Cpu(*index));
        }
        let unowned = board.buses.iter().filter(|bus| bus.owner.is_none());
        unowned.for_each(|bus| tree.add(bus.path(), Object::Bus(bus)));
        for device in &board.devices {
            tree.add(device.name(), Object::Device(device));
            for bus in board.buses_of(device.name()) {
                tree.add(bus.path(), Object::Bus(bus));
            }
        }
        tree.add("/objects", Object::Container);
        for entry in objects.iter() {
            tree.add(format!("/objects/{}", entry.id()), Object::User(entry));
        }
        tree.add("/chardevs", Object::Container);
        for (id, kind) in chardevs.kinds() {
            tree.add(format!("/chardevs/{id}"), Object::Chardev(kind));
        }
        tree.add("/backend", Object::Container);
        tree
    }

    fn add(&mut self, path: impl Into<Cow<'a, str>>, object: Object<'a>) {
        self.nodes.push(Node { path: path.into(), object });
    }

    /// An object by its number.
    pub fn get(&self, number: usize) -> Option<&Node<'a>> {
        self.nodes.get(number)
    }

    /// The name of an object's type.
    pub fn type_name(&self, object: &Object<'a>) -> Cow<'static, str> {
        match object {
            Object::Container => "container".into(),
            Object::Machine => types::machine_type(self.board.machine).into(),
            Object::Device(device) => device.class.name.into(),
            Object::Bus(bus) => bus.kind.into(),
            Object::Cpu(_) => types::cpu_type(&self.board.cpu_model).into(),
            Object::User(entry) => entry.class.name.into(),
            Object::Chardev(kind) => types::chardev_type(kind).into(),
        }
    }

    /// The objects right below one: name and number.
    pub fn children(&self, number: usize) -> impl Iterator<Item = (&str, usize)> {
        let parent = self.nodes.get(number).map_or("", |node| node.path.trim_end_matches('/'));
        self.nodes.iter().enumerate().skip(1).filter_map(move |(index, node)| {
            let name = node.path.strip_prefix(parent)?.strip_prefix('/')?;
            (!name.contains('/')).then_some((name, index))
        })
    }

    fn by_path(&self, path: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.path == path)
    }

    /// What a property that leads elsewhere leads to.
    fn link(&self, number: usize, name: &str) -> Option<usize> {
        let path = match self.nodes.get(number)?.object {
            Object::Device(device) if name == "parent_bus" => self.board.bus(&device.bus)?.path(),
            Object::Bus(bus) => {
                let index = name.strip_prefix("child[")?.strip_suffix(']')?;
                // As they are named, and in no other spelling.
                let index = index.parse().ok().filter(|n: &usize| n.to_string() == index)?;
                self.board.on_bus(&bus.name).nth(index)?.name().to_owned()
            }
            _ => return None,
        };
        self.by_path(&path)
    }

    /// Where the parts of a path lead from an object: down, or along links.
    fn walk(&self, from: usize, parts: &[&str]) -> Option<usize> {
        parts.iter().try_fold(from, |at, part| {
            let below = self.children(at).find(|(name, _)| name == part).map(|(_, index)| index);
            below.or_else(|| self.link(at, part))
        })
    }

    /// Finds an object by an absolute path, which begins with `/`, or by a partial one, which may
    /// begin at any object and must lead to one.
    pub fn find(&self, path: &str) -> Found {
        if path.len() > MAX_PATH {
            return Found::Nothing;
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if path.starts_with('/') {
            return self.walk(0, &parts).map_or(Found::Nothing, Found::One);
        }
        let mut found = (0..self.nodes.len()).filter_map(|from| self.walk(from, &parts));
        match found.next() {
            None => Found::Nothing,
            Some(first) if found.all(|other| other == first) => Found::One(first),
            Some(_) => Found::Ambiguous,
        }
    }
}

/// The path of a processor.
pub fn cpu_path(index: usize) -> String {
    format!("/machine/unattached/device[{index}]")
}

/// A value as clients are told it.
pub fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(on) => (*on).into(),
        Value::Uint(number) => (*number).into(),
        Value::Int(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::Struct(members) => members
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// A client's value; `None` for what no property takes.
pub fn from_json(value: &serde_json::Value) -> Option<Value> {
    use serde_json::Value as Json;
    match value {
        Json::Bool(on) => Some(Value::Bool(*on)),
        Json::Number(number) => {
            number.as_u64().map(Value::Uint).or_else(|| number.as_i64().map(Value::Int))
        }
        Json::String(text) => Some(Value::Text(text.clone())),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
