//! Synchronous messages: send, receive, reply.
//!
//! A client sends a message and waits for its reply; a server receives it, with
//! the right to reply. Nothing is queued and nothing allocated: message and
//! reply go from stack to stack.
//!
//! ```
//! use cellule_guest::message::Port;
//! use cellule_guest::sync::Timeout;
//! use cellule_guest::task;
//!
//! static SQUARES: Port<u32, u64> = Port::new();
//!
//! let server = task::spawn(|| {
//!     while let Ok((number, reply)) = SQUARES.receive(Timeout::Forever) {
//!         let _ = reply.reply(u64::from(number) * u64::from(number));
//!     }
//! })?;
//! assert_eq!(SQUARES.send(12, Timeout::Forever)?, 144);
//! assert_eq!(SQUARES.send(1 << 20, Timeout::Forever)?, 1 << 40);
//! server.task().kill();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};

use cellule_rtos as rtos;
use cellule_rtos::{Outcome, Patience, Receive, Send as Sent, Ticket};

use crate::kernel::{Section, SectionCell};
use crate::sync::{Timeout, WaitError};

/// Where clients and servers meet. Any number of both, each in order of priority,
/// and among equals of time.
pub struct Port<M, R> {
    state: SectionCell<rtos::Rendezvous>,
    /// Messages and replies move between tasks: both must be `Send`.
    moved: PhantomData<SectionCell<(M, R)>>,
}

/// A send had no reply.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<M> {
    /// No server received the message: it is here.
    NotReceived {
        /// The message.
        message: M,
        /// Why it was not received.
        reason: WaitError,
    },
    /// A server received it, and did not reply: [`WaitError::TimedOut`],
    /// [`WaitError::Cancelled`]; [`WaitError::PeerDied`] if the server ended or
    /// dropped its [`ReplyHandle`].
    NotAnswered(WaitError),
}

/// A client no longer waits for its reply, which is here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Gone<R>(pub R);

/// The right to reply to a client, once. Dropped, the client is told
/// [`WaitError::PeerDied`].
#[must_use = "dropped, the client has no reply"]
#[derive(Debug)]
pub struct ReplyHandle<R> {
    ticket: Ticket,
    reply: PhantomData<fn(R)>,
}

// What a task has on its stack while it waits. The client's place for the reply
// is first: who replies does not know what the message was.
#[repr(C)]
struct Client<M, R> {
    reply: MaybeUninit<R>,
    received: bool,
    message: MaybeUninit<M>,
}

struct Server<M> {
    message: MaybeUninit<M>,
    ticket: MaybeUninit<Ticket>,
}

impl<M, R> Port<M, R> {
    /// A port where nobody waits.
    pub const fn new() -> Self {
        Self { state: SectionCell::new(rtos::Rendezvous::new()), moved: PhantomData }
    }

    /// Sends a message and waits for the reply.
    ///
    /// # Errors
    ///
    /// [`SendError`], which has the message if nobody received it. With
    /// [`Timeout::Now`] nothing is sent: a send always waits.
    ///
    /// # Blocking
    ///
    /// Until the server replies or the time is over.
    pub fn send(&self, message: M, timeout: impl Into<Timeout>) -> Result<R, SendError<M>> {
        let timeout = timeout.into();
        let mut section = Section::enter();
        let patience = section.patience(timeout);
        if patience == Patience::None {
            return Err(SendError::NotReceived { message, reason: section.refusal(timeout) });
        }
        let message = MaybeUninit::new(message);
        let mut client: Client<M, R> =
            Client { reply: MaybeUninit::uninit(), received: false, message };
        match self.state.with(&mut section, |state, core| state.send(core, patience)) {
            // There is patience, so it is not busy.
            Sent::Waits | Sent::Busy => {}
            Sent::Received(server, ticket) => {
                client.received = true;
                // SAFETY: the only copy of a message that was just put there.
                let message = unsafe { client.message.assume_init_read() };
                let place = section.item::<Server<M>>(server);
                let arrived =
                    Server { message: MaybeUninit::new(message), ticket: MaybeUninit::new(ticket) };
                // SAFETY: the task was just woken from `receive` of this port,
                // where it noted its place, and has not run since.
                unsafe { place.write(arrived) };
            }
        }
        section.set_item(&raw mut client);
        match section.wait() {
            // SAFETY: granted by `ReplyHandle::reply`, which wrote it.
            Ok(_) => Ok(unsafe { client.reply.assume_init() }),
            Err(reason) if client.received => Err(SendError::NotAnswered(reason)),
            Err(reason) => {
                // SAFETY: whoever takes the message sets `received`.
                let message = unsafe { client.message.assume_init() };
                Err(SendError::NotReceived { message, reason })
            }
        }
    }

