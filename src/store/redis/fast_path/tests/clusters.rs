//! Tests of the fast path in a cluster: two nodes that the test plays, and another cluster for the worker.

use super::*;
use crate::store::redis::options::{Address, Login, Servers};
use crate::store::redis::resp::{SLOTS, slot_of};

const ONE: NodeId = 101;
const OTHER: NodeId = 102;
const LAST: u16 = SLOTS as u16 - 1;
const MIDDLE: u16 = SLOTS as u16 / 2;

struct Cluster {
    harness: Harness,
    one: Peer,
    other: Peer,
    fake: Fake,
}

/// Opens a store in a cluster with a fake as its seed.
pub fn open_in_cluster(fake: &Fake, change: impl FnOnce(&mut RedisOptions)) -> Arc<RedisStore> {
    let seeds = vec![Address { host: "127.0.0.1".into(), port: fake.port }];
    open_on(fake, |options| {
        options.servers = Servers::Cluster { seeds, login: Login::default() };
        change(options);
    })
}

impl Cluster {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut RedisOptions)) -> Self {
        // All slots are on the worker's first node.
        let fake = Fake::start_cluster(2, |_, _| Conduct::Do);
        fake.slots.lock().unwrap().move_half(1);
        let mut harness = Harness::new(open_in_cluster(&fake, change));
        harness.takes_supply = false;
        harness.until(|harness| harness.connections == 1);
        let mut cluster =
            Self { one: Peer::of(&mut harness, ONE), other: Peer::of(&mut harness, OTHER), harness, fake };
        cluster.route(&[(0, MIDDLE - 1, ONE), (MIDDLE, LAST, OTHER)]);
        cluster
    }

    fn route(&mut self, ranges: &[(u16, u16, NodeId)]) {
        self.harness.fast_path.take_supply(Supply::Slots(ranges.into()));
        self.harness.fast_path.submit();
    }
}

/// An id whose slot is in the lower or the upper half.
fn of_half(half: usize) -> String {
    let is_there = |name: &String| usize::from(slot_of(format!("sess#{name}").as_bytes()) / MIDDLE) == half;
    (0..).map(|at| format!("s{at}")).find(is_there).unwrap()
}

#[test]
fn each_call_goes_to_the_primary_of_its_slot() {
    let mut cluster = Cluster::new();
    let ids = [0, 1].map(of_half);
    for _ in 0..3 {
        let tickets =
            [cluster.harness.touch(&id(&ids[0]), in_an_hour()), cluster.harness.delete(&id(&ids[1]))];
        cluster.harness.fast_path.submit();
        assert_eq!(cluster.one.receive(1)[0][3], format!("sess#{}", ids[0]).as_bytes());
        assert_eq!(cluster.other.receive(1)[0][1], format!("sess#{}", ids[1]).as_bytes());
        cluster.other.send(NIL);
        cluster.one.send(DONE);
        assert_eq!(tickets.map(|ticket| cluster.harness.number(ticket)), [Ok(1), Ok(1)]);
    }
    assert!(cluster.fake.log().is_empty());
}

