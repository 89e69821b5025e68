//! Command descriptor blocks: from bytes to a [`Command`] (SPC-4, SBC-3, MMC-6).
//!
//! Pure; any thread, no lock. The bytes are the guest's: whatever they are, a command or sense
//! data comes out, and lengths in it are no more than 32 bits.

use super::bytes::{self, number};
use super::sense::Sense;

/// The kind of a unit, which decides what commands mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A direct-access block device.
    Disk,
    /// A CD or DVD drive.
    Cd,
}

/// Blocks that a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first.
    pub lba: u64,
    /// How many.
    pub count: u64,
}

/// What START STOP UNIT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStop {
    /// Be ready.
    Start,
    /// Rest.
    Stop,
    /// Close the tray.
    Load,
    /// Open the tray.
    Eject,
    /// Another power condition, which a virtual drive does not have.
    Power,
}

/// A command that has been understood. `alloc` is the most bytes its sender takes, `len` how many
/// bytes of parameters follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the commands and fields of the standards by their names")]
pub enum Command {
    TestUnitReady,
    RequestSense {
        descriptor: bool,
        alloc: usize,
    },
    /// `page`: the page of vital product data.
    Inquiry {
        page: Option<u8>,
        alloc: usize,
    },
    /// `short`: the command of 6 bytes. `control`: 0 current, 1 changeable, 2 default values.
    ModeSense {
        short: bool,
        no_blocks: bool,
        control: u8,
        page: u8,
        subpage: u8,
        alloc: usize,
    },
    ModeSelect {
        short: bool,
        len: usize,
    },
    ReportLuns {
        alloc: usize,
    },
    /// Answered by doing nothing.
    Nothing,
    StartStop(StartStop),
    PreventRemoval(bool),
    ReadCapacity10,
    ReadCapacity16 {
        alloc: usize,
    },
    Read(Blocks),
    /// `fua`: done once it is on the medium.
    Write {
        blocks: Blocks,
        fua: bool,
    },
    /// `compare`: with the bytes that follow.
    Verify {
        blocks: Blocks,
        compare: bool,
    },
    Seek {
        lba: u64,
    },
    SynchronizeCache,
    /// `no_data`: with zeros rather than the block that follows.
    WriteSame {
        blocks: Blocks,
        unmap: bool,
        no_data: bool,
    },
    Unmap {
        len: usize,
    },
    ReadToc {
        msf: bool,
        format: u8,
        track: u8,
        alloc: usize,
    },
    GetConfiguration {
        only: u8,
        first: u16,
        alloc: usize,
    },
    GetEventStatus {
        polled: bool,
        classes: u8,
        alloc: usize,
    },
    ReadDiscInformation {
        alloc: usize,
    },
    ReadDvdStructure {
        layer: u8,
        format: u8,
        alloc: usize,
    },
    MechanismStatus {
        alloc: usize,
    },
}

