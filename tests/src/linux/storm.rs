//! Resets in the middle of writes: what the disk has acknowledged stays, and the file system is
//! whole.

use serde_json::json;

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::{BOOT, Kernel, SOON};

pub(super) fn tests() -> Vec<Test> {
    ["writeback", "none"]
        .map(|cache| {
            let name = format!("storm::writes_survive_resets_cache_{cache}");
            Test::linux(&name, 300, move |ctx| writes_survive(ctx, cache))
        })
        .into()
}

const RESETS: usize = 6;

/// Writes files named by their sums, and says each name when the disk has it.
const WRITER: &str = r#"
( cd /mnt
  while true; do
      dd if=/dev/urandom of=new bs=16k count=$((1 + RANDOM % 8)) 2>/dev/null
      name=$(sha256sum new | cut -d' ' -f1)
      mv new $name && sync && echo "kept $name"
  done ) &"#;

fn writes_survive(ctx: &Ctx, cache: &str) -> Result {
    let disk = Disk::ext4(&ctx.dir, "disk", 48 << 20)?;
    let drive = format!("{},cache={cache}", disk.drive("d0"));
    let mut vm = ctx
        .linux(Kernel::V6_12)
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=d0"])
        .start()?;
    let mut kept: Vec<String> = Vec::new();
    for round in 0..=RESETS {
        vm.booted()?;
        vm.load(&["virtio_blk"])?;
        vm.sh("mount -t ext4 /dev/vda /mnt")?;
        let wrong = vm
            .sh("( cd /mnt; for name in *; do case $name in ????????????????????????????????*) \
             [ $(sha256sum $name | cut -d' ' -f1) = $name ] || echo $name;; esac; done )")?;
        if !wrong.is_empty() {
            return Err(format!("after reset {round} these files are others: {wrong}").into());
        }
        let there = vm.sh("ls /mnt")?;
        let there: Vec<&str> = there.lines().collect();
        if let Some(lost) = kept.iter().find(|name| !there.contains(&name.as_str())) {
            return Err(format!("reset {round} lost the file {lost}").into());
        }
        if round == RESETS {
            break;
        }
        vm.sh(WRITER)?;
        // So many files, then in the middle of the next.
        for _ in 0..3 + round % 4 {
            let line = vm.console.expect_line("kept ", BOOT)?;
            kept.extend(line.strip_prefix("kept ").map(str::to_owned));
        }
        vm.qmp.execute("system_reset", json!({}))?;
        vm.qmp.event("RESET", SOON)?;
        // What was said until then counts too, but a line that the reset cut.
        let unread = vm.console.unread();
        for line in unread.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let name = line.trim().strip_prefix("kept ");
            kept.extend(name.filter(|name| name.len() == 64).map(str::to_owned));
        }
    }
    vm.sh("umount /mnt")?;
    vm.check_kernel_log()?;
    vm.qmp.execute("quit", json!({}))?;
    vm.exit_code(SOON)?;
    disk.check_ext4()
}
