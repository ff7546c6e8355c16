//! The databases of the file, and the keys of the indexes.
//!
//! | database | key | value |
//! |---|---|---|
//! | `sessions` | the session's key (see `encryption`) | its record (see `record`) |
//! | `users` | the era of `created`, 16 bytes of the user's tag, the rest of `created` | the session's key |
//! | `expiries` | `indexed_expiry`, `created` | the session's key |
//! | unnamed | `format` | the version of the file format |
//! | unnamed | `seal`, `covered` | the wrapped keys, and their hash (see `secrets`) |
//! | unnamed | `next` | the next `created` |
//! | unnamed | `lifetime` | the limit that the expiry index respects (see `due`) |
//! | unnamed | `log` | the redo log that the store needs (see `redo::format`). Only in formats 2 and 4 |
//!
//! Numbers in keys are big-endian, and signed ones have their sign bit flipped, so that they sort as bytes. The
//! counter is in the unnamed database because each commit writes that page anyway.
//!
//! **Eras**: writing a page costs the disk about the same for one new entry as for many. The users who log in are
//! scattered over the user index. So the index has one part for each era of creations. New entries go to the last
//! part, which contains only about a 128th of the sessions. A lookup of a user reads each part.
//!
//! A part lives as long as its last session. If most sessions are short and some are long, many parts would remain
//! for a few sessions each. So the number of parts is limited: at most `ERAS`, plus one for each doubling of the
//! current era's length. While there are more, the current era continues, until it is twice as long, then four times,
//! and so on. After `n` creations there are at most `ERAS + log2(n / MIN_ERA) + 2` parts. The last part of such a
//! store is larger, which is the price. A session never changes its part, because `created` is in the key and
//! encryption covers it.

use std::cmp::Ordering;

use heed::types::Bytes;
use heed::{AnyTls, Database, Env, RoTxn, RwTxn, WithTls};

use super::encryption::UserTag;
use super::redo::format::LogEntry;
use crate::clock::Millis;

pub(super) type Table = Database<Bytes, Bytes>;

pub(super) const FORMAT: &[u8] = b"format";
pub(super) const WRAPPED_KEYS: &[u8] = b"seal";
pub(super) const COVERED: &[u8] = b"covered";
const NEXT: &[u8] = b"next";
const LOG: &[u8] = b"log";
const LIFETIME: &[u8] = b"lifetime";

/// The version of the file format: of `tables`, `record` and `encryption`.
const VERSION: u32 = 1;
/// Added to the version if the store needs its redo log.
const WITH_LOG: u32 = 1;
/// Added to the version if records may have creation times.
const WITH_CREATION_TIMES: u32 = 2;
/// The newest version that this package can read.
pub(super) const NEWEST_VERSION: u32 = VERSION + WITH_LOG + WITH_CREATION_TIMES;

/// Whether a store of this version needs its redo log.
pub(super) fn needs_log(version: u32) -> bool {
    version.saturating_sub(VERSION) & WITH_LOG != 0
}

const NAMES: [&str; 3] = ["sessions", "users", "expiries"];
pub(super) const TABLES: u32 = NAMES.len() as u32;

/// The `maxLifetime` that the expiry index respects. See `due`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexedLifetime {
    /// In milliseconds.
    pub max: u64,
    /// The transaction that started the scan. 0 after the scan.
    pub scan: u64,
}

impl IndexedLifetime {
    pub(super) fn is_complete(self) -> bool {
        self.scan == 0
    }

    pub(super) fn complete(self) -> Self {
        Self { scan: 0, ..self }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub sessions: Table,
    pub users: Table,
    pub expiries: Table,
    pub meta: Table,
}

impl Tables {
    /// `None` if the tables do not exist. Commit the transaction to keep the tables open.
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

