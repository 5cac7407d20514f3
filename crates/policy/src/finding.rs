//! [`Finding`]: what static verification finds wrong, and with what.

use std::fmt;
use std::time::Duration;

use crate::toml::meant;

/// What a rule is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// All host functions together.
    Sandbox,
    /// The host function of this name.
    Function(String),
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// It names a function that the image does not import.
    #[error("function `{function}`: the image imports no such function{}", meant(.nearest.as_deref()))]
    NotImported {
        /// The name.
        function: String,
        /// The import that is most like it.
        nearest: Option<String>,
    },
    /// It names a function that the host has not registered.
    #[error("function `{function}`: the host registered no such function{}", meant(.nearest.as_deref()))]
    NotRegistered {
        /// The name.
        function: String,
        /// The function that is most like it.
        nearest: Option<String>,
    },
    /// A denied function has a rule.
    #[error(
        "function `{function}`: it is denied and has the rule `{rule}`: allow it, or remove the rule"
    )]
    RuleOfDenied {
        /// The function.
        function: String,
        /// The rule.
        rule: &'static str,
    },
    /// A function may more than all functions together.
    #[error(
        "function `{function}`: `{rule}` is {value}, above the sandbox's {limit}: lower it, or raise the sandbox's"
    )]
    AboveSandbox {
        /// The function.
        function: String,
        /// The rule.
        rule: &'static str,
        /// What it may.
        value: u64,
        /// What all may.
        limit: u64,
    },
    /// A rule allows longer values than the sandbox's messages are.
    #[error(
        "{place}: `{rule}` is {bytes} bytes, and no message of this sandbox is longer than {limit}: lower it, or raise `message_bytes`"
    )]
    AboveMessage {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
        /// What it allows.
        bytes: u64,
        /// The longest message.
        limit: u64,
    },
    /// A limit is zero, so that nothing could ever happen that is allowed.
    #[error("{place}: `{rule}` is 0, which {means}: raise it, or remove the rule")]
    Zero {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
        /// What that would mean.
        means: &'static str,
    },
    /// Nothing ever comes back to a bucket.
    #[error(
        "{place}: `{rule}` gives 0 in each {per:?}: what is allowed is used up for good after the burst of {burst}"
    )]
    ZeroRate {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
        /// The window.
        per: Duration,
        /// What there is at first.
        burst: u64,
    },
    /// A window of time has no length.
    #[error(
        "{place}: `{rule}` gives {amount} in each 0 ns, which limits nothing: name a window of time"
    )]
    ZeroWindow {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
        /// What each window gives.
        amount: u64,
    },
    /// A bucket never holds anything.
    #[error(
        "{place}: `{rule}` has a burst of {burst}: below 1 nothing is ever allowed, although {amount} come in each window"
    )]
    NoBurst {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
        /// What each window gives.
        amount: u64,
        /// The most that can be there.
        burst: u64,
    },
    /// The longest arguments never fit into a bucket.
    #[error(
        "{place}: `argument_bytes` is {bytes}, and `bytes` never holds more than {burst}: raise the burst, or lower the limit"
    )]
    NeverFits {
        /// What the rules are of.
        place: Place,
        /// The longest arguments.
        bytes: u64,
        /// The most that the bucket holds.
        burst: u64,
    },
    /// Nobody enforces the rule yet: a policy must not look stricter than it is.
    #[error(
        "{place}: `{rule}` is not enforced by this version: remove it, and set `call_deadline`"
    )]
    NotEnforced {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
    },
    /// More is to be recorded than a record can have: no such call could be.
    #[error("{place}: `{rule}` keeps {bytes} bytes, and a record has room for {limit}: lower it")]
    RecordTooLong {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
        /// What is to be kept.
        bytes: u64,
        /// What a record can keep.
        limit: u64,
    },
    /// More is to be recorded than there can be.
    #[error(
        "{place}: `{rule}` keeps {bytes} bytes, and no value is longer than {limit}: lower it, or raise the limit"
    )]
    RecordsMore {
        /// What the rule is of.
        place: Place,
        /// The rule.
        rule: &'static str,
        /// What is to be kept.
        bytes: u64,
        /// The longest value.
        limit: u64,
    },
}

impl Finding {
    /// What it is about: a function or all of them, and the key of the rule; the
    /// empty key if it is not about one rule.
    pub fn place(&self) -> (Place, &'static str) {
        match self {
            Self::NotImported { function, .. } | Self::NotRegistered { function, .. } => {
                (Place::Function(function.clone()), "")
            }
            Self::RuleOfDenied { function, rule } | Self::AboveSandbox { function, rule, .. } => {
                (Place::Function(function.clone()), rule)
            }
            Self::NeverFits { place, .. } => (place.clone(), "bytes"),
            Self::AboveMessage { place, rule, .. }
            | Self::Zero { place, rule, .. }
            | Self::ZeroRate { place, rule, .. }
            | Self::ZeroWindow { place, rule, .. }
            | Self::NoBurst { place, rule, .. }
            | Self::NotEnforced { place, rule }
            | Self::RecordTooLong { place, rule, .. }
            | Self::RecordsMore { place, rule, .. } => (place.clone(), rule),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox => f.write_str("sandbox"),
            Self::Function(name) => write!(f, "function `{name}`"),
        }
    }
}
