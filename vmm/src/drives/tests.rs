//! Options of drives, and what becomes of them.

use block::Action;
use resources::iol::{Notify, Thread};
use vmm_sys_util::tempfile::TempFile;

use super::*;
use crate::cli::keyval;
use crate::cli::table::DRIVE;
use crate::cmd::block::{info, stats};

struct Rig {
    drives: Drives,
    mailbox: Arc<Mailbox>,
    io: Handle,
    image: TempFile,
    _thread: Thread,
}

impl Rig {
    fn new() -> Rig {
        let (thread, io) = Thread::spawn("test").unwrap();
        let image = TempFile::new().unwrap();
        image.as_file().set_len(1 << 20).unwrap();
        let mailbox = Mailbox::new(Notify::new());
        Rig { drives: Drives::default(), mailbox, io, image, _thread: thread }
    }

    fn file(&self) -> &str {
        self.image.as_path().to_str().unwrap()
    }

    /// As [`add`](Self::add), for `-blockdev`.
    fn add_node(&mut self, option: &str) -> Result<(), String> {
        let pairs = keyval::parse(&option.replace("FILE", self.file()), &DRIVE).unwrap();
        let home = Home { io: self.io.clone(), mailbox: &self.mailbox };
        self.drives.add_node(&pairs, &home).map_err(|error| error.to_string())
    }

    /// `FILE` in the option stands for the image.
    fn add(&mut self, option: &str) -> Result<Vec<Pairs>, String> {
        let pairs = keyval::parse(&option.replace("FILE", self.file()), &DRIVE).unwrap();
        let home = Home { io: self.io.clone(), mailbox: &self.mailbox };
        self.drives.add_option(&pairs, &home).map_err(|error| error.to_string())
    }
}

#[test]
fn a_drive_is_what_its_options_say() {
    let mut rig = Rig::new();
    let device = rig
        .add("file=FILE,if=virtio,format=raw,cache=none,discard=unmap,serial=s,addr=5,werror=stop")
        .unwrap();
    let given: Vec<_> = device[0].iter().collect();
    assert_eq!(given, [("driver", "virtio-blk-pci"), ("drive", "virtio0"), ("addr", "5")]);
    rig.add("if=none,id=empty").unwrap();
    let drive = rig.drives.find("virtio0").unwrap();
    assert_eq!(drive.serial().as_deref(), Some("s"));
    assert_eq!((drive.size(), drive.write_cache(), drive.discards()), (1 << 20, true, true));
    assert_eq!(drive.policy().write, OnError::Stop);
    let told = info(drive);
    let inserted = told.inserted.unwrap();
    assert_eq!((inserted.file.as_str(), inserted.drv.as_str()), (rig.file(), "raw"));
    assert_eq!((inserted.image.virtual_size, inserted.ro), (1 << 20, false));
    assert_eq!(inserted.image.actual_size, Some(0));
    assert!(told.removable && told.tray_open == Some(false) && told.io_status.is_none());
    let counted = stats(drive);
    assert_eq!((counted.stats.rd_operations, counted.parent.is_some()), (0, true));
    let empty = info(rig.drives.find("empty").unwrap());
    assert!(empty.inserted.is_none());
    let mut rig = rig;
    rig.drives.remove("virtio0").unwrap();
    assert!(rig.drives.remove("virtio0").is_err());
    rig.add("file=file:FILE,if=none,id=virtio0,media=cdrom,cache=writethrough").unwrap();
    let drive = rig.drives.find("virtio0").unwrap();
    assert!(drive.read_only() && !drive.write_cache());
    rig.drives.close();
    assert_eq!(rig.drives.iter().count(), 0);
}

