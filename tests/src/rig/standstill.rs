//! What can be told of a machine whose guest no longer answers: whether it runs, where its
//! processors are and whether they move, what the process's threads wait for, and whether it goes
//! on once it was stopped and continued.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use serde_json::json;

use super::vm::TestVm;

/// Between two looks at the processors.
const MEANWHILE: Duration = Duration::from_millis(200);

/// The time a guest that was continued has to say something.
const RECOVERY: Duration = Duration::from_secs(5);

/// A report for people; what cannot be asked is said in it.
pub(super) fn report(vm: &mut TestVm) -> String {
    let mut text = String::from("\n  the guest stands still:\n");
    if vm.console.transcript().closed() {
        return text + "    its process has ended\n";
    }
    ask(vm, &mut text, "query-status", json!({}));
    ask(vm, &mut text, "query-migrate", json!({}));
    threads(vm, &mut text);
    for _ in 0..2 {
        monitor(vm, &mut text, "info registers -a");
        std::thread::sleep(MEANWHILE);
    }
    threads(vm, &mut text);
    lapics(vm, &mut text);
    // COM1's registers: interrupt enable, line status, modem status.
    for port in ["0x3f9", "0x3fd", "0x3fe"] {
        monitor(vm, &mut text, &format!("i /b {port}"));
    }
    for command in ["stop", "cont"] {
        let said = vm.console.transcript().text().len();
        ask(vm, &mut text, command, json!({}));
        std::thread::sleep(if command == "cont" { RECOVERY } else { MEANWHILE });
        let more = vm.console.transcript().text().len() - said;
        let _ = writeln!(text, "    after it the console says {more} bytes more");
    }
    text
}

fn ask(vm: &mut TestVm, text: &mut String, command: &str, arguments: serde_json::Value) {
    let answer = match vm.qmp.try_execute(command, arguments) {
        Ok(Ok(value)) => value.to_string(),
        Ok(Err(refusal)) => format!("{refusal:?}"),
        Err(error) => error.to_string(),
    };
    let _ = writeln!(text, "    {command}: {answer}");
}

/// The local APIC of each processor.
fn lapics(vm: &mut TestVm, text: &mut String) {
    for cpu in 0.. {
        let line = json!({ "command-line": "info lapic", "cpu-index": cpu });
        let answer = vm.qmp.try_execute("human-monitor-command", line);
        let Ok(Ok(value)) = answer else { return };
        let _ = writeln!(text, "    local APIC of {cpu}:");
        for line in value.as_str().unwrap_or_default().lines() {
            let _ = writeln!(text, "      {}", line.trim_end());
        }
    }
}

fn monitor(vm: &mut TestVm, text: &mut String, line: &str) {
    let answer = vm.qmp.try_execute("human-monitor-command", json!({ "command-line": line }));
    let _ = writeln!(text, "    {line}:");
    match answer {
        Ok(Ok(value)) => {
            for line in value.as_str().unwrap_or_default().lines() {
                let _ = writeln!(text, "      {}", line.trim_end());
            }
        }
        Ok(Err(refusal)) => drop(writeln!(text, "      {refusal:?}")),
        Err(error) => drop(writeln!(text, "      {error}")),
    }
}

/// Name, state with the time spent, system call and place in the kernel of each thread.
fn threads(vm: &TestVm, text: &mut String) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", vm.process.id())) else { return };
    for task in tasks.flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let state = fields.next().unwrap_or_default().to_owned();
        let (user, system) =
            (fields.nth(10).unwrap_or_default(), fields.next().unwrap_or_default());
        let _ = writeln!(
            text,
            "    thread {}: {state} {user}+{system} ticks, in {} by {}",
            read("comm").trim(),
            read("wchan").trim(),
            read("syscall").split_whitespace().take(3).collect::<Vec<_>>().join(" ")
        );
    }
}
