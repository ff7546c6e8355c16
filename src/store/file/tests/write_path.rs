//! Calls that wait for writes: their results, their deadlines, and the effects of a panic in the writer.

use std::sync::Condvar;

use super::*;
use crate::store::conformance::json;

/// A clock that can stop the writer thread, or make it panic, when it asks for the time of a transaction.
#[derive(Default)]
struct WriterClock {
    state: std::sync::Mutex<WriterState>,
    changed: Condvar,
}

#[derive(Default)]
struct WriterState {
    is_stopped: bool,
    /// The number of upcoming transactions that panic.
    panics: usize,
    /// How often the writer has asked for the time.
    transactions: usize,
}

impl WriterClock {
    fn stop(self: &Arc<Self>) -> Stopped {
        self.change(|state| state.is_stopped = true);
        Stopped(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(&mut WriterState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_for_transactions(&self, count: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.transactions < count).unwrap());
    }
}

/// Lets the writer continue on drop, even if the test fails.
struct Stopped(Arc<WriterClock>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.change(|state| state.is_stopped = false);
    }
}

impl Clock for WriterClock {
    fn now(&self) -> Millis {
        if thread::current().name() != Some("session-writer") {
            return START;
        }
        let mut state = self.state.lock().unwrap();
        state.transactions += 1;
        self.changed.notify_all();
        if state.panics > 0 {
            state.panics -= 1;
            drop(state);
            panic!("the clock's, for a test");
        }
        drop(self.changed.wait_while(state, |state| state.is_stopped).unwrap());
        START
    }
}

/// A store with a writer that the test can stop.
struct Harness {
    store: Arc<FileStore>,
    clock: Arc<WriterClock>,
    received: Arc<Received>,
    to: Arc<dyn Completions>,
    _dir: TempDir,
}

impl Harness {
    fn new(timeout: u64) -> Self {
        let (dir, clock, received) =
            (new_dir(), Arc::new(WriterClock::default()), Arc::new(Received::default()));
        let options = FileOptions {
            command_timeout: Some(timeout),
            max_session_bytes: NonZeroUsize::new(2 << 20),
            ..options(dir.path())
        };
        let store = FileStore::open_at(&options, clock.clone()).unwrap();
        Self { store, clock, to: received.clone(), received, _dir: dir }
    }

    /// Starts a `get`. Returns its immediate result, or `None` if it waits.
    fn begin_get(&self, session: &str, ticket: u32) -> Option<bool> {
        match self.store.try_get(&id(session), |_, _| ()).unwrap() {
            Ok(found) => Some(found.is_some()),
            Err(wait) => {
                self.store.begin_get(&id(session), wait, &self.to, ticket).unwrap();
                None
            }
        }
    }

    fn create(&self, session: &str, user: &UserKeyBuf, ticket: u32) {
        self.store.begin_create(&plain(session, user, at(100)), &self.to, ticket).unwrap();
    }

    /// The completed calls, in the order of their tickets.
    fn ended(&self) -> Vec<(u32, Result<Answer>)> {
        let mut received = std::mem::take(&mut *self.received.0.lock());
        received.sort_by_key(|(ticket, _)| *ticket);
        received
    }
}

fn found(answer: &Result<Answer>) -> bool {
    matches!(answer, Ok(Answer::Session(Some(_))))
}

fn bob() -> UserKeyBuf {
    UserKeyBuf::from_text("bob")
}

const LONG: u64 = 60_000;

#[test]
fn a_get_waits_only_for_writes_of_its_session() {
    let harness = Harness::new(LONG);
    harness.store.create(&plain("a", &ann(), at(100))).unwrap();
    harness.store.create(&plain("b", &ann(), at(100))).unwrap();
    harness.store.begin_delete(&id("a"), &harness.to, 1).unwrap();
    harness.create("c", &ann(), 2);
    assert_eq!(harness.begin_get("b", 0), Some(true));
    assert_eq!(harness.begin_get("d", 0), Some(false));
    assert_eq!(harness.begin_get("a", 3), None);
    assert_eq!(harness.begin_get("c", 4), None);
    harness.store.flush().unwrap();
    let ended = harness.ended();
    assert_eq!(ended[..2], [(1, number(1)), (2, number(1))]);
    assert_eq!(ended[2], (3, Ok(Answer::Session(None))));
    assert!(found(&ended[3].1));
    // There are no pending writes any more.
    assert_eq!((harness.begin_get("a", 0), harness.begin_get("c", 0)), (Some(false), Some(true)));
}

