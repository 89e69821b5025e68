//! Which serial and monitor devices there are when the command line does not say.
//!
//! A pure function of the options and of whether standard input is a terminal.

use super::config::Config;
use super::keyval::Pairs;

/// The devices to make: what was asked for, and the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consoles {
    /// Character devices to make besides those of `-chardev`.
    pub chardevs: Vec<Pairs>,
    /// Device strings of COM1 and on.
    pub serials: Vec<String>,
    /// Device strings of human monitors.
    pub monitors: Vec<String>,
}

/// The label of the default COM1's character device.
const COM1: &str = "serial0";

/// Decides on the serial ports and human monitors.
///
/// COM1 is there unless `-serial`, a serial `-device` or `-nodefaults` says otherwise. It is on
/// the terminal if there is one and nobody else uses it, shared with the monitor (Ctrl-a c) or with
/// nobody, so that Ctrl-c reaches the guest and Ctrl-a x quits; otherwise what it sends is lost.
/// With `-nographic`, COM1 and the monitor are on standard input and output even if those are not
/// a terminal.
pub fn consoles(config: &Config, stdin_is_tty: bool) -> Consoles {
    let mut out = Consoles {
        chardevs: Vec::new(),
        serials: config.serials.clone(),
        monitors: config.monitors.clone(),
    };
    let serial = default_serial(config);
    let monitor = default_monitor(config);
    let usable = !config.daemonize && !uses_stdio(config);
    let terminal = usable && stdin_is_tty;
    if serial && monitor && usable && (terminal || config.nographic) {
        out.serials.push("mon:stdio".to_owned());
    } else if serial && terminal {
        out.chardevs.push(Pairs::from_iter([
            ("backend", "stdio"),
            ("id", COM1),
            ("mux", "on"),
            ("signal", "off"),
        ]));
        out.serials.push(format!("chardev:{COM1}"));
    } else if serial && usable && config.nographic {
        out.serials.push("stdio".to_owned());
    } else if serial {
        out.serials.push("null".to_owned());
    } else if monitor && usable && config.nographic {
        out.monitors.push("stdio".to_owned());
    }
    out
}

/// Whether COM1 was left to us.
pub(super) fn default_serial(config: &Config) -> bool {
    !config.serial_given && !config.nodefaults
}

/// Whether the human monitor was left to us.
pub(super) fn default_monitor(config: &Config) -> bool {
    !config.monitor_given && !config.nodefaults
}

/// Whether an option takes standard input and output.
pub(super) fn uses_stdio(config: &Config) -> bool {
    let strings = [&config.serials, &config.monitors, &config.qmp];
    strings
        .into_iter()
        .flatten()
        .chain(&config.debugcon)
        .chain(&config.qtest)
        .any(|device| is_stdio(device))
        || config.chardevs.iter().any(|pairs| pairs.get("backend") == Some("stdio"))
}

/// Whether a device string means standard input and output.
fn is_stdio(device: &str) -> bool {
    let device = device.strip_prefix("mon:").unwrap_or(device);
    device == "stdio" || device.starts_with("stdio,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(options: &str, tty: bool) -> (Vec<String>, Vec<String>, usize) {
        let config = crate::cli::tests::config(options);
        let out = consoles(&config, tty);
        (out.serials, out.monitors, out.chardevs.len())
    }

    fn is(serial: &str) -> (Vec<String>, Vec<String>, usize) {
        (vec![serial.to_owned()], vec![], 0)
    }

    #[test]
    fn com1_is_on_the_terminal_if_there_is_one() {
        assert_eq!(decide("", true), is("mon:stdio"));
        assert_eq!(decide("", false), is("null"));
        assert_eq!(decide("-daemonize", true), is("null"));
    }

    #[test]
    fn with_another_monitor_com1_has_the_terminal_alone_but_can_be_quit() {
        for options in ["-qmp unix:/run/vm.sock", "-monitor none", "-qmp unix:/x -nographic"] {
            let config = crate::cli::tests::config(options);
            let out = consoles(&config, true);
            assert_eq!(out.serials, ["chardev:serial0"]);
            assert!(out.monitors.is_empty());
            assert_eq!(out.chardevs.len(), 1);
            let pairs = &out.chardevs[0];
            assert_eq!(pairs.get("backend"), Some("stdio"));
            assert_eq!(pairs.id(), Some("serial0"));
            assert_eq!(pairs.get("mux"), Some("on"));
            assert_eq!(pairs.get("signal"), Some("off"));
        }
    }

    #[test]
    fn what_was_asked_for_stands_in_for_the_default() {
        assert_eq!(decide("-serial file:/tmp/x", true), is("file:/tmp/x"));
        assert_eq!(decide("-serial none", true), (vec![], vec![], 0));
        assert_eq!(decide("-nodefaults", true), (vec![], vec![], 0));
        assert_eq!(decide("-nodefaults -nographic", true), (vec![], vec![], 0));
        assert_eq!(decide("-nodefaults -serial pty", true), is("pty"));
        assert_eq!(
            decide("-chardev null,id=a -device isa-serial,chardev=a", true),
            (vec![], vec![], 0)
        );
    }

    #[test]
    fn nographic_uses_stdio_without_a_terminal() {
        assert_eq!(decide("-nographic", false), is("mon:stdio"));
        assert_eq!(decide("-nographic -monitor none", false), is("stdio"));
        assert_eq!(
            decide("-nographic -serial null", false),
            (vec!["null".to_owned()], vec!["stdio".to_owned()], 0)
        );
    }

    #[test]
    fn the_terminal_is_used_once() {
        assert_eq!(decide("-qmp stdio", true), is("null"));
        assert_eq!(decide("-chardev stdio,id=a -mon a", true), is("null"));
        assert_eq!(
            decide("-nographic -monitor stdio", true),
            (vec!["null".to_owned()], vec!["stdio".to_owned()], 0)
        );
        assert_eq!(decide("-nographic -debugcon stdio", true), is("null"));
    }
}
