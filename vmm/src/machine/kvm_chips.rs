//! The interrupt controllers and the interval timer inside KVM, as one device of the machine: it
//! is reset, saved and loaded like the others but has no registers here.
//!
//! Main thread, with all vCPUs parked. A loaded state is untrusted; KVM checks what it is given,
//! and the sizes are fixed here.
#![expect(unsafe_code, reason = "irqchip state is a C union of plain bytes")]

use std::sync::Arc;

use devices::class::Ctx;
use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
    kvm_pit_state2,
};
use resources::class::Class;
use resources::device::{At, Device};
use resources::hv::kvm::KvmVm;
use resources::state::{Blob, StateError, invalid};
use serde::{Deserialize, Serialize};

const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// Bytes of one chip's state in the kernel's interface.
const CHIP_BYTES: usize = 512;

/// The device.
pub struct KvmChips {
    vm: Arc<KvmVm>,
    /// As KVM made them: what a reset goes back to.
    initial: State,
    /// The guest's clock while the machine is stopped.
    clock: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
struct State {
    /// Master PIC, slave PIC and IOAPIC.
    chips: Vec<Chip>,
    pit: kvm_pit_state2,
    /// The guest's KVM clock in nanoseconds.
    clock: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Chip(#[serde(with = "resources::state::bytes")] Vec<u8>);

fn kernel(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> StateError {
    move |error| StateError::Kernel {
        what,
        source: std::io::Error::from_raw_os_error(error.errno()),
    }
}

impl KvmChips {
    /// What it is among the devices of a machine.
    pub const CLASS: Class<Ctx> =
        Class::part("kvm-chips", "System", "Interrupt controllers and timer inside KVM");

    /// The chips of a machine that has not run yet.
    ///
    /// # Errors
    /// When KVM does not give their state.
    pub fn new(vm: &Arc<KvmVm>) -> Result<KvmChips, StateError> {
        Ok(KvmChips { initial: get(vm, 0)?, vm: vm.clone(), clock: None })
    }

    fn set(&self, state: &State) -> Result<(), StateError> {
        if state.chips.len() != CHIPS.len() {
            return Err(invalid(format!("{} interrupt controllers, not 3", state.chips.len())));
        }
        for (id, Chip(bytes)) in CHIPS.into_iter().zip(&state.chips) {
            let bytes: &[u8; CHIP_BYTES] = bytes
                .as_slice()
                .try_into()
                .map_err(|_| invalid(format!("interrupt controller of {} bytes", bytes.len())))?;
            let mut chip = kvm_irqchip { chip_id: id, ..Default::default() };
            // SAFETY: every member of the union is plain integers, for which all bit patterns
            // are valid, and the byte array is the union's full size.
            let place: &mut [u8; CHIP_BYTES] = unsafe { &mut *(&raw mut chip.chip).cast() };
            *place = *bytes;
            self.vm.vm().set_irqchip(&chip).map_err(kernel("set interrupt controller"))?;
        }
        self.vm.vm().set_pit2(&state.pit).map_err(kernel("set interval timer"))
    }
}

fn get(vm: &KvmVm, clock: u64) -> Result<State, StateError> {
    let mut chips = Vec::new();
    for chip_id in CHIPS {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        vm.vm().get_irqchip(&mut chip).map_err(kernel("get interrupt controller"))?;
        // SAFETY: the union is plain bytes of exactly this size, all initialised: it began as
        // zeroes and the kernel wrote over part of it.
        let bytes: &[u8; CHIP_BYTES] = unsafe { &*(&raw const chip.chip).cast() };
        chips.push(Chip(bytes.to_vec()));
    }
    let pit = vm.vm().get_pit2().map_err(kernel("get interval timer"))?;
    Ok(State { chips, pit, clock })
}

const _: () = assert!(std::mem::size_of::<kvm_irqchip>() == CHIP_BYTES + 8);

impl Device for KvmChips {
    fn read(&mut self, _: At, _: &mut [u8]) {}

    fn write(&mut self, _: At, _: &[u8]) {}

    fn reset(&mut self) {
        if let Err(error) = self.set(&self.initial.clone()) {
            tracing::error!("reset of the interrupt controllers: {error}");
        }
    }

    /// The guest's clock goes on from where it stopped: time in which the machine did not run is
    /// not seen by the guest, as with the virtual clock. So KVM is not asked to add the time that
    /// passed (KVM_CLOCK_REALTIME). The TSC does go on: to set it back would take a write on each
    /// vCPU within a second, and where KVM then does not find them in step they never are again.
    /// A guest that compares the two is told of the pause (KVM_KVMCLOCK_CTRL).
    fn start(&mut self) {
        let Some(clock) = self.clock.take() else { return };
        let data = kvm_clock_data { clock, ..Default::default() };
        if let Err(error) = self.vm.vm().set_clock(&data) {
            tracing::error!("cannot set the guest's clock: {error}");
        }
        // KVM's timer has gone on and kept count of its ticks: setting it drops them, as otherwise
        // the guest would get all those of a long pause at once.
        if let Err(error) = self.vm.vm().get_pit2().and_then(|pit| self.vm.vm().set_pit2(&pit)) {
            tracing::error!("cannot set the interval timer: {error}");
        }
    }

    fn stop(&mut self) {
        match self.vm.vm().get_clock() {
            Ok(data) => self.clock = Some(data.clock),
            Err(error) => tracing::error!("cannot read the guest's clock: {error}"),
        }
    }

    fn save(&self) -> Result<Blob, StateError> {
        Blob::new(1, &get(&self.vm, self.clock.unwrap_or_default())?)
    }

    fn load(&mut self, blob: &Blob) -> Result<(), StateError> {
        let state: State = blob.parse(1, &[])?;
        self.set(&state)?;
        self.clock = Some(state.clock);
        Ok(())
    }
}