    /// Receives a message, and the right to reply to it.
    ///
    /// If the task ends before it has replied, the client is told
    /// [`WaitError::PeerDied`], also if the right to reply has gone elsewhere.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: it received none. [`WaitError::WrongContext`] also with
    /// [`Timeout::Now`]: only tasks serve.
    ///
    /// # Blocking
    ///
    /// Until a client sends or the time is over.
    pub fn receive(&self, timeout: impl Into<Timeout>) -> Result<(M, ReplyHandle<R>), WaitError> {
        let timeout = timeout.into();
        let mut section = Section::enter();
        if !section.can_wait() {
            return Err(WaitError::WrongContext);
        }
        let patience = section.patience(timeout);
        match self.state.with(&mut section, |state, core| state.receive(core, patience)) {
            Receive::Received(ticket) => {
                let client = section.item::<Client<M, R>>(ticket.client);
                // SAFETY: the task waits in `send` of this port, where it noted
                // this; nobody else uses it in this section.
                let client = unsafe { &mut *client };
                client.received = true;
                // SAFETY: `send` wrote it, and it was not received before.
                let message = unsafe { client.message.assume_init_read() };
                Ok((message, ReplyHandle::new(ticket)))
            }
            Receive::Busy => Err(section.refusal(timeout)),
            Receive::Waits => Self::await_client(section),
        }
    }

    fn await_client(mut section: Section) -> Result<(M, ReplyHandle<R>), WaitError> {
        let mut server =
            Server::<M> { message: MaybeUninit::uninit(), ticket: MaybeUninit::uninit() };
        section.set_item(&raw mut server);
        section.wait()?;
        // SAFETY: granted by `send`, which wrote both.
        let ticket = unsafe { server.ticket.assume_init() };
        // SAFETY: as above.
        Ok((unsafe { server.message.assume_init() }, ReplyHandle::new(ticket)))
    }
}

impl<R> ReplyHandle<R> {
    const fn new(ticket: Ticket) -> Self {
        Self { ticket, reply: PhantomData }
    }

    /// Whether the client still waits.
    pub fn is_awaited(&self) -> bool {
        Section::enter().is_awaited(self.ticket)
    }

    /// Replies to the client. The server goes on, unless the client is more urgent.
    ///
    /// # Errors
    ///
    /// [`Gone`], with the reply, if the client no longer waits.
    pub fn reply(self, value: R) -> Result<(), Gone<R>> {
        let ticket = ManuallyDrop::new(self).ticket;
        let mut section = Section::enter();
        if !section.is_awaited(ticket) {
            drop(section);
            return Err(Gone(value));
        }
        let place = section.item::<R>(ticket.client);
        // SAFETY: the client waits in the very `send` that this ticket is of, with
        // its `Client` as item, of which a place for an `R` is the first field.
        unsafe { place.write(value) };
        section.answer(ticket, Outcome::Granted(0));
        section.reschedule();
        Ok(())
    }
}

impl<R> Drop for ReplyHandle<R> {
    fn drop(&mut self) {
        let mut section = Section::enter();
        section.answer(self.ticket, Outcome::PeerDied);
        section.reschedule();
    }
}

impl<M, R> Default for Port<M, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M, R> fmt::Debug for Port<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReceived { reason, .. } => {
                f.debug_struct("NotReceived").field("reason", reason).finish_non_exhaustive()
            }
            Self::NotAnswered(reason) => f.debug_tuple("NotAnswered").field(reason).finish(),
        }
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReceived { reason, .. } => write!(f, "not received: {reason}"),
            Self::NotAnswered(reason) => write!(f, "received, but not answered: {reason}"),
        }
    }
}

impl<M> core::error::Error for SendError<M> {}

impl<R> fmt::Debug for Gone<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gone").finish_non_exhaustive()
    }
}

impl<R> fmt::Display for Gone<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client no longer waits for its reply")
    }
}

impl<R> core::error::Error for Gone<R> {}

#[cfg(test)]
mod tests;
