//! A pipe: bytes from one task to another.

use core::fmt;

use cellule_rtos::{Condition, NoRoom, Patience, TaskId};

use crate::future::{Operation, Waiting};
use crate::kernel::{self, Core, Section, SectionCell};
use crate::sync::WaitError;
use crate::time::Timeout;

/// A stream of bytes between tasks, of which `N` are under way at most. It can be
/// a static, and never ends.
///
/// Reading and writing move as many bytes as there are or fit, at least one. With
/// the feature `embedded`, a `&Pipe` is a reader and a writer of `embedded-io`
/// and `embedded-io-async`.
///
/// A pipe is made for one reader and one writer. Of several that wait, the most
/// urgent is served first; the bytes of one that moves them in more than one go
/// may lie between another's, and who comes away empty queues anew.
///
/// ```
/// use cellule_guest::pipe::Pipe;
/// use cellule_guest::sync::{Timeout, WaitError};
/// use cellule_guest::task;
///
/// static LINE: Pipe<4> = Pipe::new();
///
/// let reader = task::spawn(|| {
///     let (mut text, mut part) = (Vec::new(), [0; 16]);
///     while !text.ends_with(b"\n") {
///         let count = LINE.read(&mut part, Timeout::Forever)?;
///         text.extend_from_slice(&part[..count]);
///     }
///     Ok::<_, WaitError>(text)
/// })?;
/// LINE.write_all(b"four at a time\n", Timeout::Forever)?;
/// assert_eq!(reader.join()??, b"four at a time\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pipe<const N: usize> {
    state: SectionCell<State<N>>,
}

/// Not all bytes were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteAllError {
    /// How many were, from the front.
    pub written: usize,
    /// Why not the rest.
    pub reason: WaitError,
}

impl fmt::Display for WriteAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no more than {} bytes were written: {}", self.written, self.reason)
    }
}

impl core::error::Error for WriteAllError {}

struct State<const N: usize> {
    ring: Ring<N>,
    readers: Condition,
    writers: Condition,
}

impl<const N: usize> Pipe<N> {
    /// An empty pipe.
    pub const fn new() -> Self {
        const { assert!(N > 0, "a pipe must have room for a byte") };
        let (readers, writers) = (Condition::new(), Condition::new());
        Self { state: SectionCell::new(State { ring: Ring::new(), readers, writers }) }
    }

    /// Moves bytes out of the pipe to the front of `buffer`: as many as there are
    /// and fit, at least one, unless the buffer is empty. Returns how many.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: there was none.
    ///
    /// # Blocking
    ///
    /// Until there is a byte or the time is over.
    pub fn read(&self, buffer: &mut [u8], timeout: impl Into<Timeout>) -> Result<usize, WaitError> {
        let wait = |state: &mut State<N>, core: &mut Core, patience| {
            state.readers.wait(core, patience);
        };
        self.repeat(timeout.into(), |section| self.take(section, buffer), wait)
    }

    /// Moves bytes out of the pipe if there are any, as [`Pipe::read`].
    ///
    /// # Errors
    ///
    /// [`WaitError::WouldBlock`]
    pub fn try_read(&self, buffer: &mut [u8]) -> Result<usize, WaitError> {
        self.read(buffer, Timeout::Now)
    }

    /// Reads as a future.
    ///
    /// # Blocking
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub fn read_async<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = usize> {
        Waiting::new(Reading { pipe: self, buffer })
    }

    /// Moves bytes from the front of `bytes` into the pipe: as many as fit, at
    /// least one, unless there are none. Returns how many.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: there was no room.
    ///
    /// # Blocking
    ///
    /// Until there is room for a byte or the time is over.
    pub fn write(&self, bytes: &[u8], timeout: impl Into<Timeout>) -> Result<usize, WaitError> {
        let wait = |state: &mut State<N>, core: &mut Core, patience| {
            state.writers.wait(core, patience);
        };
        self.repeat(timeout.into(), |section| self.put(section, bytes), wait)
    }

    /// Moves bytes into the pipe if any fit, as [`Pipe::write`].
    ///
    /// # Errors
    ///
    /// [`WaitError::WouldBlock`]
    pub fn try_write(&self, bytes: &[u8]) -> Result<usize, WaitError> {
        self.write(bytes, Timeout::Now)
    }

    /// Moves all of `bytes` into the pipe.
    ///
    /// # Errors
    ///
    /// [`WriteAllError`] says how many were.
    ///
    /// # Blocking
    ///
    /// Until the last one is in the pipe or the time is over.
    pub fn write_all(
        &self,
        bytes: &[u8],
        timeout: impl Into<Timeout>,
    ) -> Result<(), WriteAllError> {
        let timeout = absolute(timeout.into());
        let mut written = 0;
        while written < bytes.len() {
            written += self
                .write(&bytes[written..], timeout)
                .map_err(|reason| WriteAllError { written, reason })?;
        }
        Ok(())
    }

