//! [`Headers`]: the ELF header and the program headers, read and sorted by use.

use core::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::ProgramHeader;
use goblin::elf::header::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_GNU, ELFOSABI_SYSV, EM_X86_64, ET_DYN, ET_EXEC,
    EV_CURRENT,
};
use goblin::elf::program_header::{
    PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS,
};
use goblin::elf64::header::{Header, SIZEOF_EHDR};
use goblin::elf64::program_header::SIZEOF_PHDR;

use crate::{BASE, ImageError, PROGRAM_HEADERS};

/// How goblin is to read every structure.
pub(crate) const CTX: Ctx = Ctx { container: Container::Big, le: Endian::Little };

/// What the headers say, with addresses as they will be in the guest.
#[derive(Debug)]
pub(crate) struct Headers {
    /// Where execution starts.
    pub(crate) entry: u64,
    /// What is added to every address in the file.
    pub(crate) base: u64,
    /// The segments to load with the numbers of their headers, unchecked.
    pub(crate) loads: Vec<(usize, ProgramHeader)>,
    /// The dynamic section.
    pub(crate) dynamic: Option<Range<u64>>,
    /// What only relocation may write.
    pub(crate) relro: Option<Range<u64>>,
    /// Where notes are.
    pub(crate) notes: Vec<Notes>,
    /// The section headers: offset, bytes each, count.
    pub(crate) sections: (u64, u16, u16),
}

/// A segment of notes.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) extent: Range<u64>,
    /// What name and descriptor are padded to: 4, or 8 where the header says 8.
    pub(crate) padding: usize,
}

impl Headers {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let header = file_header(bytes)?;
        let base = match header.e_type {
            ET_DYN => BASE,
            ET_EXEC => 0,
            kind => return Err(ImageError::Kind { kind }),
        };
        let mut headers = Self {
            entry: header.e_entry.wrapping_add(base),
            base,
            loads: Vec::new(),
            dynamic: None,
            relro: None,
            notes: Vec::new(),
            sections: (header.e_shoff, header.e_shentsize, header.e_shnum),
        };
        for (index, program) in program_headers(bytes, &header)?.into_iter().enumerate() {
            headers.add(index, program)?;
        }
        Ok(headers)
    }

    /// Files a program header. Kinds that change nothing in a guest are left out.
    fn add(&mut self, index: usize, program: ProgramHeader) -> Result<(), ImageError> {
        let ProgramHeader { p_flags: flags, p_filesz: file, p_memsz: memory, .. } = program;
        match program.p_type {
            PT_LOAD if memory > 0 || file > 0 => self.loads.push((index, program)),
            PT_INTERP => return Err(ImageError::Interpreter { index }),
            PT_TLS if memory > 0 => return Err(ImageError::ThreadLocal { index, bytes: memory }),
            PT_GNU_STACK if flags & PF_X != 0 => {
                return Err(ImageError::ExecutableStack { index, flags });
            }
            PT_DYNAMIC => {
                let extent = self.extent(index, &program, file)?;
                once(&mut self.dynamic, extent, index, "PT_DYNAMIC")?;
            }
            PT_GNU_RELRO if memory > 0 => {
                let extent = self.extent(index, &program, memory)?;
                once(&mut self.relro, extent, index, "PT_GNU_RELRO")?;
            }
            PT_NOTE if file > 0 => {
                let extent = self.extent(index, &program, file)?;
                let padding = if program.p_align == 8 { 8 } else { 4 };
                self.notes.push(Notes { extent, padding });
            }
            _ => {}
        }
        Ok(())
    }

    fn extent(
        &self,
        index: usize,
        header: &ProgramHeader,
        bytes: u64,
    ) -> Result<Range<u64>, ImageError> {
        let start = header.p_vaddr.checked_add(self.base);
        let end = start.and_then(|start| start.checked_add(bytes));
        let address = header.p_vaddr;
        start.zip(end).map(|(start, end)| start..end).ok_or(ImageError::Wraps {
            index,
            address,
            bytes,
        })
    }
}

fn once(
    slot: &mut Option<Range<u64>>,
    extent: Range<u64>,
    index: usize,
    kind: &'static str,
) -> Result<(), ImageError> {
    match slot.replace(extent) {
        None => Ok(()),
        Some(_) => Err(ImageError::SecondHeader { index, kind }),
    }
}

fn file_header(bytes: &[u8]) -> Result<Header, ImageError> {
    let too_short = ImageError::TooShort { bytes: bytes.len(), needed: SIZEOF_EHDR };
    let Some(first) = bytes.first_chunk::<SIZEOF_EHDR>() else { return Err(too_short) };
    let [m0, m1, m2, m3, class, encoding, version, os_abi, ..] = *first;
    let magic = [m0, m1, m2, m3];
    if magic != *ELFMAG {
        return Err(ImageError::NotElf { magic });
    }
    if class != ELFCLASS64 {
        return Err(ImageError::Class { class });
    }
    if encoding != ELFDATA2LSB {
        return Err(ImageError::Encoding { encoding });
    }
    if version != EV_CURRENT {
        return Err(ImageError::Version { version: version.into() });
    }
    if os_abi != ELFOSABI_SYSV && os_abi != ELFOSABI_GNU {
        return Err(ImageError::OsAbi { os_abi });
    }
    let header = Header::parse(first).map_err(|_| too_short)?;
    if header.e_version != u32::from(EV_CURRENT) {
        return Err(ImageError::Version { version: header.e_version });
    }
    if header.e_machine != EM_X86_64 {
        return Err(ImageError::Machine { machine: header.e_machine });
    }
    Ok(header)
}

fn program_headers(bytes: &[u8], header: &Header) -> Result<Vec<ProgramHeader>, ImageError> {
    let (count, offset) = (header.e_phnum, header.e_phoff);
    if count == 0 {
        return Err(ImageError::NoSegment);
    }
    if usize::from(header.e_phentsize) != SIZEOF_PHDR {
        let bytes = header.e_phentsize;
        return Err(ImageError::ProgramHeaderSize { bytes, expected: SIZEOF_PHDR });
    }
    if count > PROGRAM_HEADERS {
        return Err(ImageError::TooManyProgramHeaders { count, limit: PROGRAM_HEADERS });
    }
    // goblin checks that every header is inside the bytes, and allocates for
    // `count` of them, which is small.
    usize::try_from(offset)
        .ok()
        .and_then(|start| ProgramHeader::parse(bytes, start, count.into(), CTX).ok())
        .ok_or(ImageError::ProgramHeadersOutside { count, offset, bytes: bytes.len() })
}
