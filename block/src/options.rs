//! Options as data: a flat list of dotted keys (`driver`, `file.filename`, `backing.driver`).
//!
//! It is the common form of `-drive`, of blockdev-add's nested objects and of file names that
//! begin with `json:`. Whoever understands an option takes it; what is left at the end is a
//! mistake of the user's. Any thread, no lock. Keys and values are a user's, a client's or, in
//! the name of a backing file, an image's.

use serde_json::Value;

/// Nested objects deeper than this are refused.
const MAX_DEPTH: usize = 64;

/// An option that is not understood, or whose value is not; the texts are those clients know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(pub String);

/// Options on their way to whoever wants them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<(String, String)>);

impl Options {
    /// None.
    pub fn new() -> Options {
        Options::default()
    }

    /// The options of a JSON object, whose members' names are joined by dots; elements of lists
    /// have their number for a name. `null` is the empty text.
    ///
    /// # Errors
    /// When it is no JSON object, or nested too deeply.
    pub fn from_json(text: &str) -> Result<Options, OptionError> {
        let refuse = |why: &str| OptionError(format!("Could not parse the JSON options: {why}"));
        let value: Value =
            serde_json::from_str(text).map_err(|error| refuse(&error.to_string()))?;
        if !value.is_object() {
            return Err(refuse("they are not an object"));
        }
        let mut options = Options::new();
        options.flatten("", &value, 0)?;
        Ok(options)
    }

    fn flatten(&mut self, at: &str, value: &Value, depth: usize) -> Result<(), OptionError> {
        if depth > MAX_DEPTH {
            return Err(OptionError("the options are nested too deeply".to_owned()));
        }
        let join =
            |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    self.flatten(&join(name), value, depth + 1)?;
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.flatten(&join(&index.to_string()), value, depth + 1)?;
                }
            }
            Value::Null => self.set(at, ""),
            Value::Bool(on) => self.set(at, if *on { "on" } else { "off" }),
            Value::Number(number) => self.set(at, &number.to_string()),
            Value::String(text) => self.set(at, text),
        }
        Ok(())
    }

    /// Gives a key a value, in place of the one it had.
    pub fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
    }

    /// The value of a key, which stays.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether there is this key, or one under it.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| {
            name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The value of a key, which is used up.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// A switch, which is used up.
    ///
    /// # Errors
    /// When it is neither `on` nor `off`.
    pub fn take_switch(&mut self, key: &str) -> Result<Option<bool>, OptionError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("on" | "true" | "yes") => Ok(Some(true)),
            Some("off" | "false" | "no") => Ok(Some(false)),
            Some(_) => Err(OptionError(format!("Parameter '{key}' expects 'on' or 'off'"))),
        }
    }

    /// A number, which is used up.
    ///
    /// # Errors
    /// When it is none, or negative.
    pub fn take_number(&mut self, key: &str) -> Result<Option<u64>, OptionError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(OptionError(format!("Parameter '{key}' expects a number"))),
        }
    }

    /// A size in bytes, which is used up: a number that may be followed by one of the letters
    /// `B`, `K`, `M`, `G`, `T`, `P` and `E` for powers of 1024.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn take_size(&mut self, key: &str) -> Result<Option<u64>, OptionError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let size =
            size(&text).ok_or_else(|| OptionError(format!("Parameter '{key}' expects a size")))?;
        Ok(Some(size))
    }

    /// One of some words, which is used up.
    ///
    /// # Errors
    /// When it is another one.
    pub fn take_word(
        &mut self,
        key: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, OptionError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Some(word)),
            None => Err(OptionError(format!("Invalid parameter '{text}'"))),
        }
    }

    /// All options whose keys begin with `prefix` and a dot, without that; they are used up.
    pub fn take_under(&mut self, prefix: &str) -> Options {
        let mut under = Options::new();
        self.0.retain_mut(|(key, value)| {
            let rest = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
            match rest {
                Some(rest) => under.0.push((rest.to_owned(), std::mem::take(value))),
                None => return true,
            }
            false
        });
        under
    }

    /// Adds options under a prefix: the opposite of [`take_under`](Self::take_under).
    pub fn put_under(&mut self, prefix: &str, options: Options) {
        for (key, value) in options.0 {
            self.set(&format!("{prefix}.{key}"), &value);
        }
    }

    /// The first one left.
    pub fn first_key(&self) -> Option<&str> {
        self.0.first().map(|(key, _)| key.as_str())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The last value of a key counts.
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Options {
        let mut options = Options::new();
        for (key, value) in pairs {
            options.set(key.as_ref(), value.as_ref());
        }
        options
    }
}

/// A size in bytes: digits, and a letter for a power of 1024.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        "p" | "P" => 50,
        "e" | "E" => 60,
        _ => return None,
    };
    if let Some((whole, part)) = digits.split_once('.') {
        let unit = 1u64 << shift;
        let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
        let part = format!("0.{part}").parse::<f64>().ok()? * unit as f64;
        return whole.checked_add(part as u64);
    }
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_become_dotted_keys() {
        let options = Options::from_json(
            r#"{"driver": "qcow2", "file": {"filename": "a.b", "locking": false},
                "list": [{"x": 1}], "backing": null}"#,
        )
        .unwrap();
        let all: Vec<_> = options.iter().collect();
        let expected = [
            ("driver", "qcow2"),
            ("file.filename", "a.b"),
            ("file.locking", "off"),
            ("list.0.x", "1"),
            ("backing", ""),
        ];
        assert_eq!(all, expected);
        Options::from_json("3").unwrap_err();
        Options::from_json("{").unwrap_err();
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        Options::from_json(&deep).unwrap_err();
    }

    #[test]
    fn what_is_taken_is_gone() {
        let mut options: Options =
            [("a", "1"), ("file.b", "on"), ("file.c.d", "x"), ("filed", "y"), ("a", "2")]
                .into_iter()
                .collect();
        assert_eq!(options.take_number("a"), Ok(Some(2)));
        let mut file = options.take_under("file");
        assert_eq!(file.take_switch("b"), Ok(Some(true)));
        assert_eq!(file.take_switch("b"), Ok(None));
        file.take_switch("c.d").unwrap_err();
        assert_eq!(options.first_key(), Some("filed"));
        options.put_under("file", [("e", "1")].into_iter().collect());
        assert_eq!(options.get("file.e"), Some("1"));
    }

    #[test]
    fn sizes_have_letters() {
        assert_eq!(size("512"), Some(512));
        assert_eq!(size("64k"), Some(65536));
        assert_eq!(size("1.5G"), Some(3 << 29));
        assert_eq!(size("2E"), Some(2 << 60));
        for wrong in ["", "k", "1kk", "-1", "16E", "1.2.3", "1.x"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
