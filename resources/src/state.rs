//! Saved state: one [`Blob`] per device or vCPU.
//!
//! A blob has a version, a body and *needs*. The body is CBOR with named fields, so that a reader
//! ignores fields it does not know and gives missing ones their default: old and new programs
//! understand each other. `needs` is for state that differs from the default *and* must not be
//! lost: a reader that does not know a name there refuses the blob.
//!
//! No thread and no lock of its own. Blobs come from files and migration peers: decoding is
//! bounded in size and depth, and never panics.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest encoded blob that is taken, in bytes. RAM never travels in blobs; the largest
/// state there is belongs to a vCPU with AMX and stays below 64 KiB.
pub const MAX_BYTES: usize = 16 << 20;

/// How deep values in a blob may nest.
const MAX_DEPTH: usize = 32;

/// Why a state could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The state could not be put into its encoded form.
    #[error("cannot encode saved state: {0}")]
    Encode(String),
    /// The bytes are not a saved state of this kind.
    #[error("cannot decode saved state: {0}")]
    Decode(String),
    /// The blob is larger than [`MAX_BYTES`].
    #[error("saved state of {0} bytes is larger than the limit of {MAX_BYTES}")]
    TooLarge(usize),
    /// The blob was written by a newer, incompatible program.
    #[error("saved state has version {found}, newest known is {known}")]
    Version {
        /// The version in the blob.
        found: u16,
        /// The newest version the reader knows.
        known: u16,
    },
    /// The blob carries a part that must not be lost and that the reader does not know.
    #[error("saved state needs '{0}', which is not known here")]
    UnknownNeed(String),
    /// A field has a value the device can never be in.
    #[error("saved state: {0}")]
    Invalid(String),
    /// The kernel refused to give or take the state.
    #[error("{what}: {source}")]
    Kernel {
        /// The request that failed.
        what: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// The saved state of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    version: u16,
    #[serde(with = "bytes")]
    body: Vec<u8>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    needs: BTreeMap<String, Bytes>,
}

/// The state of what has none of its own. As it has named fields, they may come later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A byte string that is written as one, also within an option or a list; of any length, which is
/// to be checked where it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes(#[serde(with = "bytes")] pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Blob {
    /// A blob with `state` as its body. Raise `version` only for a change that an older reader
    /// must refuse as a whole; new fields with a sensible default need no new version.
    pub fn new<T: Serialize>(version: u16, state: &T) -> Result<Blob, StateError> {
        Ok(Blob { version, body: encode(state)?, needs: BTreeMap::new() })
    }

    /// Adds state that a reader must know.
    pub fn with_need<T: Serialize>(mut self, name: &str, state: &T) -> Result<Blob, StateError> {
        self.needs.insert(name.to_owned(), Bytes(encode(state)?));
        Ok(self)
    }

    /// The body, after checking that the version is at most `newest` and that every need is among
    /// `known`.
    pub fn parse<T: DeserializeOwned>(&self, newest: u16, known: &[&str]) -> Result<T, StateError> {
        if self.version > newest {
            return Err(StateError::Version { found: self.version, known: newest });
        }
        if let Some(name) = self.needs.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(StateError::UnknownNeed(name.clone()));
        }
        decode(&self.body)
    }

    /// A need by name, if the blob has it.
    pub fn need<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        self.needs.get(name).map(|need| decode(&need.0)).transpose()
    }

    /// The version the writer gave.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The encoded form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        encode(self)
    }

    /// Reads an encoded blob.
    pub fn from_bytes(bytes: &[u8]) -> Result<Blob, StateError> {
        decode(bytes)
    }
}

/// Shorthand for [`StateError::Invalid`].
pub fn invalid(what: impl Into<String>) -> StateError {
    StateError::Invalid(what.into())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StateError> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).map_err(|e| StateError::Encode(e.to_string()))?;
    if out.len() > MAX_BYTES {
        return Err(StateError::TooLarge(out.len()));
    }
    Ok(out)
}

fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, StateError> {
    if bytes.len() > MAX_BYTES {
        return Err(StateError::TooLarge(bytes.len()));
    }
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, MAX_DEPTH)
        .map_err(|e| StateError::Decode(e.to_string()))?;
    if !bytes.is_empty() {
        return Err(StateError::Decode(format!("{} bytes left over", bytes.len())));
    }
    Ok(value)
}

/// Byte strings as CBOR byte strings rather than arrays of integers. For fields of state structs:
/// `#[serde(with = "resources::state::bytes")]`.
pub mod bytes {
    use serde::de::SeqAccess;
    use serde::{Deserializer, Serializer};

    /// Writes a CBOR byte string.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    /// Reads a CBOR byte string.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
            /// What formats without byte strings make of one.
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = from.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        from.deserialize_byte_buf(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        a: u8,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        a: u8,
        #[serde(default)]
        b: u32,
    }

    #[test]
    fn old_and_new_programs_understand_each_other() {
        let old = Blob::new(1, &Old { a: 7 }).unwrap();
        assert_eq!(old.parse::<New>(1, &[]).unwrap(), New { a: 7, b: 0 });
        let new = Blob::new(1, &New { a: 7, b: 9 }).unwrap();
        assert_eq!(new.parse::<Old>(1, &[]).unwrap(), Old { a: 7 });
    }

    #[test]
    fn an_unknown_need_or_version_is_refused() {
        let blob = Blob::new(2, &Old { a: 1 }).unwrap().with_need("fifo", &3u8).unwrap();
        assert!(matches!(blob.parse::<Old>(1, &["fifo"]), Err(StateError::Version { .. })));
        assert!(matches!(blob.parse::<Old>(2, &[]), Err(StateError::UnknownNeed(_))));
        assert!(blob.parse::<Old>(2, &["fifo"]).is_ok());
        assert_eq!(blob.need::<u8>("fifo").unwrap(), Some(3));
        assert_eq!(blob.need::<u8>("other").unwrap(), None);
    }

    #[test]
    fn encoded_form_round_trips_and_rejects_a_tail() {
        let blob = Blob::new(1, &Old { a: 1 }).unwrap().with_need("x", &"y").unwrap();
        let mut bytes = blob.to_bytes().unwrap();
        assert_eq!(Blob::from_bytes(&bytes).unwrap(), blob);
        bytes.push(0);
        assert!(Blob::from_bytes(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(blob) = Blob::from_bytes(&bytes) {
                let _ = blob.parse::<New>(u16::MAX, &[]);
            }
        }
    }
}
