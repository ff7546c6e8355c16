//! The order of eviction against a plain list of sessions. Few shards have many sessions each, so that scans take some of
//! them and the store evicts from the rest.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::core::MemoryStore;
use super::limits::Limits;
use crate::clock::{Clock, Millis};
use crate::error::StoreError;
use crate::session::{Expiry, Session, UserKeyBuf};
use crate::store::conformance::{Bench, id, json};
use crate::store::{Cursor, SessionStore};

const IDS: usize = 400;
const USERS: usize = 9;

#[derive(Debug, Clone)]
enum Op {
    Create { id: usize, user: Option<usize>, lives_for: Millis, len: usize },
    Update { id: usize, user: Option<usize>, lives_for: Millis, len: usize },
    Get { id: usize },
    Touch { id: usize, lives_for: Millis },
    Prolong { id: usize, lives_for: Millis, enough: Millis },
    Delete { id: usize },
    DeleteByUser { user: usize },
    Clean,
    Wait { millis: Millis },
}

fn op() -> impl Strategy<Value = Op> {
    // Some are used much more often than others.
    let id = prop_oneof![1 => 0..IDS / 8, 1 => 0..IDS];
    let user = proptest::option::weighted(0.7, 0..USERS);
    let lives_for = prop_oneof![1 => -5..400_i64, 3 => Just(1000_i64), 2 => 1000..5000_i64];
    let len = prop_oneof![4 => Just(0_usize), 1 => 1..700_usize];
    let content = (id.clone(), user, lives_for.clone(), len);
    prop_oneof![
        40 => content.clone().prop_map(|(id, user, lives_for, len)| Op::Create { id, user, lives_for, len }),
        10 => content.prop_map(|(id, user, lives_for, len)| Op::Update { id, user, lives_for, len }),
        30 => id.clone().prop_map(|id| Op::Get { id }),
        10 => (id.clone(), lives_for.clone()).prop_map(|(id, lives_for)| Op::Touch { id, lives_for }),
        5 => (id.clone(), lives_for.clone(), lives_for)
            .prop_map(|(id, lives_for, enough)| Op::Prolong { id, lives_for, enough }),
        8 => id.prop_map(|id| Op::Delete { id }),
        1 => (0..USERS).prop_map(|user| Op::DeleteByUser { user }),
        1 => Just(Op::Clean),
        12 => (1..60_i64).prop_map(|millis| Op::Wait { millis }),
    ]
}

struct Known {
    id: usize,
    user: Option<usize>,
    expires: Millis,
}

/// The live sessions, the least recently used first.
#[derive(Default)]
struct Model(Vec<Known>);

impl Model {
    fn position(&self, id: usize) -> Option<usize> {
        self.0.iter().position(|known| known.id == id)
    }

    /// Makes a session the most recently used one.
    fn used(&mut self, id: usize) -> Option<&mut Known> {
        let known = self.0.remove(self.position(id)?);
        self.0.push(known);
        self.0.last_mut()
    }

    /// Ends the first sessions in the order of eviction, except one. The stable sort keeps the order of the uses, which
    /// matters only among the sessions with a user and among those without.
    fn evict(&mut self, count: usize, kept: usize) -> Vec<Known> {
        self.0.sort_by_key(|known| (known.id == kept, known.user.is_some()));
        self.0.drain(..count).collect()
    }
}

fn live(store: &MemoryStore) -> BTreeSet<String> {
    let (mut ids, mut cursor) = (BTreeSet::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        let (some, next) = store.ids(at).unwrap();
        ids.extend(some.iter().map(ToString::to_string));
        cursor = next;
    }
    ids
}

fn text_id(id: usize) -> String {
    format!("{id:04}")
}

fn user_key(user: usize) -> UserKeyBuf {
    UserKeyBuf::from_text(&format!("user {user}"))
}

fn store(bench: &Bench<MemoryStore>, model: &mut Model, op: &Op) {
    let (&Op::Create { id, user, lives_for, len } | &Op::Update { id, user, lives_for, len }) = op else {
        return;
    };
    let (key, text) = (user.map(user_key), format!("{{\"pad\":\"{}\"}}", "x".repeat(len)));
    let session: Session<'_> = json(&text_id(id), key.as_ref(), &text, bench.in_millis(lives_for));
    let is_update = matches!(op, Op::Update { .. });
    let old = model.position(id);
    let stored =
        if is_update { bench.store.update(&session) } else { bench.store.create(&session).map(|()| true) };
    match stored {
        Ok(true) => assert_eq!(old.is_some(), is_update),
        Ok(false) => return assert!(is_update && old.is_none()),
        Err(StoreError::Exists) => return assert!(!is_update && old.is_some()),
        Err(error) => {
            assert_eq!((error.code(), user), ("ERR_STORE_FULL", None));
            assert!(model.0.iter().any(|known| known.user.is_some()));
            let is_full_of_users = model.0.iter().all(|known| known.user.is_some());
            return assert!(bench.store.limits().max_sessions.is_none() || is_full_of_users);
        }
    }
    let left = live(&bench.store);
    let gone = model.0.iter().filter(|known| known.id != id && !left.contains(&text_id(known.id))).count();
    if let Some(max) = bench.store.limits().max_sessions {
        let others = model.0.iter().filter(|known| known.id != id).count();
        assert_eq!(gone, if lives_for > 0 { (others + 1).saturating_sub(max.get()) } else { 0 });
    }
    let gone = model.evict(gone, id);
    assert!(
        user.is_some() || gone.iter().all(|known| known.user.is_none()),
        "a visitor ends no session of a user"
    );
    assert!(lives_for > 0 || gone.is_empty(), "an expired session ends no live one");
    model.0.retain(|known| known.id != id);
    if lives_for > 0 {
        model.0.push(Known { id, user, expires: bench.clock.now() + lives_for });
    }
}

