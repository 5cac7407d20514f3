//! Futures that wait to be told something, and then have it: no second try.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use cellule_rtos::{NoRoom, Outcome, TaskId};

use super::give_up;
use crate::kernel::{Job, Section};

/// Where everyone is told a number who waits.
pub(crate) trait Announcement {
    /// What it would be told, if it need not wait.
    fn attempt(&mut self, section: &mut Section) -> Option<u64>;

    /// Takes a place in the line, for which there is room.
    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom>;

    /// It goes, and has not heard that it was told this.
    fn unheard(&mut self, section: &mut Section, number: u64);
}

/// A wait for an announcement, as a future.
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Listening<A: Announcement> {
    announcement: A,
    /// Its place in line, if it has one.
    place: TaskId,
}

/// Nothing in it is pinned.
impl<A: Announcement> Unpin for Listening<A> {}

impl<A: Announcement> Listening<A> {
    pub(crate) const fn new(announcement: A) -> Self {
        Self { announcement, place: TaskId::NONE }
    }

    /// Whether it has a place; its task may have been killed, and it with that.
    fn stands(&self, section: &Section) -> bool {
        self.place != TaskId::NONE && section.id_at(self.place.number()) == self.place
    }

    /// What it was told, and its job, to be dropped outside of the section.
    fn hear(&mut self, section: &mut Section) -> Option<(u64, Option<Job>)> {
        if !self.stands(section) {
            return self.announcement.attempt(section).map(|number| (number, None));
        }
        let Some(Outcome::Granted(number)) = section.told(self.place) else { return None };
        let place = core::mem::replace(&mut self.place, TaskId::NONE);
        Some((number, give_up(section, place).0))
    }

    fn stand(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        if !self.stands(section) {
            section.reserve(1)?;
            self.place = self.announcement.enlist(section)?;
        }
        Ok(self.place)
    }
}

impl<A: Announcement> Future for Listening<A> {
    type Output = u64;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let this = self.get_mut();
        let mut section = Section::enter();
        let mut heard = this.hear(&mut section);
        if heard.is_none() {
            // A waker is a user's code: not in a section.
            drop(section);
            let waker = context.waker().clone();
            section = Section::enter();
            heard = this.hear(&mut section);
            if heard.is_none() {
                let place = this.stand(&mut section);
                section.pend(place, waker);
                return Poll::Pending;
            }
        }
        section.reschedule();
        // The job is dropped here, after the section.
        heard.map_or(Poll::Pending, |(number, _)| Poll::Ready(number))
    }
}

impl<A: Announcement> Drop for Listening<A> {
    fn drop(&mut self) {
        if self.place == TaskId::NONE {
            return;
        }
        let mut section = Section::enter();
        let told = section.told(self.place);
        let (job, _) = give_up(&mut section, self.place);
        if let Some(Outcome::Granted(number)) = told {
            self.announcement.unheard(&mut section, number);
        }
        section.reschedule();
        drop(job);
    }
}
