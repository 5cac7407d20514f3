//! Futures in line and timers: neither runs by itself. When it is the turn of one,
//! the kernel gives notice, and the shell wakes or calls whoever it is.

use crate::kernel::{Kernel, NoRoom};
use crate::priority::Priority;
use crate::slot::{Index, Kind, NIL, Outcome, Slot, TaskId};
use crate::wait::WaitQueue;

impl Kernel {
    /// Gives a future a place in line, with the running task's priority. When it
    /// is its turn, [`Kernel::next_notice`] says so, and the future tries again.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]
    pub fn enlist(&mut self, queue: &mut WaitQueue, want: u64) -> Result<TaskId, NoRoom> {
        let current = self.slots.get(usize::from(self.current_id.number()));
        let priority = current.map_or(Priority::LOWEST, |slot| slot.effective);
        let (index, id) = self.allot(Kind::Proxy, priority)?;
        self.slots[usize::from(index)].since = self.next_serial();
        self.slots[usize::from(index)].want = want;
        self.enqueue(queue, index);
        Ok(id)
    }

    /// Puts a notified future back, where it would be had it not been notified.
    pub fn enlist_again(&mut self, id: TaskId, queue: &mut WaitQueue) {
        if let Some(index) = self.find_kind(id, Kind::Proxy)
            && self.slots[usize::from(index)].queue == NIL
        {
            // It has tried for another reason, before it was told: a slot is not
            // in a queue and among the notices at once.
            self.forget_notice(index);
            self.slots[usize::from(index)].line = WaitQueue::new();
            self.enqueue(queue, index);
        }
    }

    /// Gives a future's place up; whether it had been notified and so must pass
    /// the word on, also if it has what it waited for: an object may have more.
    pub fn delist(&mut self, id: TaskId) -> bool {
        let Some(index) = self.find_kind(id, Kind::Proxy) else { return false };
        let notified = self.slots[usize::from(index)].queue == NIL;
        self.forget_notice(index);
        self.leave(index);
        self.free(index);
        notified
    }

    /// Gives up the place of a future that nobody will poll: its task has ended.
    /// If it had been notified, the next in the line where it stood is told: a
    /// future at once; a task is returned, and the shell gives it what there is.
    ///
    /// Who joined the line after everybody had left it has seen for itself what
    /// there was.
    pub fn abandon(&mut self, id: TaskId) -> Option<TaskId> {
        let index = self.find_kind(id, Kind::Proxy)?;
        let Slot { line, outcome, .. } = self.slots[usize::from(index)];
        self.delist(id);
        let next = self.best(line)?;
        if !self.is_proxy(next) {
            return Some(self.slots[usize::from(next)].id);
        }
        self.inform(next, outcome);
        None
    }

    /// How the wait of a future ended that was notified: for those that need not
    /// try again.
    pub fn told(&self, id: TaskId) -> Option<Outcome> {
        let slot = &self.slots[usize::from(self.find_kind(id, Kind::Proxy)?)];
        (slot.queue == NIL && slot.server == NIL).then_some(slot.outcome)
    }

    /// Tells a future that it should try again.
    pub(crate) fn notify(&mut self, proxy: Index) {
        self.inform(proxy, Outcome::Granted(0));
    }

    /// Tells a future how its wait has ended.
    fn inform(&mut self, proxy: Index, outcome: Outcome) {
        let slot = &self.slots[usize::from(proxy)];
        let line = self.queue_at(slot.queue);
        let slot = &mut self.slots[usize::from(proxy)];
        (slot.line, slot.outcome) = (line, outcome);
        self.leave(proxy);
        self.give_notice(proxy);
    }

    /// Ends the wait of a task, or of a future that need not try again.
    pub(crate) fn conclude(&mut self, index: Index, outcome: Outcome) {
        match self.is_proxy(index) {
            true => self.inform(index, outcome),
            false => self.wake(index, outcome),
        }
    }

    /// Makes a timer, not armed.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]
    pub fn create_timer(&mut self) -> Result<TaskId, NoRoom> {
        self.allot(Kind::Timer, Priority::LOWEST).map(|(_, id)| id)
    }

    /// Arms a timer for `deadline`, and then every `period` if that is not zero.
    pub fn start_timer(&mut self, id: TaskId, deadline: u64, period: u64) {
        if let Some(index) = self.find_kind(id, Kind::Timer) {
            let slot = &mut self.slots[usize::from(index)];
            (slot.period, slot.count) = (period, 0);
            self.forget_notice(index);
            self.arm(index, deadline);
        }
    }

    /// Disarms a timer; whether it was armed.
    pub fn stop_timer(&mut self, id: TaskId) -> bool {
        let Some(index) = self.find_kind(id, Kind::Timer) else { return false };
        let armed = self.slots[usize::from(index)].timer != NIL;
        self.slots[usize::from(index)].count = 0;
        self.timers.disarm(&mut self.slots, index);
        self.forget_notice(index);
        armed
    }

    /// Unmakes a timer.
    pub fn remove_timer(&mut self, id: TaskId) {
        if let Some(index) = self.find_kind(id, Kind::Timer) {
            self.stop_timer(id);
            self.free(index);
        }
    }

    /// The next future to poll or timer that expired, with how often.
    pub fn next_notice(&mut self) -> Option<(TaskId, u64)> {
        let index = self.notices.0;
        let id = self.slots.get(usize::from(index))?.id;
        self.forget_notice(index);
        Some((id, core::mem::take(&mut self.slots[usize::from(index)].count)))
    }

    /// Whether [`Kernel::next_notice`] has something.
    #[inline]
    pub const fn has_notices(&self) -> bool {
        self.notices.0 != NIL
    }

    pub(crate) fn expire(&mut self, index: Index, deadline: u64) {
        let slot = &mut self.slots[usize::from(index)];
        if let Some(missed) = (self.now - deadline).checked_div(slot.period) {
            // A guest that stood still catches up at once, and does not drift.
            let times = missed.saturating_add(1);
            slot.count = slot.count.saturating_add(times);
            // Later than now; there is no such time at the end of all time.
            let next = slot.period.checked_mul(times).and_then(|ahead| deadline.checked_add(ahead));
            if let Some(next) = next {
                self.arm(index, next);
            }
        } else {
            slot.count = 1;
        }
        self.give_notice(index);
    }

    pub(crate) fn give_notice(&mut self, index: Index) {
        if self.slots[usize::from(index)].in_line {
            return;
        }
        let last = core::mem::replace(&mut self.notices.1, index);
        let slot = &mut self.slots[usize::from(index)];
        (slot.in_line, slot.next, slot.prev) = (true, NIL, last);
        match last {
            NIL => self.notices.0 = index,
            _ => self.slots[usize::from(last)].next = index,
        }
    }

    pub(crate) fn forget_notice(&mut self, index: Index) {
        let slot = &mut self.slots[usize::from(index)];
        if !core::mem::replace(&mut slot.in_line, false) {
            return;
        }
        let (next, prev) = (slot.next, slot.prev);
        (slot.next, slot.prev) = (NIL, NIL);
        match prev {
            NIL => self.notices.0 = next,
            _ => self.slots[usize::from(prev)].next = next,
        }
        match next {
            NIL => self.notices.1 = prev,
            _ => self.slots[usize::from(next)].prev = prev,
        }
    }
}
