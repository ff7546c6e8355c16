//! Creates a session.

use std::num::NonZeroUsize;
use std::rc::Rc;

use super::super::counters::Counters;
use super::super::error::FOREIGN;
use super::super::resp::{END_OF_USER, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::cipher::Cipher;
use super::commands::{Creation, Entry, ExistingEntry, created_field, get_request};
use super::context::Context;
use super::names::UserField;
use super::new_session::NewSession;
use super::op::{CallReply, OpKind, USER_IS_FULL, interpret};
use super::record::{self, Record};
use super::user_index::{enter, forget, is_full, keep_limit, undo_entry};
use super::watch::ensure_server_time;
use crate::error::{Result, StoreError};

/// Stores a session, unless a live one has its id.
///
/// Its user's index is updated first. An entry without a session does no harm, but a session without an entry would
/// be missed. On a single server both changes are atomic. Usually that is a transaction. It is a script if the server
/// has a session with the id, may have received the creation before, or does not support the transaction. In a
/// cluster the index is on another node, which must answer first. Once the session is stored, the creation succeeds,
/// even if there is no time left to end older sessions.
///
/// If a full user gets no more sessions, the script counts the user's sessions. In a cluster they are on many nodes.
/// So the store counts them before it stores the session, and again afterwards. If another creation came in between,
/// it removes its own session. Two concurrent creations may both be refused.
pub async fn create(
    context: &Rc<Context>,
    attempt: &Attempt,
    cipher: &Cipher,
    session: &NewSession,
    stamp: Option<Stamp>,
) -> Result<()> {
    ensure_server_time(context, attempt, || cipher.key(&context.names, &session.id)).await?;
    // A repeated creation keeps its stamp, which identifies a session that may be stored already.
    let stamp = stamp.filter(|_| attempt.is_repeated());
    let created = stamp.unwrap_or_else(|| context.times.stamp());
    let creation = Creation::new(session, created, cipher, &context.names, &context.times)?;
    let Creation { member, user, index_end, .. } = &creation;
    let has_index = !user.is_nobody();
    let index_is_elsewhere = has_index && !context.router.topology.is_one_server();
    let limit = context.options.user_limit();
    let checked = limit
        .rejects_beyond()
        .filter(|_| index_is_elsewhere && !creation.expires.is_past(context.times.now()));
    let mut entered = 0;
    if index_is_elsewhere {
        entered = enter(context, attempt, &creation.entry(), *index_end, ExistingEntry::Renew).await?;
        if let Some(max) = checked
            && !attempt.is_repeated()
            && entered > max.get() as u64
            && is_full(context, attempt, user, member, max).await?
        {
            return Err(refusal(context, attempt, &creation, max).await);
        }
    }
    let stored = if index_is_elsewhere {
        store(context, attempt, &creation, |request, _| creation.set(request)).await?
    } else if has_index
        && (attempt.is_repeated() || creation.needs_script(limit) || !context.transactions.is_supported())
    {
        Stored::Untried
    } else {
        let transaction = |request, version| creation.transaction(request, version, limit.max.is_some());
        store(context, attempt, &creation, transaction).await?
    };
    match stored {
        Stored::Yes { index_len } => entered = entered.max(index_len),
        stored => {
            let index_len = store_by_script(context, attempt, &creation, stored, !index_is_elsewhere).await?;
            entered = entered.max(index_len);
        }
    }
    if let Some(max) = checked
        && is_full(context, attempt, user, member, max).await?
    {
        undo(context, attempt, &creation).await?;
        return Err(StoreError::TooManySessions { max: max.get() });
    }
    Counters::add(&context.counters.created, 1);
    if attempt.is_repeated() && index_is_elsewhere {
        // Another process may have ended the session, and may still remove an entry with the version that it saw.
        let entry = Entry { version: context.times.stamp(), ..creation.entry() };
        enter(context, attempt, &entry, *index_end, ExistingEntry::Renew).await?;
    }
    Box::pin(keep_limit(context, attempt, user, member, entered, Some(created), creation.expires)).await;
    Ok(())
}

/// Removes the entry of a refused creation. Returns the error: the user is full, or a live session has the id.
async fn refusal(context: &Context, attempt: &Attempt, creation: &Creation, max: NonZeroUsize) -> StoreError {
    let get = |mode| get_request(Request::read(mode), &creation.key);
    let stored = context.router.get_one(attempt, &creation.key, Effect::None, get).await;
    let error = match &stored {
        Ok(Reply::Bytes(bytes)) => match record::end(bytes, &context.times) {
            Ok((end, _)) if !end.is_past(context.times.now()) => {
                undo_entry(context, attempt, &creation.entry(), &creation.user, bytes).await;
                return StoreError::Exists;
            }
            Ok(_) => StoreError::TooManySessions { max: max.get() },
            Err(error) => error,
        },
        Ok(_) => StoreError::TooManySessions { max: max.get() },
        Err(error) => error.clone(),
    };
    forget(context, attempt, &creation.entry()).await;
    error
}

/// Undoes a creation for a user who turned out to be full.
async fn undo(context: &Context, attempt: &Attempt, creation: &Creation) -> Result<()> {
    end(context, attempt, creation).await?;
    attempt.was_undone();
    forget(context, attempt, &creation.entry()).await;
    Ok(())
}

/// Ends the session of a creation, unless another one has replaced it.
async fn end(context: &Context, attempt: &Attempt, creation: &Creation) -> Result<()> {
    end_of(context, attempt, Effect::Main, &creation.key, &creation.user, creation.created).await
}

/// Ends a session if it still has this user and creation.
async fn end_of(
    context: &Context,
    attempt: &Attempt,
    effect: Effect,
    key: &[u8],
    user: &UserField,
    created: Stamp,
) -> Result<()> {
    let (now, created) = (text(context.times.now()), created_field(created));
    let args: [&[u8]; 3] = [&now, &user.to_match(), &created];
    context.router.run_script(attempt, effect, &END_OF_USER, key, &args).await.map(drop)
}

/// The record of a stored session that is past its maximum lifetime, which `CREATE` does not know.
fn outlived<'a>(context: &Context, stored: &'a [u8]) -> Option<Record<'a>> {
    Record::parse(stored).ok().filter(|record| context.times.is_outlived(record.created))
}

