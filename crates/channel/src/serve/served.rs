//! What comes of a host call.

use std::sync::Arc;

use cellule_abi::HostError;

use crate::reply::Reply;

/// A host call that did not end the guest.
#[derive(Debug)]
pub enum Served {
    /// It is answered.
    Now(Answer),
    /// The answer comes to the mailbox: give it to [`Channel::settle`](crate::Channel::settle).
    Later,
}

/// What the guest gets: a value's bytes or a code.
pub type Answer = Result<Reply, HostError>;

/// A deferred host call that is over.
#[derive(Debug)]
pub struct Settled {
    /// The request's id, as the guest chose it.
    pub request: u64,
    /// The task that called, as the guest says.
    pub task: u32,
    /// What the guest gets.
    pub answer: Answer,
}

/// A host call that ended the guest instead of being answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError<F: std::error::Error> {
    /// The arguments could not be fetched from where the guest said.
    #[error(transparent)]
    Fetch(F),
    /// The host function panicked.
    #[error("the host function {function} panicked")]
    Panicked {
        /// Its name.
        function: Arc<str>,
    },
    /// The call was denied, and the policy says that a denial ends the guest.
    #[error("the host function `{function}` was denied, which ends the guest: {code}")]
    Denied {
        /// Its name; empty if the guest named none.
        function: Arc<str>,
        /// What the guest would have been told.
        code: HostError,
    },
}
