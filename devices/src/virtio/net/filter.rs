//! Which frames a guest wants to see.
//!
//! The receive modes, the tables of MAC addresses and the filter of VLANs that a driver sets by
//! the control queue (virtio 1.x, sections 5.1.6.5.1 to 5.1.6.5.3). The device's control queue
//! writes it, its receive queues ask it for each frame, query-rx-filter shows it.
//!
//! A guest can make the tables no larger than [`MAC_ENTRIES`]; a table that does not fit lets
//! every address of its kind pass, as the specification wants. No thread and no lock of its own.

use resources::state::{StateError, invalid};
use serde::{Deserialize, Serialize};

/// A hardware address.
pub type Mac = [u8; 6];

/// How many addresses both tables hold together.
pub const MAC_ENTRIES: usize = 64;

/// How many VLANs there are.
pub const VLANS: u16 = 4096;

const BROADCAST: Mac = [0xff; 6];

/// The type of a frame that carries a VLAN tag.
const TAGGED: u16 = 0x8100;

/// A receive mode; the numbers are those of the control queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Promisc,
    /// All multicast passes.
    AllMulti,
    /// All unicast passes.
    AllUni,
    /// No multicast passes.
    NoMulti,
    /// No unicast passes.
    NoUni,
    /// No broadcast passes.
    NoBcast,
}

impl Mode {
    /// The mode of a number.
    pub fn from_number(number: u8) -> Option<Mode> {
        Some(match number {
            0 => Mode::Promisc,
            1 => Mode::AllMulti,
            2 => Mode::AllUni,
            3 => Mode::NoMulti,
            4 => Mode::NoUni,
            5 => Mode::NoBcast,
            _ => return None,
        })
    }
}

/// The whole filter. It is its own saved state; [`Filter::check`] what comes from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Everything passes.
    pub promisc: bool,
    /// All multicast passes.
    pub allmulti: bool,
    /// All unicast passes.
    pub alluni: bool,
    /// No multicast passes.
    pub nomulti: bool,
    /// No unicast passes.
    pub nouni: bool,
    /// No broadcast passes.
    pub nobcast: bool,
    /// The device's own address.
    pub mac: Mac,
    /// Other addresses that pass.
    pub unicast: Vec<Mac>,
    /// Groups that pass.
    pub multicast: Vec<Mac>,
    /// There were too many addresses: all pass.
    pub unicast_overflow: bool,
    /// There were too many groups: all pass.
    pub multicast_overflow: bool,
    /// A bit for each VLAN that passes; empty while the guest does not filter VLANs.
    #[serde(with = "resources::state::bytes")]
    pub vlans: Vec<u8>,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter::new([0; 6])
    }
}

impl Filter {
    /// The filter of a device after reset: everything passes, for drivers that know of none.
    pub fn new(mac: Mac) -> Filter {
        Filter {
            promisc: true,
            allmulti: false,
            alluni: false,
            nomulti: false,
            nouni: false,
            nobcast: false,
            mac,
            unicast: Vec::new(),
            multicast: Vec::new(),
            unicast_overflow: false,
            multicast_overflow: false,
            vlans: Vec::new(),
        }
    }

    /// Turns a mode on or off.
    pub fn set_mode(&mut self, mode: Mode, on: bool) {
        *match mode {
            Mode::Promisc => &mut self.promisc,
            Mode::AllMulti => &mut self.allmulti,
            Mode::AllUni => &mut self.alluni,
            Mode::NoMulti => &mut self.nomulti,
            Mode::NoUni => &mut self.nouni,
            Mode::NoBcast => &mut self.nobcast,
        } = on;
    }

    /// Replaces the tables. What does not fit lets everything of its kind pass.
    pub fn set_tables(
        &mut self,
        unicast: impl ExactSizeIterator<Item = Mac>,
        multicast: impl ExactSizeIterator<Item = Mac>,
    ) {
        self.unicast_overflow = unicast.len() > MAC_ENTRIES;
        self.unicast = if self.unicast_overflow { Vec::new() } else { unicast.collect() };
        let room = MAC_ENTRIES.saturating_sub(self.unicast.len());
        self.multicast_overflow = multicast.len() > room;
        self.multicast = if self.multicast_overflow { Vec::new() } else { multicast.collect() };
    }

    /// Begins to filter VLANs, of which none passes yet, or stops doing so.
    pub fn filter_vlans(&mut self, on: bool) {
        self.vlans = if on { vec![0; usize::from(VLANS / 8)] } else { Vec::new() };
    }

    /// Lets a VLAN pass, or no longer; `false` if there is no such VLAN.
    pub fn set_vlan(&mut self, vlan: u16, pass: bool) -> bool {
        let Some(byte) = self.vlans.get_mut(usize::from(vlan / 8)) else { return false };
        let bit = 1 << (vlan % 8);
        *byte = if pass { *byte | bit } else { *byte & !bit };
        true
    }

    /// Whether a VLAN passes.
    pub fn passes_vlan(&self, vlan: u16) -> bool {
        self.vlans.is_empty()
            || self.vlans.get(usize::from(vlan / 8)).is_some_and(|byte| byte & 1 << (vlan % 8) != 0)
    }