    /// The version of the file format.
    pub(super) fn format(meta: Table, txn: &RoTxn<'_, AnyTls>) -> heed::Result<Option<u32>> {
        let bytes = meta.get(txn, FORMAT)?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes))
    }

    /// The store's entry about its redo log. `None` if the store needs no log.
    pub(super) fn log(&self, txn: &RoTxn<'_, AnyTls>) -> heed::Result<Option<LogEntry>> {
        log_of(self.meta, txn)
    }

    /// Sets or removes the entry about the redo log, and updates the format version. Package versions without a log
    /// must not open a store that needs one.
    pub(super) fn set_log(&self, txn: &mut RwTxn<'_>, log: Option<&LogEntry>) -> heed::Result<()> {
        match log {
            Some(log) => self.meta.put(txn, LOG, &log.encode())?,
            None => _ = self.meta.delete(txn, LOG)?,
        }
        let times = if self.has_creation_times(txn)? { WITH_CREATION_TIMES } else { 0 };
        let version = VERSION + times + if log.is_some() { WITH_LOG } else { 0 };
        self.meta.put(txn, FORMAT, &version.to_le_bytes())
    }

    pub(super) fn indexed_lifetime(&self, txn: &RoTxn<'_, AnyTls>) -> heed::Result<Option<IndexedLifetime>> {
        let bytes: Option<[u8; 16]> = self.meta.get(txn, LIFETIME)?.and_then(|bytes| bytes.try_into().ok());
        Ok(bytes.map(|bytes| {
            let both = u128::from_le_bytes(bytes);
            IndexedLifetime { max: both as u64, scan: (both >> 64) as u64 }
        }))
    }

    pub(super) fn set_indexed_lifetime(
        &self,
        txn: &mut RwTxn<'_>,
        lifetime: IndexedLifetime,
    ) -> heed::Result<()> {
        let both = u128::from(lifetime.max) | u128::from(lifetime.scan) << 64;
        self.meta.put(txn, LIFETIME, &both.to_le_bytes())
    }

    pub(super) fn remove_indexed_lifetime(&self, txn: &mut RwTxn<'_>) -> heed::Result<()> {
        self.meta.delete(txn, LIFETIME).map(drop)
    }

    /// Whether records may have creation times.
    pub(super) fn has_creation_times(&self, txn: &RoTxn<'_, AnyTls>) -> heed::Result<bool> {
        Ok(Self::format(self.meta, txn)?
            .is_some_and(|version| version.saturating_sub(VERSION) & WITH_CREATION_TIMES != 0))
    }

    /// Allows creation times in records. From then on, older package versions must not open the store.
    pub(super) fn enable_creation_times(&self, txn: &mut RwTxn<'_>) -> heed::Result<()> {
        let version = Self::format(self.meta, txn)?.unwrap_or(VERSION);
        let version = VERSION + (version.saturating_sub(VERSION) | WITH_CREATION_TIMES);
        self.meta.put(txn, FORMAT, &version.to_le_bytes())
    }

    /// Sets the next `created`. It never decreases, because two sessions with one number would share an index entry.
    pub(super) fn set_next(&self, txn: &mut RwTxn<'_>, next: u64) -> heed::Result<()> {
        let next = next.max(self.next(txn)?);
        self.meta.put(txn, NEXT, &next.to_le_bytes())
    }
}

/// The store's entry about its redo log.
pub(super) fn log_of(meta: Table, txn: &RoTxn<'_, AnyTls>) -> heed::Result<Option<LogEntry>> {
    Ok(meta.get(txn, LOG)?.and_then(LogEntry::decode))
}

/// The approximate number of eras in a store. A small store has fewer.
const ERAS: u64 = 128;
/// The minimum number of creations in an era.
const MIN_ERA: u64 = if cfg!(test) { 32 } else { 1 << 13 };
/// The upper bits of a `created` are the era, and the lower ones the number within the era.
const ERA_SHIFT: u32 = 40;
const ERA_BYTES: usize = 8 - (ERA_SHIFT / 8) as usize;

