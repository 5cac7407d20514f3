//! Is interrupted, waits and lies, all by hand: a guest that does not link the
//! SDK, so that a test can say every word of the ABI itself.
//!
//! Every export takes four numbers and returns one. What a test sets up (a
//! deadline, a field of the task block) stays until the next call changes it.
#![no_std]
#![no_main]

mod bare;
mod entries;
mod exports;
mod shared;

use core::sync::atomic::Ordering::Relaxed;

use cellule_abi::doorbell::Doorbell;
use cellule_abi::page::CLOCK_LIMIT_OFFSET;
use cellule_abi::record::{Completion, CompletionOp, Request, RequestOp, ReturnStatus};
use shared::{BACKGROUND, BLOCK, LAST_REPLY, LIMIT_SEEN, TICKS};

/// Serves calls, and does background work while there is none.
pub extern "C" fn main(page: u64) -> ! {
    shared::start(page);
    loop {
        match shared::take() {
            Some(completion) if completion.op == CompletionOp::Call as u16 => serve(&completion),
            // A reply that its export did not wait for.
            Some(reply) => LAST_REPLY.store(exports::result(&reply), Relaxed),
            None => background(),
        }
    }
}

fn serve(call: &Completion) {
    shared::CALL.store(call.id, Relaxed);
    let args = shared::numbers(call);
    match exports::TABLE.get(call.function as usize) {
        Some(export) => answer(ReturnStatus::Ok, (export.code)(args)),
        None => answer(ReturnStatus::UnknownFunction, 0),
    }
}

/// Publishes what comes of the call under way.
pub fn answer(status: ReturnStatus, result: u64) {
    let (bytes, len) = shared::number(result);
    shared::RESULT.set(bytes);
    shared::push(Request {
        id: shared::CALL.load(Relaxed),
        op: RequestOp::Return as u16,
        status: status as u32,
        head_gva: shared::RESULT.address(),
        head_len: len,
        ..Request::default()
    });
}

/// What a runtime does when there is no call: waits, or ticks when its time has come.
fn background() {
    let period = BACKGROUND.load(Relaxed);
    // What was taken is done with.
    shared::release();
    let limit = shared::page() + CLOCK_LIMIT_OFFSET as u64;
    LIMIT_SEEN.store(shared::load(limit), Relaxed);
    if period == 1 {
        // Busy, but for what an upcall finds.
        shared::ring(Doorbell::Submit);
        while shared::is_empty() {
            core::hint::spin_loop();
        }
        return;
    }
    // A wait with this word set returns at once: what it is for is looked at here.
    BLOCK.store_u32(shared::PENDING, 0);
    if shared::is_empty() {
        shared::ring(Doorbell::Wait);
    }
    if period > 1 && BLOCK.load(shared::DEADLINE) <= shared::now_ns() {
        TICKS.fetch_add(1, Relaxed);
        BLOCK.store(shared::DEADLINE, BLOCK.load(shared::DEADLINE) + period);
    }
}
