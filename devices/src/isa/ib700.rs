//! The watchdog of iBASE's ib700 board.
//!
//! - Region 0: 1 byte, port 0x441: a write stops it.
//! - Region 1: 1 byte, port 0x443: a write starts it anew; the low four bits N of the value give
//!   30 - 2 N seconds.
//!
//! When it runs out it asks the machine for what is to be done then, and stops.
//!
//! Runs on vCPU threads (registers) and the I/O thread (timer) under the device's mutex. A hostile
//! guest can have it run out at once, as often as it starts it: the mailbox keeps one request.

use std::sync::{Arc, Weak};

use resources::class::Class;
use resources::clock::{Clock, Timer};
use resources::device::{At, Device, DeviceCell, DeviceRef};
use resources::request::{Request, Requests};
use resources::space::Mapping;
use resources::state::{Blob, StateError};

use crate::class::Ctx;

/// The region that stops it.
pub const STOP: u16 = 0;
/// The port of region [`STOP`].
pub const STOP_PORT: u64 = 0x441;
/// The region that starts it.
pub const START: u16 = 1;
/// The port of region [`START`].
pub const START_PORT: u64 = 0x443;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// The longest time, in seconds.
const LONGEST: u64 = 30;
const LONGEST_NANOS: u64 = LONGEST * NANOS_PER_SECOND;

/// The device.
pub struct Ib700 {
    timer: Timer,
    requests: Requests,
    regs: state::Registers,
}

impl Ib700 {
    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "ib700",
        aliases: &[],
        bus: "ISA",
        description: "iBASE 700 watchdog",
        props: &[],
        base: &[],
        create: Some(|props, ctx| {
            let path = ctx.path(props);
            let device: DeviceRef = Ib700::new(&path, &ctx.clock, ctx.host.requests.clone());
            for (port, region) in [(STOP_PORT, STOP), (START_PORT, START)] {
                let mapped = ctx.ports.map(Mapping::device(port, 1, device.clone(), region));
                mapped.inspect_err(|_| drop(ctx.ports.unmap_device(&device)))?;
            }
            Ok(device)
        }),
    };

    /// A watchdog that does not run.
    pub fn new(name: &str, clock: &Arc<Clock>, requests: Requests) -> Arc<DeviceCell<Ib700>> {
        DeviceCell::new_cyclic(name, |weak: &Weak<DeviceCell<Ib700>>| {
            let weak = weak.clone();
            let timer = clock.timer(move || {
                if let Some(cell) = weak.upgrade() {
                    cell.lock().ring();
                }
            });
            Ib700 { timer, requests, regs: state::Registers::default() }
        })
    }

    fn ring(&mut self) {
        if self.regs.deadline.is_some_and(|deadline| self.timer.now() >= deadline) {
            self.regs.deadline = None;
            self.requests.request(Request::Watchdog);
        }
    }

    fn set(&mut self, deadline: Option<u64>) {
        self.regs.deadline = deadline;
        match deadline {
            Some(deadline) => self.timer.arm(deadline),
            None => self.timer.cancel(),
        }
    }
}

impl Device for Ib700 {
    fn read(&mut self, _: At, _: &mut [u8]) {}

    fn write(&mut self, at: At, data: &[u8]) {
        let Some(value) = data.first() else { return };
        match at.region {
            START => {
                let seconds = LONGEST.saturating_sub(u64::from(value & 0xf) << 1);
                let time = seconds.saturating_mul(NANOS_PER_SECOND);
                self.set(Some(self.timer.now().saturating_add(time)));
            }
            _ => self.set(None),
        }
    }

    fn reset(&mut self) {
        self.set(None);
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: state::Registers = blob.parse(1, &[])?;
        // No guest can set it further ahead.
        let latest = self.timer.now().saturating_add(LONGEST_NANOS);
        self.set(regs.deadline.map(|deadline| deadline.min(latest)));
        Ok(())
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        /// When it runs out, in nanoseconds of virtual time, if it runs.
        pub(super) deadline: Option<u64>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Requested;

    struct Rig {
        cell: Arc<DeviceCell<Ib700>>,
        clock: Arc<Clock>,
        requests: Arc<Requested>,
    }

    impl Rig {
        fn new() -> Rig {
            let (clock, requests) = (Clock::new(), Arc::new(Requested::default()));
            let cell = Ib700::new("ib700", &clock, requests.clone());
            Rig { cell, clock, requests }
        }

        fn write(&self, region: u16, value: u8) {
            self.cell.lock().write(At { region, offset: 0 }, &[value]);
        }

        /// Whether it ran out by this second.
        fn out(&self, second: u64) -> bool {
            self.clock.step_to(second * NANOS_PER_SECOND);
            let requests = self.requests.take();
            assert!(requests.iter().all(|request| *request == Request::Watchdog));
            assert!(requests.len() < 2);
            !requests.is_empty()
        }
    }

    #[test]
    fn it_runs_out_when_it_is_not_started_anew() {
        let rig = Rig::new();
        rig.write(START, 0);
        assert!(!rig.out(29));
        rig.write(START, 0xfd);
        assert!(!rig.out(32) && rig.out(33));
        // It has stopped.
        assert!(!rig.out(100));
        rig.write(START, 0xf);
        assert!(rig.out(100), "at once");
    }

    #[test]
    fn it_is_stopped_by_its_port_and_by_reset() {
        let rig = Rig::new();
        for stop in [0, 1] {
            rig.write(START, 10);
            match stop {
                0 => rig.write(STOP, 0),
                _ => rig.cell.lock().reset(),
            }
            assert_eq!(rig.clock.next_deadline(), None);
        }
    }

    #[test]
    fn it_goes_on_after_a_load_and_never_longer_than_it_can() {
        let (old, new) = (Rig::new(), Rig::new());
        old.write(START, 5);
        assert!(!old.out(7));
        new.clock.set(7 * NANOS_PER_SECOND);
        new.cell.lock().load(&old.cell.lock().save().unwrap()).unwrap();
        assert!(!new.out(19) && new.out(20));
        let regs = state::Registers { deadline: Some(u64::MAX) };
        new.cell.lock().load(&Blob::new(1, &regs).unwrap()).unwrap();
        assert!(!new.out(49) && new.out(50));
    }
}
