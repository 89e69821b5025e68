//! What a stream needs of the destination beyond pages and states: told with the inventory, so that
//! one that does not know it refuses, by its name, while the guest runs at home.
//!
//! Plain data, read from anybody.

use resources::state::{Blob, StateError, bytes};
use serde::{Deserialize, Serialize};

use crate::stream::Error;

const MULTIFD: &str = "multifd";
const COMPRESS: &str = "compress";

/// The names that are known here.
pub(crate) const KNOWN: &[&str] = &[MULTIFD, COMPRESS];

/// What a stream needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Memory comes by channels of its own.
    pub(crate) channels: Option<Announcement>,
    /// Pages may be packed with zstd.
    pub(crate) compress: bool,
}

/// The channels that are to come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    /// How many.
    pub(crate) count: u8,
    /// What all of them show, so that no stranger is taken for one.
    #[serde(with = "bytes")]
    pub(crate) session: Vec<u8>,
}

impl Needs {
    pub(crate) fn put(&self, mut blob: Blob) -> Result<Blob, StateError> {
        if let Some(channels) = &self.channels {
            blob = blob.with_need(MULTIFD, channels)?;
        }
        if self.compress {
            blob = blob.with_need(COMPRESS, &"zstd")?;
        }
        Ok(blob)
    }

    pub(crate) fn of(blob: &Blob) -> Result<Needs, Error> {
        let failed = |error: StateError| Error::bad(format!("the inventory: {error}"));
        let method: Option<String> = blob.need(COMPRESS).map_err(failed)?;
        if let Some(method) = method.as_ref().filter(|method| *method != "zstd") {
            return Err(Error::bad(format!("pages are compressed with '{method}', not 'zstd'")));
        }
        let channels: Option<Announcement> = blob.need(MULTIFD).map_err(failed)?;
        if let Some(channels) = &channels {
            channels.check()?;
        }
        Ok(Needs { channels, compress: method.is_some() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_told() {
        let blob = || Blob::new(1, &7_u8).unwrap();
        let channels = Some(Announcement { count: 3, session: vec![9; 16] });
        for needs in [
            Needs::default(),
            Needs { channels: channels.clone(), compress: false },
            Needs { channels, compress: true },
        ] {
            assert_eq!(Needs::of(&needs.put(blob()).unwrap()).unwrap(), needs);
        }
        let other = blob().with_need(COMPRESS, &"zip").unwrap();
        let error = Needs::of(&other).unwrap_err().to_string();
        assert_eq!(error, "pages are compressed with 'zip', not 'zstd'");
        let other = blob().with_need(MULTIFD, &"many").unwrap();
        Needs::of(&other).unwrap_err();
    }
}
