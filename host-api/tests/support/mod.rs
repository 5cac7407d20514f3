//! What all tests that need a hypervisor share.
#![allow(dead_code, reason = "not every test file uses every helper")]

pub(crate) mod raw;

use std::ops::RangeInclusive;

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

/// How many calls into the hypervisor so many exits take, none of them a fault or a
/// kick. KVM finishes an `out` by itself. MSHV is told where to go on, but the first
/// time. A traced child is resumed, waited for, looked at and told, and now and then
/// follows its thread to another processor.
pub(crate) fn hypervisor_calls(backend: Backend, exits: u64) -> RangeInclusive<u64> {
    let calls = [
        (Backend::Kvm, exits..=exits),
        (Backend::Mshv, 2 * exits - 1..=2 * exits - 1),
        (Backend::Process, 4 * exits..=5 * exits),
    ];
    let (_, calls) =
        calls.into_iter().find(|(known, _)| *known == backend).expect("a backend of the table");
    calls
}

/// Runs a test on every backend, with a maker of fresh sandboxes of an image
/// that imports nothing.
pub(crate) fn on_every_backend(guest: &[u8], test: impl Fn(&dyn Fn() -> Sandbox)) {
    let image = Image::from_bytes(guest).expect("the test guest loads");
    for backend in backends() {
        test(&|| Sandbox::builder(&image).backend(backend).build().expect("a sandbox"));
    }
}
