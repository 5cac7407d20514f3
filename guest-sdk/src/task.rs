//! Tasks: threads of a guest, scheduled by priority.
//!
//! A guest has one processor and runs the most urgent task that is ready, at
//! every moment: whoever becomes more urgent than the running task preempts it.
//! Tasks of equal priority take turns when they wait, [`yield_now`], or a
//! [time slice](set_time_slice) ends. Nothing of this leaves the guest: a switch
//! costs what a function call costs.
//!
//! A call of the host's is served by a task of its own, of the priority that
//! its `#[guest_function(priority = 5)]` says; tasks that it spawns go on while
//! it waits, and stand still when it has returned, until the host lets the guest
//! run again.
//!
//! ```
//! use cellule_guest::task::{self, Builder, Priority};
//!
//! let sum = task::spawn(|| (1..=100).sum::<u32>())?;
//! let urgent = Builder::new().name("urgent").priority(Priority::new(20)?).spawn(|| "first")?;
//! assert_eq!(urgent.join()?, "first");
//! assert_eq!(sum.join()?, 5050);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::time::Duration;

use cellule_rtos::JoinStep;

use crate::kernel::{Info, Section, SectionCell, StackError, Start, begin_at};
use crate::port;
use crate::sync::WaitError;
use crate::time::{Instant, Timeout};

pub use cellule_rtos::{End, Priority, PriorityOutOfRange, State, TaskId};

/// The priority of the task that serves the host's calls, and of a spawned one,
/// unless said otherwise.
pub const CALL_PRIORITY: Priority = match Priority::new(8) {
    Ok(priority) => priority,
    Err(_) => Priority::LOWEST,
};

/// The smallest stack: what an upcall saves and the kernel needs, twice.
pub const LEAST_STACK_BYTES: usize = 8 * 1024;
/// The stack of a task, unless said otherwise.
pub const DEFAULT_STACK_BYTES: usize = 16 * 1024;

/// What a task is to be.
///
/// ```
/// use cellule_guest::task::{Builder, Priority};
/// use cellule_guest::time::{self, Duration};
///
/// let start = time::now() + Duration::from_secs(1);
/// let sampler = Builder::new()
///     .name("sampler")
///     .priority(Priority::new(12)?)
///     .stack_bytes(32 * 1024)
///     .start_at(start)
///     .spawn(time::now)?;
/// assert_eq!(sampler.task().name(), "sampler");
/// assert!(sampler.join()? >= start);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is created before `spawn`"]
pub struct Builder {
    name: String,
    priority: Priority,
    stack_bytes: usize,
    start: Option<Instant>,
}

/// A task could not be made.
///
/// ```
/// use cellule_guest::task::{Builder, LEAST_STACK_BYTES, SpawnError};
///
/// let refused = Builder::new().stack_bytes(100).spawn(|| ()).unwrap_err();
/// assert_eq!(refused, SpawnError::StackTooSmall { bytes: 100, least: LEAST_STACK_BYTES });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// Upcalls alone need more.
    StackTooSmall {
        /// What was asked for.
        bytes: usize,
        /// [`LEAST_STACK_BYTES`]
        least: usize,
    },
    /// The host set aside no stacks that large.
    StackTooLarge {
        /// What was asked for.
        bytes: usize,
        /// The largest that there are.
        largest: usize,
    },
    /// All stacks of this size and above are in use.
    NoStack {
        /// What was asked for.
        bytes: usize,
    },
    /// There is no memory left, or there are 65535 tasks, futures and timers.
    NoMemory,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StackTooSmall { bytes, least } => {
                write!(f, "a stack of {bytes} bytes is too small: the least is {least}")
            }
            Self::StackTooLarge { bytes, largest } => {
                write!(f, "there are no stacks of {bytes} bytes: the host's largest have {largest}")
            }
            Self::NoStack { bytes } => {
                write!(f, "all stacks of {bytes} bytes and more are in use")
            }
            Self::NoMemory => f.write_str("no memory for another task"),
        }
    }
}

impl core::error::Error for SpawnError {}

