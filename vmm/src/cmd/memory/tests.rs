//! Each command: what it writes, and what it refuses.

use serde_json::json;

use crate::cmd::testing::{self, RAM, ask, events, fake, refuses, temporary};
use crate::cpu::paging::{CR0_PE, CR0_PG, EFER_LMA};

use super::*;

/// Puts a pattern into the first pages of RAM.
fn pattern(vm: &Vm) {
    let bytes: Vec<u8> = (0..0x4000u32).map(|at| (at >> 4) as u8 | 1).collect();
    vm.board.memory.write(0, &bytes);
}

fn at(vm: &Vm, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    vm.board.memory.inspect(address, &mut bytes);
    bytes
}

#[test]
fn pmemsave_writes_physical_memory_and_zeros_where_there_is_none() {
    let mut vm = fake();
    pattern(&vm);
    let path = temporary("pmemsave");
    let save = |vm: &mut Vm, val: u64, size: u64| {
        let val = val.cast_signed();
        ask(vm, "pmemsave", json!({"val": val, "size": size, "filename": path})).unwrap();
        std::fs::read(&path).unwrap()
    };
    assert!(save(&mut vm, 0x123, 5000) == at(&vm, 0x123, 5000));
    let end = save(&mut vm, RAM - 0x100, 0x30_0000);
    assert_eq!((end.len(), &end[..0x100]), (0x30_0000, &at(&vm, RAM - 0x100, 0x100)[..]));
    assert!(end[0x100..].iter().all(|byte| *byte == 0));
    assert_eq!(save(&mut vm, u64::MAX - 9, 100), [0; 100]);
    assert_eq!(save(&mut vm, 0, 0), [0u8; 0]);
    assert_eq!(vm.board.memory.misses(), 0);
    // Larger than any file.
    let args = json!({"val": 0, "size": i64::MAX, "filename": "/dev/null"});
    refuses(&mut vm, "pmemsave", &[(args, "An IO error has occurred")]);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn pmemsave_refuses_what_it_cannot_do() {
    let mut vm = fake();
    refuses(
        &mut vm,
        "pmemsave",
        &[
            (json!({"val": 0, "size": -1, "filename": "/dev/null"}), "Invalid parameter 'size'"),
            (
                json!({"val": 0, "size": 1, "filename": "/nonexistent/f"}),
                "Could not open '/nonexistent/f': No such file or directory",
            ),
            (
                json!({"val": 0, "size": 1, "filename": "/dev/fdset/9"}),
                "Could not open '/dev/fdset/9': No such file or directory",
            ),
            (json!({"val": 0, "size": 4096, "filename": "/dev/full"}), "An IO error has occurred"),
            (json!({}), "Parameter 'filename' is missing"),
            (json!({"val": 0, "filename": "f"}), "Parameter 'size' is missing"),
            (json!({"size": 0, "filename": "f"}), "Parameter 'val' is missing"),
            (
                json!({"val": 0, "size": "1", "filename": "f"}),
                "Invalid parameter type for 'size', expected: int",
            ),
            (json!({"val": 0, "size": 0, "filename": "f", "cpu": 0}), "Invalid parameter 'cpu'"),
        ],
    );
}

#[test]
fn memsave_refuses_what_it_cannot_do() {
    let mut vm = fake();
    let cpu = "Parameter 'cpu-index' expects a CPU number";
    refuses(
        &mut vm,
        "memsave",
        &[
            (json!({"val": 0, "size": 1, "filename": "/dev/null"}), cpu),
            (json!({"val": 0, "size": -1, "filename": "/dev/null"}), "Invalid parameter 'size'"),
            (json!({}), "Parameter 'filename' is missing"),
            (json!({"filename": "f"}), "Parameter 'size' is missing"),
            (json!({"filename": "f", "size": 1}), "Parameter 'val' is missing"),
            (
                json!({"val": [], "size": 1, "filename": "f"}),
                "Invalid parameter type for 'val', expected: int",
            ),
            (json!({"val": 0, "size": 1, "filename": "f", "x": 0}), "Invalid parameter 'x'"),
        ],
    );
    let Some(mut vm) = testing::kvm() else { return };
    refuses(
        &mut vm,
        "memsave",
        &[
            (json!({"val": 0, "size": 1, "filename": "/dev/null", "cpu": 2}), cpu),
            (json!({"val": 0, "size": 1, "filename": "/dev/null", "cpu-index": -1}), cpu),
            (
                json!({"val": 0, "size": 1, "filename": "/nonexistent/f"}),
                "Could not open '/nonexistent/f': No such file or directory",
            ),
            (json!({"val": 0, "size": 4096, "filename": "/dev/full"}), "An IO error has occurred"),
        ],
    );
}

#[test]
fn memsave_follows_the_page_tables_of_the_processor_asked_for() {
    let Some(mut vm) = testing::kvm() else { return };
    pattern(&vm);
    // Processor 1, in long mode: 0x40_0000 leads to 0x2000 and nothing follows.
    let tables: [(u64, u64); 4] =
        [(0x8000, 0x9003), (0x9000, 0xa003), (0xa010, 0xb003), (0xb000, 0x2003)];
    tables.iter().for_each(|(at, entry)| vm.board.memory.write(*at, &entry.to_le_bytes()));
    vm.vcpus[1]
        .call(|vcpu| {
            let mut sregs = vcpu.fd.get_sregs().unwrap();
            sregs.cr0 |= CR0_PE | CR0_PG;
            sregs.cr3 = 0x8000;
            sregs.cr4 |= 0x20;
            sregs.efer |= EFER_LMA | 0x100;
            sregs.cs.l = 1;
            vcpu.fd.set_sregs(&sregs).unwrap();
        })
        .unwrap();
    let path = temporary("memsave");
    let args = |val: u64, size: u64, key: &str| json!({"val": val, "size": size, "filename": path, key: 1});
    for key in ["cpu-index", "cpu"] {
        assert!(ask(&mut vm, "memsave", args(0x40_0200, 0xe00, key)).is_ok());
        assert!(std::fs::read(&path).unwrap() == at(&vm, 0x2200, 0xe00));
    }
    // The second chunk is not wholly there; the first stays.
    let error = "Invalid addr 0x0000000000400d00specified";
    refuses(&mut vm, "memsave", &[(args(0x40_0900, 0x800, "cpu"), error)]);
    assert!(std::fs::read(&path).unwrap() == at(&vm, 0x2900, 0x400));
    let error = "Invalid addr 0x0000000000001000specified";
    refuses(&mut vm, "memsave", &[(args(0x1000, i64::MAX as u64, "cpu"), error)]);
    assert_eq!(std::fs::read(&path).unwrap(), [0u8; 0]);
    // Processor 0 has none.
    let args = json!({"val": 0x1001, "size": 3, "filename": path});
    assert!(ask(&mut vm, "memsave", args).is_ok());
    assert_eq!(std::fs::read(&path).unwrap(), at(&vm, 0x1001, 3));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn devices_state_is_a_stream_of_sections() {
    let mut vm = fake();
    vm.start();
    let path = temporary("xen");
    let args = json!({"filename": path});
    assert_eq!(ask(&mut vm, "xen-save-devices-state", args), Ok(json!({})));
    assert!(vm.is_running());
    assert_eq!(events(&mut vm), ["RESUME", "STOP", "RESUME"]);
    let data = std::fs::read(&path).unwrap();
    assert_eq!(data[..8], *b"QEVM\0\0\0\x03");
    let mut rest = &data[8..];
    let mut names = Vec::new();
    while rest[0] == STREAM_FULL {
        let len = usize::from(rest[5]);
        assert_eq!(rest[1..5], (names.len() as u32).to_be_bytes());
        names.push(String::from_utf8(rest[6..6 + len].to_vec()).unwrap());
        assert_eq!(rest[6 + len..14 + len], [0, 0, 0, 0, 0, 0, 0, 1]);
        // The blob tells its own end.
        let mut blob = &rest[14 + len..];
        let value: ciborium::Value = ciborium::from_reader(&mut blob).unwrap();
        assert!(value.is_map());
        rest = blob;
    }
    assert_eq!(rest, [STREAM_END]);
    let devices: Vec<_> = vm.board.devices.iter().map(|device| device.name()).collect();
    assert_eq!(names, devices);
    std::fs::remove_file(path).unwrap();

    refuses(
        &mut vm,
        "xen-save-devices-state",
        &[
            (
                json!({"filename": "/nonexistent/f"}),
                "Could not open '/nonexistent/f': No such file or directory",
            ),
            (json!({"filename": "/dev/full"}), "An IO error has occurred"),
            (json!({}), "Parameter 'filename' is missing"),
            (json!({"filename": 3}), "Invalid parameter type for 'filename', expected: string"),
            (json!({"filename": "f", "x": 3}), "Invalid parameter 'x'"),
        ],
    );
    assert_eq!(events(&mut vm), ["STOP", "RESUME", "STOP", "RESUME"]);
    vm.pause();
    let args = json!({"filename": "/dev/null"});
    assert_eq!(ask(&mut vm, "xen-save-devices-state", args), Ok(json!({})));
    assert_eq!((vm.state(), events(&mut vm)), (RunState::Paused, vec!["STOP".to_owned()]));
}

#[test]
fn the_dirty_log_of_xen_is_taken_and_ignored() {
    let mut vm = fake();
    let set = |vm: &mut Vm, args| ask(vm, "xen-set-global-dirty-log", args);
    assert_eq!(set(&mut vm, json!({"enable": true})), Ok(json!({})));
    refuses(
        &mut vm,
        "xen-set-global-dirty-log",
        &[
            (json!({}), "Parameter 'enable' is missing"),
            (json!({"enable": 1}), "Invalid parameter type for 'enable', expected: bool"),
            (json!({"enable": true, "x": 1}), "Invalid parameter 'x'"),
        ],
    );
}

#[test]
fn sizes_and_abilities_are_told() {
    let mut vm = fake();
    let memory = json!({"base-memory": RAM, "plugged-memory": 0});
    assert_eq!(ask(&mut vm, "query-memory-size-summary", json!({})), Ok(memory));
    let machine = json!({"wakeup-suspend-support": true});
    assert_eq!(ask(&mut vm, "query-current-machine", json!({})), Ok(machine));
    let memory = json!({"base-memory": 0, "plugged-memory": 0});
    let mut vm = testing::nothing();
    assert_eq!(ask(&mut vm, "query-memory-size-summary", json!({})), Ok(memory));
}
