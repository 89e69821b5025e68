//! `vmm-img snapshot`: snapshots inside an image.
//!
//! On the tool's loop. Names and dates are the image's.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Call, Command, Fail, Running};
use crate::image::{Image, Snapshot};
use crate::node::Node;
use crate::snapshot::listing;
use crate::tools::args::{Name, flag, long_flag, long_value, value};
use crate::tools::console::Console;
use crate::tools::images::{Wanted, why};

pub(super) const COMMAND: Command = Command {
    name: "snapshot",
    synopsis: "[-f FMT | --image-opts] [-U] [-q] [-l | -a SNAPSHOT | -c NAME | -d SNAPSHOT] FILE",
    options: &[
        value('f'),
        flag('l'),
        value('a'),
        value('c'),
        value('d'),
        flag('q'),
        flag('U').long("force-share"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(call: &Call) -> Result<(), Fail> {
    let [name] = call.operands("Expecting one image file name")?;
    let mut actions =
        call.args.given().filter(|(name, _)| matches!(name, Name::Short('l' | 'a' | 'c' | 'd')));
    let Some((action, which)) = actions.next() else { return Ok(()) };
    if actions.next().is_some() {
        return Err(Fail::Usage("Cannot mix '-l', '-a', '-c', '-d'".to_owned()));
    }
    let writable = action != Name::Short('l');
    let image = call.open(&Wanted { writable, ..call.wanted(name)? }).await?;
    let unsupported = || std::io::Error::from(std::io::ErrorKind::Unsupported);
    match action {
        Name::Short('l') => {
            let snapshots = image.image().and_then(|image| image.snapshots()).unwrap_or_default();
            if !snapshots.is_empty() {
                rows(&call.console, &snapshots);
            }
        }
        Name::Short('c') => {
            let made = match image.image() {
                Some(format) => format.create_snapshot(new(&image, which)).await.map(drop),
                None => Err(unsupported()),
            };
            made.map_err(|e| format!("Could not create snapshot '{which}': {}", why(&e)))?;
        }
        Name::Short('a') => {
            let done = match image.image() {
                Some(format) => match find(format, which) {
                    Some(id) => format.apply_snapshot(&id).await,
                    None => Err(std::io::ErrorKind::NotFound.into()),
                },
                None => Err(unsupported()),
            };
            done.map_err(|e| format!("Could not apply snapshot '{which}': {}", why(&e)))?;
        }
        _ => {
            let refused =
                |why: &str| Fail::Told(format!("Could not delete snapshot '{which}': {why}"));
            let format = image.image().ok_or_else(|| refused(&why(&unsupported())))?;
            let id = find(format, which).ok_or_else(|| refused("snapshot not found"))?;
            format.delete_snapshot(&id).await.map_err(|error| refused(&why(&error)))?;
        }
    }
    Ok(())
}

/// The snapshot of this id, or else of this name.
pub(in crate::tools) fn find(image: &dyn Image, which: &str) -> Option<String> {
    let all = image.snapshots()?;
    let by_id = all.iter().find(|snapshot| snapshot.id == which);
    let found = by_id.or_else(|| all.iter().find(|snapshot| snapshot.name == which));
    found.map(|snapshot| snapshot.id.clone())
}

fn new(image: &Rc<dyn Node>, name: &str) -> Snapshot {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Snapshot {
        id: String::new(),
        name: name.to_owned(),
        vm_state_size: 0,
        date: (u32::try_from(now.as_secs()).unwrap_or(u32::MAX), now.subsec_nanos()),
        vm_clock: 0,
        disk_size: image.info().size,
    }
}

/// The table of snapshots.
pub(super) fn rows(console: &Console, snapshots: &[Snapshot]) {
    console.line("Snapshot list:");
    listing(snapshots).iter().for_each(|line| console.line(line));
}

/// One snapshot for programs.
pub(super) fn json(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id,
        "name": snapshot.name,
        "vm-state-size": snapshot.vm_state_size,
        "date-sec": snapshot.date.0,
        "date-nsec": snapshot.date.1,
        "vm-clock-sec": snapshot.vm_clock / 1_000_000_000,
        "vm-clock-nsec": snapshot.vm_clock % 1_000_000_000,
    })
}
