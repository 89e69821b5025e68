//! Peers that lie, stall and vanish.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::nbd::wire::{
    Bytes, CHUNK_LEN, Chunk, INIT_MAGIC, OPTION_MAGIC, Request, chunk, command, flag, info, option,
    option_head, option_reply, reply, simple_reply,
};

/// What a client says that goes straight to the export without a name.
fn greeting(structured: bool) -> Vec<u8> {
    let mut all = Bytes::default().u32(3).0;
    if structured {
        all.extend(option_head(option::STRUCTURED_REPLY, 0).0);
    }
    all.extend(option_head(option::GO, 6).u32(0).u16(0).0);
    all
}

fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
    Request { flags: 0, command, cookie: 7, offset, length }.bytes()
}

/// Says something to a server with one small export, and then that it says no more; all that the
/// server answers.
fn says(bytes: &[u8]) -> Vec<u8> {
    run(|local| async move {
        let server = serving(&local, Faulty::new(&local, 4096));
        let (ours, theirs) = pair();
        let gone = resources::iol::Notify::new();
        let tell = gone.clone();
        server.serve(&local, theirs, Arc::new(move || tell.notify()));
        let mut ours = UnixStream::from(ours);
        ours.write_all(bytes).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        gone.notified().await;
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).unwrap();
        assert_eq!(server.clients().0, 0);
        answer
    })
}

/// Bytes of the server's greeting, and of its answers to [`greeting`] without structured replies.
const HELLO: usize = 18;
const AGREED: usize = HELLO + (20 + 12) + 20;

#[test]
fn nonsense_ends_the_client() {
    assert_eq!(says(b"").len(), HELLO);
    assert_eq!(says(b"GET / HTTP/1.0\r\n\r\n").len(), HELLO);
    // An option that would take 4 GiB, and one that is cut short.
    let huge = Bytes::default().u32(3).u64(OPTION_MAGIC).u32(option::GO).u32(u32::MAX);
    assert_eq!(says(&huge.0).len(), HELLO);
    let short = Bytes::default().u32(3).u64(OPTION_MAGIC).u32(option::GO).u32(100).raw(b"x");
    assert_eq!(says(&short.0).len(), HELLO);
    // No request where one should be.
    assert_eq!(says(&[greeting(false), vec![0x55; 28]].concat()).len(), AGREED);
    // A write of more than is allowed.
    let long = [greeting(false), request(command::WRITE, 0, u32::MAX)].concat();
    assert_eq!(says(&long).len(), AGREED);
    // A write whose payload does not come.
    let short = [greeting(false), request(command::WRITE, 0, 512), vec![1; 100]].concat();
    assert_eq!(says(&short).len(), AGREED);
}

#[test]
fn wrong_options_are_answered() {
    let with = |option: u32, data: &[u8]| {
        let head = option_head(option, data.len() as u32).raw(data);
        let all = says(&Bytes::default().u32(3).raw(&head.0).0);
        u32::from_be_bytes(all[HELLO + 12..HELLO + 16].try_into().unwrap())
    };
    assert_eq!(with(999, b""), reply::UNSUP);
    assert_eq!(with(option::STARTTLS, b""), reply::POLICY);
    assert_eq!(with(option::LIST, b"x"), reply::INVALID);
    assert_eq!(with(option::GO, b""), reply::INVALID);
    assert_eq!(with(option::GO, &Bytes::default().u32(u32::MAX).u16(0).0), reply::INVALID);
    assert_eq!(with(option::INFO, &Bytes::default().string("no").u16(0).0), reply::UNKNOWN);
    assert_eq!(with(option::GO, &Bytes::default().string("").u16(3).u16(0).0), reply::INVALID);
    let contexts = Bytes::default().string("").u32(0).0;
    assert_eq!(with(option::SET_META_CONTEXT, &contexts), reply::INVALID);
    assert_eq!(with(option::ABORT, b""), reply::ACK);
}

#[test]
fn wrong_requests_are_answered_and_the_client_stays() {
    let number = |command: u16, flags: u16, offset: u64, length: u32| {
        let asked = Request { flags, command, cookie: 7, offset, length };
        let payload = if command == command::WRITE { vec![1; length as usize] } else { Vec::new() };
        let read = request(command::READ, 0, 1);
        let all = says(&[greeting(false), asked.bytes(), payload, read].concat());
        // The answer and that to the read, in any order.
        assert_eq!(all.len(), AGREED + 16 + 17, "{asked:?}");
        let error = |at: usize| {
            u32::from_be_bytes(all[AGREED + at + 4..AGREED + at + 8].try_into().unwrap())
        };
        if error(0) == 0 { error(17) } else { error(0) }
    };
    assert_eq!(number(99, 0, 0, 0), 22);
    assert_eq!(number(command::RESIZE, 0, 0, 0), 22);
    assert_eq!(number(command::BLOCK_STATUS, 0, 0, 512), 22);
    assert_eq!(number(command::READ, 0, 4096, 1), 22);
    assert_eq!(number(command::READ, 0, u64::MAX, 2), 22);
    assert_eq!(number(command::READ, 0, 0, u32::MAX), 22);
    assert_eq!(number(command::READ, 2, 0, 1), 22);
    assert_eq!(number(command::WRITE, 0, 4095, 2), 28);
    assert_eq!(number(command::WRITE_ZEROES, 0, 0, u32::MAX), 28);
    assert_eq!(number(command::TRIM, 0, 1, 4096), 22);
    assert_eq!(number(command::CACHE, 0, 1, 4096), 22);
}

