//! Mappings of anonymous memory and of sealed files in memory.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::ptr::NonNull;

use crate::PAGE_BYTES;

/// Memory could not be had from the operating system.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The address space or the memory is exhausted, or a limit was reached.
    #[error("cannot map {len} bytes of guest memory: {source}")]
    Map {
        /// The length that was asked for, in bytes.
        len: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A file in memory could not be made, filled or sealed.
    #[error("cannot make a sealed memory file of {len} bytes: {source}")]
    Seal {
        /// The length that was asked for, in bytes.
        len: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The length is zero or not a whole number of pages.
    #[error("{len} bytes are not a positive number of {PAGE_BYTES}-byte pages")]
    NotPages {
        /// The length that was asked for, in bytes.
        len: usize,
    },
}

/// Bytes in physical pages that nobody can change any more, this process included.
#[derive(Debug)]
pub struct Sealed {
    file: File,
    len: usize,
}

impl Sealed {
    /// Copies `bytes` into new pages, zero-filled to the end of the last, and
    /// seals them against writing, shrinking and growing.
    ///
    /// # Errors
    ///
    /// [`MapError`] if `bytes` is empty or the system refuses.
    ///
    /// # Cost
    ///
    /// Five system calls and one copy.
    pub fn new(bytes: &[u8]) -> Result<Self, MapError> {
        let len = bytes.len().next_multiple_of(PAGE_BYTES);
        if len == 0 {
            return Err(MapError::NotPages { len });
        }
        Self::filled(bytes, len).map_err(|source| MapError::Seal { len, source })
    }

    fn filled(bytes: &[u8], len: usize) -> io::Result<Self> {
        let mut file = memory_file()?;
        file.set_len(len as u64)?;
        file.write_all(bytes)?;
        seal(&file, EVERYTHING)?;
        Ok(Self { file, len })
    }

    /// The length in bytes: whole pages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a sealed file has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file, for a backend whose guests map it themselves.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

const EVERYTHING: i32 =
    libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Makes an empty file in memory that can be sealed.
fn memory_file() -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a terminated string; the call has no other argument.
    let fd = unsafe { libc::memfd_create(c"cellule".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: memfd_create returned this descriptor, and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Makes a file of `len` zeros in memory that can grow but never shrink: what was
/// once within it can be accessed for as long as it is mapped.
pub(crate) fn growing_file(len: usize) -> Result<File, MapError> {
    let made = memory_file().and_then(|file| {
        file.set_len(len as u64)?;
        seal(&file, libc::F_SEAL_SHRINK)?;
        Ok(file)
    });
    made.map_err(|source| MapError::Seal { len, source })
}

/// Seals a file against changes.
///
/// The kernel refuses while somebody else refers to one of the pages, as its own
/// page migration and monitoring do now and then: seen once in some thousand
/// images. It waits for them by itself, but not for ever (`memfd_wait_for_pins`).
fn seal(file: &File, seals: i32) -> io::Result<()> {
    const ATTEMPTS: u32 = 16;
    let mut attempt = 1;
    loop {
        // SAFETY: the descriptor is open; F_ADD_SEALS takes an int.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) || attempt == ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
    }
}

/// A range of this process's address space, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: usize,
}

// SAFETY: a mapping is an address range of the process, not of a thread.
unsafe impl Send for Mapping {}
// SAFETY: nothing is reachable through a shared `Mapping` but by the functions
// of `copy.rs`, which tolerate concurrent access.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed private memory whose pages exist once they are touched.
    ///
    /// Without huge pages: one touched byte must not cost 2 MiB.
    pub(crate) fn demand_zero(len: usize) -> Result<Self, MapError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let mapping = Self::reserve(len, protection)?;
        mapping.refuse_huge_pages();
        Ok(mapping)
    }

    /// The first `len` bytes of a file, writable, shared with whoever else maps it.
    /// Those that the file does not have yet must not be touched.
    pub(crate) fn of_file(file: &File, len: usize) -> Result<Self, MapError> {
        let mapping = Self::reserve(len, libc::PROT_NONE)?;
        mapping.place(0, len, file, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
        mapping.refuse_huge_pages();
        Ok(mapping)
    }

    /// The parts one after another, and `len` bytes of [demand-zero](Self::demand_zero)
    /// memory behind them: all writable, and what is written is this mapping's alone.
    pub(crate) fn copy_on_write(parts: &[&Sealed], len: usize) -> Result<Self, MapError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let front: usize = parts.iter().map(|part| part.len).sum();
        let mapping = Self::reserve(front.saturating_add(len), protection)?;
        let mut offset = 0;
        for part in parts {
            mapping.place(offset, part.len, &part.file, protection, libc::MAP_PRIVATE)?;
            offset += part.len;
        }
        mapping.refuse_huge_pages();
        Ok(mapping)
    }

    /// The parts one after another, read-only.
    pub(crate) fn stitched(parts: &[&Sealed]) -> Result<Self, MapError> {
        let len = parts.iter().map(|part| part.len).sum();
        let mapping = Self::reserve(len, libc::PROT_NONE)?;
        let mut offset = 0;
        for part in parts {
            mapping.overlay(offset, part)?;
            offset += part.len;
        }
        Ok(mapping)
    }

    /// Touches all pages of a range that the caller has checked.
    pub(crate) fn populate(&self, offset: usize, len: usize) {
        let start = offset / PAGE_BYTES * PAGE_BYTES;
        let len = (offset + len).next_multiple_of(PAGE_BYTES) - start;
        // SAFETY: `start` is within the mapping, says the caller's check.
        let at = unsafe { self.start.as_ptr().add(start) };
        // SAFETY: whole pages of a mapping that is ours; populating does not
        // change contents. A kernel before 5.14 refuses, which is as good.
        unsafe { libc::madvise(at.cast(), len, libc::MADV_POPULATE_WRITE) };
    }

    fn reserve(len: usize, protection: i32) -> Result<Self, MapError> {
        if len == 0 || !len.is_multiple_of(PAGE_BYTES) {
            return Err(MapError::NotPages { len });
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, len }),
            _ => Err(MapError::Map { len, source: io::Error::last_os_error() }),
        }
    }

    /// Maps all of `part` over this mapping at `offset`, where it must fit.
    ///
    /// Not `MAP_SHARED`: before 6.7, Linux refuses that of a file that is sealed
    /// against writing, even for reading. Pages that nobody can write are as shared
    /// either way.
    fn overlay(&self, offset: usize, part: &Sealed) -> Result<(), MapError> {
        self.place(offset, part.len, &part.file, libc::PROT_READ, libc::MAP_PRIVATE)
    }

    /// Has one touched byte take a page, and not 2 MiB. Only advice.
    fn refuse_huge_pages(&self) {
        // SAFETY: the range is this mapping's; advice does not change contents.
        // Where the kernel knows no huge pages it refuses, which is as good.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_NOHUGEPAGE) };
    }

    /// Maps the first `len` bytes of a file over this mapping at `offset`, where
    /// they must fit: `MAP_SHARED`, or `MAP_PRIVATE`, with which writing is allowed
    /// even if the file is sealed, as it does not change the file.
    fn place(
        &self,
        offset: usize,
        len: usize,
        file: &File,
        protection: i32,
        sharing: i32,
    ) -> Result<(), MapError> {
        debug_assert!(offset + len <= self.len, "the callers sum the lengths");
        let flags = sharing | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let fd = file.as_raw_fd();
        // SAFETY: offset + len is at most self.len, so this stays in the range.
        let at = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: MAP_FIXED replaces pages of our own reservation only, and
        // nobody has a pointer into it yet; the file is open.
        let mapped = unsafe { libc::mmap(at.cast(), len, protection, flags, fd, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(MapError::Map { len, source: io::Error::last_os_error() });
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `reserve` with this length, and its
        // owner goes: no copy can be under way, as copies borrow the mapping.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
