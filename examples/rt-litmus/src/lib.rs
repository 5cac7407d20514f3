//! Runs litmus scripts on the tasks of a guest: one sandbox a script, in virtual time.
#![forbid(unsafe_code)]

use cellule::{Backend, CallError, Image, LoadError, Sandbox, Time};

/// The guest in `guest/`, as this package's build script compiled it.
const GUEST: &[u8] = include_bytes!(env!("CELLULE_GUEST_RT_LITMUS_GUEST"));

/// Loads the guest.
///
/// # Errors
///
/// None that a user could mend: it was compiled with this program.
pub fn image() -> Result<Image, LoadError> {
    Image::from_bytes(GUEST)
}

/// A script was not run to its end.
#[derive(Debug)]
pub enum Failure {
    /// It is no script: the line and the reason.
    Malformed(String),
    /// The sandbox could not be built, or the guest failed.
    Sandbox(String),
}

/// Runs one script in a sandbox of its own and returns its trace.
///
/// # Errors
///
/// [`Failure`]
pub fn run(image: &Image, script: &str) -> Result<String, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Sandbox(error.to_string());
    let builder = Sandbox::builder(image).time(Time::Virtual);
    let builder = builder.backend(Backend::for_development());
    let mut sandbox = builder.build().map_err(|error| failed(&error))?;
    let trace: Result<Result<String, String>, CallError> = sandbox.call("run", (script,));
    trace.map_err(|error| failed(&error))?.map_err(Failure::Malformed)
}
