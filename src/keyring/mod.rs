//! Encryption at rest: what a file shows without a secret is sizes, times and random-looking bytes.
//!
//! Each secret of the list gives a store three things of its own, derived with the store's salt: a key for records,
//! a key that wraps the store's index key, and a public id that tells which secret sealed something. The index key is
//! made once and only wrapped anew, so that what is looked up by it stays where it is when secrets rotate.

mod cipher;
mod keys;
mod lookup;
mod random;
mod seal;
mod secret;
#[cfg(test)]
mod tests;

use std::fmt;

use zeroize::Zeroizing;

use self::cipher::{Cipher, NONCE_BYTES, Sealed};
use self::keys::{KEY_ID_BYTES, KeyId, Keys};
use self::lookup::Lookup;
pub use self::lookup::{Domain, LOOKUP_BYTES};
pub use self::seal::Seal;
pub use self::secret::Secret;
use crate::error::{Result, StoreError};

/// How many bytes a sealed record has beyond its plaintext.
pub const OVERHEAD_BYTES: usize = KEY_ID_BYTES + cipher::OVERHEAD_BYTES;

/// Why a seal did not give up its keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    #[error("none of the secrets is one of the store's")]
    WrongSecret,

    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A keyring of a seal, and the seal that fits the secrets if the given one does not.
#[derive(Debug)]
pub struct Unlocked {
    pub keyring: Keyring,
    /// What should stand in the seal's place: a secret was added to the list, or has left it.
    pub reseal: Option<Seal>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Opened {
    /// Its plaintext was appended.
    Plain,
    /// Its secret is not in the list.
    UnknownKey,
}

/// The keys of a store: one for each secret, of which the first seals and all open, and one for lookups.
pub struct Keyring {
    /// Never empty.
    records: Box<[RecordKey]>,
    lookup: Lookup,
}

struct RecordKey {
    id: KeyId,
    cipher: Cipher,
}

impl Keyring {
    /// The keys of a new store.
    ///
    /// # Errors
    /// `InvalidOption` as for [`Secret::check`]; `Io` if the system has no randomness.
    pub fn create(secrets: &[Secret]) -> Result<(Self, Seal)> {
        let mut index_key = Zeroizing::new([0; 32]);
        random::fill(&mut *index_key)?;
        Self::create_with(secrets, random::bytes()?, &index_key, random::bytes)
    }

    fn create_with(
        secrets: &[Secret],
        salt: [u8; 32],
        index_key: &[u8; 32],
        nonces: impl FnMut() -> Result<[u8; NONCE_BYTES]>,
    ) -> Result<(Self, Seal)> {
        let keys = Keys::of_all(secrets, &salt)?;
        let seal = Seal::new(salt, index_key, &keys, nonces)?;
        Ok((Self::new(keys, index_key), seal))
    }

    /// The keys of the store that has this seal.
    ///
    /// # Errors
    /// `WrongSecret` if the seal was made for none of the secrets; else as for [`Keyring::create`], and `Corrupt` if
    /// it was, and does not open.
    pub fn unlock(secrets: &[Secret], seal: &Seal) -> Result<Unlocked, UnlockError> {
        let keys = Keys::of_all(secrets, seal.salt())?;
        let found = keys.iter().map(|keys| seal.index_key(keys)).collect::<Vec<_>>();
        let Some(index_key) = found.iter().flatten().next() else {
            return Err(if keys.iter().any(|keys| seal.is_for(keys)) {
                StoreError::Corrupt("no secret opens the index key").into()
            } else {
                UnlockError::WrongSecret
            });
        };
        let fits = seal.secrets() == keys.len() && found.iter().all(Option::is_some);
        let reseal = (!fits).then(|| Seal::new(*seal.salt(), index_key, &keys, random::bytes)).transpose()?;
        Ok(Unlocked { keyring: Self::new(keys, index_key), reseal })
    }

    fn new(keys: Vec<Keys>, index_key: &[u8; 32]) -> Self {
        Self {
            records: keys.into_iter().map(|keys| RecordKey { id: keys.id, cipher: keys.record }).collect(),
            lookup: Lookup::new(index_key),
        }
    }

    /// What stands in the file for an id or a user: the same for the same bytes, whatever the secrets become.
    pub fn lookup(&self, domain: Domain, bytes: &[u8]) -> [u8; LOOKUP_BYTES] {
        self.lookup.of(domain as u8, bytes)
    }

    /// Appends the record, sealed under the first secret. It opens with the same `aad` alone.
    ///
    /// # Errors
    /// `Io` if the system has no randomness.
    pub fn seal(&self, aad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.seal_with(&random::bytes()?, aad, plain, out)
    }

    fn seal_with(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let key = self.current();
        let start = out.len();
        out.reserve(OVERHEAD_BYTES + plain.len());
        out.extend_from_slice(&key.id);
        key.cipher.seal(nonce, aad, plain, out).inspect_err(|_| out.truncate(start))
    }

    /// Appends the plaintext of what [`Keyring::seal`] wrote. Unless it is opened, `out` stays as it was.
    ///
    /// # Errors
    /// `Corrupt` for any bytes but those, and for another `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> Result<Opened> {
        const CUT_SHORT: StoreError = StoreError::Corrupt("it is cut short");
        let (id, sealed) = sealed.split_first_chunk().ok_or(CUT_SHORT)?;
        let sealed = Sealed::parse(sealed).ok_or(CUT_SHORT)?;
        let mut answer = Ok(Opened::UnknownKey);
        // Two secrets may happen to have one id: it names keys, it does not tell them apart for sure.
        for key in self.records.iter().filter(|key| key.id == *id) {
            if key.cipher.open(aad, sealed, out) {
                return Ok(Opened::Plain);
            }
            answer = Err(StoreError::Corrupt("it is not what was sealed"));
        }
        answer
    }

    /// Whether the record was sealed under one of the secrets.
    pub fn knows(&self, sealed: &[u8]) -> bool {
        self.records.iter().any(|key| sealed.starts_with(&key.id))
    }

    fn current(&self) -> &RecordKey {
        &self.records[0]
    }
}

/// Hides the keys.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} secrets)", self.records.len())
    }
}
