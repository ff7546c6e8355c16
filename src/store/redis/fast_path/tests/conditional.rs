//! Changes of sessions that the fast path has read: by `SET … IFEQ`, or by scripts that compare on an older server. A touch
//! of a session whose expiry is late enough only reads it.

use std::sync::LazyLock;

use super::*;

/// The commands that a server gets.
type Log = Arc<Mutex<Vec<Command>>>;

/// A fast path that has read the session `a`, and the commands that it sends from then on.
fn open(change: impl FnOnce(&mut Fake)) -> (Fake, Harness, Log) {
    let log = Log::default();
    let noted = Arc::clone(&log);
    let mut fake = Fake::start(move |is_fast, command| {
        if is_fast {
            noted.lock().unwrap().push(command.clone());
        }
        Conduct::Do
    });
    change(&mut fake);
    let mut harness = Harness::open(open_on(&fake, |_| {}));
    let created = harness.create(&session("a", &ann()));
    assert_eq!(harness.number(created), Ok(1));
    read(&mut harness);
    log.lock().unwrap().clear();
    (fake, harness, log)
}

fn read(harness: &mut Harness) {
    let found = harness.get(&id("a"));
    assert!(harness.session(found).unwrap().is_some());
}

fn stored(fake: &Fake) -> Option<String> {
    let data = fake.data.lock().unwrap();
    data.strings.get(&b"sess#a"[..]).map(|value| String::from_utf8(value.clone()).unwrap())
}

/// The first words of the commands.
fn names(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(|command| String::from_utf8_lossy(&command[0]).into_owned()).collect()
}

fn numbered(number: usize) -> String {
    format!(r#"{{"number":{number}}}"#)
}

#[test]
fn changes_of_a_known_session_need_no_script() {
    let (fake, mut harness, log) = open(|_| {});
    let ann = ann();
    // Each is made from the value of the one before, which has no reply yet.
    let tickets = [
        harness.touch(&id("a"), in_an_hour()),
        harness.update(&json("a", Some(&ann), &numbered(1), in_an_hour())),
        harness.touch(&id("a"), in_an_hour()),
        harness.update(&json("a", Some(&ann), &numbered(2), in_an_hour())),
    ];
    assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(1), Ok(1), Ok(1), Ok(1)]);
    assert_eq!(names(&log), ["SET", "SET", "SET", "SET"]);
    assert!(stored(&fake).unwrap().contains(&numbered(2)));
    assert_eq!(fake.log(), [""; 0], "the worker did nothing");
    // A deleted session is not known any more.
    let tickets = [harness.delete(&id("a")), harness.touch(&id("a"), in_an_hour())];
    assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(1), Ok(0)]);
    assert_eq!(names(&log)[4..], ["GETDEL", "EVALSHA"]);
    assert_eq!(stored(&fake), None);
}

#[test]
fn a_session_that_another_process_has_changed_is_changed_by_the_worker() {
    let (fake, mut harness, log) = open(|_| {});
    let theirs = stored(&fake).unwrap().replace("ann", "ben");
    fake.data.lock().unwrap().put(b"sess#a", Some(theirs.clone().into()));
    let moved = Expiry::new(in_an_hour().millis() + 1).unwrap();
    let touched = harness.touch(&id("a"), moved);
    assert_eq!(harness.number(touched), Ok(1));
    let now = stored(&fake).unwrap();
    assert!(now != theirs && now.contains("ben"), "{now}");
    assert_eq!((names(&log), fake.log()), (vec!["SET".into()], vec!["touch sess#a".into()]));
}

#[test]
fn a_session_that_another_process_has_deleted_stays_deleted() {
    let (fake, mut harness, log) = open(|_| {});
    fake.data.lock().unwrap().put(b"sess#a", None);
    let tickets = [
        harness.touch(&id("a"), in_an_hour()),
        harness.update(&json("a", Some(&ann()), &numbered(1), in_an_hour())),
    ];
    assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(0), Ok(0)]);
    assert_eq!(names(&log), ["SET", "SET"]);
    assert_eq!(stored(&fake), None);
}

