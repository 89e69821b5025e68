//! `--list`: the exports of another server.
//!
//! On the tool's loop, no lock. What the server says of itself was checked when it was read, and
//! its texts are shown without what could move a terminal's cursor.

use resources::iol::Loop;

use crate::nbd::Address;
use crate::nbd::client::{self, Facts};
use crate::nbd::wire::flag;
use crate::tools::console::{Console, Fail};

/// The flags by the names under which they are listed.
const FLAGS: [(u16, &str); 11] = [
    (flag::READ_ONLY, "readonly"),
    (flag::SEND_FLUSH, "flush"),
    (flag::SEND_FUA, "fua"),
    (1 << 4, "rotational"),
    (flag::SEND_TRIM, "trim"),
    (flag::SEND_WRITE_ZEROES, "zeroes"),
    (flag::SEND_DF, "df"),
    (flag::CAN_MULTI_CONN, "multi"),
    (flag::SEND_RESIZE, "resize"),
    (flag::SEND_CACHE, "cache"),
    (flag::SEND_FAST_ZERO, "fast-zero"),
];

/// Lists the exports of the server at `address`.
pub(super) fn list(
    console: &Console,
    address: &Address,
    tls: Option<&resources::tls::Client>,
) -> Result<(), Fail> {
    let mut the_loop = Loop::new("vmm-nbd").map_err(|error| error.to_string())?;
    let local = the_loop.local().clone();
    let exports = the_loop.run(client::list(&local, address, tls));
    let exports = exports.map_err(|error| error.to_string())?;
    console.line(format_args!("exports available: {}", exports.len()));
    exports.iter().for_each(|export| one(console, export));
    Ok(())
}

fn one(console: &Console, export: &Facts) {
    console.line(format_args!(" export: '{}'", export.name));
    if let Some(text) = &export.description {
        console.line(format_args!("  description: {text}"));
    }
    if export.has(flag::HAS_FLAGS) {
        console.line(format_args!("  size:  {}", export.size));
        let names = FLAGS.iter().filter(|(flag, _)| export.has(*flag));
        let names: String = names.map(|(_, name)| format!(" {name}")).collect();
        console.line(format_args!("  flags: {:#x} ({names} )", export.flags));
    }
    if let Some((least, preferred, most)) = export.block_size {
        console.line(format_args!("  min block: {least}"));
        console.line(format_args!("  opt block: {preferred}"));
        console.line(format_args!("  max block: {most}"));
    }
    if !export.contexts.is_empty() {
        console.line(format_args!("  available meta contexts: {}", export.contexts.len()));
        export.contexts.iter().for_each(|(_, name)| console.line(format_args!("   {name}")));
    }
}
