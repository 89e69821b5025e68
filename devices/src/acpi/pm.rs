//! The ACPI fixed hardware (ACPI specification 6.5, section 4.8): power management events and
//! control, the power management timer, general purpose events, and the SMI command port.
//!
//! Region [`BLOCK`]: 16 bytes, by default at port 0x600:
//!
//! | offset | register |
//! |---|---|
//! | 0, 2 | PM1 status (write one to clear), PM1 enable |
//! | 4 | PM1 control |
//! | 8 | power management timer: 24 bits at 3.579545 MHz, read-only |
//!
//! Region [`GPE`]: 4 bytes, port 0xafe0: general purpose events, see [`super::gpe`].
//!
//! Region [`SMI`]: 2 bytes, port 0xb2: command and a scratch byte. Commands [`ACPI_ENABLE`] and
//! [`ACPI_DISABLE`] switch SCI_EN.
//!
//! The system control interrupt is a level: high while an enabled status bit is set.
//!
//! Runs on vCPU threads (registers), the I/O thread (timer) and the main thread (buttons, wake-up)
//! under the device's mutex. A hostile guest can toggle one line, arm one timer that is due every
//! 2.3 s at most, and ask for shutdown and suspension.

use std::sync::{Arc, Weak};

use resources::class::Class;
use resources::clock::{Clock, Timer};
use resources::device::{At, Device, DeviceCell, read_bytes, write_bytes};
use resources::guest_error;
use resources::irq::Irq;
use resources::props::{Kind, Prop, PropError, Props};
use resources::request::{Request, Requests, WakeReason};
use resources::state::{Blob, StateError, invalid};

use crate::class::Ctx;

use self::state::Registers;
use super::gpe::{self, Gpe};

/// The register block's region.
pub const BLOCK: u16 = 0;
/// The usual port of region [`BLOCK`].
pub const BLOCK_PORT: u64 = 0x600;
/// Size of region [`BLOCK`] in bytes.
pub const BLOCK_SIZE: u64 = 16;
/// The SMI command port's region.
pub const SMI: u16 = 1;
/// The port of region [`SMI`].
pub const SMI_PORT: u64 = 0xb2;
/// Size of region [`SMI`] in bytes.
pub const SMI_SIZE: u64 = 2;
/// The general purpose events' region.
pub const GPE: u16 = 2;
/// The port of region [`GPE`], where firmware made for QEMU's `pc` looks for it.
pub const GPE_PORT: u64 = 0xafe0;
/// Size of region [`GPE`] in bytes: two of status, two of enable.
pub const GPE_SIZE: u64 = 4;
/// The interrupt by which ACPI is told.
pub const SCI: u8 = 9;

/// SMI command that hands the hardware to the operating system.
pub const ACPI_ENABLE: u8 = 0xf1;
/// SMI command that takes it back.
pub const ACPI_DISABLE: u8 = 0xf0;

/// Sleep types: what the guest writes for S5, S3 and S4.
pub const SLEEP_S5: u8 = 0;
/// See [`SLEEP_S5`].
pub const SLEEP_S3: u8 = 1;
/// See [`SLEEP_S5`].
pub const SLEEP_S4: u8 = 2;

/// Offsets in region [`BLOCK`].
pub(super) const PM1_EVENT: u32 = 0;
pub(super) const PM1_CONTROL: u32 = 4;
pub(super) const PM_TIMER: u32 = 8;

/// PM1 status and enable bits.
const TIMER: u16 = 1 << 0;
const GLOBAL: u16 = 1 << 5;
const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_BUTTON: u16 = 1 << 9;
const RTC: u16 = 1 << 10;
const WAKE: u16 = 1 << 15;
const EVENTS: u16 = TIMER | GLOBAL | POWER_BUTTON | SLEEP_BUTTON | RTC;

/// PM1 control bits. The sleep bits are in the upper byte.
const SCI_ENABLE: u16 = 1 << 0;
const CONTROL_KEPT: u16 = 0x1c03;
const SLEEP_ENABLE: u8 = 1 << 5;

