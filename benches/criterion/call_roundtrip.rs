//! `call_roundtrip_ns`: a call on a live sandbox, next to one bare doorbell.
#![allow(clippy::expect_used, reason = "a benchmark whose guest fails has nothing to say")]

use cellule_benches::floor::Floor;
use cellule_benches::subject::{Failure, basics, ready};
use criterion::Criterion;

fn main() -> Result<(), Failure> {
    if !ready() {
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("call_roundtrip_ns");

    let floor = Floor::new()?;
    let mut bell = floor.create()?;
    group.bench_function("floor", |b| b.iter(|| bell.ring().expect("the guest rings")));

    let mut sandbox = basics()?;
    let add = sandbox.function::<(i32, i32), i32>("add")?;
    group.bench_function("add_by_handle", |b| {
        b.iter(|| add.call(&mut sandbox, (2, 3)).expect("add answers"));
    });
    group.bench_function("add_by_name", |b| {
        b.iter(|| sandbox.call::<i32>("add", (2, 3)).expect("add answers"));
    });

    let text = "x".repeat(100);
    let echo = sandbox.function::<(&str,), String>("echo")?;
    group.bench_function("echo_100_bytes", |b| {
        b.iter(|| echo.call(&mut sandbox, (&text,)).expect("echo answers"));
    });

    group.finish();
    criterion.final_summary();
    Ok(())
}
