//! Messages, replies, and those who die over them.

use cellule_rtos::{
    Decision, End, Kernel, Outcome, Patience, Priority, Receive, Rendezvous, Send, TaskId, Ticket,
};

use crate::world::{Disturbance, World};

const CLIENTS: usize = 0;
const SERVERS: usize = 1;
/// Who waits for a reply of task *n* waits here, *n* further on.
const REPLIES: usize = 2;

/// All tickets that there ever were, and whose wait each was for.
type Tickets = Vec<(Ticket, usize, u64)>;

#[test]
fn every_client_is_answered_at_most_once_and_no_ticket_outlives_its_wait() {
    for seed in 0..300 {
        let mut world = World::new(seed, 9);
        let (mut rendezvous, mut tickets) = (Rendezvous::new(), Tickets::new());
        for _ in 0..400 {
            step(&mut world, &mut rendezvous, &mut tickets);
            world.check();
            for (ticket, client, order) in &tickets {
                let awaited = is_awaited(&world, *client, *order);
                assert_eq!(world.kernel.is_awaited(*ticket), awaited, "seed {seed}");
            }
        }
    }
}

fn is_awaited(world: &World, client: usize, order: u64) -> bool {
    let wait = world.tasks[client].wait;
    wait.is_some_and(|wait| wait.place >= REPLIES && wait.order == order)
}

fn step(world: &mut World, rendezvous: &mut Rendezvous, tickets: &mut Tickets) {
    if world.random.one_in(3) {
        match world.disturb(&mut |_, _| panic!("nobody holds a mutex")) {
            Disturbance::Killed(server) => {
                world.replace(server);
                for client in world.line(REPLIES + server) {
                    world.wakes(client, Outcome::PeerDied);
                }
            }
            Disturbance::Cancelled(index) => world.wakes(index, Outcome::Cancelled),
            Disturbance::Nothing | Disturbance::TimePassed => {}
        }
    }
    let Some((index, _)) = world.run() else { return };
    match world.random.below(3) {
        0 => send(world, rendezvous, tickets, index),
        1 => receive(world, rendezvous, tickets, index),
        _ => answer(world, tickets),
    }
}

fn send(world: &mut World, rendezvous: &mut Rendezvous, tickets: &mut Tickets, index: usize) {
    let patience = world.patience();
    let server = world.line(SERVERS).first().copied();
    let server = server.filter(|_| patience != Patience::None);
    match rendezvous.send(&mut world.kernel, patience) {
        Send::Received(id, ticket) => {
            assert_eq!(Some(world.index(id)), server);
            assert_eq!(world.index(ticket.client), index);
            world.wakes(world.index(id), Outcome::Granted(0));
            world.waits(index, REPLIES + server.unwrap(), patience);
            tickets.push((ticket, index, world.tasks[index].wait.unwrap().order));
        }
        Send::Busy => assert_eq!(patience, Patience::None),
        Send::Waits => {
            assert_eq!(server, None);
            world.waits(index, CLIENTS, patience);
        }
    }
}

fn receive(world: &mut World, rendezvous: &mut Rendezvous, tickets: &mut Tickets, index: usize) {
    let patience = world.patience();
    let client = world.line(CLIENTS).first().copied();
    match rendezvous.receive(&mut world.kernel, patience) {
        Receive::Received(ticket) => {
            let client = client.expect("a client that waits");
            assert_eq!(world.index(ticket.client), client);
            let wait = world.tasks[client].wait.as_mut().unwrap();
            wait.place = REPLIES + index;
            tickets.push((ticket, client, wait.order));
        }
        Receive::Busy => assert_eq!((client, patience), (None, Patience::None)),
        Receive::Waits => {
            assert_eq!(client, None);
            world.waits(index, SERVERS, patience);
        }
    }
}

/// Any task may answer, with any ticket.
fn answer(world: &mut World, tickets: &Tickets) {
    let recent = &tickets[tickets.len().saturating_sub(8)..];
    let Some((ticket, client, order)) = world.random.pick(recent) else { return };
    let awaited = is_awaited(world, client, order);
    assert_eq!(world.kernel.answer(ticket, Outcome::Granted(5)), awaited);
    assert!(!world.kernel.answer(ticket, Outcome::Granted(6)), "twice should NOT do");
    if awaited {
        world.wakes(client, Outcome::Granted(5));
    }
}