#[test]
fn a_get_waits_until_all_sessions_of_its_user_are_ended() {
    let harness = Harness::new(LONG);
    harness.store.create(&plain("a", &ann(), at(100))).unwrap();
    harness.store.create(&plain("b", &bob(), at(100))).unwrap();
    harness.store.begin_delete_by_user(ann().as_key(), None, &harness.to, 1).unwrap();
    assert_eq!(harness.begin_get("a", 2), None);
    assert_eq!(harness.begin_get("b", 0), Some(true));
    harness.store.flush().unwrap();
    assert_eq!(harness.ended(), [(1, number(1)), (2, Ok(Answer::Session(None)))]);

    harness.store.begin_clear(&harness.to, 1).unwrap();
    assert_eq!(harness.begin_get("b", 2), None);
    harness.store.flush().unwrap();
    assert_eq!(harness.ended()[1], (2, Ok(Answer::Session(None))));
}

#[test]
fn a_get_waits_for_a_login_that_may_end_its_session() {
    let dir = new_dir();
    let options = FileOptions { max_sessions_per_user: NonZeroUsize::new(1), ..options(dir.path()) };
    let store = FileStore::open_at(&options, clock()).unwrap();
    store.create(&plain("old", &ann(), at(100))).unwrap();
    store.create(&plain("other", &bob(), at(100))).unwrap();
    let to: Arc<dyn Completions> = Arc::new(Received::default());
    store.begin_create(&plain("new", &ann(), at(100)), &to, 1).unwrap();
    assert!(matches!(store.try_get(&id("other"), |_, _| ()), Ok(Ok(Some(())))));
    assert!(matches!(store.try_get(&id("old"), |_, _| ()), Ok(Err(_))));
    assert_eq!(store.get(&id("old")), Ok(None));
}

#[test]
fn a_get_of_a_new_session_also_waits_for_delete_by_user() {
    let harness = Harness::new(LONG);
    let stopped = harness.clock.stop();
    harness.create("a", &ann(), 1);
    harness.store.wake();
    // In a different transaction than the creation.
    harness.clock.wait_for_transactions(1);
    harness.store.begin_delete_by_user(ann().as_key(), None, &harness.to, 2).unwrap();
    assert_eq!(harness.begin_get("a", 3), None);
    harness.store.wake();
    drop(stopped);
    harness.store.flush().unwrap();
    assert_eq!(harness.ended(), [(1, number(1)), (2, number(1)), (3, Ok(Answer::Session(None)))]);
}

#[test]
fn calls_on_other_threads_see_earlier_writes() {
    let harness = Harness::new(LONG);
    harness.create("a", &ann(), 1);
    thread::scope(|scope| {
        let store = &harness.store;
        assert!(scope.spawn(|| store.get(&id("a")).unwrap()).join().unwrap().is_some());
        harness.create("b", &ann(), 2);
        let of_user = scope.spawn(|| store.get_by_user(ann().as_key()).unwrap().len());
        assert_eq!(of_user.join().unwrap(), 2);
        harness.create("c", &ann(), 3);
        assert_eq!(scope.spawn(|| store.delete_by_user(ann().as_key(), None)).join().unwrap(), Ok(3));
    });
}

#[test]
fn get_by_user_waits_only_for_writes_that_affect_that_user() {
    let harness = Harness::new(LONG);
    for (session, user) in [("a", ann()), ("b", ann()), ("c", bob())] {
        harness.store.create(&plain(session, &user, at(100))).unwrap();
    }
    let ids = |user: UserKeyBuf| {
        let sessions = harness.store.get_by_user(user.as_key()).unwrap();
        sessions.iter().map(|session| session.id.to_string()).collect::<Vec<_>>()
    };
    type Begin = fn(&Harness) -> Result<()>;
    let writes: [(Begin, &[&str]); 4] = [
        (
            |harness| harness.store.begin_create(&plain("d", &ann(), at(100)), &harness.to, 1),
            &["a", "b", "d"],
        ),
        (|harness| harness.store.begin_update(&plain("d", &bob(), at(100)), &harness.to, 1), &["a", "b"]),
        (|harness| harness.store.begin_delete(&id("a"), &harness.to, 1).map(drop), &["b"]),
        (|harness| harness.store.begin_delete_by_user(ann().as_key(), None, &harness.to, 1), &[]),
    ];
    for (begin, left) in writes {
        let stopped = harness.clock.stop();
        begin(&harness).unwrap();
        // It does not wait, although the writer is stopped.
        assert_eq!(ids(UserKeyBuf::from_text("carl")), [""; 0]);
        thread::scope(|scope| {
            let of_ann = scope.spawn(|| ids(ann()));
            drop(stopped);
            assert_eq!(of_ann.join().unwrap(), left);
        });
    }
}

