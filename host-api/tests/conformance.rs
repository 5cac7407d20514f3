//! One suite, every backend: a table of both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use cellule::Backend;
use cellule_hv::Hypervisor;
use cellule_hv::conformance::Table;

fn open(backend: Backend) -> Box<dyn Hypervisor> {
    match backend {
        Backend::Kvm => Box::new(cellule_hv_kvm::Kvm::open().unwrap()),
        Backend::Mshv => Box::new(cellule_hv_mshv::Mshv::open().unwrap()),
        Backend::Process => Box::new(cellule_hv_process::Process::open().unwrap()),
        other => panic!("{other}: add it here"),
    }
}

#[test]
fn every_backend_passes_every_case() {
    let mut table = Table::default();
    for backend in support::backends() {
        table.run(&*open(backend));
    }
    println!("{table}");
    assert!(table.failures().is_empty(), "{:#?}", table.failures());
}
