//! Which pages of private memory were written.
//!
//! Linux can mark a page of another process when that writes to it ("soft-dirty",
//! `Documentation/admin-guide/mm/soft-dirty.rst`): a bit for each page in
//! `/proc/PID/pagemap`, and a write to `/proc/PID/clear_refs` that clears all bits of
//! the process and protects its pages. Kernels may be built without it, `/proc` may
//! not be there, and a page that is swapped out loses its mark. Then every page that
//! exists counts as written: [`Way::Existing`].
//!
//! A bit can be cleared for all pages only, but is to be for some: so what was found is
//! kept here until it is rearmed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use cellule_hv::{AddressSpace, Backing, PageSet, Protection};
use cellule_mem::PAGE_BYTES;

use crate::trace::Pid;

/// How it is told which pages were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the kernel's marks: just these.
    Marks,
    /// All that exist, as nobody says.
    Existing,
}

/// The account of one child.
#[derive(Debug)]
pub(crate) struct Account {
    way: Way,
    /// What was found and not rearmed since: a bit for each page.
    found: Vec<u64>,
    /// Whether the child has not run since it was last looked at.
    is_fresh: bool,
}

/// Private memory as the child has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) child: Pid,
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) space: &'a AddressSpace,
}

/// "Soft-dirty PTE": `Documentation/admin-guide/mm/pagemap.rst`.
const MARK: u64 = 1 << 55;
/// How many pages are read at once: 32 KiB.
const CHUNK: usize = 4096;
/// Holes up to this many pages are read rather than skipped: that costs less than to
/// ask where they end.
const GAP: usize = 512;

impl Account {
    /// Opens the account of a child. Returns how many system calls it took.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn open(way: Way, sight: Sight<'_>) -> io::Result<(Self, u64)> {
        let cost = if way == Way::Marks { clear(sight.child)? } else { 0 };
        Ok((Self { way, found: Vec::new(), is_fresh: true }, cost))
    }

    /// The child has run.
    pub(crate) fn has_run(&mut self) {
        self.is_fresh = false;
    }

    /// Adds what was written and not rearmed. Returns how many system calls it took.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn add_to(&mut self, pages: &mut PageSet, sight: Sight<'_>) -> io::Result<u64> {
        let cost = self.look(sight)?;
        for (index, word) in self.found.iter().enumerate() {
            pages.insert_word(index, *word);
        }
        Ok(cost)
    }

    /// Takes pages out, until they are written again. Returns how many system calls it
    /// took.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn rearm(&mut self, pages: &PageSet, sight: Sight<'_>) -> io::Result<u64> {
        if self.way == Way::Existing {
            return Ok(0);
        }
        let cost = self.look(sight)? + clear(sight.child)?;
        for (word, rearmed) in self.found.iter_mut().zip(pages.words()) {
            *word &= !rearmed;
        }
        Ok(cost)
    }

    fn look(&mut self, sight: Sight<'_>) -> io::Result<u64> {
        if self.way == Way::Marks && self.is_fresh {
            return Ok(0);
        }
        let private = sight.space.private_len();
        let existing = existing(sight.file, usize::try_from(private).unwrap_or(usize::MAX))?;
        let mut cost = 2 * existing.len() as u64 + 1;
        match self.way {
            Way::Existing => {
                self.found.clear();
                existing.into_iter().flatten().for_each(|page| insert(&mut self.found, page));
            }
            // A page that was swapped out has lost its mark.
            Way::Marks if swaps() => {
                existing.into_iter().flatten().for_each(|page| insert(&mut self.found, page));
            }
            Way::Marks => {
                let file = File::open(format!("/proc/{}/pagemap", sight.child.0))?;
                for range in merged(existing) {
                    cost += marked(&file, sight.space, range, &mut self.found)?;
                }
                cost += 2;
            }
        }
        self.is_fresh = true;
        Ok(cost)
    }
}

/// What this kernel seems to be good for: a process can look at its own pages.
/// `probe.rs` sees whether it keeps that.
pub(crate) fn promised() -> Way {
    if !swaps() && marks_own_page().unwrap_or(false) { Way::Marks } else { Way::Existing }
}

/// Whether a page of this process has the mark. One that was never cleared is marked,
/// as all of its mapping is.
fn marks_own_page() -> io::Result<bool> {
    let page = Box::new([1_u8; 2 * PAGE_BYTES]);
    let entry = std::hint::black_box(&page).as_ptr().addr() / PAGE_BYTES + 1;
    let mut word = [0; 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut word, entry as u64 * 8)?;
    Ok(u64::from_le_bytes(word) & MARK != 0)
}

/// Whether the machine has memory to swap pages out to.
fn swaps() -> bool {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: writes a structure that is a live local.
    let read = unsafe { libc::sysinfo(info.as_mut_ptr()) };
    // SAFETY: zeroed before, and filled in: integers.
    let info = unsafe { info.assume_init() };
    read != 0 || info.totalswap != 0
}

/// Clears all marks of a child.
fn clear(child: Pid) -> io::Result<u64> {
    let path = format!("/proc/{}/clear_refs", child.0);
    OpenOptions::new().write(true).open(path)?.write_all(b"4")?;
    Ok(3)
}

/// The pages of a file that exist, ascending.
fn existing(file: BorrowedFd<'_>, len: usize) -> io::Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < len {
        let Some(start) = seek(file, at, libc::SEEK_DATA)? else { break };
        let end = seek(file, start, libc::SEEK_HOLE)?.unwrap_or(len).min(len);
        found.push(start / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
        at = end;
    }
    Ok(found)
}

/// Where there is something in a file from an offset on, or nothing: `None` if there
/// is only the end.
fn seek(file: BorrowedFd<'_>, from: usize, what: i32) -> io::Result<Option<usize>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    // SAFETY: no memory is touched; the position of this descriptor is nobody's.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, what) };
    let error = io::Error::last_os_error();
    match usize::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(_) => Err(error),
    }
}

/// The same ranges with the small gaps closed.
fn merged(ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start - last.end <= GAP => last.end = range.end,
            _ => merged.push(range),
        }
    }
    merged
}

/// Adds the pages of a range that have the mark, wherever they are mapped. Returns how
/// many system calls that took.
fn marked(
    pagemap: &File,
    space: &AddressSpace,
    range: Range<usize>,
    found: &mut Vec<u64>,
) -> io::Result<u64> {
    let mut cost = 0;
    for mapping in space.mappings() {
        let (Backing::Private(offset), Protection::ReadWrite) =
            (mapping.backing, mapping.protection)
        else {
            continue;
        };
        let number = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX) / PAGE_BYTES;
        let (first, virtual_first) = (number(offset), number(mapping.gva.0));
        let end = range.end.min(first + number(mapping.len));
        let mut page = range.start.max(first);
        while page < end {
            let mut entries = vec![0; 8 * CHUNK.min(end - page)];
            pagemap.read_exact_at(&mut entries, 8 * (virtual_first + page - first) as u64)?;
            let (words, _) = entries.as_chunks();
            let marks = words.iter().map(|word| u64::from_le_bytes(*word) & MARK != 0);
            (page..).zip(marks).filter(|(_, mark)| *mark).for_each(|(page, _)| insert(found, page));
            page += words.len();
            cost += 1;
        }
    }
    Ok(cost)
}

fn insert(words: &mut Vec<u64>, page: usize) {
    let index = page / 64;
    if words.len() <= index {
        words.resize(index + 1, 0);
    }
    if let Some(word) = words.get_mut(index) {
        *word |= 1 << (page % 64);
    }
}

#[cfg(test)]
mod tests;
