//! From a linear address to a guest physical one, by the guest's page tables.
//!
//! KVM's own way (KVM_TRANSLATE) reads as a supervisor would, and so finds no
//! user's page where SMAP is on; it is only used where there are other tables
//! than those of four levels (SDM volume 3, section 5.5).

use std::ffi::c_int;

use kvm_bindings::{kvm_sregs, kvm_translation};

use crate::kvm;
use crate::partition::Partition;

const PAGING: u64 = 1 << 31;
const LONG_MODE: u64 = 1 << 10;
const FIVE_LEVELS: u64 = 1 << 12;
const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Translates, whoever may reach for it.
pub(crate) fn translate(
    vcpu: c_int,
    system: &kvm_sregs,
    partition: &Partition,
    linear: u64,
) -> Option<u64> {
    if system.cr0 & PAGING == 0 {
        return Some(linear & 0xffff_ffff);
    }
    if system.efer & LONG_MODE != 0 && system.cr4 & FIVE_LEVELS == 0 {
        return walk(system.cr3, partition, linear);
    }
    let mut translation = kvm_translation { linear_address: linear, ..Default::default() };
    kvm::call(vcpu, &kvm::TRANSLATE, &mut translation).ok()?;
    (translation.valid != 0).then_some(translation.physical_address)
}

fn walk(root: u64, partition: &Partition, linear: u64) -> Option<u64> {
    let mut table = root & ADDRESS;
    for level in [3, 2, 1, 0] {
        let shift = 12 + 9 * level;
        let mut entry = [0; 8];
        partition.read(table | (linear >> shift & 511) << 3, &mut entry)?;
        let entry = u64::from_le_bytes(entry);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || level < 3 && entry & LARGE != 0 {
            let within = (1 << shift) - 1;
            return Some(entry & ADDRESS & !within | linear & within);
        }
        table = entry & ADDRESS;
    }
    None
}
