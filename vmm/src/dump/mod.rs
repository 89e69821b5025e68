//! The guest as an ELF core file, for `gdb`, `crash` and their like.
//!
//! Main thread; the guest must not run. [`Dump::new`] looks at address space, registers and page
//! tables and lays out the file; [`Dump::write`] streams memory into it, a little at a time.
//!
//! A hostile guest chooses registers and page tables: the tables read and the segments they make
//! are bounded ([`MAX_TABLES`], [`MAX_SPANS`]); memory they do not reach is in the file by its
//! physical address. A client chooses the range, which only cuts.

mod elf;
pub mod output;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use resources::ram::{ABOVE_4G, RamBlock};
use resources::space::Space;

use crate::cpu::paging::{MAX_TABLES, Paging, Span};
use crate::cpu::registers::Registers;
use elf::{Form, Load};
use output::Output;

/// The most ranges of virtual addresses that a dump lists.
pub const MAX_SPANS: usize = 1 << 20;

/// How much memory is copied at once.
const CHUNK: usize = 256 << 10;

/// What is to be dumped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Program headers have virtual addresses, by the guest's page tables.
    pub paging: bool,
    /// Only these guest-physical addresses: the first, and how many.
    pub range: Option<(u64, u64)>,
}

/// Why there is no dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no memory in the range.
    NothingThere,
    /// There is no processor.
    NoProcessor,
}

/// A dump, ready to be written.
#[derive(Debug)]
pub struct Dump {
    head: Vec<u8>,
    pieces: Vec<Piece>,
}

/// Guest-physical memory that is in the file.
#[derive(Debug, Clone)]
struct Piece {
    phys: u64,
    len: u64,
    block: Arc<RamBlock>,
    /// Where in the block it begins.
    offset: u64,
}

/// Guest-physical addresses without a gap, in the file in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    phys: u64,
    len: u64,
    /// Where in the memory part of the file it begins.
    at: u64,
}

impl Dump {
    /// Lays out the dump of the memory in `memory`, as the processors `vcpus` see it.
    ///
    /// # Errors
    /// When there is nothing to dump, or nobody to dump it for.
    pub fn new(memory: &Space, vcpus: &[Registers], wanted: Wanted) -> Result<Dump, Refused> {
        let pieces = pieces(memory, wanted.range);
        if pieces.is_empty() {
            return Err(Refused::NothingThere);
        }
        let Some(first) = vcpus.first() else { return Err(Refused::NoProcessor) };
        let extents = extents(&pieces);
        let spans = if wanted.paging { spans(memory, vcpus, &extents) } else { Vec::new() };
        let loads = loads(&extents, &spans);
        let form = form(first, &extents, loads.len());
        let head = form.head(&loads, &form.notes(vcpus));
        Ok(Dump { head, pieces })
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        let memory: u64 = self.pieces.iter().map(|piece| piece.len).sum();
        memory.saturating_add(self.head.len() as u64)
    }

    /// Writes it all, and tells `progress` of the bytes as they are written.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, mut to: Output, mut progress: impl FnMut(u64)) -> io::Result<()> {
        to.write(&self.head)?;
        progress(self.head.len() as u64);
        let mut buffer = vec![0; CHUNK];
        for piece in &self.pieces {
            let mut done = 0;
            while done < piece.len {
                let len = (piece.len - done).min(CHUNK as u64);
                let chunk = buffer.get_mut(..len as usize).unwrap_or_default();
                piece.block.read(piece.offset.saturating_add(done), chunk);
                to.write(chunk)?;
                progress(len);
                done += len;
            }
        }
        to.finish()
    }
}

/// What is in the file, lowest address first.
fn pieces(memory: &Space, range: Option<(u64, u64)>) -> Vec<Piece> {
    let (first, last) = match range {
        None => (0, u64::MAX),
        Some((_, 0)) => return Vec::new(),
        Some((begin, length)) => (begin, begin.saturating_add(length - 1)),
    };
    let view = memory.view();
    let cut = view.memory().filter_map(|range| {
        let (phys, last) = (range.first.max(first), range.last.min(last));
        let len = last.checked_sub(phys)?.checked_add(1)?;
        let offset = range.offset.saturating_add(phys - range.first);
        Some(Piece { phys, len, block: range.block, offset })
    });
    cut.collect()
}

/// The pieces, those without a gap between them taken together.
fn extents(pieces: &[Piece]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = 0;
    for piece in pieces {
        match extents.last_mut() {
            Some(last) if last.phys.checked_add(last.len) == Some(piece.phys) => {
                last.len += piece.len;
            }
            _ => extents.push(Extent { phys: piece.phys, len: piece.len, at }),
        }
        at += piece.len;
    }
    extents
}

