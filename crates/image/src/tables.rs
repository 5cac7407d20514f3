//! [`Symbol`]: what an image exports and imports, read from its two tables.

use std::collections::HashMap;

use core::ops::Range;

use cellule_abi::{fnv1a, symbol};
use zerocopy::FromBytes;

use crate::segment::Memory;
use crate::{ImageError, TEXT_BYTES, Table};

/// One record's size in the type of an address.
const RECORD_BYTES: u64 = size_of::<symbol::Symbol>() as u64;

/// A function that an image exports or imports.
///
/// Its number on the wire is its index in [`Image::exports`](crate::Image::exports)
/// or [`Image::imports`](crate::Image::imports).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Symbol {
    name: String,
    signature: String,
    id: u64,
    schema: u64,
}

impl Symbol {
    /// Returns the name: ASCII letters, digits and `_ : . -`, at most
    /// [`NAME_BYTES`](symbol::NAME_BYTES), unique in its table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text of the signature, as [`cellule_abi::Signature::text`]
    /// writes it. It is printable, at most
    /// [`SIGNATURE_BYTES`](symbol::SIGNATURE_BYTES), and otherwise unchecked.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Returns the stable id: the hash of the name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the schema hash: that of the signature.
    pub fn schema(&self) -> u64 {
        self.schema
    }
}

/// Reads the tables of one image.
pub(crate) struct Reader<'a> {
    memory: &'a Memory,
    /// How much text there was so far, in all tables.
    text_bytes: usize,
}

impl<'a> Reader<'a> {
    /// Reads from an image that is already relocated.
    pub(crate) fn new(memory: &'a Memory) -> Self {
        Self { memory, text_bytes: 0 }
    }

    /// Reads and checks a table.
    pub(crate) fn table(
        &mut self,
        table: Table,
        extent: &Range<u64>,
    ) -> Result<Vec<Symbol>, ImageError> {
        let content = self.records(table, extent)?;
        let mut symbols: Vec<Symbol> = Vec::new();
        let mut numbers: HashMap<u64, usize> = HashMap::new();
        for (number, bytes) in content.chunks_exact(size_of::<symbol::Symbol>()).enumerate() {
            let Ok(record) = symbol::Symbol::read_from_bytes(bytes) else { break };
            let symbol = self.symbol(Place { table, number }, &record)?;
            if let Some(first) = numbers.insert(symbol.id, number) {
                let first_name = symbols.get(first).map(|symbol| symbol.name.clone());
                let first_name = first_name.unwrap_or_default();
                let name = symbol.name;
                return Err(ImageError::Duplicate { table, number, name, first, first_name });
            }
            symbols.push(symbol);
        }
        Ok(symbols)
    }

