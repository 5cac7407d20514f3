//! The kernel's tables: room, ids, ends, and slices.

use cellule_rtos::{
    Condition, Decision, End, Handle, JoinStep, Kernel, Lock, Mutex, NoRoom, Outcome, Patience,
    Priority, Rendezvous, Semaphore, Send, Take, TaskId,
};

use crate::random::Random;

fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap()
}

fn no_mutex(_: &mut Kernel, _: Handle) {
    panic!("nobody holds a mutex")
}

#[test]
fn there_is_room_for_65535_and_no_more() {
    let mut kernel = Kernel::new();
    kernel.reserve(65_536).unwrap_err();
    kernel.reserve(usize::MAX).unwrap_err();
    assert_eq!(kernel.capacity(), 0, "a refusal should change nothing");
    kernel.reserve(65_535).unwrap();
    kernel.reserve(65_535).unwrap();
    assert_eq!(kernel.capacity(), 65_535, "what is free should be counted");
    let mut semaphore = Semaphore::new(0, 65_535);
    for number in 0..65_535_u64 {
        kernel.create(priority(u8::try_from(number % 32).unwrap()), None).unwrap();
    }
    assert_eq!(kernel.create(Priority::LOWEST, None), Err(NoRoom));
    assert_eq!(kernel.create_timer(), Err(NoRoom));
    assert_eq!(kernel.enlist(semaphore.waiters(), 0), Err(NoRoom));
    kernel.reserve(1).unwrap_err();
    kernel.reserve(usize::MAX).unwrap_err();
    kernel.reserve(0).unwrap();
    while let Decision::Run(_) = kernel.decide() {
        assert_eq!(semaphore.take(&mut kernel, Patience::Until(u64::MAX - 1)), Take::Waits);
    }
    for _ in 0..32_767 {
        semaphore.give(&mut kernel).unwrap();
    }
    assert_eq!(semaphore.count(), 0);
    kernel.advance(u64::MAX - 1);
    semaphore.give(&mut kernel).unwrap();
    assert_eq!(semaphore.count(), 1, "all should have gone");
    assert_eq!(kernel.next_deadline(), None);
}

#[test]
fn room_grows_while_tasks_wait_and_keeps_them_as_they_are() {
    let mut kernel = Kernel::new();
    let mut semaphore = Semaphore::new(0, 1);
    let mut waiting = Vec::new();
    for round in 1..=64_usize {
        kernel.reserve(1).unwrap();
        assert_eq!(kernel.capacity(), round);
        let id = kernel.create(Priority::LOWEST, None).unwrap();
        assert_eq!(kernel.decide(), Decision::Run(id));
        let deadline = if round % 2 == 0 { 5 } else { u64::MAX };
        assert_eq!(semaphore.take(&mut kernel, Patience::Until(deadline)), Take::Waits);
        waiting.push(id);
    }
    kernel.advance(5);
    for id in waiting.iter().skip(1).step_by(2) {
        assert_eq!((kernel.decide(), kernel.outcome()), (Decision::Run(*id), Outcome::TimedOut));
        kernel.block();
    }
    for id in waiting.iter().step_by(2) {
        semaphore.give(&mut kernel).unwrap();
        assert_eq!((kernel.decide(), kernel.outcome()), (Decision::Run(*id), Outcome::Granted(0)));
        kernel.block();
    }
}

#[test]
fn an_id_is_never_used_again_and_an_old_one_does_nothing() {
    let mut kernel = Kernel::new();
    kernel.reserve(2).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    kernel.adopt(priority(9)).unwrap();
    for _ in 0..1000 {
        let old = kernel.create(priority(3), None).unwrap();
        assert!(seen.insert(old.to_bits()), "{old:?} should be new");
        assert!(kernel.end(old, End::Killed, &mut no_mutex));
        let new = kernel.create(priority(4), None).unwrap();
        assert_eq!(new.number(), old.number());
        use_stale(&mut kernel, old);
        let view = kernel.view(new).unwrap();
        assert_eq!((view.base, view.state), (priority(4), cellule_rtos::State::Ready));
        assert_eq!(kernel.id_at(new.number()), new);
        assert!(seen.insert(new.to_bits()));
        assert!(kernel.end(new, End::Killed, &mut no_mutex));
        assert_eq!(kernel.id_at(new.number()), TaskId::NONE);
        use_stale(&mut kernel, new);
    }
}

