//! The host's side of the rings, as `host-api/src/exchange.rs` has it, beside a
//! model that knows what must come of everything.

use std::collections::VecDeque;
use std::ops::Range;

use cellule_abi::HostError;
use cellule_abi::page::{COMPLETION_TAIL_OFFSET, REQUEST_HEAD_OFFSET, RING_ENTRIES};
use cellule_abi::record::{Completion, CompletionOp, Request, RequestOp};
use cellule_abi::wire::Payload;
use cellule_channel::{BrokenRing, Channel, Policy, Reply, Rings, ServeError, Served};

use crate::guest::{Guest, GuestMemory, NotThere, Setup, Step};
use crate::handlers::{self, NAMES};
use crate::page::HostilePage;
use crate::verdict::Expected;
use crate::watch::{Note, SANDBOX, Watch, WatchedSink};

/// The most accesses of the page in one drain: how far the guest has consumed,
/// how many requests wait, the request head; two for a held answer; and for each
/// request one to take it and two to answer it.
const ACCESSES: u64 = 5 + 3 * RING_ENTRIES as u64;

/// Why a guest was ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It broke a ring.
    Ring(BrokenRing),
    /// A host call could not be served.
    Serve(ServeError<NotThere>),
    /// It asked for something that the ABI does not know.
    Operation(u16),
    /// It consumes nothing, so that the host can tell it nothing.
    ReadsNothing,
}

/// What a guest got done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Host calls that were served, in whatever way.
    pub served: u32,
    /// Those that were answered with a value.
    pub answered: u32,
    /// Answers that had to wait for room.
    pub held: u32,
}

/// Runs a guest to its end; panics if the host breaks a promise.
pub fn run(guest: &Guest) {
    let _ = outcome(guest);
}

/// As [`run`]; returns what the guest got done and how it was ended, if it was.
pub fn outcome(guest: &Guest) -> (Tally, Result<(), End>) {
    let mut host = Host::new(guest);
    let ended = guest.steps.iter().chain([&Step::Ring]).try_for_each(|step| host.step(step));
    (host.tally, ended)
}

struct Host {
    setup: Setup,
    page: HostilePage,
    memory: GuestMemory,
    rings: Rings,
    channel: Channel,
    watch: Watch,
    /// An answer that found no room. While it waits, no request is taken.
    held: Option<(u64, Result<Reply, HostError>)>,
    tally: Tally,
    /// The model: what of the reply area each completion owns that the guest has
    /// not consumed, oldest first; and how much went through the rings.
    unread: VecDeque<Range<usize>>,
    taken: u32,
    posted: u32,
}

