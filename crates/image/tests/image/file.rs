//! [`File`]: a small valid guest image as data, to be spoilt one field at a time.
//!
//! Everything has a fixed place in the file, so that a spoilt file differs from
//! the valid one in few bytes. Addresses are places in the file plus one page for
//! each segment before, which keeps the file below 3 KiB.

use cellule_abi::fnv1a;
use cellule_abi::note::Note;
use cellule_abi::symbol::Symbol;
use zerocopy::IntoBytes;

/// Where each part is in the file.
pub(crate) const PROGRAM: u64 = 0x40;
pub(crate) const NOTE: u64 = 0x300;
pub(crate) const TEXT: u64 = 0x380;
pub(crate) const RELOCATIONS: u64 = 0x480;
pub(crate) const CODE: u64 = 0x5a0;
pub(crate) const DYNAMIC: u64 = 0x600;
pub(crate) const EXPORTS: u64 = 0x6c0;
pub(crate) const IMPORTS: u64 = 0x740;
pub(crate) const DATA: u64 = 0x780;
pub(crate) const FUNCTIONS: u64 = 0x7c0;
pub(crate) const STRINGS: u64 = 0x820;
pub(crate) const SECTIONS: u64 = 0x8c0;
pub(crate) const END: u64 = 0x980;

/// What is added to a place in the file to make an address, before the base.
pub(crate) const CODE_PAGE: u64 = 0x1000;
pub(crate) const RELRO_PAGE: u64 = 0x2000;
pub(crate) const DATA_PAGE: u64 = 0x5000;

/// Numbers of program headers.
pub(crate) const RODATA_HEADER: usize = 0;
pub(crate) const CODE_HEADER: usize = 1;
pub(crate) const RELRO_HEADER: usize = 2;
pub(crate) const DATA_HEADER: usize = 3;
pub(crate) const DYNAMIC_HEADER: usize = 4;
pub(crate) const NOTE_HEADER: usize = 5;
pub(crate) const GNU_RELRO_HEADER: usize = 6;
pub(crate) const STACK_HEADER: usize = 7;

#[derive(Clone)]
pub(crate) struct File {
    pub(crate) ident: [u8; 16],
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) version: u32,
    pub(crate) entry: u64,
    pub(crate) program_offset: u64,
    pub(crate) section_offset: u64,
    pub(crate) program_bytes: u16,
    /// Set to say something else than how many program headers there are.
    pub(crate) program_count: Option<u16>,
    pub(crate) section_count: u16,
    pub(crate) program: Vec<Program>,
    pub(crate) notes: Vec<NoteRecord>,
    /// Names and signatures, each at its place.
    pub(crate) text: Vec<u8>,
    pub(crate) relocations: Vec<Relocation>,
    pub(crate) dynamic: Vec<(u64, u64)>,
    /// Pointers in it are zero: relocations make them.
    pub(crate) exports: Vec<Symbol>,
    pub(crate) imports: Vec<Symbol>,
    /// Name in the strings, type, section, address, size.
    pub(crate) functions: Vec<(u32, u8, u16, u64, u64)>,
    pub(crate) strings: Vec<u8>,
    /// Type, offset, size, link.
    pub(crate) sections: Vec<(u32, u64, u64, u32)>,
    /// Where the file is cut off.
    pub(crate) end: u64,
}

#[derive(Clone, Copy)]
pub(crate) struct Program {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_bytes: u64,
    pub(crate) mem_bytes: u64,
    pub(crate) align: u64,
}

#[derive(Clone)]
pub(crate) struct NoteRecord {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u32,
    pub(crate) descriptor: Note,
    /// Set to say something else than how long the descriptor is.
    pub(crate) descriptor_bytes: Option<u32>,
}

#[derive(Clone, Copy)]
pub(crate) struct Relocation {
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    pub(crate) addend: i64,
}

impl Relocation {
    pub(crate) fn relative(offset: u64, addend: u64) -> Self {
        Self { offset, kind: 8, addend: addend as i64 }
    }
}

