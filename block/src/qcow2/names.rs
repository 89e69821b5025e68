//! The table of feature names that an image carries, so that programs which do not know a feature
//! can name it.

use super::bytes::put;

/// Bytes of a record: kind, number of the bit, name padded with zeros.
pub(super) const FEATURE_RECORD: usize = 48;

/// Kind (0 incompatible, 1 compatible, 2 autoclear), bit and name.
const FEATURES: &[(u8, u8, &str)] = &[
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// The body of the extension.
pub(super) fn feature_table() -> Vec<u8> {
    let mut table = vec![0; FEATURES.len() * FEATURE_RECORD];
    for ((kind, bit, name), record) in FEATURES.iter().zip(table.chunks_exact_mut(FEATURE_RECORD)) {
        put(record, 0, &[*kind, *bit]);
        put(record, 2, name.as_bytes());
    }
    table
}

/// Kind, bit and name of a record of an image.
pub(super) fn feature_name(record: &[u8]) -> Option<(u8, u8, String)> {
    let (kind, bit, name) = (*record.first()?, *record.get(1)?, record.get(2..)?);
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = String::from_utf8_lossy(name.get(..end)?).into_owned();
    Some((kind, bit, name))
}
