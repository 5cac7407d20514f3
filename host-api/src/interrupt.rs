//! Stopping a call from another thread.

use cellule_kick::Kicker;

/// Ends a sandbox's call from any thread.
///
/// ```
/// # use cellule::{CallError, Image, Sandbox};
/// # if cellule::Backend::Auto.probe().is_err() { return Ok(()) }
/// # let image = Image::from_bytes(cellule_test_guests::basics())?;
/// # let mut sandbox = Sandbox::builder(&image).build()?;
/// let handle = sandbox.interrupt_handle();
/// let watchdog = std::thread::spawn(move || handle.interrupt());
/// let outcome = sandbox.call::<()>("spin", ());
/// assert!(matches!(outcome, Err(CallError::Interrupted { .. })));
/// # watchdog.join().map_err(|_| "the watchdog panicked")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
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
