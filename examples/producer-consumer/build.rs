//! Compiles the guest.

fn main() {
    cellule_build::guest("guest");
}
