//! Why a file is not a guest image.

use core::fmt;

use crate::{HIGHEST, LOWEST, SdkVersion};

/// Why [`Image::parse`](crate::Image::parse) refused a file.
///
/// `index` is the number of a program header, `number` that of a relocation or of
/// a record in its table. Text out of the file is shown only where it was checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant's text says what its fields mean")]
pub enum ImageError {
    // The file header.
    #[error("the file has {bytes} bytes; an ELF header alone needs {needed}")]
    TooShort { bytes: usize, needed: usize },
    #[error("the file starts with {magic:02x?}, not with the ELF magic")]
    NotElf { magic: [u8; 4] },
    #[error("ELF class {class} is not supported; guests are 64-bit (class 2)")]
    Class { class: u8 },
    #[error("ELF data encoding {encoding} is not supported; guests are little-endian (1)")]
    Encoding { encoding: u8 },
    #[error("ELF version {version} is not supported; expected 1")]
    Version { version: u32 },
    #[error("ELF OS ABI {os_abi} is not supported; expected 0 (System V) or 3 (GNU)")]
    OsAbi { os_abi: u8 },
    #[error("machine {machine} is not supported; guests are x86-64 (62)")]
    Machine { machine: u16 },
    #[error(
        "ELF type {kind} is not supported; expected a static program (2) or a static-PIE (3): \
         build the guest with cellule-build"
    )]
    Kind { kind: u16 },

    // The program headers.
    #[error("program headers have {bytes} bytes each; expected {expected}")]
    ProgramHeaderSize { bytes: u16, expected: usize },
    #[error("{count} program headers; the limit is {limit}")]
    TooManyProgramHeaders { count: u16, limit: u16 },
    #[error("{count} program headers at offset {offset:#x} end outside the file of {bytes} bytes")]
    ProgramHeadersOutside { count: u16, offset: u64, bytes: usize },
    #[error("program header {index} starts at {address:#x} with {bytes:#x} bytes and wraps around")]
    Wraps { index: usize, address: u64, bytes: u64 },
    #[error("program header {index} is a second {kind}; there may be one")]
    SecondHeader { index: usize, kind: &'static str },
    #[error(
        "the file asks for a program interpreter (program header {index}): \
         build the guest with cellule-build, which links it statically"
    )]
    Interpreter { index: usize },
    #[error(
        "the file has {bytes} bytes of thread-local data (program header {index}), which guests \
         cannot have: remove #[thread_local] and libraries that use it"
    )]
    ThreadLocal { index: usize, bytes: u64 },
    #[error("the file asks for an executable stack (program header {index}, flags {flags:#x})")]
    ExecutableStack { index: usize, flags: u32 },

    // The segments.
    #[error("the file has no segment to load")]
    NoSegment,
    #[error("{count} segments to load; the limit is {limit}")]
    TooManySegments { count: usize, limit: usize },
    #[error("segment {index} is not readable (flags {flags:#x})")]
    NotReadable { index: usize, flags: u32 },
    #[error("segment {index} is both writable and executable (flags {flags:#x})")]
    WritableExecutable { index: usize, flags: u32 },
    #[error("segment {index} has alignment {align:#x}; expected a power of two up to {limit:#x}")]
    Alignment { index: usize, align: u64, limit: u64 },
    #[error(
        "segment {index}: address {address:#x} and file offset {offset:#x} are at different \
         places in a page"
    )]
    Congruence { index: usize, address: u64, offset: u64 },
    #[error(
        "segment {index} has {file_bytes:#x} bytes in the file, more than {mem_bytes:#x} in memory"
    )]
    FileExceedsMemory { index: usize, file_bytes: u64, mem_bytes: u64 },
    #[error(
        "segment {index}: {file_bytes:#x} bytes at file offset {offset:#x} end outside the file \
         of {bytes:#x} bytes"
    )]
    SegmentTruncated { index: usize, offset: u64, file_bytes: u64, bytes: usize },
    #[error(
        "segment {index}: {mem_bytes:#x} bytes at {address:#x}, with base {base:#x} added, lie \
         outside the guest's addresses {LOWEST:#x}..{HIGHEST:#x}"
    )]
    SegmentOutside { index: usize, address: u64, base: u64, mem_bytes: u64 },
    #[error(
        "segment {index} at {gva:#x} comes after one at {previous:#x}; expected ascending addresses"
    )]
    OutOfOrder { index: usize, gva: u64, previous: u64 },
    #[error(
        "segment {index} at {gva:#x} overlaps the one before it, which ends at {previous_end:#x}"
    )]
    Overlap { index: usize, gva: u64, previous_end: u64 },
    #[error(
        "segment {index} at {gva:#x} shares a page with the one before it, which ends at \
         {previous_end:#x}"
    )]
    SharedPage { index: usize, gva: u64, previous_end: u64 },
    #[error("the segments take {bytes:#x} bytes of memory; the limit is {limit:#x}")]
    TooMuchMemory { bytes: u64, limit: u64 },
    #[error("the entry {gva:#x} is in no executable segment")]
    Entry { gva: u64 },
    #[error("PT_GNU_RELRO {start:#x}..{end:#x} is not inside one writable segment")]
    Relro { start: u64, end: u64 },

    // The relocations.
    #[error("the dynamic section {start:#x}..{end:#x} is not inside the content of one segment")]
    DynamicOutside { start: u64, end: u64 },
    #[error(
        "the file needs a shared library (DT_NEEDED): \
         build the guest with cellule-build, which links it statically"
    )]
    SharedLibrary,
    #[error("the dynamic section has {tag} = {value:#x}; only DT_RELA relocations are supported")]
    DynamicTag { tag: &'static str, value: u64 },
    #[error("the dynamic section has {tag} twice")]
    SecondDynamicTag { tag: &'static str },
    #[error(
        "relocations of {bytes} bytes in a table of {table_bytes} bytes; expected whole ones of {expected} bytes"
    )]
    RelocationSize { bytes: u64, table_bytes: u64, expected: u64 },
    #[error(
        "{bytes:#x} bytes of relocations at {gva:#x} are not inside the content of one segment"
    )]
    RelocationsOutside { gva: u64, bytes: u64 },
    #[error(
        "relocation {number} at {offset:#x} has type {kind}; only R_X86_64_RELATIVE (8) is \
         supported: build the guest with cellule-build"
    )]
    RelocationKind { number: usize, offset: u64, kind: u32 },
    #[error("relocation {number} writes 8 bytes at {gva:#x}, which is in no writable segment")]
    RelocationOutside { number: usize, gva: u64 },
    #[error(
        "relocation {number} has addend {addend} ({addend:#x}), which points outside the image {start:#x}..{end:#x}"
    )]
    AddendOutside { number: usize, addend: i64, start: u64, end: u64 },

    // The note.
    #[error("the file has no Cellule note: build the guest with cellule-guest and cellule-build")]
    NoNote,
    #[error("a second Cellule note at {gva:#x}; there may be one: does the guest link two SDKs?")]
    SecondNote { gva: u64 },
    #[error("the notes {start:#x}..{end:#x} are not inside the content of one segment")]
    NotesOutside { start: u64, end: u64 },
    #[error(
        "the note at {gva:#x} ends outside its segment of notes, which has {bytes:#x} bytes left"
    )]
    NoteTruncated { gva: u64, bytes: usize },
    #[error(
        "the guest speaks ABI {found} (SDK {sdk}), this host speaks ABI {expected}: \
         build both with the same version of Cellule"
    )]
    AbiVersion { found: u32, expected: u32, sdk: SdkVersion },
    #[error("the Cellule note describes itself in {bytes} bytes; expected {expected}")]
    NoteSize { bytes: usize, expected: usize },

    // The tables of exports and imports.
    #[error("the {table} table at field {field:#x} starts or ends outside the address space")]
    TableWraps { table: Table, field: u64 },
    #[error("the {table} table starts at {start:#x} and ends before, at {end:#x}")]
    TableReversed { table: Table, start: u64, end: u64 },
    #[error(
        "the {table} table {start:#x}..{end:#x} is not made of aligned records of {record_bytes} bytes"
    )]
    TableMisaligned { table: Table, start: u64, end: u64, record_bytes: u64 },
    #[error("{count} {table}s; the limit is {limit}")]
    TooManySymbols { table: Table, count: u64, limit: usize },
    #[error("the {table} table {start:#x}..{end:#x} is not inside the content of one segment")]
    TableOutside { table: Table, start: u64, end: u64 },
    #[error("{table} {number} has a name of {bytes} bytes; expected 1 to {limit}")]
    NameLength { table: Table, number: usize, bytes: u64, limit: usize },
    #[error(
        "{table} {number}: the name's {bytes} bytes at {gva:#x} are not inside the content of one segment"
    )]
    NameOutside { table: Table, number: usize, gva: u64, bytes: u64 },
    #[error("{table} {number}: the name is not UTF-8 from byte {at} on")]
    NameEncoding { table: Table, number: usize, at: usize },
    #[error(
        "{table} {number}: the name has {character:?} at byte {at}; \
         expected letters A to Z, digits and _ : . -"
    )]
    NameCharacter { table: Table, number: usize, character: char, at: usize },
    #[error(
        "{table} {number} `{name}` has id {id:#018x}; the hash of its name is {expected:#018x}"
    )]
    Id { table: Table, number: usize, name: String, id: u64, expected: u64 },
    #[error(
        "{table} {number} `{name}` has the id of {table} {first} `{first_name}`: rename one of them"
    )]
    Duplicate { table: Table, number: usize, name: String, first: usize, first_name: String },
    #[error("{table} {number} `{name}` has a signature of {bytes} bytes; expected 1 to {limit}")]
    SignatureLength { table: Table, number: usize, name: String, bytes: u64, limit: usize },
    #[error(
        "{table} {number} `{name}`: the signature's {bytes} bytes at {gva:#x} are not inside the \
         content of one segment"
    )]
    SignatureOutside { table: Table, number: usize, name: String, gva: u64, bytes: u64 },
    #[error("{table} {number} `{name}`: the signature is not UTF-8 from byte {at} on")]
    SignatureEncoding { table: Table, number: usize, name: String, at: usize },
    #[error("{table} {number} `{name}`: the signature has {character:?} at byte {at}")]
    SignatureCharacter { table: Table, number: usize, name: String, character: char, at: usize },
    #[error(
        "{table} {number} `{name}` has schema {schema:#018x}; the hash of its signature is {expected:#018x}"
    )]
    Schema { table: Table, number: usize, name: String, schema: u64, expected: u64 },
    #[error("names and signatures take {bytes} bytes; the limit is {limit}")]
    TooMuchText { bytes: usize, limit: usize },
    #[error(
        "export {number} `{name}` has its entry at {gva:#x}, which is in no executable segment"
    )]
    ExportEntry { number: usize, name: String, gva: u64 },
    #[error("import {number} `{name}` has an entry at {gva:#x}; expected none")]
    ImportEntry { number: usize, name: String, gva: u64 },
    #[error("{table} {number} `{name}` has {value:#x} in its priority field; the limit is {limit}")]
    Priority { table: Table, number: usize, name: String, value: u64, limit: u64 },
}

/// Which of an image's two tables a record is in. Displays as one record of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// What the host may call.
    Exports,
    /// What the guest wants to call.
    Imports,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exports => "export",
            Self::Imports => "import",
        })
    }
}
