//! Deadlines, and what is told of them.

use std::collections::BTreeMap;

use cellule_rtos::{Decision, Kernel, Outcome, Patience, Priority, Semaphore, Take, TaskId};

use crate::random::Random;

/// What a timer must do.
#[derive(Debug, Clone, Copy)]
struct Timer {
    id: TaskId,
    armed: Option<(u64, u64)>,
    period: u64,
    expired: u64,
}

struct Clockwork {
    kernel: Kernel,
    timers: Vec<Timer>,
    /// The index by deadline and order of arming.
    due: BTreeMap<(u64, u64), usize>,
    /// Those that have expired and were not asked since, in that order.
    notices: Vec<usize>,
    armed: u64,
}

impl Clockwork {
    fn new(timers: usize) -> Self {
        let mut kernel = Kernel::new();
        kernel.reserve(timers).unwrap();
        let make = |_| {
            let id = kernel.create_timer().unwrap();
            Timer { id, armed: None, period: 0, expired: 0 }
        };
        let timers = (0..timers).map(make).collect();
        Self { kernel, timers, due: BTreeMap::new(), notices: Vec::new(), armed: 0 }
    }

    fn arm(&mut self, index: usize, deadline: u64) {
        self.disarm(index);
        self.armed += 1;
        self.timers[index].armed = Some((deadline, self.armed));
        self.due.insert((deadline, self.armed), index);
    }

    fn disarm(&mut self, index: usize) -> bool {
        let key = self.timers[index].armed.take();
        key.is_some_and(|key| self.due.remove(&key).is_some())
    }

    fn start(&mut self, index: usize, deadline: u64, period: u64) {
        self.kernel.start_timer(self.timers[index].id, deadline, period);
        self.notices.retain(|other| *other != index);
        (self.timers[index].period, self.timers[index].expired) = (period, 0);
        self.arm(index, deadline);
    }

    fn stop(&mut self, index: usize) {
        let armed = self.disarm(index);
        assert_eq!(self.kernel.stop_timer(self.timers[index].id), armed);
        self.notices.retain(|other| *other != index);
        self.timers[index].expired = 0;
    }

    fn advance(&mut self, now: u64) {
        self.kernel.advance(now);
        self.fire();
    }

    /// Up to the first timer of which the shell must be told before the rest.
    fn fire(&mut self) {
        let now = self.kernel.now();
        while self.notices.is_empty()
            && let Some((&(deadline, _), &index)) = self.due.first_key_value()
            && deadline <= now
        {
            self.expire(index, deadline, now);
        }
    }

    fn catch_up(&mut self) {
        let more = self.kernel.catch_up();
        self.fire();
        assert_eq!(more, !self.notices.is_empty());
    }

    /// One expiration after the other, as if time had not leapt.
    fn expire(&mut self, index: usize, deadline: u64, now: u64) {
        self.disarm(index);
        let Timer { period, .. } = self.timers[index];
        let mut next = Some(deadline);
        while let Some(time) = next.filter(|time| *time <= now) {
            self.timers[index].expired += 1;
            next = if period == 0 { None } else { time.checked_add(period) };
        }
        if let Some(next) = next {
            self.arm(index, next);
        }
        if !self.notices.contains(&index) {
            self.notices.push(index);
        }
    }

    fn check(&mut self) {
        let mut keys = self.due.iter();
        let first = keys.next();
        let again = first.and_then(|((deadline, _), index)| match self.timers[*index].period {
            0 => None,
            period => deadline.checked_add(period),
        });
        let second = keys.next().map(|((deadline, _), _)| *deadline);
        assert_eq!(self.kernel.next_deadline(), first.map(|((deadline, _), _)| *deadline));
        let following = again.into_iter().chain(second).min();
        assert_eq!(self.kernel.following_deadline(), following);
        assert_eq!(self.kernel.has_notices(), !self.notices.is_empty());
    }

    fn next_notice(&mut self) {
        let expected = (!self.notices.is_empty()).then(|| self.notices.remove(0));
        let expected = expected.map(|index| {
            let timer = &mut self.timers[index];
            (timer.id, std::mem::take(&mut timer.expired))
        });
        assert_eq!(self.kernel.next_notice(), expected);
    }
}

#[test]
fn timers_expire_in_order_of_their_deadlines_and_among_equals_of_arming() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut clockwork = Clockwork::new(12);
        for _ in 0..300 {
            let index = random.below(12);
            let now = clockwork.kernel.now();
            match random.below(9) {
                0..3 => {
                    let period = [0, 1, 3, 10, 1000, u64::MAX][random.below(6)];
                    clockwork.start(index, now + random.below(20) as u64, period);
                }
                3 => clockwork.stop(index),
                4 => clockwork.start(index, u64::MAX, 0),
                5 => clockwork.advance(now + random.below(200) as u64),
                6 => clockwork.catch_up(),
                _ => clockwork.next_notice(),
            }
            clockwork.check();
        }
    }
}

#[test]
fn a_timer_that_missed_a_billion_periods_counts_them_and_does_not_drift() {
    let mut clockwork = Clockwork::new(1);
    let id = clockwork.timers[0].id;
    clockwork.kernel.start_timer(id, 7, 10);
    clockwork.kernel.advance(10_000_000_016);
    assert_eq!(clockwork.kernel.next_notice(), Some((id, 1_000_000_001)));
    assert_eq!(clockwork.kernel.next_deadline(), Some(10_000_000_017));
    assert_eq!(clockwork.kernel.following_deadline(), Some(10_000_000_027));
}

