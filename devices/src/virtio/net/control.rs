//! The commands of the control queue.
//!
//! A command is a class, a number and data (virtio 1.x, section 5.1.6.5); the device answers each
//! by one byte. [`Command::parse`] tells them apart; what a command does is the device's matter.
//!
//! Pure functions. The bytes are the guest's: no more than [`MAX_COMMAND`] of them are looked at,
//! and nothing is allocated that they only promise.

use super::filter::{Mac, Mode};

/// The longest command in bytes that is taken: tables of some ten thousand addresses.
pub const MAX_COMMAND: usize = 64 << 10;

/// The answer to a command that was obeyed.
pub const OK: u8 = 0;
/// The answer to one that was not.
pub const ERROR: u8 = 1;

const CLASS_RX: u8 = 0;
const CLASS_MAC: u8 = 1;
const CLASS_VLAN: u8 = 2;
const CLASS_ANNOUNCE: u8 = 3;
const CLASS_MQ: u8 = 4;
const CLASS_OFFLOADS: u8 = 5;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// A receive mode is turned on or off.
    Mode(Mode, bool),
    /// The tables of unicast and multicast addresses are replaced.
    Tables(&'a [Mac], &'a [Mac]),
    /// The device's own address is another.
    Address(Mac),
    /// A VLAN passes, or no longer does.
    Vlan(u16, bool),
    /// The driver has announced the guest's addresses.
    Announced,
    /// So many pairs of queues are used.
    Pairs(u16),
    /// These offloads towards the guest are on, as feature bits.
    Offloads(u64),
}

impl<'a> Command<'a> {
    /// Reads a command; `None` for one that does not exist or is too short. Data after it is
    /// ignored.
    pub fn parse(bytes: &'a [u8]) -> Option<Command<'a>> {
        let (&[class, number], data) = bytes.split_first_chunk()?;
        Some(match (class, number) {
            (CLASS_RX, _) => {
                let (&[on], _) = data.split_first_chunk()?;
                Command::Mode(Mode::from_number(number)?, on != 0)
            }
            (CLASS_MAC, 0) => {
                let (unicast, data) = table(data)?;
                let (multicast, _) = table(data)?;
                Command::Tables(unicast, multicast)
            }
            (CLASS_MAC, 1) => Command::Address(*data.first_chunk()?),
            (CLASS_VLAN, 0 | 1) => {
                Command::Vlan(u16::from_le_bytes(*data.first_chunk()?), number == 0)
            }
            (CLASS_ANNOUNCE, 0) => Command::Announced,
            (CLASS_MQ, 0) => Command::Pairs(u16::from_le_bytes(*data.first_chunk()?)),
            (CLASS_OFFLOADS, 0) => Command::Offloads(u64::from_le_bytes(*data.first_chunk()?)),
            _ => return None,
        })
    }
}

/// A count and so many addresses, and what follows them.
fn table(data: &[u8]) -> Option<(&[Mac], &[u8])> {
    let (&count, data) = data.split_first_chunk()?;
    let bytes = usize::try_from(u32::from_le_bytes(count)).ok()?.checked_mul(size_of::<Mac>())?;
    let (table, rest) = data.split_at_checked(bytes)?;
    Some((table.as_chunks().0, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands() {
        let parse = |bytes: &'static [u8]| Command::parse(bytes);
        assert_eq!(parse(&[0, 0, 1]), Some(Command::Mode(Mode::Promisc, true)));
        assert_eq!(parse(&[0, 5, 0]), Some(Command::Mode(Mode::NoBcast, false)));
        assert_eq!(parse(&[0, 6, 0]), None);
        assert_eq!(parse(&[0, 0]), None);
        assert_eq!(parse(&[1, 1, 1, 2, 3, 4, 5, 6]), Some(Command::Address([1, 2, 3, 4, 5, 6])));
        assert_eq!(parse(&[1, 1, 1, 2, 3, 4, 5]), None);
        assert_eq!(parse(&[2, 0, 5, 1]), Some(Command::Vlan(0x105, true)));
        assert_eq!(parse(&[2, 1, 5, 1]), Some(Command::Vlan(0x105, false)));
        assert_eq!(parse(&[2, 2, 5, 1]), None);
        assert_eq!(parse(&[3, 0]), Some(Command::Announced));
        assert_eq!(parse(&[4, 0, 2, 0]), Some(Command::Pairs(2)));
        assert_eq!(parse(&[4, 1, 2, 0]), None, "no receive-side scaling");
        assert_eq!(parse(&[5, 0, 1, 0, 0, 0, 0, 0, 0, 128]), Some(Command::Offloads(1 << 63 | 1)));
        assert_eq!(parse(&[6, 0, 0]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn tables() {
        let mut bytes = vec![1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 9];
        assert_eq!(Command::parse(&bytes), None, "no second table");
        bytes.extend([0; 4]);
        assert_eq!(
            Command::parse(&bytes),
            Some(Command::Tables(&[[2, 0, 0, 0, 0, 9]], &[] as &[Mac]))
        );
        bytes[5] = 0x80;
        assert_eq!(Command::parse(&bytes), None, "more than there is");
    }

    proptest! {
        #[test]
        fn no_command_is_too_odd(bytes: Vec<u8>) {
            Command::parse(&bytes);
        }
    }
}
