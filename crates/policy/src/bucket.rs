//! [`Rate`]: so much in a window of time; and [`Bucket`], which keeps count.

use std::time::Duration;

use crate::units::nanoseconds;

/// So much in a window of time: calls, bytes, or nanoseconds.
///
/// ```
/// use cellule_policy::Rate;
/// use std::time::Duration;
/// let rate = Rate::new(100, Duration::from_secs(1)).burst(200);
/// assert_eq!((rate.amount, rate.burst), (100, 200));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rate {
    /// How much comes back in each window.
    pub amount: u64,
    /// The window. Above 584 years it is as good as that.
    pub per: Duration,
    /// The most that can be there at once, and what is there at the start.
    pub burst: u64,
}

impl Rate {
    /// So much in each window, all of it at once if need be.
    pub const fn new(amount: u64, per: Duration) -> Self {
        Self { amount, per, burst: amount }
    }

    /// Sets the most that can be used at once.
    #[must_use]
    pub const fn burst(mut self, burst: u64) -> Self {
        self.burst = burst;
        self
    }
}

/// A token bucket: `burst` at the start, `amount` more in each window, never more
/// than `burst`.
///
/// It has no clock: who asks says what time it is, in nanoseconds. It counts in
/// fractions of a token so small that nothing is ever rounded: over any stretch of
/// time no more is taken than `burst` and the time's share of `amount`, and no
/// less can be. A clock that stands still or goes back adds nothing.
///
/// ```
/// use cellule_policy::{Bucket, Rate};
/// use std::time::Duration;
/// let mut bucket = Bucket::full(Rate::new(2, Duration::from_nanos(10)), 0);
/// assert!(bucket.take(2, 0) && !bucket.take(1, 4), "a token takes 5 ns");
/// assert!(bucket.take(1, 5) && !bucket.take(1, 9));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens for each window; also: fractions of a token for each nanosecond.
    amount: u64,
    /// Nanoseconds in a window; also: fractions that make a token.
    per_ns: u64,
    /// In fractions of a token. The product of two u64 always fits.
    most: u128,
    level: u128,
    /// The latest time that was seen.
    last_ns: u64,
}

impl Bucket {
    /// A full bucket at the time `now_ns`.
    pub fn full(rate: Rate, now_ns: u64) -> Self {
        // A window of no time would mean no limit at all; verification refuses it.
        let per_ns = nanoseconds(rate.per).max(1);
        let most = u128::from(rate.burst) * u128::from(per_ns);
        Self { amount: rate.amount, per_ns, most, level: most, last_ns: now_ns }
    }

    /// Whether so many tokens are there at the time `now_ns`.
    pub fn holds(&mut self, tokens: u64, now_ns: u64) -> bool {
        self.refill(now_ns);
        self.fractions(tokens) <= self.level
    }

    /// Takes so many tokens, or none if there are fewer; says which.
    pub fn take(&mut self, tokens: u64, now_ns: u64) -> bool {
        let there = self.holds(tokens, now_ns);
        if there {
            self.level -= self.fractions(tokens);
        }
        there
    }

    fn refill(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.last_ns);
        let gained = u128::from(elapsed_ns) * u128::from(self.amount);
        self.level = self.level.saturating_add(gained).min(self.most);
        self.last_ns = self.last_ns.max(now_ns);
    }

    fn fractions(&self, tokens: u64) -> u128 {
        u128::from(tokens) * u128::from(self.per_ns)
    }
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
