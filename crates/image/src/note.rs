//! [`Note`]: finds the Cellule note and what it says, with addresses.

use core::fmt;
use core::mem::offset_of;
use core::ops::Range;

use cellule_abi::{ABI_VERSION, note};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::elf::Notes;
use crate::segment::Memory;
use crate::{ImageError, Table};

/// The version of the SDK that a guest was built with. For messages only: what
/// must match is the ABI's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SdkVersion {
    /// Incompatible changes.
    pub major: u16,
    /// Compatible additions.
    pub minor: u8,
    /// Repairs.
    pub patch: u8,
}

impl SdkVersion {
    /// Unpacks `major << 16 | minor << 8 | patch`.
    fn unpack(packed: u32) -> Self {
        let [high, low, minor, patch] = packed.to_be_bytes();
        Self { major: u16::from_be_bytes([high, low]), minor, patch }
    }
}

impl fmt::Display for SdkVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The note of an image that speaks our ABI. The tables are not checked yet.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) sdk_version: SdkVersion,
    pub(crate) exports: Range<u64>,
    pub(crate) imports: Range<u64>,
}

impl Note {
    /// Finds the one Cellule note among all notes.
    pub(crate) fn find(memory: &Memory, segments: &[Notes]) -> Result<Self, ImageError> {
        let mut found = None;
        for notes in segments {
            let Range { start, end } = notes.extent;
            let bytes = memory
                .bytes_at(start, end.saturating_sub(start))
                .ok_or(ImageError::NotesOutside { start, end })?;
            let mut rest = Rest { gva: start, bytes };
            while !rest.bytes.is_empty() {
                let record = rest.next(notes.padding)?;
                if record.kind != note::TYPE || record.name != note::NAME {
                    continue;
                }
                if found.is_some() {
                    return Err(ImageError::SecondNote { gva: record.gva });
                }
                found = Some(Self::describe(&record)?);
            }
        }
        found.ok_or(ImageError::NoNote)
    }

    /// Reads the descriptor. The versions come first: another ABI may have
    /// another descriptor.
    fn describe(record: &Record<'_>) -> Result<Self, ImageError> {
        let bytes = record.descriptor;
        let size = ImageError::NoteSize { bytes: bytes.len(), expected: size_of::<note::Note>() };
        let Ok((versions, _)) = <[U32; 2]>::read_from_prefix(bytes) else { return Err(size) };
        let [found, sdk] = versions.map(U32::get);
        let sdk_version = SdkVersion::unpack(sdk);
        if found != ABI_VERSION {
            let expected = ABI_VERSION;
            return Err(ImageError::AbiVersion { found, expected, sdk: sdk_version });
        }
        let note = note::Note::read_from_bytes(bytes).map_err(|_| size)?;
        let address = |field: usize, distance: i64, table| {
            let field = record.descriptor_gva.saturating_add(field as u64);
            field.checked_add_signed(distance).ok_or(ImageError::TableWraps { table, field })
        };
        let (exports, imports) = (Table::Exports, Table::Imports);
        let exports_start =
            address(offset_of!(note::Note, exports_start), note.exports_start, exports)?;
        let exports_end = address(offset_of!(note::Note, exports_end), note.exports_end, exports)?;
        let imports_start =
            address(offset_of!(note::Note, imports_start), note.imports_start, imports)?;
        let imports_end = address(offset_of!(note::Note, imports_end), note.imports_end, imports)?;
        Ok(Self {
            sdk_version,
            exports: exports_start..exports_end,
            imports: imports_start..imports_end,
        })
    }
}

/// One note of any kind.
struct Record<'a> {
    gva: u64,
    kind: u32,
    name: &'a [u8],
    descriptor: &'a [u8],
    descriptor_gva: u64,
}

/// The notes of a segment that are not read yet.
struct Rest<'a> {
    gva: u64,
    bytes: &'a [u8],
}

impl<'a> Rest<'a> {
    /// Takes the next note. Every call takes at least its header.
    fn next(&mut self, padding: usize) -> Result<Record<'a>, ImageError> {
        let truncated = ImageError::NoteTruncated { gva: self.gva, bytes: self.bytes.len() };
        self.try_next(padding).ok_or(truncated)
    }

    /// Lengths, type, name, padding, descriptor, padding: see elf(5), "Notes".
    fn try_next(&mut self, padding: usize) -> Option<Record<'a>> {
        let (header, _) = <[U32; 3]>::read_from_prefix(self.bytes).ok()?;
        let [name_len, descriptor_len, kind] = header.map(U32::get);
        let name_start = size_of::<[U32; 3]>();
        let name_end = name_start.checked_add(usize::try_from(name_len).ok()?)?;
        let start = name_end.checked_next_multiple_of(padding)?;
        let end = start.checked_add(usize::try_from(descriptor_len).ok()?)?;
        let record = Record {
            gva: self.gva,
            kind,
            name: self.bytes.get(name_start..name_end)?,
            descriptor: self.bytes.get(start..end)?,
            descriptor_gva: self.gva.checked_add(start as u64)?,
        };
        // The last note's padding may be missing.
        let taken = end.checked_next_multiple_of(padding)?.min(self.bytes.len());
        self.gva = self.gva.checked_add(taken as u64)?;
        self.bytes = self.bytes.get(taken..)?;
        Some(record)
    }
}
