//! A store on a scripted server, in simulated time.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::*;
use crate::keyring::Keyring;
use crate::store::Completions;
use crate::store::redis::connection::{Stream, simulated};
use crate::store::redis::sim::{self, Command};

const TIMEOUT: Duration = Duration::from_millis(1000);

type Answering = dyn Fn(&Command) -> Reply;

/// A server whose replies the test scripts, except for those to the login.
struct Scripted(Rc<Answering>);

impl Stream for DuplexStream {
    fn reset_on_drop(&self) {}
}

impl simulated::System for Scripted {
    fn lookup(&self, _: &str, port: u16) -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) }.boxed_local()
    }

    fn connect(&self, _: SocketAddr) -> simulated::Opening {
        let answer = Rc::clone(&self.0);
        async move {
            let (near, far) = duplex(1 << 16);
            spawn_local(serve(far, answer));
            let near: Box<dyn Stream> = Box::new(near);
            Ok(near)
        }
        .boxed_local()
    }

    fn chance(&self) -> f64 {
        1.0
    }
}

async fn serve(mut stream: DuplexStream, answer: Rc<Answering>) {
    let mut bytes = Vec::new();
    loop {
        while let Some((command, len)) = sim::parse(&bytes) {
            bytes.drain(..len);
            let reply = match &command[0][..] {
                b"PING" | b"CLIENT" => Reply::Okay,
                _ => answer(&command),
            };
            let mut out = Vec::new();
            sim::encode(&reply, &mut out);
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(len) if len > 0) {
            return;
        }
    }
}

/// Receives the result of one call.
struct CallResult(Mutex<Option<oneshot::Sender<Result<Answer>>>>);

impl Completions for CallResult {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        for (_, answer) in done {
            let _ = self.0.lock().take().unwrap().send(answer);
        }
    }
}

impl Answers for CallResult {}

/// Queues a call, which the worker starts at its next turn.
fn call(store: &RedisStore, op: Op) -> impl Future<Output = Result<Answer>> + use<> {
    let (sender, receiver) = oneshot::channel();
    let to: Arc<dyn Answers> = Arc::new(CallResult(Mutex::new(Some(sender))));
    store.queue.push(op, Waiter::Ticket { to, ticket: 0 }, store.command_timeout);
    store.wake();
    async { receiver.await.unwrap() }
}

/// Runs a test with a store on a scripted server.
fn run<T>(answer: impl Fn(&Command) -> Reply + 'static, test: impl AsyncFnOnce(&RedisStore) -> T) -> T {
    run_with(options_at(1), answer, test)
}

/// The same, with options.
fn run_with<T>(
    options: RedisOptions,
    answer: impl Fn(&Command) -> Reply + 'static,
    test: impl AsyncFnOnce(&RedisStore) -> T,
) -> T {
    let runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build_local(LocalOptions::default());
    runtime.unwrap().block_on(async {
        let options = RedisOptions { command_timeout: TIMEOUT, ..options };
        let (store, serve) = RedisStore::prepare(&options, Times::new(Arc::new(SystemClock), None)).unwrap();
        serve(System::Simulated(Rc::new(Scripted(Rc::new(answer)))));
        test(&store).await
    })
}

fn refusal(text: &str) -> Reply {
    Reply::Error(text.as_bytes().to_vec())
}

fn touch(session_id: &str) -> Op {
    Op::Touch(id(session_id), in_millis(60_000), None)
}

fn is_script(command: &Command) -> bool {
    command[0].starts_with(b"EVAL")
}

/// When the server received a request that it refuses, in milliseconds since the first one.
fn attempts(refused: &'static str, passes_after: Duration) -> (Vec<u64>, Result<Answer>) {
    let times: Rc<RefCell<Vec<Instant>>> = Rc::default();
    let noted = Rc::clone(&times);
    let answer = move |command: &Command| {
        if !is_script(command) {
            return Reply::Nil;
        }
        let mut times = noted.borrow_mut();
        times.push(Instant::now());
        if times[0].elapsed() < passes_after { refusal(refused) } else { Reply::Number(1) }
    };
    let result = run(answer, async |store| call(store, touch("a")).await);
    let times = times.borrow();
    (times.iter().map(|time| time.duration_since(times[0]).as_millis() as u64).collect(), result)
}

