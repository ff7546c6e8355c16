//! The faults of servers, network and processes, and the verdict after recovery.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::clients;
use super::network::{HOST, PORT, host_of};
use super::process::Process;
use super::server::ServerId;
use super::world::{Deployment, World};
use crate::clock::Millis;
use crate::store::redis::{Address, Login, RedisOptions, Servers};

/// How far a clock may be off, and be set. Index entries are old after less than this.
const CLOCK_STEPS: [Millis; 4] = [-90_000, -1500, 1500, 90_000];

/// How far a clock may be off in the end.
pub(super) const MAX_CLOCK_ERROR: Millis = 270_000;

/// The number of processes in total, one after another.
const MAX_PROCESSES: usize = 10;

/// How many milliseconds after the last fault calls succeed again. This is the sum of the longest backoff, a failed
/// attempt to connect, and TCP's longest retransmission timeout. Each silent connection adds a late call.
fn recovery(world: &World) -> u64 {
    12_000 + 2 * world.servers.len() as u64 * world.config.command_timeout
}

pub(super) async fn direct(world: Rc<World>) {
    for server in &world.servers {
        spawn_local(Rc::clone(server).serve(Rc::clone(&world)));
    }
    for user in 0..world.config.users {
        world.add_old_entries(user);
    }
    for _ in 0..world.config.processes {
        start(&world);
    }
    for _ in 0..world.config.rounds {
        round(&world).await;
        if world.is_over() {
            return;
        }
        // By then the index of a long session has to be prolonged.
        let long = world.config.lifetimes[3] as u64 * 3 / 10;
        let rest = world.pick(&[0, 0, 1000, 70_000, long]);
        sleep(Duration::from_millis(rest)).await;
    }
    world.finish();
}

async fn round(world: &Rc<World>) {
    world.is_calm.set(false);
    world.clients.set(world.config.clients);
    for _ in 0..world.config.clients {
        spawn_local(clients::client(Rc::clone(world)));
    }
    while world.clients.get() > 0 && !world.is_over() {
        let pause = world.random.borrow_mut().between(1, world.config.chaos);
        sleep(Duration::from_millis(pause)).await;
        if let Some(fault) = world.weighted(&world.config.faults) {
            act(world, fault);
        }
    }
    heal(world);
    if world.alive().is_empty() {
        start(world);
    }
    recover(world).await;
    drain(world).await;
    if world.is_over() {
        return;
    }
    judge(world);
    for process in world.alive() {
        if !world.is_over() && !clients::try_all(world, &process).await {
            world.fail("a call fails though all is well".into());
        }
    }
}

/// Waits until calls of all processes succeed on all servers.
async fn recover(world: &Rc<World>) {
    let healed_at = Instant::now();
    let limit = Duration::from_millis(recovery(world));
    let processes = world.alive();
    join_all(processes.iter().map(async |process| {
        while !world.is_over() && !clients::try_all(world, process).await {
            if healed_at.elapsed() > limit {
                world.fail(format!("process {} does not recover", process.id));
            }
        }
    }))
    .await;
    let millis = healed_at.elapsed().as_millis() as usize;
    world.note("all have recovered", &[millis]);
}

/// Waits until no bytes are on their way.
async fn drain(world: &Rc<World>) {
    // Background work ends by its deadline too.
    sleep(Duration::from_millis(2 * world.config.command_timeout + 200)).await;
    for _ in 0..10_000 {
        if world.is_over() || (world.is_quiet() && world.moving.borrow().is_empty()) {
            return;
        }
        sleep(Duration::from_millis(7)).await;
    }
    world.fail("the network does not come to rest".into());
}

/// Compares the data on the servers with the model.
fn judge(world: &World) {
    world.note("all is quiet", &[]);
    let now = world.now();
    for session in 0..world.config.sessions {
        let truth = world.truth(session);
        let mut histories = world.histories.borrow_mut();
        let history = &mut histories[session];
        history.settle(now);
        if let Err(why) = history.check(truth.as_ref(), now) {
            return world.fail(format!("session {session} is {truth:?} at the server: {why}"));
        }
        let live = truth.filter(|row| row.expires > now);
        if let Some(user) = live.and_then(|row| row.user)
            && history.must_be_named()
            && !world.is_named(user, session)
        {
            return world.fail(format!("the index of user {user} lacks the live session {session}"));
        }
    }
}

