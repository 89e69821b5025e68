//! A machine on the fake hypervisor, for unit tests of commands and of what they stand on.

use std::sync::Arc;

use devices::chardev::{Backend, Chardev, Null};
use devices::class::{Ctx, Hotplug, Unplug};
use devices::isa::debug::PostCode;
use devices::isa::rtc;
use parking_lot::Mutex;
use qmp::ErrorClass;
use resources::class::{Class, CreateError};
use resources::device::{At, Device, DeviceCell, DeviceRef, LiveProp};
use resources::hv::fake::Fake;
use resources::iol::{Loop, Notify};
use resources::props::{Kind, Overrides, Prop, Value};
use resources::ram::{Ram, RamConfig};
use resources::request::Requests;
use resources::space::Mapping;
use resources::state::{Blob, StateError};
use serde_json::Value as Json;

use crate::chardevs::Chardevs;
use crate::cpu::topology::Topology;
use crate::machine::bus::Bus;
use crate::machine::{Accel, Boot, pc};
use crate::mailbox::Mailbox;
use crate::plug::Means;
use crate::vm::{Policy, Vm};

/// A `pc` with the bus `test.0` for up to three devices that come and go, on which sits a `hub`
/// with the bus `hub.0`; COM1 on the chardev `com`, and the chardevs `c0` and `c1`.
pub(crate) struct Rig {
    pub(crate) vm: Vm,
    /// What the bus was told.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
    _chardevs: Loop,
}

/// Classes of the bus `test.0`, and those of a `pc`'s.
static CLASSES: &[Class<Ctx>] = &[
    devices::isa::serial::Serial::CLASS,
    devices::isa::debug::DebugCon::CLASS,
    devices::isa::i8042::I8042::CLASS,
    Class {
        name: "test-thing",
        aliases: &["thing"],
        bus: "Test",
        description: "A thing for tests",
        props: &[
            Prop { name: "level", kind: Kind::U8(0, 9), default: Some("1"), help: "how high" },
            Prop { name: "port", kind: Kind::Hex32(0, 0xffff), default: None, help: "its port" },
            Prop { name: "chardev", kind: Kind::Chardev, default: None, help: "its other side" },
            Prop { name: "way", kind: Kind::Enum(&["up", "down"]), default: None, help: "which" },
            Prop { name: "fast", kind: Kind::Bool, default: Some("off"), help: "at once" },
        ],
        base: &[],
        create: Some(|props, ctx| {
            let thing = Thing { mood: 5, running: false };
            let thing: DeviceRef = DeviceCell::new(&ctx.path(props), thing);
            if props.get::<Option<&str>>("chardev")?.is_some() {
                ctx.chardev(props, "chardev", "")?;
            }
            if props.get::<u8>("level")? == 9 {
                return Err(CreateError::Other("Device initialization failed.".to_owned()));
            }
            if let Some(port) = props.get("port")? {
                ctx.ports.map(Mapping::device(port, 1, thing.clone(), 0))?;
            }
            Ok(thing)
        }),
    },
];

struct Thing {
    mood: i64,
    running: bool,
}

impl Device for Thing {
    fn read(&mut self, _: At, data: &mut [u8]) {
        data.fill(u8::from(self.running));
    }
    fn write(&mut self, _: At, _: &[u8]) {}
    fn reset(&mut self) {}
    fn start(&mut self) {
        self.running = true;
    }
    fn stop(&mut self) {
        self.running = false;
    }
    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &())
    }
    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        blob.parse(1, &[])
    }
    fn live_props(&self) -> &'static [LiveProp] {
        &[LiveProp { name: "mood", type_name: "int", settable: true }]
    }
    fn live_value(&self, _: &str) -> Option<Value> {
        Some(Value::Int(self.mood))
    }
    fn set_live(&mut self, name: &str, value: &Value) -> Result<(), String> {
        self.mood = match value {
            Value::Uint(mood @ ..10) => *mood as i64,
            Value::Uint(_) | Value::Int(_) => return Err("the mood is out of range".to_owned()),
            _ => return Err(format!("Invalid parameter type for '{name}', expected: integer")),
        };
        Ok(())
    }
}

