//! A partition's memory as the host sees it: claims are checked, bytes are copied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cellule_mem::Region;

use crate::space::PAGE_BYTES;
use crate::{Access, AddressSpace, Backing, GuestSlice, Gva, PageSet};

const PAGE: usize = cellule_mem::PAGE_BYTES;

/// The two regions of a partition, and which guest addresses lie where.
#[derive(Debug)]
pub struct Memory {
    space: Arc<AddressSpace>,
    shared: Arc<Region>,
    shared_start: usize,
    private: Arc<Region>,
    private_start: usize,
    /// What the host wrote to private memory, once that is tracked.
    written: OnceLock<Written>,
}

/// A bit for each page of private memory.
#[derive(Debug)]
struct Written(Box<[AtomicU64]>);

/// A claim of the guest's that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest named {slice}, which is not {need} memory of its own")]
pub struct BadSlice {
    /// What the guest named.
    pub slice: GuestSlice,
    /// What it would have to be.
    pub need: Access,
}

impl Memory {
    /// Memory of an address space whose shared and private parts start at an
    /// offset in each region; what lies before is the backend's own.
    pub fn new(
        space: Arc<AddressSpace>,
        (shared, shared_start): (Arc<Region>, usize),
        (private, private_start): (Arc<Region>, usize),
    ) -> Self {
        Self { space, shared, shared_start, private, private_start, written: OnceLock::new() }
    }

    /// The address space.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Returns a copy of bytes that the guest may read.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if they are not all within one mapping.
    ///
    /// # Cost
    ///
    /// One copy; nothing is allocated before the claim is checked.
    pub fn copy_out(&self, slice: GuestSlice) -> Result<Vec<u8>, BadSlice> {
        let bad = BadSlice { slice, need: Access::Read };
        let (region, offset, len) = self.locate(slice, Access::Read).ok_or(bad)?;
        region.read_vec(offset, len).map_err(|_| bad)
    }

    /// Fills `to` with a copy of what lies at `gva`.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not all within one mapping.
    pub fn copy_into(&self, gva: Gva, to: &mut [u8]) -> Result<(), BadSlice> {
        let slice = GuestSlice { gva, len: to.len() as u64 };
        let bad = BadSlice { slice, need: Access::Read };
        let (region, offset, _) = self.locate(slice, Access::Read).ok_or(bad)?;
        region.read(offset, to).map_err(|_| bad)
    }

    /// Copies `from` to memory that the guest may write.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not all within one writable mapping.
    pub fn copy_in(&self, gva: Gva, from: &[u8]) -> Result<(), BadSlice> {
        let slice = GuestSlice { gva, len: from.len() as u64 };
        let bad = BadSlice { slice, need: Access::Write };
        let (region, offset, _) = self.locate_for_writing(slice).ok_or(bad)?;
        region.write(offset, from).map_err(|_| bad)
    }

    /// Makes pages be there before the guest touches them. Only advice.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if they are not all within one writable mapping.
    pub fn populate(&self, slice: GuestSlice) -> Result<(), BadSlice> {
        let bad = BadSlice { slice, need: Access::Write };
        let (region, offset, len) = self.locate(slice, Access::Write).ok_or(bad)?;
        region.populate(offset, len).map_err(|_| bad)
    }

    /// Reads the aligned word at `gva`, with acquire ordering.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not aligned memory of the guest's.
    pub fn load_u32(&self, gva: Gva) -> Result<u32, BadSlice> {
        let slice = GuestSlice { gva, len: 4 };
        let bad = BadSlice { slice, need: Access::Read };
        let (region, offset, _) = self.locate(slice, Access::Read).ok_or(bad)?;
        region.load_u32(offset).map_err(|_| bad)
    }

    /// Writes the aligned word at `gva`, with release ordering.
    ///
    /// # Errors
    ///
    /// [`BadSlice`] if it is not aligned memory that the guest may write.
    pub fn store_u32(&self, gva: Gva, value: u32) -> Result<(), BadSlice> {
        let slice = GuestSlice { gva, len: 4 };
        let bad = BadSlice { slice, need: Access::Write };
        let (region, offset, _) = self.locate_for_writing(slice).ok_or(bad)?;
        region.store_u32(offset, value).map_err(|_| bad)
    }

    /// Keeps account from now on of the private pages that the host writes: for a
    /// backend's [`track`](crate::Partition::track). The second time does nothing.
    pub fn track(&self) {
        self.written.get_or_init(|| {
            let pages = self.space.private_len() / PAGE_BYTES;
            Written((0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
        });
    }

    /// Adds the pages that the host wrote since they were tracked or last rearmed.
    pub fn written(&self, pages: &mut PageSet) {
        let words = self.written.get().map_or(&[][..], |written| &written.0);
        for (index, word) in words.iter().enumerate() {
            pages.insert_word(index, word.load(Ordering::Relaxed));
        }
    }

    /// Takes pages out of that account, until the host writes them again.
    pub fn rearm(&self, pages: &PageSet) {
        let words = self.written.get().map_or(&[][..], |written| &written.0);
        for (word, bits) in words.iter().zip(pages.words()) {
            word.fetch_and(!bits, Ordering::Relaxed);
        }
    }

    /// Copies a page of private memory out of it, whatever the guest may do there;
    /// `false` if there is no such page.
    pub fn private_page(&self, page: usize, to: &mut [u8; PAGE]) -> bool {
        self.page_offset(page).is_some_and(|offset| self.private.read(offset, to).is_ok())
    }

    /// Copies a page into private memory, whatever the guest may do there, and
    /// notes it as written; `false` if there is no such page.
    pub fn set_private_page(&self, page: usize, from: &[u8; PAGE]) -> bool {
        let offset = self.page_offset(page);
        self.note(page * PAGE, PAGE);
        offset.is_some_and(|offset| self.private.write(offset, from).is_ok())
    }

    fn page_offset(&self, page: usize) -> Option<usize> {
        let inside = page < usize::try_from(self.space.private_len()).ok()? / PAGE;
        inside.then_some(self.private_start + page * PAGE)
    }

    /// Notes that the host is about to write bytes of private memory.
    fn note(&self, offset: usize, len: usize) {
        let Some(Written(words)) = self.written.get() else { return };
        for page in offset / PAGE..(offset + len).div_ceil(PAGE) {
            if let Some(word) = words.get(page / 64) {
                word.fetch_or(1 << (page % 64), Ordering::Relaxed);
            }
        }
    }

    /// What is written is noted first: a copy that is cut short is in the account.
    fn locate_for_writing(&self, slice: GuestSlice) -> Option<(&Region, usize, usize)> {
        let found = self.locate(slice, Access::Write)?;
        let (_, offset, len) = found;
        self.note(offset.saturating_sub(self.private_start), len);
        Some(found)
    }

    fn locate(&self, slice: GuestSlice, need: Access) -> Option<(&Region, usize, usize)> {
        let (backing, len) = self.space.resolve(slice, need)?;
        let (region, start, offset) = match backing {
            Backing::Shared(offset) => (&self.shared, self.shared_start, offset),
            Backing::Private(offset) => (&self.private, self.private_start, offset),
        };
        Some((region, start.checked_add(usize::try_from(offset).ok()?)?, len))
    }
}
