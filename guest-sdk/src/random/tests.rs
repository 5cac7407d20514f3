use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::array;
use core::cell::Cell;
use std::format;

use super::*;
use crate::sync::tests_support::spawn_at;
use crate::{critical, task};

/// 0, 1, 2 and so on.
fn counting(from: u8) -> [u8; SEED_BYTES] {
    array::from_fn(|at| from + u8::try_from(at).unwrap())
}

fn drawn<const N: usize>(pool: &mut Pool) -> [u8; N] {
    let mut bytes = [0; N];
    pool.draw().fill_bytes(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> alloc::string::String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_stream_is_chacha20_as_rfc_8439_has_it() {
    // RFC 8439, A.1, test vector 1: key, nonce and block counter of zeros. The first
    // half of the block becomes the next key.
    let mut pool = Pool::new();
    let second_half: [u8; 32] = drawn(&mut pool);
    assert_eq!(hex(&pool.key), "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7");
    assert_eq!(
        hex(&second_half),
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    );
    // Test vector 5: the last byte of the nonce is 2; the 64-bit nonce's is too.
    let mut stream = ChaCha20Rng::from_seed([0; 32]);
    stream.set_stream(2 << 56);
    let mut block = [0; 64];
    stream.fill_bytes(&mut block);
    assert_eq!(hex(&block[..8]), "c2c64d378cd53637");
}

#[test]
fn seeds_give_what_an_independent_implementation_gives() {
    // By a ChaCha20 of twenty lines of Python: what replays rely on does not change.
    let mut pool = Pool::new();
    pool.reseed(counting(0), 0);
    assert_eq!(hex(&drawn::<16>(&mut pool)), "2d41a59c90e41a8e7a4dccaa1c460699");
    assert_eq!(hex(&drawn::<8>(&mut pool)), "5fd844af20c38ddc");
    assert_eq!(hex(&drawn::<300>(&mut pool)[292..]), "ab0abd1428f0eeb1");
    pool.reseed(counting(32), 1);
    assert_eq!(hex(&drawn::<16>(&mut pool)), "fe9a8af8804e1ab6fd4e88145bbda4f3");
}

#[test]
fn pools_differ_by_seed_by_generation_and_by_what_was_before() {
    let mut seen = BTreeSet::new();
    for before in [None, Some(counting(9))] {
        for seed in [counting(0), counting(1)] {
            for generation in [0, 1] {
                let mut pool = Pool::new();
                before.into_iter().for_each(|seed| pool.reseed(seed, 0));
                pool.reseed(seed, generation);
                seen.insert(drawn::<16>(&mut pool));
            }
        }
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_draw_leaves_nothing_from_which_it_could_be_repeated() {
    let mut pool = Pool::new();
    pool.reseed(counting(0), 0);
    let first: [u8; 64] = drawn(&mut pool);
    let key = pool.key;
    let second: [u8; 64] = drawn(&mut pool);
    assert_ne!(first, second);
    assert!(!first.windows(32).any(|bytes| bytes == key), "a key should NOT be given out");
    assert_ne!(pool.key, key);
}

#[test]
fn fills_are_of_any_length_and_none_is_like_another() {
    let mut seen = BTreeSet::new();
    for len in [16, 17, 31, 32, 33, 223, 224, 225, 256, 1000, 100_000] {
        let mut bytes = std::vec![0; len];
        fill(&mut bytes);
        let (first, last) = (bytes[..16].to_vec(), bytes[len - 16..].to_vec());
        assert!(seen.insert(first.clone()));
        assert!(first == last || seen.insert(last));
        // Each bit is set in half of all bytes: of 100,000, in 50,000 ± 1,500, which
        // is nine standard deviations.
        for bit in (0..8).filter(|_| len == 100_000) {
            let set = bytes.iter().filter(|byte| *byte >> bit & 1 == 1).count();
            assert!((48_500..51_500).contains(&set), "bit {bit} is set {set} times");
        }
    }
    fill(&mut []);
    assert_ne!(u64(), u64());
}

#[test]
fn a_copy_draws_other_numbers_and_the_seed_is_erased() {
    // From here to its end the kernel is this thread's, and with it the page.
    drop(Section::enter());
    let draw_as = |generation, seed: u64| {
        // What two siblings have in common: the pool of the one they are copies of.
        port::become_copy(7, [5; SEED_WORDS]);
        POOL.with(&mut Section::enter(), |pool, _| *pool = Pool::new());
        let before = u64();
        port::become_copy(generation, [seed; SEED_WORDS]);
        let after = u64();
        assert_eq!(port::seed().map(|word| word.load(Ordering::Relaxed)), [0; SEED_WORDS]);
        (before, after)
    };
    let (left, right, again) = (draw_as(8, 1), draw_as(8, 2), draw_as(8, 1));
    assert_eq!(left.0, right.0, "the original's number is in both memories");
    assert_ne!(left.1, right.1);
    assert_eq!(left, again, "and all of it follows from the seeds");
    port::become_copy(0, [3; SEED_WORDS]);
}

#[test]
fn without_a_seed_nothing_is_drawn() {
    drop(Section::enter());
    port::become_copy(9, [0; SEED_WORDS]);
    let mut bytes = [0; 16];
    assert_eq!(try_fill(&mut bytes), Err(NoSeed { generation: 9 }));
    assert_eq!(bytes, [0; 16]);
    let refused = std::panic::catch_unwind(u64).unwrap_err();
    let text = refused.downcast_ref::<alloc::string::String>().unwrap();
    assert_eq!(text, "no random numbers: the host gave no seed for generation 9");
    port::become_copy(0, [4; SEED_WORDS]);
    assert_eq!(try_fill(&mut bytes), Ok(()), "a seed that comes later is taken");
}

#[test]
fn a_seed_that_changes_while_it_is_taken_is_taken_whole() {
    let words: [AtomicU64; SEED_WORDS] = array::from_fn(|_| AtomicU64::new(1));
    let write = |value| words.iter().for_each(|word| word.store(value, Ordering::Relaxed));
    let looks = Cell::new(0_usize);
    // The host makes copies between the first look at the generation and the second,
    // twice.
    let generation = || {
        let look = looks.replace(looks.get() + 1);
        match look {
            1 => write(2),
            3 => write(3),
            _ => {}
        }
        [0, 1, 1, 2, 2, 2][look]
    };
    let (seed, generation) = take_seed(generation, words.each_ref()).unwrap();
    assert_eq!(seed, array::from_fn(|at| if at % 8 == 0 { 3 } else { 0 }));
    assert_eq!((generation, looks.get()), (2, 6));
    assert_eq!(words.map(AtomicU64::into_inner), [0; SEED_WORDS]);
}

#[test]
fn a_seed_that_was_not_taken_is_not_erased() {
    let words: [AtomicU64; SEED_WORDS] = [1, 2, 3, 4].map(AtomicU64::new);
    erase(words.each_ref(), [1, 9, 3, 9]);
    assert_eq!(words.map(AtomicU64::into_inner), [0, 2, 0, 4]);
}

#[test]
fn tasks_and_critical_sections_draw_different_numbers() {
    let draw = || (0..10).map(|_| u64()).collect::<Vec<_>>();
    let tasks: Vec<_> = (10..14).map(|priority| spawn_at(priority, draw)).collect();
    let mut all: BTreeSet<_> = critical::with(|_| draw()).into_iter().collect();
    let other = task::spawn(draw).unwrap();
    for task in tasks.into_iter().chain([other]) {
        all.extend(task.join().unwrap());
    }
    assert_eq!(all.len(), 60);
}
