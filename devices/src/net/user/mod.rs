//! A network inside the process, which needs no privilege: the guest reaches the host's network
//! through sockets of this process, by libslirp.
//!
//! The stack is behind a lock. A task on the devices' loop feeds it with what the guest sends and
//! waits for its sockets and timers; the main thread takes it for a moment to change what is
//! forwarded. While the guest takes no frames the stack is left alone: its sockets fill, and their
//! peers wait.

mod outlet;
mod rules;
mod slirp;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use resources::iol::{Handle, Local, Notify, race};

use super::backend::{Backend, Endpoint, Forwards};
use super::lane::{Lane, LaneEnd};
use super::options::{Keys, OpenError};
use crate::class::FindChardev;
use outlet::Outlet;
use slirp::{Config, Six, Slirp};

/// How many frames the stack is given at once.
const BATCH: usize = 64;

/// The program that shares files.
const SMBD: &str = "/usr/sbin/smbd";

/// The ports at which files are shared.
const SMB_PORTS: [u16; 2] = [139, 445];

/// Options of the user back end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The guest's name.
    pub hostname: Option<String>,
    /// The guest reaches nothing but the stack itself.
    pub restrict: Option<bool>,
    /// There is IPv4; so it is unless this says otherwise.
    pub ipv4: Option<bool>,
    /// There is IPv6; only if this or one of its addresses says so.
    pub ipv6: Option<bool>,
    /// The network of IPv6: its address and how many bits of it count.
    pub ipv6_net: Option<String>,
    /// The host's address of IPv6.
    pub ipv6_host: Option<String>,
    /// The name server's.
    pub ipv6_dns: Option<String>,
    /// The old name of `net`: an address alone.
    pub ip: Option<String>,
    /// The network's address and mask.
    pub net: Option<String>,
    /// The host in it.
    pub host: Option<String>,
    /// The directory of the TFTP server.
    pub tftp: Option<String>,
    /// The file to boot.
    pub bootfile: Option<String>,
    /// The first address that DHCP gives.
    pub dhcpstart: Option<String>,
    /// The name server in it.
    pub dns: Option<String>,
    /// Domains to search.
    pub dnssearch: Vec<String>,
    /// The directory that is shared by SMB.
    pub smb: Option<String>,
    /// The SMB server in it.
    pub smbserver: Option<String>,
    /// Ports of the host that lead to the guest.
    pub hostfwd: Vec<String>,
    /// Addresses inside that lead to the host.
    pub guestfwd: Vec<String>,
}

impl User {
    pub(super) fn parse(keys: &mut Keys<'_>) -> Result<User, OpenError> {
        Ok(User {
            hostname: keys.owned("hostname"),
            restrict: keys.switch("restrict")?,
            ipv4: keys.switch("ipv4")?,
            ipv6: keys.switch("ipv6")?,
            ipv6_net: keys.owned("ipv6-net"),
            ipv6_host: keys.owned("ipv6-host"),
            ipv6_dns: keys.owned("ipv6-dns"),
            ip: keys.owned("ip"),
            net: keys.owned("net"),
            host: keys.owned("host"),
            tftp: keys.owned("tftp"),
            bootfile: keys.owned("bootfile"),
            dhcpstart: keys.owned("dhcpstart"),
            dns: keys.owned("dns"),
            dnssearch: keys.texts("dnssearch"),
            smb: keys.owned("smb"),
            smbserver: keys.owned("smbserver"),
            hostfwd: keys.texts("hostfwd"),
            guestfwd: keys.texts("guestfwd"),
        })
    }

