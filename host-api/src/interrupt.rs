//! Stopping a call from another thread.

use cellule_kick::Kicker;

/// Ends a sandbox's call from any thread.
///
/// ```no_run
/// # fn f(mut sandbox: cellule::Sandbox) -> Result<(), cellule::CallError> {
/// let handle = sandbox.interrupt_handle();
/// let watchdog = std::thread::spawn(move || handle.interrupt());
/// let outcome = sandbox.call::<()>("spin_for_ever", ());
/// assert!(matches!(outcome, Err(cellule::CallError::Interrupted { .. })));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct InterruptHandle(pub(crate) Kicker);

impl InterruptHandle {
    /// Ends the call under way; if there is none, the next one ends before it
    /// starts, so that an interrupt that comes a moment early is not lost.
    ///
    /// A host function that is running is not stopped; the call ends when it returns.
    ///
    /// # Cost
    ///
    /// One signal if the guest is running, else one atomic store. Returns at once.
    pub fn interrupt(&self) {
        self.0.kick();
    }
}
