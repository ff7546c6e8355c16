//! The databases of the file, and the keys of the indexes.
//!
//! | database | key | value |
//! |---|---|---|
//! | `sessions` | the session's key (see `vault`) | its record (see `record`) |
//! | `users` | the era of `created`, 16 bytes of the user's tag, the rest of `created` | the session's key |
//! | `expiries` | `filed`, `created` | the session's key |
//! | unnamed | `format`, `seal`, `next` | the version of all this, the seal, the next `created` |
//!
//! Numbers in keys are big-endian and, where signed, with the sign turned, so that their bytes sort as they do. The
//! counter stands in the unnamed database because each commit writes that page anyhow.
//!
//! **Eras**: a disk takes about as long for a page with one new entry as for one with many, and users who log in are
//! anywhere in an index by user. So it has parts, one for each era of creations, of which the last takes all that is
//! new: a 128th of the sessions at most, and few pages. Who looks for a user looks into each part.

use std::cmp::Ordering;

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

/// How many eras a store has at a time, about; fewer if it is small.
const ERAS: u64 = 128;
const MIN_ERA: u64 = if cfg!(test) { 32 } else { 1 << 13 };
/// Below the era in a `created` stands the number within it.
const ERA_SHIFT: u32 = 40;
const ERA_BYTES: usize = 8 - (ERA_SHIFT / 8) as usize;

/// What comes after a `created`, in a store of so many sessions.
pub(super) fn created_after(created: u64, sessions: u64) -> u64 {
    let (era, number) = (created >> ERA_SHIFT, created & ((1 << ERA_SHIFT) - 1));
    if number + 1 >= MIN_ERA.max(sessions / ERAS) { (era + 1) << ERA_SHIFT } else { created + 1 }
}

/// A key of `users`.
pub(super) type UserEntry = [u8; 24];

pub(super) fn user_entry(tag: UserTag, created: u64) -> UserEntry {
    let mut key = [0; 24];
    let (era, number) = key.split_at_mut(ERA_BYTES);
    let (of_tag, number) = number.split_at_mut(tag.len());
    let created = created.to_be_bytes();
    era.copy_from_slice(&created[..ERA_BYTES]);
    of_tag.copy_from_slice(&tag);
    number.copy_from_slice(&created[ERA_BYTES..]);
    key
}

/// The tag and the `created` of a key of `users`.
fn parts_of(entry: &[u8]) -> Option<(UserTag, u64)> {
    let (era, rest) = entry.split_at_checked(ERA_BYTES)?;
    let (tag, number) = rest.split_first_chunk()?;
    let mut created = [0; 8];
    created[..ERA_BYTES].copy_from_slice(era);
    created.get_mut(ERA_BYTES..)?.copy_from_slice(number.get(..8 - ERA_BYTES)?);
    Some((*tag, u64::from_be_bytes(created)))
}

impl Tables {
    /// Calls `see` with the `created` and the key of each session of a user, oldest first.
    pub(super) fn each_of_user(
        &self,
        txn: &RoTxn<'_, AnyTls>,
        tag: UserTag,
        mut see: impl FnMut(u64, &[u8]) -> heed::Result<()>,
    ) -> heed::Result<()> {
        let mut from = user_entry(tag, 0);
        loop {
            let Some((entry, key)) = self.users.get_greater_than_or_equal_to(txn, &from)? else {
                return Ok(());
            };
            let Some((found, created)) = parts_of(entry) else { return Ok(()) };
            let next = match found.cmp(&tag) {
                Ordering::Equal => {
                    see(created, key)?;
                    created.checked_add(1)
                }
                // The part begins with users before this one.
                Ordering::Less => Some(created >> ERA_SHIFT << ERA_SHIFT),
                Ordering::Greater => ((created >> ERA_SHIFT) + 1).checked_mul(1 << ERA_SHIFT),
            };
            let Some(next) = next else { return Ok(()) };
            from = user_entry(tag, next);
        }
    }
}

pub(super) fn expiry_entry(filed: Millis, created: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(filed ^ Millis::MIN).to_be_bytes());
    key[8..].copy_from_slice(&created.to_be_bytes());
    key
}

/// The `created` at the end of a key of `expiries`.
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

    #[test]
    fn an_era_ends_when_it_has_its_share_of_the_sessions() {
        assert_eq!(created_after(0, 0), 1);
        assert_eq!(created_after(MIN_ERA - 2, 0), MIN_ERA - 1);
        assert_eq!(created_after(MIN_ERA - 1, ERAS * MIN_ERA), 1 << 40);
        assert_eq!(created_after((7 << 40) + MIN_ERA - 1, 2 * ERAS * MIN_ERA), (7 << 40) + MIN_ERA);
        assert_eq!(created_after((7 << 40) + 2 * MIN_ERA - 1, 2 * ERAS * MIN_ERA), 8 << 40);
    }

    proptest! {
        #[test]
        fn a_user_entry_gives_back_its_parts(tag in any::<[u8; 16]>(), created in any::<u64>()) {
            prop_assert_eq!(parts_of(&user_entry(tag, created)), Some((tag, created)));
        }

        #[test]
        fn entries_sort_by_time_and_then_by_age(one in any::<(i64, u64)>(), other in any::<(i64, u64)>()) {
            let [one_key, other_key] = [one, other].map(|(filed, created)| expiry_entry(filed, created));
            prop_assert_eq!(one.cmp(&other), one_key.cmp(&other_key));
            prop_assert_eq!((filed_of(&one_key), created_of(&one_key)), (Some(one.0), Some(one.1)));
        }
    }
}
