//! A [`Guest`]'s program as what the machine boots: firmware, or a kernel of each kind.

use iced_x86::code_asm::*;

use super::asm::{self, Blob, Guest, ORIGIN, words};
use crate::rig::Result;
use crate::rig::registry::Ctx;
use crate::rig::vm::VmBuilder;

/// Size of the firmware image, which ends at 1 MiB and at 4 GiB.
const FIRMWARE: u64 = 0x1_0000;
const FIRMWARE_LOW: u64 = 0xf_0000;
/// Where in it, and in its segment, the first code is.
pub const START: u64 = 0xe000;
/// Offsets in it: the way out of real mode, and the reset vector.
const PROTECTED: u64 = 0xe100;
const GDT: u64 = 0xe200;
const RESET: u64 = 0xfff0;

impl Guest {
    /// The program as firmware: it starts at the reset vector.
    pub fn firmware(self) -> Result<Vec<u8>> {
        let program = self.assemble()?;
        let mut image = Blob::default();
        image.put(FIRMWARE - 1, &[0])?;
        image.put(0, &program)?;
        let to = FIRMWARE_LOW + PROTECTED;
        image.put(START, &asm::real_to_protected(START, FIRMWARE_LOW + GDT, to)?)?;
        image.put(PROTECTED, &copy_up(program.len())?)?;
        image.put(GDT, &words(&asm::DESCRIPTORS))?;
        image.put(RESET, &reset_vector())?;
        Ok(image.bytes)
    }

    /// A machine of 16 MiB with the program as its firmware.
    pub fn vm(self, ctx: &Ctx) -> Result<VmBuilder> {
        boot(ctx, "-bios", &self.firmware()?)
    }
}

/// Firmware that is nothing but 16-bit code: it starts at F000:E000 in real mode.
pub fn real_mode(mut code: CodeAssembler) -> Result<Vec<u8>> {
    let mut image = Blob::default();
    image.put(FIRMWARE - 1, &[0])?;
    image.put(START, &code.assemble(START)?)?;
    image.put(RESET, &reset_vector())?;
    Ok(image.bytes)
}

/// A machine of 16 MiB that boots `image` by `option`.
pub fn boot(ctx: &Ctx, option: &str, image: &[u8]) -> Result<VmBuilder> {
    let path = ctx.dir.join("image");
    std::fs::write(&path, image)?;
    let path = path.to_str().ok_or("a path that is no text")?;
    Ok(ctx.vm().memory("16").args([option, path]))
}

/// `jmp F000:START`.
fn reset_vector() -> [u8; 5] {
    let [low, high] = (START as u16).to_le_bytes();
    [0xea, low, high, 0x00, 0xf0]
}

/// Copies the program from the firmware to its place and goes there.
fn copy_up(len: usize) -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(32)?;
    a.mov(eax, 0x10)?;
    for segment in [ds, es, ss] {
        a.mov(segment, ax)?;
    }
    a.mov(esi, FIRMWARE_LOW as u32)?;
    a.mov(edi, ORIGIN as u32)?;
    a.mov(ecx, u32::try_from(len.div_ceil(4))?)?;
    a.rep().movsd()?;
    a.mov(eax, ORIGIN as u32)?;
    a.jmp(eax)?;
    Ok(a.assemble(FIRMWARE_LOW + PROTECTED)?)
}
