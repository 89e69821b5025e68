//! Sense data: why a command failed, or what has happened to a logical unit since the last one
//! (SPC-4, 4.5).
//!
//! Pure; any thread, no lock.

use serde::{Deserialize, Serialize};

use super::bytes::Page;

/// The length of sense data in the fixed format.
pub const SENSE_LEN: usize = 18;

/// A sense key with its additional sense code and qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// The sense key, 0 to 15.
    pub key: u8,
    /// The additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
}

macro_rules! senses {
    ($($(#[$doc:meta])* $name:ident = $key:literal $code:literal $qualifier:literal;)*) => {
        impl Sense {
            $($(#[$doc])*
            pub const $name: Sense = Sense { key: $key, code: $code, qualifier: $qualifier };)*
        }
    };
}

senses! {
    /// Nothing to tell.
    NONE = 0x0 0x00 0x00;
    /// The unit was stopped by START STOP UNIT.
    NOT_READY_STOPPED = 0x2 0x04 0x02;
    /// There is no medium, and the tray is closed.
    NO_MEDIUM = 0x2 0x3a 0x01;
    /// There is no medium: the tray is open.
    TRAY_OPEN = 0x2 0x3a 0x02;
    /// The host could not read.
    READ_ERROR = 0x3 0x11 0x00;
    /// The host could not write.
    WRITE_ERROR = 0x3 0x0c 0x00;
    /// The host could not do it for a reason of its own.
    TARGET_FAILURE = 0x4 0x44 0x00;
    /// A parameter list is shorter than it says.
    LIST_LENGTH = 0x5 0x1a 0x00;
    /// There is no such command.
    INVALID_OPCODE = 0x5 0x20 0x00;
    /// Blocks past the end.
    LBA_RANGE = 0x5 0x21 0x00;
    /// A field of the command is wrong.
    INVALID_FIELD = 0x5 0x24 0x00;
    /// There is no such logical unit.
    LUN = 0x5 0x25 0x00;
    /// A field of the parameter list is wrong.
    INVALID_PARAMETER = 0x5 0x26 0x00;
    /// A parameter has a value that is not taken.
    PARAMETER_VALUE = 0x5 0x26 0x02;
    /// There are no saved mode pages.
    SAVING = 0x5 0x39 0x00;
    /// The medium is locked in.
    REMOVAL_PREVENTED = 0x5 0x53 0x02;
    /// The medium is of another kind.
    INCOMPATIBLE_FORMAT = 0x5 0x30 0x00;
    /// What is not written cannot be written.
    WRITE_PROTECTED = 0x7 0x27 0x00;
    /// The host has no room for what is written.
    SPACE_ALLOCATION = 0x7 0x27 0x07;
    /// VERIFY found other bytes.
    MISCOMPARE = 0xe 0x1d 0x00;
    /// The task was ended by another one.
    ABORTED = 0xb 0x00 0x06;
}

impl Sense {
    /// The fixed format of 18 bytes.
    pub fn fixed(self) -> [u8; SENSE_LEN] {
        let mut data = [0; SENSE_LEN];
        let fields = Page::new(SENSE_LEN)
            .byte(0, 0x70)
            .byte(2, self.key)
            .byte(7, 10)
            .byte(12, self.code)
            .byte(13, self.qualifier)
            .done();
        for (to, from) in data.iter_mut().zip(fields) {
            *to = from;
        }
        data
    }

    /// The descriptor format, without descriptors.
    pub fn descriptor(self) -> [u8; 8] {
        [0x72, self.key, self.code, self.qualifier, 0, 0, 0, 0]
    }

    /// What a failed operation on the host is to a guest.
    pub fn of_io(error: &std::io::Error, write: bool) -> Sense {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Sense::SPACE_ALLOCATION,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied if write => {
                Sense::WRITE_PROTECTED
            }
            ErrorKind::OutOfMemory => Sense::TARGET_FAILURE,
            _ if write => Sense::WRITE_ERROR,
            _ => Sense::READ_ERROR,
        }
    }
}

/// Something that happened to a unit, of which the next command is told (SAM-5, 5.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Attention {
    /// It was powered on, reset, or its bus was.
    Reset,
    /// The units of its target are others.
    Luns,
    /// A medium has come, or another one.
    Medium,
    /// The user asks for the medium.
    EjectRequest,
    /// It has another size.
    Capacity,
    /// Mode pages were changed.
    Mode,
}

impl Attention {
    /// Its sense data.
    pub fn sense(self) -> Sense {
        let (code, qualifier) = match self {
            Attention::Reset => (0x29, 0x00),
            Attention::Luns => (0x3f, 0x0e),
            Attention::Medium => (0x28, 0x00),
            Attention::EjectRequest => (0x5a, 0x01),
            Attention::Capacity => (0x2a, 0x09),
            Attention::Mode => (0x2a, 0x01),
        };
        Sense { key: 0x6, code, qualifier }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let fixed = Sense::LBA_RANGE.fixed();
        assert_eq!((fixed[0], fixed[2], fixed[7], fixed[12], fixed[13]), (0x70, 5, 10, 0x21, 0));
        assert_eq!(Attention::Reset.sense().descriptor(), [0x72, 6, 0x29, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn errors_of_the_host() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Sense::of_io(&full, true), Sense::SPACE_ALLOCATION);
        let io = std::io::Error::other("bad sector");
        assert_eq!(Sense::of_io(&io, false), Sense::READ_ERROR);
        assert_eq!(Sense::of_io(&io, true), Sense::WRITE_ERROR);
    }
}
