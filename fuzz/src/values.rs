//! Types of every kind that can cross the channel.

use arbitrary::Arbitrary;
use cellule_abi::Schema;
use serde::{Deserialize, Serialize};

/// A float that is equal to itself, whatever its bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, Schema, Arbitrary)]
pub struct Float(pub f64);

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// A struct with fields of many kinds, whose last one can be lent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema, Arbitrary)]
pub struct Person {
    /// Any text.
    pub name: String,
    /// A varint.
    pub age: u16,
    /// Eight bytes.
    pub height: Float,
    /// Up to four bytes of UTF-8.
    pub initial: char,
    /// Two bytes and no length.
    pub flags: [bool; 2],
    /// Bytes at the end.
    pub photo: Option<Vec<u8>>,
}

/// An enum with variants of every form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema, Arbitrary)]
pub enum Event {
    /// No field.
    Nothing,
    /// One field.
    Said(String),
    /// Two fields.
    Moved(i32, i64),
    /// Named fields.
    Joined {
        /// Who.
        who: Person,
        /// When.
        at: (u64, u128),
    },
}
