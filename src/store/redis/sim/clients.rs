//! The calls that processes make. Their results are compared with the model.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{sleep, timeout};

use super::model::{CallId, Ending, Op, Outcome, Row};
use super::process::Process;
use super::world::{World, session_id};
use crate::error::{Outcome as Known, Result, StoreError};
use crate::session::{Body, Expiry, UserKeyBuf};
use crate::store::conformance::{id, json};
use crate::store::redis::session;
use crate::store::{Answer, Cursor, StoredSession};

/// How many milliseconds after its deadline a call may complete.
const SLACK: u64 = 10;

/// The maximum number of pending calls on a session. With more, the model has too many candidates.
const MAX_PENDING: usize = 5;

pub(super) fn user(user: usize) -> UserKeyBuf {
    UserKeyBuf::from_text(&format!("u{user}"))
}

/// Makes one call after another.
pub(super) async fn client(world: Rc<World>) {
    for _ in 0..world.config.ops {
        let think = world.random.borrow_mut().between(0, world.config.think);
        sleep(Duration::from_millis(think)).await;
        if world.is_over() {
            return;
        }
        let alive = world.alive();
        if alive.is_empty() {
            continue;
        }
        let process = Rc::clone(&alive[world.below(alive.len())]);
        let Some(kind) = world.weighted(&world.config.calls) else { continue };
        call(&world, &process, kind).await;
    }
    world.clients.set(world.clients.get() - 1);
}

async fn call(world: &Rc<World>, process: &Rc<Process>, kind: usize) {
    let (on, by) = (world.below(world.config.sessions), world.below(world.config.users));
    if world.histories.borrow().iter().any(|history| history.pending() >= MAX_PENDING) {
        return;
    }
    match kind {
        0 => {
            let row = new_row(world);
            create(world, process, on, row).await;
        }
        1 => drop(get(world, process, on).await),
        2 => {
            let row = new_row(world);
            update(world, process, on, row).await;
        }
        3 => {
            let lifetime = world.pick(&world.config.lifetimes);
            let expires = world.now() + lifetime;
            let _ = touch(world, process, on, expires).await;
        }
        4 => delete(world, process, on).await,
        5 => drop(get_by_user(world, process, by).await),
        6 => delete_by_user(world, process, by).await,
        7 => {
            let cleaned = until_death(process, process.begin(|store, done| store.begin_clean(done))).await;
            if let Some(Err(error)) = cleaned {
                check_error(world, &error);
            }
        }
        8 => clear(world, process).await,
        _ => {}
    }
}

fn new_row(world: &World) -> Row {
    let version = world.versions.get() + 1;
    world.versions.set(version);
    let who = world.below(world.config.users + 1);
    let user = (who < world.config.users).then_some(who);
    let expires = world.now() + world.pick(&world.config.lifetimes);
    Row { user, expires, version, may_be_unnamed: false }
}

/// The result of a call. `None` if its process dies before.
async fn until_death<T>(process: &Process, call: impl Future<Output = T>) -> Option<T> {
    match select(pin!(call), pin!(process.died.notified())).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}

