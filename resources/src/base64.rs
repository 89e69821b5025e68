//! Base 64 (RFC 4648, section 4: the standard alphabet, with padding). Pure; any thread.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
        let value = value << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (value >> (18 - 6 * place)) as usize % 64;
            text.push(if place <= group.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    text
}

/// Decodes text; `None` if it is not in this form to the bit.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let groups = text.as_bytes().chunks_exact(4);
    if !groups.remainder().is_empty() {
        return None;
    }
    let last = groups.len().checked_sub(1);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (index, group) in groups.enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || padding > 0 && Some(index) != last {
            return None;
        }
        let digits = group.get(..4 - padding)?;
        let value = digits.iter().try_fold(0u32, |value, byte| Some(value << 6 | digit(*byte)?))?;
        let [_, decoded @ ..] = (value << (6 * padding)).to_be_bytes();
        let (kept, dropped) = decoded.split_at(3 - padding);
        if dropped.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

/// Decodes text in which anything that is no digit is skipped, padding and incomplete groups too,
/// as clients are used to.
pub fn decode_leniently(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut value, mut bits) = (0u32, 0);
    for digit in text.bytes().filter_map(digit) {
        value = value << 6 | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((value >> bits) as u8);
            value &= (1 << bits) - 1;
        }
    }
    bytes
}

fn digit(byte: u8) -> Option<u32> {
    ALPHABET.iter().position(|other| *other == byte).and_then(|place| u32::try_from(place).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        for wrong in ["Z", "Zg", "Zg=", "Zh==", "====", "Zg==Zg==", "Z===", "Zm9\n", "Z=9v"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn leniently_what_is_no_digit_is_skipped() {
        assert_eq!(decode_leniently("Zm 9v\nYg"), b"foob");
        assert_eq!(decode_leniently("Zg==Zg=="), [b'f', 6, 0x60]);
        assert_eq!(decode_leniently("%"), b"");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes: Vec<u8>) {
            prop_assert_eq!(decode_leniently(&encode(&bytes)), bytes.clone());
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn what_is_decoded_is_encoded(text in "[A-Za-z0-9+/=]{0,12}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
