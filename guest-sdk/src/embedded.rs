//! The faces that drivers and libraries for microcontrollers know, with the
//! feature `embedded`.
//!
//! * [`Delay`] is `embedded-hal`'s and `embedded-hal-async`'s `DelayNs`.
//! * A reference to a [`Pipe`] is a reader and a writer of `embedded-io` and
//!   `embedded-io-async`: the other end is another task's. `flush` has nothing to
//!   do, as what is written can be read at once.
//! * [`WaitError`] has an `embedded_io::ErrorKind`.
//!
//! [`critical`](crate::critical) sections are always there, and Embassy has a
//! feature of its own.

use cellule_rtos::Instant;
use embedded_hal::delay::DelayNs;
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};

use crate::future;
use crate::pipe::Pipe;
use crate::sync::{Timeout, WaitError};
use crate::time::{self, Duration};

/// Waits for drivers that must: the running task sleeps.
///
/// Where one may not wait (a timer's function, a critical section), it uses the
/// processor instead, as [`time::work`].
///
/// ```
/// use cellule_guest::embedded::Delay;
/// use cellule_guest::time::{self, Duration};
/// use embedded_hal::delay::DelayNs;
///
/// let start = time::now();
/// Delay.delay_us(150);
/// assert_eq!(time::now(), start + Duration::from_micros(150));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delay;

impl Delay {
    /// Sleeps until `end`, also if another task calls the wait off: a driver
    /// counts on it.
    fn until(end: Instant) {
        loop {
            match time::sleep_until(end) {
                Ok(()) => return,
                Err(WaitError::Cancelled) => {}
                Err(_) => return time::work(end.saturating_since(time::now())),
            }
        }
    }
}

// All three: by default the larger ones are many small ones.
impl DelayNs for Delay {
    fn delay_ns(&mut self, ns: u32) {
        Self::until(time::now() + Duration::from_nanos(ns.into()));
    }

    fn delay_us(&mut self, us: u32) {
        Self::until(time::now() + Duration::from_micros(us.into()));
    }

    fn delay_ms(&mut self, ms: u32) {
        Self::until(time::now() + Duration::from_millis(ms.into()));
    }
}

impl embedded_hal_async::delay::DelayNs for Delay {
    async fn delay_ns(&mut self, ns: u32) {
        future::sleep(Duration::from_nanos(ns.into())).await;
    }

    async fn delay_us(&mut self, us: u32) {
        future::sleep(Duration::from_micros(us.into())).await;
    }

    async fn delay_ms(&mut self, ms: u32) {
        future::sleep(Duration::from_millis(ms.into())).await;
    }
}

impl embedded_io::Error for WaitError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TimedOut => ErrorKind::TimedOut,
            Self::Cancelled => ErrorKind::Interrupted,
            Self::PeerDied => ErrorKind::BrokenPipe,
            Self::NoMemory => ErrorKind::OutOfMemory,
            Self::WouldBlock | Self::WrongContext => ErrorKind::Other,
        }
    }
}

impl<const N: usize> ErrorType for &Pipe<N> {
    type Error = WaitError;
}

impl<const N: usize> Read for &Pipe<N> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, WaitError> {
        Pipe::read(self, buffer, Timeout::Forever)
    }
}

impl<const N: usize> ReadReady for &Pipe<N> {
    fn read_ready(&mut self) -> Result<bool, WaitError> {
        Ok(!self.is_empty())
    }
}

impl<const N: usize> Write for &Pipe<N> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, WaitError> {
        Pipe::write(self, bytes, Timeout::Forever)
    }

    fn flush(&mut self) -> Result<(), WaitError> {
        Ok(())
    }
}

impl<const N: usize> WriteReady for &Pipe<N> {
    fn write_ready(&mut self) -> Result<bool, WaitError> {
        Ok(self.len() < N)
    }
}

impl<const N: usize> embedded_io_async::Read for &Pipe<N> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, WaitError> {
        Ok(self.read_async(buffer).await)
    }
}

impl<const N: usize> embedded_io_async::Write for &Pipe<N> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, WaitError> {
        Ok(self.write_async(bytes).await)
    }

    async fn flush(&mut self) -> Result<(), WaitError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
