//! Which guest pages are which memory of the process: exact ranges, one KVM slot each.
//!
//! With `CELLULE_MSHV_SHIM_PIN` in the environment, a range is populated for
//! writing when it is mapped, as the driver does when it pins memory
//! (`mshv_region_populate_pages`, FOLL_WRITE | FOLL_LONGTERM): memory that the
//! process itself cannot write is refused, even for a range without W.

use std::ffi::c_int;
use std::mem::offset_of;
use std::sync::OnceLock;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use mshv_bindings::{
    MSHV_SET_MEM_BIT_COUNT, MSHV_SET_MEM_BIT_UNMAP, MSHV_SET_MEM_BIT_WRITABLE, mshv_user_mem_region,
};

use crate::caller::{self, Fields};
use crate::errno::Errno;
use crate::kvm;

const PAGE: u64 = 4096;
/// Guest addresses have no more bits (SDM volume 3, section 5.1.4).
const GPA_BITS: u32 = 52;

/// The ranges of a partition.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    ranges: Vec<Range>,
    /// How often it was changed.
    changes: u64,
    /// Whether writes to pages are tracked.
    pub(crate) is_tracked: bool,
}

/// Guest pages that are memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) slot: u32,
    pub(crate) first_page: u64,
    pub(crate) pages: u64,
    start: u64,
    pub(crate) is_writable: bool,
}

impl Range {
    fn overlaps(&self, other: &Self) -> bool {
        let meets = |a: u64, b: u64, a_len: u64, b_len: u64| a < b + b_len && b < a + a_len;
        let len = |range: &Self| range.pages * PAGE;
        meets(self.first_page, other.first_page, self.pages, other.pages)
            || meets(self.start, other.start, len(self), len(other))
    }

    fn slot(&self, is_tracked: bool) -> kvm_userspace_memory_region {
        let flags = match (self.is_writable, is_tracked) {
            (false, _) => KVM_MEM_READONLY,
            (true, false) => 0,
            (true, true) => KVM_MEM_LOG_DIRTY_PAGES,
        };
        kvm_userspace_memory_region {
            slot: self.slot,
            flags,
            guest_phys_addr: self.first_page * PAGE,
            memory_size: self.pages * PAGE,
            userspace_addr: self.start,
        }
    }
}

impl Memory {
    /// Maps or unmaps what `MSHV_SET_GUEST_MEMORY` was given.
    pub(crate) fn set(&mut self, vm: c_int, argument: u64) -> Result<(), Errno> {
        let bytes = caller::read_struct::<{ size_of::<mshv_user_mem_region>() }>(argument)?;
        let (range, flags) = range(Fields(&bytes))?;
        if flags >> MSHV_SET_MEM_BIT_UNMAP & 1 == 1 {
            self.unmap(vm, &range)?;
        } else {
            self.map(vm, range)?;
        }
        self.changes += 1;
        Ok(())
    }

    /// Neither the guest's pages nor the process's may be mapped twice in a
    /// partition (`mshv_partition_create_region`).
    fn map(&mut self, vm: c_int, range: Range) -> Result<(), Errno> {
        if self.ranges.iter().any(|other| other.overlaps(&range)) {
            return Err(Errno(libc::EEXIST));
        }
        let is_free = |slot: &u32| self.ranges.iter().all(|range| range.slot != *slot);
        let slot = (0..u32::from(u16::MAX)).find(is_free).ok_or(Errno(libc::ENOSPC))?;
        let range = Range { slot, ..range };
        if pins() {
            populate(&range)?;
        }
        // SAFETY: the caller of the ioctl gives this memory to the guest.
        unsafe { kvm::set_memory(vm, range.slot(self.is_tracked)) }?;
        self.ranges.push(range);
        Ok(())
    }

    fn unmap(&mut self, vm: c_int, range: &Range) -> Result<(), Errno> {
        let is_it = |other: &Range| {
            (other.first_page, other.pages, other.start)
                == (range.first_page, range.pages, range.start)
        };
        let index = self.ranges.iter().position(is_it).ok_or(Errno(libc::ENOENT))?;
        let range = self.ranges.swap_remove(index);
        let slot = kvm_userspace_memory_region { memory_size: 0, ..range.slot(false) };
        // SAFETY: it takes memory away.
        unsafe { kvm::set_memory(vm, slot) }
    }

    /// Switches tracking of writes on or off, in all ranges.
    pub(crate) fn track(&mut self, vm: c_int, is_tracked: bool) -> Result<(), Errno> {
        for range in self.ranges.iter().filter(|range| range.is_writable) {
            // SAFETY: the memory is the guest's already.
            unsafe { kvm::set_memory(vm, range.slot(is_tracked)) }?;
        }
        self.is_tracked = is_tracked;
        Ok(())
    }

    pub(crate) fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether there is any memory at an address.
    pub(crate) fn is_mapped(&self, gpa: u64) -> bool {
        self.address(gpa).is_some()
    }

    /// Where the memory at an address is in the process.
    fn address(&self, gpa: u64) -> Option<u64> {
        let page = gpa / PAGE;
        let holds = |range: &&Range| page.wrapping_sub(range.first_page) < range.pages;
        let range = self.ranges.iter().find(holds)?;
        Some(range.start + (gpa - range.first_page * PAGE))
    }

    /// Copies from guest memory, within one page.
    pub(crate) fn read(&self, gpa: u64, bytes: &mut [u8]) -> Option<()> {
        caller::read(self.address(gpa)?, bytes).ok()
    }
}

/// Checks what the driver checks.
fn range(fields: Fields<'_>) -> Result<(Range, u8), Errno> {
    let size = fields.u64(offset_of!(mshv_user_mem_region, size));
    let start = fields.u64(offset_of!(mshv_user_mem_region, userspace_addr));
    let flags = fields.u8(offset_of!(mshv_user_mem_region, flags));
    let first_page = fields.u64(offset_of!(mshv_user_mem_region, guest_pfn));
    let is_valid = size != 0
        && size.is_multiple_of(PAGE)
        && start.is_multiple_of(PAGE)
        && flags >> MSHV_SET_MEM_BIT_COUNT == 0
        && fields.is_zero(offset_of!(mshv_user_mem_region, rsvd), 7)
        && start.checked_add(size).is_some_and(|end| end < 1 << 47)
        && first_page.checked_add(size / PAGE).is_some_and(|end| end <= 1 << (GPA_BITS - 12));
    if !is_valid {
        return Err(Errno(libc::EINVAL));
    }
    let is_writable = flags >> MSHV_SET_MEM_BIT_WRITABLE & 1 == 1;
    Ok((Range { slot: 0, first_page, pages: size / PAGE, start, is_writable }, flags))
}

fn pins() -> bool {
    static PINS: OnceLock<bool> = OnceLock::new();
    *PINS.get_or_init(|| std::env::var_os("CELLULE_MSHV_SHIM_PIN").is_some())
}

fn populate(range: &Range) -> Result<(), Errno> {
    const FAULT: Errno = Errno(libc::EFAULT);
    let start = usize::try_from(range.start).map_err(|_| FAULT)?;
    let len = usize::try_from(range.pages * PAGE).map_err(|_| FAULT)?;
    let start = std::ptr::without_provenance_mut(start);
    // SAFETY: it changes nothing in the memory, and checks the address.
    let result = unsafe { libc::madvise(start, len, libc::MADV_POPULATE_WRITE) };
    if result == 0 { Ok(()) } else { Err(FAULT) }
}
