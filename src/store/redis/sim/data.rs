//! The data of a simulated server, and the effects of the commands that the store uses, as Redis documents them.

use std::collections::BTreeMap;

use super::scripts;
use crate::clock::Millis;
use crate::store::redis::resp::{CREATE, CREATE_WITHIN_LIMIT, Reply};

pub(in crate::store::redis) type Command = Vec<Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(Vec<u8>),
    Set(BTreeMap<Vec<u8>, f64>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub value: Value,
    pub expires: Option<Millis>,
}

#[derive(Debug, Clone, Default)]
pub(in crate::store::redis) struct Data {
    keys: BTreeMap<Vec<u8>, Entry>,
}

const WRONG_TYPE: &[u8] = b"WRONGTYPE Operation against a key holding the wrong kind of value";

/// The key of a command, if it has one.
pub(super) fn key_of(command: &Command) -> Option<&[u8]> {
    let at = match &command[0][..] {
        b"EVAL" | b"EVALSHA" => 3,
        b"PING" | b"ROLE" | b"SCAN" | b"CLUSTER" | b"SENTINEL" | b"ASKING" | b"CLIENT" | b"TIME"
        | b"HELLO" | b"SUBSCRIBE" | b"MULTI" | b"EXEC" => return None,
        _ => 1,
    };
    command.get(at).map(Vec::as_slice)
}

/// The keys of a script, and its arguments.
pub(super) fn keys_and_args(command: &Command) -> (&[Vec<u8>], &[Vec<u8>]) {
    command[3..].split_at(parsed(&command[2]).unwrap())
}

/// All keys of a command.
pub(super) fn keys_of(command: &Command) -> impl Iterator<Item = &[u8]> {
    let more = if scripts::of(command).is_some() { &keys_and_args(command).0[1..] } else { &[] };
    key_of(command).into_iter().chain(more.iter().map(Vec::as_slice))
}

/// Whether a replica refuses the command.
pub(super) fn is_write(command: &Command) -> bool {
    !matches!(&command[0][..], b"GET" | b"GETRANGE" | b"ZCARD" | b"ZSCORE" | b"ZRANGE" | b"ZRANDMEMBER")
        && key_of(command).is_some()
}

/// Whether a full server refuses the command.
pub(super) fn takes_memory(command: &Command, data: &Data) -> bool {
    match scripts::of(command) {
        Some(script) => scripts::takes_memory(script, data, &command[3], keys_and_args(command).1),
        None => matches!(&command[0][..], b"SET" | b"ZADD" | b"EVAL" | b"EVALSHA"),
    }
}

pub(super) fn error(text: &str) -> Reply {
    Reply::Error(text.as_bytes().to_vec())
}

