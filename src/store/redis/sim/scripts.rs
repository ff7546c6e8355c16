//! The store's scripts again, in Rust. `redis::tests::simulated` compares them with a real server.

use std::collections::BTreeMap;

use super::data::{Command, Data};
use crate::clock::Millis;
use crate::store::redis::resp::{
    CREATE, CREATE_WITHIN_LIMIT, END_EXPIRED, END_OF_USER, ENTER, FORGET, MOVE, REPLACE, Reply, Script,
    TOUCH, UPDATE, UPDATE_WITHIN_LIMIT,
};

pub(in crate::store::redis) static ALL: [&Script; 11] = [
    &CREATE,
    &UPDATE,
    &TOUCH,
    &END_OF_USER,
    &END_EXPIRED,
    &FORGET,
    &ENTER,
    &REPLACE,
    &CREATE_WITHIN_LIMIT,
    &UPDATE_WITHIN_LIMIT,
    &MOVE,
];

/// The script that a command runs.
pub(super) fn of(command: &Command) -> Option<&'static Script> {
    let is = |text: &str| command[1] == text.as_bytes();
    match &command[0][..] {
        b"EVAL" => ALL.into_iter().find(|script| is(script.text)),
        b"EVALSHA" => ALL.into_iter().find(|script| is(script.digest)),
        _ => None,
    }
}

/// Whether a full server refuses to run a script. It does not if the first write takes no memory.
pub(super) fn takes_memory(script: &Script, data: &Data, key: &[u8], args: &[Vec<u8>]) -> bool {
    let is = |other: &Script| script.digest == other.digest;
    let end = data.get(key).and_then(|entry| entry.expires);
    let prolongs = is(&ENTER) && end.is_some_and(|end| number(&args[2]).unwrap() > end);
    !(prolongs || is(&TOUCH) || is(&MOVE) || is(&END_OF_USER) || is(&END_EXPIRED) || is(&FORGET))
}

/// Lua's `tonumber`.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Lua's `string.sub`: counted from 1, with both ends included.
fn sub(text: &[u8], first: usize, last: usize) -> &[u8] {
    text.get(first - 1..last.min(text.len())).unwrap_or_default()
}

/// The expiry in a record. `None` if it is not a record.
fn expiry(head: &[u8]) -> Option<i64> {
    number(sub(head, 12, 29)).filter(|_| sub(head, 1, 11) == b"{\"expires\":")
}

/// Whether the index of a session's user must be prolonged before the expiry moves.
fn outlives_index(expires: i64, moved: i64, created: &[u8]) -> bool {
    let since = number(created).unwrap_or(0).div_euclid(1000) + 37 * 60_000;
    moved > expires && moved - (moved - since).rem_euclid(3_600_000) > expires
}

/// Whether a record has this user.
fn is_of(record: &[u8], user: &[u8]) -> bool {
    sub(record, 65, 64 + user.len()) == user
}

fn is_created(record: &[u8], created: Option<&Vec<u8>>) -> bool {
    created.is_none_or(|created| sub(record, 41, 56) == created)
}

/// An optional argument of `UPDATE` or `TOUCH`. An empty one counts as missing.
fn given(args: &[Vec<u8>], at: usize) -> Option<&Vec<u8>> {
    args.get(at).filter(|arg| !arg.is_empty())
}

/// The end of a session's lifetime, and its expiry and the server's, limited to that.
struct Limited {
    last: i64,
    moved: i64,
    field: Vec<u8>,
    until: Vec<u8>,
}

impl Limited {
    fn new(record: &[u8], lifetime: Option<&Vec<u8>>, field: &[u8], until: &[u8]) -> Self {
        let created = number(sub(record, 41, 56)).unwrap_or(0).div_euclid(1000);
        let last = lifetime.map_or(i64::MAX, |lifetime| created + number(lifetime).unwrap());
        let moved = number(field).unwrap();
        if moved <= last {
            return Self { last, moved, field: field.to_vec(), until: until.to_vec() };
        }
        let is_same = number(until) == Some(moved);
        let until = if is_same { last.to_string().into_bytes() } else { until.to_vec() };
        Self { last, moved: last, field: format!(" {last:<17}").into_bytes(), until }
    }
}

