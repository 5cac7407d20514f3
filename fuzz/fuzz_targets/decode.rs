//! Any bytes, however split, are one value or none.
#![no_main]

libfuzzer_sys::fuzz_target!(|sent: cellule_fuzz::decode::Sent| cellule_fuzz::decode::check(&sent));
