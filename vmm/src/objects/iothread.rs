//! `iothread`: a thread with an I/O loop for devices to be served on.
//!
//! Made and joined on the main thread; what runs on it is its devices' matter. It is joined when
//! the object goes, which it cannot while a device uses it.

use resources::iol::{Handle, Thread};
use resources::props::{Kind, Prop};

use super::{Object, ObjectError, ObjectType};

/// The type.
pub(super) const IOTHREAD: ObjectType = ObjectType {
    name: "iothread",
    parent: "object",
    props: &[Prop {
        name: "poll-max-ns",
        kind: Kind::U64(0, 0),
        default: Some("0"),
        help: "how long to poll before sleeping; it never does",
    }],
    needs: &[],
    create: |props, _| {
        let refused = |error: std::io::Error| ObjectError::Refused(error.to_string());
        let name = format!("IO {}", props.id().unwrap_or_default());
        let (thread, handle) = Thread::spawn(&name).map_err(refused)?;
        let id = handle.call(|_| rustix::thread::gettid().as_raw_nonzero().get());
        let thread_id =
            id.ok_or_else(|| ObjectError::Refused("the thread ended at once".to_owned()))?;
        Ok(Object::IoThread(std::sync::Arc::new(IoThread { handle, thread_id, _thread: thread })))
    },
};

/// A thread with a loop, until it is dropped.
pub struct IoThread {
    /// Its loop.
    pub handle: Handle,
    /// The system's number for it.
    pub thread_id: i32,
    _thread: Thread,
}