fn options(world: &World) -> RedisOptions {
    let address = |server: ServerId| Address { host: host_of(server), port: PORT };
    let login = Login::default();
    let servers = match world.config.deployment {
        Deployment::Single => Servers::Single { address: Address { host: HOST.into(), port: PORT }, login },
        Deployment::Sentinel => Servers::Sentinel {
            sentinels: (2..5).map(|server| (address(server), Login::default())).collect(),
            master: "main".into(),
            login,
        },
        Deployment::Cluster => Servers::Cluster { seeds: vec![address(0), address(4)], login },
    };
    RedisOptions {
        command_timeout: Duration::from_millis(world.config.command_timeout),
        connect_timeout: Duration::from_millis(world.config.connect_timeout),
        sweep_interval: Some(world.config.sweep_interval),
        max_session_bytes: NonZeroUsize::new(1 << 20),
        ..RedisOptions::new(servers)
    }
}

fn start(world: &Rc<World>) {
    let id = world.processes.borrow().len();
    world.note("a process starts", &[id]);
    let process = Process::start(world, id, &options(world));
    world.processes.borrow_mut().push(process);
}

/// How long a fault lasts.
fn duration(world: &World) -> u64 {
    world.pick(&world.config.durations)
}

/// Causes a fault, which ends later.
fn act(world: &Rc<World>, fault: usize) {
    let (millis, alive) = (duration(world), world.alive());
    let server = world.below(world.servers.len());
    let primary = world.owners.borrow()[world.below(world.owners.borrow().len())];
    let connection = {
        let connections = world.connections.borrow();
        if connections.is_empty() {
            None
        } else {
            Some(Rc::clone(&connections[world.below(connections.len())]))
        }
    };
    let process = if alive.is_empty() { None } else { Some(Rc::clone(&alive[world.below(alive.len())])) };
    match (fault, connection, process) {
        (0, Some(connection), _) => {
            world.note("a connection is cut", &[connection.id]);
            connection.cut(world);
        }
        (1, Some(connection), _) => {
            world.note("a connection is blocked", &[connection.id, millis as usize]);
            connection.is_blocked.set(true);
            world.later(millis, move |world| {
                connection.is_blocked.set(false);
                world.network_changed.notify_waiters();
            });
        }
        (2, Some(connection), _) => {
            world.note("a connection is silent", &[connection.id]);
            connection.is_silent.set(true);
            world.network_changed.notify_waiters();
        }
        (3, ..) => {
            let paths = (0..world.processes.borrow().len()).map(|process| (process, primary)).collect();
            cut_off(world, "a server is cut off", paths, millis);
        }
        (4, _, Some(process)) => {
            cut_off(world, "a path is cut off", vec![(process.id, server)], millis);
        }
        (5, _, Some(process)) => {
            let paths = (0..world.servers.len()).map(|server| (process.id, server)).collect();
            cut_off(world, "a process is cut off", paths, millis);
        }
        (6, ..) => restart(world, server, "a server restarts", millis, |_, _| {}),
        (7, ..) if world.servers[server].replica_of.get().is_none() => {
            restart(world, server, "a server restarts without its data", millis, |world, server| {
                *world.servers[server].data.borrow_mut() = Default::default();
            });
        }
        (8, ..) if world.servers[server].replica_of.get().is_none() => {
            restart(world, server, "a server restarts with old data", millis, |world, server| {
                let server = &world.servers[server];
                *server.data.borrow_mut() = server.snapshot.borrow().clone();
            });
        }
        (9, ..) => {
            world.note("a server stands still", &[server, millis as usize]);
            world.servers[server].is_paused.set(true);
            world.later(millis, move |world| world.servers[server].resume());
        }
        (10, ..) => {
            let cost = world.pick(&[3, 20, 150]);
            world.note("a server is slow", &[primary, cost as usize, millis as usize]);
            world.servers[primary].cost.set(cost);
            world.later(millis, move |world| world.servers[primary].cost.set(0));
        }
        (11, ..) => {
            let refusal = world.pick(&[
                "LOADING Redis is loading the dataset in memory",
                "OOM command not allowed when used memory > 'maxmemory'.",
                "NOREPLICAS Not enough good replicas to write.",
                "BUSY Redis is busy running a script.",
                "CLUSTERDOWN The cluster is down",
                "TRYAGAIN Multiple keys request during rehashing of slot",
            ]);
            let chance = world.pick(&[1_000_000, 500_000, 200_000]);
            world.note("a server refuses", &[server, refusal.len(), millis as usize]);
            world.servers[server].refusals.set(Some((refusal, chance)));
            world.later(millis, move |world| world.servers[server].refusals.set(None));
        }
        (12, ..) => fail_over(world, primary),
        (13, ..) => move_slots(world),
        (14, ..) => {
            world.note("the network is slow", &[millis as usize]);
            world.is_slow.set(true);
            world.later(millis, |world| world.is_slow.set(false));
        }
        (15, ..) => {
            world.note("names are lost", &[millis as usize]);
            world.are_names_lost.set(true);
            world.later(millis, |world| world.are_names_lost.set(false));
        }
        (16 | 17, ..) if world.processes.borrow().len() >= MAX_PROCESSES => {}
        (16, _, Some(process)) => {
            world.note("a process closes its store", &[process.id]);
            process.close();
            start(world);
        }
        (17, _, Some(process)) => kill(world, &process),
        (18, ..) if world.config.deployment == Deployment::Single => {
            world.note("a server only reads", &[server, millis as usize]);
            world.servers[server].is_readonly.set(true);
            world.later(millis, move |world| world.servers[server].is_readonly.set(false));
        }
        (19, ..) => {
            world.note("a server saves its data", &[primary]);
            let server = &world.servers[primary];
            *server.snapshot.borrow_mut() = server.data.borrow().clone();
        }
        (20, ..) => {
            world.note("a server forgets its scripts", &[server]);
            world.servers[server].flush_scripts();
        }
        (21, _, Some(process)) if world.config.clock_margin > 0 => {
            let millis = world.pick(&CLOCK_STEPS);
            process.clock.step(millis);
            world.note("a clock is set", &[process.id, millis.unsigned_abs() as usize]);
        }
        _ => {}
    }
}

