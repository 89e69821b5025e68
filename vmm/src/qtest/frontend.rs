//! The debug port on a chardev.
//!
//! Thread: the I/O loop that the chardev lives on. What arrives is only noted there and then; one
//! task runs a line at a time and lets the rest of the loop run in between. Lock: a mutex around
//! the engine, held while a command runs, so outside every device's; only this thread takes it.
//! A client that does not read its replies is not served: its input waits in the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use devices::chardev::{CharError, CharEvent, CharFrontend, Chardev};
use parking_lot::Mutex;
use resources::iol::{Handle, Local, Notify};

use super::Qtest;

struct Frontend {
    engine: Mutex<Qtest>,
    /// Counts clients coming and going, so that no reply goes to the next one.
    client: AtomicU64,
    /// Input, room for output, an interrupt change, or another client.
    wake: Notify,
    /// Lines came in, or replies go out.
    busy: AtomicBool,
}

impl CharFrontend for Frontend {
    fn can_receive(&self) -> usize {
        self.engine.lock().room()
    }

    fn receive(&self, data: &[u8]) {
        self.busy.store(true, Ordering::Release);
        self.engine.lock().push(data);
        self.wake.notify();
    }

    fn event(&self, event: CharEvent) {
        if matches!(event, CharEvent::Opened | CharEvent::Closed) {
            self.client.fetch_add(1, Ordering::Relaxed);
            self.engine.lock().disconnect();
            self.wake.notify();
        }
    }

    fn owes_output(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    fn writable(&self) {
        self.wake.notify();
    }
}

/// Serves `engine` on `chardev`, which lives on the loop `on`, until that loop ends.
///
/// # Errors
/// When the chardev has a front end already.
pub fn attach(chardev: Arc<Chardev>, on: &Handle, engine: Qtest) -> Result<(), CharError> {
    let wake = engine.changed();
    let frontend = Arc::new(Frontend {
        engine: Mutex::new(engine),
        client: 0.into(),
        wake,
        busy: false.into(),
    });
    chardev.attach(frontend.clone())?;
    on.spawn(move |local| serve(local, chardev, frontend));
    Ok(())
}

async fn serve(local: Local, chardev: Arc<Chardev>, frontend: Arc<Frontend>) {
    loop {
        let client = frontend.client.load(Ordering::Relaxed);
        let reply = {
            let mut engine = frontend.engine.lock();
            engine.run().or_else(|| Some(engine.changes()).filter(|lines| !lines.is_empty()))
        };
        let Some(reply) = reply else {
            // Input comes on this thread: none has since the engine was asked.
            frontend.busy.store(false, Ordering::Release);
            chardev.accept_input();
            frontend.wake.notified().await;
            continue;
        };
        let mut rest = reply.as_bytes();
        while frontend.client.load(Ordering::Relaxed) == client {
            let taken = chardev.write(rest);
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            frontend.wake.notified().await;
        }
        local.yield_now().await;
    }
}
