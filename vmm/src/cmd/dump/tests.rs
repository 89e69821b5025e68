//! The commands: checks in their order, files and descriptors, the machine stopped meanwhile. What
//! a dump holds is tested where it is made.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use qmp::monitors::MonitorId;
use serde_json::{Value, json};

use super::*;
use crate::cmd::testing::{self, ask, events, fake, refuses, temporary};

fn dump(vm: &mut Vm, arguments: Value) -> Result<Value, QmpError> {
    ask(vm, "dump-guest-memory", arguments)
}

#[test]
fn arguments_are_checked_in_order_before_anything_happens() {
    let mut vm = fake();
    vm.start();
    events(&mut vm);
    let nowhere = "/nonexistent/f";
    refuses(
        &mut vm,
        "dump-guest-memory",
        &[
            (json!({}), "Parameter 'protocol' is missing"),
            (json!({"protocol": "x"}), "Parameter 'paging' is missing"),
            (
                json!({"protocol": 1, "paging": true}),
                "Invalid parameter type for 'protocol', expected: string",
            ),
            (
                json!({"protocol": "x", "paging": "on"}),
                "Invalid parameter type for 'paging', expected: bool",
            ),
            (json!({"protocol": "x", "paging": true, "y": 1}), "Invalid parameter 'y'"),
            (json!({"protocol": "x", "paging": true, "begin": 0}), "Parameter 'length' is missing"),
            (json!({"protocol": "x", "paging": true, "length": 0}), "Parameter 'begin' is missing"),
            (json!({"protocol": "x", "paging": true, "end": 7}), "Invalid parameter 'protocol'"),
            (json!({"protocol": "", "paging": true}), "Invalid parameter 'protocol'"),
            (
                json!({"protocol": "fd:x", "paging": true}),
                "File descriptor named 'x' has not been found",
            ),
            (
                json!({"protocol": format!("file:{nowhere}"), "paging": true}),
                "Could not open '/nonexistent/f': No such file or directory",
            ),
            (
                json!({"protocol": "file:x", "paging": false, "format": "kdump-zlib"}),
                "kdump-zlib is not available now",
            ),
            (
                json!({"protocol": "file:x", "paging": false, "format": "tar"}),
                "Invalid parameter 'tar'",
            ),
        ],
    );
    assert!(events(&mut vm).is_empty() && !std::path::Path::new("x").exists());
    refuses(&mut vm, "query-dump", &[(json!({"x": 1}), "Invalid parameter 'x'")]);
    let none = json!({"completed": 0, "status": "none", "total": 0});
    assert_eq!(ask(&mut vm, "query-dump", json!({})), Ok(none));
    let formats = json!({"formats": ["elf"]});
    assert_eq!(ask(&mut vm, "query-dump-guest-memory-capability", json!({})), Ok(formats));
}

#[test]
fn a_range_without_memory_or_a_machine_without_processors_is_refused_while_stopped() {
    let mut vm = fake();
    vm.start();
    events(&mut vm);
    let to_null = |begin: i64, length: i64| json!({"protocol": "file:/dev/null", "paging": false, "begin": begin, "length": length});
    let cases = [
        (to_null(1 << 40, 4096), "Invalid parameter 'begin'"),
        (to_null(-1, 4096), "Invalid parameter 'begin'"),
        (to_null(0, 0), "Invalid parameter 'length'"),
        (to_null(0, -1), "Invalid parameter 'length'"),
        (to_null(0, 4096), "this feature or command is not currently supported"),
    ];
    refuses(&mut vm, "dump-guest-memory", &cases);
    assert_eq!(events(&mut vm), ["STOP", "RESUME"].repeat(cases.len()));
    assert!(vm.is_running());
    let all = json!({"protocol": "file:/dev/null", "paging": false});
    refuses(&mut testing::nothing(), "dump-guest-memory", &[(all, "Invalid parameter 'begin'")]);
}

