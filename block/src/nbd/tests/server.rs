//! What the server promises its clients.

use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::nbd::address::{Address, Target};
use crate::nbd::server::Bitmap;

fn number<T: std::fmt::Debug>(done: io::Result<T>) -> i32 {
    done.unwrap_err().raw_os_error().unwrap()
}

fn read_only() -> Options {
    Options { read_only: true, ..Options::default() }
}

#[test]
fn errors_travel_as_numbers() {
    run(|local| async move {
        let node = Faulty::new(&local, 4096);
        let server = serving(&local, node.clone());
        let client = client(&local, &server, "", Options::default()).await;
        for (fails, seen) in [
            (libc::ENOSPC, libc::ENOSPC),
            (libc::EDQUOT, libc::ENOSPC),
            (libc::EIO, libc::EIO),
            (libc::ENODEV, libc::EIO),
            (libc::EROFS, libc::EPERM),
        ] {
            node.fails.set(Some(fails));
            assert_eq!(number(client.write(0, IoBuf::zeroed(9), false).await), seen);
            assert_eq!(number(bytes(&*client, 0, 9).await), seen);
            assert_eq!(number(client.map(0, 9).await), seen);
            assert_eq!(number(client.flush().await), seen);
        }
        node.fails.set(None);
        client.write(0, IoBuf::zeroed(9), false).await.unwrap();
    });
}

#[test]
fn a_read_only_export_is_not_written() {
    run(|local| async move {
        let server = Server::new(9);
        let node = Faulty::new(&local, 4096);
        server.add(export(&local, "r", node.clone()).writable(false)).unwrap();
        let (ours, theirs) = pair();
        server.serve(&local, theirs, Arc::new(|| {}));
        let refused = client::open_socket(&local, ours, "r", Options::default()).await;
        assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::PermissionDenied);
        let client = client(&local, &server, "r", read_only()).await;
        assert_eq!(number(client.write(0, IoBuf::zeroed(1), false).await), libc::EACCES);
        assert_eq!(number(client.reopen(false).await), libc::EACCES);
        assert!(client.info().read_only);
        assert_eq!(bytes(&*client, 0, 4).await.unwrap(), [0; 4]);
    });
}

#[test]
fn exports_have_names() {
    run(|local| async move {
        let server = Server::new(9);
        let node = Faulty::new(&local, 4096);
        server.add(export(&local, "a", node.clone())).unwrap();
        server.add(export(&local, "b", node.clone()).description(Some("B".into()))).unwrap();
        assert!(server.add(export(&local, "a", node)).is_err());
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let path = dir.as_path().join("s").to_str().unwrap().to_owned();
        let address = Address::Unix(path);
        let listener = address.listen(None, |_| true).unwrap();
        let listening = server.clone();
        let task = local.spawn({
            let local = local.clone();
            async move { listening.listen(&local, listener.fd, || {}).await }
        });
        let all = client::list(&local, &address, None).await.unwrap();
        let names: Vec<_> = all.iter().map(|e| (&e.name[..], e.description.as_deref())).collect();
        assert_eq!(names, [("a", None), ("b", Some("B"))]);
        assert_eq!((all[0].size, all[0].block_size), (4096, Some((1, 4096, 32 << 20))));
        assert_eq!(all[1].contexts, [(0, "base:allocation".to_owned())]);
        let target = |export: &str| Target { address: address.clone(), export: export.into() };
        let error = client::open(&local, target("c"), Options::default()).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "export 'c': Requested export not available \
             (server reported: export 'c' is not present)"
        );
        let client = client::open(&local, target("b"), Options::default()).await.unwrap();
        assert!(server.remove("b") && !server.remove("b"));
        assert_eq!(number(bytes(&*client, 0, 1).await), libc::EIO);
        server.stop();
        task.await.unwrap();
        let error = client::open(&local, target("a"), Options::default()).await.err().unwrap();
        assert!(error.to_string().starts_with("Failed to connect to '"), "{error}");
    });
}

#[test]
fn requests_wait_for_a_lost_connection() {
    run(|local| async move {
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let address = Address::Unix(dir.as_path().join("s").to_str().unwrap().to_owned());
        let node = Faulty::new(&local, 4096);
        let serve = || {
            let server = serving(&local, node.clone());
            let (listening, local2) = (server.clone(), local.clone());
            let fd = address.listen(None, |_| true).unwrap().fd;
            local.spawn(async move { listening.listen(&local2, fd, || {}).await }).detach();
            server
        };
        let server = serve();
        let options = Options { reconnect_delay: Duration::from_secs(60), ..Options::default() };
        let target = Target { address: address.clone(), export: String::new() };
        let client = client::open(&local, target, options).await.unwrap();
        node.holds.set(true);
        let write = local.spawn({
            let client = client.clone();
            async move { client.write(100, IoBuf::copy_of(b"once"), false).await }
        });
        while node.under_way.get() == 0 {
            local.yield_now().await;
        }
        server.stop();
        let again = serve();
        node.holds.set(false);
        write.await.unwrap();
        assert_eq!(bytes(&*client, 100, 4).await.unwrap(), b"once");
        assert_eq!(again.clients(), (1, 1));
    });
}

struct Stripes;

impl Bitmap for Stripes {
    fn extent(&self, offset: u64, len: u64) -> (bool, u64) {
        (offset / 1024 % 2 == 1, (1024 - offset % 1024).min(len))
    }
}

