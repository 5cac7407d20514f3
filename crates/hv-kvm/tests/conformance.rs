//! The conformance suite on real KVM.

use cellule_hv::conformance;
use cellule_hv_kvm::Kvm;

#[test]
fn kvm_conforms() {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => return println!("backends: none ({error})"),
    };
    println!("backends: kvm");
    let outcomes = conformance::suite(&kvm);
    for outcome in &outcomes {
        let result = outcome.failure.as_deref().unwrap_or("ok");
        println!("kvm  {:45} {result}", outcome.name);
    }
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
