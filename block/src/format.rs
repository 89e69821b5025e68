//! The formats: what an image's bytes mean. A new one is one file and one row.
//!
//! Any thread, no lock; opening is on the loop of the graph. The first bytes of an image, which a
//! format is recognised by, come from anybody.

use std::pin::Pin;
use std::rc::Rc;

use crate::create::{CreateOption, NewFile};
use crate::host::errno_text;
use crate::node::Node;
use crate::open::{Layer, OpenError, Opening};
use crate::qcow2;
use crate::raw::Raw;

/// Opens a format over its file.
pub type OpenFormat = for<'a> fn(Layer<'a>, Rc<dyn Node>) -> Opening<'a>;

/// How an image is laid out.
pub struct Format {
    /// Its name as a driver.
    pub name: &'static str,
    /// How sure it is, of 100, that an image with these first bytes and this name is its own.
    pub probe: fn(&[u8], &str) -> u8,
    /// Opens it; `None` for what is only recognised.
    pub open: Option<OpenFormat>,
    /// Makes an image in an empty file; `None` if it cannot.
    pub create: Option<CreateFormat>,
    /// Options of new images.
    pub create_options: &'static [CreateOption],
    /// Options of images that are there, which can be changed.
    pub amend_options: &'static [CreateOption],
}

/// Makes an image in an empty file.
pub type CreateFormat = for<'a> fn(NewFile<'a>) -> Creating<'a>;

/// An image that is being made.
pub type Creating<'a> = Pin<Box<dyn Future<Output = Result<(), OpenError>> + 'a>>;

/// A format that is only recognised.
const fn foreign(name: &'static str, probe: fn(&[u8], &str) -> u8) -> Format {
    Format { name, probe, open: None, create: None, create_options: &[], amend_options: &[] }
}

/// The bytes as they are.
pub const RAW: &Format = &Format {
    name: "raw",
    probe: |_, _| 1,
    open: Some(|layer, file| Box::pin(open_raw(layer, file))),
    create: Some(|new| Box::pin(create_raw(new))),
    create_options: &[CreateOption { name: "size", help: "Virtual disk size" }],
    amend_options: &[],
};

/// All of them.
pub static FORMATS: &[&Format] = &[
    RAW,
    qcow2::driver::QCOW2,
    &foreign("qcow", |head, _| version(head, b"QFI\xfb", 1..=1)),
    &foreign("cow", |head, _| version(head, b"OOOM", 2..=2)),
    &foreign("qed", |head, _| magic(head, 0, b"QED\0")),
    &foreign("vmdk", vmdk),
    &foreign("vdi", |head, _| magic(head, 64, b"\x7f\x10\xda\xbe")),
    &foreign("vhdx", |head, _| magic(head, 0, b"vhdxfile")),
    &foreign("vpc", |head, _| magic(head, 0, b"conectix")),
    &foreign("bochs", |head, _| magic(head, 0, b"Bochs Virtual HD Image\0")),
    &foreign("parallels", |head, _| magic(head, 0, b"WithoutFreeSpace")),
];

/// The format of this name.
pub fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|format| format.name == name)
}

/// The format of this name, if images of it can be opened.
pub fn usable(name: &str) -> Option<&'static Format> {
    named(name).filter(|format| format.open.is_some())
}

/// The format whose image begins like this.
pub fn probe(head: &[u8], filename: &str) -> &'static Format {
    let surest = FORMATS.iter().copied().rev().max_by_key(|format| (format.probe)(head, filename));
    surest.unwrap_or(RAW)
}

fn magic(head: &[u8], at: usize, magic: &[u8]) -> u8 {
    if head.get(at..).is_some_and(|rest| rest.starts_with(magic)) { 100 } else { 0 }
}

/// A magic number with the version behind it, big-endian.
fn version(head: &[u8], start: &[u8], versions: impl std::ops::RangeBounds<u32>) -> u8 {
    let Some(version) = head.get(4..).and_then(|rest| rest.first_chunk()) else { return 0 };
    if versions.contains(&u32::from_be_bytes(*version)) { magic(head, 0, start) } else { 0 }
}

fn vmdk(head: &[u8], _: &str) -> u8 {
    magic(head, 0, b"KDMV").max(magic(head, 0, b"COWD")).max(magic(
        head,
        0,
        b"# Disk DescriptorFile",
    ))
}

async fn open_raw(layer: Layer<'_>, file: Rc<dyn Node>) -> Result<Rc<dyn Node>, OpenError> {
    let offset = layer.options.take_size("offset")?.unwrap_or(0);
    let size = layer.options.take_size("size")?;
    let filename = crate::name::of(&*file);
    let raw = Raw::new(file, offset, size);
    let raw = raw.map_err(|error| {
        OpenError(format!("Could not open '{filename}': {}", errno_text(&error)))
    })?;
    Ok(Rc::new(raw))
}

async fn create_raw(new: NewFile<'_>) -> Result<(), OpenError> {
    let sized = new.file.resize(new.size).await;
    sized.map_err(|e| OpenError(format!("Could not resize file: {}", errno_text(&e))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised() {
        let mut vdi = [0; 80];
        vdi[64..68].copy_from_slice(b"\x7f\x10\xda\xbe");
        for (head, format) in [
            (&b"QFI\xfb\0\0\0\x03"[..], "qcow2"),
            (b"QFI\xfb\0\0\0\x01", "qcow"),
            (b"QFI\xfb\0\0", "raw"),
            (b"QED\0", "qed"),
            (b"KDMV", "vmdk"),
            (&vdi, "vdi"),
            (b"", "raw"),
            (b"hello", "raw"),
        ] {
            assert_eq!(probe(head, "x").name, format);
        }
    }
}