#[test]
fn transient_errors_are_retried_with_backoff_until_the_deadline() {
    for refused in
        ["NOREPLICAS no", "LOADING no", "MASTERDOWN no", "TRYAGAIN no", "CLUSTERDOWN no", "BUSY no"]
    {
        let (times, result) = attempts(refused, Duration::MAX);
        assert_eq!(
            result,
            Err(StoreError::Unavailable {
                reason: format!("Redis says {refused}"),
                outcome: Outcome::NotDone
            })
        );
        assert!((5..20).contains(&times.len()), "{times:?}");
        let pauses: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(pauses[2] > pauses[1] && pauses[1] > pauses[0], "{pauses:?}");
        // The error may end just before the deadline.
        assert!(*times.last().unwrap() >= 900, "{times:?}");
        let (times, result) = attempts(refused, Duration::from_millis(900));
        assert_eq!(result, Ok(Answer::Number(1)), "{times:?}");
    }
}

#[test]
fn a_call_that_waited_for_a_refused_one_reports_the_same_reason() {
    let answer = |command: &Command| if is_script(command) { refusal("READONLY no") } else { Reply::Nil };
    let (first, second) =
        run(answer, async |store| join(call(store, touch("a")), call(store, touch("a"))).await);
    let refused =
        Err(StoreError::Unavailable { reason: "Redis says READONLY no".into(), outcome: Outcome::NotDone });
    assert_eq!((first, second), (refused.clone(), refused));
}

fn is(command: &Command, script: &resp::Script) -> bool {
    is_script(command) && (command[1] == script.digest.as_bytes() || command[1] == script.text.as_bytes())
}

/// The record of a session that lives for so many milliseconds.
fn record(user: &str, millis: i64) -> Reply {
    let expires = SystemClock.now() + millis;
    let record = format!(
        r#"{{"expires":{expires:<18},"created":{:<16},"user":{user},"session":{{}}}}"#,
        1_800_000_000_000_000_u64
    );
    Reply::Bytes(record.into_bytes())
}

/// The first request of a call: a script and the reply to it. `None` is a transaction that finds a session.
type First = Option<(&'static resp::Script, i64)>;

/// The error of a call if all requests after its first one are refused.
fn ends(first: First, refused: &'static str, op: Op) -> StoreError {
    let is_first = Cell::new(true);
    let answer = move |command: &Command| match &command[0][..] {
        b"GET" => record("\"ben\"", 60_000),
        b"ZSCORE" => Reply::Nil,
        b"MULTI" => Reply::Okay,
        b"PEXPIREAT" | b"ZADD" | b"SET" => Reply::Status(b"QUEUED".to_vec()),
        b"EXEC" => Reply::Array([Reply::Number(0), Reply::Number(0), Reply::Number(0), Reply::Nil].to_vec()),
        _ if first.is_some_and(|(script, _)| is(command, script)) && is_first.replace(false) => {
            Reply::Number(first.map_or(0, |(_, reply)| reply))
        }
        _ if is(command, &resp::ENTER) && !refused.starts_with("LOADING") => Reply::Number(1),
        _ if is_script(command) => refusal(refused),
        _ => Reply::Nil,
    };
    // There are no wrapped keys.
    let answer = move |command: &Command| {
        if command.last().is_some_and(|key| key.ends_with(b"seal")) { Reply::Nil } else { answer(command) }
    };
    run(answer, async |store| call(store, op).await.unwrap_err())
}

#[test]
fn a_refusal_after_requests_without_effect_has_a_known_outcome() {
    let new = || NewSession::new(&plain("a", &ann(), in_millis(60_000)));
    type Make = Box<dyn Fn() -> Op>;
    let cases: [(First, Make); 4] = [
        (Some((&resp::TOUCH, 2)), Box::new(|| touch("a"))),
        (Some((&resp::UPDATE, 2)), Box::new(move || Op::Update(new()))),
        (Some((&resp::UPDATE, 3)), Box::new(move || Op::Update(new()))),
        (None, Box::new(move || Op::Create(new(), None))),
    ];
    for (at, (first, make)) in cases.into_iter().enumerate() {
        let error = ends(first, "OOM full", make());
        assert_eq!(error, StoreError::Full("Redis says OOM full".into()), "{at}");
        let error = ends(first, "LOADING no", make());
        let reason = "Redis says LOADING no".into();
        assert_eq!(error, StoreError::Unavailable { reason, outcome: Outcome::NotDone }, "{at}");
    }
}

#[test]
fn a_create_that_fails_behind_an_outlived_session_has_a_known_outcome() {
    let outlived = format!(
        r#"{{"expires":{:<18},"created":{:<16},"user":"ben","session":{{}}}}"#,
        SystemClock.now() + 60_000,
        (SystemClock.now() - 2000) * 1000
    );
    let is_stored = Cell::new(true);
    let answer = move |command: &Command| match &command[0][..] {
        b"MULTI" => Reply::Okay,
        b"PEXPIREAT" | b"ZADD" | b"SET" => Reply::Status(b"QUEUED".to_vec()),
        b"EXEC" => Reply::Array([Reply::Number(0), Reply::Number(0), Reply::Number(0), Reply::Nil].to_vec()),
        _ if is(command, &resp::CREATE) && is_stored.get() => Reply::Bytes(outlived.clone().into_bytes()),
        _ if is(command, &resp::CREATE) => refusal("OOM full"),
        _ if is(command, &resp::END_OF_USER) => {
            is_stored.set(false);
            Reply::Number(1)
        }
        _ => Reply::Nil,
    };
    let new = NewSession::new(&plain("a", &ann(), in_millis(60_000)));
    let options = RedisOptions { max_lifetime: Some(1000), ..options_at(1) };
    let outcome = run_with(options, answer, async |store| call(store, Op::Create(new, None)).await);
    assert_eq!(outcome, Err(StoreError::Full("Redis says OOM full".into())));
}

#[test]
fn a_discarded_transaction_is_replaced_by_a_script() {
    let done = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&done);
    let answer = move |command: &Command| match &command[0][..] {
        b"MULTI" => Reply::Okay,
        b"PEXPIREAT" | b"ZADD" | b"SET" => Reply::Status(b"QUEUED".to_vec()),
        b"EXEC" => refusal("EXECABORT Transaction discarded because of previous errors."),
        _ if is(command, &resp::CREATE) => {
            // The script must not mistake a live session for its own.
            noted.borrow_mut().push(command[8].clone());
            Reply::Number(1)
        }
        _ => Reply::Nil,
    };
    let new = || Op::Create(NewSession::new(&plain("a", &ann(), in_millis(60_000))), None);
    run(answer, async |store| {
        assert_eq!(call(store, new()).await, Ok(Answer::Number(1)));
        assert!(!store.transactions.is_supported());
    });
    assert_eq!(*done.borrow(), [b""]);
}

