//! Waiting for servers that may not answer any more.
//!
//! A guest's requests wait for a server as long as it takes: that is how disks on a network survive
//! its failures. But nobody else may be held up for ever by one that has stalled. While somebody
//! waits for the loop of a graph, or for the devices on it to stop, a server that has not answered
//! for [`SILENCE`] is left: its requests fail, and it is connected to anew if that is wanted.
//!
//! On the loop of the graph; a [`Hurry`] can be kept on any thread.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use resources::iol::{Either, Local, Notify, race};

use super::Drive;
use crate::chain;
use crate::node::Node;

/// How long a server may say nothing while somebody waits for it, who cannot go on before.
pub(crate) const SILENCE: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(60) };
/// How often that is looked at.
const LOOK: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// Does `work`, for which the graph under the node that `top` names is not waited for for ever.
pub(crate) async fn with_patience<T>(
    local: &Local,
    top: impl Fn() -> Option<Rc<dyn Node>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        match race(work.as_mut(), local.sleep(LOOK)).await {
            Either::Left(done) => return done,
            Either::Right(()) => {
                let nodes = top().map_or(Vec::new(), chain::nodes);
                nodes.iter().for_each(|node| node.leave_silent(SILENCE));
            }
        }
    }
}

impl Drive {
    /// Has the drive's requests end soon for as long as the result lives: servers that do not
    /// answer are left. `None` without a medium.
    pub fn hurry(&self) -> Option<Hurry> {
        let place = self.place()?;
        let over = Notify::new();
        let until = over.clone();
        place.handle().clone().post(move |local| {
            let Some(disk) = place.get(local) else { return };
            let here = local.clone();
            let task = async move {
                with_patience(&here, || Some(disk.node()), until.notified()).await;
            };
            local.spawn(task).detach();
        });
        Some(Hurry(over))
    }
}

/// Somebody waits for the requests of a drive: see [`Drive::hurry`].
#[must_use = "nobody is in a hurry any more when this is dropped"]
pub struct Hurry(Notify);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.notify();
    }
}
