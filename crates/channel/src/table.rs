//! Host functions, and the only place where one is invoked.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cellule_abi::wire::{self, Payload};
use cellule_abi::{HostError, OwnedArgs, Schema, Signature};
use serde::Serialize;

/// A host function: a name, a signature, and a closure behind bytes.
pub struct HostFunction {
    name: String,
    signature: Signature,
    handler: Handler,
}

type Handler = Box<dyn FnMut(Payload) -> Result<Reply, HostError> + Send>;

impl fmt::Debug for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostFunction")
            .field("name", &self.name)
            .field("signature", &self.signature.text())
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

/// An answer: encoded bytes, and bytes that stay in the value they belong to.
pub struct Reply {
    head: Vec<u8>,
    tail: Option<Box<dyn Lender>>,
}

/// A value that ends in a byte string.
trait Lender: Send {
    fn bytes(&self) -> &[u8];
}

impl<R: Schema + Send> Lender for R {
    fn bytes(&self) -> &[u8] {
        self.lend(&mut Vec::new()).unwrap_or_default()
    }
}

impl Reply {
    fn of<R: Schema + Serialize + Send + 'static>(value: R) -> Result<Self, HostError> {
        let mut head = Vec::new();
        let lends = value.lend(&mut head).is_some();
        if lends {
            return Ok(Self { head, tail: Some(Box::new(value)) });
        }
        wire::append(&mut head, &value).map_err(|_| HostError::Failed)?;
        Ok(Self { head, tail: None })
    }

    /// The encoded value, in two segments.
    pub fn segments(&self) -> [&[u8]; 2] {
        [&self.head, self.tail.as_ref().map_or(&[], |tail| tail.bytes())]
    }

    /// The length of both segments in bytes.
    pub fn len(&self) -> usize {
        self.segments().iter().map(|segment| segment.len()).sum()
    }

    /// Whether the value takes no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A host function panicked; its state is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

impl HostFunction {
    /// Makes a host function of a closure.
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
        let handler = move |payload: Payload| {
            let args = Args::decode(payload).map_err(|_| HostError::BadArguments)?;
            Reply::of(f.invoke(args))
        };
        Self {
            name: name.into(),
            signature: Signature::of::<Args, R>(),
            handler: Box::new(handler),
        }
    }

    /// The name that guests import and policies allow.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it takes and gives.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// Calls the closure. A panic ends here: it is the embedder's, and neither
    /// the library's callers nor the guest are to see it unwind.
    pub(crate) fn invoke(
        &mut self,
        payload: Payload,
    ) -> Result<Result<Reply, HostError>, Panicked> {
        catch_unwind(AssertUnwindSafe(|| (self.handler)(payload))).map_err(|_| Panicked)
    }
}