fn apply(bench: &Bench<MemoryStore>, model: &mut Model, op: &Op) {
    let now = bench.clock.now();
    match *op {
        Op::Create { .. } | Op::Update { .. } => store(bench, model, op),
        Op::Get { id: number } => {
            let found = bench.store.get(&id(&text_id(number))).unwrap();
            assert_eq!(found.is_some(), model.used(number).is_some());
        }
        Op::Touch { id: number, lives_for } => {
            let expires = Expiry::moved_to(now + lives_for).unwrap();
            let touched = bench.store.touch(&id(&text_id(number)), expires).unwrap();
            let known = model.used(number);
            assert_eq!(touched, known.is_some());
            known.into_iter().for_each(|known| known.expires = expires.millis());
        }
        Op::Prolong { id: number, lives_for, enough } => {
            let expires = Expiry::moved_to(now + lives_for).unwrap();
            let found = bench.store.prolong(&id(&text_id(number)), expires, now + enough).unwrap();
            let known = model.used(number);
            assert_eq!(found, known.is_some());
            let moved = known.filter(|known| known.expires < now + enough);
            moved.into_iter().for_each(|known| known.expires = expires.millis());
        }
        Op::Delete { id: number } => {
            bench.store.delete(&id(&text_id(number))).unwrap();
            model.0.retain(|known| known.id != number);
        }
        Op::DeleteByUser { user } => {
            let ended = bench.store.delete_by_user(user_key(user).as_key(), None).unwrap();
            let before = model.0.len();
            model.0.retain(|known| known.user != Some(user));
            assert_eq!(ended as usize, before - model.0.len());
        }
        Op::Clean => {
            bench.store.clean().unwrap();
            assert_eq!(bench.store.stats().unwrap().sessions, Some(model.0.len() as u64));
        }
        Op::Wait { millis } => {
            bench.clock.advance(millis);
        }
    }
    model.0.retain(|known| known.expires > bench.clock.now());
}

/// Runs operations, and compares which sessions are left after each.
fn check(limits: Limits, shards: usize, ops: &[Op]) {
    let bench = Bench::new(|clock| MemoryStore::with_shards(limits, clock, shards));
    let mut model = Model::default();
    let mut bytes = 0;
    for op in ops {
        apply(&bench, &mut model, op);
        let expected: BTreeSet<String> = model.0.iter().map(|known| text_id(known.id)).collect();
        assert_eq!(live(&bench.store), expected, "after {op:?}");
        assert_eq!(bench.store.size(), Ok(expected.len() as u64));
        let stats = bench.store.stats().unwrap();
        assert!(limits.max_sessions.is_none_or(|max| stats.sessions <= Some(max.get() as u64)));
        // A session without a user ends none of users, even if it takes a chunk more than planned.
        let is_anonymous = matches!(op, Op::Create { user: None, .. } | Op::Update { user: None, .. });
        let before = std::mem::replace(&mut bytes, stats.bytes.unwrap());
        let max = limits.max_bytes.map_or(u64::MAX, |max| max.get() as u64);
        assert!(bytes <= max.max(before) || is_anonymous, "{bytes} bytes of {max} after {op:?}");
    }
    assert_eq!(bench.store.clean().unwrap(), bench.store.stats().unwrap().last_sweep.unwrap().removed);
    bench.store.clear().unwrap();
    let stats = bench.store.stats().unwrap();
    assert_eq!((stats.sessions, stats.bytes), (Some(0), Some(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_full_store_evicts_as_a_list_does(
        max in 30..200_usize,
        shards in 1..4_usize,
        ops in proptest::collection::vec(op(), 1..2000),
    ) {
        check(Limits { max_sessions: NonZeroUsize::new(max), ..Limits::default() }, shards, &ops);
    }

    #[test]
    fn a_store_full_of_bytes_evicts_as_a_list_does(
        max in 8000..40_000_usize,
        shards in prop_oneof![1..4_usize, Just(32)],
        ops in proptest::collection::vec(op(), 1..2000),
    ) {
        check(Limits { max_bytes: NonZeroUsize::new(max), ..Limits::default() }, shards, &ops);
    }
}
