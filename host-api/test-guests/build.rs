//! Compiles the guests.

fn main() {
    cellule_build::guest("guests");
}
