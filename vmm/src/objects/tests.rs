//! Sources of random bytes, on a loop.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use devices::chardev::{Address, Backend, Chardev, Socket};
use devices::class::FindChardev;
use resources::iol::{Either, Loop, Thread, race};

use super::*;
use crate::chardevs::Chardevs;

fn objects(class: &str, given: &[(&str, &str)], chardevs: &FindChardev) -> Objects {
    let mut objects = Objects::default();
    let class = find(class).unwrap();
    objects.add(class, "r", given.iter().copied(), chardevs).unwrap();
    objects
}

fn source(class: &str, given: &[(&str, &str)]) -> Arc<dyn Entropy> {
    objects(class, given, &Chardevs::default().finder()).rng("r").unwrap()
}

#[test]
fn the_host_s_generator() {
    let mut on = Loop::new("test").unwrap();
    let local = on.local().clone();
    for class in ["rng-builtin", "rng-random"] {
        let source = source(class, &[]);
        on.run(async {
            assert_eq!(source.read(&local, 16).await.unwrap().len(), 16);
            assert!(source.read(&local, 0).await.unwrap().is_empty());
            let many = source.read(&local, usize::MAX).await.unwrap().len();
            assert!((1..=devices::entropy::MAX_READ).contains(&many), "{many}");
        });
    }
}

#[test]
fn a_file_ends_and_a_pipe_is_waited_for() {
    let path = std::env::temp_dir().join(format!("rng-test-{}", std::process::id()));
    std::fs::write(&path, b"abc").unwrap();
    let mut on = Loop::new("test").unwrap();
    let local = on.local().clone();
    let file = source("rng-random", &[("filename", path.to_str().unwrap())]);
    on.run(async {
        assert_eq!(file.read(&local, 2).await.unwrap(), b"ab");
        assert_eq!(file.read(&local, 2).await.unwrap(), b"c");
        assert!(file.read(&local, 2).await.is_err());
    });
    std::fs::remove_file(&path).unwrap();
    let (read, mut write) = std::io::pipe().unwrap();
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&read));
    let pipe = source("rng-random", &[("filename", &name)]);
    on.run(async {
        let soon = local.sleep(Duration::from_millis(5));
        assert!(matches!(race(pipe.read(&local, 4), soon).await, Either::Right(())));
        let both = async {
            local.yield_now().await;
            write.write_all(b"late").unwrap();
            std::future::pending::<()>().await;
        };
        let Either::Left(got) = race(pipe.read(&local, 8), both).await else { unreachable!() };
        assert_eq!(got.unwrap(), b"late");
    });
}

#[test]
fn a_daemon_is_asked_and_asked_again_when_it_comes_back() {
    let path = std::env::temp_dir().join(format!("egd-test-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let (_io, io) = Thread::spawn("io").unwrap();
    let socket = Socket {
        address: Address::Unix(path.clone()),
        server: false,
        wait: false,
        nodelay: false,
        telnet: false,
        reconnect: Duration::from_millis(1),
    };
    let chardev = Chardev::open("c", Backend::Socket(socket), &io).unwrap();
    let found = chardev.clone();
    let chardevs: FindChardev = Arc::new(move |id| (id == "c").then(|| Ok(found.clone())));
    let mut objects = objects("rng-egd", &[("chardev", "c")], &chardevs);
    let source = objects.rng("r").unwrap();
    let daemon = std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let mut request = [0; 2];
        first.read_exact(&mut request).unwrap();
        assert_eq!(request, [2, 3]);
        // Part of an answer, and then the end.
        first.write_all(b"x").unwrap();
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        second.read_exact(&mut request).unwrap();
        assert_eq!(request, [2, 3]);
        second.write_all(b"abc").unwrap();
        second.read_exact(&mut request).unwrap();
        assert_eq!(request, [2, 255]);
        second.write_all(&[7; 255]).unwrap();
        second
    });
    let mut on = Loop::new("test").unwrap();
    let local = on.local().clone();
    on.run(async {
        assert_eq!(source.read(&local, 3).await.unwrap(), b"abc");
        assert_eq!(source.read(&local, 4000).await.unwrap(), [7; 255]);
        assert!(source.read(&local, 0).await.unwrap().is_empty());
    });
    drop(daemon.join().unwrap());
    std::fs::remove_file(&path).unwrap();
    assert!(chardev.is_used());
    assert!(matches!(objects.remove("r"), Err(ObjectError::InUse(_))));
    drop(source);
    objects.remove("r").unwrap();
    assert!(!chardev.is_used());
}