/// Frequency of the power management timer in Hz.
const TICKS_PER_SECOND: u128 = 3_579_545;
const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// The timer's status bit is set whenever the counter's top bit changes.
const HALF_TURN: u64 = 1 << 23;

/// The device.
pub struct Pm {
    sci: Irq,
    gpe: Arc<Gpe>,
    timer: Timer,
    requests: Requests,
    /// Value of PM1 control at power-on.
    control_at_reset: u16,
    sleeps: Sleeps,
    regs: Registers,
}

/// What a guest can sleep by, and what it writes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleeps {
    /// Suspend to RAM: [`SLEEP_S3`].
    pub s3: bool,
    /// Suspend to disk: this, if it can.
    pub s4: Option<u8>,
}

impl Default for Sleeps {
    fn default() -> Sleeps {
        Sleeps { s3: true, s4: Some(SLEEP_S4) }
    }
}

/// Properties of the PCI function that places the device.
pub const PROPS: &[Prop] = &[
    Prop {
        name: "disable_s3",
        kind: Kind::U8(0, 255),
        default: Some("0"),
        help: "other than 0: the guest cannot suspend to RAM",
    },
    Prop {
        name: "disable_s4",
        kind: Kind::U8(0, 255),
        default: Some("0"),
        help: "other than 0: the guest cannot suspend to disk",
    },
    Prop {
        name: "s4_val",
        kind: Kind::U8(0, 255),
        default: Some("2"),
        help: "sleep type for suspending to disk, of which 3 bits count",
    },
];

impl Pm {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("acpi-pm", "System", "ACPI power management");

    /// What a guest can sleep by, according to [`PROPS`].
    ///
    /// # Errors
    /// When a property is missing.
    pub fn sleeps(props: &Props) -> Result<Sleeps, PropError> {
        let s4: u8 = props.get("s4_val")?;
        Ok(Sleeps {
            s3: props.get::<u8>("disable_s3")? == 0,
            s4: (props.get::<u8>("disable_s4")? == 0).then_some(s4 & 7),
        })
    }

    /// The block, with the registers of `gpe`. `acpi_mode`: starts with SCI_EN set, for a guest
    /// that no firmware prepares. Other sleeps than `sleeps` and S5 are ignored.
    pub fn new(
        name: &str,
        (sci, gpe): (Irq, Arc<Gpe>),
        clock: &Arc<Clock>,
        requests: Requests,
        (acpi_mode, sleeps): (bool, Sleeps),
    ) -> Arc<DeviceCell<Pm>> {
        let cell = DeviceCell::new_cyclic(name, |weak: &Weak<DeviceCell<Pm>>| {
            let weak = weak.clone();
            let timer = clock.timer(move || {
                if let Some(cell) = weak.upgrade() {
                    cell.lock().turned();
                }
            });
            let control_at_reset = if acpi_mode { SCI_ENABLE } else { 0 };
            Pm { sci, gpe, timer, requests, control_at_reset, sleeps, regs: Registers::default() }
        });
        cell.lock().reset();
        cell
    }

    /// The power button is pressed.
    pub fn power_button(&mut self) {
        self.regs.status |= POWER_BUTTON;
        self.update();
    }

    /// The sleep button is pressed.
    pub fn sleep_button(&mut self) {
        self.regs.status |= SLEEP_BUTTON;
        self.update();
    }

    /// The guest leaves a sleep: why, for it to read.
    pub fn wake(&mut self, reason: WakeReason) {
        self.regs.asleep = false;
        self.regs.status |= WAKE | event_of(reason);
        self.update();
    }

    /// Whether the guest wants to be woken for this reason: the PM1 enable bits.
    pub fn wakes_by(&self, reason: WakeReason) -> bool {
        match event_of(reason) {
            0 => true,
            event => self.regs.enable & event != 0,
        }
    }

    fn ticks(&self) -> u64 {
        let ticks = u128::from(self.timer.now())
            .saturating_mul(TICKS_PER_SECOND)
            .checked_div(NANOS_PER_SECOND);
        ticks.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(u64::MAX)
    }