/// The next `created` in a store with this many sessions. `eras` counts the eras with entries in the user index, up
/// to a limit.
fn created_after<E>(created: u64, sessions: u64, eras: impl FnOnce(u64) -> Result<u64, E>) -> Result<u64, E> {
    let (era, number) = (created >> ERA_SHIFT, created & ((1 << ERA_SHIFT) - 1));
    let len = number + 1;
    // Eras end only at these lengths, so that most creations do not have to count eras.
    let doublings = if len.is_multiple_of(MIN_ERA) && (len / MIN_ERA).is_power_of_two() {
        u64::from((len / MIN_ERA).trailing_zeros())
    } else {
        return Ok(created + 1);
    };
    let max = ERAS + doublings;
    let ends = len >= sessions / ERAS && eras(max + 1)? <= max;
    Ok(if ends { (era + 1) << ERA_SHIFT } else { created + 1 })
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
    /// The next `created`.
    pub(super) fn created_after(&self, txn: &RoTxn<'_, AnyTls>, created: u64) -> heed::Result<u64> {
        created_after(created, self.sessions.len(txn)?, |limit| self.count_eras(txn, limit))
    }

    /// The next `created` after one in the log. The log has rows of at most `newer` additional sessions. The data
    /// file knows all numbers before `first_in_log`.
    pub(super) fn created_after_logged(
        &self,
        txn: &RoTxn<'_, AnyTls>,
        created: u64,
        newer: u64,
        first_in_log: u64,
    ) -> heed::Result<u64> {
        let begun_in_log = (created >> ERA_SHIFT) - (first_in_log >> ERA_SHIFT).min(created >> ERA_SHIFT);
        created_after(created, self.sessions.len(txn)? + newer, |limit| {
            Ok(self.count_eras(txn, limit)? + begun_in_log)
        })
    }

    /// Counts the eras with entries in the user index, up to a limit.
    pub(super) fn count_eras(&self, txn: &RoTxn<'_, AnyTls>, limit: u64) -> heed::Result<u64> {
        let mut count = 0;
        let mut from = Some(0);
        while let Some(created) = from.filter(|_| count < limit) {
            let entry =
                self.users.get_greater_than_or_equal_to(txn, &user_entry(UserTag::default(), created))?;
            let Some((_, found)) = entry.and_then(|(entry, _)| parts_of(entry)) else { break };
            count += 1;
            from = era_after(found);
        }
        Ok(count)
    }

    /// Calls `visit` with the `created` and the key of each session of a user, oldest first.
    pub(super) fn each_of_user(
        &self,
        txn: &RoTxn<'_, AnyTls>,
        tag: UserTag,
        mut visit: impl FnMut(u64, &[u8]) -> heed::Result<()>,
    ) -> heed::Result<()> {
        let mut from = user_entry(tag, 0);
        loop {
            let Some((entry, key)) = self.users.get_greater_than_or_equal_to(txn, &from)? else {
                return Ok(());
            };
            let Some((found, created)) = parts_of(entry) else { return Ok(()) };
            let next = match found.cmp(&tag) {
                Ordering::Equal => {
                    visit(created, key)?;
                    created.checked_add(1)
                }
                // This part starts with other users.
                Ordering::Less => Some(created >> ERA_SHIFT << ERA_SHIFT),
                Ordering::Greater => era_after(created),
            };
            let Some(next) = next else { return Ok(()) };
            from = user_entry(tag, next);
        }
    }
}

/// The first `created` of the next era.
fn era_after(created: u64) -> Option<u64> {
    ((created >> ERA_SHIFT) + 1).checked_mul(1 << ERA_SHIFT)
}

pub(super) fn expiry_entry(indexed_expiry: Millis, created: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(indexed_expiry ^ Millis::MIN).to_be_bytes());
    key[8..].copy_from_slice(&created.to_be_bytes());
    key
}

