//! Compiles the guest.

use cellule_build::{Guest, Profile};

fn main() {
    // Optimized in every build: an expression unoptimized is 50 times slower,
    // and there is nothing to debug on the way.
    Guest::new("guest").profile(Profile::Release).build();
}
