//! The `cargo vmtest`, `cargo demo` and `cargo vmbench` commands.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;

use tests::host::probe::run_probe_guest;
use tests::rig::Result;
use tests::rig::registry::{self, Ctx};
use tests::rig::vm::Peer;
use tests::suite::Options;
use tests::{bench, demo, suite};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["demo"] => demo::run().map(success),
        ["bench", words @ ..] => bench::run(words).map(success),
        // The rig's own processes.
        ["probe-kvm"] => run_probe_guest().map(success),
        ["run-one", name, peer, path, guests, image @ ..] => {
            run_one(name, peer, path, guests, image.first().map(PathBuf::from)).map(success)
        }
        ["bench-round", measure, round, trips, vmm, guests, image] => {
            bench::round(measure, [round, trips], [vmm, guests, image]).map(success)
        }
        ["relay", port, socket] => demo::relay(port.as_ref(), socket.as_ref()).map(success),
        words => Options::parse(words).and_then(suite::run),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Runs one test on the machine we are on.
fn run_one(name: &str, peer: &str, path: &str, guests: &str, image: Option<PathBuf>) -> Result {
    let peer = match peer {
        "qemu" => Peer::Qemu(PathBuf::from(path)),
        _ => Peer::Vmm(PathBuf::from(path)),
    };
    let test = registry::all().into_iter().find(|test| test.name == name);
    let test = test.ok_or_else(|| format!("there is no test {name}"))?;
    let (limit, guests) = (test.limit, PathBuf::from(guests));
    // The limit is kept here, beside the test: if even this process does not end in time, it is
    // the machine below it that hangs.
    let (tell, ended) = channel();
    thread::spawn(move || {
        let result = Ctx::new(peer, &guests, image).and_then(|ctx| (test.body)(&ctx));
        let _ = tell.send(result.map_err(|error| error.to_string()));
    });
    let late = || format!("not done within {} s", limit.as_secs());
    Ok(ended.recv_timeout(limit).unwrap_or_else(|_| Err(late()))?)
}
