//! The guest's heap: two-level segregated fit, O(1) in every operation.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use rlsf::Tlsf;

/// Levels of a power of two each. The largest block is
/// `(GRANULARITY << LEVELS) - GRANULARITY` = 32 bytes * 2^28 = 8 GiB; a larger
/// heap is taken as several.
const LEVELS: usize = 28;

/// Lists within a level. Finding a block rounds a size up by at most 1/16, and
/// all lists are `LEVELS * LISTS * 8` bytes = 3.5 KiB: a page.
const LISTS: usize = 16;

/// What is taken into use at first: two pages. So the first call of a guest
/// touches memory in one place, and not also the far end of its heap.
const FIRST_BYTES: usize = 8 * 1024;

/// A heap smaller than this is taken into use whole, so as not to be divided.
const LARGE_BYTES: usize = 4 * FIRST_BYTES;

/// Free memory, and the only code that divides it.
pub(crate) struct Heap {
    free: Tlsf<'static, u32, u16, LEVELS, LISTS>,
    /// What is taken into use next, the nearest last: what is there, and what
    /// the host must make be there.
    rest: [Option<NonNull<[u8]>>; 2],
    /// Makes the host do so.
    extend: fn(),
}

// SAFETY: the memory at `rest` is this heap's alone (`give`), whatever thread
// uses it; `extend` is a function.
unsafe impl Send for Heap {}

impl Heap {
    /// A heap without memory: every allocation fails.
    pub(crate) const fn new() -> Self {
        Self { free: Tlsf::new(), rest: [None; 2], extend: || () }
    }

    /// Gives the heap its memory, once: `len` bytes at `start`, of which `there`
    /// can be used at once and the rest after calling `extend`. Touches only the
    /// first two pages of a large heap.
    ///
    /// # Safety
    ///
    /// The bytes must be readable, writable and nobody else's for as long as
    /// this heap, or anything allocated from it, is used.
    pub(crate) unsafe fn give(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        there: usize,
        extend: fn(),
    ) {
        let there = there.min(len);
        let first = if there < LARGE_BYTES { there } else { FIRST_BYTES };
        let part = |from: usize, to: usize| {
            // SAFETY: `from` is at most `len`: one past the end at the furthest.
            let at = unsafe { start.add(from) };
            (from < to).then(|| NonNull::slice_from_raw_parts(at, to - from))
        };
        if let Some(first) = part(0, first) {
            // SAFETY: these are the caller's bytes: `Tlsf` asks for what it promises.
            unsafe { self.free.insert_free_block_ptr(first) };
        }
        self.rest = [part(there, len), part(first, there)];
        self.extend = extend;
    }

    /// Takes more memory into use; `false` if all is.
    fn grow(&mut self) -> bool {
        let next = self.rest[1].take().or_else(|| {
            let late = self.rest[0].take();
            late.inspect(|_| (self.extend)())
        });
        // SAFETY: these bytes are this heap's (`give`), there, and not yet in use.
        next.map(|next| unsafe { self.free.insert_free_block_ptr(next) }).is_some()
    }

    /// Allocates; null if there is no block that large.
    pub(crate) fn allocate(&mut self, layout: Layout) -> *mut u8 {
        loop {
            if let Some(block) = self.free.allocate(layout) {
                return block.as_ptr();
            }
            if !self.grow() {
                return ptr::null_mut();
            }
        }
    }

    /// Frees.
    ///
    /// # Safety
    ///
    /// `block` must come from this heap with the alignment `align`, and not have
    /// been freed.
    pub(crate) unsafe fn free(&mut self, block: NonNull<u8>, align: usize) {
        // SAFETY: the caller's promise is what `Tlsf` asks for.
        unsafe { self.free.deallocate(block, align) };
    }

