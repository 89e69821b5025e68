//! Networks.

use qmp::{Handle, NetdevDel, QmpError};

use crate::cli::keyval;
use crate::cli::table::{NET, NETDEV};
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, Param, arg, opt};
use crate::hmp::table::{Row, bare, row};
use crate::nets::numbered_fd;
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
    row(
        &["host_net_add"],
        &[arg("device", Kind::Options), opt("opts", Kind::Options)],
        "TYPE [options]",
        "add a back end to a hub",
        add_to_hub,
    ),
    row(
        &["host_net_remove"],
        &[arg("vlan_id", Kind::Int), arg("device", Kind::Word)],
        "vlan_id name",
        "take a back end off a hub",
        remove_from_hub,
    ),
    row(
        &["hostfwd_add"],
        &[arg("arg1", Kind::Options), opt("arg2", Kind::Word), opt("arg3", Kind::Word)],
        "[vlan_id name] [tcp|udp]:[host]:port-[guest]:port",
        "forward a port to the guest",
        forward,
    ),
    row(
        &["hostfwd_remove"],
        &[arg("arg1", Kind::Word), opt("arg2", Kind::Word), opt("arg3", Kind::Word)],
        "[vlan_id name] [tcp|udp]:[host]:port",
        "take a port of the host back",
        unforward,
    ),
    row(&["netdev_del"], &[ID], "id", "remove a network back end", |call, args| {
        call.vm.handle(NetdevDel { id: args.text("id").to_owned() })
    }),
];

pub(super) const INFO: &[Row] = &[
    bare(&["network"], "show the network", |call, _| {
        let text = call.vm.nets.listing();
        call.print(&text);
        Ok(())
    }),
    bare(&["usernet"], "show the connections of user-mode networks", |call, _| {
        let text = call.vm.nets.connections();
        call.print(&text);
        Ok(())
    }),
];

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

fn add_to_hub(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let kind = args.text("device").to_owned();
    if !matches!(&*kind, "tap" | "socket" | "dump" | "user" | "bridge") {
        call.line(format_args!("invalid host network device {kind}"));
        return Ok(());
    }
    let options = args.opt_text("opts").unwrap_or_default();
    let whole = if options.is_empty() { kind.clone() } else { format!("{kind},{options}") };
    let added = keyval::parse(&whole, &NET).map_err(|error| error.to_string()).and_then(|pairs| {
        let given: Vec<_> = pairs.iter().collect();
        call.vm.nets.chardevs = Some(call.vm.chardevs.finder());
        let added = call.vm.nets.add_legacy(&given, &mut numbered_fd);
        added.map(drop).map_err(|error| error.to_string())
    });
    if let Err(error) = added {
        call.line(format_args!("{error}"));
        call.line(format_args!("adding host network device {kind} failed"));
    }
    Ok(())
}

fn remove_from_hub(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let name = args.text("device").to_owned();
    let hub = i32::try_from(args.number("vlan_id")).unwrap_or(-1);
    if call.vm.nets.remove_legacy(hub, &name).is_err() {
        call.line(format_args!("invalid host network device {name}"));
    }
    Ok(())
}

/// A hub, and a name on it.
type Place = (i32, String);

/// The rule, and the hub and name of the network it is for, if they are given.
fn rule(args: &Args) -> Result<(Option<Place>, String), &'static str> {
    let first = args.text("arg1").to_owned();
    match (args.opt_text("arg2"), args.opt_text("arg3")) {
        (None, None) => Ok((None, first)),
        (Some(name), Some(rule)) => {
            let hub = first.parse().map_err(|_| "invalid format")?;
            Ok((Some((hub, name.to_owned())), rule.to_owned()))
        }
        _ => Err("invalid format"),
    }
}

fn forward(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let done = rule(args).map_err(str::to_owned).and_then(|(which, rule)| {
        let which = which.as_ref().map(|(hub, name)| (*hub, name.as_str()));
        call.vm.nets.with_forwards(which, |forwards| forwards.add(&rule))?
    });
    if let Err(error) = done {
        call.line(error);
    }
    Ok(())
}

fn unforward(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let done = rule(args).map_err(str::to_owned).and_then(|(which, rule)| {
        let which = which.as_ref().map(|(hub, name)| (*hub, name.as_str()));
        let removed = call.vm.nets.with_forwards(which, |forwards| forwards.remove(&rule))?;
        let removed = removed.ok_or("invalid format")?;
        let what = if removed { "removed" } else { "not found" };
        Ok(format!("host forwarding rule for {rule} {what}"))
    });
    let (Ok(line) | Err(line)) = done;
    call.line(line);
    Ok(())
}
