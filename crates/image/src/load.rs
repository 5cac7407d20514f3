//! [`load`]: checks the segments to load and copies them out of the file.

use core::ops::Range;

use goblin::elf::ProgramHeader;
use goblin::elf::program_header::{PF_R, PF_W, PF_X};

use crate::segment::{Memory, PAGE, Protection, Segment};
use crate::{BASE, HIGHEST, ImageError, LOWEST, MEMORY_BYTES, SEGMENTS};

/// Copies out the segments. Nothing is allocated before all of them are checked.
pub(crate) fn load(
    bytes: &[u8],
    loads: &[(usize, ProgramHeader)],
    base: u64,
) -> Result<Memory, ImageError> {
    match loads.len() {
        0 => return Err(ImageError::NoSegment),
        count if count > SEGMENTS => {
            return Err(ImageError::TooManySegments { count, limit: SEGMENTS });
        }
        _ => {}
    }
    let mut plans: Vec<Plan<'_>> = Vec::with_capacity(loads.len());
    for (index, header) in loads {
        let plan = Plan::check(bytes, *index, header, base)?;
        if let Some(previous) = plans.last() {
            plan.check_after(previous)?;
        }
        plans.push(plan);
    }
    // At most SEGMENTS * HIGHEST: no overflow, and saturating says so.
    let total = plans.iter().map(Plan::page_bytes).fold(0, u64::saturating_add);
    if total > MEMORY_BYTES {
        return Err(ImageError::TooMuchMemory { bytes: total, limit: MEMORY_BYTES });
    }
    Ok(Memory::new(plans.iter().map(Plan::copy).collect()))
}

/// Returns the whole pages of `relro`, which must be inside a writable segment.
///
/// Where it starts with its segment, the page before that is the segment's too.
/// Old linkers let it end with the segment's last page, not its last byte.
pub(crate) fn relro_pages(
    relro: &Range<u64>,
    loads: &[(usize, ProgramHeader)],
    base: u64,
) -> Result<Range<u64>, ImageError> {
    let Range { start, end } = *relro;
    let writable = loads.iter().filter(|(_, header)| header.p_flags & PF_W != 0);
    for (_, header) in writable {
        let first = base.saturating_add(header.p_vaddr);
        let limit = ceil(first.saturating_add(header.p_memsz));
        if first <= start && end <= limit {
            let start = if start == first { floor(start) } else { ceil(start) };
            return Ok(start..floor(end).max(start));
        }
    }
    Err(ImageError::Relro { start, end })
}

/// A checked segment, still in the file.
struct Plan<'a> {
    index: usize,
    /// Where it is, to the byte.
    extent: Range<u64>,
    content: &'a [u8],
    protection: Protection,
}

impl<'a> Plan<'a> {
    fn check(
        bytes: &'a [u8],
        index: usize,
        header: &ProgramHeader,
        base: u64,
    ) -> Result<Self, ImageError> {
        let protection = protection(index, header.p_flags)?;
        let ProgramHeader { p_align: align, p_vaddr: address, p_offset: offset, .. } = *header;
        // The base is a multiple of every smaller power of two; 0 and 1 ask for nothing.
        if align != 0 && !(align.is_power_of_two() && align <= BASE) {
            return Err(ImageError::Alignment { index, align, limit: BASE });
        }
        if address % PAGE != offset % PAGE {
            return Err(ImageError::Congruence { index, address, offset });
        }
        let (file_bytes, mem_bytes) = (header.p_filesz, header.p_memsz);
        if file_bytes > mem_bytes {
            return Err(ImageError::FileExceedsMemory { index, file_bytes, mem_bytes });
        }
        let content = content(bytes, offset, file_bytes).ok_or(ImageError::SegmentTruncated {
            index,
            offset,
            file_bytes,
            bytes: bytes.len(),
        })?;
        let extent = extent(address, base, mem_bytes).ok_or(ImageError::SegmentOutside {
            index,
            address,
            base,
            mem_bytes,
        })?;
        Ok(Self { index, extent, content, protection })
    }

    fn check_after(&self, previous: &Self) -> Result<(), ImageError> {
        let (index, gva, previous_end) = (self.index, self.extent.start, previous.extent.end);
        if gva < previous.extent.start {
            return Err(ImageError::OutOfOrder { index, gva, previous: previous.extent.start });
        }
        if gva < previous_end {
            return Err(ImageError::Overlap { index, gva, previous_end });
        }
        if floor(gva) < ceil(previous_end) {
            return Err(ImageError::SharedPage { index, gva, previous_end });
        }
        Ok(())
    }

    fn pages(&self) -> Range<u64> {
        floor(self.extent.start)..ceil(self.extent.end)
    }

    fn page_bytes(&self) -> u64 {
        self.pages().end.saturating_sub(self.pages().start)
    }

    /// Copies the content. What shares its first page in the file stays out.
    fn copy(&self) -> Segment {
        let lead = usize::try_from(self.extent.start % PAGE).unwrap_or_default();
        let mut bytes = Vec::with_capacity(lead.saturating_add(self.content.len()));
        if !self.content.is_empty() {
            bytes.resize(lead, 0);
            bytes.extend_from_slice(self.content);
        }
        Segment::new(self.pages(), bytes, self.protection)
    }
}

fn protection(index: usize, flags: u32) -> Result<Protection, ImageError> {
    match (flags & PF_R != 0, flags & PF_W != 0, flags & PF_X != 0) {
        (false, ..) => Err(ImageError::NotReadable { index, flags }),
        (true, true, true) => Err(ImageError::WritableExecutable { index, flags }),
        (true, true, false) => Ok(Protection::ReadWrite),
        (true, false, true) => Ok(Protection::ReadExecute),
        (true, false, false) => Ok(Protection::Read),
    }
}

fn content(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    if len == 0 {
        return Some(&[]);
    }
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    bytes.get(start..end)
}

/// Returns where a segment lies in the guest, if that is where segments may lie.
fn extent(address: u64, base: u64, len: u64) -> Option<Range<u64>> {
    let start = address.checked_add(base)?;
    let end = start.checked_add(len)?;
    (start >= LOWEST && end <= HIGHEST).then_some(start..end)
}

fn floor(gva: u64) -> u64 {
    gva & !(PAGE - 1)
}

/// Rounds up to a page. Checked segments end below the last page: it does not saturate.
fn ceil(gva: u64) -> u64 {
    floor(gva.saturating_add(PAGE - 1))
}
