//! Which guest physical pages there are, and what a guest may do with each.
//!
//! The hypervisor maps exact ranges, with a permission to write and one to
//! execute; every page is readable. They are a second opinion: the guest's own
//! page tables forbid the same.
//!
//! ```text
//!  descriptors   R--     private: exception stack   RW-
//!  stubs         R-X              early memory      RW-
//!  shared text   R-X              late memory       RW-  (once extended)
//!  shared data   R--
//!  page tables   RW-
//! ```
//!
//! Page tables are writable in this second level, and nowhere else. A processor
//! that reads them counts as a writer there, as it may have to set accessed and
//! dirty bits: always with AMD's nested paging (AMD64 manual, volume 2, section
//! 15.25.5), and with Intel's if the hypervisor uses such bits itself (SDM
//! volume 3, section 30.3.3.2). It writes nothing, as all of them are set. No
//! ring-3 address leads to them, and ring 0 is an `out` and a `hlt`.

use std::iter;
use std::ops::Range;

use cellule_hv::space::PAGE_BYTES;
use cellule_hv::x86::{CONTROL_GPA, Control, PRIVATE_GPA};
use cellule_hv::{AddressSpace, Backing, Protection};
use cellule_mem::{HostPtr, Region};
use mshv_bindings::{MSHV_SET_MEM_BIT_EXECUTABLE, MSHV_SET_MEM_BIT_WRITABLE, mshv_user_mem_region};

/// Pages next to each other that a guest may use alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where they are in their region, in bytes.
    pub(crate) range: Range<usize>,
    /// What a guest may do with them besides reading.
    pub(crate) may: May,
}

/// What a guest may do with pages besides reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// Nothing.
    Read,
    /// Execute.
    Execute,
    /// Write.
    Write,
}

const PAGE: usize = cellule_mem::PAGE_BYTES;

/// The pieces of what partitions share: descriptors, shared pages, page tables,
/// in this order and without gaps, from [`CONTROL_GPA`] on.
pub(crate) fn fixed(space: &AddressSpace, control: &Control, shared_len: usize) -> Vec<Piece> {
    let shared_start = control.descriptors.len();
    let tables_start = shared_start.saturating_add(shared_len);
    let end = tables_start.saturating_add(control.page_tables.len());
    // The stubs are as far behind the first descriptor as in guest addresses.
    let stubs = offset(control.stubs.start.0.wrapping_sub(space.supervisor().0));
    let text = space.mappings().iter().filter_map(|mapping| match mapping.backing {
        Backing::Shared(at) if mapping.protection == Protection::ReadExecute => {
            let start = shared_start.saturating_add(offset(at));
            Some(start..start.saturating_add(offset(mapping.len)))
        }
        Backing::Shared(_) | Backing::Private(_) => None,
    });
    let executable: Vec<_> = text.chain(iter::once(stubs..stubs.saturating_add(PAGE))).collect();
    let mut pieces: Vec<Piece> = Vec::new();
    for page in (0..end).step_by(PAGE) {
        let may = if page >= tables_start {
            May::Write
        } else if executable.iter().any(|range| range.contains(&page)) {
            May::Execute
        } else {
            May::Read
        };
        match pieces.last_mut() {
            Some(piece) if piece.may == may => piece.range.end = page + PAGE,
            _ => pieces.push(Piece { range: page..page + PAGE, may }),
        }
    }
    pieces
}

/// A number that is no offset is one beyond every region.
fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What the hypervisor is told of a piece of what partitions share, or of private
/// memory; `None` if it is not whole pages of the region.
pub(crate) fn request(home: Home, region: &Region, piece: &Piece) -> Option<mshv_user_mem_region> {
    let Range { start, end } = piece.range;
    let pages = start < end && start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE);
    if !pages || end > region.len() {
        return None;
    }
    let HostPtr(host) = region.host_ptr();
    Some(mshv_user_mem_region {
        size: (end - start) as u64,
        guest_pfn: home.page() + (start / PAGE) as u64,
        userspace_addr: host + start as u64,
        flags: flags(piece.may),
        rsvd: [0; 7],
    })
}

