//! Static verification: what is wrong with a policy before anything runs.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bucket::Rate;
use crate::finding::{Finding, Place};
use crate::nearest::nearest;
use crate::policy::Policy;
use crate::rules::{Recorded, Rules};
use crate::{text, units};

/// What is known of image and host. What is not said is not verified.
///
/// ```
/// use cellule_policy::{Facts, Finding, Policy};
/// let facts = Facts::default().imports(["now"]).registered(["now", "later"]);
/// assert!(Policy::deny_all().allow("now").verify(&facts).is_empty());
/// let findings = Policy::deny_all().allow("later").verify(&facts);
/// assert!(matches!(&findings[..], [Finding::NotImported { function, .. }] if function == "later"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Facts {
    imports: Option<BTreeSet<String>>,
    registered: Option<BTreeSet<String>>,
    deferred: BTreeSet<String>,
    message_bytes: Option<u64>,
}

impl Facts {
    /// Says which functions the image imports.
    #[must_use]
    pub fn imports<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.imports = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Says which functions the host has registered.
    #[must_use]
    pub fn registered<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.registered = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Says which of the registered functions answer later.
    #[must_use]
    pub fn deferred<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.deferred = names.into_iter().map(Into::into).collect();
        self
    }

    /// Says how long the sandbox's messages may be.
    #[must_use]
    pub fn message_bytes(mut self, bytes: u64) -> Self {
        self.message_bytes = Some(bytes);
        self
    }
}

impl Policy {
    /// Finds what contradicts itself, or what is known of image and host: all of it.
    ///
    /// # Cost
    ///
    /// In proportion to the policy, and to the names that are known for each name
    /// that is not.
    pub fn verify(&self, facts: &Facts) -> Vec<Finding> {
        let mut findings = Findings { policy: self, facts, found: Vec::new() };
        findings.sandbox();
        for (name, function) in &self.functions {
            findings.name(name);
            match function.allow {
                true => findings.allowed(name, &function.rules),
                false => findings.denied(name, &function.rules),
            }
        }
        findings.found
    }
}

/// What was found so far.
struct Findings<'a> {
    policy: &'a Policy,
    facts: &'a Facts,
    found: Vec<Finding>,
}

/// What a record can keep of a value: its names and numbers take less than the
/// other 4 KiB.
const MOST_KEPT_BYTES: u64 = cellule_audit::MOST_RECORD_BYTES as u64 - 4096;

const NEVER_CALLED: &str = "denies every call that is allowed";
const NO_TIME: &str = "no call can meet";

