//! `Section`: the way into the kernel, and who runs after it.

use core::cell::UnsafeCell;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use cellule_abi::tasks::{NEVER, TraceEvent};
use cellule_rtos::{Decision, End, Kernel, TaskId};

use super::switch::switch;
use super::tasks::{Core, Job, NOBODY, PassOn, Start};
use crate::{port, trace};

struct Shared(UnsafeCell<Core>);

// SAFETY: reached only through a `Section`, of which there is one at a time.
unsafe impl Sync for Shared {}

static CORE: Shared = Shared(UnsafeCell::new(Core::new()));

/// Whether a section has the core.
static BUSY: AtomicBool = AtomicBool::new(false);

/// The kernel, for one context at a time: while it lives, upcalls are masked.
///
/// Nothing of a user's own (a `Drop`, a `Clone`, a waker) may run within one.
#[derive(Debug)]
pub(crate) struct Section {
    /// Upcalls were masked already: the context may not wait, and who runs is
    /// decided when it unmasks them.
    nested: bool,
}

impl Section {
    /// Masks upcalls and takes the core.
    #[inline]
    pub(crate) fn enter() -> Self {
        let nested = port::mask();
        claim();
        Self { nested }
    }

    /// Takes the core where upcalls have been masked by others, who unmask them.
    pub(crate) fn within_mask() -> Self {
        claim();
        Self { nested: true }
    }

    /// The section in which a task that faulted is ended: not its own stack's.
    pub(crate) fn after_fault() -> Self {
        BUSY.store(false, Ordering::Relaxed);
        Self::within_mask()
    }

    /// Whether the context may wait.
    #[inline]
    pub(crate) const fn can_wait(&self) -> bool {
        !self.nested
    }

    /// Leaves, after an operation by which another task may have become more
    /// urgent or a notice due: then that comes first.
    #[inline]
    pub(crate) fn reschedule(mut self) {
        if self.nested {
            port::set_pending();
        } else if !self.is_settled() || self.needs_care() || !self.is_announced() {
            self.run();
        }
    }

    /// Lets the most urgent task run: returns when it is this one's turn.
    pub(crate) fn run(&mut self) {
        self.run_inlined();
    }

    /// [`Section::run`], for where each cycle counts.
    #[inline(always)]
    pub(crate) fn run_inlined(&mut self) {
        if self.needs_care() {
            return self.run_with_care();
        }
        let decision = self.decide();
        self.follow(decision);
    }

    /// Lets the next task of the running one's priority run.
    #[inline(always)]
    pub(crate) fn rotate(&mut self) {
        if self.needs_care() {
            self.yield_now();
            return self.run_with_care();
        }
        let decision = Kernel::rotate(self);
        self.follow(decision);
    }

    /// Does what was decided, without slices.
    #[inline(always)]
    fn follow(&mut self, decision: Decision) {
        if matches!(decision, Decision::Idle) {
            return self.run_with_care();
        }
        let deadline = self.next_deadline().unwrap_or(NEVER);
        port::announce(self, deadline);
        if let Decision::Run(id) = decision
            && id.number() != self.running
        {
            self.switch_to(id);
        }
    }

    /// Whether there is more to do than to choose a task.
    #[inline]
    fn needs_care(&self) -> bool {
        self.has_notices() || self.watched || self.slice() != 0
    }

    /// Whether the host knows of the next deadline.
    #[inline]
    fn is_announced(&self) -> bool {
        port::is_announced(self.next_deadline().unwrap_or(NEVER))
    }

    #[cold]
    fn run_with_care(&mut self) {
        loop {
            self.do_jobs();
            if self.watched || self.slice() != 0 {
                self.account();
            }
            match self.decide() {
                Decision::Stay => break self.announce(),
                Decision::Run(id) => {
                    self.announce();
                    // Also the task on whose stack the guest was idle runs anew.
                    if self.watched {
                        trace::runs(self, id);
                    }
                    if id.number() != self.running {
                        self.switch_to(id);
                    }
                    break;
                }
                Decision::Idle => self.idle(),
            }
        }
    }

    /// Looks at what has changed outside: completions, the clock; and does what
    /// is due.
    pub(crate) fn look(&mut self) {
        port::clear_pending();
        port::take_completions(self);
        if !port::is_virtual() {
            let now = port::now();
            self.advance(now);
        }
        self.do_jobs();
    }

