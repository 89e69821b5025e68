//! Networks.

use qmp::{Handle, NetdevDel, QmpError};

use crate::cli::keyval;
use crate::cli::table::NETDEV;
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, Param, arg};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

/// The id of a netdev.
const ID: Param = arg("id", Kind::Word).words(ids);

pub(super) const ROWS: &[Row] = &[
    row(
        &["netdev_add"],
        &[arg("netdev", Kind::Options).words(kinds)],
        "TYPE,id=str[,prop=value][,...]",
        "make a network back end, as -netdev does",
        add,
    ),
    row(&["netdev_del"], &[ID], "id", "remove a network back end", |call, args| {
        call.vm.handle(NetdevDel { id: args.text("id").to_owned() })
    }),
];

pub(super) const INFO: &[Row] = &[bare(&["network"], "show the network", |call, _| {
    let text = call.vm.nets.listing();
    call.print(&text);
    Ok(())
})];

fn ids(vm: &Vm) -> Vec<String> {
    vm.nets.network().netdevs().iter().map(|netdev| netdev.id().to_owned()).collect()
}

fn kinds(_: &Vm) -> Vec<String> {
    devices::net::NETDEVS.iter().map(|kind| format!("{kind},id=")).collect()
}

fn add(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let pairs = keyval::parse(args.text("netdev"), &NETDEV)
        .map_err(|error| QmpError::generic(error.to_string()))?;
    let given: Vec<_> =
        pairs.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    call.vm.add_netdev(&given)
}
