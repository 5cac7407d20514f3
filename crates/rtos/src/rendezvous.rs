//! Synchronous messages: send, receive, reply. As with [`crate::Queue`], the
//! shell moves the message and the reply.

use crate::kernel::Kernel;
use crate::slot::{Index, NIL, Outcome, TaskId};
use crate::timeout::Patience;
use crate::wait::WaitQueue;

/// Clients that want to be received, and servers that want to receive.
#[derive(Debug, Default)]
pub struct Rendezvous {
    clients: WaitQueue,
    servers: WaitQueue,
}

/// A client that was received and waits for its reply: answered at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The client.
    pub client: TaskId,
    since: u64,
}

/// What came of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// No server waits, and there is no patience.
    Busy,
    /// The running task waits to be received.
    Waits,
    /// This server has the message, and that ticket; the running task waits for
    /// the reply.
    Received(TaskId, Ticket),
}

/// What came of a receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receive {
    /// This client's message.
    Received(Ticket),
    /// No client waits, and there is no patience.
    Busy,
    /// The running task waits for a client.
    Waits,
}

impl Rendezvous {
    /// Nobody is here.
    pub const fn new() -> Self {
        Self { clients: WaitQueue::new(), servers: WaitQueue::new() }
    }

    /// Sends: the running task waits until it has its reply, at most for its
    /// patience. The outcome is granted, timed out, or peer died. O(log w).
    ///
    /// [`Patience::None`] is for the server only: if one waits, it has the message,
    /// and the reply is waited for as long as it takes.
    pub fn send(&mut self, kernel: &mut Kernel, patience: Patience) -> Send {
        if let Some(server) = kernel.best_of(&mut self.servers) {
            let client = kernel.current;
            kernel.wait_for(patience, None, 0);
            kernel.wake(server, Outcome::Granted(0));
            let ticket = kernel.serve(client, server);
            return Send::Received(kernel.slots[usize::from(server)].id, ticket);
        }
        if patience == Patience::None {
            return Send::Busy;
        }
        kernel.wait_for(patience, Some(&mut self.clients), 0);
        Send::Waits
    }

    /// Receives a client's message. O(log w).
    pub fn receive(&mut self, kernel: &mut Kernel, patience: Patience) -> Receive {
        if let Some(client) = kernel.best_of(&mut self.clients) {
            kernel.dequeue(client);
            return Receive::Received(kernel.serve(client, kernel.current));
        }
        if patience == Patience::None {
            return Receive::Busy;
        }
        kernel.wait_for(patience, Some(&mut self.servers), 0);
        Receive::Waits
    }
}

impl Kernel {
    /// Whether a client still waits for this reply.
    pub fn is_awaited(&self, ticket: Ticket) -> bool {
        let client = self.find(ticket.client).map(|index| &self.slots[usize::from(index)]);
        client.is_some_and(|slot| slot.server != NIL && slot.since == ticket.since)
    }

    /// Lets a client that was received go on; whether it was still waiting.
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome) -> bool {
        let awaited = self.is_awaited(ticket);
        if awaited {
            self.wake(ticket.client.number(), outcome);
        }
        awaited
    }

    /// Makes a waiting client wait for a server's reply.
    fn serve(&mut self, client: Index, server: Index) -> Ticket {
        let first = core::mem::replace(&mut self.slots[usize::from(server)].clients, client);
        if first != NIL {
            self.slots[usize::from(first)].prev = client;
        }
        let slot = &mut self.slots[usize::from(client)];
        (slot.server, slot.next, slot.prev) = (server, first, NIL);
        Ticket { client: slot.id, since: slot.since }
    }

    /// Takes a slot out of its server's clients, if it is one.
    pub(crate) fn leave_server(&mut self, client: Index) {
        let slot = &mut self.slots[usize::from(client)];
        let server = core::mem::replace(&mut slot.server, NIL);
        if server == NIL {
            return;
        }
        let (next, prev) = (slot.next, slot.prev);
        (slot.next, slot.prev) = (NIL, NIL);
        match prev {
            NIL => self.slots[usize::from(server)].clients = next,
            _ => self.slots[usize::from(prev)].next = next,
        }
        if next != NIL {
            self.slots[usize::from(next)].prev = prev;
        }
    }
}