/// The `created` of a key of `expiries`.
pub(super) fn created_of(entry: &[u8]) -> Option<u64> {
    entry.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The `indexed_expiry` of a key of `expiries`.
pub(super) fn indexed_expiry_of(entry: &[u8]) -> Option<Millis> {
    entry.first_chunk().map(|bytes| Millis::from_be_bytes(*bytes) ^ Millis::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn after(created: u64, sessions: u64, eras: u64) -> u64 {
        created_after(created, sessions, |limit| Ok::<_, ()>(eras.min(limit))).unwrap()
    }

    #[test]
    fn an_era_ends_when_it_has_its_share_of_all_sessions() {
        assert_eq!(after(0, 0, 1), 1);
        assert_eq!(after(MIN_ERA - 2, 0, 1), MIN_ERA - 1);
        assert_eq!(after(MIN_ERA - 1, ERAS * MIN_ERA, 1), 1 << 40);
        assert_eq!(after((7 << 40) + MIN_ERA - 1, 2 * ERAS * MIN_ERA, 1), (7 << 40) + MIN_ERA);
        assert_eq!(after((7 << 40) + 2 * MIN_ERA - 1, 2 * ERAS * MIN_ERA, 1), 8 << 40);
    }

    #[test]
    fn an_era_continues_while_there_are_too_many() {
        assert_eq!(after(MIN_ERA - 1, 0, ERAS), 1 << 40);
        assert_eq!(after(MIN_ERA - 1, 0, ERAS + 1), MIN_ERA);
        assert_eq!(after(2 * MIN_ERA - 1, 0, ERAS + 1), 1 << 40);
        assert_eq!(after(2 * MIN_ERA - 1, 0, ERAS + 2), 2 * MIN_ERA);
        // At other lengths, eras are not counted.
        assert_eq!(created_after(3 * MIN_ERA - 1, 0, |_| Err(())), Ok(3 * MIN_ERA));
    }

    /// Two years of 100 000 logins a day. One login in a hundred lasts 30 days to a year, and the others last a day.
    /// Scaled down by 256, because `MIN_ERA` is 32 here and not 8192.
    #[test]
    fn years_of_short_and_long_sessions_leave_few_eras() {
        const SCALE: u64 = (1 << 13) / MIN_ERA;
        const PER_DAY: u64 = 100_000 / SCALE;
        let mut ends: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut eras: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut created, mut sessions, mut max, mut begun) = (0, 0, 0, 0);
        for day in 0..730_u64 {
            for era in ends.remove(&day).into_iter().flatten() {
                sessions -= 1;
                let left = eras.get_mut(&era).unwrap();
                *left -= 1;
                if *left == 0 {
                    eras.remove(&era);
                }
            }
            for login in 0..PER_DAY {
                let lasts = if login % 100 == 0 { 30 + (day * 7919 + login * 104_729) % 336 } else { 1 };
                let era = created >> ERA_SHIFT;
                ends.entry(day + lasts).or_default().push(era);
                *eras.entry(era).or_default() += 1;
                sessions += 1;
                created = after(created, sessions, eras.len() as u64);
                begun += u64::from(created >> ERA_SHIFT != era);
                max = max.max(eras.len() as u64);
            }
        }
        let creations = 730 * PER_DAY;
        assert!(max <= ERAS + u64::from((creations / MIN_ERA).ilog2()) + 2, "{max}");
        // The limit was reached, and new eras still start.
        assert!(max > ERAS && begun > ERAS, "{max} {begun}");
    }

    proptest! {
        #[test]
        fn a_user_entry_gives_back_its_parts(tag in any::<[u8; 16]>(), created in any::<u64>()) {
            prop_assert_eq!(parts_of(&user_entry(tag, created)), Some((tag, created)));
        }

        #[test]
        fn entries_sort_by_time_and_then_by_age(one in any::<(i64, u64)>(), other in any::<(i64, u64)>()) {
            let [one_key, other_key] = [one, other].map(|(indexed_expiry, created)| expiry_entry(indexed_expiry, created));
            prop_assert_eq!(one.cmp(&other), one_key.cmp(&other_key));
            prop_assert_eq!((indexed_expiry_of(&one_key), created_of(&one_key)), (Some(one.0), Some(one.1)));
        }
    }
}
