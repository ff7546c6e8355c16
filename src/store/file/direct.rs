//! Writes to the data file directly, without a log.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::apply::{SWEEP_STEP, Write};
use super::due::SweepCursor;
use super::environment::Environment;
use crate::error::{Result, StoreError};

/// The maximum number of sessions that a write ends in one transaction if there is no room for all of them.
const CHUNK_SESSIONS: usize = 128;

/// The error for a write that panicked.
pub(super) const PANICKED: StoreError = StoreError::Internal(std::borrow::Cow::Borrowed("a write panicked"));

/// Writes a batch. If there is too little room for the whole batch, tries its halves. So a write that finds no room
/// does not stop other writes that free some. Any other error fails every write of the batch.
pub(super) fn write_all(environment: &Environment, writes: &[&Write]) -> Vec<Result<u64>> {
    match (commit(environment, writes), writes) {
        (Ok(outcomes), _) => outcomes,
        (Err(StoreError::Full(_)), [write]) if write.limited_to(1).is_some() => {
            vec![write_in_chunks(environment, write)]
        }
        (Err(error @ StoreError::Full(_)), [write]) if write.encrypts() => {
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

/// Commits writes. A panic rolls the transaction back.
fn commit(environment: &Environment, writes: &[&Write]) -> Result<Vec<Result<u64>>> {
    catch_unwind(AssertUnwindSafe(|| environment.commit(writes))).unwrap_or(Err(PANICKED))
}

/// Retries a write that found no room after each step of a sweep, as long as there are due entries. It does not read
/// all sessions for a lowered `maxLifetime`, because other writes wait.
fn write_after_sweep(environment: &Environment, write: &Write, full: StoreError) -> Result<u64> {
    let now = environment.clock.now();
    loop {
        let (due, _) = environment.due(&SweepCursor::EXPIRIES, now, SWEEP_STEP)?;
        if due.is_empty() {
            return Err(full);
        }
        write_all(environment, &[&Write::Sweep { due, now }]).swap_remove(0)?;
        match commit(environment, &[write]) {
            Err(StoreError::Full(_)) => {}
            written => return written?.swap_remove(0),
        }
    }
}

/// Ends sessions in several transactions, with as many in each as there is room for. Each transaction frees room for
/// the next one.
fn write_in_chunks(environment: &Environment, write: &Write) -> Result<u64> {
    let mut max = CHUNK_SESSIONS;
    let mut ended = 0;
    loop {
        let chunk = write.limited_to(max);
        match commit(environment, &[chunk.as_ref().unwrap_or(write)]) {
            Err(StoreError::Full(_)) if max > 1 => max /= 2,
            // Some sessions have already ended.
            Err(error) if ended > 0 => return Err(error.of_unknown_outcome()),
            Err(error) => return Err(error),
            Ok(mut outcomes) => match outcomes.swap_remove(0)? {
                // The next step of the sweep removes the others.
                more if matches!(write, Write::Sweep { .. }) => return Ok(more),
                0 if !environment.has_rest(write)? => return Ok(ended),
                more => ended += more,
            },
        }
    }
}
