//! The NBD server.

use qmp::{
    Handle, InetSocketAddress, NbdServerAdd, NbdServerStart, NbdServerStop, QmpError, SocketAddress,
};

use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg, flag};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

pub(super) const ROWS: &[Row] = &[
    row(
        &["nbd_server_start"],
        &[flag("all", b'a'), flag("writable", b'w'), arg("uri", Kind::Options)],
        "[-a] [-w] host:port",
        "serve drives by NBD (-a: all of them, -w: writable)",
        start,
    ),
    row(
        &["nbd_server_add"],
        &[flag("writable", b'w'), arg("device", Kind::Word).words(ids)],
        "[-w] device",
        "export a drive by NBD; with -w writable",
        |call, args| {
            let device = args.text("device").to_owned();
            let writable = Some(args.is_on("writable"));
            call.vm.handle(NbdServerAdd { device, writable })
        },
    ),
    bare(&["nbd_server_stop"], "end the NBD server", |call, _| call.vm.handle(NbdServerStop {})),
];

fn ids(vm: &Vm) -> Vec<String> {
    vm.drives.iter().map(|drive| drive.id().to_owned()).collect()
}

fn start(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let (all, writable) = (args.is_on("all"), args.is_on("writable"));
    if writable && !all {
        return Err(QmpError::generic("-w only valid together with -a"));
    }
    let addr = SocketAddress::Inet(address(args.text("uri"))?);
    call.vm.handle(NbdServerStart { addr })?;
    if !all {
        return Ok(());
    }
    let drives = call.vm.drives.iter().filter(|drive| drive.has_medium());
    for device in drives.map(|drive| drive.id().to_owned()).collect::<Vec<_>>() {
        if let Err(error) = call.vm.handle(NbdServerAdd { device, writable: Some(writable) }) {
            call.vm.handle(NbdServerStop {})?;
            return Err(error);
        }
    }
    Ok(())
}

/// `HOST:PORT`, with an IPv6 address in brackets.
fn address(text: &str) -> Result<InetSocketAddress, QmpError> {
    let wrong = || QmpError::generic(format!("error parsing address '{text}'"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(InetSocketAddress {
        host: host.to_owned(),
        port: port.to_owned(),
        to: None,
        ipv4: None,
        ipv6: None,
    })
}
