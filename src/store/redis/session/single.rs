//! The calls on one session.

use std::num::NonZeroUsize;
use std::rc::Rc;

use futures_util::future::try_join;

use super::super::counters::Counters;
use super::super::error::FOREIGN;
use super::super::resp::{END_OF_USER, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::cipher::Cipher;
use super::commands::{
    Change, Creation, Entry, Reentry, StaleEntry, created_field, delete_request, get_request, touch_request,
};
use super::context::Context;
use super::names::UserField;
use super::new_session::NewSession;
use super::op::{Kind, Step, USER_IS_FULL, interpret};
use super::record::{self, Record};
use super::user_index::{
    enter, forget, forget_later, is_full, keep_limit, may_forget, prolong, undo_entry, version,
};
use super::watch::know_time;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId};
use crate::store::StoredSession;

/// Stores a session, unless a live one has its id.
///
/// Its user's index knows it first: an entry without a session is only passed over, but a session without one would
/// be missed. On a single server one step does both: a transaction, or a script where the server holds a session of the id,
/// or may have been sent the creation before, or takes no such transactions. In a cluster the index is on another node, which
/// has to have answered before. A session that was stored is created, even if there is no time left to end older ones.
///
/// Where a user who is full gets no more sessions, the script counts those of the user. In a cluster they are on many nodes.
/// There the store looks at them before it stores the session, and again afterwards. If another creation came between, it
/// removes its own session: of two at one moment, both may be refused.
pub async fn create(
    context: &Rc<Context>,
    attempt: &Attempt,
    cipher: &Cipher,
    session: &NewSession,
    stamp: Option<Stamp>,
) -> Result<()> {
    know_time(context, attempt, || cipher.key(&context.names, &session.id)).await?;
    // What may be stored already is known by the stamp with which it was sent.
    let stamp = stamp.filter(|_| attempt.is_repeated());
    let created = stamp.unwrap_or_else(|| context.times.stamp());
    let creation = Creation::new(session, created, cipher, &context.names, &context.times)?;
    let Creation { member, user, index_end, .. } = &creation;
    let has_index = !user.is_nobody();
    let is_apart = has_index && !context.router.topology.is_one_server();
    let limit = context.options.user_limit();
    let checked =
        limit.rejects_beyond().filter(|_| is_apart && !creation.expires.is_past(context.times.now()));
    let mut entered = 0;
    if is_apart {
        entered = enter(context, attempt, &creation.entry(), *index_end, Reentry::Renew).await?;
        if let Some(max) = checked
            && !attempt.is_repeated()
            && entered > max.get() as u64
            && is_full(context, attempt, user, member, max).await?
        {
            return Err(refusal(context, attempt, &creation, max).await);
        }
    }
    let stored = if is_apart {
        store(context, attempt, &creation, |request, _| creation.set(request)).await?
    } else if has_index
        && (attempt.is_repeated() || creation.needs_script(limit) || !context.transactions.are_taken())
    {
        Stored::Untried
    } else {
        let transaction = |request, version| creation.transaction(request, version, limit.max.is_some());
        store(context, attempt, &creation, transaction).await?
    };
    match stored {
        Stored::Yes { index_len } => entered = entered.max(index_len),
        stored => {
            let index_len = store_by_script(context, attempt, &creation, stored, !is_apart).await?;
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
    if attempt.is_repeated() && is_apart {
        // In between another process may have ended the session and removed its entry.
        enter(context, attempt, &creation.entry(), *index_end, Reentry::Renew).await?;
    }
    Box::pin(keep_limit(context, attempt, user, member, entered, Some(created), creation.expires)).await;
    Ok(())
}

/// Removes the entry of a creation for a user who is full, and says why it is refused: a live session may have its id.
async fn refusal(context: &Context, attempt: &Attempt, creation: &Creation, max: NonZeroUsize) -> StoreError {
    let get = |mode| get_request(Request::read(mode), &creation.key);
    let stored = context.router.get_one(attempt, &creation.key, Effect::None, get).await;
    let error = match &stored {
        Ok(Reply::Bytes(bytes)) => match record::times(bytes) {
            Ok((expires, _)) if !expires.is_past(context.times.now()) => {
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

/// Removes a session again that was created for a user who is full.
async fn undo(context: &Context, attempt: &Attempt, creation: &Creation) -> Result<()> {
    end(context, attempt, creation).await?;
    attempt.was_undone();
    forget(context, attempt, &creation.entry()).await;
    Ok(())
}

/// Ends the session of a creation, if it is still that.
async fn end(context: &Context, attempt: &Attempt, creation: &Creation) -> Result<()> {
    let (now, created) = (text(context.times.now()), created_field(creation.created));
    let args: [&[u8]; 3] = [&now, &creation.user.to_match(), &created];
    context.router.run_script(attempt, Effect::Main, &END_OF_USER, &creation.key, &args).await.map(drop)
}

/// Whether a session is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes {
        index_len: u64,
    },
    /// The server takes no such request, and has changed nothing.
    Untried,
    /// There is another one.
    No,
    /// Perhaps, without its entry.
    Perhaps,
}

/// Stores a session where the server holds none. `make` adds to a request what does that, by the version of the entry.
async fn store(
    context: &Context,
    attempt: &Attempt,
    creation: &Creation,
    make: impl Fn(Request, Stamp) -> Request,
) -> Result<Stored> {
    let make = |mode| {
        // If it was sent before, its entry may have been seen since, and its session ended.
        let version = if attempt.is_repeated() { context.times.stamp() } else { creation.version };
        make(Request::write(mode), version)
    };
    let replies = context.router.ask(attempt, &creation.key, Effect::Main, make).await?;
    Ok(match interpret(Kind::Create, &replies) {
        Step::Created { index_len } => Stored::Yes { index_len },
        Step::Occupied => {
            attempt.changed_nothing();
            Stored::No
        }
        Step::PartlyRefused(reason) => {
            context.transactions.were_refused(reason);
            Stored::Perhaps
        }
        Step::Refused(reason) if context.transactions.were_refused(reason) => Stored::Untried,
        step => return Err(step.error()),
    })
}

/// Creates a session unless a live one is stored, and its entry in the same step if the server `has_index`. Returns how many
/// entries the index has, if that matters.
async fn store_by_script(
    context: &Context,
    attempt: &Attempt,
    creation: &Creation,
    stored: Stored,
    has_index: bool,
) -> Result<u64> {
    let make = |mode| {
        let is_repeated = attempt.is_repeated();
        // If it was sent before, its entry may have been seen since.
        let is_first = stored == Stored::Untried && !is_repeated;
        let version = if is_first { creation.version } else { context.times.stamp() };
        let may_be_stored = stored == Stored::Perhaps || is_repeated;
        let entry = has_index.then_some(version);
        let limit = context.options.user_limit();
        creation.script(Request::write(mode), entry, limit, may_be_stored, &context.times)
    };
    let max = context.options.max_sessions_per_user.map_or(0, usize::from);
    match context.router.get_one(attempt, &creation.key, Effect::Main, make).await {
        Ok(Reply::Number(USER_IS_FULL)) => {
            attempt.changed_nothing();
            Err(StoreError::TooManySessions { max })
        }
        Ok(Reply::Number(index_len @ 1..)) => Ok(index_len.unsigned_abs()),
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
        Err(StoreError::Corrupt(_)) if has_index => {
            // What is under the key of the index is another app's. A transaction may have stored the session all the same.
            end(context, attempt, creation).await?;
            attempt.was_undone();
            Err(FOREIGN)
        }
        Err(error) => Err(error),
    }
}

pub async fn get(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    id: &SessionId,
) -> Result<Option<StoredSession>> {
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let make = |mode| get_request(Request::read(mode), &key);
    let replies = context.router.ask(attempt, &key, Effect::None, make).await?;
    let found = match interpret(Kind::Get, &replies) {
        Step::NotFound => None,
        Step::Found(value) => cipher.open_live(&member, value, &context.times)?,
        step => return Err(step.error()),
    };
    context.counters.looked_up(found.is_some());
    Ok(found)
}

/// Replaces a live session. It is left alone at first if it is another user's, as the new one's index must know it before,
/// or if its user's index has to be kept longer before.
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

/// Enters a live session into the index of the user that it is to have, then replaces it, and returns whether there is one;
/// `None` if it has changed since.
async fn replace_entered(
    context: &Context,
    attempt: &Attempt,
    change: &Change,
    member: &[u8],
    user: &UserField,
    expires: Expiry,
) -> Result<Option<bool>> {
    let key = &change.key;
    let get = |mode| Request::read(mode).command(&[b"GET", key]);
    let Reply::Bytes(old) = context.router.get_one(attempt, key, Effect::None, get).await? else {
        return Ok(Some(false));
    };
    let old = Record::parse(&old)?;
    if context.times.end(old.expires, old.created).is_past(context.times.now()) {
        return Ok(Some(false));
    }
    know_time(context, attempt, || key.clone()).await?;
    let until = context.times.index_end(old.created, expires);
    if old.user == user.json {
        prolong(context, attempt, user, member, until).await?;
        return replace(context, attempt, change, user, Some(old.created)).await;
    }
    let old_user = UserField { json: old.user.to_vec() };
    let (index, old_index) = (user.index(&context.names), old_user.index(&context.names));
    let entry = Entry { index: &index, member, version: context.times.stamp() };
    let new_entry = async {
        let entered = async || enter(context, attempt, &entry, until, Reentry::Renew).await;
        if user.is_nobody() { Ok(None) } else { entered().await.map(Some) }
    };
    let old_version = async {
        if old_user.is_nobody() { Ok(None) } else { version(context, attempt, &old_index, member).await }
    };
    let (entered, old_version) = try_join(new_entry, old_version).await?;
    let checked = context.options.user_limit().rejects_beyond();
    let checked = checked.filter(|_| !user.is_nobody() && !expires.is_past(context.times.now()));
    let replaced = match checked {
        Some(max) => give(context, attempt, change, (&old_user, old.created), (user, &entry), max).await,
        None => replace(context, attempt, change, &old_user, Some(old.created)).await,
    };
    if let Err(StoreError::TooManySessions { .. }) = replaced {
        forget(context, attempt, &entry).await;
    }
    let replaced = replaced?;
    if replaced == Some(true) {
        if let Some(index_len) = entered {
            // Whoever has seen the entry before the session was the user's may remove it.
            enter(context, attempt, &entry, until, Reentry::Renew).await?;
            Box::pin(keep_limit(context, attempt, user, member, index_len, None, expires)).await;
        }
        if let Some(version) = old_version
            && may_forget(context, version, old.created)
        {
            forget(context, attempt, &Entry { index: &old_index, member, version }).await;
        }
    }
    // If the session is not the user's, the entry is passed over, and removed when it is old enough.
    Ok(replaced)
}

pub async fn touch(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    id: &SessionId,
    expires: Expiry,
    enough: Option<Millis>,
) -> Result<bool> {
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let mut prolonged = None;
    loop {
        let make = |mode| {
            let prolonged = prolonged.as_deref();
            touch_request(Request::write(mode), &key, expires, enough, prolonged, &context.times)
        };
        let replies = context.router.ask(attempt, &key, Effect::Main, make).await?;
        match interpret(Kind::Touch, &replies) {
            Step::Number(touched) => return Ok(touched > 0),
            Step::OutlivesIndex => {
                attempt.changed_nothing();
                prolonged = Box::pin(prolong_for(context, attempt, &key, &member, expires)).await?;
            }
            step => return Err(step.error()),
        }
    }
}

/// Has the index of a session's user kept for as long as a session with this expiry needs. Returns what the session's
/// record says of its creation and user; `None` if there is no session any more.
async fn prolong_for(
    context: &Context,
    attempt: &Attempt,
    key: &[u8],
    member: &[u8],
    expires: Expiry,
) -> Result<Option<Vec<u8>>> {
    let get = |mode| get_request(Request::read(mode), key);
    let Reply::Bytes(value) = context.router.get_one(attempt, key, Effect::None, get).await? else {
        return Ok(None);
    };
    let record = Record::parse(&value)?;
    let (user, until) =
        (UserField { json: record.user.to_vec() }, context.times.index_end(record.created, expires));
    prolong(context, attempt, &user, member, until).await?;
    Ok(Some(record::owner(&value, &record).to_vec()))
}

/// Removes a session. Its entry follows, without being waited for: it is passed over until then.
pub async fn delete(context: &Rc<Context>, attempt: &Attempt, cipher: &Cipher, id: &SessionId) -> Result<()> {
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let make = |mode| delete_request(Request::write(mode), &key);
    let replies = context.router.ask(attempt, &key, Effect::Main, make).await?;
    match interpret(Kind::Delete, &replies) {
        Step::Number(_) => Ok(()),
        Step::Deleted(value) => {
            context.counters.deleted(id, || cipher.user_of(&member, value));
            if let Some(stale) = StaleEntry::of(member, value, &context.names) {
                forget_later(context, stale);
            }
            Ok(())
        }
        step => Err(step.error()),
    }
}

/// As [`replace`], where the session is to be of a user who may have no room for it. In a cluster the others' sessions are
/// on many nodes: they are looked at before.
async fn give(
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
        |mode| change.give(Request::write(mode), (old_user, created), (user, entry), max, &context.times);
    let replies = context.router.ask(attempt, &change.key, Effect::Main, make).await?;
    if interpret(Kind::Update, &replies) == Step::UserIsFull {
        attempt.changed_nothing();
        return Err(full);
    }
    replaced(attempt, &replies)
}

/// Replaces the session if it is live, and returns whether it is; `None` if it has to be entered before, or is of another
/// creation.
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

/// What the replies to a replacement say.
fn replaced(attempt: &Attempt, replies: &[Reply]) -> Result<Option<bool>> {
    match interpret(Kind::Update, replies) {
        Step::Number(found) => Ok(Some(found > 0)),
        Step::OtherUser | Step::OutlivesIndex => {
            attempt.changed_nothing();
            Ok(None)
        }
        step => Err(step.error()),
    }
}