fn cut_off(world: &Rc<World>, what: &'static str, paths: Vec<(usize, ServerId)>, millis: u64) {
    world.note(what, &[paths[0].0, paths[0].1, millis as usize]);
    world.cut_off.borrow_mut().extend(paths.iter().copied());
    world.later(millis, move |world| {
        world.cut_off.borrow_mut().retain(|path| !paths.contains(path));
        world.network_changed.notify_waiters();
    });
}

/// Stops a server, which restarts later with the rest of its data.
fn restart(
    world: &Rc<World>,
    server: ServerId,
    what: &'static str,
    millis: u64,
    lose: impl FnOnce(&World, ServerId),
) {
    if !world.servers[server].is_up.get() {
        return;
    }
    world.note(what, &[server, millis as usize]);
    world.servers[server].stop(world);
    let before = world.servers[server].data.borrow().clone();
    lose(world, server);
    drop_others(world, server);
    if !world.servers[server].data.borrow().is_same(&before) {
        for replica in world.servers.iter().filter(|other| other.replica_of.get() == Some(server)) {
            replica.follow(&world.servers[server]);
        }
        world.lose();
    }
    world.later(millis, move |world| world.servers[server].start());
}

/// Makes a node of a cluster drop the keys that other nodes own now.
fn drop_others(world: &World, server: ServerId) {
    let is_its = |key: &[u8]| {
        let range = world.range_of(key);
        world.owners.borrow()[range] == server || world.moving.borrow().get(&range) == Some(&server)
    };
    world.servers[server].data.borrow_mut().retain(is_its);
}

