//! The page estimate: the maximum number of pages that writes need.
//!
//! LMDB never overwrites a page in use. A change needs a new page for each page that it touches, and frees the old
//! ones later. Sessions are scattered over the pages, so ending a hundred sessions may first need a few hundred
//! pages.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use heed::{AnyTls, DatabaseStat, RoTxn};

use super::apply::Write;
use super::encryption::{Encryption, UserTag};
use super::record::Record;
use super::tables::Tables;
use crate::lifetime::Lifetime;

/// Pages of the unnamed table and of the freelist.
const SPARE_PAGES: u64 = 6;

/// Page numbers in one page of the freelist.
const FREELIST_ENTRIES: u64 = 500;

/// The maximum bytes of a key, with the headers of its node. A record gets its own pages if two such records and
/// their keys do not fit into a leaf.
const MAX_KEY_BYTES: u64 = 300;

/// The page counts of all tables.
pub(super) struct Trees {
    tables: [DatabaseStat; 3],
    unnamed: DatabaseStat,
}

impl Trees {
    pub(super) fn read(tables: Tables, txn: &RoTxn<'_, AnyTls>) -> heed::Result<Self> {
        let Tables { sessions, users, expiries, meta } = tables;
        Ok(Self {
            tables: [sessions.stat(txn)?, users.stat(txn)?, expiries.stat(txn)?],
            unnamed: meta.stat(txn)?,
        })
    }

    /// The pages of sessions and indexes.
    pub(super) fn pages(&self) -> u64 {
        self.tables.iter().map(pages_of).sum()
    }

    /// The pages of all tables.
    pub(super) fn all_pages(&self) -> u64 {
        self.pages() + pages_of(&self.unnamed)
    }

    /// The pages that change if each table gets this many entries, without the room for the entries themselves.
    fn touched(&self, entries: u64) -> u64 {
        let of_table = |stat: &DatabaseStat| {
            let levels = u64::from(stat.depth).saturating_sub(1);
            let leaves = entries.min(stat.leaf_pages as u64);
            // A nearly empty or full leaf also changes its neighbour.
            let neighbours = 1 + entries / 4;
            leaves + (entries * levels).min(stat.branch_pages as u64) + neighbours.min(leaves + 1)
        };
        self.tables.iter().map(of_table).sum()
    }
}

fn pages_of(stat: &DatabaseStat) -> u64 {
    (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64
}

/// The pages that a transaction needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PageEstimate {
    pub singles: u64,
    /// Lengths of runs of adjacent pages, for large records.
    pub runs: Vec<u64>,
}

impl PageEstimate {
    pub(super) fn sum(&self) -> u64 {
        self.singles + self.runs.iter().sum::<u64>()
    }
}

/// Estimates pages for the store at the start of a transaction.
pub(super) struct PageEstimator<'c> {
    pub tables: Tables,
    pub txn: &'c RoTxn<'c, AnyTls>,
    pub encryption: &'c Encryption,
    pub trees: &'c Trees,
    pub page_size: u64,
    /// The number of free pages.
    pub free: u64,
    /// The limit above which a new session ends another one of its user.
    pub max_per_user: Option<NonZeroUsize>,
    pub lifetime: Lifetime,
}

/// Entries and bytes, before they are converted to pages.
#[derive(Default)]
struct Count {
    entries: u64,
    /// Bytes of new records that share pages.
    bytes: u64,
    runs: Vec<u64>,
    /// The users whose surplus sessions were counted.
    users: HashSet<UserTag>,
}

