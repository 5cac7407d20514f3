//! Critical sections: the [`critical-section`](critical_section) crate's, for
//! this guest.
//!
//! Within [`with`] upcalls are masked, and so nothing else of the guest runs: no
//! other task, no timer's function. A task that became more urgent meanwhile, and
//! a timer that expired, come when the outermost section ends. What must not be
//! interrupted and what is shared through `critical_section::Mutex` or
//! `embassy_sync`'s `CriticalSectionRawMutex` works as on a microcontroller.
//!
//! ```
//! use cellule_guest::critical::{self, Mutex};
//! use core::cell::Cell;
//!
//! static VISITS: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));
//!
//! let visit = || critical::with(|section| {
//!     let visits = VISITS.borrow(section);
//!     visits.set(visits.get() + 1);
//!     visits.get()
//! });
//! assert_eq!((visit(), visit()), (1, 2));
//! ```
//!
//! # Blocking
//!
//! Never, to enter one. Nothing may wait within one: whatever would is refused
//! with [`WaitError::WrongContext`](crate::sync::WaitError::WrongContext), and a
//! call of the host with [`HostError::Unavailable`](crate::HostError::Unavailable).
//! A section is to be short: it delays what is more urgent.
//!
//! A panic or a fault within one ends the guest, also where the host lets tasks
//! fail alone: what the section protects may be half done.
//!
//! # Cost
//!
//! Two stores, and no exit, whatever the nesting. If something came meanwhile, what
//! that takes.
//!
//! # Outside a guest
//!
//! The same, for tests: a thread that enters one has the kernel to its end, as
//! with every other primitive, so that a thread must not join another one that
//! uses the kernel too. No other implementation (`critical-section/std`) may be
//! linked to such a test: the linker would refuse two.

#[doc(no_inline)]
pub use critical_section::{CriticalSection, Mutex, with};

use crate::port;

struct MaskedUpcalls;

critical_section::set_impl!(MaskedUpcalls);

// SAFETY: what `critical_section::acquire` asks for, point by point. A guest has
// one processor, and leaves the running code only by an upcall, which the mask
// puts off, or where that code waits, which is refused under the mask
// (`Section::can_wait`): so one context at a time is in a section, and sections
// nest. The state that `acquire` returns says whether upcalls were masked, and so
// `release` ends the outermost section only. `mask` and `unmask` are compiler
// fences, which on one processor is Acquire and Release. In the stand-in `mask`
// first makes the kernel the calling thread's alone.
unsafe impl critical_section::Impl for MaskedUpcalls {
    unsafe fn acquire() -> bool {
        port::mask()
    }

    unsafe fn release(was_masked: bool) {
        if !was_masked {
            port::unmask();
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::kernel::Section;
    use crate::sync::{Semaphore, Timeout, WaitError};
    use crate::task::{self, Builder, JoinError, Priority};
    use crate::time::{self, Duration};

    /// More urgent than the tests, which run at `CALL_PRIORITY`.
    const URGENT: Priority = match Priority::new(20) {
        Ok(priority) => priority,
        Err(_) => panic!("priorities reach 31"),
    };

    fn is_masked() -> bool {
        !Section::enter().can_wait()
    }

    #[test]
    fn the_outermost_of_nested_sections_ends_it() {
        with(|_| {
            with(|_| assert!(is_masked()));
            assert!(is_masked(), "the end of an inner section should NOT unmask upcalls");
        });
        assert!(!is_masked());
    }

    #[test]
    fn a_give_within_a_section_preempts_when_the_outermost_one_ends() {
        static GIVEN: Semaphore = Semaphore::binary();
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let urgent = Builder::new().priority(URGENT).spawn(|| {
            GIVEN.take(Timeout::Forever).unwrap();
            TAKEN.store(1, Ordering::Relaxed);
        });

        let within = with(|_| {
            with(|_| GIVEN.give().unwrap());
            TAKEN.load(Ordering::Relaxed)
        });

        assert_eq!(within, 0, "the urgent task should NOT run within the section");
        assert_eq!(TAKEN.load(Ordering::Relaxed), 1, "it should run right after");
        urgent.unwrap().join().unwrap();
    }

    #[test]
    fn whatever_would_wait_within_a_section_is_refused() {
        static NEVER_GIVEN: Semaphore = Semaphore::binary();
        let task = task::spawn(|| ()).unwrap();

        with(|_| {
            let taken = NEVER_GIVEN.take(Timeout::Forever);
            assert_eq!(taken, Err(WaitError::WrongContext));
            assert_eq!(time::sleep(Duration::from_secs(1)), Err(WaitError::WrongContext));
            let joined = task.task().join(Timeout::Forever);
            assert_eq!(joined, Err(JoinError::Wait(WaitError::WrongContext)));
            task::yield_now();
        });

        assert_eq!(task.task().ended(), None, "no other task should have run");
        task.join().unwrap();
    }
}
