use super::*;
use crate::*;
use serde_json::json;
use std::time::Duration;

/// A machine of run states only.
#[derive(Default)]
struct Toy {
    context: Context,
    running: bool,
    /// What is to be done after the reply.
    asked: Vec<Event>,
    fds: Vec<OwnedFd>,
    asker: Option<MonitorId>,
    /// What takes long is under way; who is answered when it ends.
    busy: Option<Ticket>,
}

impl Host for Toy {
    fn context(&mut self) -> &mut Context {
        &mut self.context
    }

    fn must_wait(&self, request: &Request) -> bool {
        self.busy.is_some() && !request.name.starts_with("query-")
    }
}

impl Toy {
    /// Carries out some commands; the reply is in JSON.
    fn carry_out(&mut self, name: &str) -> serde_json::Value {
        match name {
            "stop" if std::mem::take(&mut self.running) => self.context.raise(Event::Stop),
            "cont" if !std::mem::replace(&mut self.running, true) => {
                self.context.raise(Event::Resume);
            }
            "system_reset" => {
                let reason = ShutdownCause::HostQmpSystemReset;
                self.asked.push(Event::Reset { guest: false, reason });
            }
            "system_powerdown" => self.asked.push(Event::Powerdown),
            "quit" => {
                let reason = ShutdownCause::HostQmpQuit;
                self.asked.push(Event::Shutdown { guest: false, reason });
            }
            "x-pulse-save-restore" => self.fds.extend(self.context.fd.take()),
            "query-status" => {
                let status = if self.running { "running" } else { "paused" };
                return json!({"status": status, "singlestep": false, "running": self.running});
            }
            "query-version" => return json!(version()),
            "system_wakeup" => {
                self.busy = Some(Ticket::unique());
                self.context.later = self.busy;
            }
            "query-name" => {
                self.asker = self.context.monitor;
                return json!({});
            }
            "query-uuid" => return json!({"UUID": "0"}),
            "query-kvm" => return json!({"enabled": true, "present": true}),
            "query-target" => return json!({"arch": "x86_64"}),
            "query-cpus" => {
                return json!([
                    {"current": true, "CPU": 0, "pc": -16, "halted": false, "thread_id": 7}
                ]);
            }
            _ => {}
        }
        serde_json::Value::Null
    }
}

impl<C: Command> Handle<C> for Toy
where
    C::Ret: DeserializeOwned,
{
    fn handle(&mut self, _: C) -> Result<C::Ret, QmpError> {
        Ok(serde_json::from_value(self.carry_out(C::NAME)).unwrap())
    }
}

fn version() -> VersionInfo {
    VersionInfo { qemu: VersionInfoQemu { micro: 50, minor: 7, major: 1 }, package: "".into() }
}

struct Rig {
    monitors: Monitors,
    toy: Toy,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self { monitors: Monitors::new(), toy: Toy::default(), now: Instant::now() }
    }

    /// A monitor with a client in command mode.
    fn client(&mut self) -> MonitorId {
        let id = self.monitors.add(false);
        self.monitors.connect(id, &version());
        self.say(id, "{'execute': 'qmp_capabilities'}");
        self.heard(id);
        id
    }

    /// The client says something, and the main loop runs.
    fn say(&mut self, id: MonitorId, text: &str) {
        self.monitors.feed(id, text.as_bytes(), None);
        while self.monitors.serve_one(id, &mut self.toy, self.now) {
            for event in std::mem::take(&mut self.toy.asked) {
                self.toy.context.raise(event);
            }
            self.monitors.deliver(&mut self.toy, self.now);
        }
    }

    /// What the client has heard, timestamps cut out.
    fn heard(&mut self, id: MonitorId) -> Vec<String> {
        let text = String::from_utf8(self.monitors.output(id).to_vec()).unwrap();
        self.monitors.sent(id, text.len());
        text.split_terminator("\r\n")
            .map(|line| match line.split_once("}, \"event\"") {
                Some((_, event)) => format!("{{\"event\"{event}"),
                None => line.to_owned(),
            })
            .collect()
    }

    fn ask(&mut self, id: MonitorId, text: &str) -> Vec<String> {
        self.say(id, text);
        self.heard(id)
    }
}

const DONE: &str = r#"{"return": {}}"#;

