//! Replays the committed corpora, and inputs at random, with the stable toolchain.

use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary, Unstructured};
use cellule_fuzz::{decode, guest::Guest, host, image};

/// Reads every file of a folder; its name is for messages.
fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("a readable file"))).collect()
}

/// Makes of bytes what libfuzzer-sys would make.
fn input<T: for<'a> Arbitrary<'a>>(bytes: &[u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(bytes)).ok()
}

fn replay(folder: &str, check: impl Fn(&[u8])) {
    let files = files(folder);
    assert!(files.len() >= 10, "{folder} should have seeds, not {}", files.len());
    for (path, bytes) in files {
        println!("{}", path.display());
        check(&bytes);
    }
}

/// Calls `check` with bytes at random, the same in every run (xorshift64).
fn at_random(check: impl Fn(&[u8])) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for len in (0..1024).cycle().take(20_000) {
        let bytes = (0..len).map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let [byte, ..] = random.to_le_bytes();
            byte
        });
        check(&bytes.collect::<Vec<u8>>());
    }
}

fn check_sent(bytes: &[u8]) {
    input::<decode::Sent>(bytes).iter().for_each(decode::check);
}

fn check_guest(bytes: &[u8]) {
    input::<Guest>(bytes).iter().for_each(host::run);
}

#[test]
fn no_file_of_the_image_corpora_breaks_a_promise() {
    replay("../crates/image/tests/corpus", image::check);
    replay("corpus/image_load", image::check);
}

#[test]
fn no_value_of_the_corpus_or_at_random_breaks_a_promise() {
    replay("corpus/decode", check_sent);
    at_random(check_sent);
}

#[test]
fn no_guest_of_the_corpus_or_at_random_breaks_a_promise() {
    replay("corpus/rings", check_guest);
    at_random(check_guest);
}
