//! `Function`: an exported function, resolved and checked once.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use cellule_abi::{Args, Schema};
use serde::de::DeserializeOwned;

use crate::error::CallError;
use crate::image::Image;
use crate::sandbox::Sandbox;

/// An exported function of an image, taking the tuple `A` and giving `R`.
///
/// Made by [`Sandbox::function`]; works in every sandbox of the same image.
pub struct Function<A, R> {
    image: Image,
    index: u32,
    types: PhantomData<fn(A) -> R>,
}

impl<A: Args, R: Schema + DeserializeOwned> Function<A, R> {
    pub(crate) fn new(image: Image, index: u32) -> Self {
        Self { image, index, types: PhantomData }
    }

    /// Calls the function in `sandbox`.
    ///
    /// Borrowed arguments need only live for the call: a handle for `(&str,)`
    /// takes any `&str`.
    ///
    /// # Errors
    ///
    /// As for [`Sandbox::call`], and [`CallError::OtherImage`].
    ///
    /// # Cost
    ///
    /// One exit and one hypervisor call, and one more of each for every host call.
    pub fn call<'a>(&self, sandbox: &mut Sandbox, args: A::At<'a>) -> Result<R, CallError>
    where
        A::At<'a>: Args,
    {
        self.check(sandbox)?;
        sandbox.perform(self.index, &args, None)
    }

    /// Calls the function in `sandbox`, and ends the call when `limit` has passed.
    ///
    /// # Errors
    ///
    /// As for [`Function::call`], and [`CallError::DeadlineExceeded`].
    pub fn call_within<'a>(
        &self,
        sandbox: &mut Sandbox,
        limit: Duration,
        args: A::At<'a>,
    ) -> Result<R, CallError>
    where
        A::At<'a>: Args,
    {
        self.check(sandbox)?;
        sandbox.perform(self.index, &args, Some(limit))
    }

    fn check(&self, sandbox: &Sandbox) -> Result<(), CallError> {
        match self.image.is_same(sandbox.image()) {
            true => Ok(()),
            false => Err(CallError::OtherImage { function: self.image.export_name(self.index) }),
        }
    }
}

impl<A, R> Clone for Function<A, R> {
    fn clone(&self) -> Self {
        Self { image: self.image.clone(), index: self.index, types: PhantomData }
    }
}

impl<A, R> fmt::Debug for Function<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.image.export_name(self.index))
            .finish_non_exhaustive()
    }
}
