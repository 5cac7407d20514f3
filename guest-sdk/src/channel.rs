//! The two rings as the guest sees them.
//!
//! A [`Channel`] pushes requests, takes completions and decides when the
//! doorbell is rung; the [`Port`] under it knows where the shared page is. The
//! guest trusts its host, so what is wrong here is a [`Broken`] channel, which
//! ends the guest.

use cellule_abi::doorbell::Doorbell;
use cellule_abi::page::RING_ENTRIES;
use cellule_abi::record::{Completion, CompletionOp, Request, RequestOp, ReturnStatus};
use cellule_abi::ring::{OutOfStep, waiting};

use crate::outbox::Outbox;

/// Room for the log records of one exit: the ring's 32 at some 256 bytes.
pub(crate) const OUTBOX_BYTES: usize = 8 * 1024;

/// The shared page and the doorbell.
pub(crate) trait Port {
    /// Reads how many requests the host has consumed.
    fn request_head(&self) -> u32;
    /// Reads how many completions the host has published.
    fn completion_tail(&self) -> u32;
    /// Copies the completion with the free-running `index`.
    fn completion(&self, index: u32) -> Completion;
    /// Writes the request with the free-running `index`.
    fn put_request(&self, index: u32, request: Request);
    /// Publishes that `tail` requests have been written.
    fn publish_requests(&self, tail: u32);
    /// Publishes that `head` completions have been consumed.
    fn release_completions(&self, head: u32);
    /// Leaves the guest, and returns when the host resumes it.
    fn ring(&self, operation: Doorbell);
}

/// A state in which no host leaves the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Indices that are not a ring's.
    OutOfStep(OutOfStep),
    /// The host resumed a waiting guest without a completion.
    NothingCame,
    /// The host took no requests.
    NothingTaken,
    /// A completion that answers nothing of this guest's, with its id.
    Unexpected { op: u16, id: u64 },
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfStep(error) => error.fmt(f),
            Self::NothingCame => f.write_str("the host resumed the guest without a completion"),
            Self::NothingTaken => f.write_str("the host took no requests"),
            Self::Unexpected { op, id } => {
                write!(f, "unexpected completion: operation {op}, id {id}")
            }
        }
    }
}

impl From<OutOfStep> for Broken {
    fn from(error: OutOfStep) -> Self {
        Self::OutOfStep(error)
    }
}

/// The guest's end of both rings.
pub(crate) struct Channel<P> {
    port: P,
    /// Requests ever pushed.
    pushed: u32,
    /// Completions ever taken. The host may still not reuse their bytes.
    taken: u32,
    /// Replies whose bytes are being decoded. More than one only if a type's
    /// `Deserialize` calls the host.
    replies_in_use: u32,
    last_id: u64,
    outbox: Outbox<OUTBOX_BYTES>,
}

impl<P: Port> Channel<P> {
    pub(crate) const fn new(port: P) -> Self {
        Self { port, pushed: 0, taken: 0, replies_in_use: 0, last_id: 0, outbox: Outbox::new() }
    }

    /// Waits for the next call. Rings only if none is there.
    pub(crate) fn next_call(&mut self) -> Result<Completion, Broken> {
        if self.unread()? == 0 {
            self.port.ring(Doorbell::Wait);
        }
        let call = self.take(CompletionOp::Call, None)?;
        // The arguments stay until the call returns, whatever the head is.
        self.release();
        Ok(call)
    }

    /// Answers the call `id` with `head` and `tail`, and waits for the next: one
    /// exit. The host has read both segments when this returns.
    pub(crate) fn answer(
        &mut self,
        id: u64,
        status: ReturnStatus,
        head: &[u8],
        tail: &[u8],
    ) -> Result<(), Broken> {
        let request = request(RequestOp::Return, head, tail);
        self.push(Request { id, status: status as u32, ..request })?;
        self.port.ring(Doorbell::Wait);
        Ok(())
    }

