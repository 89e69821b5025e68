//! Random requests through client and server, against a flat model.

use proptest::prelude::*;

use super::*;
use crate::image::Repair;
use crate::qcow2::{CreateOptions, check_file, create, open};

const SIZE: usize = 96 << 10;

#[derive(Debug, Clone)]
enum Step {
    Write { at: usize, len: usize, byte: u8, durable: bool },
    Zero { at: usize, len: usize, keep: bool },
    Fast { at: usize, len: usize },
    Discard { at: usize, len: usize },
    Read { at: usize, len: usize },
    Map { at: usize, len: usize },
    Flush,
    Resize { size: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..SIZE, 0..20_000usize).prop_map(|(at, len)| (at, len.min(SIZE - at)));
    let step =
        prop_oneof![
            (range(), any::<u8>(), any::<bool>())
                .prop_map(|((at, len), byte, durable)| Step::Write { at, len, byte, durable }),
            (range(), any::<bool>()).prop_map(|((at, len), keep)| Step::Zero { at, len, keep }),
            range().prop_map(|(at, len)| Step::Fast { at, len }),
            range().prop_map(|(at, len)| Step::Discard { at, len }),
            range().prop_map(|(at, len)| Step::Read { at, len }),
            range().prop_map(|(at, len)| Step::Map { at, len }),
            Just(Step::Flush),
            (SIZE / 2..SIZE * 2).prop_map(|size| Step::Resize { size }),
        ];
    prop::collection::vec(step, 1..40)
}

