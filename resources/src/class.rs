//! The table of things that can be made by name.
//!
//! A [`Class`] says what it is called, which properties it has and how one is made of them. One
//! static table serves `-device`, device_add, `-device help`, `-device NAME,help`,
//! device-list-properties and the defaults of machine versions, so that they cannot disagree.
//!
//! The machine calls this on the main thread; no lock. Names and values come from the command
//! line or a monitor's client.

use std::fmt::Write as _;

use crate::device::DeviceRef;
use crate::nearest::nearest;
use crate::props::{Kind, Overrides, Prop, PropError, Props};
use crate::space::SpaceError;

/// How to make one kind of device. `C` is what a maker is given of the machine.
pub struct Class<C: 'static> {
    /// Its name.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// The type of bus it sits on, as error messages name it: `ISA`, `PCI`.
    pub bus: &'static str,
    /// One line for `help`.
    pub description: &'static str,
    /// Its properties.
    pub props: &'static [Prop],
    /// The properties that it has with all devices on its bus, listed after its own.
    pub base: &'static [Prop],
    /// Makes one and puts it where its properties say, which it completes by what it chose
    /// itself. On an error nothing is left behind. `None` for a part of the board, which users
    /// cannot add.
    pub create: Option<Create<C>>,
}

/// See [`Class::create`].
pub type Create<C> = fn(&mut Props, &mut C) -> Result<DeviceRef, CreateError>;

/// A name that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not a valid device model name")]
pub struct UnknownClass {
    /// The name that was given.
    pub name: String,
    /// The one that was probably meant, for messages to people.
    pub nearest: Option<&'static str>,
}

/// Why a device was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A property is wrong.
    #[error(transparent)]
    Prop(#[from] PropError),
    /// It does not fit where it should go.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// It is a part of the board.
    #[error("Parameter 'driver' expects pluggable device type")]
    Part,
    /// Its place on its bus is taken or is none. People are told why; clients of the old
    /// interface know no more than that it failed.
    #[error("{0}")]
    Place(String),
    /// Another reason.
    #[error("{0}")]
    Other(String),
}

