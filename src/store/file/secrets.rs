//! Manages the secrets of the store: the wrapped keys in the unnamed table.
//!
//! - A commit that encrypts a session first adds the missing wrapped keys of its process's secrets. It removes none.
//!   So a process with an old list of secrets locks out nobody.
//! - A sweep removes a wrapped key that its process's secrets cannot open, if no session uses that key. At least one
//!   session must use the process's first secret, because an empty store does not show which secrets are current.
//!
//! **Invariant**: if `covered` is the hash of the wrapped keys, every record has a wrapped key. So a process whose
//! secrets open all wrapped keys can read all records, and does not have to look for unreadable ones. Earlier
//! versions removed wrapped keys in use and do not know `covered`. After they have written wrapped keys, the hash is
//! wrong, and the next sweep checks the records.

use std::collections::BTreeSet;
use std::path::Path;

use heed::{AnyTls, RoTxn, RwTxn};
use sha2::{Digest, Sha256};

use super::encryption::Encryption;
use super::record::Record;
use super::tables::{COVERED, Table, Tables, WRAPPED_KEYS};
use super::write_error::WriteError;
use crate::error::{Result, StoreError};
use crate::keyring::{KeyId, Keyring, MAX_SECRETS, Secret, UnlockError, WrappedKeys};

/// The keys that encrypt at least one record.
pub(super) type KeysInUse = BTreeSet<KeyId>;

/// Writes the wrapped keys of a new store.
pub(super) fn create(meta: Table, txn: &mut RwTxn<'_>, secrets: &[Secret]) -> Result<(), WriteError> {
    let (_, wrapped) = Keyring::create(secrets)?;
    Ok(put(meta, txn, &wrapped.encode(), true)?)
}

/// Unlocks the store with the secrets.
///
/// # Errors
/// `InvalidOption` if no secret fits.
pub(super) fn unlock(
    meta: Table,
    txn: &RoTxn<'_, AnyTls>,
    secrets: &[Secret],
    path: &Path,
) -> Result<Encryption, WriteError> {
    match (meta.get(txn, WRAPPED_KEYS)?, secrets) {
        (None, []) => Ok(Encryption::Off),
        (None, _) => Err(wrong("left out, as the store is not encrypted:", path, "a secret").into()),
        (Some(_), []) => Err(wrong("given, as the store is encrypted:", path, "no secret").into()),
        (Some(bytes), _) => match Keyring::unlock(secrets, &WrappedKeys::decode(bytes)?) {
            Ok(unlocked) => Ok(Encryption::On(Box::new(unlocked.keyring))),
            Err(error) => Err(refusal(error, path).into()),
        },
    }
}

fn refusal(error: UnlockError, path: &Path) -> StoreError {
    match error {
        UnlockError::WrongSecret => {
            wrong("one that the store was encrypted with:", path, "a different secret")
        }
        UnlockError::Store(error) => error,
    }
}

fn wrong(expected: &str, path: &Path, given: &str) -> StoreError {
    StoreError::InvalidOption {
        option: "secret",
        expected: format!("{expected} {}", path.display()),
        given: given.into(),
    }
}

/// The encoded wrapped keys in the file. `None` if the store is not encrypted.
pub(super) fn wrapped_keys<'t>(meta: Table, txn: &'t RoTxn<'_, AnyTls>) -> heed::Result<Option<&'t [u8]>> {
    meta.get(txn, WRAPPED_KEYS)
}

/// Adds the missing wrapped keys of the secrets. Returns whether it changed anything.
pub(super) fn add_missing(
    tables: Tables,
    txn: &mut RwTxn<'_>,
    encryption: &Encryption,
    secrets: &[Secret],
    path: &Path,
) -> Result<bool, WriteError> {
    let Encryption::On(keyring) = encryption else { return Ok(false) };
    let Some(bytes) = wrapped_keys(tables.meta, txn)? else {
        return Err(StoreError::Damaged(format!("{} has lost its wrapped keys", path.display())).into());
    };
    let unlocked = Keyring::unlock(secrets, &WrappedKeys::decode(bytes)?);
    let Some(mut wrapped) = unlocked.map_err(|error| refusal(error, path))?.extended else {
        return Ok(false);
    };
    let mut covers = is_covered(tables.meta, txn, bytes)?;
    let surplus = wrapped.len().saturating_sub(MAX_SECRETS);
    if surplus > 0 {
        let in_use = keys_in_use(tables, txn, encryption)?;
        // The oldest keys come first. Remove unused keys before keys in use.
        wrapped.remove_first(surplus, |id| !keyring.has(id) && !in_use.contains(id));
        let surplus = wrapped.len().saturating_sub(MAX_SECRETS);
        wrapped.remove_first(surplus, |id| !keyring.has(id));
        covers &= in_use.iter().all(|id| wrapped.has(id));
    }
    put(tables.meta, txn, &wrapped.encode(), covers)?;
    Ok(true)
}

