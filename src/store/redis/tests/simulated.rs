//! Compares the simulator's server with a real one: the commands and scripts of the store, in random order.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::server::port;
use crate::clock::{Clock, SystemClock};
use crate::store::redis::resp::{Decoder, Reply, Request};
use crate::store::redis::sim::{Command, Data, SCRIPTS};
use crate::store::simulation::Random;

/// One minute. A shorter expiry might pass on one server before the other.
const UNIT: i64 = 60_000;

struct Client(TcpStream);

impl Client {
    fn ask(&mut self, command: &Command) -> Reply {
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        self.0.write_all(&Request::read(Default::default()).command(&args).bytes).unwrap();
        let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
        loop {
            let len = self.0.read(&mut some).unwrap();
            assert!(len > 0, "the server closed it");
            bytes.extend_from_slice(&some[..len]);
            if let Some((reply, _)) = Decoder::default().decode(&bytes).unwrap() {
                return reply.to_owned();
            }
        }
    }
}

/// A record, or a value that resembles one.
fn record(random: &mut Random, now: i64) -> Vec<u8> {
    let expires = now + UNIT * random.pick(&[-5, 500, 600]);
    let (created, user) = (created(random), user(random));
    let whole =
        format!("{{\"expires\":{expires:<18},\"created\":{created},\"user\":{user}ssion\":{{\"v\":1}}}}");
    match random.below(8) {
        0 => b"something else".to_vec(),
        1 => whole.as_bytes()[..=random.below(whole.len())].to_vec(),
        _ => whole.into_bytes(),
    }
}

fn created(random: &mut Random) -> String {
    format!("{:<16}", *random.pick(&[1_800_000_000_000_000_u64, 1_800_000_000_000_001, 5]))
}

fn user(random: &mut Random) -> &'static str {
    const ALL: [&str; 3] = ["null,\"se", "\"ann\",\"se", "\"ben\",\"se"];
    ALL[random.below(ALL.len())]
}

/// A random command that the store may send.
fn command(random: &mut Random, keys: &[&str; 3], started: i64, now: i64) -> Command {
    let (key, index) = (*random.pick(&[keys[0], keys[0], keys[0], keys[1]]), keys[2]);
    let member = *random.pick(&["a", "b", "c"]);
    let version = *random.pick(&["5", "6", "1800000000000000", "1800000000000001"]);
    let last = *random.pick(&["63", "28", "-1"]);
    let [until, now_text, enough] = [[400, 700, -1], [0, 0, 550], [100, 900, -1]]
        .map(|offsets| (now + UNIT * random.pick(&offsets)).to_string());
    let (value, created, user) = (record(random, now), created(random), user(random));
    let (value, other_user) = (String::from_utf8(value).unwrap(), self::user(random));
    let field = format!("{:<18}", now + UNIT * random.pick(&[650, 7000]));
    let (head, tail) = (format!("{{\"expires\":{field},\"created\":"), format!(",\"user\":{user}"));
    let owner = format!("{created},\"user\":{user}");
    // The lifetime ends near the other times, for both kinds of creation.
    let lifetime = match random.below(4) {
        0 => String::new(),
        some => {
            (now + UNIT * random.pick(&[-1, 300, 600, 9000]) - [0, 1_800_000_000_000][some % 2]).to_string()
        }
    };
    let (created, owner) = match random.below(4) {
        0 => (String::new(), String::new()),
        _ => (created, owner),
    };
    // Far from any other end, because the two clocks may differ by a millisecond.
    let end = (started + UNIT * random.pick(&[-1, 300, 5000])).to_string();
    let script = random.below(SCRIPTS.len());
    let (max, sessions) = (*random.pick(&["1", "1", "2"]), keys[0].strip_suffix('a').unwrap());
    let (kind, has_index) = (random.below(20), random.chance(500_000));
    let (whole, least): (Vec<&str>, usize) = match (kind, script) {
        (0, _) => (vec!["GET", key], 0),
        (1, _) => (vec!["GETDEL", key], 0),
        (2, _) => (vec!["GETRANGE", key, "0", last], 0),
        (3, _) => (vec!["SET", key, &value, "NX", "PXAT", &enough], 0),
        (4, _) => (vec!["ZADD", index, version, member], 0),
        (5, _) => (vec!["PEXPIREAT", index, &end, *random.pick(&["GT", "NX"])], 1),
        (6, _) => (vec!["ZSCORE", index, member], 0),
        (7, _) => (vec!["ZRANGE", index, "0", "-1", "WITHSCORES"], 0),
        (8, _) => (vec!["ZRANDMEMBER", index, "8", "WITHSCORES"], 0),
        (9 | 10, _) => (vec!["PEXPIRETIME", *random.pick(&[key, index])], 0),
        (11, _) => (vec![*random.pick(&["GET", "ZCARD"]), index], 0),
        (_, 0) if has_index => {
            (vec![key, index, &now_text, &value, &until, &created, member, version, &end, "count"], 1)
        }
        (_, 0) => (vec![key, &now_text, &value, &until, &created], 0),
        (_, 1) => (vec![key, &now_text, &head, &tail, user, &until, &created, &lifetime], 2),
        (_, 2) => (vec![key, &now_text, &field, &until, &enough, &lifetime, &owner], 2),
        (_, 3) => (vec![key, &now_text, user, &created], 1),
        (_, 4) => (vec![key, &now_text], 0),
        (_, 5) => (vec![index, member, version, "b", "6"], 0),
        (_, 6) => (vec![index, member, version, &end, "again"], 1),
        (_, 8) => {
            let create = [key, index, &now_text, &value, &until, &created, member, version, &end, "count"];
            ([&create[..], &[max, sessions, user, &lifetime]].concat(), 0)
        }
        (_, 9) => {
            let update =
                [key, index, &now_text, &head, &tail, user, &until, &created, &lifetime, member, version];
            ([&update[..], &[max, sessions, other_user, &lifetime]].concat(), 0)
        }
        (_, 10) => (vec![key, value.get(..68).unwrap_or("something else"), &field, &until], 0),
        (_, _) => (vec![key, "something else", "another", &until], 1),
    };
    // Some arguments at the end are optional. Without `GT` or `NX`, `PEXPIREAT` may remove an index.
    let are_left_out = least > 0 && random.chance(400_000);
    let len = whole.len() - if are_left_out { 1 + random.below(least) } else { 0 };
    let keys = if (script == 0 && has_index) || matches!(script, 8 | 9) { "2" } else { "1" };
    let start = if kind > 11 { &["EVAL", SCRIPTS[script].text, keys][..] } else { &[] };
    start.iter().chain(&whole[..len]).map(|arg| arg.as_bytes().to_vec()).collect()
}

