//! Operations on a store, what they should do to its sessions, and what is seen of them.

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

/// The clock's first moment.
pub const START: Millis = 1_000_000;
/// After the end of every session.
pub const FAR: Millis = 1 << 40;

/// A store has no redo log below 64 MiB.
const TOO_SMALL_FOR_A_LOG: u64 = 60 << 20;
/// A log of such a store grows to 4 MiB.
const SMALLEST_WITH_A_LOG: u64 = 64 << 20;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub sealed: bool,
    /// `None`: without a redo log, so that each write is a commit of LMDB's.
    pub log: Option<Durability>,
}

impl Setup {
    pub const fn direct(sealed: bool) -> Self {
        Self { sealed, log: None }
    }

    pub const fn logged(sealed: bool, durability: Durability) -> Self {
        Self { sealed, log: Some(durability) }
    }
}

pub fn options(dir: &Path, setup: Setup) -> FileOptions {
    FileOptions {
        path: dir.into(),
        secrets: if setup.sealed { vec![Secret::new(vec![7; 32])] } else { Vec::new() },
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

/// A session as it is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    pub id: String,
    pub user: Option<String>,
    pub expires: Millis,
    /// `None`: FluidAuth's three fields and no other.
    pub text: Option<Arc<str>>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, user, expires, text } = self;
        let bytes = text.as_ref().map_or(0, |text| text.len());
        write!(f, "{id} of {user:?} until {expires}, {bytes} bytes")
    }
}

impl Draft {
    /// One of about so many bytes, unlike all others.
    pub fn new(id: String, user: Option<String>, expires: Millis, bytes: usize, random: &mut Random) -> Self {
        let text = (bytes > 0).then(|| {
            // Different all along, so that no part of one version passes for another's.
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
    // A few are dead on arrival.
    now - 2 + random.below(100) as Millis
}

/// Ids that pack and ids that do not.
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
    Create(Draft),
    Update(Draft),
    Touch { id: String, expires: Millis },
    Delete { id: String },
    DeleteByUser { user: String, except: Option<String> },
    Clean,
    Clear,
}

/// A number where the store tells one, or the code of an error.
pub type Outcome = Result<Option<u64>, &'static str>;

pub fn outcome(result: Result<Option<u64>>) -> Outcome {
    result.map_err(|error| error.code())
}

impl Op {
    /// Of the sessions of a lane; never `Clear`, which is of all.
    pub fn random(lane: usize, now: Millis, random: &mut Random) -> Self {
        match random.below(20) {
            0..9 => Self::Create(Draft::random(lane, now, random)),
            9..13 => Self::Update(Draft::random(lane, now, random)),
            13..16 => Self::Touch { id: id_text(lane, random.below(IDS)), expires: lifetime(now, random) },
            16..18 => Self::Delete { id: id_text(lane, random.below(IDS)) },
            18 => Self::DeleteByUser {
                user: user_name(lane, random.below(USERS)),
                except: random.one_in(2).then(|| id_text(lane, random.below(IDS))),
            },
            _ => Self::Clean,
        }
    }

    /// Whether it can be begun without waiting for its end.
    pub fn is_hot(&self) -> bool {
        !matches!(self, Self::DeleteByUser { .. } | Self::Clean | Self::Clear)
    }

    /// The bytes of text that it writes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Create(draft) | Self::Update(draft) => draft.text.as_ref().map_or(0, |text| text.len()),
            _ => 0,
        }
    }