    /// Ends a task. What it leaves behind that has a `Drop` of the guest's is
    /// returned, to be dropped outside of the section.
    ///
    /// A future that it polled last loses its place, and its turn goes to the next
    /// in line. If another task polls it after that, it stands in line anew.
    ///
    /// # Cost
    ///
    /// O(n) for n tasks, futures and timers, unless it has returned.
    pub(crate) fn end(&mut self, id: TaskId, end: End) -> Option<Start> {
        if !self.is_alive(id) {
            return None;
        }
        let start = Core::end(self, id, end);
        if end != End::Returned {
            for number in 0..self.threads() {
                if let Some(PassOn(function, object)) = self.abandon(number, id) {
                    function(self, object);
                }
            }
        }
        start
    }

    /// Ends the running task, and lets another one run.
    pub(crate) fn end_current(mut self, end: End) -> ! {
        let current = self.current();
        let start = self.end(current, end);
        debug_assert!(start.is_none(), "it runs, so it has started");
        mem::forget(start);
        loop {
            self.run();
        }
    }

    fn idle(&mut self) {
        if self.watched {
            trace::record(TraceEvent::Idle, self.current().number(), 0);
        }
        if self.next_deadline().is_none() && self.in_flight == 0 {
            let onlooker = mem::replace(&mut self.onlooker, TaskId::NONE);
            if self.release(onlooker, 0) {
                return;
            }
        }
        port::idle(self);
        self.look();
        self.since_ns = if self.watched || self.slice() != 0 { port::now() } else { 0 };
    }

    /// Does what is the users' own: wakers, functions of timers.
    /// Then, what is due after that in the same moment.
    fn do_jobs(&mut self) {
        loop {
            while let Some((job, times)) = self.next_job() {
                BUSY.store(false, Ordering::Relaxed);
                match job {
                    Job::Wake(waker) => waker.wake(),
                    Job::Call(function, argument) => function(argument, times),
                }
                claim();
            }
            if !self.catch_up() {
                break;
            }
        }
    }

    /// Counts the time that the running task has had.
    fn account(&mut self) {
        let now = port::now();
        let passed = now.saturating_sub(mem::replace(&mut self.since_ns, now));
        let running = self.running;
        if running != NOBODY {
            self.thread_at(running).ran_ns += passed;
        }
        if !port::is_virtual() {
            self.charge(passed);
        }
    }

    /// Has the host interrupt the task that runs now when something is due.
    fn announce(&mut self) {
        let mut deadline = self.next_deadline().unwrap_or(NEVER);
        if self.slice() != 0
            && let Some(left) = self.slice_left()
        {
            deadline = deadline.min(self.since_ns.saturating_add(left));
        }
        port::announce(self, deadline);
    }

    #[inline(always)]
    fn switch_to(&mut self, id: TaskId) {
        port::set_running(id.number());
        let mut nobody = 0;
        let from = mem::replace(&mut self.running, id.number());
        let load = self.thread(id).pointer;
        let save = match from {
            NOBODY => &raw mut nobody,
            _ => &raw mut self.thread_at(from).pointer,
        };
        // SAFETY: `save` is a field of the table of threads, which nobody moves
        // before it was written, or a local; `load` was written when this task
        // last left its stack, or by `begin_at`, and is used once: `running` is
        // no longer another's.
        unsafe { switch(save, load) };
        self.reap();
    }

    /// What a new task has to run.
    pub(crate) fn take_start(&mut self) -> Option<Start> {
        self.reap();
        let running = self.running;
        self.thread_at(running).start.take()
    }

    /// The section of the task that switched to this one, which now is its own.
    pub(crate) const fn inherited() -> Self {
        Self { nested: false }
    }
}

/// Makes the core this context's.
#[inline]
fn claim() {
    if BUSY.load(Ordering::Relaxed) {
        entered_twice();
    }
    BUSY.store(true, Ordering::Relaxed);
}

#[cold]
#[expect(clippy::panic, reason = "a guest's panic ends the guest alone")]
fn entered_twice() -> ! {
    panic!(
        "the kernel was entered from within: by a `Drop`, a `Clone` or an allocator of the guest's"
    )
}

impl Drop for Section {
    #[inline]
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Relaxed);
        if !self.nested {
            port::unmask();
        }
    }
}

impl Deref for Section {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        // SAFETY: `claim` admits one section at a time, and this one is borrowed
        // for as long as the reference lives.
        unsafe { &*CORE.0.get() }
    }
}

impl DerefMut for Section {
    #[inline]
    fn deref_mut(&mut self) -> &mut Core {
        // SAFETY: as above, and this borrow is exclusive.
        unsafe { &mut *CORE.0.get() }
    }
}
