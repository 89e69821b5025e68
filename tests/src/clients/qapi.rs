//! A session of the `qapi` crate: every reply and event passes through the types that it has made
//! from QEMU's own schema.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ::qapi::qmp::{self, Event, RunState};
use ::qapi::{ErrorClass, ExecuteError, Qmp, Stream};

use crate::rig::Result;
use crate::rig::qmp::connect;

/// How long a reply may take.
const SOON: Duration = Duration::from_secs(60);

type Client = Qmp<Stream<BufReader<UnixStream>, UnixStream>>;

/// Drives the machine at the socket `path`, which runs, through a stop, a reset and mistakes; it
/// runs on.
pub fn session(path: &Path) -> Result {
    let stream = connect(path, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut client = Qmp::new(Stream::new(BufReader::new(stream.try_clone()?), stream));
    let greeting = client.handshake()?;
    let version = client.execute(&qmp::query_version {})?;
    expect("the version", version.qemu.major, greeting.version.qemu.major)?;

    let commands = client.execute(&qmp::query_commands {})?;
    expect("query-commands has query-status", has(&commands, "query-status"), true)?;
    expect("the target", client.execute(&qmp::query_target {})?.arch, qmp::SysEmuTarget::x86_64)?;
    client.execute(&qmp::query_kvm {})?;
    client.execute(&qmp::query_name {})?;
    client.execute(&qmp::query_uuid {})?;

    expect("the state", status(&mut client)?, (RunState::running, true))?;
    client.execute(&qmp::stop {})?;
    let stopped = event(&mut client)?;
    expect("STOP after stop", matches!(stopped, Event::STOP { .. }), true)?;
    expect("the state", status(&mut client)?, (RunState::paused, false))?;
    client.execute(&qmp::cont {})?;
    let resumed = event(&mut client)?;
    expect("RESUME after cont", matches!(resumed, Event::RESUME { .. }), true)?;
    expect("the state", status(&mut client)?, (RunState::running, true))?;

    // What no machine here can do.
    match client.execute(&qmp::query_colo_status {}) {
        Err(ExecuteError::Qapi(error)) => {
            expect("an error's class", error.class, ErrorClass::CommandNotFound)?;
        }
        other => return Err(format!("query-colo-status: {other:?}").into()),
    }
    Ok(())
}

/// Resets the machine at `path`, which runs, and then ends it.
pub fn end(path: &Path) -> Result {
    let stream = connect(path, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut client = Qmp::new(Stream::new(BufReader::new(stream.try_clone()?), stream));
    client.handshake()?;
    client.execute(&qmp::system_reset {})?;
    match event(&mut client)? {
        Event::RESET { data, .. } => expect("by the guest", data.guest, false)?,
        other => return Err(format!("not RESET but {other:?}").into()),
    }
    client.execute(&qmp::quit {})?;
    match event(&mut client) {
        Ok(Event::SHUTDOWN { data, .. }) => {
            expect("the reason", data.reason, qmp::ShutdownCause::host_qmp_quit)
        }
        Ok(other) => Err(format!("not SHUTDOWN but {other:?}").into()),
        Err(error) => Err(error),
    }
}

fn status(client: &mut Client) -> Result<(RunState, bool)> {
    let status = client.execute(&qmp::query_status {})?;
    Ok((status.status, status.running))
}

/// The next event. The crate takes events only beside replies, and none is due.
fn event(client: &mut Client) -> Result<Event> {
    if let Some(event) = client.events().next() {
        return Ok(event);
    }
    let mut line = String::new();
    client.inner_mut().read_line(&mut line)?;
    Ok(serde_json::from_str(&line).map_err(|error| format!("no event but {line:?}: {error}"))?)
}

fn has(commands: &[qmp::CommandInfo], name: &str) -> bool {
    commands.iter().any(|command| command.name == name)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, not {wanted:?}").into())
}