    /// Does it, and waits for its end.
    pub fn perform(&self, store: &FileStore) -> Result<Option<u64>> {
        let flag = |changed| Some(u64::from(changed));
        match self {
            Self::Create(draft) => draft.with_session(|session| store.create(session)).map(|()| Some(1)),
            Self::Update(draft) => draft.with_session(|session| store.update(session)).map(flag),
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

    /// Queues it; `false` if there was nothing to queue.
    fn begin(&self, store: &FileStore, to: &Arc<dyn Completions>, ticket: u32) -> Result<bool> {
        match self {
            Self::Create(draft) => draft.with_session(|session| store.begin_create(session, to, ticket))?,
            Self::Update(draft) => draft.with_session(|session| store.begin_update(session, to, ticket))?,
            Self::Touch { id, expires } => {
                store.begin_touch(&session_id(id), Expiry::moved_to(*expires).unwrap(), None, to, ticket)?;
            }
            Self::Delete { id } => return store.begin_delete(&session_id(id), to, ticket),
            _ => unreachable!("it is not hot"),
        }
        Ok(true)
    }
}

/// Passes on what became of writes.
struct Told<F: Fn(u32)> {
    each: F,
    to: mpsc::Sender<Vec<(u32, Result<Answer>)>>,
}

impl<F: Fn(u32) + Send + Sync> Completions for Told<F> {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        done.iter().for_each(|(ticket, _)| (self.each)(*ticket));
        self.to.send(done).unwrap();
    }
}

/// Queues all of them before the writer begins, so that they share a commit, and waits for their ends. `each` is told
/// of every one that has ended.
pub fn perform_together(
    ops: &[Op],
    store: &FileStore,
    each: impl Fn(u32) + Send + Sync + 'static,
) -> Vec<Result<Option<u64>>> {
    let (sender, receiver) = mpsc::channel();
    let told = Arc::new(Told { each, to: sender });
    let to: Arc<dyn Completions> = told.clone();
    let mut results: Vec<Option<Result<Option<u64>>>> = vec![None; ops.len()];
    for (ticket, op) in (0..).zip(ops) {
        match op.begin(store, &to, ticket) {
            Ok(true) => {}
            ended => results[ticket as usize] = Some(ended.map(|_| None)),
        }
    }
    let idle: Vec<u32> =
        (0..).zip(&results).filter(|(_, result)| result.is_some()).map(|(at, _)| at).collect();
    store.wake();
    while results.iter().any(Option::is_none) {
        for (ticket, result) in receiver.recv().unwrap() {
            let tells = !matches!(ops[ticket as usize], Op::Delete { .. });
            results[ticket as usize] = Some(result.map(|answer| match answer {
                Answer::Number(number) => Some(number).filter(|_| tells),
                Answer::Session(_) => panic!("a write gave a session"),
            }));
        }
    }
    // Not before those that were queued ahead of them.
    idle.into_iter().for_each(&told.each);
    results.into_iter().flatten().collect()
}

/// What is seen of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub user: Option<String>,
    pub expires: Millis,
    pub was_moved: bool,
    pub text: Option<Arc<str>>,
}

/// A session as the model has it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    seen: Seen,
    created: usize,
}

/// The live sessions, as they should be.
#[derive(Debug, Clone, Default)]
pub struct Model {
    sessions: BTreeMap<String, Arc<Entry>>,
    created: usize,
    /// How often all were cleared.
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
            Op::Create(draft) => {
                if self.sessions.contains_key(&draft.id) {
                    return Err("ERR_SESSION_EXISTS");
                }
                self.make_room(draft, now);
                self.write(draft, None);
                Ok(Some(1))
            }
            Op::Update(draft) => {
                let Some(old) = self.sessions.get(&draft.id) else { return Ok(Some(0)) };
                let created = old.created;
                self.make_room(draft, now);
                self.write(draft, Some(created));
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

    fn write(&mut self, draft: &Draft, created: Option<usize>) {
        let Draft { user, expires, text, .. } = draft.clone();
        self.put(&draft.id, Seen { user, expires, was_moved: false, text }, created);
    }

    fn make_room(&mut self, draft: &Draft, now: Millis) {
        let Some(user) = draft.user.as_ref().filter(|_| draft.expires > now) else { return };
        let mut others: Vec<(usize, String)> = self
            .sessions
            .iter()
            .filter(|(id, entry)| entry.seen.user.as_ref() == Some(user) && **id != draft.id)
            .map(|(id, entry)| (entry.created, id.clone()))
            .collect();
        others.sort_unstable();
        let surplus = (others.len() + 1).saturating_sub(MAX_PER_USER);
        others[..surplus].iter().for_each(|(_, id)| _ = self.sessions.remove(id));
    }

    /// What should be seen of it.
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

/// What is seen of a store: its live sessions, and those of each user, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub sessions: BTreeMap<String, Seen>,
    pub users: BTreeMap<String, Vec<String>>,
}

/// Looks at everything in a store, and at whether its parts agree. An error says what could not be read, or does not
/// fit.
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
            let session = store.get(&id).map_err(failed)?.ok_or("an id of no session")?;
            view.sessions.insert(id.to_string(), seen_of(&session)?);
        }
        cursor = next;
    }
    for lane in 0..lanes {
        for user in (0..USERS).map(|nth| user_name(lane, nth)) {
            let sessions = store.get_by_user(UserKeyBuf::from_text(&user).as_key()).map_err(failed)?;
            for session in &sessions {
                if view.sessions.get(&session.id.to_string()) != Some(&seen_of(session)?) {
                    return Err(format!("the index has a session of {user} that is not there"));
                }
            }
            if !sessions.is_empty() {
                view.users.insert(user, sessions.iter().map(|session| session.id.to_string()).collect());
            }
        }
        for id in (0..IDS).map(|nth| id_text(lane, nth)).filter(|id| !view.sessions.contains_key(id)) {
            if store.get(&session_id(&id)).map_err(failed)?.is_some() {
                return Err("there is a session that the ids do not tell".into());
            }
        }
    }
    let of_users = view.sessions.values().filter(|seen| seen.user.is_some()).count();
    if view.users.values().map(Vec::len).sum::<usize>() != of_users {
        return Err("the index lacks a session".into());
    }
    if store.size() != Ok(view.sessions.len() as u64) {
        return Err(format!("it says that it has {:?} of {} sessions", store.size(), view.sessions.len()));
    }
    Ok(view)
}

