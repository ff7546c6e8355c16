//! Walks over all that a store has in Redis, on every primary, and what is found by them.
//!
//! `SCAN` gives what is there all the time at least once, so that a walk keeps in mind what it has seen: a hash of
//! each, of so many bits that two do not meet. Its cursors are of one connection: after another server has taken over,
//! or slots have moved, it begins again with what it has not seen.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use super::core::{Call, Core, Kind};
use super::errors;
use super::index::{AT_ONCE, unless_foreign};
use super::options::Address;
use super::record::{self, Record};
use super::resp::{Reply, Request, number as text};
use super::topology::Node;
use super::vault::pattern;
use crate::error::Result;
use crate::session::SessionId;
use crate::store::{Cursor, Stats};

/// How many keys a server looks at in one step.
const STEP: i64 = 1000;

/// How many scans of the ids may be under way. Beyond that the one that has rested longest is forgotten: it starts again,
/// and may repeat ids. One that was given up takes some 32 KiB until then.
const MAX_WALKS: usize = 256;

/// How many sessions are weighed for `stats`.
const SAMPLE: usize = 16;

/// A walk over the keys that begin alike.
pub(super) struct Walk {
    start: Vec<u8>,
    seen: HashSet<[u64; 2]>,
    hashers: [foldhash::quality::RandomState; 2],
    /// The servers that are done, and the state of the map by which they were found.
    done: Vec<Address>,
    version: Option<u64>,
    /// The server under way: its connection, and its cursor.
    now: Option<(Address, u64, Vec<u8>)>,
}

impl Walk {
    pub(super) fn new(start: &[u8]) -> Self {
        Self {
            start: start.to_vec(),
            seen: HashSet::new(),
            hashers: Default::default(),
            done: Vec::new(),
            version: None,
            now: None,
        }
    }

    fn is_new(&mut self, key: &[u8]) -> bool {
        self.seen.insert([self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)])
    }
}

/// The walks over the ids that are under way, by numbers that cursors hold.
#[derive(Default)]
pub(super) struct Walks {
    last: u64,
    /// The one that has rested longest comes first.
    walks: Vec<(u64, Walk)>,
}

impl Walks {
    fn take(&mut self, cursor: &Cursor, start: &[u8]) -> (u64, Walk) {
        let number = cursor.as_bytes().try_into().ok().map(u64::from_le_bytes);
        let at = number.and_then(|number| self.walks.iter().position(|(other, _)| *other == number));
        match at {
            Some(at) => self.walks.remove(at),
            None => {
                self.last += 1;
                (self.last, Walk::new(start))
            }
        }
    }

    fn keep(&mut self, number: u64, walk: Walk) {
        if self.walks.len() == MAX_WALKS {
            self.walks.remove(0);
        }
        self.walks.push((number, walk));
    }
}