#[test]
fn a_client_that_takes_nothing_stops_itself_alone() {
    run(|local| async move {
        let node = Faulty::new(&local, 32 << 20);
        let server = serving(&local, node.clone());
        let (ours, theirs) = pair();
        server.serve(&local, theirs, Arc::new(|| {}));
        let mut ours = UnixStream::from(ours);
        ours.write_all(&greeting(false)).unwrap();
        for _ in 0..100 {
            ours.write_all(&request(command::READ, 0, 16 << 20)).unwrap();
        }
        // Another one is served all the while.
        let client = client(&local, &server, "", Options::default()).await;
        for _ in 0..20 {
            bytes(&*client, 0, 4096).await.unwrap();
        }
        // Two of these fill what one client may have.
        assert!(node.most_under_way.get() <= 3, "{}", node.most_under_way.get());
        drop(ours);
        while server.clients().0 > 1 {
            local.sleep(Duration::from_millis(1)).await;
        }
        bytes(&*client, 0, 4096).await.unwrap();
    });
}

/// Replies that nobody takes are no more than a few, of however many requests.
#[test]
fn what_a_client_does_not_take_is_not_fetched() {
    run(|local| async move {
        let node = Faulty::new(&local, 1 << 20);
        let server = serving(&local, node.clone());
        let (ours, theirs) = pair();
        server.serve(&local, theirs, Arc::new(|| {}));
        let mut ours = UnixStream::from(ours);
        ours.write_all(&greeting(false)).unwrap();
        for _ in 0..200 {
            ours.write_all(&request(command::READ, 0, 256 << 10)).unwrap();
        }
        let client = client(&local, &server, "", Options::default()).await;
        for _ in 0..100 {
            bytes(&*client, 0, 512).await.unwrap();
        }
        // A server's turns, and what the kernel keeps.
        assert!(node.begun.get() < 100 + 60, "{}", node.begun.get());
        // It takes them after all.
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let taken = std::thread::spawn(move || {
            let mut all = Vec::new();
            ours.read_to_end(&mut all).unwrap();
            all.len()
        });
        while server.clients().0 > 1 {
            local.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(taken.join().unwrap(), AGREED + 200 * (16 + (256 << 10)));
    });
}

/// A server that says `bytes` when it is asked for anything, and then no more.
async fn client_of(local: &Local, negotiation: Vec<u8>, then: Vec<u8>) -> io::Result<Rc<Client>> {
    let (ours, theirs) = pair();
    let mut theirs = UnixStream::from(theirs);
    theirs.write_all(&negotiation).unwrap();
    theirs.write_all(&then).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let opened = client::open_socket(local, ours, "", Options::default()).await;
    // What the client says is of no interest, but it must not fail to say it.
    std::mem::forget(theirs);
    opened
}

/// What a server says to a client of ours that wants chunks, block status and the export.
pub(super) fn agreeing(size: u64) -> Vec<u8> {
    let mut all = Bytes::default().u64(INIT_MAGIC).u64(OPTION_MAGIC).u16(3).0;
    all.extend(option_reply(option::STRUCTURED_REPLY, reply::ACK, 0).0);
    let context = Bytes::default().u32(5).raw(b"base:allocation").0;
    let len = context.len() as u32;
    let set = option::SET_META_CONTEXT;
    all.extend(option_reply(set, reply::META_CONTEXT, len).raw(&context).0);
    all.extend(option_reply(set, reply::ACK, 0).0);
    let about = Bytes::default().u16(info::EXPORT).u64(size).u16(flag::HAS_FLAGS).0;
    all.extend(option_reply(option::GO, reply::INFO, 12).raw(&about).0);
    all.extend(option_reply(option::GO, reply::ACK, 0).0);
    all
}

#[test]
fn a_server_that_lies_in_negotiation_is_refused() {
    run(|local| async move {
        let agreed = agreeing(4096);
        for cut in 0..agreed.len() {
            let opened = client_of(&local, agreed[..cut].to_vec(), Vec::new()).await;
            assert!(opened.is_err(), "{cut}");
        }
        client_of(&local, agreed, Vec::new()).await.unwrap();
        assert!(client_of(&local, agreeing(u64::MAX), Vec::new()).await.is_err());
        let hello = Bytes::default().u64(INIT_MAGIC).u64(OPTION_MAGIC).u16(3).0;
        let said = |more: Bytes| client_of(&local, hello.clone(), more.0);
        let endless = option_reply(option::STRUCTURED_REPLY, reply::ACK, u32::MAX);
        assert!(said(endless).await.is_err());
        assert!(said(option_reply(option::LIST, reply::ACK, 0)).await.is_err());
        assert!(client_of(&local, b"SSH-2.0-x\r\n....".to_vec(), Vec::new()).await.is_err());
    });
}

/// A server that never comes to the end of its replies is left before they fill the memory.
#[test]
fn replies_in_negotiation_have_a_bound() {
    run(|local| async move {
        let (ours, theirs) = pair();
        let server = std::thread::spawn(move || {
            let mut theirs = UnixStream::from(theirs);
            let hello = Bytes::default().u64(INIT_MAGIC).u64(OPTION_MAGIC).u16(3).0;
            let mut said = theirs.write(&hello).unwrap();
            let len = 64 << 10;
            let reply =
                option_reply(option::STRUCTURED_REPLY, 1 << 20, len).raw(&vec![0; 64 << 10]);
            while said < 64 << 20 && theirs.write_all(&reply.0).is_ok() {
                said += reply.0.len();
            }
            said
        });
        let opened = client::open_socket(&local, ours, "", Options::default()).await;
        assert!(opened.err().unwrap().to_string().contains("too much of a reply"));
        assert!(server.join().unwrap() < 8 << 20);
    });
}

/// The cookie of the first request of a client.
const FIRST: u64 = 1 << 16;

#[test]
fn a_server_that_lies_in_a_reply_is_left() {
    let chunk = |kind: u16, flags: u16, length: u32| {
        let chunk = Chunk { flags, kind, cookie: FIRST, length }.bytes();
        assert_eq!(chunk.0.len(), CHUNK_LEN);
        chunk
    };
    let data = |offset: u64, len: usize| {
        chunk(chunk::OFFSET_DATA, chunk::DONE, len as u32 + 8).u64(offset).raw(&vec![1; len])
    };
    let replies = [
        Bytes(simple_reply(0, FIRST)),
        Bytes(simple_reply(5, FIRST + 1)),
        Bytes(vec![0; 16]),
        data(0, 512),
        data(512, 513),
        data(513, 512),
        data(u64::MAX, 512),
        data(512, 511),
        data(512, 512).raw(&data(512, 512).0),
        chunk(chunk::OFFSET_DATA, chunk::DONE, 8).u64(512),
        chunk(chunk::OFFSET_DATA, 0, u32::MAX).u64(512),
        chunk(chunk::OFFSET_HOLE, chunk::DONE, 12).u64(512).u32(513),
        chunk(chunk::OFFSET_HOLE, chunk::DONE, 12).u64(512).u32(0),
        chunk(chunk::OFFSET_HOLE, chunk::DONE, 11).u64(512).u16(0),
        chunk(chunk::NONE, chunk::DONE, 0),
        chunk(chunk::NONE, 0, 0),
        chunk(chunk::NONE, chunk::DONE, 1),
        chunk(chunk::BLOCK_STATUS, chunk::DONE, 12).u32(5).u32(512).u32(0),
        chunk(chunk::ERROR, chunk::DONE, 6).u32(0).u16(0),
        chunk(chunk::ERROR, chunk::DONE, 6).u32(5).u16(1),
        chunk(chunk::ERROR, chunk::DONE, u32::MAX).u32(5),
        chunk(99, chunk::DONE, 0),
    ];
    run(|local| async move {
        for (case, reply) in replies.into_iter().enumerate() {
            let double = case == 8;
            let client = client_of(&local, agreeing(4096), reply.0).await.unwrap();
            let read = bytes(&*client, 512, 512).await;
            assert_eq!(read.is_ok(), double, "{case}");
            // Nothing comes any more, and nothing hangs.
            assert!(bytes(&*client, 512, 512).await.is_err(), "{case}");
        }
        // What is right is taken, in pieces and in any order.
        let end = chunk(chunk::OFFSET_DATA, 0, 264).u64(768).raw(&[2; 256]);
        let start = chunk(chunk::OFFSET_HOLE, chunk::DONE, 12).u64(512).u32(256);
        let reply = end.raw(&start.0).0;
        let client = client_of(&local, agreeing(4096), reply).await.unwrap();
        let read = bytes(&*client, 512, 512).await.unwrap();
        assert_eq!(read, [[0; 256], [2; 256]].concat());
    });
}

/// The seeds of the fuzz targets, cut and changed a little.
#[test]
fn seeds_and_their_like_do_no_harm() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds");
    for (name, fuzz) in [
        ("nbd_client", crate::nbd::fuzz::client as fn(&[u8])),
        ("nbd_server", crate::nbd::fuzz::server),
    ] {
        let all = std::fs::read_dir(format!("{seeds}/{name}")).unwrap();
        for seed in all.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()) {
            fuzz(&seed);
            for at in (0..seed.len()).step_by(7) {
                fuzz(&seed[..at]);
                let mut other = seed.clone();
                other[at] ^= 1 << (at % 8);
                fuzz(&other);
            }
        }
    }
}
