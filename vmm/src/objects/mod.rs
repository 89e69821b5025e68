//! Objects that users make for the machine to use: host memory, sources of random bytes, I/O
//! threads, secrets, credentials. `-object` and object-add make them on one road; each type is one row of
//! [`TYPES`] and lives in a file of its own.
//!
//! Main thread, no lock. Names and values are a user's or a client's; an object's file says what
//! else reaches it. An object is in use while somebody else holds a reference to it.

use std::sync::Arc;

use devices::class::FindChardev;
use devices::entropy::Entropy;
use qmp::{ErrorClass, QmpError};
use resources::nearest::nearest;
use resources::props::{Overrides, Prop, PropError, Props, Value};
use resources::value::{ValueError, check_identifier};

use crate::cli::keyval::Pairs;

pub mod iothread;
pub mod memory;
pub mod rng;
pub mod secret;
#[cfg(test)]
mod tests;
pub mod tls;

use iothread::IoThread;
use memory::MemoryBackend;
use secret::Secret;
use tls::TlsCreds;

/// A type of objects.
pub struct ObjectType {
    /// Its name.
    pub name: &'static str,
    /// The type of which it is one; `object` if there is none of its own.
    pub parent: &'static str,
    /// What users can tell it.
    pub props: &'static [Prop],
    /// The properties among these that must be given.
    pub needs: &'static [&'static str],
    /// Makes one.
    pub create: fn(&mut Props, &Ctx) -> Result<Object, ObjectError>,
}

/// Every type.
pub static TYPES: &[ObjectType] = &[
    memory::RAM,
    memory::FILE,
    memory::MEMFD,
    rng::RANDOM,
    rng::EGD,
    rng::BUILTIN,
    iothread::IOTHREAD,
    secret::SECRET,
    tls::TLS_CREDS,
];

/// What a maker is given.
pub struct Ctx<'a> {
    /// The objects there are.
    pub objects: &'a Objects,
    /// Finds chardevs.
    pub chardevs: &'a FindChardev,
}

/// An object.
#[derive(Clone)]
pub enum Object {
    /// Host memory.
    Memory(Arc<MemoryBackend>),
    /// A source of random bytes.
    Rng(Arc<dyn Entropy>),
    /// A thread that devices can be served on.
    IoThread(Arc<IoThread>),
    /// A secret.
    Secret(Arc<Secret>),
    /// Credentials for TLS.
    TlsCreds(Arc<TlsCreds>),
}

impl Object {
    fn in_use(&self) -> bool {
        match self {
            Object::Memory(object) => Arc::strong_count(object) > 1,
            Object::Rng(object) => Arc::strong_count(object) > 1,
            Object::IoThread(object) => Arc::strong_count(object) > 1,
            Object::Secret(object) => Arc::strong_count(object) > 1,
            Object::TlsCreds(object) => Arc::strong_count(object) > 1,
        }
    }

    /// Properties that nobody gave it: name, type and value.
    pub fn own_props(&self) -> Vec<(&'static str, &'static str, Value)> {
        match self {
            Object::Memory(_) => Vec::new(),
            Object::Rng(_) => vec![("opened", "bool", Value::Bool(true))],
            Object::IoThread(object) => {
                vec![("thread-id", "int", Value::Int(object.thread_id.into()))]
            }
            Object::Secret(_) | Object::TlsCreds(_) => {
                vec![("loaded", "bool", Value::Bool(true))]
            }
        }
    }
}

/// An object and what it was told.
pub struct Entry {
    /// What it is.
    pub class: &'static ObjectType,
    /// Its properties.
    pub props: Props,
    /// The object.
    pub object: Object,
}

/// Why an object was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// No such type.
    #[error("Parameter 'qom-type' does not accept value '{0}'{hint}", hint = hint(.0, names()))]
    Type(String),
    /// The name of a type of types.
    #[error("object type '{0}' is abstract")]
    Abstract(String),
    /// A type of which users make no objects.
    #[error("object type '{0}' isn't supported by object-add")]
    Unsupported(String),
    /// The id is no identifier.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// There is one of this id already.
    #[error("attempt to add duplicate property '{0}' to object (type 'container')")]
    Duplicate(String),
    /// The type has no such property.
    #[error("Property '{class}.{name}' not found{}", did_you_mean(*.nearest))]
    Unknown {
        /// The type.
        class: &'static str,
        /// The name that was given.
        name: String,
        /// The property that was probably meant.
        nearest: Option<&'static str>,
    },
    /// None of the words that a property takes.
    #[error("Parameter '{name}' does not accept value '{value}'{}", did_you_mean(*.nearest))]
    Word {
        /// The property.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// The word that was probably meant.
        nearest: Option<&'static str>,
    },
    /// Another mistake in a property.
    #[error(transparent)]
    Prop(PropError),
    /// There is no such chardev.
    #[error("Device '{0}' not found")]
    NoChardev(String),
    /// The host refuses it, or properties do not go together.
    #[error("{0}")]
    Refused(String),
    /// There is no such object.
    #[error("object '{0}' not found")]
    Absent(String),
    /// Somebody uses it.
    #[error("object '{0}' is in use, can not be deleted")]
    InUse(String),
}

/// What an error says, without the number that the standard library adds.
fn reason(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|class| class.name)
}

fn did_you_mean(word: Option<&str>) -> String {
    word.map(|word| format!(" (did you mean '{word}'?)")).unwrap_or_default()
}

fn hint<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(nearest(word, valid))
}