    /// Calls the host function `function` and waits for its reply: one exit.
    ///
    /// The reply's bytes stay where they are until [`Channel::end_reply`].
    pub(crate) fn call(
        &mut self,
        function: u32,
        head: &[u8],
        tail: &[u8],
    ) -> Result<Completion, Broken> {
        self.last_id = self.last_id.wrapping_add(1);
        let id = self.last_id;
        self.push(Request { id, function, ..request(RequestOp::HostCall, head, tail) })?;
        self.port.ring(Doorbell::Wait);
        let reply = self.take(CompletionOp::Reply, Some(id))?;
        self.replies_in_use += 1;
        Ok(reply)
    }

    /// Gives a reply's bytes back to the host.
    pub(crate) fn end_reply(&mut self) {
        self.replies_in_use = self.replies_in_use.saturating_sub(1);
        self.release();
    }

    /// Leaves a log record for the next exit. Rings only if there is no room.
    pub(crate) fn log(&mut self, level: u32, target: &str, message: &str) -> Result<(), Broken> {
        self.make_room()?;
        if self.untaken()? == 0 {
            self.outbox.clear();
        }
        let record = match self.outbox.write(target, message) {
            Some(record) => record,
            None => {
                submit(&self.port, self.pushed)?;
                self.outbox.clear();
                // An empty outbox cuts what is too long for it.
                self.outbox.write(target, message).unwrap_or_default()
            }
        };
        let request = Request { function: level, ..request(RequestOp::Log, record, &[]) };
        self.push(request)
    }

    /// Publishes `request`, after making room in a full ring.
    fn push(&mut self, request: Request) -> Result<(), Broken> {
        self.make_room()?;
        self.port.put_request(self.pushed, request);
        self.pushed = self.pushed.wrapping_add(1);
        self.port.publish_requests(self.pushed);
        Ok(())
    }

    /// Has the host empty a full ring.
    fn make_room(&self) -> Result<(), Broken> {
        match self.untaken()? {
            RING_ENTRIES => submit(&self.port, self.pushed),
            _ => Ok(()),
        }
    }

    /// Takes the next completion, which must be there and be what is expected.
    fn take(&mut self, op: CompletionOp, id: Option<u64>) -> Result<Completion, Broken> {
        if self.unread()? == 0 {
            return Err(Broken::NothingCame);
        }
        let completion = self.port.completion(self.taken);
        if completion.op != op as u16 || id.is_some_and(|id| id != completion.id) {
            return Err(Broken::Unexpected { op: completion.op, id: completion.id });
        }
        self.taken = self.taken.wrapping_add(1);
        Ok(completion)
    }

    /// Tells the host that the bytes of all completions taken may be reused.
    fn release(&self) {
        if self.replies_in_use == 0 {
            self.port.release_completions(self.taken);
        }
    }

    fn unread(&self) -> Result<u32, OutOfStep> {
        waiting(self.port.completion_tail(), self.taken)
    }

    fn untaken(&self) -> Result<u32, OutOfStep> {
        waiting(self.pushed, self.port.request_head())
    }
}

/// Has the host take all requests.
fn submit(port: &impl Port, pushed: u32) -> Result<(), Broken> {
    port.ring(Doorbell::Submit);
    if waiting(pushed, port.request_head())? != 0 {
        return Err(Broken::NothingTaken);
    }
    Ok(())
}

/// A request whose payload is `head` and `tail`, where they are.
fn request(op: RequestOp, head: &[u8], tail: &[u8]) -> Request {
    Request {
        op: op as u16,
        head_gva: gva(head),
        head_len: len(head),
        tail_gva: gva(tail),
        tail_len: len(tail),
        ..Request::default()
    }
}

fn gva(segment: &[u8]) -> u64 {
    // The host may read what this address leads to: the provenance is exposed.
    segment.as_ptr().expose_provenance() as u64
}

/// The length of a segment. One beyond 4 GiB is beyond every host's limit, and
/// so is `u32::MAX`: the host refuses it.
fn len(segment: &[u8]) -> u32 {
    u32::try_from(segment.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
