//! Plugging devices: from a name and properties to a device on the board, and off it again.
//!
//! The one road of `-device` and device_add. Main thread. Names and properties are a user's or a
//! client's; they are looked at in the order that clients know, and on any error nothing is left.

use std::os::fd::OwnedFd;

use devices::class::{CLASSES, Ctx, Described, Host, IoThread, Seat, Unplug};
use qmp::{ErrorClass, Event, QmpError};
use resources::class::{Class, CreateError, UnknownClass};
use resources::props::{Overrides, PropError, Props, Value};
use resources::request::Requests;
use resources::value::{ValueError, check_identifier};

use crate::chardevs::{ChardevError, Chardevs};
use crate::cli::config::Global;
use crate::cli::keyval::Pairs;
use crate::drives::Drives;
use crate::machine::Board;
use crate::machine::bus::{Bus, Plugged, SYSTEM_BUS};
use crate::nets::{Nets, numbered_fd};
use crate::objects::{Object, Objects};
use crate::qom::types;
use crate::vm::Vm;

/// What devices are made with, besides the board.
pub struct Means {
    /// What can be made.
    pub classes: &'static [Class<Ctx>],
    /// Defaults of the machine version and of `-global`.
    pub overrides: Overrides,
}

impl Default for Means {
    /// All classes, no defaults of their own.
    fn default() -> Means {
        Means { classes: CLASSES, overrides: Overrides::default() }
    }
}

