//! The wrapped keys of a store. They are in its file, and a process with one of the secrets decrypts the index key with
//! them.
//!
//! Version 1: the version, the salt (32 bytes), the number of secrets, and for each secret its key id (4 bytes) and the
//! index key encrypted with its wrapping key (nonce 24, ciphertext 32, tag 16). The oldest comes first.

use zeroize::Zeroizing;

use super::cipher::{self, NONCE_BYTES, Sealed};
use super::keys::{KEY_ID_BYTES, KeyId, Keys};
use super::secret::MAX_SECRETS;
use crate::error::{Result, StoreError};

const VERSION: u8 = 1;
const INDEX_KEY_BYTES: usize = 32;
const WRAPPED_KEY_BYTES: usize = KEY_ID_BYTES + cipher::OVERHEAD_BYTES + INDEX_KEY_BYTES;

/// The salt of a store, and its index key, wrapped for each secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKeys {
    salt: [u8; 32],
    keys: Vec<WrappedKey>,
}

/// A key id, and the index key encrypted with the wrapping key of that secret.
type WrappedKey = [u8; WRAPPED_KEY_BYTES];

impl WrappedKeys {
    pub(super) fn new(
        salt: [u8; 32],
        index_key: &[u8; INDEX_KEY_BYTES],
        keys: &[Keys],
        nonces: impl FnMut() -> Result<[u8; NONCE_BYTES]>,
    ) -> Result<Self> {
        let mut wrapped = Self { salt, keys: Vec::with_capacity(keys.len()) };
        wrapped.add(index_key, keys, nonces)?;
        Ok(wrapped)
    }

    /// Wraps the index key for more keys. There may then be more than [`MAX_SECRETS`].
    pub(super) fn add<'k>(
        &mut self,
        index_key: &[u8; INDEX_KEY_BYTES],
        keys: impl IntoIterator<Item = &'k Keys>,
        mut nonces: impl FnMut() -> Result<[u8; NONCE_BYTES]>,
    ) -> Result<()> {
        for keys in keys {
            let mut bytes = Vec::with_capacity(WRAPPED_KEY_BYTES);
            bytes.extend_from_slice(&keys.id);
            keys.wrapping.seal(&nonces()?, &aad(&keys.id), index_key, &mut bytes)?;
            self.keys.push(std::array::from_fn(|at| bytes[at]));
        }
        Ok(())
    }

    /// The salt, which makes the keys of each store different, even with the same secrets.
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// The number of secrets that unlock the store.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The ids of the keys, the oldest first.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().filter_map(|key| key.first_chunk())
    }

    pub fn has(&self, id: &KeyId) -> bool {
        self.ids().any(|other| other == id)
    }

    /// Removes the first `max` keys for which `may_go` returns true.
    pub fn remove_first(&mut self, max: usize, may_go: impl Fn(&KeyId) -> bool) {
        let mut removed = 0;
        self.keys.retain(|key| {
            let goes = removed < max && key.first_chunk().is_some_and(&may_go);
            removed += usize::from(goes);
            !goes
        });
    }

    /// Returns the index key, if these keys decrypt it.
    pub(super) fn index_key(&self, keys: &Keys) -> Option<Zeroizing<[u8; INDEX_KEY_BYTES]>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(INDEX_KEY_BYTES));
        let aad = aad(&keys.id);
        let mut wrapped = self.keys.iter().filter_map(|key| Sealed::parse(key.strip_prefix(&keys.id)?));
        let is_open = wrapped.any(|wrapped| keys.wrapping.open(&aad, wrapped, &mut plain));
        is_open.then(|| Zeroizing::new(std::array::from_fn(|at| plain[at])))
    }

    /// Returns the bytes for the file. [`WrappedKeys::decode`] accepts at most [`MAX_SECRETS`] keys.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + self.salt.len() + self.keys.len() * WRAPPED_KEY_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&self.salt);
        out.push(self.keys.len() as u8);
        out.extend_from_slice(self.keys.as_flattened());
        out
    }

    /// Reads what [`WrappedKeys::encode`] wrote.
    ///
    /// # Errors
    /// `Corrupt` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        const CUT_SHORT: StoreError = StoreError::Corrupt("the wrapped keys are cut short");
        let (&version, rest) = bytes.split_first().ok_or(CUT_SHORT)?;
        if version != VERSION {
            return Err(StoreError::Corrupt("the version of the wrapped keys is unknown"));
        }
        let (&salt, rest) = rest.split_first_chunk().ok_or(CUT_SHORT)?;
        let (&count, rest) = rest.split_first().ok_or(CUT_SHORT)?;
        let (keys, odd) = rest.as_chunks();
        if !odd.is_empty() || keys.len() != usize::from(count) || !(1..=MAX_SECRETS).contains(&keys.len()) {
            return Err(StoreError::Corrupt("the number of wrapped keys is not what they say"));
        }
        Ok(Self { salt, keys: keys.to_vec() })
    }
}

/// Binds a wrapped key to its purpose and id, so that no other encrypted bytes can replace it.
fn aad(id: &KeyId) -> Vec<u8> {
    [&b"fluidauth native-store v1 index key"[..], id].concat()
}
