//! Kinds of images: every feature of the format, alone and with what matters beside it.

/// A kind of image.
pub(super) struct Variant {
    /// Options of the format, as `-o` takes them.
    pub(super) options: &'static str,
    /// Clusters that are compressed cannot be in it.
    pub(super) plain: bool,
    /// Snapshots cannot be in it.
    pub(super) single: bool,
}

const fn variant(options: &'static str) -> Variant {
    Variant { options, plain: false, single: false }
}

/// All of them.
pub(super) const ALL: &[Variant] = &[
    variant("compat=1.1"),
    variant("compat=0.10"),
    variant("cluster_size=512"),
    variant("cluster_size=4k,compat=0.10"),
    variant("cluster_size=4k"),
    variant("cluster_size=2M"),
    variant("refcount_bits=1"),
    variant("refcount_bits=2,cluster_size=1k"),
    variant("refcount_bits=4"),
    variant("refcount_bits=8"),
    variant("refcount_bits=32"),
    variant("refcount_bits=64,cluster_size=512"),
    variant("lazy_refcounts=on"),
    variant("compression_type=zstd"),
    variant("extended_l2=on"),
    variant("extended_l2=on,cluster_size=16k"),
    variant("preallocation=metadata"),
    variant("preallocation=falloc"),
    variant("preallocation=full,cluster_size=4k"),
    variant("extended_l2=on,preallocation=metadata"),
    Variant { options: "data_file=data.raw", plain: true, single: true },
    Variant { options: "data_file=data.raw,data_file_raw=on", plain: true, single: true },
];

/// The size of their disks.
pub(super) const SIZE: u64 = 6 << 20;

/// What is written to a disk, and the same of a raw one: data that begins and ends within clusters,
/// that crosses them, zeros, and something to be overwritten.
pub(super) fn writes(seed: u64) -> Vec<String> {
    let byte = |n: u64| 1 + (seed * 31 + n) % 254;
    let lines = [
        format!("write -P {} 0 64k", byte(0)),
        format!("write -P {} 100k 300k", byte(1)),
        format!("write -P {} 1000 3000", byte(2)),
        format!("write -P {} 2M 1M", byte(3)),
        format!("write -z {} 128k", (2 << 20) + 65536),
        "write -z 4M 4k".to_owned(),
        "write -zu 2500k 130k".to_owned(),
        format!("write -P {} {} 512", byte(4), SIZE - 512),
        format!("write -P {} 4200000 70000", byte(5)),
        format!("writev -P {} 5M 1k 2k 3k", byte(6)),
    ];
    lines.to_vec()
}
