//! How a page is sent: as the difference to what the other side has where that is known and
//! worth it.

use super::{Cache, CacheError, Encoded, Encoder, PAGE_SIZE, Page};

/// How a page is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// Not at all: the other side has it.
    Unchanged,
    /// As this delta, of 1 to 4096 bytes.
    Delta(&'a [u8]),
    /// As it is.
    Raw,
}

/// What `query-migrate` shows as `xbzrle-cache`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of pages the cache has room for.
    pub cache_size: u64,
    /// Bytes sent for deltas, with their headers.
    pub bytes: u64,
    /// Deltas sent.
    pub pages: u64,
    /// Pages of which it was not known what the other side has.
    pub cache_miss: u64,
    /// Pages whose delta would have been longer than they.
    pub overflow: u64,
}

/// Decides for each page, and knows what was sent.
///
/// **Every** page that is sent from the first call on must go through [`page`](Self::page) or
/// [`zero`](Self::zero): the cache is only worth what it is true to.
pub struct Sender {
    cache: Cache,
    encoder: Encoder,
    delta: Box<Page>,
    stats: Stats,
}

impl Sender {
    /// With a cache of that many bytes, as [`Cache::new`] takes them.
    ///
    /// # Errors
    /// As `Cache::new`.
    pub fn new(cache_size: u64) -> Result<Self, CacheError> {
        let cache = Cache::new(cache_size)?;
        let stats = Stats { cache_size: cache.size(), ..Stats::default() };
        Ok(Self { cache, encoder: Encoder::new(), delta: Box::new([0; PAGE_SIZE]), stats })
    }

    /// Changes the size of the cache, which keeps the pages of most use.
    ///
    /// # Errors
    /// As `Cache::new`; the cache then is as before.
    pub fn resize(&mut self, cache_size: u64) -> Result<(), CacheError> {
        self.cache.resize(cache_size)?;
        self.stats.cache_size = self.cache.size();
        Ok(())
    }

    /// How to send `new`, a copy that nobody changes, for the page at `address` in `pass`, which
    /// counts the passes over memory from 0. Send `new` itself if it goes [`Form::Raw`], not what
    /// the guest has made of it since. After the `last` pass nothing is sent any more, so nothing
    /// is remembered.
    pub fn page(&mut self, address: u64, new: &Page, pass: u32, last: bool) -> Form<'_> {
        let Some(old) = self.cache.get(address, pass) else {
            self.stats.cache_miss += 1;
            if !last {
                self.cache.insert(address, new, pass);
            }
            return Form::Raw;
        };
        let encoded = self.encoder.encode(old, new, &mut self.delta);
        if !last && encoded != Encoded::Unchanged {
            *old = *new;
        }
        match encoded {
            Encoded::Unchanged => Form::Unchanged,
            Encoded::Delta(len) => Form::Delta(self.delta.get(..len).unwrap_or_default()),
            Encoded::Overflow => {
                self.stats.overflow += 1;
                Form::Raw
            }
        }
    }

    /// The page at `address` was sent as zeros.
    pub fn zero(&mut self, address: u64, pass: u32) {
        if let Some(old) = self.cache.get(address, pass) {
            *old = [0; PAGE_SIZE];
        }
    }

    /// A delta was sent, in that many bytes with its headers.
    pub fn sent(&mut self, bytes: usize) {
        self.stats.bytes += bytes as u64;
        self.stats.pages += 1;
    }

    /// Forgets what was sent, as when sending begins anew.
    pub fn clear(&mut self) {
        self.cache.clear();
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }
}