    /// When the top bit of the timer changes next.
    fn next_turn(&self) -> u64 {
        (self.ticks() | (HALF_TURN - 1)).saturating_add(1)
    }

    fn timer_deadline(&self) -> u64 {
        let nanos = u128::from(self.regs.timer_turn)
            .saturating_mul(NANOS_PER_SECOND)
            .div_ceil(TICKS_PER_SECOND);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    fn sci_level(&self) -> bool {
        self.acpi_mode() && self.regs.status & self.regs.enable & EVENTS != 0
    }

    fn acpi_mode(&self) -> bool {
        self.regs.control & SCI_ENABLE != 0
    }

    /// The timer's top bit may have changed while the guest wants to know.
    fn turned(&mut self) {
        let before = self.regs.status;
        self.update();
        if self.regs.status & !before & TIMER != 0 {
            self.requests.request(Request::Wakeup(WakeReason::PmTimer));
        }
    }

    /// Lets the interrupt and the timer follow the registers.
    fn update(&mut self) {
        if self.ticks() >= self.regs.timer_turn {
            self.regs.status |= TIMER;
        }
        // While the status is set, the next turn changes nothing.
        if self.regs.enable & TIMER != 0 && self.regs.status & TIMER == 0 {
            let deadline = self.timer_deadline();
            self.timer.arm(deadline);
        } else {
            self.timer.cancel();
        }
        self.sci.set(self.sci_level());
        self.gpe.set_acpi_mode(self.acpi_mode());
    }

    fn block(&mut self) -> [u8; 16] {
        self.update();
        let regs = &self.regs;
        let [s0, s1] = regs.status.to_le_bytes();
        let [e0, e1] = regs.enable.to_le_bytes();
        let [c0, c1] = regs.control.to_le_bytes();
        let [t0, t1, t2, ..] = self.ticks().to_le_bytes();
        [s0, s1, e0, e1, c0, c1, 0, 0, t0, t1, t2, 0, 0, 0, 0, 0]
    }

    fn write_block(&mut self, offset: u64, value: u8) {
        let upper = offset & 1 != 0;
        match offset {
            0 | 1 => {
                self.update();
                let cleared = u16::from(value) << if upper { 8 } else { 0 };
                if cleared & self.regs.status & TIMER != 0 {
                    self.regs.timer_turn = self.next_turn();
                }
                self.regs.status &= !cleared;
            }
            2 | 3 => self.regs.enable = with_byte(self.regs.enable, upper, value) & EVENTS,
            4 | 5 => {
                self.regs.control = with_byte(self.regs.control, upper, value) & CONTROL_KEPT;
                if upper && value & SLEEP_ENABLE != 0 {
                    self.sleep(value >> 2 & 7);
                }
            }
            _ => {}
        }
        self.update();
    }

    fn sleep(&mut self, kind: u8) {
        self.requests.request(match kind {
            SLEEP_S5 => Request::Shutdown,
            SLEEP_S3 if self.sleeps.s3 => {
                self.regs.asleep = true;
                Request::Suspend
            }
            _ if self.sleeps.s4 == Some(kind) => Request::SuspendDisk,
            _ => return guest_error!("acpi", "unknown sleep type {kind}"),
        });
    }

    fn write_smi(&mut self, offset: u64, value: u8) {
        if offset != 0 {
            self.regs.smi_status = value;
            return;
        }
        self.regs.smi_command = value;
        match value {
            ACPI_ENABLE => self.regs.control |= SCI_ENABLE,
            ACPI_DISABLE => self.regs.control &= !SCI_ENABLE,
            _ => {}
        }
        self.update();
    }
}

/// The PM1 event that goes with a reason to wake up.
fn event_of(reason: WakeReason) -> u16 {
    match reason {
        WakeReason::Other => 0,
        WakeReason::Rtc => RTC,
        WakeReason::PmTimer => TIMER,
        WakeReason::PowerButton => POWER_BUTTON,
        WakeReason::SleepButton => SLEEP_BUTTON,
    }
}

fn with_byte(word: u16, upper: bool, value: u8) -> u16 {
    let [low, high] = word.to_le_bytes();
    u16::from_le_bytes(if upper { [low, value] } else { [value, high] })
}

impl Device for Pm {
    fn read(&mut self, at: At, data: &mut [u8]) {
        match at.region {
            BLOCK => {
                // One look at the timer for all bytes of an access.
                let block = self.block();
                read_bytes(at, data, |offset| {
                    let byte = usize::try_from(offset).ok().and_then(|offset| block.get(offset));
                    byte.copied().unwrap_or(0xff)
                });
            }
            SMI => read_bytes(at, data, |offset| match offset {
                0 => self.regs.smi_command,
                1 => self.regs.smi_status,
                _ => 0xff,
            }),
            GPE => read_bytes(at, data, |offset| self.gpe.read(offset)),
            _ => {}
        }
    }

