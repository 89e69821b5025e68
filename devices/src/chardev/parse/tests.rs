use proptest::prelude::*;

use super::*;

fn device(text: &str) -> Device {
    parse_device("-serial", text, false).unwrap()
}

fn backend(text: &str) -> Backend {
    match device(text) {
        Device::New { backend, monitor: false } => backend,
        other => panic!("{other:?}"),
    }
}

fn unix(path: &str) -> Address {
    Address::Unix(PathBuf::from(path))
}

fn inet(host: &str, port: u16) -> Address {
    Address::Inet(Inet { host: host.to_owned(), port, ..Inet::default() })
}

fn options(text: &str) -> Result<Options, CharError> {
    let pairs: Vec<_> = split_commas(text)
        .iter()
        .enumerate()
        .map(|(i, part)| match part.split_once('=') {
            Some((key, value)) => pair(key, value),
            None if i == 0 => pair("backend", part),
            None => pair(part, "on"),
        })
        .collect();
    parse_options(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

#[test]
fn device_strings() {
    assert_eq!(device("none"), Device::None);
    assert_eq!(device("chardev:x"), Device::Chardev("x".to_owned()));
    assert_eq!(backend("null"), Backend::Null(Null));
    assert_eq!(backend("pty"), Backend::Pty(Pty));
    assert_eq!(backend("stdio"), Backend::Stdio(Stdio { signal: true }));
    assert_eq!(
        device("mon:stdio"),
        Device::New { backend: Backend::Stdio(Stdio { signal: false }), monitor: true }
    );
    let file = File { path: PathBuf::from("/tmp/a,b"), append: false, input: None };
    assert_eq!(backend("file:/tmp/a,b"), Backend::File(file));
    assert_eq!(backend("unix:/x"), Backend::Socket(Socket::to(unix("/x"))));
    let server = Socket { server: true, ..Socket::to(unix("/x,y")) };
    assert_eq!(backend("unix:/x,,y,server"), Backend::Socket(server.clone()));
    assert_eq!(backend("unix:/x,,y,server=on,wait=on"), Backend::Socket(server.clone()));
    let nowait = Backend::Socket(Socket { wait: false, ..server });
    assert_eq!(backend("unix:/x,,y,server,nowait"), nowait);
    assert_eq!(backend("unix:/x,,y,server=on,wait=off"), nowait);
    assert_eq!(backend("tcp::44"), Backend::Socket(Socket::to(inet("", 44))));
    let tcp = Socket { nodelay: true, ..Socket::to(inet("::1", 5)) };
    assert_eq!(backend("tcp:[::1]:5,nodelay"), Backend::Socket(tcp.clone()));
    assert_eq!(backend("tcp:::1:5,delay=off"), Backend::Socket(tcp));
    let telnet = Socket { telnet: true, ..Socket::at(inet("h", 5)) };
    assert_eq!(backend("telnet:h:5,server,nowait"), Backend::Socket(telnet));
}

#[test]
fn monitors_listen_without_waiting() {
    let parse = |text| parse_device("-qmp", text, true).unwrap();
    let new = |s| Device::New { backend: Backend::Socket(s), monitor: false };
    assert_eq!(parse("unix:/x"), new(Socket::at(unix("/x"))));
    assert_eq!(parse("tcp:localhost:1"), new(Socket::at(inet("localhost", 1))));
    assert_eq!(parse("unix:/x,server=off"), new(Socket::to(unix("/x"))));
    assert_eq!(parse("unix:/x,server,nowait"), new(Socket::at(unix("/x"))));
    let waits = Socket { wait: true, ..Socket::at(unix("/x")) };
    assert_eq!(parse("unix:/x,wait=on"), new(waits));
}

#[test]
fn chardev_options() {
    let parsed = options("socket,id=a,host=h,port=1,to=3,ipv4,server=on,wait=off,mux=on");
    let address = Address::Inet(Inet {
        host: "h".to_owned(),
        port: 1,
        to: Some(3),
        ipv4: Some(true),
        ipv6: None,
    });
    let backend = Backend::Socket(Socket::at(address));
    assert_eq!(parsed.unwrap(), Options { id: "a".to_owned(), backend, mux: true });
    let parsed = options("socket,id=a,path=/x,reconnect=2").unwrap();
    let socket = Socket { reconnect: Duration::from_secs(2), ..Socket::to(unix("/x")) };
    assert_eq!(parsed.backend, Backend::Socket(socket));
    let parsed = options("file,id=a,path=p,append=on,input-path=q").unwrap();
    let file = File { path: PathBuf::from("p"), append: true, input: Some(PathBuf::from("q")) };
    assert_eq!(parsed.backend, Backend::File(file));
    let parsed = options("stdio,id=a,signal=off").unwrap();
    assert_eq!(parsed.backend, Backend::Stdio(Stdio { signal: false }));
}

#[test]
fn errors_name_the_option_and_the_nearest() {
    for (text, says) in [
        ("socket,path=/x", "chardev: no id specified"),
        ("null,id=1x", "chardev: Parameter 'id' expects an identifier, not '1x'"),
        ("id=a,mux=on", "chardev: \"a\" missing backend"),
        ("sockt,id=a", "chardev: backend \"sockt\" not found; did you mean 'socket'?"),
        (
            "socket,id=a,pth=/x",
            "chardev 'a': socket has no option 'pth' (given '/x'); did you mean 'path'?",
        ),
        (
            "socket,id=a,path=/x,server=maybe",
            "chardev 'a': Parameter 'server' expects 'on' or 'off', not 'maybe'",
        ),
        ("socket,id=a,host=h", "chardev 'a': host and/or port not specified"),
        ("socket,id=a,path=/x,port=1", "chardev 'a': 'path' and 'port' do not go together"),
        ("socket,id=a,port=65536", "chardev 'a': 'port' expects a port up to 65535, not '65536'"),
        (
            "socket,id=a,path=/x,reconnect=1,server",
            "chardev 'a': 'reconnect' is for a client: it needs 'server=off'",
        ),
        ("file,id=a", "chardev: file: no filename given"),
    ] {
        assert_eq!(options(text).unwrap_err().to_string(), says, "{text}");
    }
    for (text, says) in [
        ("stdoi", "-serial: 'stdoi' is not a device; did you mean 'stdio'?"),
        ("tcp:80", "-serial tcp:80: '80' is not [HOST]:PORT"),
        ("unix:", "-serial unix:: 'path' expects the path of a socket, not ''"),
    ] {
        assert_eq!(parse_device("-serial", text, false).unwrap_err().to_string(), says);
    }
    let far = parse_device("-serial", "qqqqqqqq", false).unwrap_err().to_string();
    assert!(far.contains("there is none, null, stdio"), "{far}");
}

proptest! {
    #[test]
    fn any_device_string_is_survived(text in "(mon:)?(unix|tcp|telnet|file)?:?[ -~]{0,40}") {
        let _ = parse_device("-serial", &text, true);
        let _ = options(&text);
    }
}
