//! Operations on a store, a model of their effects, and a check of a store against the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::sync::{Arc, mpsc};

use native_store::clock::{Millis, MockClock};
use native_store::error::{Result, StoreError};
use native_store::session::{
    Body, Content, ExpiresForm, Expiry, FieldOrder, Session, SessionId, UserKey, UserKeyBuf,
};
use native_store::store::file::{Durability, FileOptions, Secret};
use native_store::store::{Answer, Completions, Cursor, FileStore, SessionStore};

use super::Random;

pub const MAX_PER_USER: usize = 6;
const IDS: u64 = 40;
const USERS: u64 = 5;

/// The first time of the clock.
pub const START: Millis = 1_000_000;
/// An expiry after all random expiries.
pub const FAR: Millis = 1 << 40;

/// A store has no redo log below 64 MiB.
const TOO_SMALL_FOR_A_LOG: u64 = 60 << 20;
/// A log of such a store grows to 4 MiB.
const SMALLEST_WITH_A_LOG: u64 = 64 << 20;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub is_encrypted: bool,
    /// `None`: without a redo log, so that each write is a commit of LMDB.
    pub log: Option<Durability>,
}

impl Setup {
    pub const fn direct(is_encrypted: bool) -> Self {
        Self { is_encrypted, log: None }
    }

    pub const fn logged(is_encrypted: bool, durability: Durability) -> Self {
        Self { is_encrypted, log: Some(durability) }
    }
}

pub fn options(dir: &Path, setup: Setup) -> FileOptions {
    FileOptions {
        path: dir.into(),
        secrets: if setup.is_encrypted { vec![Secret::new(vec![7; 32])] } else { Vec::new() },
        max_bytes: NonZeroU64::new(match setup.log {
            Some(_) => SMALLEST_WITH_A_LOG,
            None => TOO_SMALL_FOR_A_LOG,
        }),
        max_sessions_per_user: NonZeroUsize::new(MAX_PER_USER),
        sweep_interval: Some(0),
        durability: setup.log,
        ..FileOptions::default()
    }
}

pub fn open(dir: &Path, setup: Setup, now: Millis) -> Result<(Arc<FileStore>, Arc<MockClock>)> {
    let clock = Arc::new(MockClock::new(now));
    FileStore::open_at(&options(dir, setup), clock.clone()).map(|store| (store, clock))
}

/// A session to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct TestSession {
    pub id: String,
    pub user: Option<String>,
    pub expires: Millis,
    /// `None`: only the three fields of FluidAuth.
    pub text: Option<Arc<str>>,
}

impl fmt::Debug for TestSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, user, expires, text } = self;
        let bytes = text.as_ref().map_or(0, |text| text.len());
        write!(f, "{id} of {user:?} until {expires}, {bytes} bytes")
    }
}

impl TestSession {
    /// Makes a session with about this many bytes of unique text.
    pub fn new(id: String, user: Option<String>, expires: Millis, bytes: usize, random: &mut Random) -> Self {
        let text = (bytes > 0).then(|| {
            // The word repeats throughout the text, so that parts of two versions always differ.
            let word = format!("{:012x} ", random.below(1 << 48));
            format!(
                r#"{{"sessionId":"{id}","expires":{expires},"x":"{}"}}"#,
                word.repeat(bytes.div_ceil(word.len()))
            )
            .into()
        });
        Self { id, user, expires, text }
    }

    fn random(lane: usize, now: Millis, random: &mut Random) -> Self {
        let bytes = match random.below(20) {
            0..10 => 0,
            10..16 => 100 + random.below(1500),
            16..18 => 2000 + random.below(6000),
            _ => 10_000 + random.below(40_000),
        };
        let user = (!random.one_in(4)).then(|| user_name(lane, random.below(USERS)));
        Self::new(id_text(lane, random.below(IDS)), user, lifetime(now, random), bytes as usize, random)
    }