fn parsed<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Data {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.keys.get(key)
    }

    /// Copies a key from another server.
    pub(super) fn put(&mut self, key: &[u8], entry: Option<Entry>) {
        match entry {
            Some(entry) => drop(self.keys.insert(key.to_vec(), entry)),
            None => drop(self.keys.remove(key)),
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.keys == other.keys
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        self.keys.retain(|key, _| keep(key));
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.keys().map(Vec::as_slice)
    }

    /// The string under a key, or an empty one if the key is absent.
    pub(super) fn text(&self, key: &[u8]) -> Result<&[u8], Reply> {
        match self.keys.get(key).map(|entry| &entry.value) {
            None => Ok(&[]),
            Some(Value::Text(text)) => Ok(text),
            Some(Value::Set(_)) => Err(Reply::Error(WRONG_TYPE.to_vec())),
        }
    }

    pub(super) fn set_text(&mut self, key: &[u8], text: Vec<u8>, expires: Option<Millis>) {
        self.keys.insert(key.to_vec(), Entry { value: Value::Text(text), expires });
    }

    /// Sets the expiry of a key. A time in the past removes the key immediately.
    pub(super) fn expire_at(&mut self, key: &[u8], at: Millis, now: Millis) {
        if at <= now {
            self.remove(key);
        } else if let Some(entry) = self.keys.get_mut(key) {
            entry.expires = Some(at);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        self.keys.remove(key).is_some()
    }

    pub(super) fn set(&self, key: &[u8]) -> Result<Option<&BTreeMap<Vec<u8>, f64>>, Reply> {
        match self.keys.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Set(set)) => Ok(Some(set)),
            Some(Value::Text(_)) => Err(Reply::Error(WRONG_TYPE.to_vec())),
        }
    }

    pub(super) fn score(&self, key: &[u8], member: &[u8]) -> Result<Option<f64>, Reply> {
        Ok(self.set(key)?.and_then(|set| set.get(member).copied()))
    }

    /// Changes a sorted set, which is removed with its last member.
    pub(super) fn change_set<T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut BTreeMap<Vec<u8>, f64>) -> T,
    ) -> Result<T, Reply> {
        let new = || Entry { value: Value::Set(BTreeMap::new()), expires: None };
        let entry = self.keys.entry(key.to_vec()).or_insert_with(new);
        let Value::Set(set) = &mut entry.value else { return Err(Reply::Error(WRONG_TYPE.to_vec())) };
        let changed = change(set);
        if set.is_empty() {
            self.keys.remove(key);
        }
        Ok(changed)
    }

    /// Removes an expired key, as a server does before it accesses the key.
    pub(super) fn expire(&mut self, key: &[u8], now: Millis) {
        if self.keys.get(key).and_then(|entry| entry.expires).is_some_and(|expires| expires < now) {
            self.keys.remove(key);
        }
    }

    pub(in crate::store::redis) fn carry_out(
        &mut self,
        command: &Command,
        now: Millis,
        page: usize,
    ) -> Reply {
        keys_of(command).for_each(|key| self.expire(key, now));
        self.answer(command, now, page).unwrap_or_else(|refusal| refusal)
    }

    fn answer(&mut self, command: &Command, now: Millis, page: usize) -> Result<Reply, Reply> {
        if let Some(script) = scripts::of(command) {
            let (keys, args) = keys_and_args(command);
            if [CREATE.digest, CREATE_WITHIN_LIMIT.digest].contains(&script.digest) {
                return scripts::create(self, keys, args, now);
            }
            return scripts::run(script, self, keys, args, now);
        }
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let text_or_nil =
            |text: &[u8]| if text.is_empty() { Reply::Nil } else { Reply::Bytes(text.to_vec()) };
        Ok(match &args[..] {
            [b"GET", key] => text_or_nil(self.text(key)?),
            [b"GETDEL", key] => {
                let held = text_or_nil(self.text(key)?);
                self.remove(key);
                held
            }
            [b"GETRANGE", key, first, last] => {
                let text = self.text(key)?;
                let (first, last) = (parsed::<i64>(first).unwrap(), parsed::<i64>(last).unwrap());
                let end =
                    if last < 0 { text.len() as i64 + last + 1 } else { (last + 1).min(text.len() as i64) };
                Reply::Bytes(text.get(first as usize..end as usize).unwrap_or_default().to_vec())
            }
            [b"SET", key, value, options @ ..] => {
                let has = |name: &[u8]| options.iter().position(|option| *option == name);
                if has(b"NX").is_some() && self.keys.contains_key(*key) {
                    return Ok(Reply::Nil);
                }
                if let Some(at) = has(b"IFEQ")
                    && (!self.keys.contains_key(*key) || self.text(key)? != options[at + 1])
                {
                    return Ok(Reply::Nil);
                }
                let after = |name: &[u8]| has(name).and_then(|at| parsed::<Millis>(options[at + 1]));
                let expires = after(b"PXAT").or_else(|| after(b"PX").map(|millis| now + millis));
                self.set_text(key, value.to_vec(), expires);
                Reply::Okay
            }
            [name @ (b"PEXPIRE" | b"PEXPIREAT"), key, at, only @ ..] => {
                let start = if *name == b"PEXPIRE" { now } else { 0 };
                let at = start + parsed::<Millis>(at).unwrap();
                let moves = self.keys.get(*key).is_some_and(|entry| match only {
                    [b"GT"] => entry.expires.is_some_and(|end| at > end),
                    [b"NX"] => entry.expires.is_none(),
                    _ => true,
                });
                if moves {
                    self.expire_at(key, at, now);
                }
                Reply::Number(moves.into())
            }
            [b"PEXPIRETIME", key] => Reply::Number(match self.keys.get(*key) {
                None => -2,
                Some(entry) => entry.expires.unwrap_or(-1),
            }),
            [b"ZADD", key, score, member] => {
                let score = parsed(score).unwrap();
                let held = self.change_set(key, |set| set.insert(member.to_vec(), score))?;
                Reply::Number(held.is_none().into())
            }
            [b"ZCARD", key] => Reply::Number(self.set(key)?.map_or(0, BTreeMap::len) as i64),
            [b"ZSCORE", key, member] => match self.score(key, member)? {
                Some(score) => Reply::Bytes(score.to_string().into_bytes()),
                None => Reply::Nil,
            },
            [b"ZRANGE", key, first, last, b"WITHSCORES"] => {
                self.entries(key, parsed::<i64>(first).unwrap() as usize, parsed(last).unwrap())?
            }
            [b"ZRANDMEMBER", key, count, b"WITHSCORES"] => self.sample(key, parsed(count).unwrap(), now)?,
            [b"SCAN", cursor, b"MATCH", pattern, ..] => {
                self.scan(parsed(cursor).unwrap(), pattern, now, page)
            }
            [b"CLIENT", ..] => Reply::Okay,
            [b"TIME"] => {
                let parts = [now / 1000, now % 1000 * 1000];
                Reply::Array(parts.map(|part| Reply::Bytes(part.to_string().into_bytes())).to_vec())
            }
            _ => error(&format!("ERR unknown command '{}'", String::from_utf8_lossy(args[0]))),
        })
    }

    /// Entries of a sorted set with their scores, in order of score.
    fn entries(&self, key: &[u8], first: usize, last: i64) -> Result<Reply, Reply> {
        let mut entries: Vec<_> = self.set(key)?.into_iter().flatten().collect();
        entries.sort_by(|one, other| one.1.total_cmp(other.1).then(one.0.cmp(other.0)));
        let end = if last < 0 { entries.len() } else { entries.len().min(last as usize + 1) };
        let some = entries.get(first..end).unwrap_or_default();
        let each = some.iter().flat_map(|(member, score)| [(*member).clone(), score.to_string().into()]);
        Ok(Reply::Array(each.map(Reply::Bytes).collect()))
    }

    /// A random sample of a sorted set.
    fn sample(&self, key: &[u8], count: usize, now: Millis) -> Result<Reply, Reply> {
        let Reply::Array(parts) = self.entries(key, 0, -1)? else { return Ok(Reply::Array(Vec::new())) };
        let mut entries: Vec<_> = parts.chunks(2).collect();
        let salt = now.to_le_bytes();
        entries.sort_by_key(|entry| match &entry[0] {
            Reply::Bytes(member) => hash(&[member, &salt[..]].concat()),
            _ => 0,
        });
        entries.truncate(count);
        Ok(Reply::Array(entries.concat()))
    }

    /// Scans keys in order of their hashes, which serve as cursors. So a key that exists throughout is found.
    fn scan(&mut self, cursor: u64, pattern: &[u8], now: Millis, page: usize) -> Reply {
        let keys: Vec<Vec<u8>> = self.keys.keys().cloned().collect();
        keys.iter().for_each(|key| self.expire(key, now));
        let start = start_of(pattern);
        let mut hashed: Vec<_> = self.keys.keys().map(|key| (hash(key), key)).collect();
        hashed.sort();
        let rest: Vec<_> = hashed.into_iter().filter(|(hash, _)| *hash > cursor).collect();
        let next = if rest.len() > page { rest[page - 1].0 } else { 0 };
        let found = rest.into_iter().take(page).filter(|(_, key)| key.starts_with(&start));
        let found = found.map(|(_, key)| Reply::Bytes(key.clone())).collect();
        Reply::Array(vec![Reply::Bytes(next.to_string().into_bytes()), Reply::Array(found)])
    }
}

