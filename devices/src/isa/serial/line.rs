//! The line behind the port: what the guest's control registers mean on the host's side, where
//! there is a real line, and the modem's lines that come from there.
//!
//! Under the device's mutex. Lines are looked at when the guest reads them and, while it wants
//! interrupts from them, [`LOOK`] apart.

use crate::chardev::{Control, Line, ModemLines, Parity};

use super::{
    BASE_BAUD, IER_MSI, LCR_BREAK, LCR_DLAB, MCR_DTR, MCR_LOOP, MCR_RTS, MSR_CTS, MSR_DCD, MSR_DSR,
    MSR_RI, MSR_TERI, Serial,
};

/// How often to look at the modem's lines, in nanoseconds.
const LOOK: u64 = 10_000_000;

/// The lines of a cable to a listening peer.
pub(super) const ALL_ON: u8 = MSR_DCD | MSR_DSR | MSR_CTS;

/// What the other side was told last.
#[derive(Default)]
pub(super) struct Told {
    line: Option<Line>,
    is_break: bool,
    modem: Option<(bool, bool)>,
}

impl Serial {
    /// Tells the other side what has changed on the line.
    pub(super) fn tell_line(&mut self) {
        // While the divisor is being changed the line is not in use.
        let line = self.line().filter(|_| self.regs.lcr & LCR_DLAB == 0);
        if line.is_some() && line != self.told.line {
            self.told.line = line;
            line.into_iter().for_each(|line| self.backend.control(Control::Line(line)));
        }
        // In loopback nothing leaves the chip.
        let cut = self.regs.mcr & MCR_LOOP != 0;
        let is_break = !cut && self.regs.lcr & LCR_BREAK != 0;
        if std::mem::replace(&mut self.told.is_break, is_break) != is_break {
            self.backend.control(Control::Break(is_break));
        }
        let output = |bit: u8| !cut && self.regs.mcr & bit != 0;
        let modem @ (dtr, rts) = (output(MCR_DTR), output(MCR_RTS));
        if self.told.modem.replace(modem) != Some(modem) {
            self.backend.control(Control::Modem { dtr, rts });
        }
    }

    /// Begins with another other side.
    pub(super) fn meet_line(&mut self) {
        self.told = Told::default();
        self.tell_line();
        self.lines = self.backend.modem_lines().map_or(ALL_ON, bits);
    }

    /// Speed and format; `None` while there is no divisor.
    fn line(&self) -> Option<Line> {
        let speed = BASE_BAUD.checked_div(self.regs.divisor.into())?;
        let lcr = self.regs.lcr;
        Some(Line {
            speed: u32::try_from(speed).ok()?,
            parity: match lcr >> 3 & 3 {
                1 => Parity::Odd,
                3 => Parity::Even,
                _ => Parity::None,
            },
            data_bits: (lcr & 3).saturating_add(5),
            two_stop_bits: lcr & 4 != 0,
        })
    }

    /// Looks at the modem's lines, where there are some.
    pub(super) fn look_at_lines(&mut self) {
        let Some(lines) = self.backend.modem_lines().map(bits) else { return };
        if self.regs.mcr & MCR_LOOP == 0 {
            self.note_change(self.lines, lines);
        }
        self.lines = lines;
        self.look_later();
    }

    /// Has the lines looked at again if the guest wants to hear of them.
    pub(super) fn look_later(&mut self) {
        let wanted = self.regs.ier & IER_MSI != 0 && self.backend.modem_lines().is_some();
        self.lines_due = wanted.then(|| self.timer.now().saturating_add(LOOK));
        self.schedule();
    }

    /// Notes which of the modem's lines have changed.
    pub(super) fn note_change(&mut self, before: u8, after: u8) {
        // Each delta bit is four below its line; that of the ring indicator marks its end only.
        self.regs.modem_deltas |= ((before ^ after) >> 4) & !MSR_TERI;
        if before & MSR_RI != 0 && after & MSR_RI == 0 {
            self.regs.modem_deltas |= MSR_TERI;
        }
    }
}

fn bits(lines: ModemLines) -> u8 {
    [(lines.cts, MSR_CTS), (lines.dsr, MSR_DSR), (lines.ri, MSR_RI), (lines.dcd, MSR_DCD)]
        .into_iter()
        .filter(|(on, _)| *on)
        .fold(0, |bits, (_, bit)| bits | bit)
}
