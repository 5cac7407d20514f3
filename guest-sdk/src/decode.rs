//! Values off the front of a payload.
//!
//! Postcard decodes everything, but a `Vec<u8>` byte by byte: that is what
//! serde says of vectors. So a value that begins with variants (`Some`, `Ok`)
//! and then is a byte string to its end is found here by its shape, and made by
//! one copy.

use alloc::vec::Vec;

use cellule_abi::{Schema, Shape};
use serde::Deserialize;

/// A tuple of arguments that can be taken off the front of a payload.
pub trait TakeArgs<'de>: Sized {
    /// Takes the arguments in order; `None` if one cannot be decoded.
    fn take_args(bytes: &mut &'de [u8]) -> Option<Self>;
}

macro_rules! tuple {
    ($($name:ident)*) => {
        impl<'de, $($name: Schema + Deserialize<'de>),*> TakeArgs<'de> for ($($name,)*) {
            #[allow(unused_variables, reason = "a call without arguments takes no bytes")]
            fn take_args(bytes: &mut &'de [u8]) -> Option<Self> {
                Some(($(take::<$name>(bytes)?,)*))
            }
        }
    };
}

tuple! {}
tuple! { A }
tuple! { A B }
tuple! { A B C }
tuple! { A B C D }
tuple! { A B C D E }
tuple! { A B C D E F }
tuple! { A B C D E F G }
tuple! { A B C D E F G H }

/// Takes one value off the front of `bytes`, which it may borrow from.
pub(crate) fn take<'de, T: Schema + Deserialize<'de>>(bytes: &mut &'de [u8]) -> Option<T> {
    if let Some(value) = take_byte_string(bytes) {
        return Some(value);
    }
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

/// The most variants in front of a byte string that are looked through.
const VARIANTS: usize = 7;

/// Takes a value that owns the byte string that it ends in, by one copy.
fn take_byte_string<T: Schema>(bytes: &mut &[u8]) -> Option<T> {
    let variants = variants_before_bytes(&T::SHAPE, bytes)?;
    let (len, after): (usize, _) = postcard::take_from_bytes(bytes.get(variants..)?).ok()?;
    let (tail, rest) = after.split_at_checked(len)?;
    let head = bytes.get(..bytes.len() - after.len())?;
    // Ask with an empty string first: a type that borrows would waste the copy.
    let mut probe = [0; VARIANTS + 1];
    probe.get_mut(..variants)?.copy_from_slice(bytes.get(..variants)?);
    T::adopt(probe.get(..=variants)?, Vec::new()).ok()?;
    let value = T::adopt(head, tail.to_vec()).ok()?;
    *bytes = rest;
    Some(value)
}

/// Returns how many bytes of variants precede a byte string, if the value at
/// the front of `bytes` is one behind at most [`VARIANTS`] of them.
fn variants_before_bytes(mut shape: &Shape, bytes: &[u8]) -> Option<usize> {
    for (depth, byte) in bytes.iter().enumerate().take(VARIANTS + 1) {
        shape = match (shape, byte) {
            (Shape::Seq(Shape::Plain("u8")), _) => return Some(depth),
            (Shape::Option(inner), 1) => inner,
            (Shape::Enum([("Ok", ok), ("Err", _)]), 0) => ok,
            (Shape::Enum([("Ok", _), ("Err", error)]), 1) => error,
            _ => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use alloc::borrow::Cow;
    use alloc::string::String;
    use core::fmt::Debug;

    use serde::Serialize;

    use super::*;

    /// Every value and what follows it come back, by whichever way.
    fn back<T>(value: &T, by_one_copy: bool)
    where
        T: Schema + Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
    {
        let mut bytes = postcard::to_allocvec(value).unwrap();
        let whole = bytes.len();
        bytes.push(0xee);
        let mut rest = bytes.as_slice();
        assert_eq!(take::<T>(&mut rest).as_ref(), Some(value));
        assert_eq!(rest, [0xee]);
        for short in 0..whole {
            assert_eq!(take::<T>(&mut &bytes[..short]), None, "{short} of {whole} bytes");
        }
        assert_eq!(take_byte_string::<T>(&mut bytes.as_slice()).is_some(), by_one_copy);
    }

    #[test]
    fn byte_strings_are_taken_by_one_copy_however_deep() {
        back(&b"bytes".to_vec(), true);
        back(&Vec::<u8>::new(), true);
        back(&std::vec![7u8; 300], true);
        back(&Some(b"x".to_vec()), true);
        back(&Ok::<_, String>(Some(b"x".to_vec())), true);
        back(&Err::<u8, _>(b"x".to_vec()), true);
    }

    #[test]
    fn other_values_are_postcards() {
        back(&None::<Vec<u8>>, false);
        back(&Err::<Vec<u8>, _>(7u8), false);
        back(&std::vec![1u16, 2], false);
        back(&String::from("text"), false);
        back(&(1u8, b"x".to_vec()), false);
    }

    #[test]
    fn what_borrows_is_not_copied() {
        let bytes = *b"\x03abc";
        let slice: &[u8] = take(&mut bytes.as_slice()).unwrap();
        assert_eq!(slice.as_ptr(), &raw const bytes[1]);
        let some: Option<&[u8]> = take(&mut b"\x01\x01a".as_slice()).unwrap();
        assert_eq!(some, Some(b"a".as_slice()));
        let text: Cow<'_, str> = take(&mut bytes.as_slice()).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused() {
        let mut huge: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1];
        assert_eq!(take::<Vec<u8>>(&mut huge), None);
    }
}