    fn write(&mut self, at: At, data: &[u8]) {
        match at.region {
            BLOCK => write_bytes(at, data, |offset, value| self.write_block(offset, value)),
            SMI => write_bytes(at, data, |offset, value| self.write_smi(offset, value)),
            GPE => write_bytes(at, data, |offset, value| self.gpe.write(offset, value)),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.gpe.reset();
        self.regs = Registers {
            control: self.control_at_reset,
            timer_turn: self.next_turn(),
            ..Registers::default()
        };
        self.update();
    }

    fn start(&mut self) {
        self.update();
        // A machine that stopped for something else in the same moment did not go to sleep, and
        // its guest waits for nothing but to be woken.
        if self.regs.asleep {
            self.requests.request(Request::Suspend);
        }
    }

    fn save(&self) -> Result<Blob, StateError> {
        let gpe::Registers { status: gpe_status, enable: gpe_enable } = self.gpe.registers();
        Blob::new(1, &Registers { gpe_status, gpe_enable, ..self.regs.clone() })
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let regs: Registers = blob.parse(1, &[])?;
        if regs.enable & !EVENTS != 0 || regs.status & !(EVENTS | WAKE) != 0 {
            return Err(invalid("unknown ACPI event"));
        }
        if regs.control & !CONTROL_KEPT != 0 {
            return Err(invalid("unknown bits in ACPI PM1 control"));
        }
        self.timer.cancel();
        self.regs = regs;
        self.sci.import(self.sci_level());
        let gpe = gpe::Registers { status: self.regs.gpe_status, enable: self.regs.gpe_enable };
        self.gpe.load(gpe, self.acpi_mode());
        Ok(())
    }
}

mod state {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Default, Serialize, Deserialize)]
    #[serde(default)]
    pub(super) struct Registers {
        pub(super) status: u16,
        pub(super) enable: u16,
        pub(super) control: u16,
        /// What [`super::Gpe`] has; of use in saved state alone, as is the next.
        pub(super) gpe_status: u16,
        pub(super) gpe_enable: u16,
        pub(super) smi_command: u8,
        pub(super) smi_status: u8,
        /// The count of timer ticks at which the timer's status bit is next set.
        pub(super) timer_turn: u64,
        /// The guest went to sleep in S3 and was not woken.
        pub(super) asleep: bool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::piix::Piix4Pm;
    use crate::testing::{Requested, line};
    use resources::device::{put_value, value_of};
    use resources::hv::fake::Fake;
    use resources::irq::Wire;

    struct Rig {
        cell: Arc<DeviceCell<Pm>>,
        gpe: Arc<Gpe>,
        clock: Arc<Clock>,
        sci: Arc<Fake>,
        requests: Arc<Requested>,
    }

    const TURN_NANOS: u64 = (HALF_TURN * 1_000_000_000).div_ceil(3_579_545);

    impl Rig {
        fn new(acpi_mode: bool) -> Rig {
            let (irq, sci) = line(9);
            let (clock, requests) = (Clock::new(), Arc::new(Requested::default()));
            let gpe = Gpe::new(Wire::new(9, sci.clone()).line());
            let how = (acpi_mode, Sleeps::default());
            let cell = Pm::new("pm", (irq, gpe.clone()), &clock, requests.clone(), how);
            cell.lock().start();
            Rig { cell, gpe, clock, sci, requests }
        }