/// Removes unused wrapped keys. Returns whether it changed anything.
pub(super) fn drop_unused(
    tables: Tables,
    txn: &mut RwTxn<'_>,
    encryption: &Encryption,
) -> Result<bool, WriteError> {
    let in_use = keys_in_use(tables, txn, encryption)?;
    let Some((bytes, covers)) = without_unused(tables.meta, txn, encryption, &in_use)? else {
        return Ok(false);
    };
    put(tables.meta, txn, &bytes, covers)?;
    Ok(true)
}

/// Whether `drop_unused` would change anything if these keys are in use.
pub(super) fn has_unused(
    meta: Table,
    txn: &RoTxn<'_, AnyTls>,
    encryption: &Encryption,
    in_use: &KeysInUse,
) -> Result<bool, WriteError> {
    Ok(without_unused(meta, txn, encryption, in_use)?.is_some())
}

/// The wrapped keys without unused ones, and whether they cover all records. `None` if the file already says so.
fn without_unused(
    meta: Table,
    txn: &RoTxn<'_, AnyTls>,
    encryption: &Encryption,
    in_use: &KeysInUse,
) -> Result<Option<(Vec<u8>, bool)>, WriteError> {
    let (Encryption::On(keyring), Some(bytes)) = (encryption, wrapped_keys(meta, txn)?) else {
        return Ok(None);
    };
    let mut wrapped = WrappedKeys::decode(bytes)?;
    let current = keyring.current_id();
    if in_use.contains(&current) && wrapped.has(&current) {
        wrapped.remove_first(usize::MAX, |id| !keyring.has(id) && !in_use.contains(id));
    }
    let covers = in_use.iter().all(|id| wrapped.has(id));
    let new = wrapped.encode();
    let is_same = new == bytes && (!covers || is_covered(meta, txn, bytes)?);
    Ok((!is_same).then_some((new, covers)))
}

/// Whether the secrets of this process are known to open every record.
pub(super) fn opens_all(
    meta: Table,
    txn: &RoTxn<'_, AnyTls>,
    encryption: &Encryption,
) -> Result<bool, WriteError> {
    let (Encryption::On(keyring), Some(bytes)) = (encryption, wrapped_keys(meta, txn)?) else {
        return Ok(true);
    };
    let wrapped = WrappedKeys::decode(bytes)?;
    Ok(wrapped.ids().all(|id| keyring.has(id)) && is_covered(meta, txn, bytes)?)
}

/// Reads the key id of every record.
pub(super) fn keys_in_use(
    tables: Tables,
    txn: &RoTxn<'_, AnyTls>,
    encryption: &Encryption,
) -> heed::Result<KeysInUse> {
    let mut in_use = KeysInUse::new();
    for entry in tables.sessions.iter(txn)? {
        let (_, bytes) = entry?;
        in_use.extend(Record::parse(bytes).ok().and_then(|record| encryption.key_id(record)));
    }
    Ok(in_use)
}

fn is_covered(meta: Table, txn: &RoTxn<'_, AnyTls>, wrapped: &[u8]) -> heed::Result<bool> {
    Ok(meta.get(txn, COVERED)? == Some(&Sha256::digest(wrapped)[..]))
}

fn put(meta: Table, txn: &mut RwTxn<'_>, wrapped: &[u8], covers: bool) -> heed::Result<()> {
    meta.put(txn, WRAPPED_KEYS, wrapped)?;
    if covers {
        meta.put(txn, COVERED, &Sha256::digest(wrapped)[..])?;
    }
    Ok(())
}
