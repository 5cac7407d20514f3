//! `Core`: the scheduler, and a thread for each of its tasks.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};
use core::task::Waker;

use cellule_abi::record::Completion;
use cellule_abi::tasks::TraceEvent;
use cellule_rtos::{End, Event, Handle, Kernel, Mutex, NoRoom, Priority, TaskId};

use super::{Section, Stack, Stacks};
use crate::channel::Taken;
use crate::{port, trace};

/// Everything that a section reaches.
#[derive(Debug)]
pub(crate) struct Core {
    rtos: Kernel,
    /// By the number of the task, future or timer.
    threads: Vec<Thread>,
    /// Whose stack the processor is on; [`NOBODY`] after that task ended.
    pub(crate) running: u16,
    /// The stack of a task that ended on it: free once the processor has left it.
    pub(crate) dead: Option<Stack>,
    pub(crate) stacks: Stacks,
    /// The task that serves the host's calls, and the call that it is to serve.
    pub(crate) server: TaskId,
    pub(crate) call: Option<Completion>,
    /// The call that it is serving.
    pub(crate) served: Option<u64>,
    /// Whether that task waits for one.
    pub(crate) server_waits: bool,
    /// Who wants to know when nothing more can happen by itself.
    pub(crate) onlooker: TaskId,
    /// How many tasks wait for a reply of the host's.
    pub(crate) in_flight: u32,
    /// Whether switches are timed and traced.
    pub(crate) watched: bool,
    /// When the running task got the processor, if that is watched or sliced.
    pub(crate) since_ns: u64,
}

/// No task's number.
pub(crate) const NOBODY: u16 = u16::MAX;

/// What the shell knows of a task, a future or a timer.
#[derive(Debug)]
pub(crate) struct Thread {
    /// The stack pointer, while another task runs.
    pub(crate) pointer: usize,
    pub(crate) stack: Option<Stack>,
    pub(crate) info: Option<Arc<Info>>,
    /// What it is to run, until it starts.
    pub(crate) start: Option<Start>,
    /// Where an item that it waits to give or to get is.
    pub(crate) item: *mut (),
    /// Which of the host's replies it waits for, zero for none; and the reply.
    pub(crate) calling: u64,
    pub(crate) reply: Option<Taken>,
    /// Replies that it is decoding: more than one only if a type's `Deserialize`
    /// calls the host.
    decoding: Vec<Taken>,
    /// What is to be done at a notice: for a future and a timer.
    pub(crate) job: Option<Job>,
    /// For a future, and the timer of one, the id of the task that polled it last.
    pub(crate) poller: u64,
    /// For a task that waits in line, how it is given what a future was told of
    /// whose task is no more.
    pub(crate) pass_on: Option<PassOn>,
    /// Whether the future that it blocks on was woken.
    pub(crate) woken: bool,
    pub(crate) ran_ns: u64,
    pub(crate) locals: Vec<(usize, Box<dyn Any>)>,
}

// SAFETY: `item` and `pass_on` point to what a task that waits borrows; it is
// used only by the one that ends this wait, within a section. `locals` are used
// and dropped by their task alone.
unsafe impl Send for Thread {}

/// A task's body.
pub(crate) struct Start(pub(crate) Box<dyn FnOnce() + Send>);

impl core::fmt::Debug for Start {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Start")
    }
}

/// What the kernel runs of others' code, outside of its own state.
#[derive(Debug)]
pub(crate) enum Job {
    Wake(Waker),
    /// A function, and what to call it with: the object and how often it is due.
    Call(fn(usize, u64), usize),
}

/// A function, and the object that it is for: see [`Section::wait_in`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassOn(pub(crate) fn(&mut Section, *const ()), pub(crate) *const ());

/// What outlives a task.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) name: String,
    /// How it ended; [`Info::LIVES`] until then.
    ended: AtomicU8,
}

impl Info {
    const LIVES: u8 = u8::MAX;

    pub(crate) const fn new(name: String) -> Self {
        Self { name, ended: AtomicU8::new(Self::LIVES) }
    }

    /// How the task ended, if it has.
    pub(crate) fn ended(&self) -> Option<End> {
        match self.ended.load(Ordering::Relaxed) {
            Self::LIVES => None,
            0 => Some(End::Returned),
            1 => Some(End::Killed),
            _ => Some(End::Failed),
        }
    }

    fn end(&self, end: End) {
        self.ended.store(end as u8, Ordering::Relaxed);
    }
}

impl Thread {
    const NEW: Self = Self {
        pointer: 0,
        stack: None,
        info: None,
        start: None,
        item: ptr::null_mut(),
        calling: 0,
        reply: None,
        decoding: Vec::new(),
        job: None,
        poller: 0,
        pass_on: None,
        woken: false,
        ran_ns: 0,
        locals: Vec::new(),
    };
}

