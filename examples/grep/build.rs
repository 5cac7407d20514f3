//! Compiles the guest.

use cellule_build::{Guest, Profile};

fn main() {
    // Optimized in every build: a regular expression is run over megabytes.
    Guest::new("guest").profile(Profile::Release).build();
}
