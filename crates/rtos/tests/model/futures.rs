//! The places of futures: what one is told of and does not use is not lost.

use std::collections::{BTreeMap, BTreeSet};

use cellule_rtos::{
    Condition, Decision, End, Flags, Get, Handle, Kernel, Lock, Match, Mutex, Outcome, Patience,
    Priority, Put, Queue, Semaphore, State, Take, TaskId, Want,
};

use crate::random::Random;

const TASKS: usize = 5;
const FUTURES: usize = 8;

/// Something that both tasks and futures wait for, of up to two kinds.
trait Object {
    /// Tries for the running task: whether it has it, or else waits if it may.
    fn ask(&mut self, kernel: &mut Kernel, kind: usize, patience: Patience) -> bool;
    /// Makes more of it, if somebody can.
    fn supply(&mut self, kernel: &mut Kernel, random: &mut Random);
    fn enlist(&mut self, kernel: &mut Kernel, kind: usize) -> TaskId;
    fn enlist_again(&mut self, kernel: &mut Kernel, kind: usize, id: TaskId);
    fn pass_on(&mut self, kernel: &mut Kernel, kind: usize);
    /// Whether who asked now would not have to wait.
    fn is_there(&self, kernel: &Kernel, kind: usize) -> bool;
    /// What holds when all futures have tried that were told to.
    fn check(&self, _shop: &Shop) {}
    fn owner_died(&mut self, _kernel: &mut Kernel) {}
}

struct Future {
    id: TaskId,
    kind: usize,
    priority: Priority,
}

struct Shop {
    kernel: Kernel,
    random: Random,
    /// Tasks, and what they last waited for.
    tasks: Vec<(TaskId, usize)>,
    futures: Vec<Future>,
}

impl Shop {
    fn new(seed: u64) -> Self {
        let mut kernel = Kernel::new();
        kernel.reserve(TASKS + FUTURES).unwrap();
        let tasks = (0..TASKS).map(|_| (kernel.create(Priority::LOWEST, None).unwrap(), 0));
        let tasks = tasks.collect();
        Self { kernel, random: Random::new(seed), tasks, futures: Vec::new() }
    }

    fn step(&mut self, object: &mut dyn Object) {
        let kind = self.random.below(2);
        match self.random.below(10) {
            0..3 => self.disturb(object),
            3 => return object.supply(&mut self.kernel, &mut self.random),
            _ => {}
        }
        if self.kernel.decide() == Decision::Idle {
            return;
        }
        match self.random.below(10) {
            0 | 1 => self.ask(object, kind),
            2 | 3 if self.futures.len() < FUTURES => self.begin(object, kind),
            4 => drop(self.poll_next(object)),
            5 if !self.futures.is_empty() => {
                let at = self.random.below(self.futures.len());
                self.poll(object, at);
            }
            6 if !self.futures.is_empty() => {
                let at = self.random.below(self.futures.len());
                self.finish(object, at);
            }
            7 => self.kernel.yield_now(),
            9 if !self.futures.is_empty() && self.random.one_in(2) => {
                let at = self.random.below(self.futures.len());
                self.abandon(object, at);
            }
            8 => self.settle(object),
            _ => object.supply(&mut self.kernel, &mut self.random),
        }
    }

    fn disturb(&mut self, object: &mut dyn Object) {
        let at = self.random.below(TASKS);
        let (id, _) = self.tasks[at];
        match self.random.below(8) {
            0 => {
                self.kernel.end(id, End::Killed, &mut |kernel, _| object.owner_died(kernel));
                self.tasks[at].0 = self.kernel.create(Priority::LOWEST, None).unwrap();
            }
            1..3 => drop(self.kernel.cancel(id)),
            3 => {
                let now = self.kernel.now();
                self.kernel.advance(now + self.random.below(9) as u64);
            }
            _ => {
                let number = u8::try_from(self.random.below(5)).unwrap();
                self.kernel.set_priority(id, Priority::new(number).unwrap());
            }
        }
    }

