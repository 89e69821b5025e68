//! What a serial line has besides bytes: its speed and format, breaks, and the
//! lines to and from a modem.
//!
//! Plain data.

/// Something that a front end does to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Sets speed and format.
    Line(Line),
    /// Begins or ends a break.
    Break(bool),
    /// Sets the lines to the modem.
    Modem {
        /// Data terminal ready.
        dtr: bool,
        /// Request to send.
        rts: bool,
    },
}

/// Speed and format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bits per second.
    pub speed: u32,
    /// The parity bit.
    pub parity: Parity,
    /// Data bits of a character, 5 to 8.
    pub data_bits: u8,
    /// Whether there are two stop bits rather than one.
    pub two_stop_bits: bool,
}

/// The parity bit of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// There is none.
    None,
    /// An odd number of ones.
    Odd,
    /// An even number of ones.
    Even,
}

/// The lines from a modem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModemLines {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ri: bool,
    /// Data carrier detect.
    pub dcd: bool,
}