impl Core {
    pub(crate) const fn new() -> Self {
        Self {
            rtos: Kernel::new(),
            threads: Vec::new(),
            running: NOBODY,
            dead: None,
            stacks: Stacks::new(),
            server: TaskId::NONE,
            call: None,
            served: None,
            server_waits: false,
            onlooker: TaskId::NONE,
            in_flight: 0,
            watched: false,
            since_ns: 0,
        }
    }

    /// Makes room for `more` tasks, futures and timers.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<(), NoRoom> {
        self.rtos.reserve(more)?;
        let missing = self.rtos.capacity().saturating_sub(self.threads.len());
        self.threads.try_reserve(missing).map_err(|_| NoRoom)?;
        self.threads.resize_with(self.threads.len() + missing, || Thread::NEW);
        Ok(())
    }

    /// The thread of a task, a future or a timer that exists.
    #[inline]
    pub(crate) fn thread(&mut self, id: TaskId) -> &mut Thread {
        &mut self.threads[usize::from(id.number())]
    }

    /// The thread with this number.
    #[inline]
    pub(crate) fn thread_at(&mut self, number: u16) -> &mut Thread {
        &mut self.threads[usize::from(number)]
    }

    /// Makes the program that runs already a task.
    pub(crate) fn adopt(&mut self, priority: Priority, info: Arc<Info>, stack: Stack) {
        let Ok(id) = self.reserve(1).and_then(|()| self.rtos.adopt(priority)) else { return };
        self.server = id;
        self.running = id.number();
        self.fill(id, Thread { stack: Some(stack), info: Some(info), ..Thread::NEW });
    }

    /// Makes a task that serves the host's calls in place of one that has ended,
    /// whose slot is free.
    pub(crate) fn serve_on(&mut self, priority: Priority, stack: Stack, pointer: usize) {
        let info = Arc::new(Info::new(String::from("call")));
        if let Ok(id) = self.create(priority, None, (info, stack, pointer, None)) {
            self.server = id;
        }
    }

    /// Makes a task: room must have been reserved.
    pub(crate) fn create(
        &mut self,
        priority: Priority,
        at: Option<u64>,
        thread: (Arc<Info>, Stack, usize, Option<Start>),
    ) -> Result<TaskId, NoRoom> {
        let (info, stack, pointer, start) = thread;
        let name = Arc::clone(&info);
        let id = self.rtos.create(priority, at)?;
        let (stack, info) = (Some(stack), Some(info));
        self.fill(id, Thread { pointer, stack, info, start, ..Thread::NEW });
        trace::created(id.number(), priority.get(), &name.name);
        Ok(id)
    }

    fn fill(&mut self, id: TaskId, thread: Thread) {
        let before = core::mem::replace(self.thread(id), thread);
        // Whoever gives a number back takes its job. If one has not, the waker is
        // lost: to drop it is a user's code, and this a section.
        debug_assert!(before.job.is_none());
        core::mem::forget(before.job);
    }

    /// Makes a future's or a timer's thread do `job` at a notice.
    pub(crate) fn set_job(&mut self, id: TaskId, job: Job) -> Option<Job> {
        self.thread(id).job.replace(job)
    }

    /// Ends a task, for [`Section::end`].
    pub(super) fn end(&mut self, id: TaskId, end: End) -> Option<Start> {
        if !self.rtos.end(id, end, &mut hand_over) {
            return None;
        }
        let on_processor = self.running == id.number();
        let thread = self.thread(id);
        let stack = thread.stack.take();
        let start = thread.start.take();
        let calling = core::mem::take(&mut thread.calling);
        let replies = core::mem::take(&mut thread.decoding);
        thread.reply.take().into_iter().chain(replies).for_each(port::give_back);
        // What the task kept to itself is lost with its stack.
        core::mem::forget(core::mem::take(&mut thread.locals));
        if let Some(info) = thread.info.take() {
            info.end(end);
        }
        if calling != 0 {
            self.in_flight -= 1;
        }
        if on_processor {
            self.running = NOBODY;
        }
        match stack {
            Some(stack) if id == self.server => port::replace_server(self, stack),
            Some(stack) if on_processor => self.dead = Some(stack),
            Some(stack) => self.stacks.give(stack),
            None => {}
        }
        start
    }

    /// How many tasks, futures and timers there can be without more room.
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Takes a future that `task` polled out of the line in which it stands, or
    /// its timer away, if this number is one's: nobody would hear of it. Returns
    /// how to give what it was told of to a task.
    pub(super) fn abandon(&mut self, number: usize, task: TaskId) -> Option<PassOn> {
        let thread = self.threads.get_mut(number)?;
        if thread.poller != task.to_bits() {
            return None;
        }
        thread.poller = 0;
        // As all that the task owned, the waker is not dropped.
        core::mem::forget(thread.job.take());
        let place = self.rtos.id_at(u16::try_from(number).unwrap_or(NOBODY));
        self.rtos.remove_timer(place);
        let next = self.rtos.abandon(place)?;
        self.thread(next).pass_on
    }

    /// Takes a call of the host's.
    pub(crate) fn accept(&mut self, call: Completion, priority: Priority) {
        self.call = Some(call);
        self.rtos.set_priority(self.server, priority);
        if core::mem::take(&mut self.server_waits) {
            self.rtos.release(self.server, 0);
        }
    }

    /// Notes that a task makes a host call.
    pub(crate) fn begin_host_call(&mut self, task: TaskId, id: u64, function: u32) {
        self.thread(task).calling = id;
        self.in_flight += 1;
        if self.watched {
            trace::record(TraceEvent::HostCall, task.number(), function);
        }
    }

    /// The host may have the bytes of the reply that a task took last.
    pub(crate) fn end_reply(&mut self, task: TaskId) {
        if let Some(reply) = self.thread(task).decoding.pop() {
            port::give_back(reply);
        }
    }

    /// Takes the reply that a task waited for, if it is there. It is the task's
    /// until [`Core::end_reply`] or the task's end.
    pub(crate) fn end_host_call(&mut self, task: TaskId) -> Option<Taken> {
        let thread = self.thread(task);
        let reply = thread.reply.take()?;
        thread.decoding.push(reply);
        if self.watched {
            trace::record(TraceEvent::HostReply, task.number(), 0);
        }
        Some(reply)
    }

    /// The running task's name.
    pub(crate) fn name(&self) -> String {
        let running = self.running;
        let info = self.threads.get(usize::from(running)).and_then(|thread| thread.info.as_ref());
        info.map_or_else(String::new, |info| info.name.clone())
    }

    /// Gives a reply to the task that waits for it, or back if that has ended.
    pub(crate) fn settle(&mut self, reply: Taken) -> Option<Taken> {
        let number = reply.task();
        let thread = self.threads.get_mut(usize::from(number));
        let Some(thread) = thread.filter(|thread| thread.calling == reply.completion.id) else {
            return Some(reply);
        };
        (thread.calling, thread.reply) = (0, Some(reply));
        self.in_flight -= 1;
        let id = self.rtos.id_at(number);
        self.rtos.release(id, 0);
        None
    }

    /// Frees the stack that the processor has left.
    #[inline]
    pub(crate) fn reap(&mut self) {
        if self.dead.is_some() {
            self.bury();
        }
    }

    #[cold]
    fn bury(&mut self) {
        if let Some(stack) = self.dead.take() {
            self.stacks.give(stack);
        }
    }

    /// What is to be done next that is not the kernel's own code.
    pub(crate) fn next_job(&mut self) -> Option<(Job, u64)> {
        while let Some((id, times)) = self.rtos.next_notice() {
            let slot = &mut self.thread(id).job;
            match *slot {
                Some(Job::Call(function, argument)) => {
                    return Some((Job::Call(function, argument), times));
                }
                // A waker is used once: who polls again leaves a new one.
                _ => {
                    if let Some(job) = slot.take() {
                        return Some((job, times));
                    }
                }
            }
        }
        None
    }
}

