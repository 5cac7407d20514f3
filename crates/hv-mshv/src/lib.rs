//! The backend for Microsoft's hypervisor: /dev/mshv, on Linux as its root
//! partition.
//!
//! * [`Mshv`] is /dev/mshv with what is asked of it once: features, the clock.
//! * `template.rs` holds the control and shared pages that all partitions of an
//!   image map; `layout.rs` says which of them a guest may execute or write.
//! * `partition.rs` is one VM and one vCPU: create, run, exits, and where the
//!   guest goes on. `vm.rs` has the memory; `vcpu.rs` collects what the vCPU must
//!   be told, and `page.rs` is the page through which some of it travels without
//!   a call.
//! * `message.rs`, `registers.rs`, `features.rs`, `error.rs` translate: pure code.
//! * `dirty.rs` keeps account of written pages; `clock.rs` says what a guest's
//!   `rdtsc` shows.
//!
//! The hypervisor's names, descriptors and errno stop here. What differs from KVM:
//! an `out` is not stepped over, so each doorbell's successor takes the new
//! instruction pointer along; registers travel by calls, one for all that changed;
//! a run looks at no flag, so the signal that stops it comes again until it did.
//!
//! Sources of facts: the headers as `mshv-bindings` has them, Linux's drivers/hv,
//! and Microsoft's "Hypervisor Top Level Functional Specification".
#![allow(
    unsafe_code,
    reason = "read unions of the ABI and the register page, give a signal handler a flag, read the TSC"
)]

mod clock;
mod dirty;
mod error;
mod features;
mod layout;
mod message;
mod page;
mod partition;
mod registers;
mod template;
mod vcpu;
mod vm;

use std::io;
use std::sync::{Arc, OnceLock};

use cellule_hv::{Caps, CreateError, Hypervisor, Plan, RunError, Template, look};
use mshv_bindings::{
    hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_CLOCK_FREQUENCY as CLOCK_FREQUENCY,
    hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_FEATURES0 as PROCESSOR_FEATURES,
    hv_partition_property_code_HV_PARTITION_PROPERTY_PROCESSOR_XSAVE_FEATURES as XSAVE_FEATURES,
    hv_partition_property_code_HV_PARTITION_PROPERTY_SYNTHETIC_PROC_FEATURES as SYNTHETIC_FEATURES,
    mshv_create_partition_v2,
};
use mshv_ioctls::{MshvError, VmFd};

use crate::features::Features;
use crate::partition::MshvPartition;
use crate::template::MshvTemplate;

/// An open /dev/mshv.
#[derive(Debug, Clone)]
pub struct Mshv(Arc<Device>);

/// What all partitions share: the device and what was asked of it once.
#[derive(Debug)]
pub(crate) struct Device {
    mshv: mshv_ioctls::Mshv,
    pub(crate) features: Features,
    /// The time stamp counter's frequency, told or, once asked for, measured.
    tsc_khz: OnceLock<u64>,
    /// What a guest saw that was made to look.
    sight: OnceLock<Sight>,
}

/// What all guests of a device see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Whether the offset that the hypervisor believes in is what a guest sees,
    /// rather than none; `None` if nobody can tell what it sees.
    pub(crate) applies_offset: Option<bool>,
    /// What `xgetbv` shows of XCR0; `None` if there is no such instruction.
    xcr0: Option<u64>,
}

/// /dev/mshv cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such device.
    #[error(
        "/dev/mshv does not exist: this needs Linux as the root partition of Microsoft's \
         hypervisor (for example Azure Linux with kernel-mshv) with the module mshv_root; \
         inside a container, pass the device in (--device /dev/mshv)"
    )]
    Missing,
    /// This user may not open it.
    #[error(
        "no permission to open /dev/mshv: let this user's group open the device \
         (a udev rule; by default only root may) or run as a user who may"
    )]
    Forbidden,
    /// The device is there and does not work.
    #[error("/dev/mshv does not make a VM ({0}): see what is mounted there, and dmesg")]
    Broken(#[source] io::Error),
}

