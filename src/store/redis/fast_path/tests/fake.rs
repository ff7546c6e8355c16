//! A fake server that supports the commands of calls on one session. For each command, the test decides what it does.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::mem;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::store::redis::resp::{
    CREATE, CREATE_WITHIN_LIMIT, END_OF_USER, ENTER, FORGET, MOVE, REPLACE, SLOTS, Script, TOUCH, UPDATE,
    slot_of,
};

pub type Command = Vec<Vec<u8>>;

/// What the server does with a command.
#[derive(Debug, Clone)]
pub enum Conduct {
    Do,
    /// Replies with this, and does not run the command.
    Answer(&'static [u8]),
    /// Neither runs nor answers this command or any later one.
    Stall,
    /// Does not run the command, and ends the connection.
    End,
    /// Runs the command, sends this many bytes of the reply, and ends the connection.
    DoAndEnd(usize),
    /// Runs the command, sends something else, and ends the connection.
    DoAndCorrupt,
}

/// Decides about a command. The first argument is whether the fast path has sent it.
pub type Decide = dyn Fn(bool, &Command) -> Conduct + Send + Sync;

/// The data of a server.
#[derive(Default)]
pub struct Data {
    pub strings: HashMap<Vec<u8>, Vec<u8>>,
    pub sets: HashMap<Vec<u8>, HashMap<Vec<u8>, i64>>,
    /// The worker's commands, as names and first keys.
    pub log: Vec<String>,
    /// The tracked connections, by the keys that they have read.
    readers: HashMap<Vec<u8>, Vec<Arc<TcpStream>>>,
    /// Whether it does not support `SET … IFEQ`.
    pub is_old: bool,
    /// All states of each string, in order. It is absent at first.
    pub history: HashMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
}

/// The nodes of a cluster, and which of them own the lower and the upper half of the slots. All share the same data,
/// so a slot moves immediately.
#[derive(Default)]
pub struct Slots {
    ports: Vec<u16>,
    owners: [usize; 2],
    epoch: usize,
}

impl Slots {
    fn owner(&self, slot: u16) -> u16 {
        self.ports[self.owners[usize::from(slot) / (SLOTS / 2)]]
    }

    /// Moves a half to the next node.
    pub fn move_half(&mut self, half: usize) {
        self.owners[half] = (self.owners[half] + 1) % self.ports.len();
        self.epoch += 1;
    }

    /// A node's description of the cluster, if a command asks for it.
    fn describe(&self, command: &Command) -> Option<Vec<u8>> {
        match (&command[0][..], &command[1][..]) {
            (b"CLUSTER", b"INFO") => {
                Some(bulk(format!("cluster_current_epoch:{}\r\n", self.epoch).as_bytes()))
            }
            (b"CLUSTER", b"SLOTS") => {
                let half = SLOTS / 2;
                let range = |at: usize| {
                    let (first, last) = (at * half, (at + 1) * half - 1);
                    let port = self.owner(first as u16);
                    format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
                };
                Some(format!("*2\r\n{}{}", range(0), range(1)).into_bytes())
            }
            _ => None,
        }
    }

    /// The redirect from a node for a key that it does not own.
    fn redirect(&self, port: u16, command: &Command) -> Option<Vec<u8>> {
        if self.ports.is_empty() {
            return None;
        }
        let slot = slot_of(if script_of(command).is_some() { &command[3] } else { &command[1] });
        let owner = self.owner(slot);
        (owner != port).then(|| format!("-MOVED {slot} 127.0.0.1:{owner}\r\n").into_bytes())
    }
}

pub struct Fake {
    pub port: u16,
    pub data: Arc<Mutex<Data>>,
    pub slots: Arc<Mutex<Slots>>,
    has_ended: Arc<AtomicBool>,
}

impl Fake {
    pub fn start(decide: impl Fn(bool, &Command) -> Conduct + Send + Sync + 'static) -> Self {
        Self::start_all(1, decide)
    }

    /// Starts the nodes of a cluster. The first one is the seed.
    pub fn start_cluster(
        nodes: usize,
        decide: impl Fn(bool, &Command) -> Conduct + Send + Sync + 'static,
    ) -> Self {
        Self::start_all(nodes, decide)
    }