    fn records(&self, table: Table, extent: &Range<u64>) -> Result<&'a [u8], ImageError> {
        let Range { start, end } = *extent;
        let Some(bytes) = end.checked_sub(start) else {
            return Err(ImageError::TableReversed { table, start, end });
        };
        if bytes == 0 {
            return Ok(&[]);
        }
        let aligned = start.is_multiple_of(align_of::<symbol::Symbol>() as u64);
        if !aligned || !bytes.is_multiple_of(RECORD_BYTES) {
            let record_bytes = RECORD_BYTES;
            return Err(ImageError::TableMisaligned { table, start, end, record_bytes });
        }
        let count = bytes / RECORD_BYTES;
        if count > symbol::SYMBOLS as u64 {
            return Err(ImageError::TooManySymbols { table, count, limit: symbol::SYMBOLS });
        }
        self.memory.bytes_at(start, bytes).ok_or(ImageError::TableOutside { table, start, end })
    }

    fn symbol(&mut self, place: Place, record: &symbol::Symbol) -> Result<Symbol, ImageError> {
        let name = self.name(place, record)?;
        let signature = self.signature(place, record, name)?;
        self.check_entry(place, record, name)?;
        self.text_bytes =
            self.text_bytes.saturating_add(name.len()).saturating_add(signature.len());
        if self.text_bytes > TEXT_BYTES {
            return Err(ImageError::TooMuchText { bytes: self.text_bytes, limit: TEXT_BYTES });
        }
        let (name, signature) = (name.to_owned(), signature.to_owned());
        Ok(Symbol { name, signature, id: record.id, schema: record.schema })
    }

    fn name(&self, place: Place, record: &symbol::Symbol) -> Result<&'a str, ImageError> {
        let Place { table, number } = place;
        let (gva, bytes, limit) = (record.name_gva, record.name_len, symbol::NAME_BYTES);
        if bytes == 0 || bytes > limit as u64 {
            return Err(ImageError::NameLength { table, number, bytes, limit });
        }
        let text = self.memory.bytes_at(gva, bytes);
        let text = text.ok_or(ImageError::NameOutside { table, number, gva, bytes })?;
        let name = str::from_utf8(text).map_err(|error| ImageError::NameEncoding {
            table,
            number,
            at: error.valid_up_to(),
        })?;
        if let Some((at, character)) = name.char_indices().find(|(_, c)| !is_name(*c)) {
            return Err(ImageError::NameCharacter { table, number, character, at });
        }
        let (id, expected) = (record.id, fnv1a(text));
        if id != expected {
            return Err(ImageError::Id { table, number, name: name.to_owned(), id, expected });
        }
        Ok(name)
    }

    fn signature(
        &self,
        place: Place,
        record: &symbol::Symbol,
        name: &str,
    ) -> Result<&'a str, ImageError> {
        let Place { table, number } = place;
        let name = || name.to_owned();
        let (gva, bytes) = (record.signature_gva, record.signature_len);
        let limit = symbol::SIGNATURE_BYTES;
        if bytes == 0 || bytes > limit as u64 {
            return Err(ImageError::SignatureLength { table, number, name: name(), bytes, limit });
        }
        let text = self.memory.bytes_at(gva, bytes);
        let text = text.ok_or_else(|| ImageError::SignatureOutside {
            table,
            number,
            name: name(),
            gva,
            bytes,
        })?;
        let signature = str::from_utf8(text).map_err(|error| ImageError::SignatureEncoding {
            table,
            number,
            name: name(),
            at: error.valid_up_to(),
        })?;
        if let Some((at, character)) = signature.char_indices().find(|(_, c)| misleads(*c)) {
            return Err(ImageError::SignatureCharacter {
                table,
                number,
                name: name(),
                character,
                at,
            });
        }
        let (schema, expected) = (record.schema, fnv1a(text));
        if schema != expected {
            return Err(ImageError::Schema { table, number, name: name(), schema, expected });
        }
        Ok(signature)
    }

    fn check_entry(
        &self,
        place: Place,
        record: &symbol::Symbol,
        name: &str,
    ) -> Result<(), ImageError> {
        let Place { table, number } = place;
        let (gva, value) = (record.entry_gva, record.priority);
        let limit = if table == Table::Exports { symbol::GREATEST_PRIORITY } else { 0 };
        match table {
            Table::Exports if !self.memory.is_executable(gva) => {
                Err(ImageError::ExportEntry { number, name: name.to_owned(), gva })
            }
            Table::Imports if gva != 0 => {
                Err(ImageError::ImportEntry { number, name: name.to_owned(), gva })
            }
            _ if value > limit => {
                let name = name.to_owned();
                Err(ImageError::Priority { table, number, name, value, limit })
            }
            _ => Ok(()),
        }
    }
}

/// Where a record is, for messages.
#[derive(Clone, Copy)]
struct Place {
    table: Table,
    number: usize,
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':' | '.' | '-')
}

/// Whether a character could make a message show something else than it says:
/// control characters, and those that change the direction of writing
/// (<https://www.unicode.org/reports/tr9/>, table 1).
pub(crate) fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