/// Promotes a replica, with the data that it has.
fn fail_over(world: &Rc<World>, old: ServerId) {
    let new = world.servers.iter().find(|server| server.replica_of.get() == Some(old));
    let Some(new) = new.filter(|server| server.is_up.get() && world.moving.borrow().is_empty()) else {
        return;
    };
    world.note("a replica takes over", &[old, new.id]);
    let (old, new) = (Rc::clone(&world.servers[old]), Rc::clone(new));
    new.catch_up();
    new.log.borrow_mut().clear();
    new.replica_of.set(None);
    for owner in world.owners.borrow_mut().iter_mut().filter(|owner| **owner == old.id) {
        *owner = new.id;
    }
    world.begin_epoch(new.id);
    drop_others(world, new.id);
    old.follow(&new);
    // The old server may have received commands as a primary. It runs them before it follows the new one, which undoes
    // their changes. So none may be left when it becomes the primary again.
    if world.config.deployment == Deployment::Cluster || !old.is_idle() || world.chance(700_000) {
        old.drop_connections(world);
    }
    world.lose();
    announce(world, &[old.id, new.id]);
}

/// Announces the owners of slots: to some servers now, to the others later.
fn announce(world: &Rc<World>, first: &[ServerId]) {
    for server in 0..world.servers.len() {
        let millis = if first.contains(&server) { 0 } else { world.pick(&[0, 10, 300, 1500]) };
        let learn = move |world: &Rc<World>| world.servers[server].learn(world);
        if millis == 0 { learn(world) } else { world.later(millis, learn) }
    }
}

/// Moves a range of slots to another node of a cluster, key by key.
fn move_slots(world: &Rc<World>) {
    if world.config.deployment != Deployment::Cluster || !world.moving.borrow().is_empty() {
        return;
    }
    let range = world.below(world.owners.borrow().len());
    let from = world.owners.borrow()[range];
    let primaries: Vec<_> =
        world.servers.iter().filter(|other| other.replica_of.get().is_none() && other.id != from).collect();
    let to = primaries[world.below(primaries.len())].id;
    world.note("slots begin to move", &[range, from, to]);
    world.moving.borrow_mut().insert(range, to);
    let world = Rc::clone(world);
    spawn_local(async move {
        loop {
            let pause = world.pick(&[0, 5, 50, 400]);
            sleep(Duration::from_millis(pause)).await;
            let (source, target) = (&world.servers[from], &world.servers[to]);
            let key =
                source.data.borrow().keys().find(|key| world.range_of(key) == range).map(<[u8]>::to_vec);
            let Some(key) = key else { break };
            let entry = source.data.borrow().get(&key).cloned();
            source.data.borrow_mut().put(&key, None);
            target.data.borrow_mut().put(&key, entry);
            source.replicate(&world, &key);
            target.replicate(&world, &key);
        }
        world.note("slots have moved", &[range, from, to]);
        world.owners.borrow_mut()[range] = to;
        world.begin_epoch(to);
        world.moving.borrow_mut().remove(&range);
        announce(&world, &[from, to]);
    });
}

/// Kills a process during its calls.
fn kill(world: &Rc<World>, process: &Process) {
    world.note("a process is killed", &[process.id]);
    process.is_dead.set(true);
    process.died.notify_waiters();
    for connection in world.connections.borrow().iter().filter(|connection| connection.process == process.id)
    {
        connection.cut(world);
    }
    process.close();
    start(world);
}

/// Ends all faults.
fn heal(world: &Rc<World>) {
    world.note("all is well again", &[]);
    world.is_calm.set(true);
    world.cut_off.borrow_mut().clear();
    world.is_slow.set(false);
    world.are_names_lost.set(false);
    for connection in world.connections.borrow().iter() {
        connection.is_blocked.set(false);
    }
    for server in &world.servers {
        server.cost.set(0);
        server.refusals.set(None);
        server.is_readonly.set(false);
        server.start();
        server.resume();
    }
    announce(world, &(0..world.servers.len()).collect::<Vec<_>>());
    world.network_changed.notify_waiters();
}
