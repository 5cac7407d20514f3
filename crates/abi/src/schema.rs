//! `Schema`: what a type must say of itself to cross the channel.
//!
//! The bytes are serde's in the postcard format; a schema adds the shape, so
//! that both sides can be compared before anything runs, and two hooks by
//! which byte strings travel without per-element work and without copies.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Serialize, de::DeserializeOwned};

use crate::shape::{Shape, takes_bytes};
use crate::wire::{self, DecodeError, EncodeError, Payload};

/// A type whose values may be arguments and results.
///
/// Implemented for the primitive types, strings, byte slices and the usual
/// containers; derive it for your own types beside serde's traits. A type that
/// contains itself has no finite shape and is refused by the compiler.
///
/// ```
/// # use serde::{Serialize, Deserialize};
/// use cellule_abi::{Schema, Signature};
///
/// #[derive(Serialize, Deserialize, Schema)]
/// struct Point { x: f64, y: f64 }
///
/// #[derive(Serialize, Deserialize, Schema)]
/// enum Hit { Miss, At(Point), Wall { name: String } }
///
/// let text = Signature::of::<(Vec<Point>,), Hit>().text();
/// assert_eq!(text, "fn([{x: f64, y: f64}]) -> <Miss | At{x: f64, y: f64} | Wall{name: str}>");
/// ```
///
/// The derive describes what serde does by default, so types with
/// `#[serde(...)]` attributes that change the wire form must not derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross between host and guest: it does not implement `Schema`",
    note = "derive `Serialize`, `Deserialize` and `Schema` for your own types"
)]
pub trait Schema {
    /// The shape on the wire.
    const SHAPE: Shape;

    /// This type with its borrow shortened to `'a`: what a caller passes.
    type At<'a>;

    /// If the value ends in a byte string, writes all that precedes those bytes
    /// to `head` and lends them; else leaves `head` alone.
    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        let _ = head;
        None
    }

    /// The inverse of [`Schema::lend`]: makes a value of the bytes in `tail`
    /// without copying them, or hands them back.
    ///
    /// # Errors
    ///
    /// The tail, if this type cannot be made so.
    fn adopt(head: &[u8], tail: Vec<u8>) -> Result<Self, Vec<u8>>
    where
        Self: Sized,
    {
        let _ = head;
        Err(tail)
    }

    /// The bytes of a slice of this type; `Some` for `u8` alone.
    fn slice_as_bytes(slice: &[Self]) -> Option<&[u8]>
    where
        Self: Sized,
    {
        let _ = slice;
        None
    }

    /// The inverse of [`Schema::slice_as_bytes`].
    ///
    /// # Errors
    ///
    /// The bytes, if this type is not `u8`.
    fn vec_from_bytes(bytes: Vec<u8>) -> Result<Vec<Self>, Vec<u8>>
    where
        Self: Sized,
    {
        Err(bytes)
    }
}

/// The shape of a sequence of `T`, refused if a `T` takes no bytes: a hostile
/// sender could claim 2^64 of them for free.
const fn sequence<T: Schema>() -> Shape {
    assert!(takes_bytes(&T::SHAPE), "a sequence of values without bytes cannot cross the channel");
    Shape::Seq(&T::SHAPE)
}

macro_rules! plain {
    ($($type:ty => $name:literal),* $(,)?) => {$(
        impl Schema for $type {
            const SHAPE: Shape = Shape::Plain($name);
            type At<'a> = $type;
        }
    )*};
}

plain! {
    () => "()", bool => "bool", char => "char", f32 => "f32", f64 => "f64",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128", isize => "i64",
    u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128", usize => "u64",
}

impl Schema for u8 {
    const SHAPE: Shape = Shape::Plain("u8");
    type At<'a> = u8;

    fn slice_as_bytes(slice: &[Self]) -> Option<&[u8]> {
        Some(slice)
    }

    fn vec_from_bytes(bytes: Vec<u8>) -> Result<Vec<Self>, Vec<u8>> {
        Ok(bytes)
    }
}

impl Schema for core::time::Duration {
    const SHAPE: Shape =
        Shape::Struct(&[("secs", &Shape::Plain("u64")), ("nanos", &Shape::Plain("u32"))]);
    type At<'a> = Self;
}

impl Schema for str {
    const SHAPE: Shape = Shape::Plain("str");
    type At<'a> = &'a str;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        wire::push_len(head, self.len());
        Some(self.as_bytes())
    }
}

impl Schema for String {
    const SHAPE: Shape = <str as Schema>::SHAPE;
    type At<'a> = String;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        self.as_str().lend(head)
    }

    fn adopt(head: &[u8], tail: Vec<u8>) -> Result<Self, Vec<u8>> {
        if !wire::is_len(head, tail.len()) {
            return Err(tail);
        }
        String::from_utf8(tail).map_err(|error| error.into_bytes())
    }
}

impl<T: Schema> Schema for [T] {
    const SHAPE: Shape = sequence::<T>();
    type At<'a> = ();

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        let bytes = T::slice_as_bytes(self)?;
        wire::push_len(head, bytes.len());
        Some(bytes)
    }
}

impl<T: Schema> Schema for Vec<T> {
    const SHAPE: Shape = sequence::<T>();
    type At<'a> = Vec<T>;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        self.as_slice().lend(head)
    }

    fn adopt(head: &[u8], tail: Vec<u8>) -> Result<Self, Vec<u8>> {
        if !wire::is_len(head, tail.len()) {
            return Err(tail);
        }
        T::vec_from_bytes(tail)
    }
}

