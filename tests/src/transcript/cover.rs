//! What the transcripts leave out of what a machine says it can do.
//!
//! Any thread; no lock.

use std::collections::BTreeSet;

use qmp::CommandSpec;
use qmp::check::{Arg, Kind};

use super::script::{Exchange, Script};

/// Commands that cannot succeed, or not in a transcript, and why.
const NO_SUCCESS: &[(&str, &str)] = &[
    ("client_migrate_info", "built without SPICE"),
    ("device_add", "the machine of the transcripts has no bus for it"),
    ("device_del", "for the same reason"),
];

/// Events that nothing causes in a machine without a guest, and why.
const NOT_YET: &[(&str, &str)] = &[
    ("BALLOON_CHANGE", "a driver of the guest is needed"),
    ("BLOCK_IMAGE_CORRUPTED", "a guest has to write to the damaged image"),
    ("BLOCK_IO_ERROR", "a driver of the guest is needed"),
    ("DEVICE_DELETED", "the guest has to let the device go"),
    ("DEVICE_TRAY_MOVED", "a medium that a guest can hold is needed"),
    ("NIC_RX_FILTER_CHANGED", "a driver of the guest is needed"),
    ("SPICE_CONNECTED", "built without SPICE"),
    ("SPICE_DISCONNECTED", "built without SPICE"),
    ("SPICE_INITIALIZED", "built without SPICE"),
    ("SPICE_MIGRATE_COMPLETED", "built without SPICE"),
    ("VNC_CONNECTED", "no displays"),
    ("VNC_DISCONNECTED", "no displays"),
    ("VNC_INITIALIZED", "no displays"),
    ("VSERPORT_CHANGE", "a driver of the guest is needed"),
];

/// What `scripts` lack for these commands and events, one line each; also reasons above that
/// are none any more.
pub fn gaps(scripts: &[Script], commands: &[&CommandSpec], events: &[&str]) -> Vec<String> {
    let exchanges: Vec<Exchange> = scripts.iter().flat_map(Script::exchanges).collect();
    let mut gaps = Vec::new();
    for spec in commands {
        let own: Vec<_> = exchanges.iter().filter(|e| e.command == spec.name).collect();
        let mut lacks = |what: &str| gaps.push(format!("{}: no transcript of {what}", spec.name));
        let succeeds = own.iter().any(|exchange| exchange.error.is_none());
        match NO_SUCCESS.iter().find(|(name, _)| *name == spec.name) {
            None if !succeeds => lacks("a success"),
            Some(_) if succeeds => lacks("why it cannot succeed: it does"),
            _ => {}
        }
        let unfit = NO_SUCCESS.iter().any(|(name, _)| *name == spec.name);
        if !unfit && !own.iter().any(|exchange| is_unknown(exchange, spec)) {
            lacks("an unknown argument");
        }
        let mandatory = spec.args.iter().filter(|arg| !arg.optional);
        for arg in mandatory {
            let text = format!("Parameter '{}' is missing", arg.name);
            // A list that is left out of a command with members of its own is one of a wrong type.
            let told = |exchange: &Exchange| {
                exchange.error.as_ref() == Some(&text)
                    || !exchange.arguments.contains_key(arg.name) && is_mistyped(exchange, arg)
            };
            if !own.iter().any(|exchange| told(exchange)) {
                lacks(&format!("a missing '{}'", arg.name));
            }
        }
        for arg in spec.args.iter().filter(|arg| arg.kind != Kind::Any) {
            if !own.iter().any(|exchange| is_mistyped(exchange, arg)) {
                lacks(&format!("a '{}' of a wrong type", arg.name));
            }
        }
    }
    let told: BTreeSet<&str> = scripts.iter().flat_map(Script::events).collect();
    for event in events {
        match NOT_YET.iter().any(|(name, _)| name == event) {
            false if !told.contains(event) => gaps.push(format!("no transcript of {event}")),
            true if told.contains(event) => gaps.push(format!("{event} can occur by now")),
            _ => {}
        }
    }
    gaps
}

/// Whether it tells what becomes of an argument that the command does not know: most refuse it by
/// its name, some look the other way.
fn is_unknown(exchange: &Exchange, spec: &CommandSpec) -> bool {
    let known = |name: &str| spec.args.iter().any(|arg| arg.name == name);
    let told = |name: &str| exchange.error.as_ref().is_none_or(|error| error.contains(name));
    exchange.arguments.keys().any(|name| !known(name) && told(name))
}

fn is_mistyped(exchange: &Exchange, arg: &Arg) -> bool {
    let Some(error) = &exchange.error else { return false };
    error.starts_with(&format!("Invalid parameter type for '{}', expected: ", arg.name))
}
