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
use core::mem::ManuallyDrop;

use cellule_rtos as rtos;
use cellule_rtos::{NoRoom, Outcome, Patience, Receive, Send as Sent, TaskId, Ticket};

use crate::future::{Operation, Waiting};
use crate::kernel::{Section, SectionCell};
use crate::sync::{Line, Timeout, WaitError};

mod asking;

use asking::Asking;

/// Where clients and servers meet. Any number of both, each in order of priority,
/// and among equals of time.
pub struct Port<M, R> {
    state: SectionCell<rtos::Rendezvous>,
    /// Messages and replies move between tasks: both must be `Send`.
    moved: PhantomData<SectionCell<(M, R)>>,
}

/// A send had no reply.
///
/// ```
/// use cellule_guest::message::{Port, SendError};
/// use cellule_guest::sync::WaitError;
/// use cellule_guest::time::Duration;
///
/// static NOBODY: Port<String, u32> = Port::new();
///
/// match NOBODY.send("hello".to_string(), Duration::from_secs(1)) {
///     Err(SendError::NotReceived { message, reason }) => {
///         assert_eq!((message.as_str(), reason), ("hello", WaitError::TimedOut));
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
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
///
/// ```
/// use cellule_guest::message::{Gone, Port};
/// use cellule_guest::sync::Timeout;
/// use cellule_guest::task;
///
/// static PORT: Port<u32, u32> = Port::new();
///
/// let client = task::spawn(|| PORT.send(1, Timeout::Forever))?;
/// let (number, reply) = PORT.receive(Timeout::Forever)?;
/// client.task().kill();
/// assert_eq!(reply.reply(number + 1), Err(Gone(2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Gone<R>(pub R);

/// The right to reply to a client, once. Dropped, the client is told
/// [`WaitError::PeerDied`].
///
/// A server need not reply before it receives the next message:
///
/// ```
/// use cellule_guest::message::{Port, ReplyHandle};
/// use cellule_guest::sync::Timeout;
/// use cellule_guest::task;
///
/// static TURNS: Port<u32, &str> = Port::new();
///
/// let clients = [1, 2].map(|n| task::spawn(move || TURNS.send(n, Timeout::Forever)));
/// let (_, first): (u32, ReplyHandle<&str>) = TURNS.receive(Timeout::Forever)?;
/// let (_, second) = TURNS.receive(Timeout::Forever)?;
/// assert!(first.is_awaited());
/// second.reply("second")?;
/// first.reply("first")?;
/// let [one, two] = clients;
/// assert_eq!((one?.join()??, two?.join()??), ("first", "second"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropped, the client has no reply"]
#[derive(Debug)]
pub struct ReplyHandle<R> {
    ticket: Ticket,
    reply: PhantomData<fn(R)>,
}

/// What a client has, in a place that the kernel knows, while it waits. The reply
/// is first: who replies does not know what the message was.
#[repr(C)]
struct Client<M, R> {
    reply: Option<R>,
    /// Until it is received.
    message: Option<M>,
}