    /// The running task asks, and may wait.
    fn ask(&mut self, object: &mut dyn Object, kind: usize) {
        let current = self.kernel.current();
        let task = self.tasks.iter_mut().find(|(id, _)| *id == current).unwrap();
        task.1 = kind;
        let patience = match self.random.below(2) {
            0 => Patience::Forever,
            _ => Patience::Until(self.kernel.now() + self.random.below(20) as u64),
        };
        object.ask(&mut self.kernel, kind, patience);
    }

    fn begin(&mut self, object: &mut dyn Object, kind: usize) {
        if !object.ask(&mut self.kernel, kind, Patience::None) {
            let id = object.enlist(&mut self.kernel, kind);
            let priority = self.kernel.view(self.kernel.current()).unwrap().effective;
            self.futures.push(Future { id, kind, priority });
        }
    }

    fn poll_next(&mut self, object: &mut dyn Object) -> bool {
        let Some((id, 0)) = self.kernel.next_notice() else { return false };
        let at = self.futures.iter().position(|future| future.id == id);
        self.poll(object, at.expect("a future that lives"));
        true
    }

    /// Also without a notice: a future is polled whenever its task likes.
    fn poll(&mut self, object: &mut dyn Object, at: usize) {
        let Future { id, kind, .. } = self.futures[at];
        match object.ask(&mut self.kernel, kind, Patience::None) {
            true => self.finish(object, at),
            false => object.enlist_again(&mut self.kernel, kind, id),
        }
    }

    /// A future has what it wanted, or is dropped.
    fn finish(&mut self, object: &mut dyn Object, at: usize) {
        let Future { id, kind, .. } = self.futures.swap_remove(at);
        if self.kernel.delist(id) {
            object.pass_on(&mut self.kernel, kind);
        }
        assert!(!self.kernel.delist(id), "it should be gone");
    }

    /// The task that polled a future was killed.
    fn abandon(&mut self, object: &mut dyn Object, at: usize) {
        let Future { id, kind, .. } = self.futures.swap_remove(at);
        if let Some(task) = self.kernel.abandon(id) {
            assert_eq!(self.kernel.view(task).unwrap().state, State::Waiting);
            object.pass_on(&mut self.kernel, kind);
        }
        assert_eq!(self.kernel.abandon(id), None, "it should be gone");
    }

    /// Lets all futures try that were told to, and looks.
    fn settle(&mut self, object: &mut dyn Object) {
        while self.poll_next(object) {}
        for kind in 0..2 {
            let waits = self.futures.iter().any(|future| future.kind == kind)
                || self.waiting().any(|(_, of)| of == kind);
            let there = object.is_there(&self.kernel, kind);
            assert!(!(waits && there), "nobody should wait for kind {kind}, which is there");
        }
        object.check(self);
    }

    fn waiting(&self) -> impl Iterator<Item = (TaskId, usize)> {
        let waits = |id| self.kernel.view(id).unwrap().state == State::Waiting;
        self.tasks.iter().copied().filter(move |(id, _)| waits(*id))
    }
}

fn try_out<T: Object>(make: impl Fn(u64) -> T) {
    for seed in 0..400 {
        let (mut shop, mut object) = (Shop::new(seed), make(seed));
        for _ in 0..400 {
            shop.step(&mut object);
        }
    }
}

impl Object for Semaphore {
    fn ask(&mut self, kernel: &mut Kernel, _: usize, patience: Patience) -> bool {
        self.take(kernel, patience) == Take::Taken
    }

    fn supply(&mut self, kernel: &mut Kernel, _: &mut Random) {
        // It may be full.
        let _ = self.give(kernel);
    }

    fn enlist(&mut self, kernel: &mut Kernel, _: usize) -> TaskId {
        kernel.enlist(self.waiters(), 0).unwrap()
    }

    fn enlist_again(&mut self, kernel: &mut Kernel, _: usize, id: TaskId) {
        kernel.enlist_again(id, self.waiters());
    }

