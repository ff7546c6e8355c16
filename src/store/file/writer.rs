//! The thread that writes: it takes what is queued, makes one transaction of it, and reports when that is on disk.
//!
//! An fsync costs about the same for one write as for a hundred, so that writes which wait for one share the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::apply::{SWEEP_STEP, Write};
use super::environment::Environment;
use super::pending::Seen;
use super::queue::{Ended, Queue, Reader, Waiter};
use crate::codec;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId};
use crate::store::{Answer, Completions, StoredSession};

/// The most sessions that a write ends in one transaction if there is no room for all.
const PART: usize = 128;

/// The error for a write, or a read after it, that panicked.
const PANICKED: StoreError = StoreError::Internal(std::borrow::Cow::Borrowed("a write panicked"));

/// The body of the thread.
pub(super) fn run(environment: &Environment, queue: &Queue) {
    while let Some(batch) = queue.take() {
        let writes = batch.writes();
        let outcomes = write_all(environment, &writes);
        deliver(environment, queue, queue.finish(&batch, outcomes));
    }
}

/// Writes a batch. If there is no room for all of it, its halves are tried: one write that finds no room must not keep
/// the others from making some. Any other error is the error of every write in it.
fn write_all(environment: &Environment, writes: &[&Write]) -> Vec<Result<u64>> {
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

/// Completions, grouped by recipient.
type Completed = Vec<(Arc<dyn Completions>, Vec<(u32, Result<Answer>)>)>;

/// Reports results, and makes the reads that have waited.
pub(super) fn deliver(environment: &Environment, queue: &Queue, ended: Ended) {
    let (mut completed, mut threads) = (Completed::new(), Vec::new());
    let mut complete = |waiter: Waiter, answer: Result<Answer>| match waiter {
        Waiter::Thread(sender) => threads.push((sender, answer)),
        Waiter::Ticket { to, ticket } => {
            match completed.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &to)) {
                Some((_, done)) => done.push((ticket, answer)),
                None => completed.push((to, vec![(ticket, answer)])),
            }
        }
    };
    for (waiter, outcome) in ended.results {
        complete(waiter, outcome.map(Answer::Number));
    }
    for reader in ended.readers {
        if let Some((waiter, answer)) = read(environment, queue, reader) {
            complete(waiter, answer);
        }
    }
    for (to, done) in completed {
        // A recipient that panics must not end the writer.
        let _ = catch_unwind(AssertUnwindSafe(|| to.complete(done)));
    }
    // Last, as one of them may wait for all results.
    for (sender, answer) in threads {
        let number = answer.map(|answer| match answer {
            Answer::Number(number) => number,
            Answer::Session(session) => session.is_some().into(),
        });
        // It fails where no one waits any more.
        let _ = sender.send(number);
    }
}

/// Makes a read whose write has ended, unless a write to the sessions of its user is still under way.
fn read(environment: &Environment, queue: &Queue, mut reader: Reader) -> Option<(Waiter, Result<Answer>)> {
    loop {
        let Some(id) = &reader.session else { return Some((reader.waiter, Ok(Answer::Number(0)))) };
        let stored = |expires, content: &[u8]| Ok(StoredSession::new(id.clone(), expires, content));
        let look = || see(environment, queue, id, stored);
        match catch_unwind(AssertUnwindSafe(look)).unwrap_or(Err(PANICKED)) {
            Ok(Seen::Now(session)) => return Some((reader.waiter, Ok(Answer::Session(session)))),
            Err(error) => return Some((reader.waiter, Err(error))),
            Ok(Seen::After(number)) => {
                reader.after = number;
                let waiter = reader.waiter.clone();
                match queue.wait(reader) {
                    Ok(ready) => reader = ready?,
                    Err(error) => return Some((waiter, Err(error))),
                }
            }
        }
    }
}

/// Calls `read` with the expiry and content of a live session none of whose own writes are under way; or gives the number
/// of a write to the sessions of its user that is.
pub(super) fn see<T>(
    environment: &Environment,
    queue: &Queue,
    id: &SessionId,
    read: impl FnOnce(Expiry, &[u8]) -> Result<T>,
) -> Result<Seen<Option<T>>> {
    if queue.pending.has_no_users() {
        return environment.get_with(id, read).map(Seen::Now);
    }
    let find = || {
        environment.get_with(id, |expires, content| {
            let user = codec::decode_user(content)?.map(|user| queue.pending.hash(user));
            Ok((StoredSession::new(id.clone(), expires, content), user))
        })
    };
    let seen = queue.pending.look(find, |found| queue.pending.of_users(found.as_ref()?.1))?;
    Ok(match seen {
        Seen::Now(Some((session, _))) => Seen::Now(Some(read(session.expires, &session.content)?)),
        Seen::Now(None) => Seen::Now(None),
        Seen::After(number) => Seen::After(number),
    })
}