    fn with_session<T>(&self, call: impl FnOnce(&Session<'_>) -> T) -> T {
        let user = self.user.as_deref().map(UserKeyBuf::from_text);
        let body = match &self.text {
            Some(text) => Body::Json { text, expires: ExpiresForm::Number },
            None => Body::Plain(FieldOrder::UserFirst),
        };
        call(&Session {
            id: session_id(&self.id),
            expires: Expiry::new(self.expires).unwrap(),
            content: Content { user: user.as_ref().map(UserKeyBuf::as_key), body },
        })
    }
}

fn lifetime(now: Millis, random: &mut Random) -> Millis {
    // A few sessions have expired before their creation.
    now - 2 + random.below(100) as Millis
}

/// Ids with an even number can be packed, and the others cannot.
pub fn id_text(lane: usize, nth: u64) -> String {
    if nth.is_multiple_of(2) { format!("{lane:04x}{nth:032x}") } else { format!("{lane:04x} session {nth}") }
}

fn lane_of(id: &str) -> usize {
    usize::from_str_radix(&id[..4], 16).unwrap()
}

pub fn user_name(lane: usize, nth: u64) -> String {
    format!("{lane:04x} user {nth}")
}

fn session_id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

#[derive(Debug, Clone)]
pub enum Op {
    Create(TestSession),
    Update(TestSession),
    Touch { id: String, expires: Millis },
    Delete { id: String },
    DeleteByUser { user: String, except: Option<String> },
    Clean,
    Clear,
}

/// The number that the store returns, if any, or the code of the error.
pub type Outcome = Result<Option<u64>, &'static str>;

pub fn outcome(result: Result<Option<u64>>) -> Outcome {
    result.map_err(|error| error.code())
}

impl Op {
    /// Returns an operation on the sessions of a lane. It is never `Clear`, which concerns all lanes.
    pub fn random(lane: usize, now: Millis, random: &mut Random) -> Self {
        match random.below(20) {
            0..9 => Self::Create(TestSession::random(lane, now, random)),
            9..13 => Self::Update(TestSession::random(lane, now, random)),
            13..16 => Self::Touch { id: id_text(lane, random.below(IDS)), expires: lifetime(now, random) },
            16..18 => Self::Delete { id: id_text(lane, random.below(IDS)) },
            18 => Self::DeleteByUser {
                user: user_name(lane, random.below(USERS)),
                except: random.one_in(2).then(|| id_text(lane, random.below(IDS))),
            },
            _ => Self::Clean,
        }
    }

    /// Whether the operation can be queued with others before the caller waits for it.
    pub fn can_be_queued(&self) -> bool {
        !matches!(self, Self::DeleteByUser { .. } | Self::Clean | Self::Clear)
    }

    /// The length of the text that the operation writes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Create(test_session) | Self::Update(test_session) => {
                test_session.text.as_ref().map_or(0, |text| text.len())
            }
            _ => 0,
        }
    }

    /// Performs the operation, and waits for it.
    pub fn perform(&self, store: &FileStore) -> Result<Option<u64>> {
        let flag = |changed| Some(u64::from(changed));
        match self {
            Self::Create(test_session) => {
                test_session.with_session(|session| store.create(session)).map(|()| Some(1))
            }
            Self::Update(test_session) => {
                test_session.with_session(|session| store.update(session)).map(flag)
            }
            Self::Touch { id, expires } => {
                store.touch(&session_id(id), Expiry::moved_to(*expires).unwrap()).map(flag)
            }
            Self::Delete { id } => store.delete(&session_id(id)).map(|()| None),
            Self::DeleteByUser { user, except } => {
                let except = except.as_deref().map(session_id);
                store.delete_by_user(UserKeyBuf::from_text(user).as_key(), except.as_ref()).map(Some)
            }
            Self::Clean => store.clean().map(|_| None),
            Self::Clear => store.clear().map(|()| None),
        }
    }

    /// Queues the operation. `false` if there was nothing to queue.
    fn queue(&self, store: &FileStore, to: &Arc<dyn Completions>, ticket: u32) -> Result<bool> {
        match self {
            Self::Create(test_session) => {
                test_session.with_session(|session| store.begin_create(session, to, ticket))?
            }
            Self::Update(test_session) => {
                test_session.with_session(|session| store.begin_update(session, to, ticket))?
            }
            Self::Touch { id, expires } => {
                store.begin_touch(&session_id(id), Expiry::moved_to(*expires).unwrap(), None, to, ticket)?;
            }
            Self::Delete { id } => return store.begin_delete(&session_id(id), to, ticket),
            _ => unreachable!("it cannot be queued"),
        }
        Ok(true)
    }
}