impl Host {
    fn new(guest: &Guest) -> Self {
        let (setup, watch) = (guest.setup, Watch::default());
        let allowed = (0..NAMES.len()).filter(|number| setup.allows(*number));
        let policy = allowed.fold(Policy::deny_all(), |policy, i| policy.allow(NAMES[i]));
        let sink = Box::new(WatchedSink::new(watch.clone(), setup.refusals));
        let functions = handlers::all(&watch);
        Self {
            setup,
            page: HostilePage::new(&guest.script),
            memory: GuestMemory::default(),
            rings: Rings::new(setup.reply_bytes.into()),
            channel: Channel::new(policy, functions, setup.message_bytes.into(), sink, SANDBOX),
            watch,
            held: None,
            tally: Tally::default(),
            unread: VecDeque::new(),
            taken: 0,
            posted: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), End> {
        step.act(&self.page, &mut self.memory);
        match step {
            Step::Ring => self.drain(),
            Step::Wait => self.post_call(),
            Step::Call(..)
            | Step::Request(_)
            | Step::Consume(_)
            | Step::Word(..)
            | Step::Bytes(..) => Ok(()),
        }
    }

    fn drain(&mut self) -> Result<(), End> {
        let (accesses, taken) = (self.page.accesses(), self.taken);
        let drained = self.drain_unwatched();
        let accesses = self.page.accesses() - accesses;
        assert!(accesses <= ACCESSES, "a drain should be bounded, not {accesses} accesses");
        assert!(self.taken.wrapping_sub(taken) <= RING_ENTRIES);
        drained
    }

    fn drain_unwatched(&mut self) -> Result<(), End> {
        self.see_unread()?;
        if let Some((id, answer)) = self.held.take() {
            self.post_reply(id, answer)?;
        }
        let waiting = self.rings.requests(&self.page).map_err(End::Ring)?;
        for _ in 0..waiting {
            if self.held.is_some() {
                break;
            }
            let request = self.take()?;
            self.accept(&request)?;
        }
        self.rings.publish_taken(&self.page).map_err(End::Ring)?;
        assert_eq!(self.page.peek(REQUEST_HEAD_OFFSET), self.taken);
        Ok(())
    }

    fn post_call(&mut self) -> Result<(), End> {
        self.see_unread()?;
        if !self.has_slot() {
            return Err(End::ReadsNothing);
        }
        let call = Completion { op: CompletionOp::Call as u16, ..Default::default() };
        self.post(&call, 0..0)
    }

    fn see_unread(&mut self) -> Result<(), End> {
        let unread = self.rings.unread(&self.page).map_err(End::Ring)? as usize;
        assert!(unread <= self.unread.len(), "what was consumed should stay so");
        self.unread.drain(..self.unread.len() - unread);
        Ok(())
    }

    fn has_slot(&self) -> bool {
        let slot = self.rings.has_slot();
        assert_eq!(slot, self.unread.len() < RING_ENTRIES as usize, "{:?}", self.unread);
        slot
    }

    fn take(&mut self) -> Result<Request, End> {
        let accesses = self.page.accesses();
        let request = self.rings.take(&self.page);
        assert_eq!(self.page.accesses(), accesses + 1, "a request should be read once");
        self.taken = self.taken.wrapping_add(1);
        request.map_err(End::Ring)
    }

    fn accept(&mut self, request: &Request) -> Result<(), End> {
        match RequestOp::try_from(request.op) {
            Ok(RequestOp::HostCall) => self.host_call(request),
            Ok(RequestOp::Return | RequestOp::Log) => Ok(()),
            Err(op) => Err(End::Operation(op)),
        }
    }

    fn host_call(&mut self, request: &Request) -> Result<(), End> {
        let expected = Expected::of(&self.setup, request);
        let (memory, watch) = (&self.memory, &self.watch);
        let payload = fetch(memory, request);
        let served = self.channel.serve(request, || {
            watch.note(Note::Fetched);
            payload.clone()
        });
        let answer = served.map(|served| match served {
            Served::Now(answer) => answer,
            Served::Later => unreachable!("no function here defers its answer"),
        });
        expected.check(&payload, &watch.take(), &answer);
        self.tally.served += 1;
        self.tally.answered += u32::from(matches!(answer, Ok(Ok(_))));
        self.post_reply(request.id, answer.map_err(End::Serve)?)
    }

    fn post_reply(&mut self, id: u64, answer: Result<Reply, HostError>) -> Result<(), End> {
        let len = answer.as_ref().map_or(0, Reply::len);
        let room = if self.has_slot() { self.reserve(len) } else { None };
        let Some(start) = room else {
            self.tally.held += 1;
            self.held = Some((id, answer));
            return Ok(());
        };
        let op = CompletionOp::Reply as u16;
        let status = answer.err().map_or(0, HostError::code);
        self.post(&Completion { id, op, status, ..Default::default() }, start..start + len)
    }

    fn reserve(&mut self, len: usize) -> Option<usize> {
        let area = usize::from(self.setup.reply_bytes);
        let start = self.rings.reserve(len);
        let in_use = self.unread.iter().any(|range| !range.is_empty());
        assert!(start.is_some() || in_use || len > area, "{len} bytes should fit in {area}");
        let range = start?..start? + len;
        assert!(range.end <= area, "{range:?} should be in the {area} bytes of the reply area");
        let apart = |other: &Range<usize>| range.end <= other.start || other.end <= range.start;
        assert!(len == 0 || self.unread.iter().all(apart), "{range:?} in {:?}", self.unread);
        start
    }

    fn post(&mut self, completion: &Completion, range: Range<usize>) -> Result<(), End> {
        self.rings.post(&self.page, completion).map_err(End::Ring)?;
        self.unread.push_back(range);
        self.posted = self.posted.wrapping_add(1);
        assert_eq!(self.page.peek(COMPLETION_TAIL_OFFSET), self.posted);
        Ok(())
    }
}

fn fetch(memory: &GuestMemory, request: &Request) -> Result<Payload, NotThere> {
    let head = memory.copy_out(request.head_gva, request.head_len)?;
    let tail = memory.copy_out(request.tail_gva, request.tail_len)?;
    Ok(Payload::new(head, tail))
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
