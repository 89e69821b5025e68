//! What the driver is told of a disk (section 5.2.4), and the properties it comes from.
//!
//! Pure, but for the drive's figures, which any thread may read.

use block::{Drive, OnError, Policy};
use resources::class::CreateError;
use resources::props::{Kind, Prop, Props};

/// Feature bits of a disk (section 5.2.3).
pub(super) mod feature {
    /// VIRTIO_BLK_F_SEG_MAX.
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    /// VIRTIO_BLK_F_GEOMETRY.
    pub(crate) const GEOMETRY: u64 = 1 << 4;
    /// VIRTIO_BLK_F_RO.
    pub(crate) const RO: u64 = 1 << 5;
    /// VIRTIO_BLK_F_BLK_SIZE.
    pub(crate) const BLK_SIZE: u64 = 1 << 6;
    /// VIRTIO_BLK_F_FLUSH.
    pub(crate) const FLUSH: u64 = 1 << 9;
    /// VIRTIO_BLK_F_TOPOLOGY.
    pub(crate) const TOPOLOGY: u64 = 1 << 10;
    /// VIRTIO_BLK_F_CONFIG_WCE.
    pub(crate) const CONFIG_WCE: u64 = 1 << 11;
    /// VIRTIO_BLK_F_MQ.
    pub(crate) const MQ: u64 = 1 << 12;
    /// VIRTIO_BLK_F_DISCARD.
    pub(crate) const DISCARD: u64 = 1 << 13;
    /// VIRTIO_BLK_F_WRITE_ZEROES.
    pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Bytes of the configuration.
pub(super) const LEN: u32 = 60;
/// Where the write cache is switched.
pub(super) const WRITEBACK: u32 = 32;

/// Sectors of one discard or write of zeros at most: what fits 2 GiB.
pub(super) const MAX_RANGE: u32 = (1 << 22) - 1;

const ON_ERROR: &[&str] = &["report", "ignore", "stop", "enospc", "auto"];
const ON_OFF_AUTO: &[&str] = &["on", "off", "auto"];

pub(super) const PROPS: &[Prop] = &[
    Prop { name: "drive", kind: Kind::Drive, default: None, help: "the drive it is" },
    Prop {
        name: "logical_block_size",
        kind: Kind::U32(0, 32768),
        default: Some("0"),
        help: "bytes that are read or written as one; 0: as the host has it",
    },
    Prop {
        name: "physical_block_size",
        kind: Kind::U32(0, 2 << 20),
        default: Some("0"),
        help: "bytes that are best written as one; 0: as the host has it",
    },
    Prop {
        name: "min_io_size",
        kind: Kind::U32(0, u32::MAX),
        default: Some("0"),
        help: "the smallest request in bytes that does well",
    },
    Prop {
        name: "opt_io_size",
        kind: Kind::U32(0, u32::MAX),
        default: Some("0"),
        help: "the size of requests in bytes that does best",
    },
    Prop {
        name: "bootindex",
        kind: Kind::U32(0, i32::MAX as u32),
        default: None,
        help: "its place in the boot order, for firmware",
    },
    Prop { name: "serial", kind: Kind::Str, default: None, help: "its serial number" },
    Prop {
        name: "config-wce",
        kind: Kind::Bool,
        default: Some("on"),
        help: "the guest may switch the write cache",
    },
    Prop {
        name: "write-cache",
        kind: Kind::Enum(ON_OFF_AUTO),
        default: Some("auto"),
        help: "whether writes may stay in caches until a flush; auto: as the drive has it",
    },
    Prop {
        name: "share-rw",
        kind: Kind::Bool,
        default: Some("off"),
        help: "other devices and programs may write the disk, too",
    },
    Prop {
        name: "num-queues",
        kind: Kind::U16(1, 1023),
        default: Some("1"),
        help: "how many request queues",
    },
    Prop {
        name: "queue-size",
        kind: Kind::U16(4, 1024),
        default: Some("256"),
        help: "entries of a queue, a power of two",
    },
    Prop { name: "discard", kind: Kind::Bool, default: Some("on"), help: "offer discard" },
    Prop {
        name: "write-zeroes",
        kind: Kind::Bool,
        default: Some("on"),
        help: "offer to write zeros without sending them",
    },
    Prop {
        name: "iothread",
        kind: Kind::Link("iothread"),
        default: None,
        help: "the I/O thread that serves it",
    },
    Prop {
        name: "rerror",
        kind: Kind::Enum(ON_ERROR),
        default: Some("auto"),
        help: "what is done about failed reads; auto: as the drive has it",
    },
    Prop {
        name: "werror",
        kind: Kind::Enum(ON_ERROR),
        default: Some("auto"),
        help: "what is done about failed writes; auto: as the drive has it",
    },
];

/// What the properties say.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) logical: u32,
    pub(super) physical: u32,
    pub(super) min_io: u32,
    pub(super) opt_io: u32,
    pub(super) serial: Vec<u8>,
    pub(super) config_wce: bool,
    pub(super) writeback: bool,
    pub(super) share: bool,
    pub(super) queues: u16,
    pub(super) queue_size: u16,
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
    /// Where it is not the drive's.
    pub(super) policy: Option<Policy>,
}