        fn read(&self, offset: u64, len: usize) -> u64 {
            let mut data = [0xff; 8];
            self.cell.lock().read(At { region: BLOCK, offset }, &mut data[..len]);
            value_of(&data[..len])
        }

        fn write(&self, region: u16, offset: u64, len: usize, value: u64) {
            let mut data = [0; 8];
            put_value(&mut data, value);
            self.cell.lock().write(At { region, offset }, &data[..len]);
        }

        fn high(&self) -> bool {
            self.sci.line(9)
        }
    }

    #[test]
    fn the_timer_counts_at_its_rate_in_24_bits() {
        let rig = Rig::new(true);
        rig.clock.step_to(1_000_000_000);
        assert_eq!(rig.read(8, 4), 3_579_545);
        rig.clock.step_to(5_000_000_000);
        assert_eq!(rig.read(8, 4), 5 * 3_579_545 - (1 << 24));
        assert_eq!(rig.read(9, 1), ((5 * 3_579_545) >> 8) & 0xff);
    }

    #[test]
    fn the_timer_status_follows_the_top_bit() {
        let rig = Rig::new(true);
        rig.write(BLOCK, 2, 2, 1);
        rig.clock.step_to(TURN_NANOS - 1);
        assert_eq!(rig.read(0, 2), 0);
        rig.clock.step_to(TURN_NANOS);
        assert!(rig.high());
        assert_eq!(rig.read(0, 2), 1);
        rig.write(BLOCK, 0, 2, 1);
        assert!(!rig.high());
        rig.clock.step_to(2 * TURN_NANOS);
        assert!(rig.high());
        // Not enabled: no timer, but the status is there.
        rig.write(BLOCK, 2, 2, 0);
        rig.write(BLOCK, 0, 2, 1);
        assert_eq!(rig.clock.next_deadline(), None);
        rig.clock.step_to(3 * TURN_NANOS);
        assert!(!rig.high());
        assert_eq!(rig.read(0, 2), 1);
    }

    #[test]
    fn the_power_button_interrupts_in_acpi_mode_only() {
        let rig = Rig::new(false);
        rig.write(BLOCK, 2, 2, 0x100);
        rig.cell.lock().power_button();
        assert!(!rig.high());
        assert_eq!(rig.read(4, 2), 0);
        rig.write(SMI, 0, 1, u64::from(ACPI_ENABLE));
        assert_eq!(rig.read(4, 2), 1);
        assert!(rig.high());
        rig.write(BLOCK, 0, 2, 0x100);
        assert!(!rig.high());
        rig.write(SMI, 0, 1, u64::from(ACPI_DISABLE));
        assert_eq!(rig.read(4, 2), 0);
        rig.cell.lock().reset();
        assert_eq!(rig.read(4, 2), 0);
        assert_eq!(Rig::new(true).read(4, 2), 1);
    }

    #[test]
    fn sleep_types_ask_the_machine() {
        let rig = Rig::new(true);
        for (kind, request) in
            [(0, Request::Shutdown), (1, Request::Suspend), (2, Request::SuspendDisk)]
        {
            rig.write(BLOCK, 4, 2, kind << 10 | 1);
            assert_eq!(rig.requests.take(), []);
            rig.write(BLOCK, 4, 2, kind << 10 | 0x2001);
            assert_eq!(rig.requests.take(), [request]);
        }
        rig.write(BLOCK, 4, 2, 7 << 10 | 0x2001);
        assert_eq!(rig.requests.take(), []);
        assert_eq!(rig.read(4, 2), 7 << 10 | 1, "the sleep bit reads as zero");
    }

