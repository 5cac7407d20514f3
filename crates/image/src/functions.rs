//! [`Functions`]: which function is at an address, for messages only.
//!
//! A stripped or malformed symbol table gives no names, never an error: nothing
//! that matters depends on it.

use core::fmt::{self, Write};
use core::ops::Range;

use goblin::elf::section_header::{SHT_STRTAB, SHT_SYMTAB};
use goblin::elf::sym::{STT_FUNC, Sym, Symtab};
use goblin::elf::{SectionHeader, section_header::SHN_UNDEF};
use goblin::elf64::section_header::SIZEOF_SHDR;
use goblin::elf64::sym::SIZEOF_SYM;
use rustc_demangle::demangle;

use crate::elf::{CTX, Headers};
use crate::segment::Memory;
use crate::tables::misleads;

/// The most symbols that are looked at; what follows has no names.
const FUNCTIONS: usize = 200_000;
/// The longest name in the file that is demangled.
const MANGLED_BYTES: usize = 4096;
/// The longest name that is given out; what follows is cut off. Demangling can
/// make a short name very long.
const DEMANGLED_BYTES: usize = 1024;

/// A place in a guest's code, in words for people. Displays as `name+0x1f`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    function: String,
    offset: u64,
}

impl Location {
    /// Returns the function's name, demangled and without hash. The guest chose
    /// it: it says nothing that may be relied on.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// Returns the distance from the function's start in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.function, self.offset)
    }
}

/// The functions of an image, sorted by address.
#[derive(Clone, Default)]
pub(crate) struct Functions {
    functions: Vec<Function>,
    /// The names, as they are in the file.
    strings: Vec<u8>,
}

#[derive(Clone)]
struct Function {
    gva: u64,
    /// Zero: unknown.
    bytes: u64,
    /// Where in the strings its name starts.
    name: usize,
}

impl Functions {
    /// Reads the file's symbol table, if it has a sound one.
    ///
    /// # Cost
    ///
    /// A copy of the file's string table, and 24 bytes for each function.
    pub(crate) fn read(bytes: &[u8], headers: &Headers, memory: &Memory) -> Self {
        Self::try_read(bytes, headers, memory).unwrap_or_default()
    }

    fn try_read(bytes: &[u8], headers: &Headers, memory: &Memory) -> Option<Self> {
        let (offset, entry_bytes, count) = headers.sections;
        if count == 0 || usize::from(entry_bytes) != SIZEOF_SHDR {
            return None;
        }
        let start = usize::try_from(offset).ok()?;
        // goblin checks the count, at most 65,535, against the size of the file.
        let sections = SectionHeader::parse(bytes, start, count.into(), CTX).ok()?;
        let table = sections.iter().find(|section| section.sh_type == SHT_SYMTAB)?;
        let strings = sections.get(usize::try_from(table.sh_link).ok()?)?;
        if strings.sh_type != SHT_STRTAB {
            return None;
        }
        let strings = content(bytes, strings)?.to_vec();
        let table = content(bytes, table)?;
        let count = table.len() / SIZEOF_SYM;
        let symbols = Symtab::parse(table, 0, count.min(FUNCTIONS), CTX).ok()?;
        let mut functions: Vec<Function> =
            symbols.iter().filter_map(|symbol| function(&symbol, headers.base, memory)).collect();
        functions.sort_by_key(|function| function.gva);
        Some(Self { functions, strings })
    }

    /// Returns the function that holds `gva`.
    pub(crate) fn at(&self, gva: u64) -> Option<Location> {
        let after = self.functions.partition_point(|function| function.gva <= gva);
        let function = self.functions.get(after.checked_sub(1)?)?;
        let offset = gva.checked_sub(function.gva)?;
        if function.bytes != 0 && offset >= function.bytes {
            return None;
        }
        Some(Location { function: self.name(function)?, offset })
    }

    fn name(&self, function: &Function) -> Option<String> {
        let rest = self.strings.get(function.name..)?;
        let end = rest.iter().take(MANGLED_BYTES).position(|byte| *byte == 0)?;
        let mangled = str::from_utf8(rest.get(..end)?).ok()?;
        let mut name = Bounded { text: String::new() };
        // An error says that the name was cut off, which is as good as a name.
        let _ = write!(name, "{:#}", demangle(mangled));
        (!name.text.is_empty()).then_some(name.text)
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions").field("count", &self.functions.len()).finish_non_exhaustive()
    }
}

fn content<'a>(bytes: &'a [u8], section: &SectionHeader) -> Option<&'a [u8]> {
    let start = usize::try_from(section.sh_offset).ok()?;
    let end = start.checked_add(usize::try_from(section.sh_size).ok()?)?;
    bytes.get(Range { start, end })
}

/// Keeps a symbol if it is a function whose code is in the image.
fn function(symbol: &Sym, base: u64, memory: &Memory) -> Option<Function> {
    let defined = symbol.st_shndx != SHN_UNDEF as usize;
    if symbol.st_type() != STT_FUNC || !defined {
        return None;
    }
    let gva = symbol.st_value.checked_add(base)?;
    memory.is_executable(gva).then_some(Function {
        gva,
        bytes: symbol.st_size,
        name: symbol.st_name,
    })
}

/// Text of limited length that cannot mislead the reader of a message.
struct Bounded {
    text: String,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.text.len() >= DEMANGLED_BYTES {
                return Err(fmt::Error);
            }
            let safe = if misleads(character) { char::REPLACEMENT_CHARACTER } else { character };
            self.text.push(safe);
        }
        Ok(())
    }
}
