//! How much of the interface is there.

use crate::*;

/// The commands that were pending when all had their types.
const AT_FIRST: &str = "\
    add-fd add_client balloon block-commit block-job-cancel block-job-complete \
    block-job-pause block-job-resume block-job-set-speed block-stream block_passwd block_resize \
    block_set_io_throttle blockdev-add blockdev-snapshot-delete-internal-sync \
    blockdev-snapshot-internal-sync blockdev-snapshot-sync change change-vnc-password \
    chardev-add chardev-change chardev-remove chardev-send-break client_migrate_info closefd cpu \
    cpu-add device-list-properties device_add device_del drive-backup drive-mirror \
    dump-guest-memory eject expire_password getfd human-monitor-command inject-nmi memsave \
    migrate migrate-set-cache-size migrate-set-capabilities migrate_cancel migrate_set_downtime \
    migrate_set_speed nbd-server-add nbd-server-start nbd-server-stop netdev_add netdev_del \
    object-add object-del pmemsave qom-get qom-list qom-list-properties qom-list-types qom-set \
    query-balloon query-block query-block-jobs query-blockstats query-chardev \
    query-command-line-options query-cpu-definitions query-fdsets query-machines query-mice \
    query-migrate query-migrate-cache-size query-migrate-capabilities query-pci query-qmp-schema \
    query-rx-filter query-spice query-tpm query-tpm-models query-tpm-types query-vnc remove-fd \
    ringbuf-read ringbuf-write screendump send-key set_link set_password transaction \
    xen-save-devices-state xen-set-global-dirty-log";

#[test]
fn the_pending_list_only_shrinks() {
    let at_first: Vec<_> = AT_FIRST.split_whitespace().collect();
    let grown: Vec<_> = PENDING.iter().filter(|name| !at_first.contains(name)).collect();
    assert!(grown.is_empty(), "new in schema/pending.json: {grown:?}");
}

#[test]
fn every_expected_command_is_implemented_or_pending() {
    assert_eq!(EXPECTED.len(), 96);
    let lacking: Vec<_> = EXPECTED
        .iter()
        .filter(|name| !COMMANDS.iter().any(|spec| spec.name == **name) && !PENDING.contains(name))
        .collect();
    assert!(lacking.is_empty(), "without a definition: {lacking:?}");
    let pending = EXPECTED.iter().filter(|name| PENDING.contains(name)).count();
    assert_eq!(implemented() + pending, EXPECTED.len());
    println!("commands of the schema implemented: {} / {}", implemented(), EXPECTED.len());
}
