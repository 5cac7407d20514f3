//! On which processor a child runs: on its tracer's.
//!
//! Of the two only one runs at a time. Where they share a processor a stop and a
//! continuation are two switches between threads; else each of them wakes another
//! processor, which takes several times as long (7 us and 48 us on the build
//! machines). The kernel's scheduler prefers the idle processor. So each run sends
//! the child to the processor that its thread is on.
//!
//! That is wrong for a guest that computes for long: two threads that were on the same
//! processor when they began would share it to the end. So a timer of the child's own
//! processor time (`stub.rs`) stops it every 10 ms, and one that has been stopped so
//! twice in one run may run wherever its thread may. Nothing of the host's own is
//! changed.

use std::mem::MaybeUninit;

use crate::trace::Pid;

/// Where a child may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Wherever it was made.
    Anywhere,
    /// On this processor only.
    At(i32),
    /// The system does not let us say.
    Unknown,
}

impl Place {
    /// Sends a child to the processor of this thread. Returns how many system calls
    /// that took: none if it is there.
    pub(crate) fn follow(&mut self, child: Pid) -> u64 {
        // SAFETY: no precondition.
        let here = unsafe { libc::sched_getcpu() };
        if matches!(*self, Self::Unknown) || *self == Self::At(here) {
            return 0;
        }
        *self = if send(child, here) { Self::At(here) } else { Self::Unknown };
        1
    }

    /// Lets a child run wherever this thread may. Returns how many system calls that
    /// took.
    pub(crate) fn release(&mut self, child: Pid) -> u64 {
        if !matches!(*self, Self::At(_)) {
            return 0;
        }
        *self = Self::Anywhere;
        if let Some(set) = of(OWN) {
            set_affinity(child, &set);
        }
        2
    }
}

fn send(child: Pid, processor: i32) -> bool {
    let Ok(processor) = usize::try_from(processor) else { return false };
    if processor >= 8 * size_of::<libc::cpu_set_t>() {
        return false;
    }
    let mut set = empty();
    // SAFETY: the number is within the set, as was checked.
    unsafe { libc::CPU_SET(processor, &mut set) };
    set_affinity(child, &set)
}

/// This thread's number, as the system takes it.
const OWN: Pid = Pid(0);

fn of(Pid(thread): Pid) -> Option<libc::cpu_set_t> {
    let mut set = empty();
    // SAFETY: writes a set of the size that it is told, which is a live local.
    let read = unsafe { libc::sched_getaffinity(thread, size_of_val(&set), &raw mut set) };
    (read == 0).then_some(set)
}

fn set_affinity(Pid(child): Pid, set: &libc::cpu_set_t) -> bool {
    // SAFETY: reads a set of the size that it is told; the number is the child's, as
    // it has not been waited for to its end.
    unsafe { libc::sched_setaffinity(child, size_of_val(set), set) == 0 }
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: bits, of which none set is valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[cfg(test)]
impl Place {
    /// How many processors a child may run on, or this thread.
    pub(crate) fn processors(self, child: Pid) -> i32 {
        let set = of(child).unwrap();
        // SAFETY: counts the bits of a set, which is a live local.
        unsafe { libc::CPU_COUNT(&set) }
    }
}

#[cfg(test)]
pub(crate) fn own_processors() -> i32 {
    Place::Unknown.processors(OWN)
}

/// Keeps this thread where it is, and returns where it might be before.
#[cfg(test)]
pub(crate) fn stay_here() -> libc::cpu_set_t {
    let before = of(OWN).unwrap();
    // SAFETY: no precondition.
    assert!(send(OWN, unsafe { libc::sched_getcpu() }));
    before
}

#[cfg(test)]
pub(crate) fn go_back(before: &libc::cpu_set_t) {
    assert!(set_affinity(OWN, before));
}
