//! The conformance suite on real KVM.

use cellule_hv::conformance::Table;
use cellule_hv_kvm::Kvm;

#[test]
fn kvm_conforms() {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => return println!("backends: none ({error})"),
    };
    println!("backends: kvm");
    let mut table = Table::default();
    table.run(&kvm);
    println!("{table}");
    assert!(table.failures().is_empty(), "{:#?}", table.failures());
}
