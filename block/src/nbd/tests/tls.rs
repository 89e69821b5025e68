//! Connections within TLS.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use resources::tls;
use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::nbd::wire::{Bytes, option, option_head, reply};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A directory of credentials for both ends, which are called `there.example`.
fn directory(authority: &CertifiedIssuer<'static, KeyPair>) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.as_path().to_path_buf();
    let write = |name: &str, text: String| std::fs::write(path.join(name), text).unwrap();
    write("ca-cert.pem", authority.pem());
    for end in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["there.example".to_owned()]).unwrap();
        write(&format!("{end}-cert.pem"), params.signed_by(&key, authority).unwrap().pem());
        write(&format!("{end}-key.pem"), key.serialize_pem());
    }
    (dir, path)
}

async fn opened(
    local: &Local,
    server: &Server,
    tls: Option<tls::Client>,
) -> io::Result<Rc<Client>> {
    let (ours, theirs) = pair();
    server.serve(local, theirs, Arc::new(|| {}));
    client::open_socket(local, ours, "", Options { tls, ..Options::default() }).await
}

#[test]
fn all_of_it_goes_within_tls() {
    let authority = authority();
    let (_dir, path) = directory(&authority);
    run(|local| async move {
        let node = Faulty::new(&local, 4 << 20);
        let server = Server::with_tls(9, Some(tls::Server::new(&path, true).unwrap()));
        server.add(export(&local, "", node.clone())).unwrap();
        let credentials = tls::Client::new(&path, "there.example").unwrap();
        let client = opened(&local, &server, Some(credentials.clone())).await.unwrap();
        let data: Vec<u8> = (0..3_000_000u32).map(|at| (at >> 5) as u8).collect();
        let writes: Vec<_> = data
            .chunks(100_000)
            .enumerate()
            .map(|(index, part)| {
                let (client, buf) = (client.clone(), IoBuf::copy_of(part));
                let at = index as u64 * 100_000;
                local.spawn(async move { client.write(at, buf, false).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap();
        }
        assert!(bytes(&*client, 0, data.len()).await.unwrap() == data);
        assert!(node.memory.bytes()[..data.len()] == data);
        client.close().await.unwrap();
        drop(client);
        while server.clients().0 > 0 {
            local.sleep(Duration::from_millis(1)).await;
        }
        // The server ends a client.
        let client = opened(&local, &server, Some(credentials)).await.unwrap();
        server.stop();
        bytes(&*client, 0, 1).await.unwrap_err();
    });
}

#[test]
fn nobody_is_served_who_is_not_believed() {
    let (ours, others) = (authority(), authority());
    let ((_a, path), (_b, strange)) = (directory(&ours), directory(&others));
    run(|local| async move {
        let server = Server::with_tls(9, Some(tls::Server::new(&path, true).unwrap()));
        server.add(export(&local, "", Faulty::new(&local, 4096))).unwrap();
        let refused = async |tls: Option<tls::Client>, server: &Server| {
            opened(&local, server, tls).await.err().unwrap().to_string()
        };
        assert!(refused(None, &server).await.contains("Server requires TLS"));
        let wrong = tls::Client::new(&path, "elsewhere.example").unwrap();
        assert!(refused(Some(wrong), &server).await.contains("not valid for name"));
        let wrong = tls::Client::new(&strange, "there.example").unwrap();
        assert!(refused(Some(wrong), &server).await.contains("invalid peer certificate"));
        // A client without a certificate that is believed.
        std::fs::copy(path.join("ca-cert.pem"), strange.join("ca-cert.pem")).unwrap();
        let wrong = tls::Client::new(&strange, "there.example").unwrap();
        refused(Some(wrong), &server).await;
        assert_eq!(server.clients().1, 0);
        while server.clients().0 > 0 {
            local.sleep(Duration::from_millis(1)).await;
        }
        let plain = serving(&local, Faulty::new(&local, 4096));
        let right = tls::Client::new(&path, "there.example").unwrap();
        assert!(refused(Some(right), &plain).await.contains("Server does not allow it"));
        server.stop();
    });
}

/// What the server answers to an option, and to what is said right behind it.
#[test]
fn nothing_is_answered_before_tls() {
    let authority = authority();
    let (_dir, path) = directory(&authority);
    run(|local| async move {
        let server = Server::with_tls(9, Some(tls::Server::new(&path, true).unwrap()));
        server.add(export(&local, "", Faulty::new(&local, 4096))).unwrap();
        let go = option_head(option::GO, 6).u32(0).u16(0).0;
        let start = option_head(option::STARTTLS, 0).0;
        for (said, answers) in [
            (option_head(option::LIST, 0).0, vec![reply::TLS_REQD]),
            ([go.clone(), start.clone()].concat(), vec![reply::TLS_REQD, reply::ACK]),
            // What is not within TLS is never taken for what is.
            ([start, go].concat(), vec![reply::ACK]),
        ] {
            let (ours, theirs) = pair();
            server.serve(&local, theirs, Arc::new(|| {}));
            let mut ours = UnixStream::from(ours);
            ours.write_all(&[Bytes::default().u32(3).0, said].concat()).unwrap();
            ours.shutdown(std::net::Shutdown::Write).unwrap();
            while server.clients().0 > 0 {
                local.sleep(Duration::from_millis(1)).await;
            }
            let mut all = Vec::new();
            ours.read_to_end(&mut all).unwrap();
            let (mut at, mut seen) = (18, Vec::new());
            while let Some(head) = all.get(at..at + 20).filter(|_| seen.len() < answers.len()) {
                let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
                seen.push(number(12));
                at += 20 + number(16) as usize;
            }
            assert_eq!(seen, answers);
        }
        server.stop();
    });
}
