//! Rules of what leads where: `hostfwd` and `guestfwd`.
//!
//! Pure functions: any thread, no lock. The text is the user's or a client's.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::slirp::Forward;

/// The part of `text` before the first `mark`, and the rest.
fn cut(text: &str, mark: char) -> Option<(&str, &str)> {
    text.split_once(mark)
}

/// `tcp` unless it is `udp`; `None` for anything else.
fn is_udp(protocol: &str) -> Option<bool> {
    match protocol {
        "" | "tcp" => Some(false),
        "udp" => Some(true),
        _ => None,
    }
}

/// An address; any, if there is none.
fn address(text: &str) -> Option<Ipv4Addr> {
    if text.is_empty() { Some(Ipv4Addr::UNSPECIFIED) } else { text.parse().ok() }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok()
}

/// Parses `[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT`.
pub(super) fn forward(text: &str) -> Option<Forward> {
    let (protocol, rest) = cut(text, ':')?;
    let (host, rest) = cut(rest, ':')?;
    let (host_port, rest) = cut(rest, '-')?;
    let (guest, guest_port) = cut(rest, ':')?;
    Some(Forward {
        udp: is_udp(protocol)?,
        host: (address(host)?, port(host_port)?),
        guest: (address(guest)?, port(guest_port).filter(|port| *port != 0)?),
    })
}

/// Parses the host's side of a rule, `[tcp|udp]:[HOSTADDR]:HOSTPORT`.
pub(super) fn host_side(text: &str) -> Option<(bool, (Ipv4Addr, u16))> {
    let (protocol, rest) = cut(text, ':')?;
    let (host, host_port) = cut(rest, ':')?;
    Some((is_udp(protocol)?, (address(host)?, port(host_port)?)))
}

/// Parses `[tcp]:SERVER:PORT-DEV`: the address inside and what is there.
pub(super) fn guest_side(text: &str) -> Option<(Ipv4Addr, u16, &str)> {
    let (protocol, rest) = cut(text, ':')?;
    let (server, rest) = cut(rest, ':')?;
    let (server_port, device) = cut(rest, '-')?;
    let server_port = port(server_port).filter(|port| *port != 0)?;
    matches!(protocol, "" | "tcp").then_some((server.parse().ok()?, server_port, device))
}

/// Parses a network's address with its mask or the length of that, `10.0.2.0/24`; the mask of its
/// class, if it has none.
pub(super) fn network(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (text, mask) = match text.split_once('/') {
        Some((text, mask)) => (text, Some(mask)),
        None => (text, None),
    };
    let address: Ipv4Addr = text.parse().ok()?;
    let bits = |length: u32| u32::MAX.checked_shl(32_u32.checked_sub(length)?).or(Some(0));
    let mask = match mask {
        Some(mask) if mask.contains('.') => {
            let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
            (bits.leading_ones() == bits.count_ones()).then_some(bits)?
        }
        Some(mask) => bits(mask.parse().ok().filter(|length| (4..=30).contains(length))?)?,
        None => match address.octets() {
            [0..=127, ..] => bits(8)?,
            [128..=191, ..] => bits(16)?,
            [192..=223, ..] => bits(24)?,
            _ => bits(28)?,
        },
    };
    Some((Ipv4Addr::from(u32::from(address) & mask), Ipv4Addr::from(mask)))
}

/// Parses an address in a network: a whole one, or what follows the network's part.
pub(super) fn inside(text: &str, (net, mask): (Ipv4Addr, Ipv4Addr)) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = text.parse().ok()?;
    (u32::from(address) & u32::from(mask) == u32::from(net)).then_some(address)
}