/// The worker makes the touch, so calls behind it must not reach the server before it.
#[test]
fn later_calls_wait_for_a_change_that_may_be_refused() {
    let change = |fake: &Fake| {
        let theirs = stored(fake).unwrap().replace("ann", "ben");
        fake.data.lock().unwrap().put(b"sess#a", Some(theirs.into()));
    };
    let (fake, mut harness, _) = open(|_| {});
    change(&fake);
    let touched = harness.touch(&id("a"), in_an_hour());
    let deleted = harness.delete(&id("a"));
    assert_eq!([touched, deleted].map(|ticket| harness.number(ticket)), [Ok(1), Ok(1)]);
    assert_eq!(fake.log()[..2], ["touch sess#a", "GETDEL sess#a"]);

    // A new session of the id is stored once, and never removed again.
    let (fake, mut harness, _) = open(|_| {});
    fake.data.lock().unwrap().put(b"sess#a", None);
    let tickets = [harness.touch(&id("a"), in_an_hour()), harness.create(&session("a", &ann()))];
    assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(0), Ok(1)]);
    let data = fake.data.lock().unwrap();
    let is_there: Vec<_> = data.history[&b"sess#a"[..]].iter().map(Option::is_some).collect();
    assert_eq!(is_there, [false, true, false, true]);
}

/// An expiry after those of `in_an_hour`, before the user's index has to be prolonged.
fn later(millis: i64) -> Expiry {
    static START: LazyLock<i64> = LazyLock::new(|| in_an_hour().millis() + 15 * 60_000);
    Expiry::new(*START + millis).unwrap()
}

/// Gives the session `a` an expiry before all that the tests use, as another process may.
fn shorten(fake: &Fake) {
    let mut theirs = stored(fake).unwrap().into_bytes();
    theirs[11..29].copy_from_slice(format!("{:<18}", later(-60_000).millis()).as_bytes());
    fake.data.lock().unwrap().put(b"sess#a", Some(theirs));
}

#[test]
fn a_touch_of_a_session_that_lasts_long_enough_only_reads() {
    let (fake, mut harness, log) = open(|_| {});
    let expires = later(1000);
    // All but the first one are sent before it has a reply.
    let mut tickets = Vec::new();
    for _ in 0..3 {
        tickets.push(harness.prolong(&id("a"), expires));
        harness.fast_path.submit();
    }
    for ticket in tickets {
        assert_eq!(harness.number(ticket), Ok(1));
    }
    assert_eq!(names(&log), ["SET", "GETRANGE", "GETRANGE"]);
    // The next one moves the expiry, and needs no other read.
    let moved = harness.prolong(&id("a"), later(1001));
    assert_eq!(harness.number(moved), Ok(1));
    assert_eq!((names(&log)[3..].join(" "), fake.log()), ("SET".into(), vec![]));
    assert!(stored(&fake).unwrap().contains(&later(1001).millis().to_string()));
}

#[test]
fn a_touch_that_only_reads_sees_the_changes_of_other_processes() {
    let (fake, mut harness, log) = open(|_| {});
    let touched = harness.prolong(&id("a"), later(1000));
    assert_eq!(harness.number(touched), Ok(1));
    shorten(&fake);
    let touched = harness.prolong(&id("a"), later(1000));
    assert_eq!(harness.number(touched), Ok(1));
    assert!(stored(&fake).unwrap().contains(&later(1000).millis().to_string()));
    assert_eq!((names(&log).join(" "), fake.log()), ("SET GETRANGE".into(), vec!["touch sess#a".into()]));

    read(&mut harness);
    fake.data.lock().unwrap().put(b"sess#a", None);
    // The second one shares no result with the first, which is complete.
    for _ in 0..2 {
        let touched = harness.prolong(&id("a"), later(1000));
        assert_eq!(harness.number(touched), Ok(0));
    }
    assert_eq!(names(&log)[2..], ["GET", "GETRANGE", "EVALSHA"]);
}

