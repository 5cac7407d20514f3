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

    /// What 10 of 100 operations do not exceed, in nanoseconds: the machine when
    /// nobody else uses it.
    pub fn p10_ns(&self) -> f64 {
        self.quantile_ns(0.1)
    }

    /// What 99 of 100 operations do not exceed, in nanoseconds.
    pub fn p99_ns(&self) -> f64 {
        self.quantile_ns(0.99)
    }

    /// What each of `steps` equal steps costs that these samples have more
    /// than `other`, which took turns with them. Compared rank by rank, so that
    /// a quantile of the result is the difference of the quantiles.
    #[must_use]
    pub fn per_step_over(&self, other: &Self, steps: u32) -> Self {
        let pairs = self.sorted().into_iter().zip(other.sorted());
        Self(pairs.map(|(more, less)| (more - less) / f64::from(steps)).collect())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank between 0 and the number of samples"
    )]
    fn quantile_ns(&self, quantile: f64) -> f64 {
        let sorted = self.sorted();
        let last = sorted.len().saturating_sub(1);
        let rank = (last as f64 * quantile).round() as usize;
        sorted.get(rank).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_its_rank() {
        let samples = Samples((0..=100).rev().map(f64::from).collect());
        assert_eq!((samples.p10_ns(), samples.median_ns(), samples.p99_ns()), (10.0, 50.0, 99.0));
        assert!(Samples::default().median_ns().is_nan());
    }

    #[test]
    fn a_step_costs_its_share_of_the_difference() {
        let (one, eleven) = (Samples(vec![20.0, 10.0]), Samples(vec![110.0, 120.0]));
        assert_eq!(eleven.per_step_over(&one, 10).median_ns(), 10.0);
    }

    #[test]
    fn contestants_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let note = |name| {
            let order = &order;
            let operation: Operation<'_> = Box::new(move || {
                order.borrow_mut().push(name);
                Ok(())
            });
            operation
        };
        let samples = interleave(Effort { rounds: 2, block: 2 }, &mut [note('a'), note('b')]);
        assert_eq!(samples.unwrap().len(), 2);
        assert_eq!(*order.borrow(), "abaabbaabb");
    }
}
