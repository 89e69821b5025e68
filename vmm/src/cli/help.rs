//! The text of `-help`, made from the table. Pure; any thread, no lock.

use super::keyval::{Keys, Kind};
use super::table::{Arg, OPTIONS, Opt, Section};
use std::fmt::Write as _;

/// Where the explanations begin.
const COLUMN: usize = 30;

/// The longest line, in characters.
const WIDTH: usize = 100;

/// The text of `-version`, one line. Tools look for `version X.Y.Z` in it to know which options
/// and commands they may use, so the first such is the version of the interface.
pub fn version() -> String {
    format!(
        "vmm {}, compatible with QEMU emulator version {INTERFACE_VERSION}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The text of `-version -v`: also how much of QMP there is.
pub fn version_verbose() -> String {
    let (implemented, all) = (qmp::implemented(), qmp::EXPECTED.len());
    format!("{}commands of the schema implemented: {implemented} / {all}\n", version())
}

/// The version of QEMU whose command line and QMP this program speaks.
pub const INTERFACE_VERSION: &str = "1.7.50";

/// The text of `-help`.
pub fn help() -> String {
    let mut text = version();
    text.push_str("usage: vmm [-OPTION [ARGUMENT]]...    (--OPTION is the same)\n");
    for section in Section::ALL {
        let _ = writeln!(text, "\n{}:", section.title());
        for opt in OPTIONS.iter().filter(|opt| opt.section == section) {
            option(&mut text, opt);
        }
    }
    text.push_str(
        "\nDEV is none, null, stdio, pty, file:PATH, pipe:PATH, unix:PATH[,server][,nowait],\n\
         tcp:[HOST]:PORT[,server][,nowait], udp:[HOST]:PORT[@[OWN]:PORT], vc[:WIDTHxHEIGHT],\n\
         msmouse, /dev/ttyS0, mon:DEV or chardev:ID.\n\
         SIZE has a suffix K, M, G or T. A comma in a VALUE is written twice.\n\
         Example: vmm -m 512 -kernel bzImage -append console=ttyS0 -qmp unix:/run/vm.sock\n",
    );
    text
}

fn option(text: &mut String, opt: &Opt) {
    let mut usage = format!("-{}", opt.name);
    for alias in opt.aliases {
        let _ = write!(usage, ", -{alias}");
    }
    match opt.arg {
        Arg::None => {}
        Arg::Path(arg) | Arg::Text(arg) => {
            let _ = write!(usage, " {arg}");
        }
        Arg::Keys(first, keys) => {
            usage.push_str(&arguments(first, keys));
        }
    }
    row(text, 2, &usage, opt.help);
    if let Arg::Keys(_, keys) = opt.arg {
        for key in keys.keys {
            let value = match key.kind {
                Kind::String => "TEXT".to_owned(),
                Kind::Boolean => "on|off".to_owned(),
                Kind::Number => "N".to_owned(),
                Kind::Size => "SIZE".to_owned(),
                Kind::OneOf(words) => words.join("|"),
            };
            row(text, 6, &format!("{}={value}", key.name), key.help);
        }
    }
}

/// How parameters are written after an option, with the space before.
fn arguments(first: &str, keys: &Keys) -> String {
    match keys.implied {
        Some(implied) => format!(" [{implied}=]{first}[,KEY=VALUE]..."),
        None => " KEY=VALUE[,KEY=VALUE]...".to_owned(),
    }
}

/// One usage and its explanation, which is wrapped and begins on a line of its own if the usage is
/// too long.
fn row(text: &mut String, indent: usize, usage: &str, help: &str) {
    let _ = write!(text, "{:indent$}{usage}", "");
    let mut at = indent + usage.chars().count();
    if at + 2 > COLUMN {
        text.push('\n');
        at = 0;
    }
    let _ = write!(text, "{:pad$}", "", pad = COLUMN - at);
    at = COLUMN;
    for (i, word) in help.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && at + 1 + length > WIDTH {
            let _ = write!(text, "\n{:COLUMN$}", "");
            at = COLUMN;
        } else if i > 0 {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_and_parameter_is_explained_and_fits() {
        let text = help();
        for opt in OPTIONS {
            assert!(text.contains(&format!("  -{}", opt.name)), "-{}", opt.name);
            assert!(text.contains(opt.help.split(' ').next().unwrap()));
            assert!(!opt.help.is_empty());
        }
        assert!(text.contains("      maxcpus=N "));
        assert!(text.contains("clock=host|rt|vm"));
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "too long: {line}");
            assert_eq!(line, line.trim_end(), "space at the end: {line}");
        }
    }

    #[test]
    fn the_version_can_be_found_by_tools() {
        let text = version();
        let (_, after) = text.split_once("version ").unwrap();
        let number = after.trim_end();
        assert_eq!(number, INTERFACE_VERSION);
        assert_eq!(number.split('.').filter(|n| n.parse::<u32>().is_ok()).count(), 3);
        assert_eq!(text.lines().count(), 1);
    }
}