/// The common start of all keys that match a pattern of the store.
fn start_of(pattern: &[u8]) -> Vec<u8> {
    let mut start = Vec::new();
    let mut bytes = pattern.strip_suffix(b"*").unwrap().iter();
    while let Some(&byte) = bytes.next() {
        start.push(if byte == b'\\' { *bytes.next().unwrap() } else { byte });
    }
    start
}

fn hash(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 8).max(1)
}

/// Appends a reply in RESP encoding.
pub(in crate::store::redis) fn encode(reply: &Reply, out: &mut Vec<u8>) {
    let mut line = |kind: u8, text: &[u8]| {
        out.push(kind);
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    };
    match reply {
        Reply::Okay => line(b'+', b"OK"),
        Reply::Status(text) => line(b'+', text),
        Reply::Error(text) => line(b'-', text),
        Reply::Number(number) => line(b':', number.to_string().as_bytes()),
        Reply::Nil => line(b'$', b"-1"),
        Reply::Bytes(bytes) => {
            line(b'$', bytes.len().to_string().as_bytes());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Array(items) | Reply::Push(items) => {
            let kind = if matches!(reply, Reply::Push(_)) { b'>' } else { b'*' };
            line(kind, items.len().to_string().as_bytes());
            items.iter().for_each(|item| encode(item, out));
        }
    }
}

/// The command at the start of some bytes, and its length.
pub(in crate::store::redis) fn parse(bytes: &[u8]) -> Option<(Command, usize)> {
    let mut at = 0;
    let size = |at: &mut usize| {
        let len = bytes.get(*at..)?.windows(2).position(|two| two == b"\r\n")?;
        let size = parsed(&bytes[*at + 1..*at + len]).unwrap();
        *at += len + 2;
        Some(size)
    };
    let args: usize = size(&mut at)?;
    let mut command = Command::new();
    for _ in 0..args {
        let len: usize = size(&mut at)?;
        command.push(bytes.get(at..at + len)?.to_vec());
        at += len + 2;
    }
    (bytes.len() >= at).then_some((command, at))
}
