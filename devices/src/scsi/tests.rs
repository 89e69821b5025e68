//! Units driven by the bytes of commands.

use proptest::prelude::*;

use super::*;

pub(super) fn disk_identity() -> Identity {
    Identity {
        kind: Kind::Disk,
        vendor: "QEMU".to_owned(),
        product: "QEMU HARDDISK".to_owned(),
        version: "2.5+".to_owned(),
        serial: Some("s1".to_owned()),
        device_id: "s1".to_owned(),
        wwn: 0,
        removable: false,
        block: 512,
        physical: 4096,
        min_io: 4096,
        opt_io: 0,
        discard: 4096,
        rotation: 1,
    }
}

pub(super) fn cd_identity() -> Identity {
    Identity {
        kind: Kind::Cd,
        product: "QEMU CD-ROM".to_owned(),
        removable: true,
        block: 2048,
        physical: 2048,
        discard: 0,
        ..disk_identity()
    }
}

const MEDIUM: Option<Medium> = Some(Medium { bytes: 1 << 20, read_only: false });

struct Rig {
    unit: Unit,
    medium: Option<Medium>,
}

impl Rig {
    fn new(identity: Identity) -> Rig {
        let rig = Rig { unit: Unit::new(identity), medium: MEDIUM };
        // The attention of power-on.
        assert_eq!(rig.send(&[0; 6]), Err(Attention::Reset.sense()));
        rig
    }

    fn send(&self, cdb: &[u8]) -> Result<Work, Sense> {
        self.unit.begin(cdb, |_| Vec::new(), self.medium)
    }

    fn send_with(&self, cdb: &[u8], list: &[u8]) -> Result<Work, Sense> {
        self.unit.begin(cdb, |len| list.iter().copied().take(len).collect(), self.medium)
    }

    fn answer(&self, cdb: &[u8]) -> Vec<u8> {
        match self.send(cdb).unwrap() {
            Work::Answer(data) => data,
            other => panic!("{other:?}"),
        }
    }
}

const READY: [u8; 6] = [0; 6];

#[test]
fn an_attention_is_told_once_and_not_to_all() {
    let rig = Rig::new(disk_identity());
    rig.unit.attend(Attention::Capacity);
    rig.unit.attend(Attention::Capacity);
    assert_eq!(rig.answer(&[0x12, 0, 0, 0, 5, 0]).len(), 5);
    // A command that is wrong is told as well.
    assert_eq!(rig.send(&[0xff; 10]), Err(Attention::Capacity.sense()));
    assert_eq!(rig.answer(&READY), [0u8; 0]);
    rig.unit.attend(Attention::Luns);
    let sense = rig.answer(&[0x03, 0, 0, 0, 18, 0]);
    assert_eq!((sense[2], sense[12], sense[13]), (6, 0x3f, 0x0e));
    assert_eq!(rig.answer(&[0x03, 0, 0, 0, 18, 0])[2], 0);
}

#[test]
fn reads_and_writes_are_placed() {
    let mut rig = Rig::new(disk_identity());
    let read = rig.send(&[0x28, 0, 0, 0, 0, 2, 0, 0, 3, 0]);
    assert_eq!(read, Ok(Work::Read { at: 1024, len: 1536 }));
    // The last block, and one past it.
    assert!(rig.send(&[0x28, 0, 0, 0, 7, 0xff, 0, 0, 1, 0]).is_ok());
    assert_eq!(rig.send(&[0x28, 0, 0, 0, 7, 0xff, 0, 0, 2, 0]), Err(Sense::LBA_RANGE));
    let far = [0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0];
    assert_eq!(rig.send(&far), Err(Sense::LBA_RANGE));
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(rig.send(&write), Ok(Work::Write { at: 0, len: 512, fua: false }));
    rig.medium = Some(Medium { bytes: 1 << 20, read_only: true });
    assert_eq!(rig.send(&write), Err(Sense::WRITE_PROTECTED));
    rig.medium = None;
    assert_eq!(rig.send(&write), Err(Sense::NO_MEDIUM));
}

#[test]
fn capacities() {
    let mut rig = Rig::new(disk_identity());
    assert_eq!(rig.answer(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), [0, 0, 7, 0xff, 0, 0, 2, 0]);
    let mut long = [0; 16];
    (long[0], long[1], long[13]) = (0x9e, 0x10, 32);
    let answer = rig.answer(&long);
    assert_eq!((answer[6], answer[7], answer[13], answer[14]), (7, 0xff, 3, 0x80));
    rig.medium = Some(Medium { bytes: 4 << 40, read_only: false });
    assert_eq!(rig.answer(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0])[..4], [0xff; 4]);
}