/// Tasks of equal priority, of which the first runs.
fn kernel_of<const N: usize>() -> (Kernel, [TaskId; N]) {
    let mut kernel = Kernel::new();
    kernel.reserve(N + 4).unwrap();
    let tasks = [(); N].map(|()| kernel.create(Priority::LOWEST, None).unwrap());
    kernel.decide();
    (kernel, tasks)
}

/// It would have waited for the reply for ever.
#[test]
fn a_send_without_patience_is_refused_also_when_a_server_waits() {
    let (mut kernel, [server, client]) = kernel_of();
    let mut rendezvous = Rendezvous::new();
    assert_eq!(rendezvous.receive(&mut kernel, Patience::Forever), Receive::Waits);
    assert_eq!(kernel.decide(), Decision::Run(client));
    assert_eq!(rendezvous.send(&mut kernel, Patience::None), Send::Busy);
    assert_eq!(kernel.decide(), Decision::Stay, "the client should NOT wait");
    assert!(kernel.cancel(server), "the server should still wait");
}

#[test]
fn a_future_is_received_and_told_the_outcome() {
    let (mut kernel, [_, server]) = kernel_of();
    let mut rendezvous = Rendezvous::new();
    let client = |kernel: &mut Kernel, rendezvous: &mut Rendezvous| {
        let client = kernel.enlist(rendezvous.clients(), 0).unwrap();
        (client, rendezvous.meet(kernel))
    };
    let (first, met) = client(&mut kernel, &mut rendezvous);
    assert_eq!(met, None);
    let (second, _) = client(&mut kernel, &mut rendezvous);
    kernel.yield_now();
    kernel.decide();
    let Receive::Received(ticket) = rendezvous.receive(&mut kernel, Patience::None) else {
        panic!("the first future waits")
    };
    assert_eq!((ticket.client, kernel.told(first)), (first, None));
    assert!(kernel.is_awaited(ticket));
    assert!(kernel.answer(ticket, Outcome::Granted(1)) && !kernel.is_awaited(ticket));
    assert_eq!(kernel.told(first), Some(Outcome::Granted(1)));
    assert_eq!(kernel.next_notice(), Some((first, 0)));
    // The second is dropped after it was received, and the third has no answer.
    let Receive::Received(ticket) = rendezvous.receive(&mut kernel, Patience::None) else {
        panic!("the second future waits")
    };
    kernel.delist(second);
    assert!(!kernel.answer(ticket, Outcome::Granted(0)));
    assert_eq!(rendezvous.receive(&mut kernel, Patience::Forever), Receive::Waits);
    kernel.decide();
    let (third, met) = client(&mut kernel, &mut rendezvous);
    assert_eq!(met.map(|(task, ticket)| (task, ticket.client)), Some((server, third)));
    kernel.end(server, End::Killed, &mut |_, _| {});
    assert_eq!(kernel.told(third), Some(Outcome::PeerDied));
}

#[test]
fn a_future_that_serves_is_told_of_a_client_and_passes_it_on() {
    let (mut kernel, [server, client]) = kernel_of();
    let mut rendezvous = Rendezvous::new();
    let [first, second] = [(); 2].map(|()| kernel.enlist(rendezvous.servers(), 0).unwrap());
    assert_eq!(rendezvous.receive(&mut kernel, Patience::Forever), Receive::Waits);
    kernel.decide();
    assert_eq!(rendezvous.send(&mut kernel, Patience::Forever), Send::Waits);
    assert_eq!(kernel.next_notice(), Some((first, 0)));
    assert!(kernel.delist(first), "it should have been told");
    assert_eq!(rendezvous.meet(&mut kernel), None, "the next is a future, too");
    assert_eq!(kernel.next_notice(), Some((second, 0)));
    assert_eq!(kernel.abandon(second), Some(server));
    let met = rendezvous.meet(&mut kernel).map(|(task, ticket)| (task, ticket.client));
    assert_eq!(met, Some((server, client)));
}