/// The end of `TOUCH` and `MOVE`.
fn move_expiry(
    data: &mut Data,
    key: &[u8],
    mut record: Vec<u8>,
    field: &[u8],
    until: &[u8],
    server_now: Millis,
) {
    if record.len() < 64 {
        data.remove(key);
        return;
    }
    record[11..29].copy_from_slice(field);
    data.set_text(key, record, None);
    data.expire_at(key, number(until).unwrap(), server_now);
}

/// `is_full` of `room.lua`, with the script's arguments from the limit on.
fn is_full(
    data: &Data,
    index: &[u8],
    member: &[u8],
    now: i64,
    rule: &[Vec<u8>],
    server_now: Millis,
) -> Result<bool, Reply> {
    let max = number(&rule[0]).unwrap() as usize;
    let lifetime = number(&rule[3]);
    let is_live = |other: &Vec<u8>| {
        let key = [&rule[1][..], other].concat();
        let is_kept = data.get(&key).is_some_and(|entry| entry.expires.is_none_or(|end| end > server_now));
        let Some(record) = data.text(&key).ok().filter(|_| is_kept) else { return false };
        let end = lifetime.map_or(i64::MAX, |lifetime| {
            number(sub(record, 41, 56)).unwrap_or(0).div_euclid(1000) + lifetime
        });
        is_of(record, &rule[2]) && expiry(record).is_some_and(|expires| expires.min(end) > now)
    };
    let others = data.set(index)?.into_iter().flat_map(BTreeMap::keys).filter(|other| *other != member);
    Ok(others.filter(|other| is_live(other)).count() >= max)
}

/// `CREATE`, also with `room.lua` before it.
pub(super) fn create(
    data: &mut Data,
    keys: &[Vec<u8>],
    args: &[Vec<u8>],
    server_now: Millis,
) -> Result<Reply, Reply> {
    let session = &keys[0];
    let record = data.text(session)?.to_vec();
    let mut is_own = false;
    if !record.is_empty() && expiry(&record).ok_or(Reply::Number(-1))? > number(&args[0]).unwrap() {
        is_own = sub(&record, 41, 56) == args[3];
        if !is_own {
            return Ok(Reply::Bytes(record));
        }
    }
    if let Some(rule) = args.get(8..).filter(|rule| !rule.is_empty() && !is_own)
        && is_full(data, &keys[1], &args[4], number(&args[0]).unwrap(), rule, server_now)?
    {
        return Ok(Reply::Number(-2));
    }
    if let Some(index) = keys.get(1) {
        let (version, until) = (number(&args[5]).unwrap(), number(&args[6]).unwrap());
        let held = data.get(index).map(|entry| entry.expires);
        data.change_set(index, |set| set.insert(args[4].clone(), version as f64))?;
        if held.is_none_or(|end| end.is_some_and(|end| until > end)) {
            data.expire_at(index, until, server_now);
        }
    }
    if !is_own {
        if record.is_empty() && data.get(session).is_some() {
            return Ok(Reply::Number(-1));
        }
        data.set_text(session, args[1].clone(), number(&args[2]));
        data.expire(session, server_now);
    }
    let entries = |data: &Data| Ok(data.set(&keys[1])?.map_or(0, BTreeMap::len) as i64);
    Ok(Reply::Number(if args.len() > 7 { entries(data)? } else { 1 }))
}

