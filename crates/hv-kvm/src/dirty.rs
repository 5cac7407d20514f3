//! The log of dirty pages: KVM's bitmaps for slots, ours for private memory.
//!
//! The log is read without clearing it (`KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`), so
//! that pages stay writable until somebody wants them protected again.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use cellule_hv::PageSet;
use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVMIO,
    kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, kvm_enable_cap,
};
use kvm_ioctls::VmFd;

/// The pages in a word of a bitmap; a range to clear begins at a multiple of it.
const WORD: usize = 64;
/// `_IOWR(KVMIO, 0xc0, struct kvm_clear_dirty_log)`: KVM's documentation, 4.117.
const CLEAR_DIRTY_LOG: libc::c_ulong = {
    const READ_WRITE: libc::c_ulong = 3 << 30;
    let bytes = size_of::<kvm_clear_dirty_log>() as libc::c_ulong;
    READ_WRITE | bytes << 16 | (KVMIO as libc::c_ulong) << 8 | 0xc0
};

/// Has the log kept until it is cleared.
///
/// # Errors
///
/// What KVM said: a kernel before 5.2 has no such thing.
pub(crate) fn keep_until_cleared(vm: &VmFd) -> io::Result<()> {
    let mut cap = kvm_enable_cap { cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, ..Default::default() };
    cap.args[0] = u64::from(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
    Ok(vm.enable_cap(&cap)?)
}

/// Adds the pages of a slot's log, which begins with page `first` of the region.
/// The region's first `reserved` pages are nobody's: page tables, which a processor
/// that walks them may count as written, and the exception stack.
pub(crate) fn add(log: &[u64], first: usize, reserved: usize, pages: &mut PageSet) {
    for (index, word) in log.iter().enumerate() {
        let mut left = *word;
        while left != 0 {
            let page = first + WORD * index + left.trailing_zeros() as usize;
            if let Some(page) = page.checked_sub(reserved) {
                pages.insert(page);
            }
            left &= left - 1;
        }
    }
}

/// Protects those pages again of a slot that has this range of the region, whose
/// first `reserved` pages are nobody's and stay as they are.
///
/// # Errors
///
/// What KVM said.
pub(crate) fn clear(
    vm: &VmFd,
    slot: u32,
    range: Range<usize>,
    reserved: usize,
    pages: &PageSet,
) -> io::Result<()> {
    let mut bits = vec![0_u64; range.len().div_ceil(WORD)];
    let (mut least, mut most) = (usize::MAX, 0);
    for page in pages.iter().map(|page| page + reserved).filter(|page| range.contains(page)) {
        let word = (page - range.start) / WORD;
        if let Some(bits) = bits.get_mut(word) {
            *bits |= 1 << ((page - range.start) % WORD);
        }
        (least, most) = (least.min(word), most.max(word));
    }
    let Some(words) = bits.get_mut(least..=most) else { return Ok(()) };
    let first = least * WORD;
    let last = range.len().min((most + 1) * WORD);
    let request = kvm_clear_dirty_log {
        slot,
        num_pages: u32::try_from(last - first).map_err(io::Error::other)?,
        first_page: first as u64,
        __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
            dirty_bitmap: words.as_mut_ptr().cast(),
        },
    };
    // SAFETY: the descriptor is a VM's; KVM reads the request and one bit for each
    // of `num_pages`, which `words` has, and writes nothing of ours.
    let cleared = unsafe { libc::ioctl(vm.as_raw_fd(), CLEAR_DIRTY_LOG, &raw const request) };
    if cleared < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_s_bits_are_pages_behind_those_that_are_nobody_s() {
        let mut pages = PageSet::default();
        add(&[0b1011, 1], 0, 1, &mut pages);
        assert_eq!(pages.iter().collect::<Vec<_>>(), [0, 2, 63]);
        let mut late = PageSet::default();
        add(&[0b1], 100, 1, &mut late);
        assert_eq!(late.iter().collect::<Vec<_>>(), [99]);
        let mut behind = PageSet::default();
        add(&[u64::MAX, 0b1111], 0, 66, &mut behind);
        assert_eq!(behind.iter().collect::<Vec<_>>(), [0, 1]);
    }
}
