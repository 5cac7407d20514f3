//! Lies in the shared rings: does by hand what the SDK would not.
#![no_std]
#![no_main]

use core::arch::asm;

use cellule_guest::abi::page::{
    ABORT_OFFSET, REQUEST_TAIL_OFFSET, RING_ENTRIES, completion_offset, request_offset,
};
use cellule_guest::abi::record::{Completion, CompletionOp};
use cellule_guest::prelude::*;

#[host_function]
fn blob(len: u32) -> Result<Vec<u8>, HostError>;

/// The channel page, in which short arguments like `marker` lie.
fn channel_page(marker: &[u8]) -> u64 {
    marker.as_ptr() as u64 & !0xfff
}

/// Writes a word into the channel page, and returns as if nothing were.
#[guest_function]
fn corrupt(marker: &[u8], offset: u32, value: u32) {
    let word = (channel_page(marker) + u64::from(offset)) as *mut u32;
    // SAFETY: the page is mapped and writable, and the offset is within it;
    // that this breaks the channel is the purpose.
    unsafe { word.write_volatile(value) }
}

/// Writes a word into the channel page, and calls the host.
#[guest_function]
fn corrupt_and_call(marker: &[u8], offset: u32, value: u32) -> Result<u32, String> {
    let word = (channel_page(marker) + u64::from(offset)) as *mut u32;
    // SAFETY: as in `corrupt`.
    unsafe { word.write_volatile(value) }
    blob(3).map(|bytes| bytes.len() as u32).map_err(|error| error.to_string())
}

/// Publishes a request of these words, `times` over, and rings with any operation.
#[guest_function]
fn submit(marker: &[u8], words: Vec<u32>, times: u32, operation: u8) {
    publish(marker, &words, times, operation);
}

/// Allocates nothing: the allocator would let the SDK look for answers.
fn publish(marker: &[u8], words: &[u32], times: u32, operation: u8) {
    let page = channel_page(marker);
    let tail = (page + REQUEST_TAIL_OFFSET as u64) as *mut u32;
    for _ in 0..times {
        // SAFETY: the page is mapped; slots are within it; at most sixteen words
        // are written to a slot of sixteen.
        unsafe {
            let index = tail.read_volatile();
            let slot = (page + request_offset(index) as u64) as *mut u32;
            for (at, word) in words.iter().take(16).enumerate() {
                slot.add(at).write_volatile(*word);
            }
            tail.write_volatile(index.wrapping_add(1));
        }
    }
    // SAFETY: the doorbell's port is open; what comes of it is the host's affair.
    unsafe { asm!("out 1, al", in("al") operation) }
}

/// As `submit`, then gives up with what the host answered, if it did.
#[guest_function]
fn submit_and_tell(marker: &[u8], words: Vec<u32>) {
    submit(marker, words, 1, 1);
    for index in 0..RING_ENTRIES {
        let slot = (channel_page(marker) + completion_offset(index) as u64) as *const Completion;
        // SAFETY: the page is mapped, the slot within it, and any bytes are a completion.
        let completion = unsafe { slot.read_volatile() };
        if completion.op == CompletionOp::Reply as u16 {
            panic!("request {} has status {}", completion.id, completion.status);
        }
    }
    panic!("no answer");
}

/// Writes a word into the channel page, and rings with any operation.
#[guest_function]
fn corrupt_and_ring(marker: &[u8], offset: u32, value: u32, operation: u8) {
    let word = (channel_page(marker) + u64::from(offset)) as *mut u32;
    // SAFETY: as in `corrupt`.
    unsafe { word.write_volatile(value) }
    // SAFETY: as in `submit`.
    unsafe { asm!("out 1, al", in("al") operation) }
}

/// Fills the abort block, and gives up.
#[guest_function]
fn abort(marker: &[u8], code: u32, len: u32, gva: u64) {
    let block = channel_page(marker) + ABORT_OFFSET as u64;
    // SAFETY: the page is mapped; the fields are within the block.
    unsafe {
        (block as *mut u32).write_volatile(code);
        ((block + 4) as *mut u32).write_volatile(len);
        ((block + 8) as *mut u64).write_volatile(gva);
        asm!("out 1, al", in("al") 3_u8);
    }
}

/// Submits for ever without reading an answer.
#[guest_function]
fn flood(marker: &[u8], words: Vec<u32>) {
    loop {
        publish(marker, &words, 1, 1);
    }
}

/// Asks the host for bytes, as a guest should.
#[guest_function]
fn fetch(len: u32) -> Result<u64, String> {
    blob(len).map(|bytes| bytes.len() as u64).map_err(|error| error.to_string())
}