/// The worker makes the touch, so calls behind it must not reach the server before it.
#[test]
fn later_calls_wait_for_a_touch_that_only_reads() {
    let (fake, mut harness, _) = open(|_| {});
    let touched = harness.prolong(&id("a"), later(1000));
    assert_eq!(harness.number(touched), Ok(1));
    shorten(&fake);
    let tickets = [harness.prolong(&id("a"), later(1000)), harness.delete(&id("a"))];
    assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(1), Ok(1)]);
    assert_eq!(fake.log()[..2], ["touch sess#a", "GETDEL sess#a"]);
}

#[test]
fn equal_touches_that_are_not_sent_yet_share_a_request() {
    for is_old in [false, true] {
        let (fake, mut harness, log) = open(|fake| fake.data.lock().unwrap().is_old = is_old);
        let touch = |harness: &mut Harness, expires| harness.prolong(&id("a"), expires);
        let first = [later(1000), later(1000), later(2000)].map(|expires| touch(&mut harness, expires));
        let found = harness.get(&id("a"));
        let last = touch(&mut harness, later(2000));
        for ticket in first {
            assert_eq!(harness.number(ticket), Ok(1));
        }
        assert_eq!(harness.session(found).unwrap().unwrap().expires, later(2000));
        assert_eq!(harness.number(last), Ok(1));
        // An old server refuses them, and the worker makes each one.
        assert_eq!(names(&log)[..4], ["SET", "SET", "GET", "GETRANGE"]);
        let by_worker = fake.log().iter().filter(|call| *call == "touch sess#a").count();
        assert_eq!(by_worker, if is_old { 4 } else { 0 });
    }
}

/// As a proxy may.
#[test]
fn a_refusal_is_remembered_for_the_connection() {
    for (refusal, is_remembered) in [
        (&b"-NOTSUPPORTED option of SET\r\n"[..], true),
        (b"-upstream failure\r\n", true),
        (b"-NOPERM this user has no permissions to run the 'set' command\r\n", true),
        (b"-BUSY Redis is busy running a script.\r\n", false),
        (b"-MISCONF Errors writing to the AOF file\r\n", false),
    ] {
        let log = Log::default();
        let noted = Arc::clone(&log);
        let fake = Fake::start(move |is_fast, command| {
            if !is_fast {
                return Conduct::Do;
            }
            noted.lock().unwrap().push(command.clone());
            let is_conditional = command[0] == b"SET" && command[3] == b"IFEQ";
            if is_conditional { Conduct::Answer(refusal) } else { Conduct::Do }
        });
        let mut harness = Harness::open(open_on(&fake, |_| {}));
        let created = harness.create(&session("a", &ann()));
        assert_eq!(harness.number(created), Ok(1));
        let touch = |harness: &mut Harness, millis| {
            read(harness);
            log.lock().unwrap().clear();
            let touched = harness.prolong(&id("a"), later(millis));
            assert_eq!(harness.number(touched), Ok(1));
            names(&log)
        };
        assert_eq!(touch(&mut harness, 1), ["SET"]);
        assert_eq!(touch(&mut harness, 2), [if is_remembered { "EVAL" } else { "SET" }]);
        // The next connection may be to another server.
        let node = harness.fast_path.sockets().next().unwrap().0;
        harness.fast_path.give_up(node);
        harness.until(|harness| harness.connections == 2);
        assert_eq!(touch(&mut harness, 3), ["SET"]);
    }
}

/// A fast path that knows that its server has no conditional `SET`, and has read the session `a`.
fn open_old() -> (Fake, Harness, Log) {
    let (fake, mut harness, log) = open(|fake| fake.data.lock().unwrap().is_old = true);
    let touched = harness.touch(&id("a"), in_an_hour());
    assert_eq!(harness.number(touched), Ok(1));
    read(&mut harness);
    assert_eq!((names(&log).join(" "), fake.log()), ("SET GET".into(), vec!["touch sess#a".into()]));
    log.lock().unwrap().clear();
    (fake, harness, log)
}

