//! Host functions, and the only place where one is invoked.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cellule_abi::wire::Payload;
use cellule_abi::{HostError, OwnedArgs, Schema, Signature};
use serde::Serialize;

use crate::reply::{Mailbox, Reply, ReplyHandle, Ticket};

/// A host function: a name, a signature, and a closure behind bytes.
pub struct HostFunction {
    name: String,
    signature: Signature,
    kind: Kind,
    handler: Handler,
}

/// When a host function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By returning.
    Immediate,
    /// By a [`ReplyHandle`], at any time.
    Deferred,
}

/// What became of an invocation.
pub(crate) enum Invoked {
    /// It is answered.
    Answered(Result<Reply, HostError>),
    /// The answer comes to the mailbox.
    Started,
}

type Handler = Box<dyn FnMut(Payload, Ticket, &Arc<dyn Mailbox>) -> Invoked + Send>;

impl fmt::Debug for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostFunction")
            .field("name", &self.name)
            .field("signature", &self.signature.text())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A closure that can serve as a host function: of up to eight arguments that
/// own their data, with any result that has a schema.
///
/// `Args` and `R` are the closure's own types; the compiler finds them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a host function",
    note = "a host function is a `FnMut` + `Send` + 'static closure of up to eight arguments",
    note = "arguments must be owned (`String`, not `&str`) and, as the result, implement `Schema`"
)]
pub trait IntoHostFunction<Args, R>: Send + 'static {
    /// Calls the closure.
    fn invoke(&mut self, args: Args) -> R;
}

/// A closure that can serve as a deferred host function: of a [`ReplyHandle`] and
/// up to eight arguments that own their data.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a deferred host function",
    note = "it is a `FnMut` + `Send` + 'static closure of a `ReplyHandle<R>` and up to eight \
            arguments, which returns nothing",
    note = "arguments must be owned (`String`, not `&str`) and, as `R`, implement `Schema`"
)]
pub trait IntoDeferredHostFunction<Args, R>: Send + 'static {
    /// Calls the closure.
    fn start(&mut self, reply: ReplyHandle<R>, args: Args);
}

macro_rules! closures {
    ($($name:ident)*) => {
        impl<Fun, $($name,)* R> IntoHostFunction<($($name,)*), R> for Fun
        where
            Fun: FnMut($($name),*) -> R + Send + 'static,
        {
            #[allow(non_snake_case, reason = "a type parameter names its value too")]
            fn invoke(&mut self, ($($name,)*): ($($name,)*)) -> R {
                self($($name),*)
            }
        }

        impl<Fun, $($name,)* R> IntoDeferredHostFunction<($($name,)*), R> for Fun
        where
            Fun: FnMut(ReplyHandle<R>, $($name),*) + Send + 'static,
        {
            #[allow(non_snake_case, reason = "a type parameter names its value too")]
            fn start(&mut self, reply: ReplyHandle<R>, ($($name,)*): ($($name,)*)) {
                self(reply, $($name),*)
            }
        }
    };
}

closures! {}
closures! { A }
closures! { A B }
closures! { A B C }
closures! { A B C D }
closures! { A B C D E }
closures! { A B C D E F }
closures! { A B C D E F G }
closures! { A B C D E F G H }

/// A host function panicked; its state is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

impl HostFunction {
    /// Makes a host function of a closure, which answers by returning.
    ///
    /// ```
    /// use cellule_channel::HostFunction;
    /// let function = HostFunction::new("add", |a: u32, b: u32| a + b);
    /// assert_eq!(function.signature().text(), "fn(u32, u32) -> u32");
    /// ```
    pub fn new<Args, R>(name: impl Into<String>, mut f: impl IntoHostFunction<Args, R>) -> Self
    where
        Args: OwnedArgs,
        R: Schema + Serialize + Send + 'static,
    {
        let handler: Handler = Box::new(move |payload, _, _| {
            let args = Args::decode(payload).map_err(|_| HostError::BadArguments);
            Invoked::Answered(args.and_then(|args| Reply::of(f.invoke(args))))
        });
        let signature = Signature::of::<Args, R>();
        Self { name: name.into(), signature, kind: Kind::Immediate, handler }
    }

    /// Makes a host function of a closure that answers by a [`ReplyHandle`].
    pub fn deferred<Args, R>(
        name: impl Into<String>,
        mut f: impl IntoDeferredHostFunction<Args, R>,
    ) -> Self
    where
        Args: OwnedArgs,
        R: Schema + Serialize + Send + 'static,
    {
        let handler: Handler = Box::new(move |payload, ticket, mailbox| {
            let Ok(args) = Args::decode(payload) else {
                return Invoked::Answered(Err(HostError::BadArguments));
            };
            f.start(ReplyHandle::new(ticket, Arc::clone(mailbox)), args);
            Invoked::Started
        });
        let signature = Signature::of::<Args, R>();
        Self { name: name.into(), signature, kind: Kind::Deferred, handler }
    }

    /// The name that guests import and policies allow.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it takes and gives.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// When it answers.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Calls the closure. A panic ends here: it is the embedder's, and neither
    /// the library's callers nor the guest are to see it unwind.
    pub(crate) fn invoke(
        &mut self,
        payload: Payload,
        ticket: Ticket,
        mailbox: &Arc<dyn Mailbox>,
    ) -> Result<Invoked, Panicked> {
        let call = AssertUnwindSafe(|| (self.handler)(payload, ticket, mailbox));
        catch_unwind(call).map_err(|_| Panicked)
    }
}
