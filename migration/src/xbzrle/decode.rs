//! The decoder.

use super::Page;

/// Why a delta makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends where more must come.
    #[error("the delta ends at byte {0}, within a run")]
    Truncated(usize),
    /// A length has more than 14 bits.
    #[error("the length at byte {0} of the delta has more than two bytes")]
    Length(usize),
    /// A run of no bytes, where there must be some.
    #[error("the run at byte {0} of the delta is empty")]
    Empty(usize),
    /// A run goes past the page.
    #[error("the run at byte {0} of the delta goes past the page's end")]
    Overrun(usize),
}

/// Makes `page` new by `delta`. Any bytes are safe to give.
///
/// # Errors
/// The delta is not of the format; `page` may have been changed in part.
pub fn decode(delta: &[u8], page: &mut Page) -> Result<(), DecodeError> {
    let mut input = Input { delta, at: 0 };
    let mut place = 0;
    while input.at < delta.len() {
        let run = input.at;
        let same = input.length()?;
        if same == 0 && run != 0 {
            return Err(DecodeError::Empty(run));
        }
        place += same;
        let run = input.at;
        let different = input.length()?;
        if different == 0 {
            return Err(DecodeError::Empty(run));
        }
        let to = page.get_mut(place..).and_then(|rest| rest.get_mut(..different));
        let to = to.ok_or(DecodeError::Overrun(run))?;
        to.copy_from_slice(input.bytes(different)?);
        place += different;
    }
    Ok(())
}

struct Input<'a> {
    delta: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// A length, which is never the last byte.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let truncated = DecodeError::Truncated(self.delta.len());
        let rest = self.delta.get(self.at..).ok_or(truncated)?;
        let &[low, high] = rest.first_chunk().ok_or(truncated)?;
        if low < 0x80 {
            self.at += 1;
            return Ok(low.into());
        }
        if high >= 0x80 {
            return Err(DecodeError::Length(self.at));
        }
        self.at += 2;
        Ok(usize::from(low & 0x7F) | usize::from(high) << 7)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let bytes = self.delta.get(self.at..).and_then(|rest| rest.get(..len));
        self.at += len;
        bytes.ok_or(DecodeError::Truncated(self.delta.len()))
    }
}

/// Any bytes as a delta, for the fuzzer; the page must come out as long as it went in, and what
/// is accepted must be what an encoder could have meant.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let old = [0x5A; super::PAGE_SIZE];
    let mut page = old;
    if decode(data, &mut page).is_ok() {
        let mut delta = [0; super::PAGE_SIZE];
        if let super::Encoded::Delta(len) = super::Encoder::new().encode(&old, &page, &mut delta) {
            let mut again = old;
            let decoded = decode(delta.get(..len).unwrap_or_default(), &mut again);
            assert!(decoded.is_ok() && again == page);
        }
    }
}
