//! Encryption at rest. Without a secret, a file shows only sizes, times and random-looking bytes.
//!
//! Three values are derived from each secret and the store's salt: a record key, a wrapping key, which encrypts the
//! store's index key, and a public key id, which names the secret. The index key is generated once. Rotation wraps it
//! for other secrets and never replaces it, so the lookup keys of ids and users stay the same.

mod cipher;
mod keys;
mod lookup;
pub(crate) mod random;
mod secret;
#[cfg(test)]
mod tests;
mod wrapped_keys;

use std::fmt;

use zeroize::Zeroizing;

use self::cipher::{Cipher, NONCE_BYTES, Sealed};
pub use self::keys::KeyId;
use self::keys::{KEY_ID_BYTES, Keys};
use self::lookup::Lookup;
pub use self::lookup::{Domain, LOOKUP_BYTES};
pub use self::secret::{MAX_SECRETS, Secret};
pub use self::wrapped_keys::WrappedKeys;
use crate::error::{Result, StoreError};

/// How many bytes an encrypted record is longer than its plaintext.
pub const OVERHEAD_BYTES: usize = KEY_ID_BYTES + cipher::OVERHEAD_BYTES;

/// Why unlocking failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    #[error("none of the secrets is one of the store's")]
    WrongSecret,

    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key ring, and the wrapped keys that may replace those of the store.
#[derive(Debug)]
pub struct Unlocked {
    pub keyring: Keyring,
    /// The store's wrapped keys, and new ones for secrets without a wrapped key. `None` if no secret lacks one.
    pub extended: Option<WrappedKeys>,
    /// Wrapped keys for exactly the given secrets. `None` if the store has these.
    pub exact: Option<WrappedKeys>,
}

/// The result of decrypting a record.
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
    pub fn create(secrets: &[Secret]) -> Result<(Self, WrappedKeys)> {
        let mut index_key = Zeroizing::new([0; 32]);
        random::fill(&mut *index_key)?;
        Self::create_with(secrets, random::bytes()?, &index_key, random::bytes)
    }

    fn create_with(
        secrets: &[Secret],
        salt: [u8; 32],
        index_key: &[u8; 32],
        nonces: impl FnMut() -> Result<[u8; NONCE_BYTES]>,
    ) -> Result<(Self, WrappedKeys)> {
        let keys = Keys::of_all(secrets, &salt)?;
        let wrapped = WrappedKeys::new(salt, index_key, &keys, nonces)?;
        Ok((Self::new(keys, index_key), wrapped))
    }

    /// Unlocks the keys of a store with its wrapped keys.
    ///
    /// # Errors
    /// `WrongSecret` if none of the secrets has a wrapped key. `Corrupt` if a secret has one, but cannot decrypt it.
    /// Otherwise as for [`Keyring::create`].
    pub fn unlock(secrets: &[Secret], wrapped: &WrappedKeys) -> Result<Unlocked, UnlockError> {
        let keys = Keys::of_all(secrets, wrapped.salt())?;
        let found = keys.iter().map(|keys| wrapped.index_key(keys)).collect::<Vec<_>>();
        let Some(index_key) = found.iter().flatten().next() else {
            return Err(if keys.iter().any(|keys| wrapped.has(&keys.id)) {
                StoreError::Corrupt("no secret opens the index key").into()
            } else {
                UnlockError::WrongSecret
            });
        };
        let lacks_none = found.iter().all(Option::is_some);
        let extended = if lacks_none {
            None
        } else {
            let lacking = keys.iter().zip(&found).filter(|(_, found)| found.is_none());
            let mut extended = wrapped.clone();
            extended.add(index_key, lacking.map(|(keys, _)| keys), random::bytes)?;
            Some(extended)
        };
        let is_exact = lacks_none && wrapped.len() == keys.len();
        let exact = (!is_exact).then(|| WrappedKeys::new(*wrapped.salt(), index_key, &keys, random::bytes));
        Ok(Unlocked { exact: exact.transpose()?, extended, keyring: Self::new(keys, index_key) })
    }

    fn new(keys: Vec<Keys>, index_key: &[u8; 32]) -> Self {
        Self {
            records: keys.into_iter().map(|keys| RecordKey { id: keys.id, cipher: keys.record }).collect(),
            lookup: Lookup::new(index_key),
        }
    }

    /// Returns the lookup key that the file contains instead of an id or a user. It depends on the bytes only, also
    /// after a rotation of secrets.
    pub fn lookup(&self, domain: Domain, bytes: &[u8]) -> [u8; LOOKUP_BYTES] {
        self.lookup.of(domain as u8, bytes)
    }

    /// Encrypts a record with the first secret, and appends it. Decryption needs the same `aad`.
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

    /// Decrypts a record of [`Keyring::seal`], and appends its plaintext. On failure, `out` is unchanged.
    ///
    /// # Errors
    /// `Corrupt` for any other bytes, and for another `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> Result<Opened> {
        const CUT_SHORT: StoreError = StoreError::Corrupt("it is cut short");
        let (id, sealed) = sealed.split_first_chunk().ok_or(CUT_SHORT)?;
        let sealed = Sealed::parse(sealed).ok_or(CUT_SHORT)?;
        let mut answer = Ok(Opened::UnknownKey);
        // Try all keys with this id: two secrets may have the same id by chance.
        for key in self.records.iter().filter(|key| key.id == *id) {
            if key.cipher.open(aad, sealed, out) {
                return Ok(Opened::Plain);
            }
            answer = Err(StoreError::Corrupt("it is not what was sealed"));
        }
        answer
    }

    /// Whether the record is encrypted with one of the secrets.
    pub fn knows(&self, sealed: &[u8]) -> bool {
        Self::id_of(sealed).is_some_and(|id| self.has(id))
    }

    /// Returns the id of the key that encrypted a record, or `None` if there are too few bytes.
    pub fn id_of(sealed: &[u8]) -> Option<&KeyId> {
        sealed.first_chunk()
    }

    /// Whether one of the secrets has this key id.
    pub fn has(&self, id: &KeyId) -> bool {
        self.records.iter().any(|key| key.id == *id)
    }

    /// The key id of the first secret, which encrypts.
    pub fn current_id(&self) -> KeyId {
        self.current().id
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