    /// Changes a block's size, moving it if need be; null, and no change, if
    /// there is no block that large.
    ///
    /// # Safety
    ///
    /// As for [`Heap::free`], with `layout`'s alignment.
    pub(crate) unsafe fn resize(&mut self, block: NonNull<u8>, layout: Layout) -> *mut u8 {
        loop {
            // SAFETY: the caller's promise is what `Tlsf` asks for; a failed
            // attempt changes nothing.
            if let Some(resized) = unsafe { self.free.reallocate(block, layout) } {
                return resized.as_ptr();
            }
            if !self.grow() {
                return ptr::null_mut();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn heap(len: usize) -> Heap {
        let memory = Box::leak(vec![0u8; len].into_boxed_slice());
        let mut heap = Heap::new();
        // SAFETY: leaked, so nobody else's for ever.
        unsafe { heap.give(NonNull::from(&mut *memory).cast(), len, len, || ()) };
        heap
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    fn free(heap: &mut Heap, block: *mut u8, align: usize) {
        // SAFETY: the tests pass each block that `allocate` gave once, with its alignment.
        unsafe { heap.free(NonNull::new(block).unwrap(), align) };
    }

    #[test]
    fn blocks_are_aligned_and_do_not_overlap() {
        let mut heap = heap(64 * 1024);
        let mut blocks: Vec<(usize, usize)> = Vec::new();
        for n in 0..100 {
            let (size, align) = (1 + n * 3, 1 << (n % 8));
            let block = heap.allocate(layout(size, align));
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            blocks.push((block.addr(), block.addr() + size));
        }
        blocks.sort_unstable();
        assert!(blocks.is_sorted_by(|a, b| a.1 <= b.0));
    }

    #[test]
    fn an_exhausted_heap_gives_null_and_recovers() {
        let mut heap = heap(16 * 1024);
        let mut blocks = Vec::new();
        loop {
            let block = heap.allocate(layout(1000, 8));
            if block.is_null() {
                break;
            }
            blocks.push(block);
        }
        assert!(blocks.len() >= 14, "{} blocks", blocks.len());
        assert!(heap.allocate(layout(1 << 40, 8)).is_null());
        blocks.into_iter().for_each(|block| free(&mut heap, block, 8));
        let all = heap.allocate(layout(15 * 1024, 8));
        assert!(!all.is_null(), "freed neighbours should be one block again");
    }

    #[test]
    fn a_block_that_grows_keeps_its_bytes() {
        let mut heap = heap(64 * 1024);
        let block = heap.allocate(layout(100, 16));
        let wall = heap.allocate(layout(100, 16));
        // SAFETY: `block` has 100 bytes.
        unsafe { block.write_bytes(7, 100) };
        // SAFETY: `block` is this heap's and is used no more.
        let grown = unsafe { heap.resize(NonNull::new(block).unwrap(), layout(10_000, 16)) };
        assert!(!grown.is_null() && grown != wall);
        // SAFETY: `grown` has 10,000 bytes, of which the first 100 were copied.
        let kept = unsafe { core::slice::from_raw_parts(grown, 100) };
        assert_eq!(kept, [7; 100]);
        // SAFETY: as above.
        let refused = unsafe { heap.resize(NonNull::new(grown).unwrap(), layout(1 << 30, 16)) };
        assert!(refused.is_null());
        free(&mut heap, grown, 16);
        free(&mut heap, wall, 16);
    }

    #[test]
    fn a_few_small_blocks_leave_the_rest_untouched() {
        let mut heap = heap(1 << 20);
        assert!(!heap.allocate(layout(4000, 8)).is_null());
        assert!(heap.rest[1].is_some());
        assert!(!heap.allocate(layout(8000, 8)).is_null());
        assert!(heap.rest[1].is_none());
    }

    #[test]
    fn what_is_not_there_is_asked_for_before_it_is_touched() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let memory = Box::leak(vec![0u8; 1 << 20].into_boxed_slice());
        let start = NonNull::from(&mut *memory).cast();
        let mut heap = Heap::new();
        let ask = || _ = ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: leaked, so nobody else's for ever.
        unsafe { heap.give(start, 1 << 20, 64 << 10, ask) };
        assert!(!heap.allocate(layout(50_000, 8)).is_null());
        assert_eq!(ASKED.load(Ordering::Relaxed), 0);
        assert!(!heap.allocate(layout(500_000, 8)).is_null());
        assert!(heap.allocate(layout(1 << 20, 8)).is_null());
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn small_blocks_fill_all_of_a_heap() {
        let mut heap = heap(4 << 20);
        let blocks = std::iter::repeat_with(|| heap.allocate(layout(1000, 8)));
        let count = blocks.take_while(|block| !block.is_null()).count();
        assert!(count * 1032 > 4_000_000, "{count} blocks of 1000 bytes fit into 4 MiB");
    }

    #[test]
    fn a_heap_without_memory_gives_null() {
        assert!(Heap::new().allocate(layout(1, 1)).is_null());
        assert!(heap(40).allocate(layout(1, 1)).is_null(), "too small to be divided");
    }

    #[test]
    fn a_heap_of_256_mib_gives_most_of_itself_at_once() {
        // Zeroed memory is not there until touched: so this tests, too, that
        // `give` does not touch it all, or it would take very long.
        let mut heap = heap(256 << 20);
        assert!(!heap.allocate(layout(240 << 20, 4096)).is_null());
    }
}
