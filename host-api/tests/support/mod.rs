//! What all tests that need a hypervisor share.
#![allow(dead_code, reason = "not every test file uses every helper")]

pub(crate) mod raw;

use cellule::{Backend, Image, Sandbox};

/// The backends to test: what `CELLULE_BACKEND` names, or else all that this
/// machine has. Says on one line which those are.
pub(crate) fn backends() -> Vec<Backend> {
    let usable = Backend::usable();
    match Backend::Auto.probe() {
        Err(missing) if usable.is_empty() => {
            println!("backends: none, so this test runs nothing: {missing}");
        }
        _ => {
            println!("backends: {}", usable.iter().map(|b| b.name()).collect::<Vec<_>>().join(", "))
        }
    }
    usable
}

/// Runs a test on every backend, with a maker of fresh sandboxes of an image
/// that imports nothing.
pub(crate) fn on_every_backend(guest: &[u8], test: impl Fn(&dyn Fn() -> Sandbox)) {
    let image = Image::from_bytes(guest).expect("the test guest loads");
    for backend in backends() {
        test(&|| Sandbox::builder(&image).backend(backend).build().expect("a sandbox"));
    }
}
