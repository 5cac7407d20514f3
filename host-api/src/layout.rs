//! Where everything lies in a guest's address space.
//!
//! ```text
//!  0                  null pages, unmapped
//!  from the ELF       text R-X, rodata R--, data RW-
//!  guard
//!  supervisor pages   the backend's, out of ring 3's reach
//!  guard
//!  stack              RW-
//!  channel page       RW-
//!  heap               RW-   zero until touched
//!  guard
//!  replies            RW-   written by the host for each host call
//!  guard
//!  arguments          RW-   written by the host for calls with long arguments
//!  task stacks        RW-   of up to three sizes, a guard below each
//! ```
//!
//! What every call touches is a *window* of eight aligned pages: the upper page
//! of the stack, the channel page, the first pages of the heap. KVM's
//! software page tables are filled by such windows at one fault, up to the first
//! page that is not there; hardware page walks need one cache line for it. So
//! these three touch: a guest that overruns one of them damages its own.

use std::sync::Arc;

use cellule_abi::clock::Clock;
use cellule_abi::page::{Boot, MAGIC, RING_ENTRIES, Range, STACK_CLASSES};
use cellule_abi::tasks::Stacks;
use cellule_abi::{ABI_VERSION, PAGE_BYTES};
use cellule_hv::space::{SUPERVISOR_PAGES, SpaceError};
use cellule_hv::{AddressSpace, Backing, GuestSlice, Gva, Mapping, Protection, Start};
use cellule_image::{Protection as Segment, Segment as ImageSegment};

use crate::stacks::{Class, Classes};

const PAGE: u64 = PAGE_BYTES as u64;
const GUARD: u64 = PAGE;
/// Eight pages: what KVM fills of a page table at one fault, and what one cache
/// line of it describes.
const WINDOW: u64 = 8 * PAGE;
/// How much of the stack's end is in the window.
const STACK_IN_WINDOW: u64 = PAGE;
/// How much of the heap's start the SDK takes into use at first.
const HEAP_AT_FIRST: u64 = 2 * PAGE;
/// How much of the heap is there from the start. The rest is mapped when the
/// guest asks, so that a large heap does not make creation dearer: KVM keeps ten
/// bytes for each page of a slot, zeroed when the slot is made.
const HEAP_EARLY: u64 = 64 << 10;
/// The most of the image's writable data that is made to be there beforehand.
const DATA_POPULATED: u64 = 16 * PAGE;
const _: () = assert!(STACK_IN_WINDOW + PAGE + HEAP_AT_FIRST <= WINDOW);

/// The name of the image's writable segments.
const DATA: &str = "data";

/// What an embedder chooses; each in whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sizes {
    pub(crate) heap: u64,
    pub(crate) stack: u64,
    pub(crate) message: u64,
    pub(crate) task_stacks: Classes,
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
    task_stacks: [Stacks; STACK_CLASSES],
    /// How much of the private memory is there from the start.
    pub(crate) early_len: u64,
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
        plan.align_stack(sizes.stack);
        let stack = plan.private("stack", sizes.stack);
        let page = plan.adjacent("channel page", PAGE);
        // Addresses are handed out in this order, and memory in another: what is
        // late, most of the heap, the long arguments and the task stacks, comes last.
        let heap_gva = plan.next;
        plan.next += sizes.heap;
        let replies = plan.private("replies", sizes.message);
        let early_len = plan.private + sizes.heap.min(HEAP_EARLY);
        let heap = plan.at(heap_gva, "heap", sizes.heap);
        let args = plan.private("arguments", sizes.message);
        let task_stacks = sizes.task_stacks.map(|class| plan.stacks(class));
        let start = Start {
            entry: Gva(program.entry()),
            stack: Gva(stack.gva + stack.len_bytes),
            argument: Gva(page.gva),
        };
        let space = Arc::new(AddressSpace::new(plan.mappings, supervisor)?);
        Ok(Self {
            space,
            start,
            page: Gva(page.gva),
            args,
            replies,
            heap,
            stack,
            task_stacks,
            early_len,
        })
    }

    /// What the first call is going to touch, to be there beforehand.
    pub(crate) fn hot(&self) -> impl Iterator<Item = GuestSlice> {
        let data = self.space.mappings().iter().filter(|mapping| mapping.name == DATA);
        let data = data.map(|m| GuestSlice { gva: m.gva, len: m.len.min(DATA_POPULATED) });
        let stack = Gva(self.stack.gva + self.stack.len_bytes - STACK_IN_WINDOW);
        data.chain([
            GuestSlice { gva: stack, len: STACK_IN_WINDOW },
            GuestSlice { gva: Gva(self.heap.gva), len: HEAP_AT_FIRST },
        ])
    }

    /// What the guest is told of its memory at its start; the rest is zero.
    pub(crate) fn boot(&self, clock: Clock) -> Boot {
        Boot {
            magic: MAGIC,
            abi_version: ABI_VERSION,
            ring_entries: RING_ENTRIES,
            args: self.args,
            replies: self.replies,
            heap: self.heap,
            stack: self.stack,
            heap_there_bytes: self.heap.len_bytes.min(HEAP_EARLY),
            clock,
            stacks: self.task_stacks,
            vector_state: 0,
            task_faults: 0,
            trace_entries: 0,
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
            Segment::ReadWrite => (DATA, Protection::ReadWrite),
        };
        let len = segment.mem_bytes();
        let backing = shared.map_or(Backing::Private(self.private), Backing::Shared);
        if shared.is_none() {
            self.private += len;
        }
        self.mappings.push(Mapping { name, gva: Gva(segment.gva()), len, protection, backing });
    }

    /// Moves up so that a stack of `len` bytes ends one page into a window.
    fn align_stack(&mut self, len: u64) {
        let end = self.next + GUARD + len;
        let wanted = (end - STACK_IN_WINDOW).next_multiple_of(WINDOW) + STACK_IN_WINDOW;
        self.next += wanted - end;
    }

    /// Private memory behind a guard page.
    fn private(&mut self, name: &'static str, len: u64) -> Range {
        self.next += GUARD;
        self.adjacent(name, len)
    }

    /// Task stacks of one size, each behind a guard page.
    fn stacks(&mut self, Class { bytes, count }: Class) -> Stacks {
        let gva = if count > 0 { self.next + GUARD } else { 0 };
        for _ in 0..count {
            self.private("task stack", bytes);
        }
        Stacks { gva, stack_bytes: bytes, count: u64::from(count) }
    }

    /// Private memory behind what was placed last.
    fn adjacent(&mut self, name: &'static str, len: u64) -> Range {
        let gva = self.next;
        self.next += len;
        self.at(gva, name, len)
    }

    /// Private memory at an address.
    fn at(&mut self, gva: u64, name: &'static str, len: u64) -> Range {
        let backing = Backing::Private(self.private);
        let protection = Protection::ReadWrite;
        self.mappings.push(Mapping { name, gva: Gva(gva), len, protection, backing });
        self.private += len;
        Range { gva, len_bytes: len }
    }
}
