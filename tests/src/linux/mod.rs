//! Tests that boot Debian kernels, by subject.

mod acpi;
mod balloon;
mod boot;
mod clock;
mod console;
mod debian;
mod disk;
mod dump;
mod everything;
mod hotplug;
mod iperf;
mod live;
mod live_debian;
mod memory;
mod migrate;
mod migrate_net;
mod nbd;
mod net;
mod nic;
mod pci;
mod ports;
mod power;
mod pulse;
mod reset;
mod rng;
mod scsi;
mod snapshots;
mod storm;
mod vhost;
mod virtio;
mod vsock;
mod ways;

use crate::rig::registry::Test;

/// Every Linux test; the long ones first, so that none is left alone at the end of a run.
pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    tests.extend(hotplug::tests());
    tests.extend(everything::tests());
    tests.extend(migrate::tests());
    tests.extend(migrate_net::tests());
    tests.extend(storm::tests());
    tests.extend(snapshots::tests());
    tests.extend(live_debian::tests());
    tests.extend(live::tests());
    tests.extend(virtio::tests());
    tests.extend(debian::tests());
    tests.extend(iperf::tests());
    tests.extend(disk::tests());
    tests.extend(vsock::tests());
    tests.extend(vhost::tests());
    tests.extend(reset::tests());
    tests.extend(pulse::tests());
    tests.extend(nbd::tests());
    tests.extend(nic::tests());
    tests.extend(memory::tests());
    tests.extend(net::tests());
    tests.extend(pci::tests());
    tests.extend(ports::tests());
    tests.extend(scsi::tests());
    tests.extend(dump::tests());
    tests.extend(boot::tests());
    tests.extend(acpi::tests());
    tests.extend(power::tests());
    tests.extend(clock::tests());
    tests.extend(console::tests());
    tests.extend(rng::tests());
    tests.extend(balloon::tests());
    tests
}
