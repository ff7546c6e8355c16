//! The seeds that run: some that failed before, and fresh ones.

use std::collections::BTreeMap;

use super::simulate;
use crate::store::simulation::{check, fresh_seeds as run_fresh_seeds, number};

/// These seeds run every time.
const FIXED: &[u64] = &[1, 2, 3, 8, 97, 128];

/// Runs a seed. Returns its violation, and the trace that led to it.
fn run(seed: u64) -> Option<String> {
    let verdict = simulate(seed, false);
    verdict.violation?;
    let verdict = simulate(seed, true);
    check(seed, verdict.violation, &verdict.trace)
}

#[test]
fn fixed_seeds() {
    for seed in FIXED {
        assert_eq!(run(*seed), None);
    }
}

#[test]
fn fresh_seeds() {
    run_fresh_seeds(150, || run);
}

/// Prints how often each event happens, because an event that never happens is not tested.
#[test]
#[ignore = "run by hand after a change to the mix of events"]
fn events() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..number("SIM_SEEDS").unwrap_or(500) {
        for (name, count) in simulate(seed, true).counts {
            *counts.entry(name).or_default() += count;
        }
    }
    counts.iter().for_each(|(name, count)| println!("{count:>8} {name}"));
}

#[test]
fn a_seed_is_reproducible() {
    for seed in 0..30 {
        let run = || {
            let verdict = simulate(seed, false);
            (verdict.digest, verdict.steps)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}