/// Why a device was not plugged or unplugged.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// The id is no identifier.
    #[error(transparent)]
    Id(#[from] ValueError),
    /// Two devices cannot have one id.
    #[error("Duplicate ID '{0}' for device")]
    Duplicate(String),
    /// No driver was named.
    #[error("Parameter 'driver' is missing")]
    NoDriver,
    /// There is no such driver.
    #[error("{source}{}", did_you_mean(.source.nearest))]
    Unknown {
        /// The name and the nearest one.
        #[from]
        source: UnknownClass,
    },
    /// The name is that of a type of drivers.
    #[error("Parameter 'driver' expects non-abstract device type")]
    Abstract,
    /// It is a part of the board.
    #[error("Parameter 'driver' expects pluggable device type")]
    Part,
    /// There is no such bus.
    #[error("Bus '{0}' not found")]
    NoBus(String),
    /// There is no such device on the way to the bus, or to be unplugged.
    #[error("Device '{0}' not found")]
    NoDevice(String),
    /// The bus takes no more devices.
    #[error("Bus '{0}' is full")]
    Full(String),
    /// The device named as a bus has none.
    #[error("Device '{0}' has no child bus")]
    NoChildBus(String),
    /// The device named as a bus has several.
    #[error("Device '{0}' has multiple child busses")]
    ChildBusses(String),
    /// The bus is of another type.
    #[error("Device '{driver}' can't go on a {kind} bus")]
    WrongBus {
        /// The driver.
        driver: &'static str,
        /// The type of the bus.
        kind: &'static str,
    },
    /// The machine has no bus of the type that is needed, or none with room.
    #[error("No '{kind}' bus found for device '{driver}'")]
    NoBusOfKind {
        /// The type.
        kind: &'static str,
        /// The driver.
        driver: &'static str,
    },
    /// The bus is as the machine was made.
    #[error("Bus '{0}' does not support hotplugging")]
    NoHotplug(String),
    /// Two devices cannot have one place in the boot order.
    #[error("The bootindex {0} has already been used")]
    BootIndex(u32),
    /// The bus does not let the device go.
    #[error("{0}")]
    Stays(String),
    /// There is no loop to serve devices.
    #[error(transparent)]
    Host(#[from] ChardevError),
    /// The device is not to be had as asked for.
    #[error("{driver}: {source}{}", hint(.source))]
    Create {
        /// The driver.
        driver: &'static str,
        /// Why.
        source: CreateError,
    },
}

fn did_you_mean(word: Option<&'static str>) -> String {
    word.map(|word| format!(" (did you mean '{word}'?)")).unwrap_or_default()
}

fn hint(error: &CreateError) -> String {
    match error {
        CreateError::Prop(error) => did_you_mean(error.hint()),
        _ => String::new(),
    }
}

/// Why a `-global` is of no use: no driver has that name, or the driver lacks the property. It is
/// no error, as scripts give defaults for devices that a machine may lack.
pub fn unused(global: &Global) -> Option<String> {
    let Global { driver, property, value } = global;
    let why = match Class::find(CLASSES, driver) {
        Err(unknown) => format!("there is no such driver{}", did_you_mean(unknown.nearest)),
        Ok(class) if class.all_props().any(|prop| prop.name == property) => return None,
        Ok(_) => "the driver has no such property".to_owned(),
    };
    Some(format!("\"-global {driver}.{property}={value}\" not used: {why}"))
}

/// What clients are told, who do not want to know what they may have meant.
impl From<PlugError> for QmpError {
    fn from(error: PlugError) -> QmpError {
        match error {
            PlugError::NoDevice(_) => QmpError::new(ErrorClass::DeviceNotFound, error.to_string()),
            PlugError::Unknown { source } => QmpError::generic(source.to_string()),
            PlugError::Create { source, .. } => match source {
                CreateError::Place(_) => QmpError::generic("Device initialization failed."),
                CreateError::Prop(PropError::Unknown { name, .. }) => {
                    QmpError::generic(format!("Property '.{name}' not found"))
                }
                other => QmpError::generic(other.to_string()),
            },
            other => QmpError::generic(other.to_string()),
        }
    }
}

/// What devices are given of the host side: what has a name at this moment.
///
/// # Errors
/// When there is no loop to serve them.
pub fn host(
    requests: Requests,
    chardevs: &Chardevs,
    objects: &Objects,
    nets: &Nets,
    drives: &Drives,
) -> Result<Host, ChardevError> {
    let mut host = Host {
        chardevs: chardevs.finder(),
        network: nets.network().clone(),
        drives: drives.iter().map(|drive| (drive.id().to_owned(), drive.clone())).collect(),
        ..Host::new(requests, chardevs.io()?)
    };
    for entry in objects.iter() {
        let id = entry.id().to_owned();
        match &entry.object {
            Object::Rng(rng) => drop(host.rngs.insert(id, rng.clone())),
            Object::IoThread(thread) => {
                let (handle, hold) = (thread.handle.clone(), thread.clone());
                host.iothreads.insert(id, IoThread { handle, hold });
            }
            Object::Memory(_) | Object::Secret(_) | Object::TlsCreds(_) => {}
        }
    }
    Ok(host)
}

/// Makes a device and puts it on its bus, in its power-on state; returns its place in the list of
/// devices. `given` are `driver`, `id`, `bus` and its properties, of which the first that is wrong
/// is told. `hot`: the machine is made already.
///
/// # Errors
/// See [`PlugError`], whose order is that of the checks.
pub fn plug<'a>(
    board: &mut Board,
    given: &[(&'a str, &'a str)],
    means: &Means,
    host: Host,
    hot: bool,
) -> Result<usize, PlugError> {
    let get = |key| given.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value);
    if let Some(id) = get("id") {
        check_identifier("id", id)?;
        if board.devices.iter().any(|device| device.id() == Some(id)) {
            return Err(PlugError::Duplicate(id.to_owned()));
        }
    }
    let driver = get("driver").ok_or(PlugError::NoDriver)?;
    if types::is_abstract_device(driver) {
        return Err(PlugError::Abstract);
    }
    if types::is_cpu(driver) {
        return Err(PlugError::Part);
    }
    let class = Class::find(means.classes, driver)?;
    let create = |source| PlugError::Create { driver: class.name, source };
    if class.create.is_none() {
        return Err(PlugError::Part);
    }
    let bus = find_bus(board, class, get("bus"))?;
    if hot && bus.hotplug.is_none() {
        return Err(PlugError::NoHotplug(bus.name.clone()));
    }
    let (bus, seat) = (bus.name.clone(), bus.seat.clone());
    // What else is wrong with the properties is told by the maker.
    if let Ok(props) = class.props(&means.overrides, given.iter().copied())
        && let Some(index) = boot_index(&props)
        && board.devices.iter().any(|other| boot_index(&other.props) == Some(index))
    {
        return Err(PlugError::BootIndex(index));
    }
    let serials = board.devices.iter().filter(|other| other.class.name == "isa-serial").count();
    let mut context = Ctx {
        memory: board.memory.clone(),
        ports: board.ports.clone(),
        ram: board.guest_memory(),
        wires: board.wires.clone(),
        routes: board.routes.clone(),
        clock: board.clock.clone(),
        balloon: board.balloon.clone(),
        host,
        seat,
        new_buses: Vec::new(),
        gpe: board.acpi.is_some().then(|| board.gpe.clone()).flatten(),
        present: board.devices.iter().map(|other| other.class.name).collect(),
        aml: Described::default(),
        serials: u32::try_from(serials).unwrap_or(u32::MAX),
        anonymous: board.anonymous,
    };
    let (device, props) =
        class.create(&means.overrides, given.iter().copied(), &mut context).map_err(create)?;
    board.anonymous = context.anonymous;
    if let Some(acpi) = &mut board.acpi {
        acpi.devices.extend(context.aml.devices);
        acpi.events.extend(context.aml.events);
    }
    device.lock().reset();
    for mut new in context.new_buses {
        if new.name.is_empty() {
            let number = board.buses.iter().filter(|bus| bus.kind == new.kind).count();
            new.name = format!("{}.{number}", new.kind.to_ascii_lowercase());
        }
        if !hot && new.hotplug.is_none() {
            new.hotplug = board.hotplug_behind(&new.seat);
        }
        board.buses.push(Bus::of_device(new, device.name()));
    }
    board.devices.push(Plugged { device, class, props, bus, hotplugged: hot });
    Ok(board.devices.len() - 1)
}

