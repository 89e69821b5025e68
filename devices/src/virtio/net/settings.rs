//! The properties of a card.
//!
//! Main thread; values come from the user or a client.

use resources::class::CreateError;
use resources::props::{Kind, Prop, Props};

use super::features::Features;
use crate::net::{Cable, Mac, Offloads};

/// A property that offers a feature.
const fn offer(name: &'static str, default: &'static str, help: &'static str) -> Prop {
    Prop { name, kind: Kind::Bool, default: Some(default), help }
}

/// The properties of every virtio-net device.
pub const PROPS: &[Prop] = &[
    Prop { name: "mac", kind: Kind::Mac, default: None, help: "its address" },
    Prop { name: "netdev", kind: Kind::Netdev, default: None, help: "the back end" },
    offer("csum", "on", "complete checksums for the guest"),
    offer("guest_csum", "on", "give the guest frames without a checksum"),
    offer("gso", "on", "cut the guest's long frames into segments"),
    offer("guest_tso4", "on", "give the guest long TCP segments over IPv4"),
    offer("guest_tso6", "on", "give the guest long TCP segments over IPv6"),
    offer("guest_ecn", "on", "give the guest long TCP segments with ECN"),
    offer("host_tso4", "on", "take long TCP segments over IPv4"),
    offer("host_tso6", "on", "take long TCP segments over IPv6"),
    offer("host_ecn", "on", "take long TCP segments with ECN"),
    offer("guest_uso4", "on", "give the guest long UDP datagrams over IPv4"),
    offer("guest_uso6", "on", "give the guest long UDP datagrams over IPv6"),
    offer("host_uso", "on", "take long UDP datagrams"),
    offer("mrg_rxbuf", "on", "spread a frame over several buffers"),
    offer("status", "on", "tell the guest whether the link is up"),
    offer("guest_announce", "on", "have the guest announce its addresses"),
    offer("ctrl_vq", "on", "offer a control queue"),
    offer("ctrl_rx", "on", "offer receive modes and tables of addresses"),
    offer("ctrl_vlan", "on", "offer a filter of VLANs"),
    offer("ctrl_rx_extra", "on", "offer more receive modes"),
    offer("ctrl_mac_addr", "on", "let the guest change its address"),
    offer("ctrl_guest_offloads", "on", "let the guest change what it takes"),
    offer("mq", "off", "offer all queues of the back end"),
    Prop {
        name: "host_mtu",
        kind: Kind::U16(0, u16::MAX),
        default: Some("0"),
        help: "the MTU that the guest is told; 0: none",
    },
    Prop {
        name: "speed",
        kind: Kind::U32(0, MOST_SPEED),
        default: None,
        help: "the speed that the guest is told, in Mbit/s",
    },
    Prop {
        name: "duplex",
        kind: Kind::Enum(&["half", "full"]),
        default: None,
        help: "the duplex mode that the guest is told",
    },
    Prop {
        name: "bootindex",
        kind: Kind::U32(0, 0x7fff_ffff),
        default: None,
        help: "its place in the boot order, for firmware",
    },
    Prop {
        name: "rx_queue_size",
        kind: Kind::U16(0, u16::MAX),
        default: Some("256"),
        help: "entries of a receive queue",
    },
    Prop {
        name: "tx_queue_size",
        kind: Kind::U16(0, u16::MAX),
        default: Some("256"),
        help: "entries of a transmit queue",
    },
];

/// The highest speed that can be told (section 5.1.4).
const MOST_SPEED: u32 = 0x7fff_ffff;
/// The speed, or the duplex mode, is not known.
const UNKNOWN_SPEED: u32 = u32::MAX;
const UNKNOWN_DUPLEX: u8 = 0xff;

/// The smallest MTU of an Ethernet.
const MIN_MTU: u16 = 68;

/// The most pairs of queues: as many as virtio allows, and the kernel's limit for a tap.
pub(super) const MAX_PAIRS: u16 = 256;

