//! Values that stay on a loop's thread and are known to others.
//!
//! A [`Remote`] may go anywhere; the value, an `Rc`, is reached only on the thread of its loop.
//! No lock: the table of values belongs to that thread. Nobody hostile reaches it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;

use super::{Handle, Local};

/// The values that a loop keeps, by number.
#[derive(Default)]
pub(super) struct Kept {
    next: Cell<u64>,
    values: RefCell<HashMap<u64, Rc<dyn Any>>>,
}

impl Kept {
    /// Lets go of all of them.
    pub(super) fn clear(&self) {
        let values = std::mem::take(&mut *self.values.borrow_mut());
        drop(values);
    }
}

/// A value of a loop, seen from any thread. Dropping this lets go of it on the loop's thread.
pub struct Remote<T: 'static> {
    handle: Handle,
    key: u64,
    value: PhantomData<fn() -> T>,
}

impl Local {
    /// Keeps a value for as long as the [`Remote`] lives, at most as long as the loop.
    pub fn keep<T: 'static>(&self, value: Rc<T>) -> Remote<T> {
        let kept = &self.inner().kept;
        let key = kept.next.get();
        kept.next.set(key.wrapping_add(1));
        kept.values.borrow_mut().insert(key, value);
        Remote { handle: self.handle(), key, value: PhantomData }
    }
}

impl<T: 'static> Remote<T> {
    /// The value; `None` on another loop than its own.
    pub fn get(&self, local: &Local) -> Option<Rc<T>> {
        if !self.handle.is_of(local) {
            return None;
        }
        let value = local.inner().kept.values.borrow().get(&self.key).cloned();
        value?.downcast().ok()
    }

    /// Lets go of the value now; on its own loop.
    pub fn release(&self, local: &Local) {
        if self.handle.is_of(local) {
            let value = local.inner().kept.values.borrow_mut().remove(&self.key);
            drop(value);
        }
    }

    /// Its loop.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl<T: 'static> Drop for Remote<T> {
    fn drop(&mut self) {
        let key = self.key;
        self.handle.post(move |local| {
            let value = local.inner().kept.values.borrow_mut().remove(&key);
            drop(value);
        });
    }
}
