use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// The delta, by every encoder there is, which must agree.
fn encode(old: &Page, new: &Page) -> Result<Vec<u8>, Encoded> {
    let results: Vec<_> = Simd::available()
        .map(|simd| {
            let mut out = [0xEE; PAGE_SIZE];
            match Encoder::with(simd).encode(old, new, &mut out) {
                Encoded::Unchanged => Ok(Vec::new()),
                Encoded::Delta(len) => Ok(out[..len].to_vec()),
                Encoded::Overflow => Err(Encoded::Overflow),
            }
        })
        .collect();
    for result in &results {
        assert_eq!(result, &results[0]);
    }
    results[0].clone()
}

/// Where there are which bytes.
type Changes<'a> = &'a [(usize, &'a [u8])];

fn changed(old: &Page, changes: Changes) -> Page {
    let mut new = *old;
    for &(at, bytes) in changes {
        new[at..at + bytes.len()].copy_from_slice(bytes);
    }
    new
}

/// What the format says, worked out by hand: old pages of zeros.
#[test]
fn vectors_worked_by_hand() {
    let zeros = [0; PAGE_SIZE];
    let ones = [1; PAGE_SIZE];
    let long = [9; 200];
    let vectors: &[(Changes, &[u8])] = &[
        (&[], &[]),
        // The first run of equal bytes may be empty, the last is left out.
        (&[(0, &[7])], &[0, 1, 7]),
        (&[(5, &[1, 2, 3])], &[5, 3, 1, 2, 3]),
        (&[(127, &[1])], &[127, 1, 1]),
        // 128 = 1 << 7 | 0; 300 = 2 << 7 | 44; 4095 = 31 << 7 | 127.
        (&[(128, &[1])], &[0x80, 1, 1, 1]),
        (&[(300, &[1])], &[0x80 | 44, 2, 1, 1]),
        (&[(4095, &[1])], &[0xFF, 31, 1, 1]),
        // A single equal byte between two runs.
        (&[(10, &[1]), (12, &[2])], &[10, 1, 1, 1, 1, 2]),
        (&[(63, &[1, 2]), (127, &[3, 4])], &[63, 2, 1, 2, 62, 2, 3, 4]),
        // 200 = 1 << 7 | 72.
        (&[(1, &long)], &[&[1, 0x80 | 72, 1], &long[..]].concat()),
    ];
    for (changes, delta) in vectors {
        let new = changed(&zeros, changes);
        assert_eq!(encode(&zeros, &new).unwrap(), *delta, "{changes:?}");
        let mut page = zeros;
        decode(delta, &mut page).unwrap();
        assert!(page == new, "{changes:?}");
    }
    // Every byte differs: 0, 4096 = 32 << 7 | 0, and then there is no room.
    assert_eq!(encode(&zeros, &ones), Err(Encoded::Overflow));
    // The longest that fits: 0, 2 bytes for 4093, and they.
    let most = changed(&zeros, &[(0, &ones[..4093])]);
    let delta = encode(&zeros, &most).unwrap();
    assert_eq!((delta.len(), &delta[..3]), (4096, &[0, 0x80 | 0x7D, 31][..]));
    let more = changed(&zeros, &[(0, &ones[..4094])]);
    assert_eq!(encode(&zeros, &more), Err(Encoded::Overflow));
}

#[test]
fn deltas_that_make_no_sense_are_refused() {
    use DecodeError::*;
    let bad: &[(&[u8], DecodeError)] = &[
        (&[0], Truncated(1)),
        (&[5], Truncated(1)),
        (&[5, 1], Truncated(2)),
        (&[5, 3, 1, 2], Truncated(4)),
        (&[0x80, 1], Truncated(2)),
        (&[5, 0x81, 1], Truncated(3)),
        (&[5, 1, 9, 4], Truncated(4)),
        (&[5, 1, 9, 0, 1, 9], Empty(3)),
        (&[5, 0, 9], Empty(1)),
        (&[0x80, 0x80, 1, 1], Length(0)),
        (&[1, 0xFF, 0xFF, 1], Length(1)),
        (&[0x80, 32, 1, 1], Overrun(2)),
        (&[0xFF, 0x7F, 1, 1], Overrun(2)),
        (&[0xFF, 31, 2, 1, 1], Overrun(2)),
        (&[0xFF, 31, 1, 1, 1, 1, 1], Overrun(5)),
    ];
    for (delta, error) in bad {
        assert_eq!(decode(delta, &mut [0; PAGE_SIZE]), Err(*error), "{delta:?}");
    }
    // Any way to cut the page into runs is as good as ours.
    let mut page = [0; PAGE_SIZE];
    decode(&[0x80, 0, 2, 1, 0, 0x81, 0, 1, 7], &mut page).unwrap();
    assert_eq!(page[..4], [1, 0, 0, 7]);
}

/// A page, and what becomes of it.
fn pages() -> impl Strategy<Value = (Box<Page>, Box<Page>)> {
    let change = (0..PAGE_SIZE, 1..600_usize, any::<u8>());
    let sparse = prop::collection::vec(change, 0..12).prop_map(|changes| {
        let old: Box<Page> = Box::new(std::array::from_fn(|at| (at * 7 / 3) as u8));
        let mut new = old.clone();
        for (at, len, xor) in changes {
            new[at..].iter_mut().take(len).for_each(|byte| *byte ^= xor);
        }
        (old, new)
    });
    // Each byte changes with a probability, up to where there is no room.
    let dense = (any::<u64>(), 0..700_u64).prop_map(|(seed, rate)| {
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let old: Box<Page> = Box::new(std::array::from_fn(|_| random() as u8));
        let new = old.map(|byte| if random() % 1000 < rate { byte ^ 0x55 } else { byte });
        (old, Box::new(new))
    });
    prop_oneof![sparse, dense]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// All encoders agree, and what they made brings the page back.
    #[test]
    fn deltas_bring_pages_back((old, new) in pages()) {
        if let Ok(delta) = encode(&old, &new) {
            let mut page = *old;
            prop_assert_eq!(decode(&delta, &mut page), Ok(()));
            prop_assert!(page == *new);
        } else {
            // There was no room indeed: count what the format needs.
            let mut need = 0;
            let mut at = 0;
            while let Some(same) = (at..PAGE_SIZE).position(|at| old[at] != new[at]) {
                let start = at + same;
                let rest = start..PAGE_SIZE;
                let run = rest.clone().position(|at| old[at] == new[at]).unwrap_or(rest.len());
                let uleb = |length| if length < 128 { 1 } else { 2 };
                need += uleb(same) + uleb(run) + run;
                at = start + run;
            }
            prop_assert!(need > PAGE_SIZE, "{} bytes", need);
        }
    }

    #[test]
    fn any_bytes_are_safe_to_decode(delta in prop::collection::vec(any::<u8>(), 0..64)) {
        fuzz(&delta);
    }

    /// Whatever the guest writes and however the cache is resized, the other side ends with what
    /// the guest has.
    #[test]
    fn the_other_side_follows(
        acts in prop::collection::vec((0..24_u64, 0..6_u8, 0..PAGE_SIZE, any::<u8>()), 0..300),
    ) {
        let mut sender = Sender::new(8 * PAGE_SIZE as u64).unwrap();
        let mut guest: HashMap<u64, Page> = HashMap::new();
        let mut other: HashMap<u64, Page> = HashMap::new();
        for (index, (number, act, at, byte)) in acts.into_iter().enumerate() {
            let pass = index as u32 / 20;
            let (page, address) = (guest.entry(number).or_insert([0; PAGE_SIZE]), number * 4096);
            match act {
                0 => *page = [0; PAGE_SIZE],
                1 => *page = std::array::from_fn(|at| (at as u8).wrapping_add(byte)),
                2 => sender.resize((1 << (byte % 6)) * 4096).unwrap(),
                _ => page[at] = byte,
            }
            let copy = other.entry(number).or_insert([0; PAGE_SIZE]);
            if crate::zero::is_zero(page) {
                sender.zero(address, pass);
                *copy = [0; PAGE_SIZE];
                continue;
            }
            match sender.page(address, page, pass, false) {
                Form::Unchanged => {}
                Form::Delta(delta) => decode(delta, copy).unwrap(),
                Form::Raw => *copy = *page,
            }
            prop_assert!(copy == page, "page {}", number);
        }
    }
}

fn page(byte: u8) -> Page {
    [byte; PAGE_SIZE]
}

#[test]
fn a_cache_is_a_power_of_two_of_pages() {
    assert_eq!(Cache::new(4095).err(), Some(CacheError::TooSmall(4095)));
    assert_eq!(Cache::new(0).err(), Some(CacheError::TooSmall(0)));
    assert_eq!(Cache::new(4096).unwrap().size(), 4096);
    assert_eq!(Cache::new(4096 * 7 + 5).unwrap().size(), 4096 * 4);
    assert_eq!(Cache::new(u64::MAX).err(), Some(CacheError::NoMemory(u64::MAX)));
    let mut cache = Cache::new(8192).unwrap();
    assert_eq!(cache.resize(1), Err(CacheError::TooSmall(1)));
    assert_eq!(cache.size(), 8192);
}

#[test]
fn a_page_of_use_holds_its_place_for_two_passes() {
    let mut cache = Cache::new(4 * 4096).unwrap();
    assert!(cache.insert(4096, &page(1), 0));
    assert!(cache.get(5 * 4096, 0).is_none());
    assert!(!cache.insert(5 * 4096, &page(5), 1));
    assert_eq!(cache.get(4096, 3).unwrap()[0], 1);
    assert!(!cache.insert(5 * 4096, &page(5), 4));
    assert!(cache.insert(5 * 4096, &page(5), 5));
    assert!(cache.get(4096, 5).is_none());
    assert_eq!(cache.get(5 * 4096, 5).unwrap()[4095], 5);
    // Others are not concerned, and a page may always be renewed.
    assert!(cache.insert(6 * 4096, &page(6), 5));
    assert!(cache.insert(5 * 4096, &page(7), 5));
    assert_eq!(cache.get(5 * 4096, 5).unwrap()[0], 7);
    cache.clear();
    assert!(cache.get(5 * 4096, 5).is_none());
}

#[test]
fn resizing_keeps_what_was_of_use_last() {
    let mut cache = Cache::new(1024 * 4096).unwrap();
    for number in 0..1024_u64 {
        let content = page((number % 251) as u8);
        assert!(cache.insert(number * 4096, &content, number as u32 % 2));
    }
    assert_eq!(cache.memory(), 4 << 20);
    cache.resize(2048 * 4096).unwrap();
    for number in 0..1024_u64 {
        assert_eq!(cache.get(number * 4096, 0).unwrap()[7], (number % 251) as u8);
    }
    // Of the pages that share a place, those of the upper half are used now.
    for number in 512..1024 {
        cache.get(number * 4096, 2).unwrap();
    }
    cache.resize(512 * 4096).unwrap();
    assert_eq!(cache.memory(), 2 << 20);
    for number in 0..512_u64 {
        assert!(cache.get(number * 4096, 2).is_none());
        let upper = number + 512;
        assert_eq!(cache.get(upper * 4096, 2).unwrap()[4000], (upper % 251) as u8);
    }
    cache.resize(4096).unwrap();
    assert_eq!((cache.size(), cache.memory()), (4096, 1 << 20));
}

#[test]
fn everything_is_counted() {
    let mut sender = Sender::new(2 * 4096).unwrap();
    let mut content = page(0);
    content[9] = 1;
    assert_eq!(sender.page(0, &content, 1, false), Form::Raw);
    assert_eq!(sender.page(0, &content, 1, false), Form::Unchanged);
    content[9] = 2;
    assert_eq!(sender.page(0, &content, 2, false), Form::Delta(&[9, 1, 2]));
    sender.sent(3 + 3 + 8);
    // A page that was sent as zeros is one that is known.
    sender.zero(0, 2);
    sender.zero(4096, 2);
    assert_eq!(sender.page(0, &content, 2, false), Form::Delta(&[9, 1, 2]));
    sender.sent(14);
    assert_eq!(sender.page(0, &page(3), 2, false), Form::Raw);
    // In the last pass nothing is remembered.
    assert_eq!(sender.page(4096, &page(3), 3, true), Form::Raw);
    assert_eq!(sender.page(4096, &page(3), 3, true), Form::Raw);
    sender.resize(4096).unwrap();
    let stats = Stats { cache_size: 4096, bytes: 28, pages: 2, cache_miss: 3, overflow: 1 };
    assert_eq!(sender.stats(), stats);
}