#[test]
fn bitmaps_are_contexts() {
    run(|local| async move {
        let server = Server::new(9);
        let node = Faulty::new(&local, 4096);
        let with = export(&local, "", node).bitmap("b0", |_| Some(Rc::new(Stripes)));
        server.add(with).unwrap();
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let address = Address::Unix(dir.as_path().join("s").to_str().unwrap().to_owned());
        let fd = address.listen(None, |_| true).unwrap().fd;
        let (listening, local2) = (server.clone(), local.clone());
        local.spawn(async move { listening.listen(&local2, fd, || {}).await }).detach();
        let all = client::list(&local, &address, None).await.unwrap();
        let contexts: Vec<_> = all[0].contexts.iter().map(|(_, name)| &name[..]).collect();
        assert_eq!(contexts, ["base:allocation", "qemu:dirty-bitmap:b0"]);
    });
}

#[test]
fn a_full_server_lets_clients_wait() {
    run(|local| async move {
        let server = Server::new(1);
        server.add(export(&local, "", Faulty::new(&local, 4096))).unwrap();
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let address = Address::Unix(dir.as_path().join("s").to_str().unwrap().to_owned());
        let fd = address.listen(None, |_| true).unwrap().fd;
        let (listening, local2) = (server.clone(), local.clone());
        local.spawn(async move { listening.listen(&local2, fd, || {}).await }).detach();
        let open = || {
            let target = Target { address: address.clone(), export: String::new() };
            let local = local.clone();
            async move { client::open(&local, target, Options::default()).await.unwrap() }
        };
        let first = open().await;
        let second = local.spawn(open());
        for _ in 0..100 {
            local.yield_now().await;
        }
        assert_eq!(server.clients(), (1, 1));
        first.close().await.unwrap();
        bytes(&*second.await, 0, 1).await.unwrap();
    });
}

#[test]
fn names_and_options_open_exports() {
    run(|local| async move {
        let server = Server::new(9);
        let node = Faulty::new(&local, 4096);
        node.write(0, IoBuf::copy_of(b"there"), false).await.unwrap();
        server.add(export(&local, "x", node)).unwrap();
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let path = dir.as_path().join("s").to_str().unwrap().to_owned();
        let fd = Address::Unix(path.clone()).listen(None, |_| true).unwrap().fd;
        let (listening, local2) = (server.clone(), local.clone());
        local.spawn(async move { listening.listen(&local2, fd, || {}).await }).detach();
        for name in [
            format!("nbd:unix:{path}:exportname=x"),
            format!("nbd+unix:///x?socket={path}"),
            format!(
                r#"json:{{"driver":"raw","file":{{"driver":"nbd","path":"{path}","export":"x",
                    "reconnect-delay":3}}}}"#
            ),
            format!(
                r#"json:{{"driver":"nbd","server":{{"type":"unix","path":"{path}"}},"export":"x"}}"#
            ),
        ] {
            let node = crate::open(&local, &crate::Spec::file(&name, None)).await.unwrap();
            assert_eq!(bytes(&*node, 0, 5).await.unwrap(), b"there");
            assert_eq!(crate::name::of(&*node), format!("nbd+unix:///x?socket={path}"));
            node.close().await.unwrap();
        }
        for (name, text) in [
            ("nbds://localhost".to_owned(), "TLS is not supported for NBD"),
            ("nbd:localhost".to_owned(), "the port is missing in 'localhost'"),
            (
                r#"json:{"driver":"nbd","path":"/a","host":"b"}"#.to_owned(),
                "path and host may not be used at the same time.",
            ),
            (
                r#"json:{"driver":"nbd","path":"/a","tls-creds":"b"}"#.to_owned(),
                "No TLS credentials with id 'b'",
            ),
            (
                "nbd:unix:/nonexistent/s".to_owned(),
                "Failed to connect to '/nonexistent/s': No such file or directory",
            ),
        ] {
            let error = crate::open(&local, &crate::Spec::file(&name, None)).await.err().unwrap();
            assert_eq!(error.to_string(), text, "{name}");
        }
    });
}

/// What the server has accepted is done where the disk is then.
#[test]
fn requests_move_with_their_disk() {
    run(|local| async move {
        let node = Faulty::new(&local, 1 << 20);
        let (old, new) = (Disk::alone(Memory::new(vec![0; 1 << 20], 1 << 20)), Disk::alone(node));
        let place = Arc::new(Mutex::new(Arc::new(local.keep(old.clone()))));
        let server = Server::new(9);
        let export = Export::new("", 1 << 20, {
            let place = place.clone();
            move || Some(place.lock().clone())
        });
        server.add(export.writable(true)).unwrap();
        let client = client(&local, &server, "", Options::default()).await;
        let held = old.drain().await;
        // More than a server listens to at once, and more than it reads ahead.
        let writes: Vec<_> = (0..40u64)
            .map(|index| {
                let client = client.clone();
                let buf = IoBuf::zeroed(20_000);
                buf.fill(index as u8 + 1);
                local.spawn(async move { client.write(index * 20_000, buf, false).await })
            })
            .collect();
        let flush = local.spawn({
            let client = client.clone();
            async move { client.flush().await }
        });
        while old.waiting() < crate::nbd::server::IN_FLIGHT {
            local.yield_now().await;
        }
        *place.lock() = Arc::new(local.keep(new.clone()));
        old.retire();
        drop(held);
        for write in writes {
            write.await.unwrap();
        }
        flush.await.unwrap();
        for index in 0..40 {
            let seen = bytes(&*client, index * 20_000, 20_000).await.unwrap();
            assert!(seen.iter().all(|byte| *byte == index as u8 + 1), "{index}");
        }
    });
}
