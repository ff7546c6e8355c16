//! The clients: the operations of a lane and their results.

use std::rc::Rc;

use super::model::{Answer, Op, Read, Row};
use super::process::{JobKind, Process, Store};
use super::scheduler::current;
use super::world::World;
use crate::clock::{Clock, Millis};
use crate::codec;
use crate::error::Result;
use crate::session::{Body, Expiry, SessionId, UserKeyBuf};
use crate::store::conformance::json;
use crate::store::file::apply::{NewRecord, Write};

const USERS: usize = 2;

pub(super) fn id_text(lane: usize, id: usize) -> String {
    format!("session-{lane}-{id}-of-the-simulation")
}

fn session_id(lane: usize, id: usize) -> SessionId {
    SessionId::new(&id_text(lane, id)).unwrap_or_else(|_| unreachable!("it is an id"))
}

fn user_key(lane: usize, user: usize) -> UserKeyBuf {
    UserKeyBuf::from_text(&format!("user-{lane}-{user}"))
}

fn place_of(id: &SessionId) -> Option<(usize, usize)> {
    let text = id.to_string();
    let mut parts = text.strip_prefix("session-")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn record(lane: usize, row: &Row, padding: usize) -> NewRecord {
    let user = row.user.map(|user| user_key(lane, user));
    let text = format!(
        r#"{{"v":{},"sessionId":"{}","expires":"2027-01-15T08:00:00.000Z","pad":"{}"}}"#,
        row.version,
        id_text(lane, row.id),
        "x".repeat(padding)
    );
    let expires = Expiry::new(row.expires).unwrap_or_else(|_| unreachable!("it is a time"));
    NewRecord::new(&json(&id_text(lane, row.id), user.as_ref(), &text, expires))
}

fn version_of(content: &[u8]) -> Option<u32> {
    let Body::Json { text, .. } = codec::decode(content).ok()?.body else { return None };
    text.strip_prefix("{\"v\":")?.split(',').next()?.parse().ok()
}

/// Runs the client of a lane.
pub(super) fn client(lane: usize) {
    let world = current();
    for _ in 0..world.config.ops {
        let pause = world.random.borrow_mut().between(0, world.config.think_micros);
        world.sleep_micros(pause);
        let kind = choose(&world);
        let (process, store) = open_process(&world, matches!(kind, 5 | 6));
        let _using = store.using();
        match kind {
            kind @ 0..=4 => write(&world, lane, kind, &process, &store),
            5 => {
                let id = world.random.borrow_mut().below(world.config.ids);
                read(&world, lane, Read::Get(id), &process, &store);
            }
            6 => {
                let user = world.random.borrow_mut().below(USERS);
                read(&world, lane, Read::ByUser(user), &process, &store);
            }
            7 => clear(&world, &process, &store),
            8 => read(&world, lane, Read::Ids, &process, &store),
            9 if world.config.lanes == 1 => read(&world, lane, Read::Size, &process, &store),
            10 => drop(world.inside(process.id, || match store.clean(&world) {
                Ok(()) => {}
                Err(error) => world.expect(&error),
            })),
            11 => verify(&world, &process, &store),
            12 => back_up(&world, &process, &store),
            _ => write(&world, lane, 2, &process, &store),
        }
    }
    world.clients.set(world.clients.get() - 1);
}

/// Runs a thread that reads the sessions of a lane.
pub(super) fn reader(lane: usize) {
    let world = current();
    for _ in 0..3 * world.config.ops {
        if world.clients.get() == 0 {
            break;
        }
        let pause = world.random.borrow_mut().between(0, world.config.think_micros);
        world.sleep_micros(pause);
        let (process, store) = open_process(&world, true);
        let _using = store.using();
        let what = {
            let mut random = world.random.borrow_mut();
            match random.below(4) {
                0 => Read::ByUser(random.below(USERS)),
                _ => Read::Get(random.below(world.config.ids)),
            }
        };
        read(&world, lane, what, &process, &store);
    }
}

fn open_process(world: &Rc<World>, reads: bool) -> (Rc<Process>, Rc<Store>) {
    loop {
        if let Some(process) = world.any_open(reads)
            && let Some(store) = process.store.borrow().clone()
        {
            return (Rc::clone(&process), store);
        }
        let waited = Rc::downgrade(world);
        world.wait_until(move || waited.upgrade().is_some_and(|world| world.has_open()));
    }
}

fn choose(world: &World) -> usize {
    let weights = &world.config.weights;
    let mut left = world.random.borrow_mut().below(weights.iter().sum());
    weights
        .iter()
        .position(|weight| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        })
        .unwrap_or(0)
}

fn write(world: &Rc<World>, lane: usize, kind: usize, process: &Rc<Process>, store: &Rc<Store>) {
    let burst = match world.random.borrow_mut().below(4) {
        0 => 4,
        1 => 2,
        _ => 1,
    };
    let mut done = Vec::new();
    for nth in 0..burst {
        let kind = if nth == 0 { kind } else { choose(world).min(4) };
        let (op, write) = new_write(world, lane, kind);
        world.trace(format!("lane {lane} in {}: {op:?}", process.id));
        if process.is_dead.get() {
            return;
        }
        let number = {
            let mut lanes = world.lanes.borrow_mut();
            lanes[lane].process = Some(process.id);
            lanes[lane].begin_write(op, world)
        };
        done.push(store.push(write, JobKind::Lane(lane, number)));
    }
    let waited = Rc::clone(process);
    world.wait_until(move || waited.is_dead.get() || done.iter().all(|done| done.get()));
}