    /// Starts the network on the loop `on`; `find` finds chardevs.
    pub(super) fn open(&self, on: &Handle, find: Option<&FindChardev>) -> Result<Stack, OpenError> {
        let plan = self.plan()?;
        let info = format!(
            "net={},restrict={}",
            plan.config.net,
            if plan.config.restricted { "on" } else { "off" }
        );
        let share = self.smb.as_deref().map(Share::new).transpose()?;
        let stack = Stack {
            shared: Arc::new(Shared {
                slirp: Mutex::new(None),
                from_guest: Lane::new(),
                to_guest: Lane::new(),
                changed: Notify::new(),
            }),
            info,
            _share: share,
        };
        let shared = &stack.shared;
        let mut slirp = Slirp::new(plan.config, shared.to_guest.clone(), shared.changed.clone())
            .map_err(OpenError::Host)?;
        for rule in &self.guestfwd {
            let (server, port, device) = guest_rule(rule)?;
            let added = match device.strip_prefix("cmd:") {
                Some(command) => {
                    let command = owned(Some(command), "guestfwd=")?.unwrap_or_default();
                    slirp.add_command(&command, server, port)
                }
                None => {
                    let place = (server, port, device);
                    slirp.add_outlet(Outlet::open(place, on, find, &shared.changed)?)
                }
            };
            if !added {
                let text = format!("conflicting/invalid guest forwarding to {server}:{port}");
                return Err(OpenError::Failed(text));
            }
        }
        if let (Some(share), Some(server)) = (&stack._share, plan.smbserver) {
            for port in SMB_PORTS {
                if !slirp.add_command(&share.command, server, port) {
                    return Err(OpenError::failed("conflicting/invalid smbserver address"));
                }
            }
        }
        for rule in &self.hostfwd {
            add_forward(&mut slirp, rule).map_err(OpenError::Failed)?;
        }
        let waker =
            slirp.waker().map_err(|error| OpenError::Failed(format!("user network: {error}")))?;
        *shared.slirp.lock() = Some(slirp);
        let shared = shared.clone();
        on.spawn(move |local| async move {
            if let Ok(watch) = local.watch(waker) {
                shared.serve(&local, &watch).await;
            }
        });
        Ok(stack)
    }

    /// What the addresses come to.
    fn plan(&self) -> Result<Plan, OpenError> {
        let wrong = |what: &str, text: &str| OpenError::Failed(format!("invalid {what} '{text}'"));
        let net = match (&self.net, &self.ip) {
            (Some(text), _) => rules::network(text).ok_or_else(|| wrong("net=", text))?,
            (None, Some(text)) => rules::network(&format!("{text}/24"))
                .filter(|_| !text.contains('/'))
                .ok_or_else(|| wrong("ip=", text))?,
            (None, None) => (Ipv4Addr::new(10, 0, 2, 0), Ipv4Addr::new(255, 255, 255, 0)),
        };
        let at = |text: &Option<String>, what: &str, last: u32| match text {
            Some(text) => rules::inside(text, net).ok_or_else(|| wrong(what, text)),
            // Small networks have fewer addresses.
            None => Ok(Ipv4Addr::from(u32::from(net.0) | (last & !u32::from(net.1)))),
        };
        let config = Config {
            restricted: self.restrict == Some(true),
            ipv4: self.ipv4 != Some(false),
            ipv6: self.six()?,
            net: net.0,
            mask: net.1,
            host: at(&self.host, "host=", 2)?,
            dhcp: at(&self.dhcpstart, "dhcpstart=", 15)?,
            dns: at(&self.dns, "dns=", 3)?,
            hostname: owned(self.hostname.as_deref(), "hostname=")?,
            tftp: owned(self.tftp.as_deref(), "tftp=")?,
            bootfile: owned(self.bootfile.as_deref(), "bootfile=")?,
            search: (self.dnssearch.iter())
                .filter_map(|domain| owned(Some(domain), "dnssearch=").transpose())
                .collect::<Result<_, _>>()?,
        };
        if self.hostname.as_ref().is_some_and(|name| name.len() > 32) {
            return Err(OpenError::failed("hostname= is longer than 32 bytes"));
        }
        if !config.ipv4 && config.ipv6.is_none() {
            return Err(OpenError::failed("IPv4 and IPv6 are both switched off"));
        }
        let clash = config.dns == config.host || [config.host, config.dns].contains(&config.dhcp);
        if clash {
            return Err(OpenError::failed("host=, dns= and dhcpstart= are not all different"));
        }
        self.guestfwd.iter().try_for_each(|rule| guest_rule(rule).map(drop))?;
        let smbserver = Some(at(&self.smbserver, "smbserver=", 4)?);
        Ok(Plan { config, smbserver })
    }

