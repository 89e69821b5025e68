//! A device behind its transport, with its driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::{Driver, Used, memory, wait};
use crate::virtio::transport::{self, Offer, Transport, Wires};
use crate::virtio::{VirtioDevice, feature};

/// Interrupt wires that nothing is connected to: messages by default.
#[derive(Default)]
pub(crate) struct TestWires {
    /// The pin is used instead of messages.
    pub(crate) pin_only: AtomicBool,
    pub(crate) pin: AtomicBool,
    /// Messages that were sent.
    pub(crate) sent: Mutex<Vec<u16>>,
    lock: Mutex<()>,
    changed: Condvar,
}

impl TestWires {
    /// Waits until `done` says so, looked at after each interrupt and now and then.
    pub(crate) fn wait<R>(&self, mut done: impl FnMut() -> Option<R>) -> R {
        wait(&self.lock, &self.changed, &mut done)
    }
}

impl TestWires {
    /// Waits until exactly these messages were sent, in any order.
    pub(crate) fn wait_sent(&self, expected: &[u16]) {
        self.wait(|| {
            let mut sent = self.sent.lock().clone();
            sent.sort_unstable();
            (sent == expected).then_some(())
        });
    }
}

impl Wires for TestWires {
    fn messages_on(&self) -> bool {
        !self.pin_only.load(Ordering::SeqCst)
    }

    fn messages(&self) -> u16 {
        32
    }

    fn send(&self, vector: u16) {
        self.sent.lock().push(vector);
        let _lock = self.lock.lock();
        self.changed.notify_all();
    }

    fn set_pin(&self, high: bool) {
        self.pin.store(high, Ordering::SeqCst);
        let _lock = self.lock.lock();
        self.changed.notify_all();
    }
}

/// Offsets in the common configuration.
pub(crate) mod common {
    pub(crate) const DEVICE_SELECT: u64 = 0;
    pub(crate) const DEVICE_FEATURES: u64 = 4;
    pub(crate) const DRIVER_SELECT: u64 = 8;
    pub(crate) const DRIVER_FEATURES: u64 = 12;
    pub(crate) const CONFIG_VECTOR: u64 = 16;
    pub(crate) const QUEUES: u64 = 18;
    pub(crate) const STATUS: u64 = 20;
    pub(crate) const GENERATION: u64 = 21;
    pub(crate) const QUEUE: u64 = 22;
    pub(crate) const SIZE: u64 = 24;
    pub(crate) const VECTOR: u64 = 26;
    pub(crate) const ENABLE: u64 = 28;
    pub(crate) const DESC: u64 = 32;
    pub(crate) const DRIVER: u64 = 40;
    pub(crate) const DEVICE: u64 = 48;
}

/// A device behind its transport, and the driver that operates both.
pub(crate) struct Machine {
    pub(crate) transport: Transport,
    pub(crate) wires: Arc<TestWires>,
    /// One for each queue; of use once the driver is [ready](Self::ready).
    pub(crate) drivers: Vec<Driver>,
}

impl Machine {
    /// A running machine whose guest has no driver yet.
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Machine {
        let mut machine = Machine::stopped(device);
        machine.transport.start();
        machine
    }

    /// A machine that was never started.
    pub(crate) fn stopped(device: Box<dyn VirtioDevice>) -> Machine {
        let (memory, wires) = (memory(), Arc::new(TestWires::default()));
        let spec = device.spec();
        let kicks = transport::kicks(spec.queues.len()).unwrap();
        let drivers = (0..)
            .zip(&kicks)
            .map(|(index, kick)| {
                let size = spec.queues[usize::from(index)].min(64);
                let mut driver = Driver::beside(memory.clone(), Arc::default(), index, size, 0);
                driver.kick = kick.clone();
                driver
            })
            .collect();
        let offer = Offer { packed: true, ..Offer::default() };
        let transport = Transport::new("test", device, offer, memory, wires.clone(), kicks);
        Machine { transport, wires, drivers }
    }

