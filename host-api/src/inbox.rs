//! The inbox: where late replies wait for the guest, and the host for them.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cellule_channel::{LateReply, Mailbox};
use cellule_kick::Kicker;

/// Replies that were given from any thread and not yet taken in, and the place
/// where the thread that runs the sandbox waits while the guest has nothing to do.
///
/// No wake-up is lost: a reply is put under the lock, and a waiter looks under
/// the lock. An interrupt is set before [`Inbox::wake`] takes the lock, so a
/// waiter that missed the flag is in its wait when the wake-up comes.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    kicker: Kicker,
}

#[derive(Debug, Default)]
struct State {
    /// At most as many as host calls may be in flight.
    replies: VecDeque<LateReply>,
    /// A thread waits here: the guest does not run, and needs no nudge.
    waiting: bool,
    /// The sandbox is gone.
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(kicker: Kicker) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), kicker }
    }

    /// Takes the reply that came first.
    pub(crate) fn take(&self) -> Option<LateReply> {
        self.lock().replies.pop_front()
    }

    /// Waits for a reply, an interrupt, or a point in time.
    pub(crate) fn wait(&self, until: Option<Instant>, interrupted: impl Fn() -> bool) {
        let mut state = self.lock();
        while state.replies.is_empty() && !interrupted() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state.waiting = true;
            state = match left {
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.waiting = false;
    }

    /// Ends a wait, if its reason to end is there.
    pub(crate) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Forgets what is here and what comes.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let forgotten = mem::take(&mut state.replies);
        drop(state);
        // Values of the embedder's: they may do anything, but not under the lock.
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox for Inbox {
    fn put(&self, reply: LateReply) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return drop(reply);
        }
        state.replies.push_back(reply);
        let waiting = state.waiting;
        drop(state);
        match waiting {
            true => self.changed.notify_all(),
            false => self.kicker.nudge(),
        }
    }
}
