//! The seeds that run: those that once failed, and fresh ones.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Simulator;

/// Seeds that run each time.
const FIXED: &[u64] = &[1, 2, 3, 83, 197, 571];

/// After this many violations the rest does not run.
const MANY: u64 = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a seed. Returns its violation, with what led to it.
fn check(simulator: &Simulator, seed: u64) -> Option<String> {
    let verdict = simulator.run(seed);
    verdict
        .violation
        .map(|violation| format!("seed {seed}: {violation}\n\n{}\nseed {seed}: {violation}", verdict.trace))
}

#[test]
fn fixed_seeds() {
    let simulator = Simulator::new();
    for seed in FIXED {
        assert_eq!(check(&simulator, *seed), None);
    }
}

#[test]
fn fresh_seeds() {
    let given = number("SIM_SEED");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = given.unwrap_or(since.as_millis() as u64 * 1_000_000);
    let count = number("SIM_SEEDS").unwrap_or(if given.is_some() { 1 } else { 500 });
    println!("simulating {count} seeds from {first}");
    super::KEEPS_ALL.set(given.is_some() && count == 1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let max = number("SIM_VIOLATIONS").unwrap_or(MANY) as usize;
    let begun = Instant::now();
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for nth in 0..threads.min(count) {
            let found = &found;
            scope.spawn(move || {
                super::KEEPS_ALL.set(given.is_some() && count == 1);
                let simulator = Simulator::new();
                for seed in (first + nth..first + count).step_by(threads as usize) {
                    // Only lower seeds count, so that the number of threads does not decide which violations are reported.
                    if found.lock().range(..seed).count() >= max {
                        break;
                    }
                    if let Some(violation) = check(&simulator, seed) {
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

/// Says how often each event happens: what happens never is not tested.
#[test]
#[ignore = "run by hand after a change to the mix of events"]
fn events() {
    super::KEEPS_ALL.set(true);
    let simulator = Simulator::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..number("SIM_SEEDS").unwrap_or(500) {
        for (name, count) in simulator.run(seed).counts {
            *counts.entry(name).or_default() += count;
        }
    }
    counts.iter().for_each(|(name, count)| println!("{count:>8} {name}"));
}

#[test]
fn a_seed_decides_everything() {
    let simulator = Simulator::new();
    for seed in 0..50 {
        let run = || {
            let verdict = simulator.run(seed);
            (verdict.digest, verdict.steps)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}