/// What the properties say.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// What may be offered.
    features: Features,
    /// 0: none.
    pub(super) mtu: u16,
    /// As the configuration has them.
    pub(super) speed: u32,
    pub(super) duplex: u8,
    pub(super) rx_size: u16,
    pub(super) tx_size: u16,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// When a value is out of range.
    pub(super) fn new(props: &Props) -> Result<Settings, CreateError> {
        let mut features = Features::MAC;
        for (name, feature) in [
            ("csum", Features::CSUM),
            ("guest_csum", Features::GUEST_CSUM),
            ("guest_tso4", Features::GUEST_TSO4),
            ("guest_tso6", Features::GUEST_TSO6),
            ("guest_ecn", Features::GUEST_ECN),
            ("host_tso4", Features::HOST_TSO4),
            ("host_tso6", Features::HOST_TSO6),
            ("host_ecn", Features::HOST_ECN),
            ("guest_uso4", Features::GUEST_USO4),
            ("guest_uso6", Features::GUEST_USO6),
            ("host_uso", Features::HOST_USO),
            ("mrg_rxbuf", Features::MRG_RXBUF),
            ("status", Features::STATUS),
            ("guest_announce", Features::GUEST_ANNOUNCE),
            ("ctrl_vq", Features::CTRL_VQ),
            ("ctrl_rx", Features::CTRL_RX),
            ("ctrl_vlan", Features::CTRL_VLAN),
            ("ctrl_rx_extra", Features::CTRL_RX_EXTRA),
            ("ctrl_mac_addr", Features::CTRL_MAC_ADDR),
            ("ctrl_guest_offloads", Features::CTRL_GUEST_OFFLOADS),
            ("mq", Features::MQ),
        ] {
            features.set(feature, props.get(name)?);
        }
        if !props.get::<bool>("gso")? {
            features.remove(Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_USO);
        }
        let mtu: u16 = props.get("host_mtu")?;
        if (1..MIN_MTU).contains(&mtu) {
            let why = format!("Invalid host_mtu (= {mtu}), must be at least {MIN_MTU}.");
            return Err(CreateError::Other(why));
        }
        features.set(Features::MTU, mtu != 0);
        let speed = props.get::<Option<u32>>("speed")?;
        let duplex = props.get::<Option<&str>>("duplex")?.map(|word| u8::from(word == "full"));
        features.set(Features::SPEED_DUPLEX, speed.is_some() || duplex.is_some());
        let size = |name| {
            let size: u16 = props.get(name)?;
            if (256..=1024).contains(&size) && size.is_power_of_two() {
                return Ok(size);
            }
            let why = "must be a power of 2 between 256 and 1024.";
            Err(CreateError::Other(format!("Invalid {name} (= {size}), {why}")))
        };
        Ok(Settings {
            features,
            mtu,
            speed: speed.unwrap_or(UNKNOWN_SPEED),
            duplex: duplex.unwrap_or(UNKNOWN_DUPLEX),
            rx_size: size("rx_queue_size")?,
            tx_size: size("tx_queue_size")?,
        })
    }

    /// What is offered on a cable: towards the guest only what the back end may leave out.
    pub(super) fn offered(&self, cable: &Cable) -> Features {
        let caps = cable.caps();
        let given = if caps.header { caps.offloads } else { Offloads::empty() };
        let mut features = self.features;
        for (feature, offload) in [
            (Features::GUEST_CSUM, Offloads::CSUM),
            (Features::GUEST_TSO4, Offloads::TSO4),
            (Features::GUEST_TSO6, Offloads::TSO6),
            (Features::GUEST_ECN, Offloads::ECN),
            (Features::GUEST_USO4, Offloads::USO4),
            (Features::GUEST_USO6, Offloads::USO6),
        ] {
            if !given.contains(offload) {
                features.remove(feature);
            }
        }
        if features.intersection(Features::GUEST_OFFLOADS).is_empty() {
            features.remove(Features::CTRL_GUEST_OFFLOADS);
        }
        features.effective()
    }
}

/// The address that a property gives.
///
/// # Errors
/// When it is none, or that of a group.
pub(super) fn mac(props: &Props) -> Result<Option<Mac>, CreateError> {
    let Some(text) = props.get::<Option<&str>>("mac")? else { return Ok(None) };
    match text.parse::<Mac>() {
        Ok(mac) => Ok(Some(mac)),
        Err(_) => Err(CreateError::Other(format!(
            "Property '{}.mac' doesn't take value '{text}'",
            props.class()
        ))),
    }
}
