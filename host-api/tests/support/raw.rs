//! The guest that does everything by hand.

use std::time::Duration;

use cellule::{CallError, Image, Policy, ReplyHandle, Sandbox, SandboxBuilder};
use cellule_test_guests::upcalls;

use super::backends;

/// Far longer than any call of these tests takes: none may hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test on every backend, with a maker of builders for the raw guest. Its
/// one import, `slow`, is allowed and not registered.
pub(crate) fn with_raw(test: impl Fn(&dyn Fn() -> SandboxBuilder)) {
    let image = Image::from_bytes(upcalls()).expect("the raw guest loads");
    for backend in backends() {
        let policy = Policy::deny_all().allow("slow");
        test(&|| Sandbox::builder(&image).backend(backend).policy(policy.clone()));
    }
}

/// A sandbox whose host function answers at once.
pub(crate) fn plain(builder: SandboxBuilder) -> Sandbox {
    deferring(builder, |reply, n| reply.reply(n + 1000))
}

/// A sandbox whose host function answers when it likes.
pub(crate) fn deferring(
    builder: SandboxBuilder,
    start: impl FnMut(ReplyHandle<u64>, u64) + Send + 'static,
) -> Sandbox {
    builder.deferred_host_function("slow", start).build().expect("a sandbox")
}

/// Calls of the raw guest's exports.
pub(crate) trait Ask {
    /// Calls an export; no call may hang.
    fn ask(&mut self, name: &str, numbers: [u64; 4]) -> Result<u64, CallError>;
}

impl Ask for Sandbox {
    fn ask(&mut self, name: &str, [a, b, c, d]: [u64; 4]) -> Result<u64, CallError> {
        self.call_within(LIMIT, name, (a, b, c, d))
    }
}
