//! The KVM backend.
//!
//! * [`Kvm`] is /dev/kvm with what is asked of it once: capabilities, CPUID.
//! * `template.rs` holds the control and shared pages that all partitions of
//!   an image map through one read-only slot, and the page tables, which they map
//!   in front of their private memory.
//! * `partition.rs` is one VM and one vCPU: create, run, exits, and where the
//!   guest goes on.
//! * `dirty.rs` reads the log of dirty pages.
//! * `clock.rs` says what a guest's `rdtsc` shows, `registers.rs` what its vector
//!   state is, and `probe.rs` looks where KVM's word is not enough.
//!
//! KVM's names, descriptors and errno stop here. There is no interrupt
//! controller, and no ioctl between two runs: registers travel through
//! `KVM_CAP_SYNC_REGS`, the doorbell's byte lies in the run page.
//!
//! Source of facts: <https://docs.kernel.org/virt/kvm/api.html>.
#![allow(
    unsafe_code,
    reason = "map guest memory, give a signal handler the run page's flag, read the TSC"
)]

mod clock;
mod dirty;
mod partition;
mod probe;
mod registers;
mod template;

use std::io;
use std::sync::{Arc, OnceLock};

use cellule_hv::{Caps, CreateError, Hypervisor, Plan, RunError, Template};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Cap;

/// An open /dev/kvm.
#[derive(Debug, Clone)]
pub struct Kvm(Arc<Device>);

/// What all partitions share: the device and what was asked of it once.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) kvm: kvm_ioctls::Kvm,
    pub(crate) cpuid: CpuId,
    pub(crate) features: registers::Features,
    /// What a guest saw that was made to look.
    sight: OnceLock<probe::Sight>,
}

impl Device {
    /// Returns what all guests see, and finds it out the first time. Two threads
    /// that ask at once may both do so.
    ///
    /// # Errors
    ///
    /// [`RunError`] if that fails: the next one to ask tries again.
    pub(crate) fn sight(self: &Arc<Self>) -> Result<probe::Sight, RunError> {
        if let Some(sight) = self.sight.get() {
            return Ok(*sight);
        }
        let found = probe::look(self)?;
        Ok(*self.sight.get_or_init(|| found))
    }
}

/// /dev/kvm cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such device.
    #[error(
        "/dev/kvm does not exist: load the module (modprobe kvm_intel or kvm_amd); \
         inside a virtual machine, first enable nested virtualisation for it on its host; \
         inside a container, pass the device in (--device /dev/kvm)"
    )]
    Missing,
    /// This user may not open it.
    #[error(
        "no permission to open /dev/kvm: add this user to the device's group \
         (usermod -aG kvm $USER, then log in again) or run as a user who may"
    )]
    Forbidden,
    /// The device is there and does not work.
    #[error("/dev/kvm does not answer as KVM ({0}): see what is mounted there, and dmesg")]
    Broken(#[source] io::Error),
    /// The kernel is too old, or its KVM too small.
    #[error("this kernel's KVM has no {capability}, which needs Linux 4.18 on x86-64")]
    Lacking {
        /// The capability's name.
        capability: &'static str,
    },
}

/// The only version that programs may use: `KVM_GET_API_VERSION` in KVM's
/// documentation. Another answer, or none, is another device.
const API_VERSION: i32 = 12;

/// What a partition cannot do without.
const NEEDED: [(Cap, &str); 4] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
];

impl Kvm {
    /// Opens /dev/kvm and asks what it can do.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is missing and how to get it.
    ///
    /// # Cost
    ///
    /// Some 300 us, most of it `KVM_GET_SUPPORTED_CPUID`: once a process. The
    /// first template, or the first question about capabilities, makes a guest
    /// that looks at what the processor shows: about two milliseconds more.
    pub fn open() -> Result<Self, OpenError> {
        let kvm = kvm_ioctls::Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => OpenError::Missing,
            libc::EACCES | libc::EPERM => OpenError::Forbidden,
            errno => OpenError::Broken(io::Error::from_raw_os_error(errno)),
        })?;
        if kvm.get_api_version() != API_VERSION {
            return Err(OpenError::Broken(io::Error::from_raw_os_error(libc::ENOTTY)));
        }
        for (capability, name) in NEEDED {
            if !kvm.check_extension(capability) {
                return Err(OpenError::Lacking { capability: name });
            }
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| OpenError::Broken(error.into()))?;
        let features = registers::Features::of(cpuid.as_slice());
        Ok(Self(Arc::new(Device { kvm, cpuid, features, sight: OnceLock::new() })))
    }
}

impl Hypervisor for Kvm {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn capabilities(&self) -> Caps {
        // Where there can be no guest that looks, no guest will ask: whoever has
        // a template need not fear the error.
        let shown = self.0.sight().ok().and_then(|sight| sight.xcr0);
        let vector_state = registers::vector_state(self.0.features.xcr0, shown);
        Caps { vector_state, exact_dirty_pages: true }
    }

    fn template(&self, plan: Plan) -> Result<Arc<dyn Template>, CreateError> {
        let refused = |RunError { step, source }| CreateError::Refused { step, source };
        self.0.sight().map_err(refused)?;
        Ok(Arc::new(template::KvmTemplate::new(Arc::clone(&self.0), plan)?))
    }
}
