//! Guest memory, page tables and address spaces as text for people, laid out as tools parse it.
//!
//! Main thread; the guest may be running. Addresses and counts are a client's, contents and page
//! tables the guest's: whatever they are, a text ends soon after [`MAX_OUTPUT`] bytes.

mod paging;
mod spaces;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, Formatter as _, GasFormatter};
use qmp::QmpError;
use resources::space::Space;

pub use paging::{gva2gpa, mappings, tlb};
pub use spaces::{gpa2hva, mtree, numa, roms};

use crate::cpu::paging::Paging;
use crate::hmp::MAX_OUTPUT;
use crate::hmp::parse::Format;
use crate::vm::Vm;

/// The most bytes an instruction has.
const INSTRUCTION: usize = 15;

/// Where memory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At a guest-physical address.
    Physical(u64),
    /// At a linear address of this vCPU.
    Virtual(usize, u64),
}

/// The text of `x` and `xp`: memory as numbers, characters or instructions.
///
/// # Errors
/// When there is no such vCPU, or a boot image cannot be read.
pub fn memory(vm: &mut Vm, place: Place, format: Format) -> Result<String, QmpError> {
    vm.fill()?;
    let memory = vm.board.memory.clone();
    let (paging, address, mut bits) = match place {
        Place::Physical(address) => (None, address, 32),
        Place::Virtual(cpu, address) => {
            let registers = vm.registers(cpu as i64)?;
            (Some(Paging::of(&registers.sregs)), address, registers.code_bits())
        }
    };
    let reader = Reader { memory: &memory, paging };
    if format.letter == b'i' {
        if paging.is_none()
            && let Ok(registers) = vm.registers(0)
        {
            bits = registers.code_bits();
        }
        return Ok(instructions(&reader, address, format.count, bits));
    }
    Ok(values(&reader, address, format))
}

struct Reader<'a> {
    memory: &'a Space,
    paging: Option<Paging>,
}

impl Reader<'_> {
    /// `false`: some of it is not there.
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        match &self.paging {
            Some(paging) => paging.read(self.memory, address, data),
            None => {
                self.memory.inspect(address, data);
                true
            }
        }
    }
}

fn values(reader: &Reader<'_>, mut address: u64, format: Format) -> String {
    let size = format.size.unwrap_or(4);
    let per_line = if size == 1 { 8 } else { 16 };
    let mut left = format.count.saturating_mul(size.into());
    // Characters are bytes, however many were asked for.
    let size = usize::from(if format.letter == b'c' { 1 } else { size });
    let mut text = String::new();
    let mut line = [0; 16];
    while left > 0 && text.len() < MAX_OUTPUT {
        let len = left.min(per_line);
        let data = line.get_mut(..len as usize).unwrap_or_default();
        let _ = write!(text, "{address:016x}:");
        if !reader.read(address, data) {
            text.push_str(" Cannot access memory\n");
            break;
        }
        for value in data.chunks(size) {
            let value = value.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            text.push(' ');
            text.push_str(&number(value, format.letter, size));
        }
        text.push('\n');
        address = address.wrapping_add(len);
        left -= len;
    }
    text
}

/// A number of `size` bytes, as wide as the widest of them.
fn number(value: u64, letter: u8, size: usize) -> String {
    let bits = size * 8;
    match letter {
        b'o' => {
            let (octal, width) = (format!("{value:o}"), bits.div_ceil(3));
            let octal = if value == 0 { octal } else { format!("0{octal}") };
            format!("{octal:>width$}")
        }
        b'c' => crate::hmp::quoted(value as u8),
        b'd' | b'u' => {
            let width = (bits * 10).div_ceil(33);
            // Only those of 8 bytes have a sign here, as clients know it.
            match letter {
                b'd' => format!("{:>width$}", value.cast_signed()),
                _ => format!("{value:>width$}"),
            }
        }
        _ => format!("{value:#0width$x}", width = bits / 4 + 2),
    }
}

fn instructions(reader: &Reader<'_>, mut address: u64, count: u64, bits: u32) -> String {
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    for _ in 0..count {
        if text.len() >= MAX_OUTPUT {
            break;
        }
        // An instruction may end just before what is not there.
        let mut bytes = [0; INSTRUCTION];
        let there = |len: &usize| reader.read(address, bytes.get_mut(..*len).unwrap_or_default());
        let Some(len) = (1..=INSTRUCTION).rev().find(there) else {
            let _ = writeln!(text, "{address:#018x}:  Cannot access memory");
            break;
        };
        let bytes = bytes.get(..len).unwrap_or_default();
        let mut decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let _ = write!(text, "{address:#018x}:  ");
        formatter.format(&instruction, &mut text);
        text.push('\n');
        address = address.wrapping_add(instruction.len().max(1) as u64);
    }
    text
}
