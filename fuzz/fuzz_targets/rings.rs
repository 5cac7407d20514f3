//! No guest, however it writes to the rings, makes the host break its promises.
#![no_main]

libfuzzer_sys::fuzz_target!(|guest: cellule_fuzz::guest::Guest| cellule_fuzz::host::run(&guest));