#[test]
fn in_a_cluster_the_worker_creates_the_sessions_of_users() {
    let mut cluster = Cluster::new();
    let name = of_half(0);
    let created = cluster.harness.create(&json(&name, None, r#"{"number":1}"#, in_an_hour()));
    cluster.harness.fast_path.submit();
    assert_eq!(cluster.one.receive(1)[0][..2], [b"SET".to_vec(), format!("sess#{name}").into_bytes()]);
    cluster.one.send(b"+OK\r\n");
    assert_eq!(cluster.harness.number(created), Ok(1));
    assert!(cluster.fake.log().is_empty());
    let created = cluster.harness.create(&session(&name, &ann()));
    assert_eq!(cluster.harness.number(created), Ok(1));
    assert_eq!(cluster.fake.log(), ["enter user#\"ann\"".to_owned(), format!("SET sess#{name}")]);
}

#[test]
fn a_creation_by_the_worker_waits_only_for_calls_on_its_session() {
    let mut cluster = Cluster::new();
    let name = of_half(0);
    let (ended, other) = (cluster.harness.delete(&id(&name)), cluster.harness.get(&id("other")));
    cluster.harness.fast_path.submit();
    let created = cluster.harness.create(&session("alone", &ann()));
    assert_eq!(cluster.harness.number(created), Ok(1));
    let created = cluster.harness.create(&session(&name, &ann()));
    cluster.harness.fast_path.submit();
    cluster.harness.listen();
    assert!(!cluster.fake.has(&format!("sess#{name}")), "it is to be ended before");
    let answers = |peer: &mut Peer, count| {
        peer.receive(count);
        peer.send(&NIL.repeat(count));
    };
    let with_ended = 1 + usize::from(slot_of(b"sess#other") < MIDDLE);
    answers(&mut cluster.one, with_ended);
    answers(&mut cluster.other, 2 - with_ended);
    assert_eq!([ended, created].map(|ticket| cluster.harness.number(ticket)), [Ok(1), Ok(1)]);
    assert_eq!(cluster.harness.session(other), Ok(None));
    assert!(cluster.fake.has(&format!("sess#{name}")));
    let ends = |line: &String| line.starts_with("GETDEL");
    assert!(!cluster.fake.log().iter().any(ends), "what was answered here is not done again");
}

#[test]
fn redirected_and_refused_calls_fall_back() {
    for refusal in [
        &b"-MOVED 7 127.0.0.1:1\r\n"[..],
        b"-ASK 7 127.0.0.1:1\r\n",
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
    ] {
        let mut cluster = Cluster::new();
        let name = of_half(1);
        let refused = [cluster.harness.touch(&id(&name), in_an_hour()), cluster.harness.delete(&id(&name))];
        let found = cluster.harness.get(&id(&name));
        cluster.harness.fast_path.submit();
        cluster.other.receive(3);
        cluster.other.send(&refusal.repeat(3));
        assert_eq!(refused.map(|ticket| cluster.harness.number(ticket)), [Ok(0), Ok(1)]);
        assert_eq!(cluster.harness.session(found), Ok(None));
        assert_eq!(
            cluster.fake.log(),
            ["touch", "GETDEL", "GET"].map(|command| format!("{command} sess#{name}")),
            "{}",
            refusal.escape_ascii()
        );
        cluster.harness.listen();
        assert!(cluster.harness.fast_path.fallback.is_empty());
        assert_eq!(cluster.harness.fast_path.sockets().count(), 2);
    }
}

#[test]
fn calls_on_a_moving_slot_wait_for_earlier_ones() {
    let mut cluster = Cluster::new();
    let [name, other] = [0, 1].map(of_half);
    let before = cluster.harness.touch(&id(&name), in_an_hour());
    cluster.harness.fast_path.submit();
    cluster.one.receive(1);
    cluster.route(&[(0, LAST, OTHER)]);
    let after = [cluster.harness.touch(&id(&name), in_an_hour()), cluster.harness.delete(&id(&name))];
    let found = cluster.harness.get(&id(&name));
    // Calls on other slots continue.
    let of_others = cluster.harness.get(&id(&other));
    cluster.harness.fast_path.submit();
    assert_eq!(cluster.other.receive(1), [[b"GET".to_vec(), format!("sess#{other}").into_bytes()]]);
    cluster.other.send(NIL);
    assert_eq!(cluster.harness.session(of_others), Ok(None));
    assert!(cluster.fake.log().is_empty(), "they wait");
    cluster.one.send(b":0\r\n");
    assert_eq!(cluster.harness.number(before), Ok(0));
    assert_eq!(after.map(|ticket| cluster.harness.number(ticket)), [Ok(0), Ok(1)]);
    assert_eq!(cluster.harness.session(found), Ok(None));
    assert_eq!(
        cluster.fake.log(),
        ["touch", "GETDEL", "GET"].map(|command| format!("{command} sess#{name}"))
    );
    // From now on the slot's calls go to the other node.
    cluster.harness.listen();
    let moved = cluster.harness.touch(&id(&name), in_an_hour());
    cluster.harness.fast_path.submit();
    cluster.other.receive(1);
    cluster.other.send(DONE);
    assert_eq!(cluster.harness.number(moved), Ok(1));
}

#[test]
fn only_the_calls_of_a_lost_node_fall_back() {
    let mut cluster = Cluster::new();
    let [name, other] = [0, 1].map(of_half);
    let lost = cluster.harness.touch(&id(&name), in_an_hour());
    let found = cluster.harness.get(&id(&other));
    cluster.harness.fast_path.submit();
    cluster.one.receive(1);
    cluster.other.receive(1);
    let one = cluster.one;
    one.leave();
    assert_eq!(cluster.harness.number(lost), Ok(0));
    cluster.other.send(NIL);
    assert_eq!(cluster.harness.session(found), Ok(None));
    assert_eq!(cluster.fake.log(), [format!("touch sess#{name}")]);
    assert_eq!(cluster.harness.fast_path.sockets().map(|(node, ..)| node).collect::<Vec<_>>(), [OTHER]);
    // The slots of the lost node move to a new one.
    let mut next = Peer::of(&mut cluster.harness, ONE + 10);
    let ranges = [(0, MIDDLE - 1, ONE + 10), (MIDDLE, LAST, OTHER)];
    cluster.harness.fast_path.take_supply(Supply::Slots(ranges.into()));
    assert_eq!(cluster.harness.fast_path.primaries.len(), 2, "the one that is gone is forgotten");
    let found = [cluster.harness.get(&id(&name)), cluster.harness.get(&id(&other))];
    cluster.harness.fast_path.submit();
    next.receive(1);
    cluster.other.receive(1);
    next.send(NIL);
    cluster.other.send(NIL);
    assert_eq!(found.map(|ticket| cluster.harness.session(ticket)), [Ok(None), Ok(None)]);
}

#[test]
fn calls_fall_back_while_no_primary_is_known() {
    let mut cluster = Cluster::new();
    let name = of_half(0);
    cluster.route(&[(MIDDLE, LAST, OTHER)]);
    let found = cluster.harness.get(&id(&name));
    assert_eq!(cluster.harness.session(found), Ok(None));
    assert_eq!(cluster.fake.log(), [format!("GET sess#{name}")]);
}

#[test]
fn a_connection_with_new_keys_ends_the_others() {
    let mut cluster = Cluster::new();
    let [name, other] = [0, 1].map(of_half);
    let before = cluster.harness.touch(&id(&name), in_an_hour());
    cluster.harness.fast_path.submit();
    cluster.one.receive(1);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let connection = RawConnection { socket: Arc::new(socket.into()), tls: None };
    let cipher = Arc::new(Cipher::Plain);
    let connection = EventLoopConnection { node: ONE + 10, connection, cipher, tracking: None };
    cluster.harness.fast_path.take_supply(Supply::Connection(connection));
    assert_eq!(cluster.harness.fast_path.sockets().map(|(node, ..)| node).collect::<Vec<_>>(), [ONE + 10]);
    assert_eq!(cluster.harness.number(before), Ok(0));
    let found = cluster.harness.get(&id(&other));
    assert_eq!(cluster.harness.session(found), Ok(None));
}

#[test]
fn the_worker_provides_a_connection_to_each_primary() {
    let fake = Fake::start_cluster(3, |_, _| Conduct::Do);
    let mut harness = Harness::new(open_in_cluster(&fake, |_| {}));
    harness.until(|harness| harness.fast_path.sockets().count() == 2);
    let ids = [0, 1].map(of_half);
    let all_here = |harness: &mut Harness| {
        let before = harness.answered();
        let tickets = [0, 1].map(|half| harness.delete(&id(&ids[half])));
        assert_eq!(tickets.map(|ticket| harness.number(ticket)), [Ok(1), Ok(1)]);
        harness.answered() == before + 2
    };
    assert!(all_here(&mut harness) && fake.log().is_empty());
    // The upper half moves to the third node, which has no connection yet.
    fake.slots.lock().unwrap().move_half(1);
    assert!(all_here(&mut harness), "the second says where it is");
    assert_eq!(fake.log(), [format!("GETDEL sess#{}", ids[1])]);
    harness.until(|harness| harness.connections == 3);
    let started = Instant::now();
    loop {
        let count = fake.log().len();
        all_here(&mut harness);
        if fake.log().len() == count {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "they still go by the worker");
    }
    harness.until(|harness| harness.fast_path.is_idle());
}
