//! The syntax of option values: switches, numbers, sizes and identifiers, as QEMU writes them.
//!
//! One parser each, used by the command line, by device properties and by monitor commands, so
//! that a value means the same wherever it is written. Pure functions: any thread, no lock. The
//! text may come from anybody: nothing here panics, wraps round or allocates more than the error.

/// A value that its parameter does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Parameter '{key}' expects {expects}")]
pub struct ValueError {
    /// The parameter's name.
    pub key: String,
    /// What it takes, as a noun phrase.
    pub expects: &'static str,
}

impl ValueError {
    fn new(key: &str, expects: &'static str) -> Self {
        ValueError { key: key.to_owned(), expects }
    }
}

/// Parses a switch: exactly `on` or `off`.
///
/// # Errors
/// `Parameter 'KEY' expects 'on' or 'off'`.
pub fn parse_bool(key: &str, value: &str) -> Result<bool, ValueError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ValueError::new(key, "'on' or 'off'")),
    }
}

/// Parses an unsigned number of base 10, 16 (`0x`) or 8 (a leading `0`); the whole text counts.
///
/// # Errors
/// `Parameter 'KEY' expects a number`, also for a sign and for what does not fit 64 bits.
pub fn parse_number(key: &str, value: &str) -> Result<u64, ValueError> {
    unsigned(value).ok_or_else(|| ValueError::new(key, "a number"))
}

/// Parses a number as [`parse_number`] does, with an optional sign.
///
/// # Errors
/// `Parameter 'KEY' expects a number`, also for what does not fit 64 bits.
pub fn parse_signed(key: &str, value: &str) -> Result<i64, ValueError> {
    let error = || ValueError::new(key, "a number");
    match value.strip_prefix('-') {
        Some(digits) => {
            unsigned(digits).and_then(|n| 0i64.checked_sub_unsigned(n)).ok_or_else(error)
        }
        None => unsigned(value.strip_prefix('+').unwrap_or(value))
            .and_then(|n| i64::try_from(n).ok())
            .ok_or_else(error),
    }
}

/// Parses a size in bytes: a number, with a fraction if wanted, and one of the suffixes
/// `b k m g t p e` (powers of 1024, either case; `MB` and `MiB` mean `M`). Without a suffix it
/// counts bytes. A part of a byte is dropped.
///
/// # Errors
/// `Parameter 'KEY' expects a size`, also for what does not fit 64 bits.
pub fn parse_size(key: &str, value: &str) -> Result<u64, ValueError> {
    scaled(value, 0).ok_or_else(|| ValueError::new(key, "a size"))
}

/// Parses a size as [`parse_size`] does, but counting MiB when there is no suffix: the syntax of
/// `-m` and of sizes in the human monitor. `None` if it is not a size; each user has its own words
/// for that.
pub fn parse_mib_size(value: &str) -> Option<u64> {
    scaled(value, 20)
}

/// Checks an identifier: a letter, then letters, digits, `-`, `.` and `_` (ASCII), at most 127
/// bytes.
///
/// # Errors
/// `Parameter 'KEY' expects an identifier`.
pub fn check_identifier(key: &str, value: &str) -> Result<(), ValueError> {
    let rest = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match value.as_bytes() {
        [first, others @ ..]
            if first.is_ascii_alphabetic() && others.len() < 127 && others.iter().all(rest) =>
        {
            Ok(())
        }
        _ => Err(ValueError::new(key, "an identifier")),
    }
}