/// Forwards the results of writes.
struct Forward<F: Fn(u32)> {
    each: F,
    to: mpsc::Sender<Vec<(u32, Result<Answer>)>>,
}

impl<F: Fn(u32) + Send + Sync> Completions for Forward<F> {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        done.iter().for_each(|(ticket, _)| (self.each)(*ticket));
        self.to.send(done).unwrap();
    }
}

/// Queues all operations before the writer starts, so that they share a commit, and waits for them. `each` is called
/// with the index of every completed operation.
pub fn perform_together(
    ops: &[Op],
    store: &FileStore,
    each: impl Fn(u32) + Send + Sync + 'static,
) -> Vec<Result<Option<u64>>> {
    let (sender, receiver) = mpsc::channel();
    let forward = Arc::new(Forward { each, to: sender });
    let to: Arc<dyn Completions> = forward.clone();
    let mut results: Vec<Option<Result<Option<u64>>>> = vec![None; ops.len()];
    for (ticket, op) in (0..).zip(ops) {
        match op.queue(store, &to, ticket) {
            Ok(true) => {}
            ended => results[ticket as usize] = Some(ended.map(|_| None)),
        }
    }
    let idle: Vec<u32> =
        (0..).zip(&results).filter(|(_, result)| result.is_some()).map(|(at, _)| at).collect();
    store.wake();
    while results.iter().any(Option::is_none) {
        for (ticket, result) in receiver.recv().unwrap() {
            let has_number = !matches!(ops[ticket as usize], Op::Delete { .. });
            results[ticket as usize] = Some(result.map(|answer| match answer {
                Answer::Number(number) => Some(number).filter(|_| has_number),
                Answer::Session(_) => panic!("a write returned a session"),
            }));
        }
    }
    // An operation that was not queued completes after those that were queued before it.
    idle.into_iter().for_each(&forward.each);
    results.into_iter().flatten().collect()
}

/// The visible state of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub user: Option<String>,
    pub expires: Millis,
    pub was_moved: bool,
    pub text: Option<Arc<str>>,
}

/// A session of the model.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    seen: Seen,
    created: usize,
}

/// The expected live sessions.
#[derive(Debug, Clone, Default)]
pub struct Model {
    sessions: BTreeMap<String, Arc<Entry>>,
    created: usize,
    /// The number of calls of `clear`.
    clears: usize,
}

impl Model {
    fn put(&mut self, id: &str, seen: Seen, created: Option<usize>) {
        self.created += 1;
        let created = created.unwrap_or(self.created);
        self.sessions.insert(id.into(), Arc::new(Entry { seen, created }));
    }