/// A server without `MULTI` runs the commands one by one, and may have no memory for the entry alone.
#[test]
fn a_create_that_is_refused_leaves_no_session_without_an_entry() {
    let stored: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
    let held = Rc::clone(&stored);
    let answer = move |command: &Command| match &command[0][..] {
        b"MULTI" => refusal("NOPERM this user has no permissions to run the 'multi' command"),
        b"PEXPIREAT" => Reply::Number(0),
        b"ZADD" => refusal("OOM full"),
        b"SET" => {
            held.replace(Some(command[2].clone()));
            Reply::Okay
        }
        b"EXEC" => refusal("ERR EXEC without MULTI"),
        _ if is(command, &resp::CREATE) => refusal("OOM full"),
        _ if is(command, &resp::END_OF_USER) => {
            let ended = held.borrow_mut().take_if(|value| value[40..56] == command[6]);
            ended.map_or(Reply::Number(0), |value| Reply::Bytes(value[40..56].to_vec()))
        }
        _ => Reply::Nil,
    };
    let new = NewSession::new(&plain("a", &ann(), in_millis(60_000)));
    let outcome = run(answer, async |store| call(store, Op::Create(new, None)).await);
    assert_eq!(*stored.borrow(), None);
    assert_eq!(outcome, Err(StoreError::Full("Redis says OOM full".into())));
}

/// It may have been prolonged after the server read it.
#[test]
fn an_update_does_not_take_a_session_for_expired_by_an_old_reply() {
    let is_first = Cell::new(true);
    let answer = move |command: &Command| match &command[0][..] {
        b"GET" if command[1].ends_with(b"seal") => Reply::Nil,
        b"GET" => {
            let reply = record("\"ben\"", 5);
            std::thread::sleep(Duration::from_millis(10));
            reply
        }
        b"ZSCORE" => Reply::Nil,
        _ if is(command, &resp::UPDATE) && is_first.replace(false) => Reply::Number(2),
        _ if is_script(command) => Reply::Number(1),
        _ => Reply::Nil,
    };
    let new = NewSession::new(&plain("a", &ann(), in_millis(60_000)));
    let outcome = run(answer, async |store| call(store, Op::Update(new)).await);
    assert_eq!(outcome, Ok(Answer::Number(1)));
}

