//! How a port is made by name. Main thread; the properties are the user's.

use resources::class::{Class, CreateError};
use resources::props::{Kind, Prop, Value};

use super::{COM, SIZE, Serial, connect};
use crate::class::Ctx;
use crate::isa::NullBackend;

impl Serial {
    /// How one is made by name.
    pub const CLASS: Class<Ctx> = Class {
        name: "isa-serial",
        aliases: &[],
        bus: "ISA",
        description: "16550A serial port",
        props: &[
            Prop { name: "chardev", kind: Kind::Chardev, default: None, help: "its other side" },
            Prop {
                name: "index",
                kind: Kind::U32(0, u32::MAX),
                default: None,
                help: "which COM port, from 0; by default the next one",
            },
            Prop {
                name: "iobase",
                kind: Kind::Hex32(0, 0xffff),
                default: None,
                help: "first I/O port; by default that of the COM port",
            },
            Prop {
                name: "irq",
                kind: Kind::U32(0, 15),
                default: None,
                help: "ISA interrupt; by default that of the COM port",
            },
            Prop {
                name: "wakeup",
                kind: Kind::U32(0, u32::MAX),
                default: Some("0"),
                help: "other than 0: input wakes the guest from its sleep",
            },
        ],
        base: &[],
        create: Some(|props, ctx| {
            let missing = "Can't create serial device, empty char device";
            let chardev = ctx.chardev(props, "chardev", missing)?;
            let index = props.get::<Option<u32>>("index")?.unwrap_or(ctx.serials);
            let com =
                usize::try_from(index).ok().and_then(|index| COM.get(index)).ok_or_else(|| {
                    let most = COM.len();
                    let why = format!("Max. supported number of ISA serial ports is {most}.");
                    CreateError::Other(why)
                })?;
            let base = props.get::<Option<u64>>("iobase")?.unwrap_or(com.0);
            let irq = props.get::<Option<u32>>("irq")?.unwrap_or(com.1);
            let line = ctx.irq(irq)?;
            let wakeup = props.get::<u32>("wakeup")? != 0;
            let port = Serial::new(&ctx.path(props), line, &ctx.clock, Box::new(NullBackend));
            port.lock().wakes = wakeup.then(|| ctx.host.requests.clone());
            connect(&port, chardev.clone())
                .map_err(|error| CreateError::Other(error.to_string()))?;
            let device = ctx.map_ports(base, SIZE, port).inspect_err(|_| chardev.detach())?;
            ctx.serials = ctx.serials.saturating_add(1);
            props.fill("index", Value::Uint(index.into()));
            props.fill("iobase", Value::Uint(base));
            props.fill("irq", Value::Uint(irq.into()));
            Ok(device)
        }),
    };
}
