//! The host's side of one guest's channel: what comes out of the rings, what
//! goes in, and what is believed of it.
//!
//! Everything read here was written by the guest. A request is copied out
//! once, checked, and only the copy is used; so are its payloads.

use std::sync::Arc;
use std::time::Instant;

use cellule_abi::page::{
    ABORT_MESSAGE_BYTES, ABORT_OFFSET, Abort, AbortCode, BOOT_OFFSET, Boot, CLOCK_LIMIT_OFFSET,
    ENTROPY_OFFSET, Entropy, SHORT_BYTES, SHORT_OFFSET,
};
use cellule_abi::record::{Completion, CompletionOp, Request, RequestOp, ReturnStatus};
use cellule_abi::tasks::NEVER;
use cellule_abi::wire::Payload;
use cellule_channel::{
    Answer, BrokenRing, Channel, LogLevel, Page, PageLost, Reply, Rings, ServeError, Served,
    Settled,
};
use cellule_hv::{BadSlice, GuestSlice, Gva, Memory};
use zerocopy::{FromZeros, IntoBytes};

use crate::budget::Purse;
use crate::error::{CallError, GuestFault, HostFailure};
use crate::inbox::Inbox;
use crate::layout::Layout;
use crate::page::ChannelPage;
use crate::stats::Stats;
use crate::text::printable;
use crate::trace::{Recorder, Traced};

/// The longest log record that is read, in bytes; the rest is cut off.
const LOG_BYTES: u64 = 4096;

/// One sandbox's channel state.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) channel: Channel,
    /// Where the answers of deferred host calls come in.
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) stats: Stats,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) purse: Purse,
    /// The beginning of the channel's time.
    began: Instant,
    layout: Arc<Layout>,
    rings: Rings,
    message_bytes: u64,
    posted: u64,
    /// An answer that found no room. While it waits, no request is taken.
    held: Option<(u64, Answer)>,
    /// The call under way, and what the guest returned for it.
    call: Option<u64>,
    returned: Option<Returned>,
}

/// How a guest function came back.
#[derive(Debug)]
pub(crate) enum Returned {
    /// With bytes that should be its result.
    Result(Payload),
    /// With more bytes than the limit allows; they were not read.
    TooLarge(u64),
    /// Not at all: its task was ended.
    TaskEnded,
}

impl Exchange {
    pub(crate) fn new(
        channel: Channel,
        inbox: Arc<Inbox>,
        layout: Arc<Layout>,
        message_bytes: u64,
        recorder: Option<Recorder>,
        purse: Purse,
    ) -> Self {
        let began = Instant::now();
        let reply_bytes = usize::try_from(layout.replies.len_bytes).unwrap_or(0);
        Self {
            channel: channel.timed_by(began),
            inbox,
            stats: Stats::default(),
            recorder,
            purse,
            began,
            layout,
            rings: Rings::new(reply_bytes),
            message_bytes,
            posted: 0,
            held: None,
            call: None,
            returned: None,
        }
    }

    /// Writes what the guest is told at its start.
    pub(crate) fn boot(&self, memory: &Memory, boot: &Boot) -> Result<(), BadSlice> {
        let page = self.layout.page.0;
        memory.copy_in(Gva(page + BOOT_OFFSET as u64), boot.as_bytes())?;
        memory.copy_in(Gva(page + CLOCK_LIMIT_OFFSET as u64), &NEVER.to_le_bytes())
    }

    /// Writes what tells the guest from its siblings. It stands still.
    pub(crate) fn give_entropy(&self, memory: &Memory, entropy: &Entropy) -> Result<(), BadSlice> {
        memory.copy_in(Gva(self.layout.page.0 + ENTROPY_OFFSET as u64), entropy.as_bytes())
    }

    /// Where the channel page is.
    pub(crate) fn page_gva(&self) -> Gva {
        self.layout.page
    }

    /// How many completions were ever posted.
    pub(crate) fn posted(&self) -> u64 {
        self.posted
    }

