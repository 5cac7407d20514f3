//! Stopping a call from another thread.

use std::sync::Arc;

use cellule_kick::Kicker;

use crate::inbox::Inbox;

/// Ends a sandbox's call or run from any thread.
///
/// ```
/// # use cellule::{CallError, Image, Sandbox};
/// # let image = Image::from_bytes(cellule_test_guests::basics())?;
/// # let backend = cellule::Backend::for_development();
/// # let mut sandbox = Sandbox::builder(&image).backend(backend).build()?;
/// let handle = sandbox.interrupt_handle();
/// let watchdog = std::thread::spawn(move || handle.interrupt());
/// let outcome = sandbox.call::<()>("spin", ());
/// assert!(matches!(outcome, Err(CallError::Interrupted { .. })));
/// # watchdog.join().map_err(|_| "the watchdog panicked")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct InterruptHandle {
    kicker: Kicker,
    inbox: Arc<Inbox>,
}

impl InterruptHandle {
    pub(crate) fn new(kicker: Kicker, inbox: Arc<Inbox>) -> Self {
        Self { kicker, inbox }
    }

    /// Ends the call or run under way, also while the guest waits; if there is
    /// none, the next one ends before it starts, so that an interrupt that comes a
    /// moment early is not lost.
    ///
    /// A host function that is running is not stopped; the call ends when it returns.
    ///
    /// # Cost
    ///
    /// One signal if the guest is running, else an atomic store and a lock. Returns
    /// at once.
    pub fn interrupt(&self) {
        self.kicker.kick();
        self.inbox.wake();
    }
}
