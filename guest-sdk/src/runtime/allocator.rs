//! The global allocator, over the memory that the host set aside.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use cellule_abi::page::Boot;

use super::page::native;
use super::port;
use crate::exclusive::Exclusive;
use crate::heap::Heap;

static HEAP: Exclusive<Heap> = Exclusive::new(Heap::new());

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

struct Allocator;

/// Gives the heap its memory.
pub(super) fn start(boot: &Boot) {
    let (len, there) = (native(boot.heap.len_bytes), native(boot.heap_there_bytes));
    let start = NonNull::new(ptr::with_exposed_provenance_mut(native(boot.heap.gva)));
    HEAP.with(|heap| {
        // SAFETY: the host mapped this range readable and writable for the
        // guest's allocator, for as long as the guest runs, once `extend` was
        // called for what is not there yet; `boot.heap` is used only here.
        start.map(|start| unsafe { heap.give(start, len, there, port::extend) })
    });
}

// SAFETY: `Heap` gives blocks of the layout asked for that overlap no other
// (rlsf's contract), and null if it has none; it does not unwind.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.with(|heap| heap.allocate(layout))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // SAFETY: by this trait's contract, `block` was allocated here with `layout`.
        HEAP.with(|heap| unsafe { heap.free(block, layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let layout = Layout::from_size_align(size, layout.align());
        let (Some(block), Ok(layout)) = (NonNull::new(block), layout) else {
            return ptr::null_mut();
        };
        // SAFETY: by this trait's contract, `block` was allocated here with
        // `layout`'s alignment.
        HEAP.with(|heap| unsafe { heap.resize(block, layout) })
    }
}