impl<T: Schema + ?Sized + 'static> Schema for &T {
    const SHAPE: Shape = T::SHAPE;
    type At<'a> = &'a T;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        (**self).lend(head)
    }
}

impl<T: Schema> Schema for Box<T> {
    const SHAPE: Shape = T::SHAPE;
    type At<'a> = Box<T>;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        (**self).lend(head)
    }
}

impl<T: Schema + ?Sized + ToOwned + 'static> Schema for Cow<'_, T> {
    const SHAPE: Shape = T::SHAPE;
    type At<'a> = Cow<'a, T>;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        (**self).lend(head)
    }
}

impl<T: Schema> Schema for Option<T> {
    const SHAPE: Shape = Shape::Option(&T::SHAPE);
    type At<'a> = Option<T::At<'a>>;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        lend_behind(1, self.as_ref()?, head)
    }

    fn adopt(head: &[u8], tail: Vec<u8>) -> Result<Self, Vec<u8>> {
        match head {
            [1, rest @ ..] => T::adopt(rest, tail).map(Some),
            _ => Err(tail),
        }
    }
}

impl<T: Schema, E: Schema> Schema for Result<T, E> {
    const SHAPE: Shape = Shape::Enum(&[("Ok", &T::SHAPE), ("Err", &E::SHAPE)]);
    type At<'a> = Result<T::At<'a>, E::At<'a>>;

    fn lend<'a>(&'a self, head: &mut Vec<u8>) -> Option<&'a [u8]> {
        match self {
            Ok(value) => lend_behind(0, value, head),
            Err(error) => lend_behind(1, error, head),
        }
    }

    fn adopt(head: &[u8], tail: Vec<u8>) -> Result<Self, Vec<u8>> {
        match head {
            [0, rest @ ..] => T::adopt(rest, tail).map(Ok),
            [1, rest @ ..] => E::adopt(rest, tail).map(Err),
            _ => Err(tail),
        }
    }
}

/// Lends `value`'s bytes behind the number of the variant that holds it.
fn lend_behind<'a, T: Schema>(variant: u8, value: &'a T, head: &mut Vec<u8>) -> Option<&'a [u8]> {
    head.push(variant);
    let lent = value.lend(head);
    if lent.is_none() {
        head.pop();
    }
    lent
}

impl<T: Schema, const N: usize> Schema for [T; N] {
    const SHAPE: Shape = Shape::Array(&T::SHAPE, N);
    type At<'a> = [T; N];
}

impl<T: Schema> Schema for VecDeque<T> {
    const SHAPE: Shape = sequence::<T>();
    type At<'a> = Self;
}

impl<T: Schema> Schema for BTreeSet<T> {
    const SHAPE: Shape = sequence::<T>();
    type At<'a> = Self;
}

impl<K: Schema, V: Schema> Schema for BTreeMap<K, V> {
    const SHAPE: Shape = {
        assert!(
            takes_bytes(&K::SHAPE) || takes_bytes(&V::SHAPE),
            "a map of values without bytes cannot cross the channel"
        );
        Shape::Map(&K::SHAPE, &V::SHAPE)
    };
    type At<'a> = Self;
}

/// The arguments of a call: a tuple of up to eight values.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of arguments: pass a tuple of at most eight values",
    note = "a single argument is a tuple with a comma: `(arg,)`"
)]
pub trait Args: Schema {
    /// Appends the encoded arguments to `head`, all but the bytes of a last
    /// argument that can lend them.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if a value's `Serialize` fails.
    fn encode<'a>(&'a self, head: &mut Vec<u8>) -> Result<&'a [u8], EncodeError>;
}

/// Arguments that the receiver can own.
pub trait OwnedArgs: Schema + Sized {
    /// Decodes the arguments; the bytes of a last argument are moved, not copied.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the payload is not exactly such arguments.
    fn decode(payload: Payload) -> Result<Self, DecodeError>;
}

impl Args for () {
    fn encode<'a>(&'a self, _: &mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
        Ok(&[])
    }
}

impl OwnedArgs for () {
    fn decode(payload: Payload) -> Result<Self, DecodeError> {
        wire::decode(payload)
    }
}

macro_rules! tuple {
    ($($name:ident)* ; $last:ident) => {
        impl<$($name: Schema,)* $last: Schema> Schema for ($($name,)* $last,) {
            const SHAPE: Shape = Shape::Tuple(&[$(&$name::SHAPE,)* &$last::SHAPE]);
            type At<'a> = ($($name::At<'a>,)* $last::At<'a>,);
        }

        #[allow(non_snake_case, reason = "a type parameter names its value too")]
        impl<$($name: Schema + Serialize,)* $last: Schema + Serialize> Args
            for ($($name,)* $last,)
        {
            fn encode<'a>(&'a self, head: &mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
                let ($($name,)* $last,) = self;
                $(wire::append(head, $name)?;)*
                wire::encode($last, head)
            }
        }

        #[allow(non_snake_case, reason = "a type parameter names its value too")]
        impl<$($name: Schema + DeserializeOwned,)* $last: Schema + DeserializeOwned> OwnedArgs
            for ($($name,)* $last,)
        {
            #[allow(unused_mut, reason = "not needed for a single argument")]
            fn decode(mut payload: Payload) -> Result<Self, DecodeError> {
                $(let $name = payload.take::<$name>()?;)*
                Ok(($($name,)* wire::decode::<$last>(payload)?,))
            }
        }
    };
}

tuple! { ; A }
tuple! { A ; B }
tuple! { A B ; C }
tuple! { A B C ; D }
tuple! { A B C D ; E }
tuple! { A B C D E ; F }
tuple! { A B C D E F ; G }
tuple! { A B C D E F G ; H }
