//! The host's end of the shared rings.
//!
//! The host keeps its own indices and believes none that the guest can write.
//! It knows the shared page as a [`Page`], which a test or a fuzzer can be too.

use std::collections::VecDeque;

use cellule_abi::page::{
    COMPLETION_HEAD_OFFSET, COMPLETION_TAIL_OFFSET, REQUEST_HEAD_OFFSET, REQUEST_TAIL_OFFSET,
    RING_ENTRIES, completion_offset, request_offset,
};
use cellule_abi::record::{Completion, Request};
use cellule_abi::ring::{OutOfStep, waiting};
use zerocopy::{FromZeros, IntoBytes};

/// The channel page: the guest may change any byte of it at any moment.
pub trait Page {
    /// Reads an aligned word once, with acquire ordering.
    ///
    /// # Errors
    ///
    /// [`PageLost`] if the page is not there.
    fn load(&self, offset: usize) -> Result<u32, PageLost>;
    /// Writes an aligned word, with release ordering.
    ///
    /// # Errors
    ///
    /// [`PageLost`] if the page is not there.
    fn store(&self, offset: usize, value: u32) -> Result<(), PageLost>;
    /// Copies bytes out, once.
    ///
    /// # Errors
    ///
    /// [`PageLost`] if the page is not there.
    fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), PageLost>;
    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// [`PageLost`] if the page is not there.
    fn write(&self, offset: usize, from: &[u8]) -> Result<(), PageLost>;
}

/// The channel page cannot be reached: a defect of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel page is not mapped")]
pub struct PageLost;

