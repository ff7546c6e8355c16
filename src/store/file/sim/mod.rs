//! A deterministic simulator of the redo log, like those of FoundationDB and TigerBeetle.
//!
//! A seed decides everything: the running thread, the life of the processes, power losses and their effect on the
//! log, failing system calls, and the time. The engine and LMDB are real. The log file and the locks are simulated. A
//! model of the contract checks the results of the clients.
//!
//! | module | purpose |
//! |---|---|
//! | `scheduler` | runs one thread at a time |
//! | `world` | the state of a simulation and its faults |
//! | `disk`, `locks` | the log on disk, and the file locks |
//! | `process` | a process that has the store open |
//! | `clients` | the operations in a process |
//! | `model` | the permitted results |
//! | `director` | the life of the processes, and the final check |
//! | `tests` | the seeds to run |
//!
//! Reproduce a seed with `SIM_SEED=<n> cargo test --no-default-features --lib sim::`, and run many with `npm run
//! simulate -- <count>`.
//!
//! `npm run simulate -- --mutants` checks that the simulator finds bugs. Each mutant in `scripts/mutants.js` removes
//! one safeguard from a copy of the sources. Add a mutant for each new safeguard, and for each bug that the simulator
//! finds.
//!
//! **Not simulated**:
//! - a power loss during a commit of LMDB (see `tests/power_loss.rs`)
//! - the queue and its timeouts
//! - encryption
//! - a full disk for LMDB's pages
//! - versions without a log

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

/// Whether to keep the whole trace.
fn keeps_all() -> bool {
    KEEPS_ALL.get()
}

/// Runs simulations, one after another.
pub(super) struct Simulator {
    data_file: DataFile,
    _dir: TempDir,
}

/// The result of a seed.
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
        // SAFETY: each simulated thread has its own views, and only one thread of the system uses the environment.
        #[allow(deprecated, reason = "heed has a type for it, which the store does not use")]
        unsafe {
            options.flags(heed::EnvFlags::NO_TLS)
        };
        // SAFETY: no other code uses this folder.
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
        // Format 1, as written by an older version. The first process that opens the store updates it.
        tables.meta.put(&mut txn, FORMAT, &1_u32.to_le_bytes()).unwrap();
        tables.set_log(&mut txn, None).unwrap();
        tables.set_next(&mut txn, 0).unwrap();
        tables.remove_indexed_lifetime(&mut txn).unwrap();
        txn.commit().unwrap();
    }
}
