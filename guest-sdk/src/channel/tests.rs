//! A channel against a host that follows a script.

use core::cell::{Cell, RefCell};
use std::borrow::ToOwned;
use std::collections::VecDeque;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::*;

/// A host: takes all requests at each doorbell and, at `Wait`, gives the next
/// completions of its script.
#[derive(Default)]
struct Host {
    requests: RefCell<[Request; RING_ENTRIES as usize]>,
    completions: RefCell<[Completion; RING_ENTRIES as usize]>,
    request_head: Cell<u32>,
    request_tail: Cell<u32>,
    completion_head: Cell<u32>,
    completion_tail: Cell<u32>,
    script: RefCell<VecDeque<Completion>>,
    doorbells: RefCell<Vec<Doorbell>>,
    taken: RefCell<Vec<(Request, Vec<u8>)>>,
    deaf: Cell<bool>,
}

impl Host {
    fn give(&self, completion: Completion) {
        let tail = self.completion_tail.get();
        self.completions.borrow_mut()[(tail % RING_ENTRIES) as usize] = completion;
        self.completion_tail.set(tail.wrapping_add(1));
    }

    fn take_requests(&self) {
        while self.request_head.get() != self.request_tail.get() {
            let head = self.request_head.get();
            let request = self.requests.borrow()[(head % RING_ENTRIES) as usize];
            let payload = [
                read(request.head_gva, request.head_len),
                read(request.tail_gva, request.tail_len),
            ];
            self.taken.borrow_mut().push((request, payload.concat()));
            self.request_head.set(head.wrapping_add(1));
        }
    }
}

fn read(gva: u64, len: u32) -> Vec<u8> {
    let bytes = core::ptr::with_exposed_provenance::<u8>(usize::try_from(gva).unwrap());
    // SAFETY: the channel gives the address of a slice of `len` bytes that
    // lives until the doorbell returns, and we are in the doorbell.
    unsafe { core::slice::from_raw_parts(bytes, len as usize) }.to_vec()
}

impl Port for &Host {
    fn request_head(&self) -> u32 {
        self.request_head.get()
    }
    fn completion_tail(&self) -> u32 {
        self.completion_tail.get()
    }
    fn completion(&self, index: u32) -> Completion {
        self.completions.borrow()[(index % RING_ENTRIES) as usize]
    }
    fn put_request(&self, index: u32, request: Request) {
        self.requests.borrow_mut()[(index % RING_ENTRIES) as usize] = request;
    }
    fn publish_requests(&self, tail: u32) {
        self.request_tail.set(tail);
    }
    fn release_completions(&self, head: u32) {
        self.completion_head.set(head);
    }
    fn ring(&self, operation: Doorbell) {
        self.doorbells.borrow_mut().push(operation);
        if self.deaf.get() {
            return;
        }
        self.take_requests();
        if operation == Doorbell::Wait {
            let next = self.script.borrow_mut().pop_front();
            next.into_iter().for_each(|completion| self.give(completion));
        }
    }
}

fn call(id: u64) -> Completion {
    Completion { id, op: CompletionOp::Call as u16, ..Completion::default() }
}

fn reply(id: u64) -> Completion {
    Completion { id, op: CompletionOp::Reply as u16, ..Completion::default() }
}

#[test]
fn a_call_that_is_there_already_costs_no_doorbell() {
    let host = Host::default();
    host.give(call(7));
    let mut channel = Channel::new(&host);
    assert_eq!(channel.next_call(), Ok(call(7)));
    assert_eq!(host.doorbells.take(), []);
    assert_eq!(host.completion_head.get(), 1);
}

#[test]
fn a_guest_call_is_one_doorbell() {
    let host = Host::default();
    host.give(call(7));
    host.script.borrow_mut().push_back(call(8));
    let mut channel = Channel::new(&host);
    channel.next_call().unwrap();
    channel.answer(7, ReturnStatus::Ok, b"head", b"tail").unwrap();
    assert_eq!(channel.next_call(), Ok(call(8)));
    assert_eq!(host.doorbells.take(), [Doorbell::Wait]);
    let taken = host.taken.take();
    assert_eq!((taken[0].0.op, taken[0].0.id), (RequestOp::Return as u16, 7));
    assert_eq!(taken[0].1, b"headtail");
}

#[test]
fn a_host_call_is_one_doorbell_and_keeps_its_reply_until_the_end() {
    let host = Host::default();
    host.script.borrow_mut().push_back(reply(1));
    let mut channel = Channel::new(&host);
    assert_eq!(channel.call(3, b"a", b"b"), Ok(reply(1)));
    assert_eq!(host.doorbells.take(), [Doorbell::Wait]);
    assert_eq!(host.completion_head.get(), 0, "the reply is in use");
    channel.end_reply();
    assert_eq!(host.completion_head.get(), 1);
    assert_eq!(host.taken.borrow()[0].0.function, 3);
}

