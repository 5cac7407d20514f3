//! The two rings as the guest sees them.
//!
//! A [`Channel`] pushes requests and takes completions; the [`Port`] under it
//! knows where the shared page is. Whoever waits rings the doorbell; the channel
//! does so only to make room. The
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
    /// The host took no requests.
    NothingTaken,
    /// A completion of a kind that this guest does not know, with its id.
    Unexpected { op: u16, id: u64 },
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfStep(error) => error.fmt(f),
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
    /// Completions whose bytes the host may reuse: all before this one.
    released: u32,
    /// Which of the replies from there on are still being decoded, by the slot
    /// in the ring.
    held: u32,
    /// Host calls ever made.
    calls: u64,
    outbox: Outbox<OUTBOX_BYTES>,
}

/// A completion, and how to give its bytes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) completion: Completion,
    index: u32,
}

impl Taken {
    /// The number of the task whose call this answers, as [`Channel::call`] was told.
    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are the number")]
    pub(crate) const fn task(&self) -> u16 {
        self.completion.id as u16
    }
}

const _: () = assert!(RING_ENTRIES == u32::BITS, "`Channel::held` has a bit for each entry");

impl<P: Port> Channel<P> {
    pub(crate) const fn new(port: P) -> Self {
        let outbox = Outbox::new();
        Self { port, pushed: 0, taken: 0, released: 0, held: 0, calls: 0, outbox }
    }

    /// Takes the next completion, if one is there.
    ///
    /// A call's arguments stay until it returns, whatever the head is; a reply's
    /// bytes until [`Channel::end_reply`].
    pub(crate) fn next(&mut self) -> Result<Option<Taken>, Broken> {
        if self.unread()? == 0 {
            return Ok(None);
        }
        let (index, completion) = (self.taken, self.port.completion(self.taken));
        self.taken = self.taken.wrapping_add(1);
        if completion.op == CompletionOp::Reply as u16 {
            self.held |= 1 << (index % RING_ENTRIES);
        } else if completion.op != CompletionOp::Call as u16 {
            return Err(Broken::Unexpected { op: completion.op, id: completion.id });
        }
        self.release();
        Ok(Some(Taken { completion, index }))
    }

    /// Answers the call `id` with `head` and `tail`, which must stay where they
    /// are until the host has been at the doorbell.
    pub(crate) fn answer(
        &mut self,
        id: u64,
        status: ReturnStatus,
        head: &[u8],
        tail: &[u8],
    ) -> Result<(), Broken> {
        let request = request(RequestOp::Return, head, tail);
        self.push(Request { id, status: status as u32, ..request })
    }

    /// Calls the host function `function` for a task; returns the id that its
    /// reply will have. The bytes must stay until then.
    pub(crate) fn call(
        &mut self,
        function: u32,
        task: u16,
        head: &[u8],
        tail: &[u8],
    ) -> Result<u64, Broken> {
        self.calls += 1;
        // The task's number, so that it is found again, and what no other call has.
        let (id, task) = (self.calls << 16 | u64::from(task), u32::from(task));
        self.push(Request { id, function, task, ..request(RequestOp::HostCall, head, tail) })?;
        Ok(id)
    }

    /// Gives a reply's bytes back to the host.
    pub(crate) fn end_reply(&mut self, reply: Taken) {
        self.held &= !(1 << (reply.index % RING_ENTRIES));
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

    /// Tells the host that the bytes of completions may be reused: of all up to
    /// the first that is held.
    fn release(&mut self) {
        let before = self.released;
        while self.released != self.taken && self.held >> (self.released % RING_ENTRIES) & 1 == 0 {
            self.released = self.released.wrapping_add(1);
        }
        if self.released != before {
            self.port.release_completions(self.released);
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
