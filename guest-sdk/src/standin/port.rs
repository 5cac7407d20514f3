//! What the kernel needs of its surroundings, in an ordinary program: where
//! guest code is tested.
//!
//! Tasks are real: they have stacks of their own and switch as in a guest. Time
//! is virtual, so that a test of an hour's timeouts takes no time, and nothing
//! preempts a task but what it does itself: there are no upcalls, but where a
//! test plays the host (`kernel::steps`). There is one kernel in a process;
//! threads take turns, each from its first use of a task or primitive to its
//! end.

use alloc::string::String;
use alloc::sync::Arc;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::thread_local;

use cellule_rtos::End;

use crate::kernel::block::BLOCK;
use crate::kernel::{Core, Info, Section, Stack, Stacks, upcall};
use crate::random::SEED_WORDS;
use crate::task::CALL_PRIORITY;

#[cfg(test)]
pub(crate) use crate::kernel::steps::{take_completions, unmask};
#[cfg(not(test))]
pub(crate) use crate::kernel::upcall::unmask;
pub(crate) use crate::kernel::upcall::{clear_pending, set_pending};

/// The stacks of tasks: large, for unoptimised code and the messages of panics.
/// Untouched memory costs nothing.
const STACK_BYTES: usize = 1 << 20;
const STACKS: usize = 1024;

/// Whether a thread has the kernel.
static OWNED: Mutex<bool> = Mutex::new(false);
static FREED: Condvar = Condvar::new();

// The owner's alone.
static NOW_NS: AtomicU64 = AtomicU64::new(0);
static HAS_STACKS: AtomicBool = AtomicBool::new(false);

thread_local! {
    static MINE: Owner = const { Owner(Cell::new(false)) };
}

/// Makes the kernel a thread's, until the thread ends.
struct Owner(Cell<bool>);

impl Owner {
    fn take(&self) {
        let owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owned =
            FREED.wait_while(owned, |owned| *owned).unwrap_or_else(PoisonError::into_inner);
        *owned = true;
        self.0.set(true);
        upcall::mask();
        let mut section = Section::within_mask();
        // The kernel's time goes on from thread to thread.
        NOW_NS.store(section.now(), Ordering::Relaxed);
        // Nothing is ever run on it anew: the thread has its own.
        let stack = Stack::first(core::ptr::null_mut(), 0);
        section.adopt(CALL_PRIORITY, Arc::new(Info::new(String::from("main"))), stack);
        drop(section);
        upcall::unmask();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.0.get() {
            let mut section = Section::after_fault();
            let tasks: alloc::vec::Vec<_> = section.tasks().map(|task| task.id).collect();
            for task in tasks {
                core::mem::forget(section.end(task, End::Killed));
            }
            drop(section);
            *OWNED.lock().unwrap_or_else(PoisonError::into_inner) = false;
            FREED.notify_one();
        }
    }
}

/// Masks upcalls; whether they were. The first to do so takes the kernel.
pub(crate) fn mask() -> bool {
    take_kernel();
    upcall::mask()
}

/// Makes the kernel this thread's, if it is not.
fn take_kernel() {
    // At a thread's end, its other values may still come here: it has the kernel.
    let _ = MINE.try_with(|owner| {
        if !owner.0.get() {
            owner.take();
        }
    });
}

/// Virtual nanoseconds since the process first used the kernel.
pub(crate) fn now() -> u64 {
    take_kernel();
    NOW_NS.load(Ordering::Relaxed)
}

/// Virtual time starts in 1970.
pub(crate) const fn wall_offset() -> u64 {
    0
}

pub(crate) const fn is_virtual() -> bool {
    true
}

/// Moves virtual time to the kernel's.
pub(crate) fn set_virtual(now_ns: u64) {
    NOW_NS.store(now_ns, Ordering::Relaxed);
}

/// Never copied, but where a test says so.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// The seed: the system's, or zeros if it gives none.
static SEED: LazyLock<[AtomicU64; SEED_WORDS]> = LazyLock::new(|| {
    let mut seed = [[0; 8]; SEED_WORDS];
    let read = |mut file: File| file.read_exact(seed.as_flattened_mut());
    match File::open("/dev/urandom").and_then(read) {
        Ok(()) => seed.map(|word| AtomicU64::new(u64::from_le_bytes(word))),
        Err(_) => Default::default(),
    }
});

/// Which copy of its first self this guest is.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::SeqCst)
}

/// The seed, where a host would put it.
pub(crate) fn seed() -> [&'static AtomicU64; SEED_WORDS] {
    SEED.each_ref()
}

/// Does what a host does when it has made a copy.
#[cfg(test)]
pub(crate) fn become_copy(generation: u64, seed: [u64; SEED_WORDS]) {
    GENERATION.store(generation, Ordering::SeqCst);
    SEED.iter().zip(seed).for_each(|(word, value)| word.store(value, Ordering::SeqCst));
}

/// Nobody is to be told.
pub(crate) const fn announce(_: &mut Core, _: u64) {}

pub(crate) const fn is_announced(_: u64) -> bool {
    true
}

/// Goes to the next deadline.
#[expect(clippy::panic, reason = "a deadlock of the code under test")]
pub(crate) fn idle(core: &mut Core) {
    match core.next_deadline() {
        Some(next) => core.advance(next),
        None => panic!("every task waits, and nothing can wake one"),
    }
    set_virtual(core.now());
}

/// There are no replies of a host's.
pub(crate) fn give_back(_: crate::channel::Taken) {}

/// There is no host.
#[cfg(not(test))]
pub(crate) const fn take_completions(_: &mut Core) {}

/// Tells the host that a test plays which task runs.
pub(crate) fn set_running(number: u16) {
    BLOCK.task.store(number.into(), Ordering::Relaxed);
}

pub(crate) const fn set_trace_written(_: u64) {}

/// Makes the stacks, once in a process.
pub(crate) fn provide_stacks(stacks: &mut Stacks) {
    if HAS_STACKS.swap(true, Ordering::Relaxed) {
        return;
    }
    const { assert!(STACKS > 0 && STACK_BYTES > 0) };
    let layout = Layout::from_size_align(STACK_BYTES * STACKS, 4096);
    let Ok(layout) = layout else { return };
    // SAFETY: the layout's size is not zero (asserted above).
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: just allocated, and never freed; aligned to a page.
    unsafe { stacks.add(memory, STACK_BYTES, STACK_BYTES, STACKS) };
}

/// A call's task does not end here.
pub(crate) const fn replace_server(_: &mut Core, _: Stack) {}

/// Runs a task's body; a panic ends that task alone.
pub(crate) fn run_body(body: impl FnOnce()) -> End {
    catch_unwind(AssertUnwindSafe(body)).map_or(End::Failed, |()| End::Returned)
}