    pub fn apply(&mut self, op: &Op, now: Millis) -> Outcome {
        self.sessions.retain(|_, entry| entry.seen.expires > now);
        match op {
            Op::Create(test_session) => {
                if self.sessions.contains_key(&test_session.id) {
                    return Err("ERR_SESSION_EXISTS");
                }
                self.make_room(test_session, now);
                self.write(test_session, None);
                Ok(Some(1))
            }
            Op::Update(test_session) => {
                let Some(old) = self.sessions.get(&test_session.id) else { return Ok(Some(0)) };
                let created = old.created;
                self.make_room(test_session, now);
                self.write(test_session, Some(created));
                Ok(Some(1))
            }
            Op::Touch { id, expires } => {
                let Some(old) = self.sessions.get(id) else { return Ok(Some(0)) };
                let seen = Seen { expires: *expires, was_moved: true, ..old.seen.clone() };
                let created = old.created;
                self.put(id, seen, Some(created));
                Ok(Some(1))
            }
            Op::Delete { id } => {
                self.sessions.remove(id);
                Ok(None)
            }
            Op::DeleteByUser { user, except } => {
                let before = self.sessions.len();
                let is_kept = |id: &String, entry: &Entry| {
                    entry.seen.user.as_ref() != Some(user) || except.as_ref() == Some(id)
                };
                self.sessions.retain(|id, entry| is_kept(id, entry));
                Ok(Some((before - self.sessions.len()) as u64))
            }
            Op::Clean => Ok(None),
            Op::Clear => {
                self.sessions.clear();
                self.clears += 1;
                Ok(None)
            }
        }
    }

    fn write(&mut self, test_session: &TestSession, created: Option<usize>) {
        let TestSession { user, expires, text, .. } = test_session.clone();
        self.put(&test_session.id, Seen { user, expires, was_moved: false, text }, created);
    }

    fn make_room(&mut self, test_session: &TestSession, now: Millis) {
        let Some(user) = test_session.user.as_ref().filter(|_| test_session.expires > now) else { return };
        let mut others: Vec<(usize, String)> = self
            .sessions
            .iter()
            .filter(|(id, entry)| entry.seen.user.as_ref() == Some(user) && **id != test_session.id)
            .map(|(id, entry)| (entry.created, id.clone()))
            .collect();
        others.sort_unstable();
        let surplus = (others.len() + 1).saturating_sub(MAX_PER_USER);
        others[..surplus].iter().for_each(|(_, id)| _ = self.sessions.remove(id));
    }

    /// The expected view of a store.
    pub fn view(&self, now: Millis) -> View {
        let mut view = View::default();
        let mut users: BTreeMap<&String, Vec<(usize, &String)>> = BTreeMap::new();
        for (id, entry) in self.sessions.iter().filter(|(_, entry)| entry.seen.expires > now) {
            view.sessions.insert(id.clone(), entry.seen.clone());
            if let Some(user) = &entry.seen.user {
                users.entry(user).or_default().push((entry.created, id));
            }
        }
        for (user, mut ids) in users {
            ids.sort_unstable();
            view.users.insert(user.clone(), ids.into_iter().map(|(_, id)| id.clone()).collect());
        }
        view
    }
}

/// The visible state of a store: its live sessions, and the ids of each user, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub sessions: BTreeMap<String, Seen>,
    pub users: BTreeMap<String, Vec<String>>,
}

/// Reads everything in a store, and checks that its parts agree. An error names what is unreadable or does not agree.
pub fn look(store: &FileStore, lanes: usize) -> Result<View, String> {
    let failed = |error: StoreError| format!("{}: {error}", error.code());
    let seen = store.verify(&mut |_, _| ()).map_err(failed)?;
    if seen.found > 0 || seen.unreadable > 0 {
        return Err(format!("verify: {seen:?}"));
    }
    let mut view = View::default();
    let mut cursor = Some(Cursor::default());
    while let Some(at) = cursor {
        let (ids, next) = store.ids(at).map_err(failed)?;
        for id in ids {
            let session = store.get(&id).map_err(failed)?.ok_or("an id without a session")?;
            view.sessions.insert(id.to_string(), seen_of(&session)?);
        }
        cursor = next;
    }
    for lane in 0..lanes {
        for user in (0..USERS).map(|nth| user_name(lane, nth)) {
            let sessions = store.get_by_user(UserKeyBuf::from_text(&user).as_key()).map_err(failed)?;
            for session in &sessions {
                if view.sessions.get(&session.id.to_string()) != Some(&seen_of(session)?) {
                    return Err(format!("the index has a session of {user} that does not exist"));
                }
            }
            if !sessions.is_empty() {
                view.users.insert(user, sessions.iter().map(|session| session.id.to_string()).collect());
            }
        }
        for id in (0..IDS).map(|nth| id_text(lane, nth)).filter(|id| !view.sessions.contains_key(id)) {
            if store.get(&session_id(&id)).map_err(failed)?.is_some() {
                return Err("a session is missing in the list of ids".into());
            }
        }
    }
    let of_users = view.sessions.values().filter(|seen| seen.user.is_some()).count();
    if view.users.values().map(Vec::len).sum::<usize>() != of_users {
        return Err("the index lacks a session".into());
    }
    if store.size() != Ok(view.sessions.len() as u64) {
        return Err(format!("the store reports {:?} of {} sessions", store.size(), view.sessions.len()));
    }
    Ok(view)
}

