//! Runs seeds. The environment says which ones: `SIM_SEED` is the first, `SIM_SEEDS` says how many, and
//! `SIM_VIOLATIONS` after how many violations the rest does not run.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// After this many violations the rest does not run.
const MANY: u64 = 10;

/// A number that the environment gives.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Whether the environment gives one seed, of which the whole trace is wanted.
pub fn keeps_all() -> bool {
    number("SIM_SEED").is_some() && number("SIM_SEEDS").is_none_or(|count| count == 1)
}

/// Says which seed has violated the contract, how, and what led to it.
pub fn check(seed: u64, violation: Option<String>, trace: &str) -> Option<String> {
    violation.map(|violation| format!("seed {seed}: {violation}\n\n{trace}\nseed {seed}: {violation}"))
}

/// Runs seeds, fresh ones unless the environment gives the first. Each thread makes a simulator of its own, which returns
/// the violation of a seed.
///
/// # Panics
/// If a seed violates the contract.
pub fn fresh_seeds<S: FnMut(u64) -> Option<String>>(default_count: u64, simulator: impl Fn() -> S + Sync) {
    let given = number("SIM_SEED");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = given.unwrap_or(since.as_millis() as u64 * 1_000_000);
    let count = number("SIM_SEEDS").unwrap_or(if given.is_some() { 1 } else { default_count });
    println!("simulating {count} seeds from {first}");
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let max = number("SIM_VIOLATIONS").unwrap_or(MANY) as usize;
    let begun = Instant::now();
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for nth in 0..threads.min(count) {
            let (found, simulator) = (&found, &simulator);
            scope.spawn(move || {
                let mut run = simulator();
                for seed in (first + nth..first + count).step_by(threads as usize) {
                    // Only lower seeds count, so that the number of threads does not decide which violations are reported.
                    if found.lock().range(..seed).count() >= max {
                        break;
                    }
                    if let Some(violation) = run(seed) {
                        found.lock().insert(seed, violation);
                    }
                }
            });
        }
    });
    println!(
        "{count} seeds in {:?}: {:.0} a second",
        begun.elapsed(),
        count as f64 / begun.elapsed().as_secs_f64()
    );
    let found: Vec<String> = found.into_inner().into_values().take(max).collect();
    for violation in &found {
        println!("{}", violation.lines().next().unwrap_or_default());
    }
    if let Some(first) = found.first() {
        panic!("{first}");
    }
}
