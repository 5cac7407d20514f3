//! Stacks for tasks: pieces of a few fixed sizes, with a guard page below each.

use alloc::vec::Vec;
use core::ptr;

/// The stack of one task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    /// The lowest byte.
    pub(crate) start: *mut u8,
    pub(crate) bytes: usize,
    /// Which class it came from; the program's first stack came from none.
    class: Option<usize>,
}

// SAFETY: an address and a length; who may use the memory is the kernel's matter.
unsafe impl Send for Stack {}

/// There is no stack for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StackError {
    /// No class has stacks that large; the largest has this many bytes.
    TooLarge { largest: usize },
    /// All that are large enough are in use.
    NoneLeft,
}

/// How many sizes there are.
const CLASSES: usize = cellule_abi::page::STACK_CLASSES;
/// A stretch of zeros this long ends what a task used of its stack.
const UNUSED_BYTES: usize = 512;

/// All stacks of a guest.
#[derive(Debug)]
pub(crate) struct Stacks {
    classes: [Class; CLASSES],
}

#[derive(Debug)]
struct Class {
    /// The lowest byte of the first stack, and how far the next is.
    start: *mut u8,
    stride: usize,
    bytes: usize,
    count: usize,
    /// Stacks from this one on were never used.
    fresh: usize,
    free: Vec<usize>,
}

// SAFETY: as for `Stack`.
unsafe impl Send for Stacks {}

impl Class {
    const NONE: Self =
        Self { start: ptr::null_mut(), stride: 0, bytes: 0, count: 0, fresh: 0, free: Vec::new() };

    /// The number of a stack that is free now, and whether it was used before.
    fn take(&mut self) -> Option<(usize, bool)> {
        if let Some(used) = self.free.pop() {
            return Some((used, true));
        }
        if self.fresh == self.count {
            return None;
        }
        // Room to give it back is made now: giving back must not allocate.
        let missing = (self.fresh + 1).saturating_sub(self.free.len());
        self.free.try_reserve(missing).ok()?;
        self.fresh += 1;
        Some((self.fresh - 1, false))
    }
}

impl Stacks {
    pub(crate) const fn new() -> Self {
        Self { classes: [Class::NONE; CLASSES] }
    }

    /// Sets aside `count` stacks of `bytes` each, the first at `start` and each
    /// `stride` bytes from the one before. Classes are added smallest first.
    ///
    /// # Safety
    ///
    /// The stacks must be readable, writable (when first taken) and nobody
    /// else's for ever; `start`, `stride` and `bytes` multiples of 16.
    pub(crate) unsafe fn add(&mut self, start: *mut u8, stride: usize, bytes: usize, count: usize) {
        if let Some(class) = self.classes.iter_mut().find(|class| class.count == 0) {
            *class = Class { start, stride, bytes, count, fresh: 0, free: Vec::new() };
        }
    }

    /// The largest stack that there is, in bytes.
    pub(crate) fn largest(&self) -> usize {
        self.classes.iter().map(|class| class.bytes).max().unwrap_or(0)
    }

    /// Takes the smallest free stack of at least `bytes`.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Stack, StackError> {
        let largest = self.largest();
        if bytes > largest {
            return Err(StackError::TooLarge { largest });
        }
        let classes = self.classes.iter_mut().enumerate();
        for (number, class) in classes.filter(|(_, class)| class.bytes >= bytes) {
            if let Some((index, used)) = class.take() {
                let start = class.start.wrapping_add(index * class.stride);
                let stack = Stack { start, bytes: class.bytes, class: Some(number) };
                if used {
                    // SAFETY: this stack was given back (`give`): nobody uses it.
                    unsafe { stack.clear() };
                }
                return Ok(stack);
            }
        }
        Err(StackError::NoneLeft)
    }

    /// Takes a stack back.
    pub(crate) fn give(&mut self, stack: Stack) {
        let class = stack.class.and_then(|number| self.classes.get_mut(number));
        if let Some(class) = class {
            let index = stack.start.addr().wrapping_sub(class.start.addr()) / class.stride;
            // `take` made room.
            class.free.push(index);
        }
    }
}

impl Stack {
    /// The stack that the program began on.
    pub(crate) const fn first(start: *mut u8, bytes: usize) -> Self {
        Self { start, bytes, class: None }
    }

    /// Where it begins: pushes go downwards from here.
    pub(crate) fn top(&self) -> *mut u8 {
        self.start.wrapping_add(self.bytes)
    }

    /// How many bytes at the top were ever written to by tasks, found by looking
    /// for the first that is not zero. Reads every page below.
    pub(crate) fn deepest_use(&self) -> usize {
        let mut unused = 0;
        while unused < self.bytes {
            let byte = self.start.wrapping_add(unused);
            // SAFETY: within the stack, which is mapped; a task that runs meanwhile
            // cannot exist, as there is one processor, and its bytes are only read.
            if unsafe { byte.read_volatile() } != 0 {
                break;
            }
            unused += 1;
        }
        self.bytes - unused
    }

    /// Zeroes what its last user wrote: from the top down to the first stretch
    /// that is zero.
    ///
    /// # Safety
    ///
    /// Nobody may be using the stack.
    unsafe fn clear(&self) {
        let mut at = self.bytes;
        while at >= UNUSED_BYTES {
            at -= UNUSED_BYTES;
            let stretch = self.start.wrapping_add(at).cast::<[u64; UNUSED_BYTES / 8]>();
            // SAFETY: within the stack, which nobody uses, and aligned.
            let stretch = unsafe { &mut *stretch };
            if stretch.iter().all(|word| *word == 0) {
                return;
            }
            stretch.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec;

    use super::*;

    /// Two classes: four stacks of 4 KiB, one of 8 KiB.
    fn stacks() -> Stacks {
        let mut stacks = Stacks::new();
        for (bytes, count) in [(4096, 4), (8192, 1)] {
            let memory = Box::leak(vec![0_u64; bytes * count / 8].into_boxed_slice());
            // SAFETY: leaked, and aligned well enough for these tests.
            unsafe { stacks.add(memory.as_mut_ptr().cast(), bytes, bytes, count) };
        }
        stacks
    }

    #[test]
    fn a_stack_is_the_smallest_that_is_large_enough_and_free() {
        let mut stacks = stacks();
        let small: Vec<_> = (0..4).map(|_| stacks.take(100).unwrap()).collect();
        assert!(small.iter().all(|stack| stack.bytes == 4096));
        assert_eq!(stacks.take(4096).unwrap().bytes, 8192, "the small ones are in use");
        assert_eq!(stacks.take(1).unwrap_err(), StackError::NoneLeft);
        assert_eq!(stacks.take(8193).unwrap_err(), StackError::TooLarge { largest: 8192 });
        stacks.give(small[2]);
        assert_eq!(stacks.take(1).unwrap().start, small[2].start);
    }

    #[test]
    fn a_stack_that_is_used_again_shows_only_what_its_new_user_wrote() {
        let mut stacks = stacks();
        let stack = stacks.take(4096).unwrap();
        assert_eq!(stack.deepest_use(), 0);
        let used = stack.top().wrapping_sub(1000);
        // SAFETY: within the stack, which is this test's.
        unsafe { used.write_bytes(1, 1000) };
        assert_eq!(stack.deepest_use(), 1000);
        stacks.give(stack);
        assert_eq!(stacks.take(4096).unwrap().deepest_use(), 0);
    }
}