/// Reads the sessions of a lane only with calls that need no commit.
pub fn peek(store: &FileStore, lane: usize) -> Result<View, String> {
    let failed = |error: StoreError| format!("{}: {error}", error.code());
    let mut view = View::default();
    for id in (0..IDS).map(|nth| id_text(lane, nth)) {
        if let Some(session) = store.get(&session_id(&id)).map_err(failed)? {
            view.sessions.insert(id, seen_of(&session)?);
        }
    }
    for user in (0..USERS).map(|nth| user_name(lane, nth)) {
        let sessions = store.get_by_user(UserKeyBuf::from_text(&user).as_key()).map_err(failed)?;
        if !sessions.is_empty() {
            view.users.insert(user, sessions.iter().map(|session| session.id.to_string()).collect());
        }
    }
    Ok(view)
}

fn seen_of(session: &native_store::store::StoredSession) -> Result<Seen, String> {
    let content = session.content().map_err(|error| error.to_string())?;
    let text = match content.body {
        Body::Json { text, .. } => Some(text.into()),
        Body::Plain(_) => None,
    };
    let user = content.user.and_then(UserKey::text).map(|user| String::from_utf8_lossy(user).into_owned());
    let expires = session.expires;
    Ok(Seen { user, expires: expires.millis(), was_moved: expires.was_moved(), text })
}

/// Checks that a store can be written, and that a sweep removes all its sessions.
pub fn check_usable(store: &FileStore, clock: &MockClock, random: &mut Random) -> Result<(), String> {
    let failed = |error: StoreError| format!("{}: {error}", error.code());
    let test_session = TestSession::new(id_text(0, IDS), Some(user_name(0, USERS)), FAR, 20_000, random);
    Op::Create(test_session.clone()).perform(store).map_err(failed)?;
    let stored = store
        .get(&session_id(&test_session.id))
        .map_err(failed)?
        .ok_or("a created session does not exist")?;
    if seen_of(&stored)?.text != test_session.text {
        return Err("a created session has another content".into());
    }
    clock.advance(2 * FAR);
    store.clean().map_err(failed)?;
    let seen = store.verify(&mut |_, _| ()).map_err(failed)?;
    if seen.sessions > 0 || seen.found > 0 {
        return Err(format!("a sweep of all sessions leaves {seen:?}"));
    }
    Ok(())
}

/// A lane: sessions that only one sequence of operations changes. It has the model after each operation, and the time
/// at which the operation started.
pub struct Lane {
    pub models: Vec<(Millis, Model)>,
}

impl Lane {
    pub fn new(first: Model, now: Millis) -> Self {
        Self { models: vec![(now, first)] }
    }

    /// Applies an operation, and returns its expected outcome.
    pub fn apply(&mut self, op: &Op, now: Millis) -> Outcome {
        let mut model = self.last().clone();
        let outcome = model.apply(op, now);
        self.models.push((now, model));
        outcome
    }

    /// Rolls back the last operation.
    pub fn roll_back(&mut self, now: Millis) {
        let model = self.models[self.models.len() - 2].1.clone();
        self.models.push((now, model));
    }