    /// Writes as a future, as [`Pipe::write`].
    ///
    /// # Blocking
    ///
    /// Dropped before it is ready, it has written nothing.
    pub fn write_async<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = usize> {
        Waiting::new(Writing { pipe: self, bytes })
    }

    /// How many bytes are in the pipe.
    pub fn len(&self) -> usize {
        self.state.with(&mut Section::enter(), |state, _| state.ring.len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes fit.
    pub const fn capacity(&self) -> usize {
        N
    }

    /// Tries until it works, and waits between.
    fn repeat(
        &self,
        timeout: Timeout,
        mut attempt: impl FnMut(&mut Section) -> Option<usize>,
        wait: fn(&mut State<N>, &mut Core, Patience),
    ) -> Result<usize, WaitError> {
        let mut section = Section::enter();
        if let Some(count) = attempt(&mut section) {
            section.reschedule();
            return Ok(count);
        }
        let timeout = absolute(timeout);
        loop {
            let patience = section.patience(timeout);
            if patience == Patience::None {
                return Err(section.refusal(timeout));
            }
            self.state.with(&mut section, |state, core| wait(state, core, patience));
            section.wait()?;
            section = Section::enter();
            if let Some(count) = attempt(&mut section) {
                section.reschedule();
                return Ok(count);
            }
        }
    }

    /// Takes bytes, and tells the writers that there is room.
    fn take(&self, section: &mut Section, buffer: &mut [u8]) -> Option<usize> {
        self.state.with(section, |state, core| {
            let count = state.ring.take(buffer);
            if count > 0 {
                state.writers.notify_all(core);
            }
            (count > 0 || buffer.is_empty()).then_some(count)
        })
    }

    /// Puts bytes in, and tells the readers. All of them: who is told may end
    /// before it comes to read, and the others would wait for ever.
    fn put(&self, section: &mut Section, bytes: &[u8]) -> Option<usize> {
        self.state.with(section, |state, core| {
            let count = state.ring.put(bytes);
            if count > 0 {
                state.readers.notify_all(core);
            }
            (count > 0 || bytes.is_empty()).then_some(count)
        })
    }
}

impl<const N: usize> Default for Pipe<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Pipe<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("len", &self.len()).field("capacity", &N).finish()
    }
}

/// A timeout that does not start anew with every wait.
fn absolute(timeout: Timeout) -> Timeout {
    match timeout {
        Timeout::After(duration) if !duration.is_zero() => Timeout::At(kernel::now() + duration),
        timeout => timeout,
    }
}

/// The bytes: `len` of them from `start` on, going round.
struct Ring<const N: usize> {
    bytes: [u8; N],
    start: usize,
    len: usize,
}

impl<const N: usize> Ring<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], start: 0, len: 0 }
    }

    /// Moves bytes from the ring to the front of `buffer`; how many.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.len);
        let before_end = count.min(N - self.start);
        buffer[..before_end].copy_from_slice(&self.bytes[self.start..self.start + before_end]);
        buffer[before_end..count].copy_from_slice(&self.bytes[..count - before_end]);
        self.start = (self.start + count) % N;
        self.len -= count;
        count
    }

    /// Moves bytes from the front of `bytes` to the ring; how many.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(N - self.len);
        let end = (self.start + self.len) % N;
        let before_end = count.min(N - end);
        self.bytes[end..end + before_end].copy_from_slice(&bytes[..before_end]);
        self.bytes[..count - before_end].copy_from_slice(&bytes[before_end..count]);
        self.len += count;
        count
    }
}

struct Reading<'a, const N: usize> {
    pipe: &'a Pipe<N>,
    buffer: &'a mut [u8],
}

impl<const N: usize> Operation for Reading<'_, N> {
    type Output = usize;

    fn attempt(&mut self, section: &mut Section) -> Option<usize> {
        self.pipe.take(section, self.buffer)
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.pipe.state.with(section, |state, core| core.enlist(state.readers.waiters(), 0))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.pipe
            .state
            .with(section, |state, core| core.enlist_again(place, state.readers.waiters()));
    }

    /// All readers were told.
    fn pass_on(&mut self, _: &mut Section) {}
}

struct Writing<'a, const N: usize> {
    pipe: &'a Pipe<N>,
    bytes: &'a [u8],
}

impl<const N: usize> Operation for Writing<'_, N> {
    type Output = usize;

    fn attempt(&mut self, section: &mut Section) -> Option<usize> {
        self.pipe.put(section, self.bytes)
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.pipe.state.with(section, |state, core| core.enlist(state.writers.waiters(), 0))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.pipe
            .state
            .with(section, |state, core| core.enlist_again(place, state.writers.waiters()));
    }

    /// All writers were told.
    fn pass_on(&mut self, _: &mut Section) {}
}

#[cfg(test)]
mod tests;