/// Otherwise the entry might look old to other processes, which would remove it before the session is the user's.
#[test]
fn a_change_of_the_user_uses_the_servers_clock() {
    let started: Rc<RefCell<Option<Instant>>> = Rc::default();
    let version = Rc::new(Cell::new(0));
    let noted = Rc::clone(&version);
    let ahead = SystemClock.now() / 1000 + 900;
    let is_first = Cell::new(true);
    let answer = move |command: &Command| match &command[0][..] {
        b"GET" if command[1].ends_with(b"seal") => Reply::Nil,
        b"GET" => record("\"ben\"", 60_000),
        // Neither the call nor the store learns the time immediately.
        b"TIME"
            if started.borrow_mut().get_or_insert_with(Instant::now).elapsed()
                < Duration::from_millis(30) =>
        {
            refusal("LOADING no")
        }
        b"TIME" => {
            Reply::Array([ahead.to_string(), "0".into()].map(|part| Reply::Bytes(part.into())).to_vec())
        }
        _ if is(command, &resp::UPDATE) => Reply::Number(if is_first.replace(false) { 2 } else { 1 }),
        _ if is(command, &resp::ENTER) => {
            noted.set(String::from_utf8_lossy(&command[5]).parse().unwrap());
            Reply::Number(1)
        }
        _ => Reply::Nil,
    };
    let new = NewSession::new(&plain("a", &ann(), in_millis(60_000)));
    assert_eq!(run(answer, async |store| call(store, Op::Update(new)).await), Ok(Answer::Number(1)));
    let seconds = version.get() / 1_000_000 - ahead;
    assert!((0..60).contains(&seconds), "{seconds} s");
}

/// Two sessions of a user, and the server's replies when they are ended. Returns the error.
fn delete_by_user(first: Reply, second: Reply) -> StoreError {
    let ends = RefCell::new(vec![second, first]);
    let answer = move |command: &Command| match &command[0][..] {
        b"ZRANGE" => Reply::Array(["a", "1", "b", "1"].map(|part| Reply::Bytes(part.into())).to_vec()),
        _ if is(command, &resp::END_OF_USER) => ends.borrow_mut().pop().unwrap(),
        _ if is_script(command) => Reply::Number(0),
        _ => Reply::Nil,
    };
    run(answer, async |store| {
        let (sender, receiver) = oneshot::channel();
        store.begin_delete_by_user(ann().as_key(), None, move |result| drop(sender.send(result)));
        receiver.await.unwrap().unwrap_err()
    })
}

#[test]
fn delete_by_user_that_fails_before_its_first_session_has_a_known_outcome() {
    let full = StoreError::Full("Redis says OOM full".into());
    let created = Reply::Bytes(b"1800000000000000".to_vec());
    assert_eq!(delete_by_user(Reply::Number(0), refusal("OOM full")), full);
    assert_eq!(delete_by_user(Reply::Number(1), refusal("OOM full")), full);
    assert!(delete_by_user(created, refusal("OOM full")).is_outcome_unknown());
}

#[test]
fn a_store_without_a_secret_refuses_all_calls_while_others_encrypt() {
    let seal: Rc<RefCell<Reply>> = Rc::new(RefCell::new(Reply::Bytes(b"wrapped keys".to_vec())));
    let wrote = Rc::new(Cell::new(0));
    let (held, writes) = (Rc::clone(&seal), Rc::clone(&wrote));
    let answer = move |command: &Command| match &command[0][..] {
        b"GET" if command[1].ends_with(b"seal") => held.borrow().clone(),
        b"SCAN" => Reply::Array(vec![Reply::Bytes(b"0".to_vec()), Reply::Array(vec![])]),
        b"ZRANGE" => Reply::Array(vec![]),
        b"GET" | b"TIME" | b"ROLE" => Reply::Nil,
        b"MULTI" => Reply::Okay,
        b"PEXPIREAT" | b"ZADD" | b"SET" => Reply::Status(b"QUEUED".to_vec()),
        b"EXEC" => {
            writes.set(writes.get() + 1);
            Reply::Array([Reply::Number(0), Reply::Number(1), Reply::Number(1), Reply::Okay].to_vec())
        }
        _ => {
            writes.set(writes.get() + 1);
            if command[0] == b"GETDEL" { Reply::Nil } else { Reply::Number(1) }
        }
    };
    let all = async |store: &RedisStore| {
        let new = NewSession::new(&plain("a", &ann(), in_millis(60_000)));
        let of_one = [Op::Create(new, None), Op::Get(id("a")), touch("a"), Op::Delete(id("a"))];
        let mut errors = Vec::new();
        for op in of_one {
            errors.push(call(store, op).await.err());
        }
        async fn of<T: Send + 'static>(begin: impl FnOnce(oneshot::Sender<Result<T>>)) -> Option<StoreError> {
            let (sender, receiver) = oneshot::channel();
            begin(sender);
            receiver.await.unwrap().err()
        }
        errors.push(of(|to| store.begin_size(move |result| drop(to.send(result)))).await);
        errors.push(of(|to| store.begin_clear(move |result| drop(to.send(result)))).await);
        errors.push(of(|to| store.begin_clean(move |result| drop(to.send(result)))).await);
        errors.push(of(|to| store.begin_ids(Cursor::default(), move |result| drop(to.send(result)))).await);
        let user = ann();
        let by_user = |to: oneshot::Sender<Result<Vec<StoredSession>>>| {
            store.begin_get_by_user(user.as_key(), move |result| drop(to.send(result)));
        };
        errors.push(of(by_user).await);
        errors.push(of(|to| store.begin_ping(TIMEOUT, move |result| drop(to.send(result)))).await);
        errors
    };
    run(answer, async |store| {
        for error in all(store).await {
            let error = error.unwrap();
            assert_eq!(error.code(), "ERR_INVALID_OPTION", "{error}");
            assert!(error.to_string().starts_with("secret must be one that encrypts"), "{error}");
            assert!(error.to_string().ends_with("; got no secret"), "{error}");
        }
        assert_eq!(wrote.get(), 0);
        // When the wrapped keys are removed, the store works without encryption.
        seal.replace(Reply::Nil);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(all(store).await, vec![None; 10]);
        // Another store starts to encrypt.
        seal.replace(Reply::Bytes(b"wrapped keys".to_vec()));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = wrote.get();
        assert!(all(store).await.iter().all(Option::is_some));
        assert_eq!(wrote.get(), before);
    });
}