    /// Reads a register of the common configuration.
    pub(crate) fn read(&self, offset: u64, len: usize) -> u64 {
        let mut data = [0xff; 8];
        self.transport.read_common(offset, &mut data[..len]);
        resources::device::value_of(&data[..len])
    }

    /// Writes a register of the common configuration.
    pub(crate) fn write(&mut self, offset: u64, len: usize, value: u64) {
        self.transport.write_common(offset, &value.to_le_bytes()[..len]);
    }

    /// What the device offers.
    pub(crate) fn offered(&mut self) -> u64 {
        self.write(common::DEVICE_SELECT, 4, 1);
        let high = self.read(common::DEVICE_FEATURES, 4);
        self.write(common::DEVICE_SELECT, 4, 0);
        high << 32 | self.read(common::DEVICE_FEATURES, 4)
    }

    /// The driver takes these features; whether the device agrees.
    pub(crate) fn negotiate(&mut self, features: u64) -> bool {
        self.write(common::STATUS, 1, 0);
        self.write(common::STATUS, 1, 3);
        self.write(common::DRIVER_SELECT, 4, 0);
        self.write(common::DRIVER_FEATURES, 4, features & 0xffff_ffff);
        self.write(common::DRIVER_SELECT, 4, 1);
        self.write(common::DRIVER_FEATURES, 4, features >> 32);
        self.write(common::STATUS, 1, 0xb);
        for driver in &mut self.drivers {
            driver.restart(features);
        }
        self.read(common::STATUS, 1) == 0xb
    }

    /// The driver takes these features (and VERSION_1), sets up all queues, each with the message
    /// of its number plus one, and is ready.
    pub(crate) fn ready(&mut self, features: u64) {
        assert!(self.negotiate(features | feature::VERSION_1));
        self.write(common::CONFIG_VECTOR, 2, 0);
        for index in 0..self.drivers.len() {
            let layout = self.drivers[index].layout;
            self.write(common::QUEUE, 2, index as u64);
            self.write(common::SIZE, 2, layout.size.into());
            self.write(common::VECTOR, 2, index as u64 + 1);
            self.write(common::DESC, 8, layout.desc);
            self.write(common::DRIVER, 4, layout.driver);
            self.write(common::DRIVER + 4, 4, 0);
            self.write(common::DEVICE, 8, layout.device);
            self.write(common::ENABLE, 2, 1);
        }
        self.write(common::STATUS, 1, 0xf);
    }

    /// Waits for a chain to come back on a queue.
    pub(crate) fn wait_used(&mut self, queue: usize) -> Used {
        let wires = self.wires.clone();
        let driver = &mut self.drivers[queue];
        wires.wait(|| driver.used())
    }

    /// Sends a request and waits for it.
    pub(crate) fn request(&mut self, queue: usize, readable: &[&[u8]], room: &[u32]) -> Used {
        let id = self.drivers[queue].send(readable, room);
        let used = self.wait_used(queue);
        assert_eq!(used.id, id);
        used
    }

    /// Waits until the device says that it needs a reset.
    pub(crate) fn wait_needs_reset(&self) {
        self.wires.wait(|| (self.transport.status() & 0x40 != 0).then_some(()));
    }

    /// Reads the device's own configuration.
    pub(crate) fn config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0xff; N];
        self.transport.read_config(offset, &mut data);
        data
    }

    /// Stops the machine, moves its state to another with the same device, made anew, and goes on
    /// there.
    pub(crate) fn move_to(mut self, device: Box<dyn VirtioDevice>) -> Machine {
        self.transport.stop();
        let saved = self.transport.save().unwrap();
        let mut other = Machine::stopped(device);
        // The RAM is the same one.
        let kicks = other.transport.kicks().to_vec();
        for (driver, kick) in self.drivers.iter_mut().zip(kicks) {
            driver.kick = kick;
        }
        other.transport.set_memory(self.drivers[0].memory.clone());
        other.drivers = self.drivers;
        other.transport.load(&saved).unwrap();
        let again = other.transport.save().unwrap();
        assert_eq!(saved, again, "what was loaded is saved as it was");
        other.transport.start();
        other
    }
}
