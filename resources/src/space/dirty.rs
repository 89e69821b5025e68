//! Who writes guest RAM without marking its pages: devices whose work the host's kernel does. Each
//! has a log of its own, which is asked together with the hypervisor's.
//!
//! Called on the thread that copies RAM; a device adds its log on the main thread. Lock: a leaf
//! mutex around the list, not held while a log is called.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// A record of what somebody else writes to guest RAM.
pub trait DirtyLog: Send + Sync {
    /// Begins or ends to record: what is written after this has returned is in the record.
    ///
    /// # Errors
    /// Why that is not possible.
    fn log(&self, on: bool) -> Result<(), String>;

    /// Marks in RAM's bitmaps what was written since the last call, and forgets it.
    fn harvest(&self);
}

/// All of them that there are, and whether they record.
#[derive(Default)]
pub(super) struct Logs {
    all: Mutex<(bool, Vec<Weak<dyn DirtyLog>>)>,
}

impl Logs {
    /// Adds one, for as long as it lives.
    pub(super) fn add(&self, log: &Arc<dyn DirtyLog>) -> Result<(), String> {
        let on = {
            let mut all = self.all.lock();
            all.1.retain(|other| other.strong_count() > 0);
            all.1.push(Arc::downgrade(log));
            all.0
        };
        if on { log.log(true) } else { Ok(()) }
    }

    /// All begin or end; if one cannot begin, none does.
    pub(super) fn log(&self, on: bool) -> Result<(), String> {
        self.all.lock().0 = on;
        let logs = self.living();
        let done = if on { logs.iter().try_for_each(|log| log.log(true)) } else { Ok(()) };
        if !on || done.is_err() {
            self.all.lock().0 = false;
            for log in &logs {
                if let Err(error) = log.log(false) {
                    tracing::error!("a record of writes to RAM does not end: {error}");
                }
            }
        }
        done
    }

    pub(super) fn harvest(&self) {
        self.living().iter().for_each(|log| log.harvest());
    }

    fn living(&self) -> Vec<Arc<dyn DirtyLog>> {
        self.all.lock().1.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fake {
        refuses: bool,
        said: Mutex<Vec<&'static str>>,
    }

    impl DirtyLog for Fake {
        fn log(&self, on: bool) -> Result<(), String> {
            self.said.lock().push(if on { "on" } else { "off" });
            if on && self.refuses { Err("no".to_owned()) } else { Ok(()) }
        }

        fn harvest(&self) {
            self.said.lock().push("harvest");
        }
    }

    #[test]
    fn all_record_or_none() {
        let logs = Logs::default();
        let [one, two] = [(); 2].map(|()| Arc::new(Fake::default()));
        logs.add(&(one.clone() as Arc<dyn DirtyLog>)).unwrap();
        logs.log(true).unwrap();
        // One that comes later records at once.
        logs.add(&(two.clone() as Arc<dyn DirtyLog>)).unwrap();
        logs.harvest();
        logs.log(false).unwrap();
        for log in [&one, &two] {
            assert_eq!(*log.said.lock(), ["on", "harvest", "off"]);
        }
        drop(two);
        let bad: Arc<dyn DirtyLog> = Arc::new(Fake { refuses: true, ..Fake::default() });
        logs.add(&bad).unwrap();
        one.said.lock().clear();
        assert_eq!(logs.log(true), Err("no".to_owned()));
        assert_eq!(*one.said.lock(), ["on", "off"]);
        drop(bad);
        logs.log(true).unwrap();
    }
}
