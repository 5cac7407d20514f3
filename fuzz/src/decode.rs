//! The bytes of values, split anywhere, and what decoding them promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use allocation_counter::measure;
use arbitrary::Arbitrary;
use cellule_abi::wire::{self, DecodeError, Payload};
use cellule_abi::{Args, OwnedArgs, Schema};
use serde::{Serialize, de::DeserializeOwned};

use crate::values::{Event, Person};

/// What decoding may allocate for each byte sent. A byte can be the `None` of an
/// `Option<String>` in a vector, which is 24 bytes in memory and three times that
/// while the vector grows, or an entry of a map, which has nodes.
const BYTES_PER_BYTE: u64 = 128;
/// What decoding may allocate for any payload: a map's first node.
const BYTES_PER_PAYLOAD: u64 = 2048;

/// What a guest sends, and as what the host takes it.
#[derive(Debug, Clone, Arbitrary)]
pub struct Sent {
    /// The type that the bytes should be of.
    pub kind: Kind,
    /// Where the bytes are split in two segments, if they are that long.
    pub split: u16,
    /// The bytes.
    pub bytes: Vec<u8>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $what:ident $type:ty,)*) => {
        /// A type that crosses the channel, as a list of arguments or as a result.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            fn check(self, split: usize, bytes: &[u8]) -> bool {
                match self { $(Self::$kind => $what::<$type>(split, bytes),)* }
            }
        }
    };
}

kinds! {
    /// No argument.
    Nothing = args (),
    /// One string, which can be lent.
    Text = args (String,),
    /// Bytes behind numbers.
    Bytes = args (u32, i64, Vec<u8>),
    /// Numbers that are no bytes.
    Numbers = args (Vec<u64>, Vec<u16>, bool, char),
    /// Nested options and results.
    Choices = args (Option<Result<String, u8>>, Result<Vec<u8>, Option<String>>),
    /// Maps and sets.
    Maps = args (BTreeMap<String, Vec<u32>>, BTreeSet<(u8, i8)>, VecDeque<Option<String>>),
    /// Derived types, in the middle and last.
    Derived = args (Event, Vec<Event>, Person),
    /// The most arguments.
    Eight = args (u8, u16, u32, u64, i128, (), [u8; 3], Vec<Vec<u8>>),
    /// A result that is a number.
    Number = value u64,
    /// A result that can be lent.
    Lent = value Result<Vec<u8>, String>,
    /// The same, deeper.
    DeepLent = value Option<Option<Result<u8, String>>>,
    /// A derived type.
    Enum = value Event,
    /// A vector of structs.
    Structs = value Vec<Person>,
    /// A map of maps.
    Map = value BTreeMap<u8, BTreeMap<String, Option<u64>>>,
}

/// Decodes what was sent; panics if that breaks a promise.
pub fn check(sent: &Sent) {
    sent.kind.check(usize::from(sent.split), &sent.bytes);
}

/// Checks a list of arguments; tells whether the bytes are one.
fn args<A>(split: usize, bytes: &[u8]) -> bool
where
    A: OwnedArgs + Args + Serialize + PartialEq + Debug,
{
    let encode = |args: &A| {
        let mut head = Vec::new();
        let tail = args.encode(&mut head).expect("what was decoded encodes").to_vec();
        Payload::new(head, tail)
    };
    both_ways(split, bytes, A::decode, encode)
}

/// Checks a result; tells whether the bytes are one.
fn value<T>(split: usize, bytes: &[u8]) -> bool
where
    T: Schema + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let encode = |value: &T| {
        let mut head = Vec::new();
        let tail = wire::encode(value, &mut head).expect("what was decoded encodes").to_vec();
        Payload::new(head, tail)
    };
    both_ways(split, bytes, wire::decode::<T>, encode)
}

fn both_ways<T: PartialEq + Debug>(
    split: usize,
    bytes: &[u8],
    decode: impl Fn(Payload) -> Result<T, DecodeError>,
    encode: impl Fn(&T) -> Payload,
) -> bool {
    let whole = bounded(split_at(0, bytes), &decode);
    for split in [split, bytes.len(), bytes.len().saturating_sub(split)] {
        let again = bounded(split_at(split, bytes), &decode);
        assert_eq!(again, whole, "a split at {split} should change nothing");
    }
    let Ok(value) = whole else { return false };
    let encoded = encode(&value);
    let sum = encoded.segments().concat();
    assert_eq!(decode(encoded).as_ref(), Ok(&value), "the lent tail should be its value's");
    assert_eq!(decode(split_at(split, &sum)).as_ref(), Ok(&value), "in another split too");
    true
}

fn split_at(split: usize, bytes: &[u8]) -> Payload {
    let (head, tail) = bytes.split_at(split.min(bytes.len()));
    Payload::new(head.to_vec(), tail.to_vec())
}

/// Decodes, and checks that a short payload cannot make the host allocate much.
fn bounded<T>(
    payload: Payload,
    decode: impl Fn(Payload) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let len = payload.len() as u64;
    let mut decoded = None;
    let cost = measure(|| decoded = Some(decode(payload)));
    let limit = BYTES_PER_BYTE * len + BYTES_PER_PAYLOAD;
    assert!(cost.bytes_max <= limit, "{len} bytes made {cost:?}, limit {limit}");
    decoded.expect("the closure runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_found_in_every_split() {
        let mut head = Vec::new();
        let args = (7_u32, -7_i64, vec![1_u8, 2, 3]);
        let tail = args.encode(&mut head).unwrap();
        let bytes = [&head, tail].concat();
        for split in 0..=bytes.len() {
            assert!(Kind::Bytes.check(split, &bytes));
        }
    }

    #[test]
    fn a_huge_claimed_length_allocates_nothing_of_that_size() {
        // 2^63 elements claimed, in ten bytes, as any sequence comes first.
        let claim = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0];
        for kind in Kind::ALL {
            for split in 0..=12 {
                check(&Sent { kind: *kind, split, bytes: claim.to_vec() });
            }
        }
    }

    #[test]
    fn short_payloads_of_every_kind_break_no_promise() {
        let mut found = 0;
        for kind in Kind::ALL {
            for number in 0..0x1_0000_u32 {
                let [a, b, ..] = number.to_le_bytes();
                // Bytes that are lengths, tags and text at once.
                let bytes = [a % 4, b, a / 4, b / 16, 1, 0, 0, 0];
                found += usize::from(kind.check(1, &bytes[..usize::from(a % 9)]));
            }
        }
        assert!(found > 1000, "some should be values, or only errors are tested");
    }
}
