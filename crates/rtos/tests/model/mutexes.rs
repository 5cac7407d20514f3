//! Who owns a mutex, and what its owner inherits.

use cellule_rtos::{
    Decision, End, Handle, Kernel, Lock, Mutex, NotOwner, Outcome, Patience, Priority, TaskId,
};

use crate::world::{Disturbance, World};

/// Mutexes, and whose they are.
struct Locks {
    mutexes: Vec<Mutex>,
    /// For each, how often it was acquired when it last was; nobody's if `None`.
    acquired: Vec<Option<u64>>,
    /// Whether the last owner died, and nobody has it now.
    dead: Vec<bool>,
    count: u64,
}

/// Locks are taken in any order, so that there are deadlocks, of any size and
/// with any number of tasks that wait for their members.
#[test]
fn every_task_is_as_urgent_as_the_most_urgent_one_that_waits_for_it_in_the_end() {
    for seed in 0..600 {
        let (tasks, mutexes) = if seed % 2 == 0 { (10, 6) } else { (5, 3) };
        run(seed, tasks, mutexes);
    }
}

fn run(seed: u64, tasks: usize, mutexes: usize) {
    let mut world = World::new(seed, tasks);
    let mut locks = Locks {
        mutexes: (0..mutexes).map(|_| Mutex::new()).collect(),
        acquired: vec![None; mutexes],
        dead: vec![false; mutexes],
        count: 0,
    };
    for _ in 0..500 {
        step(&mut world, &mut locks);
        world.check();
        for (at, mutex) in locks.mutexes.iter().enumerate().filter(|(at, _)| !locks.dead[*at]) {
            let owner = world.owners.get(&at).map_or(TaskId::NONE, |owner| world.tasks[*owner].id);
            assert_eq!(mutex.owner(), owner, "of {at}, seed {seed}");
        }
    }
    unlock_all(&mut world, &mut locks);
    for task in &world.tasks {
        let view = world.kernel.view(task.id).unwrap();
        assert_eq!(view.effective, task.base, "nothing should be inherited in the end");
    }
}

fn step(world: &mut World, locks: &mut Locks) {
    if world.random.one_in(3) {
        disturb(world, locks);
    }
    let Some((index, _)) = world.run() else { return };
    let at = world.random.below(locks.mutexes.len());
    match world.random.below(5) {
        0 | 1 => unlock(world, locks, index, at),
        2 => world.kernel.yield_now(),
        _ => lock(world, locks, index, at),
    }
}

fn disturb(world: &mut World, locks: &mut Locks) {
    let mutexes = &mut locks.mutexes;
    let mut told = Vec::new();
    match world.disturb(&mut |kernel, Handle(at)| {
        told.push(at);
        mutexes[at].owner_died(kernel);
    }) {
        Disturbance::Killed(index) => {
            // It no longer waits, so that its own mutexes' waiters are in order.
            world.tasks[index].wait = None;
            let mut held: Vec<usize> = owned(world, index);
            held.sort_by_key(|at| locks.acquired[*at]);
            let contested = |at: &usize| !world.line(*at).is_empty();
            assert_eq!(told, held.iter().copied().filter(contested).collect::<Vec<_>>());
            for at in held {
                hand_over(world, locks, at, Outcome::OwnerDied);
                locks.dead[at] = !world.owners.contains_key(&at);
            }
            world.replace(index);
        }
        Disturbance::Cancelled(index) => world.wakes(index, Outcome::Cancelled),
        Disturbance::Nothing | Disturbance::TimePassed => {}
    }
}

fn owned(world: &World, index: usize) -> Vec<usize> {
    world.owners.iter().filter(|(_, owner)| **owner == index).map(|(at, _)| *at).collect()
}

fn lock(world: &mut World, locks: &mut Locks, index: usize, at: usize) {
    let patience = world.patience();
    let owner = world.owners.get(&at).copied();
    match locks.mutexes[at].lock(&mut world.kernel, Handle(at), patience) {
        lock @ (Lock::Locked | Lock::OwnerDied) => {
            assert_eq!((owner, lock == Lock::OwnerDied), (None, locks.dead[at]));
            locks.dead[at] = false;
            acquire(world, locks, at, index);
        }
        Lock::Recursive => assert_eq!(owner, Some(index)),
        Lock::Busy => assert!(owner.is_some() && patience == Patience::None),
        Lock::Waits => {
            assert!(owner.is_some_and(|owner| owner != index));
            world.waits(index, at, patience);
        }
    }
}

