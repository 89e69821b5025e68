//! Options on the command line, in the way of getopt: short ones can be joined, long ones take
//! `=VALUE` and may be cut short while that is unambiguous, and operands may stand between them.
//!
//! Plain functions. The words come from whoever starts the tool.

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt {
    short: Option<char>,
    long: &'static str,
    takes: bool,
}

impl Opt {
    /// Adds a long spelling.
    pub const fn long(self, long: &'static str) -> Opt {
        Opt { long, ..self }
    }

    fn name(self) -> Name {
        self.short.map_or(Name::Long(self.long), Name::Short)
    }
}

/// `-x`.
pub const fn flag(short: char) -> Opt {
    Opt { short: Some(short), long: "", takes: false }
}

/// `-x VALUE`.
pub const fn value(short: char) -> Opt {
    Opt { short: Some(short), long: "", takes: true }
}

/// `--long`.
pub const fn long_flag(long: &'static str) -> Opt {
    Opt { short: None, long, takes: false }
}

/// `--long VALUE`.
pub const fn long_value(long: &'static str) -> Opt {
    Opt { short: None, long, takes: true }
}

/// What an option is asked for by: its letter if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// By its letter.
    Short(char),
    /// By its word.
    Long(&'static str),
}

impl From<char> for Name {
    fn from(letter: char) -> Name {
        Name::Short(letter)
    }
}

impl From<&'static str> for Name {
    fn from(word: &'static str) -> Name {
        Name::Long(word)
    }
}

/// What was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    given: Vec<(Name, String)>,
    /// What is not an option.
    pub operands: Vec<String>,
}

impl Parsed {
    /// Whether an option was given.
    pub fn has(&self, name: impl Into<Name>) -> bool {
        let name = name.into();
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// The value of an option; of the last one, if it was given more than once.
    pub fn get(&self, name: impl Into<Name>) -> Option<&str> {
        self.all(name).last()
    }

    /// Every value that was given for an option.
    pub fn all(&self, name: impl Into<Name>) -> impl Iterator<Item = &str> {
        let name = name.into();
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, text)| text.as_str())
    }

    /// Everything given, in its order.
    pub fn given(&self) -> impl Iterator<Item = (Name, &str)> {
        self.given.iter().map(|(name, text)| (*name, text.as_str()))
    }
}

/// Takes words apart.
///
/// # Errors
/// An option that is not known, ambiguous, or lacks its value, in the words of getopt.
pub fn parse(options: &[Opt], words: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.operands.extend(words.cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, given) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let option = find(options, name)?;
            let text = match (option.takes, given) {
                (true, Some(text)) => text,
                (true, None) => {
                    words.next().cloned().ok_or(format!("missing argument for option '{word}'"))?
                }
                (false, None) => String::new(),
                (false, Some(_)) => {
                    return Err(format!("option '--{name}' doesn't allow an argument"));
                }
            };
            parsed.given.push((option.name(), text));
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| is_option(letters)) {
            let mut rest = letters.chars();
            while let Some(letter) = rest.next() {
                let option = options.iter().find(|option| option.short == Some(letter));
                let option = option.ok_or(format!("unrecognized option '-{letter}'"))?;
                let mut text = String::new();
                if option.takes {
                    text = std::mem::replace(&mut rest, "".chars()).collect();
                    if text.is_empty() {
                        let missing = format!("missing argument for option '-{letter}'");
                        text = words.next().cloned().ok_or(missing)?;
                    }
                }
                parsed.given.push((option.name(), text));
            }
        } else {
            parsed.operands.push(word.clone());
        }
    }
    Ok(parsed)
}

/// `-` alone is an operand, and so is a negative number.
fn is_option(letters: &str) -> bool {
    letters.starts_with(|first: char| !first.is_ascii_digit())
}

fn find(options: &[Opt], name: &str) -> Result<Opt, String> {
    let long = || options.iter().filter(|option| !option.long.is_empty());
    if let Some(option) = long().find(|option| option.long == name) {
        return Ok(*option);
    }
    let mut beginning = long().filter(|option| !name.is_empty() && option.long.starts_with(name));
    match (beginning.next(), beginning.next()) {
        (Some(option), None) => Ok(*option),
        (Some(_), Some(_)) => Err(format!("option '--{name}' is ambiguous")),
        _ => Err(format!("unrecognized option '--{name}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[Opt] = &[
        value('f').long("format"),
        flag('q').long("quiet"),
        flag('p'),
        long_value("output"),
        long_flag("output-all"),
    ];

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(OPTIONS, &words)
    }

    #[test]
    fn options_and_operands() {
        let parsed = parsed("a -qp -fraw b --output=json --form qcow2 -f x -- -q").unwrap();
        assert_eq!(parsed.operands, ["a", "b", "-q"]);
        assert!(parsed.has('q') && parsed.has('p'));
        assert_eq!(parsed.get('f'), Some("x"));
        assert_eq!(parsed.all('f').collect::<Vec<_>>(), ["raw", "qcow2", "x"]);
        assert_eq!(parsed.get("output"), Some("json"));
        assert_eq!(parsed.get('p'), Some(""));
        assert!(!parsed.has("output-all"));
    }

    #[test]
    fn mistakes() {
        for (line, said) in [
            ("-x", "unrecognized option '-x'"),
            ("--nonsense=1", "unrecognized option '--nonsense'"),
            ("-f", "missing argument for option '-f'"),
            ("--output", "missing argument for option '--output'"),
            ("--out", "option '--out' is ambiguous"),
            ("--quiet=1", "option '--quiet' doesn't allow an argument"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), said);
        }
        assert_eq!(parsed("- -10G").unwrap().operands, ["-", "-10G"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(words in proptest::collection::vec("[-=fqpoutx é]{0,6}", 0..6)) {
            let _ = parse(OPTIONS, &words);
        }
    }
}
