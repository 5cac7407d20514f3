//! [`Rules`] of one host function or of all of them together, and [`Budgets`].

use std::time::Duration;

use crate::bucket::Rate;

/// What limits the host calls of one function, or of all functions together.
///
/// What is not said is not limited, but for the sandbox's own limits. A function's
/// own word on deadline, recording and denials goes before that of the sandbox;
/// limits of both hold.
///
/// ```
/// use cellule_policy::{Policy, Rate, Rules};
/// use std::time::Duration;
/// let second = Duration::from_secs(1);
/// let fetch = Rules::default().argument_bytes(4096).calls(Rate::new(10, second)).deadline(second);
/// let policy = Policy::deny_all().allow_with("fetch", fetch);
/// assert_eq!(policy.rules("fetch").and_then(|rules| rules.argument_bytes), Some(4096));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rules {
    /// The longest encoded arguments of a call.
    pub argument_bytes: Option<u64>,
    /// The longest encoded result of a call.
    pub result_bytes: Option<u64>,
    /// Host calls in one call or run of the guest.
    pub calls_per_guest_call: Option<u64>,
    /// Host calls in a window of time.
    pub calls: Option<Rate>,
    /// Bytes of arguments and results in a window of time.
    pub bytes: Option<Rate>,
    /// How long one host call may take.
    pub deadline: Option<Duration>,
    /// How many deferred host calls may be in flight.
    pub in_flight: Option<u32>,
    /// What the audit trail keeps of arguments.
    pub record_arguments: Option<Recorded>,
    /// What the audit trail keeps of results.
    pub record_results: Option<Recorded>,
    /// What a denial does.
    pub on_denial: Option<OnDenial>,
    /// An alarm is raised after each so many denials.
    pub alarm_after: Option<u64>,
}

/// What the audit trail keeps of a value besides its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recorded {
    /// Nothing.
    #[default]
    Nothing,
    /// A digest of its encoding.
    Digest,
    /// So many bytes of its encoding: the first ones.
    Bytes(u64),
}

/// What a denied host call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDenial {
    /// The guest gets an error.
    #[default]
    Error,
    /// It ends the guest: the sandbox is poisoned.
    Poison,
}

/// What the guest may use of its host otherwise, in one call and in a window of time.
///
/// ```
/// use cellule_policy::{Budgets, Policy};
/// use std::time::Duration;
/// let budgets = Budgets::default().call_deadline(Duration::from_secs(2)).call_exits(10_000);
/// let policy = Policy::deny_all().with_budgets(budgets);
/// assert_eq!(policy.budgets().call_exits, Some(10_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Budgets {
    /// How long a guest call may take, unless the call itself says otherwise.
    pub call_deadline: Option<Duration>,
    /// Processor time of one guest call.
    pub call_cpu: Option<Duration>,
    /// Exits from the VM in one guest call.
    pub call_exits: Option<u64>,
    /// Processor time in a window of time, in nanoseconds.
    pub cpu: Option<Rate>,
    /// Bytes of log records in a window of time.
    pub log_bytes: Option<Rate>,
    /// Log records in a window of time.
    pub log_records: Option<Rate>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub const fn $field(mut self, $field: $type) -> Self {
                self.$field = Some($field);
                self
            }
        )*
    };
}

impl Rules {
    setters! {
        /// Limits the encoded arguments of a call.
        argument_bytes: u64,
        /// Limits the encoded result of a call.
        result_bytes: u64,
        /// Limits the host calls in one call or run of the guest.
        calls_per_guest_call: u64,
        /// Limits the host calls in a window of time.
        calls: Rate,
        /// Limits the bytes of arguments and results in a window of time.
        bytes: Rate,
        /// Limits how long one host call may take. A host function that answers by
        /// returning is not stopped; its answer is not given to the guest.
        deadline: Duration,
        /// Limits the deferred host calls in flight.
        in_flight: u32,
        /// Sets what the audit trail keeps of arguments.
        record_arguments: Recorded,
        /// Sets what the audit trail keeps of results.
        record_results: Recorded,
        /// Sets what a denial does.
        on_denial: OnDenial,
        /// Raises an alarm after each so many denials.
        alarm_after: u64,
    }
}

impl Budgets {
    setters! {
        /// Sets the deadline of guest calls that have none of their own.
        call_deadline: Duration,
        /// Limits the processor time of one guest call.
        call_cpu: Duration,
        /// Limits the exits of one guest call.
        call_exits: u64,
        /// Limits processor time, in nanoseconds, in a window of time.
        cpu: Rate,
        /// Limits bytes of log records in a window of time.
        log_bytes: Rate,
        /// Limits log records in a window of time.
        log_records: Rate,
    }
}