/// The cipher that a store uses.
async fn cipher(store: &RedisStore) -> Result<Arc<Cipher>> {
    let (sender, receiver) = oneshot::channel();
    let work = async |context: Rc<Context>| {
        context.router.step(async |attempt| session::cipher(&context, attempt).await).await
    };
    store.begin(work, move |result| drop(sender.send(result)));
    receiver.await.unwrap()
}

#[test]
fn a_store_without_access_to_the_wrapped_keys_names_the_acl_rule_and_asks_once_a_second() {
    let looks = Rc::new(Cell::new(0));
    let count = Rc::clone(&looks);
    let answer = move |command: &Command| match &command[0][..] {
        b"GET" if command[1].ends_with(b"seal") => {
            count.set(count.get() + 1);
            refusal("NOPERM No permissions to access a key")
        }
        _ => Reply::Nil,
    };
    run(answer, async |store| {
        for second in 1..4 {
            for _ in 0..50 {
                let error = call(store, Op::Get(id("a"))).await.unwrap_err();
                let prefix = String::from_utf8(store.names.wrapped_keys.clone()).unwrap().replace("seal", "");
                let rule =
                    format!("~{}* +get", prefix.replace('*', "\\*").replace('[', "\\[").replace(']', "\\]"));
                assert!(error.to_string().contains("NOPERM No permissions to access a key"), "{error}");
                assert!(error.to_string().contains(&rule), "{error}");
                assert_eq!(error.code(), "ERR_STORE_UNAVAILABLE");
                let (sender, receiver) = oneshot::channel();
                store.begin_ping(TIMEOUT, move |result| drop(sender.send(result)));
                assert_eq!(receiver.await.unwrap(), Err(error));
            }
            assert_eq!(looks.get(), second);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}

/// With a new cipher, pending calls would run twice.
#[test]
fn a_store_uses_its_previous_keys_after_a_lockout() {
    for secrets in [vec![], vec![secret(1)]] {
        let held: Rc<RefCell<Reply>> = Rc::new(RefCell::new(Reply::Nil));
        let seal = Rc::clone(&held);
        let answer = move |command: &Command| match &command[0][..] {
            b"GET" if command[1].ends_with(b"seal") => held.borrow().clone(),
            b"SET" if command[1].ends_with(b"seal") => {
                held.replace(Reply::Bytes(command[2].clone()));
                Reply::Okay
            }
            _ => Reply::Nil,
        };
        run_with(RedisOptions { secrets, ..options_at(1) }, answer, async |store| {
            let first = cipher(store).await.unwrap();
            let (_, wrapped) = Keyring::create(&[secret(2)]).unwrap();
            let others = STANDARD.encode(wrapped.encode()).into_bytes();
            let own = seal.replace(Reply::Bytes(others));
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert_eq!(cipher(store).await.map(drop).unwrap_err().code(), "ERR_INVALID_OPTION");
            assert_eq!(call(store, Op::Get(id("a"))).await.unwrap_err().code(), "ERR_INVALID_OPTION");
            seal.replace(Reply::Nil);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert!(Arc::ptr_eq(&first, &cipher(store).await.unwrap()));
            assert_eq!(*seal.borrow(), own, "a store with a secret puts its own back");
        });
    }
}