/// A device's place in the boot order, if it has been given one.
fn boot_index(props: &Props) -> Option<u32> {
    let (_, value) = props.iter().find(|(name, _)| *name == "bootindex")?;
    match value? {
        Value::Uint(index) => u32::try_from(*index).ok(),
        _ => None,
    }
}

/// Makes the devices of `-device`, in order.
///
/// # Errors
/// The first that cannot be made.
pub fn plug_all(
    board: &mut Board,
    devices: &[Pairs],
    means: &Means,
    host: &Host,
) -> Result<(), PlugError> {
    devices.iter().try_for_each(|pairs| {
        let given: Vec<_> = pairs.iter().collect();
        give_fds(host, &given, |name| numbered_fd(name).ok());
        plug(board, &given, means, host.clone(), false).map(drop)
    })
}

/// Finds the descriptors that properties name; the device says so if there is none.
fn give_fds(host: &Host, given: &[(&str, &str)], mut find: impl FnMut(&str) -> Option<OwnedFd>) {
    let names = given.iter().filter(|(key, _)| *key == "vhostfd").map(|(_, name)| *name);
    let found = names.filter_map(|name| Some((name.to_owned(), find(name)?)));
    host.fds.lock().extend(found);
}

/// The bus that a device goes on: the one named by a path, or the first with room.
fn find_bus<'a>(
    board: &'a Board,
    class: &'static Class<Ctx>,
    path: Option<&str>,
) -> Result<&'a Bus, PlugError> {
    let (kind, driver) = (class.bus, class.name);
    let Some(path) = path else {
        let fits = |bus: &&Bus| bus.kind == kind && !board.is_full(bus);
        return board.buses.iter().find(fits).ok_or(PlugError::NoBusOfKind { kind, driver });
    };
    let bus = bus_by_path(board, path)?;
    if bus.kind != kind {
        return Err(PlugError::WrongBus { driver, kind: bus.kind });
    }
    Ok(bus)
}

/// Walks a path of buses and devices in turn. It begins with the name of any bus, or with `/` for
/// the system bus; a device is found by id, type or alias and stands for its only bus at the end.
fn bus_by_path<'a>(board: &'a Board, path: &str) -> Result<&'a Bus, PlugError> {
    let no_bus = |name: &str| PlugError::NoBus(name.to_owned());
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let first = if path.starts_with('/') { Some(SYSTEM_BUS) } else { parts.next() };
    let first = first.unwrap_or_default();
    let mut bus = board.bus(first).ok_or_else(|| no_bus(first))?;
    while let Some(name) = parts.next() {
        let called: [fn(&Plugged, &str) -> bool; 3] = [
            |device, name| device.id() == Some(name),
            |device, name| device.class.name == name,
            |device, name| device.class.aliases.contains(&name),
        ];
        let device =
            called.iter().find_map(|is| board.on_bus(&bus.name).rev().find(|d| is(d, name)));
        let device = device.ok_or_else(|| PlugError::NoDevice(name.to_owned()))?;
        let mut buses = board.buses_of(device.name());
        bus = match parts.next() {
            Some(name) => buses.find(|bus| bus.name == name).ok_or_else(|| no_bus(name))?,
            None => match (buses.next(), buses.next()) {
                (Some(bus), None) => bus,
                (None, _) => return Err(PlugError::NoChildBus(name.to_owned())),
                (Some(_), Some(_)) => return Err(PlugError::ChildBusses(name.to_owned())),
            },
        };
    }
    if board.is_full(bus) {
        return Err(PlugError::Full(bus.name.clone()));
    }
    Ok(bus)
}

