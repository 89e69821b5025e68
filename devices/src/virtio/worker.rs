//! A task on an I/O loop that serves queues.
//!
//! A device gives its ports to [`Running::start`] with a function that serves them; the function
//! takes chains by [`Worker::next`] and gives them back by [`Worker::done`], at once or from tasks
//! of its own. When the device stops, `next` ends with `None`, and once every chain that was taken
//! has come back, the ports do too.
//!
//! Thread: `Worker` stays on its loop; `Running` may be anywhere. No lock. A guest that makes
//! buffers available without end gets no more than [`TURN`] of them before the loop looks at
//! everything else; a device that does much for one buffer says so by [`Worker::piece_done`].

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::task::{Poll, Waker};

use resources::iol::{Direction, Either, Handle, Local, Notify, Watch, race};
use vmm_sys_util::eventfd::EventFd;

use super::port::Port;
use super::queue::{Broken, Chain, Queue};

/// Chains taken from one queue, and pieces of their work done, before the loop turns.
pub const TURN: u32 = 64;

/// Ports that a task on a loop is serving.
pub struct Running {
    stop: Notify,
    back: Receiver<Vec<Port>>,
}

impl Running {
    /// Has `serve` run on a loop with a [`Worker`] for each port. It must return when
    /// [`Worker::next`] says that the device stops.
    pub fn start<F>(
        on: &Handle,
        ports: Vec<Port>,
        serve: impl FnOnce(Vec<Rc<Worker>>) -> F + Send + 'static,
    ) -> Running
    where
        F: Future<Output = ()> + 'static,
    {
        let stop = Notify::new();
        let (send, back) = sync_channel(1);
        let asked = stop.clone();
        on.spawn(move |local| async move {
            let workers: Vec<_> =
                ports.into_iter().map(|port| Rc::new(Worker::new(&local, port))).collect();
            let serving = async {
                serve(workers.clone()).await;
                for worker in &workers {
                    worker.drained().await;
                }
            };
            let stopping = async {
                asked.notified().await;
                workers.iter().for_each(|worker| worker.ask_stop());
                std::future::pending::<()>().await;
            };
            race(serving, stopping).await;
            let ports = workers.iter().filter_map(|worker| worker.take()).collect();
            // Whoever started it may have gone without waiting.
            let _ = send.send(ports);
        });
        Running { stop, back }
    }

    /// As [`start`](Self::start) for one port whose chains are served one after the other:
    /// `handle` returns how many bytes it has written, or why it cannot go on.
    pub fn each(
        on: &Handle,
        port: Port,
        mut handle: impl FnMut(&Chain) -> Result<u32, Broken> + Send + 'static,
    ) -> Running {
        Running::start(on, vec![port], move |workers| async move {
            for worker in workers {
                while let Some(chain) = worker.next().await {
                    match handle(&chain) {
                        Ok(written) => worker.done(chain, written),
                        Err(why) => worker.fail(chain, why),
                    }
                }
            }
        })
    }

    /// Asks the task to stop, without waiting.
    pub fn ask_stop(&self) {
        self.stop.notify();
    }

    /// Stops the task and waits for the ports; none come back from a loop that has ended. Not
    /// from the loop's own thread.
    pub fn stop(self) -> Vec<Port> {
        self.ask_stop();
        self.back.recv().unwrap_or_default()
    }

    /// Stops several, all at the same time.
    pub fn stop_all(all: impl IntoIterator<Item = Running>) -> Vec<Port> {
        let all: Vec<_> = all.into_iter().collect();
        all.iter().for_each(Running::ask_stop);
        all.into_iter().flat_map(Running::stop).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.notify();
    }
}

/// One port while it is served. Stays on the loop that serves it.
pub struct Worker {
    local: Local,
    index: u16,
    /// Until the ports go back.
    port: RefCell<Option<Port>>,
    kick: RefCell<Option<Rc<Watch<Arc<EventFd>>>>>,
    stopping: Cell<bool>,
    /// Who waits for the stop, or for the last chain after it.
    waiting: RefCell<Vec<Waker>>,
    /// Chains taken and pieces done since the loop last turned.
    taken: Cell<u32>,
    /// Chains were taken since the driver was last waited for.
    worked: Cell<bool>,
}

impl Worker {
    fn new(local: &Local, port: Port) -> Worker {
        let kick = match local.watch(port.kick.clone()) {
            Ok(watch) => Some(Rc::new(watch)),
            Err(error) => {
                // The queue is then served only when it is started.
                tracing::error!("cannot watch the kicks of a virtqueue: {error}");
                None
            }
        };
        Worker {
            local: local.clone(),
            index: port.index,
            port: RefCell::new(Some(port)),
            kick: RefCell::new(kick),
            stopping: Cell::new(false),
            waiting: RefCell::default(),
            taken: Cell::new(0),
            worked: Cell::new(false),
        }
    }

