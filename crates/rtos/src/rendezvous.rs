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
    /// There is no patience. The message stays: a send always waits, for its reply.
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
    pub fn send(&mut self, kernel: &mut Kernel, patience: Patience) -> Send {
        if patience == Patience::None {
            return Send::Busy;
        }
        if let Some(server) = kernel.best_of(&mut self.servers) {
            if !kernel.is_proxy(server) {
                let client = kernel.current;
                kernel.wait_for(patience, None, 0);
                kernel.wake(server, Outcome::Granted(0));
                let ticket = kernel.serve(client, server);
                return Send::Received(kernel.slots[usize::from(server)].id, ticket);
            }
            kernel.notify(server);
        }
        kernel.wait_for(patience, Some(&mut self.clients), 0);
        Send::Waits
    }

    /// Receives a client's message, also if the client is a future: that is then
    /// told the outcome, as a task. O(log w).
    pub fn receive(&mut self, kernel: &mut Kernel, patience: Patience) -> Receive {
        if let Some(client) = kernel.best_of(&mut self.clients)
            && let Some(server) = kernel.find(kernel.current())
        {
            kernel.dequeue(client);
            return Receive::Received(kernel.serve(client, server));
        }
        if patience == Patience::None {
            return Receive::Busy;
        }
        kernel.wait_for(patience, Some(&mut self.servers), 0);
        Receive::Waits
    }

    /// Brings a client and a server together, if both wait: after a future joined
    /// the clients, and when one that was told, as a server, has gone. If the
    /// server is a task, it has the client's message, and that ticket. To be called
    /// until it returns `None`. O(log w).
    pub fn meet(&mut self, kernel: &mut Kernel) -> Option<(TaskId, Ticket)> {
        let client = kernel.best_of(&mut self.clients)?;
        let server = kernel.best_of(&mut self.servers)?;
        if kernel.is_proxy(server) {
            kernel.notify(server);
            return None;
        }
        kernel.dequeue(client);
        kernel.wake(server, Outcome::Granted(0));
        let ticket = kernel.serve(client, server);
        Some((kernel.slots[usize::from(server)].id, ticket))
    }

    /// Those who wait to be received, for futures.
    pub fn clients(&mut self) -> &mut WaitQueue {
        &mut self.clients
    }

    /// Those who wait to receive, for futures.
    pub fn servers(&mut self) -> &mut WaitQueue {
        &mut self.servers
    }
}

impl Kernel {
    /// Whether a client still waits for this reply.
    pub fn is_awaited(&self, ticket: Ticket) -> bool {
        let client = self.slots.get(usize::from(ticket.client.number()));
        client.is_some_and(|slot| {
            slot.id == ticket.client && slot.server != NIL && slot.since == ticket.since
        })
    }

    /// Lets a client that was received go on; whether it was still waiting.
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome) -> bool {
        let awaited = self.is_awaited(ticket);
        if awaited {
            self.conclude(ticket.client.number(), outcome);
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