impl File {
    /// A static-PIE with two exports and one import, a page of relro with zeroed
    /// memory after it, and some data.
    pub(crate) fn valid() -> Self {
        let mut file = Self {
            ident: *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
            kind: 3,
            machine: 62,
            version: 1,
            entry: CODE + CODE_PAGE,
            program_offset: PROGRAM,
            section_offset: SECTIONS,
            program_bytes: 56,
            program_count: None,
            section_count: 3,
            program: valid_program(),
            notes: vec![valid_note()],
            text: Vec::new(),
            relocations: Vec::new(),
            dynamic: Vec::new(),
            exports: Vec::new(),
            imports: Vec::new(),
            functions: vec![
                (0, 0, 0, 0, 0),
                (1, 2, 1, CODE + CODE_PAGE, 0x10),
                (37, 2, 1, CODE + CODE_PAGE + 0x10, 0),
                (42, 1, 2, DATA + DATA_PAGE, 8),
            ],
            strings: b"\0_ZN5guest5start17h0123456789abcdefE\0add\x07\0data\0".to_vec(),
            sections: vec![(0, 0, 0, 0), (2, FUNCTIONS, 0x60, 2), (3, STRINGS, 0x40, 0)],
            end: END,
        };
        file.export("add", "fn(u32, u32) -> u32", CODE + CODE_PAGE + 0x10);
        file.export("greet", "fn(str) -> str?", CODE + CODE_PAGE + 0x20);
        file.import("host::print", "fn(str) -> ()");
        // A pointer to itself, and one in zeroed memory past the end of the image.
        let data = DATA + DATA_PAGE;
        file.relocations.push(Relocation::relative(data, data));
        file.relocations.push(Relocation::relative(data + 0x50, DATA_PAGE + 0x1000));
        file.dynamic = vec![
            (7, RELOCATIONS),
            (8, 24 * file.relocations.len() as u64),
            (9, 24),
            (0x6fff_fffb, 0x0800_0000),
            (0, 0),
        ];
        file
    }

    /// The same for fixed addresses: no dynamic section, and pointers as they are.
    pub(crate) fn valid_fixed() -> Self {
        let mut file = Self::valid();
        let base = cellule_image::BASE;
        file.kind = 2;
        file.entry += base;
        file.program.iter_mut().for_each(|program| program.address += base);
        file.program[DYNAMIC_HEADER].kind = 0;
        for symbol in file.exports.iter_mut().chain(&mut file.imports) {
            symbol.name_gva = 0;
        }
        let relocations = std::mem::take(&mut file.relocations);
        let mut pointers = relocations.iter().map(|relocation| base + relocation.addend as u64);
        for symbol in &mut file.exports {
            symbol.name_gva = pointers.next().unwrap();
            symbol.signature_gva = pointers.next().unwrap();
            symbol.entry_gva = pointers.next().unwrap();
        }
        for symbol in &mut file.imports {
            symbol.name_gva = pointers.next().unwrap();
            symbol.signature_gva = pointers.next().unwrap();
        }
        file
    }

    fn export(&mut self, name: &str, signature: &str, entry: u64) {
        let gva = EXPORTS + RELRO_PAGE + 64 * self.exports.len() as u64;
        let symbol = self.symbol(gva, name, signature);
        self.relocations.push(Relocation::relative(gva + 48, entry));
        self.exports.push(symbol);
    }

    fn import(&mut self, name: &str, signature: &str) {
        let gva = IMPORTS + RELRO_PAGE + 64 * self.imports.len() as u64;
        let symbol = self.symbol(gva, name, signature);
        self.imports.push(symbol);
    }