/// A join did not give a result.
///
/// ```
/// use cellule_guest::task::{self, JoinError};
///
/// let killed = task::spawn(|| 1)?;
/// killed.task().kill();
/// assert_eq!(killed.join(), Err(JoinError::Killed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// The task was killed.
    Killed,
    /// The task panicked or faulted, and the host lets a task fail alone.
    Failed,
    /// A task cannot wait for its own end.
    SelfJoin,
    /// The wait itself failed.
    Wait(WaitError),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed => f.write_str("the task was killed"),
            Self::Failed => f.write_str("the task failed"),
            Self::SelfJoin => f.write_str("a task cannot wait for its own end"),
            Self::Wait(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for JoinError {}

impl From<WaitError> for JoinError {
    fn from(error: WaitError) -> Self {
        Self::Wait(error)
    }
}

impl Builder {
    /// A task of [`CALL_PRIORITY`] with a stack of [`DEFAULT_STACK_BYTES`], ready at once.
    pub const fn new() -> Self {
        let (priority, stack_bytes) = (CALL_PRIORITY, DEFAULT_STACK_BYTES);
        Self { name: String::new(), priority, stack_bytes, start: None }
    }

    /// Sets the name. A trace shows the first 16 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the priority.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the size of the stack in bytes; the task gets the smallest of the
    /// host's sizes that is not smaller.
    pub const fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// Makes the task ready at a point in time, and not at once.
    pub const fn start_at(mut self, start: Instant) -> Self {
        self.start = Some(start);
        self
    }

    /// Makes the task. If it is more urgent, it runs before this returns.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]
    ///
    /// # Cost
    ///
    /// Three allocations. The first task of a guest costs one exit, by which its
    /// stacks come to be there.
    pub fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        let bytes = self.stack_bytes;
        if bytes < LEAST_STACK_BYTES {
            return Err(SpawnError::StackTooSmall { bytes, least: LEAST_STACK_BYTES });
        }
        let info = Arc::new(Info::new(self.name));
        let result = Arc::new(SectionCell::new(None));
        let cell = Arc::clone(&result);
        let start = Start(Box::new(move || {
            let value = body();
            let before = cell.with(&mut Section::enter(), |result, _| result.replace(value));
            drop(before);
        }));
        let start_at = self.start.map(Instant::as_nanos);
        let id = create(bytes, self.priority, start_at, &info, start)?;
        Ok(JoinHandle { task: Task { id, info }, result })
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// Finds a stack and makes a task that begins on it.
fn create(
    bytes: usize,
    priority: Priority,
    start_at: Option<u64>,
    info: &Arc<Info>,
    start: Start,
) -> Result<TaskId, SpawnError> {
    let mut section = Section::enter();
    port::provide_stacks(&mut section.stacks);
    section.reserve(1).map_err(|_| SpawnError::NoMemory)?;
    let stack = section.stacks.take(bytes).map_err(|error| match error {
        StackError::TooLarge { largest } => SpawnError::StackTooLarge { bytes, largest },
        StackError::NoneLeft => SpawnError::NoStack { bytes },
    })?;
    // SAFETY: the stack was just taken, is larger than the frame and aligned.
    let pointer = unsafe { begin_at(stack.top(), begin) };
    let thread = (Arc::clone(info), stack, pointer, Some(start));
    // In range: room was reserved.
    let id = section.create(priority, start_at, thread).map_err(|_| SpawnError::NoMemory)?;
    section.reschedule();
    Ok(id)
}

/// Where every task begins, in the section of the one before it.
extern "C" fn begin() -> ! {
    let mut section = Section::inherited();
    let start = section.take_start();
    drop(section);
    let end = start.map_or(End::Returned, |Start(body)| port::run_body(body));
    let mut section = Section::enter();
    let running = section.running;
    let locals = core::mem::take(&mut section.thread_at(running).locals);
    drop(section);
    drop(locals);
    Section::enter().end_current(end)
}

/// Makes a task of [`CALL_PRIORITY`]: see [`Builder::spawn`].
///
/// # Errors
///
/// [`SpawnError`]
pub fn spawn<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, SpawnError> {
    Builder::new().spawn(body)
}

/// A task, and the right to its result. Dropping it lets the task go on.
///
/// ```
/// use cellule_guest::sync::Timeout;
/// use cellule_guest::task::{self, End, JoinHandle};
///
/// let handle: JoinHandle<String> = task::spawn(|| "done".to_string())?;
/// assert_eq!(handle.task().join(Timeout::Forever)?, End::Returned);
/// assert_eq!(handle.join()?, "done");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JoinHandle<T> {
    task: Task,
    result: Arc<SectionCell<Option<T>>>,
}

impl<T> JoinHandle<T> {
    /// The task.
    pub const fn task(&self) -> &Task {
        &self.task
    }

    /// Waits for the task's end and returns its result. To wait for a limited
    /// time, [`Task::join`] first.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; with [`JoinError::Wait`], the result is lost.
    pub fn join(self) -> Result<T, JoinError> {
        let end = self.task.join(Timeout::Forever)?;
        let result = self.result.with(&mut Section::enter(), |result, _| result.take());
        result.ok_or(if end == End::Failed { JoinError::Failed } else { JoinError::Killed })
    }
}

/// A task: by this, others control it. It stays that task's when it has ended.
///
/// ```
/// use cellule_guest::task::{self, State, Task};
/// use cellule_guest::time::{self, Duration};
///
/// let handle = task::spawn(|| time::sleep(Duration::from_secs(1)))?;
/// let task: Task = handle.task().clone();
/// task.suspend();
/// time::sleep(Duration::from_secs(5))?;
/// assert_eq!(task.state(), Some(State::Suspended));
/// task.resume();
/// handle.join()??;
/// assert_eq!((task.state(), task.ended()), (None, Some(task::End::Returned)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Task {
    id: TaskId,
    info: Arc<Info>,
}

