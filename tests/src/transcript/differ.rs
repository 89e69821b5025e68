//! The same conversation with two machines, ours and QEMU's: where do they part?
//!
//! Ours has to keep to the transcript. QEMU need not: it is asked the same, what it says is compared
//! with what ours says, and each difference must be one of those written down in
//! `tests/transcripts/differences.txt`, with the reason. A difference written down that does not
//! occur any more is an error too. Used from the test's own thread; holds no lock.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::compare;
use super::pattern::{Names, matches};
use super::run::Stage;
use super::script::{Line, Machine, Pass, Script, Step, request};
use crate::rig::Result;
use crate::rig::registry::Ctx;

/// What is meant to differ.
const MEANT: &str = include_str!("../../transcripts/differences.txt");

/// How long QEMU may take for an answer, or for an event that may not come at all.
const SOON: Duration = Duration::from_secs(20);
const PERHAPS: Duration = Duration::from_millis(500);

/// A difference that is meant.
struct Meant {
    /// The pattern of its line.
    pattern: &'static str,
    number: usize,
    met: bool,
}

/// Compares a conversation of every script.
///
/// # Errors
/// Differences that are not meant, those that are meant and do not occur, or a machine of ours that
/// does not keep to its transcript.
pub fn run(ours: &Ctx, theirs: &Ctx, scripts: &[Script]) -> Result {
    let mut meant: Vec<Meant> = (1..)
        .zip(MEANT.lines())
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, pattern)| Meant { pattern, number, met: false })
        .collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for script in scripts {
        let mut pair: Option<Pair> = None;
        for Line { number, step } in &script.lines {
            if let Step::Start(machine, args) = step {
                if let Some(pair) = pair.take() {
                    pair.ours.finish()?;
                }
                // What firmware sets up, QEMU lacks on the debug port.
                if *machine != Machine::Qtest {
                    pair = Some(Pair::start(ours, theirs, *machine, args)?);
                }
                continue;
            }
            let Some(pair) = &mut pair else { continue };
            let place = format!("{}.qmp:{number}", script.name);
            let found = pair.step(step).map_err(|error| format!("{place}: {error}"))?;
            count += usize::from(matches!(step, Step::Hear(_)));
            for difference in found {
                let known = meant
                    .iter_mut()
                    .filter(|meant| matches(meant.pattern, &difference, &mut Names::new()));
                let mut any = false;
                known.for_each(|meant| (meant.met, any) = (true, true));
                if !any {
                    wrong.push(format!("{place}: {difference}"));
                }
            }
        }
        if let Some(pair) = pair.take() {
            pair.ours.finish()?;
        }
    }
    println!("{count} replies compared, {} differences meant", meant.len());
    for meant in meant.iter().filter(|meant| !meant.met) {
        let Meant { number, pattern, .. } = meant;
        wrong.push(format!("differences.txt:{number}: no more: {pattern}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The two machines.
struct Pair {
    ours: Stage,
    theirs: Stage,
    /// The command that was asked last.
    command: String,
    /// What QEMU said and ours has not said yet.
    replies: Vec<Value>,
    events: Vec<Value>,
    questions: u32,
    /// Whether QEMU was not asked what ours is answering.
    spared: bool,
}

impl Pair {
    fn start(ours: &Ctx, theirs: &Ctx, machine: Machine, args: &[String]) -> Result<Self> {
        let ours = Stage::start(ours, machine, args)?;
        let theirs = Stage::start(theirs, machine, args)?;
        let (replies, events, command) = (Vec::new(), Vec::new(), String::new());
        Ok(Self { ours, theirs, command, replies, events, questions: 0, spared: false })
    }

    /// Takes a step with both; where they differ in it.
    fn step(&mut self, step: &Step) -> Result<Vec<String>> {
        let heard = match self.ours.step(step)? {
            Some(line) => serde_json::from_str(&line)?,
            None => Value::Null,
        };
        match step {
            Step::Send { with: Pass::Ours, .. } => {
                self.spared = true;
                Ok(Vec::new())
            }
            _ if self.spared => {
                self.spared = !matches!(step, Step::Hear(_));
                Ok(Vec::new())
            }
            Step::Send { text, .. } => {
                self.command = request(text).map_or("request".to_owned(), |(command, _)| command);
                let left = self.left_over();
                self.theirs.step(step)?;
                self.listen()?;
                Ok(left)
            }
            Step::Hear(pattern) => {
                if self.replies.is_empty() {
                    return Ok(vec![format!("{}: {heard} | nothing", self.command)]);
                }
                let theirs = self.replies.remove(0);
                self.theirs.learn(pattern, &theirs);
                let ours = serde_json::from_str(&self.ours.plain(&heard.to_string()))?;
                let theirs = serde_json::from_str(&self.theirs.plain(&theirs.to_string()))?;
                Ok(compare::replies(&self.command, &ours, &theirs))
            }
            Step::Event(name, _) => {
                let at = |events: &[Value]| events.iter().position(|event| event["event"] == *name);
                if at(&self.events).is_none()
                    && let Ok(event) = self.theirs.qmp().event(name, PERHAPS)
                {
                    self.events.push(event);
                }
                match at(&self.events) {
                    Some(at) => Ok(compare::events(&heard, &self.events.remove(at))),
                    None => Ok(vec![format!("{name}: event | nothing")]),
                }
            }
            Step::Connect => {
                let left = self.left_over();
                self.theirs.step(step)?;
                let deadline = Instant::now() + SOON;
                let greeting = self.theirs.qmp().line(deadline)?.unwrap_or_default();
                self.replies.push(serde_json::from_str(&greeting)?);
                self.command = "greeting".to_owned();
                Ok(left)
            }
            Step::End | Step::Debug(..) | Step::Start(..) | Step::File(..) => Ok(Vec::new()),
        }
    }

    /// Takes in what QEMU says until it answers a question of our own.
    fn listen(&mut self) -> Result {
        self.questions += 1;
        let id = format!("question {}", self.questions);
        let question = json!({ "execute": "query-name", "id": id });
        let qmp = self.theirs.qmp();
        // It may have gone.
        qmp.send_bytes(format!("{question}\n").as_bytes())?;
        let deadline = Instant::now() + SOON;
        while let Some(line) = qmp.line(deadline)? {
            let message: Value = serde_json::from_str(&line)?;
            if message["id"] == id {
                break;
            }
            if message.get("event").is_some() {
                self.events.push(message);
            } else {
                self.replies.push(message);
            }
        }
        Ok(())
    }

    /// What QEMU said and ours did not.
    fn left_over(&mut self) -> Vec<String> {
        let events = self.events.drain(..).map(|event| {
            let data = event.get("data").unwrap_or(&Value::Null);
            format!("{}: nothing | event {data}", event["event"].as_str().unwrap_or_default())
        });
        let mut left: Vec<_> = events.collect();
        left.extend(
            self.replies.drain(..).map(|reply| format!("{}: nothing | {reply}", self.command)),
        );
        left
    }
}
