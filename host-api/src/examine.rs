//! What a backend can do here, and how long its bare way out and back takes.

use std::time::Duration;

use cellule_hv::{Caps, gauge};

use crate::backend::{Backend, NoBackend};

impl Backend {
    /// Reports what this backend can do, by opening it and running a guest that
    /// does nothing but ring, `rings` times.
    ///
    /// ```
    /// let backend = cellule::Backend::for_development();
    /// let examined = backend.examine(100)?;
    /// println!("{}: {:?} at best", examined.backend, examined.doorbell.first());
    /// # Ok::<(), cellule::ExamineError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ExamineError`] if it cannot be opened or its guest does not run.
    ///
    /// # Cost
    ///
    /// Creates a partition and leaves it `rings` times.
    pub fn examine(self, rings: u32) -> Result<Examination, ExamineError> {
        let backend = self.probe()?;
        let hypervisor = backend.open()?;
        let Caps { vector_state, exact_dirty_pages } = hypervisor.capabilities();
        let doorbell = gauge::doorbell(&*hypervisor, rings);
        let doorbell = doorbell.map_err(|failure| ExamineError::Run { backend, failure })?;
        Ok(Examination { backend, vector_state, exact_dirty_pages, doorbell })
    }
}

/// What [`Backend::examine`] found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Examination {
    /// Which backend was examined.
    pub backend: Backend,
    /// The state components that a guest may use, as in XCR0; zero for those of
    /// FXSAVE alone.
    pub vector_state: u64,
    /// Whether it can tell exactly which pages a guest wrote.
    pub exact_dirty_pages: bool,
    /// How long each round trip to the host and back took, ascending.
    pub doorbell: Vec<Duration>,
}

/// A backend could not be examined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExamineError {
    /// It cannot be used here.
    #[error(transparent)]
    Missing(#[from] NoBackend),
    /// It opens, and then runs no guest.
    #[error("{backend} opens, and does not run a guest: {failure}")]
    Run {
        /// Which.
        backend: Backend,
        /// What came instead.
        failure: String,
    },
}
