//! Threads of the standard library.

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::sample;

/// A counting semaphore of a mutex and a condition variable.
#[derive(Default)]
struct Semaphore {
    count: Mutex<u32>,
    changed: Condvar,
}

impl Semaphore {
    fn give(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
    }

    fn take(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(count, |count| *count == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// Gives and takes a unit that nobody waits for.
pub fn thread_semaphore(samples: u32) -> Vec<f64> {
    let unit = Semaphore::default();
    sample(samples, || {
        unit.give();
        unit.take();
    })
}

/// Locks and unlocks a mutex that nobody else wants.
pub fn thread_mutex(samples: u32) -> Vec<f64> {
    let value = Mutex::new(0_u64);
    sample(samples, || *black_box(&value).lock().unwrap_or_else(PoisonError::into_inner) += 1)
}

/// Sends and receives an item of 16 bytes, which nobody waits for.
pub fn thread_queue(samples: u32) -> Vec<f64> {
    let (sender, receiver) = sync_channel::<(u64, u64)>(8);
    sample(samples, || {
        let sent = sender.send((1, 2));
        let _ = black_box((sent, receiver.recv()));
    })
}

/// One of the two wake-ups by which two threads take turns.
pub fn thread_switch(samples: u32) -> Vec<f64> {
    halves(thread_message(samples))
}

/// Wakes a thread that waits for a unit; it wakes this one in turn, and half of
/// that is counted.
pub fn thread_hand_over(samples: u32) -> Vec<f64> {
    let there = Arc::new(Semaphore::default());
    let back = Arc::new(Semaphore::default());
    let (to, from) = (Arc::clone(&there), Arc::clone(&back));
    let batches = samples * super::BATCH + super::BATCH;
    let other = thread::spawn(move || {
        for _ in 0..batches {
            to.take();
            from.give();
        }
    });
    let taken = sample(samples, || {
        there.give();
        back.take();
    });
    // It has nothing to return.
    let _ = other.join();
    halves(taken)
}

/// Sends a message to another thread, which receives it and replies.
pub fn thread_message(samples: u32) -> Vec<f64> {
    let (ask, asked) = sync_channel::<u64>(0);
    let (answer, answered) = sync_channel::<u64>(0);
    let server = thread::spawn(move || {
        while let Ok(message) = asked.recv() {
            if answer.send(message + 1).is_err() {
                break;
            }
        }
    });
    let taken = sample(samples, || {
        let sent = ask.send(1);
        let _ = black_box((sent, answered.recv()));
    });
    drop(ask);
    // It has nothing to return.
    let _ = server.join();
    taken
}

fn halves(samples: Vec<f64>) -> Vec<f64> {
    samples.into_iter().map(|both| both / 2.0).collect()
}