/// Parses a network of IPv6, `fec0::/64`: its address and how many bits of that count. There have
/// to be other addresses than the network's own.
pub(super) fn network6(text: &str) -> Option<(Ipv6Addr, u8)> {
    let (address, length) = text.split_once('/').unwrap_or((text, "64"));
    let address: Ipv6Addr = address.parse().ok()?;
    let length: u8 = length.parse().ok().filter(|length| (1..=126).contains(length))?;
    let inside = u128::MAX.checked_shr(length.into())?;
    (u128::from(address) & inside == 0).then_some((address, length))
}

/// Parses an address of IPv6 in a network.
pub(super) fn inside6(text: &str, (net, length): (Ipv6Addr, u8)) -> Option<Ipv6Addr> {
    let address: Ipv6Addr = text.parse().ok()?;
    let inside = u128::MAX.checked_shr(length.into())?;
    (u128::from(address) & !inside == u128::from(net) && address != net).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forwards() {
        let any = Ipv4Addr::UNSPECIFIED;
        let rule = Forward { udp: false, host: (any, 2222), guest: (any, 22) };
        assert_eq!(forward("tcp::2222-:22"), Some(rule));
        assert_eq!(forward("::2222-:22"), Some(rule));
        let rule = Forward {
            udp: true,
            host: ("127.0.0.1".parse().unwrap(), 0),
            guest: ("10.0.2.15".parse().unwrap(), 53),
        };
        assert_eq!(forward("udp:127.0.0.1:0-10.0.2.15:53"), Some(rule));
        for wrong in ["", "tcp", "sctp::1-:1", "tcp::x-:1", "tcp::1-:0", "tcp::65536-:1", "tcp::1"]
        {
            assert_eq!(forward(wrong), None, "{wrong}");
        }
        assert_eq!(host_side("tcp:127.0.0.1:80"), Some((false, ([127, 0, 0, 1].into(), 80))));
        assert_eq!(
            guest_side("tcp:10.0.2.100:80-cmd:cat -u"),
            Some(([10, 0, 2, 100].into(), 80, "cmd:cat -u"))
        );
        assert_eq!(guest_side("udp:10.0.2.100:80-x"), None);
    }

    #[test]
    fn networks() {
        let pair = |net: [u8; 4], mask: [u8; 4]| Some((net.into(), mask.into()));
        assert_eq!(network("10.0.2.0/24"), pair([10, 0, 2, 0], [255, 255, 255, 0]));
        assert_eq!(network("10.1.2.3"), pair([10, 0, 0, 0], [255, 0, 0, 0]));
        assert_eq!(network("192.168.7.9/255.255.0.0"), pair([192, 168, 0, 0], [255, 255, 0, 0]));
        for wrong in
            ["", "10.0.2", "10.0.2.0/x", "10.0.2.0/31", "10.0.2.0/3", "1.2.3.4/255.0.255.0"]
        {
            assert_eq!(network(wrong), None, "{wrong}");
        }
        let net = network("10.0.2.0/24").unwrap();
        assert_eq!(inside("10.0.2.9", net), Some([10, 0, 2, 9].into()));
        assert_eq!(inside("10.0.3.9", net), None);
    }

    proptest! {
        #[test]
        fn no_rule_is_too_odd(text in "[a-z0-9:./-]{0,40}|.{0,20}") {
            let _ = (forward(&text), host_side(&text), guest_side(&text), network(&text));
        }
    }

    #[test]
    fn networks_of_version_6() {
        let net = network6("fec0::/64").unwrap();
        assert_eq!(net, ("fec0::".parse().unwrap(), 64));
        assert_eq!(network6("fd00:1::"), Some(("fd00:1::".parse().unwrap(), 64)));
        for wrong in ["", "fec0::1/64", "fec0::/127", "fec0::/0", "10.0.0.0/8", "fec0::/x"] {
            assert_eq!(network6(wrong), None, "{wrong}");
        }
        assert_eq!(inside6("fec0::7", net), "fec0::7".parse().ok());
        for wrong in ["fec0::", "fec1::7", "x"] {
            assert_eq!(inside6(wrong, net), None, "{wrong}");
        }
    }
}