/// What a server that waits is given.
type Received<M> = Option<(M, Ticket)>;

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
        let mut client = Client { reply: None, message: Some(message) };
        let place = &raw mut client;
        match self.state.with(&mut section, |state, core| state.send(core, patience)) {
            // There is patience, so it is not busy.
            Sent::Waits | Sent::Busy => section.set_item(place),
            Sent::Received(server, ticket) => {
                section.set_item(place);
                Self::deliver(&mut section, server, ticket);
            }
        }
        // When the wait is over, nobody else uses it any more.
        match (section.wait(), client) {
            (_, Client { reply: Some(reply), .. }) => Ok(reply),
            (waited, Client { message: Some(message), .. }) => {
                let reason = waited.err().unwrap_or(WaitError::Cancelled);
                Err(SendError::NotReceived { message, reason })
            }
            (waited, _) => Err(SendError::NotAnswered(waited.err().unwrap_or(WaitError::PeerDied))),
        }
    }

    /// Sends a message as a future, and waits for the reply.
    ///
    /// ```
    /// use cellule_guest::future::block_on;
    /// use cellule_guest::message::Port;
    /// use cellule_guest::sync::Timeout;
    /// use cellule_guest::task;
    ///
    /// static ECHO: Port<String, String> = Port::new();
    ///
    /// let server = task::spawn(|| {
    ///     let (text, reply) = ECHO.receive(Timeout::Forever).unwrap();
    ///     reply.reply(text)
    /// })?;
    /// assert_eq!(block_on(ECHO.send_async("hello".to_string()))??, "hello");
    /// assert!(server.join()?.is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SendError::NotAnswered`]: with [`WaitError::PeerDied`] as for a task; with
    /// [`WaitError::Cancelled`] if the task that polled this was killed after the
    /// message was received, and another polls it.
    ///
    /// # Blocking
    ///
    /// Dropped before a server received the message, it has sent nothing, and drops
    /// the message; after that, the server's reply is [`Gone`].
    pub fn send_async(&self, message: M) -> impl Future<Output = Result<R, SendError<M>>> {
        Asking::new(self, message)
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
                let message = Self::take_message(&mut section, ticket);
                drop(section);
                // It was there: whoever is received is no longer in line.
                message
                    .map(|message| (message, ReplyHandle::new(ticket)))
                    .ok_or(WaitError::PeerDied)
            }
            Receive::Busy => Err(section.refusal(timeout)),
            Receive::Waits => self.await_client(section),
        }
    }

    fn await_client(&self, mut section: Section) -> Result<(M, ReplyHandle<R>), WaitError> {
        let mut received: Received<M> = None;
        section.set_item(&raw mut received);
        // When the wait is over, nobody else uses it any more.
        match (section.wait_in(self), received) {
            (_, Some((message, ticket))) => Ok((message, ReplyHandle::new(ticket))),
            (waited, None) => Err(waited.err().unwrap_or(WaitError::PeerDied)),
        }
    }

    /// Receives as a future. Also then, the task that polls it is the server.
    ///
    /// ```
    /// use cellule_guest::future::block_on;
    /// use cellule_guest::message::Port;
    /// use cellule_guest::sync::Timeout;
    /// use cellule_guest::task;
    ///
    /// static HALVES: Port<u32, u32> = Port::new();
    ///
    /// let server = task::spawn(|| {
    ///     block_on(async {
    ///         let (number, reply) = HALVES.receive_async().await;
    ///         reply.reply(number / 2)
    ///     })
    /// })?;
    /// assert_eq!(HALVES.send(42, Timeout::Forever)?, 21);
    /// assert_eq!(server.join()??, Ok(()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Dropped before it is ready, it has received nothing.
    pub fn receive_async(&self) -> impl Future<Output = (M, ReplyHandle<R>)> {
        Waiting::new(Receiving { port: self })
    }

    /// Takes the message of a client that was just received.
    fn take_message(section: &mut Section, ticket: Ticket) -> Option<M> {
        let client = section.item::<Client<M, R>>(ticket.client);
        // SAFETY: the client waits in `send` or as an `Asking` of this port, where it
        // noted this, and does not use it before it is told the outcome.
        unsafe { (*client).message.take() }
    }

    /// Gives the message of a client that was just received to the server that was
    /// just woken for that.
    fn deliver(section: &mut Section, server: TaskId, ticket: Ticket) {
        let message = Self::take_message(section, ticket);
        let place = section.item::<Received<M>>(server);
        // SAFETY: the task was just woken from `await_client` of this port, where it
        // noted its place, which is empty, and has not run since.
        unsafe { place.write(message.map(|message| (message, ticket))) };
    }
}

impl<M, R> Line for Port<M, R> {
    fn pass_on(&self, section: &mut Section) {
        while let Some((server, ticket)) = self.state.with(section, |state, core| state.meet(core))
        {
            Self::deliver(section, server, ticket);
        }
    }
}

struct Receiving<'a, M, R> {
    port: &'a Port<M, R>,
}

impl<M, R> Operation for Receiving<'_, M, R> {
    type Output = (M, ReplyHandle<R>);

    fn attempt(&mut self, section: &mut Section) -> Option<Self::Output> {
        let receive = |state: &mut rtos::Rendezvous, core: &mut crate::kernel::Core| {
            state.receive(core, Patience::None)
        };
        let Receive::Received(ticket) = self.port.state.with(section, receive) else { return None };
        let message = Port::<M, R>::take_message(section, ticket)?;
        Some((message, ReplyHandle::new(ticket)))
    }

    fn enlist(&mut self, section: &mut Section) -> Result<TaskId, NoRoom> {
        self.port.state.with(section, |state, core| core.enlist(state.servers(), 0))
    }

    fn enlist_again(&mut self, section: &mut Section, place: TaskId) {
        self.port.state.with(section, |state, core| core.enlist_again(place, state.servers()));
    }

    fn pass_on(&mut self, section: &mut Section) {
        self.port.pass_on(section);
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
        let place = section.item::<Option<R>>(ticket.client);
        // SAFETY: the client waits in the very `send` or `Asking` that this ticket is
        // of, with its `Client` as item, of which this is the first field, and `None`.
        unsafe { place.write(Some(value)) };
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
