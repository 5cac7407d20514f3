//! How long an operation may wait.

use core::time::Duration;

/// A point in a guest's monotonic time: nanoseconds since its sandbox was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The latest: more than 500 years, which no real clock shows.
    pub const MAX: Self = Self(u64::MAX);

    /// A point in time by its nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Its nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this; zero if it is not earlier.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This, and `duration` later; [`Instant::MAX`] if that is beyond all time.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        let room = (u64::MAX - self.0) as u128;
        #[expect(clippy::cast_possible_truncation, reason = "compared right here")]
        let nanos = if nanos > room { room as u64 } else { nanos as u64 };
        Self(self.0 + nanos)
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl core::ops::AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl core::ops::Sub for Instant {
    type Output = Duration;

    /// The time since `earlier`; zero if it is not earlier.
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

/// How long an operation may wait. Every waiting operation takes one.
///
/// ```
/// use cellule_rtos::{Instant, Patience, Timeout};
/// use core::time::Duration;
/// let now = Instant::from_nanos(5);
/// assert_eq!(Timeout::from(Duration::ZERO).resolve(now), Patience::None);
/// assert_eq!(Timeout::After(Duration::from_nanos(3)).resolve(now), Patience::Until(8));
/// assert_eq!(Timeout::After(Duration::MAX).resolve(now), Patience::Until(u64::MAX));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// Not at all.
    Now,
    /// At most this long from now. Zero is [`Timeout::Now`].
    After(Duration),
    /// Until this point in time. One in the past is over at once.
    At(Instant),
    /// For as long as it takes.
    Forever,
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

impl From<Instant> for Timeout {
    fn from(instant: Instant) -> Self {
        Self::At(instant)
    }
}

/// A [`Timeout`], seen from a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Do not wait.
    None,
    /// Wait until this many nanoseconds.
    Until(u64),
    /// Wait.
    Forever,
}

impl Timeout {
    /// What this means at `now`.
    pub const fn resolve(self, now: Instant) -> Patience {
        let end = match self {
            Self::Now => return Patience::None,
            Self::Forever => return Patience::Forever,
            Self::After(Duration::ZERO) => return Patience::None,
            Self::After(duration) => now.saturating_add(duration),
            Self::At(instant) => instant,
        };
        Patience::Until(end.0)
    }
}