/// Hands over a mutex whose owner ends.
fn hand_over(kernel: &mut Kernel, handle: Handle) {
    let mutex = ptr::with_exposed_provenance_mut::<Mutex>(handle.0);
    // SAFETY: the handle is the address of a mutex in a `SectionCell`
    // (`sync::Mutex`), which exists as long as somebody waits for it, as each
    // waiter borrows it. This is a section, and no other mutex is in use in it:
    // the kernel runs this on behalf of `Core::end` only.
    unsafe { (*mutex).owner_died(kernel) };
}

/// Writes what happens to tasks into the trace.
pub(crate) fn observe(event: Event) {
    let (event, id, detail) = match event {
        // Written with the name, which the scheduler does not know.
        Event::Created(..) => return,
        Event::Ready(id, priority) => (TraceEvent::Ready, id, priority.get()),
        Event::Waits(id) => (TraceEvent::Blocked, id, 0),
        Event::Ended(id, end) => (TraceEvent::Ended, id, end as u8),
    };
    trace::record(event, id.number(), detail.into());
}

impl Deref for Core {
    type Target = Kernel;

    #[inline]
    fn deref(&self) -> &Kernel {
        &self.rtos
    }
}

impl DerefMut for Core {
    #[inline]
    fn deref_mut(&mut self) -> &mut Kernel {
        &mut self.rtos
    }
}