    /// Whether a frame passes, of which at least the Ethernet header and a VLAN tag are given. One
    /// too short for an Ethernet header does not.
    pub fn passes(&self, frame: &[u8]) -> bool {
        let Some((to, rest)) = frame.split_first_chunk::<6>() else { return false };
        let Some(&kind) = rest.get(6..).and_then(<[u8]>::first_chunk) else { return false };
        if self.promisc {
            return true;
        }
        if u16::from_be_bytes(kind) == TAGGED {
            let Some(&tag) = rest.get(8..).and_then(<[u8]>::first_chunk) else { return false };
            if !self.passes_vlan(u16::from_be_bytes(tag) % VLANS) {
                return false;
            }
        }
        let [first, ..] = to;
        if *to == BROADCAST {
            !self.nobcast
        } else if first & 1 != 0 {
            !self.nomulti
                && (self.allmulti || self.multicast_overflow || self.multicast.contains(to))
        } else {
            !self.nouni
                && (self.alluni
                    || self.unicast_overflow
                    || *to == self.mac
                    || self.unicast.contains(to))
        }
    }

    /// Checks a filter that comes from outside.
    ///
    /// # Errors
    /// When a driver could not have set it.
    pub fn check(&self) -> Result<(), StateError> {
        let entries = self.unicast.len().saturating_add(self.multicast.len());
        if entries > MAC_ENTRIES {
            return Err(invalid(format!("{entries} addresses in the receive filter")));
        }
        if ![0, usize::from(VLANS / 8)].contains(&self.vlans.len()) {
            return Err(invalid(format!("a VLAN filter of {} bytes", self.vlans.len())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 9];

    fn frame(to: Mac, vlan: Option<u16>) -> Vec<u8> {
        let mut frame = to.to_vec();
        frame.extend([0x52, 0, 0, 0, 0, 1]);
        match vlan {
            Some(vlan) => {
                frame.extend([0x81, 0]);
                frame.extend((vlan | 0x6000).to_be_bytes());
            }
            None => frame.extend([8, 0, 0, 0]),
        }
        frame
    }

    fn quiet() -> Filter {
        Filter { promisc: false, ..Filter::new(OWN) }
    }

    #[test]
    fn a_fresh_filter_lets_everything_pass() {
        let filter = Filter::new(OWN);
        for to in [OWN, GROUP, OTHER, BROADCAST] {
            assert!(filter.passes(&frame(to, Some(7))));
        }
        assert!(!filter.passes(&[0xff; 13]));
    }

    #[test]
    fn modes() {
        let mut filter = quiet();
        let sees = |filter: &Filter| {
            [OWN, OTHER, GROUP, BROADCAST].map(|to| filter.passes(&frame(to, None)))
        };
        assert_eq!(sees(&filter), [true, false, false, true]);
        for (number, expected) in [
            (0, [true, true, true, true]),
            (1, [true, false, true, true]),
            (2, [true, true, false, true]),
            (3, [true, false, false, true]),
            (4, [false, false, false, true]),
            (5, [true, false, false, false]),
        ] {
            let mode = Mode::from_number(number).unwrap();
            filter.set_mode(mode, true);
            assert_eq!(sees(&filter), expected, "{mode:?}");
            filter.set_mode(mode, false);
        }
        assert_eq!(Mode::from_number(6), None);
        filter.set_mode(Mode::AllMulti, true);
        filter.set_mode(Mode::NoMulti, true);
        assert_eq!(sees(&filter), [true, false, false, true]);
    }

    #[test]
    fn tables_and_their_overflow() {
        let mut filter = quiet();
        filter.set_tables([OTHER].into_iter(), [GROUP].into_iter());
        assert!(filter.passes(&frame(OTHER, None)) && filter.passes(&frame(GROUP, None)));
        assert!(!filter.passes(&frame([2, 0, 0, 0, 0, 10], None)));
        // 63 addresses leave room for one group.
        filter.set_tables([OTHER; 63].into_iter(), [GROUP; 2].into_iter());
        assert!(filter.multicast_overflow && filter.multicast.is_empty());
        assert!(!filter.unicast_overflow && filter.check().is_ok());
        assert!(filter.passes(&frame([3; 6], None)));
        filter.set_tables([OTHER; 65].into_iter(), [GROUP; 64].into_iter());
        assert!(filter.unicast_overflow && !filter.multicast_overflow);
        assert!(filter.passes(&frame([4; 6], None)));
        filter.set_tables([].into_iter(), [].into_iter());
        assert!(!filter.unicast_overflow && !filter.passes(&frame(OTHER, None)));
    }

    #[test]
    fn vlans() {
        let mut filter = quiet();
        assert!(filter.passes(&frame(OWN, Some(5))), "not filtered");
        assert!(!filter.set_vlan(5, true), "not negotiated");
        filter.filter_vlans(true);
        assert!(!filter.passes(&frame(OWN, Some(5))));
        for vlan in [0, 5, 31, 4095] {
            assert!(filter.set_vlan(vlan, true));
            assert!(filter.passes(&frame(OWN, Some(vlan))), "{vlan}");
        }
        assert!(!filter.set_vlan(4096, true));
        filter.set_vlan(5, false);
        assert!(!filter.passes(&frame(OWN, Some(5))));
        assert!(filter.passes(&frame(OWN, None)));
    }

    #[test]
    fn what_no_driver_could_set_is_refused() {
        assert!(Filter { unicast: vec![OWN; 65], ..quiet() }.check().is_err());
        assert!(Filter { vlans: vec![0; 511], ..quiet() }.check().is_err());
    }

    proptest! {
        #[test]
        fn no_frame_is_too_odd(frame: Vec<u8>, vlans: bool) {
            let mut filter = quiet();
            filter.filter_vlans(vlans);
            filter.passes(&frame);
        }
    }
}
