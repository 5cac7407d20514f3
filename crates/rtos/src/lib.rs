//! The scheduler of a guest's tasks and everything that tasks wait for, as pure
//! state machines.
//!
//! Nothing here knows a processor, a clock or a stack. A [`Kernel`] holds the
//! tasks, the lines of the ready ones, the wait queues and the timers; a
//! [`Semaphore`], [`Mutex`], [`Flags`], [`Queue`], [`Rendezvous`], [`Barrier`] or
//! [`Condition`] is a few words that can be a static, and each operation on one
//! takes the kernel along. An operation says what came of it; if the running
//! task must wait, or another one has become more urgent, [`Kernel::decide`]
//! says which task runs next, and the shell around this crate (the SDK) switches
//! stacks. So the semantics, `litmus/README.md` of the project's shared folder,
//! are tested on the host, against a model.
//!
//! # Bounds
//!
//! With *n* tasks and *w* waiters of one object:
//!
//! | operation | steps |
//! |---|---|
//! | take, give, lock, unlock, put, get, uncontended | O(1) |
//! | the same with a hand-over | O(log w), and O(log n) for a timeout |
//! | priority inheritance along a chain of *d* owners | O(d log w) |
//! | setting event flags | O(w log w) |
//! | choosing the next task; yield, suspend, resume | O(1) |
//! | a timer, armed, stopped or fired | O(log n) |
//! | the end of a task that holds *h* contended mutexes | O(h² + h log w) |
//!
//! No operation allocates but [`Kernel::reserve`].
//!
//! # Map of the crate
//!
//! `slot` is what the kernel knows of a task, `ready` the lines, `wait` the wait
//! queues, `inherit` priority inheritance, `timers` the deadlines, `kernel` the
//! life of a task and the choice, `notices` futures and timers. The objects have a
//! file each.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod barrier;
mod condition;
mod flags;
mod inherit;
mod kernel;
mod mutex;
mod notices;
mod priority;
mod queue;
mod ready;
mod rendezvous;
mod semaphore;
mod slot;
mod timeout;
mod timers;
mod wait;

pub use barrier::{Arrival, Barrier};
pub use condition::Condition;
pub use flags::{Flags, Match, Want};
pub use kernel::{Decision, End, Event, JoinStep, Kernel, NoRoom, TaskView};
pub use mutex::{Lock, Mutex, NotOwner};
pub use priority::{Priority, PriorityOutOfRange};
pub use queue::{Get, Put, Queue};
pub use rendezvous::{Receive, Rendezvous, Send, Ticket};
pub use semaphore::{Full, Semaphore, Take};
pub use slot::{Outcome, State, TaskId};
pub use timeout::{Instant, Patience, Timeout};
pub use wait::{Handle, WaitQueue};