/// How a task is.
///
/// ```
/// use cellule_guest::task;
///
/// let other = task::Builder::new().name("other").spawn(|| ())?;
/// let list = task::list();
/// let info = list.iter().find(|info| info.id == other.task().id()).unwrap();
/// assert_eq!((info.name.as_str(), info.state), ("other", task::State::Ready));
/// assert!(info.stack_used_bytes < info.stack_bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Which it is.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: State,
    /// Its own priority.
    pub priority: Priority,
    /// That, or a higher one that it inherits.
    pub effective_priority: Priority,
    /// How long it has run, as far as [`set_accounting`] counted.
    pub ran: Duration,
    /// The size of its stack in bytes.
    pub stack_bytes: usize,
    /// The most of its stack that was ever in use, in bytes.
    pub stack_used_bytes: usize,
}

impl Task {
    /// Its id: no other task of this guest ever has the same.
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.info.ended()
    }

    /// What it does; `None` if it has ended.
    pub fn state(&self) -> Option<State> {
        Section::enter().view(self.id).map(|task| task.state)
    }

    /// Its own priority and its effective one; `None` if it has ended.
    pub fn priority(&self) -> Option<(Priority, Priority)> {
        Section::enter().view(self.id).map(|task| (task.base, task.effective))
    }

    /// Changes its own priority.
    pub fn set_priority(&self, priority: Priority) {
        let mut section = Section::enter();
        section.set_priority(self.id, priority);
        section.reschedule();
    }

    /// Stops it until it is resumed. It goes on waiting, timeouts included. A
    /// task that suspends itself stops here.
    pub fn suspend(&self) {
        let mut section = Section::enter();
        section.suspend(self.id);
        section.reschedule();
    }

    /// Lets it go on, however often it was suspended.
    pub fn resume(&self) {
        let mut section = Section::enter();
        section.resume(self.id);
        section.reschedule();
    }

    /// Ends it where it stands. Mutexes that it holds go to the next in line,
    /// who are told; nothing that it owns is dropped. A task that kills itself
    /// does not return from here, unless upcalls are masked.
    pub fn kill(&self) {
        let mut section = Section::enter();
        let start = section.end(self.id, End::Killed);
        section.reschedule();
        drop(start);
    }

    /// Ends its wait, whatever for, with [`WaitError::Cancelled`]; whether it
    /// was waiting.
    pub fn cancel_wait(&self) -> bool {
        let mut section = Section::enter();
        let waited = section.cancel(self.id);
        section.reschedule();
        waited
    }

    /// Waits for its end. Any number of tasks may.
    ///
    /// # Errors
    ///
    /// [`JoinError::SelfJoin`] and [`JoinError::Wait`].
    pub fn join(&self, timeout: impl Into<Timeout>) -> Result<End, JoinError> {
        let timeout = timeout.into();
        let mut section = Section::enter();
        let patience = section.patience(timeout);
        match section.join(self.id, patience) {
            JoinStep::Ended => return Ok(self.info.ended().unwrap_or(End::Returned)),
            JoinStep::SelfJoin => return Err(JoinError::SelfJoin),
            JoinStep::Busy => return Err(section.refusal(timeout).into()),
            JoinStep::Waits => {}
        }
        section.wait()?;
        Ok(self.info.ended().unwrap_or(End::Returned))
    }
}

/// The running task.
pub fn current() -> Task {
    let mut section = Section::enter();
    let id = section.current();
    let info = section.thread(id).info.clone();
    Task { id, info: info.unwrap_or_else(|| Arc::new(Info::new(String::new()))) }
}

/// Goes behind the ready tasks of the same priority.
// Inlined, as the processor would predict its return by another task's call.
#[inline(always)]
pub fn yield_now() {
    let mut section = Section::enter();
    if section.can_wait() {
        section.rotate();
    }
}