async fn take(client: &Client, model: &mut Vec<u8>, step: &Step) {
    let fits = |at: usize, len: usize| at + len <= model.len();
    match *step {
        Step::Write { at, len, byte, durable } => {
            let buf = IoBuf::zeroed(len);
            buf.fill(byte);
            let done = client.write(at as u64, buf, durable).await;
            assert_eq!(done.is_ok(), fits(at, len));
            if done.is_ok() {
                model[at..at + len].fill(byte);
            }
        }
        Step::Zero { at, len, keep } => {
            let how = if keep { Zero::Keep } else { Zero::MayUnmap };
            let done = client.zero(at as u64, len as u64, how).await;
            assert_eq!(done.is_ok(), fits(at, len));
            if done.is_ok() {
                model[at..at + len].fill(0);
            }
        }
        Step::Fast { at, len } => {
            let done = client.zero_fast(at as u64, len as u64, Zero::MayUnmap).await;
            if fits(at, len) && len > 0 {
                assert_eq!(done.is_ok(), at.is_multiple_of(512), "{at} {len} {done:?}");
            }
            if done.is_ok() {
                model[at..at + len].fill(0);
            }
        }
        Step::Discard { at, len } => {
            let done = client.discard(at as u64, len as u64).await;
            assert_eq!(done.is_ok(), fits(at, len));
            if done.is_ok() {
                model[at..at + len].fill(0);
            }
        }
        Step::Read { at, len } => match bytes(client, at as u64, len).await {
            Ok(read) => assert!(read == model[at..at + len]),
            Err(_) => assert!(!fits(at, len)),
        },
        Step::Map { at, len } => {
            let (mut at, end) = (at, (at + len).min(model.len()));
            while at < end {
                let extent = client.map(at as u64, (end - at) as u64).await.unwrap();
                assert!(extent.len > 0 && at + extent.len as usize <= end);
                let part = &model[at..at + extent.len as usize];
                assert!(extent.state == State::Data || part.iter().all(|byte| *byte == 0));
                at += extent.len as usize;
            }
        }
        Step::Flush => client.flush().await.unwrap(),
        Step::Resize { size } => {
            let size = size & !511;
            client.resize(size as u64).await.unwrap();
            model.resize(size, 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(steps in steps()) {
        run(|local| async move {
            let node = Faulty::new(&local, SIZE);
            let server = Server::new(1);
            server.add(export(&local, "disk", node).resizable(true)).unwrap();
            let client = client(&local, &server, "disk", Options::default()).await;
            let mut model = vec![0; SIZE];
            for step in &steps {
                take(&client, &mut model, step).await;
            }
            assert!(bytes(&*client, 0, model.len()).await.unwrap() == model);
            client.close().await.unwrap();
        });
    }
}

/// Each of several that come at once ends before the next one begins, and leaves the image whole.
#[test]
fn an_image_is_resized_by_one_at_a_time() {
    run(|local| async move {
        let file = Faulty::new(&local, 0);
        let options =
            CreateOptions { size: SIZE as u64, cluster_size: 512, ..CreateOptions::default() };
        create(&*file, &options).await.unwrap();
        let image = open(&local, file.clone(), Default::default()).await.unwrap();
        let server = Server::new(1);
        server.add(export(&local, "disk", image.clone()).resizable(true)).unwrap();
        let client = client(&local, &server, "disk", Options::default()).await;
        let mut random = 1u32;
        for round in 0..40u8 {
            let before = client.info().size as usize;
            let data = IoBuf::zeroed(before);
            data.fill(round + 1);
            client.write(0, data, false).await.unwrap();
            let mut sizes = [0; 4].map(|_: usize| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 12) as usize % (16 * SIZE) / 512 * 512 + 512
            });
            // The first one makes it smaller, in many steps.
            sizes[0] = sizes[0].min(before / 2 / 512 * 512 + 512);
            let resizes = sizes.map(|size| {
                let client = client.clone();
                local.spawn(async move { client.resize(size as u64).await })
            });
            for resize in resizes {
                resize.await.unwrap();
            }
            let kept = sizes.into_iter().min().unwrap().min(before);
            let seen = bytes(&*image, 0, image.info().size as usize).await.unwrap();
            assert_eq!(seen.len(), sizes[3]);
            assert!(seen[..kept].iter().all(|byte| *byte == round + 1), "{round} {sizes:?}");
            assert!(seen[kept..].iter().all(|byte| *byte == 0), "{round} {sizes:?}");
            image.flush().await.unwrap();
            let check = check_file(&*file, Repair::No).await.unwrap();
            assert_eq!((check.corruptions, check.check_errors), (0, 0), "{:?}", check.lines);
        }
        client.close().await.unwrap();
    });
}

/// Many requests at once, each of its own place.
#[test]
fn requests_in_flight_are_not_mixed_up() {
    run(|local| async move {
        let node = Faulty::new(&local, 1 << 20);
        let server = serving(&local, node.clone());
        let client = client(&local, &server, "", Options::default()).await;
        let tasks: Vec<_> = (0..200u64)
            .map(|i| {
                let client = client.clone();
                local.spawn(async move {
                    let (at, byte) = (i * 4096 + i, i as u8);
                    let buf = IoBuf::zeroed(3000);
                    buf.fill(byte);
                    client.write(at, buf, i % 3 == 0).await.unwrap();
                    assert_eq!(bytes(&*client, at, 3000).await.unwrap(), [byte; 3000]);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        assert_eq!(node.most_under_way.get(), crate::nbd::server::IN_FLIGHT);
        assert_eq!(node.durable.get(), 67);
    });
}

#[test]
fn large_requests_go_in_pieces() {
    run(|local| async move {
        let node = Faulty::new(&local, 80 << 20);
        let server = serving(&local, node);
        let client = client(&local, &server, "", Options::default()).await;
        let buf = IoBuf::zeroed(70 << 20);
        buf.fill(7);
        client.write(12345, buf.clone(), true).await.unwrap();
        buf.fill(0);
        client.read(12345, buf.clone()).await.unwrap();
        assert!(buf.to_vec().iter().all(|byte| *byte == 7));
        assert_eq!(bytes(&*client, 12344, 2).await.unwrap(), [0, 7]);
        client.zero(0, 80 << 20, Zero::MayUnmap).await.unwrap();
        assert_eq!(client.map(0, 80 << 20).await.unwrap().len, 80 << 20);
    });
}
