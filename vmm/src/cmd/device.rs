//! Commands that add and remove devices, and tell what they take.
//!
//! Main thread. Names and values are a client's.

use std::borrow::Cow;

use qmp::check::bucket;
use qmp::{DeviceAdd, DeviceDel, DeviceListProperties, DevicePropertyInfo, Handle, QmpError};
use serde_json::Value;

use crate::qom::types::{self, Type};
use crate::vm::Vm;

impl Handle<DeviceAdd> for Vm {
    fn handle(&mut self, command: DeviceAdd) -> Result<(), QmpError> {
        self.migration.refuse_moving("device_add")?;
        let mut given: Vec<_> = (command.rest.iter())
            .filter_map(|(name, value)| Some((name.as_str(), option_text(value)?)))
            .collect();
        // The first mistake in this order is the one that clients are told.
        given.sort_by_key(|(name, _)| bucket(name));
        let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        Ok(self.plug(&given)?)
    }
}

impl Handle<DeviceDel> for Vm {
    fn handle(&mut self, DeviceDel { id }: DeviceDel) -> Result<(), QmpError> {
        self.migration.refuse_moving("device_del")?;
        Ok(self.unplug(&id)?)
    }
}

impl Handle<DeviceListProperties> for Vm {
    fn handle(
        &mut self,
        DeviceListProperties { typename }: DeviceListProperties,
    ) -> Result<Vec<DevicePropertyInfo>, QmpError> {
        let types = types::all(self.means.classes);
        let props = match types::find(&types, &typename) {
            None => return Err(QmpError::device_not_found(&typename)),
            Some(Type { kind: types::Kind::Device(class), .. }) => class.all_props().collect(),
            Some(_) if types::implements(&types, &typename, "device") => Vec::new(),
            Some(_) => return Err(QmpError::expects("name", "device")),
        };
        let info = |prop: &&resources::props::Prop| DevicePropertyInfo {
            name: prop.name.to_owned(),
            r#type: prop.kind.legacy_name().to_owned(),
        };
        Ok(props.iter().rev().map(info).collect())
    }
}

/// A property as an option's text; lists and objects are none.
pub(super) fn option_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(true) => Some("on".into()),
        Value::Bool(false) => Some("off".into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
