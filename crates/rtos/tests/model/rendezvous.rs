//! Messages, replies, and those who die over them.

use cellule_rtos::{Outcome, Patience, Receive, Rendezvous, Send, Ticket};

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
    match rendezvous.send(&mut world.kernel, patience) {
        Send::Received(id, ticket) => {
            assert_eq!(Some(world.index(id)), server);
            assert_eq!(world.index(ticket.client), index);
            world.wakes(world.index(id), Outcome::Granted(0));
            world.waits(index, REPLIES + server.unwrap(), patience);
            tickets.push((ticket, index, world.tasks[index].wait.unwrap().order));
        }
        Send::Busy => assert_eq!((server, patience), (None, Patience::None)),
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