/// Devices with an id go at once, those without when the guest lets them; `stuck` stays.
struct Ports(Arc<Mutex<Vec<String>>>);

impl Hotplug for Ports {
    fn plugged(&mut self, device: &DeviceRef) {
        self.0.lock().push(format!("+{}", device.name()));
    }

    fn unplug(&mut self, device: &DeviceRef) -> Result<Unplug, String> {
        self.0.lock().push(format!("-{}", device.name()));
        match device.name() {
            name if name.ends_with("stuck") => Err("Device 'stuck' is stuck".to_owned()),
            name if name.contains("slow") => Ok(Unplug::Asked),
            _ => Ok(Unplug::Now),
        }
    }
}

impl Rig {
    pub(crate) fn new() -> Rig {
        let on = Loop::new("chardevs").unwrap();
        let open = |label| Chardev::open(label, Backend::Null(Null), &on.handle()).unwrap();
        let topology = Topology::parse::<&str, &str>([]).unwrap();
        let mailbox = Mailbox::new(Notify::new());
        let config = pc::PcConfig {
            ram: Ram::new(&RamConfig { size: 1 << 20, ..RamConfig::default() }).unwrap(),
            topology: &topology,
            serials: vec![open("com")],
            debugcon: None,
            rtc: (rtc::Source::Virtual, 1_000_000_000),
            boot: Boot::Nothing,
            overrides: &Overrides::default(),
        };
        let requests: Requests = mailbox.clone();
        let mut board = pc::build(Accel::Qtest(Fake::unrecorded()), config, &requests).unwrap();
        board.machine = "pc-i440fx-2.0";
        let told = Arc::new(Mutex::default());
        let mut bus = Bus::new("test.0", "Test", Some("/machine/piix3"));
        bus.room = 3;
        bus.hotplug = Some(Box::new(Ports(Arc::clone(&told))));
        board.buses.push(bus);
        board.devices.push(PostCode::new("/machine/hub").into());
        board.buses.push(Bus::new("hub.0", "Hub", Some("/machine/hub")));
        let mut vm = Vm::new(board, Vec::new(), mailbox, Policy::default());
        vm.means = Means { classes: CLASSES, ..Means::default() };
        vm.chardevs = Chardevs::new(on.handle(), vm.mailbox(), None);
        for id in ["c0", "c1"] {
            vm.chardevs.hot_add(id, Backend::Null(Null)).unwrap();
        }
        Rig { vm, told, _chardevs: on }
    }

    /// Runs a command; an error is its text, after its class if that is not the usual one.
    pub(crate) fn run(&mut self, command: &str, arguments: &str) -> Result<Json, String> {
        let arguments = serde_json::from_str(arguments).unwrap();
        qmp::dispatch(&mut self.vm, command, arguments).map_err(|error| match error.class {
            ErrorClass::GenericError => error.desc,
            class => format!("{class:?}: {}", error.desc),
        })
    }

    /// Runs a command that fails.
    pub(crate) fn error(&mut self, command: &str, arguments: &str) -> String {
        match self.run(command, arguments) {
            Err(text) => text,
            Ok(reply) => panic!("{command} {arguments} -> {reply}"),
        }
    }

    /// The value of a property.
    pub(crate) fn get(&mut self, path: &str, property: &str) -> Json {
        let arguments = serde_json::json!({"path": path, "property": property});
        self.run("qom-get", &arguments.to_string()).unwrap()
    }

    /// The events raised since the last call, without their times.
    pub(crate) fn events(&mut self) -> Vec<Json> {
        let events = std::mem::take(&mut self.vm.context.events);
        let without_time = |event: &qmp::event::Raised| {
            let mut message = event.message();
            message.as_object_mut().unwrap().remove("timestamp");
            message
        };
        events.iter().map(without_time).collect()
    }
}
