//! A simulator of the redo log, in the manner of FoundationDB's and TigerBeetle's.
//!
//! One seed decides everything: which thread of which process runs, when processes open the store, close it, stop and are
//! killed, when the power fails and what of the log is on disk then, which calls of the system fail, and what time it is.
//! The engine is the real one, and so is LMDB beneath it. The log's file and the locks are simulated. What the clients see
//! is compared with a model of the contract.
//!
//! | module | what |
//! |---|---|
//! | `scheduler` | threads that take turns |
//! | `world` | the state of a simulation, and its faults |
//! | `disk`, `locks` | what the system has of the log |
//! | `process` | a process that has the store open |
//! | `clients` | what is done in it |
//! | `model` | what may be seen then |
//! | `director` | what happens to the processes, and the verdict |
//! | `tests` | the seeds that run |
//!
//! Reproduce a seed with `SIM_SEED=<n> cargo test --no-default-features --lib sim::`, and run many with
//! `npm run simulate -- <count>`.
//!
//! `npm run simulate -- --mutants` checks that the simulator finds bugs. `scripts/mutants.js` lists them: each takes one
//! safeguard out of a copy of the sources. Add one for each new safeguard, and for each bug that the simulator finds.
//!
//! **Not simulated**: a power loss in the middle of a commit of LMDB (`tests/power_loss.rs` has it), the queue and its
//! timeouts, encryption, a full disk for LMDB's pages, and versions without a log.

mod clients;
mod director;
mod disk;
mod locks;
mod model;
mod process;
mod scheduler;
mod tests;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use heed::EnvOpenOptions;
use tempfile::TempDir;

use self::world::{Config, DataFile, World};
use super::redo::points::hooks;
use super::tables::{FORMAT, TABLES, Tables};
use crate::store::simulation::Random;

thread_local! {
    static KEEPS_ALL: Cell<bool> = const { Cell::new(false) };
}

/// Whether the whole trace is kept.
fn keeps_all() -> bool {
    KEEPS_ALL.get()
}

/// Runs simulations, one after another.
pub(super) struct Simulator {
    data_file: DataFile,
    _dir: TempDir,
}

/// What became of a seed.
pub(super) struct Verdict {
    pub violation: Option<String>,
    pub trace: String,
    pub steps: u64,
    pub digest: u64,
    pub counts: BTreeMap<String, u64>,
}

impl Simulator {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut options = EnvOpenOptions::new();
        options.map_size(1 << 30).max_dbs(TABLES).max_readers(512);
        // SAFETY: threads that take turns have views of their own. Only one thread of the system uses the environment.
        #[allow(deprecated, reason = "heed has a type for it, which the store does not use")]
        unsafe {
            options.flags(heed::EnvFlags::NO_TLS)
        };
        // SAFETY: nobody else knows of the folder.
        let env = unsafe { options.open(dir.path()) }.unwrap();
        let mut txn = env.write_txn().unwrap();
        let tables = Tables::create(&env, &mut txn).unwrap();
        tables.set_log(&mut txn, None).unwrap();
        txn.commit().unwrap();
        let data = Arc::new(env.try_clone_inner_file().unwrap());
        let page_size = u64::from(env.stat().page_size);
        let data_file = DataFile { dir: dir.path().to_path_buf(), env, tables, data, page_size };
        Self { data_file, _dir: dir }
    }

    /// Runs a seed.
    pub(super) fn run(&self, seed: u64) -> Verdict {
        self.empty();
        let mut random = Random::new(seed);
        let config = Config::new(seed, &mut random);
        let world = World::new(config, random, self.data_file.clone());
        scheduler::set_current(Some(Rc::clone(&world)));
        hooks::simulate(Some(Rc::clone(&world) as Rc<dyn hooks::Simulator>));
        world.trace(format!("{:?}", world.config));
        world.spawn("director".into(), None, director::direct);
        world.run();
        hooks::simulate(None);
        scheduler::set_current(None);
        world.processes.borrow_mut().clear();
        let violation = world.violation();
        let trace = if violation.is_some() || keeps_all() { world.traced() } else { String::new() };
        Verdict {
            violation,
            trace,
            steps: world.scheduler.steps.get(),
            digest: world.digest.get(),
            counts: world.counts.take(),
        }
    }

    fn empty(&self) {
        let DataFile { env, tables, .. } = &self.data_file;
        let mut txn = env.write_txn().unwrap();
        for table in [tables.sessions, tables.users, tables.expiries] {
            table.clear(&mut txn).unwrap();
        }
        // As an older version leaves it: the first process to open it changes that.
        tables.meta.put(&mut txn, FORMAT, &1_u32.to_le_bytes()).unwrap();
        tables.set_log(&mut txn, None).unwrap();
        tables.set_next(&mut txn, 0).unwrap();
        txn.commit().unwrap();
    }
}