impl<C: 'static> Class<C> {
    /// A part of the board, without properties.
    pub const fn part(name: &'static str, bus: &'static str, description: &'static str) -> Self {
        Class { name, aliases: &[], bus, description, props: &[], base: &[], create: None }
    }

    /// Finds a class by its name or an alias. Parts of the board are found too, but no mistake is
    /// taken for the name of one.
    ///
    /// # Errors
    /// [`UnknownClass`].
    pub fn find(
        classes: &'static [Class<C>],
        name: &str,
    ) -> Result<&'static Class<C>, UnknownClass> {
        let is = |class: &&Class<C>| class.name == name || class.aliases.contains(&name);
        classes.iter().find(is).ok_or_else(|| UnknownClass {
            name: name.to_owned(),
            nearest: nearest(name, classes.iter().filter(|c| c.create.is_some()).map(|c| c.name)),
        })
    }

    /// All its properties: its own and those of [`base`](Self::base).
    pub fn all_props(&self) -> impl DoubleEndedIterator<Item = &'static Prop> + Clone + use<C> {
        self.props.iter().chain(self.base)
    }

    /// The properties of a device to be made.
    ///
    /// # Errors
    /// See [`Props::parse`].
    pub fn props<'a>(
        &self,
        overrides: &Overrides,
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Props, PropError> {
        Props::parse(self.name, self.all_props(), overrides, given)
    }

    /// Makes a device; returns it with the properties that it has now.
    ///
    /// # Errors
    /// A property is wrong, or what it asks for is not to be had.
    pub fn create<'a>(
        &self,
        overrides: &Overrides,
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
        context: &mut C,
    ) -> Result<(DeviceRef, Props), CreateError> {
        let mut props = self.props(overrides, given)?;
        let create = self.create.ok_or(CreateError::Part)?;
        Ok((create(&mut props, context)?, props))
    }

    /// The text of `-device NAME,help`: one line for each property.
    pub fn help(&self) -> String {
        let mut text = String::new();
        for Prop { name, kind, default, help } in self.all_props() {
            let _ = write!(text, "{}.{name}={} ({help}", self.name, kind.type_name());
            if let Kind::Enum(words) = kind {
                let _ = write!(text, ": {}", words.join(", "));
            }
            if let Some(default) = default {
                let _ = write!(text, "; default {default}");
            }
            text.push_str(")\n");
        }
        text
    }

    /// The text of `-device help`: one line for each class.
    pub fn list(classes: &'static [Class<C>]) -> String {
        let mut text = String::new();
        for class in classes.iter().filter(|class| class.create.is_some()) {
            let _ = write!(text, "name \"{}\", bus {}", class.name, class.bus);
            for alias in class.aliases {
                let _ = write!(text, ", alias \"{alias}\"");
            }
            let _ = writeln!(text, ", desc \"{}\"", class.description);
        }
        text
    }

    /// Says what is wrong with a table: names given twice, defaults that do not fit their
    /// property, text without a line of its own. For the table's test.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(classes: &'static [Class<C>]) -> Result<(), String> {
        let mut names = std::collections::BTreeSet::new();
        for class in classes {
            for name in class.aliases.iter().chain([&class.name]) {
                if !names.insert(*name) {
                    return Err(format!("the name '{name}' is given twice"));
                }
            }
            class.props(&Overrides::default(), []).map_err(|error| error.to_string())?;
            let mut props = std::collections::BTreeSet::new();
            for prop in class.all_props() {
                if !props.insert(prop.name) || ["driver", "id", "bus"].contains(&prop.name) {
                    return Err(format!("property {}.{} is given twice", class.name, prop.name));
                }
                if prop.help.is_empty() || prop.help.contains('\n') {
                    return Err(format!("{}.{} has no line of help", class.name, prop.name));
                }
            }
            if class.description.is_empty() || class.description.contains(['\n', '"']) {
                return Err(format!("{} has no description", class.name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{At, Device, DeviceCell};
    use crate::state::{Blob, StateError};

    struct Thing;

    impl Device for Thing {
        fn read(&mut self, _: At, _: &mut [u8]) {}
        fn write(&mut self, _: At, _: &[u8]) {}
        fn reset(&mut self) {}
        fn save(&self) -> Result<Blob, StateError> {
            Blob::new(1, &())
        }
        fn load(&mut self, _: &Blob) -> Result<(), StateError> {
            Ok(())
        }
    }

    const PROPS: &[Prop] = &[
        Prop { name: "port", kind: Kind::U16(0, 0xfff), default: Some("0x10"), help: "its port" },
        Prop { name: "how", kind: Kind::Enum(&["a", "b"]), default: None, help: "which way" },
    ];

    static CLASSES: &[Class<Vec<u16>>] = &[Class {
        name: "isa-thing",
        aliases: &["thing"],
        bus: "ISA",
        description: "A thing",
        props: PROPS,
        base: &[],
        create: Some(|props, ports| {
            let port = props.get("port")?;
            if ports.contains(&port) {
                return Err(CreateError::Other(format!("port {port:#x} is taken")));
            }
            ports.push(port);
            Ok(DeviceCell::new(props.id().unwrap_or("anonymous"), Thing))
        }),
    }];

    #[test]
    fn makes_devices_by_name_and_alias() {
        let mut ports = Vec::new();
        let overrides = Overrides::from_iter([("isa-thing", "port", "0x20")]);
        let mut make = |name: &str, given: &[(&str, &str)]| {
            Class::find(CLASSES, name).unwrap().create(
                &overrides,
                given.iter().copied(),
                &mut ports,
            )
        };
        assert_eq!(make("isa-thing", &[("id", "t")]).unwrap().0.name(), "t");
        assert!(make("thing", &[("port", "1")]).is_ok());
        let error = make("thing", &[("port", "32")]).err().unwrap();
        assert_eq!(error.to_string(), "port 0x20 is taken");
        let error = make("thing", &[("prot", "32")]).err().unwrap();
        assert_eq!(error.to_string(), "Property 'isa-thing.prot' not found");
        assert_eq!(ports, [0x20, 1]);
    }

    #[test]
    fn an_unknown_name_is_named() {
        let error = Class::find(CLASSES, "isa-thign").err().unwrap();
        assert_eq!(error.to_string(), "'isa-thign' is not a valid device model name");
        assert_eq!(error.nearest, Some("isa-thing"));
    }

    #[test]
    fn help_tells_the_table() {
        assert_eq!(
            Class::list(CLASSES),
            "name \"isa-thing\", bus ISA, alias \"thing\", desc \"A thing\"\n"
        );
        assert_eq!(
            Class::find(CLASSES, "thing").unwrap().help(),
            "isa-thing.port=uint16 (its port; default 0x10)\n\
             isa-thing.how=str (which way: a, b)\n"
        );
    }

    #[test]
    fn mistakes_in_a_table_are_found() {
        assert_eq!(Class::check(CLASSES), Ok(()));
        static WRONG: &[Class<()>] = &[Class {
            name: "x",
            aliases: &[],
            bus: "ISA",
            description: "X",
            base: &[],
            props: &[Prop { name: "n", kind: Kind::U8(0, 9), default: Some("10"), help: "n" }],
            create: None,
        }];
        assert!(Class::check(WRONG).is_err());
    }
}
