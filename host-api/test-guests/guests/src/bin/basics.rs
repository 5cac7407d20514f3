//! Values of all kinds, there and back.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use cellule_guest::alloc::collections::BTreeMap;
use cellule_guest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Schema)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Serialize, Deserialize, Schema)]
enum Figure {
    Empty,
    Circle(Point, f64),
    Polygon { corners: Vec<Point>, name: Option<String> },
}

#[derive(Serialize, Deserialize, Schema)]
enum Trouble {
    Negative(i64),
    TooLarge { most: u32 },
}

static CALLS: AtomicU64 = AtomicU64::new(0);

#[guest_function]
fn add(a: i32, b: i32) -> i32 {
    a.wrapping_add(b)
}

#[guest_function]
fn nothing() {}

#[guest_function]
fn echo(text: &str) -> String {
    text.to_string()
}

#[guest_function]
fn echo_bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

#[guest_function]
fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

/// The sum, so that a test can tell that all bytes arrived.
#[guest_function]
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

#[guest_function]
fn make_bytes(len: u32) -> Vec<u8> {
    vec![7; len as usize]
}

/// The same bytes every time, so that a benchmark measures their way alone.
#[guest_function]
fn blob() -> &'static [u8] {
    static BLOB: [u8; 1 << 20] = [7; 1 << 20];
    &BLOB
}

#[guest_function]
fn count() -> u64 {
    CALLS.fetch_add(1, Ordering::Relaxed)
}

#[guest_function]
fn eight(a: u8, b: i16, c: u32, d: i64, e: u128, f: bool, g: char, h: &str) -> String {
    format!("{a} {b} {c} {d} {e} {f} {g} {h}")
}

#[guest_function]
fn root(n: i64) -> Result<u32, Trouble> {
    match n {
        n if n < 0 => Err(Trouble::Negative(n)),
        n if n > 1_000_000 => Err(Trouble::TooLarge { most: 1_000_000 }),
        n => Ok((0..=1000).take_while(|r| i64::from(r * r) <= n).last().unwrap_or(0)),
    }
}

#[guest_function]
fn describe(figures: Vec<Figure>) -> BTreeMap<String, f64> {
    let entry = |figure: Figure| match figure {
        Figure::Empty => ("empty".to_string(), 0.0),
        Figure::Circle(centre, radius) => ("circle".to_string(), centre.x + centre.y + radius),
        Figure::Polygon { corners, name } => {
            (name.unwrap_or_default(), corners.iter().map(|corner| corner.x * corner.y).sum())
        }
    };
    figures.into_iter().map(entry).collect()
}

#[guest_function]
fn spin() {
    loop {
        core::hint::spin_loop();
    }
}

/// Allocates and frees, and returns the most that was live in bytes.
#[guest_function]
fn churn(rounds: u32) -> u64 {
    let mut live: Vec<Vec<u8>> = Vec::new();
    let mut most = 0;
    for round in 0..rounds {
        live.push(vec![round as u8; (round as usize * 37) % 5000 + 1]);
        if round % 3 == 0 {
            live.swap_remove((round as usize * 7) % live.len());
        }
        most = most.max(live.iter().map(|bytes| bytes.len() as u64).sum());
        assert!(live.iter().all(|bytes| bytes.iter().all(|byte| *byte == bytes[0])));
    }
    most
}

/// Touches one byte in every page of a block of so many bytes.
#[guest_function]
fn fill_heap(bytes: u64) -> u64 {
    let mut block: Vec<u8> = Vec::with_capacity(bytes as usize);
    block.resize(bytes as usize, 1);
    block.iter().step_by(4096).map(|byte| u64::from(*byte)).sum()
}
