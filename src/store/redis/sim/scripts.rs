//! The store's scripts once more, each as its `.lua` file says. `redis::tests::simulated` compares them with a server's.

use super::data::{Command, Data};
use crate::clock::Millis;
use crate::store::redis::resp::{
    CREATE, END_EXPIRED, END_OF_USER, ENTER, FORGET, REPLACE, Reply, Script, TOUCH, UPDATE,
};

pub(in crate::store::redis) static ALL: [&Script; 8] =
    [&CREATE, &UPDATE, &TOUCH, &END_OF_USER, &END_EXPIRED, &FORGET, &ENTER, &REPLACE];

/// The script that a command runs.
pub(super) fn of(command: &Command) -> Option<&'static Script> {
    let is = |text: &str| command[1] == text.as_bytes();
    match &command[0][..] {
        b"EVAL" => ALL.into_iter().find(|script| is(script.text)),
        b"EVALSHA" => ALL.into_iter().find(|script| is(script.digest)),
        _ => None,
    }
}

pub(super) fn frees_memory(script: &Script) -> bool {
    [&END_OF_USER, &END_EXPIRED, &FORGET].iter().any(|other| other.digest == script.digest)
}

/// Lua's `tonumber`.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Lua's `string.sub`, from 1, both ends included.
fn sub(text: &[u8], first: usize, last: usize) -> &[u8] {
    text.get(first - 1..last.min(text.len())).unwrap_or_default()
}

/// The expiry that a record says; an answer where it is none.
fn expiry(head: &[u8]) -> Result<i64, Reply> {
    let expires = number(sub(head, 12, 29));
    if sub(head, 1, 11) != b"{\"expires\":" { None } else { expires }.ok_or(Reply::Number(-1))
}

/// Whether the user of a record and what follows it is this.
fn is_of(record: &[u8], user: &[u8]) -> bool {
    sub(record, 65, 64 + user.len()) == user
}

fn is_created(record: &[u8], created: Option<&Vec<u8>>) -> bool {
    created.is_none_or(|created| sub(record, 41, 56) == created)
}

/// Runs a script at a server. What it refuses is an answer too.
pub(super) fn run(
    script: &Script,
    data: &mut Data,
    key: &[u8],
    args: &[Vec<u8>],
    server_now: Millis,
) -> Result<Reply, Reply> {
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
        let least = number(&args[1]).unwrap();
        let version = data.score(key, &args[0])?.map_or(least, |held| least.max(held as i64 + 1));
        data.change_set(key, |set| set.insert(args[0].clone(), version as f64))?;
        return Ok(Reply::Number(version));
    }
    if is(&REPLACE) {
        if data.get(key).is_none() || data.text(key)? != args[0] {
            return Ok(Reply::Number(0));
        }
        data.set_text(key, args[1].clone(), None);
        return Ok(Reply::Number(1));
    }
    let record = data.text(key)?.to_vec();
    let now = number(&args[0]).unwrap();
    // A time that is past ends a key at once.
    let keep = |data: &mut Data, text: Vec<u8>, until: &[u8]| {
        data.set_text(key, text, number(until));
        data.expire(key, server_now);
    };
    if is(&CREATE) {
        if !record.is_empty() && expiry(&record)? > now {
            let is_own = args.len() > 3 && is_created(&record, args.get(3));
            return Ok(if is_own { Reply::Number(1) } else { Reply::Bytes(record) });
        }
        keep(data, args[1].clone(), &args[2]);
        return Ok(Reply::Number(1));
    }
    if record.is_empty() {
        return Ok(Reply::Number(0));
    }
    let expires = expiry(&record)?;
    if is(&UPDATE) {
        if expires <= now {
            return Ok(Reply::Number(0));
        }
        if !is_of(&record, &args[3]) || !is_created(&record, args.get(5)) {
            return Ok(Reply::Number(2));
        }
        keep(data, [&args[1], sub(&record, 41, 56), &args[2]].concat(), &args[4]);
    } else if is(&TOUCH) {
        if expires <= now {
            return Ok(Reply::Number(0));
        }
        if args.get(3).and_then(|enough| number(enough)).is_some_and(|enough| expires >= enough) {
            return Ok(Reply::Number(1));
        }
        let mut moved = record;
        moved.resize(moved.len().max(29), 0);
        moved[11..29].copy_from_slice(&args[1]);
        keep(data, moved, &args[2]);
    } else if is(&END_OF_USER) {
        if !is_of(&record, &args[1]) || !is_created(&record, args.get(2)) {
            return Ok(Reply::Number(0));
        }
        data.remove(key);
        return Ok(Reply::Number(if expires <= now { 2 } else { 1 }));
    } else if is(&END_EXPIRED) {
        return Ok(Reply::Number(i64::from(expires <= now && data.remove(key))));
    }
    Ok(Reply::Number(1))
}
