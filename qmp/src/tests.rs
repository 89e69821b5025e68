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

/// Takes every command.
struct Taker;

impl<C: Command> Handle<C> for Taker {
    fn handle(&mut self, _: C) -> Result<C::Ret, QmpError> {
        Err(QmpError::generic("taken"))
    }
}

/// What is said of the arguments, which are text as a client writes it.
fn said<C: Command>(args: &str) -> String {
    let args = serde_json::from_str(args).unwrap();
    call::<C, _>(&mut Taker, args).unwrap_err().desc
}

#[test]
fn commands_of_options_take_anything() {
    assert_eq!(said::<DeviceAdd>("{}"), "taken");
    assert_eq!(said::<DeviceAdd>(r#"{"driver": 3, "x": [1], "id": true}"#), "taken");
    assert_eq!(said::<NetdevAdd>(r#"{"type": "user", "id": "n", "x": 1.5}"#), "taken");
    assert_eq!(said::<SendKey>(r#"{"keys": [], "x": 1}"#), "taken");
    assert_eq!(said::<MigrateSetCapabilities>(r#"{"capabilities": [], "x": 1}"#), "taken");
    // What they are about, the decoder misses, as any member of an object.
    let list = |name: &str| format!("Invalid parameter type for '{name}', expected: list");
    assert_eq!(said::<SendKey>("{}"), list("keys"));
    assert_eq!(said::<SendKey>(r#"{"keys": 1}"#), list("keys"));
    assert_eq!(said::<MigrateSetCapabilities>("{}"), list("capabilities"));
    assert_eq!(
        said::<SendKey>(r#"{"keys": [{"type": "qcode", "data": "hyper"}]}"#),
        "Invalid parameter 'hyper'"
    );
    assert_eq!(said::<ObjectAdd>(r#"{"id": "a"}"#), "Parameter 'qom-type' is missing");
    assert_eq!(said::<ObjectAdd>(r#"{"qom-type": "a"}"#), "Parameter 'id' is missing");
}

#[test]
fn names_of_both_layers_are_taken() {
    let memory = r#""val": 0, "size": 1, "filename": "f""#;
    for more in ["", r#", "cpu": 1"#, r#", "cpu-index": 1"#] {
        assert_eq!(said::<Memsave>(&format!("{{{memory}{more}}}")), "taken");
    }
    assert_eq!(said::<Pmemsave>(&format!("{{{memory}, \"cpu\": 1}}")), "Invalid parameter 'cpu'");
    let dump = r#""paging": false, "protocol": "fd:a""#;
    for more in ["", r#", "begin": 1, "length": 2"#, r#", "end": 3"#] {
        assert_eq!(said::<DumpGuestMemory>(&format!("{{{dump}{more}}}")), "taken");
    }
    assert_eq!(said::<Migrate>(r#"{"uri": "exec:cat", "detach": true}"#), "taken");
}

#[test]
fn the_first_missing_argument_is_that_of_qemu() {
    for (said, name) in [
        (said::<Memsave>("{}"), "filename"),
        (said::<Pmemsave>("{}"), "filename"),
        (said::<Migrate>("{}"), "uri"),
        (said::<DumpGuestMemory>("{}"), "protocol"),
        (said::<SetPassword>("{}"), "protocol"),
        (said::<ExpirePassword>("{}"), "protocol"),
        (said::<AddClient>("{}"), "protocol"),
        (said::<RingbufWrite>("{}"), "device"),
        (said::<RingbufRead>("{}"), "device"),
        (said::<Change>("{}"), "device"),
        (said::<ChardevAdd>("{}"), "backend"),
        (said::<QomSet>("{}"), "path"),
        (said::<QomSet>(r#"{"path": "", "property": ""}"#), "value"),
        (said::<QomGet>("{}"), "path"),
        (said::<SetLink>("{}"), "name"),
    ] {
        assert_eq!(said, format!("Parameter '{name}' is missing"));
    }
}

#[test]
fn nested_arguments_are_named() {
    let chardev =
        |backend: &str| said::<ChardevAdd>(&format!(r#"{{"id": "a", "backend": {backend}}}"#));
    let kind =
        |name: &str, word: &str| format!("Invalid parameter type for '{name}', expected: {word}");
    assert_eq!(chardev("3"), kind("backend", "QDict"));
    assert_eq!(chardev("{}"), kind("type", "string"));
    assert_eq!(chardev(r#"{"type": "zip"}"#), "Invalid parameter 'zip'");
    assert_eq!(chardev(r#"{"type": "null"}"#), kind("data", "QDict"));
    assert_eq!(chardev(r#"{"type": "null", "data": {}}"#), "taken");
    assert_eq!(
        chardev(r#"{"type": "null", "data": {}, "x": 1}"#),
        "QMP input object member 'x' is unexpected"
    );
    let inet = |data: &str| {
        chardev(&format!(
            r#"{{"type": "socket", "data": {{"addr": {{"type": "inet", "data": {data}}}}}}}"#
        ))
    };
    assert_eq!(inet(r#"{"host": "h"}"#), kind("port", "string"));
    assert_eq!(inet(r#"{"host": "h", "port": 1}"#), kind("port", "string"));
    assert_eq!(
        inet(r#"{"host": "h", "port": "1", "to": 65536}"#),
        "Parameter 'to' expects uint16_t"
    );
    assert_eq!(inet(r#"{"host": "h", "port": "1", "ipv4": 1}"#), kind("ipv4", "boolean"));
    assert_eq!(chardev(r#"{"type": "ringbuf", "data": {"size": "1"}}"#), kind("size", "integer"));
}

#[test]
fn the_readme_promises_no_more_than_there_is() {
    let readme = include_str!("../../README.md");
    let (_, after) = readme.split_once("| QMP commands | at least ").unwrap();
    let (count, rest) = after.split_once(" of the ").unwrap();
    let (all, _) = rest.split_once(' ').unwrap();
    assert!(count.parse::<usize>().unwrap() <= implemented(), "README.md says {count}");
    assert_eq!(all.parse(), Ok(EXPECTED.len()));
}
