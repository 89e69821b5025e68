//! Commands that make and remove objects, and tell of some.
//!
//! Main thread. Names and values are a client's.

use qmp::{
    Handle, IoThreadInfo, Memdev, ObjectAdd, ObjectDel, QmpError, QueryIothreads, QueryMemdev,
};
use resources::props::{Kind, Prop};
use serde_json::{Map, Value};

use crate::objects::{self, Object, ObjectError, ObjectType};
use crate::qom::types;
use crate::vm::Vm;

impl Handle<ObjectAdd> for Vm {
    fn handle(&mut self, ObjectAdd { qom_type, id, rest }: ObjectAdd) -> Result<(), QmpError> {
        let class = objects::find(&qom_type).map_err(|error| {
            // A type all the same, though not one to make objects of.
            match types::find(&types::all(self.means.classes), &qom_type) {
                Some(known) if known.is_abstract => ObjectError::Abstract(qom_type.clone()),
                Some(_) => ObjectError::Unsupported(qom_type.clone()),
                None => error,
            }
        })?;
        let given = texts(class, rest)?;
        let given = given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(self.objects.add(class, &id, given, &self.chardevs.finder())?)
    }
}

impl Handle<ObjectDel> for Vm {
    fn handle(&mut self, ObjectDel { id }: ObjectDel) -> Result<(), QmpError> {
        Ok(self.objects.remove(&id)?)
    }
}

impl Handle<QueryMemdev> for Vm {
    fn handle(&mut self, _: QueryMemdev) -> Result<Vec<Memdev>, QmpError> {
        let info = |entry: &objects::Entry| match &entry.object {
            Object::Memory(memory) => Some(Memdev {
                share: memory.config.share,
                prealloc: memory.config.prealloc,
                host_nodes: Vec::new(),
                size: entry.props.get("size").unwrap_or(memory.config.size),
                merge: memory.config.merge,
                dump: memory.config.dump,
                policy: "default".to_owned(),
                id: Some(entry.id().to_owned()),
            }),
            _ => None,
        };
        Ok(self.objects.iter().filter_map(info).collect())
    }
}

impl Handle<QueryIothreads> for Vm {
    fn handle(&mut self, _: QueryIothreads) -> Result<Vec<IoThreadInfo>, QmpError> {
        let info = |entry: &objects::Entry| match &entry.object {
            Object::IoThread(thread) => Some(IoThreadInfo {
                poll_shrink: 0,
                thread_id: thread.thread_id.into(),
                aio_max_batch: 0,
                poll_grow: 0,
                poll_max_ns: 0,
                id: entry.id().to_owned(),
            }),
            _ => None,
        };
        Ok(self.objects.iter().filter_map(info).collect())
    }
}

/// The properties of an object as the option parser takes them, each checked to be of its type.
/// They stand among the arguments, or in `props`.
fn texts(
    class: &ObjectType,
    mut rest: Map<String, Value>,
) -> Result<Vec<(String, String)>, QmpError> {
    match rest.remove("props") {
        None => {}
        Some(Value::Object(props)) => rest.extend(props),
        Some(_) => return Err(QmpError::invalid_type("props", "object")),
    }
    let text = |(name, value): (String, Value)| {
        let text = match class.props.iter().find(|prop| prop.name == name) {
            Some(prop) => text(prop, &value)?,
            None => String::new(),
        };
        Ok((name, text))
    };
    rest.into_iter().map(text).collect()
}

fn text(prop: &Prop, value: &Value) -> Result<String, QmpError> {
    let wrong = |expected| Err(QmpError::invalid_type(prop.name, expected));
    match (prop.kind, value) {
        (Kind::Bool, Value::Bool(on)) => Ok(if *on { "on" } else { "off" }.to_owned()),
        (Kind::Bool, _) => wrong("boolean"),
        (Kind::Str | Kind::Enum(_) | Kind::Chardev, Value::String(text)) => Ok(text.clone()),
        (Kind::Str | Kind::Enum(_) | Kind::Chardev, _) => wrong("string"),
        (_, Value::Number(number)) if number.is_u64() => Ok(number.to_string()),
        (_, Value::Number(number)) if number.is_i64() => {
            Err(QmpError::expects(prop.name, "uint64"))
        }
        _ => wrong("integer"),
    }
}
