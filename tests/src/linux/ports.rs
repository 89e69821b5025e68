//! virtio-serial: a console and a stream, one of them plugged in while the guest runs.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::rig::Result;
use crate::rig::qmp::connect;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{Kernel, SOON};

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("ports::console_and_stream", 240, console_and_stream)]
}

fn console_and_stream(ctx: &Ctx) -> Result {
    let (console, stream) = (ctx.dir.join("hvc0"), ctx.dir.join("port"));
    let chardev = |id: &str, path: &std::path::Path| {
        format!("socket,id={id},path={},server=on,wait=off", path.display())
    };
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-device", "virtio-serial-pci,id=vs"])
        .args(["-chardev", &chardev("c", &console), "-device", "virtconsole,chardev=c"])
        .args(["-chardev", &chardev("s", &stream)])
        .start()?;
    vm.booted()?;
    vm.load(&["virtio_pci", "virtio_console"])?;
    let mut tty = connect(&console, SOON)?;
    tty.set_read_timeout(Some(SOON))?;
    vm.wait_for("test -c /dev/hvc0")?;
    // The settings last as long as the terminal is open.
    vm.sh("(stty raw -echo; echo hello) <>/dev/hvc0 >&0")?;
    expect(&mut tty, b"hello\n")?;

    let port = json!({
        "driver": "virtserialport", "id": "p", "bus": "vs.0", "chardev": "s", "name": "org.test",
    });
    vm.qmp.execute("device_add", port)?;
    vm.wait_for("grep -qx org.test /sys/class/virtio-ports/vport*/name")?;
    let mut peer = connect(&stream, SOON)?;
    peer.set_read_timeout(Some(Duration::from_secs(60)))?;
    vm.sh(
        "P=/dev/$(basename $(dirname $(grep -lx org.test /sys/class/virtio-ports/vport*/name)))\n\
           (exec 3<>$P; cat <&3 >&3 & echo $! >/tmp/cat; wait) >/dev/null 2>&1 &\n true",
    )?;
    let event = vm.qmp.event("VSERPORT_CHANGE", SOON)?;
    if event["data"] != json!({"open": true, "id": "p"}) {
        return Err(format!("{event}").into());
    }
    // Everything comes back, while the machine is stopped, saved and loaded again and again.
    let sent: Vec<u8> = (0..400_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let (mut writer, whole) = (peer.try_clone()?, sent.clone());
    let writing = std::thread::spawn(move || writer.write_all(&whole));
    let mut got = vec![0; sent.len()];
    for (round, piece) in got.chunks_mut(40_000).enumerate() {
        peer.read_exact(piece)?;
        if round % 2 == 0 {
            vm.qmp.execute("x-pulse-save-restore", json!({}))?;
        }
    }
    writing.join().map_err(|_| "the writer died")??;
    if got != sent {
        return Err("what came back is not what was sent".into());
    }
    vm.sh("kill $(cat /tmp/cat); true")?;
    vm.qmp.execute("device_del", json!({"id": "p"}))?;
    vm.qmp.event("DEVICE_DELETED", SOON)?;
    vm.wait_for("! grep -qx org.test /sys/class/virtio-ports/vport*/name")?;
    vm.check_kernel_log()
}

fn expect(from: &mut impl Read, expected: &[u8]) -> Result {
    let mut got = vec![0; expected.len()];
    from.read_exact(&mut got)?;
    match got == expected {
        true => Ok(()),
        false => Err(format!("{:?} came", String::from_utf8_lossy(&got)).into()),
    }
}