/// Runs a script on a server. Its errors are replies too.
pub(super) fn run(
    script: &Script,
    data: &mut Data,
    keys: &[Vec<u8>],
    args: &[Vec<u8>],
    server_now: Millis,
) -> Result<Reply, Reply> {
    let key = &keys[0];
    let is = |other: &Script| script.digest == other.digest;
    if is(&FORGET) {
        let mut forgotten = 0;
        for entry in args.chunks(2) {
            if data.score(key, &entry[0])?.is_some_and(|score| Some(score as i64) == number(&entry[1])) {
                data.change_set(key, |set| set.remove(&entry[0]))?;
                forgotten += 1;
            }
        }
        return Ok(Reply::Number(forgotten));
    }
    if is(&ENTER) {
        let (version, until) = (number(&args[1]).unwrap(), number(&args[2]).unwrap());
        let held = data.get(key).map(|entry| entry.expires);
        if held.flatten().is_some_and(|end| until > end) {
            data.expire_at(key, until, server_now);
        }
        let score = data.score(key, &args[0])?.map(|score| score as i64);
        let renewed = match score {
            None => Some(version),
            Some(score) => args.get(3).map(|_| version.max(score) + 1),
        };
        if let Some(version) = renewed {
            data.change_set(key, |set| set.insert(args[0].clone(), version as f64))?;
        }
        if held.is_none() {
            data.expire_at(key, until, server_now);
        }
        let entries = data.set(key)?.map_or(0, BTreeMap::len) as i64;
        return Ok(Reply::Number(if renewed.is_some() { entries } else { -entries }));
    }
    if is(&REPLACE) {
        if data.get(key).is_none() || data.text(key)? != args[0] {
            return Ok(Reply::Number(0));
        }
        data.set_text(key, args[1].clone(), args.get(2).and_then(|until| number(until)));
        data.expire(key, server_now);
        return Ok(Reply::Number(1));
    }
    let record = data.text(key)?.to_vec();
    if is(&MOVE) {
        if sub(&record, 1, 68) != args[0] {
            return Ok(Reply::Number(0));
        }
        move_expiry(data, key, record, &args[1], &args[2], server_now);
        return Ok(Reply::Number(1));
    }
    let now = number(&args[0]).unwrap();
    // A time in the past removes the key immediately.
    let keep = |data: &mut Data, text: Vec<u8>, until: &[u8]| {
        data.set_text(key, text, number(until));
        data.expire(key, server_now);
    };
    let expires = expiry(&record).ok_or(Reply::Number(0))?;
    if is(&UPDATE) || is(&UPDATE_WITHIN_LIMIT) {
        if expires <= now {
            return Ok(Reply::Number(0));
        }
        let limited = Limited::new(&record, given(args, 6), sub(&args[1], 12, 29), &args[4]);
        if limited.last <= now {
            return Ok(Reply::Number(0));
        }
        let created = given(args, 5);
        if !is_of(&record, &args[3]) || !is_created(&record, created) {
            return Ok(Reply::Number(2));
        }
        let is_nobodys = args[3].starts_with(b"null");
        if created.is_none() && !is_nobodys && outlives_index(expires, limited.moved, sub(&record, 41, 56)) {
            return Ok(Reply::Number(3));
        }
        if let [member, version, rule @ ..] = args.get(7..).unwrap_or_default() {
            let index = &keys[1];
            let Some(score) = data.score(index, member)? else { return Ok(Reply::Number(2)) };
            if is_full(data, index, member, now, rule, server_now)? {
                return Ok(Reply::Number(4));
            }
            let renewed = (score as i64).max(number(version).unwrap()) + 1;
            data.change_set(index, |set| set.insert(member.clone(), renewed as f64))?;
        }
        let head = [sub(&args[1], 1, 11), &limited.field, sub(&args[1], 30, args[1].len())].concat();
        keep(data, [&head[..], sub(&record, 41, 56), &args[2]].concat(), &limited.until);
    } else if is(&TOUCH) {
        if expires <= now {
            return Ok(Reply::Number(0));
        }
        let limited = Limited::new(&record, given(args, 4), &args[1], &args[2]);
        if limited.last <= now {
            return Ok(Reply::Number(0));
        }
        let enough = args.get(3).and_then(|enough| number(enough));
        if enough.is_some_and(|enough| expires >= enough.min(limited.last)) {
            return Ok(Reply::Number(1));
        }
        let is_nobodys = sub(&record, 65, 68) == b"null";
        let is_prolonged =
            given(args, 5).is_some_and(|owner| sub(&record, 41, 40 + owner.len()) == owner.as_slice());
        if !is_nobodys && !is_prolonged && outlives_index(expires, limited.moved, sub(&record, 41, 56)) {
            return Ok(Reply::Number(2));
        }
        move_expiry(data, key, record, &limited.field, &limited.until, server_now);
    } else if is(&END_OF_USER) {
        if !is_of(&record, &args[1]) || !is_created(&record, args.get(2)) {
            return Ok(Reply::Number(0));
        }
        data.remove(key);
        let created = Reply::Bytes(sub(&record, 41, 56).to_vec());
        return Ok(if expires <= now { Reply::Number(1) } else { created });
    } else if is(&END_EXPIRED) {
        return Ok(Reply::Number(i64::from(expires <= now && data.remove(key))));
    }
    Ok(Reply::Number(1))
}
