//! Which hypervisor a sandbox runs on.

use std::sync::{Mutex, PoisonError};

use cellule_hv::Hypervisor;
use cellule_hv_kvm::{Kvm, OpenError};

/// Which hypervisor a sandbox runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backend {
    /// The best that this machine has.
    #[default]
    Auto,
    /// KVM, by /dev/kvm.
    Kvm,
}

/// No hypervisor can be used.
#[derive(Debug, thiserror::Error)]
#[error("this machine offers no hypervisor to run sandboxes on: {0}")]
pub struct NoHypervisor(#[from] OpenError);

/// What the machine was found to have: asked once in a process, as the asking
/// takes as long as creating a sandbox. A failure is not kept.
static KVM: Mutex<Option<Kvm>> = Mutex::new(None);

impl Backend {
    /// Says whether sandboxes can be created with this backend, without
    /// creating one.
    ///
    /// ```
    /// match cellule::Backend::Auto.probe() {
    ///     Ok(name) => println!("sandboxes would run on {name}"),
    ///     Err(missing) => println!("{missing}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NoHypervisor`] says in one sentence what is missing and how to get it.
    pub fn probe(self) -> Result<&'static str, NoHypervisor> {
        self.open().map(|hypervisor| hypervisor.name())
    }

    pub(crate) fn open(self) -> Result<Box<dyn Hypervisor>, NoHypervisor> {
        match self {
            Self::Auto | Self::Kvm => Ok(Box::new(kvm()?)),
        }
    }
}

fn kvm() -> Result<Kvm, OpenError> {
    let mut found = KVM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kvm) = &*found {
        return Ok(kvm.clone());
    }
    Ok(found.insert(Kvm::open()?).clone())
}
