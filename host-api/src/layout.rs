//! Where everything lies in a guest's address space.
//!
//! ```text
//!  0                  null pages, unmapped
//!  from the ELF       text R-X, rodata R--, data RW-
//!  guard
//!  supervisor pages   the backend's, out of ring 3's reach
//!  guard
//!  stack              RW-
//!  guard
//!  channel page       RW-
//!  guard
//!  arguments          RW-   written by the host for each call
//!  guard
//!  replies            RW-   written by the host for each host call
//!  guard
//!  heap               RW-   zero until touched
//! ```
//!
//! What a call touches lies close together, so that it needs few page tables.

use std::sync::Arc;

use cellule_abi::page::{Boot, MAGIC, RING_ENTRIES, Range};
use cellule_abi::{ABI_VERSION, PAGE_BYTES};
use cellule_hv::space::{SUPERVISOR_PAGES, SpaceError};
use cellule_hv::{AddressSpace, Backing, Gva, Mapping, Protection, Start};
use cellule_image::{Protection as Segment, Segment as ImageSegment};

const PAGE: u64 = PAGE_BYTES as u64;
const GUARD: u64 = PAGE;

/// What an embedder chooses; each in whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sizes {
    pub(crate) heap: u64,
    pub(crate) stack: u64,
    pub(crate) message: u64,
}

/// The image's read-only segments, one behind the other.
#[derive(Debug)]
pub(crate) struct Shared {
    /// For each segment of the image: its offset, if it is shared.
    offsets: Vec<Option<u64>>,
    len: u64,
}

impl Shared {
    pub(crate) fn of(program: &cellule_image::Image) -> Self {
        let mut len = 0;
        let place = |segment: &ImageSegment| match segment.protection() {
            Segment::ReadWrite => None,
            Segment::Read | Segment::ReadExecute => {
                let offset = len;
                len += segment.mem_bytes();
                Some(offset)
            }
        };
        let offsets = program.segments().iter().map(place).collect();
        Self { offsets, len }
    }

    /// The bytes of all shared segments.
    pub(crate) fn bytes(&self, program: &cellule_image::Image) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        for (segment, offset) in program.segments().iter().zip(&self.offsets) {
            let Some(offset) = offset.and_then(|offset| usize::try_from(offset).ok()) else {
                continue;
            };
            bytes.resize(offset, 0);
            bytes.extend_from_slice(segment.bytes());
        }
        bytes.resize(usize::try_from(self.len).unwrap_or(0), 0);
        bytes
    }
}

/// An address space, and the places in it that the host uses.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) start: Start,
    pub(crate) page: Gva,
    pub(crate) args: Range,
    pub(crate) replies: Range,
    heap: Range,
    stack: Range,
}

impl Layout {
    pub(crate) fn new(
        program: &cellule_image::Image,
        shared: &Shared,
        sizes: Sizes,
    ) -> Result<Self, SpaceError> {
        let mut plan = Planner { mappings: Vec::new(), private: 0, next: program.span().1 };
        for (segment, offset) in program.segments().iter().zip(&shared.offsets) {
            plan.segment(segment, *offset);
        }
        plan.next += GUARD;
        let supervisor = Gva(plan.next);
        plan.next += SUPERVISOR_PAGES * PAGE;
        let stack = plan.private("stack", sizes.stack);
        let page = plan.private("channel page", PAGE);
        let args = plan.private("arguments", sizes.message);
        let replies = plan.private("replies", sizes.message);
        let heap = plan.private("heap", sizes.heap);
        let start = Start {
            entry: Gva(program.entry()),
            stack: Gva(stack.gva + stack.len_bytes),
            argument: Gva(page.gva),
        };
        let space = Arc::new(AddressSpace::new(plan.mappings, supervisor)?);
        Ok(Self { space, start, page: Gva(page.gva), args, replies, heap, stack })
    }

    /// What the guest is told at its start.
    pub(crate) fn boot(&self) -> Boot {
        Boot {
            magic: MAGIC,
            abi_version: ABI_VERSION,
            ring_entries: RING_ENTRIES,
            args: self.args,
            replies: self.replies,
            heap: self.heap,
            stack: self.stack,
            reserved: [0; 22],
        }
    }
}

/// Hands out addresses and private memory, upwards.
struct Planner {
    mappings: Vec<Mapping>,
    private: u64,
    next: u64,
}

impl Planner {
    fn segment(&mut self, segment: &ImageSegment, shared: Option<u64>) {
        let (name, protection) = match segment.protection() {
            Segment::Read => ("rodata", Protection::Read),
            Segment::ReadExecute => ("text", Protection::ReadExecute),
            Segment::ReadWrite => ("data", Protection::ReadWrite),
        };
        let len = segment.mem_bytes();
        let backing = shared.map_or(Backing::Private(self.private), Backing::Shared);
        if shared.is_none() {
            self.private += len;
        }
        self.mappings.push(Mapping { name, gva: Gva(segment.gva()), len, protection, backing });
    }

    /// Private memory behind a guard page.
    fn private(&mut self, name: &'static str, len: u64) -> Range {
        let gva = self.next + GUARD;
        let backing = Backing::Private(self.private);
        let protection = Protection::ReadWrite;
        self.mappings.push(Mapping { name, gva: Gva(gva), len, protection, backing });
        self.private += len;
        self.next = gva + len;
        Range { gva, len_bytes: len }
    }
}
