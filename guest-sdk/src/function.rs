//! Typed calls: from a call's bytes to arguments, and from a result to bytes.
//!
//! Safe code that knows neither rings nor addresses: a [`Call`] is given its
//! bytes and a way to answer.

use alloc::vec::Vec;

use cellule_abi::record::ReturnStatus;
use cellule_abi::{HostError, Schema, wire};
use serde::Serialize;

use crate::decode::TakeArgs;

/// What serves a call of an export. [`crate::guest_function`] writes one each.
pub type Entry = fn(&mut Call<'_>);

/// How an answer gets out: its status, head and tail. Both segments must stay
/// where they are until this returns.
type Answer<'a> = &'a mut dyn FnMut(ReturnStatus, &[u8], &[u8]);

/// One call of a guest function.
pub struct Call<'a> {
    args: &'a [u8],
    answer: Answer<'a>,
}

impl<'a> Call<'a> {
    /// A call with the encoded arguments `args`.
    pub fn new(args: &'a [u8], answer: Answer<'a>) -> Self {
        Self { args, answer }
    }

    /// Decodes the arguments, which may borrow; `None` if the bytes are not
    /// exactly such arguments.
    pub fn arguments<A: TakeArgs<'a>>(&self) -> Option<A> {
        let mut rest = self.args;
        A::take_args(&mut rest).filter(|_| rest.is_empty())
    }

    /// Answers that the arguments could not be decoded.
    pub fn refuse(&mut self) {
        (self.answer)(ReturnStatus::BadArguments, &[], &[]);
    }

    /// Answers with `result`. Bytes that it can lend are not copied.
    ///
    /// # Panics
    ///
    /// If the result's `Serialize` fails: then there is no answer.
    #[expect(clippy::panic, reason = "a guest's panic is an error of the call, with this text")]
    pub fn finish<R: Schema + Serialize>(&mut self, result: &R) {
        let mut head = Vec::new();
        match wire::encode(result, &mut head) {
            Ok(tail) => (self.answer)(ReturnStatus::Ok, &head, tail),
            Err(error) => panic!("the result of a guest function: {error}"),
        }
    }
}

/// What a host function is declared to return: `Result<T, HostError>`.
#[diagnostic::on_unimplemented(
    message = "a host function returns `Result<T, HostError>`, not `{Self}`",
    note = "the host may refuse any call: its policy denies by default"
)]
pub trait HostResult {
    /// What the host's function gives.
    type Value;

    /// Makes the declared type of the host's answer: nothing to do.
    fn of(answer: Result<Self::Value, HostError>) -> Self;
}

impl<T> HostResult for Result<T, HostError> {
    type Value = T;

    fn of(answer: Self) -> Self {
        answer
    }
}

#[cfg(test)]
mod tests {
    use alloc::borrow::Cow;
    use alloc::string::{String, ToString};

    use super::*;

    /// Calls `entry` as a guest's runtime does; gives the status and the bytes.
    fn call(entry: Entry, args: &[u8]) -> (ReturnStatus, Vec<u8>) {
        let mut answers = Vec::new();
        let mut answer = |status, head: &[u8], tail: &[u8]| {
            answers.push((status, [head, tail].concat()));
        };
        entry(&mut Call::new(args, &mut answer));
        assert_eq!(answers.len(), 1, "a call should be answered once");
        answers.remove(0)
    }

    fn join(call: &mut Call<'_>) {
        let Some((a, b)): Option<(&str, Cow<'_, str>)> = call.arguments() else {
            return call.refuse();
        };
        call.finish(&(a.to_string() + &b));
    }

    fn nothing(call: &mut Call<'_>) {
        let Some(()) = call.arguments() else { return call.refuse() };
        call.finish(&Err::<(), _>("no"));
    }

    #[test]
    fn arguments_come_in_and_the_result_goes_out() {
        assert_eq!(call(join, b"\x01a\x02bc"), (ReturnStatus::Ok, b"\x03abc".to_vec()));
        assert_eq!(call(nothing, b""), (ReturnStatus::Ok, b"\x01\x02no".to_vec()));
    }

    #[test]
    fn bytes_that_are_not_the_arguments_are_refused() {
        let refused = (ReturnStatus::BadArguments, Vec::new());
        assert_eq!(call(join, b"\x01a\x02b"), refused, "too short");
        assert_eq!(call(join, b"\x01a\x02bcd"), refused, "too long");
        assert_eq!(call(join, b"\x01a\x01\xff"), refused, "not UTF-8");
        assert_eq!(call(nothing, b"\0"), refused, "arguments for a function without");
    }

    #[test]
    fn a_result_that_borrows_from_the_arguments_is_lent_from_there() {
        let args = *b"\x05hello";
        let mut tail_at = core::ptr::null();
        let mut answer = |_, _: &[u8], tail: &[u8]| tail_at = tail.as_ptr();
        let mut call = Call::new(&args, &mut answer);
        let (text,): (&str,) = call.arguments().unwrap();
        call.finish(&text);
        assert_eq!(tail_at, &raw const args[1]);
    }

    #[test]
    #[should_panic(expected = "the result of a guest function")]
    fn a_result_that_cannot_be_encoded_is_a_panic() {
        struct Never;
        impl Schema for Never {
            const SHAPE: cellule_abi::Shape = cellule_abi::shape::UNIT;
            type At<'a> = Self;
        }
        impl Serialize for Never {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom(String::new()))
            }
        }
        Call::new(&[], &mut |_, _, _| ()).finish(&Never);
    }
}
