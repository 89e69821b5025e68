use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use resources::tls::AnyClient;

use super::*;
use crate::channel::{Canceller, Listener, is_cancelled};
use crate::road::{Gate, HANDSHAKE, Road};
use crate::uri::Uri;

/// A directory of credentials for both ends, that goes away.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A directory of those that `signs` has signed and that believe those of `believed`.
fn directory(
    name: &str,
    signs: &CertifiedIssuer<'static, KeyPair>,
    believed: &CertifiedIssuer<'static, KeyPair>,
) -> Directory {
    let path = std::env::temp_dir().join(format!("vmm-tls-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    let write = |name: &str, text: String| fs::write(path.join(name), text).unwrap();
    write("ca-cert.pem", believed.pem());
    for end in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let names = vec!["there.example".to_owned(), "10.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, signs).unwrap();
        write(&format!("{end}-cert.pem"), certificate.pem());
        write(&format!("{end}-key.pem"), key.serialize_pem());
    }
    Directory(path)
}

/// Both ends of a connection, as far as they come.
fn meet(client: &AnyClient, name: &str, server: &Server) -> (io::Result<Tls>, io::Result<Tls>) {
    let canceller = Canceller::new().unwrap();
    let (a, b) = UnixStream::pair().unwrap();
    let a = Channel::new(a.into(), &canceller).unwrap();
    let b = Channel::new(b.into(), &canceller).unwrap();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let mut tls = accept(server, b)?;
            tls.write_all(b"welcome")?;
            tls.flush()?;
            Ok(tls)
        });
        // A client is done before it knows whether it was believed.
        let connected = connect(&client.to(name).unwrap(), a).and_then(|mut tls| {
            tls.read_exact(&mut [0; 7])?;
            Ok(tls)
        });
        (connected, accepted.join().unwrap())
    })
}

#[test]
fn a_stream_goes_both_ways_and_ends() {
    let authority = authority();
    let files = directory("ways", &authority, &authority);
    let (client, server) =
        (AnyClient::new(&files.0).unwrap(), Server::new(&files.0, true).unwrap());
    for name in ["there.example", "10.0.0.1"] {
        let (a, b) = meet(&client, name, &server);
        let (mut a, mut b) = (a.unwrap(), b.unwrap());
        let sent: Vec<u8> = (0..2 << 20).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                a.write_all(&sent).unwrap();
                assert!(a.two_way());
                a.finish().unwrap();
                let mut answer = String::new();
                a.read_to_string(&mut answer).unwrap();
                assert_eq!(answer, "loaded");
                assert!(a.sent() == 0);
            });
            let mut received = Vec::new();
            b.read_to_end(&mut received).unwrap();
            assert!(received == sent);
            b.write_all(b"loaded").unwrap();
            b.finish().unwrap();
        });
    }
}

#[test]
fn half_a_record_is_nothing_to_read() {
    let authority = authority();
    let files = directory("half", &authority, &authority);
    let (client, server) =
        (AnyClient::new(&files.0).unwrap(), Server::new(&files.0, true).unwrap());
    let (a, b) = meet(&client, "there.example", &server);
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    let mut record = Vec::new();
    a.writer.connection.lock().writer().write_all(b"whole").unwrap();
    a.writer.connection.lock().write_tls(&mut record).unwrap();
    let soon = Some(Duration::from_millis(20));
    let half = record.len() / 2;
    for (part, whole) in [(&record[..half], false), (&record[half..], true)] {
        let output = a.writer.output.as_mut().unwrap();
        output.write_all(part).unwrap();
        output.flush().unwrap();
        assert!(b.wait(&[], soon).unwrap() == whole && b.wait(&[], soon).unwrap() == whole);
    }
    let mut bytes = [0; 5];
    b.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"whole");
    assert!(!b.wait(&[], soon).unwrap());
    // An end can be read, be it a good one or not.
    a.finish().unwrap();
    assert!(b.wait(&[], None).unwrap() && b.read(&mut bytes).unwrap() == 0);
    drop(b);
    assert!(a.wait(&[], None).unwrap());
    a.read(&mut bytes).unwrap_err();
}

#[test]
fn others_are_not_believed() {
    let (ours, theirs) = (authority(), authority());
    let files = directory("ours", &ours, &ours);
    let (client, server) =
        (AnyClient::new(&files.0).unwrap(), Server::new(&files.0, true).unwrap());
    let error = |result: io::Result<Tls>| result.unwrap_err().to_string();
    // A server that another of the same name has signed, and one of another name.
    let files = directory("theirs", &theirs, &ours);
    let (a, _) = meet(&client, "there.example", &Server::new(&files.0, true).unwrap());
    assert_eq!(error(a), "invalid peer certificate: BadSignature");
    let (a, _) = meet(&client, "here.example", &server);
    assert!(error(a).starts_with("invalid peer certificate: certificate not valid for name"));
    // A client that another has signed, and one that shows nothing.
    let other = AnyClient::new(&files.0).unwrap();
    let (a, b) = meet(&other, "there.example", &server);
    assert_eq!(error(b), "invalid peer certificate: BadSignature");
    assert!(a.is_err());
    fs::remove_file(files.0.join("client-cert.pem")).unwrap();
    let nobody = AnyClient::new(&files.0).unwrap();
    let (a, b) = meet(&nobody, "there.example", &server);
    assert_eq!(error(b), "peer sent no certificates");
    assert!(a.is_err());
    // Who asks nobody is told nothing.
    let files = directory("open", &ours, &ours);
    let (a, b) = meet(&nobody, "there.example", &Server::new(&files.0, false).unwrap());
    assert!(a.is_ok() && b.is_ok());
}

