//! Addresses of Ethernet stations.
//!
//! Plain data: any thread, no lock. Texts come from the user or a client.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Every station.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it names a group of stations.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is no Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address: it is six numbers of two hexadecimal digits and ':' between")]
pub struct NotMac;

impl FromStr for Mac {
    type Err = NotMac;

    /// Six numbers of one or two hexadecimal digits, with `:` or `-` between.
    fn from_str(text: &str) -> Result<Mac, NotMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or(NotMac)?;
            let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !digits || !(1..=2).contains(&part.len()) {
                return Err(NotMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| NotMac)?;
        }
        parts.next().is_none().then_some(Mac(bytes)).ok_or(NotMac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_back() {
        let mac: Mac = "52:54:0:12:34:aB".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:12:34:ab");
        assert_eq!("52-54-00-12-34-ab".parse(), Ok(mac));
        for wrong in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:00:12:34:+6", "é:1:2:3:4:5"]
        {
            assert_eq!(wrong.parse::<Mac>(), Err(NotMac), "{wrong}");
        }
        assert!(Mac::BROADCAST.is_multicast() && !mac.is_multicast());
    }
}
