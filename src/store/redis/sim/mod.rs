//! A simulator of RedisStore's worker and its connections, in the manner of FoundationDB's and TigerBeetle's.
//!
//! One seed decides everything: how long each packet takes, which are lost, which connections break or fall silent, when
//! servers stop, stand still, are slow, refuse, lose their data or are replaced by a replica, when slots move, and when
//! processes start, close their stores and are killed. The store is the real one, from its queue to the bytes that it
//! sends. The servers, the network and the time are simulated. What the clients see is compared with a model of the
//! contract, and so is what the servers hold once all is quiet.
//!
//! All tasks are on one thread, and its time is tokio's paused one. So nothing but the seed decides which comes first.
//!
//! | module | what |
//! |---|---|
//! | `data`, `scripts` | what a server holds, and what commands do to it |
//! | `server` | a Redis, a replica, a node of a cluster, or a sentinel |
//! | `network` | connections over paths that break |
//! | `process` | a process that has a store open |
//! | `clients` | what is done in it |
//! | `model` | what may be seen then |
//! | `world` | the state of a simulation |
//! | `director` | the faults, and the verdict |
//! | `tests` | the seeds that run |
//!
//! Reproduce a seed with `SIM_SEED=<n> cargo test --no-default-features --lib redis::sim::`, and run many with
//! `npm run simulate -- --redis <count>`.
//!
//! `npm run simulate -- --mutants` checks that the simulator finds bugs. `scripts/mutants.js` lists them: add one for each
//! new safeguard, and for each bug that the simulator finds.
//!
//! **Not simulated**: the fast path, TLS, encryption, `waitReplicas`, `maxSessionsPerUser`, clocks of servers that differ,
//! servers that evict keys, a primary that still takes writes after a replica has taken over, and a server that carries out
//! what one connection has sent after what a later one has.
//!
//! **Known** until the store is better, and left out:
//! - A creation in a cluster is sent again, its session and its entry are ended by another call in between, and the creation
//!   ends with an unknown outcome before its entry gets another version. The model takes that for allowed
//!   (`model::History::stored`).
//! - Two processes create the same id in the same millisecond, one has to send its creation again, and both have the same
//!   microseconds in their stamps, as one pair of 1000 has. Then both succeed. Here all processes have others.
//! - A scan of a cluster may miss a slot that goes and comes back within each of two rounds (`SlotView::moves_after`).
//! - After a failover to a replica that lags, a session that had ended is back, and its entry may still be removed
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

/// What became of a seed.
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
    // With all tasks, before what they share.
    drop(runtime);
    Verdict {
        violation: world.violation(),
        trace: world.traced(),
        digest: world.digest.get(),
        steps: world.steps.get(),
        counts: world.counts.take(),
    }
}
