//! Which private pages were written: the hypervisor's bits, and our account.
//!
//! The kernel reads a range's dirty bits and, with the same call, clears them or
//! sets them all. (There is a third operation, that should do neither; Linux sets
//! them then, too: `mshv_partition_ioctl_get_gpap_access_bitmap` in
//! drivers/hv/mshv_root_main.c.) So the bits are cleared whenever they are read,
//! and the [`Account`] keeps what they said until a page is rearmed. A page that
//! stays in the account may so be noticed anew at its next write, where KVM
//! leaves it writable.

use cellule_hv::PageSet;
use cellule_hv::x86::PRIVATE_RESERVED;
use cellule_mem::PAGE_BYTES;
use mshv_bindings::MSHV_GPAP_ACCESS_OP_CLEAR;
use mshv_ioctls::VmFd;

use crate::error;
use crate::layout::Home;

/// The pages before those of [`PageSet`]: the exception stack.
const RESERVED: usize = PRIVATE_RESERVED / PAGE_BYTES;
/// The pages in a word of a bitmap.
const WORD: usize = 64;
/// The pages that one call reads: a multiple of [`WORD`].
const BATCH: usize = 1 << 16;

/// The pages of the private region that were written and not rearmed since.
#[derive(Debug, Default)]
pub(crate) struct Account {
    words: Vec<u64>,
}

impl Account {
    /// Notes bits of the hypervisor's, the first of which is page `first`, a
    /// multiple of 64, of the region.
    pub(crate) fn note(&mut self, first: usize, bits: &[u64]) {
        let start = first / WORD;
        let len = self.words.len().max(start.saturating_add(bits.len()));
        self.words.resize(len, 0);
        let words = self.words.iter_mut().skip(start);
        words.zip(bits).for_each(|(word, bits)| *word |= bits);
    }

    /// Adds the pages to a set.
    pub(crate) fn add_to(&self, pages: &mut PageSet) {
        for (index, word) in self.words.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                let page = WORD * index + left.trailing_zeros() as usize;
                // The exception stack is nobody's page.
                if let Some(page) = page.checked_sub(RESERVED) {
                    pages.insert(page);
                }
                left &= left - 1;
            }
        }
    }

    /// Takes the pages of a set out.
    pub(crate) fn remove(&mut self, pages: &PageSet) {
        for page in pages.iter().map(|page| page + RESERVED) {
            if let Some(word) = self.words.get_mut(page / WORD) {
                *word &= !(1 << (page % WORD));
            }
        }
    }
}

/// Moves the hypervisor's bits of the first `pages` pages of private memory into
/// the account. Adds to `calls` how many calls it made: one for 65,536 pages.
///
/// # Errors
///
/// What the hypervisor said. What was read before is in the account.
pub(crate) fn collect(
    vm: &VmFd,
    pages: usize,
    account: &mut Account,
    calls: &mut u64,
) -> std::io::Result<()> {
    for first in (0..pages).step_by(BATCH) {
        let bits = clear(vm, first, BATCH.min(pages - first), calls)?;
        account.note(first, &bits);
    }
    Ok(())
}

/// Reads and clears the bits of some pages.
fn clear(vm: &VmFd, first: usize, pages: usize, calls: &mut u64) -> std::io::Result<Vec<u64>> {
    const CLEAR: u8 = 1;
    const { assert!(MSHV_GPAP_ACCESS_OP_CLEAR == CLEAR as u32, "the ABI has changed") };
    let page = Home::Private.page() + first as u64;
    error::persist(|| {
        *calls += 1;
        vm.get_dirty_log(page, pages * PAGE_BYTES, CLEAR)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(account: &Account) -> Vec<usize> {
        let mut pages = PageSet::default();
        account.add_to(&mut pages);
        pages.iter().collect()
    }

    #[test]
    fn bits_are_pages_behind_the_exception_stack() {
        let mut account = Account::default();
        account.note(0, &[0b1011, 1]);
        assert_eq!(told(&account), [0, 2, 63]);
        account.note(BATCH, &[0b1]);
        assert_eq!(told(&account), [0, 2, 63, BATCH - 1]);
    }

    #[test]
    fn a_page_stays_in_the_account_until_it_is_rearmed() {
        let mut account = Account::default();
        account.note(0, &[0b110]);
        account.note(0, &[0]);
        assert_eq!(told(&account), [0, 1]);
        let mut pages = PageSet::default();
        pages.insert(1);
        pages.insert(100_000);
        account.remove(&pages);
        assert_eq!(told(&account), [0]);
        account.note(0, &[0b100]);
        assert_eq!(told(&account), [0, 1], "it was written again");
    }
}