    fn pass_on(&mut self, kernel: &mut Kernel, _: usize) {
        self.pass_on(kernel);
    }

    fn is_there(&self, _: &Kernel, _: usize) -> bool {
        self.count() > 0
    }
}

#[test]
fn no_unit_is_left_while_a_task_or_a_future_waits_for_one() {
    try_out(|seed| Semaphore::new(0, seed % 4 + 1));
}

fn want(kind: usize) -> Want {
    match kind {
        0 => Want { bits: 0b001, of: Match::Any },
        _ => Want { bits: 0b110, of: Match::All },
    }
}

impl Object for Flags {
    fn ask(&mut self, kernel: &mut Kernel, kind: usize, patience: Patience) -> bool {
        self.wait(kernel, want(kind), patience).is_ok()
    }

    fn supply(&mut self, kernel: &mut Kernel, random: &mut Random) {
        self.set(kernel, 1 << random.below(3));
    }

    fn enlist(&mut self, kernel: &mut Kernel, kind: usize) -> TaskId {
        self.enlist(kernel, want(kind)).unwrap()
    }

    fn enlist_again(&mut self, kernel: &mut Kernel, _: usize, id: TaskId) {
        kernel.enlist_again(id, self.waiters());
    }

    fn pass_on(&mut self, kernel: &mut Kernel, _: usize) {
        self.pass_on(kernel);
    }

    fn is_there(&self, _: &Kernel, kind: usize) -> bool {
        let Want { bits, of } = want(kind);
        let there = self.bits() & bits;
        if of == Match::All { there == bits } else { there != 0 }
    }
}

#[test]
fn no_flags_are_left_while_a_task_or_a_future_waits_for_them() {
    try_out(|_| Flags::new());
}

/// The first kind waits for items, the second for room.
struct Pipe {
    queue: Queue,
    capacity: u32,
    ring: Vec<u64>,
    /// What a sending task has brought.
    brought: BTreeMap<u64, u64>,
    made: u64,
    sent: BTreeSet<u64>,
    received: BTreeSet<u64>,
}

impl Pipe {
    fn put(&mut self, put: Put, item: u64) -> bool {
        match put {
            Put::Store(place) => self.ring[place as usize] = item,
            Put::Deliver(_) => assert!(self.received.insert(item), "{item} should be new"),
            Put::Busy | Put::Waits => return false,
        }
        assert!(self.sent.insert(item), "{item} should NOT have been sent before");
        true
    }

    fn get(&mut self, get: Get) -> bool {
        let Get::Take(place, more) = get else { return false };
        let item = self.ring[place as usize];
        assert!(self.sent.contains(&item) && self.received.insert(item), "{item} should be new");
        if let Some((sender, place)) = more {
            let item = self.brought.remove(&sender.to_bits()).unwrap();
            assert!(self.put(Put::Store(place), item));
        }
        true
    }
}

impl Object for Pipe {
    fn ask(&mut self, kernel: &mut Kernel, kind: usize, patience: Patience) -> bool {
        if kind == 0 {
            let get = self.queue.get(kernel, self.capacity, patience);
            return self.get(get);
        }
        self.made += 1;
        let item = self.made;
        self.brought.insert(kernel.current().to_bits(), item);
        let put = self.queue.put(kernel, self.capacity, patience);
        self.put(put, item)
    }

    fn supply(&mut self, _: &mut Kernel, _: &mut Random) {}

    fn enlist(&mut self, kernel: &mut Kernel, kind: usize) -> TaskId {
        let line = if kind == 0 { self.queue.receivers() } else { self.queue.senders() };
        kernel.enlist(line, 0).unwrap()
    }

    fn enlist_again(&mut self, kernel: &mut Kernel, kind: usize, id: TaskId) {
        let line = if kind == 0 { self.queue.receivers() } else { self.queue.senders() };
        kernel.enlist_again(id, line);
    }