#[test]
fn switching_the_cache_off_flushes() {
    let rig = Rig::new(disk_identity());
    let mut list = rig.answer(&[0x1a, 8, 8, 0, 255, 0]);
    (list[0], list[6]) = (0, 0);
    let select = [0x15, 0x10, 0, 0, list.len() as u8, 0];
    assert_eq!(rig.send_with(&select, &list[..9]), Err(Sense::LIST_LENGTH));
    assert_eq!(rig.send_with(&select, &list), Ok(Work::Flush));
    assert!(!rig.unit.write_cache());
    let write = rig.send(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(write, Ok(Work::Write { at: 0, len: 512, fua: true }));
}

#[test]
fn write_same_and_unmap() {
    let rig = Rig::new(disk_identity());
    let same = [0x41, 8, 0, 0, 0, 1, 0, 0, 2, 0];
    let zero = Work::Zero { at: 512, len: 1024, unmap: true };
    assert_eq!(rig.send_with(&same, &[0; 512]), Ok(zero));
    let fill = Work::Fill { at: 512, len: 1024, block: vec![7; 512] };
    assert_eq!(rig.send_with(&same, &[7; 512]), Ok(fill));
    assert_eq!(rig.send_with(&same, &[0; 511]), Err(Sense::LIST_LENGTH));

    let mut list = [0; 40];
    (list[1], list[3]) = (38, 32);
    (list[15], list[19]) = (4, 2);
    (list[31], list[35]) = (8, 0);
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0];
    assert_eq!(rig.send_with(&unmap, &list), Ok(Work::Discard(vec![(2048, 1024)])));
    list[8] = 0xff;
    assert_eq!(rig.send_with(&unmap, &list), Err(Sense::LBA_RANGE));
    list[3] = 48;
    assert_eq!(rig.send_with(&unmap, &list), Err(Sense::LIST_LENGTH));
}

#[test]
fn a_fixed_disk_has_no_tray() {
    let rig = Rig::new(disk_identity());
    assert_eq!(rig.send(&[0x1b, 0, 0, 0, 2, 0]), Err(Sense::INVALID_FIELD));
    assert_eq!(rig.send(&[0x1e, 0, 0, 0, 1, 0]), Err(Sense::INVALID_FIELD));
    assert_eq!(rig.send(&[0x1b, 0, 0, 0, 0, 0]), Ok(Work::Flush));
    assert_eq!(rig.send(&READY), Err(Sense::NOT_READY_STOPPED));
    assert_eq!(rig.answer(&[0x1b, 0, 0, 0, 1, 0]), [0u8; 0]);
    assert_eq!(rig.answer(&READY), [0u8; 0]);
}

#[test]
fn tray_and_lock() {
    let mut rig = Rig::new(cd_identity());
    let (eject, load) = ([0x1b, 0, 0, 0, 2, 0], [0x1b, 0, 0, 0, 3, 0]);
    assert_eq!(rig.send(&[0x1e, 0, 0, 0, 1, 0]), Ok(Work::Lock(true)));
    assert_eq!(rig.send(&eject), Err(Sense::REMOVAL_PREVENTED));
    assert_eq!(rig.send(&[0x1e, 0, 0, 0, 0, 0]), Ok(Work::Lock(false)));
    assert_eq!(rig.send(&eject), Ok(Work::Tray { open: true }));
    assert_eq!(rig.send(&READY), Err(Sense::TRAY_OPEN));
    let event = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
    assert_eq!(rig.answer(&event)[4..6], [3, 1]);
    assert_eq!(rig.answer(&event)[4..6], [0, 1]);
    assert_eq!(rig.send(&load), Ok(Work::Tray { open: false }));
    assert_eq!(rig.answer(&event)[4..6], [2, 2]);
    // The user takes the medium, then brings another one.
    rig.unit.move_tray(true, true);
    rig.medium = None;
    rig.unit.move_tray(false, false);
    assert_eq!(rig.send(&READY), Err(Attention::Medium.sense()));
    assert_eq!(rig.send(&READY), Err(Sense::NO_MEDIUM));
    rig.unit.request_eject();
    assert_eq!(rig.answer(&event)[4..6], [1, 0]);
}

#[test]
fn state_survives() {
    let rig = Rig::new(cd_identity());
    rig.send(&[0x1e, 0, 0, 0, 1, 0]).unwrap();
    let state = rig.unit.save();
    let other = Unit::new(cd_identity());
    other.load(state.clone());
    assert_eq!(other.save(), state);
    assert!(other.is_locked());
    other.reset();
    assert!(!other.is_locked());
    assert_eq!(other.begin(&READY, |_| Vec::new(), MEDIUM), Err(Attention::Reset.sense()));
}

#[test]
fn lists_of_units() {
    assert_eq!(report_luns(&[]).len(), 16);
    let list = report_luns(&[0, 3, 300]);
    assert_eq!(list[..4], [0, 0, 0, 24]);
    assert_eq!(list[16..18], [0, 3]);
    assert_eq!(list[24..26], [0x41, 0x2c]);
}

proptest! {
    #[test]
    fn any_command_is_answered_inside_the_medium(
        cdb in prop::collection::vec(any::<u8>(), 0..33),
        list in prop::collection::vec(any::<u8>(), 0..600),
        medium in prop::option::of(0_u64..5 << 20),
        is_cd: bool,
    ) {
        let rig = Rig::new(if is_cd { cd_identity() } else { disk_identity() });
        let medium = medium.map(|bytes| Medium { bytes, read_only: false });
        let given = |len: usize| list.iter().copied().take(len).collect();
        match rig.unit.begin(&cdb, given, medium) {
            Ok(Work::Answer(data)) => prop_assert!(data.len() <= 65_536),
            Ok(Work::Read { at, len } | Work::Write { at, len, .. } | Work::Zero { at, len, .. }) => {
                prop_assert!(at + len <= medium.unwrap().bytes);
            }
            _ => {}
        }
    }
}
