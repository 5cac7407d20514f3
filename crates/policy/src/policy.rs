//! [`Policy`]: what a sandbox may do, as a value.

use std::collections::BTreeMap;

use cellule_abi::HostError;
use cellule_audit::Verdict;

use crate::log::LogLevel;
use crate::rules::{Budgets, Rules};
use crate::toml::{Document, ParseError};

/// What a sandbox may do, as a value.
///
/// Registering a host function does not allow it. Log records are dropped
/// unless a level is allowed.
///
/// ```
/// use cellule_policy::{LogLevel, Policy, Verdict};
/// let policy = Policy::deny_all().allow("weekday").allow_log(LogLevel::Info);
/// assert_eq!(policy.judge("weekday"), Verdict::Allow);
/// assert_ne!(policy.judge("format_disk"), Verdict::Allow);
/// assert!(policy.allows_log(LogLevel::Warn) && !policy.allows_log(LogLevel::Debug));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub(crate) functions: BTreeMap<String, Function>,
    pub(crate) all: Rules,
    pub(crate) budgets: Budgets,
    pub(crate) log: Option<LogLevel>,
}

/// What is said of one host function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Function {
    pub(crate) allow: bool,
    pub(crate) rules: Rules,
}

impl Policy {
    /// The policy that allows nothing: the default.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// Reads a policy file: see `SCHEMA.md` beside this crate.
    ///
    /// ```
    /// use cellule_policy::Policy;
    /// let error = Policy::from_toml("[sandbox]\ndeadlin = \"2s\"").unwrap_err();
    /// assert_eq!((error.position.line, error.position.column), (2, 1));
    /// assert!(error.to_string().contains("did you mean `deadline`?"), "{error}");
    /// ```
    ///
    /// # Errors
    ///
    /// [`ParseError`]: the first defect, with line, column, key and value. What the
    /// policy means is judged by [`Policy::verify`].
    pub fn from_toml(text: &str) -> Result<Self, ParseError> {
        Ok(Document::parse(text)?.into_policy())
    }

    /// Writes the policy as a file: sorted, and only what was said. The same policy
    /// always gives the same text, and [`Policy::from_toml`] gives the policy back.
    ///
    /// ```
    /// use cellule_policy::Policy;
    /// let text = Policy::deny_all().allow("weekday").to_toml();
    /// assert_eq!(text, "[function.weekday]\nallow = true\n");
    /// ```
    pub fn to_toml(&self) -> String {
        crate::text::write(self)
    }

    /// The bytes that a digest of the policy is taken of: those of [`Policy::to_toml`].
    pub fn canonical(&self) -> Vec<u8> {
        self.to_toml().into_bytes()
    }

    /// Allows calls of one host function.
    #[must_use]
    pub fn allow(mut self, function: impl Into<String>) -> Self {
        self.functions.entry(function.into()).or_default().allow = true;
        self
    }

    /// Allows calls of one host function, with rules of its own.
    #[must_use]
    pub fn allow_with(mut self, function: impl Into<String>, rules: Rules) -> Self {
        self.functions.insert(function.into(), Function { allow: true, rules });
        self
    }

    /// Denies calls of one host function by name, as if it had never been allowed.
    #[must_use]
    pub fn deny(mut self, function: impl Into<String>) -> Self {
        self.functions.insert(function.into(), Function::default());
        self
    }

    /// Allows log records up to a level.
    #[must_use]
    pub fn allow_log(mut self, level: LogLevel) -> Self {
        self.log = Some(level);
        self
    }

    /// Sets the rules of all host functions together.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.all = rules;
        self
    }

    /// Sets what the guest may use of its host otherwise.
    #[must_use]
    pub fn with_budgets(mut self, budgets: Budgets) -> Self {
        self.budgets = budgets;
        self
    }

    /// Judges a call of a host function by its name.
    pub fn judge(&self, function: &str) -> Verdict {
        match self.rules(function) {
            Some(_) => Verdict::Allow,
            None => Verdict::Deny(HostError::Denied),
        }
    }

    /// The rules of a host function; `None` if it is denied.
    pub fn rules(&self, function: &str) -> Option<&Rules> {
        self.functions.get(function).filter(|said| said.allow).map(|said| &said.rules)
    }

    /// The rules of all host functions together.
    pub fn all(&self) -> &Rules {
        &self.all
    }

    /// What the guest may use of its host otherwise.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Whether a log record of this level may pass.
    pub fn allows_log(&self, level: LogLevel) -> bool {
        self.log.is_some_and(|most| level <= most)
    }
}
