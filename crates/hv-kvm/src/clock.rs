//! What a guest's `rdtsc` shows.
//!
//! KVM gives each VM an offset to the host's time stamp counter, and the
//! processor adds it: with VT-x and SVM. Where ring 3 runs on the bare processor
//! (`kvm_pvm`) nobody does. The `kvm_pvm` of the build machines says so: it
//! reports an offset of zero, whatever is set. But that is up to each KVM, and a
//! clock that is wrong by the time since the machine's start would be found out
//! late. So a guest has a look: see `probe.rs`.

use std::arch::x86_64::_rdtsc;
use std::io;

use cellule_hv::RunError;
use cellule_hv::clock::{ATTEMPTS, Together};
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// What all guests see of the time stamp counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tsc {
    pub(crate) khz: u32,
    /// Whether KVM's offset is what a guest sees, rather than none.
    pub(crate) applies_offset: bool,
}

/// IA32_TIME_STAMP_COUNTER: SDM volume 4, table 2-2.
const MSR_TSC: u32 = 0x10;

/// The offset that KVM believes in: what it says that the guest reads now, less
/// what the host reads. Returns how many ioctls it took, too.
///
/// `KVM_VCPU_TSC_OFFSET` would say it to the cycle, but only from Linux 5.16 on;
/// this errs by half the time that an ioctl takes at most.
pub(crate) fn believed_offset(vcpu: &VcpuFd) -> Result<(i64, u64), RunError> {
    let mut best = None;
    for _ in 0..ATTEMPTS {
        let Together { value, tsc, took } = Together::read(host_tsc, || msr_tsc(vcpu));
        let found = (took, value?.wrapping_sub(tsc).cast_signed());
        best = Some(best.map_or(found, |best| found.min(best)));
    }
    Ok((best.map_or(0, |(_, offset)| offset), u64::from(ATTEMPTS)))
}

fn msr_tsc(vcpu: &VcpuFd) -> Result<u64, RunError> {
    const STEP: &str = "read the guest's time stamp counter";
    let entry = kvm_msr_entry { index: MSR_TSC, ..Default::default() };
    let none = || RunError { step: STEP, source: io::ErrorKind::Unsupported.into() };
    let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| none())?;
    let read = vcpu.get_msrs(&mut msrs);
    let read = read.map_err(|error| RunError { step: STEP, source: error.into() })?;
    let entry = msrs.as_slice().first().filter(|_| read == 1).ok_or_else(none)?;
    Ok(entry.data)
}

pub(crate) fn host_tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets
    // programs use it unless they forbid it to themselves (PR_SET_TSC).
    unsafe { _rdtsc() }
}
