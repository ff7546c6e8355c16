//! A conditional change stores what the script would have stored. A touch that only reads has the result of the script.

use std::sync::Arc;

use crate::clock::MockClock;
use crate::lifetime::Lifetime;
use crate::session::{Expiry, SessionId, UserKeyBuf};
use crate::store::conformance::json;
use crate::store::redis::resp::{Decoder, Reply, Request, RequestMode};
use crate::store::redis::session::{
    CallReply, Change, Cipher, ConditionalChange, ConditionalForm, NewSession, conditional_reply,
    head_request, is_enough, touch_request,
};
use crate::store::redis::sim::{Command, Data};
use crate::store::redis::time::Times;
use crate::store::simulation::Random;

const NOW: i64 = 1_900_000_000_000;
const MINUTE: i64 = 60_000;
const KEY: &[u8] = b"sess#a";

fn write() -> Request {
    Request::write(RequestMode::default())
}

fn command_of(request: &Request) -> Command {
    let Some((Reply::Array(args), _)) = Decoder::default().decode(&request.bytes).unwrap() else { panic!() };
    let arg = |arg: &Reply<&[u8]>| if let Reply::Bytes(bytes) = arg { bytes.to_vec() } else { panic!() };
    args.iter().map(arg).collect()
}

/// What a server has after a request: its reply, the value and its end.
fn after(known: &[u8], until: i64, request: &Request) -> [Reply; 3] {
    let mut data = Data::default();
    let set = write().command(&[b"SET", KEY, known, b"PXAT", until.to_string().as_bytes()]);
    let requests = [command_of(&set), command_of(request)];
    let [_, reply] = requests.map(|command| data.carry_out(&command, NOW, 1000));
    let [value, end] = [&b"GET"[..], b"PEXPIRETIME"]
        .map(|name| data.carry_out(&command_of(&write().command(&[name, KEY])), NOW, 1000));
    [reply, value, end]
}

/// The result of a touch that only reads a session. `None` if the worker must make the touch.
fn checked(value: &[u8], until: i64, enough: i64, times: &Times) -> Option<i64> {
    let [head, ..] = after(value, until, &head_request(write(), KEY));
    let Reply::Bytes(head) = head else { panic!("{head:?}") };
    match conditional_reply(CallReply::Head(&head), Some(enough), times) {
        CallReply::Number(number) => Some(number as i64),
        CallReply::Outdated => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_stores_what_the_script_would() {
    let mut random = Random::new(3);
    let (mut conditional, mut by_script, mut by_reading, mut outdated) = (0, 0, 0, 0);
    let (mut by_set, mut by_comparing) = (ConditionalForm::default(), ConditionalForm::default());
    by_comparing.record_refusal(b"ERR syntax error");
    for _ in 0..20_000 {
        let mut times = Times::new(Arc::new(MockClock::new(NOW)), None);
        let lifetime = random.pick(&[None, Some(120), Some(20)]);
        times.lifetime = Lifetime::new(lifetime.map(|minutes| minutes * MINUTE as u64));
        // So that some expiries are at the end of an hour of an index, or of a lifetime, and others next to it.
        let created = NOW - random.below(100) as i64 * MINUTE + random.below(3) as i64;
        // Not now: the simulated server deletes a session that expires now only later.
        let minutes = |random: &mut Random| NOW + (random.below(110) as i64 - 10) * MINUTE + 1;
        let (old, new, enough) = (minutes(&mut random), minutes(&mut random), minutes(&mut random));
        let [user, other] = [(); 2].map(|()| *random.pick(&[None, Some("ann"), Some("anna")]));
        let [user, other] = [user, other].map(|name| name.map(UserKeyBuf::from_text));
        let id = SessionId::new("a").unwrap();
        let (cipher, names) = (Cipher::Plain, crate::store::redis::session::Names::new(""));
        let member = cipher.member(&id);
        let change = |user: &Option<UserKeyBuf>, expires| {
            let session = NewSession::new(&json("a", user.as_ref(), r#"{"step":1}"#, expires));
            let field = cipher.user(session.user());
            let change =
                Change::new(&session, names.session(&member), &member, &field, &cipher, &times).unwrap();
            (change, field)
        };
        let (change_to_old, _) = change(&user, Expiry::new(old).unwrap());
        let known = change_to_old.value(format!("{:<16}", created * 1000).as_bytes());
        let until = NOW + 1000 * MINUTE;
        let is_touch = random.chance(500_000);
        let (made, script) = if is_touch {
            let expires = Expiry::moved_to(new).unwrap();
            let enough = random.chance(500_000).then_some(enough);
            let script = touch_request(write(), KEY, expires, enough, None, &times);
            if let Some(enough) = enough.filter(|enough| is_enough(&known, *enough, &times)) {
                by_reading += 1;
                assert_eq!(checked(&known, until, enough, &times), Some(1));
                // Another process may have changed the session.
                let (change, _) = change(&other, Expiry::new(minutes(&mut random)).unwrap());
                let changed = change.value(format!("{:<16}", (created - MINUTE) * 1000).as_bytes());
                for value in [&known[..], &changed, b"another app's"] {
                    let Some(number) = checked(value, until, enough, &times) else {
                        outdated += 1;
                        continue;
                    };
                    let left = [Reply::Number(number), Reply::Bytes(value.into()), Reply::Number(until)];
                    assert_eq!(after(value, until, &script), left);
                }
                continue;
            }
            (ConditionalChange::touch(&known, expires, &times), script)
        } else {
            let expires = Expiry::new(new).unwrap();
            let (change, field) = change(&other, expires);
            let made = ConditionalChange::update(&known, &change, &field, expires, &times);
            (made, change.replace(write(), &field, None, &times))
        };
        let Some(made) = made else {
            by_script += 1;
            continue;
        };
        conditional += 1;
        let [reply, value, end] = after(&known, until, &script);
        assert_eq!(reply, Reply::Number(1), "{}", String::from_utf8_lossy(&known));
        // Any other value stays, and so does its end.
        let has_other_end = [&known[..], b" "].concat();
        let mut has_other_start = known.clone();
        has_other_start[67] ^= 1;
        for (form, done, refused) in
            [(&mut by_set, Reply::Okay, Reply::Nil), (&mut by_comparing, Reply::Number(1), Reply::Number(0))]
        {
            let expected = [done.clone(), value.clone(), end.clone()];
            assert_eq!(after(&known, until, &form.request(&made, KEY)), expected);
            for other in [&has_other_start, &has_other_end] {
                let found = after(other, until, &form.request(&made, KEY));
                if is_touch && done == Reply::Number(1) && *other == has_other_end {
                    // A touch does not depend on the rest of the record.
                    assert_eq!(found, after(other, until, &script));
                } else {
                    assert_eq!(found, [refused.clone(), Reply::Bytes(other.clone()), Reply::Number(until)]);
                }
            }
        }
    }
    let times = Times::new(Arc::new(MockClock::new(NOW)), None);
    assert_eq!(conditional_reply(CallReply::Head(b""), Some(NOW), &times), CallReply::Number(0));
    assert_eq!(conditional_reply(CallReply::Number(0), None, &times), CallReply::Outdated);
    let counts = [conditional, by_script, by_reading, outdated - by_reading];
    assert!(counts.into_iter().all(|count| count > 500), "{counts:?}");
}