fn unlock(world: &mut World, locks: &mut Locks, index: usize, at: usize) {
    let unlocked = locks.mutexes[at].unlock(&mut world.kernel);
    if world.owners.get(&at) != Some(&index) {
        return assert_eq!(unlocked, Err(NotOwner));
    }
    assert_eq!(unlocked, Ok(()));
    hand_over(world, locks, at, Outcome::Granted(0));
}

fn hand_over(world: &mut World, locks: &mut Locks, at: usize, outcome: Outcome) {
    world.owners.remove(&at);
    if let Some(first) = world.line(at).first() {
        world.wakes(*first, outcome);
        acquire(world, locks, at, *first);
    }
}

fn acquire(world: &mut World, locks: &mut Locks, at: usize, index: usize) {
    locks.count += 1;
    locks.acquired[at] = Some(locks.count);
    world.owners.insert(at, index);
}

/// Calls all waits off, and has every task give back what it has.
fn unlock_all(world: &mut World, locks: &mut Locks) {
    for index in 0..world.tasks.len() {
        if world.kernel.cancel(world.tasks[index].id) {
            world.wakes(index, Outcome::Cancelled);
        }
        world.kernel.resume(world.tasks[index].id);
        world.tasks[index].suspended = false;
    }
    while let Some((index, _)) = world.run() {
        for at in owned(world, index) {
            unlock(world, locks, index, at);
        }
        world.kernel.sleep_until(u64::MAX);
        world.waits(index, usize::MAX, Patience::Until(u64::MAX));
        world.check();
    }
}

/// Each task has one mutex and waits for the next one's, for a while; a few
/// wait for members from outside.
#[test]
fn a_deadlock_of_fifty_is_as_urgent_as_its_most_urgent_member_until_it_dissolves() {
    for size in 2..=50 {
        let mut world = deadlock(size);
        for _ in 0..30 {
            change_one(&mut world);
            world.check();
        }
        while let Some(next) = world.kernel.next_deadline() {
            let before = world.effective();
            world.elapse(next);
            let after = world.effective();
            assert!(after.iter().zip(&before).all(|(a, b)| a <= b), "nothing should rise");
            world.check();
            change_one(&mut world);
            world.check();
        }
        let base = world.tasks.iter().map(|task| task.base);
        assert!(world.effective().into_iter().eq(base), "nobody should wait");
    }
}

fn deadlock(size: usize) -> World {
    let mut world = World::new(size as u64, size + 5);
    for task in &mut world.tasks {
        task.base = Priority::LOWEST;
        world.kernel.set_priority(task.id, task.base);
    }
    let mut mutexes: Vec<Mutex> = (0..size).map(|_| Mutex::new()).collect();
    let mut turns = vec![0; size + 5];
    while let Some((index, _)) = world.run() {
        turns[index] += 1;
        let own = turns[index] == 1;
        let at = if own { index } else { (index + 1) % size };
        if at < size {
            let patience = Patience::Until(world.random.below(500) as u64 + 1);
            match mutexes[at].lock(&mut world.kernel, Handle(at), patience) {
                Lock::Locked => assert_eq!(world.owners.insert(at, index), None),
                Lock::Waits => world.waits(index, at, patience),
                lock => panic!("{lock:?}"),
            }
        }
        world.kernel.yield_now();
        world.check();
    }
    world
}

fn change_one(world: &mut World) {
    let index = world.random.below(world.tasks.len());
    let number = u8::try_from(world.random.below(32)).unwrap();
    world.tasks[index].base = Priority::new(number).unwrap();
    world.kernel.set_priority(world.tasks[index].id, world.tasks[index].base);
}

fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap()
}

fn effective(kernel: &Kernel, id: TaskId) -> Priority {
    kernel.view(id).unwrap().effective
}

/// Two tasks wait for each other's mutex, and a third, urgent one for the first's.
fn deadlock_of_two(third: Patience, most: u8) -> (Kernel, [TaskId; 3]) {
    let mut kernel = Kernel::new();
    kernel.reserve(3).unwrap();
    let mut mutexes = [Mutex::new(), Mutex::new()];
    let ids = [most, 2, 1].map(|number| kernel.create(priority(number), None).unwrap());
    let [urgent, first, second] = ids;
    kernel.suspend(urgent);
    for (at, id) in [(0, first), (1, second)] {
        assert_eq!(kernel.decide(), Decision::Run(id));
        assert_eq!(mutexes[at].lock(&mut kernel, Handle(at), Patience::None), Lock::Locked);
        kernel.suspend(id);
    }
    for (at, id, patience) in
        [(1, first, Patience::Until(9)), (0, second, Patience::Forever), (0, urgent, third)]
    {
        kernel.resume(id);
        assert_eq!(kernel.decide(), Decision::Run(id));
        assert_eq!(mutexes[at].lock(&mut kernel, Handle(at), patience), Lock::Waits);
    }
    (kernel, ids)
}

