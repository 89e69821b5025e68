//! The properties of each kind of object.
//!
//! Main thread. Names and values are a client's.

use std::borrow::Cow;

use resources::device::LiveProp;
use resources::props::{Kind, Prop, Value};
use serde_json::Value as Json;

use super::types::{self, Type};
use super::{Object, Tree, json};
use crate::machine::bus::Plugged;

/// A property of an object.
pub struct Property<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its type: `bool`, `child<isa-serial>`.
    pub type_name: Cow<'a, str>,
    /// Where its value comes from.
    pub source: Source<'a>,
    /// Whether and when it can be set.
    pub setting: Setting<'a>,
}

/// Where a property's value comes from.
pub enum Source<'a> {
    /// It is this.
    Value(Json),
    /// A device knows.
    Live(&'a Plugged, &'static LiveProp),
    /// It can be set, not read.
    Hidden,
}

/// Whether and when a property can be set.
pub enum Setting<'a> {
    /// Never.
    Never,
    /// Only before its device is there.
    Early(&'a Plugged),
    /// `realized`: clearing it unplugs the device.
    Realized(&'a Plugged),
    /// At any time; the device takes it.
    Live(&'a Plugged),
}

impl<'a> Property<'a> {
    fn fixed(
        name: impl Into<Cow<'a, str>>,
        type_name: impl Into<Cow<'a, str>>,
        value: impl Into<Json>,
    ) -> Self {
        let source = Source::Value(value.into());
        Property { name: name.into(), type_name: type_name.into(), source, setting: Setting::Never }
    }
}

/// What an unset property is shown as: nothing, in its type.
fn unset(kind: Kind) -> Json {
    match kind {
        Kind::Bool => false.into(),
        Kind::U8(..) | Kind::U16(..) | Kind::U32(..) | Kind::U64(..) | Kind::Size => 0.into(),
        Kind::Hex8(..) | Kind::Hex32(..) | Kind::Devfn => 0.into(),
        _ => "".into(),
    }
}

/// The name of the type of a property of a user's object, which knows fewer than devices do.
fn object_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Str | Kind::Chardev | Kind::Enum(_) => "string",
        _ => "int",
    }
}

/// A value as people write it, in quotes if it is text.
pub(super) fn written(kind: Kind, value: Option<&Value>) -> String {
    match (kind, value) {
        (_, None) => "<null>".to_owned(),
        (Kind::Hex8(..) | Kind::Hex32(..), Some(Value::Uint(number))) => format!("{number:#x}"),
        (Kind::Devfn, Some(Value::Uint(number))) => format!("{:02x}.{:x}", number >> 3, number & 7),
        (_, Some(Value::Text(text))) => format!("\"{text}\""),
        (_, Some(value)) => json(value).to_string(),
    }
}

impl<'a> Tree<'a> {
    /// The properties of an object, in the order in which they came to be. Each object below it is
    /// one.
    pub fn props(&'a self, number: usize) -> Vec<Property<'a>> {
        let Some(node) = self.get(number) else { return Vec::new() };
        let mut all = vec![Property::fixed("type", "string", &*self.type_name(&node.object))];
        match node.object {
            Object::Container | Object::Cpu(_) | Object::Chardev(_) => {}
            Object::Machine => all.extend(self.rtc_time()),
            Object::Device(device) => self.device_props(device, &mut all),
            Object::Bus(bus) => {
                all.push(Property::fixed("realized", "bool", true));
                for (index, device) in self.board.on_bus(&bus.name).enumerate() {
                    let link = format!("link<{}>", device.class.name);
                    all.push(Property::fixed(format!("child[{index}]"), link, device.name()));
                }
            }
            Object::User(entry) => {
                for (prop, (name, value)) in entry.class.props.iter().zip(entry.props.iter()) {
                    let value = value.map_or_else(|| unset(prop.kind), json);
                    let shown = Property::fixed(name, object_type(prop.kind), value);
                    all.push(match (entry.class.name, name) {
                        ("secret", "data") => Property { source: Source::Hidden, ..shown },
                        _ => shown,
                    });
                }
                for (name, type_name, value) in entry.object.own_props() {
                    all.push(Property::fixed(name, type_name, json(&value)));
                }
            }
        }
        for (name, child) in self.children(number) {
            if let Some(child) = self.get(child) {
                let type_name = format!("child<{}>", self.type_name(&child.object));
                all.push(Property::fixed(name, type_name, &*child.path));
            }
        }
        all
    }

    /// The time that the guest sees, where clients look for it.
    fn rtc_time(&self) -> Option<Property<'a>> {
        self.board.devices.iter().find_map(|device| {
            let live = device.lock().live_props().iter().find(|live| live.name == "date")?;
            let source = Source::Live(device, live);
            Some(Property { source, ..Property::fixed("rtc-time", live.type_name, Json::Null) })
        })
    }

