//! Items and room of a queue.

use std::collections::VecDeque;

use cellule_rtos::{Get, Outcome, Patience, Put, Queue};

use crate::world::{Disturbance, World};

const SENDERS: usize = 0;
const RECEIVERS: usize = 1;

/// The queue with its shell's part, and what it must hold.
struct Pipe {
    queue: Queue,
    capacity: u32,
    ring: Vec<u64>,
    /// On its way from or to a task.
    items: Vec<u64>,
    model: VecDeque<u64>,
    made: u64,
}

#[test]
fn items_come_out_in_order_and_none_is_lost_or_doubled() {
    for seed in 0..400 {
        let mut world = World::new(seed, 8);
        let capacity = u32::try_from(seed % 8).unwrap() + 1;
        let ring = vec![0; capacity as usize];
        let (queue, model) = (Queue::new(), VecDeque::new());
        let mut pipe = Pipe { queue, capacity, ring, items: vec![0; 8], model, made: 0 };
        for _ in 0..400 {
            step(&mut world, &mut pipe);
            assert_eq!(pipe.queue.len() as usize, pipe.model.len(), "seed {seed}");
            assert_eq!(pipe.queue.is_empty(), pipe.model.is_empty());
            world.check();
        }
    }
}

fn step(world: &mut World, pipe: &mut Pipe) {
    if world.random.one_in(3) {
        match world.disturb(&mut |_, _| panic!("nobody holds a mutex")) {
            Disturbance::Killed(index) => world.replace(index),
            Disturbance::Cancelled(index) => world.wakes(index, Outcome::Cancelled),
            Disturbance::Nothing | Disturbance::TimePassed => {}
        }
    }
    let Some((index, _)) = world.run() else { return };
    let patience = world.patience();
    if world.random.one_in(2) {
        put(world, pipe, index, patience);
    } else {
        get(world, pipe, index, patience);
    }
}

fn put(world: &mut World, pipe: &mut Pipe, index: usize, patience: Patience) {
    pipe.made += 1;
    let full = pipe.model.len() == pipe.capacity as usize;
    match pipe.queue.put(&mut world.kernel, pipe.capacity, patience) {
        Put::Deliver(id) => {
            assert!(pipe.model.is_empty(), "it should NOT overtake an item");
            let receiver = world.index(id);
            assert_eq!(world.line(RECEIVERS).first(), Some(&receiver));
            world.wakes(receiver, Outcome::Granted(0));
        }
        Put::Store(place) => {
            assert!(!full && world.line(RECEIVERS).is_empty());
            pipe.ring[place as usize] = pipe.made;
            pipe.model.push_back(pipe.made);
        }
        Put::Busy => assert!(full && patience == Patience::None),
        Put::Waits => {
            assert!(full);
            pipe.items[index] = pipe.made;
            world.waits(index, SENDERS, patience);
        }
    }
}

fn get(world: &mut World, pipe: &mut Pipe, index: usize, patience: Patience) {
    match pipe.queue.get(&mut world.kernel, pipe.capacity, patience) {
        Get::Take(place, more) => {
            let item = pipe.ring[place as usize];
            assert_eq!(Some(item), pipe.model.pop_front());
            let sender = world.line(SENDERS).first().copied();
            assert_eq!(more.map(|(id, _)| world.index(id)), sender);
            if let (Some((_, place)), Some(sender)) = (more, sender) {
                pipe.ring[place as usize] = pipe.items[sender];
                pipe.model.push_back(pipe.items[sender]);
                world.wakes(sender, Outcome::Granted(0));
            }
        }
        Get::Busy => assert!(pipe.model.is_empty() && patience == Patience::None),
        Get::Waits => {
            assert!(pipe.model.is_empty() && world.line(SENDERS).is_empty());
            world.waits(index, RECEIVERS, patience);
        }
    }
}
