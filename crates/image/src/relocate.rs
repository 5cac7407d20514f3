//! [`relocate`]: makes a static-PIE's pointers true for the place where it is loaded.

use core::ops::Range;

use goblin::elf::dynamic::{
    DF_TEXTREL, DT_FLAGS, DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTRELSZ, DT_REL, DT_RELA, DT_RELAENT,
    DT_RELASZ, DT_RELSZ, DT_TEXTREL,
};
use goblin::elf::reloc::{R_X86_64_NONE, R_X86_64_RELATIVE, Reloc, RelocSection};
use goblin::elf64::reloc::SIZEOF_RELA;
use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::ImageError;
use crate::elf::CTX;
use crate::segment::Memory;

/// One relocation's size in the type that the file uses.
const RELA_BYTES: u64 = SIZEOF_RELA as u64;
/// The packed form of relative relocations, which goblin does not name:
/// <https://groups.google.com/g/generic-abi/c/bX460iggiKg>.
const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;

/// Applies the relocations that the dynamic section names.
///
/// # Cost
///
/// A copy of the relocations, and content for as much zeroed memory as they write.
pub(crate) fn relocate(
    memory: &mut Memory,
    dynamic: &Range<u64>,
    base: u64,
) -> Result<(), ImageError> {
    let table = Dynamic::read(memory, dynamic)?.relocations(memory, base)?;
    let relocations = RelocSection::parse(&table, 0, table.len(), true, CTX)
        .map_err(|_| size_error(RELA_BYTES, table.len() as u64))?;
    for (number, relocation) in relocations.iter().enumerate() {
        apply(memory, base, number, &relocation)?;
    }
    Ok(())
}

fn apply(
    memory: &mut Memory,
    base: u64,
    number: usize,
    relocation: &Reloc,
) -> Result<(), ImageError> {
    let &Reloc { r_offset: offset, r_type: kind, r_addend, .. } = relocation;
    match kind {
        R_X86_64_NONE => return Ok(()),
        R_X86_64_RELATIVE => {}
        _ => return Err(ImageError::RelocationKind { number, offset, kind }),
    }
    let Range { start, end } = memory.span();
    let addend = r_addend.unwrap_or_default();
    // One past the end is where a pointer to the end of something may point.
    let pointer = base
        .checked_add_signed(addend)
        .filter(|pointer| (start..=end).contains(pointer))
        .ok_or(ImageError::AddendOutside { number, addend, start, end })?;
    offset
        .checked_add(base)
        .and_then(|gva| memory.write_pointer(gva, pointer))
        .ok_or(ImageError::RelocationOutside { number, gva: offset.wrapping_add(base) })
}

/// What of the dynamic section matters to a loader of static programs.
#[derive(Debug, Default)]
struct Dynamic {
    table: Option<u64>,
    table_bytes: Option<u64>,
    entry_bytes: Option<u64>,
}

impl Dynamic {
    fn read(memory: &Memory, extent: &Range<u64>) -> Result<Self, ImageError> {
        let Range { start, end } = *extent;
        let content = memory
            .bytes_at(start, end.saturating_sub(start))
            .ok_or(ImageError::DynamicOutside { start, end })?;
        let mut dynamic = Self::default();
        for entry in content.chunks_exact(size_of::<[U64; 2]>()) {
            match <[U64; 2]>::read_from_bytes(entry).map(|entry| entry.map(U64::get)) {
                Ok([DT_NULL, _]) | Err(_) => break,
                Ok([tag, value]) => dynamic.add(tag, value)?,
            }
        }
        Ok(dynamic)
    }

    /// Takes one entry. Tags that are for debuggers and dynamic linkers are left out.
    fn add(&mut self, tag: u64, value: u64) -> Result<(), ImageError> {
        match tag {
            DT_RELA => once(&mut self.table, value, "DT_RELA"),
            DT_RELASZ => once(&mut self.table_bytes, value, "DT_RELASZ"),
            DT_RELAENT => once(&mut self.entry_bytes, value, "DT_RELAENT"),
            DT_NEEDED => Err(ImageError::SharedLibrary),
            DT_JMPREL => refuse("DT_JMPREL", value),
            DT_PLTRELSZ => refuse("DT_PLTRELSZ", value),
            DT_REL => refuse("DT_REL", value),
            DT_RELSZ => refuse("DT_RELSZ", value),
            DT_RELR => refuse("DT_RELR", value),
            DT_RELRSZ => refuse("DT_RELRSZ", value),
            DT_TEXTREL => refuse("DT_TEXTREL", value),
            DT_FLAGS if value & DF_TEXTREL != 0 => refuse("DT_FLAGS with DF_TEXTREL", value),
            _ => Ok(()),
        }
    }

    /// Copies the relocations out: applying them may write where they are.
    fn relocations(&self, memory: &Memory, base: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self.table_bytes.unwrap_or(0);
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let entry_bytes = self.entry_bytes.unwrap_or(0);
        if entry_bytes != RELA_BYTES || !bytes.is_multiple_of(RELA_BYTES) {
            return Err(size_error(entry_bytes, bytes));
        }
        let address = self.table.unwrap_or(0);
        address
            .checked_add(base)
            .and_then(|gva| memory.bytes_at(gva, bytes))
            .map(<[u8]>::to_vec)
            .ok_or(ImageError::RelocationsOutside { gva: address.wrapping_add(base), bytes })
    }
}

fn size_error(bytes: u64, table_bytes: u64) -> ImageError {
    ImageError::RelocationSize { bytes, table_bytes, expected: RELA_BYTES }
}

fn once(slot: &mut Option<u64>, value: u64, tag: &'static str) -> Result<(), ImageError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ImageError::SecondDynamicTag { tag }),
    }
}

fn refuse(tag: &'static str, value: u64) -> Result<(), ImageError> {
    Err(ImageError::DynamicTag { tag, value })
}
