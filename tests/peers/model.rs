//! A model of the expected sessions: all acknowledged writes, and all or nothing of each write in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use native_store::clock::{Clock, Millis, SystemClock};
use native_store::session::{Body, UserKeyBuf};
use native_store::store::{Cursor, FileStore, SessionStore};

const HOUR: Millis = 3_600_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub user: String,
    pub version: u64,
    pub expires: Millis,
}

pub type Rows = BTreeMap<String, Row>;

/// A write. Its text is the command to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Create { id: String, row: Row, pad: usize },
    Update { id: String, row: Row, pad: usize },
    Touch { id: String, expires: Millis },
    Delete { id: String },
    DeleteByUser { user: String },
    Clear,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut session = |name: &str, id: &str, row: &Row, pad: usize| {
            write!(f, "{name} {id} {} {} {} {pad}", row.user, row.version, row.expires)
        };
        match self {
            Self::Create { id, row, pad } => session("create", id, row, *pad),
            Self::Update { id, row, pad } => session("update", id, row, *pad),
            Self::Touch { id, expires } => write!(f, "touch {id} {expires}"),
            Self::Delete { id } => write!(f, "delete {id}"),
            Self::DeleteByUser { user } => write!(f, "deleteByUser {user}"),
            Self::Clear => write!(f, "clear"),
        }
    }
}

/// An expiry after the end of every test.
pub fn far() -> Millis {
    SystemClock.now() + HOUR
}

pub fn row(user: &str, version: u64) -> Row {
    // Each version has a different expiry, so that a lost `touch` is detected.
    Row { user: user.to_owned(), version, expires: far() + version as Millis }
}

pub fn create(id: &str, user: &str) -> Op {
    Op::Create { id: id.to_owned(), row: row(user, 1), pad: 10 }
}

pub fn update(id: &str, user: &str, version: u64) -> Op {
    Op::Update { id: id.to_owned(), row: row(user, version), pad: 100 }
}

pub fn touch(id: &str, seconds: Millis) -> Op {
    Op::Touch { id: id.to_owned(), expires: far() + 1000 * seconds }
}

pub fn delete(id: &str) -> Op {
    Op::Delete { id: id.to_owned() }
}

pub fn delete_by_user(user: &str) -> Op {
    Op::DeleteByUser { user: user.to_owned() }
}

#[derive(Debug, Default, Clone)]
pub struct Model {
    pub rows: Rows,
    /// All users that have ever had sessions.
    users: BTreeSet<String>,
}

/// The violations that a check of a store has found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub lost: usize,
    pub revived: usize,
    /// Writes that have happened only in part.
    pub torn: usize,
}

impl Model {
    /// The state of each affected session after a write.
    pub fn effect(&self, op: &Op) -> Vec<(String, Option<Row>)> {
        let is_live = |expires: Millis| expires > SystemClock.now();
        let old = |id: &String| self.rows.get(id).cloned();
        match op {
            Op::Create { id, row, .. } => vec![(id.clone(), Some(row.clone()))],
            Op::Update { id, row, .. } => vec![(id.clone(), old(id).map(|_| row.clone()))],
            Op::Touch { id, expires } => {
                let moved = |row: Row| Row { expires: *expires, ..row };
                vec![(id.clone(), old(id).map(moved).filter(|row| is_live(row.expires)))]
            }
            Op::Delete { id } => vec![(id.clone(), None)],
            Op::DeleteByUser { user } => {
                let of_user = self.rows.iter().filter(|(_, row)| row.user == *user);
                of_user.map(|(id, _)| (id.clone(), None)).collect()
            }
            Op::Clear => self.rows.keys().map(|id| (id.clone(), None)).collect(),
        }
    }

    /// Applies an acknowledged write.
    pub fn apply(&mut self, op: &Op) {
        self.set(self.effect(op));
    }

    fn set(&mut self, effect: Vec<(String, Option<Row>)>) {
        for (id, row) in effect {
            match row {
                Some(row) => {
                    self.users.insert(row.user.clone());
                    self.rows.insert(id, row);
                }
                None => _ = self.rows.remove(&id),
            }
        }
    }

