//! Commands that look at objects and their properties by path.
//!
//! Main thread. Paths, names and values are a client's.

use qmp::{
    Handle, ObjectPropertyInfo, ObjectTypeInfo, QmpError, QomGet, QomList, QomListProperties,
    QomListTypes, QomSet,
};
use serde_json::Value;

use crate::plug::PlugError;
use crate::qom::types::{self, Type};
use crate::qom::{Found, Setting, Tree, from_json, of_type};
use crate::vm::Vm;

const NO_PERMISSION: &str = "Insufficient permission to perform this operation";

impl Handle<QomList> for Vm {
    fn handle(&mut self, command: QomList) -> Result<Vec<ObjectPropertyInfo>, QmpError> {
        let tree = Tree::of(self);
        let number = find(&tree, &command.path)?;
        let info = |name: &str, type_name: &str| ObjectPropertyInfo {
            name: name.to_owned(),
            r#type: type_name.to_owned(),
        };
        Ok(tree.props(number).iter().rev().map(|prop| info(&prop.name, &prop.type_name)).collect())
    }
}

impl Handle<QomGet> for Vm {
    fn handle(&mut self, QomGet { path, property }: QomGet) -> Result<Value, QmpError> {
        let tree = Tree::of(self);
        let props = tree.props(find(&tree, &path)?);
        let prop = props.iter().find(|prop| prop.name == property);
        let prop = prop.ok_or_else(|| no_property(&property))?;
        prop.value().ok_or_else(|| QmpError::generic(NO_PERMISSION))
    }
}

impl Handle<QomSet> for Vm {
    fn handle(&mut self, QomSet { path, property, value }: QomSet) -> Result<(), QmpError> {
        let tree = Tree::of(self);
        let props = tree.props(find(&tree, &path)?);
        let prop = props.iter().find(|prop| prop.name == property);
        let prop = prop.ok_or_else(|| no_property(&property))?;
        match &prop.setting {
            Setting::Never => Err(QmpError::generic(NO_PERMISSION)),
            Setting::Early(device) => Err(QmpError::generic(match device.id() {
                Some(id) => format!(
                    "Attempt to set property '{property}' on device '{id}' (type '{}') after it \
                     was realized",
                    device.class.name
                ),
                None => format!(
                    "Attempt to set property '{property}' on anonymous device (type '{}') after \
                     it was realized",
                    device.class.name
                ),
            })),
            Setting::Live(device) => {
                let expected = match &*prop.type_name {
                    "bool" => "boolean",
                    "string" => "string",
                    _ => "integer",
                };
                let value = from_json(&value);
                let value = value.ok_or_else(|| QmpError::invalid_type(&property, expected))?;
                device.lock().set_live(&property, &value).map_err(QmpError::generic)
            }
            Setting::Realized(device) => match value {
                Value::Bool(true) => Ok(()),
                Value::Bool(false) => {
                    let (bus, path) = (device.bus.clone(), device.name().to_owned());
                    if self.board.bus(&bus).is_none_or(|bus| bus.hotplug.is_none()) {
                        return Err(PlugError::NoHotplug(bus).into());
                    }
                    self.unplugged(&path);
                    Ok(())
                }
                _ => Err(QmpError::invalid_type(&property, "boolean")),
            },
        }
    }
}

impl Handle<QomListTypes> for Vm {
    fn handle(&mut self, command: QomListTypes) -> Result<Vec<ObjectTypeInfo>, QmpError> {
        let types = types::all(self.means.classes);
        let with_abstract = command.r#abstract.unwrap_or(false);
        let wanted = |known: &&Type| {
            (with_abstract || !known.is_abstract)
                && (command.implements.as_deref())
                    .is_none_or(|of| types::implements(&types, &known.name, of))
        };
        let info = |known: &Type| ObjectTypeInfo { name: known.name.to_string() };
        Ok(types.iter().filter(wanted).map(info).collect())
    }
}

impl Handle<QomListProperties> for Vm {
    fn handle(
        &mut self,
        QomListProperties { typename }: QomListProperties,
    ) -> Result<Vec<ObjectPropertyInfo>, QmpError> {
        let types = types::all(self.means.classes);
        let found = types::find(&types, &typename).ok_or_else(|| {
            let text = format!("Class '{typename}' not found");
            QmpError::new(qmp::ErrorClass::DeviceNotFound, text)
        })?;
        let info = |(name, type_name)| ObjectPropertyInfo { name, r#type: type_name };
        Ok(of_type(&types, &found).into_iter().rev().map(info).collect())
    }
}

/// An object by its path. Clients are told of an ambiguous one as of one that leads nowhere.
fn find(tree: &Tree<'_>, path: &str) -> Result<usize, QmpError> {
    match tree.find(path) {
        Found::One(number) => Ok(number),
        Found::Nothing | Found::Ambiguous => Err(QmpError::device_not_found(path)),
    }
}

fn no_property(name: &str) -> QmpError {
    QmpError::generic(format!("Property '.{name}' not found"))
}
