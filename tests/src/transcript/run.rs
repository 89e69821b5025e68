//! Has the conversation of a [`Script`] with real machines.
//!
//! Used from the test's own thread; holds no lock. Every wait has a limit.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::pattern::{Names, fill, matches};
use super::script::{Line, Machine, Pass, Script, Step};
use crate::rig::Result;
use crate::rig::qmp::Qmp;
use crate::rig::qtest::Qtest;
use crate::rig::registry::Ctx;
use crate::rig::vm::TestVm;
use crate::scratch::Scratch;
use crate::tiny::asm::Guest;

/// How long a message may take.
const SOON: Duration = Duration::from_secs(20);

/// Has every conversation of `script`.
///
/// # Errors
/// The first line that a machine does not keep to.
pub fn run(ctx: &Ctx, script: &Script) -> Result {
    let mut stage: Option<Stage> = None;
    for Line { number, step } in &script.lines {
        let done = match step {
            Step::Start(machine, args) => {
                // The old machine goes first: its directory is swept.
                let quiet = stage.take().map_or(Ok(()), Stage::finish);
                quiet.and_then(|()| Stage::start(ctx, *machine, args)).map(|new| stage = Some(new))
            }
            step => match &mut stage {
                Some(stage) => stage.step(step).map(drop),
                None => Err("no machine has been started".into()),
            },
        };
        done.map_err(|error| format!("{}.qmp:{number}: {error}", script.name))?;
    }
    stage.map_or(Ok(()), Stage::finish)
}

/// A machine in the middle of a conversation.
pub struct Stage {
    vm: TestVm,
    debug: Option<Qtest>,
    names: Names,
    /// The other ends of the sockets that were passed.
    peers: Vec<UnixStream>,
    ended: bool,
    dir: Scratch,
}

impl Stage {
    /// Starts a machine; `<dir>` in its arguments is its directory.
    pub fn start(ctx: &Ctx, machine: Machine, args: &[String]) -> Result<Self> {
        let dir = Scratch::new()?;
        File::create(dir.join("empty"))?;
        let socket = format!("unix:{},server=on,wait=off", dir.join("qtest").display());
        let vm = match machine {
            Machine::Idle => {
                let mut guest = Guest::new()?;
                guest.print("idle\n")?;
                guest.halt()?;
                guest.vm(ctx)?
            }
            Machine::Qtest => ctx.vm().args(["-machine", "pc,accel=qtest", "-qtest", &socket]),
            Machine::None => ctx.vm().without_guest(),
        };
        let names = Names::from([("dir".to_owned(), dir.display().to_string())]);
        let waits = args.iter().any(|arg| arg == "-S");
        let filled = args.iter().map(|arg| fill(arg, &names));
        let mut vm = filled.fold(vm.emulated(), |vm, arg| vm.args([&arg])).start()?;
        // What is asked must not depend on how far the guest has come.
        if machine == Machine::Idle && !waits {
            vm.console.expect_line("idle", SOON).map_err(|error| vm.process.explain(error))?;
        }
        let debug = match machine {
            Machine::Qtest => Some(Qtest::connect(&dir.join("qtest"), SOON)?),
            _ => None,
        };
        Ok(Self { vm, debug, names, peers: Vec::new(), ended: false, dir })
    }

    /// The connection.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.vm.qmp
    }

    /// The text with `<dir>` for this machine's directory.
    pub fn plain(&self, text: &str) -> String {
        text.replace(&self.dir.display().to_string(), "<dir>")
    }

    /// Takes the names of what the pattern expects from `message`, if it is that.
    pub fn learn(&mut self, pattern: &str, message: &Value) {
        matches(pattern, &wire(message), &mut self.names);
    }

    /// Takes a step; what was heard in it.
    pub fn step(&mut self, step: &Step) -> Result<Option<String>> {
        match step {
            Step::Start(..) => Err("a machine does not start a machine".into()),
            Step::Send { text, with } => self.send(text, *with).map(|()| None),
            Step::Hear(pattern) => self.hear(pattern).map(Some),
            Step::Event(name, data) => {
                let data = data.as_ref().map(|data| format!(", \"data\": {data}"));
                let time = "{\"seconds\": <int>, \"microseconds\": <int>}";
                let data = data.unwrap_or_default();
                let event = format!("{{\"timestamp\": {time}, \"event\": \"{name}\"{data}}}");
                self.hear(&event).map(Some)
            }
            Step::End => match self.vm.qmp.line(Instant::now() + SOON)? {
                None => {
                    self.ended = true;
                    Ok(None)
                }
                Some(line) => Err(format!("the connection does not end: {line}").into()),
            },
            Step::Connect => {
                self.vm.qmp.hang_up();
                self.vm.qmp = Qmp::open(&self.vm.qmp_path, SOON)?;
                Ok(None)
            }
            Step::File(name, size, parts) => {
                let file = File::create(self.dir.join(name))?;
                file.set_len(*size)?;
                for (at, bytes) in parts {
                    file.write_all_at(bytes, *at)?;
                }
                Ok(None)
            }
            Step::Debug(say, expected) => {
                let debug = self.debug.as_mut().ok_or("only a qtest machine has a debug port")?;
                let answer = debug.command(&fill(say, &self.names))?;
                match expected {
                    Some(expected) if !matches(expected, &answer, &mut self.names) => {
                        Err(format!("{say} is answered {answer:?}, not {expected:?}").into())
                    }
                    _ => Ok(None),
                }
            }
        }
    }

    fn send(&mut self, text: &str, with: Pass) -> Result {
        let text = fill(text, &self.names);
        match with {
            Pass::Nothing | Pass::Ours => self.vm.qmp.send_text(&text),
            Pass::File => {
                let file = File::open(self.dir.join("empty"))?;
                self.vm.qmp.send_with_fd(&text, file.as_fd())
            }
            Pass::Socket => {
                let (mine, theirs) = UnixStream::pair()?;
                self.peers.push(mine);
                self.vm.qmp.send_with_fd(&text, theirs.as_fd())
            }
        }
    }

    /// Hears the next line, which must be the pattern's.
    fn hear(&mut self, pattern: &str) -> Result<String> {
        let line = self.vm.qmp.line(Instant::now() + SOON)?;
        let line = line.ok_or_else(|| self.vm.qmp.failure("the connection was closed"))?;
        if matches(pattern, &line, &mut self.names) {
            return Ok(line);
        }
        let pattern = fill(pattern, &self.names);
        Err(self.vm.qmp.failure(&format!("\n    is  {line}\n    not {pattern}")))
    }

    /// Fails if the machine has anything to say that was not waited for.
    pub fn finish(mut self) -> Result {
        if self.ended {
            return Ok(());
        }
        // A question of our own comes after all that is on its way.
        self.vm.qmp.send_text(&json!({ "execute": "query-commands" }).to_string())?;
        let line = self.vm.qmp.line(Instant::now() + SOON)?.unwrap_or_default();
        let last: Value = serde_json::from_str(&line)?;
        let negotiating = last["error"]["class"] == "CommandNotFound";
        if last.get("return").is_some() || negotiating {
            return Ok(());
        }
        Err(self.vm.qmp.failure("there is more than the transcript has"))
    }
}

/// The message as peers write it: a blank after each comma and colon.
fn wire(message: &Value) -> String {
    match message {
        Value::Object(members) => {
            let members =
                members.iter().map(|(name, value)| format!("{}: {}", json!(name), wire(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(wire).collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}