impl Command {
    /// Understands the bytes of a command for a unit of this kind.
    ///
    /// # Errors
    /// There is no such command, or it asks for what is not offered.
    pub fn parse(kind: Kind, cdb: &[u8]) -> Result<Command, Sense> {
        let byte = |at: usize| bytes::byte(cdb, at);
        let flag = |at: usize, bit: u8| byte(at) & bit != 0;
        let length = |at: usize, len: usize| bytes::length(cdb, at, len);
        let (disk, cd) = (kind == Kind::Disk, kind == Kind::Cd);
        let command = match byte(0) {
            0x00 => Command::TestUnitReady,
            0x03 => Command::RequestSense { descriptor: flag(1, 1), alloc: length(4, 1) },
            0x12 => {
                let page = if flag(1, 1) { Some(byte(2)) } else { None };
                if page.is_none() && byte(2) != 0 {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::Inquiry { page, alloc: length(3, 2) }
            }
            // RESERVE and RELEASE have one initiator here, SET CD SPEED nothing to set.
            0x16 | 0x17 | 0x56 | 0x57 => Command::Nothing,
            0xbb if cd => Command::Nothing,
            // SEND DIAGNOSTIC, self-test.
            0x1d if byte(1) & !0x04 == 0 && length(3, 2) == 0 => Command::Nothing,
            0x1d => return Err(Sense::INVALID_FIELD),
            op @ (0x1a | 0x5a) => Command::ModeSense {
                short: op == 0x1a,
                no_blocks: flag(1, 8),
                control: byte(2) >> 6,
                page: byte(2) & 0x3f,
                subpage: byte(3),
                alloc: if op == 0x1a { length(4, 1) } else { length(7, 2) },
            },
            op @ (0x15 | 0x55) => {
                // Page format, nothing saved.
                if byte(1) & 0x11 != 0x10 {
                    return Err(Sense::INVALID_FIELD);
                }
                let short = op == 0x15;
                Command::ModeSelect { short, len: if short { length(4, 1) } else { length(7, 2) } }
            }
            0xa0 => {
                if byte(2) > 2 || length(6, 4) < 16 {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::ReportLuns { alloc: length(6, 4) }
            }
            0x1b => Command::StartStop(match (byte(4) >> 4, byte(4) & 3) {
                (1.., _) => StartStop::Power,
                (0, 0) => StartStop::Stop,
                (0, 1) => StartStop::Start,
                (0, 2) => StartStop::Eject,
                (0, _) => StartStop::Load,
            }),
            0x1e => Command::PreventRemoval(byte(4) & 1 != 0),
            0x25 => {
                if flag(8, 1) || number(cdb, 2, 4) != 0 {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::ReadCapacity10
            }
            0x9e if byte(1) & 0x1f == 0x10 => Command::ReadCapacity16 { alloc: length(10, 4) },
            0x9e => return Err(Sense::INVALID_FIELD),
            op @ (0x08 | 0x28 | 0xa8 | 0x88) => Command::Read(transfer(op, cdb)?),
            op @ (0x0a | 0x2a | 0xaa | 0x8a) if disk => {
                Command::Write { blocks: transfer(op, cdb)?, fua: op != 0x0a && flag(1, 8) }
            }
            // WRITE AND VERIFY: nothing is known of a medium, but that it has the data.
            op @ (0x2e | 0xae | 0x8e) if disk => {
                if flag(1, 2) {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::Write { blocks: transfer(op, cdb)?, fua: true }
            }
            op @ (0x2f | 0xaf | 0x8f) => {
                let compare = match byte(1) >> 1 & 3 {
                    0 => false,
                    1 => true,
                    _ => return Err(Sense::INVALID_FIELD),
                };
                Command::Verify { blocks: transfer(op, cdb)?, compare }
            }
            0x2b => Command::Seek { lba: number(cdb, 2, 4) },
            0x35 | 0x91 => Command::SynchronizeCache,
            op @ (0x41 | 0x93) if disk => {
                let (unmap, no_data) = (flag(1, 8), op == 0x93 && flag(1, 1));
                // The obsolete bits ask for block numbers in the data, ANCHOR for a third state.
                if flag(1, 0x16) {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::WriteSame { blocks: transfer(op, cdb)?, unmap, no_data }
            }
            0x42 if disk => {
                if flag(1, 1) {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::Unmap { len: length(7, 2) }
            }
            0x43 if cd => {
                // Old drivers put the format into the last byte.
                let format = match byte(2) & 0xf {
                    0 => byte(9) >> 6,
                    format => format,
                };
                Command::ReadToc { msf: flag(1, 2), format, track: byte(6), alloc: length(7, 2) }
            }
            0x46 if cd => Command::GetConfiguration {
                only: byte(1) & 3,
                first: bytes::be16(cdb, 2),
                alloc: length(7, 2),
            },
            0x4a if cd => Command::GetEventStatus {
                polled: flag(1, 1),
                classes: byte(4),
                alloc: length(7, 2),
            },
            0x51 if cd => {
                if byte(1) & 7 != 0 {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::ReadDiscInformation { alloc: length(7, 2) }
            }
            0xad if cd => {
                if byte(1) & 0xf != 0 {
                    return Err(Sense::INVALID_FIELD);
                }
                Command::ReadDvdStructure { layer: byte(6), format: byte(7), alloc: length(8, 2) }
            }
            0xbd if cd => Command::MechanismStatus { alloc: length(8, 2) },
            _ => return Err(Sense::INVALID_OPCODE),
        };
        Ok(command)
    }

    /// How many bytes of parameters the command brings. What READ and WRITE move is not among them.
    pub fn parameters(&self, block: usize) -> usize {
        match *self {
            Command::ModeSelect { len, .. } | Command::Unmap { len } => len,
            Command::WriteSame { no_data: false, .. } => block,
            _ => 0,
        }
    }

    /// Whether it is done although the unit has something to tell (SAM-5, 5.14; MMC-6).
    pub fn ignores_attention(&self) -> bool {
        matches!(
            self,
            Command::Inquiry { .. }
                | Command::ReportLuns { .. }
                | Command::RequestSense { .. }
                | Command::GetConfiguration { .. }
                | Command::GetEventStatus { .. }
        )
    }
}

/// Blocks of a command that moves them, by the length of the command. Protection is not offered.
fn transfer(op: u8, cdb: &[u8]) -> Result<Blocks, Sense> {
    let (lba, count) = match op >> 5 {
        0 => {
            let count = match number(cdb, 4, 1) {
                0 => 256,
                count => count,
            };
            return Ok(Blocks { lba: number(cdb, 1, 3) & 0x1f_ffff, count });
        }
        1 | 2 => (number(cdb, 2, 4), number(cdb, 7, 2)),
        5 => (number(cdb, 2, 4), number(cdb, 6, 4)),
        _ => (number(cdb, 2, 8), number(cdb, 10, 4)),
    };
    if number(cdb, 1, 1) >> 5 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    Ok(Blocks { lba, count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(cdb: &[u8]) -> Result<Command, Sense> {
        Command::parse(Kind::Disk, cdb)
    }

    #[test]
    fn blocks_of_every_length() {
        let read = |lba, count| Ok(Command::Read(Blocks { lba, count }));
        assert_eq!(disk(&[0x08, 0xff, 0, 1, 0, 0]), read(0x1f_0001, 256));
        assert_eq!(disk(&[0x28, 0, 0, 0, 1, 2, 0, 3, 4, 0]), read(0x102, 0x304));
        assert_eq!(disk(&[0xa8, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0]), read(9, 0x1_0000));
        let long = [0x88, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0];
        assert_eq!(disk(&long), read(0x0100_0000_0000_0002, 5));
        let write = disk(&[0x2a, 8, 0, 0, 0, 1, 0, 0, 1, 0]);
        let blocks = Blocks { lba: 1, count: 1 };
        assert_eq!(write, Ok(Command::Write { blocks, fua: true }));
        assert_eq!(disk(&[0x28, 0x20, 0, 0, 0, 1, 0, 0, 1, 0]), Err(Sense::INVALID_FIELD));
    }

    #[test]
    fn each_kind_has_its_commands() {
        let toc = [0x43, 2, 0, 0, 0, 0, 1, 0, 12, 0];
        assert_eq!(disk(&toc), Err(Sense::INVALID_OPCODE));
        let parsed = Command::parse(Kind::Cd, &toc);
        assert_eq!(parsed, Ok(Command::ReadToc { msf: true, format: 0, track: 1, alloc: 12 }));
        let write = [0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0];
        assert_eq!(Command::parse(Kind::Cd, &write), Err(Sense::INVALID_OPCODE));
    }

    #[test]
    fn start_and_stop() {
        let of = |byte| disk(&[0x1b, 0, 0, 0, byte, 0]);
        assert_eq!(of(0), Ok(Command::StartStop(StartStop::Stop)));
        assert_eq!(of(2), Ok(Command::StartStop(StartStop::Eject)));
        assert_eq!(of(3), Ok(Command::StartStop(StartStop::Load)));
        assert_eq!(of(0x31), Ok(Command::StartStop(StartStop::Power)));
    }

    #[test]
    fn parameters_are_counted() {
        let unmap = disk(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]).unwrap();
        assert_eq!(unmap.parameters(512), 24);
        let same = disk(&[0x41, 8, 0, 0, 0, 1, 0, 0, 1, 0]).unwrap();
        assert_eq!(same.parameters(512), 512);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_sense(cdb in prop::collection::vec(any::<u8>(), 0..33)) {
            for kind in [Kind::Disk, Kind::Cd] {
                if let Ok(command) = Command::parse(kind, &cdb) {
                    prop_assert!(command.parameters(4096) <= 65_536);
                }
            }
        }
    }
}
