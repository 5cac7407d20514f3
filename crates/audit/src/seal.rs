//! Seals: who changes a log and makes its chain anew cannot make these.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::chain::Digest;

/// The shortest key, in bytes: half of what the hash gives.
pub const LEAST_KEY_BYTES: usize = 16;

/// Makes a seal unlike any other code that is made with the key.
const SEAL_DOMAIN: &[u8] = b"cellule audit seal 1\0";

/// A key that seals logs, and its public name. The key itself is never shown.
///
/// ```
/// use cellule_audit::SealKey;
/// let key = SealKey::new("2031-a", b"thirty-two bytes of a real secret")?;
/// assert_eq!(format!("{key:?}"), r#"SealKey { id: "2031-a", .. }"#);
/// assert!(SealKey::new("2031-b", b"short").is_err());
/// # Ok::<(), cellule_audit::KeyTooShort>(())
/// ```
#[derive(Clone)]
pub struct SealKey {
    id: String,
    keyed: Hmac<Sha256>,
}

/// A key could be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key of {bytes} bytes can be guessed: give {LEAST_KEY_BYTES} or more, at random")]
pub struct KeyTooShort {
    /// Its length in bytes.
    pub bytes: usize,
}

/// A seal of everything before it in the log, as its line has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The name of the key.
    pub key: String,
    /// HMAC-SHA256 of what `AUDIT.md` says.
    pub mac: Digest,
}

/// What kind of line a seal is in: one cannot stand for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Between records.
    Between = 1,
    /// At the end of a file that another follows.
    Rotated = 2,
    /// At the end of the log.
    Closed = 3,
}

impl SealKey {
    /// A key and its public name, which every seal carries.
    ///
    /// # Errors
    ///
    /// [`KeyTooShort`] for less than [`LEAST_KEY_BYTES`].
    pub fn new(id: impl Into<String>, key: &[u8]) -> Result<Self, KeyTooShort> {
        let short = KeyTooShort { bytes: key.len() };
        if key.len() < LEAST_KEY_BYTES {
            return Err(short);
        }
        // HMAC takes keys of any length: the error cannot be.
        let keyed = Hmac::<Sha256>::new_from_slice(key).map_err(|_| short)?;
        Ok(Self { id: id.into(), keyed })
    }

    /// Its public name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals the line `number`, and through the chain before it all others.
    pub(crate) fn seal(&self, place: Place, number: u64, before: Digest) -> Seal {
        let mac = self.mac(place, number, before).finalize().into_bytes();
        Seal { key: self.id.clone(), mac: Digest(mac.into()) }
    }

    /// Whether a seal is this key's, of that place.
    pub(crate) fn made(&self, seal: &Seal, place: Place, number: u64, before: Digest) -> bool {
        self.mac(place, number, before).verify_slice(&seal.mac.0).is_ok()
    }

    fn mac(&self, place: Place, number: u64, before: Digest) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(SEAL_DOMAIN);
        mac.update(&[place as u8]);
        mac.update(&number.to_le_bytes());
        mac.update(&before.0);
        mac
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}