fn use_stale(kernel: &mut Kernel, id: TaskId) {
    let mut condition = Condition::new();
    kernel.suspend(id);
    kernel.resume(id);
    kernel.set_priority(id, Priority::HIGHEST);
    kernel.start_timer(id, 0, 1);
    kernel.remove_timer(id);
    kernel.enlist_again(id, condition.waiters());
    assert!(!condition.notify_one(kernel));
    assert!(!kernel.stop_timer(id) && !kernel.delist(id) && !kernel.cancel(id));
    assert!(!kernel.release(id, 1) && !kernel.is_alive(id));
    assert!(!kernel.end(id, End::Killed, &mut no_mutex));
    assert_eq!((kernel.view(id), kernel.next_deadline()), (None, None));
    assert_eq!(kernel.join(id, Patience::Forever), JoinStep::Ended);
    for id in [TaskId::NONE, TaskId::from_bits(u64::MAX)] {
        assert!(!kernel.is_alive(id) && !kernel.delist(id) && !kernel.cancel(id));
    }
}

#[test]
fn a_task_s_id_is_no_timer_and_no_future() {
    let mut kernel = Kernel::new();
    kernel.reserve(4).unwrap();
    let mut condition = Condition::new();
    let task = kernel.adopt(priority(9)).unwrap();
    let timer = kernel.create_timer().unwrap();
    let future = kernel.enlist(condition.waiters(), 0).unwrap();
    for id in [task, future] {
        kernel.start_timer(id, 0, 1);
        assert!(!kernel.stop_timer(id));
        kernel.remove_timer(id);
    }
    for id in [timer, future] {
        kernel.suspend(id);
        assert!(!kernel.cancel(id) && !kernel.is_alive(id));
        assert!(!kernel.end(id, End::Killed, &mut no_mutex));
    }
    assert!(!kernel.delist(task) && !kernel.delist(timer));
    assert_eq!((kernel.next_deadline(), kernel.tasks().count()), (None, 1));
    assert!(condition.notify_one(&mut kernel), "the future should still be there");
}

/// A shell that forgets about a mutex.
#[test]
fn a_mutex_that_is_not_handed_over_at_its_owner_s_end_can_still_be_had() {
    let mut kernel = Kernel::new();
    kernel.reserve(4).unwrap();
    let mut mutex = Mutex::new();
    let owner = kernel.adopt(priority(1)).unwrap();
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::Locked);
    let waiter = kernel.create(priority(9), None).unwrap();
    assert_eq!(kernel.decide(), Decision::Run(waiter));
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::Forever), Lock::Waits);
    assert_eq!(kernel.decide(), Decision::Run(owner));
    assert!(kernel.end(owner, End::Failed, &mut |_, _| {}));
    assert_eq!(kernel.decide(), Decision::Idle);
    let other = kernel.create(priority(2), None).unwrap();
    assert_eq!(kernel.decide(), Decision::Run(other));
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::OwnerDied);
    assert_eq!(kernel.view(other).unwrap().effective, priority(9), "it should inherit");
    mutex.unlock(&mut kernel).unwrap();
    assert_eq!(kernel.view(other).unwrap().effective, priority(2));
    assert_eq!((kernel.decide(), kernel.outcome()), (Decision::Run(waiter), Outcome::Granted(0)));
}

/// It waits for a reply, it has clients, joiners and mutexes, and a deadline.
#[test]
fn an_end_in_the_middle_of_everything_leaves_nothing_behind() {
    let mut kernel = Kernel::new();
    kernel.reserve(8).unwrap();
    let (mut calls, mut upstream, mut mutex) = (Rendezvous::new(), Rendezvous::new(), Mutex::new());
    let [far, server, client, joiner, waiter] =
        [9, 8, 7, 6, 5].map(|number| kernel.create(priority(number), None).unwrap());
    assert_eq!(kernel.decide(), Decision::Run(far));
    upstream.receive(&mut kernel, Patience::Forever);
    assert_eq!(kernel.decide(), Decision::Run(server));
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::Locked);
    calls.receive(&mut kernel, Patience::Forever);
    assert_eq!(kernel.decide(), Decision::Run(client));
    assert!(matches!(calls.send(&mut kernel, Patience::Until(50)), Send::Received(..)));
    assert_eq!(kernel.decide(), Decision::Run(server));
    let Send::Received(to, ticket) = upstream.send(&mut kernel, Patience::Until(40)) else {
        panic!("the far server should wait")
    };
    assert_eq!(to, far);
    assert_eq!(kernel.decide(), Decision::Run(far));
    kernel.suspend(far);
    assert_eq!(kernel.decide(), Decision::Run(joiner));
    assert_eq!(kernel.join(server, Patience::Until(30)), JoinStep::Waits);
    assert_eq!(kernel.decide(), Decision::Run(waiter));
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::Until(20)), Lock::Waits);
    assert!(kernel.end(server, End::Failed, &mut |kernel, _| mutex.owner_died(kernel)));
    assert!(!kernel.answer(ticket, Outcome::Granted(1)), "the ticket should be stale");
    let expected = [
        (client, Outcome::PeerDied),
        (joiner, Outcome::Granted(End::Failed as u64)),
        (waiter, Outcome::OwnerDied),
    ];
    for (id, outcome) in expected {
        assert_eq!((kernel.decide(), kernel.outcome()), (Decision::Run(id), outcome));
        kernel.block();
    }
    assert_eq!((kernel.next_deadline(), mutex.owner()), (None, waiter));
}