/// Where a region begins in guest physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// What partitions share.
    Fixed,
    /// Private memory.
    Private,
}

impl Home {
    /// The number of its first page.
    pub(crate) const fn page(self) -> u64 {
        match self {
            Self::Fixed => CONTROL_GPA / PAGE_BYTES,
            Self::Private => PRIVATE_GPA / PAGE_BYTES,
        }
    }
}

const fn flags(may: May) -> u8 {
    match may {
        May::Read => 0,
        May::Execute => 1 << MSHV_SET_MEM_BIT_EXECUTABLE,
        May::Write => 1 << MSHV_SET_MEM_BIT_WRITABLE,
    }
}

#[cfg(test)]
mod tests {
    use cellule_hv::x86::SHARED_GPA;
    use cellule_hv::{Gva, Mapping};

    use super::*;

    fn mapping(gva: u64, pages: u64, protection: Protection, backing: Backing) -> Mapping {
        Mapping { name: "test", gva: Gva(gva), len: pages * PAGE_BYTES, protection, backing }
    }

    /// Shared: a page of data, two of text, one of data.
    fn pieces() -> (Vec<Piece>, usize) {
        use Backing::{Private, Shared};
        use Protection::{Read, ReadExecute, ReadWrite};
        let mappings = vec![
            mapping(0x40_0000, 1, Read, Shared(0)),
            mapping(0x40_2000, 2, ReadExecute, Shared(PAGE_BYTES)),
            mapping(0x40_5000, 1, Read, Shared(3 * PAGE_BYTES)),
            mapping(0x40_7000, 2, ReadWrite, Private(0)),
        ];
        let space = AddressSpace::new(mappings, Gva(0x41_0000)).unwrap();
        let control = Control::build(&space, PAGE_BYTES, SHARED_GPA + 4 * PAGE_BYTES);
        (fixed(&space, &control, 4 * PAGE), control.page_tables.len() / PAGE)
    }

    #[test]
    fn only_stubs_and_text_are_executable_and_only_tables_writable() {
        let (pieces, tables) = pieces();
        let due = [
            (0..1, May::Read),    // descriptors
            (1..2, May::Execute), // stubs
            (2..3, May::Read),    // shared
            (3..5, May::Execute), // text
            (5..6, May::Read),    // shared
            (6..6 + tables, May::Write),
        ];
        let due: Vec<_> = due
            .into_iter()
            .map(|(Range { start, end }, may)| Piece { range: start * PAGE..end * PAGE, may })
            .collect();
        assert_eq!(pieces, due);
    }

    #[test]
    fn a_request_is_exact() {
        let region = Region::demand_zero(4 * PAGE).unwrap();
        let HostPtr(host) = region.host_ptr();
        let piece = Piece { range: PAGE..3 * PAGE, may: May::Write };
        let request_for = |home| request(home, &region, &piece).unwrap();
        assert_eq!(request_for(Home::Fixed).guest_pfn, 1);
        let private = request_for(Home::Private);
        assert_eq!(private.guest_pfn, PRIVATE_GPA / 4096 + 1);
        assert_eq!((private.size, private.userspace_addr), (2 * 4096, host + 4096));
        assert_eq!(private.rsvd, [0; 7]);
    }

    #[test]
    fn nothing_is_writable_and_executable() {
        // MSHV_SET_MEM_BIT_WRITABLE is bit 0, MSHV_SET_MEM_BIT_EXECUTABLE bit 1.
        assert_eq!([May::Read, May::Write, May::Execute].map(flags), [0, 1, 2]);
    }

    #[test]
    fn no_page_beyond_the_region_is_asked_for() {
        let region = Region::demand_zero(2 * PAGE).unwrap();
        #[allow(clippy::reversed_empty_ranges, reason = "what must be refused")]
        let bad = [0..0, 0..3 * PAGE, 1..PAGE, 0..PAGE + 1, 2 * PAGE..PAGE, 0..usize::MAX];
        for range in bad {
            let piece = Piece { range: range.clone(), may: May::Read };
            assert!(request(Home::Private, &region, &piece).is_none(), "{range:?}");
        }
    }
}
