//! `vmm-img map`: where an image's data lies.
//!
//! On the tool's loop. The image says how many runs there are; they are printed as they are found.

use std::rc::Rc;

use super::{Call, Command, Fail, Running, size_option};
use crate::chain::{self, Content};
use crate::name;
use crate::node::Node;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::why;
use crate::tools::signals;

pub(super) const COMMAND: Command = Command {
    name: "map",
    synopsis: "[-f FMT | --image-opts] [--output=human|json] [-s OFFSET] [-l LENGTH] [-U] FILE",
    options: &[
        value('f').long("format"),
        long_value("output"),
        value('s').long("start-offset"),
        value('l').long("max-length"),
        long_flag("image-opts"),
        long_value("object"),
        flag('U').long("force-share"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

/// What is looked at in one go.
const STRIDE: u64 = 1 << 30;

/// A run as it is printed.
struct Entry {
    start: u64,
    len: u64,
    depth: u32,
    content: Content,
    offset: Option<u64>,
    node: Rc<dyn Node>,
}

impl Entry {
    fn data(&self) -> bool {
        self.content == Content::Data
    }

    /// Whether `next`, which follows, is more of the same.
    fn continues(&self, next: &Entry) -> bool {
        self.depth == next.depth
            && self.data() == next.data()
            && match (self.offset, next.offset) {
                (None, None) => true,
                (Some(offset), Some(next)) => offset.checked_add(self.len) == Some(next),
                _ => false,
            }
    }
}

async fn run(call: &Call) -> Result<(), Fail> {
    let json = call.json()?;
    let [name] = call.operands("Expecting one image file name")?;
    let start = size_option(&call.args, 's', "start offset")?.unwrap_or(0);
    let most = size_option(&call.args, 'l', "max length")?;
    let image = call.open(&call.wanted(name)?).await?;
    let size = image.info().size;
    let end = most.map_or(size, |most| start.saturating_add(most).min(size));
    let mut printer = Printer { call, json, first: true };
    printer.begin();
    let mut at = start;
    let mut held: Option<Entry> = None;
    while at < end {
        signals::check()?;
        let found = chain::look(&image, at, (end - at).min(STRIDE), None).await;
        let found =
            found.map_err(|error| format!("Failed to read image metadata: {}", why(&error)))?;
        let entry = Entry {
            start: at,
            len: found.len,
            depth: found.depth,
            content: found.content,
            offset: found.offset,
            node: found.node,
        };
        at += entry.len;
        match &mut held {
            Some(held) if held.continues(&entry) => held.len += entry.len,
            _ => {
                if let Some(done) = held.replace(entry) {
                    printer.entry(&done)?;
                }
            }
        }
    }
    if let Some(last) = held {
        printer.entry(&last)?;
    }
    printer.end();
    Ok(())
}

struct Printer<'a> {
    call: &'a Call,
    json: bool,
    first: bool,
}

impl Printer<'_> {
    fn begin(&self) {
        if self.json {
            self.call.console.print("[");
        } else {
            let (offset, length) = ("Offset", "Length");
            let (mapped, file) = ("Mapped to", "File");
            self.call.console.line(format_args!("{offset:<16}{length:<16}{mapped:<16}{file}"));
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Fail> {
        let console = &self.call.console;
        let Entry { start, len, depth, .. } = entry;
        if self.json {
            if !std::mem::replace(&mut self.first, false) {
                console.print(",\n");
            }
            let data = entry.data();
            console.print(format_args!(
                "{{ \"start\": {start}, \"length\": {len}, \"depth\": {depth}, \
                 \"zero\": {}, \"data\": {data}",
                !data
            ));
            if let Some(offset) = entry.offset {
                console.print(format_args!(", \"offset\": {offset}"));
            }
            console.print("}");
        } else if entry.data() {
            let Some(offset) = entry.offset else {
                let text = "File contains external, encrypted or compressed clusters.";
                return Err(text.into());
            };
            let file = name::of(&*entry.node);
            let [start, len, offset] = [*start, *len, offset].map(number);
            console.line(format_args!("{start:<16}{len:<16}{offset:<16}{file}"));
        }
        Ok(())
    }

    fn end(&self) {
        if self.json {
            self.call.console.line("]");
        }
    }
}

/// As C prints it: zero has no prefix.
fn number(number: u64) -> String {
    if number == 0 { "0".to_owned() } else { format!("{number:#x}") }
}
