//! `create_ns`: from an image to a first answer and back to nothing, next to
//! creating, running and closing a bare VM.
#![allow(clippy::expect_used, reason = "a benchmark whose guest fails has nothing to say")]

use cellule_benches::floor::Floor;
use cellule_benches::subject::{
    Failure, LARGE_HEAP_BYTES, SMALL_HEAP_BYTES, basics_image, create_call_drop, ready,
};
use criterion::Criterion;

fn main() -> Result<(), Failure> {
    if !ready() {
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("create_ns");

    let floor = Floor::new()?;
    // Beside it nothing is the first VM of the machine, nor the last: see README.
    let mut idle = floor.create()?;
    idle.ring()?;
    group.bench_function("floor", |b| {
        b.iter(|| floor.create_run_close().expect("a bare VM rings"));
    });

    let image = basics_image()?;
    for (name, heap) in [("heap_64_kib", SMALL_HEAP_BYTES), ("heap_256_mib", LARGE_HEAP_BYTES)] {
        group.bench_function(name, |b| {
            b.iter(|| create_call_drop(&image, heap).expect("a first call"));
        });
    }

    group.finish();
    criterion.final_summary();
    Ok(())
}