impl PageEstimator<'_> {
    /// The pages of the smallest transaction that ends a session.
    pub(super) fn smallest(&self) -> u64 {
        self.pages(Count { entries: 1, ..Count::default() }).sum()
    }

    /// The pages that the writes need. If `exact`, also reads the records that will be rewritten or ended. Otherwise,
    /// the caller must have checked that there is room to rewrite every page.
    pub(super) fn of(&self, writes: &[&Write], exact: bool) -> heed::Result<PageEstimate> {
        let mut count = Count::default();
        for write in writes {
            self.add(write, exact, &mut count)?;
        }
        Ok(self.pages(count))
    }

    fn pages(&self, count: Count) -> PageEstimate {
        let Count { entries, bytes, mut runs, .. } = count;
        let mut singles = self.trees.touched(entries) + bytes.div_ceil(self.page_size) + SPARE_PAGES;
        singles += runs.extract_if(.., |run| *run == 1).count() as u64;
        // The part of the freelist that LMDB reads is rewritten too.
        singles += (self.free + singles + runs.iter().sum::<u64>()) / FREELIST_ENTRIES;
        PageEstimate { singles, runs }
    }

    fn add(&self, write: &Write, exact: bool, count: &mut Count) -> heed::Result<()> {
        match write {
            Write::Create(record) | Write::Update(record) => {
                count.entries += 1;
                if exact && let (Some(user), Some(max)) = (record.user(), self.max_per_user) {
                    count.entries += self.surplus(self.encryption.tag(user), max, count)?;
                }
                self.add_record(write.record_bytes(), count, write.growth());
            }
            Write::Touch { id, .. } => {
                count.entries += 1;
                if exact && let Some(bytes) = self.tables.sessions.get(self.txn, &self.encryption.key(id))? {
                    let has_time = |record: Record<'_>| record.header.created_at.is_some();
                    let growth = if Record::parse(bytes).is_ok_and(has_time) { 0 } else { write.growth() };
                    self.add_record(bytes.len() + growth, count, growth);
                }
            }
            Write::DeleteByUser { user, max, .. } => {
                count.entries += self.sessions_of(self.encryption.tag(user.as_key()))?.min(*max as u64);
            }
            Write::Sweep { due, now } => {
                count.entries += due.len() as u64;
                for (_, key) in due.iter().filter(|_| exact) {
                    // The record of a live session is rewritten, and its entry moves to another page of the expiry
                    // index.
                    let is_live = |record: Record<'_>| !record.header.end(self.lifetime).is_past(*now);
                    if let Some(bytes) = self.tables.sessions.get(self.txn, key)?
                        && Record::parse(bytes).is_ok_and(is_live)
                    {
                        count.entries += 1;
                        self.add_record(bytes.len(), count, 0);
                    }
                }
            }
            Write::Delete { .. } | Write::DropUnusedKeys => count.entries += 1,
            Write::Clear => {
                count.entries += 1;
                count.runs.push(self.trees.all_pages() / FREELIST_ENTRIES + 1);
            }
        }
        Ok(())
    }

    /// The maximum number of sessions that a new one ends. It is large if `maxSessionsPerUser` was lowered. The first
    /// new session in a transaction ends the surplus, and each later one ends one session.
    fn surplus(&self, user: UserTag, max: NonZeroUsize, count: &mut Count) -> heed::Result<u64> {
        if !count.users.insert(user) {
            return Ok(1);
        }
        Ok((self.sessions_of(user)? + 1).saturating_sub(max.get() as u64))
    }

    fn sessions_of(&self, user: UserTag) -> heed::Result<u64> {
        let mut sessions = 0;
        self.tables.each_of_user(self.txn, user, |_, _| {
            sessions += 1;
            Ok(())
        })?;
        Ok(sessions)
    }

    /// Counts a written record. It has its own pages, or is in a shared page that grows by at most `growth` bytes.
    fn add_record(&self, bytes: usize, count: &mut Count, growth: usize) {
        const PAGE_HEAD: u64 = 16;
        let bytes = bytes as u64;
        if bytes + MAX_KEY_BYTES > self.page_size / 2 {
            count.runs.push((bytes + PAGE_HEAD).div_ceil(self.page_size));
        } else {
            // Splitting a page leaves two half-full pages.
            count.bytes += (growth + growth / 2) as u64;
        }
    }
}