#[test]
fn a_file_gets_the_dump_and_the_guest_goes_on() {
    let Some(mut vm) = testing::kvm() else { return };
    vm.board.memory.write(0x1000, b"found me");
    let path = temporary("dump");
    let args = json!({"protocol": format!("file:{path}"), "paging": true});
    assert_eq!(dump(&mut vm, args), Ok(json!({})));
    // It was not running, and is not.
    assert_eq!((vm.state(), events(&mut vm)), (RunState::Prelaunch, vec![]));
    let data = std::fs::read(&path).unwrap();
    assert!(data.starts_with(b"\x7fELF") && data.windows(8).any(|bytes| bytes == b"found me"));
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o400);
    let status = ask(&mut vm, "query-dump", json!({})).unwrap();
    assert_eq!(status["status"], "completed");
    assert_eq!((&status["total"], &status["completed"]), (&json!(data.len()), &json!(data.len())));

    vm.start();
    let args = json!({
        "protocol": "file:/dev/null", "paging": false, "begin": 0x1000, "length": 8, "format": "elf",
        "detach": false
    });
    assert_eq!(dump(&mut vm, args), Ok(json!({})));
    let full = json!({"protocol": "file:/dev/full", "paging": false});
    refuses(&mut vm, "dump-guest-memory", &[(full, "An IO error has occurred")]);
    assert_eq!(events(&mut vm), ["RESUME", "STOP", "RESUME", "STOP", "RESUME"]);
    assert!(vm.is_running());
    assert_eq!(ask(&mut vm, "query-dump", json!({})).unwrap()["status"], "failed");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_named_descriptor_gets_the_dump_and_is_closed() {
    let Some(mut vm) = testing::kvm() else { return };
    let monitor = MonitorId::unique();
    vm.context.monitor = Some(monitor);
    for paging in [false, true] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        vm.named_fds.put(monitor, "out".to_owned(), ours.into());
        let reader = std::thread::spawn(move || {
            let mut data = Vec::new();
            theirs.read_to_end(&mut data).map(|_| data)
        });
        assert_eq!(dump(&mut vm, json!({"protocol": "fd:out", "paging": paging})), Ok(json!({})));
        let data = reader.join().unwrap().unwrap();
        assert!(data.len() as u64 > testing::RAM && data.starts_with(b"\x7fELF"));
    }
    let again = json!({"protocol": "fd:out", "paging": false});
    let text = "File descriptor named 'out' has not been found";
    refuses(&mut vm, "dump-guest-memory", &[(again, text)]);
    // A reader that goes away.
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    vm.named_fds.put(monitor, "out".to_owned(), ours.into());
    let gone = json!({"protocol": "fd:out", "paging": false});
    refuses(&mut vm, "dump-guest-memory", &[(gone, "An IO error has occurred")]);
}

/// Deals with the mailbox until the detached dump has ended.
fn finish(vm: &mut Vm) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while vm.latest_dump.thread.is_some() {
        assert!(std::time::Instant::now() < deadline, "the dump does not end");
        vm.service();
        std::thread::yield_now();
    }
}

#[test]
fn a_detached_dump_is_told_of_when_it_ends() {
    let Some(mut vm) = testing::kvm() else { return };
    let monitor = MonitorId::unique();
    vm.context.monitor = Some(monitor);
    vm.start();
    for reads in [true, false] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        vm.named_fds.put(monitor, "out".to_owned(), ours.into());
        let args = json!({"protocol": "fd:out", "paging": false, "detach": true});
        assert_eq!(dump(&mut vm, args), Ok(json!({})));
        assert_eq!(vm.state(), RunState::SaveVm);
        let busy = "There is a dump in process, please wait.";
        let another = json!({"protocol": "file:/dev/null", "paging": false});
        refuses(&mut vm, "dump-guest-memory", &[(another, busy)]);
        refuses(&mut vm, "cont", &[(json!({}), busy)]);
        refuses(&mut vm, "stop", &[(json!({}), busy)]);
        assert_eq!(ask(&mut vm, "query-dump", json!({})).unwrap()["status"], "active");
        events(&mut vm);
        if reads {
            let reader = std::thread::spawn(move || theirs.read_to_end(&mut Vec::new()));
            finish(&mut vm);
            reader.join().unwrap().unwrap();
        } else {
            drop(theirs);
            finish(&mut vm);
        }
        let raised = std::mem::take(&mut vm.context.events);
        let event = raised[0].message();
        assert_eq!(event["event"], "DUMP_COMPLETED");
        let (status, error) = match reads {
            true => ("completed", json!(null)),
            false => ("failed", json!("An IO error has occurred")),
        };
        assert_eq!(event["data"]["result"]["status"], status);
        assert_eq!(event["data"].get("error").cloned().unwrap_or_default(), error);
        assert_eq!(raised[1].message()["event"], "RESUME");
        assert!(vm.is_running());
    }
}