/// The guest broke a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenRing {
    /// The request indices cannot be.
    #[error("request ring: {0}")]
    Requests(#[source] OutOfStep),
    /// The completion indices cannot be.
    #[error("completion ring: {0}")]
    Completions(#[source] OutOfStep),
    /// A record has a field that the ABI does not allow.
    #[error("request {id}: {field} is {value:#x}, which ABI version {version} does not know", version = cellule_abi::ABI_VERSION)]
    Field {
        /// The record's id.
        id: u64,
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The page is gone.
    #[error(transparent)]
    Page(#[from] PageLost),
}

/// Indices and reply space, as the host alone knows them.
#[derive(Debug)]
pub struct Rings {
    request_head: u32,
    completion_tail: u32,
    /// The guest's completion head when it was last seen and found possible.
    completion_head: u32,
    replies: Arena,
}

impl Rings {
    /// Empty rings, and a reply area of `reply_bytes`.
    pub fn new(reply_bytes: usize) -> Self {
        Self {
            request_head: 0,
            completion_tail: 0,
            completion_head: 0,
            replies: Arena::new(reply_bytes),
        }
    }

    /// How many requests wait. The answer is a promise of this moment: a caller
    /// takes that many and no more, however the guest's index moves.
    ///
    /// # Errors
    ///
    /// [`BrokenRing`] if the guest's index is impossible.
    pub fn requests(&self, page: &impl Page) -> Result<u32, BrokenRing> {
        let tail = page.load(REQUEST_TAIL_OFFSET)?;
        waiting(tail, self.request_head).map_err(BrokenRing::Requests)
    }

    /// Copies the next request out and checks what every request must be.
    ///
    /// # Errors
    ///
    /// [`BrokenRing`] if a reserved field is in use.
    pub fn take(&mut self, page: &impl Page) -> Result<Request, BrokenRing> {
        let mut request = Request::new_zeroed();
        page.read(request_offset(self.request_head), request.as_mut_bytes())?;
        self.request_head = self.request_head.wrapping_add(1);
        let id = request.id;
        let [first, second] = request.reserved;
        let reserved =
            [("flags", u64::from(request.flags)), ("reserved", first), ("reserved", second)];
        match reserved.into_iter().find(|(_, value)| *value != 0) {
            Some((field, value)) => Err(BrokenRing::Field { id, field, value }),
            None => Ok(request),
        }
    }

    /// Tells the guest how far its requests have been taken.
    ///
    /// # Errors
    ///
    /// [`BrokenRing::Page`] if the page is gone.
    pub fn publish_taken(&self, page: &impl Page) -> Result<(), BrokenRing> {
        Ok(page.store(REQUEST_HEAD_OFFSET, self.request_head)?)
    }

    /// Looks how far the guest has consumed, frees what it needs no more, and
    /// returns how many completions it has not consumed.
    ///
    /// # Errors
    ///
    /// [`BrokenRing`] if the guest's index is impossible.
    pub fn unread(&mut self, page: &impl Page) -> Result<u32, BrokenRing> {
        let head = page.load(COMPLETION_HEAD_OFFSET)?;
        let step = || OutOfStep { published: self.completion_tail, consumed: head };
        let unread = waiting(self.completion_tail, head).map_err(BrokenRing::Completions)?;
        let before = self.completion_tail.wrapping_sub(self.completion_head);
        if unread > before {
            return Err(BrokenRing::Completions(step()));
        }
        self.completion_head = head;
        self.replies.free_before(self.completion_tail.wrapping_sub(unread), self.completion_tail);
        Ok(unread)
    }

    /// Whether one more completion has a slot. Call [`Rings::unread`] first.
    pub fn has_slot(&self) -> bool {
        self.completion_tail.wrapping_sub(self.completion_head) < RING_ENTRIES
    }

    /// Whether one more reply has a slot: the last one is kept for a call, so that
    /// a guest that was answered much can still be called. Call [`Rings::unread`] first.
    pub fn has_reply_slot(&self) -> bool {
        self.completion_tail.wrapping_sub(self.completion_head) < RING_ENTRIES - 1
    }

    /// Finds `len` contiguous bytes of the reply area for the next completion
    /// and returns their offset, or `None` if the guest must consume first.
    pub fn reserve(&mut self, len: usize) -> Option<usize> {
        self.replies.reserve(len, self.completion_tail)
    }

    /// Publishes a completion. There must be a slot.
    ///
    /// # Errors
    ///
    /// [`BrokenRing::Page`] if the page is gone.
    pub fn post(&mut self, page: &impl Page, completion: &Completion) -> Result<(), BrokenRing> {
        page.write(completion_offset(self.completion_tail), completion.as_bytes())?;
        self.completion_tail = self.completion_tail.wrapping_add(1);
        Ok(page.store(COMPLETION_TAIL_OFFSET, self.completion_tail)?)
    }
}

/// A first-in first-out area of contiguous ranges, each owned by a completion.
#[derive(Debug)]
struct Arena {
    len: usize,
    /// Where the next range starts, if it fits before the end.
    next: usize,
    /// Ranges in use, oldest first: the completion's index, start, end.
    used: VecDeque<(u32, usize, usize)>,
}

impl Arena {
    fn new(len: usize) -> Self {
        Self { len, next: 0, used: VecDeque::new() }
    }

    fn reserve(&mut self, len: usize, owner: u32) -> Option<usize> {
        if len == 0 {
            return Some(0);
        }
        let start = match self.used.front() {
            // Nothing in use: start over, so that few pages are ever touched.
            None => (len <= self.len).then_some(0)?,
            Some((_, oldest, _)) if *oldest < self.next => {
                let fits_behind = self.len - self.next >= len;
                let fits_before = *oldest >= len;
                if fits_behind { self.next } else { fits_before.then_some(0)? }
            }
            // Wrapped around: the free space ends where the oldest begins.
            Some((_, oldest, _)) => (oldest - self.next >= len).then_some(self.next)?,
        };
        self.next = start + len;
        self.used.push_back((owner, start, self.next));
        Some(start)
    }

    /// Frees what belongs to completions before `head`; `tail` bounds them all.
    fn free_before(&mut self, head: u32, tail: u32) {
        let unread = tail.wrapping_sub(head);
        while self.used.front().is_some_and(|(owner, ..)| tail.wrapping_sub(*owner) > unread) {
            self.used.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "rings_tests.rs"]
mod tests;