/// Its first waiter stays as urgent as it was, but only by way of the deadlock.
#[test]
fn a_deadlock_does_not_stay_as_urgent_as_a_waiter_that_has_left_it() {
    let (mut kernel, [urgent, first, second]) = deadlock_of_two(Patience::Until(5), 9);
    let [one, other] = [first, second].map(|id| effective(&kernel, id));
    assert_eq!((one, other), (priority(9), priority(9)));
    kernel.advance(5);
    assert_eq!((kernel.decide(), kernel.outcome()), (Decision::Run(urgent), Outcome::TimedOut));
    let [one, other] = [first, second].map(|id| effective(&kernel, id));
    assert_eq!((one, other), (priority(2), priority(2)));
}

#[test]
fn a_deadlock_follows_the_priority_of_a_task_that_waits_for_its_members() {
    let (mut kernel, [urgent, first, second]) = deadlock_of_two(Patience::Forever, 9);
    for number in [3, 1, 7, 0] {
        kernel.set_priority(urgent, priority(number));
        let [one, other] = [first, second].map(|id| effective(&kernel, id));
        assert_eq!((one, other), (priority(number.max(2)), priority(number.max(2))));
    }
}

#[test]
fn an_owner_inherits_from_a_future_and_no_longer_once_that_has_gone() {
    let mut kernel = Kernel::new();
    kernel.reserve(4).unwrap();
    let mut mutex = Mutex::new();
    let low = kernel.adopt(priority(1)).unwrap();
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::Locked);
    let _executor = kernel.create(priority(9), None).unwrap();
    assert!(matches!(kernel.decide(), Decision::Run(_)));
    let future = kernel.enlist(mutex.waiters(), 0).unwrap();
    mutex.settle(&mut kernel, Handle(0));
    assert_eq!(effective(&kernel, low), priority(9));
    assert!(!kernel.delist(future), "it should NOT have been notified");
    assert_eq!(effective(&kernel, low), priority(1));
}

/// A future is first in line and is told; before it tries, another task takes
/// the free mutex while a second one waits behind the future.
#[test]
fn who_takes_a_mutex_before_a_notified_future_inherits_from_those_who_wait() {
    let mut kernel = Kernel::new();
    kernel.reserve(8).unwrap();
    let mut mutex = Mutex::new();
    let low = kernel.adopt(priority(1)).unwrap();
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::Locked);
    let executor = kernel.create(priority(9), None).unwrap();
    assert_eq!(kernel.decide(), Decision::Run(executor));
    let future = kernel.enlist(mutex.waiters(), 0).unwrap();
    mutex.settle(&mut kernel, Handle(0));
    kernel.suspend(executor);
    let middle = kernel.create(priority(5), None).unwrap();
    // The owner has what it inherits from the future: it is made to wait here.
    kernel.suspend(low);
    assert_eq!(kernel.decide(), Decision::Run(middle));
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::Forever), Lock::Waits);
    kernel.resume(low);
    assert_eq!(kernel.decide(), Decision::Run(low));
    mutex.unlock(&mut kernel).unwrap();
    assert_eq!(kernel.next_notice(), Some((future, 0)));
    assert_eq!(effective(&kernel, low), priority(1));
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::Locked);
    assert_eq!(effective(&kernel, low), priority(5), "the task that waits should count");
    mutex.unlock(&mut kernel).unwrap();
    assert_eq!((mutex.owner(), effective(&kernel, low)), (middle, priority(1)));
}

#[test]
fn futures_of_a_dead_owner_s_mutex_are_told_and_the_first_to_lock_is_told_of_the_death() {
    let mut kernel = Kernel::new();
    kernel.reserve(8).unwrap();
    let mut mutex = Mutex::new();
    let owner = kernel.adopt(priority(1)).unwrap();
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::Locked);
    let executor = kernel.create(priority(9), None).unwrap();
    assert_eq!(kernel.decide(), Decision::Run(executor));
    let futures = [(); 2].map(|()| kernel.enlist(mutex.waiters(), 0).unwrap());
    mutex.settle(&mut kernel, Handle(0));
    assert!(kernel.end(owner, End::Killed, &mut |kernel, _| mutex.owner_died(kernel)));
    assert_eq!(kernel.next_notice(), Some((futures[0], 0)));
    assert_eq!(kernel.next_notice(), Some((futures[1], 0)));
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::OwnerDied);
    assert_eq!(mutex.lock(&mut kernel, Handle(0), Patience::None), Lock::Recursive);
}
