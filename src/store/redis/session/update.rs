//! Replaces a session, which may change its user.

use std::num::NonZeroUsize;

use futures_util::future::try_join;

use super::super::resp::{Reply, Request};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::cipher::Cipher;
use super::commands::{Change, Entry, ExistingEntry};
use super::context::Context;
use super::names::UserField;
use super::new_session::NewSession;
use super::op::{CallReply, OpKind, interpret};
use super::record::Record;
use super::user_index::{enter, forget, is_full, keep_limit, may_forget, prolong, version};
use super::watch::ensure_server_time;
use crate::error::{Result, StoreError};
use crate::session::Expiry;

/// Replaces a live session. The first attempt changes nothing in two cases: if the session has another user, or if
/// its index ends too early. The index must then change first.
pub async fn update(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    session: &NewSession,
) -> Result<bool> {
    let member = cipher.member(&session.id);
    let key = context.names.session(&member);
    let user = cipher.user(session.user());
    let change = Change::new(session, key, &member, &user, cipher, &context.times)?;
    loop {
        if let Some(found) = replace(context, attempt, &change, &user, None).await? {
            return Ok(found);
        }
        let expires = session.expires;
        if let Some(found) =
            Box::pin(replace_entered(context, attempt, &change, &member, &user, expires)).await?
        {
            return Ok(found);
        }
    }
}

/// Adds a live session to the index of its new user, then replaces the session. Returns whether there is a live
/// session, and `None` if it has changed since.
async fn replace_entered(
    context: &Context,
    attempt: &Attempt,
    change: &Change,
    member: &[u8],
    user: &UserField,
    expires: Expiry,
) -> Result<Option<bool>> {
    let key = &change.key;
    // Not later: while the reply is under way, another process may prolong the session.
    let now = context.times.now();
    let get = |mode| Request::read(mode).command(&[b"GET", key]);
    let Reply::Bytes(old) = context.router.get_one(attempt, key, Effect::None, get).await? else {
        return Ok(Some(false));
    };
    let old = Record::parse(&old)?;
    if context.times.end(old.expires, old.created).is_past(now) {
        return Ok(Some(false));
    }
    ensure_server_time(context, attempt, || key.clone()).await?;
    let until = context.times.index_end(old.created, expires);
    if old.user == user.json {
        prolong(context, attempt, user, member, until).await?;
        return replace(context, attempt, change, user, Some(old.created)).await;
    }
    let old_user = UserField { json: old.user.to_vec() };
    let (index, old_index) = (user.index(&context.names), old_user.index(&context.names));
    let entry = Entry { index: &index, member, version: context.times.stamp() };
    let new_entry = async {
        let entered = async || enter(context, attempt, &entry, until, ExistingEntry::Renew).await;
        if user.is_nobody() { Ok(None) } else { entered().await.map(Some) }
    };
    let old_version = async {
        if old_user.is_nobody() { Ok(None) } else { version(context, attempt, &old_index, member).await }
    };
    let (entered, old_version) = try_join(new_entry, old_version).await?;
    let checked = context.options.user_limit().rejects_beyond();
    let checked = checked.filter(|_| !user.is_nobody() && !expires.is_past(context.times.now()));
    let replaced = match checked {
        Some(max) => reassign(context, attempt, change, (&old_user, old.created), (user, &entry), max).await,
        None => replace(context, attempt, change, &old_user, Some(old.created)).await,
    };
    if let Err(StoreError::TooManySessions { .. }) = replaced {
        forget(context, attempt, &entry).await;
    }
    let replaced = replaced?;
    if replaced == Some(true) {
        if let Some(index_len) = entered {
            // A process that saw the entry before the session was the user's may otherwise remove it.
            enter(context, attempt, &entry, until, ExistingEntry::Renew).await?;
            Box::pin(keep_limit(context, attempt, user, member, index_len, None, expires)).await;
        }
        if let Some(version) = old_version
            && may_forget(context, version, old.created)
        {
            forget(context, attempt, &Entry { index: &old_index, member, version }).await;
        }
    }
    // If the session did not become the user's, readers ignore the entry, and remove it when it is old enough.
    Ok(replaced)
}

/// Like [`replace`], for a new user who may have no room. In a cluster the user's other sessions are on many nodes,
/// so they are counted before.
async fn reassign(
    context: &Context,
    attempt: &Attempt,
    change: &Change,
    (old_user, created): (&UserField, Stamp),
    (user, entry): (&UserField, &Entry<'_>),
    max: NonZeroUsize,
) -> Result<Option<bool>> {
    let full = StoreError::TooManySessions { max: max.get() };
    if !context.router.topology.is_one_server() {
        if is_full(context, attempt, user, entry.member, max).await? {
            return Err(full);
        }
        return replace(context, attempt, change, old_user, Some(created)).await;
    }
    let make =
        |mode| change.reassign(Request::write(mode), (old_user, created), (user, entry), max, &context.times);
    let replies = context.router.ask(attempt, &change.key, Effect::Main, make).await?;
    if interpret(OpKind::Update, &replies) == CallReply::UserIsFull {
        attempt.changed_nothing();
        return Err(full);
    }
    replaced(attempt, &replies)
}

/// Replaces the session if it is live, and returns whether it is. `None` if its index must change first, or if it is
/// of another creation.
async fn replace(
    context: &Context,
    attempt: &Attempt,
    change: &Change,
    user: &UserField,
    created: Option<Stamp>,
) -> Result<Option<bool>> {
    let make = |mode| change.replace(Request::write(mode), user, created, &context.times);
    let replies = context.router.ask(attempt, &change.key, Effect::Main, make).await?;
    replaced(attempt, &replies)
}

/// Interprets the replies to a replacement.
fn replaced(attempt: &Attempt, replies: &[Reply]) -> Result<Option<bool>> {
    match interpret(OpKind::Update, replies) {
        CallReply::Number(found) => Ok(Some(found > 0)),
        CallReply::OtherUser | CallReply::OutlivesIndex => {
            attempt.changed_nothing();
            Ok(None)
        }
        step => Err(step.error()),
    }
}
