//! Which pages were written: `MSHV_GET_GPAP_ACCESS_BITMAP`.
//!
//! KVM keeps the account: pages stay in its log until they are cleared, and are
//! all in it at first (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2). A page that was set
//! on request, and not written, is kept here.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::mem::offset_of;

use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, kvm_enable_cap,
};
use mshv_bindings::{
    MSHV_GPAP_ACCESS_OP_CLEAR, MSHV_GPAP_ACCESS_OP_COUNT, MSHV_GPAP_ACCESS_TYPE_DIRTY,
    mshv_gpap_access_bitmap,
};

use crate::caller::{self, Fields};
use crate::errno::{Errno, missing};
use crate::kvm;
use crate::memory::{Memory, Range};

/// What the log of KVM lacks of the account.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Pages that were set.
    set: BTreeSet<u64>,
}

impl Account {
    /// Answers `MSHV_GET_GPAP_ACCESS_BITMAP`.
    pub(crate) fn query(&mut self, vm: c_int, memory: &Memory, argument: u64) -> Result<(), Errno> {
        let bytes = caller::read_struct::<{ size_of::<mshv_gpap_access_bitmap>() }>(argument)?;
        let fields = Fields(&bytes);
        let kind = fields.u8(offset_of!(mshv_gpap_access_bitmap, access_type));
        let op = u32::from(fields.u8(offset_of!(mshv_gpap_access_bitmap, access_op)));
        let pages = fields.u64(offset_of!(mshv_gpap_access_bitmap, page_count));
        let first = fields.u64(offset_of!(mshv_gpap_access_bitmap, gpap_base));
        let to = fields.u64(offset_of!(mshv_gpap_access_bitmap, bitmap_ptr));
        let is_zero = fields.is_zero(offset_of!(mshv_gpap_access_bitmap, rsvd), 6);
        if op >= MSHV_GPAP_ACCESS_OP_COUNT || !is_zero || pages == 0 || to == 0 {
            return Err(Errno(libc::EINVAL));
        }
        if u32::from(kind) != MSHV_GPAP_ACCESS_TYPE_DIRTY {
            return Err(missing("no bitmap of access type", kind));
        }
        if !memory.is_tracked {
            return Err(Errno(libc::EIO));
        }
        let wanted = first..first.checked_add(pages).ok_or(Errno(libc::EINVAL))?;
        let change = if op == MSHV_GPAP_ACCESS_OP_CLEAR { Change::Clear } else { Change::Set };
        let bitmap = self.take(vm, memory, &wanted, change)?;
        caller::write(to, &bitmap)
    }

    /// The account of some pages, which must all be mapped, before it is changed.
    fn take(
        &mut self,
        vm: c_int,
        memory: &Memory,
        wanted: &std::ops::Range<u64>,
        change: Change,
    ) -> Result<Vec<u8>, Errno> {
        let pages = wanted.end - wanted.start;
        let len = usize::try_from(pages.div_ceil(8)).map_err(|_| Errno(libc::E2BIG))?;
        let mut found = 0;
        let mut bitmap = vec![0_u8; len];
        for range in memory.ranges() {
            let part = common(range, wanted);
            found += part.end.saturating_sub(part.start);
            if part.is_empty() || !range.is_writable {
                continue;
            }
            let mut log = kvm::dirty_log(vm, range.slot, range.pages)?;
            for page in part.clone() {
                if bit(&log, page - range.first_page) || self.set.contains(&page) {
                    mark(&mut bitmap, page - wanted.start);
                }
            }
            match change {
                Change::Clear => self.clear(vm, range, &part, &mut log)?,
                Change::Set => {
                    self.set.extend(part.filter(|page| !bit(&log, page - range.first_page)))
                }
            }
        }
        if found == pages { Ok(bitmap) } else { Err(Errno(libc::EINVAL)) }
    }

    fn clear(
        &mut self,
        vm: c_int,
        range: &Range,
        part: &std::ops::Range<u64>,
        log: &mut [u64],
    ) -> Result<(), Errno> {
        for page in part.clone() {
            self.set.remove(&page);
        }
        // KVM wants whole words of pages; those of others stay as they are.
        let first = (part.start - range.first_page) / 64 * 64;
        let end = (part.end - range.first_page).next_multiple_of(64).min(range.pages);
        let words = usize::try_from(first / 64).unwrap_or(usize::MAX);
        let Some(words) = log.get_mut(words..) else { return Ok(()) };
        for (word, base) in words.iter_mut().zip((range.first_page + first..).step_by(64)) {
            for page in (0..64).filter(|page| !part.contains(&(base + page))) {
                *word &= !(1 << page);
            }
        }
        let pages = u32::try_from(end - first).map_err(|_| Errno(libc::E2BIG))?;
        kvm::clear_dirty_log(vm, range.slot, first, pages, words)
    }

    /// Forgets an account.
    pub(crate) fn reset(&mut self) {
        self.set.clear();
    }

    /// Whether every page that can be written is in the account.
    pub(crate) fn is_full(&self, vm: c_int, memory: &Memory) -> Result<bool, Errno> {
        for range in memory.ranges().iter().filter(|range| range.is_writable) {
            let log = kvm::dirty_log(vm, range.slot, range.pages)?;
            let is_in = |page| bit(&log, page) || self.set.contains(&(range.first_page + page));
            if !(0..range.pages).all(is_in) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a query leaves behind.
#[derive(Debug, Clone, Copy)]
enum Change {
    Clear,
    /// The driver has no other: NOOP sets, too.
    Set,
}

/// Makes a VM keep its log until it is cleared, and begin with all pages.
pub(crate) fn prepare(vm: c_int) -> Result<(), Errno> {
    let flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
    let mut cap = kvm_enable_cap { cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, ..Default::default() };
    if let Some(argument) = cap.args.first_mut() {
        *argument = u64::from(flags);
    }
    kvm::call(vm, &kvm::ENABLE_CAP, &mut cap).map(drop)
}

fn common(range: &Range, wanted: &std::ops::Range<u64>) -> std::ops::Range<u64> {
    wanted.start.max(range.first_page)..wanted.end.min(range.first_page + range.pages)
}

fn bit(words: &[u64], index: u64) -> bool {
    let word = usize::try_from(index / 64).ok().and_then(|word| words.get(word));
    word.is_some_and(|word| word >> (index % 64) & 1 == 1)
}

fn mark(bytes: &mut [u8], index: u64) {
    if let Some(byte) = usize::try_from(index / 8).ok().and_then(|byte| bytes.get_mut(byte)) {
        *byte |= 1 << (index % 8);
    }
}
