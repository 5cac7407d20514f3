//! The one kernel of a guest: the pure scheduler of `cellule-rtos` with stacks,
//! a clock and a processor.
//!
//! Everything goes through a [`Section`]: upcalls are masked, the [`Core`] is
//! this section's alone, and when it ends, whoever is most urgent runs. The
//! parts that differ between a guest and an ordinary program, in which guests
//! are tested, are in `port`.
//!
//! * `section`: entering, rescheduling, idling, leaving.
//! * `tasks`: the core: the scheduler, and a thread for each task.
//! * `switch`: from one stack to another, in a few instructions.
//! * `cell`: what is reached only within a section.
//! * `block`: the words that the host reads and writes; `upcall`: where it makes the
//!   guest go on.
//! * `stack`: where stacks come from, and how deep they were used.
//! * `steps`: the test that delivers an upcall at every instruction.

pub(crate) mod block;
mod cell;
mod section;
mod stack;
#[cfg(test)]
pub(crate) mod steps;
mod switch;
mod tasks;
pub(crate) mod upcall;

pub(crate) use self::cell::SectionCell;
pub(crate) use self::section::Section;
pub(crate) use self::stack::{Stack, StackError, Stacks};
pub(crate) use self::switch::begin_at;
pub(crate) use self::tasks::{Core, Info, Job, PassOn, Start, observe};

use crate::time::Instant;

/// The time, in a section or not.
#[inline]
pub(crate) fn now() -> Instant {
    Instant::from_nanos(crate::port::now())
}
