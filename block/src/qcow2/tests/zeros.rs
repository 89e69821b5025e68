//! Zeros stay zeros, whatever comes below the image later.

use super::*;
use crate::image::{BackingFile, Image};
use crate::node::Zero;

const SIZE: u64 = 1 << 20;
/// Offset and length: whole clusters, parts of them, and what no table maps.
const RANGES: [(u64, u64); 4] = [(0, 65536), (100_000, 5000), (200_704, 200_000), (900_000, 50)];

fn filled(size: u64) -> Rc<Memory> {
    Memory::new(vec![0xaa; size as usize], LIMIT)
}

async fn assert_zeros(image: &Qcow2) {
    for (at, len) in RANGES {
        let seen = bytes(image, at, len as usize).await;
        assert!(seen.iter().all(|byte| *byte == 0), "{at}");
    }
}

fn kinds() -> Vec<CreateOptions> {
    let one = |version, extended_l2, cluster_size| CreateOptions {
        size: SIZE,
        version,
        extended_l2,
        cluster_size,
        backing: Some(BackingFile { name: "below".into(), format: None }),
        ..CreateOptions::default()
    };
    vec![one(2, false, 65536), one(3, false, 65536), one(3, true, 65536), one(3, false, 4096)]
}

/// An image that names a backing file is open without it, which comes then.
#[test]
fn zeros_hide_a_backing_file_that_is_opened_later() {
    run(|local| async move {
        for options in kinds() {
            for how in [Zero::Keep, Zero::MayUnmap] {
                let file = made(&options).await;
                let alone = Options { discard: true, ..Options::default() };
                let image = opened(&local, &file, alone).await;
                for (at, len) in RANGES {
                    image.zero(at, len, how).await.unwrap();
                }
                image.set_backing(Some(filled(SIZE)));
                assert_zeros(&image).await;
                assert_eq!(bytes(&*image, 600_000, 1).await, [0xaa]);
                image.flush().await.unwrap();
                assert_clean(&*file, true).await;
            }
        }
    });
}

/// As a job does that leaves out a short image in the middle.
#[test]
fn zeros_hide_a_longer_backing_file_that_takes_the_place_of_a_shorter_one() {
    run(|local| async move {
        for options in kinds() {
            for discard in [false, true] {
                let file = made(&options).await;
                let short =
                    Options { discard: true, backing: Some(filled(50_000)), ..Options::default() };
                let image = opened(&local, &file, short).await;
                image.write(0, IoBuf::copy_of(&[1; 300_000]), false).await.unwrap();
                for (at, len) in RANGES {
                    image.zero(at, len, Zero::MayUnmap).await.unwrap();
                }
                if discard {
                    image.discard(65536, 131_072).await.unwrap();
                }
                let before = bytes(&*image, 65536, 131_072).await;
                image.set_backing(Some(filled(SIZE)));
                assert_zeros(&image).await;
                assert!(bytes(&*image, 65536, 131_072).await == before);
            }
        }
    });
}