    fn pass_on(&mut self, kernel: &mut Kernel, kind: usize) {
        if kind == 0 {
            while let Some((_, get)) = self.queue.pass_item_on(kernel, self.capacity) {
                assert!(self.get(get));
            }
            return;
        }
        while let Some((sender, put)) = self.queue.pass_room_on(kernel, self.capacity) {
            let item = self.brought.remove(&sender.to_bits()).unwrap();
            assert!(self.put(put, item));
        }
    }

    fn is_there(&self, _: &Kernel, kind: usize) -> bool {
        if kind == 0 { !self.queue.is_empty() } else { self.queue.len() < self.capacity }
    }

    fn check(&self, _: &Shop) {
        assert_eq!(self.sent.len(), self.received.len() + self.queue.len() as usize);
    }
}

#[test]
fn no_item_and_no_room_is_left_while_a_task_or_a_future_waits_for_it() {
    try_out(|seed| {
        let capacity = u32::try_from(seed % 4).unwrap() + 1;
        Pipe {
            queue: Queue::new(),
            capacity,
            ring: vec![0; capacity as usize],
            brought: BTreeMap::new(),
            made: 0,
            sent: BTreeSet::new(),
            received: BTreeSet::new(),
        }
    });
}

impl Object for Mutex {
    fn ask(&mut self, kernel: &mut Kernel, _: usize, patience: Patience) -> bool {
        matches!(self.lock(kernel, Handle(0), patience), Lock::Locked | Lock::OwnerDied)
    }

    fn supply(&mut self, kernel: &mut Kernel, _: &mut Random) {
        // The running task need not be the owner.
        let _ = self.unlock(kernel);
    }

    fn enlist(&mut self, kernel: &mut Kernel, _: usize) -> TaskId {
        let id = kernel.enlist(self.waiters(), 0).unwrap();
        self.settle(kernel, Handle(0));
        id
    }

    fn enlist_again(&mut self, kernel: &mut Kernel, _: usize, id: TaskId) {
        kernel.enlist_again(id, self.waiters());
        self.settle(kernel, Handle(0));
    }

    fn pass_on(&mut self, kernel: &mut Kernel, _: usize) {
        self.pass_on(kernel);
    }

    fn is_there(&self, kernel: &Kernel, _: usize) -> bool {
        !kernel.is_alive(self.owner())
    }

    fn check(&self, shop: &Shop) {
        let futures = shop.futures.iter().map(|future| future.priority);
        let tasks = shop.waiting().map(|(id, _)| shop.kernel.view(id).unwrap().base);
        let highest = futures.chain(tasks).max().unwrap_or(Priority::LOWEST);
        for (id, _) in &shop.tasks {
            let view = shop.kernel.view(*id).unwrap();
            let inherited = if *id == self.owner() { highest } else { Priority::LOWEST };
            assert_eq!(view.effective, view.base.max(inherited), "of {id:?}");
        }
    }

    fn owner_died(&mut self, kernel: &mut Kernel) {
        self.owner_died(kernel);
    }
}

#[test]
fn no_mutex_is_free_while_a_task_or_a_future_waits_for_it_and_its_owner_inherits_from_both() {
    try_out(|_| Mutex::new());
}

fn kernel_of(tasks: usize) -> Kernel {
    let mut kernel = Kernel::new();
    kernel.reserve(tasks + 4).unwrap();
    for _ in 0..tasks {
        kernel.create(Priority::LOWEST, None).unwrap();
    }
    kernel.decide();
    kernel
}

/// A queue of one item that is full; a future and then tasks want to put. The
/// item is taken, which the future is told.
fn room_for_a_future(senders: usize) -> (Kernel, Queue, TaskId, Vec<TaskId>) {
    let (mut kernel, mut queue) = (kernel_of(senders + 4), Queue::new());
    assert_eq!(queue.put(&mut kernel, 1, Patience::None), Put::Store(0));
    let future = kernel.enlist(queue.senders(), 0).unwrap();
    let mut put = |_| {
        assert_eq!(queue.put(&mut kernel, 1, Patience::Forever), Put::Waits);
        let sender = kernel.current();
        kernel.decide();
        sender
    };
    let senders = (0..senders).map(&mut put).collect();
    assert_eq!(queue.get(&mut kernel, 1, Patience::None), Get::Take(0, None));
    (kernel, queue, future, senders)
}

