//! What a sandbox may ask of its host: nothing, unless said here.

use std::collections::BTreeSet;

use cellule_abi::HostError;

/// What a sandbox may do, as a value.
///
/// Registering a host function does not allow it. Log records are dropped
/// unless a level is allowed.
///
/// ```
/// use cellule_channel::{LogLevel, Policy, Verdict};
/// let policy = Policy::deny_all().allow("weekday").allow_log(LogLevel::Info);
/// assert_eq!(policy.judge("weekday"), Verdict::Allow);
/// assert_ne!(policy.judge("format_disk"), Verdict::Allow);
/// assert!(policy.allows_log(LogLevel::Warn) && !policy.allows_log(LogLevel::Debug));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    functions: BTreeSet<String>,
    log: Option<LogLevel>,
}

cellule_abi::codes! {
    /// How urgent a log record is; the numbers are those on the wire.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum LogLevel: u32 {
        /// Something failed.
        Error = 1,
        /// Something is odd.
        Warn = 2,
        /// Something of note happened.
        Info = 3,
        /// For the guest's author.
        Debug = 4,
        /// Everything.
        Trace = 5,
    }
}

/// Whether a host call may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not; the guest is told this code.
    Deny(HostError),
}

impl Policy {
    /// The policy that allows nothing: the default.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// Allows calls of one host function.
    #[must_use]
    pub fn allow(mut self, function: impl Into<String>) -> Self {
        self.functions.insert(function.into());
        self
    }

    /// Allows log records up to a level.
    #[must_use]
    pub fn allow_log(mut self, level: LogLevel) -> Self {
        self.log = Some(level);
        self
    }

    /// Judges a call of a host function by its name.
    pub fn judge(&self, function: &str) -> Verdict {
        match self.functions.contains(function) {
            true => Verdict::Allow,
            false => Verdict::Deny(HostError::Denied),
        }
    }

    /// Whether a log record of this level may pass.
    pub fn allows_log(&self, level: LogLevel) -> bool {
        self.log.is_some_and(|most| level <= most)
    }
}
