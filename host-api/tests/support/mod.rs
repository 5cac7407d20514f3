//! What all tests that need a hypervisor share.
#![allow(dead_code, reason = "not every test file uses every helper")]

pub(crate) mod raw;

use cellule::{Backend, Image, Sandbox};

/// The backends that this machine has; says on one line which those are.
pub(crate) fn backends() -> Vec<Backend> {
    let (have, names): (Vec<_>, Vec<_>) = [Backend::Kvm]
        .into_iter()
        .filter_map(|backend| Some((backend, backend.probe().ok()?)))
        .unzip();
    match Backend::Kvm.probe() {
        Ok(_) => println!("backends: {}", names.join(", ")),
        Err(missing) => println!("backends: none, so this test runs nothing: {missing}"),
    }
    have
}

/// Runs a test on every backend, with a maker of fresh sandboxes of an image
/// that imports nothing.
pub(crate) fn on_every_backend(guest: &[u8], test: impl Fn(&dyn Fn() -> Sandbox)) {
    let image = Image::from_bytes(guest).expect("the test guest loads");
    for backend in backends() {
        test(&|| Sandbox::builder(&image).backend(backend).build().expect("a sandbox"));
    }
}