/// An unsigned number with its base in its first characters.
fn unsigned(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    // The parser of the standard library would take a sign here.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// A size; `unit` is the power of two that a plain number counts in.
fn scaled(text: &str, unit: u32) -> Option<u64> {
    if text.starts_with("0x") || text.starts_with("0X") {
        // `b` and `e` are digits here, so a hexadecimal size has no suffix.
        return unsigned(text)?.checked_mul(1 << unit);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let shift = match suffix.as_bytes() {
        [] => unit,
        [b'b' | b'B'] => 0,
        [letter] | [letter, b'B'] | [letter, b'i', b'B'] => match letter {
            b'k' | b'K' => 10,
            b'm' | b'M' => 20,
            b'g' | b'G' => 30,
            b't' | b'T' => 40,
            b'p' | b'P' => 50,
            b'e' | b'E' => 60,
            _ => return None,
        },
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(1 << shift)?.checked_add(fraction_of(fraction, shift))
}

/// `0.DIGITS` times two to the power of `shift`, rounded down. Digits past the 18th change nothing
/// that counts: the result is below 2^60.
fn fraction_of(digits: &str, shift: u32) -> u64 {
    let (mut value, mut scale) = (0u128, 1u128);
    for digit in digits.bytes().take(18) {
        value = value * 10 + u128::from(digit.saturating_sub(b'0'));
        scale *= 10;
    }
    // value < scale <= 10^18 < 2^60, and shift <= 60, so the product is below 2^120 and the
    // quotient below 2^60.
    u64::try_from((value << shift) / scale).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message<T: std::fmt::Debug>(result: Result<T, ValueError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn switches() {
        assert_eq!(parse_bool("usb", "on"), Ok(true));
        assert_eq!(parse_bool("usb", "off"), Ok(false));
        for wrong in ["", "On", "yes", "true", "1", "on "] {
            assert_eq!(message(parse_bool("usb", wrong)), "Parameter 'usb' expects 'on' or 'off'");
        }
    }

    #[test]
    fn numbers() {
        for (text, number) in [
            ("0", 0),
            ("10", 10),
            ("0x1f", 31),
            ("0X1F", 31),
            ("010", 8),
            ("18446744073709551615", u64::MAX),
            ("0xffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(parse_number("n", text), Ok(number), "{text}");
        }
        for wrong in
            ["", "-1", "+1", " 1", "1 ", "0x", "0x+1", "0+1", "08", "1k", "18446744073709551616"]
        {
            assert_eq!(
                message(parse_number("cpus", wrong)),
                "Parameter 'cpus' expects a number",
                "{wrong}"
            );
        }
    }

    #[test]
    fn signed_numbers() {
        assert_eq!(parse_signed("n", "-1"), Ok(-1));
        assert_eq!(parse_signed("n", "+0x10"), Ok(16));
        assert_eq!(parse_signed("n", "-9223372036854775808"), Ok(i64::MIN));
        for wrong in ["", "-", "--1", "+-1", "9223372036854775808", "-9223372036854775809"] {
            assert_eq!(message(parse_signed("n", wrong)), "Parameter 'n' expects a number");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("1k", 1 << 10),
            ("1K", 1 << 10),
            ("1.5M", 3 << 19),
            (".5G", 1 << 29),
            ("2.", 2),
            ("1GiB", 1 << 30),
            ("1GB", 1 << 30),
            ("1T", 1 << 40),
            ("3p", 3 << 50),
            ("15E", 15 << 60),
            ("0x1000", 4096),
            ("0.0000000000000000000000000001E", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size("size", text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            ".",
            "k",
            "-1",
            "+1",
            "1x",
            "1 G",
            "1Gi",
            "1bB",
            "1..5",
            "1.5.2",
            "16E",
            "0x",
            "0x1G",
            "18446744073709551616",
            "inf",
            "1e3x",
        ] {
            assert_eq!(
                message(parse_size("size", wrong)),
                "Parameter 'size' expects a size",
                "{wrong}"
            );
        }
    }

    #[test]
    fn memory_sizes_count_mib() {
        assert_eq!(parse_mib_size("512"), Some(512 << 20));
        assert_eq!(parse_mib_size("512B"), Some(512));
        assert_eq!(parse_mib_size("1.5"), Some(3 << 19));
        assert_eq!(parse_mib_size("1g"), Some(1 << 30));
        assert_eq!(parse_mib_size("0x10"), Some(16 << 20));
        assert_eq!(parse_mib_size("17592186044416"), None);
        assert_eq!(parse_mib_size("lots"), None);
    }

    #[test]
    fn identifiers() {
        for good in ["a", "serial0", "A-b.c_d"] {
            assert_eq!(check_identifier("id", good), Ok(()));
        }
        for wrong in ["", "0a", "-a", "a b", "a/b", "ä", &"x".repeat(128)] {
            assert_eq!(
                message(check_identifier("id", wrong)),
                "Parameter 'id' expects an identifier"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = parse_bool("k", &text);
            let _ = parse_number("k", &text);
            let _ = parse_signed("k", &text);
            let _ = parse_size("k", &text);
            let _ = parse_mib_size(&text);
            let _ = check_identifier("k", &text);
        }

        #[test]
        fn nothing_panics_near_numbers(text in "[0-9.xXbkKMGTPEi+-]{0,40}") {
            let _ = parse_number("k", &text);
            let _ = parse_signed("k", &text);
            let _ = parse_size("k", &text);
            let _ = parse_mib_size(&text);
        }

        #[test]
        fn a_number_written_is_the_number_read(n: u64, m: i64) {
            prop_assert_eq!(parse_number("k", &n.to_string()), Ok(n));
            prop_assert_eq!(parse_number("k", &format!("{n:#x}")), Ok(n));
            prop_assert_eq!(parse_number("k", &format!("0{n:o}")), Ok(n));
            prop_assert_eq!(parse_signed("k", &m.to_string()), Ok(m));
            prop_assert_eq!(parse_size("k", &n.to_string()), Ok(n));
        }
    }
}