#[test]
fn a_host_call_while_a_reply_is_decoded_releases_neither() {
    let host = Host::default();
    host.script.borrow_mut().extend([reply(1), reply(2)]);
    let mut channel = Channel::new(&host);
    channel.call(0, &[], &[]).unwrap();
    channel.call(0, &[], &[]).unwrap();
    channel.end_reply();
    assert_eq!(host.completion_head.get(), 0, "the first reply is in use");
    channel.end_reply();
    assert_eq!(host.completion_head.get(), 2);
}

#[test]
fn log_records_ride_with_the_next_doorbell() {
    let host = Host::default();
    host.script.borrow_mut().push_back(reply(1));
    let mut channel = Channel::new(&host);
    channel.log(1, "t", "first").unwrap();
    channel.log(5, "t", "second").unwrap();
    assert_eq!(host.doorbells.borrow().len(), 0);
    channel.call(0, &[], &[]).unwrap();
    let taken = host.taken.take();
    let payloads: Vec<_> = taken.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(payloads, [b"t\0first".as_slice(), b"t\0second", b""]);
    assert_eq!(taken.iter().map(|(r, _)| r.function).collect::<Vec<_>>(), [1, 5, 0]);
}

#[test]
fn a_full_ring_is_submitted_once() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    for _ in 0..=RING_ENTRIES {
        channel.log(3, "t", "m").unwrap();
    }
    assert_eq!(host.doorbells.take(), [Doorbell::Submit]);
    assert_eq!(host.taken.borrow().len(), RING_ENTRIES as usize);
}

#[test]
fn many_short_records_cost_a_doorbell_per_ring_and_no_more() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    for _ in 0..100 * RING_ENTRIES {
        channel.log(3, "target", "a message of some twenty bytes").unwrap();
    }
    assert_eq!(host.doorbells.borrow().len(), 99, "the last ring waits for the next exit");
}

#[test]
fn a_full_outbox_is_submitted_and_no_record_is_lost() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    let messages: Vec<String> = (0..20u8).map(|n| char::from(b'a' + n).into()).collect();
    for message in &messages {
        channel.log(3, "t", &message.repeat(1000)).unwrap();
    }
    assert_eq!(host.doorbells.borrow().as_slice(), [Doorbell::Submit; 2]);
    host.take_requests();
    let expected: Vec<_> = messages.iter().map(|m| "t\0".to_owned() + &m.repeat(1000)).collect();
    let taken = host.taken.take();
    assert!(
        taken.iter().map(|(_, bytes)| bytes.as_slice()).eq(expected.iter().map(|e| e.as_bytes()))
    );
}

#[test]
fn indices_wrap_without_a_seam() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    let start = u32::MAX - 3;
    (channel.pushed, channel.taken) = (start, start);
    host.request_head.set(start);
    host.request_tail.set(start);
    host.completion_tail.set(start);
    for id in 1..=8 {
        host.script.borrow_mut().push_back(reply(id));
        channel.call(0, &[], &[]).unwrap();
        channel.end_reply();
    }
    assert_eq!(host.completion_head.get(), 4);
}

#[test]
fn a_broken_channel_is_noticed() {
    let host = Host::default();
    assert_eq!(Channel::new(&host).next_call(), Err(Broken::NothingCame));
    host.script.borrow_mut().extend([reply(1), call(1), reply(9)]);
    let unexpected = |op, id| Err(Broken::Unexpected { op: op as u16, id });
    assert_eq!(Channel::new(&host).next_call(), unexpected(CompletionOp::Reply, 1));
    let later = Host { script: RefCell::new(vec![call(1)].into()), ..Host::default() };
    assert_eq!(Channel::new(&later).call(0, &[], &[]), unexpected(CompletionOp::Call, 1));
    let stray = Host { script: RefCell::new(vec![reply(9)].into()), ..Host::default() };
    assert_eq!(Channel::new(&stray).call(0, &[], &[]), unexpected(CompletionOp::Reply, 9));
}

#[test]
fn a_host_that_takes_nothing_is_noticed() {
    let host = Host::default();
    host.deaf.set(true);
    let mut channel = Channel::new(&host);
    for _ in 0..RING_ENTRIES {
        channel.log(1, "t", "m").unwrap();
    }
    assert_eq!(channel.log(1, "t", "m"), Err(Broken::NothingTaken));
    host.request_head.set(1000);
    assert!(matches!(channel.log(1, "t", "m"), Err(Broken::OutOfStep(_))));
}