#[test]
fn drives_have_places() {
    let mut rig = Rig::new();
    let shown = |devices: Vec<Pairs>| {
        let one = |device: &Pairs| {
            let pairs: Vec<_> =
                device.iter().map(|(key, value)| format!("{key}={value}")).collect();
            pairs.join(",")
        };
        devices.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let mut add = |option: &str| rig.add(option).map(shown);
    let disk = "driver=virtio-scsi-pci,id=drives-ide \
                driver=scsi-hd,drive=ide0-hd0,bus=drives-ide.0,scsi-id=0";
    assert_eq!(add("file=FILE").unwrap(), disk);
    assert_eq!(
        add("index=2,media=cdrom").unwrap(),
        "driver=scsi-cd,drive=ide1-cd0,bus=drives-ide.0,scsi-id=2"
    );
    assert!(add("unit=1").unwrap().contains("drive=ide0-hd1,"));
    assert!(add("media=disk").unwrap().contains("drive=ide1-hd1,"));
    assert_eq!(add("index=0").unwrap_err(), "drive with bus=0, unit=0 (index=0) exists");
    assert_eq!(add("").unwrap_err(), "bus 2 too big (max is 1)");
    assert!(add("if=scsi,unit=3").unwrap().contains("drive=scsi0-hd3,bus=drives-scsi.0,scsi-id=3"));
    assert_eq!(add("if=virtio").unwrap(), "driver=virtio-blk-pci,drive=virtio0");
    assert_eq!(add("if=none").unwrap(), "");
    let ids: Vec<_> = rig.drives.iter().map(|drive| drive.id()).collect();
    let all = ["ide0-hd0", "ide1-cd0", "ide0-hd1", "ide1-hd1", "scsi0-hd3", "virtio0", "none0"];
    assert_eq!(ids, all);
    rig.drives.remove("ide0-hd1").unwrap();
    assert!(rig.add("").is_ok());
}

#[test]
fn limits_and_overlays_are_told() {
    let mut rig = Rig::new();
    rig.add("if=none,id=d,file=FILE,snapshot=on,throttling.iops-total=5,bps_rd=100,bps_rd_max=9")
        .unwrap();
    let told = info(rig.drives.find("d").unwrap()).inserted.unwrap();
    assert_eq!(
        (told.iops, told.iops_max, told.bps_rd, told.bps_rd_max),
        (5, Some(0), 100, Some(9))
    );
    assert_eq!((told.bps, told.bps_max, told.iops_size), (0, None, None));
    assert_eq!((told.drv.as_str(), told.backing_file.as_deref()), ("qcow2", Some(rig.file())));
    assert_eq!(told.backing_file_depth, 1);
    let image = told.image;
    assert_eq!((image.cluster_size, image.dirty_flag), (Some(65536), Some(false)));
    assert_eq!((image.backing_image.unwrap().filename.as_str(), told.ro), (rig.file(), false));
}

#[test]
fn nodes_stand_on_one_another() {
    let mut rig = Rig::new();
    rig.add_node("driver=file,node-name=f,filename=FILE,read-only=on").unwrap();
    rig.add_node("driver=raw,node-name=one,file=f").unwrap();
    // The part is still known by its name, and others may stand on it too.
    rig.add_node("driver=raw,node-name=two,file=f").unwrap();
    for (option, why) in [
        ("driver=raw,node-name=f,file=one", "Duplicate nodes with node-name='f'"),
        ("driver=raw,node-name=x,file=y", "Cannot find device='' nor node-name='y'"),
        (
            "driver=raw,node-name=x,file.driver=file,file.filename=FILE,file.detect-zeroes=no",
            "could not open disk image x: invalid detect-zeroes option",
        ),
        (
            "driver=raw,node-name=x,file=f,detect-zeroes=unmap",
            "setting detect-zeroes to unmap is not allowed without setting discard operation to \
             unmap",
        ),
        ("driver=raw,node-name=x,file=f,detect-zeroes=maybe", "invalid detect-zeroes option"),
    ] {
        assert_eq!(rig.add_node(option).unwrap_err(), why, "{option}");
    }
    assert!(rig.add("if=none,id=f").unwrap_err().contains("Duplicate ID 'f'"));
    rig.add_node("driver=raw,node-name=x,file=f,detect-zeroes=unmap,discard=unmap").unwrap();
    for name in ["one", "two", "x"] {
        let told = info(rig.drives.find(name).unwrap()).inserted.unwrap();
        assert!(told.ro && told.file == rig.file(), "{name}");
    }
    assert!(rig.drives.find("f").is_none());
}

#[test]
fn mistakes_are_named() {
    let mut rig = Rig::new();
    rig.add("if=none,id=d").unwrap();
    for (option, why) in [
        ("if=none,id=d", "Duplicate ID 'd' for drive"),
        ("if=foo", "unsupported bus type 'foo'"),
        ("if=none,media=tape", "'tape' invalid media"),
        ("if=none,format=foo,file=FILE", "'foo' invalid format"),
        ("if=none,cache=foo,file=FILE", "invalid cache option"),
        ("if=none,aio=foo,file=FILE", "invalid aio option"),
        ("if=none,discard=foo,file=FILE", "invalid discard option"),
        ("if=none,werror=foo,file=FILE", "'foo' invalid write error action"),
        ("if=none,rerror=enospc,file=FILE", "'enospc' invalid read error action"),
        ("if=none,readonly=maybe,file=FILE", "Parameter 'readonly' expects 'on' or 'off'"),
        ("if=none,iops=many,file=FILE", "Parameter 'iops' expects a number"),
        ("if=none,addr=3,file=FILE", "addr is not supported by this bus type"),
        (
            "if=none,file=/no/such",
            "could not open disk image /no/such: Could not open '/no/such': No such file or \
             directory",
        ),
        ("if=none,file=foo:bar", "could not open disk image foo:bar: Unknown protocol"),
    ] {
        assert_eq!(rig.add(option).unwrap_err(), why, "{option}");
    }
    for (option, part) in [
        ("if=none,driver=foo,file=FILE", ": Invalid driver: 'foo'"),
        (
            "if=none,file=FILE,file.filename=x",
            ": Can't specify 'file' and 'filename' options at the same time",
        ),
        ("if=floppy", "if=floppy: the machine has no such disks"),
        (
            "if=none,file=FILE,id=x,nonsense=1",
            "by device 'x' doesn't support the option 'nonsense'",
        ),
        ("if=none,file=FILE,file.nonsense=1", "'file' doesn't support the option 'nonsense'"),
        ("if=none,iops=100,iops_rd=1", "cannot be used at the same time"),
        ("if=none,bps_max=-1", "values must be 0 or greater"),
        ("index=1,unit=1", "index cannot be used with bus and unit"),
        ("unit=2", "unit 2 too big (max is 1)"),
        ("if=scsi,unit=7", "unit 7 too big (max is 6)"),
        ("index=4", "bus 2 too big (max is 1)"),
        ("cyls=0,heads=1,secs=1", "invalid physical cyls number"),
        ("cyls=1,heads=1,secs=1,media=cdrom", "CHS can't be set with media=cdrom"),
        ("trans=lba", "'lba' trans must be used with cyls, heads and secs"),
        ("cyls=1,heads=1,secs=1,trans=x", "'x' invalid translation type"),
        ("if=none,file=FILE,format=host_device", "neither a regular file nor a block device"),
    ] {
        let error = rig.add(option).unwrap_err();
        assert!(error.contains(part), "{option}: {error}");
    }
    // Not silently taken for raw, and no image is left open.
    use std::io::Write;
    rig.image.as_file().write_all(b"QED\0").unwrap();
    assert!(rig.add("if=none,file=FILE").unwrap_err().contains("format 'qed'"));
    rig.add("if=none,file=FILE,format=raw").unwrap();
    // Those that no device has keep nobody from writing; one that does has it for itself.
    rig.add("if=none,file=FILE,format=raw,id=other").unwrap();
    struct Quiet;
    impl block::Model for Quiet {}
    let attached = rig.drives.find("other").unwrap().attach(&rig.io, Arc::new(Quiet));
    assert!(attached.err().unwrap().to_string().contains("lock"));
}

#[test]
fn failures_reach_the_mailbox_and_are_bounded() {
    let mut rig = Rig::new();
    rig.add("if=none,id=d,file=FILE,werror=stop,format=raw").unwrap();
    let drive = rig.drives.find("d").unwrap().clone();
    let error = std::io::Error::from_raw_os_error(libc::EIO);
    for _ in 0..1000 {
        assert_eq!(drive.failed(false, &error), Action::Report);
    }
    assert_eq!(drive.failed(true, &error), Action::Stop);
    assert_eq!(drive.failed(true, &error), Action::Stop);
    let mail = rig.mailbox.take();
    assert_eq!(mail.disk_failures.len(), 257);
    let last = mail.disk_failures.last().unwrap();
    assert!(last.write && last.action == Action::Stop);
    drive.enable_io_status();
    rig.drives.stopped_by(last);
    assert_eq!(drive.io_status(), Some(IoStatus::Failed));
    rig.drives.reset_io_status();
    assert_eq!(drive.io_status(), Some(IoStatus::Ok));
}
