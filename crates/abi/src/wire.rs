//! Values to bytes and back: postcard, in two segments.
//!
//! The format is <https://postcard.jamesmunns.com/wire-format>. A byte string
//! at the end of a value can be left out of the encoding and travel beside it.

use alloc::vec::Vec;

use serde::{Serialize, de::DeserializeOwned};

use crate::Schema;

/// A value that could not be encoded: its `Serialize` refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a value could not be encoded: {0}")]
pub struct EncodeError(#[source] postcard::Error);

/// Bytes that are not the value they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early, or a part of them is not valid.
    #[error("{len} bytes do not decode: {source}")]
    Malformed {
        /// All bytes there were.
        len: usize,
        /// What postcard found.
        source: postcard::Error,
    },
    /// Bytes are left over.
    #[error("{left} of {len} bytes are left over after the value")]
    LeftOver {
        /// All bytes there were.
        len: usize,
        /// Those after the value.
        left: usize,
    },
}

/// The bytes of one value: a head, and a tail that belongs behind it.
///
/// Where the split is means nothing: the value is the concatenation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    head: Vec<u8>,
    start: usize,
    tail: Vec<u8>,
}

impl Payload {
    /// A payload of two segments.
    pub fn new(head: Vec<u8>, tail: Vec<u8>) -> Self {
        Self { head, start: 0, tail }
    }

    /// The length of what is left of both segments, in bytes.
    pub fn len(&self) -> usize {
        self.head().len() + self.tail.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The two segments, in order.
    pub fn segments(&self) -> [&[u8]; 2] {
        [self.head(), &self.tail]
    }

    /// Decodes one value off the front.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Result<T, DecodeError> {
        if let Ok((value, rest)) = postcard::take_from_bytes(self.head()) {
            self.start = self.head.len() - rest.len();
            return Ok(value);
        }
        // The split may lie within this value: nothing forbids that.
        self.join();
        let len = self.len();
        let (value, rest) = postcard::take_from_bytes(self.head())
            .map_err(|source| DecodeError::Malformed { len, source })?;
        self.start = self.head.len() - rest.len();
        Ok(value)
    }

    fn head(&self) -> &[u8] {
        self.head.get(self.start..).unwrap_or_default()
    }

    fn join(&mut self) {
        self.head.append(&mut self.tail);
    }
}

/// Encodes `value` to the end of `head`, except for the bytes it lends.
///
/// ```
/// use cellule_abi::wire;
/// let mut head = vec![];
/// assert_eq!(wire::encode("abc", &mut head).unwrap(), b"abc");
/// assert_eq!(head, [3]);
/// ```
///
/// # Errors
///
/// [`EncodeError`] if the value's `Serialize` fails.
pub fn encode<'a, T: Schema + Serialize + ?Sized>(
    value: &'a T,
    head: &mut Vec<u8>,
) -> Result<&'a [u8], EncodeError> {
    match value.lend(head) {
        Some(tail) => Ok(tail),
        None => append(head, value).map(|()| &[] as &[u8]),
    }
}

/// Appends the whole encoding of `value`.
///
/// # Errors
///
/// [`EncodeError`] if the value's `Serialize` fails.
pub fn append<T: Serialize + ?Sized>(head: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    postcard::serialize_with_flavor(value, Appender(head)).map_err(EncodeError)
}

/// Decodes the one value that `payload` must be.
///
/// # Errors
///
/// [`DecodeError`] if it is not exactly one such value.
pub fn decode<T: Schema + DeserializeOwned>(mut payload: Payload) -> Result<T, DecodeError> {
    if !payload.tail.is_empty() {
        match T::adopt(payload.head.get(payload.start..).unwrap_or_default(), payload.tail) {
            Ok(value) => return Ok(value),
            Err(tail) => payload.tail = tail,
        }
        payload.join();
    }
    decode_borrowed(payload.head())
}

/// Decodes the one value that `bytes` must be; it may borrow from them.
///
/// # Errors
///
/// [`DecodeError`] if it is not exactly one such value.
pub fn decode_borrowed<'de, T: serde::Deserialize<'de>>(
    bytes: &'de [u8],
) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes(bytes)
        .map_err(|source| DecodeError::Malformed { len: bytes.len(), source })?;
    match rest.len() {
        0 => Ok(value),
        left => Err(DecodeError::LeftOver { len: bytes.len(), left }),
    }
}

