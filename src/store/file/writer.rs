//! The writer thread. It takes the queued writes, commits them as a batch, and reports when they are on disk.
//!
//! An fsync costs about the same for one write as for a hundred. So writes that arrive during one fsync share the
//! next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::environment::Environment;
use super::pending::ReadAttempt;
use super::queue::{EndedCalls, Queue, Reader, Waiter};
use super::redo::engine::Redo;
use crate::codec;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId};
use crate::store::{Answer, Completions, StoredSession};

/// The error of a read that panicked after its write.
const PANICKED: StoreError = StoreError::Internal(std::borrow::Cow::Borrowed("a read panicked"));

/// Runs the thread.
pub(super) fn run(environment: &Environment, redo: &Redo, queue: &Queue) {
    loop {
        // Wait before taking the batch, so that it includes the writes that arrive during the wait.
        redo.pace();
        let Some(batch) = queue.take() else { break };
        let writes = batch.writes();
        if environment.lacks_creation_times() && writes.iter().any(|write| write.encrypts()) {
            // Lifetimes only end if records have creation times. A full disk makes both this and the write fail.
            let _ = redo.enable_creation_times();
        }
        let outcomes = redo.write(&writes);
        deliver(environment, queue, queue.finish(&batch, outcomes));
    }
}

/// Completions, grouped by recipient.
type Completed = Vec<(Arc<dyn Completions>, Vec<(u32, Result<Answer>)>)>;

/// Reports results, and runs the reads that waited.
pub(super) fn deliver(environment: &Environment, queue: &Queue, ended: EndedCalls) {
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
        // A panic of a recipient must not end the writer.
        let _ = catch_unwind(AssertUnwindSafe(|| to.complete(done)));
    }
    // Last, because a thread may wait for all results.
    for (sender, answer) in threads {
        let number = answer.map(|answer| match answer {
            Answer::Number(number) => number,
            Answer::Session(session) => session.is_some().into(),
        });
        // This fails if the thread no longer waits.
        let _ = sender.send(number);
    }
}

/// Runs a read whose write has ended. If another pending write may end the session, queues the read again.
fn read(environment: &Environment, queue: &Queue, mut reader: Reader) -> Option<(Waiter, Result<Answer>)> {
    loop {
        let Some(id) = &reader.session else { return Some((reader.waiter, Ok(Answer::Number(0)))) };
        let stored = |expires, content: &[u8]| Ok(StoredSession::new(id.clone(), expires, content));
        let attempt = || try_read(environment, queue, id, stored);
        match catch_unwind(AssertUnwindSafe(attempt)).unwrap_or(Err(PANICKED)) {
            Ok(ReadAttempt::Ready(session)) => return Some((reader.waiter, Ok(Answer::Session(session)))),
            Err(error) => return Some((reader.waiter, Err(error))),
            Ok(ReadAttempt::WaitFor(number)) => {
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

/// Calls `read` with the expiry and content of a live session. The caller has waited for the session's own writes. If
/// another pending write may end sessions of its user, returns the number of that write.
pub(super) fn try_read<T>(
    environment: &Environment,
    queue: &Queue,
    id: &SessionId,
    read: impl FnOnce(Expiry, &[u8]) -> Result<T>,
) -> Result<ReadAttempt<Option<T>>> {
    if queue.pending.has_no_user_writes() {
        return environment.get_with(id, read).map(ReadAttempt::Ready);
    }
    let find = || {
        environment.get_with(id, |expires, content| {
            let user = codec::decode_user(content)?.map(|user| queue.pending.hash(user));
            Ok((StoredSession::new(id.clone(), expires, content), user))
        })
    };
    let seen =
        queue.pending.read_consistently(find, |found| queue.pending.last_write_of_user(found.as_ref()?.1))?;
    Ok(match seen {
        ReadAttempt::Ready(Some((session, _))) => {
            ReadAttempt::Ready(Some(read(session.expires, &session.content)?))
        }
        ReadAttempt::Ready(None) => ReadAttempt::Ready(None),
        ReadAttempt::WaitFor(number) => ReadAttempt::WaitFor(number),
    })
}