#[test]
fn a_slice_is_charged_to_who_runs_and_ends_only_if_an_equal_waits() {
    let mut kernel = Kernel::new();
    kernel.reserve(3).unwrap();
    kernel.set_slice(10);
    let first = kernel.create(priority(5), None).unwrap();
    assert_eq!((kernel.decide(), kernel.slice_left()), (Decision::Run(first), None));
    kernel.charge(25);
    assert_eq!(kernel.decide(), Decision::Stay, "nobody else should have a turn");
    let second = kernel.create(priority(5), None).unwrap();
    assert_eq!(kernel.slice_left(), Some(10), "the last slice should have ended");
    kernel.charge(4);
    assert_eq!((kernel.decide(), kernel.slice_left()), (Decision::Stay, Some(6)));
    let urgent = kernel.create(priority(6), None).unwrap();
    assert_eq!(kernel.decide(), Decision::Run(urgent));
    assert_eq!(kernel.slice_left(), None, "its slice should NOT be contested");
    kernel.charge(100);
    kernel.block();
    assert_eq!((kernel.decide(), kernel.slice_left()), (Decision::Run(first), Some(6)));
    kernel.charge(6);
    assert_eq!((kernel.decide(), kernel.slice_left()), (Decision::Run(second), Some(10)));
    kernel.set_slice(0);
    kernel.charge(u64::MAX);
    assert_eq!((kernel.decide(), kernel.slice_left()), (Decision::Stay, None));
}

#[test]
fn work_stops_at_every_deadline_and_end_of_a_slice() {
    let mut kernel = Kernel::new();
    kernel.reserve(4).unwrap();
    assert_eq!(kernel.work(5), 0, "nobody runs");
    kernel.set_slice(10);
    let first = kernel.create(priority(5), None).unwrap();
    kernel.create(priority(5), Some(7)).unwrap();
    assert_eq!(kernel.decide(), Decision::Run(first));
    assert_eq!((kernel.work(100), kernel.now()), (7, 7), "another one should start");
    assert_eq!((kernel.work(100), kernel.now()), (3, 10), "the slice should end");
    assert_eq!(kernel.work(100), 0, "it should NOT run any more");
    kernel.set_slice(0);
    assert!(matches!(kernel.decide(), Decision::Run(_)));
    assert_eq!(kernel.work(u64::MAX), u64::MAX - 10);
    assert_eq!((kernel.work(1), kernel.now()), (0, u64::MAX));
}

/// One kernel rotates where the other one yields and decides.
#[test]
fn to_rotate_is_to_yield_and_to_decide() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut kernels = [Kernel::new(), Kernel::new()];
        let ids = kernels.each_mut().map(|kernel| {
            kernel.reserve(6).unwrap();
            kernel.set_slice(4);
            [(); 6].map(|()| kernel.create(priority(1), None).unwrap())
        });
        assert_eq!(ids[0], ids[1]);
        for _ in 0..300 {
            let (id, level) = (ids[0][random.below(6)], u8::try_from(random.below(3)).unwrap());
            let choice = random.below(7);
            for kernel in &mut kernels {
                match choice {
                    0 => kernel.set_priority(id, priority(level)),
                    1 => kernel.suspend(id),
                    2 => kernel.resume(id),
                    3 => kernel.charge(u64::from(level)),
                    _ => {}
                }
            }
            if choice > 3 {
                kernels[0].rotate();
                kernels[1].yield_now();
            }
            for kernel in &mut kernels {
                let settled = kernel.is_settled();
                assert_eq!(settled, kernel.decide() == Decision::Stay);
            }
            let [one, other] = kernels.each_ref().map(|kernel| {
                (kernel.current(), kernel.slice_left(), kernel.tasks().collect::<Vec<_>>())
            });
            assert_eq!(one, other, "seed {seed}");
        }
    }
}
