//! What the tests of tools stand on.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use resources::iol::{Local, Loop};

use super::console::Console;

/// Runs a task on a loop of its own.
pub(crate) fn run<R>(task: impl AsyncFnOnce(Local) -> R) -> R {
    let mut the_loop = Loop::new("test").unwrap();
    let local = the_loop.local().clone();
    the_loop.run(task(local))
}

/// Hears what a tool says.
#[derive(Default, Clone)]
pub(crate) struct Heard {
    out: Sink,
    err: Sink,
}

#[derive(Default, Clone)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Heard {
    pub(crate) fn console(&self) -> Console {
        Console::to("tool", Box::new(self.out.clone()), Box::new(self.err.clone()))
    }

    /// What it said on standard output since the last call.
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.out.0.take()).unwrap()
    }

    /// On standard error.
    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.err.0.take()).unwrap()
    }
}