#[test]
fn peers_that_speak_no_tls_or_nothing_do_no_harm() {
    let authority = authority();
    let files = directory("harm", &authority, &authority);
    let server = Server::new(&files.0, true).unwrap();
    let canceller = Canceller::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    b.write_all(b"QEVM\0\0\0\x03 and more that is no TLS").unwrap();
    let error = accept(&server, Channel::new(a.into(), &canceller).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let (a, b) = UnixStream::pair().unwrap();
    drop(b);
    let error = accept(&server, Channel::new(a.into(), &canceller).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    let (a, _b) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        let channel = Channel::new(a.into(), &canceller).unwrap();
        let waiting = scope.spawn(|| accept(&server, channel).unwrap_err());
        canceller.cancel();
        assert!(is_cancelled(&waiting.join().unwrap()));
    });
}

#[test]
fn a_stream_that_is_cut_off_has_not_ended() {
    let authority = authority();
    let files = directory("cut", &authority, &authority);
    let (client, server) =
        (AnyClient::new(&files.0).unwrap(), Server::new(&files.0, true).unwrap());
    let (a, b) = meet(&client, "there.example", &server);
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    a.write_all(b"half").unwrap();
    a.flush().unwrap();
    drop(a);
    b.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(b.read(&mut [0]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    // The first write after that seems to go well.
    let _ = b.write(b"lost");
    b.flush().unwrap_err();
}

#[test]
fn credentials_that_are_none_are_named() {
    let nowhere = AnyClient::new("/nowhere/at/all".as_ref()).unwrap_err();
    assert!(nowhere.0.starts_with("TLS credentials /nowhere/at/all/ca-cert.pem: "), "{nowhere}");
    let authority = authority();
    let files = directory("none", &authority, &authority);
    fs::write(files.0.join("server-key.pem"), "no key").unwrap();
    let error = Server::new(&files.0, true).unwrap_err();
    assert!(error.0.contains("/server-key.pem: "), "{error}");
    fs::write(files.0.join("ca-cert.pem"), "").unwrap();
    let error = Server::new(&files.0, true).unwrap_err();
    assert!(error.0.ends_with("/ca-cert.pem: there is nothing of use in it"), "{error}");
}

#[test]
fn who_says_nothing_keeps_nobody_out() {
    let authority = authority();
    let files = directory("gate", &authority, &authority);
    let client = AnyClient::new(&files.0).unwrap();
    let server = Server::new(&files.0, true).unwrap();
    let canceller = Canceller::new().unwrap();
    let socket = files.0.join("socket").to_str().unwrap().to_owned();
    let uri = Uri::incoming(&format!("unix:{socket}")).unwrap();
    let nothing = |_: &str| Err(crate::Error::new("there is none"));
    let listener = Listener::start(&uri, nothing).unwrap();
    let mut gate = Gate::new(listener, &canceller, Some(server));
    let mut strangers: Vec<_> = (0..4).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    strangers[1].write_all(b"QEVM").unwrap();
    let way = Some((client, Some("there.example".to_owned())));
    let road = Road::new(Uri::outgoing(&format!("unix:{socket}")).unwrap(), &canceller, way);
    thread::scope(|scope| {
        scope.spawn(|| road.unwrap().again().unwrap().write_all(b"guest").unwrap());
        let began = Instant::now();
        gate.first().unwrap();
        // One stranger after the other would take this long.
        assert!(began.elapsed() < 4 * HANDSHAKE, "{:?}", began.elapsed());
    });
    // Nobody hears the others any more.
    for stranger in &mut strangers {
        stranger.set_read_timeout(Some(HANDSHAKE / 2)).unwrap();
        while stranger.read(&mut [0; 64]).unwrap() > 0 {}
    }
}

#[test]
fn one_who_never_gets_through_is_turned_away() {
    let authority = authority();
    let files = directory("slow", &authority, &authority);
    let server = Server::new(&files.0, true).unwrap();
    let canceller = Canceller::new().unwrap();
    let socket = files.0.join("socket").to_str().unwrap().to_owned();
    let uri = Uri::incoming(&format!("unix:{socket}")).unwrap();
    let nothing = |_: &str| Err(crate::Error::new("there is none"));
    let mut gate = Gate::new(Listener::start(&uri, nothing).unwrap(), &canceller, Some(server));
    let mut stranger = UnixStream::connect(&socket).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| gate.first().map(drop).unwrap_err());
        // A record of TLS, byte by byte.
        let record = [&[0x16, 3, 1, 0x3f, 0xff][..], &[1; 4096]].concat();
        let sent = record.iter().position(|byte| {
            thread::sleep(Duration::from_millis(20));
            stranger.write_all(&[*byte]).is_err()
        });
        canceller.cancel();
        assert!(sent.is_some());
    });
}