    /// The model that agrees with the view, if it is one of the allowed models.
    pub fn model_of(&self, view: &View, reached: Reached, now: Millis) -> Option<Model> {
        let models = &self.models[reached.acknowledged..=reached.started];
        models.iter().map(|(_, model)| model).find(|model| model.view(now) == *view).cloned()
    }

    pub fn last(&self) -> &Model {
        &self.models.last().unwrap_or_else(|| unreachable!("a lane has a first model")).1
    }
}

/// The numbers of acknowledged and started operations of a lane when the power failed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reached {
    pub acknowledged: usize,
    pub started: usize,
}

/// The violations of the durability guarantees by a store after a power loss.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub lost: usize,
    pub revived: usize,
    pub unreadable: usize,
    pub note: String,
}

impl Verdict {
    pub fn unreadable(note: impl Into<String>) -> Self {
        Self { unreadable: 1, note: note.into(), ..Self::default() }
    }

    pub fn is_good(&self) -> bool {
        (self.lost, self.revived, self.unreadable) == (0, 0, 0)
    }
}

/// Compares a view with the models. In each lane the first operations must have happened, at least all acknowledged
/// ones, and no later operation. A `clear`, which concerns all lanes, must have happened in all of them or in none.
pub fn judge(view: &View, lanes: &[Lane], reached: &[Reached], now: Millis) -> Verdict {
    let mut clears: Option<BTreeSet<usize>> = None;
    let mut verdict = Verdict::default();
    for (at, (lane, reached)) in lanes.iter().zip(reached).enumerate() {
        let mine = part_of(view, at);
        let candidates: Vec<(&Model, View)> = lane.models[reached.acknowledged..=reached.started]
            .iter()
            .map(|(_, model)| (model, model.view(now)))
            .collect();
        let fits: BTreeSet<usize> =
            candidates.iter().filter(|(_, view)| *view == mine).map(|(model, _)| model.clears).collect();
        if fits.is_empty() {
            count_violations(&mine, &candidates, lane, &mut verdict);
        }
        clears = Some(match clears {
            Some(clears) => &clears & &fits,
            None => fits,
        });
    }
    if verdict.is_good() && clears.is_some_and(|clears| clears.is_empty()) {
        return Verdict::unreadable("a clear has happened in part");
    }
    verdict
}

/// The part of a view that belongs to a lane.
fn part_of(view: &View, lane: usize) -> View {
    let is_mine = |name: &String| lane_of(name) == lane;
    View {
        sessions: view.sessions.iter().filter(|(id, _)| is_mine(id)).map(copy).collect(),
        users: view.users.iter().filter(|(user, _)| is_mine(user)).map(copy).collect(),
    }
}

fn copy<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// Counts the sessions of a lane that do not agree with any allowed model.
fn count_violations(seen: &View, candidates: &[(&Model, View)], lane: &Lane, verdict: &mut Verdict) {
    let before = (verdict.lost, verdict.revived, verdict.unreadable);
    let mut ids: BTreeSet<&String> = seen.sessions.keys().collect();
    ids.extend(candidates.iter().flat_map(|(_, view)| view.sessions.keys()));
    for id in ids {
        let found = seen.sessions.get(id);
        if candidates.iter().any(|(_, view)| view.sessions.get(id) == found) {
            continue;
        }
        let was = |seen: &Seen| {
            lane.models.iter().any(|(_, model)| model.sessions.get(id).is_some_and(|old| old.seen == *seen))
        };
        let is_gone = candidates.iter().all(|(_, view)| !view.sessions.contains_key(id));
        match found {
            None => verdict.lost += 1,
            Some(seen) if !was(seen) => verdict.unreadable += 1,
            Some(_) if is_gone => verdict.revived += 1,
            Some(_) => verdict.lost += 1,
        }
    }
    if before == (verdict.lost, verdict.revived, verdict.unreadable) {
        verdict.unreadable += 1;
        verdict.note = "each session agrees with some model, but no model agrees with all sessions".into();
    }
}
