//! What the tests of several primitives need.

use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Waker};
use std::sync::Mutex;

use crate::task::{Builder, JoinHandle, Priority};
use crate::time::Duration;
use crate::timer::Timer;

/// Counts its drops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drops(Arc<AtomicU32>);

/// A value whose drop is counted.
#[derive(Debug)]
pub(crate) struct Counted(Drops, pub(crate) u32);

impl Drops {
    pub(crate) fn value(&self, number: u32) -> Counted {
        Counted(self.clone(), number)
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Spawns a task that is more urgent than the test, and so runs until it waits.
pub(crate) fn spawn_at<T: Send + 'static>(
    priority: u8,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    Builder::new().priority(Priority::new(priority).unwrap()).spawn(body).unwrap()
}

/// Polls a future, which nobody is to wake.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        core::task::Poll::Ready(value) => Some(value),
        core::task::Poll::Pending => None,
    }
}

/// Calls `function` in a timer's function.
pub(crate) fn in_handler<T: Send + 'static>(function: fn() -> T) -> T {
    struct Call<T>(fn() -> T, Mutex<Option<T>>);
    let call = alloc::boxed::Box::leak(alloc::boxed::Box::new(Call(function, Mutex::new(None))));
    let timer = Timer::calling_with(
        |call: &'static Call<T>| *call.1.lock().unwrap() = Some((call.0)()),
        call,
    );
    timer.start_once(Duration::ZERO).unwrap();
    call.1.lock().unwrap().take().unwrap()
}