/// Waits until nothing more happens by itself: all other tasks wait or have
/// ended, no timer is armed, and no host call is under way. One task at a time.
///
/// ```
/// use cellule_guest::sync::{Semaphore, Timeout};
/// use cellule_guest::task;
///
/// static NEVER: Semaphore = Semaphore::new(0, 1);
/// let stuck = task::spawn(|| NEVER.take(Timeout::Forever))?;
/// task::settle()?;
/// assert_eq!(stuck.task().state(), Some(task::State::Waiting));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`WaitError::WouldBlock`] if another task waits for this already,
/// [`WaitError::Cancelled`] and [`WaitError::WrongContext`].
pub fn settle() -> Result<(), WaitError> {
    let mut section = Section::enter();
    if !section.can_wait() {
        return Err(WaitError::WrongContext);
    }
    if section.is_alive(section.onlooker) {
        return Err(WaitError::WouldBlock);
    }
    section.onlooker = section.current();
    section.block();
    section.wait().map(|_| ())
}

/// Sets how long a task may run before another one of its priority does; `None`,
/// as at the start, for no such limit.
///
/// # Cost
///
/// With slices, each switch reads the clock, and each slice that ends by itself
/// is an exit.
pub fn set_time_slice(slice: Option<Duration>) {
    let nanos = slice.map_or(0, |slice| u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX).max(1));
    let mut section = Section::enter();
    section.set_slice(nanos);
    section.since_ns = port::now();
    section.reschedule();
}

/// Switches the counting of tasks' processor time on or off. Off at the start,
/// unless the host asked for a trace: each switch then reads the clock.
pub fn set_accounting(on: bool) {
    let mut section = Section::enter();
    section.watched = on || crate::trace::is_on();
    section.since_ns = port::now();
}

/// All tasks that have not ended.
///
/// # Cost
///
/// Reads every stack down to where it was used, and so touches all of its pages.
pub fn list() -> Vec<TaskInfo> {
    let mut section = Section::enter();
    let views: Vec<_> = section.tasks().collect();
    let mut list = Vec::with_capacity(views.len());
    for view in views {
        let thread = section.thread(view.id);
        list.push(TaskInfo {
            id: view.id,
            name: thread.info.as_ref().map_or_else(String::new, |info| info.name.clone()),
            state: view.state,
            priority: view.base,
            effective_priority: view.effective,
            ran: Duration::from_nanos(thread.ran_ns),
            stack_bytes: thread.stack.map_or(0, |stack| stack.bytes),
            stack_used_bytes: thread.stack.map_or(0, |stack| stack.deepest_use()),
        });
    }
    list
}

/// A value of which every task has its own.
///
/// Made by [`task_local!`](crate::task_local). A task's value is made when it
/// first asks, and dropped when its body returns.
#[derive(Debug)]
pub struct TaskLocal<T: 'static> {
    make: fn() -> T,
}

impl<T: 'static> TaskLocal<T> {
    #[doc(hidden)]
    pub const fn new(make: fn() -> T) -> Self {
        Self { make }
    }

    /// Lets `user` use the running task's value.
    pub fn with<R>(&'static self, user: impl FnOnce(&T) -> R) -> R {
        let key = core::ptr::from_ref(self).addr();
        let value = match self.find(key) {
            Some(value) => value,
            None => {
                let made: Box<dyn Any> = Box::new((self.make)());
                let mut section = Section::enter();
                let running = section.running;
                section.thread_at(running).locals.push((key, made));
                drop(section);
                self.find(key).unwrap_or(core::ptr::null())
            }
        };
        // SAFETY: boxed, and so in its place whatever the list does; only this
        // task has it, and drops it at its end, not while it is here.
        user(unsafe { &*value })
    }

    fn find(&self, key: usize) -> Option<*const T> {
        let mut section = Section::enter();
        let running = section.running;
        let locals = &section.thread_at(running).locals;
        let (_, value) = locals.iter().find(|(other, _)| *other == key)?;
        value.downcast_ref::<T>().map(core::ptr::from_ref)
    }
}

/// Declares a value of which every task has its own.
///
/// ```
/// use cellule_guest::task;
/// use core::cell::Cell;
///
/// cellule_guest::task_local! {
///     static CALLS: Cell<u32> = Cell::new(0);
/// }
///
/// CALLS.with(|calls| calls.set(7));
/// let other = task::spawn(|| CALLS.with(Cell::get))?.join()?;
/// assert_eq!((CALLS.with(Cell::get), other), (7, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! task_local {
    ($($(#[$about:meta])* $vis:vis static $name:ident: $type:ty = $value:expr;)+) => {$(
        $(#[$about])*
        $vis static $name: $crate::task::TaskLocal<$type> =
            $crate::task::TaskLocal::new(|| $value);
    )+};
}