    /// What the addresses of IPv6 come to, if it is wanted.
    fn six(&self) -> Result<Option<Six>, OpenError> {
        let given = self.ipv6_net.is_some() || self.ipv6_host.is_some() || self.ipv6_dns.is_some();
        match (self.ipv6, given) {
            (None | Some(false), false) => return Ok(None),
            (Some(false), true) => {
                return Err(OpenError::failed("addresses of IPv6, which is switched off"));
            }
            (_, true) | (Some(true), false) => {}
        }
        let wrong = |what: &str, text: &str| OpenError::Failed(format!("invalid {what} '{text}'"));
        let net = self.ipv6_net.as_deref().unwrap_or("fec0::/64");
        let (prefix, length) = rules::network6(net).ok_or_else(|| wrong("ipv6-net=", net))?;
        let at = |text: &Option<String>, what: &str, last: u128| match text {
            Some(text) => rules::inside6(text, (prefix, length)).ok_or_else(|| wrong(what, text)),
            None => Ok(Ipv6Addr::from(u128::from(prefix) | last)),
        };
        let host = at(&self.ipv6_host, "ipv6-host=", 2)?;
        let dns = at(&self.ipv6_dns, "ipv6-dns=", 3)?;
        if host == dns {
            return Err(OpenError::failed("ipv6-host= and ipv6-dns= are not different"));
        }
        Ok(Some(Six { prefix, length, host, dns }))
    }
}

struct Plan {
    config: Config,
    smbserver: Option<Ipv4Addr>,
}

fn owned(text: Option<&str>, what: &str) -> Result<Option<CString>, OpenError> {
    let nul = |_| OpenError::Failed(format!("{what} has a zero byte"));
    text.map(CString::new).transpose().map_err(nul)
}

/// Where a `guestfwd` rule is, and what is there.
fn guest_rule(rule: &str) -> Result<(Ipv4Addr, u16, &str), OpenError> {
    let wrong = || OpenError::Failed(format!("invalid guest forwarding rule '{rule}'"));
    rules::guest_side(rule).ok_or_else(wrong)
}

fn add_forward(slirp: &mut Slirp, rule: &str) -> Result<(), String> {
    let parsed = rules::forward(rule);
    let parsed = parsed.ok_or_else(|| format!("invalid host forwarding rule '{rule}'"))?;
    if slirp.add_forward(&parsed) {
        Ok(())
    } else {
        Err(format!("could not set up host forwarding rule '{rule}'"))
    }
}

/// A directory shared by Samba, which is run for each connection.
struct Share {
    command: CString,
    /// Where its configuration and its state are.
    directory: PathBuf,
}

