//! Commands that make and remove network back ends.
//!
//! Main thread. Names and values are a client's.

use devices::net::OpenError;
use qmp::{Handle, NetdevAdd, NetdevDel, QmpError};
use serde_json::Value;

use super::device::option_text;
use crate::nets::numbered_fd;
use crate::vm::Vm;

impl Handle<NetdevAdd> for Vm {
    fn handle(&mut self, NetdevAdd { id, r#type, rest }: NetdevAdd) -> Result<(), QmpError> {
        let mut given = vec![("id".to_owned(), id), ("type".to_owned(), r#type)];
        for (name, value) in &rest {
            given.extend(texts(value).map(|text| (name.clone(), text)));
        }
        self.add_netdev(&given)
    }
}

impl Handle<NetdevDel> for Vm {
    fn handle(&mut self, NetdevDel { id }: NetdevDel) -> Result<(), QmpError> {
        Ok(self.nets.remove(&id)?)
    }
}

impl Vm {
    /// Makes a netdev; descriptors are those that the client has named, or inherited ones.
    ///
    /// # Errors
    /// An option is wrong, the id is taken, or the host refuses what is needed.
    pub fn add_netdev(&mut self, given: &[(String, String)]) -> Result<(), QmpError> {
        let given: Vec<_> =
            given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (monitor, named) = (self.context.monitor, &mut self.named_fds);
        let mut take_fd = |name: &str| match monitor.and_then(|monitor| named.take(monitor, name)) {
            Some(fd) => Ok(fd),
            None => numbered_fd(name),
        };
        let taken: &mut dyn FnMut(&str) -> Result<_, OpenError> = &mut take_fd;
        self.nets.chardevs = Some(self.chardevs.finder());
        Ok(self.nets.add(&given, taken)?)
    }
}

/// The values of an option: those of a list of texts, each of which may be the `str` of an object,
/// or one alone.
fn texts(value: &Value) -> impl Iterator<Item = String> {
    let all = match value {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    all.iter().filter_map(|value| match value {
        Value::Object(object) => object.get("str")?.as_str().map(str::to_owned),
        value => option_text(value).map(|text| text.into_owned()),
    })
}

#[cfg(test)]
mod tests;