#[test]
fn a_periodic_timer_stops_at_the_end_of_time() {
    let mut clockwork = Clockwork::new(3);
    clockwork.start(0, 5, u64::MAX);
    clockwork.start(1, u64::MAX - 3, 2);
    clockwork.start(2, u64::MAX, 1);
    clockwork.check();
    clockwork.advance(5);
    clockwork.check();
    clockwork.advance(u64::MAX);
    clockwork.check();
    for _ in 0..4 {
        clockwork.next_notice();
        clockwork.catch_up();
    }
    assert_eq!(clockwork.kernel.next_deadline(), None);
}

#[test]
fn a_timer_that_has_expired_in_every_nanosecond_counts_all_of_them() {
    let mut clockwork = Clockwork::new(1);
    let id = clockwork.timers[0].id;
    clockwork.kernel.start_timer(id, 0, 1);
    clockwork.kernel.advance(u64::MAX);
    assert_eq!(clockwork.kernel.next_notice(), Some((id, u64::MAX)), "it should saturate");
    assert!(clockwork.kernel.catch_up(), "zero is one more");
    assert_eq!(clockwork.kernel.next_notice(), Some((id, 1)));
    assert!(!clockwork.kernel.catch_up());
    assert_eq!(clockwork.kernel.next_deadline(), None);
}

#[test]
fn a_timer_that_is_removed_is_silent_and_its_id_does_nothing() {
    let mut clockwork = Clockwork::new(1);
    let id = clockwork.timers[0].id;
    clockwork.kernel.start_timer(id, 1, 1);
    clockwork.kernel.advance(1);
    clockwork.kernel.remove_timer(id);
    assert_eq!(clockwork.kernel.next_notice(), None);
    let new = clockwork.kernel.create_timer().unwrap();
    assert_eq!(new.number(), id.number());
    clockwork.kernel.start_timer(id, 5, 0);
    assert_eq!(clockwork.kernel.next_deadline(), None);
    clockwork.kernel.start_timer(new, 5, 0);
    assert!(!clockwork.kernel.stop_timer(id));
    clockwork.kernel.remove_timer(id);
    assert_eq!(clockwork.kernel.next_deadline(), Some(5));
}

#[test]
fn equal_deadlines_of_tasks_and_timers_pass_in_the_order_of_arming() {
    let mut kernel = Kernel::new();
    kernel.reserve(8).unwrap();
    let mut semaphore = Semaphore::new(0, 1);
    for _ in 0..5 {
        kernel.create(Priority::LOWEST, None).unwrap();
    }
    let mut waiting = Vec::new();
    while let Decision::Run(id) = kernel.decide() {
        assert_eq!(semaphore.take(&mut kernel, Patience::Until(u64::MAX)), Take::Waits);
        waiting.push(id);
    }
    kernel.advance(u64::MAX - 1);
    assert_eq!(kernel.decide(), Decision::Idle);
    kernel.advance(u64::MAX);
    for id in waiting {
        assert_eq!(kernel.decide(), Decision::Run(id));
        assert_eq!(kernel.outcome(), Outcome::TimedOut);
        kernel.block();
    }
}

/// A timer's job gives what a task waits for until the same moment: whichever
/// was armed first counts.
#[test]
fn what_a_timer_brings_is_there_before_a_wait_ends_that_was_armed_after_it() {
    for timer_first in [true, false] {
        let mut kernel = Kernel::new();
        kernel.reserve(3).unwrap();
        let mut semaphore = Semaphore::new(0, 1);
        let task = kernel.create(Priority::LOWEST, None).unwrap();
        let timer = kernel.create_timer().unwrap();
        kernel.decide();
        if timer_first {
            kernel.start_timer(timer, 7, 0);
        }
        assert_eq!(semaphore.take(&mut kernel, Patience::Until(7)), Take::Waits);
        if !timer_first {
            kernel.start_timer(timer, 7, 0);
        }

        kernel.advance(7);
        assert_eq!(kernel.next_notice(), Some((timer, 1)));
        semaphore.give(&mut kernel).unwrap();
        assert!(!kernel.catch_up());

        assert_eq!((kernel.decide(), kernel.next_deadline()), (Decision::Run(task), None));
        let granted = kernel.outcome() == Outcome::Granted(0);
        assert_eq!((granted, semaphore.count()), (timer_first, u64::from(!timer_first)));
    }
}

#[test]
fn a_task_that_works_with_upcalls_masked_is_not_slowed_by_what_is_due() {
    let mut kernel = Kernel::new();
    kernel.reserve(3).unwrap();
    kernel.create(Priority::LOWEST, None).unwrap();
    let timers = [(); 2].map(|()| kernel.create_timer().unwrap());
    kernel.decide();
    timers.iter().for_each(|timer| kernel.start_timer(*timer, 5, 0));
    assert_eq!(kernel.work(100), 5);
    assert_eq!(kernel.work(95), 95, "the shell has not heard of the first timer yet");
    assert_eq!(kernel.next_notice(), Some((timers[0], 1)));
    assert!(kernel.catch_up());
    assert_eq!(kernel.next_notice(), Some((timers[1], 1)));
}
