//! Writes to the data file, without a log.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::apply::{SWEEP_STEP, Write};
use super::environment::Environment;
use crate::error::{Result, StoreError};

/// The most sessions that a write ends in one transaction if there is no room for all.
const PART: usize = 128;

/// The error for a write that panicked.
pub(super) const PANICKED: StoreError = StoreError::Internal(std::borrow::Cow::Borrowed("a write panicked"));

/// Writes a batch. If there is no room for all of it, its halves are tried: one write that finds no room must not keep
/// the others from making some. Any other error is the error of every write in it.
pub(super) fn write_all(environment: &Environment, writes: &[&Write]) -> Vec<Result<u64>> {
    match (commit(environment, writes), writes) {
        (Ok(outcomes), _) => outcomes,
        (Err(StoreError::Full(_)), [write]) if write.part(1).is_some() => {
            vec![write_in_parts(environment, write)]
        }
        (Err(error @ StoreError::Full(_)), [write]) if write.seals() => {
            vec![write_after_sweep(environment, write, error)]
        }
        (Err(StoreError::Full(_)), [_, _, ..]) => {
            let (first, second) = writes.split_at(writes.len() / 2);
            let mut outcomes = write_all(environment, first);
            outcomes.extend(write_all(environment, second));
            outcomes
        }
        (Err(error), _) => writes.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Commits writes. A transaction that a panic cuts off is rolled back.
fn commit(environment: &Environment, writes: &[&Write]) -> Result<Vec<Result<u64>>> {
    catch_unwind(AssertUnwindSafe(|| environment.commit(writes))).unwrap_or(Err(PANICKED))
}

/// Writes what found no room once a sweep has made enough, if anything has expired.
fn write_after_sweep(environment: &Environment, write: &Write, full: StoreError) -> Result<u64> {
    let now = environment.clock.now();
    let sweep = Write::Sweep { now, max: SWEEP_STEP };
    while environment.is_due(now)? {
        write_all(environment, &[&sweep]).swap_remove(0)?;
        match commit(environment, &[write]) {
            Err(StoreError::Full(_)) => {}
            written => return written?.swap_remove(0),
        }
    }
    Err(full)
}

/// Ends sessions where there is no room to end them all at once, as many in a transaction as there is room for: each
/// makes some for the next.
fn write_in_parts(environment: &Environment, write: &Write) -> Result<u64> {
    let mut max = PART;
    let mut ended = 0;
    loop {
        let part = write.part(max);
        match commit(environment, &[part.as_ref().unwrap_or(write)]) {
            Err(StoreError::Full(_)) if max > 1 => max /= 2,
            // Some of the sessions have ended already.
            Err(error) if ended > 0 => return Err(error.of_unknown_outcome()),
            Err(error) => return Err(error),
            Ok(mut outcomes) => match outcomes.swap_remove(0)? {
                // The rest of a sweep is the next.
                more if matches!(write, Write::Sweep { .. }) => return Ok(more),
                0 if !environment.has_rest(write)? => return Ok(ended),
                more => ended += more,
            },
        }
    }
}