    fn symbol(&mut self, gva: u64, name: &str, signature: &str) -> Symbol {
        for (field, text) in [(0, name), (16, signature)] {
            let place = TEXT + self.text.len() as u64;
            self.relocations.push(Relocation::relative(gva + field, place));
            self.text.extend_from_slice(text.as_bytes());
        }
        Symbol {
            name_gva: 0,
            name_len: name.len() as u64,
            signature_gva: 0,
            signature_len: signature.len() as u64,
            id: fnv1a(name.as_bytes()),
            schema: fnv1a(signature.as_bytes()),
            entry_gva: 0,
            priority: 0,
        }
    }

    /// Puts other text in place of the name or signature at `place`, and its hash
    /// where it belongs: the defect is the text alone.
    pub(crate) fn rename_first_export(&mut self, name: &[u8]) {
        self.text[..name.len()].copy_from_slice(name);
        self.exports[0].id = fnv1a(name);
    }

    pub(crate) fn resign_first_export(&mut self, start: &[u8]) {
        let signature = &mut self.text[3..22];
        signature[..start.len()].copy_from_slice(start);
        self.exports[0].schema = fnv1a(signature);
    }

    /// Adds a program header in place of the one that nothing needs.
    pub(crate) fn replace_stack_header(&mut self, kind: u32, bytes: u64) {
        let header = &mut self.program[STACK_HEADER];
        *header = Program { kind, file_bytes: bytes, mem_bytes: bytes, ..*header };
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; END as usize];
        put(&mut out, 0, PROGRAM, &self.file_header());
        let program: Vec<u8> = self.program.iter().flat_map(Program::bytes).collect();
        // More headers than there is room for follow at the end.
        if program.len() as u64 > NOTE - PROGRAM {
            out.extend(&program);
        } else {
            put(&mut out, PROGRAM, NOTE, &program);
        }
        let notes: Vec<u8> = self.notes.iter().flat_map(NoteRecord::bytes).collect();
        put(&mut out, NOTE, TEXT, &notes);
        put(&mut out, TEXT, RELOCATIONS, &self.text);
        let relocations: Vec<u8> = self.relocations.iter().flat_map(Relocation::bytes).collect();
        put(&mut out, RELOCATIONS, CODE, &relocations);
        put(&mut out, CODE, DYNAMIC, &[0xc3; 0x30]);
        put(
            &mut out,
            DYNAMIC,
            EXPORTS,
            &words(self.dynamic.iter().map(|(tag, value)| [*tag, *value])),
        );
        put(&mut out, EXPORTS, IMPORTS, self.exports.as_bytes());
        put(&mut out, IMPORTS, DATA, self.imports.as_bytes());
        put(&mut out, DATA, FUNCTIONS, b"variables");
        let functions: Vec<u8> = self.functions.iter().flat_map(function_bytes).collect();
        put(&mut out, FUNCTIONS, STRINGS, &functions);
        put(&mut out, STRINGS, SECTIONS, &self.strings);
        let sections: Vec<u8> = self.sections.iter().flat_map(section_bytes).collect();
        put(&mut out, SECTIONS, END, &sections);
        out.truncate(if self.end == END { out.len() } else { self.end as usize });
        out
    }

    fn file_header(&self) -> Vec<u8> {
        let count = self.program_count.unwrap_or(self.program.len() as u16);
        let crowded = self.program.len() as u64 * 56 > NOTE - PROGRAM;
        let offset = if crowded { END } else { self.program_offset };
        let mut out = self.ident.to_vec();
        out.extend(self.kind.to_le_bytes());
        out.extend(self.machine.to_le_bytes());
        out.extend(self.version.to_le_bytes());
        out.extend(words([[self.entry, offset, self.section_offset]]));
        out.extend(0_u32.to_le_bytes());
        for half in [64, self.program_bytes, count, 64, self.section_count, 0] {
            out.extend(half.to_le_bytes());
        }
        out
    }
}