impl From<PropError> for ObjectError {
    fn from(error: PropError) -> ObjectError {
        match error {
            PropError::Unknown { class, name, nearest } => {
                ObjectError::Unknown { class, name, nearest }
            }
            PropError::Value { name, value, nearest, .. } => {
                ObjectError::Word { name, value, nearest }
            }
            other => ObjectError::Prop(other),
        }
    }
}

/// What clients are told, who do not want to know what they may have meant.
impl From<ObjectError> for QmpError {
    fn from(error: ObjectError) -> QmpError {
        let plain = match error {
            ObjectError::NoChardev(id) => {
                return QmpError::new(
                    ErrorClass::DeviceNotFound,
                    ObjectError::NoChardev(id).to_string(),
                );
            }
            ObjectError::Type(name) => {
                format!("Parameter 'qom-type' does not accept value '{name}'")
            }
            ObjectError::Unknown { name, .. } => format!("Parameter '{name}' is unexpected"),
            ObjectError::Word { name, value, .. } => {
                ObjectError::Word { name, value, nearest: None }.to_string()
            }
            other => other.to_string(),
        };
        QmpError::generic(plain)
    }
}

/// A type by its name.
///
/// # Errors
/// There is none, or none that users can make objects of.
pub fn find(name: &str) -> Result<&'static ObjectType, ObjectError> {
    TYPES.iter().find(|class| class.name == name).ok_or_else(|| ObjectError::Type(name.to_owned()))
}

/// The objects of `-object`, in order.
///
/// # Errors
/// The first that cannot be made, with its type.
pub fn of_options(options: &[Pairs], chardevs: &FindChardev) -> Result<Objects, OptionError> {
    let mut objects = Objects::default();
    for pairs in options {
        let name = pairs.get("qom-type").unwrap_or_default();
        let id = pairs.id().unwrap_or_default();
        let done = find(name).and_then(|class| objects.add(class, id, pairs.iter(), chardevs));
        done.map_err(|source| OptionError { name: name.to_owned(), source })?;
    }
    Ok(objects)
}

/// Why an object of `-object` was not made.
#[derive(Debug, thiserror::Error)]
#[error("-object {name}: {source}")]
pub struct OptionError {
    /// Its type.
    name: String,
    /// Why.
    source: ObjectError,
}

/// The objects of a machine.
#[derive(Default)]
pub struct Objects(Vec<Entry>);

impl Objects {
    /// Makes an object of `class`.
    ///
    /// # Errors
    /// The id is missing, no identifier or taken; the first property that is wrong; or what the
    /// type's maker says.
    pub fn add<'a>(
        &mut self,
        class: &'static ObjectType,
        id: &'a str,
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
        chardevs: &FindChardev,
    ) -> Result<(), ObjectError> {
        check_identifier("id", id)?;
        if self.get(id).is_some() {
            return Err(ObjectError::Duplicate(id.to_owned()));
        }
        let given = given.into_iter().filter(|(name, _)| !["id", "qom-type"].contains(name));
        let given = std::iter::once(("id", id)).chain(given);
        let mut props = Props::parse(class.name, class.props.iter(), &Overrides::default(), given)?;
        let missing =
            |name: &&&str| props.iter().any(|(other, value)| other == **name && value.is_none());
        if let Some(name) = class.needs.iter().find(missing) {
            return Err(PropError::Missing(name).into());
        }
        let object = (class.create)(&mut props, &Ctx { objects: self, chardevs })?;
        self.0.push(Entry { class, props, object });
        Ok(())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// There is none, or somebody uses it.
    pub fn remove(&mut self, id: &str) -> Result<(), ObjectError> {
        let index = self.0.iter().position(|entry| entry.id() == id);
        let Some(index) = index else { return Err(ObjectError::Absent(id.to_owned())) };
        if self.0.get(index).is_some_and(|entry| entry.object.in_use()) {
            return Err(ObjectError::InUse(id.to_owned()));
        }
        drop(self.0.remove(index));
        Ok(())
    }

    /// An object by its id.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.id() == id)
    }

    /// All objects, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.0.iter()
    }

    /// A memory backend, which is in use while the result is kept.
    pub fn memory(&self, id: &str) -> Option<Arc<MemoryBackend>> {
        match &self.get(id)?.object {
            Object::Memory(object) => Some(object.clone()),
            _ => None,
        }
    }

    /// A source of random bytes, which is in use while the result is kept.
    pub fn rng(&self, id: &str) -> Option<Arc<dyn Entropy>> {
        match &self.get(id)?.object {
            Object::Rng(object) => Some(object.clone()),
            _ => None,
        }
    }

    /// An I/O thread, which is in use while the result is kept.
    pub fn iothread(&self, id: &str) -> Option<Arc<IoThread>> {
        match &self.get(id)?.object {
            Object::IoThread(object) => Some(object.clone()),
            _ => None,
        }
    }

    /// Credentials for TLS.
    pub fn tls_creds(&self, id: &str) -> Option<&TlsCreds> {
        match &self.get(id)?.object {
            Object::TlsCreds(object) => Some(object),
            _ => None,
        }
    }

    /// A secret.
    pub fn secret(&self, id: &str) -> Option<&Secret> {
        match &self.get(id)?.object {
            Object::Secret(object) => Some(object),
            _ => None,
        }
    }
}

impl Entry {
    /// Its id.
    pub fn id(&self) -> &str {
        self.props.id().unwrap_or_default()
    }
}