    fn device_props(&self, device: &'a Plugged, all: &mut Vec<Property<'a>>) {
        let bus = self.board.bus(&device.bus);
        let hotpluggable = bus.is_some_and(|bus| bus.hotplug.is_some());
        let setting = Setting::Realized(device);
        all.push(Property { setting, ..Property::fixed("realized", "bool", true) });
        all.push(Property::fixed("hotpluggable", "bool", hotpluggable));
        all.push(Property::fixed("hotplugged", "bool", device.hotplugged));
        let early = |property| Property { setting: Setting::Early(device), ..property };
        for (prop, (_, value)) in device.class.all_props().zip(device.props.iter()) {
            if prop.kind.legacy_name() != prop.kind.qom_name() {
                let legacy = format!("legacy<{}>", prop.kind.legacy_name());
                let text = written(prop.kind, value);
                all.push(Property::fixed(format!("legacy-{}", prop.name), legacy, text));
            }
            let value = value.map_or_else(|| unset(prop.kind), json);
            all.push(early(Property::fixed(prop.name, prop.kind.qom_name(), value)));
        }
        for live in device.lock().live_props() {
            let source = Source::Live(device, live);
            let setting = if live.settable { Setting::Live(device) } else { Setting::Never };
            let fixed = Property::fixed(live.name, live.type_name, Json::Null);
            all.push(Property { source, setting, ..fixed });
        }
        let bus = bus.map(|bus| bus.path()).unwrap_or_default();
        all.push(Property::fixed("parent_bus", "link<bus>", bus));
    }
}

impl Property<'_> {
    /// Its value; `None` if it is not to be read.
    pub fn value(&self) -> Option<Json> {
        match &self.source {
            Source::Value(value) => Some(value.clone()),
            Source::Live(device, live) => device.lock().live_value(live.name).as_ref().map(json),
            Source::Hidden => None,
        }
    }
}

/// The properties that objects of a type have, name and type, in the order of
/// [`Tree::props`]; links to others and what is below them excepted.
pub fn of_type(types: &[Type], found: &Type) -> Vec<(String, String)> {
    let pair = |name: &str, type_name: &str| (name.to_owned(), type_name.to_owned());
    let mut all = vec![pair("type", "string")];
    let of = |prop: &Prop| pair(prop.name, prop.kind.qom_name());
    if types::implements(types, &found.name, "device") {
        let bools = ["realized", "hotpluggable", "hotplugged"];
        all.extend(bools.iter().map(|name| pair(name, "bool")));
    }
    match found.kind {
        types::Kind::Device(class) => all.extend(class.all_props().map(of)),
        types::Kind::Object(class) => {
            all.extend(class.props.iter().map(|prop| pair(prop.name, object_type(prop.kind))));
        }
        types::Kind::Other => {}
    }
    if types::implements(types, &found.name, "device") {
        all.push(pair("parent_bus", "link<bus>"));
    }
    all
}