/// Sorts the entries of a sample, which come in any order.
fn in_order(sample: Reply) -> Reply {
    let Reply::Array(parts) = sample else { return sample };
    let mut entries: Vec<_> = parts.chunks(2).map(<[Reply]>::to_vec).collect();
    entries.sort_by_key(|entry| format!("{entry:?}"));
    Reply::Array(entries.concat())
}

#[test]
fn the_simulated_server_replies_like_a_real_one() {
    let Some(port) = port() else { return };
    let mut client = (0..100)
        .find_map(|_| {
            let connected = TcpStream::connect(("127.0.0.1", port)).ok();
            if connected.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            connected.map(Client)
        })
        .expect("the server");
    // The simulated server is of version 7 or later.
    if let Reply::Error(_) = client.ask(&vec![b"PEXPIRETIME".to_vec(), b"any".to_vec()]) {
        return;
    }
    let (mut random, mut data, started) = (Random::new(7), Data::default(), SystemClock.now());
    let keys = ["simulated*:sess#a", "simulated*:sess#b", "simulated*:user#\"ann\""];
    let mut answers = std::collections::BTreeMap::new();
    for _ in 0..120_000 {
        let now = SystemClock.now();
        let command = command(&mut random, &keys, started, now);
        let (mut real, mut simulated) = (client.ask(&command), data.carry_out(&command, now, 1000));
        if command[0] == b"ZRANDMEMBER" {
            (real, simulated) = (in_order(real), in_order(simulated));
        }
        let shown: Vec<_> = command.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        match (&real, &simulated) {
            (Reply::Error(_), Reply::Error(_)) => {}
            _ => assert_eq!(real, simulated, "{shown:?}"),
        }
        let script = SCRIPTS.iter().position(|script| script.text == shown[1]);
        let kind = if let Reply::Number(number) = real { number.min(9) } else { 10 };
        *answers.entry((shown[0].to_string(), script, kind)).or_insert(0) += 1;
    }
    // Each script gave each of its possible replies.
    for (script, kinds) in [
        &[-1, 1, 3, 10][..],
        &[0, 1, 2, 3],
        &[0, 1, 2],
        &[0, 1, 10],
        &[0, 1],
        &[0, 1],
        &[-3, -1, 0, 1, 3],
        &[0, 1],
        &[-2, -1, 1, 2, 10],
        &[0, 1, 2, 3, 4],
        &[0, 1],
    ]
    .iter()
    .enumerate()
    {
        for kind in *kinds {
            assert!(
                answers.contains_key(&("EVAL".into(), Some(script), *kind)),
                "{script} {kind} {answers:?}"
            );
        }
    }
}