#[test]
fn a_server_without_conditional_sets_gets_scripts_that_compare() {
    let (fake, mut harness, log) = open_old();
    let ann = ann();
    for number in 0..2 {
        // The update is made from the value of the touch, which has no reply yet.
        let expires = later(number as i64);
        let tickets = [
            harness.touch(&id("a"), expires),
            harness.update(&json("a", Some(&ann), &numbered(number), expires)),
        ];
        assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(1), Ok(1)]);
        let stored = stored(&fake).unwrap();
        assert!(stored.contains(&numbered(number)) && stored.contains(&expires.millis().to_string()));
    }
    // The server learns each script once.
    assert_eq!(names(&log), ["EVAL", "EVAL", "EVALSHA", "EVALSHA"]);
    assert_eq!(fake.log(), ["touch sess#a"], "the worker did nothing else");
}

#[test]
fn on_an_old_server_the_worker_changes_what_another_process_has_changed() {
    for is_deleted in [false, true] {
        let (fake, mut harness, log) = open_old();
        shorten(&fake);
        if is_deleted {
            fake.data.lock().unwrap().put(b"sess#a", None);
        }
        let tickets = [
            harness.touch(&id("a"), later(1000)),
            harness.update(&json("a", Some(&ann()), &numbered(1), later(2000))),
        ];
        let expected = if is_deleted { Ok(0) } else { Ok(1) };
        assert_eq!(tickets.map(|ticket| harness.number(ticket)), [expected.clone(), expected]);
        assert_eq!(names(&log), ["EVAL", "EVAL"]);
        assert_eq!(fake.log()[1..], ["touch sess#a", "update sess#a"]);
        assert_eq!(stored(&fake).is_some_and(|value| value.contains(&numbered(1))), !is_deleted);
    }
}

/// As after a restart behind a proxy, or after `SCRIPT FLUSH`.
#[test]
fn a_server_that_has_forgotten_a_script_gets_it_again() {
    let log = Log::default();
    let noted = Arc::clone(&log);
    let fake = Fake::start(move |is_fast, command| {
        let mut log = noted.lock().unwrap();
        if is_fast {
            log.push(command.clone());
        }
        let times = log.iter().filter(|command| command[0] == b"EVALSHA").count();
        let is_forgotten = is_fast && command[0] == b"EVALSHA" && times == 1;
        if is_forgotten { Conduct::Answer(b"-NOSCRIPT No matching script.\r\n") } else { Conduct::Do }
    });
    fake.data.lock().unwrap().is_old = true;
    let mut harness = Harness::open(open_on(&fake, |_| {}));
    let created = harness.create(&session("a", &ann()));
    assert_eq!(harness.number(created), Ok(1));
    for millis in 0..6 {
        read(&mut harness);
        let touched = harness.touch(&id("a"), later(millis));
        assert_eq!(harness.number(touched), Ok(1));
        assert!(stored(&fake).unwrap().contains(&later(millis).millis().to_string()));
    }
    let changes: Vec<_> = names(&log).into_iter().filter(|name| name.starts_with("EVAL")).collect();
    assert_eq!(changes, ["EVAL", "EVALSHA", "EVAL", "EVALSHA", "EVALSHA"]);
    assert_eq!(fake.log(), ["touch sess#a", "touch sess#a"]);
}

/// A touch needs no memory, and the script of the worker can do it.
#[test]
fn a_full_server_moves_the_expiry_by_the_script() {
    let fake = Fake::start(|is_fast, command| {
        let is_refused = is_fast && command[0] == b"SET" && command[3] == b"IFEQ";
        if is_refused { Conduct::Answer(b"-OOM command not allowed\r\n") } else { Conduct::Do }
    });
    let mut harness = Harness::open(open_on(&fake, |_| {}));
    let created = harness.create(&session("a", &ann()));
    assert_eq!(harness.number(created), Ok(1));
    read(&mut harness);
    let touched = harness.touch(&id("a"), in_an_hour());
    assert_eq!(harness.number(touched), Ok(1));
    assert_eq!(fake.log(), ["touch sess#a"]);
}