impl Share {
    fn new(shared: &str) -> Result<Share, OpenError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !std::path::Path::new(SMBD).exists() {
            let text = format!("could not find '{SMBD}', please install it (package samba)");
            return Err(OpenError::Host(text));
        }
        if !std::path::Path::new(shared).is_dir() {
            let text = format!("error accessing shared directory '{shared}'");
            return Err(OpenError::Failed(text));
        }
        // It becomes a line of Samba's configuration.
        if shared.contains(['\n', '\r']) {
            return Err(OpenError::failed("the shared directory's name has a line's end in it"));
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vmm-smb.{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let failed =
            |error: io::Error| OpenError::Failed(format!("{}: {error}", directory.display()));
        let mut make = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
        make.create(&directory).map_err(failed)?;
        let dir = directory.display();
        let config = format!(
            "[global]\nprivate dir={dir}\ninterfaces=127.0.0.1\nbind interfaces only=yes\n\
             pid directory={dir}\nlock directory={dir}\nstate directory={dir}\n\
             cache directory={dir}\nncalrpc dir={dir}/ncalrpc\nlog file={dir}/log.smbd\n\
             smb passwd file={dir}/smbpasswd\nsecurity=user\nmap to guest=Bad User\n\
             load printers=no\nprinting=bsd\ndisable spoolss=yes\nusershare max shares=0\n\
             [qemu]\npath={shared}\nread only=no\nguest ok=yes\n"
        );
        std::fs::write(directory.join("smb.conf"), config).map_err(failed)?;
        let command = format!("{SMBD} -l {dir} -s {dir}/smb.conf");
        let command = owned(Some(&command), "smb=")?;
        let command = command.ok_or_else(|| OpenError::failed("no command for smb="))?;
        Ok(Share { command, directory })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A network that runs.
pub(super) struct Stack {
    shared: Arc<Shared>,
    info: String,
    _share: Option<Share>,
}

struct Shared {
    /// `None` once it is closed.
    slirp: Mutex<Option<Slirp>>,
    from_guest: Lane,
    to_guest: Lane,
    /// There is something to do beside sockets and frames.
    changed: Notify,
}

impl Shared {
    /// Runs the stack until it is closed.
    async fn serve<T: std::os::fd::AsRawFd>(
        &self,
        local: &Local,
        sockets: &resources::iol::Watch<T>,
    ) {
        loop {
            if !self.to_guest.is_roomy() {
                race(self.to_guest.roomy(), self.changed.notified()).await;
                if self.slirp.lock().is_none() {
                    return;
                }
                continue;
            }
            let (timeout, full) = {
                let mut slirp = self.slirp.lock();
                let Some(slirp) = &mut *slirp else { return };
                for _ in 0..BATCH {
                    if slirp.is_full() {
                        break;
                    }
                    let Some(frame) = self.from_guest.take() else { break };
                    slirp.input(&frame);
                }
                slirp.receive();
                (slirp.fill(), slirp.is_full())
            };
            if full {
                let work = race(self.changed.notified(), sockets.readable());
                race(work, local.sleep(timeout.unwrap_or(Duration::MAX))).await;
            } else if self.from_guest.is_empty() {
                let frames = race(self.from_guest.filled(), self.changed.notified());
                let work = race(frames, sockets.readable());
                match timeout {
                    Some(timeout) => {
                        race(work, local.sleep(timeout)).await;
                    }
                    None => {
                        work.await;
                    }
                }
            } else {
                local.yield_now().await;
            }
            match &mut *self.slirp.lock() {
                Some(slirp) => slirp.poll(),
                None => return,
            }
        }
    }
}

impl Backend for Stack {
    fn open(&self, _: u16, _: &Local) -> io::Result<Box<dyn Endpoint>> {
        let (send, recv) = (self.shared.from_guest.clone(), self.shared.to_guest.clone());
        Ok(Box::new(LaneEnd { send, recv }))
    }

    fn plugged(&self) {
        self.shared.to_guest.clear();
    }

    fn info(&self, _: u16) -> String {
        self.info.clone()
    }

    fn close(&self) {
        // Its ports are free when this returns.
        let slirp = self.shared.slirp.lock().take();
        drop(slirp);
        self.shared.from_guest.close();
        self.shared.to_guest.close();
        self.shared.changed.notify();
    }

    fn forwards(&self) -> Option<&dyn Forwards> {
        Some(self)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.close();
    }
}

impl Forwards for Stack {
    fn add(&self, rule: &str) -> Result<(), String> {
        match &mut *self.shared.slirp.lock() {
            Some(slirp) => add_forward(slirp, rule),
            None => Err("user mode network stack not in use".to_owned()),
        }
    }

    fn remove(&self, rule: &str) -> Option<bool> {
        let (udp, host) = rules::host_side(rule)?;
        let mut slirp = self.shared.slirp.lock();
        Some(slirp.as_mut().is_some_and(|slirp| slirp.remove_forward(udp, host)))
    }

    fn connections(&self) -> String {
        self.shared.slirp.lock().as_mut().map(Slirp::connections).unwrap_or_default()
    }
}
