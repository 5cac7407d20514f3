//! Who is chosen among those who wait.

use cellule_rtos::{Full, Outcome, Priority, Semaphore, Take};

use crate::world::{Disturbance, World};

const PLACE: usize = 0;
const LIMIT: u64 = 3;

#[test]
fn the_most_urgent_waiter_is_chosen_and_among_equals_the_one_that_has_waited_longest() {
    for seed in 0..300 {
        let mut world = World::new(seed, 14);
        let (mut semaphore, mut count) = (Semaphore::new(1, LIMIT), 1);
        for _ in 0..400 {
            step(&mut world, &mut semaphore, &mut count);
            assert_eq!(semaphore.count(), count, "seed {seed}");
            world.check();
        }
    }
}

fn step(world: &mut World, semaphore: &mut Semaphore, count: &mut u64) {
    match world.random.below(8) {
        0..4 => take(world, semaphore, count),
        4 => give(world, semaphore, count),
        _ => match world.disturb(&mut |_, _| panic!("nobody holds a mutex")) {
            Disturbance::Killed(index) => world.replace(index),
            Disturbance::Cancelled(index) => world.wakes(index, Outcome::Cancelled),
            Disturbance::Nothing | Disturbance::TimePassed => {}
        },
    }
}

fn take(world: &mut World, semaphore: &mut Semaphore, count: &mut u64) {
    let Some((index, _)) = world.run() else { return };
    let patience = world.patience();
    match semaphore.take(&mut world.kernel, patience) {
        Take::Taken => *count = count.checked_sub(1).expect("a unit"),
        Take::Busy => assert_eq!((*count, patience), (0, cellule_rtos::Patience::None)),
        Take::Waits => {
            assert_eq!(*count, 0);
            world.waits(index, PLACE, patience);
        }
    }
}

fn give(world: &mut World, semaphore: &mut Semaphore, count: &mut u64) {
    let given = semaphore.give(&mut world.kernel);
    if let Some(first) = world.line(PLACE).first() {
        world.wakes(*first, Outcome::Granted(0));
    } else if *count == LIMIT {
        return assert_eq!(given, Err(Full));
    } else {
        *count += 1;
    }
    assert_eq!(given, Ok(()));
}

/// A heap of a thousand, of which any may leave, and which ends up in order.
#[test]
fn a_long_line_stays_in_order_while_priorities_change_and_waiters_leave() {
    let mut world = World::new(1, 1000);
    let mut semaphore = Semaphore::new(0, 1);
    while let Some((index, _)) = world.run() {
        assert_eq!(semaphore.take(&mut world.kernel, cellule_rtos::Patience::Forever), Take::Waits);
        world.waits(index, PLACE, cellule_rtos::Patience::Forever);
    }
    for _ in 0..2000 {
        let index = world.random.below(1000);
        let number = u8::try_from(world.random.below(32)).unwrap();
        world.tasks[index].base = Priority::new(number).unwrap();
        world.kernel.set_priority(world.tasks[index].id, world.tasks[index].base);
        if world.random.one_in(8) && world.kernel.cancel(world.tasks[index].id) {
            world.wakes(index, Outcome::Cancelled);
        }
    }
    for index in world.line(PLACE) {
        semaphore.give(&mut world.kernel).unwrap();
        world.wakes(index, Outcome::Granted(0));
        assert_eq!(semaphore.count(), 0, "it should have gone to the waiter");
        let view = world.kernel.view(world.tasks[index].id).unwrap();
        assert_eq!(view.state, cellule_rtos::State::Ready, "{index} should be chosen");
    }
    semaphore.give(&mut world.kernel).unwrap();
    assert_eq!(semaphore.count(), 1, "nobody should wait any more");
}