fn new_write(world: &World, lane: usize, kind: usize) -> (Op, Write) {
    let now = world.clock.now();
    let mut random = world.random.borrow_mut();
    let id = random.below(world.config.ids);
    let lifetime: Millis =
        *random.pick(&[500, 5_000, 60_000, 600_000, 86_400_000, 86_400_000, 86_400_000, 86_400_000]);
    let row = Row {
        id,
        user: Some(random.below(USERS + 1)).filter(|user| *user < USERS),
        expires: now + lifetime,
        version: random.next() as u32,
        created_at: now,
    };
    let padding = random.below(world.config.max_content);
    let user = random.below(USERS);
    match kind {
        0 => {
            let write = Write::Create(record(lane, &row, padding));
            (Op::Create(row), write)
        }
        1 => {
            let write = Write::Update(record(lane, &row, padding));
            (Op::Update(row), write)
        }
        2 => {
            let expires = if random.chance(50_000) { now - 1 } else { now + lifetime };
            let enough = Some(now + 30_000).filter(|_| random.chance(200_000));
            let moved = Expiry::moved_to(expires).unwrap_or_else(|_| unreachable!("it is a time"));
            let write = Write::Touch { id: session_id(lane, id), expires: moved, enough };
            (Op::Touch { id, expires, enough }, write)
        }
        3 => (Op::Delete { id }, Write::Delete { id: session_id(lane, id) }),
        _ => {
            let except = Some(id).filter(|_| random.chance(500_000));
            let write = Write::DeleteByUser {
                user: user_key(lane, user),
                except: except.map(|id| session_id(lane, id)),
                max: usize::MAX,
            };
            (Op::DeleteByUser { user, except }, write)
        }
    }
}

pub(super) fn look(store: &Store, lane: usize, what: &Read) -> Result<Answer> {
    Ok(match what {
        Read::Get(id) => {
            Answer::Session(store.environment.get_with(&session_id(lane, *id), |expires, content| {
                Ok((version_of(content).unwrap_or(0), expires.millis()))
            })?)
        }
        Read::ByUser(user) => {
            Answer::Sessions(store.by_user(&user_key(lane, *user), |key, expires, content| {
                let (_, id) = place_of(&SessionId::from_packed(key).ok()?)?;
                Some((id, version_of(content)?, expires))
            })?)
        }
        Read::Size => Answer::Size(store.size()?),
        Read::Ids => {
            let mut ids: Vec<usize> = store
                .ids()?
                .iter()
                .filter_map(place_of)
                .filter(|(of, _)| *of == lane)
                .map(|(_, id)| id)
                .collect();
            ids.sort_unstable();
            Answer::Ids(ids)
        }
    })
}

pub(super) fn read(world: &Rc<World>, lane: usize, what: Read, process: &Rc<Process>, store: &Rc<Store>) {
    let waited = Rc::downgrade(world);
    world.wait_until(move || waited.upgrade().is_some_and(|world| !world.lanes.borrow()[lane].is_reading()));
    world.trace(format!("lane {lane} in {}: {what:?}", process.id));
    world.lanes.borrow_mut()[lane].begin_read(what.clone(), world);
    let seen = world.inside(process.id, || look(store, lane, &what));
    let mut lanes = world.lanes.borrow_mut();
    match seen {
        Some(Ok(answer)) => {
            world.trace(format!("lane {lane} {what:?}: {answer:?}"));
            let judged = lanes[lane].end_read(&answer, world);
            drop(lanes);
            if let Err(problem) = judged {
                world.fail_here(format!("lane {lane} {what:?} gave {answer:?}: {problem}"));
            }
        }
        Some(Err(error)) => {
            lanes[lane].drop_read();
            drop(lanes);
            if !matches!(what, Read::Ids | Read::Size) {
                world.fail_here(format!("lane {lane} {what:?}: {error}"));
            }
            world.expect(&error);
        }
        None => lanes[lane].drop_read(),
    }
}

fn clear(world: &Rc<World>, process: &Rc<Process>, store: &Rc<Store>) {
    if world.clearing.get().is_some() || process.is_dead.get() {
        return;
    }
    world.trace(format!("clear in {}", process.id));
    world.clearing.set(Some(process.id));
    world.lanes.borrow_mut().iter_mut().for_each(|lane| lane.begin_clear(world));
    let done = store.push(Write::Clear, JobKind::Clear);
    let waited = Rc::clone(process);
    world.wait_until(move || waited.is_dead.get() || done.get());
}

pub(super) fn verify(world: &Rc<World>, process: &Rc<Process>, store: &Rc<Store>) {
    match world.inside(process.id, || store.verify()) {
        Some(Ok(problems)) if !problems.is_empty() => world.fail_here(format!("verify: {problems:?}")),
        Some(Err(error)) => world.expect(&error),
        _ => {}
    }
}

fn back_up(world: &Rc<World>, process: &Rc<Process>, store: &Rc<Store>) {
    match world.inside(process.id, || store.backup_needs_log()) {
        Some(Ok(true)) => world.fail_here("a backup needs a log".into()),
        Some(Err(error)) => world.expect(&error),
        _ => {}
    }
}

/// Checks all sessions, indexes and counts.
pub(super) fn check_all(world: &Rc<World>, process: &Rc<Process>, store: &Rc<Store>) {
    for lane in 0..world.config.lanes {
        for id in 0..world.config.ids {
            read(world, lane, Read::Get(id), process, store);
        }
        for user in 0..USERS {
            read(world, lane, Read::ByUser(user), process, store);
        }
        read(world, lane, Read::Ids, process, store);
    }
    verify(world, process, store);
    let now = world.clock.now();
    let live: Option<usize> = world.lanes.borrow().iter().map(|lane| lane.live(now)).sum();
    let size = world.inside(process.id, || store.size());
    if let (Some(live), Some(size)) = (live, size)
        && size != Ok(live as u64)
    {
        world.fail_here(format!("size() gives {size:?} of {live} sessions"));
    }
}
