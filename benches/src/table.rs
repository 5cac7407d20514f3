//! The table that the report prints.

use std::fmt;

use cellule::Stats;
use cellule_benches::sample::Samples;
use cellule_benches::subject::KIB;

/// What the project promises of a quantity. Printed, never asserted: a clock
/// on a shared machine proves nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    /// The ratio of the medians is at most this.
    Ratio(f64),
    /// So many bytes are moved at not less than so many GB/s.
    Throughput { moved: u64, least: f64 },
    /// At most so many KiB.
    Resident { most_kib: f64 },
}

/// Of the floor and of Cellule, in nanoseconds: 10th percentile, median, 99th.
#[derive(Debug, Clone, Copy)]
struct Times {
    floor: [f64; 3],
    subject: [f64; 3],
}

/// One quantity.
#[derive(Debug)]
pub(crate) struct Row {
    quantity: &'static str,
    /// Absent for what is no time.
    times: Option<Times>,
    resident_bytes: f64,
    budget: Option<Budget>,
    cost: Option<Stats>,
}

impl Row {
    /// A quantity of time, next to its floor.
    pub(crate) fn new(quantity: &'static str, floor: &Samples, subject: &Samples) -> Self {
        let three = |samples: &Samples| [samples.p10_ns(), samples.median_ns(), samples.p99_ns()];
        let times = Some(Times { floor: three(floor), subject: three(subject) });
        Self { quantity, times, resident_bytes: 0.0, budget: None, cost: None }
    }

    /// A quantity of memory, which has no floor.
    pub(crate) fn resident(quantity: &'static str, resident_bytes: f64) -> Self {
        Self { quantity, times: None, resident_bytes, budget: None, cost: None }
    }

    /// Sets what was promised.
    pub(crate) fn within(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// Sets what one operation costs, exactly.
    pub(crate) fn costing(self, cost: Stats) -> Self {
        Self { cost: Some(cost), ..self }
    }

    /// The figure that the budget is about, the budget, and whether it is kept.
    fn verdict(&self) -> [String; 3] {
        let [_, floor, _] = self.times.map_or([f64::NAN; 3], |times| times.floor);
        let [_, subject, _] = self.times.map_or([f64::NAN; 3], |times| times.subject);
        let ratio = subject / floor;
        let (measured, budget, met) = match self.budget {
            None => return [format!("{ratio:.2} x"), "-".to_owned(), String::new()],
            Some(Budget::Ratio(most)) => {
                (format!("{ratio:.2} x"), format!("<= {most:.2} x"), ratio <= most)
            }
            Some(Budget::Throughput { moved, least }) => {
                // Bytes in a nanosecond are gigabytes in a second.
                let speed = count(moved) / subject;
                (format!("{speed:.1} GB/s"), format!(">= {least:.0} GB/s"), speed >= least)
            }
            Some(Budget::Resident { most_kib }) => {
                let kib = self.resident_bytes / count(KIB);
                (format!("{kib:.1} KiB"), format!("<= {most_kib:.0} KiB"), kib <= most_kib)
            }
        };
        [measured, budget, if met { "met" } else { "MISSED" }.to_owned()]
    }

    fn cells(&self) -> [String; COLUMNS] {
        let us = |ns: f64| format!("{:.1}", ns / 1e3);
        let times = self.times.map(|Times { floor, subject }| {
            let [floor_p10, floor, floor_p99] = floor;
            let [subject_p10, subject, subject_p99] = subject;
            let ratios = [subject_p10 / floor_p10, subject / floor].map(|r| format!("{r:.2}"));
            let [ratio_p10, ratio] = ratios;
            [us(floor), us(floor_p99), us(subject), us(subject_p99), ratio_p10, ratio]
        });
        let [floor, floor_p99, median, p99, ratio_p10, ratio] = times.unwrap_or_else(absent);
        let counts = self.cost.map(|c| {
            [c.exits, c.hypervisor_calls, c.bytes_in, c.bytes_out].map(|count| count.to_string())
        });
        let [exits, calls, bytes_in, bytes_out] = counts.unwrap_or_else(absent);
        let [measured, budget, met] = self.verdict();
        [
            self.quantity.to_owned(),
            floor,
            floor_p99,
            median,
            p99,
            ratio_p10,
            ratio,
            measured,
            budget,
            met,
            exits,
            calls,
            bytes_in,
            bytes_out,
        ]
    }
}

fn absent<const N: usize>() -> [String; N] {
    [const { String::new() }; N].map(|_| "-".to_owned())
}

const COLUMNS: usize = 14;

const HEADINGS: [&str; COLUMNS] = [
    "quantity",
    "floor us",
    "p99",
    "cellule us",
    "p99",
    "ratio p10",
    "ratio",
    "measured",
    "budget",
    "",
    "exits",
    "hv calls",
    "bytes in",
    "bytes out",
];

/// All quantities, in order.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = HEADINGS.map(str::to_owned);
        let rows: Vec<_> = [headings].into_iter().chain(self.0.iter().map(Row::cells)).collect();
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                let cells = rows.iter().filter_map(|row| row.get(column));
                let width = cells.map(String::len).max().unwrap_or(0);
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}
