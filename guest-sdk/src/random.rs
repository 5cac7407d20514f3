//! Random numbers: ChaCha20 over a seed of the host's, without an exit.
//!
//! Each sandbox has a seed of its own, fresh from the host's system or, for runs that
//! repeat, chosen by the embedder. A guest that becomes a copy of another gets a new
//! one with its new [`generation`](crate::generation()): copies draw different numbers
//! from their first draw on, also if the host stopped the original within one.
//!
//! ```
//! use cellule_guest::random;
//!
//! let mut key = [0; 32];
//! random::fill(&mut key);
//! let dice = random::u64() % 6 + 1;
//! assert!((1..=6).contains(&dice) && key != [0; 32]);
//! ```
//!
//! With the feature `getrandom`, the crate of that name draws from here too, in its
//! versions 0.3 and 0.4, and so does all that builds on it. Whoever calls it without
//! the feature is not linked: `__getrandom_v03_custom` is missing.
//!
//! # What is kept
//!
//! One key of 32 bytes, which every draw replaces before it uses what the old one
//! gives, so that the numbers that were drawn do not follow from what is kept. The
//! seed is erased from the shared page when it is taken.
//!
//! # Blocking
//!
//! Never: any task, timer's function or critical section may draw. What the draw
//! masks upcalls for is short, whatever the length.
//!
//! # Cost
//!
//! No exit and no allocation. Four blocks of ChaCha20, 256 bytes, for up to 224 bytes;
//! the rest by length. Nothing is linked to a guest that does not draw.
//!
//! # Outside a guest
//!
//! The seed is the system's, by `/dev/urandom`.

use core::sync::atomic::{AtomicU64, Ordering};

use cellule_abi::page::SEED_BYTES;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use crate::kernel::{Section, SectionCell};
use crate::port;

/// A seed, as the words that can be read and erased one by one.
pub(crate) const SEED_WORDS: usize = SEED_BYTES / size_of::<u64>();

static POOL: SectionCell<Pool> = SectionCell::new(Pool::new());

/// Fills `bytes` with random ones.
///
/// # Panics
///
/// If the host gave no seed, or none for a new generation: there is nothing that a
/// guest could draw from then.
pub fn fill(bytes: &mut [u8]) {
    if let Err(error) = try_fill(bytes) {
        refuse(error);
    }
}

/// A random number.
///
/// # Panics
///
/// As [`fill`].
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The host gave no seed for this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoSeed {
    generation: u64,
}

/// [`fill`], for who has an answer to that.
pub(crate) fn try_fill(bytes: &mut [u8]) -> Result<(), NoSeed> {
    loop {
        let (mut stream, generation) = draw()?;
        stream.fill_bytes(bytes);
        // Of a guest that was copied meanwhile, all copies have these bytes.
        if port::generation() == generation {
            return Ok(());
        }
    }
}

#[cold]
#[expect(clippy::panic, reason = "a guest's panic ends the guest alone")]
fn refuse(NoSeed { generation }: NoSeed) -> ! {
    panic!("no random numbers: the host gave no seed for generation {generation}")
}

/// A stream that nobody else draws from, and the generation that it is for.
fn draw() -> Result<(ChaCha20Rng, u64), NoSeed> {
    let mut section = Section::enter();
    POOL.with(&mut section, |pool, _| {
        let generation = match pool.generation {
            Some(generation) if generation == port::generation() => generation,
            _ => {
                let (seed, generation) = take_seed(port::generation, port::seed())?;
                pool.reseed(seed, generation);
                generation
            }
        };
        Ok((pool.draw(), generation))
    })
}

/// Copies the seed and erases it. Whenever the host stops the guest and writes a new
/// generation and seed, the new seed is not erased untaken, and what is returned is no
/// mixture of two.
fn take_seed(
    generation: impl Fn() -> u64,
    words: [&AtomicU64; SEED_WORDS],
) -> Result<([u8; SEED_BYTES], u64), NoSeed> {
    loop {
        let before = generation();
        let taken = words.map(|word| word.load(Ordering::SeqCst));
        if generation() != before {
            continue;
        }
        erase(words, taken);
        if taken == [0; SEED_WORDS] {
            return Err(NoSeed { generation: before });
        }
        let mut seed = [0; SEED_BYTES];
        let bytes = taken.into_iter().flat_map(u64::to_le_bytes);
        seed.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        return Ok((seed, before));
    }
}

/// Erases what was taken: a word that is another by now is of a seed that was not.
fn erase(words: [&AtomicU64; SEED_WORDS], taken: [u64; SEED_WORDS]) {
    for (word, taken) in words.into_iter().zip(taken) {
        let _ = word.compare_exchange(taken, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// The state of the generator.
struct Pool {
    key: [u8; SEED_BYTES],
    /// For which generation the key was made; `None` before the first draw.
    generation: Option<u64>,
}

impl Pool {
    const fn new() -> Self {
        Self { key: [0; SEED_BYTES], generation: None }
    }

    /// Makes the key one that follows from the seed, the generation and the key before:
    /// it is secret if one of seed and key is.
    fn reseed(&mut self, seed: [u8; SEED_BYTES], generation: u64) {
        let mut stream = ChaCha20Rng::from_seed(seed);
        stream.set_stream(generation);
        let mut fresh = [0; SEED_BYTES];
        stream.fill_bytes(&mut fresh);
        self.key.iter_mut().zip(fresh).for_each(|(key, fresh)| *key ^= fresh);
        self.generation = Some(generation);
    }

    /// Replaces the key by the first bytes of its stream, and returns the others.
    fn draw(&mut self) -> ChaCha20Rng {
        let mut stream = ChaCha20Rng::from_seed(self.key);
        stream.fill_bytes(&mut self.key);
        stream
    }
}

#[cfg(test)]
mod tests;