fn valid_program() -> Vec<Program> {
    let at = |kind, flags, offset, page, end| Program {
        kind,
        flags,
        offset,
        address: offset + page,
        file_bytes: end - offset,
        mem_bytes: end - offset,
        align: 0x1000,
    };
    let mut program = vec![
        at(1, 4, 0, 0, CODE),
        at(1, 5, CODE, CODE_PAGE, DYNAMIC),
        at(1, 6, DYNAMIC, RELRO_PAGE, DATA),
        at(1, 6, DATA, DATA_PAGE, FUNCTIONS),
        at(2, 6, DYNAMIC, RELRO_PAGE, DYNAMIC + 80),
        at(4, 4, NOTE, 0, NOTE + 60),
        at(0x6474_e552, 4, DYNAMIC, RELRO_PAGE, DATA),
        at(0x6474_e551, 6, 0, 0, 0),
    ];
    // Up to the end of the page after relro; and 0x40 more bytes of data.
    program[RELRO_HEADER].mem_bytes = 0x4000 - RELRO_PAGE - DYNAMIC;
    program[DATA_HEADER].mem_bytes += 0x40;
    // One byte into that page: it must be rounded down.
    program[GNU_RELRO_HEADER].mem_bytes = 0x3001 - RELRO_PAGE - DYNAMIC;
    program[NOTE_HEADER].align = 4;
    program
}

fn valid_note() -> NoteRecord {
    let field = |offset| (NOTE + 20 + offset) as i64;
    let descriptor = Note {
        abi_version: cellule_abi::ABI_VERSION,
        sdk_version: 1 << 16 | 2 << 8 | 3,
        exports_start: (EXPORTS + RELRO_PAGE) as i64 - field(8),
        exports_end: (EXPORTS + RELRO_PAGE + 128) as i64 - field(16),
        imports_start: (IMPORTS + RELRO_PAGE) as i64 - field(24),
        imports_end: (IMPORTS + RELRO_PAGE + 64) as i64 - field(32),
    };
    NoteRecord { name: b"Cellule\0".to_vec(), kind: 1, descriptor, descriptor_bytes: None }
}

impl Program {
    fn bytes(&self) -> Vec<u8> {
        let Self { offset, address, file_bytes, mem_bytes, align, .. } = *self;
        let mut out = self.kind.to_le_bytes().to_vec();
        out.extend(self.flags.to_le_bytes());
        out.extend(words([[offset, address, address, file_bytes, mem_bytes, align]]));
        out
    }
}

impl NoteRecord {
    fn bytes(&self) -> Vec<u8> {
        let descriptor = self.descriptor.as_bytes();
        let len = self.descriptor_bytes.unwrap_or(descriptor.len() as u32);
        let mut out = Vec::new();
        for word in [self.name.len() as u32, len, self.kind] {
            out.extend(word.to_le_bytes());
        }
        out.extend(&self.name);
        out.extend(descriptor);
        out
    }
}

impl Relocation {
    fn bytes(&self) -> Vec<u8> {
        words([[self.offset, self.kind.into(), self.addend as u64]])
    }
}

fn function_bytes(&(name, kind, section, address, size): &(u32, u8, u16, u64, u64)) -> Vec<u8> {
    let mut out = name.to_le_bytes().to_vec();
    out.extend([kind, 0]);
    out.extend(section.to_le_bytes());
    out.extend(words([[address, size]]));
    out
}

fn section_bytes(&(kind, offset, size, link): &(u32, u64, u64, u32)) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(kind.to_le_bytes());
    out.extend(words([[0, 0, offset, size]]));
    out.extend(link.to_le_bytes());
    out.extend([0; 20]);
    out
}

fn words<const N: usize>(rows: impl IntoIterator<Item = [u64; N]>) -> Vec<u8> {
    rows.into_iter().flatten().flat_map(u64::to_le_bytes).collect()
}

/// Puts a part at its place, which ends at `limit`.
fn put(out: &mut [u8], place: u64, limit: u64, part: &[u8]) {
    assert!(part.len() as u64 <= limit - place, "the part at {place:#x} should fit its place");
    out[place as usize..][..part.len()].copy_from_slice(part);
}
