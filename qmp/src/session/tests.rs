use super::*;
use proptest::prelude::*;
use serde_json::json;

fn version() -> VersionInfo {
    VersionInfo {
        qemu: crate::VersionInfoQemu { micro: 50, minor: 7, major: 1 },
        package: String::new(),
    }
}

/// A session, greeted or in command mode, with nothing to send.
fn session(negotiated: bool) -> Session {
    let mut session = Session::new(&version(), false);
    if negotiated {
        session.feed(b"{'execute': 'qmp_capabilities'}");
        assert_eq!(session.next_request(), None);
    }
    taken(&mut session);
    session
}

fn taken(session: &mut Session) -> String {
    let text = String::from_utf8(session.output().to_vec()).unwrap();
    session.sent(text.len());
    text
}

/// What the session answers by itself, line ends left out.
fn answers(session: &mut Session, text: &str) -> Vec<String> {
    session.feed(text.as_bytes());
    assert_eq!(session.next_request(), None, "{text}");
    taken(session).split_terminator("\r\n").map(str::to_owned).collect()
}

fn generic(desc: &str) -> String {
    format!(r#"{{"error": {{"class": "GenericError", "desc": "{desc}"}}}}"#)
}

fn not_found(name: &str) -> String {
    format!(
        r#"{{"error": {{"class": "CommandNotFound", "desc": "The command {name} has not been found"}}}}"#
    )
}

#[test]
fn greeting() {
    let mut session = Session::new(&version(), false);
    assert_eq!(
        taken(&mut session),
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 50, \"minor\": 7, \"major\": 1}, \
         \"package\": \"\"}, \"capabilities\": []}}\r\n"
    );
    let mut session = Session::new(&version(), true);
    let text = taken(&mut session);
    assert!(text.starts_with("{\r\n    \"QMP\": {\r\n        \"version\": {\r\n"), "{text}");
    assert!(text.ends_with("        \"capabilities\": [\r\n        ]\r\n    }\r\n}\r\n"), "{text}");
}

#[test]
fn negotiation() {
    let mut session = session(false);
    let stop = Raised::now(crate::Event::Stop);
    for (text, answer) in [
        ("{'execute': 'query-status'}", not_found("query-status")),
        ("{'execute': 'nonsense'}", not_found("nonsense")),
        (
            "{'execute': 'qmp_capabilities', 'arguments': {'a': []}}",
            generic("Invalid parameter 'a'"),
        ),
        ("{'execute': 'qmp_capabilities', 'arguments': {}}", r#"{"return": {}}"#.into()),
    ] {
        session.event(&stop);
        assert_eq!(answers(&mut session, text), [answer], "{text}");
    }
    session.event(&stop);
    assert!(taken(&mut session).contains("\"event\": \"STOP\""));
    // Now it is a command like any other, and the dispatcher has none of that name.
    session.feed(b"{'execute': 'qmp_capabilities'}");
    assert_eq!(session.next_request().unwrap().name, "qmp_capabilities");
}

#[test]
fn ids_are_kept_in_negotiation() {
    let mut session = session(false);
    assert_eq!(
        answers(&mut session, "{'execute': 'stop', 'id': [1, {'a': 'b'}]}"),
        [not_found("stop").replacen('{', r#"{"id": [1, {"a": "b"}], "#, 1)]
    );
    assert_eq!(
        answers(&mut session, "{'execute': 'qmp_capabilities', 'id': 'é'}"),
        [r#"{"return": {}, "id": "\u00E9"}"#]
    );
}

#[test]
fn messages_that_are_no_requests() {
    for negotiated in [false, true] {
        let mut session = session(negotiated);
        for (text, desc) in [
            ("[]", "Expected 'object' in QMP input"),
            ("3 ", "Expected 'object' in QMP input"),
            ("true ", "Expected 'object' in QMP input"),
            ("{}", "Expected 'execute' in QMP input"),
            ("{'id': 1}", "Expected 'execute' in QMP input"),
            ("{'arguments': {}}", "Expected 'execute' in QMP input"),
            ("{'execute': 3, 'id': 1}", "QMP input object member 'execute' expects 'string'"),
            (
                "{'execute': 'stop', 'arguments': []}",
                "QMP input object member 'arguments' expects 'object'",
            ),
            ("{'execute': 'stop', 'foo': 1}", "QMP input object member 'foo' is unexpected"),
            ("{'execute': null}", "Invalid JSON syntax"),
            ("nonsense\n", "Invalid JSON syntax"),
        ] {
            assert_eq!(answers(&mut session, text), [generic(desc)], "{text}");
        }
    }
}

#[test]
fn replies() {
    let mut session = session(true);
    session.reply(None, Ok(json!({})));
    session.reply(Some(json!({"a": [1.5]})), Ok(json!([1])));
    session.reply(Some(json!(7)), Err(QmpError::device_not_found("x")));
    assert_eq!(
        taken(&mut session),
        "{\"return\": {}}\r\n\
         {\"return\": [1], \"id\": {\"a\": [1.5]}}\r\n\
         {\"id\": 7, \"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'x' not found\"}}\r\n"
    );
}

#[test]
fn requests_come_one_at_a_time() {
    let mut session = session(true);
    session.feed(b"{'execute': 'stop', 'arguments': {'a': 1}, 'id': 2}{'execute': 'cont'}");
    assert!(!session.wants_input());
    let Value::Object(arguments) = json!({"a": 1}) else { panic!("an object") };
    assert_eq!(
        session.next_request(),
        Some(Request { name: "stop".into(), arguments, id: Some(json!(2)) })
    );
    assert!(!session.wants_input());
    assert_eq!(session.next_request().unwrap().name, "cont");
    assert!(session.wants_input());
}

#[test]
fn a_client_that_does_not_read_is_not_listened_to() {
    let mut session = session(true);
    let line = "{'execute': 'x'}".repeat(3);
    session.feed(line.as_bytes());
    assert!(session.next_request().is_some());
    session.reply(None, Ok(json!("a".repeat(OUTPUT_PAUSE))));
    assert_eq!(session.next_request(), None);
    assert!(!session.wants_input());
    let unread = session.output().len();
    session.sent(unread - 10);
    assert_eq!(session.output(), b"aaaaaa\"}\r\n");
    assert!(session.next_request().is_some());
    assert!(session.next_request().is_some());
    assert!(session.wants_input());
    // Errors pause it as well.
    session.feed("A".repeat(OUTPUT_PAUSE).as_bytes());
    assert_eq!(session.next_request(), None);
    assert!(session.output().len() < OUTPUT_PAUSE + 100);
    assert!(!session.wants_input());
}

#[test]
fn events_nobody_reads_end_the_session() {
    let mut session = session(true);
    let event = Raised::now(crate::Event::Stop);
    session.event(&event);
    let size = session.output().len();
    for n in 2.. {
        session.event(&event);
        if session.is_overrun() {
            assert_eq!(n, EVENTS_MAX / size + 1);
            break;
        }
    }
    assert!(session.output().is_empty() && !session.wants_input());
    session.feed(b"{'execute': 'stop'}");
    session.event(&event);
    assert_eq!(session.next_request(), None);
    assert!(session.output().is_empty());
}

#[test]
fn events_that_are_read_do_not() {
    let mut session = session(true);
    let event = Raised::now(crate::Event::Stop);
    for _ in 0..EVENTS_MAX / 16 {
        session.event(&event);
        let count = session.output().len();
        session.sent(count);
    }
    assert!(!session.is_overrun());
}

#[test]
fn descriptors_of_one_message_wait() {
    use std::os::fd::AsRawFd;
    let mut session = session(true);
    let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let [a, b, c] = [fd(), fd(), fd()];
    let [first, second, third] = [&a, &b, &c].map(AsRawFd::as_raw_fd);
    session.push_fd(a);
    session.push_fd(b);
    session.feed(b" ");
    let taken = session.take_fd().unwrap();
    assert_eq!(taken.as_raw_fd(), first);
    session.untake_fd(taken);
    assert_eq!(session.take_fd().unwrap().as_raw_fd(), first);
    session.feed(b" ");
    assert_eq!(session.take_fd().unwrap().as_raw_fd(), second);
    assert!(session.take_fd().is_none());
    session.push_fd(fd());
    session.feed(b" ");
    session.push_fd(c);
    assert_eq!(session.take_fd().unwrap().as_raw_fd(), third);
    assert!(session.take_fd().is_none());
}

#[test]
fn capabilities_can_be_asked_for_but_none_is_there() {
    for (arguments, desc) in [
        ("{'enable': ['oob']}", "Capability oob not available"),
        ("{'enable': ['oob', 'x']}", "Capability oob, x not available"),
        ("{'enable': 'oob'}", "Invalid parameter type for 'enable', expected: list"),
        ("{'enable': [1]}", "Invalid parameter type for 'null', expected: string"),
        ("{'disable': []}", "Invalid parameter 'disable'"),
    ] {
        let mut session = session(false);
        let text = format!("{{'execute': 'qmp_capabilities', 'arguments': {arguments}}}");
        assert_eq!(answers(&mut session, &text), [generic(desc)]);
        // Nothing has changed.
        assert_eq!(answers(&mut session, "{'execute': 'stop'}"), [not_found("stop")]);
        let text = "{'execute': 'qmp_capabilities', 'arguments': {'enable': []}}";
        assert_eq!(answers(&mut session, text), [r#"{"return": {}}"#]);
    }
}

#[test]
fn the_first_mistake_in_the_order_of_the_hash_is_told() {
    let mut session = session(true);
    for (text, desc) in [
        ("{'arguments': 1, 'execute': 1}", "QMP input object member 'execute' expects 'string'"),
        ("{'x': 1, 'arguments': 1}", "QMP input object member 'x' is unexpected"),
        ("{'foo': 1, 'exec-oob': 'stop'}", "QMP input object member 'exec-oob' is unexpected"),
        (
            "{'execute': 'stop', 'exec-oob': 'stop'}",
            "QMP input object member 'exec-oob' is unexpected",
        ),
    ] {
        assert_eq!(answers(&mut session, text), [generic(desc)], "{text}");
    }
}

#[test]
fn an_idle_session_is_small() {
    let mut session = session(true);
    session.feed(format!("{{'execute': '{}'}}", "x".repeat(100_000)).as_bytes());
    let request = session.next_request().unwrap();
    session.reply(None, Err(QmpError::command_not_found(&request.name)));
    taken(&mut session);
    let held = session.input.data.capacity() + session.output.data.capacity();
    assert!(held <= 2 * BUFFER_KEEP, "{held}");
}

proptest! {
    #[test]
    fn fragmentation_does_not_matter(
        ids in prop::collection::vec(0..100_u8, 0..6),
        size in 1..40_usize,
    ) {
        let text: String = ids
            .iter()
            .map(|id| format!("{{'execute': 'x{id}', 'arguments': {{'a': [{id}]}}, 'id': {id}}} "))
            .collect();
        let mut session = session(true);
        let mut names = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            session.feed(piece);
            while let Some(request) = session.next_request() {
                names.push(request.name);
            }
        }
        let expected: Vec<_> = ids.iter().map(|id| format!("x{id}")).collect();
        prop_assert_eq!(names, expected);
    }

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::fuzz::fuzz(&data);
    }

    #[test]
    fn any_requests_are_survived(
        name in prop::sample::select(
            crate::COMMANDS.iter().map(|spec| spec.name).collect::<Vec<_>>()
        ),
        arguments in prop::sample::select(vec!["{}", "[]", "{'a': 1}", "{'name': {}}"]),
        cut in any::<u8>(),
    ) {
        let text = format!("{{'execute': '{name}', 'arguments': {arguments}, 'id': 0}}");
        crate::fuzz::fuzz(&[&[cut], text.as_bytes()].concat());
    }
}
