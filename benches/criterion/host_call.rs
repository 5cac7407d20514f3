//! `host_call_ns`: calls that call the host, next to as many bare doorbells.
//!
//! A call with N host calls rings N + 1 times, and so does its floor. The cost
//! of one host call is the difference to `calls_0`, divided by N.
#![allow(clippy::expect_used, reason = "a benchmark whose guest fails has nothing to say")]

use cellule_benches::floor::Floor;
use cellule_benches::subject::{Failure, hosted, ready};
use criterion::{BenchmarkId, Criterion};

fn main() -> Result<(), Failure> {
    if !ready() {
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("host_call_ns");

    let floor = Floor::new()?;
    let mut bell = floor.create()?;
    let mut sandbox = hosted()?;
    let double = sandbox.function::<(u64, u32), u64>("double_times")?;
    for times in [0_u32, 1, 10] {
        group.bench_function(BenchmarkId::new("floor", times), |b| {
            b.iter(|| (0..=times).for_each(|_| bell.ring().expect("the guest rings")));
        });
        group.bench_function(BenchmarkId::new("calls", times), |b| {
            b.iter(|| double.call(&mut sandbox, (1, times)).expect("the host doubles"));
        });
    }

    group.finish();
    criterion.final_summary();
    Ok(())
}