impl Mshv {
    /// Opens /dev/mshv, and has it make a VM to see what it can do.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is missing and how to get it.
    ///
    /// # Cost
    ///
    /// A VM without memory: once a process. The first template, or the first
    /// question about capabilities, makes a guest that looks at what the
    /// processor shows: another VM.
    pub fn open() -> Result<Self, OpenError> {
        let mshv = mshv_ioctls::Mshv::new().map_err(not_opened)?;
        let vm = create_vm(&mshv).map_err(OpenError::Broken)?;
        // What is not told is not there.
        let property = |code| error::persist(|| vm.get_partition_property(code)).unwrap_or(0);
        let features = Features::of(property(PROCESSOR_FEATURES), property(XSAVE_FEATURES));
        let told = clock::khz_of(property(CLOCK_FREQUENCY));
        let tsc_khz = told.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self(Arc::new(Device { mshv, features, tsc_khz, sight: OnceLock::new() })))
    }
}

/// Why the device could not be opened.
fn not_opened(error: MshvError) -> OpenError {
    match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => OpenError::Missing,
        libc::EACCES | libc::EPERM => OpenError::Forbidden,
        _ => OpenError::Broken(error::translate(error)),
    }
}

impl Device {
    /// Makes a VM without memory.
    pub(crate) fn create_vm(&self) -> io::Result<VmFd> {
        create_vm(&self.mshv)
    }

    /// Returns what all guests see, and finds it out the first time. Two threads
    /// that ask at once may both do so.
    ///
    /// # Errors
    ///
    /// [`RunError`] if that fails: the next one to ask tries again.
    pub(crate) fn sight(self: &Arc<Self>) -> Result<Sight, RunError> {
        if let Some(sight) = self.sight.get() {
            return Ok(*sight);
        }
        let make = |plan| MshvPartition::new(&MshvTemplate::new(Arc::clone(self), plan)?);
        let mut seen = look::look(make, clock::host_tsc)?;
        // Where the hypervisor tells no offset, a guest may still see that there
        // is none.
        let offset = seen.partition.believed_tsc_offset().unwrap_or(0);
        let found = Sight { applies_offset: seen.tsc.applies(offset), xcr0: seen.xcr0 };
        Ok(*self.sight.get_or_init(|| found))
    }

    /// The time stamp counter's frequency; `None` if it cannot be found out.
    ///
    /// # Blocking
    ///
    /// For 20 ms the first time, if the hypervisor does not tell.
    pub(crate) fn tsc_khz(&self) -> Option<u64> {
        Some(*self.tsc_khz.get_or_init(clock::measure_khz)).filter(|khz| *khz != 0)
    }
}

/// Makes a VM that has all features of the machine's processor and nothing that
/// Hyper-V adds: no synthetic interrupts, timers or hypercalls.
///
/// There is no interrupt controller either, which would take guest memory away.
fn create_vm(mshv: &mshv_ioctls::Mshv) -> io::Result<VmFd> {
    let arguments = mshv_create_partition_v2::default();
    let vm = error::persist(|| mshv.create_vm_with_args(&arguments))?;
    // Such a property can only be set before the VM is initialised.
    error::persist(|| vm.set_partition_property(SYNTHETIC_FEATURES, 0))?;
    error::persist(|| vm.initialize())?;
    Ok(vm)
}

impl Hypervisor for Mshv {
    fn name(&self) -> &'static str {
        "mshv"
    }

    fn capabilities(&self) -> Caps {
        // Where there can be no guest that looks, no guest will ask: whoever has
        // a template need not fear the error.
        let shown = self.0.sight().ok().and_then(|sight| sight.xcr0);
        let vector_state = features::vector_state(self.0.features.xcr0, shown);
        Caps { vector_state, exact_dirty_pages: true }
    }

    fn template(&self, plan: Plan) -> Result<Arc<dyn Template>, CreateError> {
        let refused = |RunError { step, source }| CreateError::Refused { step, source };
        self.0.sight().map_err(refused)?;
        Ok(Arc::new(MshvTemplate::new(Arc::clone(&self.0), plan)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_opened_says_what_to_do() {
        let cases = [
            (libc::ENOENT, "kernel-mshv"),
            (libc::ENODEV, "kernel-mshv"),
            (libc::ENXIO, "kernel-mshv"),
            (libc::EACCES, "udev rule"),
            (libc::EPERM, "udev rule"),
            (libc::EMFILE, "dmesg"),
        ];
        for (errno, remedy) in cases {
            let text = not_opened(MshvError::from(errno)).to_string();
            assert!(text.contains(remedy), "{errno}: {text}");
        }
    }
}
