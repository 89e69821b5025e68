//! Memory, ports and numbers.

use qmp::{DumpGuestMemory, Handle, Memsave, Pmemsave, QmpError};

use crate::hmp::Call;
use crate::hmp::parse::{Args, Format, Kind, arg, flag, opt};
use crate::hmp::table::{Row, row};

pub(super) const ROWS: &[Row] = &[
    row(
        &["p", "print"],
        &[arg("fmt", Kind::Format), arg("val", Kind::Long)],
        "/fmt expr",
        "print the value of an expression",
        print,
    ),
    row(
        &["i"],
        &[arg("fmt", Kind::Format), arg("addr", Kind::Int), opt("index", Kind::Int).after_dot()],
        "/fmt addr[.index]",
        "read an I/O port, selected by index if there is one",
        read_port,
    ),
    row(
        &["o"],
        &[arg("fmt", Kind::Format), arg("addr", Kind::Int), arg("val", Kind::Int)],
        "/fmt addr value",
        "write an I/O port",
        write_port,
    ),
    row(
        &["sum"],
        &[arg("start", Kind::Int), arg("size", Kind::Int)],
        "addr size",
        "compute the checksum of a part of memory, as the command sum does",
        sum,
    ),
    row(
        &["memsave"],
        &[arg("val", Kind::Long), arg("size", Kind::Int), arg("filename", Kind::File)],
        "addr size file",
        "write memory by virtual address to a file",
        |call, args| {
            call.vm.handle(Memsave {
                val: args.number("val"),
                size: args.number("size"),
                filename: args.text("filename").to_owned(),
                cpu: None,
                cpu_index: i64::try_from(call.monitor.cpu).ok(),
            })
        },
    ),
    row(
        &["pmemsave"],
        &[arg("val", Kind::Long), arg("size", Kind::Int), arg("filename", Kind::File)],
        "addr size file",
        "write memory by physical address to a file",
        |call, args| {
            call.vm.handle(Pmemsave {
                val: args.number("val"),
                size: args.number("size"),
                filename: args.text("filename").to_owned(),
            })
        },
    ),
    row(
        &["dump-guest-memory"],
        &[
            flag("paging", b'p'),
            arg("filename", Kind::File),
            opt("begin", Kind::Long),
            opt("length", Kind::Long),
        ],
        "[-p] filename [begin length]",
        "write memory to a core file",
        |call, args| {
            call.vm.handle(DumpGuestMemory {
                paging: args.is_on("paging"),
                protocol: format!("file:{}", args.text("filename")),
                begin: args.opt_number("begin"),
                length: args.opt_number("length"),
                end: None,
                detach: None,
                format: None,
            })
        },
    ),
];

/// A character in quotes, as C writes it.
pub(crate) fn quoted(byte: u8) -> String {
    match byte {
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\'' | b'\\' => format!("'\\{}'", char::from(byte)),
        b' '..=b'~' => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

fn print(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let value = args.number("val");
    call.line(match args.format().letter {
        _ if value == 0 && args.format().letter != b'c' => "0".to_owned(),
        b'o' => format!("0{value:o}"),
        b'x' => format!("{value:#x}"),
        b'u' => (value as u64).to_string(),
        b'c' => quoted(value as u8),
        _ => value.to_string(),
    });
    Ok(())
}

/// How many bytes an access to a port has, and the letter for that.
fn port_size(format: Format) -> (usize, char) {
    match format.size {
        Some(1) => (1, 'b'),
        Some(2) => (2, 'w'),
        _ => (4, 'l'),
    }
}

fn read_port(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let ports = &call.vm.board.ports;
    let mut port = args.number("addr") as u16;
    if let Some(index) = args.opt_number("index") {
        ports.write(port.into(), &[index as u8]);
        port = port.wrapping_add(1);
    }
    let (size, letter) = port_size(args.format());
    let mut data = [0; 4];
    if let Some(data) = data.get_mut(..size) {
        ports.read(port.into(), data);
    }
    let value = u32::from_le_bytes(data);
    let width = size.saturating_mul(2);
    let value = if value == 0 { format!("{value:0width$}") } else { format!("{value:#0width$x}") };
    call.line(format_args!("port{letter}[{port:#06x}] = {value}"));
    Ok(())
}

fn write_port(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let (size, _) = port_size(args.format());
    let value = (args.number("val") as u32).to_le_bytes();
    let port = args.number("addr") as u16;
    call.vm.board.ports.write(port.into(), value.get(..size).unwrap_or_default());
    Ok(())
}

fn sum(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    call.vm.fill()?;
    let (mut at, mut left) = (args.number("start") as u64, args.number("size") as u64);
    let mut sum = 0u16;
    let mut buffer = [0; 4096];
    while left > 0 {
        let length = left.min(buffer.len() as u64);
        let data = buffer.get_mut(..length as usize).unwrap_or_default();
        call.vm.board.memory.inspect(at, data);
        for byte in data {
            sum = sum.rotate_right(1).wrapping_add(u16::from(*byte));
        }
        (at, left) = (at.wrapping_add(length), left.saturating_sub(length));
    }
    call.line(format_args!("{sum:05}"));
    Ok(())
}
