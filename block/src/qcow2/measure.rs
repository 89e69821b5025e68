//! How large an image would become.
//!
//! Pure functions; sizes come from clients.

use super::create::{CreateError, CreateOptions, Preallocation, refcounts_for};

/// How many bytes a file needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// For the data there are. All metadata that the whole disk may ever need is counted.
    pub required: u64,
    /// For a disk full of data.
    pub fully_allocated: u64,
    /// For the persistent bitmaps, if there are any, on top of either.
    pub bitmaps: Option<u64>,
}

/// The data of a disk, counted in clusters that are touched.
#[derive(Debug, Clone, Copy)]
pub struct Touched {
    cluster: u64,
    bytes: u64,
    end: u64,
}

impl Touched {
    /// Nothing yet, in clusters of this many bytes: a power of two.
    pub fn new(cluster: u64) -> Touched {
        Touched { cluster: cluster.max(1), bytes: 0, end: 0 }
    }

    /// Takes a range with data. Ranges come in their order and do not overlap.
    pub fn add(&mut self, offset: u64, len: u64) {
        let start = (offset / self.cluster * self.cluster).max(self.end);
        let end = offset.saturating_add(len).div_ceil(self.cluster).saturating_mul(self.cluster);
        if len > 0 && end > start {
            self.bytes += end - start;
            self.end = end;
        }
    }

    /// Bytes of the clusters touched.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What an image of these options needs. `data`: bytes of whole clusters with data, as [`Touched`]
/// counts them. `bitmaps`: length of the name, and bytes that a bit stands for, of each persistent
/// bitmap of a source that can have some.
///
/// # Errors
/// As making the image.
pub fn measure(
    options: &CreateOptions,
    data: u64,
    bitmaps: Option<&[(usize, u64)]>,
) -> Result<Measure, CreateError> {
    let layout = options.layout()?;
    let header = &layout.header;
    let cluster = header.cluster_size();
    let l1 = (u64::from(header.l1_entries) * 8).div_ceil(cluster);
    let used = (1 + l1 + layout.l2).saturating_add(layout.data);
    let (table, blocks) = refcounts_for(header, used);
    let bytes = |clusters: u64| clusters.checked_mul(cluster).ok_or(CreateError::TooLarge);
    let metadata = bytes(1 + l1 + layout.l2 + table + blocks)?;
    let all = bytes(layout.data)?;
    let data = match options.preallocation {
        Preallocation::Falloc | Preallocation::Full => all,
        _ => data.min(all),
    };
    let fully_allocated = metadata.checked_add(all).ok_or(CreateError::TooLarge)?;
    let bitmaps = bitmaps.map(|bitmaps| bitmap_bytes(header.size, cluster, bitmaps));
    Ok(Measure { required: metadata + data, fully_allocated, bitmaps })
}

/// Bytes of directory, tables and bits.
fn bitmap_bytes(size: u64, cluster: u64, bitmaps: &[(usize, u64)]) -> u64 {
    let (mut clusters, mut directory) = (0u64, 0u64);
    for (name, granularity) in bitmaps {
        let bits = size.div_ceil((*granularity).max(1));
        let data = bits.div_ceil(8).div_ceil(cluster);
        clusters = clusters.saturating_add(data + (data * 8).div_ceil(cluster));
        directory = directory.saturating_add((24 + *name as u64).next_multiple_of(8));
    }
    clusters.saturating_add(directory.div_ceil(cluster)).saturating_mul(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: u64, cluster_size: u64, refcount_bits: u32) -> (u64, u64) {
        let options =
            CreateOptions { size, cluster_size, refcount_bits, ..CreateOptions::default() };
        let sizes = measure(&options, 0, None).unwrap();
        (sizes.required, sizes.fully_allocated)
    }

    #[test]
    fn sizes_are_those_that_are_known() {
        // As the format's reference tool (7.2) tells.
        assert_eq!(of(1 << 30, 65_536, 16), (393_216, 1_074_135_040));
        assert_eq!(of(0, 65_536, 16), (196_608, 196_608));
        assert_eq!(of(1 << 40, 65_536, 16), (168_034_304, 1_099_679_662_080));
        assert_eq!(of(12_345 * 512, 512, 64), (205_824, 6_526_464));
        assert_eq!(of(1 << 40, 2 << 20, 1), (12_582_912, 1_099_524_210_688));
    }

    #[test]
    fn data_and_bitmaps_are_counted() {
        let options = CreateOptions { size: 1 << 30, ..CreateOptions::default() };
        let mut touched = Touched::new(65_536);
        touched.add(100, 10);
        touched.add(200, 65_536);
        touched.add(1 << 20, 1);
        assert_eq!(touched.bytes(), 3 << 16);
        let sizes = measure(&options, touched.bytes(), Some(&[(2, 65_536), (1, 512)])).unwrap();
        assert_eq!(sizes.required, 393_216 + (3 << 16));
        assert_eq!(sizes.bitmaps, Some((2 + 5 + 1) << 16));
        let full = CreateOptions { preallocation: Preallocation::Full, ..options };
        let sizes = measure(&full, 0, None).unwrap();
        assert_eq!(sizes.required, sizes.fully_allocated);
        let far = CreateOptions { size: u64::MAX, ..CreateOptions::default() };
        assert!(measure(&far, 0, None).is_err());
    }
}
