//! A channel against a host that follows a script.

use core::cell::{Cell, RefCell};
use std::borrow::ToOwned;
use std::string::String;
use std::vec::Vec;

use super::*;

/// A host: takes all requests at each doorbell.
#[derive(Default)]
struct Host {
    requests: RefCell<[Request; RING_ENTRIES as usize]>,
    completions: RefCell<[Completion; RING_ENTRIES as usize]>,
    request_head: Cell<u32>,
    request_tail: Cell<u32>,
    completion_head: Cell<u32>,
    completion_tail: Cell<u32>,
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
    }
}

fn call(id: u64) -> Completion {
    Completion { id, op: CompletionOp::Call as u16, ..Completion::default() }
}

fn reply(id: u64) -> Completion {
    Completion { id, op: CompletionOp::Reply as u16, ..Completion::default() }
}

/// Takes the next completion, which must be there.
fn take(channel: &mut Channel<&Host>) -> Taken {
    channel.next().unwrap().expect("a completion")
}

#[test]
fn completions_are_taken_in_order_and_cost_no_doorbell() {
    let host = Host::default();
    host.give(call(7));
    let mut channel = Channel::new(&host);
    assert_eq!(take(&mut channel).completion, call(7));
    assert!(channel.next().unwrap().is_none());
    assert_eq!(host.doorbells.take(), []);
    assert_eq!(host.completion_head.get(), 1, "a call is nobody's once it was taken");
}

#[test]
fn an_answer_goes_out_whole_with_the_next_doorbell() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    channel.answer(7, ReturnStatus::Ok, b"head", b"tail").unwrap();
    assert_eq!(host.doorbells.take(), []);
    host.take_requests();
    let taken = host.taken.take();
    assert_eq!((taken[0].0.op, taken[0].0.id), (RequestOp::Return as u16, 7));
    assert_eq!(taken[0].1, b"headtail");
}

#[test]
fn a_host_calls_id_tells_its_task_and_is_never_used_again() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    let first = channel.call(3, 5, b"a", b"b").unwrap();
    let second = channel.call(4, 5, &[], &[]).unwrap();
    assert_ne!(first, second);
    host.give(reply(second));
    assert_eq!(take(&mut channel).task(), 5);
    host.take_requests();
    let (request, bytes) = host.taken.borrow()[0].clone();
    assert_eq!((request.id, request.function, request.task), (first, 3, 5));
    assert_eq!(bytes, b"ab");
}

#[test]
fn a_reply_is_the_guests_until_it_and_all_before_it_were_given_back() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    [1, 2, 3].into_iter().for_each(|id| host.give(reply(id)));
    let [first, second, third] = [(); 3].map(|()| take(&mut channel));
    assert_eq!(host.completion_head.get(), 0);
    channel.end_reply(second);
    assert_eq!(host.completion_head.get(), 0, "the first reply is in use");
    channel.end_reply(first);
    assert_eq!(host.completion_head.get(), 2);
    channel.end_reply(third);
    assert_eq!(host.completion_head.get(), 3);
}

#[test]
fn log_records_ride_with_the_next_doorbell() {
    let host = Host::default();
    let mut channel = Channel::new(&host);
    channel.log(1, "t", "first").unwrap();
    channel.log(5, "t", "second").unwrap();
    assert_eq!(host.doorbells.borrow().len(), 0);
    channel.call(0, 0, &[], &[]).unwrap();
    host.take_requests();
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
    (channel.pushed, channel.taken, channel.released) = (start, start, start);
    host.request_head.set(start);
    host.request_tail.set(start);
    host.completion_tail.set(start);
    for id in 1..=8 {
        host.give(reply(id));
        channel.call(0, 0, &[], &[]).unwrap();
        host.take_requests();
        let reply = take(&mut channel);
        channel.end_reply(reply);
    }
    assert_eq!(host.completion_head.get(), 4);
}

#[test]
fn a_broken_channel_is_noticed() {
    let host = Host::default();
    host.give(Completion { op: 9, ..call(1) });
    assert_eq!(Channel::new(&host).next().unwrap_err(), Broken::Unexpected { op: 9, id: 1 });
    host.completion_tail.set(1000);
    assert!(matches!(Channel::new(&host).next(), Err(Broken::OutOfStep(_))));
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