impl Findings<'_> {
    fn sandbox(&mut self) {
        let Policy { all, budgets, .. } = self.policy;
        self.rules(&Place::Sandbox, all);
        let deferred = |(name, said): (&String, &crate::policy::Function)| {
            said.allow && self.facts.deferred.contains(name)
        };
        if all.in_flight == Some(0) && self.policy.functions.iter().any(deferred) {
            self.zero(&Place::Sandbox, "in_flight", "denies deferred functions that are allowed");
        }
        let times = [("call_deadline", budgets.call_deadline), ("call_cpu", budgets.call_cpu)];
        for (rule, _) in times.into_iter().filter(|(_, time)| *time == Some(Duration::ZERO)) {
            self.zero(&Place::Sandbox, rule, NO_TIME);
        }
        let idle = [("call_cpu", budgets.call_cpu.is_some()), ("cpu", budgets.cpu.is_some())];
        for (rule, _) in idle.into_iter().filter(|(_, is_there)| *is_there) {
            self.found.push(Finding::NotEnforced { place: Place::Sandbox, rule });
        }
        if budgets.call_exits == Some(0) {
            self.zero(&Place::Sandbox, "call_exits", NO_TIME);
        }
        let rates = [
            ("cpu", budgets.cpu),
            ("log_bytes", budgets.log_bytes),
            ("log_records", budgets.log_records),
        ];
        for (rule, rate) in rates {
            self.rate(&Place::Sandbox, rule, rate);
        }
    }

    /// A name must be known to the image and to the host.
    fn name(&mut self, function: &str) {
        let like = |known: &BTreeSet<String>| {
            let nearest = nearest(function, known.iter().map(String::as_str));
            (function.to_owned(), nearest.map(str::to_owned))
        };
        if let Some(known) = self.facts.imports.as_ref().filter(|known| !known.contains(function)) {
            let (function, nearest) = like(known);
            self.found.push(Finding::NotImported { function, nearest });
        }
        let registered = self.facts.registered.as_ref();
        if let Some(known) = registered.filter(|known| !known.contains(function)) {
            let (function, nearest) = like(known);
            self.found.push(Finding::NotRegistered { function, nearest });
        }
    }

    fn denied(&mut self, function: &str, rules: &Rules) {
        let rule = |(rule, _)| Finding::RuleOfDenied { function: function.to_owned(), rule };
        self.found.extend(text::rules(rules).into_iter().map(rule));
    }

    fn allowed(&mut self, name: &str, rules: &Rules) {
        let place = Place::Function(name.to_owned());
        self.rules(&place, rules);
        if rules.in_flight == Some(0) {
            self.zero(&place, "in_flight", NEVER_CALLED);
        }
        let all = &self.policy.all;
        let pairs = [
            ("argument_bytes", rules.argument_bytes, all.argument_bytes),
            ("result_bytes", rules.result_bytes, all.result_bytes),
            ("calls_per_guest_call", rules.calls_per_guest_call, all.calls_per_guest_call),
            ("in_flight", rules.in_flight.map(u64::from), all.in_flight.map(u64::from)),
        ];
        for (rule, value, limit) in pairs {
            if let (Some(value), Some(limit)) = (value, limit)
                && value > limit
            {
                let function = name.to_owned();
                self.found.push(Finding::AboveSandbox { function, rule, value, limit });
            }
        }
    }

    /// What can be wrong with the rules of a function and of all of them alike.
    fn rules(&mut self, place: &Place, rules: &Rules) {
        if rules.calls_per_guest_call == Some(0) {
            self.zero(place, "calls_per_guest_call", NEVER_CALLED);
        }
        if rules.deadline == Some(Duration::ZERO) {
            self.zero(place, "deadline", NO_TIME);
        }
        if rules.alarm_after == Some(0) {
            self.zero(place, "alarm_after", "is no number of denials");
        }
        self.rate(place, "calls", rules.calls);
        self.rate(place, "bytes", rules.bytes);
        if let (Some(bytes), Some(Rate { burst, .. })) = (rules.argument_bytes, rules.bytes)
            && bytes > burst
            && burst > 0
        {
            self.found.push(Finding::NeverFits { place: place.clone(), bytes, burst });
        }
        let (all, message) = (&self.policy.all, self.facts.message_bytes);
        let arguments = [rules.argument_bytes, all.argument_bytes, message];
        self.lengths(
            place,
            ["argument_bytes", "record_arguments"],
            arguments,
            rules.record_arguments,
        );
        let results = [rules.result_bytes, all.result_bytes, message];
        self.lengths(place, ["result_bytes", "record_results"], results, rules.record_results);
    }

    /// Lengths of arguments or results, and what is recorded of them.
    fn lengths(
        &mut self,
        place: &Place,
        [rule, record]: [&'static str; 2],
        limits: [Option<u64>; 3],
        recorded: Option<Recorded>,
    ) {
        let [own, _, message] = limits;
        if let (Some(bytes), Some(limit)) = (own, message)
            && bytes > limit
        {
            self.found.push(Finding::AboveMessage { place: place.clone(), rule, bytes, limit });
        }
        let (place, rule) = (place.clone(), record);
        let Some(Recorded::Bytes(bytes)) = recorded else { return };
        match limits.into_iter().flatten().min() {
            Some(limit) if bytes > limit => {
                self.found.push(Finding::RecordsMore { place, rule, bytes, limit });
            }
            _ if bytes > MOST_KEPT_BYTES => {
                let limit = MOST_KEPT_BYTES;
                self.found.push(Finding::RecordTooLong { place, rule, bytes, limit });
            }
            _ => {}
        }
    }

    fn rate(&mut self, place: &Place, rule: &'static str, rate: Option<Rate>) {
        let Some(Rate { amount, per, burst }) = rate else { return };
        let place = || place.clone();
        if units::nanoseconds(per) == 0 {
            self.found.push(Finding::ZeroWindow { place: place(), rule, amount });
        }
        if amount == 0 {
            self.found.push(Finding::ZeroRate { place: place(), rule, per, burst });
        } else if burst < 1 {
            self.found.push(Finding::NoBurst { place: place(), rule, amount, burst });
        }
    }

    fn zero(&mut self, place: &Place, rule: &'static str, means: &'static str) {
        self.found.push(Finding::Zero { place: place.clone(), rule, means });
    }
}
