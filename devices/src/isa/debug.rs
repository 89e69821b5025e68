//! Ports for debugging: POST codes, a byte console and a way to end the process.
//!
//! - [`PostCode`], region 0: 1 byte, port 0x80.
//! - [`DebugCon`], region 0: 1 byte, port 0x402; as `isa-debugcon` by default port 0xe9.
//! - [`DebugExit`], region 0: 1 to 8 bytes, by default 2 at port 0x501 (`isa-debug-exit`).
//!
//! Runs on vCPU threads under the device's mutex. A hostile guest can make the host write what it
//! sends to the console's back end, one byte each. Of what that does not take 64 KiB are kept, and
//! the rest is lost, for the guest cannot be made to wait.

use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::device::{At, Device, DeviceCell, value_of};
use resources::props::{Kind, Prop};
use resources::request::{Request, Requests};
use resources::state::{Blob, Empty, StateError};

use super::{Attached, CharBackend, NullBackend};
use crate::chardev::{CharError, CharFrontend, Chardev};
use crate::class::Ctx;

/// Keeps the last power-on self-test code. Linux also writes here to pass time.
pub struct PostCode {
    regs: state::PostCode,
}

impl PostCode {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("post-code", "ISA", "Port for POST codes");

    /// The usual port.
    pub const PORT: u64 = 0x80;

    /// A port that reads as zero until written.
    pub fn new(name: &str) -> Arc<DeviceCell<PostCode>> {
        DeviceCell::new(name, PostCode { regs: state::PostCode::default() })
    }
}

impl Device for PostCode {
    fn read(&mut self, _: At, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.regs.code;
        }
    }

    fn write(&mut self, _: At, data: &[u8]) {
        if let Some(byte) = data.first() {
            self.regs.code = *byte;
        }
    }

    fn reset(&mut self) {
        self.regs = state::PostCode::default();
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &self.regs)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        self.regs = blob.parse(1, &[])?;
        Ok(())
    }
}

/// Writes bytes to a back end; reads as 0xe9, by which a guest knows that it is there.
pub struct DebugCon {
    backend: Box<dyn CharBackend>,
    /// What it reads as.
    readback: u8,
}

impl DebugCon {
    /// The usual port.
    pub const PORT: u64 = 0x402;

    /// A console on `backend`.
    pub fn new(name: &str, backend: Box<dyn CharBackend>) -> Arc<DeviceCell<DebugCon>> {
        DeviceCell::new(name, DebugCon { backend, readback: 0xe9 })
    }

    /// A console on a chardev; what its peer sends is discarded.
    ///
    /// # Errors
    /// When the chardev has a front end already.
    pub fn on_chardev(
        name: &str,
        chardev: Arc<Chardev>,
    ) -> Result<Arc<DeviceCell<DebugCon>>, CharError> {
        chardev.attach(Arc::new(Discard))?;
        Ok(DebugCon::new(name, Box::new(Attached(chardev))))
    }

    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "isa-debugcon",
        aliases: &[],
        bus: "ISA",
        description: "Port whose bytes go to a character device",
        props: &[
            Prop { name: "chardev", kind: Kind::Chardev, default: None, help: "where bytes go" },
            Prop {
                name: "iobase",
                kind: Kind::Hex32(0, 0xffff),
                default: Some("0xe9"),
                help: "I/O port",
            },
            Prop {
                name: "readback",
                kind: Kind::Hex8(0, 0xff),
                default: Some("0xe9"),
                help: "what the port reads as",
            },
        ],
        base: &[],
        create: Some(|props, ctx| {
            let missing = "Can't create debugcon device, empty char device";
            let chardev = ctx.chardev(props, "chardev", missing)?;
            let con = DebugCon::on_chardev(&ctx.path(props), chardev.clone())
                .map_err(|error| CreateError::Other(error.to_string()))?;
            con.lock().readback = props.get("readback")?;
            ctx.map_ports(props.get("iobase")?, 1, con).inspect_err(|_| chardev.detach())
        }),
    };
}

/// A front end that has no use for input.
struct Discard;

impl CharFrontend for Discard {
    fn can_receive(&self) -> usize {
        4096
    }

    fn receive(&self, _: &[u8]) {}
}

impl Device for DebugCon {
    fn read(&mut self, _: At, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.readback;
        }
    }

    fn write(&mut self, _: At, data: &[u8]) {
        if let Some(byte) = data.first() {
            self.backend.push(&[*byte]);
        }
    }

    fn reset(&mut self) {}

    fn unplug(&mut self) {
        self.backend = Box::new(NullBackend);
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &Empty {})
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        blob.parse::<Empty>(1, &[]).map(drop)
    }
}

/// Ends the process with status `(value << 1) | 1` when the guest writes `value`.
pub struct DebugExit {
    requests: Requests,
}

impl DebugExit {
    /// The usual port.
    pub const PORT: u64 = 0x501;
    /// The usual size of the region in bytes.
    pub const SIZE: u64 = 2;

    /// The port; it reads as zero.
    pub fn new(name: &str, requests: Requests) -> Arc<DeviceCell<DebugExit>> {
        DeviceCell::new(name, DebugExit { requests })
    }

    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "isa-debug-exit",
        aliases: &[],
        bus: "ISA",
        description: "Port that ends the process with the written value",
        props: &[
            Prop {
                name: "iobase",
                kind: Kind::Hex32(0, 0xffff),
                default: Some("0x501"),
                help: "first I/O port",
            },
            Prop {
                name: "iosize",
                kind: Kind::U32(1, 8),
                default: Some("2"),
                help: "number of I/O ports",
            },
        ],
        base: &[],
        create: Some(|props, ctx| {
            let exit = DebugExit::new(&ctx.path(props), ctx.host.requests.clone());
            ctx.map_ports(props.get("iobase")?, props.get("iosize")?, exit)
        }),
    };
}

impl Device for DebugExit {
    fn read(&mut self, _: At, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _: At, data: &[u8]) {
        let [low, ..] = value_of(data).to_le_bytes();
        // A process has eight bits of status.
        self.requests.request(Request::Exit(low << 1 | 1));
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &Empty {})
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        blob.parse::<Empty>(1, &[]).map(drop)
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct PostCode {
        pub(super) code: u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Requested, TestBackend, inb, outb};

    #[test]
    fn the_post_code_reads_back() {
        let cell = PostCode::new("post");
        outb(&mut *cell.lock(), 0, 0x5a);
        assert_eq!(inb(&mut *cell.lock(), 0), 0x5a);
    }

    #[test]
    fn the_debug_console_identifies_itself_and_writes() {
        let backend = TestBackend::new();
        let cell = DebugCon::new("debugcon", Box::new(backend.clone()));
        assert_eq!(inb(&mut *cell.lock(), 0), 0xe9);
        outb(&mut *cell.lock(), 0, b'!');
        assert_eq!(backend.0.lock().pushed, b"!");
    }

    #[test]
    fn the_exit_status_is_odd_and_has_eight_bits() {
        let requests = Arc::new(Requested::default());
        let cell = DebugExit::new("exit", requests.clone());
        outb(&mut *cell.lock(), 0, 0x10);
        cell.lock().write(At { region: 0, offset: 0 }, &[0xff, 0xff]);
        assert_eq!(requests.take(), [Request::Exit(0x21), Request::Exit(0xff)]);
        assert_eq!(inb(&mut *cell.lock(), 0), 0);
    }
}
