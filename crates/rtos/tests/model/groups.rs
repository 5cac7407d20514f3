//! Barriers, conditions and flags: those that many wait for together.

use cellule_rtos::{Arrival, Barrier, Condition, Flags, Match, Outcome, Patience, Take, Want};

use crate::world::{Disturbance, World};

const PLACE: usize = 0;

fn disturb(world: &mut World) {
    match world.disturb(&mut |_, _| panic!("nobody holds a mutex")) {
        Disturbance::Killed(index) => world.replace(index),
        Disturbance::Cancelled(index) => world.wakes(index, Outcome::Cancelled),
        Disturbance::Nothing | Disturbance::TimePassed => {}
    }
}

#[test]
fn a_barrier_opens_when_so_many_are_there_and_not_for_those_who_gave_up() {
    for seed in 0..200 {
        let size = usize::try_from(seed % 5).unwrap() + 1;
        let (mut world, mut barrier) = (World::new(seed, 9), Barrier::new());
        for _ in 0..300 {
            if world.random.one_in(2) {
                disturb(&mut world);
            }
            let Some((index, _)) = world.run() else { continue };
            let (patience, line) = (world.patience(), world.line(PLACE));
            match barrier.arrive(&mut world.kernel, size, patience) {
                Arrival::Last => {
                    assert_eq!(line.len() + 1, size, "seed {seed}");
                    line.into_iter().for_each(|index| world.wakes(index, Outcome::Granted(0)));
                }
                Arrival::Busy => assert!(line.len() + 1 < size && patience == Patience::None),
                Arrival::Waits => {
                    assert!(line.len() + 1 < size);
                    world.waits(index, PLACE, patience);
                }
            }
            world.check();
        }
    }
}

#[test]
fn a_condition_wakes_the_first_in_line_and_nobody_twice() {
    for seed in 0..200 {
        let (mut world, mut condition) = (World::new(seed, 9), Condition::new());
        for _ in 0..300 {
            match world.random.below(6) {
                0 => disturb(&mut world),
                1 => {
                    let first = world.line(PLACE).first().copied();
                    assert_eq!(condition.notify_one(&mut world.kernel), first.is_some());
                    first.into_iter().for_each(|index| world.wakes(index, Outcome::Granted(0)));
                }
                2 if world.random.one_in(4) => {
                    condition.notify_all(&mut world.kernel);
                    for index in world.line(PLACE) {
                        world.wakes(index, Outcome::Granted(0));
                    }
                }
                _ => {
                    let Some((index, _)) = world.run() else { continue };
                    let patience = match world.patience() {
                        Patience::None => Patience::Forever,
                        patience => patience,
                    };
                    condition.wait(&mut world.kernel, patience);
                    world.waits(index, PLACE, patience);
                }
            }
            world.check();
        }
    }
}

#[test]
fn all_that_a_condition_wakes_run_in_the_order_of_the_line() {
    let (mut world, mut condition) = (World::new(3, 40), Condition::new());
    while let Some((index, _)) = world.run() {
        condition.wait(&mut world.kernel, Patience::Forever);
        world.waits(index, PLACE, Patience::Forever);
    }
    let line = world.line(PLACE);
    condition.notify_all(&mut world.kernel);
    line.iter().for_each(|index| world.wakes(*index, Outcome::Granted(0)));
    for index in line {
        assert_eq!(world.run(), Some((index, Some(Outcome::Granted(0)))));
        world.kernel.block();
        world.waits(index, PLACE, Patience::Forever);
    }
}

fn satisfies(bits: u32, want: Want) -> u32 {
    let there = bits & want.bits;
    if want.of == Match::All && there != want.bits { 0 } else { there }
}

#[test]
fn flags_go_to_those_whom_they_satisfy_in_the_order_of_the_line() {
    for seed in 0..300 {
        let (mut world, mut flags, mut bits) = (World::new(seed, 9), Flags::new(), 0);
        let mut wants = [Want { bits: 0, of: Match::Any }; 9];
        for _ in 0..300 {
            let some = 1 << world.random.below(4) | 1 << world.random.below(4);
            match world.random.below(6) {
                0 => disturb(&mut world),
                1 => {
                    flags.set(&mut world.kernel, some);
                    bits |= some;
                    for index in world.line(PLACE) {
                        let matched = satisfies(bits, wants[index]);
                        if matched != 0 {
                            bits &= !wants[index].bits;
                            world.wakes(index, Outcome::Granted(matched.into()));
                        }
                    }
                }
                2 => {
                    flags.clear(some);
                    bits &= !some;
                }
                _ => {
                    let Some((index, _)) = world.run() else { continue };
                    let of = if world.random.one_in(2) { Match::Any } else { Match::All };
                    let (want, patience) = (Want { bits: some, of }, world.patience());
                    let matched = satisfies(bits, want);
                    match flags.wait(&mut world.kernel, want, patience) {
                        Ok(flags) => {
                            assert_eq!(flags, matched);
                            bits &= !some;
                        }
                        Err(Take::Waits) => {
                            assert_eq!(matched, 0);
                            wants[index] = want;
                            world.waits(index, PLACE, patience);
                        }
                        Err(_) => assert_eq!((matched, patience), (0, Patience::None)),
                    }
                }
            }
            assert_eq!(flags.bits(), bits, "seed {seed}");
            world.check();
        }
    }
}
