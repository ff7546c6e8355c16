//! The seeds that run: those that once failed, and fresh ones.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::super::redo::points::Bug;
use super::Simulator;

/// Seeds that run each time. Those that find the bugs below run without them as well.
const FIXED: &[u64] = &[1, 2, 3, 83, 197, 571];

/// After so many violations the rest is not run.
const MANY: usize = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a seed. Returns its violation, with what led to it.
fn check(simulator: &Simulator, seed: u64) -> Option<String> {
    let verdict = simulator.run(seed, None);
    verdict
        .violation
        .map(|violation| format!("seed {seed}: {violation}\n\n{}\nseed {seed}: {violation}", verdict.trace))
}

#[test]
fn fixed_seeds() {
    let simulator = Simulator::new();
    for seed in FIXED.iter().chain(BUGS.iter().map(|(_, seed)| seed)) {
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
    let begun = Instant::now();
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for nth in 0..threads.min(count) {
            let found = &found;
            scope.spawn(move || {
                super::KEEPS_ALL.set(given.is_some() && count == 1);
                let simulator = Simulator::new();
                for seed in (first + nth..first + count).step_by(threads as usize) {
                    found.lock().extend(check(&simulator, seed));
                    if found.lock().len() >= MANY {
                        break;
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
    let found = found.into_inner();
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
        for (name, count) in simulator.run(seed, None).counts {
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
            let verdict = simulator.run(seed, None);
            (verdict.digest, verdict.steps)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

/// How many seeds it takes to find a bug.
fn find(bug: Bug, first: u64, max: u64) -> Option<(u64, String)> {
    let simulator = Simulator::new();
    (first..first + max).find_map(|seed| Some((seed - first + 1, simulator.run(seed, Some(bug)).violation?)))
}

/// Each bug, and a seed that finds it.
const BUGS: &[(Bug, u64)] = &[
    (Bug::OverlayBeforeSync, 13),
    (Bug::DrainUnsynced, 381),
    (Bug::RemoveBeforeCommit, 2),
    (Bug::DataFileBeforeOverlay, 20),
    (Bug::RecoverWithoutRewrite, 1016),
    (Bug::ErrorBeforeLogEnd, 278),
    (Bug::ShareNeededLog, 2),
    (Bug::ViewBeforeGate, 18),
    (Bug::PassSurvivesClear, 259),
    (Bug::ClearOverlayFirst, 402),
    (Bug::UnseededChecksum, 6),
    (Bug::FailedLogEndNotDone, 90),
    (Bug::FailedLogBeginNotDone, 2),
    // These were in the code until the simulator found them.
    (Bug::WriteInDoubt, 5097),
    (Bug::NameNotSynced, 2369),
    (Bug::FailedLogNotDrained, 3594),
];

/// With `SIM_SEED` it says how many seeds it takes from there.
#[test]
fn bugs_are_found() {
    let mut missed = 0;
    for (bug, first) in BUGS {
        let from = number("SIM_SEED").unwrap_or(*first);
        let begun = Instant::now();
        let found = find(*bug, from, 10_000);
        let Some((seeds, violation)) = found else {
            println!("10000 seeds from {from} do not find {bug:?}");
            missed += 1;
            continue;
        };
        let violation = violation.lines().next().unwrap_or_default().to_owned();
        println!("{bug:?}: {seeds} seeds from {from}, {:?}: {violation}", begun.elapsed());
    }
    assert_eq!(missed, 0);
}
