//! Sizes as text, in the forms that clients know. Plain functions.

use resources::value;

/// What follows a number that is none, in two lines.
pub const SUFFIXES: &str = "You may use k, M, G, T, P or E suffixes for \n\
                            kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.";

/// A size in bytes: a number, a fraction if wanted, and a suffix if wanted. At most `i64::MAX`.
pub fn parse(text: &str) -> Option<u64> {
    value::parse_size("", text).ok().filter(|size| i64::try_from(*size).is_ok())
}

/// A size as an image's information has it: up to three digits and a letter, `196K` or `1.0G`.
pub fn short(size: u64) -> String {
    if size < 1000 {
        return size.to_string();
    }
    let mut base = 1024u128;
    let size = u128::from(size);
    for letter in ['K', 'M', 'G'] {
        if let Some(text) = short_in(size, base, letter) {
            return text;
        }
        base *= 1024;
    }
    short_in(size, base, 'T').unwrap_or_else(|| format!("{}T", (size + base / 2) / base))
}

fn short_in(size: u128, base: u128, letter: char) -> Option<String> {
    if size < 10 * base {
        // Tenths, rounded.
        let tenths = (size * 10 + base / 2) / base;
        return Some(format!("{}.{}{letter}", tenths / 10, tenths % 10));
    }
    (size < 1000 * base).then(|| format!("{}{letter}", (size + base / 2) / base))
}

/// A size as the exerciser prints it: three decimals unless they are zero, `6.938 MiB`.
pub fn long(size: f64) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut value = size;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.3}");
    let text = text.strip_suffix(".000").unwrap_or(&text);
    format!("{text} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// [`long`] of a whole number of bytes.
#[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
pub fn long_bytes(size: u64) -> String {
    long(size as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sizes() {
        for (size, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1024, "1.0K"),
            (196 << 10, "196K"),
            (10 << 10, "10K"),
            (999 << 10, "999K"),
            (1000 << 10, "1.0M"),
            (128 << 20, "128M"),
            (3 << 29, "1.5G"),
            (1 << 40, "1.0T"),
            (u64::MAX, "16777216T"),
        ] {
            assert_eq!(short(size), text);
        }
    }

    #[test]
    fn long_sizes() {
        for (size, text) in [
            (0, "0 bytes"),
            (512, "512 bytes"),
            (1024, "1 KiB"),
            (0x6f_0000, "6.938 MiB"),
            (1536, "1.500 KiB"),
            (1 << 60, "1 EiB"),
        ] {
            assert_eq!(long_bytes(size), text);
        }
        assert_eq!(long(f64::INFINITY), "inf EiB");
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(parse("1.5k"), Some(1536));
        assert_eq!(parse("7E"), Some(7 << 60));
        for wrong in ["8E", "", "-1", "1x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
