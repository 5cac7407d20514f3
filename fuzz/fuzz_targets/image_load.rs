//! Any bytes are an image that keeps its promises, or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cellule_fuzz::image::check(bytes));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], len: usize, max_len: usize, seed: u32| {
    let len = libfuzzer_sys::fuzzer_mutate(data, len, max_len);
    cellule_fuzz::image::change_a_word(&mut data[..len], seed);
    len
});