fn event(name: &str) -> String {
    format!(r#"{{"event": "{name}"}}"#)
}

fn ended(name: &str, reason: &str) -> String {
    format!(r#"{{"event": "{name}", "data": {{"guest": false, "reason": "{reason}"}}}}"#)
}

#[test]
fn events_before_and_after_the_reply() {
    let mut rig = Rig::new();
    let id = rig.client();
    assert_eq!(rig.ask(id, "{'execute': 'cont'}"), [&event("RESUME"), DONE]);
    assert_eq!(rig.ask(id, "{'execute': 'cont'}"), [DONE]);
    assert_eq!(rig.ask(id, "{'execute': 'stop'}"), [&event("STOP"), DONE]);
    assert_eq!(rig.ask(id, "{'execute': 'stop'}"), [DONE]);
    assert_eq!(
        rig.ask(id, "{'execute': 'system_reset'}{'execute': 'quit', 'id': 1}"),
        [
            DONE,
            &ended("RESET", "host-qmp-system-reset"),
            r#"{"return": {}, "id": 1}"#,
            &ended("SHUTDOWN", "host-qmp-quit"),
        ]
    );
}

#[test]
fn replies_are_typed() {
    let mut rig = Rig::new();
    let id = rig.client();
    for (name, value) in [
        ("query-status", r#"{"status": "paused", "singlestep": false, "running": false}"#),
        ("query-version", r#"{"qemu": {"micro": 50, "minor": 7, "major": 1}, "package": ""}"#),
        ("query-name", "{}"),
        ("query-uuid", r#"{"UUID": "0"}"#),
        ("query-kvm", r#"{"enabled": true, "present": true}"#),
        ("query-target", r#"{"arch": "x86_64"}"#),
        (
            "query-cpus",
            r#"[{"current": true, "CPU": 0, "pc": -16, "halted": false, "thread_id": 7}]"#,
        ),
    ] {
        let reply = rig.ask(id, &format!("{{'execute': '{name}'}}"));
        assert_eq!(reply, [format!(r#"{{"return": {value}}}"#)]);
    }
}

#[test]
fn errors_are_exact() {
    let mut rig = Rig::new();
    let id = rig.client();
    let error = |class: &str, desc: &str| {
        format!(r#"{{"error": {{"class": "{class}", "desc": "{desc}"}}}}"#)
    };
    for (text, class, desc) in [
        ("{'execute': 'frob'}", "CommandNotFound", "The command frob has not been found"),
        (
            "{'execute': 'qmp_capabilities'}",
            "CommandNotFound",
            "The command qmp_capabilities has not been found",
        ),
        ("{'execute': 'stop', 'arguments': {'a': 1}}", "GenericError", "Invalid parameter 'a'"),
    ] {
        assert_eq!(rig.ask(id, text), [error(class, desc)]);
    }
}

#[test]
fn lists_of_the_interface() {
    let mut rig = Rig::new();
    let id = rig.client();
    let names = |line: &str| -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let items = value["return"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let commands = names(&rig.ask(id, "{'execute': 'query-commands'}")[0]);
    let known: Vec<&str> = EXPECTED.iter().rev().copied().collect();
    assert_ordered(&commands, &known);
    for name in ["quit", "qmp_capabilities", "query-commands", "x-pulse-save-restore"] {
        assert!(commands.iter().any(|command| command == name), "{name}");
    }
    assert!(!commands.iter().any(|command| PENDING.contains(&command.as_str())));
    for name in PENDING {
        let error = QmpError::command_not_found(name);
        assert_eq!(dispatch(&mut rig.toy, name, Map::new()), Err(error));
    }

    let events = names(&rig.ask(id, "{'execute': 'query-events'}")[0]);
    let known = "BLOCK_IMAGE_CORRUPTED GUEST_PANICKED SPICE_MIGRATE_COMPLETED BALLOON_CHANGE WAKEUP \
        SUSPEND_DISK SUSPEND NIC_RX_FILTER_CHANGED DEVICE_TRAY_MOVED DEVICE_DELETED \
        BLOCK_JOB_READY BLOCK_JOB_ERROR BLOCK_JOB_CANCELLED BLOCK_JOB_COMPLETED \
        SPICE_DISCONNECTED SPICE_INITIALIZED SPICE_CONNECTED WATCHDOG RTC_CHANGE BLOCK_IO_ERROR \
        VNC_DISCONNECTED VNC_INITIALIZED VNC_CONNECTED RESUME STOP POWERDOWN RESET SHUTDOWN";
    assert_ordered(&events, &known.split_whitespace().collect::<Vec<_>>());
}

/// The names that are known stand in the known order.
fn assert_ordered(names: &[String], known: &[&str]) {
    let places: Vec<_> =
        names.iter().filter_map(|name| known.iter().position(|other| other == name)).collect();
    assert!(places.is_sorted(), "{names:?}");
}

#[test]
fn every_client_in_command_mode_hears_events() {
    let mut rig = Rig::new();
    let (first, second) = (rig.client(), rig.client());
    let third = rig.monitors.add(false);
    rig.monitors.connect(third, &version());
    rig.heard(third);
    assert_eq!(rig.ask(first, "{'execute': 'cont'}"), [&event("RESUME"), DONE]);
    assert_eq!(rig.heard(second), [event("RESUME")]);
    assert!(rig.heard(third).is_empty());

    rig.monitors.disconnect(second);
    rig.monitors.remove(third);
    assert_eq!(rig.ask(first, "{'execute': 'stop'}"), [&event("STOP"), DONE]);
    assert!(rig.monitors.output(second).is_empty());
    assert!(!rig.monitors.wants_input(second) && !rig.monitors.wants_input(third));
}

#[test]
fn a_new_client_starts_afresh() {
    let mut rig = Rig::new();
    let id = rig.client();
    rig.say(id, "{'execute': 'st");
    rig.monitors.connect(id, &version());
    assert!(rig.heard(id)[0].starts_with("{\"QMP\""));
    assert!(rig.ask(id, "{'execute': 'stop'}")[0].contains("CommandNotFound"));
}

#[test]
fn rate_limits_hold_for_all_clients() {
    let mut rig = Rig::new();
    let id = rig.client();
    for offset in 1..=5 {
        rig.toy.context.raise(Event::RtcChange { offset });
    }
    rig.monitors.deliver(&mut rig.toy, rig.now);
    let change = |n| format!(r#"{{"event": "RTC_CHANGE", "data": {{"offset": {n}}}}}"#);
    assert_eq!(rig.heard(id), [change(1)]);
    assert_eq!(rig.monitors.deadline(), Some(rig.now + Duration::from_secs(1)));
    rig.now += Duration::from_secs(1);
    rig.monitors.deliver(&mut rig.toy, rig.now);
    assert_eq!(rig.heard(id), [change(5)]);
    assert_eq!(rig.monitors.deadline(), None);
}

#[test]
fn handlers_know_who_asks_and_may_take_the_descriptor() {
    let mut rig = Rig::new();
    let id = rig.client();
    let fd = std::fs::File::open("/dev/null").unwrap().into();
    rig.monitors.feed(id, b"{'execute': 'query-name'}", Some(fd));
    rig.say(id, "");
    assert_eq!((rig.toy.asker, rig.toy.context.monitor), (Some(id), None));
    // It stayed in the mailbox, for the command that wants it.
    assert!(rig.toy.context.fd.is_none() && rig.toy.fds.is_empty());
    rig.say(id, "{'execute': 'x-pulse-save-restore'}");
    assert_eq!(rig.toy.fds.len(), 1);
    rig.say(id, "{'execute': 'x-pulse-save-restore'}");
    assert_eq!(rig.toy.fds.len(), 1);
}

#[test]
fn what_takes_long_is_answered_later_and_others_are_heard_meanwhile() {
    let mut rig = Rig::new();
    let (first, second) = (rig.client(), rig.client());
    let text = "{'execute': 'system_wakeup', 'id': 7}{'execute': 'query-target', 'id': 8}";
    assert!(rig.ask(first, text).is_empty());
    assert!(!rig.monitors.wants_input(first));
    assert!(!rig.monitors.session(first).unwrap().is_ready());

    // Who only asks is answered; the rest waits, and what is behind it.
    let kvm = r#"{"return": {"enabled": true, "present": true}}"#;
    assert_eq!(rig.ask(second, "{'execute': 'query-kvm'}"), [kvm]);
    let text = "{'execute': 'cont', 'id': 1}{'execute': 'query-kvm'}";
    assert!(rig.ask(second, text).is_empty());
    assert!(!rig.monitors.session(second).unwrap().is_ready());
    rig.toy.context.raise(Event::Powerdown);
    rig.monitors.deliver(&mut rig.toy, rig.now);
    assert_eq!(rig.heard(first), [event("POWERDOWN")]);
    assert_eq!(rig.heard(second), [event("POWERDOWN")]);

    let ticket = rig.toy.busy.take().unwrap();
    assert!(rig.monitors.answer(ticket, Ok(json!({}))));
    assert!(!rig.monitors.answer(ticket, Ok(json!({}))));
    rig.say(first, "");
    rig.say(second, "");
    let target = r#"{"return": {"arch": "x86_64"}, "id": 8}"#;
    let resumed = event("RESUME");
    assert_eq!(rig.heard(first), [r#"{"return": {}, "id": 7}"#, target, &resumed]);
    assert_eq!(rig.heard(second), [&resumed, r#"{"return": {}, "id": 1}"#, kvm]);
    assert!(rig.monitors.wants_input(first) && rig.monitors.wants_input(second));
}

#[test]
fn an_answer_for_a_client_that_has_gone_is_for_nobody() {
    let mut rig = Rig::new();
    let id = rig.client();
    rig.say(id, "{'execute': 'system_wakeup'}");
    let ticket = rig.toy.busy.take().unwrap();
    rig.monitors.disconnect(id);
    rig.monitors.connect(id, &version());
    rig.heard(id);
    assert!(!rig.monitors.answer(ticket, Ok(json!({}))));
    assert!(rig.monitors.output(id).is_empty());
}

#[test]
fn who_waits_and_reads_nothing_is_overrun_as_others_are() {
    let mut rig = Rig::new();
    let id = rig.client();
    rig.say(id, "{'execute': 'system_wakeup'}");
    while !rig.monitors.session(id).unwrap().is_overrun() {
        rig.toy.context.raise(Event::Powerdown);
        rig.monitors.deliver(&mut rig.toy, rig.now);
    }
    assert!(!rig.monitors.session(id).unwrap().is_held());
    assert!(!rig.monitors.answer(rig.toy.busy.take().unwrap(), Ok(json!({}))));
}
