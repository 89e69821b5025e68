//! Clients that behave.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;

use super::*;

/// A port that is free, in all likelihood also in a moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn every_monitor_hears_events_and_only_who_asked_the_reply() {
    let (tcp, telnet) = (free_port(), free_port());
    let tcp_device = format!("tcp:127.0.0.1:{tcp},server=on,wait=off");
    let telnet_device = format!("telnet:127.0.0.1:{telnet},server=on,wait=off");
    let machine = Machine::with(
        2,
        [
            "-qmp",
            &tcp_device,
            "-qmp",
            &telnet_device,
            "-chardev",
            "socket,id=x,path={dir}/mux,server=on,wait=off,mux=on",
            "-mon",
            "chardev=x,mode=control",
            "-chardev",
            "pty,id=p",
            "-mon",
            "chardev=p,mode=control",
        ],
    );
    let mut one = machine.ready(0);
    let mut two = machine.ready(1);
    let mut mux = Client::greeted(connect(&machine.dir.join("mux"), SOON).unwrap());
    let mut tcp = Client::greeted(TcpStream::connect(("127.0.0.1", tcp)).unwrap());
    let mut telnet = TcpStream::connect(("127.0.0.1", telnet)).unwrap();
    let mut commands = [0; 3];
    // What the two sides agree on comes in commands of three bytes that begin with 0xff.
    while telnet.peek(&mut commands).unwrap() > 0 && commands[0] == 0xff {
        telnet.read_exact(&mut commands).unwrap();
    }
    let mut telnet = Client::greeted(telnet);
    let said = "char device redirected to ";
    until("the terminal's name", || machine.vm.process.stderr().tail(9).contains(said));
    let said = machine.vm.process.stderr().tail(9).split(said).nth(1).unwrap().to_owned();
    let path = PathBuf::from(said.split_whitespace().next().unwrap());
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut pty = Client::greeted(terminal);

    for answer in [
        mux.ask(CAPABILITIES),
        tcp.ask(CAPABILITIES),
        telnet.ask(CAPABILITIES),
        pty.ask(CAPABILITIES),
    ] {
        assert_eq!(answer, OK);
    }
    one.say(r#"{"execute": "cont", "id": [1]}"#);
    one.hears("RESUME");
    assert_eq!(one.line(), r#"{"return": {}, "id": [1]}"#);
    // Whatever they hear next is what follows the event: the next event.
    tcp.hears("RESUME");
    assert_eq!(tcp.ask(r#"{"execute": "query-name", "id": 5}"#), r#"{"return": {}, "id": 5}"#);
    two.say(r#"{"execute": "stop"}"#);
    two.hears("RESUME");
    two.hears("STOP");
    assert_eq!(two.line(), OK);
    one.hears("STOP");
    tcp.hears("STOP");
    for event in ["RESUME", "STOP"] {
        telnet.hears(event);
        mux.hears(event);
        pty.hears(event);
    }
}

#[test]
fn the_console_can_be_a_monitor() {
    let machine = Machine::with(0, ["-qmp", "stdio"]);
    let stdout = machine.vm.process.stdout();
    until("the greeting", || stdout.tail(9).contains(r#"{"QMP": "#));
    let TestVm { mut console, process, .. } = machine.vm;
    console.type_text("{'execute': 'qmp_capabilities'}{'execute': 'query-uuid', 'id': 7}").unwrap();
    until("the answer", || process.stdout().tail(9).contains(r#""id": 7}"#));
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let machine = Machine::new(1);
    let mut client = machine.ready(0);
    let request = r#" {'execute':"query-status",'id':{"a\u00e9'":['\'\"',-0,1e5,[{}]]}}"#;
    let answer = concat!(
        r#"{"return": {"status": "prelaunch", "singlestep": false, "running": false}, "#,
        r#""id": {"a\u00E9'": ["'\"", 0, 100000, [{}]]}}"#
    );
    for byte in request.bytes() {
        client.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.line(), answer);
    for cut in 1..request.len() {
        client.say(&request[..cut]);
        // So that the rest is read apart, in all likelihood.
        std::thread::yield_now();
        client.say(&request[cut..]);
        assert_eq!(client.line(), answer, "cut at {cut}");
    }
    client.say(&request.repeat(50));
    for _ in 0..50 {
        assert_eq!(client.line(), answer);
    }
}

#[test]
fn who_has_said_all_still_hears_all() {
    let machine = Machine::new(1);
    // More than a socket holds: the answers come as they are read.
    const REQUESTS: usize = 20_000;
    let mut client = machine.ready(0);
    let writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let mut writer = writer;
        for id in 0..REQUESTS {
            writeln!(writer, r#"{{"execute": "query-status", "id": {id}}}"#).unwrap();
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    for id in 0..REQUESTS {
        let line = client.line();
        assert!(line.ends_with(&format!(r#""id": {id}}}"#)), "{id}: {line}");
    }
    assert_eq!(client.line(), "");
    writing.join().unwrap();
    // And the next one is greeted.
    machine.ready(0);
}

#[test]
fn who_has_said_all_and_hears_nothing_makes_room_for_the_next() {
    let machine = Machine::new(1);
    let mut first = machine.ready(0);
    first.stream.set_nonblocking(true).unwrap();
    let request = br#"{"execute": "query-commands"}"#;
    // Until nothing more is taken.
    while first.stream.write(request).is_ok() {}
    first.stream.shutdown(Shutdown::Write).unwrap();
    machine.ready(0);
}
