//! The hash chain: each record carries a digest of everything before it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::canonical::canonical;
use crate::record::Record;
use crate::text::{Hex, unhex};

/// Makes a seed unlike any other digest that is made of such bytes.
const SEED_DOMAIN: &[u8] = b"cellule audit chain 1\0";

/// A SHA-256. Shown and written in lower-case hexadecimal.
///
/// ```
/// use cellule_audit::Digest;
/// let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// assert_eq!(Digest::of(b"").to_string(), empty);
/// assert_eq!(empty.parse(), Ok(Digest::of(b"")));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// A text is not 64 digits of lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256: it takes 64 digits 0-9 a-f, and these are {length} characters")]
pub struct NotADigest {
    /// How long the text is, in bytes.
    pub length: usize,
}

/// What a sandbox's chain starts from.
///
/// Two sandboxes of one image, policy and number have the same seed only if they
/// were created at the same nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The sandbox's number in its process.
    pub sandbox: u64,
    /// The digest of the image's file.
    pub image: Digest,
    /// The digest of the policy's canonical form.
    pub policy: Digest,
    /// When it was created, in nanoseconds since 1970.
    pub started_ns: u64,
}

/// The links of one sandbox's records, in their order.
///
/// ```
/// use cellule_audit::{Audit, Chain, Digest, Event, MemorySink};
/// let (sink, trail) = MemorySink::new(10);
/// let mut audit = Audit::new(Box::new(sink), 1, Digest::of(b"the policy"));
/// audit.record(Event::Created { backend: "kvm".into() })?;
/// audit.record(Event::Dropped)?;
/// let mut chain = Chain::new(&trail.origins()[0]);
/// assert!(trail.records().iter().all(|record| chain.append(record) == record.link));
/// # Ok::<(), cellule_audit::SinkRefused>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chain {
    head: Digest,
    /// Reused for every record.
    bytes: Vec<u8>,
}

impl Digest {
    /// Digests bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_segments([bytes])
    }

    /// Digests bytes that lie in several places, one behind the other.
    pub fn of_segments<B: AsRef<[u8]>>(segments: impl IntoIterator<Item = B>) -> Self {
        let mut hash = Sha256::new();
        segments.into_iter().for_each(|segment| hash.update(segment.as_ref()));
        Self(hash.finalize().into())
    }
}

impl Origin {
    /// The digest that the first record follows.
    pub fn seed(&self) -> Digest {
        let Self { sandbox, image, policy, started_ns } = self;
        let segments: [&[u8]; 5] =
            [SEED_DOMAIN, &image.0, &policy.0, &sandbox.to_le_bytes(), &started_ns.to_le_bytes()];
        Digest::of_segments(segments)
    }
}

impl Chain {
    /// The empty chain of a sandbox.
    pub fn new(origin: &Origin) -> Self {
        Self { head: origin.seed(), bytes: Vec::new() }
    }

    /// The link of the last record, or the seed.
    pub fn head(&self) -> Digest {
        self.head
    }

    /// Appends a record, whatever link it carries, and returns the link that it
    /// should carry.
    ///
    /// # Cost
    ///
    /// One SHA-256 of some 100 bytes; no allocation after the first.
    pub fn append(&mut self, record: &Record) -> Digest {
        let link = self.next(record);
        self.head = link;
        link
    }

    /// The link that a record would have, if it were appended.
    pub(crate) fn next(&mut self, record: &Record) -> Digest {
        self.bytes.clear();
        canonical(record, &mut self.bytes);
        Digest::of_segments([self.head.0.as_slice(), &self.bytes])
    }

    /// The length of the last record's canonical bytes.
    pub(crate) fn last_len(&self) -> usize {
        self.bytes.len()
    }

    /// Says what the last record's link is.
    pub(crate) fn advance(&mut self, link: Digest) {
        self.head = link;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0))
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let wrong = NotADigest { length: text.len() };
        let bytes: Option<Vec<u8>> = unhex(text).collect();
        let bytes = bytes.filter(|_| text.len() == 64).ok_or(wrong)?;
        Ok(Self(bytes.try_into().map_err(|_| wrong)?))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
