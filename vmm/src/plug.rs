//! Plugging devices: from a name and properties to a device on the board.
//!
//! Main thread. Names and properties are a user's or a client's; the class table checks them.

use devices::class::{CLASSES, Ctx, FindChardev};
use resources::class::Class;
use resources::props::Overrides;
use resources::request::Requests;

use crate::cli::config::Global;
use crate::cli::keyval::Pairs;
use crate::machine::Board;

/// Why a device was not plugged.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// No driver was named.
    #[error("Parameter 'driver' is missing")]
    NoDriver,
    /// There is no such driver.
    #[error("{source}{}", did_you_mean(.source.nearest))]
    Unknown {
        /// The name and the nearest one.
        #[from]
        source: resources::class::UnknownClass,
    },
    /// The device is not to be had as asked for.
    #[error("{driver}: {source}{}", hint(.source))]
    Create {
        /// The driver.
        driver: &'static str,
        /// Why.
        source: resources::class::CreateError,
    },
    /// Two devices cannot have one id.
    #[error("Duplicate ID '{0}' for device")]
    Duplicate(String),
}

fn did_you_mean(word: Option<&'static str>) -> String {
    word.map(|word| format!(" (did you mean '{word}'?)")).unwrap_or_default()
}

fn hint(error: &resources::class::CreateError) -> String {
    match error {
        resources::class::CreateError::Prop(error) => did_you_mean(error.hint()),
        _ => String::new(),
    }
}

/// Why a `-global` is of no use: no driver has that name, or the driver lacks the property. It is
/// no error, as scripts give defaults for devices that a machine may lack.
pub fn unused(global: &Global) -> Option<String> {
    let Global { driver, property, value } = global;
    let why = match Class::find(CLASSES, driver) {
        Err(unknown) => format!("there is no such driver{}", did_you_mean(unknown.nearest)),
        Ok(class) if class.props.iter().any(|prop| prop.name == property) => return None,
        Ok(_) => "the driver has no such property".to_owned(),
    };
    Some(format!("\"-global {driver}.{property}={value}\" not used: {why}"))
}

/// Makes the devices of `-device`, in order.
///
/// # Errors
/// The first that cannot be made.
pub fn plug_all(
    board: &mut Board,
    devices: &[Pairs],
    overrides: &Overrides,
    requests: &Requests,
    chardevs: FindChardev,
) -> Result<(), PlugError> {
    let serials = board.devices.iter().filter(|d| d.name().starts_with("/machine/serial")).count();
    let mut context = Ctx {
        memory: board.memory.clone(),
        ports: board.ports.clone(),
        wires: board.wires.clone(),
        clock: board.clock.clone(),
        requests: requests.clone(),
        chardevs,
        serials: serials as u32,
        anonymous: 0,
    };
    for pairs in devices {
        let class = Class::find(CLASSES, pairs.get("driver").ok_or(PlugError::NoDriver)?)?;
        let device = class
            .create(overrides, pairs.iter(), &mut context)
            .map_err(|source| PlugError::Create { driver: class.name, source })?;
        if board.devices.iter().any(|other| other.name() == device.name()) {
            return Err(PlugError::Duplicate(pairs.id().unwrap_or_default().to_owned()));
        }
        board.devices.push(device);
    }
    Ok(())
}