/// The virtual ranges of memory in the file, in order and without overlap. Where two processors
/// have different memory at an address, one of them is shown.
fn spans(memory: &Space, vcpus: &[Registers], extents: &[Extent]) -> Vec<Span> {
    let mut views: Vec<Paging> = Vec::new();
    for paging in vcpus.iter().map(|vcpu| Paging::of(&vcpu.sregs)) {
        if paging.is_on() && !views.contains(&paging) {
            views.push(paging);
        }
    }
    if views.is_empty() {
        // Virtual addresses are physical ones.
        let alike = |e: &Extent| Span { virt: e.phys, phys: e.phys, len: e.len };
        return extents.iter().map(alike).collect();
    }
    let mut spans = Spans::default();
    let mut tables = MAX_TABLES;
    for paging in views {
        let mut pages = paging.pages(memory, tables);
        for page in pages.by_ref() {
            let page = Span { virt: page.virt, phys: page.phys, len: page.size };
            if !within(extents, &page).all(|part| spans.push(part)) {
                break;
            }
        }
        if !pages.complete() || spans.full {
            tracing::warn!("dump: the guest's page tables map too much, not all of it is listed");
        }
        tables = pages.tables_left();
        spans.last_view();
    }
    without_overlap(spans.done)
}

/// A bounded list of spans, joined where they can be.
#[derive(Default)]
struct Spans {
    done: Vec<Span>,
    current: Option<Span>,
    full: bool,
}

impl Spans {
    /// `false`: there is no room.
    fn push(&mut self, span: Span) -> bool {
        match &mut self.current {
            Some(current) if current.joins(&span) => current.len += span.len,
            _ => {
                self.last_view();
                self.full = self.done.len() >= MAX_SPANS;
                self.current = (!self.full).then_some(span);
            }
        }
        !self.full
    }

    /// What comes next joins nothing from before.
    fn last_view(&mut self) {
        self.done.extend(self.current.take());
    }
}

/// The parts of a span whose memory is in the file.
fn within<'a>(extents: &'a [Extent], span: &Span) -> impl Iterator<Item = Span> + use<'a> {
    let span = *span;
    let last = span.phys.saturating_add(span.len - 1);
    let from = extents.partition_point(|extent| extent.phys + (extent.len - 1) < span.phys);
    let rest = extents.get(from..).unwrap_or_default().iter();
    rest.take_while(move |extent| extent.phys <= last).map(move |extent| {
        let phys = extent.phys.max(span.phys);
        let len = last.min(extent.phys + (extent.len - 1)) - phys + 1;
        Span { virt: span.virt.wrapping_add(phys - span.phys), phys, len }
    })
}

fn without_overlap(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.virt);
    // The first virtual address that is still free; `None` past the last one.
    let mut free = Some(0u64);
    spans.retain_mut(|span| {
        let Some(start) = free else { return false };
        let last = span.virt.saturating_add(span.len - 1);
        if last < start {
            return false;
        }
        let cut = start.saturating_sub(span.virt);
        *span =
            Span { virt: span.virt + cut, phys: span.phys + cut, len: last - span.virt - cut + 1 };
        free = last.checked_add(1);
        true
    });
    spans
}

/// The segments: virtual ranges first, then memory that has no virtual address.
fn loads(extents: &[Extent], spans: &[Span]) -> Vec<Load> {
    let place = |phys: u64| {
        let index = extents.partition_point(|extent| extent.phys <= phys);
        let extent = index.checked_sub(1).and_then(|index| extents.get(index));
        extent.map_or(0, |extent| extent.at + (phys - extent.phys))
    };
    let mut loads: Vec<Load> = spans
        .iter()
        .map(|span| Load { virt: span.virt, phys: span.phys, len: span.len, at: place(span.phys) })
        .collect();
    let mut mapped: Vec<(u64, u64)> =
        spans.iter().map(|span| (span.phys, span.phys + (span.len - 1))).collect();
    mapped.sort_unstable();
    let mut mapped = mapped.into_iter().peekable();
    for extent in extents {
        let last = extent.phys + (extent.len - 1);
        let mut free = Some(extent.phys);
        while let Some(start) = free.filter(|start| *start <= last) {
            match mapped.next_if(|(from, _)| *from <= last) {
                Some((from, to)) => {
                    if from > start {
                        let (len, at) = (from - start, place(start));
                        loads.push(Load { virt: 0, phys: start, len, at });
                    }
                    free = to.checked_add(1).map(|next| next.max(start));
                }
                None => {
                    let (len, at) = (last - start + 1, place(start));
                    loads.push(Load { virt: 0, phys: start, len, at });
                    free = None;
                }
            }
        }
        // Those that the last one covered.
        while mapped.next_if(|(from, _)| *from <= last).is_some() {}
    }
    loads
}

/// The form readers expect: by the first processor's mode, and as wide as the addresses.
fn form(first: &Registers, extents: &[Extent], loads: usize) -> Form {
    let x86_64 = first.long_mode();
    let end = extents.last().map_or(0, |last| last.phys.saturating_add(last.len));
    let memory: u64 = extents.iter().map(|extent| extent.len).sum();
    let narrow = Form { wide: false, x86_64 };
    // Notes are small, but for the count of processors.
    let size = memory.saturating_add(narrow.head_size(loads, 1 << 20));
    Form { wide: x86_64 || end > ABOVE_4G || size > u64::from(u32::MAX), x86_64 }
}