impl Core {
    /// The next keys of a walk, each of which is given once; `None` at the end.
    pub(super) async fn walk_on(&self, call: &Call, walk: &mut Walk) -> Result<Option<Vec<Vec<u8>>>> {
        self.topology.known().await;
        let Some(node) = self.next_server(walk) else { return Ok(None) };
        self.topology.links_of(&node).await;
        let generation = node.generation();
        let cursor = match &walk.now {
            Some((_, known, cursor)) if *known == generation => cursor.clone(),
            _ => b"0".to_vec(),
        };
        let (pattern, count) = (pattern(&walk.start), text(STEP));
        let make =
            |mode| Request::read(mode).command(&[b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", &count]);
        let reply = self.ask_node(call, &node, make).await?;
        // A server that came back while it was asked has begun at a cursor of its past: once more from the start.
        if node.generation() != generation {
            walk.now = Some((node.address(), 0, b"0".to_vec()));
            return Ok(Some(Vec::new()));
        }
        let Reply::Array(parts) = reply else { return Err(errors::unexpected()) };
        let [Reply::Bytes(next), Reply::Array(keys)] = &parts[..] else {
            return Err(errors::unexpected());
        };
        let keys = keys.iter().filter_map(|key| match key {
            Reply::Bytes(key) if walk.is_new(key) => Some(key.clone()),
            _ => None,
        });
        let keys = keys.collect();
        if next == b"0" {
            walk.done.push(node.address());
            walk.now = None;
        } else {
            walk.now = Some((node.address(), generation, next.clone()));
        }
        Ok(Some(keys))
    }

    /// The server with which a walk goes on; `None` at its end.
    fn next_server(&self, walk: &mut Walk) -> Option<Rc<Node>> {
        let (primaries, version) = (self.topology.all_primaries(), self.topology.version());
        if let Some((address, ..)) = &walk.now
            && let Some(node) = primaries.iter().find(|node| node.address() == *address)
        {
            return Some(Rc::clone(node));
        }
        walk.now = None;
        // Sessions may have gone where the walk has been.
        if walk.version.is_some_and(|known| known != version) {
            walk.done.clear();
        }
        walk.version = Some(version);
        let node = primaries.into_iter().find(|node| !walk.done.contains(&node.address()))?;
        walk.now = Some((node.address(), 0, b"0".to_vec()));
        Some(node)
    }

    /// The live ones of some sessions, given by their keys.
    async fn live_ids(&self, call: &Call, keys: &[Vec<u8>]) -> Result<Vec<SessionId>> {
        let vault = self.vault(call).await?;
        let now = self.times.now();
        // What is sealed tells its id only as a whole.
        let last = text(if vault.is_open() { record::USER_AT as i64 - 1 } else { -1 });
        let mut ids = Vec::new();
        for some in keys.chunks(AT_ONCE) {
            let heads = join_all(some.iter().map(async |key| {
                let make = |mode| Request::read(mode).command(&[b"GETRANGE", key, b"0", &last]);
                self.ask(call, key, Kind::Aside, make).await
            }));
            for (key, head) in some.iter().zip(heads.await) {
                let head = head?;
                // One that cannot be read has no id to give; the others have.
                let Some(Reply::Bytes(head)) = head.first() else { continue };
                if record::times(head).is_ok_and(|(expires, _)| !expires.is_past(now)) {
                    let member = &key[self.names.sessions.len()..];
                    let id = if vault.is_open() {
                        vault.id_of(member).ok()
                    } else {
                        let opened = Record::parse(head).and_then(|record| vault.open(member, record));
                        opened.ok().flatten().map(|session| session.id)
                    };
                    ids.extend(id);
                }
            }
        }
        Ok(ids)
    }

    pub(super) async fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        let (number, mut walk) = self.walks.borrow_mut().take(&after, &self.names.sessions);
        let page = self
            .step(async |call| {
                let Some(keys) = self.walk_on(call, &mut walk).await? else { return Ok(None) };
                Ok(Some(self.live_ids(call, &keys).await?))
            })
            .await?;
        let Some(ids) = page else { return Ok((Vec::new(), None)) };
        self.walks.borrow_mut().keep(number, walk);
        Ok((ids, Some(Cursor::from_bytes(&number.to_le_bytes()))))
    }

    pub(super) async fn size(&self) -> Result<u64> {
        let mut live = 0;
        let mut walk = Walk::new(&self.names.sessions);
        while let Some(keys) = self.step(async |call| self.walk_on(call, &mut walk).await).await? {
            live += self.step(async |call| self.count_live(call, &keys).await).await?;
        }
        Ok(live)
    }

    async fn count_live(&self, call: &Call, keys: &[Vec<u8>]) -> Result<u64> {
        let (now, last) = (self.times.now(), text(record::USER_AT as i64 - 1));
        let mut live = 0;
        for some in keys.chunks(AT_ONCE) {
            let heads = join_all(some.iter().map(async |key| {
                let make = |mode| Request::read(mode).command(&[b"GETRANGE", key, b"0", &last]);
                self.ask(call, key, Kind::Aside, make).await
            }));
            for head in heads.await {
                if let Some(Reply::Bytes(head)) = head?.first()
                    && record::times(head).is_ok_and(|(expires, _)| !expires.is_past(now))
                {
                    live += 1;
                }
            }
        }
        Ok(live)
    }

    /// Removes all sessions, and then the entries of those: not those of creations under way.
    pub(super) async fn clear(&self) -> Result<()> {
        let oldest = text(self.oldest_of_creations_under_way() as i64);
        let mut is_begun = false;
        let mut sessions = Walk::new(&self.names.sessions);
        while let Some(keys) =
            self.step_of(&mut is_begun, async |call| self.walk_on(call, &mut sessions).await).await?
        {
            let unlink = async |call: &Call| {
                for some in keys.chunks(AT_ONCE) {
                    let removed = join_all(some.iter().map(async |key| {
                        let make = |mode| Request::write(mode).command(&[b"UNLINK", key]);
                        self.get_one(call, key, Kind::Repeatable, make).await
                    }));
                    removed.await.into_iter().try_for_each(|removed| removed.map(drop))?;
                }
                Ok(())
            };
            self.step_of(&mut is_begun, unlink).await?;
        }
        let mut indexes = Walk::new(&self.names.users);
        while let Some(keys) =
            self.step_of(&mut is_begun, async |call| self.walk_on(call, &mut indexes).await).await?
        {
            let tidy = async |call: &Call| {
                for some in keys.chunks(AT_ONCE) {
                    let tidied = join_all(some.iter().map(async |key| {
                        let args: [&[u8]; 4] = [b"ZREMRANGEBYSCORE", key, b"-inf", &oldest];
                        let make = |mode| Request::write(mode).command(&args);
                        self.get_one(call, key, Kind::Aside, make).await
                    }));
                    for tidied in tidied.await {
                        unless_foreign(tidied, Reply::Nil)?;
                    }
                }
                Ok(())
            };
            self.step_of(&mut is_begun, tidy).await?;
        }
        Ok(())
    }

    pub(super) async fn stats(&self) -> Result<Stats> {
        let (mut sessions, mut sample) = (0, Vec::new());
        let mut walk = Walk::new(&self.names.sessions);
        while let Some(keys) = self.step(async |call| self.walk_on(call, &mut walk).await).await? {
            sessions += keys.len() as u64;
            sample.extend(keys.into_iter().take(SAMPLE - sample.len().min(SAMPLE)));
        }
        let weighed = self
            .step(async |call| {
                let weights = join_all(sample.iter().map(async |key| {
                    let make = |mode| Request::read(mode).command(&[b"MEMORY", b"USAGE", key]);
                    self.ask(call, key, Kind::Aside, make).await
                }));
                let mut weighed = Vec::new();
                for weight in weights.await {
                    // Not every user may ask for it, and a session may be gone.
                    if let Some(Reply::Number(bytes)) = weight?.first() {
                        weighed.push(u64::try_from(*bytes).unwrap_or(0));
                    }
                }
                Ok(weighed)
            })
            .await?;
        let bytes = match weighed.len() as u64 {
            0 => 0,
            number => weighed.iter().sum::<u64>() * sessions / number,
        };
        let counters = &self.shared.counters;
        Ok(Stats {
            sessions,
            bytes,
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            created: counters.created.load(Ordering::Relaxed),
            expired: counters.expired.load(Ordering::Relaxed),
            evicted: counters.evicted.load(Ordering::Relaxed),
            last_sweep: *counters.last_sweep.lock(),
            log: None,
        })
    }
}
