//! Guests draw random numbers, each its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use cellule::{Backend, BuildError, CallError, GuestFault, Image, Sandbox, Time};
use cellule_test_guests::entropy;
use support::{backends, on_every_backend};

const MARKER: &[u8] = b"m";
/// Far longer than any of these takes: none may hang.
const LIMIT: Duration = Duration::from_secs(20);
const NONE: [u8; 32] = [0; 32];

fn seeded(backend: Backend, seed: [u8; 32]) -> Sandbox {
    let image = Image::from_bytes(entropy()).unwrap();
    let builder = Sandbox::builder(&image).backend(backend);
    builder.time(Time::Virtual).seed(seed).build().unwrap()
}

fn bytes(sandbox: &mut Sandbox, len: u32) -> Vec<u8> {
    sandbox.call_within(LIMIT, "random_bytes", (len,)).unwrap()
}

#[test]
fn sandboxes_of_one_image_draw_different_numbers() {
    on_every_backend(entropy(), |make| {
        let mut drawn = BTreeSet::new();
        for _ in 0..8 {
            let mut sandbox = make();
            assert!(drawn.insert(bytes(&mut sandbox, 16)));
            assert!(drawn.insert(bytes(&mut sandbox, 16)));
        }
    });
}

#[test]
fn sandboxes_of_one_seed_draw_the_same_on_every_backend() {
    for backend in backends() {
        let mut sandbox = seeded(backend, [7; 32]);
        // By an independent implementation of ChaCha20, as in the SDK's own tests.
        let first: u64 = sandbox.call_within(LIMIT, "random_u64", ()).unwrap();
        assert_eq!(first, 0x0cdb_8565_5e19_63cb);
        let (more, crates) = (bytes(&mut sandbox, 1000), by_getrandom(&mut sandbox, 64));
        let mut again = seeded(backend, [7; 32]);
        assert_eq!(again.call_within::<u64>(LIMIT, "random_u64", ()).unwrap(), first);
        assert_eq!((bytes(&mut again, 1000), by_getrandom(&mut again, 64)), (more, crates));
    }
}

fn by_getrandom(sandbox: &mut Sandbox, len: u32) -> Vec<u8> {
    let drawn: Result<Vec<u8>, String> =
        sandbox.call_within(LIMIT, "getrandom_bytes", (len,)).unwrap();
    drawn.unwrap()
}

#[test]
fn the_crate_getrandom_draws_in_a_guest() {
    on_every_backend(entropy(), |make| {
        let mut sandbox = make();
        let drawn = by_getrandom(&mut sandbox, 64);
        let parts: BTreeSet<_> = drawn.chunks(16).collect();
        assert_eq!(parts.len(), 4, "{drawn:?}");
        assert!(by_getrandom(&mut sandbox, 0).is_empty());
    });
}

#[test]
fn drawn_bytes_are_spread_evenly() {
    for backend in backends() {
        let drawn = bytes(&mut seeded(backend, [1; 32]), 1 << 16);
        let mut counts = [0_u32; 256];
        drawn.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        // Each value is expected 256 times, with a standard deviation of 16. The seed is
        // fixed, and so is the outcome.
        assert!(counts.iter().all(|count| (176..336).contains(count)), "{counts:?}");
    }
}

#[test]
fn tasks_that_preempt_each_other_draw_different_numbers() {
    on_every_backend(entropy(), |make| {
        let drawn: Vec<u64> = make().call_within(LIMIT, "preempted", (20_u32,)).unwrap();
        let different: BTreeSet<_> = drawn.iter().collect();
        assert!(drawn.len() >= 60, "both should have drawn, not only {}", drawn.len());
        assert_eq!(different.len(), drawn.len());
    });
}

#[test]
fn a_seed_is_gone_from_the_guest_once_it_is_taken() {
    for backend in backends() {
        let mut sandbox = seeded(backend, [9; 32]);
        let in_page = |sandbox: &mut Sandbox| -> Vec<u8> {
            sandbox.call_within(LIMIT, "seed_in_page", (MARKER,)).unwrap()
        };
        assert_eq!(in_page(&mut sandbox), [9; 32], "it is there until it is taken");
        bytes(&mut sandbox, 1);
        assert_eq!(in_page(&mut sandbox), NONE);
    }
}

