//! Commands about network cards: their links, and what they receive.
//!
//! Main thread. Names are a client's; what a card receives is its guest's choice.

use devices::net::{Client, Mac, NetError, NicEntry};
use devices::virtio::net::filter::{Filter, VLANS};
use qmp::{Event, Handle, QmpError, QueryRxFilter, RxFilterInfo, RxState, SetLink};

use crate::vm::Vm;

impl Handle<SetLink> for Vm {
    fn handle(&mut self, SetLink { name, up }: SetLink) -> Result<(), QmpError> {
        self.nets.network().set_link(&name, up).map_err(|error| match error {
            NetError::NotFound(name) => QmpError::device_not_found(&name),
            error => QmpError::generic(error.to_string()),
        })
    }
}

impl Handle<QueryRxFilter> for Vm {
    fn handle(
        &mut self,
        QueryRxFilter { name }: QueryRxFilter,
    ) -> Result<Vec<RxFilterInfo>, QmpError> {
        let network = self.nets.network();
        let Some(name) = name else {
            return Ok(network.nics().iter().filter_map(|nic| rx_filter(nic)).collect());
        };
        match network.client(&name) {
            None => Err(QmpError::generic(format!("invalid net client name: {name}"))),
            Some(Client::Nic(nic)) => rx_filter(&nic).map(|info| vec![info]).ok_or_else(|| {
                let why = "doesn't support rx-filter querying";
                QmpError::generic(format!("net client({name}) {why}"))
            }),
            Some(_) => Err(QmpError::generic(format!("net client({name}) isn't a NIC"))),
        }
    }
}

impl Vm {
    /// Tells clients which cards receive something else now.
    pub fn tell_rx_filters(&mut self) {
        for nic in self.nets.network().nics() {
            let Some(path) = nic.front().and_then(|front| front.take_filter_change()) else {
                continue;
            };
            // A card without an id has no name that a client has given it.
            let named = path.starts_with("/machine/peripheral/");
            let name = named.then(|| nic.name().to_owned());
            let path = format!("{path}/virtio-backend");
            self.context.raise(Event::NicRxFilterChanged { name, path });
        }
    }
}

/// What a card receives, if it has a filter; it tells of the next change.
fn rx_filter(nic: &NicEntry) -> Option<RxFilterInfo> {
    let filter = nic.front()?.rx_filter()?;
    Some(info(nic.name(), &filter))
}

/// The tables are newest first.
fn info(name: &str, filter: &Filter) -> RxFilterInfo {
    let table = |table: &[[u8; 6]]| table.iter().rev().map(|mac| Mac(*mac).to_string()).collect();
    let state = |none, all| match (none, all) {
        (true, _) => RxState::None,
        (_, true) => RxState::All,
        _ => RxState::Normal,
    };
    let vlans = (0..VLANS).rev().filter(|vlan| filter.passes_vlan(*vlan));
    RxFilterInfo {
        promiscuous: filter.promisc,
        name: name.to_owned(),
        main_mac: Mac(filter.mac).to_string(),
        unicast: state(filter.nouni, filter.alluni),
        vlan_table: vlans.map(i64::from).collect(),
        unicast_table: table(&filter.unicast),
        multicast: state(filter.nomulti, filter.allmulti),
        multicast_overflow: filter.multicast_overflow,
        unicast_overflow: filter.unicast_overflow,
        multicast_table: table(&filter.multicast),
        // Clients know it with this meaning.
        broadcast_allowed: filter.nobcast,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_as_clients_see_it() {
        let mut filter =
            Filter { promisc: false, ..Filter::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]) };
        filter.set_tables([[2; 6], [4; 6]].into_iter(), [[1; 6]].into_iter());
        filter.filter_vlans(true);
        for vlan in [5, 31, 63] {
            filter.set_vlan(vlan, true);
        }
        (filter.allmulti, filter.nouni, filter.nobcast) = (true, true, true);
        let info = info("n0", &filter);
        assert_eq!((&*info.name, &*info.main_mac), ("n0", "52:54:00:12:34:56"));
        assert_eq!(info.unicast_table, ["04:04:04:04:04:04", "02:02:02:02:02:02"]);
        assert_eq!(info.multicast_table, ["01:01:01:01:01:01"]);
        assert_eq!(info.vlan_table, [63, 31, 5]);
        assert_eq!((info.multicast, info.unicast), (RxState::All, RxState::None));
        assert!(info.broadcast_allowed && !info.promiscuous);
    }
}
