//! The features that a driver can negotiate, and the properties that offer them.
//!
//! Plain data: any thread, no lock. A driver may accept any part of what is offered, also one that
//! makes no sense; what depends on something that it did not accept is then without effect.

use bitflags::bitflags;

bitflags! {
    /// Feature bits of virtio-net (virtio 1.x, section 5.1.3) that this device knows.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u64 {
        /// The device completes checksums.
        const CSUM = 1;
        /// The driver takes frames without a checksum.
        const GUEST_CSUM = 1 << 1;
        /// What the driver takes can be changed by the control queue.
        const CTRL_GUEST_OFFLOADS = 1 << 2;
        /// The device tells the MTU.
        const MTU = 1 << 3;
        /// The device has an address.
        const MAC = 1 << 5;
        /// The driver takes long segments of TCP over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes long segments of TCP over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The driver takes long segments with ECN.
        const GUEST_ECN = 1 << 9;
        /// The device takes long segments of TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device takes long segments of TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// The device takes long segments with ECN.
        const HOST_ECN = 1 << 13;
        /// The driver takes a frame that is spread over buffers.
        const MRG_RXBUF = 1 << 15;
        /// The device tells whether the link is up.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// It has receive modes and tables of addresses.
        const CTRL_RX = 1 << 18;
        /// It has a filter of VLANs.
        const CTRL_VLAN = 1 << 19;
        /// It has more receive modes.
        const CTRL_RX_EXTRA = 1 << 20;
        /// The driver announces its addresses when asked to.
        const GUEST_ANNOUNCE = 1 << 21;
        /// There are several pairs of queues.
        const MQ = 1 << 22;
        /// The address can be set by the control queue.
        const CTRL_MAC_ADDR = 1 << 23;
        /// The driver takes long datagrams of UDP over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes long datagrams of UDP over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The device takes long datagrams of UDP.
        const HOST_USO = 1 << 56;
        /// The device tells its speed and duplex mode.
        const SPEED_DUPLEX = 1 << 63;
    }
}

impl Features {
    /// What the driver takes of frames that it is given, as the control queue sets it.
    pub const GUEST_OFFLOADS: Features = Features::GUEST_CSUM
        .union(Features::GUEST_TSO4)
        .union(Features::GUEST_TSO6)
        .union(Features::GUEST_ECN)
        .union(Features::GUEST_USO4)
        .union(Features::GUEST_USO6);

    /// These, without those that are of no effect without another one.
    #[must_use]
    pub fn effective(self) -> Features {
        let mut left = self;
        let mut needs = |what: Features, any_of: Features| {
            if !left.intersects(any_of) {
                left.remove(what);
            }
        };
        let host = Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_USO;
        let guest = Features::GUEST_OFFLOADS.difference(Features::GUEST_CSUM);
        let control = Features::CTRL_RX
            | Features::CTRL_VLAN
            | Features::GUEST_ANNOUNCE
            | Features::MQ
            | Features::CTRL_MAC_ADDR
            | Features::CTRL_GUEST_OFFLOADS;
        needs(host, Features::CSUM);
        needs(Features::HOST_ECN, Features::HOST_TSO4 | Features::HOST_TSO6);
        needs(guest, Features::GUEST_CSUM);
        needs(Features::GUEST_ECN, Features::GUEST_TSO4 | Features::GUEST_TSO6);
        needs(control, Features::CTRL_VQ);
        needs(Features::CTRL_RX_EXTRA, Features::CTRL_RX);
        left
    }

    /// The longest frame that a driver with these features is given, without its header.
    pub fn long_frames(self) -> bool {
        self.intersects(Features::GUEST_OFFLOADS.difference(Features::GUEST_CSUM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_nothing_accepted_is_without_effect() {
        assert_eq!(Features::all().effective(), Features::all());
        assert_eq!(
            (Features::all() - Features::CSUM).effective() & Features::HOST_ECN,
            Features::empty()
        );
        let alone = Features::MQ | Features::GUEST_TSO4 | Features::GUEST_ECN | Features::HOST_USO;
        assert_eq!(alone.effective(), Features::empty());
        let kept = Features::CTRL_VQ | Features::MQ | Features::STATUS | Features::MRG_RXBUF;
        assert_eq!((kept | Features::CTRL_RX_EXTRA).effective(), kept);
    }
}
