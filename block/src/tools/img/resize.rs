//! `vmm-img resize`: makes an image larger or smaller.
//!
//! On the tool's loop.

use std::io;
use std::rc::Rc;

use resources::iol::IoBuf;

use super::{Call, Command, Fail, Running};
use crate::node::{Node, Zero};
use crate::qcow2::Preallocation;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{Wanted, why};
use crate::tools::size;

pub(super) const COMMAND: Command = Command {
    name: "resize",
    synopsis: "[-f FMT | --image-opts] [--preallocation=MODE] [-q] [--shrink] FILE [+|-]SIZE",
    options: &[
        value('f'),
        flag('q'),
        long_flag("shrink"),
        long_value("preallocation"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

/// Zeros are written in pieces of this many bytes.
const PIECE: u64 = 1 << 20;

/// The size that `text` means for an image that has `now` bytes; `None` if it is no size.
fn wanted_size(text: &str, now: u64) -> Option<Option<u64>> {
    let (sign, number) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => (0, text),
    };
    let number = size::parse(number)?;
    Some(match sign {
        1 => now.checked_add(number),
        -1 => now.checked_sub(number),
        _ => Some(number),
    })
}

async fn run(call: &Call) -> Result<(), Fail> {
    // `-10G` is a size here: the parser of options has to be told.
    let [name, text] = call.operands("Not enough arguments")?;
    if wanted_size(text, u64::MAX / 2).is_none() {
        return Err(Fail::Told(format!("Invalid image size specified. {}", size::SUFFIXES)));
    }
    let image = call.open(&Wanted { writable: true, ..call.wanted(name)? }).await?;
    let now = image.info().size;
    let wanted = wanted_size(text, now).flatten();
    let wanted = wanted.filter(|size| *size > 0 && i64::try_from(*size).is_ok());
    let wanted = wanted.ok_or("New image size must be positive")?;
    let preallocation = call.args.get("preallocation").unwrap_or("off");
    let how = Preallocation::named(preallocation)
        .map_err(|_| format!("Invalid preallocation mode '{preallocation}'"))?;
    if image.image().is_none() && how == Preallocation::Metadata {
        return Err(Fail::Told(format!("Unsupported preallocation mode '{preallocation}'")));
    }
    if wanted <= now && how != Preallocation::Off {
        return Err("Preallocation can only be used for growing images".into());
    }
    if wanted < now && !call.args.has("shrink") {
        call.console.error(
            "Use the --shrink option to perform a shrink operation.\n\
             Warning: Shrinking an image will delete all data beyond the shrunken image's end. \
             Before performing such an operation, make sure there is no important data there.",
        );
        return Err(Fail::Code(1));
    }
    image.resize(wanted).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::Unsupported => "This image does not support resize".to_owned(),
        _ => format!("Error resizing image: {}", why(&error)),
    })?;
    if wanted > now {
        let done = give_room(&image, now, wanted, how).await;
        done.map_err(|error| format!("Could not preallocate: {}", why(&error)))?;
    }
    image.flush().await.map_err(|error| format!("Error resizing image: {}", why(&error)))?;
    if !call.quiet() {
        call.console.line("Image resized.");
    }
    Ok(())
}

/// Gives what is new of an image room in its file.
async fn give_room(image: &Rc<dyn Node>, from: u64, to: u64, how: Preallocation) -> io::Result<()> {
    match (image.image(), how) {
        (_, Preallocation::Off) => Ok(()),
        (Some(format), how) => format.preallocate(from, to, how).await,
        (None, Preallocation::Full) => {
            let zeros = IoBuf::zeroed(PIECE as usize);
            let mut at = from;
            while at < to {
                let len = (to - at).min(PIECE);
                image.write(at, zeros.slice(0..len as usize), false).await?;
                at += len;
            }
            Ok(())
        }
        (None, _) => image.zero(from, to - from, Zero::Keep).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_be_relative() {
        assert_eq!(wanted_size("1k", 5), Some(Some(1024)));
        assert_eq!(wanted_size("+1k", 5), Some(Some(1029)));
        assert_eq!(wanted_size("-1", 5), Some(Some(4)));
        assert_eq!(wanted_size("-6", 5), Some(None));
        assert_eq!(wanted_size("+7E", u64::MAX), Some(None));
        for wrong in ["", "+", "-x", "++1", "1x"] {
            assert_eq!(wanted_size(wrong, 5), None, "{wrong}");
        }
    }
}
