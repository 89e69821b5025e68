//! The south bridge of machine `pc`: function 01.0, an Intel PIIX3 (82371SB), which leads the
//! interrupt links to the interrupt controller; and 01.3, the power management of a PIIX4
//! (82371AB), which places the ACPI registers.
//!
//! PIIX3 registers 0x60 to 0x63 (PIRQRC): bits 3:0 choose the input of links A to D, bit 7
//! switches the link off. Power management register 0x40 (PMBASE) has the port of the ACPI
//! registers in bits 15:6, register 0x80 (PMREGMISC) switches them on by bit 0.
//!
//! Configuration writes on vCPU threads, under the function's mutex. A hostile guest can lead its
//! interrupts to any input, and its ACPI registers to any port.

use std::ops::Range;
use std::sync::Arc;

use resources::class::{Class, CreateError};
use resources::device::DeviceCell;
use resources::guest_error;
use resources::space::{MapId, Space};

use super::INTEL;
use super::bus::{Address, Links};
use super::config::{ConfigSpace, reg};
use super::function::{Function, PciDevice};
use super::plug::{Identity, Interrupts, Site, Spec};
use crate::acpi::pm::PROPS;
use crate::class::Ctx;

/// Where the PIIX3 is.
pub const ISA_ADDRESS: Address = Address::new(1, 0);
/// Where the power management is.
pub const PM_ADDRESS: Address = Address::new(1, 3);
/// The first of the four routing registers.
pub const ROUTES: usize = 0x60;
/// Where links A to D lead when no firmware decides that.
pub const USUAL_ROUTES: [u8; 4] = [10, 10, 11, 11];

/// In a routing register: the link leads nowhere.
const ROUTE_OFF: u8 = 0x80;
/// The system control interrupt, to which the power management's pin leads in fact.
const SCI: u8 = 9;

/// The function with the interrupt links.
pub struct Piix3 {
    links: Arc<Links>,
}

impl Piix3 {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> = Class::part("PIIX3", "PCI", "ISA bridge");

    /// The bridge. `routes`: where the links lead after power-on, if anywhere.
    ///
    /// # Errors
    /// See [`Site::add`].
    pub fn add(
        site: Site,
        links: &Arc<Links>,
        routes: Option<[u8; 4]>,
    ) -> Result<Arc<DeviceCell<Function<Piix3>>>, CreateError> {
        let identity =
            Identity { vendor: INTEL, device: 0x7000, class: 0x0601, ..Identity::default() };
        site.add(Spec { identity, ..Spec::default() }, |parts| {
            parts.config.set_power_on(ROUTES, &routes.unwrap_or([ROUTE_OFF; 4]));
            parts.config.set_writable(ROUTES, &[ROUTE_OFF | 0x0f; 4]);
            // ISA cycles are always passed on.
            parts.config.set_power_on(reg::COMMAND, &[0x07]);
            let bridge = Piix3 { links: links.clone() };
            bridge.lead(parts.config, true);
            Ok(bridge)
        })
    }

    fn lead(&self, config: &ConfigSpace, edge: bool) {
        for (link, register) in (0u8..).zip(config.get::<4>(ROUTES)) {
            let input = (register & ROUTE_OFF == 0).then_some(register & 0x0f);
            self.links.route(link, input, edge);
        }
    }
}

config_only!(Piix3);

impl PciDevice for Piix3 {
    fn config_written(&mut self, config: &mut ConfigSpace, at: Range<usize>) {
        if at.start < ROUTES.wrapping_add(4) && ROUTES < at.end {
            self.lead(config, true);
        }
    }

    fn config_replaced(&mut self, config: &ConfigSpace, loaded: bool) {
        self.lead(config, !loaded);
    }
}

const PM_BASE: usize = 0x40;
const PM_MISC: usize = 0x80;
const PM_ON: u8 = 1;

/// The function that places the ACPI registers.
pub struct Piix4Pm {
    ports: Arc<Space>,
    registers: MapId,
}

impl Piix4Pm {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> =
        Class { props: PROPS, ..Class::part("PIIX4_PM", "PCI", "Power management") };

    /// The function. `registers` is the mapping of the ACPI registers; `base` their port after
    /// power-on, if they are switched on then: a multiple of 64.
    ///
    /// # Errors
    /// See [`Site::add`].
    pub fn add(
        site: Site,
        registers: MapId,
        base: Option<u16>,
    ) -> Result<Arc<DeviceCell<Function<Piix4Pm>>>, CreateError> {
        let ports = site.ports.clone();
        let identity = Identity {
            vendor: INTEL,
            device: 0x7113,
            class: 0x0680,
            revision: 3,
            ..Identity::default()
        };
        let interrupts = Interrupts { pin: Some(0), ..Interrupts::default() };
        site.add(Spec { identity, interrupts, ..Spec::default() }, |parts| {
            // Ports are told by bit 0.
            parts.config.set_power_on(PM_BASE, &(base.unwrap_or(0) | 1).to_le_bytes());
            parts.config.set_writable(PM_BASE, &0xffc0u16.to_le_bytes());
            parts.config.set_power_on(PM_MISC, &[if base.is_some() { PM_ON } else { 0 }]);
            parts.config.set_writable(PM_MISC, &[PM_ON]);
            parts.config.set_power_on(reg::INTERRUPT_LINE, &[SCI]);
            let function = Piix4Pm { ports, registers };
            function.place(parts.config);
            Ok(function)
        })
    }

    fn place(&self, config: &ConfigSpace) {
        let base = u64::from(config.u16(PM_BASE) & 0xffc0);
        let on = config.u8(PM_MISC) & PM_ON != 0;
        if let Err(error) = self.ports.place(self.registers, base, on) {
            guest_error!("piix4-pm", "ACPI registers at {base:#x}: {error}");
        }
    }
}

config_only!(Piix4Pm);

impl PciDevice for Piix4Pm {
    fn config_written(&mut self, config: &mut ConfigSpace, _: Range<usize>) {
        self.place(config);
    }

    fn config_replaced(&mut self, config: &ConfigSpace, _: bool) {
        self.place(config);
    }
}
