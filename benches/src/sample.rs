//! Samples of contestants that take turns, and their order statistics.

use std::time::Instant;

use crate::subject::Failure;

/// One operation, repeated.
pub type Operation<'a> = Box<dyn FnMut() -> Result<(), Failure> + 'a>;

/// How long each operation took, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Turns of each contestant.
    pub rounds: u32,
    /// Operations in a turn.
    pub block: u32,
}

/// Lets the contestants take turns: A, B, C, A, B, C, ... in blocks, so that
/// whatever else the machine does falls on all of them.
///
/// Every contestant makes one untimed operation first.
///
/// # Errors
///
/// Those of the operations.
pub fn interleave(
    effort: Effort,
    contestants: &mut [Operation<'_>],
) -> Result<Vec<Samples>, Failure> {
    for operation in contestants.iter_mut() {
        operation()?;
    }
    let mut samples = vec![Samples::default(); contestants.len()];
    for _ in 0..effort.rounds {
        for (operation, samples) in contestants.iter_mut().zip(&mut samples) {
            for _ in 0..effort.block {
                let began = Instant::now();
                operation()?;
                samples.0.push(began.elapsed().as_secs_f64() * 1e9);
            }
        }
    }
    Ok(samples)
}

impl Samples {
    /// The median, in nanoseconds.
    pub fn median_ns(&self) -> f64 {
        self.quantile_ns(0.5)
    }

    /// What 99 of 100 operations do not exceed, in nanoseconds.
    pub fn p99_ns(&self) -> f64 {
        self.quantile_ns(0.99)
    }

    /// What each of `steps` equal steps costs that these samples have more
    /// than `other`, which was measured in turn with them.
    #[must_use]
    pub fn per_step_over(&self, other: &Self, steps: u32) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(more, less)| (more - less) / f64::from(steps)).collect())
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank between 0 and the number of samples"
    )]
    fn quantile_ns(&self, quantile: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let rank = (last as f64 * quantile).round() as usize;
        sorted.get(rank).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_p99_near_the_end() {
        let samples = Samples((0..=100).rev().map(f64::from).collect());
        assert_eq!((samples.median_ns(), samples.p99_ns()), (50.0, 99.0));
        assert!(Samples::default().median_ns().is_nan());
    }

    #[test]
    fn a_step_costs_its_share_of_the_difference() {
        let (one, eleven) = (Samples(vec![10.0, 20.0]), Samples(vec![110.0, 120.0]));
        assert_eq!(eleven.per_step_over(&one, 10).median_ns(), 10.0);
    }

    #[test]
    fn contestants_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let note = |name| {
            let order = &order;
            Box::new(move || Ok(order.borrow_mut().push(name))) as Operation<'_>
        };
        let samples = interleave(Effort { rounds: 2, block: 2 }, &mut [note('a'), note('b')]);
        assert_eq!(samples.unwrap().len(), 2);
        assert_eq!(*order.borrow(), "abaabbaabb");
    }
}
