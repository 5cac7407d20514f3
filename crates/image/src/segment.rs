//! [`Segment`]: pages with one protection; and [`Memory`], all of an image's.

use core::fmt;
use core::ops::Range;

use cellule_abi::PAGE_BYTES;

/// The page size in the type of an address.
pub(crate) const PAGE: u64 = PAGE_BYTES as u64;

/// What a guest may do with the pages of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Read only: constants, and what only relocation had to write.
    Read,
    /// Read and execute: code.
    ReadExecute,
    /// Read and write: variables.
    ReadWrite,
}

/// Pages of the guest with one protection and their content at the start.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment {
    gva: u64,
    mem_bytes: u64,
    bytes: Vec<u8>,
    protection: Protection,
}

impl Segment {
    /// Makes a segment of `pages`, which are page aligned and hold `bytes`.
    pub(crate) fn new(pages: Range<u64>, bytes: Vec<u8>, protection: Protection) -> Self {
        Self {
            gva: pages.start,
            mem_bytes: pages.end.saturating_sub(pages.start),
            bytes,
            protection,
        }
    }

    /// Returns the guest address of the first byte, page aligned.
    pub fn gva(&self) -> u64 {
        self.gva
    }

    /// Returns the guest address past the last byte, page aligned.
    pub fn end(&self) -> u64 {
        self.gva.saturating_add(self.mem_bytes)
    }

    /// Returns the size in memory: a multiple of the page size, never zero.
    pub fn mem_bytes(&self) -> u64 {
        self.mem_bytes
    }

    /// Returns the content from the first byte on, at most
    /// [`mem_bytes`](Self::mem_bytes) long. What follows it is zero.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what the guest may do with these pages.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    fn contains(&self, gva: u64, len: u64) -> bool {
        gva >= self.gva && gva.checked_add(len).is_some_and(|end| end <= self.end())
    }

    /// Cuts off the pages from `gva` on, which is page aligned.
    fn split_off(&mut self, gva: u64) -> Self {
        let pages = gva..self.end();
        self.mem_bytes = gva.saturating_sub(self.gva);
        let at = usize::try_from(self.mem_bytes).unwrap_or(usize::MAX).min(self.bytes.len());
        Self::new(pages, self.bytes.split_off(at), self.protection)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("gva", &format_args!("{:#x}..{:#x}", self.gva, self.end()))
            .field("bytes", &format_args!("{:#x}", self.bytes.len()))
            .field("protection", &self.protection)
            .finish()
    }
}

/// The segments of an image, sorted and without overlap.
#[derive(Debug)]
pub(crate) struct Memory {
    segments: Vec<Segment>,
}

impl Memory {
    /// Takes segments that are sorted and do not overlap.
    pub(crate) fn new(segments: Vec<Segment>) -> Self {
        Self { segments }
    }

    /// Returns the addresses from the first segment to the last.
    pub(crate) fn span(&self) -> Range<u64> {
        let start = self.segments.first().map_or(0, Segment::gva);
        start..self.segments.last().map_or(start, Segment::end)
    }

    /// Whether code at `gva` may run.
    pub(crate) fn is_executable(&self, gva: u64) -> bool {
        self.segments.iter().any(|segment| {
            segment.protection == Protection::ReadExecute && segment.contains(gva, 1)
        })
    }

    /// Returns `len` bytes of one segment's content. Memory that only starts as
    /// zero has no content: nothing that is read here belongs there.
    pub(crate) fn bytes_at(&self, gva: u64, len: u64) -> Option<&[u8]> {
        let segment = self.segments.iter().find(|segment| segment.contains(gva, len))?;
        let start = usize::try_from(gva.checked_sub(segment.gva)?).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        segment.bytes.get(start..end)
    }

    /// Writes a pointer into a writable segment; `None` if it is not inside one.
    ///
    /// Content grows as far as the pointer needs, so never beyond the segment, and
    /// by a page at most: no linker writes pointers into zeroed memory, and a tiny
    /// file shall not make the host fill much of it.
    pub(crate) fn write_pointer(&mut self, gva: u64, pointer: u64) -> Option<()> {
        let bytes = pointer.to_le_bytes();
        let segment = self.segments.iter_mut().find(|segment| {
            segment.protection == Protection::ReadWrite && segment.contains(gva, bytes.len() as u64)
        })?;
        let start = usize::try_from(gva.checked_sub(segment.gva)?).ok()?;
        let end = start.checked_add(bytes.len())?;
        if segment.bytes.len() < end {
            let growth = end.checked_sub(segment.bytes.len())?;
            if growth > PAGE_BYTES {
                return None;
            }
            segment.bytes.resize(end, 0);
        }
        segment.bytes.get_mut(start..end)?.copy_from_slice(&bytes);
        Some(())
    }

    /// Makes `pages`, page aligned and inside one segment, a segment of their own
    /// that the guest can only read.
    pub(crate) fn write_protect(&mut self, pages: Range<u64>) {
        if pages.is_empty() {
            return;
        }
        let holds = |segment: &Segment| segment.gva <= pages.start && pages.end <= segment.end();
        let Some(at) = self.segments.iter().position(holds) else { return };
        let Some(before) = self.segments.get_mut(at) else { return };
        let mut middle = before.split_off(pages.start);
        let after = middle.split_off(pages.end);
        middle.protection = Protection::Read;
        let next = at.saturating_add(1);
        self.segments.splice(next..next, [middle, after]);
        self.segments.retain(|segment| segment.mem_bytes > 0);
    }

    pub(crate) fn into_segments(self) -> Vec<Segment> {
        self.segments
    }
}