    /// Gives the guest a call: its arguments, then the record that names them.
    pub(crate) fn post_call(
        &mut self,
        memory: &Memory,
        id: u64,
        function: u32,
        [head, tail]: [&[u8]; 2],
    ) -> Result<(), CallError> {
        let page = ChannelPage { memory, gva: self.layout.page };
        self.rings.unread(&page).map_err(ring)?;
        if !self.rings.has_slot() {
            return Err(GuestFault::ReadsNothing.into());
        }
        let gva = match head.len() + tail.len() <= SHORT_BYTES {
            true => page.at(SHORT_OFFSET).0,
            false => self.layout.args.gva,
        };
        let len = write_segments(memory, gva, [head, tail])?;
        let call = Completion {
            id,
            op: CompletionOp::Call as u16,
            function,
            payload_gva: gva,
            payload_len: len,
            ..Default::default()
        };
        self.rings.post(&page, &call).map_err(ring)?;
        self.posted += 1;
        self.stats.bytes_in += u64::from(len);
        self.call = Some(id);
        self.returned = None;
        Ok(())
    }

    /// Takes what the guest returned, if it has.
    pub(crate) fn take_returned(&mut self) -> Option<Returned> {
        let returned = self.returned.take()?;
        self.call = None;
        Some(returned)
    }

    /// Whether there is a completion that the guest has not consumed.
    pub(crate) fn has_unread(&mut self, memory: &Memory) -> Result<bool, CallError> {
        let page = ChannelPage { memory, gva: self.layout.page };
        Ok(self.rings.unread(&page).map_err(ring)? > 0)
    }

    /// Takes and serves the requests that wait at this moment, and takes in what
    /// was answered late.
    pub(crate) fn drain(&mut self, memory: &Memory) -> Result<(), CallError> {
        let page = ChannelPage { memory, gva: self.layout.page };
        self.post_held(memory)?;
        for _ in 0..self.rings.requests(&page).map_err(ring)? {
            if self.held.is_some() {
                break;
            }
            let request = self.rings.take(&page).map_err(ring)?;
            self.accept(memory, &request)?;
        }
        self.rings.publish_taken(&page).map_err(ring)?;
        self.take_in(memory)
    }

    /// Posts late replies for as long as there is room, and what expired: the rest
    /// stays in the inbox.
    pub(crate) fn take_in(&mut self, memory: &Memory) -> Result<(), CallError> {
        if self.held.is_none() && self.channel.in_flight() == 0 {
            return Ok(());
        }
        self.post_held(memory)?;
        while self.held.is_none()
            && let Some(reply) = self.inbox.take()
        {
            if let Some(settled) = self.channel.settle(reply) {
                self.post_settled(memory, settled)?;
            }
        }
        // An answer that is there is taken in, however long nobody looked for it.
        while self.held.is_none()
            && let Some(settled) = self.channel.expire()
        {
            self.post_settled(memory, settled)?;
        }
        Ok(())
    }