#[test]
fn a_guest_does_not_hold_the_seed_of_another() {
    for backend in backends() {
        let [own, other] = [[0x12_u8, 0xab], [0x34, 0xcd]].map(|pair| {
            let seed: Vec<_> = pair.into_iter().cycle().take(32).collect();
            <[u8; 32]>::try_from(seed).unwrap()
        });
        let inverted = |seed: [u8; 32]| seed.map(|byte| !byte).to_vec();
        let mut before = seeded(backend, other);
        bytes(&mut before, 1000);
        drop(before);
        let mut sandbox = seeded(backend, own);
        let mut holds = |seed| -> bool {
            sandbox.call_within(LIMIT, "holds", (MARKER, inverted(seed))).unwrap()
        };
        assert!(holds(own), "it has not taken it yet, so that it is there to be found");
        assert!(!holds(other));
    }
}

#[test]
fn a_guest_that_was_not_copied_is_of_generation_0_and_its_hook_is_not_called() {
    on_every_backend(entropy(), |make| {
        let mut sandbox = make();
        for _ in 0..3 {
            assert_eq!(sandbox.call::<u64>("present_generation", ()).unwrap(), 0);
            assert_eq!(sandbox.call::<u64>("hook", ()).unwrap(), 0);
        }
    });
}

#[test]
fn a_new_generation_calls_the_hook_before_the_next_call_and_brings_other_numbers() {
    for backend in backends() {
        // The guest plays the host: it writes what a restore would have.
        let drawn = [[2_u8; 32], [3; 32]].map(|fresh| {
            let mut sandbox = seeded(backend, [1; 32]);
            assert_eq!(sandbox.call::<u64>("hook", ()).unwrap(), 0);
            let before = bytes(&mut sandbox, 16);
            sandbox.call::<()>("forge", (MARKER, 5_u64, fresh.to_vec())).unwrap();
            assert_eq!(sandbox.call::<u64>("hook", ()).unwrap(), 6, "told of generation 5");
            (before, bytes(&mut sandbox, 16))
        });
        assert_eq!(drawn[0].0, drawn[1].0);
        assert_ne!(drawn[0].1, drawn[1].1);
    }
}

#[test]
fn a_guest_that_forges_generation_and_seed_hurts_only_itself() {
    for backend in backends() {
        let mut sibling = seeded(backend, [4; 32]);
        let mut forger = seeded(backend, [4; 32]);
        let first = bytes(&mut forger, 16);
        for generation in [1, u64::MAX] {
            // A seed that it chose itself: it knows what it draws, and nobody else cares.
            let forged = (MARKER, generation, vec![0xff_u8; 32]);
            forger.call_within::<()>(LIMIT, "forge", forged).unwrap();
            bytes(&mut forger, 16);
        }
        forger.call_within::<()>(LIMIT, "forge", (MARKER, 3_u64, NONE.to_vec())).unwrap();
        let error = forger.call_within::<u64>(LIMIT, "random_u64", ()).unwrap_err();
        assert!(matches!(error, CallError::Guest(GuestFault::Panic { .. })), "{error:?}");
        assert!(error.to_string().contains("gave no seed for generation 3"), "{error}");
        assert!(forger.poison().is_some());
        assert_eq!(bytes(&mut sibling, 16), first, "the sibling should not have noticed");
    }
}

#[test]
fn a_seed_of_zeros_is_refused() {
    let image = Image::from_bytes(entropy()).unwrap();
    for backend in backends() {
        let refused = Sandbox::builder(&image).backend(backend).seed(NONE).build();
        let Err(error @ BuildError::ZeroSeed) = refused else { panic!("it should be refused") };
        assert!(error.to_string().contains("choose another"));
    }
}

#[test]
fn no_debug_output_shows_a_seed() {
    for backend in backends() {
        let sandbox = seeded(backend, [0xa5; 32]);
        let text = format!("{sandbox:?} {:?}", sandbox.stats());
        assert!(!text.contains("165, 165") && !text.contains("a5a5"), "{text}");
    }
}
