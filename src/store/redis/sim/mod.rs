//! A deterministic simulator of RedisStore's worker and its connections, in the manner of FoundationDB and
//! TigerBeetle.
//!
//! One seed decides everything: the delay and loss of each packet, connections that break or fall silent, and
//! processes that start, close and are killed. It also decides when servers stop, freeze, slow down, refuse commands,
//! lose data or fail over, and when slots move. The store is the real one, from its queue to the bytes that it sends.
//! The servers, the network and the time are simulated. The simulator compares the results of all calls with a model
//! of the contract. When everything is quiet, it also compares the data on the servers.
//!
//! All tasks run on one thread, with tokio's paused clock. So only the seed decides their order.
//!
//! | module | contents |
//! |---|---|
//! | `data`, `scripts` | the data of a server, and the effects of commands |
//! | `server` | a Redis server, a replica, a node of a cluster, or a sentinel |
//! | `network` | connections over paths that break |
//! | `process` | a process with an open store |
//! | `clients` | the calls that processes make |
//! | `model` | what these calls may return |
//! | `world` | the state of a simulation |
//! | `director` | the faults, and the verdict |
//! | `tests` | the seeds that run |
//!
//! Reproduce a seed with `SIM_SEED=<n> cargo test --no-default-features --lib redis::sim::`, and run many with
//! `npm run simulate -- --redis <count>`.
//!
//! `npm run simulate -- --mutants` checks that the simulator finds bugs. `scripts/mutants.js` lists them. Add one for
//! each new safeguard, and for each bug that the simulator finds.
//!
//! **Not simulated**: the fast path, TLS, encryption, `waitReplicas`, `maxSessionsPerUser`, servers whose clocks
//! differ, servers that evict keys, a primary that still accepts writes after a failover, and a server that runs the
//! commands of an older connection after those of a newer one.
//!
//! **Known limitations** of the store, which the model allows:
//! - In a cluster, a repeated creation may end with an unknown outcome before its entry gets another version. If
//!   another call has ended its session and entry in between, the entry is missing (`model::History::stored`).
//! - Two processes create the same id in the same millisecond, with the same microseconds in their stamps (one pair
//!   in 1000). If one of them repeats its creation, both succeed. Here all processes have different microseconds.
//! - A scan of a cluster may miss a slot that leaves and comes back within each of two rounds
//!   (`SlotView::moves_after`).
//! - After a failover to a lagging replica, a session that had ended is back, and its entry may still be removed
//!   (`Row::may_be_unnamed`).

mod clients;
mod data;
mod director;
mod model;
mod network;
mod process;
mod scripts;
mod server;
mod tests;
mod world;

use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use self::world::{Config, World};
use crate::store::simulation::Random;

pub(super) use self::data::{Command, Data, encode, parse};
pub(super) use self::scripts::ALL as SCRIPTS;

/// The result of a seed.
struct Verdict {
    violation: Option<String>,
    trace: String,
    digest: u64,
    steps: u64,
    counts: BTreeMap<&'static str, u64>,
}

/// Runs a seed.
fn simulate(seed: u64, keeps_trace: bool) -> Verdict {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    let world = runtime.block_on(async {
        let mut random = Random::new(seed);
        let config = Config::new(seed, &mut random);
        let world = World::new(config, random, keeps_trace);
        world.detail(|| format!("{:?}", world.config));
        spawn_local(director::direct(Rc::clone(&world)));
        world.over.notified().await;
        world
    });
    // Drops all tasks before their shared state.
    drop(runtime);
    Verdict {
        violation: world.violation(),
        trace: world.traced(),
        digest: world.digest.get(),
        steps: world.steps.get(),
        counts: world.counts.take(),
    }
}
