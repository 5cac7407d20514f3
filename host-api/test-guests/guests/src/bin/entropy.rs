//! Draws random numbers, and looks at where they come from.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cellule_guest::abi::page::{GENERATION_OFFSET, SEED_BYTES, SEED_OFFSET};
use cellule_guest::prelude::*;
use cellule_guest::sync::{Queue, Timeout};
use cellule_guest::task::{Builder, Priority};
use cellule_guest::time::Duration;
use cellule_guest::timer::Timer;
use cellule_guest::{generation, on_new_generation, random};

/// What the hook was told last, plus one.
static TOLD: AtomicU64 = AtomicU64::new(0);

#[guest_function]
fn random_u64() -> u64 {
    random::u64()
}

#[guest_function]
fn random_bytes(len: u32) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    random::fill(&mut bytes);
    bytes
}

/// By the crate `getrandom` of both versions, half and half.
#[guest_function]
fn getrandom_bytes(len: u32) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; len as usize];
    let (old, new) = bytes.split_at_mut(len as usize / 2);
    getrandom_03::fill(old).map_err(|error| error.to_string())?;
    getrandom::fill(new).map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[guest_function]
fn present_generation() -> u64 {
    generation()
}

/// Registers a hook, and returns what it was told last, plus one.
#[guest_function]
fn hook() -> u64 {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        on_new_generation(|generation| TOLD.store(generation + 1, Ordering::Relaxed));
    }
    TOLD.load(Ordering::Relaxed)
}

/// The channel page, in which short arguments like `marker` lie.
fn channel_page(marker: &[u8]) -> usize {
    marker.as_ptr() as usize & !0xfff
}

/// The seed as it is in the channel page now.
#[guest_function]
fn seed_in_page(marker: &[u8]) -> Vec<u8> {
    let seed = (channel_page(marker) + SEED_OFFSET) as *const [u8; SEED_BYTES];
    // SAFETY: it is within the page, which is mapped.
    unsafe { seed.read_volatile() }.to_vec()
}

/// Whether the inverse of `inverted`, so that it is no find itself, is anywhere in the
/// upper page of the stack, the channel page or the first two of the heap.
#[guest_function]
fn holds(marker: &[u8], inverted: Vec<u8>) -> bool {
    let start = (channel_page(marker) - 4096) as *const u8;
    // SAFETY: the four pages are mapped, one behind the other.
    let byte = |at: usize| unsafe { start.add(at).read_volatile() };
    let is_at = |from: usize| (0..).zip(&inverted).all(|(at, no)| byte(from + at) == !no);
    (0..=4 * 4096 - inverted.len()).any(is_at)
}

/// Writes generation and seed, as only the host should.
#[guest_function]
fn forge(marker: &[u8], generation: u64, seed: Vec<u8>) {
    let page = channel_page(marker);
    let place = (page + SEED_OFFSET) as *mut u8;
    // SAFETY: both are within the page, which is mapped; that this is a lie to the own
    // runtime is the purpose.
    unsafe {
        ((page + GENERATION_OFFSET) as *mut u64).write_volatile(generation);
        for (at, byte) in seed.iter().take(SEED_BYTES).enumerate() {
            place.add(at).write_volatile(*byte);
        }
    }
}

/// What a task draws that draws all the time, and a more urgent one that preempts it
/// again and again, until that one has drawn `count`.
#[guest_function]
fn preempted(count: u32) -> Vec<u64> {
    static TICKS: Queue<u64, 1> = Queue::new();
    static OVER: AtomicBool = AtomicBool::new(false);
    let urgent = Builder::new().priority(Priority::new(20).unwrap()).spawn(move || {
        let mut drawn = Vec::new();
        while drawn.len() < count as usize {
            TICKS.receive(Timeout::Forever).unwrap();
            drawn.push(random::u64());
        }
        OVER.store(true, Ordering::Relaxed);
        drawn
    });
    // A tick that finds the last one untaken is lost: the task is on its way.
    let timer = Timer::calling(|| _ = TICKS.try_send(0));
    let period = Duration::from_micros(500);
    timer.start_periodic(period, period).unwrap();
    let mut drawn = Vec::new();
    while !OVER.load(Ordering::Relaxed) {
        // Of several blocks, so that it is also preempted in the midst of one.
        let mut words = [[0; 8]; 40];
        random::fill(words.as_flattened_mut());
        drawn.extend(words.map(u64::from_le_bytes));
        drawn.truncate(100_000);
    }
    timer.stop();
    drawn.extend(urgent.unwrap().join().unwrap());
    drawn
}
