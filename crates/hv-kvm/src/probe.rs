//! What ring 3 really sees of the processor, where KVM's word is not enough.
//!
//! Where KVM runs ring 3 on the bare processor (`kvm_pvm`), what it says of the
//! time stamp counter and of XSAVE need not be so: `clock.rs` and
//! `registers.rs` say what was found. So a guest looks, once for each opened
//! device: see [`cellule_hv::look`].

use std::sync::Arc;

use cellule_hv::RunError;
use cellule_hv::look::{self, Look};

use crate::Device;
use crate::clock::{self, Tsc};
use crate::partition::KvmPartition;
use crate::template::KvmTemplate;

/// What all guests of a device see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// `None` if nobody can tell what the time stamp counter shows.
    pub(crate) tsc: Option<Tsc>,
    /// What `xgetbv` shows of XCR0; `None` if there is no such instruction.
    pub(crate) xcr0: Option<u64>,
}

/// Makes the guest and has it look.
///
/// # Errors
///
/// [`RunError`] if there can be no guest, or it does what none should.
///
/// # Cost
///
/// A thread and a VM: 1.8 ms on the build machines.
pub(crate) fn look(device: &Arc<Device>) -> Result<Sight, RunError> {
    let make = |plan| KvmPartition::new(&KvmTemplate::new(Arc::clone(device), plan)?);
    let mut seen = look::look(make, clock::host_tsc)?;
    let tsc = recognise(&mut seen).ok().flatten();
    Ok(Sight { tsc, xcr0: seen.xcr0 })
}

/// Tells what the counter shows.
fn recognise(seen: &mut Look<KvmPartition>) -> Result<Option<Tsc>, RunError> {
    let offset = seen.partition.believed_tsc_offset()?;
    let khz = seen.partition.tsc_khz()?;
    let applies_offset = seen.tsc.applies(offset);
    Ok(applies_offset.map(|applies_offset| Tsc { khz, applies_offset }))
}
