//! The ports: virtconsole and virtserialport.
//!
//! A port has no registers. Behind its mutex: that it is there, on the main thread only. What a
//! guest or peer reaches of it is in `bus.rs` and `slot.rs`.

use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::device::{At, Device, DeviceCell, DeviceRef};
use resources::props::{Kind, Prop, Props, Value};
use resources::state::{Blob, StateError, invalid};

use super::bus::{KIND, SerialBus};
use super::slot::Plug;
use crate::class::Ctx;

const VERSION: u16 = 1;

/// The longest name of a port, in bytes, as the guest's buffers for messages have room.
const MAX_NAME: usize = 1024;

const PROPS: &[Prop] = &[
    Prop {
        name: "chardev",
        kind: Kind::Chardev,
        default: None,
        help: "the character device it is connected to",
    },
    Prop {
        name: "nr",
        kind: Kind::U32(0, u32::MAX),
        default: None,
        help: "its number, by default the first that is free",
    },
    Prop { name: "name", kind: Kind::Str, default: None, help: "by which the guest finds it" },
];

/// A port in its place.
pub struct SerialPort {
    bus: Arc<SerialBus>,
    number: u32,
}

impl SerialPort {
    /// `-device virtconsole`.
    pub const CONSOLE: Class<Ctx> = Class {
        name: "virtconsole",
        aliases: &[],
        bus: KIND,
        description: "Console on a virtio-serial bus",
        props: PROPS,
        base: &[],
        create: Some(|props, ctx| SerialPort::create(props, ctx, true)),
    };

    /// `-device virtserialport`.
    pub const STREAM: Class<Ctx> = Class {
        name: "virtserialport",
        aliases: &[],
        bus: KIND,
        description: "Stream on a virtio-serial bus",
        props: PROPS,
        base: &[],
        create: Some(|props, ctx| SerialPort::create(props, ctx, false)),
    };

    fn create(props: &mut Props, ctx: &mut Ctx, console: bool) -> Result<DeviceRef, CreateError> {
        let bus = super::seat(ctx)?;
        let name = props.get::<Option<&str>>("name")?.map(str::to_owned);
        if name.as_ref().is_some_and(|name| name.len() > MAX_NAME) {
            let text = format!("the name of a port has at most {MAX_NAME} bytes");
            return Err(CreateError::Other(text));
        }
        let chardev = match props.get::<Option<&str>>("chardev")? {
            Some(_) => Some(ctx.chardev(props, "chardev", "")?),
            None => None,
        };
        // What everything but a number of this size means, by a convention of old.
        let wanted = props.get::<Option<u32>>("nr")?.filter(|nr| *nr != u32::MAX);
        let number = bus.choose(wanted, console)?;
        let id = props.id().map(str::to_owned);
        bus.plug(number, Plug { id, name, console, chardev })?;
        props.fill("nr", Value::Uint(number.into()));
        Ok(DeviceCell::new(&ctx.path(props), SerialPort { bus, number }))
    }
}

impl Device for SerialPort {
    fn read(&mut self, _: At, _: &mut [u8]) {}

    fn write(&mut self, _: At, _: &[u8]) {}

    fn reset(&mut self) {
        // The bus resets its ports.
    }

    fn save(&self) -> Result<Blob, StateError> {
        match self.bus.slot(self.number) {
            Some(slot) => Blob::new(VERSION, &slot.save()),
            None => Err(invalid("a serial port without a place")),
        }
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        match self.bus.slot(self.number) {
            Some(slot) => slot.load(blob.parse(VERSION, &[])?),
            None => Err(invalid("a serial port without a place")),
        }
    }

    fn unplug(&mut self) {
        self.bus.unplug(self.number);
    }
}
