//! Sockets between the guest and the machine it runs on: both ways, while the machine is stopped,
//! saved and loaded.

use std::io::{Read, Write};
use std::thread;

use serde_json::json;

use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON, TestVm};
use crate::rig::{Result, vsock};

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("vsock::both_ways", 300, both_ways).with_debian()]
}

const CID: u32 = 42;
const HOSTS_PORT: u32 = 1234;
const GUESTS_PORT: u32 = 5678;
const BYTES: usize = 1 << 20;

/// Gives everybody back what he says; tells when somebody has gone.
const ECHO: &str = r#"
socket(S, 40, 1, 0) && bind(S, pack("SSLLx4", 40, 0, 5678, 0xffffffff)) && listen(S, 8) or die $!;
$| = 1; print "listening\n";
while (accept(C, S)) {
    if (fork) { close C; next }
    while (sysread(C, $b, 65536)) {
        for ($o = 0; $o < length $b; $o += $n) { $n = syswrite(C, $b, 65536, $o) or last }
    }
    print "gone\n";
    exit;
}
"#;

/// Says a million bytes to the host, and checks what comes back.
const TALK: &str = r#"
socket(S, 40, 1, 0) && connect(S, pack("SSLLx4", 40, 0, 1234, 2)) or die "connect: $!";
if (!($pid = fork)) {
    $b = "";
    while (length $b < 1 << 20) { sysread(S, $b, 65536, length $b) or die "read: $!" }
    for $i (0 .. 262143) { unpack("N", substr($b, 4 * $i, 4)) == $i * 2654435761 % 4294967296 or die "byte $i" }
    exit;
}
$b = join "", map { pack("N", $_ * 2654435761 % 4294967296) } 0 .. 262143;
for ($o = 0; $o < length $b; $o += $n) { $n = syswrite(S, $b, 65536, $o) or die "write: $!" }
waitpid $pid, 0;
print $? ? "wrong\n" : "right\n";
"#;

/// Bytes of which no two words are the same.
fn pattern(seed: u32) -> Vec<u8> {
    (0..BYTES as u32 / 4)
        .flat_map(|word| (word ^ seed).wrapping_mul(0x9e37_79b1).to_le_bytes())
        .collect()
}

/// Says the pattern over a stream to the guest's echo; `meanwhile` is done when half is said.
fn say(stream: std::fs::File, seed: u32, meanwhile: impl FnOnce() -> Result) -> Result {
    let said = pattern(seed);
    let mut other = stream.try_clone()?;
    let mut stream = stream;
    let rest = said.clone();
    stream.write_all(&rest[..4096])?;
    let mut heard = vec![0; BYTES];
    other.read_exact(&mut heard[..4096])?;
    let writer = thread::spawn(move || stream.write_all(&rest[4096..]));
    meanwhile()?;
    other.read_exact(&mut heard[4096..])?;
    writer.join().map_err(|_| "the writer panicked")??;
    if heard != said { Err("the guest's echo says something else".into()) } else { Ok(()) }
}

/// The guest says something to the host and hears it back.
fn talk(vm: &mut TestVm, listener: &vsock::Listener) -> Result {
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result {
            let mut stream = listener.accept()?;
            let mut to = stream.try_clone()?;
            let mut part = vec![0; 1 << 16];
            loop {
                match stream.read(&mut part)? {
                    0 => return Ok(()),
                    count => to.write_all(&part[..count])?,
                }
            }
        });
        let said = vm.tool(&format!("perl -e '{TALK}' 2>&1"))?;
        if said.trim() != "right" {
            return Err(format!("the guest hears: {said}").into());
        }
        echo.join().map_err(|_| "the echo panicked")?
    })
}

fn both_ways(ctx: &Ctx) -> Result {
    let device = format!("vhost-vsock-pci,id=v0,guest-cid={CID}");
    let vm = ctx.linux(Kernel::V6_12).cpus(2).args(["-device", &device]);
    let mut vm = ctx.with_tools(vm)?.start()?;
    vm.booted()?;
    vm.mount_tools()?;
    vm.load(&["vmw_vsock_virtio_transport"])?;
    let listener = vsock::serve(HOSTS_PORT)?;
    talk(&mut vm, &listener)?;

    vm.sh(&format!("chroot /mnt /usr/bin/perl -e '{ECHO}' >/tmp/echo 2>&1 &"))?;
    vm.wait_for("grep -q listening /tmp/echo")?;
    say(vsock::dial(CID, GUESTS_PORT)?, 1, || Ok(()))?;
    // Stopping loses nothing and breaks nothing.
    let stream = vsock::dial(CID, GUESTS_PORT)?;
    say(stream, 2, || {
        for _ in 0..5 {
            vm.qmp.execute("stop", json!({}))?;
            thread::sleep(std::time::Duration::from_millis(20));
            vm.qmp.execute("cont", json!({}))?;
        }
        Ok(())
    })?;
    // A guest that was loaded has lost its connections, is told so, and makes new ones. It gives up
    // all that it has when it is told: one that is made before is lost too.
    for round in 0..5 {
        let mut old = vsock::dial(CID, GUESTS_PORT)?;
        old.write_all(b"hello")?;
        old.read_exact(&mut [0; 5])?;
        vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        // Two came before, and two in each round.
        vm.wait_for(&format!("[ $(grep -c gone /tmp/echo) = {} ]", 2 * round + 3))?;
        let error = say(vsock::dial(CID, GUESTS_PORT)?, 3 + round, || Ok(()));
        error.map_err(|error| format!("after pulse {round}: {error}"))?;
        let _ = old.write_all(b"are you there");
        if !vsock::ended(&old) {
            return Err("a connection outlives its guest".into());
        }
    }
    talk(&mut vm, &listener)?;
    // One guest has one address.
    let second = json!({ "driver": "vhost-vsock-pci", "id": "v1", "guest-cid": CID });
    let refused = vm.qmp.try_execute("device_add", second)?.err();
    if !refused.as_ref().is_some_and(|error| error.desc.contains("unable to set guest cid")) {
        return Err(format!("a second guest with the address is told {refused:?}").into());
    }
    vm.sh_within("true", SOON)?;
    vm.check_kernel_log()
}
