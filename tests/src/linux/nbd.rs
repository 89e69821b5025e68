//! Images that `vmm-nbd` makes disks of the kernel it runs on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::Result;
use crate::rig::disk::Disk;
use crate::rig::process::wait_for_end;
use crate::rig::registry::{Ctx, Test};
use crate::rig::vm::SOON;
use crate::supply::guests::busybox;
use crate::supply::run;
use crate::workspace::NBD;

pub(super) fn tests() -> Vec<Test> {
    vec![Test::linux("nbd::images_are_disks_of_the_kernel", 60, disks_of_the_kernel)]
}

const DEVICE: &str = "/dev/nbd0";
const SIZE: u64 = 64 << 20;

/// The server's program, and where its images are.
struct Server<'a> {
    program: PathBuf,
    dir: &'a Path,
}

impl Server<'_> {
    fn run(&self, words: &[&str]) -> Result<String> {
        let said = run(Command::new(&self.program).current_dir(self.dir).args(words))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// What it says of a call that it refuses.
    fn refuses(&self, words: &[&str]) -> Result<String> {
        match self.run(words) {
            Ok(said) => Err(format!("{words:?} was not refused: {said}").into()),
            Err(error) => Ok(error.to_string()),
        }
    }
}

/// A file system on a qcow2 image is made, used and trimmed, its partitions are seen, and what the
/// kernel was told is written is in the image.
fn disks_of_the_kernel(ctx: &Ctx) -> Result {
    if !Path::new(DEVICE).exists() {
        tool(&["modprobe", "nbd"])?;
    }
    let server = Server { program: ctx.peer.path().with_file_name(NBD), dir: &ctx.dir };
    let image = ctx.dir.join("disk.qcow2");
    for image in [&image, &ctx.dir.join("other.qcow2")] {
        qemu_img(&["create", "-q", "-f", "qcow2", &name(image), &SIZE.to_string()])?;
    }
    let connect = ["-c", DEVICE, "-f", "qcow2", "--discard=unmap", "disk.qcow2"];
    server.run(&connect)?;
    // It is there when the command has ended.
    if sectors()? != SIZE / 512 {
        return Err(format!("{DEVICE} has {} sectors", sectors()?).into());
    }
    let taken = server.refuses(&["-c", DEVICE, "-f", "qcow2", "other.qcow2"])?;
    if !taken.contains("busy") {
        return Err(format!("a device that is in use: {taken}").into());
    }

    run(Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-E", "nodiscard", DEVICE]))?;
    let place = name(&ctx.dir.join("place"));
    fs::create_dir(&place)?;
    tool(&["mount", "-t", "ext4", DEVICE, &place])?;
    let wanted = Disk::patterned(&ctx.dir, "wanted", 8 << 20, 1)?;
    fs::copy(wanted.path(), format!("{place}/kept"))?;
    fs::copy(wanted.path(), format!("{place}/removed"))?;
    tool(&["sync"])?;
    let before = allocated(&image)?;
    fs::remove_file(format!("{place}/removed"))?;
    // Blocks of a removed file are free once the journal says so.
    tool(&["sync"])?;
    tool(&["fstrim", &place])?;
    tool(&["umount", &place])?;
    server.run(&["-d", DEVICE])?;
    gone()?;
    run(Command::new("/usr/bin/qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&image))?;
    let after = allocated(&image)?;
    if after + (6 << 20) > before {
        return Err(format!("trimming left {after} of {before} bytes").into());
    }
    // It is told where nothing is, as well.
    server.run(&["-d", DEVICE])?;

    // A reader sees it again, and nobody writes to it.
    let pid_file = name(&ctx.dir.join("pid"));
    let pid_option = format!("--pid-file={pid_file}");
    server.run(&["-c", DEVICE, "-r", &pid_option, "-f", "qcow2", "disk.qcow2"])?;
    tool(&["mount", "-r", "-t", "ext4", DEVICE, &place])?;
    if fs::read(format!("{place}/kept"))? != fs::read(wanted.path())? {
        return Err("another file is read back".into());
    }
    if fs::write(format!("{place}/new"), "x").is_ok() || fs::write(DEVICE, "x").is_ok() {
        return Err("a disk that is only to be read was written to".into());
    }
    tool(&["umount", &place])?;
    // The server takes it with it.
    let pid = fs::read_to_string(&pid_file)?.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or("no number of a process in the file")?;
    kill_process(pid, Signal::TERM)?;
    if !wait_for_end(pid, SOON)? {
        return Err("the server does not end".into());
    }
    gone()?;

    partitions(ctx, &server)
}

/// The kernel sees what is on the disk when the command has ended.
fn partitions(ctx: &Ctx, server: &Server<'_>) -> Result {
    let mut table = vec![0; 1 << 20];
    // One partition of type 0x83 from sector 8 on, 64 sectors long (MBR).
    table[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 64, 0, 0, 0]);
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    table[8 * 512..][..5].copy_from_slice(b"hello");
    fs::write(ctx.dir.join("parts"), table)?;
    server.run(&["-c", DEVICE, "-f", "raw", "parts"])?;
    let part = format!("{DEVICE}p1");
    let found = Path::new(&part).exists();
    let begins = if found { fs::read(&part)?[..5].to_vec() } else { Vec::new() };
    server.run(&["-d", DEVICE])?;
    gone()?;
    match &*begins {
        b"hello" => Ok(()),
        _ => Err(format!("{part} is there: {found}; it begins with {begins:?}").into()),
    }
}

fn sectors() -> Result<u64> {
    Ok(fs::read_to_string("/sys/block/nbd0/size")?.trim().parse()?)
}

/// Waits until the kernel's client has nothing to do with the device any more.
fn gone() -> Result {
    let deadline = Instant::now() + SOON;
    while Path::new("/sys/block/nbd0/pid").exists() {
        if Instant::now() > deadline {
            return Err(format!("{DEVICE} stays").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Bytes of the image's disk that are not zero or have been written.
fn allocated(image: &Path) -> Result<u64> {
    let map = qemu_img(&["map", "-U", "--output=json", "-f", "qcow2", &name(image)])?;
    let map: serde_json::Value = serde_json::from_slice(&map)?;
    let all = map.as_array().ok_or("no map")?.iter();
    let data = all.filter(|entry| entry["data"] == true && entry["zero"] == false);
    Ok(data.filter_map(|entry| entry["length"].as_u64()).sum())
}

fn qemu_img(words: &[&str]) -> Result<Vec<u8>> {
    run(Command::new("/usr/bin/qemu-img").args(words))
}

fn tool(words: &[&str]) -> Result {
    run(Command::new(busybox()?).args(words)).map(drop)
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
