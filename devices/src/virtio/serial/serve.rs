//! The tasks that serve the queues: two of control, and two for each port.
//!
//! On the device's I/O loop, without the device's mutex. A hostile guest reaches it with buffers
//! of every size at every time; what it sends is copied in pieces, and a port whose chardev takes
//! no more leaves the rest in the guest's buffers.

use std::rc::Rc;
use std::sync::Arc;

use resources::guest_error;
use resources::iol::{Either, race};

use super::bus::SerialBus;
use super::control::{HEAD, Said};
use super::slot::Slot;
use crate::virtio::{Broken, Chain, Worker};

/// How much is copied at once, in bytes.
const PIECE: usize = 16 << 10;

/// What a queue is for (section 5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Input of a port.
    Receive(u32),
    /// Output of a port.
    Transmit(u32),
    /// Messages to the guest.
    ControlReceive,
    /// Messages from the guest.
    ControlTransmit,
}

impl Role {
    fn of(queue: u16) -> Role {
        let pair = u32::from(queue >> 1);
        match (queue, pair) {
            (2, _) => Role::ControlReceive,
            (3, _) => Role::ControlTransmit,
            // The pair of control comes after that of port 0.
            (_, pair) => {
                let port = if pair == 0 { 0 } else { pair.saturating_sub(1) };
                if queue & 1 == 0 { Role::Receive(port) } else { Role::Transmit(port) }
            }
        }
    }
}

/// Serves all queues until the device stops.
pub(super) async fn serve(bus: Arc<SerialBus>, path: String, workers: Vec<Rc<Worker>>) {
    let mut tasks = Vec::new();
    for worker in workers {
        let local = worker.local().clone();
        let (bus, path) = (bus.clone(), path.clone());
        tasks.push(local.spawn(async move {
            match Role::of(worker.index()) {
                Role::ControlReceive => control_receive(&bus, &worker).await,
                Role::ControlTransmit => control_transmit(&bus, &path, &worker).await,
                Role::Receive(port) => match bus.slot(port) {
                    Some(slot) => receive(slot, &worker).await,
                    None => worker.stopped().await,
                },
                Role::Transmit(port) => match bus.slot(port) {
                    Some(slot) => transmit(slot, &worker).await,
                    None => worker.stopped().await,
                },
            }
        }));
    }
    for task in tasks {
        task.await;
    }
}

async fn control_transmit(bus: &SerialBus, path: &str, worker: &Worker) {
    while let Some(chain) = worker.next().await {
        let head = chain.reader().array::<HEAD>();
        worker.done(chain, 0);
        match head.ok().and_then(Said::parse) {
            Some(said) => bus.hear(said),
            None => guest_error!(path, "a control message makes no sense"),
        }
    }
}

async fn control_receive(bus: &SerialBus, worker: &Worker) {
    let mut held = None;
    loop {
        while !bus.has_message() {
            if let Either::Left(()) = race(worker.stopped(), bus.outgoing.notified()).await {
                return put_back(worker, held);
            }
        }
        let Some(chain) = next(worker, &mut held).await else { return };
        let Some(message) = bus.next_message() else {
            // It was about a port that has gone meanwhile.
            held = Some(chain);
            continue;
        };
        let mut bytes = message.bytes();
        let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
        if room < HEAD {
            worker.fail(chain, Broken::Request("a control buffer is too short"));
            continue;
        }
        bytes.truncate(room);
        let mut writer = chain.writer();
        writer.write(&bytes);
        let written = writer.written();
        worker.done(chain, written);
    }
}

/// The chain that was not used the last time, or the next one.
async fn next(worker: &Worker, held: &mut Option<Chain>) -> Option<Chain> {
    match held.take() {
        Some(chain) => Some(chain),
        None => worker.next().await,
    }
}

fn put_back(worker: &Worker, held: Option<Chain>) {
    if let Some(chain) = held {
        worker.put_back(chain);
    }
}

async fn receive(slot: &Slot, worker: &Worker) {
    let mut held = None;
    loop {
        while !slot.has_input() {
            if let Either::Left(()) = race(worker.stopped(), slot.input.notified()).await {
                return put_back(worker, held);
            }
        }
        let Some(chain) = next(worker, &mut held).await else { return };
        if chain.writable_len() == 0 {
            worker.fail(chain, Broken::Request("a receive buffer without room"));
            continue;
        }
        let data = slot.take_input(chain.writable_len());
        if data.is_empty() {
            // The guest closed the port meanwhile.
            held = Some(chain);
            continue;
        }
        let mut writer = chain.writer();
        writer.write(&data);
        let written = writer.written();
        worker.done(chain, written);
    }
}

async fn transmit(slot: &Slot, worker: &Worker) {
    let mut piece = vec![0; PIECE];
    while let Some(chain) = worker.next().await {
        let mut reader = chain.reader();
        // What a stop interrupted goes on where it was.
        reader.skip(slot.sent());
        loop {
            let len = reader.clone().read(&mut piece);
            let data = piece.get(..len).unwrap_or_default();
            if data.is_empty() {
                break;
            }
            let taken = slot.write(data);
            reader.skip(u32::try_from(taken).unwrap_or(u32::MAX));
            if taken < len
                && let Either::Left(()) = race(worker.stopped(), slot.room.notified()).await
            {
                return worker.put_back(chain);
            }
            // Buffers are as long as the guest likes, and who takes them may be nobody.
            worker.piece_done().await;
            if worker.is_stopping() {
                return worker.put_back(chain);
            }
        }
        slot.finished();
        worker.done(chain, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        let roles: Vec<_> = (0..8).map(Role::of).collect();
        assert_eq!(
            roles,
            [
                Role::Receive(0),
                Role::Transmit(0),
                Role::ControlReceive,
                Role::ControlTransmit,
                Role::Receive(1),
                Role::Transmit(1),
                Role::Receive(2),
                Role::Transmit(2),
            ]
        );
    }
}
