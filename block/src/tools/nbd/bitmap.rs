//! `-B`: a dirty bitmap of the image, offered to clients.
//!
//! On the loop of the disk, no lock. The bits are in memory; those of a bitmap that follows the
//! writes of the topmost image follow them here too.

use std::cell::RefCell;
use std::rc::Rc;

use crate::chain;
use crate::dirty;
use crate::disk::{Disk, Tap};
use crate::nbd::server::Bitmap;
use crate::tools::console::Fail;
use crate::tools::images;

/// A bitmap of an image that is served.
pub(super) struct Shown {
    bits: RefCell<dirty::Bitmap>,
    /// It follows the writes.
    follows: bool,
}

impl Shown {
    /// The bitmap of this name, of the topmost image that has one.
    pub(super) async fn find(disk: &Disk, name: &str) -> Result<Rc<Shown>, Fail> {
        let top = disk.node();
        for node in chain::layers(&top) {
            let Some(image) = node.image() else { continue };
            let bitmaps = image.bitmaps().unwrap_or_default();
            let Some(found) = bitmaps.iter().find(|bitmap| bitmap.name == name) else { continue };
            let bits = image.bitmap(name).await.map_err(|error| images::why(&error))?;
            let follows = found.enabled && chain::same(&node, &top) && !node.info().read_only;
            let shown = Rc::new(Shown { bits: RefCell::new(bits), follows });
            if follows {
                let tap: Rc<dyn Tap> = shown.clone();
                disk.add_tap(&tap).await;
            }
            return Ok(shown);
        }
        Err(Fail::Told(format!("Bitmap '{name}' is not found")))
    }
}

impl Bitmap for Shown {
    fn extent(&self, offset: u64, len: u64) -> (bool, u64) {
        let bits = self.bits.borrow();
        match bits.size().saturating_sub(offset) {
            // The disk has grown since: all of that is new.
            0 => (self.follows, len),
            known => bits.run(offset, len.min(known)),
        }
    }
}

impl Tap for Shown {
    fn after(&self, offset: u64, len: u64) {
        self.bits.borrow_mut().set(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_has_grown_by_is_dirty() {
        let bits = RefCell::new(dirty::Bitmap::new(1 << 20, 65536));
        let shown = Shown { bits, follows: true };
        // A clean run ends where the bitmap does, not behind it.
        assert_eq!(shown.extent(1 << 19, 2 << 20), (false, 1 << 19));
        assert_eq!(shown.extent(1 << 20, 2 << 20), (true, 2 << 20));
    }
}
