//! Which thread traces a child, and how another gets it.
//!
//! Linux lets only the thread that attached to a child do anything with it, and a
//! partition may be moved to another thread at any time, or dropped there. The plain
//! ways around that both cost what a partition is measured by: a thread for each
//! partition means two more switches between threads for each call, and letting go
//! after each run means two or three more system calls and a stop. So a child stays with the
//! thread that last ran it, which then has nothing to do, and another thread that
//! wants it asks for it:
//!
//! ```text
//!  U, which has the partition now            T, which traces the child
//!  1 SIGSTOP to the child, which is stopped
//!    for its tracer: it waits there
//!  2 signal to T, with the child's number -> 3 handler: PTRACE_DETACH, wake U
//!                                              (the child meets the SIGSTOP before
//!                                              another instruction of its own)
//!  4 PTRACE_SEIZE until it is allowed
//!  5 PTRACE_INTERRUPT, wait for the stop
//! ```
//!
//! 3 happens on T at any moment, and does no more than the system call: it looks at
//! nothing of T's. The signal restarts what it interrupts (`SA_RESTART`), but for
//! what Linux never restarts, as `poll`.
//!
//! When T ends it does 1 and 3 for all that it still has, in a destructor of the
//! thread's. If it ends without that, the kernel kills them (`EXITKILL`): never does
//! a guest run on that nobody traces. In between, what could wake a child is SIGCONT
//! from somebody else. It would run into the filter at its first system call, and
//! into a SIGSEGV that kills it at its first doorbell.
//!
//! The signal is `signal.rs`'s. A [`Leash`] says who traces a child. Whoever changes that has its lock; T's handler
//! needs none. U waits for T with the lock held, and T can wait for that lock in its
//! destructor: a signal's handler runs also while a thread waits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::signal;
use crate::trace::{Pid, Stop};

/// How long to wait for a thread that blocks the signal, or is stopped itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to sleep at most until asking the kernel again.
const NAP: Duration = Duration::from_millis(10);

/// A thread of this process, now or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread(u64);

/// A child, and who traces it.
#[derive(Debug)]
pub(crate) struct Leash {
    pub(crate) pid: Pid,
    holder: Mutex<Holder>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Nobody: SIGSTOP holds it.
    Nobody,
    /// This thread, which has this number.
    Thread(Thread, i32),
    /// It is dead and waited for: its number may be another's.
    Reaped,
}

/// The children that this thread traces, and lets go of when it ends.
#[derive(Default)]
struct Held {
    leashes: HashMap<i32, Arc<Leash>>,
    /// How many there may be until those are sought out that others have taken.
    room: usize,
}

static THREADS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static THREAD: Cell<u64> = const { Cell::new(0) };
    static HELD: RefCell<Held> = RefCell::new(Held::default());
}

impl Thread {
    /// This one.
    pub(crate) fn current() -> Self {
        if THREAD.get() == 0 {
            THREAD.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        Self(THREAD.get())
    }
}

impl Leash {
    /// Begins to trace a child that nobody traces.
    ///
    /// # Errors
    ///
    /// What the kernel said: it may be forbidden, or the child gone.
    pub(crate) fn new(pid: Pid) -> io::Result<Arc<Self>> {
        let leash = Arc::new(Self { pid, holder: Mutex::new(Holder::Nobody) });
        let number = signal::listen()?;
        pid.seize()?;
        leash.hold(&mut leash.lock(), number);
        Ok(leash)
    }

    /// Makes this thread the one that traces the child, which then stands still.
    /// Returns how it stopped.
    ///
    /// # Errors
    ///
    /// What the kernel said, or `TimedOut` if the thread that has it does not let go.
    pub(crate) fn take(self: &Arc<Self>) -> io::Result<Stop> {
        let mut holder = self.lock();
        let number = signal::listen()?;
        match *holder {
            Holder::Reaped => return Ok(Stop::Gone(0)),
            Holder::Nobody => {}
            Holder::Thread(_, thread) => {
                self.pid.kill(libc::SIGSTOP);
                signal::ask(thread, self.pid)?;
            }
        }
        if let Some(gone) = seize_soon(self.pid)? {
            *holder = Holder::Reaped;
            return Ok(gone);
        }
        self.hold(&mut holder, number);
        self.pid.interrupt()?;
        let stop = self.pid.wait_through()?;
        if let Stop::Gone(_) = stop {
            *holder = Holder::Reaped;
        }
        Ok(stop)
    }

    /// Kills the child, and waits for its end, whoever traces it.
    ///
    /// # Blocking
    ///
    /// Until the kernel has taken down its memory.
    pub(crate) fn end(&self) {
        let mut holder = self.lock();
        if *holder == Holder::Reaped {
            return;
        }
        self.pid.kill(libc::SIGKILL);
        while !matches!(self.pid.wait_through(), Ok(Stop::Gone(_)) | Err(_)) {}
        *holder = Holder::Reaped;
        // At the end of a thread there may be no such list any more.
        let _ = HELD.try_with(|held| held.borrow_mut().leashes.remove(&self.pid.0));
    }

    /// Notes that the child was waited for to its end.
    pub(crate) fn has_ended(&self) {
        *self.lock() = Holder::Reaped;
    }

    /// Notes that this thread, which has that number, traces it now.
    fn hold(self: &Arc<Self>, holder: &mut Holder, number: i32) {
        let thread = Thread::current();
        *holder = Holder::Thread(thread, number);
        // Without a list, as this thread is about to end, the kernel kills the child.
        let _ = HELD.try_with(|held| held.borrow_mut().add(Arc::clone(self), thread));
    }

    /// Whether it is this thread's, or might be: somebody is about to change it.
    fn may_be_held_by(&self, thread: Thread) -> bool {
        let holder = self.holder.try_lock().map(|holder| *holder);
        holder.map_or(true, |holder| matches!(holder, Holder::Thread(by, _) if by == thread))
    }

    fn let_go(&self, thread: Thread) {
        let mut holder = self.lock();
        if matches!(*holder, Holder::Thread(by, _) if by == thread) {
            self.pid.kill(libc::SIGSTOP);
            // If it is dead it cannot be let go, and need not be.
            let _ = self.pid.detach();
            *holder = Holder::Nobody;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&mut self, leash: Arc<Leash>, thread: Thread) {
        if self.leashes.len() >= self.room {
            self.leashes.retain(|_, leash| leash.may_be_held_by(thread));
            self.room = 2 * self.leashes.len() + 16;
        }
        self.leashes.insert(leash.pid.0, leash);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let thread = Thread::current();
        for leash in self.leashes.values() {
            leash.let_go(thread);
        }
        // Whatever else this thread does as it ends, it has none of them any more.
        THREAD.set(0);
    }
}

/// Begins to trace a child as soon as whoever traces it has let go; or tells that
/// there is no child any more.
fn seize_soon(pid: Pid) -> io::Result<Option<Stop>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = signal::let_go_count();
        match pid.seize() {
            Ok(()) => return Ok(None),
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => return Err(error),
            Err(_) => {}
        }
        if let Some(gone) = pid.gone()? {
            return Ok(Some(gone));
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        signal::nap(seen, NAP);
    }
}