/// Waits for a call with a deadline.
async fn in_time<T>(
    world: &World,
    process: &Process,
    what: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Option<Result<T>> {
    world.note(what, &[process.id]);
    let limit = Duration::from_millis(world.config.command_timeout + SLACK);
    match timeout(limit, until_death(process, call)).await {
        Ok(result) => {
            if let Some(Err(error)) = &result {
                check_error(world, error);
            }
            result
        }
        Err(_) => {
            world.fail(format!("a call of process {} did not settle in time: {what}", process.id));
            None
        }
    }
}

/// Counts an error, and checks that it is allowed.
fn check_error(world: &World, error: &StoreError) {
    let what = match error {
        StoreError::Exists => "error: exists",
        StoreError::Full(_) => "error: full",
        StoreError::Busy(_) => "error: busy",
        StoreError::Timeout { outcome: Known::NotDone, .. } => "error: timeout, nothing happened",
        StoreError::Timeout { outcome: Known::Unknown, .. } => "error: timeout, unknown",
        StoreError::Unavailable { outcome: Known::NotDone, .. } => "error: unavailable, nothing happened",
        StoreError::Unavailable { outcome: Known::Unknown, .. } => "error: unavailable, unknown",
        StoreError::Uncertain { .. } => "error: another, unknown",
        _ => {
            world.fail(format!("an error that nothing explains: {error}"));
            return;
        }
    };
    world.note(what, &[]);
    world.detail(|| error.to_string());
}

/// How a call ended, for the model.
fn ending<T>(result: Option<Result<T>>, outcome: impl FnOnce(T) -> Outcome) -> Ending {
    match result {
        Some(Ok(value)) => Ending::Saw(outcome(value)),
        Some(Err(StoreError::Exists)) => Ending::Saw(Outcome::Done(false)),
        Some(Err(StoreError::Uncertain { .. })) | None => Ending::Unknown,
        Some(Err(
            StoreError::Timeout { outcome: Known::Unknown, .. }
            | StoreError::Unavailable { outcome: Known::Unknown, .. },
        )) => Ending::Unknown,
        Some(Err(_)) => Ending::NotDone,
    }
}

fn begin(world: &World, process: &Process, on: usize, op: Op) -> CallId {
    let text = format!("{op:?}");
    let call = world.begin(on, op, process.id);
    world.detail(|| format!("session {on}, call {call} of process {}: {text}", process.id));
    call
}

fn end(world: &World, on: usize, call: CallId, ending: &Ending) {
    world.detail(|| format!("session {on}, call {call}: {ending:?}"));
    world.end(on, call, ending);
}

fn number(answer: Answer) -> Outcome {
    Outcome::Done(answer == Answer::Number(1))
}

/// Makes a call that changes one session. Returns whether it succeeded.
async fn write(
    world: &World,
    process: &Process,
    on: usize,
    what: &'static str,
    op: Op,
    made: session::Op,
) -> bool {
    let call = begin(world, process, on, op);
    let result = in_time(world, process, what, process.call(made)).await;
    let is_ok = matches!(result, Some(Ok(_)));
    end(world, on, call, &ending(result, number));
    is_ok
}

async fn create(world: &World, process: &Process, on: usize, row: Row) {
    let store = process.store();
    let made =
        with_session(on, &row, |session| session::Op::Create(store.new_session(session).unwrap(), None));
    drop(store);
    write(world, process, on, "create", Op::Create(row), made).await;
}

async fn update(world: &World, process: &Process, on: usize, row: Row) {
    let store = process.store();
    let made = with_session(on, &row, |session| session::Op::Update(store.new_session(session).unwrap()));
    drop(store);
    write(world, process, on, "update", Op::Update(row), made).await;
}

fn with_session<T>(on: usize, row: &Row, make: impl FnOnce(&crate::session::Session<'_>) -> T) -> T {
    let (owner, text) = (row.user.map(user), format!("{{\"v\":{}}}", row.version));
    make(&json(&session_id(on), owner.as_ref(), &text, Expiry::new(row.expires).unwrap()))
}

async fn touch(world: &World, process: &Process, on: usize, expires: i64) -> bool {
    let made = session::Op::Touch(id(&session_id(on)), Expiry::moved_to(expires).unwrap(), None);
    write(world, process, on, "touch", Op::Touch(expires), made).await
}

async fn delete(world: &World, process: &Process, on: usize) {
    write(world, process, on, "delete", Op::Delete, session::Op::Delete(id(&session_id(on)))).await;
}

/// Reads a session. Returns whether the call succeeded.
async fn get(world: &World, process: &Process, on: usize) -> bool {
    let call = begin(world, process, on, Op::Get);
    let made = process.call(session::Op::Get(id(&session_id(on))));
    let result = in_time(world, process, "get", made).await;
    let is_ok = matches!(result, Some(Ok(_)));
    let found = |answer| match answer {
        Answer::Session(found) => Outcome::Found(found.map(|session| row_of(&session))),
        Answer::Number(number) => Outcome::Done(number > 0),
    };
    end(world, on, call, &ending(result, found));
    is_ok
}

fn row_of(session: &StoredSession) -> Row {
    let content = session.content().unwrap();
    let Body::Json { text, .. } = content.body else { panic!("another form: {session:?}") };
    let version = text.strip_prefix("{\"v\":").and_then(|text| text.strip_suffix('}'));
    let user = content.user.map(|user| {
        std::str::from_utf8(user.text().unwrap()).unwrap().strip_prefix('u').unwrap().parse().unwrap()
    });
    let version = version.unwrap().parse().unwrap();
    Row { user, expires: session.expires.millis(), version, may_be_unnamed: false }
}

/// Registers a call that concerns all sessions.
fn begin_all(world: &World, process: &Process, op: &Op) -> Vec<CallId> {
    (0..world.config.sessions).map(|on| begin(world, process, on, op.clone())).collect()
}

/// Reads a user's sessions. Returns whether the call succeeded.
async fn get_by_user(world: &World, process: &Process, by: usize) -> bool {
    let calls = begin_all(world, process, &Op::GetByUser(by));
    let made = process.begin(|store, done| store.begin_get_by_user(user(by).as_key(), done));
    let result = in_time(world, process, "getByUser", made).await;
    if let Some(Ok(found)) = &result {
        let mut ids: Vec<_> = found.iter().map(|session| session.id.to_string()).collect();
        ids.sort();
        ids.dedup();
        if ids.len() < found.len() {
            world.fail(format!("getByUser gave a session twice: {found:?}"));
        }
    }
    for (on, call) in calls.into_iter().enumerate() {
        let ending = match &result {
            Some(Ok(found)) => {
                let found = found.iter().find(|session| session.id == id(&session_id(on))).map(row_of);
                Ending::Saw(Outcome::Found(found))
            }
            _ => Ending::Unknown,
        };
        end(world, on, call, &ending);
    }
    matches!(result, Some(Ok(_)))
}

async fn delete_by_user(world: &World, process: &Process, by: usize) {
    let calls = begin_all(world, process, &Op::DeleteByUser(by));
    let made = process.begin(|store, done| store.begin_delete_by_user(user(by).as_key(), None, done));
    let result = in_time(world, process, "deleteByUser", made).await;
    if let Some(Ok(ended)) = result
        && ended > calls.len() as u64
    {
        world.fail(format!("deleteByUser ended {ended} sessions of {}", calls.len()));
    }
    let ending = ending(result, |_| Outcome::Done(true));
    for (on, call) in calls.into_iter().enumerate() {
        end(world, on, call, &ending);
    }
}

async fn clear(world: &World, process: &Process) {
    let calls = begin_all(world, process, &Op::Clear);
    world.note("clear", &[process.id]);
    let made = process.begin(|store, done| store.begin_clear(done));
    let result = until_death(process, made).await;
    if let Some(Err(error)) = &result {
        check_error(world, error);
    }
    let ending = ending(result, |()| Outcome::Done(true));
    for (on, call) in calls.into_iter().enumerate() {
        end(world, on, call, &ending);
    }
}

/// Makes each kind of call. Returns whether all succeeded.
pub(super) async fn try_all(world: &World, process: &Process) -> bool {
    let mut is_ok = true;
    for on in 0..world.config.sessions {
        is_ok &= get(world, process, on).await;
        if world.histories.borrow()[on].pending() < MAX_PENDING {
            is_ok &= touch(world, process, on, world.now() + 600_000).await;
        }
    }
    for by in 0..world.config.users {
        is_ok &= get_by_user(world, process, by).await;
    }
    is_ok && lists(world, process, Listing::Ids).await && lists(world, process, Listing::Sessions).await
}

/// The calls that list all sessions.
#[derive(Debug, Clone, Copy)]
enum Listing {
    Ids,
    Sessions,
}

async fn page(process: &Process, listing: Listing, at: Cursor) -> Result<(Vec<String>, Option<Cursor>)> {
    match listing {
        Listing::Ids => {
            let (ids, next) = process.begin(|store, done| store.begin_ids(at, done)).await?;
            Ok((ids.iter().map(ToString::to_string).collect(), next))
        }
        Listing::Sessions => {
            let page = process.begin(|store, done| store.begin_sessions(at, done)).await?;
            Ok((page.sessions.iter().map(|session| session.id.to_string()).collect(), page.next))
        }
    }
}

/// Lists all sessions while nothing changes. Returns whether the call succeeded.
async fn lists(world: &World, process: &Process, listing: Listing) -> bool {
    let now = world.now();
    let margin = 60_000 + world.config.clock_margin;
    let is_live = |on: &usize| world.truth(*on).is_some_and(|row| row.expires > now + margin);
    let live: Vec<_> = (0..world.config.sessions).filter(is_live).map(session_id).collect();
    let (mut ids, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        match page(process, listing, at).await {
            Ok((some, next)) => {
                ids.extend(some);
                cursor = next;
            }
            Err(error) => {
                check_error(world, &error);
                return false;
            }
        }
    }
    let still = live.iter().filter(|live| {
        (0..world.config.sessions).any(|on| session_id(on) == **live && world.truth(on).is_some())
    });
    if !still.into_iter().all(|live| ids.iter().filter(|id| *id == live).count() == 1) {
        world.fail(format!("{listing:?} gave {ids:?} where {live:?} are live"));
    }
    true
}