impl Settings {
    /// Checks what was asked for.
    pub(super) fn new(props: &mut Props, drive: &Drive) -> Result<Settings, CreateError> {
        let wrong = |what: String| CreateError::Other(what);
        let (host_logical, host_physical) = drive.sectors().unwrap_or((512, 512));
        let size = |name: &'static str, default: u32, least: u32| {
            let bytes: u32 = props.get(name)?;
            let bytes = if bytes == 0 { default.max(least) } else { bytes };
            if bytes >= 512 && bytes.is_power_of_two() {
                return Ok(bytes);
            }
            Err(wrong(format!("{name} must be a power of two of at least 512")))
        };
        let logical = size("logical_block_size", host_logical, 512)?;
        let physical = size("physical_block_size", host_physical, logical)?;
        if logical > physical {
            return Err(wrong("logical_block_size > physical_block_size not supported".to_owned()));
        }
        let (min_io, opt_io): (u32, u32) = (props.get("min_io_size")?, props.get("opt_io_size")?);
        for (name, bytes) in [("min_io_size", min_io), ("opt_io_size", opt_io)] {
            if bytes.checked_rem(logical) != Some(0) {
                return Err(wrong(format!("{name} must be a multiple of logical_block_size")));
            }
        }
        if min_io.checked_div(logical).is_none_or(|blocks| blocks > u32::from(u16::MAX)) {
            return Err(wrong("min_io_size must not exceed 65535 logical blocks".to_owned()));
        }
        let queue_size: u16 = props.get("queue-size")?;
        if !queue_size.is_power_of_two() {
            return Err(wrong("queue-size must be a power of two".to_owned()));
        }
        let read = on_error(props.get("rerror")?);
        let write = on_error(props.get("werror")?);
        if read == Some(OnError::Enospc) {
            return Err(wrong("'enospc' invalid read error action".to_owned()));
        }
        let before = drive.policy();
        let policy = (read.is_some() || write.is_some()).then(|| Policy {
            read: read.unwrap_or(before.read),
            write: write.unwrap_or(before.write),
        });
        let writeback = match props.get::<&str>("write-cache")? {
            "on" => true,
            "off" => false,
            _ => drive.write_cache(),
        };
        let own = props.get::<Option<&str>>("serial")?.map(str::to_owned);
        let serial = own.or_else(|| drive.serial()).unwrap_or_default().into_bytes();
        Ok(Settings {
            logical,
            physical,
            min_io,
            opt_io,
            serial,
            config_wce: props.get("config-wce")?,
            writeback,
            share: props.get("share-rw")?,
            queues: props.get("num-queues")?,
            queue_size,
            discard: props.get("discard")?,
            write_zeroes: props.get("write-zeroes")?,
            policy,
        })
    }

    /// What is offered for this drive.
    pub(super) fn features(&self, drive: &Drive) -> u64 {
        let writable = !drive.read_only();
        let when = |on: bool, bit: u64| if on { bit } else { 0 };
        feature::SEG_MAX
            | feature::GEOMETRY
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | when(!writable, feature::RO)
            | when(self.config_wce, feature::CONFIG_WCE)
            | when(self.queues > 1, feature::MQ)
            | when(self.discard && writable, feature::DISCARD)
            | when(self.write_zeroes && writable, feature::WRITE_ZEROES)
    }

    /// The configuration.
    pub(super) fn config(&self, drive: &Drive, writeback: bool) -> Vec<u8> {
        let sectors = drive.size() >> 9;
        let blocks = |bytes: u32| bytes.checked_div(self.logical).unwrap_or(0);
        // 16 heads of 63 sectors, as for any disk that is large enough.
        let cylinders = sectors.checked_div(16 * 63).unwrap_or(0).clamp(2, 16383);
        let mut all = Vec::with_capacity(60);
        all.extend(sectors.to_le_bytes());
        all.extend(0u32.to_le_bytes()); // size_max
        all.extend(u32::from(self.queue_size.saturating_sub(2)).to_le_bytes()); // seg_max
        all.extend(u16::try_from(cylinders).unwrap_or(16383).to_le_bytes());
        all.extend([16, 63]);
        all.extend(self.logical.to_le_bytes());
        let exponent = blocks(self.physical).checked_ilog2().unwrap_or(0);
        all.extend([u8::try_from(exponent).unwrap_or(0), 0]);
        all.extend(u16::try_from(blocks(self.min_io)).unwrap_or(0).to_le_bytes());
        all.extend(blocks(self.opt_io).to_le_bytes());
        all.extend([u8::from(writeback), 0]);
        all.extend(self.queues.to_le_bytes());
        let align = self.logical >> 9;
        all.extend(MAX_RANGE.to_le_bytes());
        all.extend(1u32.to_le_bytes()); // max_discard_seg
        all.extend(align.to_le_bytes()); // discard_sector_alignment
        all.extend(MAX_RANGE.to_le_bytes());
        all.extend(1u32.to_le_bytes()); // max_write_zeroes_seg
        all.extend([1, 0, 0, 0]); // write_zeroes_may_unmap
        all
    }
}

fn on_error(word: &str) -> Option<OnError> {
    match word {
        "report" => Some(OnError::Report),
        "ignore" => Some(OnError::Ignore),
        "stop" => Some(OnError::Stop),
        "enospc" => Some(OnError::Enospc),
        _ => None,
    }
}