    /// When a host call in flight is late. While an answer waits for room, none is:
    /// the guest would not be told.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let expiry = self.channel.next_expiry().filter(|_| self.held.is_none())?;
        self.began.checked_add(expiry)
    }

    fn post_settled(
        &mut self,
        memory: &Memory,
        Settled { request, task, answer }: Settled,
    ) -> Result<(), CallError> {
        self.trace(|| Traced::HostReply { request, task });
        self.post_reply(memory, request, answer)
    }

    /// Looks how far the guest has consumed, and posts what found no room before.
    fn post_held(&mut self, memory: &Memory) -> Result<(), CallError> {
        let page = ChannelPage { memory, gva: self.layout.page };
        self.rings.unread(&page).map_err(ring)?;
        match self.held.take() {
            Some((id, answer)) => self.post_reply(memory, id, answer),
            None => Ok(()),
        }
    }

    /// Keeps an event, if a trace is asked for.
    pub(crate) fn trace(&mut self, what: impl FnOnce() -> Traced) {
        if let Some(recorder) = &mut self.recorder {
            recorder.add(what());
        }
    }

    fn accept(&mut self, memory: &Memory, request: &Request) -> Result<(), CallError> {
        match RequestOp::try_from(request.op) {
            Ok(RequestOp::HostCall) => self.host_call(memory, request),
            Ok(RequestOp::Return) => self.guest_return(memory, request),
            Ok(RequestOp::Log) => self.log(memory, request),
            Err(op) => Err(bad(request, "operation", u64::from(op))),
        }
    }

    fn host_call(&mut self, memory: &Memory, request: &Request) -> Result<(), CallError> {
        self.stats.host_calls += 1;
        if self.recorder.is_some() {
            let function = self.channel.import_name(request.function).cloned();
            let function = function.unwrap_or_default();
            let (request, task) = (request.id, request.task);
            self.trace(|| Traced::HostCall { request, task, function });
        }
        let served = self.channel.serve(request, || payload(memory, request));
        let served = served.map_err(|error| match error {
            ServeError::Fetch(slice) => GuestFault::BadSlice(slice).into(),
            ServeError::Panicked { function } => CallError::HostFunctionPanicked { function },
            ServeError::Denied { function, code } => GuestFault::Denied { function, code }.into(),
        })?;
        self.stats.bytes_out += payload_len(request);
        match served {
            Served::Now(answer) => {
                self.trace(|| Traced::HostReply { request: request.id, task: request.task });
                self.post_reply(memory, request.id, answer)
            }
            Served::Later => Ok(()),
        }
    }

    /// Posts an answer, or holds it until the guest has consumed others.
    fn post_reply(&mut self, memory: &Memory, id: u64, answer: Answer) -> Result<(), CallError> {
        let len = answer.as_ref().map_or(0, Reply::len);
        let room = if self.rings.has_reply_slot() { self.rings.reserve(len) } else { None };
        let Some(offset) = room else {
            self.held = Some((id, answer));
            return Ok(());
        };
        let gva = self.layout.replies.gva + offset as u64;
        let mut completion =
            Completion { id, op: CompletionOp::Reply as u16, ..Default::default() };
        match &answer {
            Ok(reply) => {
                completion.payload_gva = gva;
                completion.payload_len = write_segments(memory, gva, reply.segments())?;
            }
            Err(code) => completion.status = code.code(),
        }
        self.stats.bytes_in += len as u64;
        let page = ChannelPage { memory, gva: self.layout.page };
        self.rings.post(&page, &completion).map_err(ring)?;
        self.posted += 1;
        Ok(())
    }

    fn guest_return(&mut self, memory: &Memory, request: &Request) -> Result<(), CallError> {
        if self.call != Some(request.id) || self.returned.is_some() {
            return Err(bad(request, "a return for call", request.id));
        }
        match ReturnStatus::try_from(request.status) {
            Ok(ReturnStatus::Ok) => {}
            Ok(ReturnStatus::UnknownFunction) => {
                return Err(GuestFault::RefusedCall { what: "it knows no such function" }.into());
            }
            Ok(ReturnStatus::BadArguments) => {
                let what = "it could not decode the arguments";
                return Err(GuestFault::RefusedCall { what }.into());
            }
            Ok(ReturnStatus::TaskEnded) => {
                self.returned = Some(Returned::TaskEnded);
                return Ok(());
            }
            Err(status) => return Err(bad(request, "status", u64::from(status))),
        }
        let len = payload_len(request);
        self.returned = Some(if len > self.message_bytes {
            Returned::TooLarge(len)
        } else {
            self.stats.bytes_out += len;
            Returned::Result(payload(memory, request).map_err(GuestFault::BadSlice)?)
        });
        Ok(())
    }

    fn log(&mut self, memory: &Memory, request: &Request) -> Result<(), CallError> {
        self.stats.log_records += 1;
        let level = LogLevel::try_from(request.function)
            .map_err(|level| bad(request, "log level", u64::from(level)))?;
        if !self.channel.allows_log(level) {
            return Ok(());
        }
        let len = u64::from(request.head_len).min(LOG_BYTES);
        if !self.purse.pays_for_log(len) {
            self.stats.log_dropped += 1;
            return Ok(());
        }
        let bytes = segment(memory, request.head_gva, len).map_err(GuestFault::BadSlice)?;
        self.stats.bytes_out += len;
        show_log(level, &bytes);
        Ok(())
    }

    /// Reads why the guest gave up.
    pub(crate) fn abort(&self, memory: &Memory) -> CallError {
        let mut abort = Abort::new_zeroed();
        let page = ChannelPage { memory, gva: self.layout.page };
        if let Err(lost) = page.read(ABORT_OFFSET, abort.as_mut_bytes()) {
            return page_lost(lost);
        }
        let len = u64::from(abort.message_len).min(ABORT_MESSAGE_BYTES as u64);
        let message = match segment(memory, abort.message_gva, len) {
            Ok(bytes) => printable(&bytes),
            Err(slice) => return GuestFault::BadSlice(slice).into(),
        };
        let fault = match AbortCode::try_from(abort.code) {
            Ok(AbortCode::Panic) => GuestFault::Panic { message },
            Ok(AbortCode::OutOfMemory) => GuestFault::OutOfMemory { bytes: abort.detail, message },
            Ok(AbortCode::BadChannel) => GuestFault::BadChannel { message },
            Err(code) => GuestFault::UnknownAbort { code },
        };
        fault.into()
    }
}

