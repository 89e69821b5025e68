//! Configuration files: the option language spread over lines.
//!
//! ```text
//! # a comment
//! [chardev "mon0"]
//!   backend = "null"
//! ```
//!
//! Pure functions: any thread, no lock. A file's text is its user's; it is bounded by who reads it,
//! and everything in it is checked by the table of options afterwards.

use super::keyval::{Keys, KeyvalError, MAX_PAIRS, MAX_VALUE, Pairs, checked};
use super::table;
use std::fmt::Write as _;

/// One section: the parameters of one use of an option.
#[derive(Debug)]
pub(super) struct Section {
    /// The line it begins in, from 1.
    pub(super) line: usize,
    /// Its parameters' table.
    pub(super) keys: &'static Keys,
    /// The parameters, the id first if there is one.
    pub(super) pairs: Pairs,
}

/// Reads a file's text.
///
/// # Errors
/// The number of the line that is wrong, and what is: `parse error`, `no group defined`,
/// `There is no option group 'NAME'`, or what the option's own check says.
pub(super) fn parse(text: &str) -> Result<Vec<Section>, (usize, String)> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        let wrong = |message: String| (number, message);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let (group, id) = parse_header(header).ok_or_else(|| wrong("parse error".into()))?;
            let keys = table::group(group)
                .ok_or_else(|| wrong(format!("There is no option group '{group}'")))?;
            let mut pairs = Pairs::default();
            if let Some(id) = id {
                pairs.push(checked("id", id, keys).map_err(|e| wrong(e.to_string()))?, id);
            }
            sections.push(Section { line: number, keys, pairs });
            continue;
        }
        let (name, value) = parse_pair(line).ok_or_else(|| wrong("parse error".into()))?;
        let section = sections.last_mut().ok_or_else(|| wrong("no group defined".into()))?;
        if section.pairs.iter().count() == MAX_PAIRS {
            return Err(wrong(KeyvalError::TooMany.to_string()));
        }
        let name = checked(name, value, section.keys).map_err(|e| wrong(e.to_string()))?;
        section.pairs.push(name, value);
    }
    Ok(sections)
}

/// `group]` or `group "id"]`.
fn parse_header(text: &str) -> Option<(&str, Option<&str>)> {
    let inside = text.strip_suffix(']')?;
    match inside.split_once('"') {
        None => Some((inside.trim(), None)),
        Some((group, id)) => Some((group.trim(), Some(id.strip_suffix('"')?))),
    }
}

/// `name = "value"`.
fn parse_pair(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!value.contains('"') && value.len() <= MAX_VALUE).then_some((name.trim(), value))
}

/// Writes sections; those of one group stand together, in the order of [`table::groups`].
///
/// # Errors
/// The parameter whose value a file cannot hold, because of a quotation mark or a line's end.
pub(super) fn render(sections: &[(&'static Keys, Pairs)]) -> Result<String, String> {
    let mut text = "# qemu config file\n\n".to_owned();
    for keys in table::groups() {
        for (_, pairs) in sections.iter().filter(|(other, _)| other.group == keys.group) {
            match pairs.id() {
                Some(id) => {
                    let _ = writeln!(text, "[{} \"{id}\"]", keys.group);
                }
                None => {
                    let _ = writeln!(text, "[{}]", keys.group);
                }
            }
            // Of a name that was repeated, the last value counts.
            let counts = |(at, (name, _)): &(usize, (&str, &str))| {
                *name != "id" && !pairs.iter().skip(at + 1).any(|(later, _)| later == *name)
            };
            for (_, (name, value)) in pairs.iter().enumerate().filter(counts) {
                if value.contains(['"', '\n', '\r']) {
                    return Err(format!(
                        "the value of '{name}' cannot stand in a configuration file"
                    ));
                }
                let _ = writeln!(text, "  {name} = \"{value}\"");
            }
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> (usize, String) {
        parse(text).map(|sections| sections.len()).unwrap_err()
    }

    #[test]
    fn sections_are_read() {
        let text = "# x\n\n[chardev \"a\"]\n  backend = \"socket\"\n\tpath=\"/x,y\"\n [machine] \n\
                    kernel-irqchip = \"on\"\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!((sections[0].line, sections[0].keys.group), (3, "chardev"));
        assert_eq!(
            sections[0].pairs.iter().collect::<Vec<_>>(),
            [("id", "a"), ("backend", "socket"), ("path", "/x,y")]
        );
        // Names are spelt as the table spells them.
        assert_eq!(sections[1].pairs.get("kernel_irqchip"), Some("on"));
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        let parse_error = |line| (line, "parse error".to_owned());
        assert_eq!(error("\nnonsense"), parse_error(2));
        assert_eq!(error("[machine"), parse_error(1));
        assert_eq!(error("[device \"a]"), parse_error(1));
        assert_eq!(error("[machine]\nusb = on"), parse_error(2));
        assert_eq!(error("[machine]\nusb = \"on"), parse_error(2));
        assert_eq!(error("[machine]\nappend = \"a\"b\""), parse_error(2));
        assert_eq!(error("usb = \"on\""), (1, "no group defined".to_owned()));
        assert_eq!(error("[machin]"), (1, "There is no option group 'machin'".to_owned()));
        assert_eq!(error("[device \"0\"]"), (1, "Parameter 'id' expects an identifier".to_owned()));
        assert_eq!(
            error("[machine]\nusb = \"maybe\""),
            (2, "Parameter 'usb' expects 'on' or 'off'".to_owned())
        );
        assert_eq!(
            error("[machine]\nacel = \"kvm\""),
            (2, "Invalid parameter 'acel' (did you mean 'accel'?)".to_owned())
        );
        let many = format!("[device]\n{}", "a = \"b\"\n".repeat(MAX_PAIRS + 1));
        assert_eq!(error(&many), (MAX_PAIRS + 2, "more than 256 parameters".to_owned()));
        let long = format!("[machine]\nappend = \"{}\"", "x".repeat(MAX_VALUE + 1));
        assert_eq!(error(&long), parse_error(2));
    }

    #[test]
    fn of_repeated_names_the_last_is_written() {
        let pairs = Pairs::from_iter([("type", "a"), ("usb", "on"), ("type", "b")]);
        assert_eq!(
            render(&[(&table::MACHINE, pairs)]).unwrap(),
            "# qemu config file\n\n[machine]\n  usb = \"on\"\n  type = \"b\"\n\n"
        );
    }

    #[test]
    fn what_a_file_cannot_hold_is_refused() {
        let pairs = Pairs::from_iter([("append", "a\"b")]);
        assert_eq!(
            render(&[(&table::MACHINE, pairs)]).unwrap_err(),
            "the value of 'append' cannot stand in a configuration file"
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "([\\[\\]\"=# a-z\n]{0,40}\n){0,8}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read_back(
            values in prop::collection::vec("[ -!#-~]{0,12}", 1..8),
            id in prop::option::of("[a-z][a-z0-9]{0,5}"),
        ) {
            let mut pairs = Pairs::default();
            pairs.merge(id.iter().map(|id| ("id", id.as_str())).collect());
            pairs.merge(values.iter().enumerate().map(|(i, v)| (format!("k{i}"), v)).collect());
            let text = render(&[(&table::DEVICE, pairs.clone())]).unwrap();
            let read = parse(&text).unwrap();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(&read[0].pairs, &pairs);
        }
    }
}
