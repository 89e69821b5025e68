//! Descriptors on their way with requests.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

/// Sends `text` with descriptors, in one message.
pub(super) fn send(client: &Client<UnixStream>, text: &str, fds: &[BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    let iov = [IoSlice::new(text.as_bytes())];
    let sent = sendmsg(&client.stream, &iov, &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, text.len());
}

#[test]
fn many_may_be_on_their_way() {
    let machine = Machine::new(2);
    let mut client = machine.ready(0);
    let mut other = machine.ready(1);
    let null = File::open("/dev/null").unwrap();
    let before = machine.descriptors();
    for id in 0..300 {
        let text = format!("{{'execute': 'add-fd', 'id': {id}}}");
        send(&client, &text, &[null.as_fd()]);
    }
    for id in 0..300 {
        let line = client.line();
        assert!(line.contains(&format!(r#""fdset-id": {id}}}, "id": {id}}}"#)), "{line}");
    }
    assert_eq!(machine.descriptors(), before + 300);
    // Another monitor has none of them in its hand.
    let none = r#"{"error": {"class": "GenericError", "desc": "No file descriptor supplied via SCM_RIGHTS"}}"#;
    assert_eq!(other.ask("{'execute': 'add-fd'}"), none);
    // They are sets of the process all the same.
    assert!(
        other.ask("{'execute': 'query-fdsets'}").starts_with(r#"{"return": [{"fds": [{"fd": "#)
    );
    // Several in one message serve several requests.
    send(&client, "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}", &[null.as_fd(); 2]);
    assert_eq!(client.line(), OK);
    assert_eq!(client.ask("{'execute': 'getfd', 'arguments': {'fdname': 'b'}}"), OK);
    assert_eq!(client.ask("{'execute': 'getfd', 'arguments': {'fdname': 'c'}}"), none);
}

#[test]
fn a_descriptor_comes_with_the_first_byte() {
    let machine = Machine::new(1);
    let mut client = machine.ready(0);
    let null = File::open("/dev/null").unwrap();
    client.say("{'execute': ");
    send(&client, "'getfd', 'arg", &[null.as_fd()]);
    assert_eq!(client.ask("uments': {'fdname': 'x'}}"), OK);
    // Of two that nobody asked for, the later one stays.
    send(&client, " ", &[null.as_fd()]);
    send(&client, "{'execute': 'closefd', 'arguments': {'fdname': 'x'}}", &[null.as_fd()]);
    assert_eq!(client.line(), OK);
    assert_eq!(client.ask("{'execute': 'getfd', 'arguments': {'fdname': 'y'}}"), OK);
    let none = client.ask("{'execute': 'getfd', 'arguments': {'fdname': 'z'}}");
    assert!(none.contains("No file descriptor supplied"), "{none}");
}

#[test]
fn sets_go_with_the_last_client_and_names_stay() {
    let machine = Machine::new(1);
    let TestVm { qmp, process, .. } = machine.vm;
    let count = || std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count();
    let connect = || {
        let mut client = Client::greeted(connect(&machine.dir.join("m0"), SOON).unwrap());
        assert_eq!(client.ask(CAPABILITIES), OK);
        client
    };
    drop(qmp);
    let mut client = connect();
    let null = File::open("/dev/null").unwrap();
    let before = count();
    send(&client, "{'execute': 'getfd', 'arguments': {'fdname': 'a'}}", &[null.as_fd()]);
    assert_eq!(client.line(), OK);
    send(&client, "{'execute': 'add-fd'}", &[null.as_fd()]);
    client.line();
    assert_eq!(count(), before + 2);
    // While the machine does not run nothing is closed.
    drop(client);
    let mut client = connect();
    assert_eq!(count(), before + 2);
    client.say("{'execute': 'cont'}");
    client.hears("RESUME");
    assert_eq!(client.line(), OK);
    drop(client);
    let mut client = connect();
    assert_eq!(client.ask("{'execute': 'query-fdsets'}"), r#"{"return": []}"#);
    assert_eq!(count(), before + 1);
    assert_eq!(client.ask("{'execute': 'closefd', 'arguments': {'fdname': 'a'}}"), OK);
    assert_eq!(count(), before);
}

#[test]
fn inherited_ones_become_sets() {
    use std::os::fd::AsRawFd;
    let dir = Scratch::new().unwrap();
    let log = File::create(dir.join("log")).unwrap();
    // Without the flag it is inherited.
    let inherited = rustix::io::dup(&log).unwrap();
    let option = format!("fd={},set=3,opaque=log", inherited.as_raw_fd());
    let machine = Machine::with(1, ["-add-fd", &option, "-D", "/dev/fdset/3", "-d", "debug"]);
    let mut client = machine.ready(0);
    let sets = client.ask("{'execute': 'query-fdsets'}");
    assert!(sets.contains(r#""opaque": "log"}], "fdset-id": 3}]"#), "{sets}");
    client.say("{'execute': 'cont'}");
    client.hears("RESUME");
    assert!(log.metadata().unwrap().len() > 0, "the log is written to it");
}