    fn start_all(nodes: usize, decide: impl Fn(bool, &Command) -> Conduct + Send + Sync + 'static) -> Self {
        let (data, has_ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (slots, decide): (Arc<Mutex<Slots>>, Arc<Decide>) = (Arc::default(), Arc::new(decide));
        let listeners: Vec<_> = (0..nodes).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
        let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let port = ports[0];
        if nodes > 1 {
            *slots.lock().unwrap() = Slots { ports, owners: [0, 1], epoch: 1 };
        }
        for listener in listeners {
            let (held, slots, is_over) = (Arc::clone(&data), Arc::clone(&slots), Arc::clone(&has_ended));
            let decide = Arc::clone(&decide);
            thread::spawn(move || {
                for socket in listener.incoming() {
                    if is_over.load(Ordering::Acquire) {
                        return;
                    }
                    let (data, slots, socket) = (Arc::clone(&held), Arc::clone(&slots), socket.unwrap());
                    let decide = Arc::clone(&decide);
                    thread::spawn(move || {
                        // Sending fails only if the other side is gone.
                        let socket = Arc::new(socket);
                        let _ = serve(&socket, &data, &slots, &*decide);
                        let _ = socket.shutdown(Shutdown::Both);
                    });
                }
            });
        }
        Self { port, data, slots, has_ended }
    }

    /// A server without faults.
    pub fn good() -> Self {
        Self::start(|_, _| Conduct::Do)
    }

    pub fn has(&self, key: &str) -> bool {
        self.data.lock().unwrap().strings.contains_key(key.as_bytes())
    }

    pub fn log(&self) -> Vec<String> {
        self.data.lock().unwrap().log.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Release);
        let ports = self.slots.lock().unwrap().ports.clone();
        for port in ports.into_iter().chain([self.port]) {
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
    }
}

fn serve(
    shared: &Arc<TcpStream>,
    data: &Mutex<Data>,
    slots: &Mutex<Slots>,
    decide: &Decide,
) -> std::io::Result<()> {
    let mut socket: &TcpStream = shared;
    socket.set_nodelay(true)?;
    let port = socket.local_addr()?.port();
    let mut reader = Commands::default();
    // Only a fast path loads scripts before it calls them.
    let (mut is_fast, mut is_tracked) = (false, false);
    loop {
        let command = reader.next(socket)?;
        is_fast |= command[0] == b"SCRIPT";
        is_tracked |= command[0] == b"CLIENT" && command[1] == b"TRACKING";
        let said: Option<&[u8]> = match &command[0][..] {
            b"PING" => Some(b"+PONG\r\n"),
            b"SCRIPT" | b"CLIENT" => Some(b"+OK\r\n"),
            b"HELLO" => Some(b"%1\r\n$5\r\nproto\r\n:3\r\n"),
            // The server does not report its time, so its clock is taken to agree.
            b"TIME" => Some(b"-NOPERM no\r\n"),
            b"GET" if command[1].ends_with(b"seal") => Some(b"$-1\r\n"),
            b"ZRANGE" if command[1].ends_with(b"limits") => Some(b"*0\r\n"),
            b"ZADD" | b"PEXPIREAT" if command[1].ends_with(b"limits") => Some(b":1\r\n"),
            _ => None,
        };
        if command[0] == b"CLUSTER" {
            let said = slots.lock().unwrap().describe(&command);
            socket.write_all(&said.unwrap_or_else(|| panic!("{command:?}")))?;
            continue;
        }
        if let Some(said) = said {
            socket.write_all(said)?;
            continue;
        }
        let conduct = decide(is_fast, &command);
        // Runs the command, and sends its reply or a part of it. Invalidations by later changes follow it.
        let apply = |most: Option<usize>| {
            let part = |len: usize| most.map_or(len, |most| most.min(len - 1));
            // Locked, so that no slot moves between the check and the reply.
            let slots = slots.lock().unwrap();
            if let Some(moved) = slots.redirect(port, &command) {
                return (&**shared).write_all(&moved[..part(moved.len())]);
            }
            let mut data = data.lock().unwrap();
            if !is_fast {
                data.log.push(summary(&command));
            }
            let answer = data.apply_for(&command, shared, is_tracked);
            (&**shared).write_all(&answer[..part(answer.len())])
        };
        match conduct {
            Conduct::Do => apply(None)?,
            Conduct::Answer(answer) if is_transaction(&command) => {
                socket.write_all(&answer_to_transaction(answer))?;
            }
            Conduct::Answer(answer) => socket.write_all(answer)?,
            Conduct::Stall => {
                // Until the other side is gone.
                while reader.next(socket).is_ok() {}
                return Ok(());
            }
            Conduct::End => return Ok(()),
            Conduct::DoAndEnd(len) => return apply(Some(len)),
            Conduct::DoAndCorrupt => {
                apply(Some(0))?;
                return socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        }
    }
}

/// A command's name and first key, for the log.
fn summary(command: &Command) -> String {
    let name = match script_of(command) {
        None if is_transaction(command) => "create".into(),
        None => String::from_utf8_lossy(&command[0]).into_owned(),
        Some(script) => {
            let names = [
                (&CREATE, "replace"),
                (&CREATE_WITHIN_LIMIT, "create within the limit"),
                (&TOUCH, "touch"),
                (&UPDATE, "update"),
                (&END_OF_USER, "end"),
                (&ENTER, "enter"),
            ];
            let found = names.iter().find(|(other, _)| other.digest == script.digest);
            found.map_or("aside", |(_, name)| name).into()
        }
    };
    let key = if script_of(command).is_some() { &command[3] } else { &command[1] };
    format!("{name} {}", String::from_utf8_lossy(key))
}

/// Whether the command is a transaction that creates a session.
pub fn is_create(command: &Command) -> bool {
    is_transaction(command)
}

/// Whether it is a transaction, as returned by [`Commands::next`].
fn is_transaction(command: &Command) -> bool {
    command[0] == b"MULTI"
}

/// A creating transaction as one command: the session, its value, the index, the entry and its version.
fn as_one(parts: &[Command]) -> Command {
    let [prolong, add, end, set, ..] = parts else { panic!("{parts:?}") };
    assert_eq!((&prolong[0][..], &prolong[3][..], &end[3][..]), (&b"PEXPIREAT"[..], &b"GT"[..], &b"NX"[..]));
    assert_eq!((&add[0][..], &set[0][..], &set[3][..]), (&b"ZADD"[..], &b"SET"[..], &b"NX"[..]));
    let (key, value, index) = (set[1].clone(), set[2].clone(), add[1].clone());
    [b"MULTI".to_vec(), key, value, index, add[3].clone(), add[2].clone()].into()
}

/// The replies to a transaction with this reply to one command. An error discards the transaction.
pub fn answer_to_transaction(answer: &[u8]) -> Vec<u8> {
    let queued = if answer[0] == b'-' { answer } else { b"+QUEUED\r\n" };
    let end = match answer[0] {
        b'-' => b"-EXECABORT Transaction discarded because of previous errors.\r\n".to_vec(),
        b':' => [b"*5\r\n:0\r\n:1\r\n:1\r\n+OK\r\n", answer].concat(),
        _ => [b"*4\r\n:0\r\n:1\r\n:1\r\n", answer].concat(),
    };
    let queued_all = if answer[0] == b':' { 5 } else { 4 };
    [b"+OK\r\n", &queued.repeat(queued_all)[..], &end].concat()
}

fn script_of(command: &Command) -> Option<&'static Script> {
    let all =
        [&CREATE, &CREATE_WITHIN_LIMIT, &TOUCH, &UPDATE, &END_OF_USER, &FORGET, &ENTER, &MOVE, &REPLACE];
    let is_of =
        |script: &Script| command[1] == script.digest.as_bytes() || command[1] == script.text.as_bytes();
    command[0].starts_with(b"EVAL").then(|| all.into_iter().find(|script| is_of(script)).unwrap())
}

pub fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn number(number: i64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn parsed(bytes: &[u8]) -> i64 {
    std::str::from_utf8(bytes).unwrap().trim().parse().unwrap()
}

impl Data {
    /// Runs a connection's command, and notifies the other connections of its changes (`NOLOOP`).
    fn apply_for(&mut self, command: &Command, from: &Arc<TcpStream>, is_tracked: bool) -> Vec<u8> {
        let key = if script_of(command).is_some() { &command[3] } else { &command[1] };
        let before = self.strings.get(key).cloned();
        let answer = self.apply(command);
        self.changed(key, before, Some(from));
        if is_tracked && command[0] == b"GET" {
            self.readers.entry(key.clone()).or_default().push(Arc::clone(from));
        }
        answer
    }

    /// Changes a session, as another process does.
    pub fn put(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        let before = self.strings.remove(key);
        if let Some(value) = value {
            self.strings.insert(key.into(), value);
        }
        self.changed(key, before, None);
    }

    /// Removes all data.
    pub fn empty(&mut self) {
        for (key, value) in mem::take(&mut self.strings) {
            self.changed(&key, Some(value), None);
        }
        // Without keys, as a server sends it after `FLUSHALL`.
        for reader in mem::take(&mut self.readers).into_values().flatten() {
            let _ = (&*reader).write_all(b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        }
    }

    fn changed(&mut self, key: &[u8], before: Option<Vec<u8>>, by: Option<&Arc<TcpStream>>) {
        let now = self.strings.get(key).cloned();
        if before == now {
            return;
        }
        self.history.entry(key.into()).or_insert_with(|| vec![None]).push(now);
        let message = [b">2\r\n$10\r\ninvalidate\r\n*1\r\n", &bulk(key)[..]].concat();
        for reader in self.readers.remove(key).unwrap_or_default() {
            if !by.is_some_and(|by| Arc::ptr_eq(by, &reader)) {
                // Sending fails only if the other side is gone.
                let _ = (&*reader).write_all(&message);
            }
        }
    }

    /// Runs a command. Returns its reply. Nothing expires here.
    pub fn apply(&mut self, command: &Command) -> Vec<u8> {
        let nil = || b"$-1\r\n".to_vec();
        if let Some(script) = script_of(command) {
            let keys = parsed(&command[2]) as usize;
            let (keys, args) = command[3..].split_at(keys);
            if [CREATE.digest, CREATE_WITHIN_LIMIT.digest].contains(&script.digest) {
                return self.create(keys, args);
            }
            return self.run(script, &keys[0], args);
        }
        match (&command[0][..], &command[1]) {
            (b"MULTI", key) => {
                let entries = self.sets.entry(command[3].clone()).or_default();
                entries.insert(command[4].clone(), parsed(&command[5]));
                let is_free = !self.strings.contains_key(key);
                if is_free {
                    self.strings.insert(key.clone(), command[2].clone());
                }
                answer_to_transaction(if is_free { b"+OK\r\n" } else { b"$-1\r\n" })
            }
            (b"GET", key) => self.strings.get(key).map_or_else(nil, |value| bulk(value)),
            (b"GETDEL", key) => self.strings.remove(key).map_or_else(nil, |value| bulk(&value)),
            (b"GETRANGE", key) => {
                assert_eq!(command[2..], [b"0".to_vec(), b"63".to_vec()]);
                bulk(self.strings.get(key).map_or(&[], |value| &value[..64]))
            }
            (b"SET", _) if command[3] == b"IFEQ" && self.is_old => b"-ERR syntax error\r\n".to_vec(),
            (b"SET", key) if command[3] == b"IFEQ" => {
                assert_eq!(command[5], b"PXAT");
                match self.strings.get_mut(key).filter(|value| **value == command[4]) {
                    None => nil(),
                    Some(value) => {
                        value.clone_from(&command[2]);
                        b"+OK\r\n".to_vec()
                    }
                }
            }
            (b"SET", key) if self.strings.contains_key(key) => nil(),
            (b"SET", key) => {
                self.strings.insert(key.clone(), command[2].clone());
                b"+OK\r\n".to_vec()
            }
            (b"ZSCORE", key) => {
                let version = self.sets.get(key).and_then(|set| set.get(&command[2]));
                version.map_or_else(nil, |version| bulk(version.to_string().as_bytes()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Vec<u8> {
        let held = self.strings.get(&keys[0]);
        if let Some(value) = held
            && value[40..56] != args[3][..]
        {
            return bulk(value);
        }
        if let [max, sessions, ..] = args.get(8..).unwrap_or_default()
            && held.is_none()
        {
            let is_live = |other: &&Vec<u8>| self.strings.contains_key(&[&sessions[..], other].concat());
            let others = self.sets.get(&keys[1]).into_iter().flat_map(HashMap::keys);
            if others.filter(|other| **other != args[4]).filter(is_live).count() as i64 >= parsed(max) {
                return number(-2);
            }
        }
        if let Some(index) = keys.get(1) {
            self.sets.entry(index.clone()).or_default().insert(args[4].clone(), parsed(&args[5]));
        }
        self.strings.entry(keys[0].clone()).or_insert_with(|| args[1].clone());
        number(keys.get(1).map_or(1, |index| self.sets[index].len() as i64))
    }

    fn run(&mut self, script: &Script, key: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
        let is = |other: &Script| script.digest == other.digest;
        let held = self.strings.get_mut(key);
        if is(&FORGET) {
            let entries = self.sets.entry(key.into()).or_default();
            if entries.get(&args[0]).copied() == Some(parsed(&args[1])) {
                entries.remove(&args[0]);
            }
            return number(1);
        }
        if is(&ENTER) {
            let entries = self.sets.entry(key.into()).or_default();
            let held = entries.get(&args[0]).copied();
            let is_kept = held.is_some() && args.len() == 3;
            if !is_kept {
                let version = held.map_or(parsed(&args[1]), |held| held.max(parsed(&args[1])) + 1);
                entries.insert(args[0].clone(), version);
            }
            let len = entries.len() as i64;
            return number(if is_kept { -len } else { len });
        }
        let Some(value) = held else { return number(0) };
        if is(&REPLACE) || is(&MOVE) {
            let is_known = if is(&MOVE) { value[..68] == args[0] } else { *value == args[0] };
            if is_known && is(&MOVE) {
                value[11..29].copy_from_slice(&args[1]);
            } else if is_known {
                value.clone_from(&args[1]);
            }
            return number(is_known.into());
        }
        let (user, created) =
            (if is(&END_OF_USER) { &args[1] } else { args.get(3).unwrap_or(&args[0]) }, &value[40..56]);
        let is_of = |at: usize| args.get(at).is_none_or(|wanted| wanted == created);
        if is(&TOUCH) {
            let is_enough = !args[3].is_empty() && parsed(&value[11..29]) >= parsed(&args[3]);
            if !is_enough {
                value[11..29].copy_from_slice(&args[1]);
            }
            number(1)
        } else if is(&UPDATE) {
            if !value[64..].starts_with(user) || !is_of(5) {
                return number(2);
            }
            *value = [&args[1][..], created, &args[2]].concat();
            number(1)
        } else {
            if !value[64..].starts_with(user) || !is_of(2) {
                return number(0);
            }
            let created = created.to_vec();
            self.strings.remove(key);
            bulk(&created)
        }
    }
}

/// Reads commands from a connection.
#[derive(Default)]
pub struct Commands {
    bytes: Vec<u8>,
}

impl Commands {
    /// The next command or transaction. An error if the other side is gone.
    pub fn next(&mut self, socket: &TcpStream) -> std::io::Result<Command> {
        let command = self.next_part(socket)?;
        if !is_transaction(&command) {
            return Ok(command);
        }
        let mut parts = vec![self.next_part(socket)?];
        while parts.last().is_some_and(|part| part[0] != b"EXEC") {
            parts.push(self.next_part(socket)?);
        }
        Ok(as_one(&parts))
    }

    fn next_part(&mut self, mut socket: &TcpStream) -> std::io::Result<Command> {
        loop {
            if let Some((command, len)) = parse(&self.bytes) {
                self.bytes.drain(..len);
                return Ok(command);
            }
            let mut some = [0; 64 * 1024];
            match socket.read(&mut some)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                len => self.bytes.extend_from_slice(&some[..len]),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Command, usize)> {
    let mut at = 0;
    let size = |at: &mut usize| {
        let len = bytes[*at..].windows(2).position(|two| two == b"\r\n")?;
        let size = parsed(&bytes[*at + 1..*at + len]);
        *at += len + 2;
        usize::try_from(size).ok()
    };
    let args = size(&mut at)?;
    let mut command = Command::new();
    for _ in 0..args {
        let len = size(&mut at)?;
        command.push(bytes.get(at..at + len)?.to_vec());
        at += len + 2;
    }
    (bytes.len() >= at).then_some((command, at))
}
