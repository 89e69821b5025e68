//! `secret`: a password or key, given as text or in a file, in the clear or encrypted with
//! another secret (AES-256-CBC), so that it need not stand on a command line.
//!
//! Main thread. Data, file and names are a user's or a client's: a file is read up to
//! [`MAX_SECRET`]. What a secret is is not told by qom-get, printed, or kept after it is gone.

use std::io::Read as _;
use std::sync::Arc;

use aes::Aes256;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockDecryptMut as _, KeyIvInit as _};
use resources::props::{Kind, Prop, Props};
use resources::{base64, fdset};
use rustix::fs::{Mode, OFlags};

use super::{Ctx, Object, ObjectError, ObjectType, reason};

/// The largest secret in bytes, as it is given.
pub const MAX_SECRET: u64 = 1 << 20;

/// Bytes of a key, and of a block and so of an initialization vector.
const KEY: usize = 32;
const BLOCK: usize = 16;

/// The type.
pub(super) const SECRET: ObjectType = ObjectType {
    name: "secret",
    parent: "object",
    props: &[
        Prop { name: "data", kind: Kind::Str, default: None, help: "the secret itself" },
        Prop { name: "file", kind: Kind::Str, default: None, help: "the file that holds it" },
        Prop {
            name: "format",
            kind: Kind::Enum(&["raw", "base64"]),
            default: Some("raw"),
            help: "how it is written",
        },
        Prop {
            name: "keyid",
            kind: Kind::Str,
            default: None,
            help: "the secret of 32 bytes that it is encrypted with",
        },
        Prop {
            name: "iv",
            kind: Kind::Str,
            default: None,
            help: "the initialization vector in base 64",
        },
    ],
    needs: &[],
    create: |props, ctx| {
        let secret = read(props, ctx)?;
        props.forget("data");
        Ok(Object::Secret(Arc::new(secret)))
    },
};

/// A secret.
pub struct Secret(Vec<u8>);

impl Secret {
    /// What it is.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

fn refused(why: impl Into<String>) -> ObjectError {
    ObjectError::Refused(why.into())
}

fn read(props: &Props, ctx: &Ctx) -> Result<Secret, ObjectError> {
    let data = props.get::<Option<&str>>("data")?;
    let input = match (data, props.get::<Option<&str>>("file")?) {
        (Some(_), Some(_)) => return Err(refused("'file' and 'data' are mutually exclusive")),
        (None, None) => return Err(refused("Either 'file' or 'data' must be provided")),
        (Some(data), None) => data.as_bytes().to_vec(),
        (None, Some(path)) => {
            let why = |error| refused(format!("Unable to read {path}: {}", reason(&error)));
            read_file(path).map_err(why)?
        }
    };
    let encoded = props.get::<&str>("format")? == "base64";
    let Some(key) = props.get::<Option<&str>>("keyid")? else {
        return Ok(Secret(if encoded { decode(&input)? } else { input }));
    };
    let key = ctx.objects.secret(key).ok_or_else(|| refused(format!("No secret with id '{key}'")));
    let key: &[u8; KEY] = (key?.bytes().try_into())
        .map_err(|_| refused(format!("Key should be {KEY} bytes in length")))?;
    let iv = props.get::<Option<&str>>("iv")?;
    let iv = decode(iv.ok_or_else(|| refused("IV is required to decrypt secret"))?.as_bytes())?;
    let length = iv.len();
    let iv: [u8; BLOCK] = iv
        .try_into()
        .map_err(|_| refused(format!("IV should be {BLOCK} bytes in length not {length}")))?;
    decrypt(key, &iv, if encoded { decode(&input)? } else { input }).map(Secret)
}

fn read_file(path: &str) -> std::io::Result<Vec<u8>> {
    let file =
        fdset::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let (mut bytes, limit) = (Vec::new(), MAX_SECRET + 1);
    (&*file).take(limit).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == limit {
        return Err(std::io::Error::other(format!("longer than {MAX_SECRET} bytes")));
    }
    Ok(bytes)
}

fn decode(text: &[u8]) -> Result<Vec<u8>, ObjectError> {
    let text: String = text.iter().map(|b| char::from(*b)).filter(|c| *c != '\n').collect();
    base64::decode(&text).ok_or_else(|| refused("Base64 data contains invalid characters"))
}

/// Undoes AES-256-CBC and takes the padding off: as many bytes as each of them says.
fn decrypt(key: &[u8; KEY], iv: &[u8; BLOCK], mut data: Vec<u8>) -> Result<Vec<u8>, ObjectError> {
    if !data.len().is_multiple_of(BLOCK) {
        let length = data.len();
        return Err(refused(format!("Length {length} must be a multiple of block size {BLOCK}")));
    }
    let cipher = cbc::Decryptor::<Aes256>::new(key.into(), iv.into());
    if cipher.decrypt_padded_mut::<NoPadding>(&mut data).is_err() {
        return Err(refused("cannot decrypt the secret"));
    }
    let padding = data.last().copied().unwrap_or(0);
    let kept = data.len().checked_sub(padding.into()).filter(|_| usize::from(padding) <= BLOCK);
    match kept {
        Some(kept) if padding > 0 => data.truncate(kept),
        _ => {
            return Err(refused(format!(
                "Incorrect number of padding bytes ({padding}) found on decrypted data"
            )));
        }
    }
    Ok(data)
}
