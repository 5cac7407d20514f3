//! `bytes_ns`: a mebibyte in or out by a call, next to `memcpy` of as much.
#![allow(clippy::expect_used, reason = "a benchmark whose guest fails has nothing to say")]

use std::hint::black_box;

use cellule_benches::subject::{Failure, MIB, basics, ready};
use criterion::{Criterion, Throughput};

fn main() -> Result<(), Failure> {
    if !ready() {
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("bytes_ns");
    group.throughput(Throughput::Bytes(MIB));

    let bytes = vec![7_u8; usize::try_from(MIB)?];
    let mut copy = bytes.clone();
    group.bench_function("floor_memcpy", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&bytes)));
    });

    let mut sandbox = basics()?;
    let length = sandbox.function::<(&[u8],), u64>("length")?;
    group.bench_function("argument", |b| {
        b.iter(|| length.call(&mut sandbox, (&bytes,)).expect("length answers"));
    });
    let blob = sandbox.function::<(), Vec<u8>>("blob")?;
    group.bench_function("result", |b| {
        b.iter(|| blob.call(&mut sandbox, ()).expect("blob answers"));
    });
    let make = sandbox.function::<(u32,), Vec<u8>>("make_bytes")?;
    let len = u32::try_from(MIB)?;
    group.bench_function("result_made_by_guest", |b| {
        b.iter(|| make.call(&mut sandbox, (len,)).expect("make_bytes answers"));
    });

    group.finish();
    criterion.final_summary();
    Ok(())
}
