//! A send as a future.

use core::cell::UnsafeCell;
use core::future::Future;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::task::{Context, Poll};

use cellule_rtos::{NoRoom, Outcome, TaskId};

use super::{Client, Port, SendError};
use crate::future::give_up;
use crate::kernel::{Job, Section};
use crate::sync::{Line, WaitError};

/// A client that is a future. Its message is received from where it is, and its
/// reply put there, as a task's: so it is pinned as long as it has a place.
///
/// Pinned memory is not used for anything else before this is dropped; or the
/// task is killed on whose stack it is, which then is the one that polled it, and
/// with that its place is gone.
pub(super) struct Asking<'a, M, R> {
    port: &'a Port<M, R>,
    /// Others reach this through the kernel, as long as there is a place.
    client: UnsafeCell<Client<M, R>>,
    /// Its place in line, if it has one.
    place: TaskId,
    _pinned: PhantomPinned,
}

type Answer<M, R> = Result<R, SendError<M>>;

impl<'a, M, R> Asking<'a, M, R> {
    pub(super) const fn new(port: &'a Port<M, R>, message: M) -> Self {
        let client = UnsafeCell::new(Client { reply: None, message: Some(message) });
        Self { port, client, place: TaskId::NONE, _pinned: PhantomPinned }
    }

    /// The answer, and the job to be dropped outside of the section.
    fn answer(&mut self, section: &mut Section) -> Option<(Answer<M, R>, Option<Job>)> {
        if self.place == TaskId::NONE {
            return None;
        }
        let client = self.client.get_mut();
        let stands = section.id_at(self.place.number()) == self.place;
        let answer = match client.reply.take() {
            Some(reply) => Ok(reply),
            // It was received, and the task killed that polled it then.
            None if !stands && client.message.is_none() => Err(WaitError::Cancelled),
            None => match section.told(self.place)? {
                Outcome::PeerDied => Err(WaitError::PeerDied),
                _ => Err(WaitError::Cancelled),
            },
        };
        let place = core::mem::replace(&mut self.place, TaskId::NONE);
        let (job, _) = give_up(section, place);
        Some((answer.map_err(SendError::NotAnswered), job))
    }

    /// Takes a place among the clients, if it has none; a server that waits has
    /// the message then.
    fn stand(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        if self.place == TaskId::NONE || section.id_at(self.place.number()) != self.place {
            section.reserve(1)?;
            self.place =
                self.port.state.with(section, |state, core| core.enlist(state.clients(), 0))?;
            section.thread(self.place).item = self.client.get().cast();
            self.port.pass_on(section);
        }
        Ok(self.place)
    }
}

impl<M, R> Future for Asking<'_, M, R> {
    type Output = Answer<M, R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: nothing is moved but what `Client` has in its options, to which
        // nobody keeps a reference.
        let this = unsafe { self.get_unchecked_mut() };
        // A waker is a user's code: not in a section.
        let waker = context.waker().clone();
        let mut section = Section::enter();
        if let Some((answer, job)) = this.answer(&mut section) {
            section.reschedule();
            drop(job);
            return Poll::Ready(answer);
        }
        let place = this.stand(&mut section);
        section.pend(place, waker);
        Poll::Pending
    }
}

impl<M, R> Drop for Asking<'_, M, R> {
    fn drop(&mut self) {
        if self.place == TaskId::NONE {
            return;
        }
        let mut section = Section::enter();
        let (job, _) = give_up(&mut section, self.place);
        section.reschedule();
        // Message and reply are dropped after this, by nobody else.
        drop(job);
    }
}