/// Looks at the sessions of a lane by reads alone, which need no commit.
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

/// Whether a store can be written, and whether the sweep finds all that is in it.
pub fn use_up(store: &FileStore, clock: &MockClock, random: &mut Random) -> Result<(), String> {
    let failed = |error: StoreError| format!("{}: {error}", error.code());
    let draft = Draft::new(id_text(0, IDS), Some(user_name(0, USERS)), FAR, 20_000, random);
    Op::Create(draft.clone()).perform(store).map_err(failed)?;
    let stored = store.get(&session_id(&draft.id)).map_err(failed)?.ok_or("what is created is not there")?;
    if seen_of(&stored)?.text != draft.text {
        return Err("what is created is another".into());
    }
    clock.advance(2 * FAR);
    store.clean().map_err(failed)?;
    let seen = store.verify(&mut |_, _| ()).map_err(failed)?;
    if seen.sessions > 0 || seen.found > 0 {
        return Err(format!("a sweep of all leaves {seen:?}"));
    }
    Ok(())
}

/// What was done to the sessions of a lane, one operation after another: the models after each, and when it began.
pub struct Lane {
    pub models: Vec<(Millis, Model)>,
}

impl Lane {
    pub fn new(first: Model, now: Millis) -> Self {
        Self { models: vec![(now, first)] }
    }

    /// Applies an operation and tells what should become of it.
    pub fn apply(&mut self, op: &Op, now: Millis) -> Outcome {
        let mut model = self.last().clone();
        let outcome = model.apply(op, now);
        self.models.push((now, model));
        outcome
    }

    /// Notes that the last operation is undone.
    pub fn take_back(&mut self, now: Millis) {
        let model = self.models[self.models.len() - 2].1.clone();
        self.models.push((now, model));
    }

    /// The model of what is there, if it is one of those that may be.
    pub fn model_of(&self, view: &View, reached: Reached, now: Millis) -> Option<Model> {
        let models = &self.models[reached.acknowledged..=reached.begun];
        models.iter().map(|(_, model)| model).find(|model| model.view(now) == *view).cloned()
    }

    pub fn last(&self) -> &Model {
        &self.models.last().unwrap_or_else(|| unreachable!("there is the first")).1
    }
}

/// How far a lane had come when the power failed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reached {
    pub acknowledged: usize,
    pub begun: usize,
}

/// How a store after a power loss differs from what was promised.
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

/// Compares what is there with what was acknowledged: of the operations of a lane that were begun, the first so many
/// must have happened, among them all that were acknowledged; and of one that concerns all lanes, all or nothing.
pub fn judge(view: &View, lanes: &[Lane], reached: &[Reached], now: Millis) -> Verdict {
    let mut clears: Option<BTreeSet<usize>> = None;
    let mut verdict = Verdict::default();
    for (at, (lane, reached)) in lanes.iter().zip(reached).enumerate() {
        let mine = part_of(view, at);
        let candidates: Vec<(&Model, View)> = lane.models[reached.acknowledged..=reached.begun]
            .iter()
            .map(|(_, model)| (model, model.view(now)))
            .collect();
        let fits: BTreeSet<usize> =
            candidates.iter().filter(|(_, view)| *view == mine).map(|(model, _)| model.clears).collect();
        if fits.is_empty() {
            blame(&mine, &candidates, lane, &mut verdict);
        }
        clears = Some(match clears {
            Some(clears) => &clears & &fits,
            None => fits,
        });
    }
    if verdict.is_good() && clears.is_some_and(|clears| clears.is_empty()) {
        return Verdict::unreadable("only a part was cleared");
    }
    verdict
}

/// The sessions of a lane.
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

/// Finds what is wrong with the sessions of a lane.
fn blame(seen: &View, candidates: &[(&Model, View)], lane: &Lane, verdict: &mut Verdict) {
    let before = (verdict.lost, verdict.revived, verdict.unreadable);
    let mut ids: BTreeSet<&String> = seen.sessions.keys().collect();
    ids.extend(candidates.iter().flat_map(|(_, view)| view.sessions.keys()));
    for id in ids {
        let there = seen.sessions.get(id);
        if candidates.iter().any(|(_, view)| view.sessions.get(id) == there) {
            continue;
        }
        let was = |seen: &Seen| {
            lane.models.iter().any(|(_, model)| model.sessions.get(id).is_some_and(|old| old.seen == *seen))
        };
        let is_gone = candidates.iter().all(|(_, view)| !view.sessions.contains_key(id));
        match there {
            None => verdict.lost += 1,
            Some(seen) if !was(seen) => verdict.unreadable += 1,
            Some(_) if is_gone => verdict.revived += 1,
            Some(_) => verdict.lost += 1,
        }
    }
    if before == (verdict.lost, verdict.revived, verdict.unreadable) {
        verdict.unreadable += 1;
        verdict.note = "each session is as it was at some time, but not all at one".into();
    }
}
