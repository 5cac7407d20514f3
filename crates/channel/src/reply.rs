//! Answers of host functions: their bytes, and the handle of one that comes later.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use cellule_abi::{HostError, Schema, wire};
use serde::Serialize;

/// An answer: encoded bytes, and bytes that stay in the value they belong to.
pub struct Reply {
    head: Vec<u8>,
    tail: Option<Box<dyn Lender>>,
}

/// A value that ends in a byte string.
trait Lender: Send {
    fn bytes(&self) -> &[u8];
}

impl<R: Schema + Send> Lender for R {
    fn bytes(&self) -> &[u8] {
        self.lend(&mut Vec::new()).unwrap_or_default()
    }
}

impl Reply {
    pub(crate) fn of<R: Schema + Serialize + Send + 'static>(value: R) -> Result<Self, HostError> {
        let mut head = Vec::new();
        let lends = value.lend(&mut head).is_some();
        if lends {
            return Ok(Self { head, tail: Some(Box::new(value)) });
        }
        wire::append(&mut head, &value).map_err(|_| HostError::Failed)?;
        Ok(Self { head, tail: None })
    }

    /// The encoded value, in two segments.
    pub fn segments(&self) -> [&[u8]; 2] {
        [&self.head, self.tail.as_ref().map_or(&[], |tail| tail.bytes())]
    }

    /// The length of both segments in bytes.
    pub fn len(&self) -> usize {
        self.segments().iter().map(|segment| segment.len()).sum()
    }

    /// Whether the value takes no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A deferred host call of one sandbox, numbered by its channel. The guest never
/// sees the number: it has chosen another, which it may use twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// An answer that came later, and to what.
#[derive(Debug)]
pub struct LateReply {
    pub(crate) ticket: Ticket,
    pub(crate) answer: Result<Reply, HostError>,
}

/// Where answers that come later are left, from any thread.
pub trait Mailbox: fmt::Debug + Send + Sync {
    /// Leaves an answer. One that comes after its sandbox is gone is forgotten.
    fn put(&self, reply: LateReply);
}

/// The duty to answer one host call, now or later, from any thread.
///
/// Given to a deferred host function for each call. Calls may be answered in any
/// order. A handle that is dropped unanswered answers with [`HostError::Failed`],
/// so no guest task waits for ever by mistake. Answering a guest that is gone does
/// nothing.
///
/// ```
/// use std::sync::mpsc;
/// use cellule_channel::{HostFunction, ReplyHandle};
///
/// let (jobs, worker) = mpsc::channel();
/// let function = HostFunction::deferred("length", move |reply: ReplyHandle<u64>, text: String| {
///     // If the worker is gone, so is the handle, and the guest is told `Failed`.
///     let _ = jobs.send((reply, text));
/// });
/// assert_eq!(function.signature().text(), "fn(str) -> u64");
/// std::thread::spawn(move || {
///     for (reply, text) in worker {
///         reply.reply(text.len() as u64);
///     }
/// });
/// ```
#[must_use = "dropping it tells the guest that the host function failed"]
pub struct ReplyHandle<R> {
    /// Taken by the answer.
    address: Option<(Ticket, Arc<dyn Mailbox>)>,
    result: PhantomData<fn(R)>,
}

impl<R: Schema + Serialize + Send + 'static> ReplyHandle<R> {
    /// Answers the call. The value is encoded here, on this thread.
    ///
    /// # Cost
    ///
    /// One lock, and one signal if the guest is running. Never waits for the guest.
    pub fn reply(mut self, value: R) {
        // Encoded first: should that panic, the drop answers.
        let answer = Reply::of(value);
        self.answer(answer);
    }
}

impl<R> ReplyHandle<R> {
    pub(crate) fn new(ticket: Ticket, mailbox: Arc<dyn Mailbox>) -> Self {
        Self { address: Some((ticket, mailbox)), result: PhantomData }
    }

    /// Answers that the call failed: the same as dropping the handle, in words.
    pub fn fail(self) {}

    fn answer(&mut self, answer: Result<Reply, HostError>) {
        if let Some((ticket, mailbox)) = self.address.take() {
            mailbox.put(LateReply { ticket, answer });
        }
    }
}

impl<R> Drop for ReplyHandle<R> {
    fn drop(&mut self) {
        self.answer(Err(HostError::Failed));
    }
}

impl<R> fmt::Debug for ReplyHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ticket = self.address.as_ref().map(|(ticket, _)| ticket);
        f.debug_struct("ReplyHandle").field("ticket", &ticket).finish_non_exhaustive()
    }
}