/// The length that a request claims for its payload.
fn payload_len(request: &Request) -> u64 {
    u64::from(request.head_len) + u64::from(request.tail_len)
}

/// Copies a request's payload out. The caller has checked its length.
fn payload(memory: &Memory, request: &Request) -> Result<Payload, BadSlice> {
    let head = segment(memory, request.head_gva, u64::from(request.head_len))?;
    let tail = segment(memory, request.tail_gva, u64::from(request.tail_len))?;
    Ok(Payload::new(head, tail))
}

/// Copies out what the guest names. The address of no bytes means nothing.
fn segment(memory: &Memory, gva: u64, len: u64) -> Result<Vec<u8>, BadSlice> {
    match len {
        0 => Ok(Vec::new()),
        _ => memory.copy_out(GuestSlice { gva: Gva(gva), len }),
    }
}

/// Copies two segments in, one behind the other, and returns their length.
fn write_segments(memory: &Memory, gva: u64, segments: [&[u8]; 2]) -> Result<u32, HostFailure> {
    let mut at = gva;
    for segment in segments {
        memory.copy_in(Gva(at), segment).map_err(HostFailure::Memory)?;
        at += segment.len() as u64;
    }
    // No area is longer than a message, and no message longer than 1 GiB.
    Ok(u32::try_from(at - gva).unwrap_or(u32::MAX))
}

/// A broken ring is the guest's doing, unless the page itself is gone.
fn ring(error: BrokenRing) -> CallError {
    match error {
        BrokenRing::Page(_) => HostFailure::Ring(error).into(),
        BrokenRing::Requests(_) | BrokenRing::Completions(_) | BrokenRing::Field { .. } => {
            GuestFault::BrokenRing(error).into()
        }
    }
}

/// The channel page is not there: ours to answer for.
pub(crate) fn page_lost(lost: PageLost) -> CallError {
    HostFailure::Ring(lost.into()).into()
}

fn bad(request: &Request, field: &'static str, value: u64) -> CallError {
    GuestFault::BadRequest { id: request.id, field, value }.into()
}

/// Hands a guest's log record, target and message, to the embedder's subscriber.
fn show_log(level: LogLevel, bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let guest_target = printable(parts.next().unwrap_or_default());
    let message = printable(parts.next().unwrap_or_default());
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(target: "cellule::guest", tracing::Level::$level, guest_target, "{message}")
        };
    }
    match level {
        LogLevel::Error => event!(ERROR),
        LogLevel::Warn => event!(WARN),
        LogLevel::Info => event!(INFO),
        LogLevel::Debug => event!(DEBUG),
        LogLevel::Trace => event!(TRACE),
    }
}