/// Whether a session is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes {
        index_len: u64,
    },
    /// Nothing was sent, or the server does not support the request and has changed nothing.
    Untried,
    /// The server has another session with the id.
    No,
    /// The session may be stored, without its entry.
    Perhaps,
}

/// Stores a session if the server has none with its id. `make` adds the commands to a request, with a version for the
/// entry.
async fn store(
    context: &Context,
    attempt: &Attempt,
    creation: &Creation,
    make: impl Fn(Request, Stamp) -> Request,
) -> Result<Stored> {
    let make = |mode| {
        // After a first attempt, another process may have seen the entry and ended the session.
        let version = if attempt.is_repeated() { context.times.stamp() } else { creation.version };
        make(Request::write(mode), version)
    };
    let replies = context.router.ask(attempt, &creation.key, Effect::Main, make).await?;
    Ok(match interpret(OpKind::Create, &replies) {
        CallReply::Created { index_len } => Stored::Yes { index_len },
        CallReply::Occupied => {
            attempt.changed_nothing();
            Stored::No
        }
        CallReply::PartlyRefused(reason) => {
            context.transactions.record_refusal(reason);
            Stored::Perhaps
        }
        CallReply::Refused(reason) if context.transactions.record_refusal(reason) => Stored::Untried,
        step => return Err(step.error()),
    })
}

/// Creates a session unless a live one is stored. If the server also has the index, adds the entry in the same
/// script. Returns the number of entries in the index, if there is a limit.
async fn store_by_script(
    context: &Context,
    attempt: &Attempt,
    creation: &Creation,
    stored: Stored,
    has_index: bool,
) -> Result<u64> {
    let may_be_stored = || stored == Stored::Perhaps || attempt.is_repeated();
    let make = |mode| {
        // After a first attempt, another process may have seen the entry.
        let is_first = stored == Stored::Untried && !attempt.is_repeated();
        let version = if is_first { creation.version } else { context.times.stamp() };
        let entry = has_index.then_some(version);
        let limit = context.options.user_limit();
        creation.script(Request::write(mode), entry, limit, may_be_stored(), &context.times)
    };
    let max = context.options.max_sessions_per_user.map_or(0, usize::from);
    let mut reply = context.router.get_one(attempt, &creation.key, Effect::Main, make).await;
    while let Ok(Reply::Bytes(live)) = &reply
        && let Some(record) = outlived(context, live)
    {
        attempt.changed_nothing();
        let user = UserField { json: record.user.to_vec() };
        end_of(context, attempt, Effect::None, &creation.key, &user, record.created).await?;
        reply = context.router.get_one(attempt, &creation.key, Effect::Main, make).await;
    }
    match reply {
        Ok(Reply::Number(USER_IS_FULL)) => {
            attempt.changed_nothing();
            Err(StoreError::TooManySessions { max })
        }
        // The index of a session that has expired may be gone already.
        Ok(Reply::Number(index_len @ 0..)) => Ok(index_len.unsigned_abs()),
        Ok(Reply::Bytes(live)) => {
            if !has_index {
                undo_entry(context, attempt, &creation.entry(), &creation.user, &live).await;
            }
            Err(StoreError::Exists)
        }
        Ok(_) => {
            attempt.changed_nothing();
            Err(FOREIGN)
        }
        Err(error @ (StoreError::Corrupt(_) | StoreError::Full(_))) if has_index && may_be_stored() => {
            // The index belongs to another app, or the server is full. An earlier request may have stored the session
            // without its entry.
            end(context, attempt, creation).await?;
            attempt.was_undone();
            Err(error)
        }
        Err(error) => Err(error),
    }
}
