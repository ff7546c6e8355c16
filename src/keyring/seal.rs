//! What stands in a store's file, in the open, for those who have a secret to begin with.
//!
//! Version 1: the version, the salt (32 bytes), how many secrets there are, and for each its key id (4 bytes) and the
//! index key sealed under its wrapping key (nonce 24, ciphertext 32, tag 16).

use zeroize::Zeroizing;

use super::cipher::{self, NONCE_BYTES, Sealed};
use super::keys::{KEY_ID_BYTES, KeyId, Keys};
use super::secret::MAX_SECRETS;
use crate::error::{Result, StoreError};

const VERSION: u8 = 1;
const INDEX_KEY_BYTES: usize = 32;
const WRAPPED_BYTES: usize = cipher::OVERHEAD_BYTES + INDEX_KEY_BYTES;
const WRAP_BYTES: usize = KEY_ID_BYTES + WRAPPED_BYTES;

/// The salt of a store, and its index key, wrapped for each secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    salt: [u8; 32],
    wraps: Vec<Wrap>,
}

/// A key id, and the index key sealed under the wrapping key of that id.
type Wrap = [u8; WRAP_BYTES];

impl Seal {
    pub(super) fn new(
        salt: [u8; 32],
        index_key: &[u8; INDEX_KEY_BYTES],
        keys: &[Keys],
        mut nonces: impl FnMut() -> Result<[u8; NONCE_BYTES]>,
    ) -> Result<Self> {
        let wrap = |keys: &Keys| {
            let mut bytes = Vec::with_capacity(WRAP_BYTES);
            bytes.extend_from_slice(&keys.id);
            keys.wrapping.seal(&nonces()?, &aad(&keys.id), index_key, &mut bytes)?;
            Ok(std::array::from_fn(|at| bytes[at]))
        };
        Ok(Self { salt, wraps: keys.iter().map(wrap).collect::<Result<_>>()? })
    }

    pub(super) fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// How many secrets open this seal.
    pub(super) fn secrets(&self) -> usize {
        self.wraps.len()
    }

    /// Whether the seal says to be for these keys.
    pub(super) fn is_for(&self, keys: &Keys) -> bool {
        self.wraps_for(keys).next().is_some()
    }

    /// The index key, if these keys open it.
    pub(super) fn index_key(&self, keys: &Keys) -> Option<Zeroizing<[u8; INDEX_KEY_BYTES]>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(INDEX_KEY_BYTES));
        let aad = aad(&keys.id);
        let mut opens = |wrapped| keys.wrapping.open(&aad, wrapped, &mut plain);
        self.wraps_for(keys).any(&mut opens).then(|| Zeroizing::new(std::array::from_fn(|at| plain[at])))
    }

    fn wraps_for(&self, keys: &Keys) -> impl Iterator<Item = Sealed<'_>> {
        self.wraps.iter().filter_map(|wrap| Sealed::parse(wrap.strip_prefix(&keys.id)?))
    }

    /// Appends the seal's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.salt);
        out.push(self.wraps.len() as u8);
        out.extend_from_slice(self.wraps.as_flattened());
    }

    /// Reads what [`Seal::encode`] wrote.
    ///
    /// # Errors
    /// `Corrupt` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        const CUT_SHORT: StoreError = StoreError::Corrupt("the seal is cut short");
        let (&version, rest) = bytes.split_first().ok_or(CUT_SHORT)?;
        if version != VERSION {
            return Err(StoreError::Corrupt("the seal's version is unknown"));
        }
        let (&salt, rest) = rest.split_first_chunk().ok_or(CUT_SHORT)?;
        let (&count, rest) = rest.split_first().ok_or(CUT_SHORT)?;
        let (wraps, odd) = rest.as_chunks();
        if !odd.is_empty() || wraps.len() != usize::from(count) || !(1..=MAX_SECRETS).contains(&wraps.len()) {
            return Err(StoreError::Corrupt("the seal has not as many secrets as it says"));
        }
        Ok(Self { salt, wraps: wraps.to_vec() })
    }
}

/// Binds an index key to its place, so that no other sealed bytes can stand there.
fn aad(id: &KeyId) -> Vec<u8> {
    [&b"fluidauth native-store v1 index key"[..], id].concat()
}
