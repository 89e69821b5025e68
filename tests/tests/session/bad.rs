//! Clients that ask too much, do not read, or break off.

use std::io::ErrorKind;

use rustix::net::sockopt::set_socket_linger;

use super::*;

/// Sends `count` bytes of `byte`.
fn flood(client: &mut Client<UnixStream>, byte: u8, count: usize) {
    let chunk = vec![byte; 1 << 16];
    for _ in 0..count / chunk.len() {
        client.stream.write_all(&chunk).unwrap();
    }
}

#[test]
fn what_is_too_large_is_refused_without_being_held() {
    let machine = Machine::new(1);
    let mut client = machine.ready(0);
    assert_eq!(client.ask("{'execute': 'query-name'}"), OK);
    let before = machine.status_kib("VmHWM:");
    // One token, many tokens.
    client.say("{'execute': '");
    flood(&mut client, b'x', 64 << 20);
    client.say("'}");
    assert_eq!(client.line(), SYNTAX);
    client.say("{'execute': 'stop', 'id': [");
    flood(&mut client, b'[', 1 << 20);
    flood(&mut client, b']', 1 << 20);
    client.say("]}");
    assert_eq!(client.line(), SYNTAX);
    client.say("{'execute': 'stop', 'id': [0");
    let zeros = ", 0".repeat(10_000);
    (0..64 << 20).step_by(zeros.len()).for_each(|_| client.say(&zeros));
    client.say("]}");
    assert_eq!(client.line(), SYNTAX);
    assert_eq!(client.ask("{'execute': 'query-name', 'id': 1}"), r#"{"return": {}, "id": 1}"#);
    let held = machine.status_kib("VmHWM:") - before;
    assert!(held < 40 << 10, "{held} KiB were held");
    let left = machine.status_kib("VmRSS:").saturating_sub(before);
    assert!(left < 4 << 10, "{left} KiB are held still");
}

#[test]
fn nesting_has_a_limit() {
    let machine = Machine::new(1);
    let mut client = machine.ready(0);
    for (depth, fits) in [(1023, true), (1024, true), (1025, false), (100_000, false)] {
        let id = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let answer = client.ask(&format!("{{'execute': 'query-name', 'id': {id}}}"));
        let whole = format!(r#"{{"return": {{}}, "id": {id}}}"#);
        assert_eq!(answer, if fits { &whole } else { SYNTAX }, "{depth}");
    }
}

#[test]
fn who_does_not_read_blocks_nobody() {
    let machine = Machine::new(2);
    let mut lazy = machine.ready(0);
    let mut other = machine.ready(1);
    let before = machine.status_kib("VmRSS:");
    lazy.stream.set_nonblocking(true).unwrap();
    let request = r#"{"execute": "query-commands", "id": 1}"#;
    let mut sent = 0;
    loop {
        match lazy.stream.write(&request.as_bytes()[sent % request.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(other.ask("{'execute': 'query-name'}"), OK);
    }
    for _ in 0..1000 {
        assert_eq!(other.ask("{'execute': 'query-name'}"), OK);
    }
    let held = machine.status_kib("VmRSS:").saturating_sub(before);
    assert!(held < 8 << 10, "{held} KiB are held for it");
    // What it asked for is answered when it reads at last.
    lazy.stream.set_nonblocking(false).unwrap();
    for _ in 0..sent / request.len() {
        assert!(lazy.line().ends_with(r#""id": 1}"#));
    }
}

#[test]
fn nonsense_is_answered_and_forgotten() {
    let machine = Machine::new(1);
    let mut client = machine.ready(0);
    client.stream.write_all(b"{'execute': 'query-n\xff").unwrap();
    assert_eq!(client.line(), SYNTAX);
    assert_eq!(client.ask("{'execute': 'query-name'}"), OK);
    client.say("HELLO");
    for _ in 0..5 {
        assert_eq!(client.line(), SYNTAX);
    }
    assert_eq!(client.ask("nonsense\n"), SYNTAX);
    assert_eq!(client.ask("{'execute': 'query-name', 'id': null}"), SYNTAX);
    assert_eq!(client.ask("{]"), SYNTAX);
    assert_eq!(
        client.ask("{'exec-oob': 'stop'}"),
        r#"{"error": {"class": "GenericError", "desc": "QMP input object member 'exec-oob' is unexpected"}}"#
    );
    assert_eq!(client.ask("{'execute': 'query-name'}"), OK);
}

#[test]
fn who_breaks_off_leaves_nothing_behind() {
    let machine = Machine::new(2);
    let mut stays = machine.ready(1);
    drop(machine.ready(0));
    let talk =
        format!("{CAPABILITIES}{{'execute': 'query-commands'}}{{'execute': 'stop', 'id': [1,");
    let mut before = None;
    for round in 0..400 {
        let mut stream = connect(&machine.path(0), SOON).unwrap();
        let length = round % talk.len();
        let _ = stream.write_all(&talk.as_bytes()[..length]);
        if round % 3 == 0 {
            let _ = stream.read(&mut [0; 64]);
        }
        if round % 5 == 0 {
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        if round == 50 {
            drop(machine.ready(0));
            before = Some((machine.descriptors(), machine.status_kib("VmRSS:")));
        }
    }
    drop(machine.ready(0));
    assert_eq!(stays.ask("{'execute': 'query-name'}"), OK);
    let (descriptors, memory) = before.unwrap();
    until("descriptors are closed", || machine.descriptors() <= descriptors);
    let grown = machine.status_kib("VmRSS:").saturating_sub(memory);
    assert!(grown < 1 << 10, "{grown} KiB more are held");
}
