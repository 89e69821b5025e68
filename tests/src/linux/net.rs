//! A guest on the user-mode network: addresses, names, pages, its cable and what a dump shows.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use serde_json::json;

use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, Peer, SOON, TestVm, VmBuilder};
use crate::rig::{Result, net};
use crate::supply::run;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::linux("net::user_dhcp_dns_http", 180, dhcp_dns_http),
        Test::linux("net::user_host_forwarding", 180, host_forwarding),
        Test::linux("net::dump_is_read_by_tcpdump", 180, dump),
        Test::linux("net::link_down", 180, link_down),
    ]
}

/// Bytes that a guest fetches: more than any window, and no two words of it the same.
fn page() -> Vec<u8> {
    (0_u64..1 << 18)
        .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

pub(super) fn with_nic(vm: VmBuilder, netdev: &str) -> VmBuilder {
    vm.args(["-netdev", netdev, "-device", "virtio-net-pci,netdev=n0"])
}

/// Takes an address by DHCP.
fn dynamic_address(vm: &mut TestVm) -> Result<String> {
    vm.load(&["virtio_net", "af_packet"])?;
    vm.wait_for("test -e /sys/class/net/eth0")?;
    vm.sh("udhcpc -i eth0 -n -q 2>&1")
}

/// The guest gets its address, asks for a name and fetches a page by it.
fn dhcp_dns_http(ctx: &Ctx) -> Result {
    net::isolate()?;
    net::resolve_here(&ctx.dir)?;
    net::serve_dns(Ipv4Addr::new(10, 0, 2, 2))?;
    let page = page();
    let port = net::serve_http(Ipv4Addr::LOCALHOST, page.clone())?;
    let mut vm = with_nic(ctx.linux(Kernel::V6_12), "user,id=n0").start()?;
    vm.booted()?;
    let lease = dynamic_address(&mut vm)?;
    if !lease.contains("10.0.2.15") {
        return Err(format!("the lease is {lease}").into());
    }
    vm.sh("ping -c 2 -W 5 10.0.2.2")?;
    let found = vm.sh("nslookup some.example 10.0.2.3 2>&1")?;
    if !found.contains("10.0.2.2") {
        return Err(format!("the name server says {found}").into());
    }
    vm.sh(&format!("wget -q -O /tmp/page http://10.0.2.2:{port}/page"))?;
    std::fs::write(ctx.dir.join("page"), &page)?;
    let text = run(Command::new(crate::supply::guests::busybox()?)
        .arg("sha256sum")
        .arg(ctx.dir.join("page")))?;
    let sum = vm.sha256("/tmp/page")?;
    if !String::from_utf8_lossy(&text).starts_with(&sum) {
        return Err("the page has changed on its way".into());
    }
    vm.check_kernel_log()
}

/// A port of the host leads to a server in the guest.
fn host_forwarding(ctx: &Ctx) -> Result {
    net::isolate()?;
    let port = net::free_port()?;
    let netdev = format!("user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:80");
    let mut vm = with_nic(ctx.linux(Kernel::V6_12), &netdev).start()?;
    vm.booted()?;
    dynamic_address(&mut vm)?;
    vm.sh("mkdir /tmp/www && echo from the guest >/tmp/www/index.html && httpd -p 80 -h /tmp/www")?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.ends_with("\r\n\r\nfrom the guest\n") {
        return Err(format!("the guest's server says {answer:?}").into());
    }
    vm.check_kernel_log()
}

/// What the guest sends and gets is in a file that tcpdump reads.
fn dump(ctx: &Ctx) -> Result {
    net::isolate()?;
    let file = ctx.dir.join("packets");
    let path = file.display();
    let vm = ctx.linux(Kernel::V6_12);
    let mut vm = match ctx.peer {
        // Back end, card and file on one hub.
        Peer::Vmm(_) => with_nic(vm, "hubport,id=n0,hubid=0").args([
            "-net",
            "user",
            "-net",
            &format!("dump,file={path}"),
        ]),
        Peer::Qemu(_) => with_nic(vm, "user,id=n0")
            .args(["-object", &format!("filter-dump,id=d0,netdev=n0,file={path}")]),
    }
    .start()?;
    vm.booted()?;
    dynamic_address(&mut vm)?;
    vm.sh("ping -c 3 -W 5 10.0.2.2")?;
    vm.qmp.execute("stop", json!({}))?;
    let text = run(Command::new("/usr/bin/tcpdump").args(["-n", "-Z", "root", "-r"]).arg(&file))?;
    let text = String::from_utf8_lossy(&text);
    for (what, count) in
        [("BOOTP/DHCP, Request", 2), ("ICMP echo request", 3), ("ICMP echo reply", 3)]
    {
        if text.matches(what).count() < count {
            return Err(format!("tcpdump does not find {what} {count} times in:\n{text}").into());
        }
    }
    Ok(())
}

/// The guest sees its cable pulled and put back, and the network works again.
fn link_down(ctx: &Ctx) -> Result {
    net::isolate()?;
    let mut vm = with_nic(ctx.linux(Kernel::V6_12), "user,id=n0").start()?;
    vm.booted()?;
    dynamic_address(&mut vm)?;
    for (up, carrier) in [(false, "0"), (true, "1")] {
        vm.qmp.execute("set_link", json!({ "name": "n0", "up": up }))?;
        vm.wait_for(&format!("grep -q {carrier} /sys/class/net/eth0/carrier"))?;
        if up {
            vm.wait_for("ping -c 1 -W 1 10.0.2.2")?;
        } else if vm.sh_within("ping -c 1 -W 2 10.0.2.2", SOON)?.0 == 0 {
            return Err("a ping comes back over a link that is down".into());
        }
    }
    vm.check_kernel_log()
}
