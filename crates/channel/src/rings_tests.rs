use std::cell::RefCell;

use cellule_abi::PAGE_BYTES;
use cellule_abi::record::{CompletionOp, RequestOp};

use super::*;

/// A page in plain memory, that the test plays the guest on.
struct Memory(RefCell<Vec<u8>>);

impl Memory {
    fn new() -> Self {
        Self(RefCell::new(vec![0; PAGE_BYTES]))
    }

    /// Publishes requests as a guest does.
    fn submit(&self, tail: u32, request: &Request) {
        self.write(request_offset(tail.wrapping_sub(1)), request.as_bytes()).unwrap();
        self.store(REQUEST_TAIL_OFFSET, tail).unwrap();
    }
}

impl Page for Memory {
    fn load(&self, offset: usize) -> Result<u32, PageLost> {
        let mut word = [0; 4];
        self.read(offset, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn store(&self, offset: usize, value: u32) -> Result<(), PageLost> {
        self.write(offset, &value.to_le_bytes())
    }

    fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), PageLost> {
        to.copy_from_slice(&self.0.borrow()[offset..][..to.len()]);
        Ok(())
    }

    fn write(&self, offset: usize, from: &[u8]) -> Result<(), PageLost> {
        self.0.borrow_mut()[offset..][..from.len()].copy_from_slice(from);
        Ok(())
    }
}

fn request(id: u64) -> Request {
    Request { id, op: RequestOp::HostCall as u16, ..Default::default() }
}

#[test]
fn requests_come_out_in_order_across_the_seam() {
    let page = Memory::new();
    let mut rings = Rings::new(0);
    for id in 1..=100_u32 {
        page.submit(id, &request(u64::from(id)));
        assert_eq!(rings.requests(&page), Ok(1));
        assert_eq!(rings.take(&page).unwrap().id, u64::from(id));
        rings.publish_taken(&page).unwrap();
        assert_eq!(page.load(REQUEST_HEAD_OFFSET), Ok(id));
    }
}

#[test]
fn impossible_indices_are_refused() {
    let page = Memory::new();
    let mut rings = Rings::new(0);
    for tail in [RING_ENTRIES + 1, u32::MAX, 1 << 31] {
        page.store(REQUEST_TAIL_OFFSET, tail).unwrap();
        let step = OutOfStep { published: tail, consumed: 0 };
        assert_eq!(rings.requests(&page), Err(BrokenRing::Requests(step)));
    }
    for head in [1, u32::MAX, 1 << 31] {
        page.store(COMPLETION_HEAD_OFFSET, head).unwrap();
        assert!(matches!(rings.unread(&page), Err(BrokenRing::Completions(_))));
    }
}

#[test]
fn a_completion_cannot_be_unread_again() {
    let page = Memory::new();
    let mut rings = Rings::new(0);
    let completion = Completion { op: CompletionOp::Reply as u16, ..Default::default() };
    rings.post(&page, &completion).unwrap();
    assert_eq!(rings.unread(&page), Ok(1));
    page.store(COMPLETION_HEAD_OFFSET, 1).unwrap();
    assert_eq!(rings.unread(&page), Ok(0));
    page.store(COMPLETION_HEAD_OFFSET, 0).unwrap();
    assert!(rings.unread(&page).is_err(), "a head that moves back should be refused");
}

#[test]
fn reserved_fields_in_use_are_refused() {
    let bad = [
        Request { flags: 1, ..request(7) },
        Request { reserved: [0, 9], ..request(7) },
        Request { reserved: [9, 0], ..request(7) },
    ];
    for request in bad {
        let page = Memory::new();
        page.submit(1, &request);
        let taken = Rings::new(0).take(&page);
        assert!(matches!(taken, Err(BrokenRing::Field { id: 7, .. })), "{taken:?}");
    }
}

#[test]
fn a_full_completion_ring_has_no_slot() {
    let page = Memory::new();
    let mut rings = Rings::new(0);
    for _ in 0..RING_ENTRIES {
        assert!(rings.has_slot());
        rings.post(&page, &Completion::default()).unwrap();
    }
    assert!(!rings.has_slot());
    page.store(COMPLETION_HEAD_OFFSET, 1).unwrap();
    rings.unread(&page).unwrap();
    assert!(rings.has_slot());
}

#[test]
fn reply_ranges_never_overlap_and_are_freed_in_order() {
    let page = Memory::new();
    let mut rings = Rings::new(100);
    let mut live: VecDeque<(usize, usize)> = VecDeque::new();
    let mut consumed = 0;
    // Lengths that do not divide the area, so that every kind of wrap occurs.
    for len in [30, 40, 20, 50, 10, 60, 100, 0, 33, 33, 33, 99, 1, 1].repeat(20) {
        let start = loop {
            if let Some(start) = rings.reserve(len) {
                break start;
            }
            consumed += 1;
            live.pop_front();
            page.store(COMPLETION_HEAD_OFFSET, consumed).unwrap();
            rings.unread(&page).unwrap();
        };
        assert!(start + len <= 100);
        let apart = |(other, end): &(usize, usize)| start + len <= *other || *end <= start;
        assert!(len == 0 || live.iter().all(apart), "{start}+{len} overlaps one of {live:?}");
        live.push_back((start, start + len));
        while !rings.has_slot() {
            consumed += 1;
            live.pop_front();
            page.store(COMPLETION_HEAD_OFFSET, consumed).unwrap();
            rings.unread(&page).unwrap();
        }
        rings.post(&page, &Completion::default()).unwrap();
    }
    assert_eq!(rings.reserve(101), None, "what is longer than the area never fits");
}
