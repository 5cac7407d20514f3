//! Turns the bytes of a guest's ELF file into a checked, relocated [`Image`].
//!
//! The file may come from anyone: whatever it says, parsing it ends in an image
//! or in an [`ImageError`] that names the offending numbers. Nothing here panics,
//! allocates or loops out of proportion to the file and to the limits below, and
//! there is no `unsafe`.
//!
//! * [`Image`]: what comes out; it never changes.
//! * [`Segment`] and [`Protection`]: what to map.
//! * [`Symbol`]: what the guest exports and imports.
//! * [`Location`]: which function an address is in, for messages.
//!
//! # What is accepted
//!
//! Little-endian ELF64 for x86-64, linked statically: position independent
//! (`ET_DYN`), which is put at [`BASE`], or for fixed addresses (`ET_EXEC`). Its
//! segments are readable, ascending, without overlap or a shared page, and never
//! both writable and executable. It has no interpreter, no shared library, no
//! thread-local data and no executable stack, and no relocation but
//! `R_X86_64_RELATIVE` in a `DT_RELA` table. The Cellule note
//! ([`cellule_abi::note`]) is in one of its segments.
//!
//! ```
//! use cellule_image::{Image, Protection};
//!
//! let file = include_bytes!("../tests/corpus/valid.elf");
//! let image = Image::parse(file)?;
//! assert_eq!(image.exports()[0].name(), "add");
//! assert_eq!(image.segments()[0].protection(), Protection::Read);
//!
//! let error = Image::parse(&file[..1000]).unwrap_err();
//! assert!(error.to_string().contains("outside the file of 0x3e8 bytes"));
//! # Ok::<(), cellule_image::ImageError>(())
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod elf;
mod error;
mod functions;
mod load;
mod note;
mod relocate;
mod segment;
mod tables;

pub use error::{ImageError, Table};
pub use functions::Location;
pub use note::SdkVersion;
pub use segment::{Protection, Segment};
pub use tables::Symbol;

use core::ops::Range;

use elf::Headers;
use functions::Functions;
use note::Note;
use tables::Reader;

/// Where a position-independent image is put: 4 MiB, where x86-64 linkers put
/// programs with fixed addresses too.
pub const BASE: u64 = 0x40_0000;
/// The lowest address of an image: 64 KiB, so that a null pointer with an offset
/// hits nothing. It is what Linux guards by default (`vm.mmap_min_addr`).
pub const LOWEST: u64 = 0x1_0000;
/// The address past an image's highest: 1 GiB. What is above belongs to the host's
/// layout of heap, stacks, ring pages and control pages.
pub const HIGHEST: u64 = 0x4000_0000;
/// The most memory that an image's segments may take together: 256 MiB.
pub const MEMORY_BYTES: u64 = 256 << 20;
/// The most segments that a file may have. Linkers make four or five.
pub const SEGMENTS: usize = 16;
/// The most program headers that a file may have. Linkers make about ten.
pub const PROGRAM_HEADERS: u16 = 64;
/// The most text that all names and signatures may be together: 4 MiB, or 1 KiB
/// for each of 4096 symbols.
///
/// A limit for each text is not enough: records can share one text, so that a
/// small file would become much memory.
pub const TEXT_BYTES: usize = 4 << 20;

/// A guest image: checked, relocated, and ready to be mapped into any number of
/// sandboxes.
#[derive(Debug, Clone)]
pub struct Image {
    entry: u64,
    span: Range<u64>,
    segments: Vec<Segment>,
    exports: Vec<Symbol>,
    imports: Vec<Symbol>,
    sdk_version: SdkVersion,
    functions: Functions,
}

impl Image {
    /// Checks a file, places it, and applies its relocations.
    ///
    /// # Errors
    ///
    /// When the file is not an image that this crate understands; see
    /// [the list](crate#what-is-accepted). The first defect found is reported.
    ///
    /// # Cost
    ///
    /// A copy of each segment's bytes in the file, of the relocations and of the
    /// names; time in proportion to the file. Memory that starts as zero costs
    /// nothing up to the last relocation in it (linkers put none there).
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let headers = Headers::read(bytes)?;
        let mut memory = load::load(bytes, &headers.loads, headers.base)?;
        if !memory.is_executable(headers.entry) {
            return Err(ImageError::Entry { gva: headers.entry });
        }
        let relro = match &headers.relro {
            Some(relro) => load::relro_pages(relro, &headers.loads, headers.base)?,
            None => 0..0,
        };
        let note = Note::find(&memory, &headers.notes)?;
        if let Some(dynamic) = &headers.dynamic {
            relocate::relocate(&mut memory, dynamic, headers.base)?;
        }
        let mut reader = Reader::new(&memory);
        let exports = reader.table(Table::Exports, &note.exports)?;
        let imports = reader.table(Table::Imports, &note.imports)?;
        let functions = Functions::read(bytes, &headers, &memory);
        memory.write_protect(relro);
        Ok(Self {
            entry: headers.entry,
            span: memory.span(),
            segments: memory.into_segments(),
            exports,
            imports,
            sdk_version: note.sdk_version,
            functions,
        })
    }

    /// Returns the guest address where execution starts, in an executable segment.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Returns the segments: relocated, ascending, page aligned, without overlap.
    ///
    /// What the linker marked as constant after relocation (`PT_GNU_RELRO`) is a
    /// segment of its own with [`Protection::Read`], as far as it fills whole
    /// pages. So all segments but those with [`Protection::ReadWrite`] can be
    /// shared by all sandboxes.
    ///
    /// ```
    /// # let file = include_bytes!("../tests/corpus/valid.elf");
    /// # let image = cellule_image::Image::parse(file)?;
    /// use cellule_image::Protection;
    ///
    /// let shared = image.segments().iter().filter(|s| s.protection() != Protection::ReadWrite);
    /// assert_eq!(shared.map(|s| s.mem_bytes()).sum::<u64>(), 3 * 4096);
    /// # Ok::<(), cellule_image::ImageError>(())
    /// ```
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the first address of the first segment and the address past the
    /// last one, both page aligned. Between segments there can be gaps.
    pub fn span(&self) -> (u64, u64) {
        (self.span.start, self.span.end)
    }

    /// Returns what the host may call. The index is the number on the wire.
    pub fn exports(&self) -> &[Symbol] {
        &self.exports
    }

    /// Returns what the guest wants to call. The index is the number on the wire.
    pub fn imports(&self) -> &[Symbol] {
        &self.imports
    }

    /// Returns the version of the SDK that the guest was built with. For messages.
    pub fn sdk_version(&self) -> SdkVersion {
        self.sdk_version
    }

    /// Returns which function `gva` is in, if the file has a symbol table.
    ///
    /// ```
    /// # let file = include_bytes!("../tests/corpus/valid.elf");
    /// # let image = cellule_image::Image::parse(file)?;
    /// let location = image.symbol_at(image.entry() + 4).expect("the file is not stripped");
    /// assert_eq!(location.to_string(), "guest::start+0x4");
    /// # Ok::<(), cellule_image::ImageError>(())
    /// ```
    pub fn symbol_at(&self, gva: u64) -> Option<Location> {
        self.functions.at(gva)
    }
}
