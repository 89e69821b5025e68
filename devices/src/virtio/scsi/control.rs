//! The control queue: managing tasks, and asynchronous notifications (section 5.6.6.2).
//!
//! On the adapter's loop, no lock. A command that waits, for a limit or between its pieces, is
//! ended. What the host is at is never cancelled, as its buffers are the kernel's: who asks for its
//! end waits for it, and it ends as it would have. A hostile guest reaches this with any request.

use std::rc::Rc;

use resources::iol::{Either, race};

use super::adapter::parse_lun;
use super::request::{ABORTED, RESET, Serve};
use crate::scsi::{Attention, Place};
use crate::virtio::{Broken, Chain, Worker};

/// Responses.
const COMPLETE: u8 = 0;
const BAD_TARGET: u8 = 3;
const SUCCEEDED: u8 = 10;
const REJECTED: u8 = 11;
const INCORRECT_LUN: u8 = 12;

/// Requests.
const MANAGE: u32 = 0;
const QUERY: u32 = 1;
const SUBSCRIBE: u32 = 2;

/// What is to be done with tasks.
#[derive(Clone, Copy, Debug)]
enum Manage {
    /// They are to end: of a target, of one of its units, with a tag.
    End { lun: Option<u16>, tag: Option<u64>, reset: bool },
    /// Whether there are some.
    Query { lun: u16, tag: Option<u64> },
}

/// Serves the queue until the device stops.
pub(super) async fn serve(serve: Rc<Serve>, worker: Rc<Worker>) {
    while let Some(chain) = worker.next().await {
        let kind = chain.reader().le32();
        match kind {
            Ok(MANAGE) => {
                let Some(response) = manage(&serve, &worker, &chain).await else {
                    return worker.put_back(chain);
                };
                answer(&worker, chain, &[response]);
            }
            // Nothing is notified asynchronously: none of the events asked for.
            Ok(QUERY | SUBSCRIBE) => {
                let lun = chain.reader().array::<12>().ok().and_then(|head| {
                    let [_, _, _, _, lun @ ..] = head;
                    parse_lun(lun)
                });
                let there = lun.is_some_and(|place| serve.bus.unit(place).is_some());
                let response = if there { COMPLETE } else { BAD_TARGET };
                answer(&worker, chain, &[0, 0, 0, 0, response]);
            }
            _ => worker.fail(chain, Broken::Request("a SCSI control request makes no sense")),
        }
    }
}

fn answer(worker: &Worker, chain: Chain, bytes: &[u8]) {
    let mut writer = chain.writer();
    match writer.write_all(bytes) {
        Ok(()) => {
            let written = writer.written();
            worker.done(chain, written);
        }
        Err(_) => worker.fail(chain, Broken::Request("a SCSI control request without room")),
    }
}

/// The response; `None` if the device stops meanwhile.
async fn manage(serve: &Serve, worker: &Worker, chain: &Chain) -> Option<u8> {
    let mut reader = chain.reader();
    reader.skip(4);
    let parsed = (|| {
        let subtype = reader.le32().ok()?;
        Some((subtype, reader.array::<8>().ok()?, reader.le64().ok()?))
    })();
    let Some((subtype, lun, tag)) = parsed else { return Some(REJECTED) };
    let Some(Place { target, lun }) = parse_lun(lun) else { return Some(BAD_TARGET) };
    let units = serve.bus.units_of(target);
    if units.is_empty() {
        return Some(BAD_TARGET);
    }
    let whole_target = subtype == 4;
    if !whole_target && !units.iter().any(|(other, _)| *other == lun) {
        return Some(INCORRECT_LUN);
    }
    let one = Some(lun);
    let what = match subtype {
        0 => Manage::End { lun: one, tag: Some(tag), reset: false },
        // ABORT TASK SET, CLEAR TASK SET.
        1 | 3 => Manage::End { lun: one, tag: None, reset: false },
        4 => Manage::End { lun: None, tag: None, reset: true },
        5 => Manage::End { lun: one, tag: None, reset: true },
        6 => Manage::Query { lun, tag: Some(tag) },
        7 => Manage::Query { lun, tag: None },
        _ => return Some(REJECTED),
    };
    match what {
        Manage::Query { lun, tag } => {
            let there = !serve.tasks.find(target, Some(lun), tag).is_empty();
            Some(if there { SUCCEEDED } else { COMPLETE })
        }
        Manage::End { lun, tag, reset } => {
            // Those that come meanwhile go on.
            let tasks = serve.tasks.find(target, lun, tag);
            tasks.iter().for_each(|task| task.cancel(if reset { RESET } else { ABORTED }));
            while !tasks.iter().all(|task| task.has_ended()) {
                let ended = serve.tasks.ended.notified();
                if let Either::Left(()) = race(worker.stopped(), ended).await {
                    return None;
                }
            }
            if reset {
                let of = units.iter().filter(|(other, _)| lun.is_none_or(|lun| lun == *other));
                for (_, drive) in of {
                    drive.unit().attend(Attention::Reset);
                    drive.unit().unlock();
                }
            }
            Some(COMPLETE)
        }
    }
}
