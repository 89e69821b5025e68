//! The other side of a guest's network: a network namespace of the test's own, TAP interfaces in
//! it, and servers on its loopback interface.
//!
//! Namespaces belong to threads: [`isolate`] is called first on the test's thread, whose children
//! and threads then are in it too. Servers answer on threads of their own, which end with the
//! test's process; they share nothing with the test.
#![expect(unsafe_code)] // Leaving namespaces can surprise code that runs on other threads.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Result;
use super::vm::Process;
use crate::supply::guests::busybox;
use crate::supply::run;

/// Gives the calling thread a network of its own, with nothing but its loopback interface.
pub fn isolate() -> Result {
    // SAFETY: this thread has no socket of the old network, and others keep theirs.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| {
        format!("a network namespace needs root ({error}); VMTEST_HOST=nested does not")
    })?;
    ip("link set lo up")
}

/// Makes the name server of [`isolate`]d threads the one on their loopback interface.
pub fn resolve_here(dir: &Path) -> Result {
    // SAFETY: as above; the mounts of other threads stay what they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let file = dir.join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\n")?;
    tool(&["mount", "--make-rprivate", "/"])?;
    tool(&["mount", "-o", "bind", &file.to_string_lossy(), "/etc/resolv.conf"])
}

/// Runs a line of `ip`.
pub fn ip(line: &str) -> Result {
    let mut words = vec!["ip"];
    words.extend(line.split_whitespace());
    tool(&words)
}

/// Makes the TAP interface `name`, which stays until the namespace goes, with an address such as
/// `10.7.0.1/24`.
pub fn tap(name: &str, address: &str) -> Result {
    tool(&["tunctl", "-t", name])?;
    ip(&format!("address add {address} dev {name}"))?;
    ip(&format!("link set {name} up"))
}

/// Makes the bridge `name` with an address, and TAP interfaces as its ports.
pub fn bridge(name: &str, address: &str, taps: &[&str]) -> Result {
    tool(&["brctl", "addbr", name])?;
    for tap in taps {
        tool(&["tunctl", "-t", tap])?;
        tool(&["brctl", "addif", name, tap])?;
        ip(&format!("link set {tap} up"))?;
    }
    ip(&format!("address add {address} dev {name}"))?;
    ip(&format!("link set {name} up"))
}

/// Runs a line of `tc`, which shapes traffic.
pub fn tc(line: &str) -> Result {
    run(Command::new("/usr/sbin/tc").args(line.split_whitespace())).map(drop)
}

fn tool(words: &[&str]) -> Result {
    run(Command::new(busybox()?).args(words)).map(drop)
}

/// A server that answers every HTTP request on `address` with `body`; gives the port.
pub fn serve_http(address: Ipv4Addr, body: Vec<u8>) -> Result<u16> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let body = body.clone();
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut part = [0; 1024];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 1 << 16 {
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend_from_slice(&part[..count]),
                    }
                }
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                // A client that is gone has had enough.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            });
        }
    });
    Ok(port)
}

/// A name server on port 53 of the loopback interface to which every name is `address`.
pub fn serve_dns(address: Ipv4Addr) -> Result {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            if let Some(answer) = dns_answer(query.get(..length).unwrap_or_default(), address) {
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    Ok(())
}

/// The answer to a query with one question (RFC 1035, section 4.1): an address to those who ask
/// for one, no record to others.
fn dns_answer(query: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let mut end = 12;
    loop {
        let label = usize::from(*query.get(end)?);
        end += 1 + label;
        if label == 0 {
            break;
        }
    }
    let question = query.get(12..end + 4)?;
    let is_address = question.get(question.len() - 4..)? == [0, 1, 0, 1];
    let mut answer = query.get(..2)?.to_vec();
    // A response, recursion available, one question, one answer or none.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    if is_address {
        // The question's name, an internet address, for a minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// An `iperf3` server at `address`, for any number of runs one after the other.
pub fn serve_iperf(address: Ipv4Addr) -> Result<Process> {
    let mut command = Command::new("/usr/bin/iperf3");
    command.args(["--server", "--forceflush", "--bind", &address.to_string()]);
    let server = Process::start(&mut command)?;
    if server.stdout().says("Server listening", super::vm::SOON) {
        return Ok(server);
    }
    Err(server.explain("the iperf3 server does not listen".into()))
}

/// A TCP port of the loopback interface that nobody has now.
pub fn free_port() -> Result<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(TcpListener::bind(address)?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_answered_with_the_address() {
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04host\x00\x00\x01\x00\x01";
        let answer = dns_answer(query, Ipv4Addr::new(10, 0, 2, 2)).unwrap();
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x80]);
        assert_eq!(answer[answer.len() - 4..], [10, 0, 2, 2]);
        // An address of the other kind is not had; a query that is cut is none.
        let six = [&query[..query.len() - 3], &[28, 0, 1]].concat();
        assert_eq!(dns_answer(&six, Ipv4Addr::LOCALHOST).unwrap()[7], 0);
        assert!(dns_answer(&query[..20], Ipv4Addr::LOCALHOST).is_none());
    }
}
