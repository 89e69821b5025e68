//! Temporary images that take what is written to a drive with `snapshot=on`.
//!
//! On the loop of the graph, no lock.

use std::rc::Rc;

use resources::iol::Local;

use crate::node::Node;
use crate::open::{OpenError, Spec};

/// A temporary image over `base`.
///
/// # Errors
/// When it cannot be created.
pub(crate) async fn open(
    _local: &Local,
    _spec: &Spec,
    _base: Rc<dyn Node>,
) -> Result<Rc<dyn Node>, OpenError> {
    Err(OpenError("snapshot=on: a temporary overlay is not supported yet".to_owned()))
}
