//! The databases of the file, and the keys of the indexes.
//!
//! | database | key | value |
//! |---|---|---|
//! | `sessions` | the session's key (see `vault`) | its record (see `record`) |
//! | `users` | 16 bytes of the user's tag, `created` | the session's key |
//! | `expiries` | `filed`, `created` | the session's key |
//! | unnamed | `format`, `seal`, `next` | the version of all this, the seal, the next `created` |
//!
//! Numbers in keys are big-endian and, where signed, with the sign turned, so that their bytes sort as they do. The
//! counter stands in the unnamed database because each commit writes that page anyhow.

use heed::types::Bytes;
use heed::{AnyTls, Database, Env, RoTxn, RwTxn, WithTls};

use super::vault::UserTag;
use crate::clock::Millis;

pub(super) type Table = Database<Bytes, Bytes>;

pub(super) const FORMAT: &[u8] = b"format";
pub(super) const SEAL: &[u8] = b"seal";
const NEXT: &[u8] = b"next";

const NAMES: [&str; 3] = ["sessions", "users", "expiries"];
pub(super) const TABLES: u32 = NAMES.len() as u32;

#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub sessions: Table,
    pub users: Table,
    pub expiries: Table,
    pub meta: Table,
}

impl Tables {
    /// `None` where they are not there yet. The transaction must then be committed for the tables to stay open.
    pub(super) fn open(env: &Env<WithTls>, txn: &RoTxn<'_, WithTls>) -> heed::Result<Option<Self>> {
        let [sessions, users, expiries] = NAMES.map(|name| env.open_database(txn, Some(name)));
        let Some(meta) = env.open_database(txn, None)? else { return Ok(None) };
        let (Some(sessions), Some(users), Some(expiries)) = (sessions?, users?, expiries?) else {
            return Ok(None);
        };
        Ok(Some(Self { sessions, users, expiries, meta }))
    }

    pub(super) fn create(env: &Env<WithTls>, txn: &mut RwTxn<'_>) -> heed::Result<Self> {
        let mut create = |name| env.create_database(txn, name);
        Ok(Self {
            sessions: create(Some(NAMES[0]))?,
            users: create(Some(NAMES[1]))?,
            expiries: create(Some(NAMES[2]))?,
            meta: create(None)?,
        })
    }

    /// The next `created`.
    pub(super) fn next(&self, txn: &RoTxn<'_, AnyTls>) -> heed::Result<u64> {
        let bytes = self.meta.get(txn, NEXT)?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    pub(super) fn set_next(&self, txn: &mut RwTxn<'_>, next: u64) -> heed::Result<()> {
        self.meta.put(txn, NEXT, &next.to_le_bytes())
    }
}

pub(super) fn user_entry(tag: UserTag, created: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&tag);
    key[16..].copy_from_slice(&created.to_be_bytes());
    key
}

pub(super) fn expiry_entry(filed: Millis, created: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(filed ^ Millis::MIN).to_be_bytes());
    key[8..].copy_from_slice(&created.to_be_bytes());
    key
}

/// The `created` at the end of an index's key.
pub(super) fn created_of(entry: &[u8]) -> Option<u64> {
    entry.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The `filed` at the beginning of a key of `expiries`.
pub(super) fn filed_of(entry: &[u8]) -> Option<Millis> {
    entry.first_chunk().map(|bytes| Millis::from_be_bytes(*bytes) ^ Millis::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_sort_by_time_and_then_by_age(one in any::<(i64, u64)>(), other in any::<(i64, u64)>()) {
            let [one_key, other_key] = [one, other].map(|(filed, created)| expiry_entry(filed, created));
            prop_assert_eq!(one.cmp(&other), one_key.cmp(&other_key));
            prop_assert_eq!((filed_of(&one_key), created_of(&one_key)), (Some(one.0), Some(one.1)));
        }
    }
}