/// Appends a length as postcard does: seven bits a byte, the lowest first.
pub(crate) fn push_len(head: &mut Vec<u8>, len: usize) {
    let mut rest = len;
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return head.push(low);
        }
        head.push(low | 0x80);
    }
}

/// Whether `head` is the encoding of `len` and nothing else.
pub(crate) fn is_len(head: &[u8], len: usize) -> bool {
    decode_borrowed::<usize>(head) == Ok(len)
}

/// Lets postcard write to the end of a vector that has something in it.
struct Appender<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::string::{String, ToString};
    use alloc::vec;

    use super::*;
    use crate::{Args, OwnedArgs};

    fn both_ways<T>(value: &T) -> T
    where
        T: Schema + Serialize + DeserializeOwned,
    {
        let mut head = vec![];
        let tail = encode(value, &mut head).unwrap().to_vec();
        let mut whole = head.clone();
        whole.extend_from_slice(&tail);
        assert_eq!(whole, postcard::to_allocvec(value).unwrap(), "the sum is plain postcard");
        for split in 0..=whole.len() {
            let (a, b) = whole.split_at(split);
            decode::<T>(Payload::new(a.to_vec(), b.to_vec())).expect("any split decodes");
        }
        decode(Payload::new(head, tail)).unwrap()
    }

    #[test]
    fn every_split_of_a_value_decodes_to_it() {
        assert_eq!(both_ways(&vec![1u8, 2, 3]), [1, 2, 3]);
        assert_eq!(both_ways(&vec![1u16, 2, 300]), [1, 2, 300]);
        assert_eq!(both_ways(&"é".to_string()), "é");
        assert_eq!(both_ways(&Some(vec![7u8; 200])), Some(vec![7u8; 200]));
        assert_eq!(both_ways(&Ok::<_, u8>("x".to_string())), Ok("x".to_string()));
        assert_eq!(both_ways(&Err::<u8, _>(vec![9u8])), Err(vec![9u8]));
        let map = BTreeMap::from([(1u8, vec![1u8]), (2, vec![])]);
        assert_eq!(both_ways(&map), map);
    }

    #[test]
    fn a_lent_tail_is_moved_and_not_copied() {
        let tail = vec![5u8; 1000];
        let address = tail.as_ptr();
        let mut head = vec![0];
        push_len(&mut head, tail.len());
        let value: Result<Vec<u8>, String> = decode(Payload::new(head, tail)).unwrap();
        let bytes = value.unwrap();
        assert_eq!(bytes.as_ptr(), address);
    }

    #[test]
    fn arguments_decode_wherever_they_are_split() {
        let args = (7u32, "name".to_string(), vec![1u8, 2]);
        let mut head = vec![];
        let tail = args.encode(&mut head).unwrap();
        assert_eq!(tail, [1, 2]);
        let whole = [&head, tail].concat();
        for split in 0..=whole.len() {
            let (a, b) = whole.split_at(split);
            let back = <(u32, String, Vec<u8>)>::decode(Payload::new(a.to_vec(), b.to_vec()));
            assert_eq!(back.as_ref(), Ok(&args));
        }
    }

    #[test]
    fn bytes_that_are_left_over_or_missing_are_refused() {
        let long = Payload::new(vec![1, 2], vec![3]);
        assert_eq!(decode::<u8>(long), Err(DecodeError::LeftOver { len: 3, left: 2 }));
        let short = Payload::new(vec![5, b'a'], vec![]);
        assert!(matches!(decode::<String>(short), Err(DecodeError::Malformed { len: 2, .. })));
        let huge = Payload::new(vec![0xff, 0xff, 0xff, 0xff, 0x0f], vec![]);
        assert!(decode::<Vec<u64>>(huge).is_err());
        let none = <()>::decode(Payload::new(vec![0], vec![]));
        assert_eq!(none, Err(DecodeError::LeftOver { len: 1, left: 1 }));
    }

    #[test]
    fn a_tail_that_is_not_utf8_is_no_string() {
        let bad = Payload::new(vec![1], vec![0xff]);
        assert!(matches!(decode::<String>(bad), Err(DecodeError::Malformed { len: 2, .. })));
    }
}
