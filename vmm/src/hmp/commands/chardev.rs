//! Character devices.

use qmp::{
    ChardevRemove, ChardevSendBreak, Handle, QmpError, QueryChardev, RingbufRead, RingbufWrite,
};

use crate::cli::keyval;
use crate::cli::table::CHARDEV;
use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, Param, arg};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

/// The id of a chardev.
const ID: Param = arg("id", Kind::Word).words(ids);

pub(super) const ROWS: &[Row] = &[
    row(
        &["chardev-add"],
        &[arg("args", Kind::Options).words(kinds)],
        "args",
        "make a character device, as -chardev does",
        add,
    ),
    row(&["chardev-remove"], &[ID], "id", "remove a character device", |call, args| {
        call.vm.handle(ChardevRemove { id: args.text("id").to_owned() })
    }),
    row(
        &["chardev-send-break"],
        &[ID],
        "id",
        "send a break over a character device",
        |call, args| call.vm.handle(ChardevSendBreak { id: args.text("id").to_owned() }),
    ),
    row(
        &["ringbuf_write"],
        &[arg("device", Kind::Word).words(ids), arg("data", Kind::Word)],
        "device data",
        "write text to a ring buffer",
        |call, args| {
            let device = args.text("device").to_owned();
            call.vm.handle(RingbufWrite {
                device,
                format: None,
                data: args.text("data").to_owned(),
            })
        },
    ),
    row(
        &["ringbuf_read"],
        &[arg("device", Kind::Word).words(ids), arg("size", Kind::Int)],
        "device size",
        "read text from a ring buffer",
        read_ring,
    ),
];

pub(super) const INFO: &[Row] = &[bare(&["chardev"], "show the character devices", |call, _| {
    for info in call.vm.handle(QueryChardev {})? {
        call.line(format_args!("{}: filename={}", info.label, info.filename));
    }
    Ok(())
})];

fn ids(vm: &Vm) -> Vec<String> {
    vm.chardevs.list().map(|(id, _)| id.to_owned()).collect()
}

fn kinds(_: &Vm) -> Vec<String> {
    devices::chardev::backends().map(|kind| format!("{kind},id=")).collect()
}

fn add(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let pairs = keyval::parse(args.text("args"), &CHARDEV);
    let pairs = pairs.map_err(|error| {
        tracing::debug!("chardev-add: {error}");
        QmpError::generic("Parsing chardev args failed")
    })?;
    call.vm.chardevs.hot_add_options(&pairs).map_err(|error| QmpError::generic(error.to_string()))
}

fn read_ring(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let device = args.text("device").to_owned();
    let read = RingbufRead { device, size: args.number("size"), format: None };
    let text = call.vm.handle(read)?;
    call.line(shown(&text));
    Ok(())
}

/// What a guest has written, without control characters that would act on the terminal.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' | '\t' => shown.push(c),
            '\0'..' ' | '\x7f' => shown.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => shown.push(c),
        }
    }
    shown
}