fn wait_for_an_item(kernel: &mut Kernel, queue: &mut Queue) -> TaskId {
    let receiver = kernel.current();
    assert_eq!(queue.get(kernel, 1, Patience::Forever), Get::Waits);
    kernel.decide();
    receiver
}

/// The first sender's item goes straight on, and so there is room for the next.
#[test]
fn room_that_a_future_gives_up_lets_items_through_to_who_waits_for_them() {
    let (mut kernel, mut queue, future, senders) = room_for_a_future(2);
    let receiver = wait_for_an_item(&mut kernel, &mut queue);
    assert!(kernel.delist(future), "it should have been told");
    let passed = [(); 3].map(|()| queue.pass_room_on(&mut kernel, 1));
    let delivered = (senders[0], Put::Deliver(receiver));
    assert_eq!(passed, [Some(delivered), Some((senders[1], Put::Store(0))), None]);
}

/// An item comes while the first future has not tried: a second one is told,
/// and gives up. The sender's item comes up, and there is a taker for it, too.
#[test]
fn an_item_that_a_future_gives_up_is_not_the_last_one_that_is_passed_on() {
    let (mut kernel, mut queue, _, senders) = room_for_a_future(1);
    let future = kernel.enlist(queue.receivers(), 0).unwrap();
    let receivers = [(); 2].map(|()| wait_for_an_item(&mut kernel, &mut queue));
    assert_eq!(queue.put(&mut kernel, 1, Patience::None), Put::Store(0));
    assert!(kernel.delist(future), "it should have been told");
    let passed = [(); 3].map(|()| queue.pass_item_on(&mut kernel, 1));
    let first = (receivers[0], Get::Take(0, Some((senders[0], 0))));
    assert_eq!(passed, [Some(first), Some((receivers[1], Get::Take(0, None))), None]);
}

/// It is polled for another reason after it was told and before that is known,
/// and so stands in line again; then others pass it in that line.
#[test]
fn a_future_in_line_is_not_among_the_notices() {
    let mut kernel = kernel_of(1);
    let (mut flags, mut other) = (Flags::new(), Condition::new());
    let [first, second] =
        [0b01, 0b10].map(|bits| flags.enlist(&mut kernel, Want { bits, of: Match::Any }).unwrap());
    let third = kernel.enlist(other.waiters(), 0).unwrap();
    flags.set(&mut kernel, 0b01);
    assert!(other.notify_one(&mut kernel));
    flags.clear(0b01);
    kernel.enlist_again(first, flags.waiters());
    flags.set(&mut kernel, 0b10);
    assert_eq!(kernel.next_notice(), Some((third, 0)));
    assert_eq!(kernel.next_notice(), Some((second, 0)));
    assert_eq!(kernel.next_notice(), None);
    assert!(!kernel.delist(first), "it should be in line");
    assert!(kernel.delist(third) && kernel.delist(second));
}

#[test]
fn a_future_that_is_enlisted_again_has_the_place_that_it_had() {
    let mut kernel = kernel_of(1);
    let mut condition = Condition::new();
    let [first, second] = [(); 2].map(|()| kernel.enlist(condition.waiters(), 0).unwrap());
    assert!(condition.notify_one(&mut kernel));
    assert_eq!(kernel.next_notice(), Some((first, 0)));
    kernel.enlist_again(first, condition.waiters());
    kernel.enlist_again(first, condition.waiters());
    condition.notify_all(&mut kernel);
    assert_eq!(kernel.next_notice(), Some((first, 0)));
    assert_eq!(kernel.next_notice(), Some((second, 0)));
    assert!(!condition.notify_one(&mut kernel));
    assert_eq!(kernel.outcome(), Outcome::Cancelled, "the task itself should not have waited");
}