    /// Compares the sessions of a store with the model, and adopts the outcomes of the writes in flight. No two of
    /// these may concern the same session.
    pub fn judge(&mut self, found: &Rows, in_flight: &[Op]) -> Verdict {
        let mut verdict = Verdict::default();
        for op in in_flight {
            let effect = self.effect(op);
            let has_happened = effect.iter().all(|(id, row)| found.get(id) == row.as_ref());
            let is_undone = effect.iter().all(|(id, _)| found.get(id) == self.rows.get(id));
            verdict.torn += usize::from(!has_happened && !is_undone);
            if has_happened {
                self.set(effect);
            }
        }
        let ids: BTreeSet<&String> = self.rows.keys().chain(found.keys()).collect();
        for id in ids {
            match (self.rows.get(id), found.get(id)) {
                (expected, seen) if expected == seen => {}
                (Some(_), _) => verdict.lost += 1,
                (None, _) => verdict.revived += 1,
            }
        }
        verdict
    }

    /// Checks an open store like `judge`. Its user index must also agree with its sessions, and `verify` must find
    /// nothing.
    pub fn check(&mut self, store: &FileStore, in_flight: &[Op], what: &str) {
        let found = look(store);
        let expected = self.rows.clone();
        let verdict = self.judge(&found, in_flight);
        assert_eq!(
            verdict,
            Verdict::default(),
            "{what}: expected {expected:#?} and all or nothing of {in_flight:?}; found {found:#?}"
        );
        self.check_index(store, &found, what);
        let verification = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(verification.problems, [""; 0], "{what}");
        // `verify` has drained the log.
        assert_eq!(look(store), found, "{what}: after a drain");
        self.check_index(store, &found, what);
    }

    fn check_index(&self, store: &FileStore, found: &Rows, what: &str) {
        assert_eq!(store.size().unwrap(), found.len() as u64, "{what}: size");
        for user in &self.users {
            let sessions = store.get_by_user(UserKeyBuf::from_text(user).as_key()).unwrap();
            let mut ids: Vec<String> = sessions.iter().map(|session| session.id.to_string()).collect();
            ids.sort_unstable();
            let expected: Vec<_> =
                found.iter().filter(|(_, row)| row.user == *user).map(|(id, _)| id.clone()).collect();
            assert_eq!(ids, expected, "{what}: the sessions of {user}");
        }
    }
}

/// Returns all sessions of a store.
pub fn look(store: &FileStore) -> Rows {
    let mut found = Rows::new();
    let mut cursor = Some(Cursor::default());
    while let Some(at) = cursor {
        let (ids, next) = store.ids(at).unwrap();
        for id in ids {
            let Some(session) = store.get(&id).unwrap() else { continue };
            assert!(found.insert(id.to_string(), row_of(&session)).is_none(), "an id comes twice");
        }
        cursor = next;
    }
    found
}

pub fn row_of(session: &native_store::store::StoredSession) -> Row {
    let content = session.content().unwrap();
    let Body::Json { text, .. } = content.body else { panic!("another body") };
    let version = text.split("\"v\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    let user = String::from_utf8(content.user.unwrap().text().unwrap().to_vec()).unwrap();
    Row { user, version, expires: session.expires.millis() }
}

pub fn encode(rows: &Rows) -> String {
    let lines = rows.iter().map(|(id, row)| format!("{id}|{}|{}|{}", row.user, row.version, row.expires));
    lines.collect::<Vec<_>>().join(" ")
}

pub fn decode(text: &str) -> Rows {
    let parse = |line: &str| {
        let [id, user, version, expires] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
        let row = Row {
            user: user.to_owned(),
            version: version.parse().unwrap(),
            expires: expires.parse().unwrap(),
        };
        (id.to_owned(), row)
    };
    text.split(' ').filter(|line| !line.is_empty()).map(parse).collect()
}