    #[test]
    fn who_was_not_put_to_sleep_is_when_the_machine_goes_on() {
        let rig = Rig::new(true);
        rig.write(BLOCK, 4, 2, 1 << 10 | 0x2001);
        assert_eq!(rig.requests.take(), [Request::Suspend]);
        // The machine was stopped in that moment, and moves.
        let other = Rig::new(true);
        other.cell.lock().load(&rig.cell.lock().save().unwrap()).unwrap();
        other.cell.lock().start();
        assert_eq!(other.requests.take(), [Request::Suspend]);
        other.cell.lock().wake(WakeReason::Other);
        other.cell.lock().start();
        assert_eq!(other.requests.take(), []);
        rig.cell.lock().reset();
        rig.cell.lock().start();
        assert_eq!(rig.requests.take(), []);
    }

    #[test]
    fn sleeps_that_are_not_offered_are_ignored() {
        let overrides = [("PIIX4_PM", "disable_s3", "1"), ("PIIX4_PM", "s4_val", "5")];
        let props = Piix4Pm::CLASS.props(&overrides.into_iter().collect(), []).unwrap();
        let sleeps = Pm::sleeps(&props).unwrap();
        assert_eq!(sleeps, Sleeps { s3: false, s4: Some(5) });
        let rig = Rig::new(true);
        rig.cell.lock().sleeps = sleeps;
        for (kind, expected) in [(1, None), (2, None), (5, Some(Request::SuspendDisk))] {
            rig.write(BLOCK, 4, 2, kind << 10 | 0x2001);
            assert_eq!(rig.requests.take(), Vec::from_iter(expected));
        }
        let none = [("PIIX4_PM", "disable_s4", "1")].into_iter().collect();
        let sleeps = Pm::sleeps(&Piix4Pm::CLASS.props(&none, []).unwrap()).unwrap();
        assert_eq!(sleeps, Sleeps { s3: true, s4: None });
    }

    #[test]
    fn the_timer_and_the_buttons_wake_if_the_guest_wants_it() {
        let rig = Rig::new(true);
        let by = |reason| rig.cell.lock().wakes_by(reason);
        assert!(by(WakeReason::Other) && !by(WakeReason::SleepButton));
        rig.clock.step_to(TURN_NANOS);
        assert_eq!(rig.requests.take(), []);
        rig.write(BLOCK, 2, 2, u64::from(TIMER | SLEEP_BUTTON));
        assert!(by(WakeReason::SleepButton) && !by(WakeReason::PowerButton));
        rig.write(BLOCK, 0, 2, u64::from(TIMER));
        rig.clock.step_to(2 * TURN_NANOS);
        assert_eq!(rig.requests.take(), [Request::Wakeup(WakeReason::PmTimer)]);
        rig.cell.lock().sleep_button();
        assert_eq!(rig.read(0, 2), u64::from(TIMER | SLEEP_BUTTON));
    }

    #[test]
    fn waking_is_recorded() {
        let rig = Rig::new(true);
        rig.cell.lock().wake(WakeReason::Rtc);
        assert_eq!(rig.read(0, 2), u64::from(WAKE | RTC));
        rig.write(BLOCK, 0, 2, 0xffff);
        assert_eq!(rig.read(0, 2), 0);
        assert!(!rig.cell.lock().wakes_by(WakeReason::Rtc));
        rig.write(BLOCK, 2, 2, 0x400);
        assert!(rig.cell.lock().wakes_by(WakeReason::Rtc));
    }

    #[test]
    fn general_purpose_events_follow_the_mode_and_are_saved() {
        let rig = Rig::new(false);
        rig.write(GPE, 2, 2, 1 << 9);
        rig.gpe.raise(9);
        assert!(!rig.high());
        rig.write(SMI, 0, 1, u64::from(ACPI_ENABLE));
        assert!(rig.high());
        let saved = rig.cell.lock().save().unwrap();
        let mut data = [0; 4];
        rig.cell.lock().read(At { region: GPE, offset: 0 }, &mut data);
        assert_eq!(data, [0, 2, 0, 2]);
        rig.write(GPE, 0, 2, 1 << 9);
        assert!(!rig.high());
        rig.cell.lock().load(&saved).unwrap();
        assert!(rig.gpe.is_pending());
        rig.cell.lock().reset();
        assert!(!rig.gpe.is_pending());
        assert_eq!(rig.cell.lock().save().unwrap(), Rig::new(false).cell.lock().save().unwrap());
    }
}