    /// The loop it is served on.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The queue's number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Works on the queue itself; `None` after the ports went back.
    pub fn queue<R>(&self, work: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        self.port.borrow_mut().as_mut().map(|port| work(&mut port.queue))
    }

    /// Works on the port; `None` after it went back.
    pub fn port<R>(&self, work: impl FnOnce(&mut Port) -> R) -> Option<R> {
        self.port.borrow_mut().as_mut().map(work)
    }

    /// The next chain, when there is one; `None` when the device stops. A broken queue has no
    /// more chains.
    pub async fn next(&self) -> Option<Chain> {
        loop {
            self.turn().await;
            if self.stopping.get() {
                return None;
            }
            if let Some(chain) = self.try_next() {
                return Some(chain);
            }
            self.kicked().await;
        }
    }

    /// A piece of what one chain asks for was done: for chains that make much work. It counts as
    /// much as a chain does until the loop turns; the device may have been asked to stop then.
    pub async fn piece_done(&self) {
        self.taken.set(self.taken.get().saturating_add(1));
        self.turn().await;
    }

    /// Lets the loop turn, if it is time.
    async fn turn(&self) {
        if self.taken.get() >= TURN {
            self.taken.set(0);
            self.local.yield_now().await;
        }
    }

    /// Lets the driver make more chains available before it has to kick for them: what was taken
    /// begins, and ends if its data are at hand; then, where a vCPU shares the processor with the
    /// loop, it has its turn. Without this a driver there has each request answered before it
    /// makes the next one, and pays for a kick each time, however deep its queue is.
    async fn let_driver_run(&self) {
        self.local.turned().await;
        std::thread::yield_now();
    }

    /// The next chain, if there is one now.
    pub fn try_next(&self) -> Option<Chain> {
        let chain = self.queue(|queue| queue.pop().ok().flatten()).flatten();
        if chain.is_some() {
            self.taken.set(self.taken.get().saturating_add(1));
            self.worked.set(true);
        }
        chain
    }

    /// Waits until the driver may have made chains available, or the device stops. Returns at once
    /// when there are chains already, and after chains were taken the driver has a chance to make
    /// more before it is waited for.
    pub async fn kicked(&self) {
        if self.worked.replace(false) {
            return self.let_driver_run().await;
        }
        match self.queue(Queue::enable_notification) {
            Some(Ok(false)) => {
                let kick = self.kick.borrow().clone();
                match kick {
                    Some(kick) => {
                        let read = kick.io(Direction::Read, |fd| fd.read());
                        if let Either::Right(Err(error)) = race(self.stopped(), read).await {
                            tracing::error!("cannot read the kicks of a virtqueue: {error}");
                            self.stopped().await;
                        }
                    }
                    None => self.stopped().await,
                }
            }
            Some(Ok(true)) => {}
            Some(Err(_)) | None => self.stopped().await,
        }
        self.queue(|queue| queue.disable_notification().ok());
    }

    /// Gives a chain back with `written` bytes written to it, and interrupts the driver if it
    /// wants that.
    pub fn done(&self, chain: Chain, written: u32) {
        self.with(|port| {
            // A failure is latched in the queue, and the driver knows.
            if port.queue.push(chain, written).is_ok() {
                port.signal();
            }
        });
    }

    /// Gives back chains that the driver is to see all at once, each with the bytes written to it.
    pub fn done_together(&self, chains: impl IntoIterator<Item = (Chain, u32)>) {
        self.with(|port| {
            for (chain, written) in chains {
                let _ = port.queue.add(chain, written);
            }
            if port.queue.publish().is_ok() {
                port.signal();
            }
        });
    }

    /// Keeps a chain for when the device goes on; see [`Queue::put_back`].
    pub fn put_back(&self, chain: Chain) {
        self.with(|port| port.queue.put_back(chain));
    }

    /// The request in `chain` makes no sense: the queue is broken, the driver is told.
    pub fn fail(&self, chain: Chain, why: Broken) {
        self.with(|port| {
            port.queue.fail(why);
            let _ = port.queue.push(chain, 0);
        });
    }

    fn with(&self, work: impl FnOnce(&mut Port)) {
        if let Some(port) = self.port.borrow_mut().as_mut() {
            work(port);
        }
        if self.stopping.get() {
            self.wake();
        }
    }

    /// Whether the device stops.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Completes when the device stops. Any number of tasks may wait.
    pub async fn stopped(&self) {
        self.until(|| self.stopping.get()).await;
    }

    /// Completes when no chain that was taken is still out. Only while stopping.
    async fn drained(&self) {
        self.until(|| self.queue(|queue| queue.in_flight() == 0).unwrap_or(true)).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn ask_stop(&self) {
        self.stopping.set(true);
        self.wake();
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn take(&self) -> Option<Port> {
        // The watch first: the descriptor may be watched anew as soon as the port is back.
        self.kick.borrow_mut().take();
        self.port.borrow_mut().take()
    }
}

#[cfg(test)]
mod tests;