#[test]
fn a_call_ends_at_its_deadline_and_reports_its_outcome() {
    let harness = Harness::new(1000);
    harness.store.create(&plain("old", &ann(), at(100))).unwrap();
    let stopped = harness.clock.stop();
    harness.create("in the writer", &ann(), 1);
    harness.store.wake();
    harness.clock.wait_for_transactions(2);
    harness.create("queued", &ann(), 2);
    assert_eq!((harness.begin_get("in the writer", 3), harness.begin_get("queued", 4)), (None, None));
    // It waits until its own deadline, and ends the other calls whose deadline passes before that.
    let error = harness.store.create(&plain("of this thread", &ann(), at(100))).unwrap_err();
    assert_eq!((error.code(), error.is_outcome_unknown()), ("ERR_STORE_TIMEOUT", false));
    assert_eq!(harness.store.expire(), None);
    let ended = harness.ended();
    let outcomes: Vec<_> = ended
        .iter()
        .map(|(_, answer)| {
            let error = answer.as_ref().unwrap_err();
            (error.code(), error.is_outcome_unknown())
        })
        .collect();
    let (unknown, not_done) = (("ERR_STORE_TIMEOUT", true), ("ERR_STORE_TIMEOUT", false));
    assert_eq!(outcomes, [unknown, not_done, not_done, not_done]);
    assert_eq!(harness.begin_get("old", 0), Some(true));
    // The queued write is no longer pending. The write that the writer has taken still is.
    assert_eq!((harness.begin_get("queued", 0), harness.begin_get("in the writer", 5)), (Some(false), None));
    assert_eq!(harness.store.get_by_user(ann().as_key()).unwrap_err().code(), "ERR_STORE_TIMEOUT");
    drop(stopped);
    harness.store.flush().unwrap();
    let ids = harness.store.ids(Cursor::default()).unwrap().0;
    assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["in the writer", "old"]);
}

#[test]
fn a_panic_of_the_writer_fails_its_batch_and_the_store_continues() {
    let harness = Harness::new(LONG);
    harness.clock.change(|state| state.panics = 1);
    harness.create("a", &ann(), 1);
    harness.create("b", &ann(), 2);
    assert_eq!(harness.begin_get("a", 3), None);
    harness.store.wake();
    harness.store.flush().unwrap();
    let ended = harness.ended();
    let codes: Vec<_> = ended.iter().map(|(_, answer)| answer.as_ref().map_err(StoreError::code)).collect();
    let internal = Err("ERR_INTERNAL");
    assert_eq!(codes, [internal, internal, Ok(&Answer::Session(None))]);
    harness.store.create(&plain("a", &ann(), at(100))).unwrap();
    assert_eq!(harness.store.size(), Ok(1));
    assert_eq!(problems(&harness.store), [""; 0]);
}

/// Sessions of a MiB.
fn large() -> String {
    format!(r#"{{"pad":"{}"}}"#, "x".repeat(1 << 20))
}

/// Queues creates of large sessions until one is refused. Returns the number of those that were not.
fn fill(harness: &Harness) -> u32 {
    let text = large();
    let create = |number: u32| {
        let session = json(&number.to_string(), None, &text, at(100));
        harness.store.begin_create(&session, &harness.to, number)
    };
    let refused = (0..100).find_map(|number| Some((number, create(number).err()?.code())));
    // The limit is 64 MiB.
    let Some((count @ 50..=64, "ERR_STORE_BUSY")) = refused else { panic!("{refused:?}") };
    count
}

/// Queues small writes until the queue has no byte left.
fn fill_up(harness: &Harness) {
    let touch = |ticket| harness.store.begin_touch(&id("0"), at(200), None, &harness.to, ticket);
    let refused = (1000..).find_map(|ticket| touch(ticket).err()).unwrap();
    assert_eq!(refused.code(), "ERR_STORE_BUSY");
}

#[test]
fn a_full_queue_does_not_refuse_calls_that_wait_for_its_writes() {
    let harness = Harness::new(LONG);
    let stopped = harness.clock.stop();
    let count = fill(&harness);
    fill_up(&harness);
    assert_eq!(harness.begin_get("0", 500), None);
    let store = &harness.store;
    let (flushed, found) = thread::scope(|scope| {
        let flushed = scope.spawn(|| store.flush());
        let found = scope.spawn(|| store.get(&id("1")));
        drop(stopped);
        (flushed.join().unwrap(), found.join().unwrap())
    });
    assert_eq!(flushed, Ok(()));
    assert!(found.unwrap().is_some());
    let ended = harness.ended();
    assert!(ended.iter().any(|(ticket, answer)| *ticket == 500 && self::found(answer)));
    assert_eq!(harness.store.size(), Ok(count.into()));
    assert_eq!(harness.store.queued_bytes().0, 0);
}

#[test]
fn writes_beyond_the_queue_limit_are_rejected_and_have_no_effect() {
    let harness = Harness::new(LONG);
    let text = large();
    let stopped = harness.clock.stop();
    let count = fill(&harness);
    // A rejected write is not pending.
    assert_eq!(harness.begin_get(&count.to_string(), 0), Some(false));
    drop(stopped);
    harness.store.wake();
    harness.store.flush().unwrap();
    assert_eq!(harness.store.size(), Ok(count.into()));
    harness.store.create(&json("later", None, &text, at(100))).unwrap();
}