impl Vm {
    /// Adds a device while the machine exists.
    ///
    /// # Errors
    /// As [`plug`].
    pub fn plug(&mut self, given: &[(&str, &str)]) -> Result<(), PlugError> {
        let requests: Requests = self.mailbox().clone();
        let host = host(requests, &self.chardevs, &self.objects, &self.nets, &self.drives)?;
        let (monitor, named) = (self.context.monitor, &mut self.named_fds);
        give_fds(&host, given, |name| match monitor.and_then(|by| named.take(by, name)) {
            Some(fd) => Some(fd),
            None => numbered_fd(name).ok(),
        });
        let index = plug(&mut self.board, given, &self.means, host, true)?;
        let Some(plugged) = self.board.devices.get(index) else { return Ok(()) };
        if self.is_active() {
            plugged.lock().start();
        }
        let (device, name) = (plugged.device.clone(), plugged.bus.clone());
        let bus = self.board.buses.iter_mut().find(|bus| bus.name == name);
        if let Some(hotplug) = bus.and_then(|bus| bus.hotplug.as_mut()) {
            hotplug.plugged(&device);
        }
        Ok(())
    }

    /// Has a device go, of this id or at this path: at once, or when the guest lets it.
    ///
    /// # Errors
    /// There is no such device, or its bus or the device itself does not support it.
    pub fn unplug(&mut self, id: &str) -> Result<(), PlugError> {
        let named = |device: &&Plugged| device.id() == Some(id) || device.name() == id;
        let found = self.board.devices.iter().find(named);
        let plugged = found.ok_or_else(|| PlugError::NoDevice(id.to_owned()))?;
        let (device, name) = (plugged.device.clone(), plugged.bus.clone());
        let bus = self.board.buses.iter_mut().find(|bus| bus.name == name);
        let Some(hotplug) = bus.and_then(|bus| bus.hotplug.as_mut()) else {
            return Err(PlugError::NoHotplug(name));
        };
        if hotplug.unplug(&device).map_err(PlugError::Stays)? == Unplug::Now {
            self.unplugged(device.name());
        }
        Ok(())
    }

    /// A device is gone for the guest: it leaves the machine, those behind it first, and clients
    /// are told.
    pub fn unplugged(&mut self, path: &str) {
        let behind: Vec<String> = (self.board.buses_of(path))
            .flat_map(|bus| self.board.on_bus(&bus.name).rev())
            .map(|device| device.name().to_owned())
            .collect();
        behind.iter().for_each(|path| self.unplugged(path));
        let Some(index) = self.board.devices.iter().position(|device| device.name() == path) else {
            return;
        };
        let gone = self.board.devices.remove(index);
        let drives = self.drives.attached();
        self.board.buses.retain(|bus| bus.owner.as_deref() != Some(path));
        // From here on no access reaches it, so that it can be stopped while the guest runs.
        gone.mark_dead();
        for space in [&self.board.memory, &self.board.ports] {
            if let Err(error) = space.unmap_device(&gone.device) {
                tracing::error!("unplug of {path}: {error}");
            }
        }
        if self.is_active() {
            gone.lock().stop();
        }
        gone.lock().unplug();
        self.drives.device_gone(&drives);
        let device = gone.id().map(str::to_owned);
        self.context.raise(Event::DeviceDeleted { device, path: path.to_owned() });
    }

    /// Tells clients of the trays that the guest opened or closed.
    pub fn trays_moved(&mut self) {
        for bus in &self.board.buses {
            if let Seat::Scsi(bus) = &bus.seat {
                for (device, tray_open) in bus.take_trays() {
                    self.context.raise(Event::DeviceTrayMoved { device, tray_open });
                }
            }
        }
    }

    /// Tells clients of the virtio serial ports that programs of the guest opened or closed.
    pub fn ports_changed(&mut self) {
        for bus in &self.board.buses {
            if let Seat::VirtioSerial(ports) = &bus.seat {
                for (id, open) in ports.take_changes() {
                    self.context.raise(Event::VserportChange { id, open });
                }
            }
        }
    }
}
